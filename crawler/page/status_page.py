"""The coverage page: one HTML file that needs no network, and the status that runs leave."""

import base64
import functools
import hashlib
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec

from crawler.answer import GENIUS, noun_of, numbered
from crawler.frontier.verdict import failure_sentence
from crawler.page.charts import (
    STATES,
    CoverageMap,
    course,
    coverage_map,
    densest,
    forecast,
    progress,
    stretches,
)
from crawler.settings.settings import Settings
from crawler.store.block import BLOCK_SIZE, BlockInfo
from crawler.store.contract import Content, Store
from crawler.store.control import RUN_SECONDS, RunObject, read_runs
from crawler.store.coverage import Coverage, coverage_of, failed_nums
from crawler.version import VERSION

SHOWN_RUNS = 10
"""Runs shown one by one; all that are given make up the progress over the days."""

MAX_STRETCHES = 400
"""Lines of the map's table; a map of more is told by its first."""

MAX_REASONS = 30
"""Reasons for failure told one by one, the commonest; a broken site may answer any status."""

_SCRIPTS = ("chart.min.js", "chart-matrix.min.js", "page.js")


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


def status_page(
    blocks: Iterable[BlockInfo],
    runs: Sequence[RunObject],
    *,
    now: datetime,
    location: str,
    rate: float | None = None,
    last_song: int | None = None,
) -> str:
    """Write the page as one HTML file.

    Args:
        blocks: The store's listing, ascending; no block is read.
        runs: The last runs, newest first.
        location: Where the store is, as its user writes it.
        rate: Requests per second of the deployment, 0: no limit; None: that of the newest run.
        last_song: Highest number that is wanted; None: what is held, and what runs were told.
    """
    blocks = list(blocks)
    held, shown = coverage_of(blocks), runs[:SHOWN_RUNS]
    line = _number_line(blocks, runs, last_song)
    pace = _pace(runs, rate)
    left = line.not_asked + held.failed
    points = progress(runs, held.settled, now) if runs else []
    # What failed has times of its own, whatever the pace.
    end = forecast(points, left, now) if line.not_asked else None
    failures = group_failures(blocks)
    source = blocks[-1].source if blocks else ""
    noun = noun_of(source or GENIUS)
    scripts, style = [_asset(name) for name in _SCRIPTS], _asset("page.css")
    text: str = _template("page.html").render(
        policy=_policy(style, scripts),
        style=style,
        scripts=scripts,
        words=_WORDS,
        version=VERSION,
        location=location,
        now=now,
        held=held,
        source=source,
        line=line,
        densest=densest(line.cells),
        states=STATES,
        left=left,
        pace=pace,
        end=end,
        table=list(stretches(line.cells)),
        max_stretches=MAX_STRETCHES,
        max_reasons=MAX_REASONS,
        failures=failures,
        example=_example(failures, line),
        runs=shown,
        options=runs[0].options if runs else [],  # to crawl as the newest run did
        shown=next((index for index, run in enumerate(shown) if run.answer.requests), 0),
        noun=noun,
        points=points,
        data=_data(held, line, shown, points, end) | {"noun": f"{noun}s".capitalize()},
    )
    return text.encode(errors="replace").decode()  # a folder's name may hold half a character


def page_of(store: Store, blocks: Iterable[BlockInfo], settings: Settings) -> str:
    """Write the page of a store as it stands, and as its deployment is set; see `status_page`."""
    return status_page(
        blocks,
        read_runs(store),
        now=datetime.now(UTC),
        location=settings.store,
        rate=settings.rate,
        last_song=settings.last_song,
    )


def _number_line(
    blocks: list[BlockInfo], runs: Sequence[RunObject], last_song: int | None
) -> CoverageMap:
    """Lay out what is held and what runs were told to fill, which they may not have reached."""
    ranges = [run.answer for run in runs if run.answer.stop > run.answer.start]
    stops = [answer.stop for answer in ranges] + ([] if last_song is None else [last_song + 1])
    return coverage_map(
        blocks,
        start=min((answer.start for answer in ranges), default=None),
        stop=max(stops, default=None),
    )


def _example(failures: Sequence[Failures], line: CoverageMap) -> range:
    """Choose numbers to ask again that failed, and none that was never wanted."""
    if not failures:
        return range(0)
    if failures[0].nums:
        return range(failures[0].nums[0], failures[0].nums[0] + 1)
    place = failures[0].places[0]
    return range(max(place.start, line.start), min(place.stop, line.stop))


def _pace(runs: Sequence[RunObject], rate: float | None) -> float:
    """Return at which pace what is left would be asked; 0: not known."""
    if rate is None:
        rate = runs[0].rate if runs else 0.0
    asking = (run.answer.mean_rate for run in runs if run.answer.requests)
    return rate or next(asking, 0.0)


