"""Coverage: what a store holds along the number line, from its listing alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice, zip_longest

import msgspec

from crawler.store.block import BLOCK_SIZE, UNPROVEN_IN_A_ROW, BlockInfo, is_from_future
from crawler.store.contract import Store

MAX_GAPS = 100
"""So many gaps are named; the rest are counted."""

MAX_NUMS = 12
"""So many numbers are named for one reason."""


EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""There was no crawler before, so a time before it was read from a wrong clock."""


class Gap(msgspec.Struct):
    """Numbers `[start, stop)` of which some or all were never asked.

    Attributes:
        start: First number, included.
        stop: Number after the last.
        not_asked: How many of them have no record; `stop - start` when none has.
    """

    start: int
    stop: int
    not_asked: int


class Coverage(msgspec.Struct, kw_only=True):
    """What a store holds; the JSON of `GET /status`. All zero and None where it is empty.

    Attributes:
        blocks: Block objects.
        found: Numbers that are found.
        missing: Numbers that are missing.
        failed: Numbers that are failed: not known.
        settled: found + missing.
        first_num: Lowest number that has a record.
        last_num: Highest number that has a record.
        last_found: Highest number that is found.
        oldest_fetched_at: When the settled number that waited longest was last asked for.
        next_try_at: Earliest time at which a failed number is worth asking again; None where none
            failed, or where one may be asked at any time.
        reasons: Failed numbers by kind of failure, most first; "other" are those of blocks with
            more than five kinds.
        failed_nums: Of each of these reasons some numbers that failed so, ascending, at most
            `MAX_NUMS`; blocks of a crawler that did not name any add none, nor do "other" ones.
        not_asked: Numbers between first_num and last_num that have no record.
        gaps: Where they are, ascending, at most `MAX_GAPS`.
        gaps_left_out: Gaps beyond those.
        unproven: Stretches `[start, stop)` in which 50 and more numbers in a row are missing without
            proof, ascending, at most `MAX_GAPS`; of blocks of earlier crawlers only those that are
            certain from their counts: `verify` reads the rest.
        odd_times: Stretches `[start, stop)` of blocks that hold times from the future, or from
            before `EARLIEST`, ascending, at most `MAX_GAPS`.
    """

    blocks: int = 0
    found: int = 0
    missing: int = 0
    failed: int = 0
    settled: int = 0
    first_num: int | None = None
    last_num: int | None = None
    last_found: int | None = None
    oldest_fetched_at: datetime | None = None
    next_try_at: datetime | None = None
    reasons: dict[str, int] = {}
    failed_nums: dict[str, list[int]] = {}
    not_asked: int = 0
    gaps: list[Gap] = []
    gaps_left_out: int = 0
    unproven: list[tuple[int, int]] = []
    odd_times: list[tuple[int, int]] = []

    def to_json(self) -> bytes:
        """Write it as JSON, UTF-8."""
        return msgspec.json.encode(self)


def coverage(store: Store, *, timeout: float) -> Coverage:
    """Return what a store holds, from its listing alone.

    Raises:
        StoreUnavailableError: It cannot be listed in time, seconds.
        BlockFormatError: A block's counts cannot be read.
    """
    return coverage_of(store.list_blocks(timeout=timeout))


def coverage_of(blocks: Iterable[BlockInfo], *, now: datetime | None = None) -> Coverage:
    """Sum up blocks, given in ascending order; `now` is aware, by default the time of day."""
    blocks = list(blocks)
    if not blocks:
        return Coverage()
    gaps = list(_merged(_gaps(blocks)))
    found = sum(block.found for block in blocks)
    missing = sum(block.missing for block in blocks)
    return Coverage(
        blocks=len(blocks),
        found=found,
        missing=missing,
        failed=sum(block.failed for block in blocks),
        settled=found + missing,
        first_num=blocks[0].first_num,
        last_num=blocks[-1].last_num,
        last_found=max((b.last_found for b in blocks if b.last_found is not None), default=None),
        oldest_fetched_at=min(
            (b.oldest_fetched_at for b in blocks if b.oldest_fetched_at is not None), default=None
        ),
        next_try_at=_next_try_at(blocks),
        reasons=_reasons(blocks),
        failed_nums=failed_nums(blocks),
        not_asked=sum(gap.not_asked for gap in gaps),
        gaps=gaps[:MAX_GAPS],
        gaps_left_out=max(0, len(gaps) - MAX_GAPS),
        unproven=_joined(_unproven(blocks))[:MAX_GAPS],
        odd_times=odd_times(blocks, now or datetime.now(UTC))[:MAX_GAPS],
    )


