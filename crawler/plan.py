"""The plan: a range less what the store has settled, as numbers to ask for, in order."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from itertools import islice

import msgspec

from crawler.block import BLOCK_SIZE, BlockInfo, block_first, last_asked_at
from crawler.errors import BlockFormatError
from crawler.record import Record

logger = logging.getLogger("crawler")

READ_AHEAD = 8
"""Blocks planned ahead, so that reading a partly settled one from a bucket delays nobody."""

_READERS = 4


class Criteria(msgspec.Struct, frozen=True, kw_only=True):
    """Which recorded numbers are to be asked again.

    Attributes:
        now: The time of the run, aware.
        refresh_before: A settled record asked before this time counts as not settled.
        is_missing_rechecked: Whether missing numbers count as not settled.
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
        if record.outcome == "missing" and self.is_missing_rechecked:
            return True
        return self.refresh_before is not None and last_asked_at(record) < self.refresh_before


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
    """

    first: int
    numbers: range | list[int]
    is_new: bool
    failed_runs: dict[int, int] = {}  # noqa: RUF012 - msgspec copies it
    settled: int = 0
    postponed: int = 0
    unreadable: int = 0


class FillSupply:
    """Supplies the numbers of `[start, stop)` that are not settled, ascending.

    Called under the frontier's lock; blocks that must be read are read ahead in threads.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        listing: Mapping[int, BlockInfo],
        criteria: Criteria,
        *,
        read: Callable[[int], dict[int, Record]],
        on_block: Callable[[PlannedBlock], None],
        limit: int | None = None,
    ) -> None:
        """Plan a range.

        Args:
            start: First number, included.
            stop: Number after the last.
            listing: What the store said about each of its blocks, by first number.
            criteria: What is to be asked again.
            read: Reads the records of the block that begins with a number; may be slow.
            on_block: Told of each block before its first number is supplied.
            limit: Numbers to supply at most.
        """
        self.exhausted = False
        self.supplied = self.settled = self.postponed = self.unreadable = 0
        self._start, self._stop = start, stop
        self._listing, self._criteria, self._read = listing, criteria, read
        self._on_block, self._limit = on_block, limit
        self._firsts = iter(range(block_first(start), stop, BLOCK_SIZE))
        self._ahead: deque[tuple[int, PlannedBlock | Future[PlannedBlock]]] = deque()
        self._current: Iterator[int] = iter(())
        self._pool: ThreadPoolExecutor | None = None

    def take(self, wanted: int) -> list[int]:
        """Give the next numbers; fewer or none while a block is being read.

        Raises:
            StoreUnavailableError: A block cannot be read.
        """
        if self._limit is not None:
            wanted = min(wanted, self._limit - self.supplied)
        numbers: list[int] = []
        while len(numbers) < wanted:
            numbers += islice(self._current, wanted - len(numbers))
            if len(numbers) < wanted and not self._next_block():
                break
        self.supplied += len(numbers)
        if self._limit is not None and self.supplied >= self._limit:
            self.exhausted = True
        return numbers

    def settled_beyond(self) -> int:
        """Count what is settled in the blocks the run did not come to, as the listing tells it."""
        rest = [first for first, _ in self._ahead] + list(self._firsts)
        return sum(self._settled_in(first) for first in rest)

    def close(self) -> None:
        """Let go of the readers."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _next_block(self) -> bool:
        """Go on to the next block with something to ask; False when there is none at hand."""
        self._plan_ahead()
        if not self._ahead:
            self.exhausted = True
            return False
        _, head = self._ahead[0]
        if isinstance(head, Future):
            if not head.done():
                return False
            head = head.result()
        self._ahead.popleft()
        self.settled += head.settled
        self.postponed += head.postponed
        self.unreadable += head.unreadable
        if len(head.numbers):
            self._on_block(head)
            self._current = iter(head.numbers)
        return True

    def _plan_ahead(self) -> None:
        while len(self._ahead) < READ_AHEAD:
            first = next(self._firsts, None)
            if first is None:
                return
            low, high = self._bounds(first)
            known = self._from_listing(first, low, high)
            self._ahead.append((first, known or self._from_reading(first, low, high)))

    def _bounds(self, first: int) -> tuple[int, int]:
        return max(first, self._start), min(first + BLOCK_SIZE, self._stop)

    def _settled_in(self, first: int) -> int:
        low, high = self._bounds(first)
        known = self._from_listing(first, low, high)
        if known is not None:
            return known.settled
        info = self._listing[first]
        return min(info.settled, high - low) if high - low == BLOCK_SIZE else 0

    def _from_listing(self, first: int, low: int, high: int) -> PlannedBlock | None:
        """Plan a block from its counts alone; None where its records must be read."""
        info = self._listing.get(first)
        if info is None:
            return PlannedBlock(first, range(low, high), is_new=True)
        criteria = self._criteria
        is_stale = (
            criteria.refresh_before is not None
            and info.oldest_fetched_at is not None
            and info.oldest_fetched_at < criteria.refresh_before
        )
        if is_stale or info.failed or (criteria.is_missing_rechecked and info.missing):
            return None
        if info.settled != info.last_num - info.first_num + 1:
            return None
        asked = [n for n in range(low, high) if not info.first_num <= n <= info.last_num]
        return PlannedBlock(first, asked, is_new=False, settled=high - low - len(asked))

    def _from_reading(self, first: int, low: int, high: int) -> Future[PlannedBlock]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_READERS, "plan")
        return self._pool.submit(self._plan_from_records, first, low, high)

    def _plan_from_records(self, first: int, low: int, high: int) -> PlannedBlock:
        try:
            records = self._read(first)
        except BlockFormatError as error:
            logger.error("%s; its numbers are left out", error)  # noqa: TRY400 - no trace is needed
            return PlannedBlock(first, [], is_new=False, unreadable=high - low)
        block = PlannedBlock(first, [], is_new=False)
        numbers: list[int] = []
        for num in range(low, high):
            record = records.get(num)
            if record is None or self._criteria.wants(record):
                numbers.append(num)
                if record is not None and record.failed_runs:
                    block.failed_runs[num] = record.failed_runs
            elif record.outcome == "failed":
                block.postponed += 1
            else:
                block.settled += 1
        block.numbers = numbers
        return block
