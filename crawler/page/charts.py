"""What the page draws: the number line in cells, the course of a run, the progress and its forecast."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from crawler.store.block import BLOCK_SIZE, BlockInfo
from crawler.store.control import RunObject

MAX_CELLS = 2000
"""Cells that a person can still tell apart on one screen."""

MAX_SPAN = 50_000_000
"""Numbers shown beyond what the store holds: a range ordered up to 10^12 would hide it all."""

State = Literal["settled", "partly", "failed", "not_asked", "beyond"]

STATES: dict[State, str] = {
    "settled": "settled",
    "partly": "partly settled",
    "failed": "some failed",
    "not_asked": "not asked",
    "beyond": "beyond the end",
}
"""Every state of a cell, in words. Beyond the end: asked and missing, after the last found song."""


class Cell(msgspec.Struct, frozen=True):
    """Some neighbouring numbers: `start` included, `stop` excluded, with how many are what."""

    start: int
    stop: int
    found: int
    missing: int
    failed: int
    state: State

    @property
    def not_asked(self) -> int:
        """Numbers that have no record."""
        return self.stop - self.start - self.found - self.missing - self.failed


class CoverageMap(msgspec.Struct, frozen=True):
    """The number line from `start` up to `stop`, excluded.

    Attributes:
        cell_size: Numbers of a whole cell; the first and the last may hold fewer.
        columns: Cells in a row where it is drawn; rows then begin at round numbers.
        cells: Without a gap, ascending, at most `MAX_CELLS` and those of one row.
    """

    start: int
    stop: int
    cell_size: int
    columns: int
    cells: list[Cell]

    @property
    def not_asked(self) -> int:
        """Numbers that have no record."""
        return sum(cell.not_asked for cell in self.cells)


def coverage_map(
    blocks: Iterable[BlockInfo], *, start: int | None = None, stop: int | None = None
) -> CoverageMap:
    """Lay what a listing tells over the number line, ascending; reads no block.

    Args:
        start: Where the line begins at the latest; None: at the lowest number with a record.
        stop: Where it ends at the earliest; None: after the highest number with a record.
    """
    blocks = list(blocks)
    nums = [num for block in blocks for num in (block.first_num, block.last_num)]
    first = min([*nums, *([] if start is None else [start])], default=0)
    held_to = max(nums, default=first - 1) + 1
    last = max(held_to, min(stop or 0, max(held_to, first) + MAX_SPAN))
    size = _cell_size(first, last)
    last_found = max((b.last_found for b in blocks if b.last_found is not None), default=None)
    cells = list(_cells(blocks, first, last, size, last_found))
    columns = next((columns for columns in (10, 20) if len(cells) <= columns * 10), 50)
    return CoverageMap(first, last, size, columns, cells)


def stretches(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Join neighbours of one state: the map as a table, ascending."""
    for state, group in itertools.groupby(cells, key=lambda cell: cell.state):
        members = list(group)
        yield Cell(
            members[0].start,
            members[-1].stop,
            sum(cell.found for cell in members),
            sum(cell.missing for cell in members),
            sum(cell.failed for cell in members),
            state,
        )


def densest(cells: Iterable[Cell]) -> float:
    """Return which share of missing numbers, 0 to 1, a map should draw as its palest shade.

    A little above what nearly all cells have, so that both an ordinary catalogue (9 in 100) and
    a sparse one show where it is denser.
    """
    shares = sorted(
        cell.missing / (cell.found + cell.missing)
        for cell in cells
        if cell.state == "settled" and cell.found
    )
    usual = shares[int(0.98 * (len(shares) - 1))] if shares else 0.0
    return min(1.0, max(0.05, 1.3 * usual))


