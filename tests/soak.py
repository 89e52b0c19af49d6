"""The soak: a long crawl through changing faults, and what it does to memory, threads and files.

`make soak` runs ten minutes at full speed; `python -m tests.soak SECONDS` another time. It prints
a line every few seconds, and fails when anything grows or a number is lost.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from crawler import crawl
from crawler.answer import Answer
from crawler.store.coverage import verify
from crawler.store.opening import open_store

WEATHERS = (
    (),
    ("--faults", "0.01"),
    ("--latency", "0.02"),
    ("--rate-limit", "3000", "--retry-after", "1"),
    ("--faults", "0.2"),
    ("--latency", "0.1", "--faults", "0.05"),
    ("--outage", "3:3:503"),
)
"""What the site is like, one after the other."""

SONGS = 20_000
MAX_GROWTH_BYTES = 15 << 20


class Reading(msgspec.Struct, frozen=True):
    """What the process holds at one moment."""

    memory_bytes: int
    threads: int
    files: int


def read_process() -> Reading:
    """Look at this process, as Linux tells it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Reading(
        pages * os.sysconf("SC_PAGE_SIZE"),
        threading.active_count(),
        len(list(Path("/proc/self/fd").iterdir())),
    )


@contextlib.contextmanager
def weather(options: tuple[str, ...]) -> Iterator[str]:
    """Run the demo site with some behaviour; yields its address."""
    command = [sys.executable, "-m", "crawler", "demo-site", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split(" ", 1)[0]
        finally:
            process.terminate()


def soak(seconds: float) -> Iterator[tuple[Answer, Reading]]:
    """Crawl fresh ranges through changing weather, and prove each; yield what each came to."""
    end = time.monotonic() + seconds
    start = 1
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for options in WEATHERS:
                with weather(options) as address:
                    answer = crawl_until_settled(folder, address, start)
                yield answer, read_process()
                start += SONGS


def crawl_until_settled(folder: str, address: str, start: int) -> Answer:
    """Crawl a range, again where something failed, and prove that it is whole."""
    for _ in range(5):
        answer = crawl(
            start,
            start + SONGS,
            store=folder,
            base_url=address,
            token="demo-token",
            rate=0,
            connections=64,
        )
        if answer.complete:
            break
    report = verify(open_store(folder), start, start + SONGS, timeout=60)
    if report.problem is not None or not answer.complete:
        raise AssertionError(f"songs {start} on: {report.problem}, {answer}")
    return answer


def main(arguments: list[str]) -> int:
    """Soak, and say whether anything grew."""
    seconds = float(arguments[0]) if arguments else 600.0
    readings: list[Reading] = []
    for answer, reading in soak(seconds):
        readings.append(reading)
        print(
            f"songs {answer.start} on: {answer.requests} requests, {answer.mean_rate:.0f}/s, "
            f"{reading.memory_bytes >> 20} MiB, {reading.threads} threads, {reading.files} files",
            flush=True,
        )
    settled = readings[len(WEATHERS) - 1 :] or readings
    grown = max(r.memory_bytes for r in settled) - settled[0].memory_bytes
    is_flat = (
        grown <= MAX_GROWTH_BYTES
        and max(r.threads for r in settled) == settled[0].threads
        and max(r.files for r in settled) == settled[0].files
    )
    print(f"{'flat' if is_flat else 'NOT FLAT'}: memory grew by {grown >> 20} MiB")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
