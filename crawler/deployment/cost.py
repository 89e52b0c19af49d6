"""What a deployment costs at worst: list prices, sizes of the function, and estimates from them."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

PRICES = {
    "vcpu_second": 0.000024,
    "gib_second": 0.0000025,
    "million_invocations": 0.40,
    "thousand_writes": 0.005,
    "thousand_reads": 0.0004,
    "gib_out": 0.12,
    "gib_logs": 0.50,
}
"""US dollars, without any free tier: Cloud Run billed by request in a region of tier 1, Cloud
Storage in one region, traffic to the internet in its dearest common tier, Cloud Logging.

Source: cloud.google.com/run/pricing, /storage/pricing, /logging/pricing, as stored in 2025. Prices
change and differ by region; these say whether it is cents or hundreds, no more.
"""

BYTES_OUT_PER_REQUEST = 400
"""Bytes sent per request: about 250 of headers, the rest TLS and TCP. What comes in is free."""

LOG_BYTES_PER_RUN = 2_000
LOG_BYTES_PER_SECOND = 60
"""A progress line of 600 bytes every 10 s."""

CPU_SECONDS = {"source": 0.002, "function": 0.006}
"""vCPU seconds per page that a deployment is sized for: of a declared source, of step 1.

Measured on 2026-11-22 with Python 3.11 over plain HTTP: a source 0.1 ms at full speed and 0.8 ms
at 100/s, where most goes into waking up; step 1 by requests' own connections 1.1 ms, and less than
half of that since libcurl sends for it. TLS doubles that at most, and a vCPU of a shared machine is
taken to be two to three times as slow.
"""

DATED = "2025"
"""When these prices were read."""

MONTH_DAYS = 30.4

MONTHLY = {
    "alert_condition": 1.50,
    "secret_version": 0.06,
    "scheduler_job": 0.10,
    "image_gib": 0.10,
}
"""US dollars a month for one of each, without any free tier.

Source: cloud.google.com/stackdriver/pricing (a condition by an older list; a newer one asks less),
/secret-manager/pricing, /scheduler/pricing, /artifact-registry/pricing.
"""

IMAGE_GIB = 0.15
"""What one built image is taken to hold; not measured. Each deployment adds one."""

TIER_2_FACTOR = 1.4
"""What vCPU and memory cost in a region of tier 2, compared with tier 1."""

TIER_1 = frozenset(
    {
        "asia-east1",
        "asia-northeast1",
        "asia-northeast2",
        "europe-north1",
        "europe-southwest1",
        "europe-west1",
        "europe-west4",
        "europe-west8",
        "europe-west9",
        "me-west1",
        "us-central1",
        "us-east1",
        "us-east4",
        "us-east5",
        "us-south1",
        "us-west1",
    }
)
"""Regions of tier 1; all others are taken to be of tier 2.

Source: docs.cloud.google.com/run/docs/locations, as stored in 2025.
"""


class Size(msgspec.Struct, frozen=True):
    """How big an instance of the function is: vCPUs, and MiB of memory."""

    cpu: float
    memory_mib: int


SIZES = (
    Size(0.083, 128),
    Size(0.167, 256),
    Size(0.333, 512),
    Size(0.583, 512),
    Size(1, 1024),
    Size(2, 2048),
)
"""What the platform offers, ascending; below half a vCPU it gives at most 512 MiB.

From half a vCPU on, 512 MiB are the least.
Source: docs.cloud.google.com/run/docs/configuring/services/cpu.
"""


_LEAST_MIB = 256
"""Holds any rate, and bodies that unfold on all connections: 91 MiB unpaced (2026-11-22) and the 64 of
all bodies. In 128 MiB a site may get the function killed, so nobody has that without asking for it."""


def size_for(rate: float, caller: str) -> Size:
    """Choose the smallest instance that holds a pace, from 256 MiB on.

    Args:
        rate: Requests per second of one instance.
        caller: `source` or `function`: who reads the pages.
    """
    cpu = rate * CPU_SECONDS[caller]
    fit = (size for size in SIZES if size.cpu >= cpu and size.memory_mib >= _LEAST_MIB)
    return next(fit, SIZES[-1])


def run_cost(size: Size, *, seconds: float, requests: int, blocks_written: int) -> float:
    """Estimate what one run costs, in US dollars.

    Each block written is one write, and one read where it was there before.
    """
    writes = blocks_written + seconds / 60 + 4  # status once a minute; the run's object and more
    reads = blocks_written + seconds / 5 + 10  # control.json; listings, a page of 1,000 names each
    logged = LOG_BYTES_PER_RUN + seconds * LOG_BYTES_PER_SECOND + blocks_written * 400
    return (
        seconds * (size.cpu * PRICES["vcpu_second"] + _gib(size) * PRICES["gib_second"])
        + PRICES["million_invocations"] / 1e6
        + writes / 1e3 * PRICES["thousand_writes"]
        + reads / 1e3 * PRICES["thousand_reads"]
        + requests * BYTES_OUT_PER_REQUEST / 2**30 * PRICES["gib_out"]
        + logged / 2**30 * PRICES["gib_logs"]
    )


def worst_day(
    size: Size, *, rate: float, instances: int, max_requests_per_day: int | None = None
) -> float:
    """Estimate the dearest day: every instance busy from midnight to midnight, in US dollars.

    Args:
        rate: Requests per second over all instances.
        max_requests_per_day: The cap; it bounds what is sent, not how long instances are up.
    """
    requests = int(min(rate * 86_400, max_requests_per_day or math.inf))
    one = run_cost(
        size,
        seconds=86_400,
        requests=math.ceil(requests / instances),
        blocks_written=math.ceil(requests / instances / 1000) * 2,  # a block may be written twice
    )
    return instances * one


class Cost(NamedTuple):
    """One line of what a deployment costs: what it is, US dollars a month at most."""

    what: str
    dollars: float


def tier(region: str) -> int:
    """Return the price tier of a region of Cloud Run, 1 or 2."""
    return 1 if region in TIER_1 else 2


def monthly_costs(
    size: Size,
    *,
    region: str,
    rate: float,
    instances: int,
    conditions: int,
    has_secret: bool,
    max_requests_per_day: int | None = None,
) -> Iterator[Cost]:
    """List what a month costs at worst: every instance busy all day, nothing free.

    Args beside those of `worst_day`:
        region: Where it runs.
        conditions: Of all alerts together.
        has_secret: Whether a token is kept.
    """
    day = worst_day(size, rate=rate, instances=instances, max_requests_per_day=max_requests_per_day)
    second = size.cpu * PRICES["vcpu_second"] + _gib(size) * PRICES["gib_second"]
    compute = instances * 86_400 * second
    status = instances * 1440 / 1000 * PRICES["thousand_writes"]
    factor = 1.0 if tier(region) == 1 else TIER_2_FACTOR
    yield Cost(f"vCPU and memory, tier {tier(region)}", compute * factor * MONTH_DAYS)
    yield Cost("traffic, blocks and logs", (day - compute - status) * MONTH_DAYS)
    yield Cost("status page, written once a minute", status * MONTH_DAYS)
    yield Cost(f"{conditions} alert conditions", conditions * MONTHLY["alert_condition"])
    if has_secret:
        yield Cost("a version of the token", MONTHLY["secret_version"])
    yield Cost("the scheduler's job", MONTHLY["scheduler_job"])
    yield Cost("an image; each deployment adds one", IMAGE_GIB * MONTHLY["image_gib"])


def _gib(size: Size) -> float:
    return size.memory_mib / 1024
