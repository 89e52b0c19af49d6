"""Control: orders reach those who work, and no order is lost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.answer import Answer
from crawler.errors import BlockFormatError
from crawler.store.block import ABSENT
from crawler.store.contract import Content, Store
from crawler.store.control import (
    NAME,
    RUN_SECONDS,
    Control,
    RunObject,
    leave_run_object,
    order_pause,
    order_stop,
    pause_left,
    read_control,
    read_runs,
    requests_today,
    run_name,
)
from crawler.store.folder import FolderStore
from tests.records import NOON

SOON, LATER = NOON + timedelta(seconds=30), NOON + timedelta(hours=1)


def control(store):
    """Read what stands."""
    return read_control(store, timeout=20)


def test_a_new_store_has_no_orders(store):
    """Nobody has ordered anything, and nothing is written to say so."""
    assert read_control(store, timeout=20) == Control()
    assert store.read(NAME, timeout=20) is None


def test_E12_a_stop_order_is_seen(store):
    """E12: an order carries an id of its own, when it was given and by whom."""
    order = order_stop(store, now=NOON, by="ann")
    assert control(store) == order
    assert (order.stop_ordered_at, order.stop_ordered_by) == (NOON, "ann")
    assert order.stop_id


def test_E12_each_stop_order_differs(store):
    """E12: a second order stops the runs that began after the first."""
    ids = {order_stop(store, now=NOON, by="ann").stop_id for _ in range(2)}
    assert len(ids) == 2
    assert control(store).stop_id in ids


def test_E12_a_pause_is_seen(store):
    """E12: a pause met by one instance is there for all to read."""
    order_pause(store, LATER, now=NOON)
    assert control(store).pause_until == LATER


def test_a_longer_pause_is_never_shortened(store):
    """Of two pauses the longer stands, whichever comes first; the shorter writes nothing."""
    order_pause(store, LATER, now=NOON)
    before = read_control(store, timeout=20)
    order_pause(store, SOON, now=NOON)
    assert read_control(store, timeout=20) == before


def test_a_pause_is_lengthened(store):
    """A longer pause replaces a shorter one, also one that is over."""
    order_pause(store, SOON, now=NOON)
    order_pause(store, LATER, now=NOON)
    assert control(store).pause_until == LATER


@pytest.mark.parametrize(
    ("minutes_later", "seconds_left"),
    [(-60, 30), (0, 30), (0.25, 15), (0.5, 0), (60, 0)],
    ids=["clock set back", "at once", "half over", "at its end", "over"],
)
def test_D7_a_pause_lasts_no_longer_than_it_was_ordered_for(store, minutes_later, seconds_left):
    """D7: whatever the clock shows later, of 30 s no more than 30 are left."""
    order_pause(store, SOON, now=NOON)
    now = NOON + timedelta(minutes=minutes_later)
    assert pause_left(control(store), now=now) == timedelta(seconds=seconds_left)


def test_a_pause_of_an_older_version_is_kept_to_its_end():
    """Where nobody wrote when it was ordered, its end alone counts; without a pause none is left."""
    assert pause_left(Control(pause_until=LATER), now=NOON) == LATER - NOON
    assert pause_left(Control(), now=NOON) == timedelta()


def test_D7_a_pause_is_told_though_the_clock_was_set_back(store):
    """D7: the end of an old pause lies an hour ahead after a jump; a longer one replaces it."""
    order_pause(store, SOON, now=NOON)
    earlier = NOON - timedelta(hours=1)
    order_pause(store, earlier + timedelta(seconds=40), now=earlier)
    assert control(store).pause_until == earlier + timedelta(seconds=40)


@pytest.mark.parametrize("until", [NOON, NOON - timedelta(seconds=1)], ids=["now", "past"])
def test_a_pause_that_is_over_is_not_written(store, until):
    """A pause without a future costs no write."""
    order_pause(store, until, now=NOON)
    assert store.read(NAME, timeout=20) is None


def test_stop_and_pause_stand_beside_each_other(store):
    """Neither order wipes out the other."""
    order_pause(store, LATER, now=NOON)
    order_stop(store, now=NOON, by="ann")
    order_pause(store, LATER + timedelta(hours=1), now=NOON)
    stands = control(store)
    assert stands.stop_ordered_by == "ann"
    assert stands.pause_until == LATER + timedelta(hours=1)


def test_orders_given_at_once_are_all_kept(store):
    """Eight pauses and a stop at the same time: the longest pause and the stop stand."""

    def pause(minutes):
        order_pause(store, NOON + timedelta(minutes=minutes), now=NOON, timeout=60)

    with ThreadPoolExecutor(9) as pool:
        stop = pool.submit(order_stop, store, now=NOON, by="ann", timeout=60)
        list(pool.map(pause, [3, 8, 1, 5, 7, 2, 6, 4]))
    stands = control(store)
    assert stands.pause_until == NOON + timedelta(minutes=8)
    assert stands.stop_id == stop.result().stop_id


def test_stopping_works_whatever_stands_there(store):
    """A control object that cannot be read is told by name, and a stop order replaces it."""
    store.write(NAME, Content(b"broken"), expected=ABSENT, timeout=20)
    with pytest.raises(BlockFormatError, match=r"control\.json .* order a stop"):
        read_control(store, timeout=20)
    assert control_after_stop(store).stop_ordered_by == "ann"


def control_after_stop(store):
    """Order a stop, and read it back."""
    order_stop(store, now=NOON, by="ann")
    return control(store)


def test_a_time_without_a_zone_is_refused(store):
    """A time that could mean two moments is an error, not a guess."""
    store.write(
        NAME, Content(b'{"pause_until": "2026-11-22T12:00:00"}'), expected=ABSENT, timeout=20
    )
    with pytest.raises(BlockFormatError, match="zone"):
        read_control(store, timeout=20)


@given(data=st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b'{"stop_id": 1}', b"null"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_orders_or_a_named_error(tmp_path, data):
    """No object in the place of control.json raises anything but the named error."""
    store = FolderStore(tmp_path)
    store.write(NAME, Content(data), expected=None, timeout=20)
    with suppress(BlockFormatError):
        assert isinstance(control(store), Control)


# What a run leaves for whoever looks at the last ones.

ANSWER = Answer(
    start=0,
    stop=10,
    mode="range",
    found=9,
    missing=1,
    failed=0,
    skipped=0,
    complete=True,
    remaining=0,
    requests=11,
    retries=1,
    seconds=1.5,
    mean_rate=7.3,
    stopped_by="done",
    blocks_written=1,
    version="1",
)


def a_run(hours: float = 0) -> RunObject:
    """A run that began some hours after noon."""
    return RunObject(
        started_at=NOON + timedelta(hours=hours),
        answer=ANSWER,
        kinds={},
        rate=100,
        connections=64,
        samples=[],
    )


def test_a_run_is_read_back_as_it_was(store: Store) -> None:
    """Over both stores: what was left is what is read."""
    leave_run_object(store, a_run(), "aa")
    assert read_runs(store, latest=5) == [a_run()]


def test_runs_come_the_newest_first(store: Store) -> None:
    """Names sort by time, so the latest are the last names."""
    for hours in (2, 1, 3):
        leave_run_object(store, a_run(hours), "aa")
    started = [run.started_at.hour for run in read_runs(store, latest=2)]
    assert started == [15, 14]


def test_only_the_latest_runs_are_kept(store: Store) -> None:
    """The rest is removed when another one is written."""
    for days in range(5):
        leave_run_object(store, a_run(24 * days), "aa", kept_runs=3)
    names = store.list_names("runs/", timeout=5)
    assert names == [run_name(a_run(24 * days).started_at, "aa") for days in (2, 3, 4)]


def test_the_runs_of_a_day_are_kept_while_it_lasts(store: Store) -> None:
    """However many a fan-out makes of them: the day's cap counts them all."""
    for hours in (-24, 0, 1, 2, 3):
        leave_run_object(store, a_run(hours), "aa", kept_runs=2)
    assert len(store.list_names("runs/", timeout=5)) == 4
    assert requests_today(store, NOON, timeout=5) == 4 * ANSWER.requests


