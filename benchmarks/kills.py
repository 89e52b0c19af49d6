"""What SIGKILL costs: this crawler, Scrapy and Crawlee killed at random moments, then let finish.

`python -m benchmarks.kills [SONGS [KILLS [SEED]]]` writes `docs/kills.md`. Others run in the
environment of the benchmarks (`.venv-bench`), each set up for resuming as its documentation says.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from crawler.demo.site import DemoSite
from crawler.demo.songs import song
from crawler.store.opening import read

ROOT = Path(__file__).parent.parent
THEIRS = ROOT / ".venv-bench" / "bin" / "python"
PAGE = ROOT / "docs" / "kills.md"
LAST_RUN_SECONDS = 240.0


class Contestant(NamedTuple):
    """A crawler, how it is started, and how its songs are read."""

    name: str
    command: Callable[[str, int, Path], list[str]]
    songs: Callable[[Path], Iterable[int]]


class Result(NamedTuple):
    """What one contestant came to; of the songs that the site has."""

    name: str
    kills: int
    missing: int
    twice: int
    unreadable: int
    note: str


def _ours(site: str, stop: int, folder: Path) -> list[str]:
    rest = ["--store", str(folder), "--base-url", site, "--rate", "0", "--connections", "16"]
    return [sys.executable, "-m", "crawler", "crawl", "1", str(stop), *rest]


def _theirs(module: str) -> Callable[[str, int, Path], list[str]]:
    def command(site: str, stop: int, folder: Path) -> list[str]:
        name = f"benchmarks.kill_contestants.{module}"
        return [str(THEIRS), "-m", name, site, str(stop), str(folder)]

    return command


def _our_songs(folder: Path) -> Iterable[int]:
    return (num for num, _ in read(str(folder)))


def _scrapy_songs(folder: Path) -> Iterable[int]:
    return map(_number, (folder / "items.jsonl").read_bytes().splitlines())


def _crawlee_songs(folder: Path) -> Iterable[int]:
    files = (folder / "datasets" / "default").glob("[0-9]*.json")
    return (_number(path.read_bytes()) for path in files)


def _number(line: bytes) -> int:
    try:
        return int(json.loads(line)["song_num"])
    except (ValueError, KeyError, TypeError):
        return -1


CONTESTANTS = (
    Contestant("this crawler", _ours, _our_songs),
    Contestant("Scrapy 2.19, JOBDIR", _theirs("scrapy_jobdir"), _scrapy_songs),
    Contestant("Crawlee 1.11, file storage", _theirs("crawlee_files"), _crawlee_songs),
)


def torment(contestant: Contestant, songs: int, kills: int, chance: random.Random) -> Result:
    """Kill it so many times, let it finish, and count its songs."""
    note = ""
    with (
        tempfile.TemporaryDirectory() as name,
        DemoSite(latency_seconds=0.1) as site,
    ):
        command = contestant.command(site.base_url, songs + 1, Path(name))
        struck = 0
        for _ in range(kills):
            with _start(command) as process:
                _wait_for(site, process, chance.randint(50, 450))
                struck += process.poll() is None
                process.kill()
        with _start(command) as process:
            try:
                code = process.wait(LAST_RUN_SECONDS)
                note = "" if code == 0 else f"the last run ended with {code}"
            except subprocess.TimeoutExpired:
                process.kill()
                note = f"the last run did not end within {LAST_RUN_SECONDS:.0f} s"
        try:
            held = Counter(contestant.songs(Path(name)))
        except OSError as error:
            held, note = Counter(), f"{note} {type(error).__name__}".strip()
    wanted = {num for num in range(1, songs + 1) if song(num) is not None}
    unreadable = held.pop(-1, 0)
    twice = sum(count - 1 for count in held.values())
    return Result(contestant.name, struck, len(wanted - held.keys()), twice, unreadable, note)


def _wait_for(site: DemoSite, process: subprocess.Popen[bytes], requests: int) -> None:
    """Wait until so many more requests have come, or the process has ended."""
    enough = site.stats()["requests"] + requests
    while process.poll() is None and site.stats()["requests"] < enough:
        time.sleep(0.05)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    environ = os.environ | {"GENIUS_TOKEN": "demo-token", "PYTHONPATH": str(ROOT)}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=quiet, stderr=quiet)


def page(results: list[Result], songs: int, standing: str) -> str:
    """Write the results as a page; what stands below the next heading (`make torture`) is kept."""
    wanted = sum(song(num) is not None for num in range(1, songs + 1))
    lines = [
        "# What kills cost",
        "",
        f"Each crawler asks the embedded site (100 ms a page, 16 connections) for {songs:,} numbers, of which {wanted:,} have a song.",
        "It is killed with SIGKILL at random moments, 50 to 450 requests after each start, and then let finish.",
        "Counted is what it holds in the end, of the songs that the site has.",
        "Each is set up for going on after an interruption as its documentation says; Scrapy's names Ctrl-C and signals as the safe ways to stop a job, and a kill is none of them.",
        "",
        "| crawler | kills | songs missing | songs twice | unreadable | note |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.kills} | {r.missing} | {r.twice} | {r.unreadable} | {r.note} |"
        for r in results
    ]
    lines += [
        "",
        "Repeat it with `python -m benchmarks.kills` (once `make bench` has made `.venv-bench`).",
    ]
    _, heading, kept = standing.partition("\n## ")
    return "\n".join(lines) + "\n" + heading + kept


def main(arguments: list[str]) -> None:
    """Measure all three, and write the page."""
    given = [int(value) for value in arguments]
    songs, kills, seed = given + [3000, 5, 1][len(given) :]
    results = []
    for contestant in CONTESTANTS:
        results.append(torment(contestant, songs, kills, random.Random(seed)))
        print(results[-1], flush=True)
    standing = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    PAGE.write_text(page(results, songs, standing), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
