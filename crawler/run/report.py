"""The report: what a run did, as one answer that claims nothing the store does not hold."""

from typing import cast

from crawler.answer import Answer, StoppedBy
from crawler.frontier.frontier import Frontier
from crawler.plan.scope import Scope
from crawler.run.writer import Writer
from crawler.version import VERSION


def make_answer(frontier: Frontier, writer: Writer, scope: Scope, *, seconds: float) -> Answer:
    """Count up a run that has ended.

    Records that could not be stored are taken back from the counts: their numbers are left.
    """
    tally, lost = frontier.tally, writer.lost
    found, missing = tally.found - lost["found"], tally.missing - lost["missing"]
    failed, skipped = tally.failed - lost["failed"], scope.skipped_in_all()
    remaining = max(0, scope.stop - scope.start - found - missing - failed - skipped)
    return Answer(
        start=scope.start,
        stop=scope.stop,
        mode=scope.mode,
        found=found,
        missing=missing,
        failed=failed,
        skipped=skipped,
        complete=not (remaining or failed or scope.has_gaps),
        remaining=remaining,
        requests=tally.requests,
        retries=tally.retries,
        seconds=round(seconds, 3),
        mean_rate=round(tally.requests / max(seconds, 1e-9), 2),
        stopped_by="store" if lost.total() else cast("StoppedBy", frontier.stopped_by or "done"),
        blocks_written=writer.blocks_written,
        version=VERSION,
    )
