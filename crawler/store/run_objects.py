"""What a run leaves beside the blocks: one small object a run, for who looks at the last ones."""

import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from crawler.answer import Answer
from crawler.errors import StoreError
from crawler.store.contract import Content, Store

logger = logging.getLogger("crawler")

PREFIX = "runs/"
KEPT_RUNS = 200
READERS = 8
"""Objects read at once: 200 of them, one after the other, would take a bucket 6 s."""

RUN_SECONDS = 20.0
"""Time for one of these objects; they are worth having, not worth waiting for."""


class RunObject(msgspec.Struct, kw_only=True):
    """One run, as the status page shows it; what version 1.0 wrote besides is not read.

    Attributes:
        started_at: When it began, UTC.
        answer: What it answered.
        kinds: Failed attempts by kind.
        rate: The pace that was set, requests per second; 0 for no limit.
        connections: Requests under way at most.
        samples: Its course: `[seconds, requests, found, missing, failed, retries,
            latency_seconds, paused, site_rate]`, counts and the sum of latencies since the start;
            version 1.0 wrote no `site_rate`, the pace that the site announced.
        options: What a command has to name to crawl the same site in the same way, such as
            `--source FILE`; None where no command can.
    """

    started_at: datetime
    answer: Answer
    kinds: dict[str, int]
    rate: float
    connections: int
    samples: list[Any]
    options: list[str] | None = []


def run_name(started_at: datetime, run_id: str) -> str:
    """Return the name of a run's object; names sort by time."""
    return f"{PREFIX}{started_at:%Y%m%dT%H%M%SZ}-{run_id}.json"


def leave_run_object(
    store: Store, run: RunObject, run_id: str, *, kept_runs: int = KEPT_RUNS
) -> None:
    """Write a run's object, and remove those beyond the latest; trouble is only logged."""
    try:
        store.write(
            run_name(run.started_at, run_id),
            Content(msgspec.json.encode(run), "application/json"),
            expected=None,
            timeout=RUN_SECONDS,
        )
        for name in store.list_names(PREFIX, timeout=RUN_SECONDS)[:-kept_runs]:
            store.delete(name, timeout=RUN_SECONDS)
    except StoreError as error:
        logger.warning("the run's object could not be written: %s", error)


def read_runs(
    store: Store, *, latest: int, timeout: float, known: dict[str, RunObject | None] | None = None
) -> list[RunObject]:
    """Read the latest runs, the newest first; unreadable ones are left out, with a log line.

    Args:
        store: Where.
        latest: How many at most.
        timeout: Seconds for each object.
        known: Runs by name that were read before (None: unreadable), and are not read again, since
            nobody changes them; gets what is read now.
    """
    known = {} if known is None else known
    names = store.list_names(PREFIX, timeout=timeout)[-latest:]
    new = [name for name in names if name not in known]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda name: _read_run(store, name, timeout), new)
        known.update(zip(new, read, strict=True))
    return [run for name in reversed(names) if (run := known[name]) is not None]


def requests_today(store: Store, now: datetime, *, timeout: float) -> int:
    """Sum the requests of the runs that began on this day, UTC."""
    names = store.list_names(f"{PREFIX}{now.astimezone(UTC):%Y%m%d}", timeout=timeout)
    runs = (_read_run(store, name, timeout) for name in names)
    return sum(run.answer.requests for run in runs if run is not None)


def _read_run(store: Store, name: str, timeout: float) -> RunObject | None:
    stored = store.read(name, timeout=timeout)
    try:
        return None if stored is None else msgspec.json.decode(stored.data, type=RunObject)
    except msgspec.MsgspecError as error:
        logger.warning("%s cannot be read: %s", name, error)
        return None
