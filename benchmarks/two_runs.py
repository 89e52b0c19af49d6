"""Counts what two runs of one range ask of a site together.

`.venv/bin/python -m benchmarks.two_runs` repeats the figure of docs/scale.md; each run is a process
of its own, the site is the demo site, which does the counting, and the store a folder.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from typing import Any

from crawler import crawl
from crawler.demo.site import DemoSite


def fill(begins: Any, answers: Any, later: float, songs: int, options: dict[str, Any]) -> None:
    """Crawl the range, once everybody has got this far, or so many seconds later."""
    begins.wait(60)
    time.sleep(later)
    answers.put(crawl(0, songs, **options).complete)


def count(songs: int, runs: int, *, rate: float, latency: float, later: float) -> int:
    """Let so many runs begin, each `later` than the one before, and count the site's requests.

    Raises:
        RuntimeError: A run did not end complete.
    """
    processes = multiprocessing.get_context("spawn")
    begins, answers = processes.Barrier(runs), processes.Queue()
    with DemoSite(latency_seconds=latency) as site, tempfile.TemporaryDirectory() as folder:
        options = {
            "store": folder,
            "base_url": site.base_url,
            "rate": rate,
            "connections": 400 if latency else 64,
        }
        options |= {"token": site.token}
        started = [
            processes.Process(target=fill, args=(begins, answers, n * later, songs, options))
            for n in range(runs)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if any(process.exitcode for process in started) or not all(answers.get() for _ in started):
            raise RuntimeError("a run did not end complete")
        return int(site.stats()["requests"])


def _when(later: float) -> str:
    return f"{later:g} s one after the other" if later else "at once"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=0.0, help="of each run; 0: no limit")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--later", type=float, default=0.0, help="seconds from one to the next")
    args = parser.parse_args()
    pace = {"rate": args.rate, "latency": args.latency, "later": args.later}
    try:
        requests = count(args.songs, args.runs, **pace)
    except RuntimeError as error:
        sys.exit(str(error))
    print(
        f"{args.runs} runs of {args.songs:,}, begun {_when(args.later)}: {requests:,} requests together, "
        f"{requests / args.songs:.3f} x {args.songs:,}"
    )


if __name__ == "__main__":
    main()
