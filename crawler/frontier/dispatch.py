"""Which attempts may start now, and if none, how soon there may be some."""

import math
from collections.abc import Callable

from crawler.errors import StoreError
from crawler.frontier.backlog import Backlog
from crawler.frontier.brakes import Brakes
from crawler.frontier.judging import Judging
from crawler.frontier.ledger import Tally
from crawler.frontier.trust import Trust
from crawler.frontier.work import Attempt, Policy

IDLE_SECONDS = 0.5
"""How long a lane with nothing to do sleeps at most before it looks again."""

SUPPLY_SECONDS = 0.02
"""How soon a supply that is still reading ahead, or a store without room, is asked again."""


class Dispatch:
    """Hands out what budget, trust, pace and backlog allow. Called under the frontier's lock.

    Attributes:
        in_flight: Attempts handed out and not yet handed back.
        stop: Why the run must end, `(stopped_by, detail)`; None while it may go on.
    """

    def __init__(
        self,
        backlog: Backlog,
        trust: Trust,
        brakes: Brakes,
        judging: Judging,
        tally: Tally,
        policy: Policy,
        *,
        deadline: float | None,
        has_room: Callable[[], bool] | None,
    ) -> None:
        """Work on these parts, until `deadline`, monotonic seconds, while the store has room."""
        self.in_flight = 0
        self.stop: tuple[str, str] | None = None
        self._backlog, self._trust, self._brakes = backlog, trust, brakes
        self._judging, self._tally = judging, tally
        self._deadline = math.inf if deadline is None else deadline
        self._has_room = has_room
        self._max_pause_seconds = policy.max_pause_seconds
        self._max_requests = math.inf if policy.max_requests is None else policy.max_requests

    def take(self, wanted: int, now: float) -> tuple[list[Attempt], float]:
        """Hand out at most so many attempts; say in how many seconds there may be more."""
        wanted, wait = self._allowance(wanted, now)
        if wanted:
            try:
                wanted, wait = self._grant(wanted, now)
            except StoreError as error:  # a supply reads from the store what is settled
                self.stop = ("store", str(error))
                return [], 0.0
        attempts = self._hand_out(wanted, now) if wanted else []
        return attempts, min(wait, IDLE_SECONDS)

    def _allowance(self, wanted: int, now: float) -> tuple[int, float]:
        """Say how many attempts may start as far as anything but pace is concerned."""
        if now >= self._deadline:
            self.stop = ("time_budget", "")
            return 0, 0.0
        if self._brakes.resume_at > now and self._is_endless(self._brakes.resume_at, now):
            return 0, 0.0
        if self._has_room is not None and not self._has_room():
            return 0, SUPPLY_SECONDS
        if self._trust.is_shaken:
            return self._trust.allowance(wanted, self.in_flight, now)
        return wanted, 0.0

    def _is_endless(self, resume_at: float, now: float) -> bool:
        """End the run when a pause cannot be waited for, whichever run of the process learnt it."""
        left = resume_at - now
        if resume_at < self._deadline and left <= self._max_pause_seconds:
            return False
        self.stop = ("paused", f"the site asked for a pause; {left:.0f} s of it are left")
        return True

    def _grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Say how many may start that there are; a supply is asked for one more than is due."""
        backlog = self._backlog
        left = self._max_requests - self._tally.requests
        is_there = backlog.prepare(1, now) > 0
        if left <= 0 and (is_there or backlog.next_due is not None):
            self.stop = ("daily_cap", "")
            return 0, 0.0
        if not is_there:
            return 0, self._idle_wait(now)
        granted, wait = self._brakes.grant(wanted if left > wanted else int(left), now)
        if granted > 1 and (ready := backlog.prepare(granted, now)) < granted:
            self._brakes.give_back(granted - ready)
            granted = ready
        return granted, wait

    def _hand_out(self, count: int, now: float) -> list[Attempt]:
        if self._trust.is_shaken:
            self._trust.note_handed_out(now)
        attempts = self._backlog.pop(count)
        began_at = now - self._judging.held_seconds
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

    def put_back(self, attempts: list[Attempt], now: float) -> None:
        """Take back attempts whose request was never sent."""
        for attempt in attempts:
            if attempt.is_out:
                attempt.is_out = False
                self.in_flight -= 1
                self._tally.requests -= 1
                self._tally.retries -= attempt.requests > 0
                self._backlog.wait_until(now, attempt)

    def _idle_wait(self, now: float) -> float:
        """Say how long there will be nothing to hand out, or end the run."""
        due = self._backlog.next_due
        soon = IDLE_SECONDS if due is None else max(0.0, due - now)
        is_last = due is None and not self.in_flight
        if is_last and self._trust.is_suspicious:
            self._judging.conclude()
            return 0.0
        if self._backlog.has_fresh:
            return min(SUPPLY_SECONDS, soon)
        if is_last:
            self.stop = ("done", "")
        return soon
