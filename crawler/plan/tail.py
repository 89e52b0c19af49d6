"""The tail: numbers after the last found song, asked until enough in a row are missing."""

import contextvars
import logging
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import datetime

import msgspec

from crawler.errors import BlockFormatError
from crawler.plan.fill import FillSupply
from crawler.plan.planned import Criteria, PlannedBlock
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, BlockInfo, block_first

logger = logging.getLogger("crawler")


class Failures(msgspec.Struct, frozen=True):
    """The failed numbers of one block.

    Attributes:
        postponed: Those that are not to be asked now.
        runs: In how many runs in a row they failed, by number.
        newest: Their times, where these are from the future; see `PlannedBlock`.
    """

    postponed: AbstractSet[int] = frozenset()
    runs: Mapping[int, int] = {}
    newest: Mapping[int, datetime] = {}


_NONE = Failures()


class KnownFailures:
    """Reads the blocks in which numbers failed, one at a time, in a thread of its own."""

    def __init__(
        self,
        listing: Mapping[int, BlockInfo],
        criteria: Criteria,
        read: Callable[[int], dict[int, Record]],
        pool: Executor | None = None,
    ) -> None:
        """Prepare to look into a store's blocks; see `Scope`."""
        self._listing, self._criteria, self._read = listing, criteria, read
        self._reading: tuple[int, Future[Failures]] | None = None
        self._pool = pool

    def of_block(self, first: int) -> Failures | None:
        """Return which numbers of a block failed; None while it is being read: ask again soon.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        info = self._listing.get(first)
        if self._reading is not None and self._reading[0] == first:
            future = self._reading[1]
            return future.result() if future.done() else None
        if info is None or not info.failed:
            return _NONE
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "plan")
        run = contextvars.copy_context().run  # what is logged there has the request's trace
        self._reading = first, self._pool.submit(run, self._look_into, first)
        return None

    def close(self) -> None:
        """End the thread that reads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _look_into(self, first: int) -> Failures:
        try:
            records = self._read(first)
        except BlockFormatError as error:
            logger.error("%s; its numbers are left out", error)  # noqa: TRY400 - no trace is needed
            return Failures(frozenset(range(first, first + BLOCK_SIZE)))
        failed = [record for record in records.values() if record.outcome == "failed"]
        return Failures(
            frozenset(record.song_num for record in failed if not self._criteria.wants(record)),
            {record.song_num: record.failed_runs for record in failed},
            {
                record.song_num: record.fetched_at
                for record in failed
                if self._criteria.is_from_future(record.fetched_at)
            },
        )


class TailSupply:
    """Supplies the numbers after the last found one, until enough in a row are missing.

    What lies beyond the last found song is missing only provisionally, so it is asked again each
    time; what failed there and is not due is passed over. `note` must be told the outcome of every number supplied. Where a fill comes first, the
    tail begins when that is exhausted, at the last found number of then.
    """

    def __init__(
        self,
        last_found: int,
        *,
        fill: FillSupply | None = None,
        last_song: int | None = None,
        limit: int | None = None,
        missing_in_a_row: int = 1000,
        on_block: Callable[[PlannedBlock], None],
        is_new_block: Callable[[int], bool],
        failures_of: Callable[[int], Failures | None] = lambda _first: Failures(),
    ) -> None:
        """Begin after `last_found`; `last_song` is the highest number ever to be asked.

        `failures_of` tells what is known of a block's failed numbers; None while it is being read.
        """
        self.exhausted = False
        self.last_found = last_found
        self.next_num = last_found + 1
        self.supplied = 0
        self._fill, self._last_song, self._limit = fill, last_song, limit
        self._missing_in_a_row = missing_in_a_row
        self._on_block, self._is_new_block = on_block, is_new_block
        self._failures_of, self._failures = failures_of, Failures()
        self._passed_over: list[int] = []
        self._first_num = self.next_num
        self._outstanding = 0
        self._block_end = 0

    @property
    def missing_at_end(self) -> int:
        """Numbers supplied beyond the last found song."""
        begin = max(self.last_found + 1, self._first_num)
        return max(0, self.next_num - begin - sum(num >= begin for num in self._passed_over))

    @property
    def postponed(self) -> int:
        """Numbers that were passed over, since they failed before and are not due."""
        return len(self._passed_over)

    def note(self, song_num: int, is_found: bool) -> None:
        """Note what came of a number."""
        if is_found and song_num > self.last_found:
            self.last_found = song_num
        if self.supplied and song_num >= self._first_num:
            self._outstanding -= 1

    def take(self, wanted: int) -> list[int]:
        """Return the next numbers; none while the outcome of earlier ones decides whether to go on."""
        if self._fill is not None and not self._fill.exhausted:
            numbers = self._fill.take(wanted)
            if numbers or not self._fill.exhausted:
                return numbers
        if not self.supplied:
            self._first_num = self.next_num = max(self.next_num, self.last_found + 1)
        numbers = self._go_on(wanted)
        self.supplied += len(numbers)
        self._outstanding += len(numbers)
        end = self._end()
        self.exhausted = self.next_num >= end and (self._outstanding == 0 or self._is_final(end))
        return numbers

    def _go_on(self, wanted: int) -> list[int]:
        """Step over numbers until there are enough, or a block has to be read first."""
        numbers: list[int] = []
        end = self._end()
        while len(numbers) < wanted and self.next_num < end and self._has_entered(self.next_num):
            is_due = self.next_num not in self._failures.postponed
            (numbers if is_due else self._passed_over).append(self.next_num)
            self.next_num += 1
        return numbers

    def _end(self) -> int:
        """Return the first number that is not to be asked, as far as is known now."""
        end = self.last_found + self._missing_in_a_row + 1
        return end if self._final is None else min(end, self._final)

    @property
    def _final(self) -> int | None:
        """The number at which the tail ends whatever is found."""
        ends = []
        if self._last_song is not None:
            ends.append(self._last_song + 1)
        if self._limit is not None:
            filled = self._fill.supplied if self._fill is not None else 0
            ends.append(self.next_num + max(0, self._limit - filled - self.supplied))
        return min(ends, default=None)

    def _is_final(self, end: int) -> bool:
        return self._final is not None and end >= self._final

    def _has_entered(self, num: int) -> bool:
        """Announce a block that is entered, with the numbers to ask; False while it is being read."""
        if num < self._block_end:
            return True
        first = block_first(num)
        failures = self._failures_of(first)
        if failures is None:
            return False
        self._failures, self._block_end = failures, first + BLOCK_SIZE
        numbers: Sequence[int] = range(num, self._block_end)
        if failures.postponed:
            numbers = [each for each in numbers if each not in failures.postponed]
        if numbers:
            block = PlannedBlock(first, numbers, is_new=self._is_new_block(first))
            block.failed_runs, block.newest = dict(failures.runs), dict(failures.newest)
            self._on_block(block)
        return True
