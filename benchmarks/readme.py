"""The parts of README and figures that are measured: written between two marks, by nobody else."""

import re
from pathlib import Path
from typing import Any

from benchmarks.tables import case_table, sizes_table
from benchmarks.targets import Cases, not_met

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

_LEFT_OUT = ("primp", "curl_cffi", "niquests", "requests-futures", "httpx")
"""Contestants that stand in the plot and in `results/latest.md` alone."""

_SIZES = (
    "The function in every size it is deployed in, held there by a cgroup, against a site 100 ms "
    "away (a source over 400 connections, a step 1 function in 64 lanes); dollars by the list prices in "
    "[`crawler/deployment/cost.py`](crawler/deployment/cost.py), without free tiers:"
)
_ALL = "[All contestants, cases and targets](benchmarks/results/latest.md)"


_SHORT = (
    "bare pycurl loop",
    "aiohttp, uvloop",
    "requests, one session",
    "tutorial's pattern",
    "Scrapy",
)
"""Contestants that stand in the README beside ours; all are on the page of figures."""

_COLUMNS = (0, 2, 4, 5)  # who, pages per second, CPU and memory


def write_readme(root: Path, results: dict[str, Any]) -> bool:
    """Put the race over HTTP into README and page of figures, and there the sizes, too.

    Returns False where one of them has no marks. All the rest stands in `results/latest.md`.
    """
    if "http" not in results:
        return False
    page = [line.replace("](", "](../") for line in _lines(results)]
    return _write(root / "README.md", _short_lines(results)) and _write(
        root / "docs" / "figures.md", page
    )


def _write(path: Path, lines: list[str]) -> bool:
    text = path.read_text() if path.exists() else ""
    if BEGIN not in text or END not in text:
        return False
    between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    part = "\n".join([BEGIN, *lines, END])
    path.write_text(between.sub(lambda _: part, text, count=1))
    return True


def _short_lines(results: dict[str, Any]) -> list[str]:
    rows = [
        entry
        for entry in results["http"]["summary"]
        if entry["contestant"] in _SHORT or entry["contestant"].startswith("ours")
    ]
    race = case_table("http", results["http"] | {"summary": rows})[2:]
    return ["", *(_some_columns(line) if line.startswith("|") else line for line in race)]


def _some_columns(line: str) -> str:
    cells = line.strip("|").split("|")
    return f"| {' | '.join(cells[column].strip() for column in _COLUMNS)} |"


def _lines(results: dict[str, Any]) -> list[str]:
    summaries: Cases = {name: entry["summary"] for name, entry in results.items()}
    shown = [entry for entry in summaries["http"] if entry["contestant"] not in _LEFT_OUT]
    race = case_table("http", results["http"] | {"summary": shown})[2:]
    plot = "![Pages per second and CPU per page, by client](benchmarks/results/http.svg)"
    lines = ["", *race, plot, "", f"{_ALL}; {not_met(summaries)}", ""]
    if summaries.get("function-sizes"):
        lines += [_SIZES, "", *sizes_table(summaries["function-sizes"]), ""]
    return lines
