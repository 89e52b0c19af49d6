"""Where it runs: terminals that cannot show every letter, narrow ones, closed ones, pipes that close."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from crawler.demo.site import DemoSite
from crawler.store.folder import FolderStore
from tests.records import expected_info
from tests.stores import every_outcome, fill
from tests.test_cli import environment

ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "c-locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}

COMMANDS = {
    "crawl": "crawl 1 21 --store lied-é-王 --rate 0",
    "crawl-json": "crawl 1 21 --store lied-é-王 --rate 0 --json",
    "status": "status --store voll-é-王",
    "status-json": "status --store voll-é-王 --json",
    "verify": "verify 0 5 --store voll-é-王",
    "stop": "stop --store voll-é-王",
    "export": "export lieder-é-王.jsonl --store voll-é-王",
    "export-json": "export lieder-é-王.jsonl --store voll-é-王 --json",
    "doctor": "doctor --store lied-é-王",
    "sources": "sources",
    "an error": "verify 1 2 --store gs://é",
    "help": "crawl --help",
}


def run(folder: Path, command: str, environ: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Run a command line; returns exit code, stdout and stderr as bytes."""
    done = subprocess.run(
        [sys.executable, "-m", "crawler", *command.split()],
        cwd=folder,
        env=environ,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A folder with a store whose name not every terminal can show."""
    fill(FolderStore(tmp_path / "voll-é-王"), every_outcome())
    return tmp_path


def encodings_of(names: Iterable[str]) -> list[Any]:
    """Pair each command with one encoding in turn; with the others where there is more time."""
    encodings = list(ENCODINGS)
    pairs = []
    for place, name in enumerate(names):
        one = encodings[place % len(encodings)]
        others = [encoding for encoding in encodings if encoding != one]
        pairs += [(name, [one]), pytest.param(name, others, marks=pytest.mark.once)]
    return pairs


@pytest.mark.parametrize(("name", "encodings"), encodings_of(COMMANDS))
def test_H1_a_command_says_what_it_has_to_say_whatever_the_encoding(
    name: str, encodings: list[str], prepared: Path, demo_site: DemoSite
):
    """The exit code is that of a terminal that shows all; what cannot be shown is escaped."""
    environ = environment(demo_site)
    wanted, plain, _ = run(prepared, COMMANDS[name], environ | {"PYTHONUTF8": "1"})
    for encoding in encodings:
        code, out, err = run(prepared, COMMANDS[name], environ | ENCODINGS[encoding])
        assert code == wanted, err
        assert b"Traceback" not in err
        assert len(out.splitlines()) == len(plain.splitlines())
        if name.endswith("json"):
            assert json.loads(out)


def test_H1_titles_are_escaped_where_they_cannot_be_shown(tmp_path: Path):
    """The demo prints titles in many scripts, on a terminal of any kind."""
    environ = environment() | ENCODINGS["ascii"]
    code, out, err = run(tmp_path, "demo --rate 0 --store s", environ)
    assert (code, err) == (0, b"")
    shown = [num for num in range(1, 2001) if expected_info(num)][:3]
    assert all(b"  (%d, {" % num in out for num in shown)


@pytest.mark.parametrize("command", ["crawl", "status", "export", "demo", "doctor"])
def test_H1_forty_columns_are_enough(command: str, tmp_path: Path):
    """Help is folded to the terminal, and nothing fails for want of room."""
    code, out, err = run(tmp_path, f"{command} --help", environment(COLUMNS="40"))
    assert (code, err) == (0, b"")
    assert out.startswith(b"usage:")


CLOSED = ["<&-", ">&-", "2>&-", ">&- 2>&-", "| head -c 1"]
CODES = {"crawl": 0, "status": 0, "verify": 3, "export": 0, "doctor": 0}


def closed_of(codes: dict[str, int]) -> list[Any]:
    """Pair a crawl with every way to be closed, each other command with one; the rest takes time."""
    pairs = []
    for place, name in enumerate(codes):
        for turn, closed in enumerate(CLOSED):
            is_quick = name == "crawl" or turn == place
            pairs.append(
                (name, closed) if is_quick else pytest.param(name, closed, marks=pytest.mark.once)
            )
    return pairs


@pytest.mark.parametrize(("name", "closed"), closed_of(CODES))
def test_H1_streams_may_be_closed(name: str, closed: str, prepared: Path, demo_site: DemoSite):
    """The exit code is as without, but where a pipe closed before all was said."""
    line = f"{sys.executable} -m crawler {COMMANDS[name]} {closed}"
    line += "; exit ${PIPESTATUS[0]}"
    done: Any = subprocess.run(
        ["bash", "-c", line],
        cwd=prepared,
        env=environment(demo_site) | {"PYTHONUTF8": "1"},
        capture_output=True,
        check=False,
    )
    wanted = CODES[name]
    assert done.returncode in ({wanted, 141} if "|" in closed else {wanted}), done.stderr
    assert b"Traceback" not in done.stderr
