"""What is to be asked of one block: by its counts where they suffice, else by its records."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from crawler.record import Record, is_from_future, last_asked_at
from crawler.store.block import BLOCK_SIZE, BlockInfo

LONGEST_WAIT = timedelta(days=7)
"""A number that failed is worth asking again after this long at the latest."""


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Which recorded numbers are to be asked again.

    A record from the future, made by a machine whose clock was ahead, counts as older than any.

    Attributes:
        now: The time of the run, or of the order of which it is a part, aware.
        refresh_before: A settled record asked before this time counts as not settled.
        is_missing_rechecked: Whether missing numbers count as not settled, if asked before `now`.
        skip_until_due: Whether a failed number is left out until its next try is due.
        clock: The time of day, aware; tells what is from the future.
    """

    now: datetime
    refresh_before: datetime | None = None
    is_missing_rechecked: bool = False
    skip_until_due: bool = False
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def wants(self, record: Record) -> bool:
        """Whether a number that has this record is to be asked again."""
        if record.outcome == "failed":
            due = record.next_try_at
            is_due = due is None or due <= self.now or self.is_from_future(due - LONGEST_WAIT)
            return is_due or not self.skip_until_due
        return self.wants_since(last_asked_at(record), is_missing=record.outcome == "missing")

    def wants_since(self, asked_at: datetime, *, is_missing: bool) -> bool:
        """Whether a settled number that was last asked at that time is to be asked again."""
        before = self.now if is_missing and self.is_missing_rechecked else self.refresh_before
        return before is not None and (asked_at < before or self.is_from_future(asked_at))

    def is_from_future(self, moment: datetime) -> bool:
        """Whether a time cannot be, since it is still to come."""
        return is_from_future(moment, self.clock())


class PlannedBlock(msgspec.Struct):
    """What is to be asked of one block.

    Attributes:
        first: Its first number.
        numbers: To be asked, ascending.
        is_new: Whether the store showed no such block.
        failed_runs: Of numbers that failed before: in how many runs in a row.
        newest: Of numbers whose records are from the future: their times, which the new records
            have to be later than.
        settled: Numbers of the range that are settled and not asked.
        postponed: Numbers of the range that failed before and are not due.
        unreadable: Numbers of the range that cannot be planned, since the block is broken.
        is_touched: Whether it holds more than the listing showed: another run is about.
    """

    first: int
    numbers: Sequence[int]
    is_new: bool
    failed_runs: dict[int, int] = {}
    newest: dict[int, datetime] = {}
    settled: int = 0
    postponed: int = 0
    unreadable: int = 0
    is_touched: bool = False


def plan_from_counts(
    info: BlockInfo | None, first: int, numbers: Sequence[int], criteria: Criteria
) -> PlannedBlock | None:
    """Plan a block from its counts alone; None where its records must be read.

    Args:
        info: What the listing says of it, None where it shows no such block.
        numbers: Those of the range that lie in it, ascending.
    """
    if info is None:
        return PlannedBlock(first, numbers, is_new=True)
    if info.failed or not _is_as_wanted(info, criteria):
        return None
    if info.settled != info.last_num - info.first_num + 1:
        return None
    if len(numbers) and info.first_num <= numbers[0] and numbers[-1] <= info.last_num:
        return PlannedBlock(first, [], is_new=False, settled=len(numbers))
    asked = [n for n in numbers if not info.first_num <= n <= info.last_num]
    return PlannedBlock(first, asked, is_new=False, settled=len(numbers) - len(asked))


def settled_in(info: BlockInfo, count: int, criteria: Criteria) -> int:
    """Return how many of `count` numbers of a block are settled for certain, by its counts alone."""
    if count < BLOCK_SIZE:
        return 0
    if criteria.refresh_before is not None and not _is_as_wanted(info, criteria):
        return 0
    return info.found if criteria.is_missing_rechecked else info.settled


def _is_as_wanted(info: BlockInfo, criteria: Criteria) -> bool:
    """Whether no settled number of a block is to be asked again, for certain, by its counts alone."""
    oldest = info.oldest_fetched_at
    newest = info.newest_fetched_at or oldest
    moments = [moment for moment in (oldest, newest) if moment is not None]
    return not any(criteria.wants_since(at, is_missing=info.missing > 0) for at in moments)


def plan_from_records(
    first: int, records: Mapping[int, Record], numbers: Sequence[int], criteria: Criteria
) -> PlannedBlock:
    """Plan a block from its records; arguments as above."""
    block = PlannedBlock(first, [], is_new=not records)
    asked: list[int] = []
    for num in numbers:
        record = records.get(num)
        if record is None or criteria.wants(record):
            asked.append(num)
            if record is not None and record.failed_runs:
                block.failed_runs[num] = record.failed_runs
            if record is not None and criteria.is_from_future(last_asked_at(record)):
                block.newest[num] = last_asked_at(record)
        elif record.outcome == "failed":
            block.postponed += 1
        else:
            block.settled += 1
    block.numbers = asked
    return block
