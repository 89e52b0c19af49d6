"""The watcher of control.json: pauses told once, orders of others obeyed."""

import logging
import time
from datetime import timedelta
from pathlib import Path

import pytest

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.run.monitor import ControlWatcher
from crawler.store.control import order_pause, order_stop, publish_canary, read_control
from crawler.store.folder import FolderStore
from tests.clock import utc_now, wait_until


@pytest.fixture
def frontier() -> Frontier:
    """A frontier without a limit."""
    return Frontier(rate_limiter=RateLimiter(0))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A folder store that is ready."""
    folder = FolderStore(tmp_path)
    folder.check(timeout=5)
    return folder


def test_a_pause_is_told_to_the_others_through_the_store(
    frontier: Frontier, store: FolderStore
) -> None:
    """What the site asked of one instance lies in `control.json` for all."""
    with ControlWatcher(frontier, store, seen_stop_id=None) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)
    until = read_control(store, timeout=5).pause_until
    assert until is not None
    assert 20 < (until - utc_now()).total_seconds() <= 30


def test_a_pause_is_told_also_where_the_store_fails_at_first(
    frontier: Frontier,
    store: FolderStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store that cannot be written to for a moment does not keep the others in the dark."""
    blocked = Path(store.location) / "control.json"
    blocked.mkdir()  # no file can take its place
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: "control.json cannot be used" in caplog.text)
        blocked.rmdir()
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)


def test_the_same_pause_is_told_once(
    frontier: Frontier, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty-four answers of one moment ask for one pause: one log line, one write."""
    with (
        caplog.at_level(logging.WARNING, "crawler"),
        ControlWatcher(frontier, store, seen_stop_id=None) as watcher,
    ):
        for _ in range(64):
            watcher.publish_pause(5.0)
    assert len(caplog.records) == 1


def test_E12_a_pause_of_another_instance_holds_this_one(
    frontier: Frontier, store: FolderStore
) -> None:
    """`control.json` is looked at, and its pause is kept here too."""
    order_pause(store, utc_now() + timedelta(seconds=60), now=utc_now())
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05):
        assert wait_until(lambda: frontier.resume_at > time.monotonic() + 30)


def test_D7_a_pause_is_kept_once_whatever_the_time_of_day(
    frontier: Frontier, store: FolderStore
) -> None:
    """The clock was set back an hour: a pause of 0.2 s lasts 0.2 s, however often it is read."""
    ordered_at = utc_now() + timedelta(hours=1)
    order_pause(store, ordered_at + timedelta(seconds=0.2), now=ordered_at)
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05):
        assert wait_until(lambda: 0 < frontier.resume_at < time.monotonic())
        ended_at = frontier.resume_at
        order_stop(store, now=utc_now(), by="ann")
        assert wait_until(lambda: frontier.stopped_by == "stop_order")  # it was read again
    assert frontier.resume_at == ended_at


def test_D7_a_pause_told_by_this_run_is_not_read_as_another(
    frontier: Frontier, store: FolderStore
) -> None:
    """What the site told this run holds its frontier already: what it wrote itself adds nothing."""
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)
        order_stop(store, now=utc_now(), by="ann")
        assert wait_until(lambda: frontier.stopped_by == "stop_order")
    assert frontier.resume_at < time.monotonic()


def test_the_first_song_of_any_run_is_there_for_all(frontier: Frontier, store: FolderStore) -> None:
    """C9: shards and fresh stores know a song to ask when the site denies everything."""
    mine: list[int] = []
    theirs: list[int] = []
    with (
        ControlWatcher(frontier, store, seen_stop_id=None, canaries=mine, every_seconds=0.05),
        ControlWatcher(
            frontier, store, seen_stop_id=None, canaries=theirs, every_seconds=9
        ) as they,
    ):
        they.publish_canary(17)
        assert wait_until(lambda: mine == [17])
        assert wait_until(lambda: theirs == [17])
        they.publish_canary(18)
    assert read_control(store, timeout=5).canary == 17


def test_a_song_that_is_named_stays(store: FolderStore) -> None:
    """Later ones are no better, and each would be a write."""
    publish_canary(store, 5)
    assert publish_canary(store, 6).canary == 5
