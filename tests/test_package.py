"""The package: installed by pip alone it brings the command line and the demo, without make."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from crawler.version import VERSION

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
PARTS = ("pyproject.toml", "README.md", "LICENSE", "requirements.in", "main.py")


def run(*command: object, folder: Path, seconds: float = 90) -> str:
    """Run a program away from the clone, without our settings; give what it printed."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CRAWLER_", "GENIUS_", "PYTHONPATH"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(folder: Path) -> Path:
    """Install the package into an environment of its own; gives the folder of its commands.

    What it depends on is lent by this environment, so that no registry is asked.
    """
    copy = folder / "copy"
    copy.mkdir()
    for name in PARTS:
        shutil.copy(ROOT / name, copy)
    shutil.copytree(
        ROOT / "crawler", copy / "crawler", ignore=shutil.ignore_patterns("__pycache__")
    )
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", folder=folder)
    commands = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    there = run(
        commands / "python",
        "-c",
        "import sysconfig; print(sysconfig.get_path('purelib'))",
        folder=folder,
    )
    Path(there.strip(), "lent.pth").write_text(lent)
    pip = (sys.executable, "-m", "pip", "--python", commands / "python", "install", "--quiet")
    run(*pip, "--no-deps", "--no-build-isolation", "--no-index", copy, folder=folder)
    return commands


def test_pip_install_brings_the_command_line_and_the_demo(tmp_path: Path):
    """`song-crawler` runs anywhere; `song-crawler demo` does what `make run` does, then `export`.

    One test, since the installation takes its seconds.
    """
    commands = install(tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    song_crawler = commands / "song-crawler"
    assert run(song_crawler, "--version", folder=away) == f"song-crawler {VERSION}\n"
    where = run(
        commands / "python", "-c", "import crawler; print(crawler.__file__)", folder=away
    ).strip()
    assert Path(where).is_relative_to(tmp_path / "env")
    answer = json.loads(run(song_crawler, "demo", "--json", "--rate", "0", folder=away))
    assert (answer["found"] + answer["missing"], answer["complete"]) == (2000, True)
    assert "Proven" in run(song_crawler, "verify", "1", "2001", "--store", "data/demo", folder=away)
    run(song_crawler, "export", "songs.jsonl", "--store", "data/demo", folder=away)
    assert (away / "songs.jsonl").read_bytes().count(b"\n") == 2000


@pytest.fixture
def project() -> dict:
    """What pyproject.toml says of the package."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_the_function_stays_lean(project):
    """What only a notebook or an export needs is an extra, and in no list of the function."""
    extras = {name for names in project["optional-dependencies"].values() for name in names}
    deployed = (ROOT / "requirements.txt").read_text("utf-8")
    assert extras >= {"pandas", "pyarrow"}
    assert [name for name in extras if f"\n{name}==" in deployed] == []
