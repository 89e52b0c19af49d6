"""Filling a range: the numbers that the store has not settled, block by block."""

import contextvars
import logging
import random
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from crawler.errors import BlockFormatError
from crawler.plan.planned import (
    Criteria,
    PlannedBlock,
    plan_from_counts,
    plan_from_records,
    settled_in,
)
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, BlockInfo, block_first

logger = logging.getLogger("crawler")

T = TypeVar("T")

READ_AHEAD = 8  # blocks, so that reading one from a bucket delays nobody
NUMBERS_AHEAD = 16
"""Numbers that are planned at once: at a slow pace other runs are heeded so much later."""


def spread(numbers: range, start: int, step: int) -> list[int]:
    """Choose those of `numbers` that a sample holds: one of each `step` numbers from `start` on.

    Which one is scattered, lest it be always the same digit, and is the same each time.
    """
    if not numbers:
        return []
    strata = range((numbers[0] - start) // step, (numbers[-1] - start) // step + 1)
    chosen = (start + k * step + k * 2_654_435_761 % step for k in strata)  # Knuth's multiplier
    return [num for num in chosen if num in numbers]


class BlockOrder:
    """The blocks that are still to be entered, by their first numbers.

    Runs of one range do not speak to each other: when two meet in a block, the later one (and, when
    it comes to blocks that it did not do, the other) goes on in the middle of the longest stretch
    that nobody has done. There is no claim that could outlive its claimant.
    """

    def __init__(self, *stretches: range) -> None:
        """Begin with the blocks of these stretches, ascending."""
        self._stretches = deque(filter(None, stretches))

    def next(self) -> int | None:
        """Take the block to be entered next; None when none is left."""
        if not self._stretches:
            return None
        stretch = self._stretches.popleft()
        if len(stretch) > 1:
            self._stretches.appendleft(stretch[1:])
        return stretch[0]

    def put_back(self, first: int) -> None:
        """Put back a block that was taken and not done, to be taken next."""
        self._stretches.appendleft(_blocks(first, first + BLOCK_SIZE))

    def __contains__(self, first: int) -> bool:
        """Whether a block is left."""
        return any(first in stretch for stretch in self._stretches)

    def part(self, settled: Sequence[int], share: float) -> None:
        """Go on in the longest stretch without a settled block, about in its middle.

        Settled blocks come last. Two runs that part at the same moment must not meet again at
        once, so where in the middle half of the stretch is left to chance.

        Args:
            settled: First numbers of settled blocks, ascending.
            share: A random number from 0 to 1.
        """
        open_stretches: list[range] = []
        done: list[range] = []
        for stretch in _joined(self._stretches):
            low = stretch.start
            for first in settled[
                bisect_left(settled, stretch.start) : bisect_left(settled, stretch.stop)
            ]:
                open_stretches.append(_blocks(low, first))
                done.append(_blocks(first, first + BLOCK_SIZE))
                low = first + BLOCK_SIZE
            open_stretches.append(_blocks(low, stretch.stop))
        self._stretches = deque(_from_the_middle(open_stretches, share) + done)


def _from_the_middle(stretches: list[range], share: float) -> list[range]:
    """Turn a list round, to begin about in the middle of its longest stretch."""
    if not stretches:
        return []
    place = max(range(len(stretches)), key=lambda i: len(stretches[i]))
    longest = stretches[place]
    middle = int(len(longest) * (0.25 + 0.5 * share))
    turned = [longest[middle:], *stretches[place + 1 :], *stretches[:place], longest[:middle]]
    return [stretch for stretch in turned if stretch]


def _joined(stretches: deque[range]) -> list[range]:
    """Sort stretches, and join those that touch."""
    joined: list[range] = []
    for stretch in sorted(stretches, key=lambda stretch: stretch.start):
        touches = joined and joined[-1].stop == stretch.start
        joined.append(_blocks(joined.pop().start if touches else stretch.start, stretch.stop))
    return joined


def _blocks(low: int, high: int) -> range:
    return range(low, high, BLOCK_SIZE)


def sample_numbers(start: int, stop: int, sample: int | None) -> Sequence[int]:
    """Return the numbers of `[start, stop)` that a sample of so many holds; None: all."""
    numbers = range(start, stop)
    return numbers if sample is None else spread(numbers, start, _step(start, stop, sample))


def _stretches(start: int, stop: int, step: int) -> list[range]:
    """Return the blocks of `[start, stop)` that hold one of each `step` numbers."""
    if step <= BLOCK_SIZE:
        return [_blocks(block_first(start), stop if start < stop else 0)]
    firsts = dict.fromkeys(map(block_first, spread(range(start, stop), start, step)))
    return [_blocks(first, first + BLOCK_SIZE) for first in firsts]


def _step(start: int, stop: int, sample: int | None) -> int:
    return 1 if sample is None else max(1, (stop - start) // sample)


class FillSupply:
    """Supplies the numbers of `[start, stop)` that are not settled, ascending.

    Called under the frontier's lock; reading goes on in threads. Where another run turns up, this
    one leaves its block, lists anew, goes on elsewhere, and reads each block just before it enters.
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
        sample: int | None = None,
        met: AbstractSet[int] = frozenset(),
        relist: Callable[[], None] = lambda: None,
        uniform: Callable[[float, float], float] = random.uniform,
        pool: Executor | None = None,
    ) -> None:
        """Plan a range.

        Args:
            listing: What the store said about each of its blocks, by first number.
            read: Reads the records of the block that begins with a number; may be slow.
            on_block: Told of each block before its first number is supplied.
            sample: Plan only so many numbers, spread over the range; None: all.
            met: Blocks in which another run was met; may grow at any time.
            relist: Brings the listing up to date; may be slow.
            uniform: Chance, by which runs that meet go different ways.
            pool: Where blocks are read; by default threads of its own.
        """
        self.exhausted, self.read_ahead, self._is_alone = False, NUMBERS_AHEAD, True
        self.supplied = self.settled = self.postponed = self.unreadable = 0
        self._start, self._stop = start, stop
        self._step = _step(start, stop, sample)
        self._listing, self._criteria, self._read = listing, criteria, read
        self._on_block, self._limit = on_block, limit
        self._met, self._relist, self._uniform = met, relist, uniform
        self._order = BlockOrder(*_stretches(start, stop, self._step))
        self._ahead: deque[tuple[int, PlannedBlock | Future[PlannedBlock]]] = deque()
        self._current: Iterator[int] = iter(())
        self._current_first = 0
        self._pool = pool
        self._entered, self._heeded = set[int](), set[int]()
        self._left_over: dict[int, list[int]] = {}
        self._relisting: Future[None] | None = None
        self._beyond: tuple[int, Future[PlannedBlock]] | None = None

    def take(self, wanted: int) -> list[int]:
        """Return the next numbers; fewer or none while a block is being read.

        Raises:
            StoreUnavailableError: A block cannot be read.
        """
        if len(self._met) > len(self._heeded) and self._has_met():
            self._leave_block()
        if self._limit is not None:
            wanted = min(wanted, self._limit - self.supplied)
        numbers: list[int] = []
        while len(numbers) < wanted:
            numbers += islice(self._current, wanted - len(numbers))
            if len(numbers) < wanted and not self._next_block():
                break
        self.supplied += len(numbers)
        self.exhausted = self.exhausted or self.supplied == self._limit
        return numbers

    def settled_beyond(self) -> int:
        """Count what is settled in blocks not come to, by the listing; in doubt too few."""
        ahead = {first for first, _ in self._ahead}
        firsts = [first for first in list(self._listing) if first in ahead or first in self._order]
        return sum(self._settled_in(first) for first in firsts)

    def plan_beyond(self, first: int) -> PlannedBlock | None:
        """Plan a block after the last found song: all numbers but those that failed and are not due.

        None while it is being read, because numbers in it failed: ask again soon.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        if self._beyond is not None and self._beyond[0] == first:
            return self._beyond[1].result() if self._beyond[1].done() else None
        info = self._listing.get(first)
        if info is None or not info.failed:
            return PlannedBlock(first, range(first, first + BLOCK_SIZE), is_new=info is None)
        self._beyond = first, self._in_thread(self._failed_by_reading, first)
        return None

    def close(self) -> None:
        """End the threads that read."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _next_block(self) -> bool:
        """Go on to the next block; False when none is at hand."""
        if not self._has_parted():
            return False
        self._plan_ahead()
        if not self._ahead:
            self.exhausted = True
            return False
        first, head = self._ahead[0]
        if isinstance(head, Future):
            if not head.done():
                return False
            head = head.result()
        self._ahead.popleft()
        if head.is_touched:
            self._left_over[first] = list(self._numbers(first))  # heeded once, whatever is listed
            self._order.put_back(first)
            self._part()
            return True
        self._enter(head)
        return True

    def _enter(self, block: PlannedBlock) -> None:
        self.settled += block.settled
        self.postponed += block.postponed
        self.unreadable += block.unreadable
        self._left_over.pop(block.first, None)
        if len(block.numbers):
            self._on_block(block)
            self._current, self._current_first = iter(block.numbers), block.first
            self._entered.add(block.first)

    # Beside another run.

    def _has_met(self) -> bool:
        """Whether another run was met in a block entered since the last parting."""
        news = set(self._met) - self._heeded
        self._heeded |= news
        return not news.isdisjoint(self._entered)

    def _leave_block(self) -> None:
        """Leave the rest of this block for later: whoever was first is likely to do it."""
        if rest := list(self._current):
            self._left_over[self._current_first] = rest
            self._order.put_back(self._current_first)
        self._current = iter(())
        self._part()

    def _part(self) -> None:
        for first, head in reversed(self._ahead):
            self._order.put_back(first)
            if isinstance(head, Future):
                head.cancel()
        self._ahead.clear()
        self._entered.clear()
        self._is_alone = False
        if self._relisting is None:
            self._relisting = self._in_thread(self._relist)

    def _has_parted(self) -> bool:
        """Go elsewhere once the listing is new; False until then."""
        if self._relisting is None:
            return True
        if not self._relisting.done():
            return False
        self._relisting.result()
        self._relisting = None
        plans = [self._from_counts(first) for first in sorted(self._listing)]
        settled = [plan.first for plan in plans if plan and not len(plan.numbers)]
        self._order.part(settled, self._uniform(0.0, 1.0))
        return True

    # Planning.

    def _plan_ahead(self) -> None:
        while len(self._ahead) < (READ_AHEAD if self._is_alone else 1):
            if (first := self._order.next()) is None:
                return
            known = self._from_counts(first)
            if known is not None and (self._is_alone or not len(known.numbers)):
                self._ahead.append((first, known))
            else:
                self._ahead.append((first, self._in_thread(self._by_reading, first)))

    def _in_thread(self, task: Callable[..., T], *args: int) -> Future[T]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(4, "plan")
        run = contextvars.copy_context().run  # what is logged there has the request's trace
        return self._pool.submit(run, task, *args)

    def _numbers(self, first: int) -> Sequence[int]:
        """List the numbers of a block that have not been entered."""
        if first in self._left_over:
            return self._left_over[first]
        numbers = range(max(first, self._start), min(first + BLOCK_SIZE, self._stop))
        return numbers if self._step == 1 else spread(numbers, self._start, self._step)

    def _from_counts(self, first: int) -> PlannedBlock | None:
        info = self._listing.get(first)
        return plan_from_counts(info, first, self._numbers(first), self._criteria)

    def _settled_in(self, first: int) -> int:
        if known := self._from_counts(first):
            return known.settled
        return settled_in(self._listing[first], len(self._numbers(first)), self._criteria)

    def _by_reading(self, first: int) -> PlannedBlock:
        numbers, records = self._numbers(first), self._readable(first)
        if records is None:
            return PlannedBlock(first, [], is_new=False, unreadable=len(numbers))
        block = plan_from_records(first, records, numbers, self._criteria)
        info = self._listing.get(first)
        if not self._is_alone and first not in self._left_over:
            block.is_touched = len(records) > (info.settled + info.failed if info else 0)
        return block

    def _failed_by_reading(self, first: int) -> PlannedBlock:
        records = self._readable(first)
        if records is None:
            return PlannedBlock(first, [], is_new=False)
        failed = {num: record for num, record in records.items() if record.outcome == "failed"}
        numbers = range(first, first + BLOCK_SIZE)
        block = plan_from_records(first, failed, numbers, self._criteria)
        block.is_new = False
        return block

    def _readable(self, first: int) -> dict[int, Record] | None:
        try:
            return self._read(first)
        except BlockFormatError as error:
            logger.error("%s; its numbers are left out", error)  # noqa: TRY400 - no trace is needed
            return None
