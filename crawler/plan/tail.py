"""The tail: numbers after the last found song, asked until enough in a row are missing."""

from collections.abc import Callable, Sequence

from crawler.plan.known_failures import Failures
from crawler.plan.planned import PlannedBlock
from crawler.plan.supply import FillSupply
from crawler.store.block import BLOCK_SIZE, block_first


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
        """Learn what came of a number."""
        if is_found and song_num > self.last_found:
            self.last_found = song_num
        if self.supplied and song_num >= self._first_num:
            self._outstanding -= 1

    def take(self, wanted: int) -> list[int]:
        """Give the next numbers; none while the outcome of earlier ones decides whether to go on."""
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
        """Say which number is the first not to be asked, as far as is known now."""
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
        """Tell of a block that is entered, with the numbers that may be asked of it.

        False while it is being read.
        """
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
            is_new, runs = self._is_new_block(first), dict(failures.runs)
            self._on_block(PlannedBlock(first, numbers, is_new=is_new, failed_runs=runs))
        return True
