"""Outcomes become counts, tuples and records."""

from datetime import UTC, datetime

import pytest

from crawler.frontier.ledger import Ledger, info_of
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt, IterableSupply, Job

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def attempt_for(source, results, *, requests=1) -> Attempt:
    """Make an attempt for number 7, already made."""
    job = Job(lambda *_: None, IterableSupply([]), results, source)
    return Attempt(7, job, requests=requests)


def test_a_source_s_info_is_appended_and_recorded():
    """One tuple, one record, one count."""
    records, results = [], []
    ledger = Ledger(records.append)
    attempt = attempt_for(object(), results, requests=3)
    ledger.found(attempt, Reply(attempt, True, {"a": 1}, 200), NOON)
    [record] = records
    assert results == [(7, {"a": 1})]
    assert (record.outcome, record.info, record.status, record.attempts, record.fetched_at) == (
        "found", {"a": 1}, 200, 3, NOON,
    )  # fmt: skip
    assert (ledger.tally.found, ledger.is_recording) == (1, True)


def test_what_a_step_1_function_appended_is_passed_on_as_it_is():
    """All its tuples reach the results, in order; the record holds their infos."""
    records, results = [], []
    attempt = attempt_for(None, results)
    appended = [(7, "x"), (7, "y", "z")]
    Ledger(records.append).found(attempt, Reply(attempt, True, appended, 200), NOON)
    assert results == appended
    assert records[0].info == ["x", ["y", "z"]]


def test_missing_and_failed_append_nothing():
    """They are recorded with their status, kind and detail, cut to a line."""
    records, results = [], []
    ledger = Ledger(records.append)
    attempt = attempt_for(object(), results)
    ledger.missing(attempt, Reply(attempt, status=410), NOON)
    ledger.failed(attempt, Reply(attempt, status=500, detail="d" * 999), "http_500", NOON)
    assert results == []
    assert [(r.outcome, r.status, r.error, len(r.detail)) for r in records] == [
        ("missing", 410, None, 0),
        ("failed", 500, "http_500", 200),
    ]
    assert (ledger.tally.missing, ledger.tally.failed) == (1, 1)


def test_without_a_store_only_counts_and_tuples_are_kept():
    """Steps 2 and 3 alone make no record."""
    results = []
    ledger = Ledger(None)
    attempt = attempt_for(object(), results)
    ledger.found(attempt, Reply(attempt, True, 1, 200), NOON)
    ledger.missing(attempt, Reply(attempt, status=404), NOON)
    ledger.failed(attempt, Reply(attempt), "timeout", NOON)
    assert (results, ledger.is_recording) == ([(7, 1)], False)


@pytest.mark.parametrize(
    ("appended", "info"),
    [
        ([(7, "x")], "x"),
        ([(7, "x", "y")], ["x", "y"]),
        ([(7, "x"), (7, "y")], ["x", "y"]),
        ([(7, None)], None),
    ],
)
def test_one_info_is_made_of_what_was_appended(appended, info):
    """A single tuple's info, a longer tuple's rest, or a list of these."""
    assert info_of(appended) == info


def test_what_step_1_does_wrong_is_told_at_once_and_not_for_ever(caplog):
    """Each thing once, five of them in a run; what the site does is counted alone."""
    ledger = Ledger(None)
    attempt = attempt_for(None, [])
    for detail in ("ValueError: no luck", *"aabcdefg"):
        ledger.failed_attempt(attempt, Reply(attempt, error="function", detail=detail), "function")
    ledger.failed_attempt(attempt, Reply(attempt, status=500, detail="z"), "http_500")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("WARNING", f"step 1 failed on song 7: {detail}")
        for detail in ("ValueError: no luck", *"abcd")
    ]
    assert ledger.tally.kinds == {"function": 9, "http_500": 1}
