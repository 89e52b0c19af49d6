"""The worked example: another numbered site, of web pages, crawled with a step 1 of one's own."""

import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crawler import Missing, crawl, read
from crawler.errors import PageError
from crawler.run.store_index import StoreIndex
from crawler.store.folder import FolderStore
from tests.crawls import CALLERS, Crawl
from tests.function_process import FunctionProcess

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "museum"
TARGETS = ("museum:MuseumPages", "museum:request_object")
LAST = 120
STEP_1 = (ROOT / "docs" / "step1.md").read_text(encoding="utf-8")


def page_of(num: int) -> tuple[int, str]:
    """Make a museum's page: some are gone, some say so with 200, some are a captcha."""
    if num % 10 == 3 or num > LAST:
        return 404, "<p>Gone"
    if num % 10 == 7:
        return 200, "<!doctype html><div class='no-such-object'>We have no such object.</div>"
    if num % 50 == 11:
        return 200, "<!doctype html><title>One moment</title><p>Are you a robot?"
    shown = num + 1 if num % 50 == 21 else num
    return 200, (
        f"<!doctype html><link rel=canonical href=https://museum.example/objects/{shown}>"
        f"<h1 class=title>Vase &amp; lid <i>N° {num}</i></h1><p class='about maker'> Ann </p>"
        f"<span class=dated>about {1500 + num}</span><ul class=materials><li>clay<li>gold</ul>"
    )


def outcome_of(num: int) -> str:
    """What a right record of such a page says."""
    status, page = page_of(num)
    if status == 404 or "no-such-object" in page:
        return "missing"
    return "failed" if "robot" in page or num % 50 == 21 else "found"


class Pages(BaseHTTPRequestHandler):
    """Answers `/objects/{n}`, and 404 to all else, robots.txt included."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for the client

    def do_GET(self) -> None:
        """Answer one request."""
        kind, _, num = self.path.removeprefix("/").partition("/")
        status, page = page_of(int(num)) if kind == "objects" else (404, "")
        body = page.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def museum() -> Iterator[str]:
    """A museum's site on loopback; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, museum: str) -> Any:
    """The example's module, imported as a deployment does."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv("CRAWLER_BASE_URL", museum)
    return importlib.import_module("museum")


def test_a_page_becomes_an_info(example):
    """The text as a browser shows it; the first year of a vague date; lists as lists."""
    assert example.read_object(5, page_of(5)[1].encode()) == {
        "title": "Vase & lid N° 5",
        "maker": "Ann",
        "year": 1505,
        "materials": ["clay", "gold"],
    }


@pytest.mark.parametrize(
    ("num", "error"),
    [(7, Missing), (11, PageError), (21, PageError)],
    ids=["says-no", "captcha", "another"],
)
def test_a_page_that_is_not_the_objects_is_no_info(example, num, error):
    """A 200 is not believed blindly."""
    with pytest.raises(error):
        example.read_object(num, page_of(num)[1].encode())


@pytest.mark.parametrize("target", ["source", "function"])
def test_a_crawl_stores_what_the_pages_say(example, museum: str, tmp_path: Path, target):
    """As a source, or as a step 1 function: the same records."""
    answer = crawl(
        1,
        11,
        function=example.MuseumPages(museum) if target == "source" else example.request_object,
        store=str(tmp_path),
        base_url=museum,
        rate=0,
    )
    assert (answer.found, answer.missing, answer.failed) == (8, 2, 0)
    found = [num for num in range(1, 11) if outcome_of(num) == "found"]
    assert dict(read(str(tmp_path))) == {
        num: example.read_object(num, page_of(num)[1].encode()) for num in found
    }


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_line_crawls_with_a_module_of_the_working_directory(
    museum: str, tmp_path: Path, target
):
    """`CRAWLER_FUNCTION=module:name`, found where the command is called; then `verify` proves it."""
    shutil.copy(EXAMPLE / "museum.py", tmp_path)
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "CRAWLER_BASE_URL": museum,
        "CRAWLER_FUNCTION": target,
        "CRAWLER_STORE": "data/museum",
    }

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "crawler", *command],
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    crawled = run("crawl", "1", "11", "--rate", "0", "--json")
    assert crawled.returncode == 0, crawled.stderr
    assert json.loads(crawled.stdout)["found"] == 8
    assert run("verify", "1", "11").returncode == 0
    assert run("doctor").returncode == 0


def test_the_commands_of_its_readme_run_in_a_clone(museum: str, tmp_path: Path):
    """As they stand there, but for the packages, which the tests have, and the address."""
    for name in ("crawler", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = block[1].replace("https://museum.example", museum).splitlines()
    setting_up = (". .venv/bin/activate", "pip install -r examples/museum/requirements.txt")
    assert tuple(lines[:2]) == setting_up
    commands = "\n".join(lines[2:]).replace("1 1001 --rate 2", "1 11 --rate 0")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(["sh", "-ec", commands], cwd=tmp_path, env={"PATH": path}, check=True)
    assert len((tmp_path / "objects.jsonl").read_bytes().splitlines()) == 10


@pytest.mark.parametrize("target", TARGETS)
def test_the_function_crawls_with_a_module_beside_it(museum: str, tmp_path: Path, target):
    """In the real functions-framework: the museum instead of songs, nothing else changed."""
    for path in (ROOT / "main.py", EXAMPLE / "museum.py"):
        shutil.copy(path, tmp_path)
    store = tmp_path / "store"
    environ = {
        "CRAWLER_BASE_URL": museum,
        "CRAWLER_FUNCTION": target,
        "CRAWLER_STORE": str(store),
        "CRAWLER_RATE": "0",
    }
    with FunctionProcess(environ, source=tmp_path / "main.py") as function:
        answer = function.post(json.dumps({"start": 1, "stop": 11}).encode()).json()
    assert (answer["found"], answer["missing"], answer["complete"]) == (8, 2, True)
    records = StoreIndex(FolderStore(store), "museum", 0, 100).read(0)
    assert {num: r.outcome for num, r in records.items()} == {
        n: outcome_of(n) for n in range(1, 11)
    }


@pytest.mark.parametrize("caller", CALLERS)
def test_what_fails_says_why_in_its_record(example, museum: str, caller):
    """A captcha and another object's page: failed, with the kind, never found."""
    crawled = Crawl(museum, (11, 21), caller=caller, function=example.MuseumPages(museum))
    assert crawled.kinds == {11: "schema", 21: "mismatch"}
    assert set(crawled.outcomes.values()) == {"failed"}


def test_the_page_on_step_1_shows_the_example_s_and_how_to_run_it(example):
    """The function is the file's; the commands are the example's own, with its name in them."""
    assert f"```python\n{inspect.getsource(example.request_object)}```" in STEP_1
    page = (EXAMPLE / "README.md").read_text(encoding="utf-8").replace(*TARGETS)
    [commands] = re.findall(r"```sh\n([^`]*museum:request_object[^`]*)```", STEP_1)
    assert commands.splitlines()[-1].startswith("python -m crawler crawl ")
    assert set(commands.splitlines()) <= set(page.splitlines())
