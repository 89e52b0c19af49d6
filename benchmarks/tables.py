"""Rows into medians, spread and ratios, and those into Markdown."""

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.cases import REFERENCE, Row
from benchmarks.contest import OURS
from benchmarks.machine import in_one_line

Summary = dict[str, Any]
RACES = ("http", "tls", "latency-200", "latency-500")
_CURVES = ("growth", "connections")


def summarise(case: str, rows: list[Row]) -> list[Summary]:
    """Sum up a case: one entry per contestant, pages and connections, fastest first in a race.

    A ratio is taken within a round, to the bare loop (in the case `store`: to the folder store),
    because the machine drifts from minute to minute.
    """
    reference = OURS.name if case == "store" else REFERENCE
    entries = [_sum_up(group, _by_round(rows, reference)) for group in _groups(rows)]
    if case in RACES:
        entries.sort(key=lambda entry: -(_median(entry, "pages_per_second") or 0))
    return entries


def find(entries: Iterable[Summary], contestant: str, **wanted: int) -> Summary | None:
    """Find the entry of a contestant, with that `count` or `connections` if given."""
    for entry in entries:
        if entry["contestant"] == contestant and wanted.items() <= entry.items():
            return entry
    return None


def _groups(rows: list[Row]) -> list[list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["contestant"], row.get("count"), row.get("connections"))
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _by_round(rows: list[Row], contestant: str) -> dict[int, float]:
    return {
        row["round"]: row["pages_per_second"]
        for row in rows
        if row["contestant"] == contestant and not row["failed"] and "pages_per_second" in row
    }


def _sum_up(group: list[Row], reference: dict[int, float]) -> Summary:
    good = [row for row in group if not row["failed"]]
    entry: Summary = {key: group[0].get(key) for key in ("contestant", "count", "connections")}
    entry |= {"runs": len(group), "failures": [row["failed"] for row in group if row["failed"]]}
    for key in ("pages_per_second", "cpu_ms_per_page", "seconds", "cpu_seconds"):
        entry[key] = spread([row[key] for row in good if row.get(key) is not None])
    peaks = [row["peak_rss_kb"] / 1024 for row in good if row.get("peak_rss_kb")]
    entry["peak_rss_mb"] = spread(peaks)
    entry["ratio"] = spread(
        [
            row["pages_per_second"] / reference[row["round"]]
            for row in good
            if row["round"] in reference and row.get("pages_per_second")
        ]
    )
    entry["by_round"] = {
        str(row["round"]): row["pages_per_second"] for row in good if "pages_per_second" in row
    }
    more = ("pace", "cpu_share", "peak_memory_mb", "answer", "caller", "cpu", "memory_mib")
    more += ("dollars_at_100", "dollars_unpaced")
    return entry | {key: good[-1][key] for key in more if good and key in good[-1]}


def spread(values: list[float]) -> dict[str, float] | None:
    """Sum up values as median, least and most; None when there are none."""
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _median(entry: Summary, key: str) -> float | None:
    return entry[key]["median"] if entry.get(key) else None


def case_table(case: str, entry: dict[str, Any]) -> list[str]:
    """Write one case as Markdown: a heading, what and where it was measured, a table."""
    lines = [f"## {entry['title']}", "", f"Measured {in_one_line(entry['machine'])}.", ""]
    if entry.get("skipped"):
        return [*lines, f"Not measured: {entry['skipped']}", ""]
    writers = {"paced": _paced_table, "cold-start": _cold_table, "small-function": _small_table}
    writers["function-sizes"] = sizes_table
    writer = writers.get(case, _curve_table if case in _CURVES else _race_table)
    failures = _failure_lines(entry["summary"])
    return [*lines, *writer(entry["summary"]), "", *failures, *([""] if failures else [])]


