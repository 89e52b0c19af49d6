"""The scope of a run: which numbers a request is about, and how many of them are done."""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from datetime import datetime, timedelta

from crawler.plan.fill import FillSupply
from crawler.plan.planned import Criteria, PlannedBlock
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest
from crawler.settings.settings import MAX_SONG_NUM, Settings
from crawler.store.block import BLOCK_SIZE, BlockInfo, block_first

MISSING_IN_A_ROW = 1000
"""So many missing numbers in a row are the end of the catalogue."""


class TailSupply:
    """Supplies the numbers after the last found one, until enough in a row are missing.

    What lies beyond the last found song is missing only provisionally, so it is asked again each
    time. `note` must be told the outcome of every number supplied. Where a fill comes first, the
    tail begins when that is exhausted, at the last found number of then.
    """

    def __init__(
        self,
        last_found: int,
        *,
        fill: FillSupply | None = None,
        last_song: int | None = None,
        limit: int | None = None,
        missing_in_a_row: int = MISSING_IN_A_ROW,
        on_block: Callable[[PlannedBlock], None],
        plan: Callable[[int], PlannedBlock | None],
    ) -> None:
        """Begin after `last_found`; `last_song` is the highest number ever to be asked.

        `plan` returns what is to be asked of a block; None while it is being read.
        """
        self.exhausted, self.read_ahead = False, 1
        self.last_found = last_found
        self.next_num = last_found + 1
        self.supplied = 0
        self._fill, self._last_song, self._limit = fill, last_song, limit
        self._missing_in_a_row = missing_in_a_row
        self._on_block, self._plan = on_block, plan
        self._postponed = frozenset[int]()
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
        self.exhausted = self.next_num >= end and (self._outstanding == 0 or end == self._final)
        return numbers

    def _go_on(self, wanted: int) -> list[int]:
        """Step over numbers until there are enough, or a block has to be read first."""
        numbers: list[int] = []
        end = self._end()
        while len(numbers) < wanted and self.next_num < end and self._has_entered(self.next_num):
            is_due = self.next_num not in self._postponed
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

    def _has_entered(self, num: int) -> bool:
        """Announce a block that is entered, with the numbers to ask; False while it is being read."""
        if num < self._block_end:
            return True
        block = self._plan(block_first(num))
        if block is None:
            return False
        self._block_end = block.first + BLOCK_SIZE
        block.numbers = block.numbers[bisect_left(block.numbers, num) :]
        self._postponed = frozenset(range(num, self._block_end)).difference(block.numbers)
        if block.numbers:
            self._on_block(block)
        return True


class Scope:
    """Turns a request into a supply of numbers, and counts what the supply left out."""

    def __init__(
        self,
        request: CrawlRequest,
        settings: Settings,
        listing: Mapping[int, BlockInfo],
        *,
        now: datetime,
        read: Callable[[int], dict[int, Record]],
        on_block: Callable[[PlannedBlock], None],
        met: AbstractSet[int] = frozenset(),
        relist: Callable[[], None] = lambda: None,
        pool: Executor | None = None,
    ) -> None:
        """Plan a request.

        Args:
            settings: First and last song of the catalogue.
            listing: The store's blocks by first number; for a range at least those of the range.
        """
        self.mode, self._sample = request.mode, request.sample
        lasts = [info.last_found for info in listing.values() if info.last_found is not None]
        self.last_found = max(lasts, default=-1)
        self._tail: TailSupply | None = None
        self._last = _last_song(settings)
        self.start, self._fill_stop = self._bounds(request, settings)
        criteria = criteria_of(request, now)
        self._fill = FillSupply(
            self.start,
            self._fill_stop,
            listing,
            criteria,
            read=read,
            on_block=on_block,
            limit=request.limit,
            sample=request.sample,
            met=met,
            relist=relist,
            pool=pool,
        )
        if request.mode != "range":
            self._tail = TailSupply(
                max(self.last_found, settings.first_song - 1),
                fill=self._fill,
                last_song=self._last,
                limit=request.limit,
                on_block=on_block,
                plan=self._fill.plan_beyond,
            )

    def _bounds(self, request: CrawlRequest, settings: Settings) -> tuple[int, int]:
        if request.mode == "range":
            return request.start or 0, request.stop or 0
        first = settings.first_song
        if request.mode == "new":
            start = max(self.last_found + 1, first)
            return start, start
        end = self.last_found + 1
        if settings.last_song is not None:
            end = min(end, settings.last_song + 1)
        return first, max(first, end)

    @property
    def supply(self) -> FillSupply | TailSupply:
        """Where the frontier gets its numbers."""
        return self._tail or self._fill

    @property
    def total(self) -> int | None:
        """Numbers that are planned, None where the end is not known before the run."""
        if self._sample is not None:
            return min(self._sample, self._fill_stop - self.start)
        return None if self._tail else self._fill_stop - self.start

    @property
    def numbers(self) -> range:
        """The numbers among which a run may look for songs: its own, the begin of a tail included."""
        if self._tail is None:
            return range(self.start, self._fill_stop)
        end = max(self._fill_stop, self.start) + MISSING_IN_A_ROW
        return range(self.start, max(self.start, min(end, self._last + 1)))

    @property
    def stop(self) -> int:
        """The number after the last that the run is about, as far as is known."""
        if self._tail is not None and (self._tail.supplied or self._tail.postponed):
            return max(self._fill_stop, self._tail.next_num)
        return self._fill_stop

    @property
    def skipped(self) -> int:
        """Numbers left out so far: settled before, or failed and not due."""
        beyond = 0 if self._tail is None else self._tail.postponed
        return self._fill.settled + self._fill.postponed + beyond

    def skipped_in_all(self) -> int:
        """Numbers left out, those included that an interrupted run never came to; ask at the end."""
        return self.skipped + self._fill.settled_beyond()

    @property
    def has_gaps(self) -> bool:
        """Whether numbers were left out that are not settled."""
        if self._tail is not None and self._tail.postponed:
            return True
        return bool(self._fill.postponed or self._fill.unreadable)

    @property
    def missing_at_end(self) -> int:
        """Missing numbers beyond the last found song, once all that was supplied has an outcome."""
        return 0 if self._tail is None else self._tail.missing_at_end

    @property
    def has_tail(self) -> bool:
        """Whether the outcome of each number has to be noted."""
        return self._tail is not None

    def note(self, record: Record) -> None:
        """Note what came of a number: the end of the catalogue depends on it."""
        if self._tail is not None:
            self._tail.note(record.song_num, record.outcome == "found")

    def close(self) -> None:
        """End the threads that read ahead."""
        self._fill.close()


def _last_song(settings: Settings) -> int:
    """Return the highest number ever to be asked: beyond `MAX_SONG_NUM` there is no block."""
    highest = MAX_SONG_NUM - 1
    return highest if settings.last_song is None else min(settings.last_song, highest)


def criteria_of(request: CrawlRequest, now: datetime) -> Criteria:
    """Return what is to be asked again; all parts of an order look from the moment it was given."""
    days, since = request.refresh_older_than_days, request.ordered_at or now
    return Criteria(
        now=since,
        refresh_before=None if days is None else since - timedelta(days=days),
        is_missing_rechecked=request.recheck == "missing",
        skip_until_due=request.mode == "next",
    )
