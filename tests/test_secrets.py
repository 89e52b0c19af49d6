"""The token's bytes are told nowhere: every fault once, debug logging on, then a look everywhere."""

import gzip
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl
from crawler.demo.site import DemoSite
from crawler.errors import CrawlerError
from crawler.frontier.work import Policy
from crawler.run.run import Limits
from crawler.store.opening import open_store
from tests.crawls import CALLERS, asking
from tests.everything import MET, SITE_VARIABLE, STOP, TOKEN, Everything
from tests.faulty_site import FaultySite, closed_port
from tests.function_process import FunctionProcess
from tests.storage_server import RoughWay, StorageServer

pytestmark = pytest.mark.once

MARK = b"MARKED-4711"


QUICK = Limits(
    policy=Policy(attempt_seconds=2.0, max_attempts=2, backoff_seconds=0.01),
    store_seconds=1.0,
    give_up_seconds=1.0,
)
"""Two seconds for an attempt, two tries at once, and a second for the store."""


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[bytes]]:
    """What was told so far; everything that is logged, at any level, is added at the end."""
    caplog.set_level(logging.DEBUG)
    things: list[bytes] = []
    yield things
    for record in caplog.records:
        things.append(repr(vars(record)).encode())
        things.append(caplog.handler.format(record).encode("utf-8", "backslashreplace"))
    assert [thing for thing in things if MARK in thing] == []


