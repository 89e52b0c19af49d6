"""The status that runs leave in the store: `status.json` for programs, `status.html` for people."""

import logging
from collections.abc import Mapping
from datetime import datetime

import msgspec

from crawler.errors import StoreError
from crawler.page.status_page import status_page
from crawler.store.block_info import BlockInfo
from crawler.store.contract import Store
from crawler.store.coverage import coverage_of
from crawler.store.run_objects import KEPT_RUNS, RUN_SECONDS, RunObject, read_runs

logger = logging.getLogger("crawler")


def write_status(
    store: Store,
    listing: Mapping[int, BlockInfo],
    *,
    now: datetime,
    known_runs: dict[str, RunObject | None],
) -> None:
    """Write both from what the run knows of the blocks; trouble is only logged.

    Args:
        store: Where.
        listing: All its blocks, by first number; none is read.
        now: What the page says it is as of.
        known_runs: Runs by name that were read before, as `read_runs` keeps them.
    """
    blocks = [listing[first] for first in sorted(listing)]
    try:
        _write(store, "status.json", msgspec.json.encode(coverage_of(blocks)), "application/json")
        runs = read_runs(store, latest=KEPT_RUNS, timeout=RUN_SECONDS, known=known_runs)
        page = status_page(blocks, runs, now=now, location=store.location)
        _write(store, "status.html", page.encode(), "text/html; charset=utf-8")
    except StoreError as error:
        logger.warning("the status could not be written: %s", error)


def _write(store: Store, name: str, data: bytes, content_type: str) -> None:
    store.write(name, data, generation=None, content_type=content_type, timeout=RUN_SECONDS)
