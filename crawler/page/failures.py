"""What failed, grouped by reason, with the numbers to look at: from a listing alone."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from crawler.store.block_info import BLOCK_SIZE, BlockInfo
from crawler.store.coverage import failed_nums

MAX_PLACES = 8
"""Places named for one reason; the others are counted."""


class Place(msgspec.Struct):
    """Neighbouring blocks with failures: of `[start, stop)` so many numbers failed."""

    start: int
    stop: int
    failed: int


class Failures(msgspec.Struct):
    """Numbers that failed for one reason.

    Attributes:
        reason: Kind of failure; "other" are those of blocks with more than five kinds.
        failed: How many numbers.
        nums: Some of them, ascending; none where no block names any.
        places: Where most of them are, ascending.
        places_left_out: Places beyond `MAX_PLACES`.
    """

    reason: str
    failed: int
    nums: list[int]
    places: list[Place]
    places_left_out: int

    @property
    def all_named(self) -> bool:
        """Whether `nums` are all there are, so that nobody need be told where they lie."""
        return len(self.nums) == self.failed


def group_failures(blocks: Iterable[BlockInfo]) -> list[Failures]:
    """Group what failed by reason, most first; `blocks` ascend."""
    blocks = list(blocks)
    places: defaultdict[str, list[Place]] = defaultdict(list)
    for block in blocks:
        if block.failed:
            for reason, count in _reasons(block).items():
                _add(places[reason], block, count)
    nums = failed_nums(blocks)
    groups = [_group(reason, nums.get(reason, []), found) for reason, found in places.items()]
    return sorted(groups, key=lambda group: (-group.failed, group.reason))


def _reasons(block: BlockInfo) -> dict[str, int]:
    rest = block.failed - sum(block.reasons.values())
    return block.reasons | ({"other": block.reasons.get("other", 0) + rest} if rest > 0 else {})


def _add(places: list[Place], block: BlockInfo, failed: int) -> None:
    if places and places[-1].stop == block.first:
        places[-1].stop = block.first + BLOCK_SIZE
        places[-1].failed += failed
    else:
        places.append(Place(block.first, block.first + BLOCK_SIZE, failed))


def _group(reason: str, nums: list[int], places: list[Place]) -> Failures:
    worst = sorted(places, key=lambda place: -place.failed)[:MAX_PLACES]
    return Failures(
        reason,
        sum(place.failed for place in places),
        nums,
        sorted(worst, key=lambda place: place.start),
        len(places) - len(worst),
    )