def contents(folder: Path) -> Iterator[bytes]:
    """Read every file of a store, its name too, and what is packed unpacked."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(folder)).encode()
            data = path.read_bytes()
            yield data
            if data.startswith(b"\x1f\x8b"):
                yield gzip.decompress(data)


def errors_of(error: BaseException) -> bytes:
    """Write an error as it may be shown: its text, its repr, its causes."""
    shown = "".join(traceback.format_exception(error))
    return f"{error} {error!r} {vars(error)!r} {shown}".encode("utf-8", "backslashreplace")


def test_G1_no_fault_of_a_site_makes_a_run_tell_the_token(
    told: list[bytes],
    tmp_path: Path,
    faulty_site: FaultySite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Logs, answer, blocks, run object and status files are all without it."""
    monkeypatch.setenv(SITE_VARIABLE, faulty_site.base_url)
    answer = crawl(
        0,
        STOP,
        store=str(tmp_path),
        base_url=faulty_site.base_url,
        token=TOKEN,
        function=Everything(),
        connections=8,  # right answers must not be late behind 63 others on a busy machine
        rate=0,
        limits=QUICK,
        time_budget_seconds=30,
    )
    met = {seen.path.split("/")[1] for seen in faulty_site.requests}
    assert {fault.partition(":")[0] for fault in MET} <= {name.partition(":")[0] for name in met}
    assert any(MARK in seen.headers["authorization"].encode() for seen in faulty_site.requests)
    assert answer.found >= len(MET) * 0.8
    told += [repr(answer).encode(), msgspec.json.encode(answer), *contents(tmp_path)]
    assert len(told) > 6


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("fault", ["echo:401", "echo:403", "status:401", "redirect-other-302"])
def test_G1_what_ends_a_run_is_told_without_the_token(
    caller: str, fault: str, told: list[bytes], tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The cause is named, what the site said of our header is not."""
    answer = crawl(
        0,
        20,
        store=str(tmp_path),
        base_url=faulty_site.url(fault),
        token=TOKEN,
        function=asking(caller, faulty_site.url(fault), TOKEN),
        rate=0,
        limits=QUICK,
    )
    assert not answer.complete
    told += [repr(answer).encode(), *contents(tmp_path)]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("certificate", ["expired", "other-host", "self-signed", "closed"])
def test_G1_a_site_that_cannot_be_reached_does_not_get_the_token_told(
    caller: str, certificate: str, told: list[bytes], tmp_path: Path, faulty_site_tls: FaultySite
) -> None:
    """Neither a wrong certificate nor a closed port shows what would have been sent."""
    with closed_port() as port:
        is_closed, refused = certificate == "closed", f"http://127.0.0.1:{port}"
        url = refused if is_closed else faulty_site_tls.url(certificate)
        answer = crawl(
            0,
            20,
            store=str(tmp_path),
            base_url=url,
            token=TOKEN,
            function=asking(caller, url, TOKEN),
            rate=0,
            limits=QUICK,
            ca_file=str(faulty_site_tls.ca_path),
        )
    assert answer.found == 0
    told += [repr(answer).encode(), *contents(tmp_path)]


@pytest.mark.parametrize("fault", [401, 403, 404, 412, 503, "lose"])
@pytest.mark.parametrize("passed", [0, 8])
def test_G1_no_fault_of_the_store_makes_a_run_tell_the_token(
    fault: int | str,
    passed: int,
    told: list[bytes],
    storage_server: StorageServer,
    bucket_url: str,
    demo_site: DemoSite,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the first request or in mid-run: errors and objects are without it."""
    with RoughWay(storage_server) as way, DemoSite(token=TOKEN) as site:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", way.url)
        way.faults = [*[None] * passed]
        way.fault_for_ever = None if passed else fault
        if passed:
            way.faults += [fault] * 4
        try:
            where = {"store": bucket_url, "base_url": site.base_url, "token": TOKEN}
            answer = crawl(0, 50, rate=0, limits=QUICK, **where)
            told.append(repr(answer).encode())
        except CrawlerError as error:
            told.append(errors_of(error))
        way.faults, way.fault_for_ever = [], None
        store = open_store(bucket_url)
        for name in store.list_names("", timeout=20):
            stored = store.read(name, timeout=20)
            assert stored is not None
            told += [name.encode(), stored.data]
    assert told


DEBUGGING = """
import logging
logging.getLogger().setLevel(logging.DEBUG)
from main import crawl_songs
"""


def test_G1_the_function_tells_the_token_to_nobody(tmp_path: Path, faulty_site: FaultySite) -> None:
    """With debug logging, over every fault and every page it has: answers, log and store."""
    source, store = tmp_path / "function.py", tmp_path / "store"
    source.write_text(DEBUGGING)
    environ = {
        "GENIUS_TOKEN": TOKEN,
        "CRAWLER_BASE_URL": faulty_site.base_url,
        "CRAWLER_STORE": str(store),
        "CRAWLER_FUNCTION": "tests.everything:Everything",
        "CRAWLER_RATE": "0",
        "CRAWLER_TIME_BUDGET_SECONDS": "2",  # what trickles is asked again and again
        SITE_VARIABLE: faulty_site.base_url,
        "K_SERVICE": "songs",
    }
    with FunctionProcess(environ, source=source) as function:
        crawled = function.post(f'{{"start": 0, "stop": {STOP}}}'.encode())
        replies = [
            crawled,
            function.ask("/status"),
            function.ask("/status", headers={"Accept": "text/html"}),
            function.ask("/health"),
            function.ask("/nowhere"),
            function.ask("/?start=x&stop=1"),
            function.post(b"{"),
        ]
        log = function.log()
    assert crawled.status == 200
    assert {"DEBUG", "INFO"} <= {line.get("severity") for line in _lines(log)}
    told = [log.encode(), *contents(store)]
    told += [reply.body + repr(reply.headers).encode() for reply in replies]
    assert [thing for thing in told if MARK in thing] == []


def _lines(log: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in log.splitlines() if line.startswith("{")]


def test_G1_the_look_sees_what_is_told(tmp_path: Path) -> None:
    """A look that could not find it would show nothing: it sees into packed files, too."""
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 100 + TOKEN.encode()))
    assert any(MARK in thing for thing in contents(tmp_path))
    assert MARK in errors_of(ValueError(TOKEN))
