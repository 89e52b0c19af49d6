"""What goes on beside a crawl: pauses told once, orders of others obeyed, samples bounded."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from crawler import housekeeping
from crawler.control import order_pause, read_control
from crawler.folder import FolderStore
from crawler.frontier import Frontier
from crawler.housekeeping import MAX_SAMPLES, Housekeeper, Progress
from crawler.pacer import Pacer
from crawler.writer import Writer
from tests.clock import utc_now


@pytest.fixture
def frontier() -> Frontier:
    """A frontier without a limit."""
    return Frontier(pacer=Pacer(0))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A folder store that is ready."""
    folder = FolderStore(tmp_path)
    folder.check(timeout=5)
    return folder


def keeper_of(frontier: Frontier, store: FolderStore, **options: object) -> Housekeeper:
    """Make a housekeeper with a writer that is never used."""

    def save(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be saved")

    writer = Writer(save, on_stored=lambda _: None, on_trouble=lambda _: None)  # type: ignore[arg-type]
    settings = {
        "seen_stop_id": None,
        "stop_event": threading.Event(),
        "skipped": lambda: 3,
        "total": 10,
    }
    return Housekeeper(frontier, writer, store, **settings | options)  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool], seconds: float = 8.0) -> bool:
    """Wait for something another thread does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_pause_is_told_to_the_others_through_the_store(
    frontier: Frontier, store: FolderStore
) -> None:
    """What the site asked of one instance lies in `control.json` for all."""
    with keeper_of(frontier, store) as keeper:
        keeper.tell_pause(30.0)
        assert wait_until(lambda: read_control(store, timeout=5)[0].pause_until is not None)
    until = read_control(store, timeout=5)[0].pause_until
    assert until is not None
    assert 20 < (until - utc_now()).total_seconds() <= 30


def test_the_same_pause_is_told_once(
    frontier: Frontier, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty-four answers of one moment ask for one pause: one log line, one write."""
    with caplog.at_level(logging.WARNING, "crawler"), keeper_of(frontier, store) as keeper:
        for _ in range(64):
            keeper.tell_pause(5.0)
    assert len(caplog.records) == 1


def test_a_pause_of_another_instance_holds_this_one(
    frontier: Frontier, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`control.json` is looked at, and its pause is kept here too."""
    monkeypatch.setattr(housekeeping, "CONTROL_SECONDS", 0.05)
    order_pause(store, utc_now() + timedelta(seconds=60), now=utc_now())
    with keeper_of(frontier, store):
        assert wait_until(lambda: frontier.resume_at > time.monotonic() + 30)


def test_a_stop_event_closes_the_frontier(frontier: Frontier, store: FolderStore) -> None:
    """Ctrl-C and SIGTERM only set an event; the frontier is closed here."""
    event = threading.Event()
    with keeper_of(frontier, store, stop_event=event):
        event.set()
        assert wait_until(lambda: frontier.stopped_by == "signal")


def test_progress_counts_what_was_skipped(frontier: Frontier, store: FolderStore) -> None:
    """A bar knows the whole range, and what of it was settled before."""
    seen: list[Progress] = []
    with keeper_of(frontier, store, on_progress=seen.append):
        assert wait_until(lambda: bool(seen))
    assert (seen[-1].skipped, seen[-1].total, seen[-1].requests) == (3, 10, 0)


def test_samples_stay_bounded_however_long_a_run_is(frontier: Frontier, store: FolderStore) -> None:
    """When there are too many points every second one goes, and later ones come half as often."""
    keeper = keeper_of(frontier, store)
    for second in range(10_000):
        keeper._sample(float(second))
    assert len(keeper.samples) < MAX_SAMPLES
    seconds = [sample.seconds for sample in keeper.samples]
    assert seconds == sorted(seconds)
