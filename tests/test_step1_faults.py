"""What a step 1 function of somebody's own can do wrong, met by whole crawls into a store."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import requests
from requests.auth import HTTPDigestAuth

from crawler import Missing, crawl
from crawler.answer import why_not_complete
from crawler.frontier.work import Policy
from crawler.record import Record
from crawler.run.run import Limits
from crawler.steps import execute_async_event_loop
from crawler.store.block import block_name, decode_block
from tests.crawls import CALLERS, ROOT, asking, nothing_left_behind, run_python
from tests.faulty_site import FaultySite
from tests.records import expected_info

BAD = 7
"""The number that the function treats wrongly; all others it treats well."""

Step1 = Callable[[Any, int, list[Any]], Any]


IMPATIENT = Limits(policy=Policy(backoff_seconds=0.01))
"""Tries again at once: what is tried again is the point, not how long that takes."""


def records_of(folder: Path) -> dict[int, Record]:
    """Read the first block."""
    name = block_name(0)
    return decode_block((folder / name).read_bytes(), name)


def fill(folder: Path, site: FaultySite, function: Any, stop: int = 30, **options: Any) -> Any:
    """Crawl a few numbers with a function."""
    given: dict[str, Any] = {"store": str(folder), "base_url": site.base_url, "rate": 0}
    given["limits"] = IMPATIENT
    return crawl(0, stop, function=function, connections=4, **given | options)


def good(base_url: str) -> Step1:
    """Make a function without faults."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        answer = session.get(f"{base_url}/songs/{song_num}")
        if answer.status_code == 200:
            song_urls.append((song_num, answer.json()["response"]["song"]["title"]))

    return step1


def raises(_session: Any, _num: int, _urls: list[Any]) -> None:
    """Divide by zero."""
    _ = 1 / 0


def leaves(_session: Any, _num: int, _urls: list[Any]) -> None:
    """Try to end the whole program."""
    raise SystemExit("enough")


def does_nothing(_session: Any, _num: int, _urls: list[Any]) -> None:
    """Return at once."""


def appends_another(_session: Any, num: int, urls: list[Any]) -> None:
    """Append another number's tuple."""
    urls.append((num + 1, "not mine"))


def appends_no_tuple(_session: Any, num: int, urls: list[Any]) -> None:
    """Append a string."""
    urls.append(str(num))


def appends_unstorable(_session: Any, num: int, urls: list[Any]) -> None:
    """Append what no JSON can hold."""
    urls.append((num, threading.Lock()))