def _race_table(entries: list[Summary]) -> list[str]:
    head = ["contestant", "pages", "pages/s (least – most)", "× reference", "CPU ms per page"]
    rows = [
        [
            entry["contestant"],
            f"{entry['count']:,}" if not entry["contestant"].startswith("wrk") else "",
            _with_spread(entry["pages_per_second"], ",.0f"),
            _with_spread(entry["ratio"], ".3g"),
            _number(_median(entry, "cpu_ms_per_page"), ".3f"),
            _number(_median(entry, "peak_rss_mb"), ".0f"),
        ]
        for entry in entries
    ]
    return _markdown([*head, "peak RSS, MB"], rows)


def _curve_table(entries: list[Summary]) -> list[str]:
    head = ["contestant", "connections", "pages", "seconds", "pages/s", "CPU s", "peak RSS, MB"]
    rows = [
        [
            entry["contestant"],
            str(entry["connections"]),
            f"{entry['count']:,}",
            _number(_median(entry, "seconds"), ".2f"),
            _number(_median(entry, "pages_per_second"), ",.0f"),
            _number(_median(entry, "cpu_seconds"), ".2f"),
            _number(_median(entry, "peak_rss_mb"), ".0f"),
        ]
        for entry in entries
    ]
    return _markdown(head, rows)


def _paced_table(entries: list[Summary]) -> list[str]:
    head = ["contestant", "requests", "mean, 1/s", "fullest second by the clock"]
    head += ["fullest second anywhere", "CPU, % of a core"]
    rows = [
        [
            entry["contestant"],
            f"{entry['pace']['requests']:,}",
            f"{entry['pace']['mean']:.2f}",
            str(entry["pace"]["most_in_a_clock_second"]),
            str(entry["pace"]["most_in_any_second"]),
            f"{100 * entry['cpu_share']:.1f}",
        ]
        for entry in entries
        if "pace" in entry
    ]
    return _markdown(head, rows)


def _cold_table(entries: list[Summary]) -> list[str]:
    rows = [
        [
            entry["contestant"],
            str(entry["runs"]),
            _with_spread(entry["seconds"], ".3f"),
            _with_spread(entry["cpu_seconds"], ".3f"),
        ]
        for entry in entries
    ]
    head = ["in a new process", "runs", "seconds (least – most)", "CPU seconds (least – most)"]
    return _markdown(head, rows)


def _small_table(entries: list[Summary]) -> list[str]:
    head = ["contestant", "pages", "pages/s", "mean by the site's log", "group's peak, MiB"]
    rows = [
        [
            entry["contestant"],
            f"{entry['count']:,}",
            _number(_median(entry, "pages_per_second"), ",.1f"),
            f"{entry['pace']['mean']:,.1f}" if "pace" in entry else "",
            _number(entry.get("peak_memory_mb"), ".0f"),
        ]
        for entry in entries
    ]
    return _markdown(head, rows)


def sizes_table(entries: list[Summary]) -> list[str]:
    """Write one line per size of the function: what a source and a function reach, what a million costs."""
    head = ["vCPU", "memory, MiB", "source, pages/s", "function, pages/s", "memory used, MiB"]
    head += ["a million pages at 100/s", "the same, source unpaced"]
    lines = []
    for fast in (entry for entry in entries if entry.get("caller") == "source"):
        slow = find(entries, fast["contestant"].replace("source", "function")) or {}
        lines.append(
            [
                f"{fast['cpu']:g}",
                str(fast["memory_mib"]),
                _number(_median(fast, "pages_per_second"), ",.0f"),
                _number(_median(slow, "pages_per_second"), ",.0f"),
                _number(fast.get("peak_memory_mb"), ".0f"),
                f"${fast['dollars_at_100']:.2f}",
                f"${fast['dollars_unpaced']:.2f}",
            ]
        )
    return _markdown(head, lines)


def _failure_lines(entries: list[Summary]) -> list[str]:
    return [
        f"- failed: {entry['contestant']} ({len(entry['failures'])} of {entry['runs']} runs): "
        f"{entry['failures'][0]}"
        for entry in entries
        if entry["failures"]
    ]


def _markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _with_spread(values: dict[str, float] | None, form: str) -> str:
    if values is None:
        return "failed"
    middle = format(values["median"], form)
    if values["min"] == values["max"]:
        return middle
    return f"{middle} ({values['min']:{form}} – {values['max']:{form}})"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
