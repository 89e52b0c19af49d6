"""What every contestant shares: its arguments, the check of what it collects, the measurement."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.page import TITLE, URL

Song = tuple[int, str, str]
HEADERS = {"Authorization": "Bearer benchmark-token", "User-Agent": "song-crawler-benchmark/1"}


@dataclass(frozen=True)
class Options:
    """The arguments of a contestant.

    Attributes:
        base_url: Where the site is, without a slash at the end.
        count: Pages to get: songs 1 to count.
        connections: Connections, workers or threads, whatever the library calls them.
        ca_file: PEM file of the authority to trust for https.
    """

    base_url: str
    count: int
    connections: int
    ca_file: str

    def url(self, num: int) -> str:
        """Write the address of one song."""
        return f"{self.base_url}/songs/{num}"

    def nums(self) -> range:
        """Count the song numbers to ask for."""
        return range(1, self.count + 1)


class Songs:
    """What the contestant appends its `(num, title, url)` tuples to: checks each, keeps none.

    Keeping none leaves the peak memory to the client: 200,000 tuples would weigh 60 MB.
    """

    def __init__(self, count: int) -> None:
        self._seen = bytearray(count + 1)
        self.wrong = 0

    def append(self, song: Song) -> None:
        """Take one song; a number twice, out of range or with another's title counts as wrong."""
        num, title, url = song
        right = title == TITLE.format(num=num) and url == URL.format(num=num)
        if not right or not 0 < num < len(self._seen) or self._seen[num]:
            self.wrong += 1
        else:
            self._seen[num] = 1

    def pages(self) -> int:
        """Count the songs that arrived, each number once."""
        return sum(self._seen)


def song_of(page: Any) -> Song:
    """Take `(num, title, url)` out of a decoded page."""
    song = page["response"]["song"]
    return song["id"], song["title"], song["url"]


def run(crawl: Callable[[Options, Songs], None]) -> None:
    """Read the arguments, run one contestant, print one line of JSON; exit 1 if a page is lacking.

    The clocks run from the call of `crawl` to its return: imports are outside, making clients,
    connecting and closing inside.
    """
    options = read_options()
    songs = Songs(options.count)
    measured = measure(lambda: crawl(options, songs))
    report(measured, pages=songs.pages(), lacking=options.count - songs.pages() + songs.wrong)


def measure(work: Callable[[], None]) -> dict[str, float]:
    """Run `work` and measure wall and CPU time in seconds (children included) and peak memory."""
    cpu_before, begin = _cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    cpu_seconds = _cpu_seconds() - cpu_before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_rss_kb": _peak_rss_kb()}


def report(measured: dict[str, float], *, pages: int, lacking: int, **more: Any) -> None:
    """Print the result as one line of JSON and leave with exit code 0, or 1 if pages are lacking."""
    print(json.dumps({"pages": pages, **measured, "errors": lacking, **more}), flush=True)
    sys.exit(1 if lacking else 0)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that all contestants take."""
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--ca-file", default="")


def read_options() -> Options:
    """Read the arguments that all contestants take."""
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    given = parser.parse_args()
    return Options(given.base_url, given.count, given.connections, given.ca_file)


def _cpu_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _peak_rss_kb() -> int:
    """Read the peak of this process in kB.

    `ru_maxrss` keeps the peak of the parent over fork and exec (measured 2026-11-22), which the
    kernel's VmHWM does not, so it serves only where there is no /proc.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
