"""In which order a run enters its blocks: ascending while alone, out of the way of other runs."""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from crawler.store.block import BLOCK_SIZE


class BlockOrder:
    """The blocks that are still to be entered, by their first numbers.

    Runs of one range do not speak to each other: when two meet in a block, the later one (and, when
    it comes to blocks that it did not do, the other) goes on in the middle of the longest stretch
    that nobody has done. There is no claim that could outlive its claimant.
    """

    def __init__(self, firsts: range) -> None:
        """Begin with all blocks, ascending."""
        self._stretches: deque[range] = deque([firsts] if firsts else [])

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

    def rest(self) -> Iterator[int]:
        """List what is left, in order."""
        return chain.from_iterable(self._stretches)

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
                open_stretches += [_blocks(low, first)] if low < first else []
                done.append(_blocks(first, first + BLOCK_SIZE))
                low = first + BLOCK_SIZE
            open_stretches += [_blocks(low, stretch.stop)] if low < stretch.stop else []
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
        if joined and joined[-1].stop >= stretch.start:
            joined[-1] = _blocks(joined[-1].start, max(joined[-1].stop, stretch.stop))
        else:
            joined.append(_blocks(stretch.start, stretch[-1] + BLOCK_SIZE))
    return joined


def _blocks(low: int, high: int) -> range:
    return range(low, high, BLOCK_SIZE)
