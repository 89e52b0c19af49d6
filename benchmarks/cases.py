"""What is measured: each case runs its contestants in interleaved rounds and returns its rows."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contest import (
    AIOHTTP,
    BARE_LOOP,
    CONTESTANTS,
    OURS,
    OURS_FUNCTION,
    TUTORIAL,
    Contestant,
    run_contestant,
)
from benchmarks.pace import read_pace
from benchmarks.site import Site

Row = dict[str, Any]
Tell = Callable[[str], None]
_FAST = 10_000
"""Pages/s from which on a contestant is one of the fast ones."""


@dataclass(frozen=True)
class Plan:
    """How long and how often to measure.

    Attributes:
        rounds: How often each contestant runs in a case.
        seconds: How long one run should take; how many pages it gets is chosen by that.
        fast_pages: Pages for the fast ones where nothing but they themselves limits them.
        timeout_seconds: After this a run has failed.
        most_growth: The longest range of the growth curve, pages.
        paced_seconds: How long the paced runs take.
        only: Names of contestants to run, empty for all.
        tell: Takes a line about each run as it ends.
    """

    rounds: int
    seconds: float
    fast_pages: int
    timeout_seconds: float
    most_growth: int
    paced_seconds: int
    tell: Tell
    only: tuple[str, ...] = ()


def race_http(site: Site, plan: Plan) -> list[Row]:
    """Race all contestants over HTTP, 64 connections, as fast as they go."""
    return _race(plan, CONTESTANTS, base_url=site.http, connections=64)


def race_tls(site: Site, plan: Plan) -> list[Row]:
    """Race all contestants over TLS, 64 connections or streams, certificate verified."""
    return _race(
        plan, CONTESTANTS, base_url=site.https, connections=64, share=0.5, ca_file=site.ca_file
    )


def race_latency_200(site: Site, plan: Plan) -> list[Row]:
    """Race all contestants against 100 ms of latency with 200 connections (limit: 2,000/s)."""
    return _race(plan, CONTESTANTS, base_url=site.slow, connections=200, limit=2_000)


def race_latency_500(site: Site, plan: Plan) -> list[Row]:
    """Race all contestants against 100 ms of latency with 500 connections (limit: 5,000/s)."""
    return _race(plan, CONTESTANTS, base_url=site.slow, connections=500, limit=5_000)


def paced(site: Site, plan: Plan) -> list[Row]:
    """Run a source and a function at 100 requests per second and read the pace from the site's log."""
    rows = []
    for contestant in (OURS, OURS_FUNCTION):
        site.log.write_text("")
        row = run_contestant(
            contestant,
            base_url=site.logged,
            count=100 * plan.paced_seconds,
            connections=64,
            timeout_seconds=plan.paced_seconds + 60,
            more=("--rate", "100", "--verify"),
        )
        row |= {"round": 1, "pace": asdict(read_pace(site.log.read_text().splitlines()))}
        if not row["failed"]:
            row["cpu_share"] = row["cpu_seconds"] / row["seconds"]
        rows.append(told(plan, row))
    return rows


def growth(site: Site, plan: Plan) -> list[Row]:
    """Follow time, processor and memory from 10^3 pages on: ours, and the tutorial's pattern."""
    counts = [10**power for power in range(3, 7) if 10**power <= plan.most_growth]
    runs = [(OURS, count) for count in counts]
    runs += [(TUTORIAL, count) for count in counts if count <= plan.most_growth // 100]
    rows = []
    for number in range(1, max(1, plan.rounds // 2) + 1):
        for contestant, count in runs:
            row = run_contestant(
                contestant,
                base_url=site.http,
                count=count,
                connections=64,
                timeout_seconds=max(plan.timeout_seconds, count / 1000),
                more=_verified(contestant),
            )
            rows.append(told(plan, row | {"round": number}))
    return rows


def connections(site: Site, plan: Plan) -> list[Row]:
    """Follow the throughput from 1 to 512 connections at 100 ms of latency."""
    rows = []
    for lanes in (1, 4, 16, 64, 128, 256, 512):
        for contestant in _chosen(plan, (OURS, OURS_FUNCTION, AIOHTTP, TUTORIAL)):
            count = _pages(contestant, plan, limit=10 * lanes, share=0.5)
            row = run_contestant(
                contestant,
                base_url=site.slow,
                count=count,
                connections=lanes,
                timeout_seconds=plan.timeout_seconds,
                more=_verified(contestant),
            )
            rows.append(told(plan, row | {"round": 1}))
    return rows


def _race(
    plan: Plan,
    contestants: Sequence[Contestant],
    *,
    base_url: str,
    connections: int,
    share: float = 1.0,
    limit: int | None = None,
    ca_file: Path | None = None,
) -> list[Row]:
    rows = []
    for number, contestant in _in_rounds(plan, contestants):
        count = _pages(contestant, plan, share=share, limit=limit)
        row = run_contestant(
            contestant,
            base_url=base_url,
            count=count,
            connections=connections,
            timeout_seconds=plan.timeout_seconds,
            ca_file=ca_file,
            more=_verified(contestant),
        )
        rows.append(told(plan, row | {"round": number}))
    return rows


def _in_rounds(plan: Plan, contestants: Sequence[Contestant]) -> Iterable[tuple[int, Contestant]]:
    """Give each contestant once per round, every round in another order; the same each time."""
    order = random.Random(7)
    for number in range(1, plan.rounds + 1):
        chosen = _chosen(plan, contestants)
        for contestant in order.sample(chosen, len(chosen)):
            yield number, contestant


def _chosen(plan: Plan, contestants: Sequence[Contestant]) -> list[Contestant]:
    return [one for one in contestants if not plan.only or one.module in plan.only]


def _pages(
    contestant: Contestant, plan: Plan, *, share: float = 1.0, limit: int | None = None
) -> int:
    """Choose how many pages make a run of about the planned length.

    Args:
        contestant: Who runs.
        plan: How long a run should take.
        share: Of the pages that its usual rate would make, this share: slower cases get fewer.
        limit: Pages/s that the case cannot exceed: connections / 0.1 s; None: no limit. With one,
            each connection gets two pages at least.
    """
    if limit is not None:
        return max(limit // 5, int(min(contestant.usual_rate, limit) * plan.seconds * share))
    if contestant.usual_rate >= _FAST:
        return int(plan.fast_pages * share)
    return max(400, int(contestant.usual_rate * plan.seconds * share))


def _verified(contestant: Contestant) -> tuple[str, ...]:
    return ("--verify",) if contestant.ours else ()


def told(plan: Plan, row: Row) -> Row:
    """Tell how a run went, and hand its row on."""
    what = row["failed"] or (
        f"{row['pages_per_second']:,.0f} pages/s, {row['cpu_ms_per_page']:.3f} ms CPU per page, "
        f"peak {row['peak_rss_kb'] / 1024:.0f} MB"
    )
    plan.tell(f"  round {row['round']}  {row['contestant']:<22} {row['count']:>9,} pages: {what}")
    return row


REFERENCE = BARE_LOOP.name
"""Whose pages/s the ratios of a race are ratios to."""
