"""Counts what three crawls at a third of a rate each start together, and what the site sees come.

`.venv/bin/python -m benchmarks.fleet_pace` repeats the figures of docs/scale.md. With `--stall` the
site stands still for so long every two seconds, as it does on a busy machine: what it then reads at
once was started one after the other.
"""

import argparse
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from crawler import crawl
from crawler.demo.behaviour import busiest_second
from crawler.frontier.rate_limiter import RateLimiter

ROOT = Path(__file__).parent.parent
CRAWLS = 3
STALL_EVERY_SECONDS = 2.0


def note_starts() -> list[float]:
    """Have the rate limiters of this process note when they grant an attempt, which is sent at once."""
    starts: list[float] = []
    grant = RateLimiter.grant

    def noted(rate_limiter: RateLimiter, wanted: int, now: float) -> tuple[int, float]:
        granted, wait = grant(rate_limiter, wanted, now)
        starts.extend([time.monotonic()] * granted)
        return granted, wait

    RateLimiter.grant = noted  # type: ignore[method-assign, assignment]
    return starts


def fill(told: Any, begins: Any, place: int, songs: int, rate: float, base_url: str) -> None:
    """Crawl one third, once everybody has got this far, and tell when its attempts started."""
    starts = note_starts()
    begins.wait(60)
    with tempfile.TemporaryDirectory() as store:
        low = place * songs
        crawl(low, low + songs, store=store, base_url=base_url, token="demo-token", rate=rate)
    told.put(starts)


def measure(rate: float, songs: int, stall_seconds: float) -> tuple[list[list[float]], list[float]]:
    """Run them all; give the starts of each crawl, and the arrivals that the site saw."""
    processes = multiprocessing.get_context("spawn")
    told, begins = processes.Queue(), processes.Barrier(CRAWLS)
    command = [sys.executable, "-m", "crawler", "demo-site", "--port", "0", "--latency", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as site:
        try:
            base_url = next(iter(site.stdout or ())).split()[0]
            for place in range(CRAWLS):
                args = (told, begins, place, songs, rate / CRAWLS, base_url)
                processes.Process(target=fill, args=args, daemon=True).start()
            starts: list[list[float]] = []
            while len(starts) < CRAWLS:
                _stall(site, stall_seconds)
                starts += [told.get() for _ in range(0 if told.empty() else 1)]
            with urllib.request.urlopen(f"{base_url}/_stats?arrivals=1") as answer:
                return starts, json.load(answer)["arrivals"]
        finally:
            site.terminate()


def _stall(site: subprocess.Popen[str], seconds: float) -> None:
    time.sleep(STALL_EVERY_SECONDS)
    if seconds:
        site.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        site.send_signal(signal.SIGCONT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--songs", type=int, default=5_000, help="of each; default: %(default)s")
    parser.add_argument("--stall", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    starts, arrivals = measure(args.rate, args.songs, args.stall)
    together = sorted(moment for each in starts for moment in each)
    begin, end = max(map(min, starts)), min(map(max, starts))
    mean = sum(begin <= moment < end for moment in together) / (end - begin)
    print(
        f"{CRAWLS} crawls at {args.rate:g}/s together: mean {mean:.1f}/s while all are at work; in "
        f"the busiest second {busiest_second(together)} started, "
        f"{busiest_second(arrivals)} arrived; busiest seconds of each: "
        f"{', '.join(str(busiest_second(each)) for each in starts)}"
    )


if __name__ == "__main__":
    main()
