"""Every shell block of README.md and of pages in docs/ is run as it is written there, in bash.

What a row of `EXAMPLES` replaces is all that is changed: placeholders, addresses, and paces at
which a test would take minutes. A block without a row fails, so none is passed over.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

from crawler.demo.site import DemoSite
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store
from tests.deploying import clone
from tests.function_process import FunctionProcess
from tests.recording_gcp import RecordingGcp, gcloud_is_here
from tests.storage_server import StorageServer
from tests.stores import every_outcome, fill
from tests.test_example import EXAMPLE, LAST, Pages, outcome_of
from tests.warm_gcloud import warm_gcloud

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/answer.md", "docs/exports.md", "docs/step1.md")
PYTHON = re.escape("$(BIN)/python")

pytestmark = [
    pytest.mark.once,  # the commands behind them have tests of their own on every Python
    pytest.mark.timeout(600),  # a deployment is fifty commands
]

Stage = Callable[[Path], AbstractContextManager[Mapping[str, str]]]


def shell_blocks() -> list[str]:
    """Give the shell blocks of all pages, each once, in their order."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    found = [
        re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", text, re.DOTALL) for text in texts
    ]
    return list(dict.fromkeys(code for codes in found for code in codes))


def recipe(target: str) -> str:
    """Give the command that `make` runs for a target, with this Python."""
    lines = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n\t@{PYTHON} (.*)$", lines, re.MULTILINE)
    assert found
    return f"python {found[1].replace('$(ARGS)', '')}"