def _data(
    held: Coverage,
    line: CoverageMap,
    runs: Sequence[RunObject],
    points: Sequence[Any],
    end: datetime | None,
) -> dict[str, Any]:
    """Collect what the charts draw: numbers only, and words made of numbers."""
    order = {state: index for index, state in enumerate(STATES)}
    return {
        "columns": line.columns,
        "rowSize": line.cell_size * line.columns,
        "base": line.start - line.start % line.cell_size,
        "densest": round(densest(line.cells), 3),
        "states": list(STATES),
        "cells": [
            [cell.start, cell.stop, cell.found, cell.missing, cell.failed, order[cell.state]]
            for cell in line.cells
        ],
        "runs": [course(run) for run in runs],
        "progress": [[round(point.moment.timestamp()), point.settled] for point in points],
        "wanted": line.stop - line.start if held.blocks else 0,
        "end": None if end is None else round(end.timestamp()),
    }


def _policy(style: str, scripts: list[str]) -> str:
    """Allow exactly what this page brings along, and no network at all.

    Source: Content Security Policy Level 3, W3C, sections 2.3.1 and 6.7.
    """
    allowed = " ".join(_digest(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache  # files of this package, which do not change while it runs
def _asset(name: str) -> str:
    """Read a file that the page brings along, without the address of its source map."""
    text = files("crawler.page").joinpath("assets", name).read_text(encoding="utf-8")
    return text.partition("//# sourceMappingURL=")[0]


@functools.cache  # compiling takes longer than filling in
def _template(name: str) -> Any:
    # Imported here: most runs, and every request that is no look at the page, do without it.
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment.from_string(_asset(name))


def map_strip(blocks: Iterable[BlockInfo]) -> str:
    """Draw what a store holds as one line of HTML; hovering names the numbers and counts.

    Args:
        blocks: The store's listing, in any order; no block is read.
    """
    blocks = sorted(blocks, key=lambda block: block.first)
    if not blocks:
        return ""
    line = coverage_map(blocks)
    cells = list(stretches(line.cells))
    drawn: str = _template("strip.html").render(
        start=line.start,
        stop=line.stop,
        cells=cells,
        states=STATES,
        shown={cell.state for cell in cells},
        label=numbered(line.start, line.stop, noun_of(blocks[-1].source)),
        words=_WORDS,
    )
    return drawn


def write_status(
    store: Store,
    listing: Mapping[int, BlockInfo],
    *,
    now: datetime,
    known_runs: dict[str, RunObject | None],
) -> None:
    """Write `status.json` and `status.html` from what the run knows of the blocks.

    Args:
        listing: All its blocks, by first number; none is read.
        known_runs: Runs by name that were read before, as `read_runs` keeps them.

    Raises:
        StoreError: One of them cannot be written.
    """
    blocks = [listing[first] for first in sorted(listing)]
    _write(store, "status.json", msgspec.json.encode(coverage_of(blocks)), "application/json")
    runs = read_runs(store, known=known_runs)
    page = status_page(blocks, runs, now=now, location=store.location)
    _write(store, "status.html", page.encode(), "text/html; charset=utf-8")


def _write(store: Store, name: str, data: bytes, content_type: str) -> None:
    store.write(name, Content(data, content_type), expected=None, timeout=RUN_SECONDS)


_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def counted(number: float) -> str:
    """Write a count with commas: "20,000"."""
    return f"{number:,.0f}"


def numbers(start: int, stop: int) -> str:
    """Write a range as people do, both ends included: "1,000 to 1,999"."""
    return counted(start) if stop == start + 1 else f"{counted(start)} to {counted(stop - 1)}"


def some(nums: Sequence[int], total: int) -> str:
    """Return some numbers of so many: "2,017, 2,018 and 5 more"."""
    shown = ", ".join(counted(num) for num in nums)
    return f"{shown} and {counted(total - len(nums))} more" if total > len(nums) else shown


def crawl_command(start: int, stop: int, location: str, options: Sequence[str] = ()) -> str:
    """Write the command that fills a range of this store, as a shell reads it."""
    words = ["python", "-m", "crawler", "crawl", str(start), str(stop), *options]
    return shlex.join([*words, "--store", location])


def share(part: int, whole: int) -> str:
    """Write a share in per cent; only what is whole reads "100 %"."""
    if not whole or part == whole:
        return "100 %" if whole else "0 %"
    return f"{min(99.9, 100 * part / whole):.1f} %"


def duration(seconds: float) -> str:
    """Write a duration with its two largest units: "2 hours 5 minutes"."""
    left = max(1, round(seconds))
    parts = []
    for size, name in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count:,} {name}{'s' if count > 1 else ''}")
        elif parts:
            break
    return " ".join(parts[:2])


def moment(time: datetime) -> str:
    """Write a time, UTC: "2026-11-22 06:12 UTC"."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


_WORDS = {
    word.__name__: word for word in (counted, numbers, some, crawl_command, share, duration, moment)
}
"""What the template says things in."""
