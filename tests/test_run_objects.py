"""What a run leaves beside the blocks, and how long it is kept."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.answer import Answer
from crawler.store.contract import Content, Store
from crawler.store.control import (
    RunObject,
    leave_run_object,
    read_runs,
    requests_today,
    run_name,
)
from crawler.store.folder import FolderStore
from tests.records import NOON

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
    assert read_runs(store, latest=5, timeout=5) == [a_run()]


def test_runs_come_the_newest_first(store: Store) -> None:
    """Names sort by time, so the latest are the last names."""
    for hours in (2, 1, 3):
        leave_run_object(store, a_run(hours), "aa")
    started = [run.started_at.hour for run in read_runs(store, latest=2, timeout=5)]
    assert started == [15, 14]


def test_only_the_latest_runs_are_kept(store: Store) -> None:
    """The rest is removed when another one is written."""
    for hours in range(5):
        leave_run_object(store, a_run(hours), "aa", kept_runs=3)
    names = store.list_names("runs/", timeout=5)
    assert names == [run_name(a_run(hours).started_at, "aa") for hours in (2, 3, 4)]


def test_the_requests_of_a_day_are_summed(store: Store) -> None:
    """Runs of yesterday do not count."""
    for hours, name in ((0, "aa"), (0, "bb"), (-24, "cc")):
        leave_run_object(store, a_run(hours), name)
    assert requests_today(store, NOON, timeout=5) == 2 * ANSWER.requests


def test_an_unreadable_run_is_left_out(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """One broken object costs itself, and is named in the log."""
    leave_run_object(store, a_run(), "aa")
    store.write("runs/29990101T000000Z-zz.json", Content(b"{"), expected=None, timeout=5)
    assert read_runs(store, latest=5, timeout=5) == [a_run()]
    assert "29990101T000000Z-zz" in caplog.text


def test_a_store_in_trouble_costs_only_a_log_line(
    caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    """The records are stored by then; the run's object is worth having, not worth failing for."""
    del store
    leave_run_object(FolderStore("/dev/null/nowhere"), a_run(), "aa")
    assert "could not be written" in caplog.text


def test_the_object_is_plain_json() -> None:
    """Anybody can read it."""
    assert msgspec.json.decode(msgspec.json.encode(a_run()))["answer"]["found"] == 9


@given(data=st.binary(max_size=60) | st.sampled_from([b"[" * 10**5, b"{}", b'{"answer": 1}']))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_run_or_left_out(tmp_path: Path, data: bytes) -> None:
    """Whatever lies under a run's name, looking at the runs raises nothing and shows the others."""
    folder = FolderStore(tmp_path)
    folder.write(run_name(NOON, "abcd"), Content(data), expected=None, timeout=5)
    assert read_runs(folder, latest=1, timeout=5) == []
