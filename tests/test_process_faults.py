"""What can happen to the process: signals, time that runs out, memory that does."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl
from crawler.answer import Answer
from crawler.demo.site import DemoSite
from crawler.store.block import block_name, decode_block
from crawler.store.opening import open_store
from tests.clock import wait_until
from tests.crawls import CALLERS, asking
from tests.faulty_site import FaultySite
from tests.function_process import FunctionProcess
from tests.records import expected_info
from tests.storage_server import RoughWay, StorageServer
from tests.torture import Scene

pytestmark = pytest.mark.once

GOOD = 300
"""Right answers before the site falls silent."""

SILENT = f"hang-before-headers!{GOOD}"


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store of the kind asked for, by its location."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket_url"))


def stored_in(location: str) -> set[int]:
    """Read which numbers of the first two blocks are stored."""
    store, numbers = open_store(location), set()
    for name in (block_name(0), block_name(1000)):
        stored = store.read(name, timeout=20)
        if stored is not None:
            numbers |= decode_block(stored.data, name).keys()
    return numbers


def start(location: str, site: str, caller: str) -> subprocess.Popen[str]:
    """Start a crawl of 2,000 songs as a process of its own."""
    return Scene(location, site, 2001, rate=0, caller=caller).start()


@pytest.mark.parametrize(
    ("location", "caller"),
    [("folder", "source"), ("bucket", "function")],
    indirect=["location"],
)
def test_F2_sigterm_cuts_what_is_in_flight_and_stores_what_is_settled(
    location: str, caller: str, faulty_site: FaultySite
) -> None:
    """Attempts that hang are cut after 5 s; within 8 s the process is gone, all songs stored.

    Missing numbers that wait for a proof are not recorded, and count as left.
    """
    with start(location, faulty_site.url(SILENT), caller) as process:
        assert wait_until(lambda: len(faulty_site.requests) >= GOOD + 32, 30)
        sent_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    seconds = time.monotonic() - sent_at
    assert process.returncode == 3, err
    assert 3.0 < seconds < 8.0
    answered = {seen.number for seen in faulty_site.requests if not seen.spoilt}
    stored = stored_in(location)
    assert stored <= answered
    assert [num for num in answered - stored if expected_info(num)] == []
    assert f'"remaining":{2000 - len(stored)}' in out


@pytest.mark.parametrize("location", ["folder"], indirect=True)
@pytest.mark.parametrize("caller", CALLERS)
def test_F2_ctrl_c_twice_ends_at_once_and_the_run_can_go_on(
    location: str, caller: str, faulty_site: FaultySite, demo_site: DemoSite
) -> None:
    """Nobody has to wait for a silent site; the next run settles everything."""
    with start(location, faulty_site.url(SILENT), caller) as process:
        assert wait_until(lambda: len(faulty_site.requests) >= GOOD + 32, 30)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        while "Stopping" not in process.stderr.readline():
            pass
        sent_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - sent_at < 4.0  # after the first one alone it would be five
    scene = Scene(location, demo_site.base_url, 2001, rate=0, caller=caller)
    scene.finish()
    assert scene.judge("ctrl-c twice", 1).is_clean


def test_F2_a_store_that_hangs_does_not_hold_up_the_end(
    bucket_url: str, storage_server: StorageServer, demo_site: DemoSite
) -> None:
    """After SIGTERM the process is gone within 10 s; the next run settles everything."""
    with RoughWay(storage_server) as way:
        scene = Scene(bucket_url, demo_site.base_url, 6_001, rate=1000)
        with scene.start(STORAGE_EMULATOR_HOST=way.url) as process:
            assert wait_until(lambda: demo_site.stats()["requests"] > 1_500, 30)
            way.fault_for_ever = "hang"
            assert wait_until(lambda: demo_site.stats()["requests"] > 3_000, 30)
            sent_at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent_at < 10.0
    assert process.returncode != 0, err
    assert '"complete":false' in out
    scene.rate = 0
    scene.finish()
    assert scene.judge("a store that hangs", 1).is_clean


@pytest.mark.parametrize("caller", CALLERS)
def test_F3_a_silent_site_does_not_hold_up_the_answer(
    caller: Any, tmp_path: Path, faulty_site: FaultySite
) -> None:
    """The budget and 5 s for what is in flight; then the answer, with counts that are stored."""
    site = faulty_site.url("hang-before-headers!40")
    answer = crawl(
        1,
        2001,
        store=str(tmp_path),
        base_url=site,
        token="demo-token",
        function=asking(caller, site),
        rate=0,
        time_budget_seconds=1.0,
    )
    assert (answer.stopped_by, answer.complete) == ("time_budget", False)
    assert answer.seconds < 1.0 + 5.0 + 4.0  # an attempt alone might take 15
    stored = stored_in(str(tmp_path))
    assert answer.found == sum(expected_info(num) is not None for num in stored) > 0
    assert answer.found + answer.missing == len(stored) <= 40  # the rest waits for a proof
    assert answer.remaining == 2000 - len(stored) - answer.failed


def test_F3_the_function_answers_in_time_with_what_is_left(tmp_path: Path) -> None:
    """200, not complete, and every number is in exactly one of the counts."""
    with DemoSite(latency_seconds=0.05) as site:
        environ = {
            "GENIUS_TOKEN": site.token,
            "CRAWLER_BASE_URL": site.base_url,
            "CRAWLER_STORE": str(tmp_path),
            "CRAWLER_TIME_BUDGET_SECONDS": "1",
        }
        with FunctionProcess(environ) as function:
            began = time.monotonic()
            reply = function.post(b'{"start": 1, "stop": 2001}')
            seconds = time.monotonic() - began
    answer = Answer(**reply.json())
    assert (reply.status, answer.stopped_by, answer.complete) == (200, "time_budget", False)
    assert seconds < 4.0
    assert answer.found + answer.missing == len(stored_in(str(tmp_path))) > 0
    assert answer.found + answer.missing + answer.failed + answer.remaining == 2000


STARVED = """
import os, resource, sys
from crawler import crawl
from tests.song_step import ask_for_song

