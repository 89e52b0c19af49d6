"""Listings and runs for the tests of the coverage page, made up, of any size."""

from datetime import timedelta

from crawler.answer import Answer
from crawler.store.block import BlockInfo
from crawler.store.control import RunObject
from tests.records import NOON


def a_block(first, *, found=900, missing=100, failed=0, reasons=None, nums=None, last_found=None):
    """Make what a listing tells of a block whose numbers were asked from its first on."""
    asked = found + missing + failed
    return BlockInfo(
        format=1,
        source="genius",
        first=first,
        found=found,
        missing=missing,
        failed=failed,
        first_num=first,
        last_num=first + asked - 1,
        last_found=last_found if last_found is not None else (first + found - 1 if found else None),
        oldest_fetched_at=NOON,
        reasons=reasons if reasons is not None else ({"timeout": failed} if failed else {}),
        failed_nums=nums or {},
    )


def a_listing(how_many):
    """Make so many blocks: of each hundred three have failures, and ten are not there."""
    return [
        a_block(k * 1000, found=880 + k % 40, missing=120 - k % 40 - 3 * (k % 100 > 96), failed=3)
        if k % 100 > 96
        else a_block(k * 1000, found=880 + k % 40, missing=120 - k % 40)
        for k in range(how_many)
        if not 40 <= k % 100 < 50 or how_many < 100
    ]


def a_run(*, hours=0.0, seconds=60.0, start=1, stop=5001, found=4500, missing=500, pause_at=None):
    """Make a run that began some hours after noon, with a sample a second.

    Args:
        hours: After noon.
        seconds: How long it took.
        start: First number.
        stop: Number after the last.
        found: What it found.
        missing: What was missing.
        pause_at: Second at which the site asked for a pause of 5 s; None: never.
    """
    requests = found + missing
    samples = []
    for second in range(1, round(seconds) + 1):
        part = second / seconds
        waits = 5.0 - (second - pause_at) if pause_at and 0 <= second - pause_at < 5 else 0.0
        counts = [round(part * count) for count in (requests, found, missing)]
        samples.append([float(second), *counts, 0, 0, counts[0] * 0.08, waits])
    answer = Answer(
        start=start,
        stop=stop,
        mode="range",
        found=found,
        missing=missing,
        failed=0,
        skipped=0,
        complete=False,
        remaining=max(0, stop - start - requests),
        requests=requests,
        retries=0,
        seconds=seconds,
        mean_rate=requests / seconds,
        stopped_by="done",
        blocks_written=5,
        version="1",
    )
    return RunObject(
        started_at=NOON + timedelta(hours=hours),
        answer=answer,
        kinds={},
        rate=100.0,
        connections=64,
        samples=samples,
    )
