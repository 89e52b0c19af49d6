"""What is still to be done: retries by their time, and fresh numbers in turns."""

import pytest

from crawler.frontier.work import Backlog, PendingNumber
from tests.simulation import job_over


def backlog_of(*lists) -> Backlog:
    """Make a backlog with a job for each list."""
    backlog = Backlog()
    for items in lists:
        backlog.add_job(job_over(items))
    return backlog


def items(backlog: Backlog, wanted: int, now: float = 0.0) -> list:
    """Take what is ready."""
    return [attempt.song_num for attempt in backlog.pop(backlog.prepare(wanted, now))]


def test_retries_that_are_due_come_first_and_in_the_order_of_their_time():
    """Then fresh numbers follow."""
    backlog = backlog_of(range(100, 110))
    for due in (5.0, 3.0, 4.0, 9.0):
        backlog.wait_until(due, PendingNumber(int(due), job_over([])))
    assert items(backlog, 5, now=5.0) == [3, 4, 5, 100, 101]
    assert backlog.next_due == 9.0


def test_retries_of_one_time_keep_their_order():
    """Attempts cannot be compared, and need not be."""
    backlog = Backlog()
    for num in range(5):
        backlog.wait_until(1.0, PendingNumber(num, job_over([])))
    assert items(backlog, 9, now=1.0) == [0, 1, 2, 3, 4]


def test_what_was_prepared_and_not_taken_keeps_its_place():
    """Asking how much there is changes no order."""
    backlog = backlog_of(range(10))
    assert backlog.prepare(3, 0.0) == 3
    backlog.wait_until(0.0, PendingNumber(99, job_over([])))
    assert items(backlog, 2) == [0, 1]
    assert items(backlog, 9) == [2, 99, 3, 4, 5, 6, 7, 8, 9]
    assert (items(backlog, 1), backlog.has_fresh) == ([], False)


@pytest.mark.parametrize("wanted", [1, 2, 3, 7, 64])
def test_jobs_take_turns_until_each_is_empty(wanted):
    """Whatever is wanted at a time, nothing is lost and every list keeps its order."""
    lists = [[(job, num) for num in range(length)] for job, length in enumerate((5, 0, 40, 17))]
    backlog, got = backlog_of(*lists), []
    while some := items(backlog, wanted):
        assert len(some) <= wanted
        got += some
    for job, wished in enumerate(lists):
        assert [item for item in got if item[0] == job] == wished


def test_a_supply_with_nothing_at_hand_keeps_nobody_waiting():
    """The other job's numbers are given, and the slow one is asked again later."""

    class Slow:
        exhausted, read_ahead = False, 1

        def take(self, _wanted):
            return []

    backlog = backlog_of(range(3))
    backlog.add_job(job_over([], supply=Slow()))
    assert items(backlog, 10) == [0, 1, 2]
    assert backlog.has_fresh


def test_a_supply_may_be_read_ahead_and_retries_that_are_due_come_first_all_the_same():
    """Numbers at hand wait in their job, so that a retry never waits for them; none is lost."""

    class Counted:
        def __init__(self):
            self.exhausted, self.read_ahead, self.calls = False, 16, []

        def take(self, wanted):
            self.calls.append(wanted)
            first = 16 * (len(self.calls) - 1)
            self.exhausted = first >= 32
            return list(range(first, first + 16))[: 8 if self.exhausted else 16]

    supply, backlog = Counted(), Backlog()
    backlog.add_job(job_over([], supply=supply))
    assert items(backlog, 1) == [0]
    backlog.wait_until(1.0, PendingNumber(99, job_over([])))
    assert items(backlog, 1, now=1.0) == [99]
    assert items(backlog, 20) + items(backlog, 19) == list(range(1, 40))
    assert (backlog.has_fresh, items(backlog, 9)) == (False, [])
    assert supply.calls == [16, 16, 16]
