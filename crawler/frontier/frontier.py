"""The frontier hands out the next attempt that is due; all policy of a crawl is here, once."""

import math
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from crawler.frontier.backlog import Backlog
from crawler.frontier.brakes import Brakes
from crawler.frontier.dispatch import Dispatch
from crawler.frontier.judging import Judging
from crawler.frontier.ledger import Ledger
from crawler.frontier.pacer import Pacer
from crawler.frontier.trust import Trust
from crawler.frontier.turns import Turns
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt, Job, Policy
from crawler.record import Record


class Frontier:
    """Hands out attempts as pace, pauses, retries and budget allow, and judges what comes back.

    Lanes call `take` (or `next_attempt`, which waits) and `hand_back`; any thread may call
    `close`. Nothing sleeps while it holds the lock. Numbers are handed out in order.

    Attributes:
        policy: The limits of the run.
        stopped_by: Why it ended, a word of `crawler.answer.STOPS`; None while it is open.
        stop_detail: The same in words, may be empty.
        tally: Counts so far.
        is_recording: Whether somebody gets a record of each number.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        pacer: Pacer | None = None,
        own_pacer: Pacer | None = None,
        deadline: float | None = None,
        on_record: Callable[[Record], None] | None = None,
        on_pause: Callable[[float], None] | None = None,
        has_room: Callable[[], bool] | None = None,
        last_known: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Prepare a run.

        Args:
            policy: Its limits.
            pacer: Shared by all runs against the host; by default one of its own, 100 a second.
            own_pacer: A lower rate for this run alone.
            deadline: End of the time budget, monotonic seconds; None for no end.
            on_record: Gets each number's record once, under the lock, in the order of arrival.
            on_pause: Told the seconds of each pause the site asked for, under the lock.
            has_room: Asked before more is handed out; false while the store cannot keep up.
            last_known: The last song the store knew before the run, for the watch on missing ones.
            clock: Monotonic seconds.
            wall: The time of day, aware.
            uniform: Randomness of the backoff.
        """
        self.policy = policy or Policy()
        self.stopped_by: str | None = None
        self.stop_detail = ""
        self._clock, self._closed_at = clock, math.inf
        self._deadline = math.inf if deadline is None else deadline
        self._backlog, self._trust = Backlog(), Trust(last_known)
        ledger = Ledger(on_record)
        self.is_recording, self.tally = ledger.is_recording, ledger.tally
        self._brakes = Brakes(pacer or Pacer(100.0), own_pacer)
        parts = (self._backlog, self._trust, self._brakes)
        self._judging = Judging(
            *parts, ledger, self.policy, on_pause=on_pause, clock=clock, wall=wall, uniform=uniform
        )
        self._dispatch = Dispatch(
            *parts, self._judging, self.tally, self.policy, deadline=deadline, has_room=has_room
        )
        self._lock = threading.Lock()
        self._turns = Turns(self._lock)
        self._is_finished = False

    # What a run looks at and calls.

    @property
    def in_flight(self) -> int:
        """Attempts handed out and not yet handed back."""
        return self._dispatch.in_flight

    @property
    def resume_at(self) -> float:
        """When the shared pause ends, monotonic seconds; in the past where there is none."""
        return self._brakes.resume_at

    def add_job(self, job: Job) -> None:
        """Add one function over one list; jobs take turns."""
        with self._lock:
            self._backlog.add_job(job)

    def close(self, stopped_by: str, detail: str = "") -> None:
        """Hand out no more; the first reason given stays."""
        with self._lock:
            self._close(stopped_by, detail)

    def hold(self, seconds: float) -> None:
        """Begin a shared pause that was learnt elsewhere."""
        with self._lock:
            self._brakes.hold(seconds, self._clock())

    def finish(self) -> None:
        """End the run: what a stuck lane still hands back changes nothing any more."""
        with self._lock:
            self._close("done")
            self._is_finished = True

    def grace_left(self) -> float:
        """Seconds for which attempts in flight may still go on; `inf` while the run is open.

        The time budget may run out while all lanes are busy and none asks for more.
        """
        if self.stopped_by is None and self._clock() >= self._deadline:
            self.close("time_budget")
        return self._closed_at + self.policy.grace_seconds - self._clock()

    # What lanes call.

    def take(self, wanted: int) -> tuple[list[Attempt], float | None]:
        """Hand out attempts that are due, without waiting.

        Returns:
            `(attempts, wait)`: at most `wanted` attempts; when there are none, the seconds after
            which to ask again, or None when there will be none ever again.
        """
        with self._lock:
            return self._take(wanted)

    def next_attempt(self) -> Attempt | None:
        """Wait for one attempt; None when there will be none ever again."""
        with self._lock:
            try:
                while True:
                    attempts, wait = self._take(1)
                    if attempts:
                        return attempts[0]
                    if wait is None:
                        return None
                    self._turns.wait(wait)
            finally:
                self._turns.pass_on()

    def rest(self, seconds: float) -> None:
        """Wait until something changes, or so long; for a lane with nothing under way."""
        with self._lock:
            if self.stopped_by is None:
                self._turns.rest(seconds)

    def hand_back(self, replies: list[Reply]) -> None:
        """Judge what came of attempts; each attempt is to be handed back exactly once."""
        with self._lock:
            if not self._is_finished:
                self._dispatch.in_flight -= self._judging.settle(replies)
                self._look_up()

    def put_back(self, attempts: list[Attempt]) -> None:
        """Take back attempts whose request was never sent; they cost nothing and come again."""
        with self._lock:
            self._dispatch.put_back(attempts, self._clock())
            self._turns.note_change()

    def abandon(self, attempt: Attempt) -> None:
        """Fail a number whose lane is stuck in code that cannot be interrupted."""
        with self._lock:
            if attempt.is_out and not self._is_finished:
                self._dispatch.in_flight -= 1
                self._judging.give_up(attempt)
                self._look_up()

    def charge(self, requests: int) -> None:
        """Count requests that a transport repeated on its own, and pay for them."""
        with self._lock:
            self.tally.requests += requests
            self.tally.retries += requests
            self._brakes.charge(requests)

    # Under the lock.

    def _take(self, wanted: int) -> tuple[list[Attempt], float | None]:
        if self.stopped_by is None:
            attempts, wait = self._dispatch.take(wanted, self._clock())
            if attempts:
                return attempts, wait
            self._heed()
            if self.stopped_by is None:
                return attempts, wait
        return [], None

    def _look_up(self) -> None:
        self._heed()
        self._turns.note_change()

    def _heed(self) -> None:
        """Close when what was handed out, or what came back, says so."""
        stop = self._trust.stop or self._dispatch.stop
        if stop is not None:
            self._close(*stop)

    def _close(self, stopped_by: str, detail: str = "") -> None:
        if self.stopped_by is None:
            self.stopped_by, self.stop_detail = stopped_by, detail
            self._closed_at = self._clock()
            if stopped_by == "circuit":
                self._judging.give_up_answered()
            self._turns.wake_all()