def odd_times(blocks: Iterable[BlockInfo], now: datetime) -> list[tuple[int, int]]:
    """Return stretches `[start, stop)` of blocks with times that cannot be; `blocks` ascend."""
    odd = (block.first for block in blocks if _has_odd_time(block, now))
    return _joined((first, first + BLOCK_SIZE) for first in odd)


def _has_odd_time(block: BlockInfo, now: datetime) -> bool:
    oldest = block.oldest_fetched_at
    newest = block.newest_fetched_at or oldest
    return (newest is not None and is_from_future(newest, now)) or (
        oldest is not None and oldest < EARLIEST
    )


def _unproven(blocks: Iterable[BlockInfo]) -> Iterator[tuple[int, int]]:
    for block in blocks:
        if block.unproven is not None:
            yield from block.unproven
        elif block.missing >= UNPROVEN_IN_A_ROW:
            # Others cut the missing ones into one stretch more than there are of them.
            others = block.last_num + 1 - block.first_num - block.missing
            if block.missing > (UNPROVEN_IN_A_ROW - 1) * (others + 1):
                yield block.first_num, block.last_num + 1


def _joined(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join stretches that touch; they ascend."""
    joined: list[tuple[int, int]] = []
    for start, stop in stretches:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], stop
        else:
            joined.append((start, stop))
    return joined


def failed_nums(blocks: Iterable[BlockInfo]) -> dict[str, list[int]]:
    """Return numbers that failed by reason, ascending, at most `MAX_NUMS` each; `blocks` ascend.

    All where so few failed; else the first of every block comes before the second of any, so that
    they tell of many places.
    """
    samples = defaultdict[str, list[list[int]]](list)
    for block in blocks:
        for reason, nums in block.failed_nums.items():
            if len(samples[reason]) < MAX_NUMS:
                samples[reason].append(nums)
    return {reason: _spread(found) for reason, found in samples.items()}


def _spread(samples: list[list[int]]) -> list[int]:
    turns = chain.from_iterable(zip_longest(*samples))
    return sorted(islice((num for num in turns if num is not None), MAX_NUMS))


def _gaps(blocks: list[BlockInfo]) -> Iterator[Gap]:
    """Find what lies between two blocks' numbers, and blocks that are not whole in themselves."""
    before = blocks[0].first_num
    for block in blocks:
        if block.first_num > before:
            yield Gap(before, block.first_num, block.first_num - before)
        before = block.last_num + 1
        lacking = before - block.first_num - block.settled - block.failed
        if lacking > 0:
            yield Gap(block.first_num, before, lacking)


def _merged(gaps: Iterator[Gap]) -> Iterator[Gap]:
    current = next(gaps, None)
    if current is None:
        return
    for gap in gaps:
        if gap.start == current.stop:
            current = Gap(current.start, gap.stop, current.not_asked + gap.not_asked)
        else:
            yield current
            current = gap
    yield current


def _next_try_at(blocks: list[BlockInfo]) -> datetime | None:
    failing = [block.next_try_at for block in blocks if block.failed]
    times = [time for time in failing if time is not None]
    return min(times) if times and len(times) == len(failing) else None


def _reasons(blocks: list[BlockInfo]) -> dict[str, int]:
    counts = Counter[str]()
    for block in blocks:
        counts.update(block.reasons)
        counts["other"] += block.failed - sum(block.reasons.values())
    return {kind: count for kind, count in counts.most_common() if count > 0}