def test_the_requests_of_a_day_are_summed(store: Store) -> None:
    """Runs of yesterday do not count."""
    for hours, name in ((0, "aa"), (0, "bb"), (-24, "cc")):
        leave_run_object(store, a_run(hours), name)
    assert requests_today(store, NOON, timeout=5) == 2 * ANSWER.requests


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        msgspec.json.encode(a_run()).replace(b"Z", b""),
        msgspec.json.encode(a_run()).replace(b'"samples":[]', b'"samples":[["x"]]'),
    ],
    ids=["cut", "deep", "time-without-zone", "odd-sample"],
)
def test_an_unreadable_run_is_left_out(
    data: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """One broken object costs itself, and is named in the log."""
    leave_run_object(store, a_run(), "aa")
    store.write("runs/29990101T000000Z-zz.json", Content(data), expected=None, timeout=5)
    assert read_runs(store, latest=5) == [a_run()]
    assert "29990101T000000Z-zz" in caplog.text


def test_a_store_in_trouble_costs_only_a_log_line(
    caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    """The records are stored by then; the run's object is worth having, not worth failing for."""
    del store
    leave_run_object(FolderStore("/dev/null/nowhere"), a_run(), "aa")
    assert "could not be written" in caplog.text


class SlowToDelete(FolderStore):
    """A store where each deletion takes seven seconds of its own clock."""

    now = 0.0

    def clock(self) -> float:
        """Return the seconds so far."""
        return self.now

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete, slowly."""
        assert timeout <= RUN_SECONDS - self.now
        self.now += 7
        super().delete(name, timeout=timeout)


def test_old_runs_are_removed_while_there_is_time(tmp_path: Path) -> None:
    """The end of a run waits for so long and no longer; the next ones remove the rest."""
    for days in range(6):
        leave_run_object(FolderStore(tmp_path), a_run(24 * days), "aa")
    store = SlowToDelete(tmp_path)
    leave_run_object(store, a_run(24 * 6), "aa", kept_runs=1)
    assert store.now == 21
    assert len(store.list_names("runs/", timeout=5)) == 4


def test_the_object_is_plain_json() -> None:
    """Anybody can read it."""
    assert msgspec.json.decode(msgspec.json.encode(a_run()))["answer"]["found"] == 9


@given(data=st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b"{}", b'{"answer": 1}']))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_run_or_left_out(tmp_path: Path, data: bytes) -> None:
    """Whatever lies under a run's name, looking at the runs raises nothing and shows the others."""
    folder = FolderStore(tmp_path)
    folder.write(run_name(NOON, "abcd"), Content(data), expected=None, timeout=5)
    assert read_runs(folder, latest=1) == []
