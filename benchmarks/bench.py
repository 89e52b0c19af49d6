"""Measures everything: `make bench`, or `python -m benchmarks --quick --case http`.

Writes latest.json, latest.md and the plots into benchmarks/results (quick ones into build/bench);
exits 1 if a run of ours failed, 2 if the site cannot be started.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cases, parts, sizes, tables, targets
from benchmarks.cases import Plan, Row
from benchmarks.cgroup import NoCgroupError
from benchmarks.contest import CONTESTANTS
from benchmarks.environment import ROOT, contestants_python
from benchmarks.machine import describe_machine
from benchmarks.readme import write_readme
from benchmarks.site import Site, SiteError, running_site

CASES: dict[str, tuple[str, Callable[[Site, Plan], list[Row]]]] = {
    "http": ("HTTP, 64 connections, no pacing", cases.race_http),
    "tls": ("TLS, 64 connections, no pacing", cases.race_tls),
    "latency-200": ("100 ms of latency, 200 connections", cases.race_latency_200),
    "latency-500": ("100 ms of latency, 500 connections", cases.race_latency_500),
    "paced": ("Paced at 100 requests per second", cases.paced),
    "growth": ("Growth with the number of pages", cases.growth),
    "connections": ("Throughput against connections at 100 ms", cases.connections),
    "store": ("A bucket (local storage server) against a folder", parts.bucket_store),
    "cold-start": ("Cold start", parts.cold_start),
    "small-function": (
        f"The function in {parts.CPUS} CPU and {parts.MEMORY_MIB} MiB, 100 ms of latency",
        parts.small_function,
    ),
    "function-sizes": ("Sizes of the function, 100 ms of latency, unpaced", sizes.function_sizes),
}
_QUIET_LOAD = 0.7
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure the cases asked for, write the results, and return the exit code."""
    given = _read_arguments()
    trial = given.quick or given.only
    out: Path = given.out or (ROOT / "build" / "bench" if trial else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    if os.getloadavg()[0] > _QUIET_LOAD:
        print("bench: the machine is busy with something else: figures will be low and scattered")
    results = _earlier(out)
    try:
        with running_site() as site:
            for name in given.case or CASES:
                results[name] = _measure(name, site, _plan(given))
                write_results(out, results)
    except SiteError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    _draw(out)
    if out == RESULTS:
        write_readme(ROOT, results)
    print("\n".join(targets.targets_table(_summaries(results))))
    print(f"results in {out}")
    return 1 if _ours_failed(results) else 0


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round into build/bench")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="only this case")
    parser.add_argument("--rounds", type=int, help="rounds per case (5, with --quick 1)")
    parser.add_argument("--seconds", type=float, help="length of one run (6, with --quick 1)")
    modules = sorted({one.module for one in CONTESTANTS})
    parser.add_argument("--only", action="append", default=[], choices=modules, metavar="MODULE")
    parser.add_argument("--out", type=Path, help="folder for the results")
    return parser.parse_args()


def _plan(given: argparse.Namespace) -> Plan:
    return Plan(
        rounds=given.rounds or (1 if given.quick else 5),
        seconds=given.seconds or (1.0 if given.quick else 6.0),
        fast_pages=20_000 if given.quick else 200_000,
        timeout_seconds=60.0 if given.quick else 180.0,
        most_growth=10_000 if given.quick else 1_000_000,
        paced_seconds=10 if given.quick else 60,
        tell=lambda line: print(line, flush=True),
        only=tuple(given.only),
    )


def _measure(name: str, site: Site, plan: Plan) -> dict[str, Any]:
    """Measure one case; where this machine cannot, say so instead."""
    title, case = CASES[name]
    print(f"{name}: {title}", flush=True)
    entry: dict[str, Any] = {"title": title, "machine": describe_machine(), "rounds": plan.rounds}
    try:
        rows = case(site, plan)
    except (NoCgroupError, ImportError) as error:
        print(f"  not measured: {error}", flush=True)
        return entry | {"skipped": str(error), "summary": [], "rows": []}
    return entry | {"summary": tables.summarise(name, rows), "rows": rows}


def _earlier(out: Path) -> dict[str, Any]:
    """Read what earlier runs left, so that one case can be measured anew by itself."""
    file = out / "latest.json"
    earlier: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name, entry in earlier.items():
        entry["summary"] = tables.summarise(name, entry["rows"])
    return {name: earlier[name] for name in CASES if name in earlier}


def write_results(out: Path, results: dict[str, Any]) -> None:
    """Write latest.json and latest.md; each case carries its own date and machine."""
    ordered = {name: results[name] for name in CASES if name in results}
    (out / "latest.json").write_text(json.dumps(ordered, indent=1) + "\n")
    lines = ["# Results", "", "Written by `make bench`; the reference is the bare pycurl loop.", ""]
    lines += [*targets.targets_table(_summaries(ordered)), ""]
    for name, entry in ordered.items():
        lines += tables.case_table(name, entry)
    (out / "latest.md").write_text("\n".join(lines).rstrip() + "\n")


def _summaries(results: dict[str, Any]) -> targets.Cases:
    return {name: entry["summary"] for name, entry in results.items()}


def _draw(out: Path) -> None:
    """Draw the plots with the library of the contestants' environment."""
    command = [str(contestants_python()), "-m", "benchmarks.plots", str(out)]
    subprocess.run(command, cwd=ROOT, check=True)


def _ours_failed(results: dict[str, Any]) -> bool:
    return any(
        row["failed"] and (row["contestant"].startswith(("ours", "import main")))
        for entry in results.values()
        for row in entry["rows"]
    )


if __name__ == "__main__":
    sys.exit(main())