def _cell_size(first: int, last: int) -> int:
    """Choose how many numbers a cell holds: 1, 2 or 5 times a power of ten of blocks."""
    sizes = (
        int(step * 10**power) * BLOCK_SIZE for power in itertools.count() for step in (1, 2, 5)
    )
    return next(size for size in sizes if -(-last // size) - first // size <= MAX_CELLS)


def _cells(
    blocks: list[BlockInfo], first: int, last: int, size: int, last_found: int | None
) -> Iterator[Cell]:
    base = first // size
    counts = [[0, 0, 0] for _ in range(-(-last // size) - base)]
    for block in blocks:
        cell = counts[block.first // size - base]
        cell[0] += block.found
        cell[1] += block.missing
        cell[2] += block.failed
    for index, (found, missing, failed) in enumerate(counts, base):
        start, stop = max(first, index * size), min(last, (index + 1) * size)
        asked = found + missing + failed
        is_after_last = last_found is not None and start > last_found
        yield Cell(
            start,
            stop,
            found,
            missing,
            failed,
            _state(stop - start, asked, failed, is_after_last=is_after_last),
        )


def _state(wanted: int, asked: int, failed: int, *, is_after_last: bool) -> State:
    if not asked:
        return "not_asked"
    if failed:
        return "failed"
    if is_after_last:
        return "beyond"
    return "settled" if asked >= wanted else "partly"


MAX_POINTS = 120
"""Points of one run's course: more than a chart of a page's width shows apart."""

FORECAST_DAYS = 7
"""A forecast goes by the pace of so many days."""

_START = [0.0] * 9  # a sample before anything happened
_LATEST = timedelta(days=36_500)  # no forecast looks further than a century


class Point(NamedTuple):
    """One stretch of a run, ending at `seconds` after its start.

    Attributes:
        seconds: End of the stretch.
        requests: Requests per second in it.
        found: Numbers found per second in it; so `missing`, `failed` and `retries`.
        latency_ms: Mean time from sending a request to its answer, None where there was none.
        limited: 1.0 where the site had asked everybody to wait, 0.5 where it had announced a pace
            below ours, else 0.0.
    """

    seconds: float
    requests: float
    found: float
    missing: float
    failed: float
    retries: float
    latency_ms: float | None
    limited: float


class SettledCount(NamedTuple):
    """How many numbers were settled at a moment."""

    moment: datetime
    settled: int


def course(run: RunObject) -> list[Point]:
    """Turn the samples of a run, counts since its start, into paces; at most `MAX_POINTS`."""
    samples = [_START, *([*each, 0.0][:9] for each in run.samples if len(each) in (8, 9))]
    step = -(-(len(samples) - 1) // MAX_POINTS) or 1
    kept = samples[::step]
    if kept[-1] is not samples[-1]:
        kept.append(samples[-1])
    pauses = [(sample[0], sample[0] + sample[7]) for sample in samples if sample[7] > 0]
    return [
        _point(before, after, pauses)
        for before, after in itertools.pairwise(kept)
        if after[0] > before[0]
    ]


def progress(runs: Sequence[RunObject], settled: int, now: datetime) -> list[SettledCount]:
    """Return how many numbers were settled when each run began and ended, ascending; now comes last.

    Reckoned back from what is settled now, taking each run's gain as spread evenly over its time,
    so that runs may overlap. Numbers that a run only refreshed count as gained, which a line
    never below 0 hides; what was gained before the oldest run that is kept, is there from the start.
    """
    spans = [
        (run.started_at, max(run.answer.seconds, 1e-3), run.answer.found + run.answer.missing)
        for run in runs
    ]
    moments = {start + timedelta(seconds=part) for start, took, _ in spans for part in (0, took)}

    def settled_at(moment: datetime) -> int:
        left = (
            (1.0 - (moment - start) / timedelta(seconds=took), gain) for start, took, gain in spans
        )
        return max(0, round(settled - sum(gain * min(1.0, max(0.0, part)) for part, gain in left)))

    counts = [SettledCount(moment, settled_at(moment)) for moment in sorted(moments)]
    return [*counts, SettledCount(now, settled)]


def forecast(points: Sequence[SettledCount], left: int, now: datetime) -> datetime | None:
    """Return when nothing will be left, at the pace of the last week; None where there is no pace."""
    week = [point for point in points if point.moment >= now - timedelta(days=FORECAST_DAYS)]
    if not left or len(week) < 2:
        return None
    gained = week[-1].settled - week[0].settled
    elapsed = week[-1].moment - week[0].moment
    if gained <= 0 or not elapsed:
        return None
    takes = elapsed.total_seconds() * left / gained
    return now + timedelta(seconds=takes) if takes < _LATEST.total_seconds() else None


def _point(before: list[float], after: list[float], pauses: list[tuple[float, float]]) -> Point:
    took = after[0] - before[0]
    requests, found, missing, failed, retries = (
        round((late - early) / took, 1) for early, late in zip(before[1:6], after[1:6], strict=True)
    )
    sent = after[1] - before[1]
    waited = after[6] - before[6]
    is_paused = any(begin < after[0] and end > before[0] for begin, end in pauses)
    return Point(
        round(after[0], 1),
        requests,
        found,
        missing,
        failed,
        retries,
        round(1000 * waited / sent, 1) if sent and waited > 0 else None,
        1.0 if is_paused else 0.5 if after[8] else 0.0,
    )
