"""The scope of a run: which numbers a request is about, and how many of them are done."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor
from datetime import datetime, timedelta

from crawler.plan.fill import FillSupply
from crawler.plan.planned import Criteria, PlannedBlock
from crawler.plan.tail import KnownFailures, TailSupply
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest
from crawler.settings.reading import MAX_SONG_NUM, Settings
from crawler.store.block import BlockInfo


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
            request: What is asked for.
            settings: First and last song of the catalogue.
            listing: The store's blocks by first number; for a range at least those of the range.
            now: The time of the run, aware.
            read: Reads the records of a block.
            on_block: Told of each block before its first number is supplied.
            met: Blocks in which another run was met.
            relist: Brings the listing up to date.
            pool: Where blocks are read; by default threads of its own.
        """
        self.mode, self._sample = request.mode, request.sample
        lasts = [info.last_found for info in listing.values() if info.last_found is not None]
        self.last_found = max(lasts, default=-1)
        self._tail: TailSupply | None = None
        self._fill: FillSupply | None = None
        self.start, self._fill_stop = self._bounds(request, settings)
        criteria = criteria_of(request, now)
        self._failures = KnownFailures(listing, criteria, read, pool)
        if request.mode != "new":
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
                last_song=_last_song(settings),
                limit=request.limit,
                on_block=on_block,
                is_new_block=lambda first: first not in listing,
                failures_of=self._failures.of_block,
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
        return self._tail or self._fill  # type: ignore[return-value]

    @property
    def total(self) -> int | None:
        """Numbers that are planned, None where the end is not known before the run."""
        if self._sample is not None:
            return min(self._sample, self._fill_stop - self.start)
        return None if self._tail else self._fill_stop - self.start

    @property
    def numbers(self) -> range | None:
        """The numbers the run is about, None where the end is not known before it."""
        return None if self._tail else range(self.start, self._fill_stop)

    @property
    def stop(self) -> int:
        """The number after the last that the run is about, as far as is known."""
        if self._tail is not None and (self._tail.supplied or self._tail.postponed):
            return max(self._fill_stop, self._tail.next_num)
        return self._fill_stop

    @property
    def skipped(self) -> int:
        """Numbers left out so far: settled before, or failed and not due."""
        filled = 0 if self._fill is None else self._fill.settled + self._fill.postponed
        return filled + (0 if self._tail is None else self._tail.postponed)

    def skipped_in_all(self) -> int:
        """Numbers left out, those included that an interrupted run never came to; ask at the end."""
        return self.skipped + (0 if self._fill is None else self._fill.settled_beyond())

    @property
    def has_gaps(self) -> bool:
        """Whether numbers were left out that are not settled."""
        if self._tail is not None and self._tail.postponed:
            return True
        return self._fill is not None and bool(self._fill.postponed or self._fill.unreadable)

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
        self._failures.close()
        if self._fill is not None:
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