location, site, caller, kilobytes = sys.argv[1:]

def starve(progress):
    if progress.requests > 300 and resource.getrlimit(resource.RLIMIT_AS)[0] < 0:
        pages = int(open("/proc/self/statm").read().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + int(kilobytes) * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, -1))

crawl(1, 6001, store=location, base_url=site, token="demo-token", rate=2000,
      function=None if caller == "source" else ask_for_song, on_progress=starve)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
@pytest.mark.parametrize(("caller", "kilobytes"), [("source", 0), ("function", 700)])
def test_F4_running_out_of_memory_in_mid_run_loses_nothing(
    caller: str, kilobytes: int, tmp_path: Path, demo_site: DemoSite
) -> None:
    """Whatever becomes of the process, nothing wrong is stored and the next run does the rest."""
    location = str(tmp_path / "store")
    arguments = [sys.executable, "-c", STARVED, location, demo_site.base_url, caller]
    with contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(
            [*arguments, str(kilobytes)],
            cwd=Path(__file__).parent.parent,
            env=os.environ
            | {"GENIUS_TOKEN": "demo-token", "CRAWLER_BASE_URL": demo_site.base_url}
            | {"PYTHONMALLOC": "malloc"},  # no arenas to live on
            capture_output=True,
            timeout=10,
            check=False,
        )
    assert demo_site.stats()["requests"] > 300
    scene = Scene(location, demo_site.base_url, 6001, rate=0, caller=caller)
    scene.finish()
    outcome = scene.judge("out of memory", 1)
    assert outcome.is_clean, outcome
    assert expected_info(1) is None or 1 in stored_in(location)
