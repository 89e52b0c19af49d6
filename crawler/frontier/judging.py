"""What follows from each reply: a record, another try, a pause for all, or an end of the run."""

from collections.abc import Callable
from datetime import datetime

from crawler.frontier.backlog import Backlog
from crawler.frontier.brakes import Brakes
from crawler.frontier.ledger import Ledger
from crawler.frontier.retries import retry_at
from crawler.frontier.retry_after import http_date, retry_after_seconds
from crawler.frontier.trust import Trust
from crawler.frontier.verdict import Reply, Verdict, judge
from crawler.frontier.work import Attempt, Policy

MAX_EXCUSES = 3
"""So often a number may meet an idle connection that was closed: the next one may be idle too."""


class Judging:
    """Carries out verdicts on the frontier's parts. Called under the frontier's lock."""

    def __init__(
        self,
        backlog: Backlog,
        trust: Trust,
        brakes: Brakes,
        ledger: Ledger,
        policy: Policy,
        *,
        on_pause: Callable[[float], None] | None,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        uniform: Callable[[float, float], float],
    ) -> None:
        """Work on these parts; `on_pause` is told the seconds of each pause the site asks for."""
        self._policy, self._ledger, self._backlog = policy, ledger, backlog
        self._trust, self._brakes = trust, brakes
        self._on_pause = on_pause
        self._clock, self._wall, self._uniform = clock, wall, uniform

    @property
    def held_seconds(self) -> float:
        """All time held back so far; it does not count towards any number's own time."""
        return self._brakes.held_seconds + self._trust.held_seconds

    def settle(self, replies: list[Reply]) -> int:
        """Judge replies, in the order of arrival; say how many attempts came back."""
        moment, now = self._wall(), self._clock()
        ledger, trust = self._ledger, self._trust
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
                ledger.unsent(attempt, reply)
            if reply.found:
                good += 1
                ledger.found(attempt, reply, moment)
                trust.note_found(attempt.song_num)
                continue
            verdict = judge(reply)
            if verdict.action == "missing":
                good += 1
                if trust.believes_missing(attempt.song_num):
                    ledger.missing(attempt, reply, moment)
                continue
            if good:
                self._note_good(moment, now)
                good = 0
            self._note_bad(attempt, reply, verdict, moment, now)
        if good:
            self._note_good(moment, now)
        ledger.tally.latency_seconds += waited
        return returned

    def give_up(self, attempt: Attempt) -> None:
        """Fail a number that nobody works on any more, though no reply ever came."""
        attempt.is_out, attempt.is_abandoned = False, True
        attempt.requests += 1
        reply = Reply(attempt, error="timeout", detail="stuck; its lane was replaced")
        self._trust.note_failure("timeout", self._clock())
        self._ledger.failed(attempt, reply, "timeout", self._wall())
        self._ledger.tally.kinds["timeout"] += 1

    def conclude(self) -> None:
        """When nothing is left to ask: record the refused numbers, or find that all are refused."""
        for attempt, reply in self._trust.conclude():
            self._ledger.failed(attempt, reply, f"http_{reply.status}", self._wall())

    def give_up_answered(self) -> None:
        """When the circuit has ended the run: fail what the site answered for, but not rightly.

        The next run will not begin with these numbers, so that a stretch of bad pages stops no
        crawl for good. Where no answer came, nothing is known of the number.
        """
        moment = self._wall()
        for attempt in self._backlog.tried():
            if attempt.kind is not None and attempt.status is not None:
                reply = Reply(attempt, status=attempt.status, detail="tried until the run ended")
                self._ledger.failed(attempt, reply, attempt.kind, moment)

    def _note_good(self, moment: datetime, now: float) -> None:
        self._brakes.recover(now)
        for attempt, reply in self._trust.note_good(now):
            self._ledger.failed(attempt, reply, f"http_{reply.status}", moment)

    def _note_bad(
        self, attempt: Attempt, reply: Reply, verdict: Verdict, moment: datetime, now: float
    ) -> None:
        kind = verdict.kind or "protocol"
        self._ledger.failed_attempt(attempt, reply, kind)
        if verdict.is_overload:
            self._heed_overload(attempt, reply, moment, now)
        if verdict.action == "refused":
            self._trust.note_refusal(attempt, reply)
            return
        if verdict.is_excused and attempt.requests <= MAX_EXCUSES:
            self._backlog.wait_until(now, attempt)
            return
        self._trust.note_failure(kind, now, is_setup=verdict.is_setup, is_unsent=reply.is_unsent)
        if verdict.action == "failed" or not self._retry(attempt, reply, verdict, now):
            self._ledger.failed(attempt, reply, kind, moment)

    def _retry(self, attempt: Attempt, reply: Reply, verdict: Verdict, now: float) -> bool:
        """Put the number back into the backlog, unless its tries or its time are used up.

        A 429 and what fails while the circuit is open say nothing about the number. Then it serves
        as a probe, whose pace the circuit sets: were it to wait longer each time, a run with few
        numbers left would take half an hour to find a site dead. Nor is there anything to wait
        for where step 1 failed before it sent anything.
        """
        if verdict.is_counted:
            attempt.kind, attempt.status = verdict.kind, reply.status
        if self._trust.is_circuit_open:
            self._backlog.wait_until(now, attempt)
            return True
        due = retry_at(
            attempt,
            self._policy,
            is_counted=verdict.is_counted,
            now=now,
            held_seconds=self.held_seconds,
            uniform=self._uniform,
        )
        if due is None:
            return False
        self._backlog.wait_until(now if reply.is_unsent else due, attempt)
        return True

    def _heed_overload(self, attempt: Attempt, reply: Reply, moment: datetime, now: float) -> None:
        """Pause everybody as the site asks, and go on at half the pace."""
        answered = http_date(reply.header("date"), now=moment) or moment
        seconds = retry_after_seconds(reply.header("retry-after"), now=answered)
        if seconds and self._brakes.hold(seconds, now) and self._on_pause is not None:
            self._on_pause(seconds)
        self._brakes.slow_down(attempt.sent_at, now)
