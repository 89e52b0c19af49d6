"""What is asked of one host: which attempts may start now, and what follows from each reply."""

import logging
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from crawler.frontier.backlog import Backlog
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.retries import http_date, retry_after_seconds, retry_at
from crawler.frontier.site_health import SiteHealth
from crawler.frontier.verdict import Reply, Verdict, judge
from crawler.frontier.work import Attempt, Job, Policy, Tally
from crawler.record import Record

logger = logging.getLogger("crawler")

SUPPLY_SECONDS = 0.02
"""How soon a supply that is still reading ahead, or a store without room, is asked again."""

IDLE_SECONDS = 0.5
"""How long a lane with nothing to do sleeps at most before it looks again."""

MAX_EXCUSES = 3
"""So often a number may meet an idle connection that was closed: the next one may be idle too."""

MAX_TOLD = 5
"""Different things that step 1 does wrong, told in one run; the records have them all."""


class Host:
    """Hands out what is due for one host, and judges what comes back, each number once.

    Every method is called under the frontier's lock.

    Attributes:
        in_flight: Attempts handed out and not yet handed back.
        limiter: The pace towards the host.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        policy: Policy,
        tally: Tally,
        *,
        stop: Callable[[str, str], bool],
        deadline: float,
        on_record: Callable[[Record], None] | None,
        on_pause: Callable[[float], None] | None,
        last_known: int | None,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        uniform: Callable[[float, float], float],
    ) -> None:
        """Prepare; `stop` ends the run, with its reason and a detail. See `Frontier` for the rest."""
        self.in_flight = 0
        self.limiter = limiter
        self._backlog, self._health = Backlog(), SiteHealth(self._end, last_known)
        self._policy, self._tally, self._stop = policy, tally, stop
        self._deadline = deadline
        self._on_record, self._on_pause = on_record, on_pause
        self._clock, self._wall, self._uniform = clock, wall, uniform
        self._is_broken = False
        self._told: set[str] = set()

    def add_job(self, job: Job) -> None:
        """Add one function over one list."""
        self._backlog.add_job(job)

    # Handing out.

    def take(self, wanted: int, now: float) -> tuple[list[Attempt], float]:
        """Hand out at most so many attempts; return in how many seconds there may be more."""
        wanted, wait = self._allowance(wanted, now)
        if wanted:
            wanted, wait = self._grant(wanted, now)
        attempts = self._hand_out(wanted, now) if wanted else []
        self._give_up_if_broken()
        return attempts, min(wait, IDLE_SECONDS)

    def put_back(self, attempts: list[Attempt]) -> None:
        """Take back attempts whose request was never sent."""
        now = self._clock()
        for attempt in attempts:
            if attempt.is_out:
                attempt.is_out = False
                self.in_flight -= 1
                self._tally.requests -= 1
                self._tally.retries -= attempt.requests > 0
                self._backlog.wait_until(now, attempt)

    def _allowance(self, wanted: int, now: float) -> tuple[int, float]:
        """Return how many attempts may start as far as anything but pace is concerned."""
        resume_at = self.limiter.resume_at
        if resume_at > now and self._is_endless(resume_at, now):
            return 0, 0.0
        if self._health.is_in_doubt:
            return self._health.allowance(wanted, self.in_flight, now)
        return wanted, 0.0

    def _is_endless(self, resume_at: float, now: float) -> bool:
        """End the run when a pause cannot be waited for, whichever run of the process learnt it."""
        left = resume_at - now
        if resume_at < self._deadline and left <= self._policy.max_pause_seconds:
            return False
        self._end("paused", f"the site asked for a pause; {left:.0f} s of it are left")
        return True

    def _grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Return how many may start that there are; a supply is asked for one more than is due."""
        backlog, most = self._backlog, self._policy.max_requests
        left = math.inf if most is None else most - self._tally.requests
        is_there = backlog.prepare(1, now) > 0
        if left <= 0 and (is_there or backlog.next_due is not None):
            self._end("daily_cap", "")
            return 0, 0.0
        if not is_there:
            return 0, self._idle_wait(now)
        granted, wait = self.limiter.grant(wanted if left > wanted else int(left), now)
        if granted > 1 and (ready := backlog.prepare(granted, now)) < granted:
            self.limiter.give_back(granted - ready)
            granted = ready
        return granted, wait

    def _hand_out(self, count: int, now: float) -> list[Attempt]:
        if self._health.is_in_doubt:
            self._health.note_handed_out(now)
        attempts = self._backlog.pop(count)
        began_at = now - self._held_seconds
        for attempt in attempts:
            if attempt.requests:
                self._tally.retries += 1
            else:
                attempt.first_at = began_at
            attempt.sent_at = now
            attempt.is_out = True
        self._tally.requests += count
        self.in_flight += count
        return attempts

    def _idle_wait(self, now: float) -> float:
        """Return how long there will be nothing to hand out, or end the run."""
        due = self._backlog.next_due
        soon = IDLE_SECONDS if due is None else max(0.0, due - now)
        is_last = due is None and not self.in_flight
        if is_last and self._health.is_suspicious:
            for attempt, reply in self._health.conclude():
                self._record_failed(attempt, reply, f"http_{reply.status}", self._wall())
            return 0.0
        if self._backlog.has_fresh:
            return min(SUPPLY_SECONDS, soon)
        if is_last:
            self._end("done", "")
        return soon

    @property
    def _held_seconds(self) -> float:
        """All time held back so far; it does not count towards any number's own time."""
        return self.limiter.held_seconds + self._health.held_seconds

    # Judging.

    def settle(self, replies: list[Reply]) -> None:
        """Judge replies, in the order of arrival."""
        moment, now = self._wall(), self._clock()
        health = self._health
        returned = good = 0
        waited = 0.0
        for reply in replies:
            attempt = reply.attempt
            if not attempt.is_out:
                continue  # it was given up meanwhile
            attempt.is_out = False
            attempt.requests += 1
            returned += 1
            waited += now - attempt.sent_at
            if reply.is_unsent:
                self._note_unsent(attempt, reply)
            if reply.found:
                good += 1
                self._record_found(attempt, reply, moment)
                health.note_found(attempt.song_num)
                continue
            verdict = judge(reply)
            if verdict.action == "missing":
                good += 1
                if health.believes_missing(attempt.song_num):
                    self._record_missing(attempt, reply, moment)
                continue
            if good:
                self._note_good(moment, now)
                good = 0
            self._note_bad(attempt, reply, verdict, moment, now)
        if good:
            self._note_good(moment, now)
        self._tally.latency_seconds += waited
        self.in_flight -= returned
        self._give_up_if_broken()

    def give_up(self, attempt: Attempt) -> None:
        """Fail a number that nobody works on any more, though no reply ever came."""
        self.in_flight -= 1
        attempt.is_out, attempt.is_abandoned = False, True
        attempt.requests += 1
        reply = Reply(attempt, error="timeout", detail="stuck; its lane was replaced")
        self._health.note_failure("timeout", self._clock())
        self._record_failed(attempt, reply, "timeout", self._wall())
        self._tally.kinds["timeout"] += 1

    def _note_good(self, moment: datetime, now: float) -> None:
        self.limiter.recover(now)
        for attempt, reply in self._health.note_good(now):
            self._record_failed(attempt, reply, f"http_{reply.status}", moment)

    def _note_bad(
        self, attempt: Attempt, reply: Reply, verdict: Verdict, moment: datetime, now: float
    ) -> None:
        kind = verdict.kind or "protocol"
        self._tally.kinds[kind] += 1
        if kind == "function":  # at once: wrong for every song, no number may come to its last try
            self._tell("step 1 failed on song %s: %s", attempt, reply.detail, "step_1_failed")
        if verdict.is_overload:
            self._pause(attempt, reply, moment, now)
        if verdict.action == "refused":
            self._health.note_refusal(attempt, reply)
            return
        if verdict.is_excused and attempt.requests <= MAX_EXCUSES:
            self._backlog.wait_until(now, attempt)
            return
        self._health.note_failure(kind, now, is_setup=verdict.is_setup, is_unsent=reply.is_unsent)
        if verdict.action == "failed" or not self._retry(attempt, reply, verdict, now):
            self._record_failed(attempt, reply, kind, moment)

    def _retry(self, attempt: Attempt, reply: Reply, verdict: Verdict, now: float) -> bool:
        """Put the number back into the backlog, unless its tries or its time are used up.

        A 429 and what fails while the circuit is open say nothing about the number. Then it serves
        as a probe, whose pace the circuit sets: were it to wait longer each time, a run with few
        numbers left would take half an hour to find a site dead. Nor is there anything to wait
        for where step 1 failed before it sent anything.
        """
        if verdict.is_counted:
            attempt.kind, attempt.status = verdict.kind, reply.status
        if self._health.is_circuit_open:
            self._backlog.wait_until(now, attempt)
            return True
        due = retry_at(
            attempt,
            self._policy,
            is_counted=verdict.is_counted,
            now=now,
            held_seconds=self._held_seconds,
            uniform=self._uniform,
        )
        if due is None:
            return False
        self._backlog.wait_until(now if reply.is_unsent else due, attempt)
        return True

    def _pause(self, attempt: Attempt, reply: Reply, moment: datetime, now: float) -> None:
        """Hold everybody back as the site asks, and go on at half the pace."""
        answered = http_date(reply.header("date"), now=moment) or moment
        seconds = retry_after_seconds(reply.header("retry-after"), now=answered)
        if seconds and self.limiter.hold(now + seconds, now) and self._on_pause is not None:
            self._on_pause(seconds)
        self.limiter.slow_down(attempt.sent_at, now)

    def _end(self, stopped_by: str, detail: str) -> None:
        is_first = self._stop(stopped_by, detail)
        self._is_broken = self._is_broken or (is_first and stopped_by == "circuit")

    def _give_up_if_broken(self) -> None:
        """When the circuit has ended the run: fail what the site answered for, but not rightly.

        The next run will not begin with these numbers, so that a stretch of bad pages stops no
        crawl for good. Where no answer came, nothing is known of the number.
        """
        if not self._is_broken:
            return
        moment = self._wall()
        for attempt in self._backlog.give_up_tried():
            if attempt.kind is not None and attempt.status is not None:
                reply = Reply(attempt, status=attempt.status, detail="tried until the run ended")
                self._record_failed(attempt, reply, attempt.kind, moment)

    # Counts, tuples and records.

    def _record_found(self, attempt: Attempt, reply: Reply, moment: datetime) -> None:
        """Append the tuple to its job's results, and record the info."""
        self._tally.found += 1
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

    def _record_missing(self, attempt: Attempt, reply: Reply, moment: datetime) -> None:
        """Record that the site has no such page."""
        self._tally.missing += 1
        num = attempt.song_num
        if self._on_record is not None:
            self._on_record(
                Record(num, "missing", reply.status, None, None, attempt.requests, moment)
            )

    def _record_failed(self, attempt: Attempt, reply: Reply, kind: str, moment: datetime) -> None:
        """Record that we do not know, and why."""
        self._tally.failed += 1
        num, detail = attempt.song_num, reply.detail[:200]
        logger.debug("song %s failed: %s %s", num, kind, detail)
        if self._on_record is not None:
            requests = attempt.requests
            self._on_record(
                Record(num, "failed", reply.status, None, kind, requests, moment, detail=detail)
            )

    def _note_unsent(self, attempt: Attempt, reply: Reply) -> None:
        """Take back the request counted for an attempt that sent none; tell what is wrong with it."""
        self._tally.requests -= 1
        self._tally.retries -= attempt.requests > 1
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
