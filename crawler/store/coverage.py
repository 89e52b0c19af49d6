"""Coverage: what a store holds along the number line, from its listing alone."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice, zip_longest

import msgspec

from crawler.answer import numbered
from crawler.errors import BlockFormatError
from crawler.record import Record, is_from_future
from crawler.store.block import (
    BLOCK_SIZE,
    LATER_FIELDS,
    UNPROVEN_IN_A_ROW,
    BlockInfo,
    block_first,
    block_name,
    decode_block,
    earliest_try,
    summarise,
    unproven_stretches,
)
from crawler.store.contract import Deadline, Store

MAX_GAPS = 100
"""So many gaps are named; the rest are counted."""

MAX_NUMS = 12
"""So many numbers are named for one reason."""


EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""There was no crawler before, so a time before it was read from a wrong clock."""


class Gap(msgspec.Struct):
    """Numbers `[start, stop)` of which some or all were never asked.

    Attributes:
        not_asked: How many of them have no record; `stop - start` when none has.
    """

    start: int
    stop: int
    not_asked: int


class Coverage(msgspec.Struct, kw_only=True):
    """What a store holds; the JSON of `GET /status`. All zero and None where it is empty.

    Attributes that `BlockInfo` has too are the same for all blocks together.

    Attributes:
        blocks: Block objects.
        settled: found + missing.
        reasons: As in `BlockInfo`; "other" are those of blocks with more than five kinds.
        failed_nums: As in `BlockInfo`, at most `MAX_NUMS` each; "other" ones are not named.
        not_asked: Numbers between first_num and last_num that have no record.
        gaps: Where they are, ascending, at most `MAX_GAPS`.
        gaps_left_out: Gaps beyond those.
        unproven: As in `BlockInfo`, ascending, at most `MAX_GAPS`; of blocks of earlier crawlers
            only those that are certain from their counts: `verify` reads the rest.
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


def coverage_of(blocks: Iterable[BlockInfo], *, now: datetime | None = None) -> Coverage:
    """Sum up blocks, given in ascending order; `now` is aware, by default the time of day."""
    blocks = list(blocks)
    if not blocks:
        return Coverage()
    gaps = _gaps(blocks)
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
        next_try_at=earliest_try([block.next_try_at for block in blocks if block.failed]),
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


def count_unproven(blocks: Iterable[BlockInfo], start: int, stop: int) -> int:
    """Return how many numbers of `[start, stop)` lie in stretches missing without proof."""
    lengths = (min(stop, last) - max(start, first) for first, last in _unproven(blocks))
    return sum(length for length in lengths if length > 0)


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
    taken = {reason: chain.from_iterable(zip_longest(*nums)) for reason, nums in samples.items()}
    return {
        reason: sorted(islice((num for num in nums if num is not None), MAX_NUMS))
        for reason, nums in taken.items()
    }


def _gaps(blocks: list[BlockInfo]) -> list[Gap]:
    """Find what lies between two blocks' numbers, and blocks that are not whole in themselves."""
    gaps: list[Gap] = []

    def add(start: int, stop: int, not_asked: int) -> None:
        if gaps and gaps[-1].stop == start:
            gaps[-1] = Gap(gaps[-1].start, stop, gaps[-1].not_asked + not_asked)
        else:
            gaps.append(Gap(start, stop, not_asked))

    before = blocks[0].first_num
    for block in blocks:
        if block.first_num > before:
            add(before, block.first_num, block.first_num - before)
        before = block.last_num + 1
        lacking = before - block.first_num - block.settled - block.failed
        if lacking > 0:
            add(block.first_num, before, lacking)
    return gaps


def _reasons(blocks: list[BlockInfo]) -> dict[str, int]:
    counts = Counter[str]()
    for block in blocks:
        counts.update(block.reasons)
        counts["other"] += block.failed - sum(block.reasons.values())
    return {kind: count for kind, count in counts.most_common() if count > 0}