@pytest.mark.parametrize(
    "misbehave",
    [raises, leaves, does_nothing, appends_another, appends_no_tuple, appends_unstorable],
    ids=lambda function: function.__name__,
)
def test_F5_a_function_that_misbehaves_costs_its_own_number(
    misbehave: Step1, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The number fails as `function`, all others are settled, and the run ends."""
    right = good(faulty_site.url("right"))

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        (misbehave if song_num == BAD else right)(session, song_num, song_urls)

    answer = fill(tmp_path, faulty_site, step1)
    records = records_of(tmp_path)
    assert (answer.stopped_by, answer.failed, answer.complete) == ("done", 1, False)
    assert (records[BAD].outcome, records[BAD].error) == ("failed", "function")
    for num in set(range(30)) - {BAD}:
        assert records[num].outcome == ("found" if expected_info(num) else "missing")


def test_F5_a_function_that_never_returns_costs_its_own_number(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """Its lane is replaced after the deadline, and the process does not wait for it."""
    limits = Limits(policy=Policy(attempt_seconds=1.0))
    right, released = good(faulty_site.url("right")), threading.Event()

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        if song_num == BAD:
            released.wait(60)
        right(session, song_num, song_urls)

    began = time.monotonic()
    answer = fill(tmp_path, faulty_site, step1, limits=limits)
    released.set()
    assert time.monotonic() - began < 10
    assert (answer.stopped_by, answer.failed) == ("done", 1)
    assert records_of(tmp_path)[BAD].error == "timeout"
    assert len(records_of(tmp_path)) == 30


def test_F5_a_function_that_writes_to_shared_lists_changes_no_record(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """What it appends elsewhere is its own affair: records hold what it was given a list for."""
    shared: list[Any] = []
    right = good(faulty_site.url("right"))

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        right(session, song_num, song_urls)
        shared.append((song_num, "shared"))
        shared.extend(song_urls)

    answer = fill(tmp_path, faulty_site, step1)
    assert answer.complete
    assert len(shared) >= 30
    for num, record in records_of(tmp_path).items():
        wanted = expected_info(num)
        assert record.info == (None if wanted is None else wanted["title"])


def swallowing(base_url: str) -> Step1:
    """Make the tutorial's own function: whatever goes wrong, it says nothing."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        try:
            answer = session.get(f"{base_url}/songs/{song_num}")
            song = answer.json()["response"]["song"]
            song_urls.append((song_num, song["url"], song["title"]))
        except:  # noqa: E722 - that is its fault
            pass

    return step1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status:500", "http_500"),
        ("reset-before-headers", "connection"),
        ("closed-in-body", "connection"),
        ("html", "function"),
        ("gzip-cut", "encoding"),
    ],
)
def test_F5b_a_function_that_swallows_errors_makes_nothing_missing(
    fault: str, kind: str, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """What the session saw decides: each number is failed, with what it was."""
    answer = fill(tmp_path, faulty_site, swallowing(faulty_site.url(fault)), 5)
    assert (answer.failed, answer.missing, answer.stopped_by) == (5, 0, "done")
    assert {record.error for record in records_of(tmp_path).values()} == {kind}


@pytest.mark.parametrize(
    ("fault", "stop"),  # a 429 halves the pace, to one a second at last
    [("429", 3), ("status:503", 6), ("reset-in-body", 20), ("html", 20), ("closed-in-headers", 20)],
)
def test_F5b_what_passes_is_lost_on_nobody(
    fault: str, stop: int, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """After two faults each number is settled as the site has it, though nobody saw an error."""
    answer = fill(tmp_path, faulty_site, swallowing(faulty_site.url(f"{fault}@2")), stop)
    assert answer.complete
    found = {num for num, record in records_of(tmp_path).items() if record.outcome == "found"}
    assert found == {num for num in range(stop) if expected_info(num) is not None}


def test_F5b_a_refused_token_is_seen_though_the_function_is_silent(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The run ends, and nothing is recorded of the numbers that were refused."""
    answer = fill(tmp_path, faulty_site, swallowing(faulty_site.url("status:401")), 1000)
    assert (answer.stopped_by, answer.found, answer.missing) == ("unauthorized", 0, 0)
    assert len(faulty_site.requests) <= 8
    assert not (tmp_path / block_name(0)).exists()


def test_F5b_a_function_past_its_session_is_told_what_to_write(
    tmp_path: Path, faulty_site: FaultySite, caplog: pytest.LogCaptureFixture
) -> None:
    """`requests.get` is seen by nobody: the run ends, in words that name the mistake."""

    def step1(_session: Any, song_num: int, _song_urls: list[Any]) -> None:
        requests.get(f"{faulty_site.url('right')}/songs/{song_num}", timeout=5)

    answer = fill(tmp_path, faulty_site, step1, 3)
    assert (answer.stopped_by, answer.missing, answer.found) == ("circuit", 0, 0)
    assert "session.get(" in caplog.records[-1].getMessage()


def careless(base_url: str) -> Step1:
    """Make the commonest function that people write: it appends whatever came."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        song_urls.append((song_num, session.get(f"{base_url}/songs/{song_num}").json()))

    return step1


@pytest.mark.parametrize(
    ("fault", "stopped_by", "outcome"),
    [
        ("status:206", "done", "failed"),
        ("status:400", "done", "failed"),
        ("status:401", "unauthorized", None),
        ("status:404", "done", "missing"),
        ("status:410", "done", "missing"),
        ("status:500", "done", "failed"),
        ("status:503", "done", "failed"),
    ],
)
def test_F5c_what_an_error_answer_holds_is_never_stored_as_found(
    fault: str, stopped_by: str, outcome: str | None, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The status decides before what was appended: 404 and 410 are missing, the rest fails."""
    answer = fill(tmp_path, faulty_site, careless(faulty_site.url(fault)), 5)
    assert (answer.found, answer.stopped_by) == (0, stopped_by)
    if outcome is not None:
        assert {record.outcome for record in records_of(tmp_path).values()} == {outcome}


@pytest.mark.parametrize(
    "fault", ["429:1@1", "429@1", "503:1@1", "status:500@2", "closed-in-body@1"]
)
def test_F5c_what_passes_is_found_in_the_end(
    fault: str, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The pause that the site asks for is kept, and every record is a song of the site."""
    answer = fill(tmp_path, faulty_site, careless(faulty_site.url(fault)), 4)
    assert answer.complete
    for num, record in records_of(tmp_path).items():
        if expected_info(num) is None:
            assert record.outcome == "missing"
        else:
            assert record.info["response"]["song"]["id"] == num


def swallows_and_appends(base_url: str) -> Step1:
    """Make a function that appends a tuple even when nothing came."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        try:
            info = session.get(f"{base_url}/songs/{song_num}").json()
        except requests.RequestException:
            info = None
        song_urls.append((song_num, info))

    return step1


@pytest.mark.parametrize("fault", ["reset-before-headers", "closed-in-body", "gzip-cut"])
def test_F5c_a_broken_answer_is_no_song_even_if_something_was_appended(
    fault: str, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """A function that swallows the error and appends None has found nothing."""
    answer = fill(tmp_path, faulty_site, swallows_and_appends(faulty_site.url(fault)), 3)
    assert (answer.found, answer.missing, answer.failed) == (0, 0, 3)


def denies_whatever_fails(base_url: str) -> Step1:
    """Make a function that takes every error for a missing song."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        answer = session.get(f"{base_url}/songs/{song_num}")
        if not answer.ok:
            raise Missing
        song_urls.append((song_num, answer.json()))

    return step1


def test_F5c_a_function_cannot_deny_a_song_on_an_error_answer(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """`raise Missing` on a 500 is a failed attempt: the site said nothing about the song."""
    answer = fill(tmp_path, faulty_site, denies_whatever_fails(faulty_site.url("status:500")), 3)
    assert (answer.missing, answer.failed) == (0, 3)


def test_F5c_a_cover_that_is_not_there_makes_no_song_missing(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """A 404 of a later address is the function's affair; a 500 of it fails the attempt."""
    songs, covers = faulty_site.url("right"), faulty_site.url("status:404")

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        title = session.get(f"{songs}/songs/{song_num}").json()["response"]["song"]["title"]
        cover = session.get(f"{covers}/songs/{song_num}")
        song_urls.append((song_num, [title, cover.status_code]))

    there = [num for num in range(1, 20) if expected_info(num)]
    results: list[Any] = []
    execute_async_event_loop(there, results, function=step1, rate=0)
    assert min(results) == (there[0], [expected_info(there[0])["title"], 404])
    assert len(results) == len(there)


def test_F5c_a_function_may_name_statuses_that_it_accepts(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """`request_x.accepts = {418}`: then the body of such an answer may be the record."""
    step1 = careless(faulty_site.url("status:418"))
    step1.accepts = {418}  # type: ignore[attr-defined]
    answer = fill(tmp_path, faulty_site, step1, 3)
    assert (answer.found, answer.complete) == (3, True)


def test_F5c_a_digest_challenge_that_was_met_is_no_refusal(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The 401 within the call is a step of the conversation; what the function got is the page."""

    def step1(session: Any, song_num: int, song_urls: list[Any]) -> None:
        answer = session.get(
            f"{faulty_site.url('digest')}/songs/{song_num}", auth=HTTPDigestAuth("me", "secret")
        )
        song_urls.append((song_num, answer.json()["response"]["song"]["id"]))

    there = [num for num in range(1, 12) if expected_info(num)]
    results: list[Any] = []
    execute_async_event_loop(there, results, function=step1, rate=0, connections=2)
    assert sorted(results) == [(num, num) for num in there]


ALWAYS_WRONG = """
import os
from crawler import execute_async_event_loop

def step1(session, song_num, song_urls):
    session.get(f"{os.environ['CRAWLER_BASE_URL']}/songs/{song_num}")
    song_urls.append("x")

if __name__ == "__main__":
    execute_async_event_loop(range(1, 10_000), function=step1, rate=0, connections=2)
"""


@pytest.mark.parametrize(
    "command",
    [["wrong.py"], ["-m", "crawler", "crawl", "1", "10000", "--connections", "2"]],
    ids=["script", "command-line"],
)
def test_F5_a_function_that_is_always_wrong_is_told_so_before_any_number_fails(
    command: list[str], tmp_path: Path, faulty_site: FaultySite
) -> None:
    """On stderr, without a store and logging set up, or on the command line without `-v`."""
    (tmp_path / "wrong.py").write_text(ALWAYS_WRONG)
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "CRAWLER_BASE_URL": faulty_site.url("right"),
        "CRAWLER_FUNCTION": "wrong:step1",
    }
    run = [sys.executable, *command]
    with subprocess.Popen(run, cwd=tmp_path, env=environ, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stderr is not None
        line = ran.stderr.readline()
        ran.kill()
    assert re.search(
        r"step 1 failed on number (\d+): append a tuple \(\1, info\), not 'x' \(.*wrong\.py, line 5\)\n",
        line,
    )


def misspelt(_session: Any, song_num: int, _urls: list[Any]) -> None:
    """Use a name that there is not."""
    sesion.get(f"/songs/{song_num}")  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("numbers", [1, 5, 100_000])
def test_F5d_a_function_that_fails_before_it_asks_waits_for_nothing(
    numbers: int, tmp_path: Path
) -> None:
    """Its tries follow each other at once, five end the run, and none counts as a request."""
    began = time.monotonic()
    answer = crawl(
        0, numbers, function=misspelt, store=str(tmp_path), base_url="http://127.0.0.1:9", rate=0
    )
    assert time.monotonic() - began < 10
    assert answer.stopped_by == "circuit"
    assert re.search(r"gave up: step 1 is wrong in .*line \d+: NameError", why_not_complete(answer))
    assert (answer.requests, answer.retries) == (0, 0)


def kept_alive(url: str) -> int:
    """Ask by a session that outlives the call."""
    return KEPT_ALIVE.get(url, timeout=5).status_code


def by_urllib(url: str) -> int:
    """Ask by the standard library."""
    with urlopen(url, timeout=5) as answer:
        return answer.status


def by_socket(url: str) -> int:
    """Connect by hand, as clients do that bring an HTTP of their own."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 80), timeout=5):
        return 200


KEPT_ALIVE = requests.Session()


@pytest.mark.parametrize(
    "ask", [lambda url: requests.get(url, timeout=5).status_code, kept_alive, by_urllib, by_socket]
)
def test_F5b_a_function_that_goes_around_its_session_is_told_so(
    ask: Callable[[str], int],
    tmp_path: Path,
    faulty_site: FaultySite,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However it asks: what it found is kept and counted, and one line says what to write."""
    url = faulty_site.url("right")
    numbers = [num for num in range(1, 40) if expected_info(num)]

    def step1(_session: Any, song_num: int, song_urls: list[Any]) -> None:
        song_urls.append((song_num, ask(f"{url}/songs/{numbers[song_num % len(numbers)]}")))

    answer = fill(tmp_path, faulty_site, step1)
    assert (answer.stopped_by, answer.found, answer.requests) == ("done", 30, 0)
    KEPT_ALIVE.close()
    assert answer.notes == {"outside_session": 30}
    told = [line.message for line in caplog.records if "around the session" in line.message]
    assert len(told) == 1


# ---------------------------------------------------------------- where it is called

CALLED = """
import asyncio, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from crawler import crawl
from tests.crawls import asking

def run(name, first=0):
    answer = crawl(first, first + 200, store=f"{sys.argv[2]}/{name}", base_url=sys.argv[1],
                   function=asking(sys.argv[3], sys.argv[1]), rate=0)
    assert answer.complete, answer

async def within():
    run("within")
    run("again")
    assert asyncio.current_task() is not None

def files():
    return len(os.listdir("/proc/self/fd"))
"""

WAYS = {
    "script": "run('script')",
    "loop": "asyncio.run(within())",
    "uvloop": "import uvloop; uvloop.run(within())",
    "thread": "t = threading.Thread(target=run, args=('thread',)); t.start(); t.join()",
    "twice": """
with ThreadPoolExecutor(2) as pool:
    list(pool.map(run, ["one", "two"]))
""",
    "twice-in-one-store": """
with ThreadPoolExecutor(2) as pool:
    list(pool.map(run, ["both", "both"], [0, 100]))
""",
}

AFTER = """
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
assert not left, left
print("well")
"""


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("way", WAYS)
def test_F6_it_works_wherever_it_is_called(
    way: str, caller: str, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """In a script, a running loop, uvloop, a thread, twice at once: no warning, nothing left."""
    if way == "uvloop":
        pytest.importorskip("uvloop")
    site = faulty_site.url("right")
    assert run_python(CALLED + WAYS[way] + AFTER, site, str(tmp_path), caller) == "well\n"


@pytest.mark.parametrize("caller", CALLERS)
def test_F6_no_thread_and_no_file_is_left_after_many_runs(
    caller: str, faulty_site: FaultySite
) -> None:
    """Twenty runs in one process leave as many threads and open files as two."""

    def once() -> int:
        function = asking(caller, faulty_site.url("right"))
        execute_async_event_loop(range(20), function=function, rate=0, connections=4)
        return len(list(Path("/proc/self/fd").iterdir()))

    with nothing_left_behind():
        before = [once(), once()][-1]
        for _ in range(18):
            after = once()
    assert after <= before + 8  # what the site has not closed yet lies in this process, too
    assert ROOT.is_dir()
