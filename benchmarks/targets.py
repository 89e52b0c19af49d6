"""What the crawler must reach, checked against what was measured."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.contest import (
    AIOHTTP,
    BARE_LOOP,
    CONTESTANTS,
    OURS,
    OURS_FUNCTION,
    SCRAPY,
    TUTORIAL,
    WREQ,
    WRK,
)
from benchmarks.parts import smallest_name
from benchmarks.tables import Summary, find

Check = tuple[str, str, bool | None]
"""What is asked for, what was measured, whether it is met (None: not measured)."""

Cases = dict[str, list[Summary]]


def check_targets(cases: Cases) -> list[Check]:
    """Check every target; `cases` maps the name of a case to its summary."""
    groups: tuple[Callable[[Cases], Iterator[Check]], ...] = (
        _unpaced, _tls, _latency, _paced, _memory, _small, _cold, _bucket,
    )  # fmt: skip
    return [check for group in groups for check in group(cases)]


def targets_table(cases: Cases) -> list[str]:
    """Write the checks as Markdown."""
    words = {True: "yes", False: "**no**", None: "not measured"}
    lines = ["| asked for | measured | met |", "| --- | --- | --- |"]
    checks = check_targets(cases)
    return lines + [f"| {what} | {came} | {words[met]} |" for what, came, met in checks]


def not_met(cases: Cases) -> str:
    """Say how many targets are met, and name each that is not, with what was measured."""
    checks = check_targets(cases)
    met = sum(is_met is True for _, _, is_met in checks)
    missed = [f"{what} ({came or 'not measured'})" for what, came, is_met in checks if not is_met]
    rest = f"; not met: {'; '.join(missed)}" if missed else ""
    return f"of {len(checks)} targets {met} are met{rest}."


def _unpaced(cases: Cases) -> Iterator[Check]:
    race = cases.get("http", [])
    for rival, least in ((BARE_LOOP, 1.0), (WREQ, 1.5), (AIOHTTP, 4.0), (SCRAPY, 50.0)):
        yield _times(race, OURS.name, rival.name, least, "HTTP, 64 connections")
    yield _times(race, OURS.name, TUTORIAL.name, 50.0, "HTTP, 64 connections")
    yield _ahead(race, "HTTP", OURS.name, _rivals())
    cpu = _ratio(_value(race, OURS.name, "cpu_ms_per_page"), _bare(race, "cpu_ms_per_page"))
    yield _most("CPU per page, × the bare loop's", cpu, 1.1)
    on_requests = [one.name for one in CONTESTANTS if one.on_requests and not one.ours]
    yield _ahead(race, "HTTP", OURS_FUNCTION.name, on_requests)


def _tls(cases: Cases) -> Iterator[Check]:
    own = _value(cases.get("http", []), OURS.name, "pages_per_second")
    over_tls = _value(cases.get("tls", []), OURS.name, "pages_per_second")
    yield _least("TLS, × our own HTTP figure", _ratio(over_tls, own), 0.5)
    yield _ahead(cases.get("tls", []), "TLS", OURS.name, [BARE_LOOP.name, *_rivals()])


def _latency(cases: Cases) -> Iterator[Check]:
    for case, least in (("latency-200", 1_800), ("latency-500", 4_000)):
        rate = _value(cases.get(case, []), OURS.name, "pages_per_second")
        yield _least(f"{case}: pages/s at 100 ms", rate, least)


def _paced(cases: Cases) -> Iterator[Check]:
    entry = find(cases.get("paced", []), OURS.name)
    if entry is None or "pace" not in entry:
        yield "paced at 100/s: 99.0 to 101.0, no second above 105, CPU at most 5 %", "", None
        return
    pace: dict[str, Any] = entry["pace"]
    mean = pace["mean"]
    yield "paced at 100/s: mean 99.0 to 101.0", f"{mean:.2f}", 99.0 <= mean <= 101.0
    yield _most("the same: fullest second by the clock", pace["most_in_a_clock_second"], 105)
    yield _most("the same: fullest second anywhere", pace["most_in_any_second"], 105)
    yield _most("the same: CPU, % of a core", 100 * entry["cpu_share"], 5)


def _memory(cases: Cases) -> Iterator[Check]:
    curve = cases.get("growth", [])
    peak, before = (_peak(find(curve, OURS.name, count=10**power)) for power in (6, 5))
    more = None if peak is None or before is None else peak - before
    yield _most("1,000,000 pages: peak RSS, MB", peak, 120)
    yield _most("the same above the peak at 100,000, MB", more, 10)


def _peak(entry: Summary | None) -> float | None:
    return entry["peak_rss_mb"]["max"] if entry and entry["peak_rss_mb"] else None


def _small(cases: Cases) -> Iterator[Check]:
    entries = cases.get("small-function", [])
    where = "function in 0.167 CPU and 256 MiB"
    paced = find(entries, "ours, paced at 100/s")
    mean = paced["pace"]["mean"] if paced and "pace" in paced else None
    met = None if mean is None else 98.0 <= mean <= 102.0
    yield f"{where}: 98.0 to 102.0 pages/s at 100/s", _said(mean), met
    fast = _value(entries, "ours, 400 connections", "pages_per_second")
    yield _least(f"{where}: pages/s with 400 connections", fast, 1_500)
    smallest = find(entries, smallest_name("source"))
    mean = smallest["pace"]["mean"] if smallest and "pace" in smallest else None
    met = None if mean is None else 98.0 <= mean <= 102.0
    yield "source in 0.083 CPU and 128 MiB: 98.0 to 102.0 pages/s at 100/s", _said(mean), met
    peak = smallest.get("peak_memory_mb") if smallest else None
    yield _most("the same: memory, MiB", peak, 110)


def _cold(cases: Cases) -> Iterator[Check]:
    entries = cases.get("cold-start", [])
    ours = _value(entries, "import main", "seconds")
    framework = _value(entries, "import functions_framework", "seconds")
    more = None if ours is None or framework is None else ours - framework
    yield _most("`import main`, s more than `import functions_framework`", more, 0.15)


def _bucket(cases: Cases) -> Iterator[Check]:
    entry = find(cases.get("store", []), f"{OURS.name}, gs://")
    ratio = entry["ratio"]["median"] if entry and entry["ratio"] else None
    yield _least("gs:// store, × the folder store", ratio, 0.7)


def _rivals() -> list[str]:
    return [one.name for one in CONTESTANTS if not one.ours and one not in (BARE_LOOP, WRK)]


def _times(race: list[Summary], one: str, rival: str, least: float, where: str) -> Check:
    return _least(f"{where}: × {rival}", _ratio_by_round(race, one, rival), least)


def _ahead(race: list[Summary], where: str, one: str, rivals: list[str]) -> Check:
    """Check that one is ahead of the best of its rivals; those who failed cannot be behind."""
    key = "pages_per_second"
    reached = [(_value(race, rival, key) or 0.0, rival) for rival in rivals]
    _, rival = max(reached, default=(0.0, "nobody"))
    ratio = _ratio_by_round(race, one, rival)
    met = None if ratio is None else ratio > 1
    return f"{where}: {one} ahead of every rival", f"{_said(ratio)} × {rival}", met


def _value(entries: list[Summary], contestant: str, key: str) -> float | None:
    entry = find(entries, contestant)
    return entry[key]["median"] if entry and entry.get(key) else None


def _ratio_by_round(race: list[Summary], one: str, other: str) -> float | None:
    """Take the ratio within each round, for the machine drifts, and of these the median."""
    ours, theirs = (find(race, name) or {"by_round": {}} for name in (one, other))
    rates: tuple[dict[str, float], dict[str, float]] = (ours["by_round"], theirs["by_round"])
    ratios = [rates[0][number] / rates[1][number] for number in rates[0].keys() & rates[1].keys()]
    return statistics.median(ratios) if ratios else None


def _bare(race: list[Summary], key: str) -> float | None:
    return _value(race, BARE_LOOP.name, key)


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one and other else None


def _least(what: str, value: float | None, least: float) -> Check:
    return f"{what}: at least {least:,}", _said(value), None if value is None else value >= least


def _most(what: str, value: float | None, most: float) -> Check:
    return f"{what}: at most {most:,}", _said(value), None if value is None else value <= most


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
