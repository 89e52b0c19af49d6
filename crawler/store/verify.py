"""Verification: proof that a range is stored, each number exactly once, or the first counter-example."""

from collections.abc import Iterator, Sequence

import msgspec

from crawler.errors import BlockFormatError
from crawler.record import Record
from crawler.store.block import (
    BLOCK_SIZE,
    LATER_FIELDS,
    UNPROVEN_IN_A_ROW,
    BlockInfo,
    block_first,
    block_name,
    decode_block,
    summarise,
    unproven_stretches,
)
from crawler.store.contract import Deadline, Store

MAX_STRETCHES = 100
"""So many stretches without proof are named."""

_BLOCKS_AT_ONCE = 1000  # so many are listed at a time: memory does not grow with the range


class VerifyReport(msgspec.Struct):
    """What was found in a range, up to the first problem.

    Attributes:
        start: First number, included.
        stop: Number after the last.
        found: Numbers of the range that are found.
        missing: Numbers of the range that are missing.
        failed: Numbers of the range that are failed: recorded, but not known.
        blocks: Blocks read.
        unproven: Stretches `[start, stop)` of missing numbers in a row without proof, ascending,
            at most `MAX_STRETCHES`: from before there were proofs, so asking again is worth while.
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
        start: First number, included.
        stop: Number after the last.
        timeout: Seconds for all of it.

    Raises:
        StoreUnavailableError: The store cannot be read in that time.
    """
    report = VerifyReport(start, stop)
    deadline = Deadline(timeout)
    try:
        for first in range(block_first(start), stop if start < stop else 0, BLOCK_SIZE):
            if (first - block_first(start)) % (_BLOCKS_AT_ONCE * BLOCK_SIZE) == 0:
                listing = _list(store, first, stop, deadline)
            _verify_block(store, report, listing.get(first), first, deadline)
            if report.problem is not None:
                break
    except BlockFormatError as error:
        report.problem = str(error)
    _drop_short_stretch(report)
    del report.unproven[MAX_STRETCHES:]
    return report


def _list(store: Store, first: int, stop: int, deadline: Deadline) -> dict[int, BlockInfo]:
    end = min(stop, first + _BLOCKS_AT_ONCE * BLOCK_SIZE)
    left = deadline.left(f"verifying {store.location}")
    return {info.first: info for info in store.list_blocks(first, end, timeout=left)}


def _verify_block(
    store: Store, report: VerifyReport, listed: BlockInfo | None, first: int, deadline: Deadline
) -> None:
    """Count one block into the report, or say there what is wrong with it."""
    name = block_name(first)
    low, high = max(first, report.start), min(first + BLOCK_SIZE, report.stop)
    left = deadline.left(f"verifying {store.location}")
    stored = store.read(name, timeout=left) if listed is not None else None
    if listed is None or stored is None:
        report.problem = f"no block {name}: {_have_no_record(low, high)}"
        return
    records = decode_block(stored.data, name)
    report.blocks += 1
    if stored.token == listed.token:  # else it was written since it was listed
        report.problem = next(_lies(listed, records, name), None)
    for num in range(low, high):
        if num not in records:
            report.problem = report.problem or f"number {num} has no record in {name}"
            return
        _count(report, records[num])
    _add_stretches(report, [records[num] for num in range(low, high)])


def _add_stretches(report: VerifyReport, records: Sequence[Record]) -> None:
    """Add the stretches of a block; one that reaches its end may go on in the next one."""
    for start, stop in unproven_stretches(records):
        if report.unproven and report.unproven[-1][1] == start:
            report.unproven[-1] = report.unproven[-1][0], stop
        elif len(report.unproven) <= MAX_STRETCHES:
            _drop_short_stretch(report)
            report.unproven.append((start, stop))


def _drop_short_stretch(report: VerifyReport) -> None:
    if report.unproven:
        start, stop = report.unproven[-1]
        if stop - start < UNPROVEN_IN_A_ROW:
            report.unproven.pop()


def _lies(listed: BlockInfo, records: dict[int, Record], name: str) -> Iterator[str]:
    """Yield each count of a listing that is not true, in words."""
    true = summarise(records.values(), source=listed.source)
    for field in BlockInfo.__struct_fields__:
        says, is_so = getattr(listed, field), getattr(true, field)
        is_lacking = field in LATER_FIELDS and not says
        if says != is_so and not is_lacking and field not in {"format", "token"}:
            yield f"the listing says of {name} that {field} is {says}, its records say {is_so}"


def _count(report: VerifyReport, record: Record) -> None:
    if record.outcome == "found":
        report.found += 1
    elif record.outcome == "missing":
        report.missing += 1
    else:
        report.failed += 1


def _have_no_record(low: int, high: int) -> str:
    if high == low + 1:
        return f"number {low} has no record"
    return f"numbers {low} to {high - 1} have no record"