_BLOCKS_AT_ONCE = 1000  # so many are listed at a time: memory does not grow with the range


class VerifyReport(msgspec.Struct):
    """What was found in a range, up to the first problem.

    Attributes:
        blocks: Blocks read.
        unproven: Stretches `[start, stop)` of missing numbers in a row without proof, ascending,
            at most `MAX_GAPS`: from before there were proofs, so asking again is worth while.
        problem: The first thing that is wrong, in words; None where each number of the range has
            exactly one record, in its place, and every block's counts are true.
    """

    start: int
    stop: int
    found: int = 0
    missing: int = 0
    failed: int = 0
    blocks: int = 0
    unproven: list[tuple[int, int]] = []
    problem: str | None = None


def verify(store: Store, start: int, stop: int, *, timeout: float) -> VerifyReport:
    """Read every block of `[start, stop)`; memory is flat in the length of the range.

    Args:
        store: Where. What is not named like a block is left alone.
        timeout: Seconds for all of it.

    Raises:
        StoreUnavailableError: The store cannot be read in that time.
    """
    report = VerifyReport(start, stop)
    deadline = Deadline(timeout)
    try:
        for first in range(block_first(start), stop if start < stop else 0, BLOCK_SIZE):
            if (first - block_first(start)) % (_BLOCKS_AT_ONCE * BLOCK_SIZE) == 0:
                end = min(stop, first + _BLOCKS_AT_ONCE * BLOCK_SIZE)
                left = deadline.left(f"verifying {store.location}")
                listing = {i.first: i for i in store.list_blocks(first, end, timeout=left)}
            _verify_block(store, report, listing.get(first), first, deadline)
            if report.problem is not None:
                break
    except BlockFormatError as error:
        report.problem = str(error)
    report.unproven = [each for each in report.unproven if _is_long(each)][:MAX_GAPS]
    return report


def _verify_block(
    store: Store, report: VerifyReport, listed: BlockInfo | None, first: int, deadline: Deadline
) -> None:
    """Count one block into the report, or say there what is wrong with it."""
    name = block_name(first)
    low, high = max(first, report.start), min(first + BLOCK_SIZE, report.stop)
    left = deadline.left(f"verifying {store.location}")
    stored = store.read(name, timeout=left) if listed is not None else None
    if listed is None or stored is None:
        lacking = numbered(low, high, "number").replace(",", "")
        has = "has" if high == low + 1 else "have"
        report.problem = f"no block {name}: {lacking} {has} no record"
        return
    records = decode_block(stored.data, name)
    report.blocks += 1
    if stored.token == listed.token:  # else it was written since it was listed
        report.problem = next(_lies(listed, records, name), None)
    for num in range(low, high):
        if num not in records:
            report.problem = report.problem or f"number {num} has no record in {name}"
            return
        outcome = records[num].outcome
        setattr(report, outcome, getattr(report, outcome) + 1)
    here = unproven_stretches([records[num] for num in range(low, high)])
    known = _joined([*report.unproven, *here])
    # A short one that reaches the end may go on in the next block.
    report.unproven = [each for each in known if _is_long(each) or each[1] == high][: MAX_GAPS + 1]


def _is_long(stretch: tuple[int, int]) -> bool:
    return stretch[1] - stretch[0] >= UNPROVEN_IN_A_ROW


def _lies(listed: BlockInfo, records: dict[int, Record], name: str) -> Iterator[str]:
    """Yield each count of a listing that is not true, in words."""
    true = summarise(records.values(), source=listed.source)
    for field in BlockInfo.__struct_fields__:
        says, is_so = getattr(listed, field), getattr(true, field)
        is_lacking = field in LATER_FIELDS and not says
        if says != is_so and not is_lacking and field not in {"format", "token"}:
            yield f"the listing says of {name} that {field} is {says}, its records say {is_so}"
