"""What is made of each reply: counts, tuples, records, and words on what step 1 does wrong."""

import pytest

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, Job, Policy, info_of
from tests.simulation import NOON


class Asked:
    """A frontier that handed out its numbers; `hand_back` answers them in turn."""

    def __init__(self, numbers, *, source=None, is_recording=True, **policy):
        """Ask."""
        self.records, self.results = [], []
        self.frontier = Frontier(
            Policy(backoff_seconds=0.0, **policy),
            rate_limiter=RateLimiter(0),
            on_record=self.records.append if is_recording else None,
            wall=lambda: NOON,
        )
        job = Job(lambda *_: None, IterableSupply(numbers), self.results, source)
        self.frontier.add_job(job)
        self.attempts, _ = self.frontier.take(len(numbers))

    def hand_back(self, index=0, **reply):
        """Answer one of them."""
        self.frontier.hand_back([Reply(self.attempts[index], **reply)])


def test_a_source_s_info_is_appended_and_recorded():
    """One tuple, one record, one count."""
    asked = Asked([7], source=object())
    for _ in range(2):
        asked.hand_back(status=500)
        asked.attempts, _ = asked.frontier.take(1)
    asked.hand_back(found=True, info={"a": 1}, status=200)
    [record] = asked.records
    assert asked.results == [(7, {"a": 1})]
    assert (record.outcome, record.info, record.status, record.attempts, record.fetched_at) == (
        "found", {"a": 1}, 200, 3, NOON,
    )  # fmt: skip
    assert (asked.frontier.tally.found, asked.frontier.is_recording) == (1, True)


def test_what_a_step_1_function_appended_is_passed_on_as_it_is():
    """All its tuples reach the results, in order; the record holds their infos."""
    asked, appended = Asked([7]), [(7, "x"), (7, "y", "z")]
    asked.hand_back(found=True, info=appended, status=200)
    assert asked.results == appended
    assert asked.records[0].info == ["x", ["y", "z"]]


def test_missing_and_failed_append_nothing():
    """They are recorded with their status, kind and detail, cut to a line."""
    asked = Asked([7, 8], source=object(), max_attempts=1)
    asked.hand_back(status=410)
    asked.hand_back(1, status=500, detail="d" * 999)
    asked.frontier.take(1)  # nothing is left to ask: a few missing ones are believed
    asked.records.sort(key=lambda record: record.song_num)
    assert asked.results == []
    assert [(r.outcome, r.status, r.error, len(r.detail)) for r in asked.records] == [
        ("missing", 410, None, 0),
        ("failed", 500, "http_500", 200),
    ]
    assert (asked.frontier.tally.missing, asked.frontier.tally.failed) == (1, 1)


def test_without_a_store_only_counts_and_tuples_are_kept():
    """Steps 2 and 3 alone make no record."""
    asked = Asked([7, 8, 9], source=object(), is_recording=False, max_attempts=1)
    asked.hand_back(0, found=True, info=1, status=200)
    asked.hand_back(1, status=404)
    asked.hand_back(2, error="timeout")
    tally = asked.frontier.tally
    assert (asked.results, asked.frontier.is_recording) == ([(7, 1)], False)
    assert (tally.found, tally.missing, tally.failed) == (1, 1, 1)


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
    details = ("ValueError: no luck", *"aabcdefg")
    asked = Asked(range(len(details) + 1), source=object())
    for num, detail in enumerate(details):
        asked.hand_back(num, error="function", detail=detail)
    asked.hand_back(len(details), status=500, detail="z")
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert told == [
        ("WARNING", f"step 1 failed on number {num}: {detail}")
        for num, detail in zip((0, 1, 3, 4, 5), ("ValueError: no luck", *"abcd"), strict=True)
    ]
    assert asked.frontier.tally.kinds == {"function": 9, "http_500": 1}
