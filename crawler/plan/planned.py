"""What is to be asked of one block: told by its counts where they suffice, else by its records."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, BlockInfo, last_asked_at


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Which recorded numbers are to be asked again.

    Attributes:
        now: The time of the run, or of the order of which it is a part, aware.
        refresh_before: A settled record asked before this time counts as not settled.
        is_missing_rechecked: Whether missing numbers count as not settled, if asked before `now`.
        is_patient: Whether a failed number is left out until its next try is due.
    """

    now: datetime
    refresh_before: datetime | None = None
    is_missing_rechecked: bool = False
    is_patient: bool = False

    def wants(self, record: Record) -> bool:
        """Whether a number that has this record is to be asked again."""
        if record.outcome == "failed":
            due = record.next_try_at
            return not (self.is_patient and due is not None and due > self.now)
        asked_at = last_asked_at(record)
        if record.outcome == "missing" and self.is_missing_rechecked and asked_at < self.now:
            return True
        return self.refresh_before is not None and asked_at < self.refresh_before


class PlannedBlock(msgspec.Struct):
    """What is to be asked of one block.

    Attributes:
        first: Its first number.
        numbers: To be asked, ascending.
        is_new: Whether the store showed no such block.
        failed_runs: Of numbers that failed before: in how many runs in a row.
        settled: Numbers of the range that are settled and not asked.
        postponed: Numbers of the range that failed before and are not due.
        unreadable: Numbers of the range that cannot be planned, since the block is broken.
        is_touched: Whether it holds more than the listing showed: another run is about.
    """

    first: int
    numbers: Sequence[int]
    is_new: bool
    failed_runs: dict[int, int] = {}
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
        first: Its first number.
        numbers: Those of the range that lie in it, ascending.
        criteria: What is to be asked again.
    """
    if info is None:
        return PlannedBlock(first, numbers, is_new=True)
    oldest = info.oldest_fetched_at
    is_stale = (
        criteria.refresh_before is not None
        and oldest is not None
        and oldest < criteria.refresh_before
    )
    is_rechecked = (
        criteria.is_missing_rechecked and info.missing and (oldest is None or oldest < criteria.now)
    )
    if is_stale or is_rechecked or info.failed:
        return None
    if info.settled != info.last_num - info.first_num + 1:
        return None
    if len(numbers) and info.first_num <= numbers[0] and numbers[-1] <= info.last_num:
        return PlannedBlock(first, [], is_new=False, settled=len(numbers))
    asked = [n for n in numbers if not info.first_num <= n <= info.last_num]
    return PlannedBlock(first, asked, is_new=False, settled=len(numbers) - len(asked))


def settled_in(info: BlockInfo, count: int, criteria: Criteria) -> int:
    """Say how many of `count` numbers of a block are settled for certain, by its counts alone."""
    if count < BLOCK_SIZE:
        return 0
    oldest = info.oldest_fetched_at
    if criteria.refresh_before is not None and (oldest is None or oldest < criteria.refresh_before):
        return 0
    return info.found if criteria.is_missing_rechecked else info.settled


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
        elif record.outcome == "failed":
            block.postponed += 1
        else:
            block.settled += 1
    block.numbers = asked
    return block
