"""The built artifact: what is uploaded, in a clean environment, is the whole function."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crawler.demo.site import DemoSite
from crawler.deployment.upload import fingerprint, stage
from crawler.errors import SettingsError
from tests.function_process import FunctionProcess
from tests.recording_gcp import gcloud_is_here

ROOT = Path(__file__).parent.parent
PEOPLE = ("cli", "demo", "deployment", "doctor", "exports")
"""Folders of the package that the function needs none of."""

pytestmark = [
    pytest.mark.timeout(600),  # a whole environment is installed
    pytest.mark.once,
]


def listed(folder: Path) -> list[str]:
    """Name the files that gcloud would upload; where it is missing, those that it is told to."""
    if not gcloud_is_here():
        package = (p.relative_to(folder) for p in (folder / "crawler").rglob("*") if p.is_file())
        people = {"__main__.py", *PEOPLE}
        names = [p.as_posix() for p in package if p.parts[1] not in people]
        names = [name for name in names if "__pycache__" not in name]
        return ["main.py", "requirements.txt", *names]
    done = subprocess.run(
        ["gcloud", "meta", "list-files-for-upload", "."],
        cwd=folder,
        env=os.environ | {"CLOUDSDK_CONFIG": str(folder / "build/gcloud")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is in the repository, with the litter of a used clone."""
    folder = tmp_path / "clone"
    (folder / "build").mkdir(parents=True)
    for name in ("main.py", "requirements.txt", ".gcloudignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "crawler", folder / "crawler")
    for name in ("tests/test_x.py", "crawler.env", "data/demo/songs/1.gz", ".git/HEAD", "own.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x = 1\n")
    return folder


def test_what_is_uploaded_is_the_function_and_nothing_else(clone):
    """An allow-list lets through main.py, requirements.txt and the package without its caches."""
    names = listed(clone)
    assert {name for name in names if not name.startswith("crawler/")} == {
        "main.py",
        "requirements.txt",
    }
    assert "crawler/run/crawl.py" in names
    assert not [name for name in names if name.split("/")[1:2] and name.split("/")[1] in PEOPLE]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_function_runs_where_nothing_else_is_installed(clone, tmp_path):
    """requirements.txt alone, in a fresh environment, and the uploaded files crawl the site."""
    upload, python = tmp_path / "upload", tmp_path / "venv/bin/python"
    stage(listed(clone), clone, upload)
    install(tmp_path / "venv", upload / "requirements.txt")
    with DemoSite() as site:
        environ = {
            "GENIUS_TOKEN": site.token,
            "CRAWLER_BASE_URL": site.base_url,
            "CRAWLER_STORE": str(tmp_path / "store"),
            "CRAWLER_RATE": "0",
            "PYTHONPATH": str(upload),
        }
        source = upload / "main.py"
        with FunctionProcess(environ, source=source, python=python) as function:
            reply = function.post(b'{"start": 1, "stop": 501}')
            page = function.ask("/status", headers={"Accept": "text/html"})
    answer = reply.json()
    settled = answer["found"] + answer["missing"]
    assert (reply.status, answer["complete"], settled, answer["failed"]) == (200, True, 500, 0)
    assert page.status == 200
    assert b"<html" in page.body


def install(venv: Path, requirements: Path) -> None:
    """Make an environment with what the lock says, hashes checked, and nothing else."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    no_pip = ["--without-pip"] if uv else []
    subprocess.run([sys.executable, "-m", "venv", *no_pip, venv], check=True)
    pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check", "install"]
    tool = [uv, "pip", "install", "--python", venv] if uv else pip
    subprocess.run([*tool, "--quiet", "--require-hashes", "-r", requirements], check=True)


def test_a_module_of_the_users_own_is_uploaded_too(clone, tmp_path):
    """A file or a package lies beside main.py, where it is imported from."""
    stage(["main.py", "requirements.txt"], clone, tmp_path / "one", function="own:fetch")
    assert (tmp_path / "one/own.py").is_file()
    (clone / "mine").mkdir()
    (clone / "mine/__init__.py").write_text("")
    (clone / "mine/fetch.py").write_text("x = 1")
    stage(["main.py"], clone, tmp_path / "two", function="mine.fetch:get")
    assert (tmp_path / "two/mine/fetch.py").is_file()


def test_its_requirements_are_added_to_the_lock(clone, tmp_path):
    """The lock keeps its pins and loses its hashes, since pip wants all or none."""
    own = tmp_path / "own.txt"
    own.write_text("beautifulsoup4==4.14.2\n")
    stage(["requirements.txt"], clone, tmp_path / "out", requirements=own)
    lines = (tmp_path / "out/requirements.txt").read_text().splitlines()
    locked = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line.split()[0] for line in locked if line[:1].isalnum()]
    assert [line.split()[0] for line in lines if "==" in line] == [*pins, "beautifulsoup4==4.14.2"]
    assert not [line for line in lines if "--hash" in line or line.endswith("\\")]


def test_a_module_that_is_not_there_is_named(clone, tmp_path):
    """So is a file of requirements; nothing else was copied by then that anybody would use."""
    with pytest.raises(SettingsError, match="FUNCTION=gone:fetch"):
        stage(["main.py"], clone, tmp_path / "out", function="gone:fetch")
    with pytest.raises(SettingsError, match="FUNCTION_REQUIREMENTS="):
        stage(["main.py"], clone, tmp_path / "out", requirements=tmp_path / "gone.txt")


def test_the_fingerprint_tells_content_names_and_settings(tmp_path):
    """The same files give the same one, whatever lay there before; any change gives another."""
    (tmp_path / "a").write_text("1")
    first = fingerprint(tmp_path, "RATE=1")
    assert fingerprint(tmp_path, "RATE=1") == first
    assert fingerprint(tmp_path, "RATE=2") != first
    (tmp_path / "a").write_text("2")
    changed = fingerprint(tmp_path, "RATE=1")
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, changed, fingerprint(tmp_path, "RATE=1")}) == 3


def test_the_lock_holds_every_package_with_its_hashes():
    """Each line of requirements.in is locked, and each locked package has a hash."""
    locked = (ROOT / "requirements.txt").read_text()
    listed_ones = [
        line.split("#")[0].split(";")[0].split(">")[0].strip()
        for line in (ROOT / "requirements.in").read_text().splitlines()
    ]
    for name in filter(None, listed_ones):
        assert f"\n{name}==" in locked, name
    packages = [block for block in locked.split("\n") if block[:1].isalnum()]
    assert len(packages) > 20
    assert all(line.endswith("\\") for line in packages)


def test_the_bill_of_materials_lists_what_is_locked(tmp_path):
    """`make sbom` writes CycloneDX JSON with every package of the lock."""
    tool = Path(sys.executable).with_name("cyclonedx-py")
    if not tool.exists():
        pytest.skip("cyclonedx-py is missing: make sbom installs it")
    out = tmp_path / "sbom.json"
    subprocess.run([tool, "requirements", ROOT / "requirements.txt", "-o", out], check=True)
    found = json.loads(out.read_text())
    assert found["bomFormat"] == "CycloneDX"
    names = {component["name"] for component in found["components"]}
    assert {"google-cloud-storage", "requests", "urllib3"} <= names
