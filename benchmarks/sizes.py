"""What each size of the function reaches and costs: the same crawl under one CPU limit after another."""

from benchmarks.cases import Plan, Row
from benchmarks.cgroup import small_machine
from benchmarks.parts import call_function, tell_limited
from benchmarks.site import Site
from crawler.deployment.cost import SIZES, Size, run_cost

MOST_CPUS = 1
"""Larger sizes cannot be told apart here: the site needs a processor too."""

_MILLION = 1_000_000
_PAGES_PER_SECOND = {"source": 3_000, "function": 400}
_CONNECTIONS = {"source": "400", "function": "64"}


def function_sizes(site: Site, plan: Plan) -> list[Row]:
    """Run the function unpaced in every size it is deployed in, a source and a function, 100 ms away.

    Raises:
        NoCgroupError: This machine cannot limit a group of processes.
    """
    return [
        _measure(site, plan, size, caller)
        for size in SIZES
        if size.cpu <= MOST_CPUS
        for caller in ("source", "function")
    ]


def _measure(site: Site, plan: Plan, size: Size, caller: str) -> Row:
    count = int(_PAGES_PER_SECOND[caller] * plan.seconds)
    settings = {
        "CRAWLER_RATE": "0",
        "CRAWLER_CONNECTIONS": _CONNECTIONS[caller],
    }
    if caller == "function":
        settings["CRAWLER_FUNCTION"] = "tests.song_step:ask_for_song"
    with small_machine(cpus=size.cpu, memory_mib=size.memory_mib) as small:
        row = call_function(site, small, count, settings, plan)
    name = f"{size.cpu:g} CPU, {size.memory_mib} MiB, {caller}"
    head = {"round": 1, "contestant": name, "count": count, "caller": caller}
    row |= head | {"cpu": size.cpu, "memory_mib": size.memory_mib}
    row["dollars_at_100"] = _dollars_per_million(size, 100)
    if not row["failed"]:
        row["dollars_unpaced"] = _dollars_per_million(size, row["pages_per_second"])
    return tell_limited(plan, row)


def _dollars_per_million(size: Size, rate: float) -> float:
    """Estimate what a million pages cost at a rate, by the list prices in `crawler.deployment.cost`."""
    return run_cost(
        size, seconds=_MILLION / rate, requests=_MILLION, blocks_written=_MILLION // 1000
    )
