"""The kill harness: crawls are killed, doubled and starved, and afterwards each number is there once.

`make torture` runs all of it at full length and writes a table; `tests/test_torture.py` runs a
short form. Every crawl is the real command line in a process of its own, against the demo site in
another; a store is judged by `verify` and by the songs that the site serves.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from crawler.answer import Answer
from crawler.store.block import block_name, decode_block
from crawler.store.coverage import verify
from crawler.store.opening import open_store
from tests.records import expected_info
from tests.storage_server import StorageServer

STOP_SECONDS = 60.0


@contextlib.contextmanager
def song_site() -> Iterator[str]:
    """Run the demo site as a process of its own; yields its address."""
    command = [sys.executable, "-m", "crawler", "demo-site"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split(" ", 1)[0]
        finally:
            process.terminate()


class Outcome(msgspec.Struct):
    """What one torment came to; all three counts must be 0."""

    name: str
    interruptions: int
    missing: int
    twice: int
    wrong: int
    note: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether every number was there once, as the site serves it."""
        return not (self.missing or self.twice or self.wrong)


class Scene:
    """One range, one store and one site, and crawls upon them."""

    def __init__(
        self, store: str, site: str, stop: int, *, rate: int, caller: str = "source"
    ) -> None:
        self.store, self.site, self.stop, self.rate, self.caller = store, site, stop, rate, caller

    def start(self, **environ: str) -> subprocess.Popen[str]:
        """Start a crawl over the whole range as a process of its own."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "crawler", "crawl", "1", str(self.stop), "--json"),
                *("--store", self.store, "--base-url", self.site, "--rate", str(self.rate)),
            ],
            env=os.environ | {"GENIUS_TOKEN": "demo-token"} | self._function | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def _function(self) -> dict[str, str]:
        if self.caller == "source":
            return {}
        return {"CRAWLER_FUNCTION": "tests.song_step:ask_for_song", "CRAWLER_BASE_URL": self.site}

    def finish(self) -> Answer:
        """Crawl to the end."""
        with self.start() as crawl:
            out, err = crawl.communicate(timeout=STOP_SECONDS * 5)
        if crawl.returncode != 0:
            raise AssertionError(f"the last run ended with {crawl.returncode}: {err[-2000:]}")
        return msgspec.json.decode(out, type=Answer)

    def judge(self, name: str, interruptions: int, note: str = "") -> Outcome:
        """Hold every record of the range against what the site serves."""
        store = open_store(self.store)
        report = verify(store, 1, self.stop, timeout=60)
        outcome = Outcome(name, interruptions, 0, 0, 0, note or report.problem or "")
        seen: set[int] = set()
        for info in store.list_blocks(timeout=60):
            stored = store.read(block_name(info.first), timeout=60)
            assert stored is not None
            for num, record in decode_block(stored.data, block_name(info.first)).items():
                outcome.twice += num in seen
                seen.add(num)
                wanted = expected_info(num)
                is_right = record.outcome == ("missing" if wanted is None else "found")
                outcome.wrong += not (is_right and record.info == wanted)
        outcome.missing = len(set(range(1, self.stop)) - seen)
        outcome.wrong += len(seen - set(range(1, self.stop)))
        if report.problem is not None:
            outcome.wrong += 1
        return outcome


def kill_at_random(scene: Scene, kills: int, chance: random.Random) -> int:
    """Kill a crawl at random moments, so many times; give how many were really under way."""
    struck = 0
    for _ in range(kills):
        with scene.start() as crawl:
            time.sleep(chance.uniform(0.1, 1.2))
            struck += crawl.poll() is None
            crawl.kill()
    return struck


def signal_at_random(
    scene: Scene, number: signal.Signals, times: int, chance: random.Random
) -> float:
    """Send a signal once to each of some crawls; give the longest time one took to end.

    Raises:
        AssertionError: A crawl ended otherwise than not complete or complete.
    """
    longest = 0.0
    for _ in range(times):
        with scene.start() as crawl:
            time.sleep(chance.uniform(0.8, 1.6))
            sent_at = time.monotonic()
            crawl.send_signal(number)
            _, err = crawl.communicate(timeout=STOP_SECONDS)
        longest = max(longest, time.monotonic() - sent_at)
        early = (-number, 130)  # before the command line had its handlers in place
        assert crawl.returncode in (0, 3, *early), (crawl.returncode, err[-2000:])
    return longest


def run_twice_at_once(scene: Scene) -> None:
    """Run one range by two processes that start together."""
    with scene.start() as one, scene.start() as other:
        for crawl in (one, other):
            _, err = crawl.communicate(timeout=STOP_SECONDS * 2)
            assert crawl.returncode == 0, err[-2000:]


def starve(scene: Scene, megabytes: int) -> str:
    """Run with a limited address space; whatever comes of it, nothing wrong may be stored."""
    shell = f'ulimit -v {megabytes << 10}; exec "$@"'
    with subprocess.Popen(
        [
            *("bash", "-c", shell, "bash", sys.executable, "-m", "crawler", "crawl", "1"),
            *(str(scene.stop), "--store", scene.store, "--base-url", scene.site),
            *("--rate", str(scene.rate)),
        ],
        env=os.environ | {"GENIUS_TOKEN": "demo-token"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as crawl:
        try:
            crawl.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            crawl.kill()
            return f"killed at {megabytes} MiB"
    return f"exit {crawl.returncode} at {megabytes} MiB"


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """A file system of its own that is soon full, where root may mount one; else None."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def fill_the_disk(scene: Scene, folder: Path) -> None:
    """Leave no room, run, make room again."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    with scene.start() as crawl:
        _, err = crawl.communicate(timeout=STOP_SECONDS * 4)
    assert crawl.returncode in (1, 3), err[-2000:]
    assert "Traceback" not in err, err[-2000:]
    ballast.unlink()


def stop_the_storage(scene: Scene, server: StorageServer) -> None:
    """Stop the storage server under a run, and start it again."""
    with scene.start() as crawl:
        time.sleep(1.5)
        server.stop()
        time.sleep(2.0)
        server.start()
        _, err = crawl.communicate(timeout=STOP_SECONDS * 4)
    assert crawl.returncode in (0, 3), err[-2000:]


@contextlib.contextmanager
def stores(folder: Path) -> Iterator[Callable[[str], str]]:
    """Give a function that makes a new store of a kind, `folder` or `bucket`."""
    with StorageServer() as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        made: list[str] = []

        def make(kind: str) -> str:
            name = f"torture-{len(made)}"
            made.append(name)
            if kind == "folder":
                return str(folder / name)
            server.make_bucket(name)
            return f"gs://{name}/songs"

        yield make


def torments(songs: int, kills: int, seed: int) -> Iterator[Outcome]:
    """Run every torment, with both kinds of store; yield what each came to."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, song_site() as site, stores(Path(folder)) as new:
        for kind in ("folder", "bucket"):
            for caller, share in (("source", 0.7), ("function", 0.3)):
                count = max(2, round(kills * share))
                rate = max(300, round(songs / (count * 0.25)))
                scene = Scene(new(kind), site, songs + 1, rate=rate, caller=caller)
                struck = kill_at_random(scene, count, chance)
                scene.finish()
                yield scene.judge(f"SIGKILL, {kind}, {caller}", struck)
            for number in (signal.SIGTERM, signal.SIGINT):
                scene = Scene(new(kind), site, songs + 1, rate=500)
                longest = signal_at_random(scene, number, 3, chance)
                scene.finish()
                yield scene.judge(f"{number.name}, {kind}", 3, f"ended within {longest:.1f} s")
            scene = Scene(new(kind), site, songs + 1, rate=0)
            run_twice_at_once(scene)
            yield scene.judge(f"two runs at once, {kind}", 1)
        scene = Scene(new("folder"), site, songs + 1, rate=0)
        notes = [starve(scene, megabytes) for megabytes in (60, 90, 120, 160)]
        scene.finish()
        yield scene.judge("address space limited", len(notes), ", ".join(notes))
        with small_disk(8) as disk:
            if disk is not None:
                scene = Scene(str(disk / "store"), site, songs + 1, rate=0)
                scene.stop = 2001
                scene.finish()
                scene.stop = songs + 1
                fill_the_disk(scene, disk)
                scene.finish()
                yield scene.judge("disk full", 1)
    with (
        tempfile.TemporaryDirectory() as folder,
        song_site() as site,
        StorageServer(folder=Path(folder)) as server,
    ):
        os.environ["STORAGE_EMULATOR_HOST"] = server.url
        server.make_bucket("torture")
        scene = Scene("gs://torture/songs", site, songs + 1, rate=1000)
        stop_the_storage(scene, server)
        scene.finish()
        yield scene.judge("storage server stopped for 2 s", 1)


def table(outcomes: list[Outcome]) -> str:
    """Write outcomes as a Markdown table."""
    lines = [
        "| torment | interruptions | missing | twice | wrong | note |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {o.name} | {o.interruptions} | {o.missing} | {o.twice} | {o.wrong} | {o.note} |"
        for o in outcomes
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[Any]) -> int:
    """Run at full length: `python -m tests.torture [SONGS [KILLS [SEED]]]`."""
    given = [int(value) for value in arguments]
    songs, kills, seed = given + [20_000, 50, 1][len(given) :]
    outcomes = []
    for outcome in torments(songs, kills, seed):
        print(outcome, flush=True)
        outcomes.append(outcome)
    print(table(outcomes))
    return 0 if all(outcome.is_clean for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
