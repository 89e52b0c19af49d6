"""Counts what two runs of one range, begun at once, ask of a site together.

`.venv/bin/python -m benchmarks.two_runs` repeats the figure of docs/scale.md; each run is a process
of its own, the site is the demo site, which does the counting, and the store a folder.
"""

import argparse
import multiprocessing
import sys
import tempfile
from typing import Any

from crawler import crawl
from crawler.demo.site import DemoSite


def fill(begins: Any, answers: Any, songs: int, store: str, base_url: str, token: str) -> None:
    """Crawl the range, once everybody has got this far."""
    begins.wait(60)
    answer = crawl(0, songs, store=store, base_url=base_url, genius_token=token, rate=0)
    answers.put(answer.complete)


def count(songs: int, runs: int) -> int:
    """Let so many runs begin at once, and say how many requests the site got.

    Raises:
        RuntimeError: A run did not end complete.
    """
    processes = multiprocessing.get_context("spawn")
    begins, answers = processes.Barrier(runs), processes.Queue()
    with DemoSite() as site, tempfile.TemporaryDirectory() as folder:
        args = (begins, answers, songs, folder, site.base_url, site.token)
        started = [processes.Process(target=fill, args=args) for _ in range(runs)]
        for process in started:
            process.start()
        for process in started:
            process.join()
        if any(process.exitcode for process in started) or not all(answers.get() for _ in started):
            raise RuntimeError("a run did not end complete")
        return int(site.stats()["requests"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--runs", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    try:
        requests = count(args.songs, args.runs)
    except RuntimeError as error:
        sys.exit(str(error))
    print(
        f"{args.runs} runs of {args.songs:,}, begun at once: {requests:,} requests together, "
        f"{requests / args.songs:.3f} x {args.songs:,}"
    )


if __name__ == "__main__":
    main()
