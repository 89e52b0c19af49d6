"""The part of the project's README that is measured: written between two marks, by nobody else."""

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
    "away (400 connections, with `requests` 64 lanes); dollars by the list prices in "
    "[`crawler/deployment/cost.py`](crawler/deployment/cost.py), without free tiers:"
)
_ALL = "[All contestants, cases and targets](benchmarks/results/latest.md)"


def write_readme(readme: Path, results: dict[str, Any]) -> bool:
    """Put the race over HTTP, what was not reached, and the sizes between the marks.

    Returns False where there are no marks. All the rest stands in `results/latest.md`.
    """
    text = readme.read_text() if readme.exists() else ""
    if BEGIN not in text or END not in text or "http" not in results:
        return False
    between = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    part = "\n".join([BEGIN, *_lines(results), END])
    readme.write_text(between.sub(lambda _: part, text, count=1))
    return True


def _lines(results: dict[str, Any]) -> list[str]:
    summaries: Cases = {name: entry["summary"] for name, entry in results.items()}
    shown = [entry for entry in summaries["http"] if entry["contestant"] not in _LEFT_OUT]
    race = case_table("http", results["http"] | {"summary": shown})[2:]
    plot = "![Pages per second and CPU per page, by client](benchmarks/results/http.svg)"
    lines = ["", *race, plot, "", f"{_ALL}; {not_met(summaries)}", ""]
    if summaries.get("function-sizes"):
        lines += [_SIZES, "", *sizes_table(summaries["function-sizes"]), ""]
    return lines
