"""Small crawls for the tests of the wire: one address, a few numbers, short deadlines."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.record import Record
from crawler.source.declared import open_source
from crawler.source.source import Source
from crawler.steps import execute_async_event_loop, request_song_info

CALLERS = ("source", "function")
"""Who asks over the wire: a declared source, read on its thread, and a step 1 function."""

TOKEN = "token-of-the-tests-4711"
ROOT = Path(__file__).parent.parent

QUICK = Policy(attempt_seconds=4.0, max_attempts=1, backoff_seconds=0.01)
"""A deadline that a busy machine keeps, and no second try."""

RETRYING = Policy(attempt_seconds=4.0, max_attempts=3, backoff_seconds=0.01)
"""The same with two more tries at once."""


def asked_by(caller: str, source: Source) -> Any:
    """Return what asks for the pages of a source: itself, or a step 1 function."""
    return source if caller == "source" else functools.partial(request_song_info, source=source)


def asking(caller: str, base_url: str, token: str = TOKEN) -> Any:
    """Return what asks for the songs of a site."""
    return asked_by(caller, open_source("genius", token, base_url=base_url))


class Crawl:
    """One crawl that is over.

    Attributes:
        records: Each number's record.
        results: What was appended to the list of results.
        frontier: With its counts and why it ended.
    """

    def __init__(
        self,
        base_url: str,
        numbers: Iterable[Any] = (1,),
        *,
        caller: str = "source",
        policy: Policy = QUICK,
        ca_path: Path | None = None,
        rate: float = 0,
        connections: int = 8,
        function: Any = None,
        **frontier: Any,
    ) -> None:
        """Crawl; `function` is step 1 or a source, by default the Genius source at the address.

        The caller `function` has a source's pages asked for by a step 1 function.
        """
        self.records: dict[Any, Record] = {}
        self.results: list[Any] = []
        frontier.setdefault("rate_limiter", RateLimiter(rate))
        self.frontier = Frontier(policy, on_record=self._book, **frontier)
        target = function or open_source("genius", TOKEN, base_url=base_url)
        if isinstance(target, Source):
            target = asked_by(caller, target)
        execute_async_event_loop(
            numbers,
            self.results,
            function=target,
            connections=connections,
            contact="me@example.org",
            ca_file=None if ca_path is None else str(ca_path),
            frontier=self.frontier,
        )

    def _book(self, record: Record) -> None:
        assert record.song_num not in self.records
        self.records[record.song_num] = record

    @property
    def kinds(self) -> dict[Any, str | None]:
        """The kind of failure of each number, None for those found."""
        return {num: record.error for num, record in self.records.items()}

    @property
    def outcomes(self) -> dict[Any, str]:
        """The outcome of each number."""
        return {num: record.outcome for num, record in self.records.items()}


def run_python(code: str, *arguments: str, seconds: float = 60, **environ: str) -> str:
    """Run a script in a process of its own, warnings as errors; give what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


_CRAWL = """
    import json, os, resource, sys, time
    from pathlib import Path
    from tests.crawls import Crawl
    from crawler.frontier.work import Policy
    url, caller, first, last, connections, rate, max_attempts, limit, ca_path = sys.argv[1:]
    tries = dict(max_attempts=int(max_attempts), backoff_seconds=0.01)
    policy = Policy(**tries, attempt_seconds=20, grace_seconds=0.5)
    def peak_kib():
        status = Path("/proc/self/status")
        if not status.exists():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1])
    options = dict(policy=policy, caller=caller, connections=int(connections), rate=float(rate))
    options["ca_path"] = ca_path or None
    Crawl(url.rpartition("/")[0] + "/right", range(1, 2 + int(connections)), **options)
    before, peak_before = resource.getrusage(resource.RUSAGE_SELF), peak_kib()
    began = time.monotonic()
    options["deadline"] = began + float(limit)
    crawl = Crawl(url, range(int(first), int(last)), **options)
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({
        "kinds": sorted({str(kind) for kind in crawl.kinds.values()}),
        "records": len(crawl.records),
        "requests": crawl.frontier.tally.requests,
        "stopped_by": crawl.frontier.stopped_by,
        "grown_bytes": (peak_kib() - peak_before) * 1024,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": seconds,
    }))
"""


def crawl_apart(
    url: str,
    caller: str,
    numbers: range,
    *,
    connections: int,
    rate: float = 0,
    max_attempts: int = 1,
    limit_seconds: float = 40,
    ca_path: Path | None = None,
) -> dict[str, Any]:
    """Crawl in a process of its own, whose site's answers do not wait for it; give what it measured.

    Right pages are crawled first over all connections, so that what is measured is the rest. The
    peak is the kernel's VmHWM: `ru_maxrss` begins with that of the parent (measured 2026-11-25).
    """
    words = [url, caller, numbers.start, numbers.stop, connections, rate, max_attempts]
    words.append(limit_seconds)
    printed = run_python(_CRAWL, *map(str, words), str(ca_path or ""), PYTHONPATH=str(ROOT))
    measured: dict[str, Any] = json.loads(printed)
    return measured


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Check that no thread is left behind."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before
