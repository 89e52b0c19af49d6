"""The last runs as curves, the progress with its forecast, and what failed, grouped by reason."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from http import HTTPStatus
from itertools import pairwise
from typing import NamedTuple

import msgspec

from crawler.frontier.verdict import FAILURE_KINDS
from crawler.store.block import BLOCK_SIZE, BlockInfo
from crawler.store.coverage import failed_nums
from crawler.store.run_objects import RunObject

MAX_POINTS = 120
"""Points of one run's course: more than a chart of a page's width shows apart."""

FORECAST_DAYS = 7
"""A forecast goes by the pace of so many days."""

_START = [0.0] * 8  # a sample before anything happened
_LATEST = timedelta(days=36_500)  # no forecast looks further than a century


class Point(NamedTuple):
    """One stretch of a run, ending at `seconds` after its start.

    Attributes:
        seconds: End of the stretch.
        requests: Requests per second in it.
        found: Numbers found per second in it; so `missing`, `failed` and `retries`.
        latency_ms: Mean time from sending a request to its answer, None where there was none.
        paused: Whether the site had asked everybody to wait.
    """

    seconds: float
    requests: float
    found: float
    missing: float
    failed: float
    retries: float
    latency_ms: float | None
    paused: bool


class SettledCount(NamedTuple):
    """How many numbers were settled at a moment."""

    moment: datetime
    settled: int


def course(run: RunObject) -> list[Point]:
    """Turn the samples of a run, counts since its start, into paces; at most `MAX_POINTS`."""
    samples = [_START, *(sample for sample in run.samples if len(sample) == len(_START))]
    step = -(-(len(samples) - 1) // MAX_POINTS) or 1
    kept = samples[::step]
    if kept[-1] is not samples[-1]:
        kept.append(samples[-1])
    pauses = [(sample[0], sample[0] + sample[7]) for sample in samples if sample[7] > 0]
    return [
        _point(before, after, pauses) for before, after in pairwise(kept) if after[0] > before[0]
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
    return [
        *(SettledCount(moment, _settled_at(moment, spans, settled)) for moment in sorted(moments)),
        SettledCount(now, settled),
    ]


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
    return Point(
        round(after[0], 1),
        requests,
        found,
        missing,
        failed,
        retries,
        round(1000 * waited / sent, 1) if sent and waited > 0 else None,
        any(begin < after[0] and end > before[0] for begin, end in pauses),
    )


def _settled_at(
    moment: datetime, spans: Sequence[tuple[datetime, float, int]], settled: int
) -> int:
    return max(0, round(settled - sum(_gain_after(moment, spans))))


def _gain_after(moment: datetime, spans: Sequence[tuple[datetime, float, int]]) -> Iterator[float]:
    for start, took, gain in spans:
        yield gain * min(1.0, max(0.0, 1.0 - (moment - start).total_seconds() / took))


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
    def sentence(self) -> str:
        """What it means, in words."""
        return failure_sentence(self.reason)

    @property
    def all_named(self) -> bool:
        """Whether `nums` are all there are, so that nobody need be told where they lie."""
        return len(self.nums) == self.failed


def failure_sentence(kind: str) -> str:
    """Return what a kind of failure means, in words: "the certificate is not valid for the host"."""
    if not kind.startswith("http_"):
        return FAILURE_KINDS.get(kind, "several kinds" if kind == "other" else kind)
    status = kind.removeprefix("http_")
    phrase = {str(known.value): known.phrase for known in HTTPStatus}.get(status, "")
    return f"the site answers {status} {phrase}".rstrip()


def is_worth_repeating(kind: str) -> bool:
    """Whether asking again later may help, without anything being mended here or there."""
    status = kind.removeprefix("http_")
    if status.isdecimal():
        return not 400 <= int(status) < 500 or int(status) in _PASSING
    return kind not in _LASTING


_LASTING = {"redirect", "too_large", "robots", "function"}
_PASSING = {401, 403, 408, 421, 425, 429}


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