def bash(code: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Run a block as a person does who has activated the environment; the first failure ends it."""
    ours = ("CRAWLER_", "GENIUS_", "K_SERVICE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=kept | {"PATH": path, "PYTHONPATH": str(ROOT)} | dict(environ),
        input="a-token\n",  # deploy.sh reads one
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@contextmanager
def bare(_: Path) -> Iterator[Mapping[str, str]]:
    """Nothing is there yet."""
    yield {}


@contextmanager
def site(_: Path) -> Iterator[Mapping[str, str]]:
    """The embedded site in the place of the real one."""
    with DemoSite() as songs:
        yield {"CRAWLER_BASE_URL": songs.base_url, "token": songs.token}


@contextmanager
def crawled(folder: Path) -> Iterator[Mapping[str, str]]:
    """A store with songs and what the site sent, and the site still there."""
    with DemoSite() as songs:
        environ = {"CRAWLER_BASE_URL": songs.base_url, "GENIUS_TOKEN": songs.token}
        keep = {"CRAWLER_KEEP_RAW": "1"}
        bash("python -m crawler crawl 1 301 --rate 0", folder, environ | keep)
        yield environ


@contextmanager
def served(folder: Path) -> Iterator[Mapping[str, str]]:
    """The function over the embedded site, as `make serve` starts them."""
    with DemoSite() as songs:
        environ = {"CRAWLER_BASE_URL": songs.base_url, "GENIUS_TOKEN": songs.token}
        environ |= {"CRAWLER_STORE": str(folder / "songs"), "CRAWLER_LAST_SONG": "2200"}
        with FunctionProcess(environ | {"CRAWLER_RATE": "1000"}) as function:
            yield {"port": str(function.port)}


@contextmanager
def stored(folder: Path) -> Iterator[Mapping[str, str]]:
    """A store in a folder, and one in a bucket."""
    fill(FolderStore(folder / "data" / "demo"), every_outcome())
    with StorageServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        server.make_bucket("my-bucket")
        fill(open_store("gs://my-bucket/genius"), every_outcome())
        yield {}


class SoundPages(Pages):
    """The museum of the worked example, without the pages that fail."""

    def do_GET(self) -> None:
        """Answer one request; what would fail, or is beyond the last object, is gone."""
        num = int(self.path.rpartition("/")[2]) if self.path.startswith("/objects/") else 0
        if num > LAST or outcome_of(num) == "failed":
            self.path = "/objects/3"
        super().do_GET()


@contextmanager
def museum(folder: Path) -> Iterator[Mapping[str, str]]:
    """The museum's site, and the example's module in the working directory."""
    shutil.copy(EXAMPLE / "museum.py", folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), SoundPages) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield {"address": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


@contextmanager
def cloud(folder: Path) -> Iterator[Mapping[str, str]]:
    """A clone, the genuine gcloud, and a server that records what it would do to a project."""
    if not gcloud_is_here():
        pytest.skip("gcloud is missing: deploy.sh was not run")
    clone(folder)
    with RecordingGcp() as gcp, warm_gcloud(folder / "build" / "bin") as warm:
        path = f"{warm}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        yield gcp.environment(folder / "build" / "config") | {
            "PATH": path,
            "PYTHON": sys.executable,
        }


class Example(NamedTuple):
    """How a block is run.

    Attributes:
        begins: The block's first line, up to where it tells blocks apart.
        stage: What is there before; gives the environment, and values for `replaced`.
        shows: Words that come out.
        leaves: Files that are there afterwards.
        replaced: All that is changed in the text: what is written, and what is run instead.
        checked: Where it cannot be run here: why. Its words are then looked at alone.
    """

    begins: str
    stage: Stage = bare
    shows: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    replaced: Mapping[str, str] = {}
    checked: str = ""


EXAMPLES = (
    Example(
        "make run",
        shows=('"complete": true', "(1, {"),
        leaves=("data/demo/songs/000000000000.jsonl.gz",),
        replaced={"make run": recipe("run")},  # without setting up the environment we are in
    ),
    Example(
        "export GENIUS_TOKEN=...",
        site,
        shows=("Complete: every number is settled.", "songs 1 to 2000 in 3 blocks"),
        replaced={"GENIUS_TOKEN=...": "GENIUS_TOKEN={token}", "--rate 5": "--rate 0"},
    ),
    Example(
        "FUNCTION=",
        served,
        shows=('"stop":2001', '"mode":"next"'),
        replaced={"PORT": "{port}"},
    ),
    Example("bq mk", checked="the service behind bq cannot be had here"),
    Example(
        "export CRAWLER_BASE_URL=https://museum.example",
        museum,
        shows=("Complete: every number is settled.",),
        leaves=("data/museum/songs/000000000000.jsonl.gz",),
        replaced={"https://museum.example": "{address}", "--rate 2": "--rate 0"},
    ),
    Example(
        "PROJECT_ID=my-project", cloud, shows=("gcloud run deploy", "Done. The first run comes")
    ),
    Example(
        "python -m crawler export songs.parquet --store",
        stored,
        leaves=("songs.parquet", "songs.csv", "songs.jsonl"),
    ),
    Example(
        "CRAWLER_FIELDS=",
        crawled,
        leaves=("data/genius-rebuilt/songs/000000000000.jsonl.gz",),
    ),
)


def example_of(code: str) -> Example:
    """Find the row of a block."""
    rows = [row for row in EXAMPLES if code.startswith(row.begins)]
    assert len(rows) == 1, f"one row of EXAMPLES must say how this is run:\n{code}"
    return rows[0]


def test_every_block_has_a_row():
    """None is passed over, and no row is left of a block that is gone."""
    rows = [example_of(code) for code in shell_blocks()]
    assert sorted(row.begins for row in rows) == sorted(row.begins for row in EXAMPLES)


@pytest.mark.parametrize(
    "row", [row for row in EXAMPLES if not row.checked], ids=lambda r: r.begins
)
def test_a_block_runs_as_written(row, tmp_path):
    """Each of its commands succeeds, says what it is to say and leaves what it is to leave."""
    [code] = [code for code in shell_blocks() if example_of(code) is row]
    with row.stage(tmp_path) as values:
        for written, instead in row.replaced.items():
            assert written in code
            code = code.replace(written, instead.format_map(values))
        said = bash(code, tmp_path, {n: v for n, v in values.items() if n.isupper()})
    assert [words for words in row.shows if words not in said] == [], said
    assert [name for name in row.leaves if not (tmp_path / name).exists()] == []


def test_the_commands_of_bigquery_name_what_is_there():
    """They are not run: their words are whole, their flags are bq's own, their schema is a file."""
    [code] = [code for code in shell_blocks() if example_of(code).checked]
    make, query = [shlex.split(line) for line in code.splitlines()]
    assert (make[:2], query[:2]) == (["bq", "mk"], ["bq", "query"])
    schema = make[3].partition("=")[2].partition("@")[0]
    assert json.loads((ROOT / schema).read_text(encoding="utf-8"))[0]["name"] == "song_num"
    if shutil.which("bq"):
        for words in (make, query):
            asked = subprocess.run(["bq", "help", words[1]], capture_output=True, check=False)
            told = asked.stdout.decode()
            for flag in (word[2:].partition("=")[0] for word in words if word.startswith("--")):
                assert re.search(rf"--(\[no\])?{flag}\b", told), flag
