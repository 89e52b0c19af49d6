"""The ledger: turns outcomes into counts, tuples and records, each number once."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt, Tally
from crawler.record import Record

logger = logging.getLogger("crawler")

MAX_TOLD = 5
"""Different things that step 1 does wrong, told in one run; the records have them all."""


class Ledger:
    """Books what is known of each number. Called under the frontier's lock."""

    def __init__(self, on_record: Callable[[Record], None] | None) -> None:
        """Start empty; `on_record` gets each number's record once."""
        self.tally = Tally()
        self.is_recording = on_record is not None
        self._on_record = on_record
        self._told: set[str] = set()

    def found(self, attempt: Attempt, reply: Reply, moment: datetime) -> None:
        """Append the tuple to its job's results, and record the info."""
        self.tally.found += 1
        num, job, info = attempt.song_num, attempt.job, reply.info
        if job.source is not None:
            job.results.append((num, info))
        else:
            for entry in info:
                job.results.append(entry)
            info = info_of(info)
        if self._on_record is not None:
            self._on_record(
                Record(num, "found", reply.status, info, None, attempt.requests, moment)
            )

    def missing(self, attempt: Attempt, reply: Reply, moment: datetime) -> None:
        """Record that the site has no such page."""
        self.tally.missing += 1
        num = attempt.song_num
        if self._on_record is not None:
            self._on_record(
                Record(
                    num,
                    "missing",
                    reply.status,
                    None,
                    None,
                    attempt.requests,
                    moment,
                    detail=reply.detail[:200],
                )
            )

    def failed(self, attempt: Attempt, reply: Reply, kind: str, moment: datetime) -> None:
        """Record that we do not know, and why."""
        self.tally.failed += 1
        num, detail = attempt.song_num, reply.detail[:200]
        logger.debug("song %s failed: %s %s", num, kind, detail)
        if self._on_record is not None:
            requests = attempt.requests
            self._on_record(
                Record(num, "failed", reply.status, None, kind, requests, moment, detail=detail)
            )

    def failed_attempt(self, attempt: Attempt, reply: Reply, kind: str) -> None:
        """Count why an attempt failed; tell what step 1 does wrong, whose author may mend it.

        At the first attempt: where it is wrong for every song, no number may come to its last.
        """
        self.tally.kinds[kind] += 1
        if kind == "function":
            self._tell("step 1 failed on song %s: %s", attempt, reply.detail, "step_1_failed")

    def unsent(self, attempt: Attempt, reply: Reply) -> None:
        """Take back the request counted for an attempt that sent none; tell what is wrong with it."""
        self.tally.requests -= 1
        self.tally.retries -= attempt.requests > 1
        if reply.found and reply.detail:
            self._tell("step 1 and song %s: %s", attempt, reply.detail, "step_1_unpaced")

    def _tell(self, message: str, attempt: Attempt, detail: str, event: str) -> None:
        """Log what step 1 does wrong, whose author may mend it; the same only once."""
        if detail not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(detail)
            logger.warning(message, attempt.song_num, detail, extra={"event": event})


def info_of(appended: list[Any]) -> Any:
    """Make one info of what a step 1 function appended for one item.

    `(item, info)` gives info, the longer `(item, a, b)` the list `[a, b]`; several tuples a list
    of these.
    """
    infos = [entry[1] if len(entry) == 2 else list(entry[1:]) for entry in appended]
    return infos[0] if len(infos) == 1 else infos
