"""The frontier hands out the next attempt that is due; all policy of a crawl is here, once."""

import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from crawler.backlog import Backlog
from crawler.circuit import Circuit, MissingWatch, Refusals
from crawler.ledger import Ledger, Tally
from crawler.pacer import Pacer
from crawler.record import Record
from crawler.retry_after import http_date, retry_after_seconds
from crawler.verdict import Reply, Verdict, judge
from crawler.work import Attempt, Job, Policy

IDLE_SECONDS = 0.5
"""How long a lane with nothing to do sleeps at most before it looks again."""

SUPPLY_SECONDS = 0.02
"""How soon a supply that is still reading ahead, or a store without room, is asked again."""


class Frontier:
    """Hands out attempts as pace, pauses, retries and budget allow, and judges what comes back.

    Lanes call `take` (or `next_attempt`, which waits) and `hand_back`; any thread may call
    `close`. Nothing sleeps while it holds the lock. Numbers are handed out in order.
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
        self._closed_at: float | None = None
        self._pacer = pacer or Pacer(100.0)
        self._own_pacer = own_pacer
        self._deadline = deadline
        self._on_pause = on_pause
        self._has_room = has_room
        self._clock, self._wall, self._uniform = clock, wall, uniform
        self._ledger = Ledger(on_record)
        self._backlog = Backlog()
        self._circuit = Circuit()
        self._refusals = Refusals()
        self._missing_watch = None if last_known is None else MissingWatch(last_known)
        self._in_flight = 0
        self._held_seconds = 0.0
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        self._turn = threading.Condition(self._lock)
        self._is_led = self._is_finished = False

    # What a run looks at and calls.

    @property
    def tally(self) -> Tally:
        """Counts so far."""
        return self._ledger.tally

    @property
    def is_recording(self) -> bool:
        """Whether somebody gets a record of each number."""
        return self._ledger.is_recording

    @property
    def in_flight(self) -> int:
        """Attempts handed out and not yet handed back."""
        return self._in_flight

    @property
    def resume_at(self) -> float:
        """When the shared pause ends, monotonic seconds; in the past where there is none."""
        return self._pacer.resume_at

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
            self._hold(seconds, self._clock())

    def finish(self) -> None:
        """End the run: what a stuck lane still hands back changes nothing any more."""
        with self._lock:
            self._close("done")
            self._is_finished = True

    def grace_left(self) -> float:
        """Seconds for which attempts in flight may still go on; `inf` while the run is open."""
        if self._closed_at is None:
            return float("inf")
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
        """Wait for one attempt; None when there will be none ever again.

        One waiting lane watches the clock and the others wait behind it, so that 64 lanes at 100
        attempts a second wake one thread an attempt, not 64.
        """
        with self._lock:
            while True:
                attempts, wait = self._take(1)
                if attempts:
                    self._turn.notify()
                    return attempts[0]
                if wait is None:
                    self._wake_all()
                    return None
                self._wait(wait)

    def rest(self, seconds: float) -> None:
        """Wait until something changes, or so long; for a lane with nothing under way."""
        with self._lock:
            if self.stopped_by is None:
                self._due.wait(seconds)

    def hand_back(self, replies: list[Reply]) -> None:
        """Judge what came of attempts; each attempt is to be handed back exactly once."""
        with self._lock:
            if self._is_finished:
                return
            moment, now, good = self._wall(), self._clock(), 0
            waited = 0.0
            for reply in replies:
                attempt = reply.attempt
                if attempt.is_abandoned:
                    continue
                self._in_flight -= 1
                attempt.requests += 1
                waited += now - attempt.sent_at
                if reply.found:
                    good += 1
                    self._ledger.found(attempt, reply, moment)
                    if self._missing_watch is not None:
                        self._watch_missing(attempt, False)
                else:
                    good += self._judge(attempt, reply, moment)
            self.tally.latency_seconds += waited
            if good:
                self._note_good(moment)
            self._due.notify()

    def put_back(self, attempts: list[Attempt]) -> None:
        """Take back attempts whose request was never sent; they cost nothing and come again."""
        with self._lock:
            now = self._clock()
            for attempt in attempts:
                self._in_flight -= 1
                self.tally.requests -= 1
                self.tally.retries -= attempt.requests > 0
                self._backlog.wait_until(now, attempt)
            self._due.notify()

    def abandon(self, attempt: Attempt) -> None:
        """Fail a number whose lane is stuck in code that cannot be interrupted."""
        with self._lock:
            if attempt.is_abandoned or self._is_finished:
                return
            attempt.is_abandoned = True
            attempt.requests += 1
            self._in_flight -= 1
            reply = Reply(attempt, error="timeout", detail="stuck; its lane was replaced")
            self._ledger.failed(attempt, reply, "timeout", self._wall())
            self._note_failure("timeout", is_setup=False)
            self._due.notify()

    def charge(self, requests: int) -> None:
        """Count requests that a transport repeated on its own, and pay for them."""
        with self._lock:
            self.tally.requests += requests
            self.tally.retries += requests
        self._pacer.charge(requests)

    # Handing out, under the lock.

    def _take(self, wanted: int) -> tuple[list[Attempt], float | None]:
        now = self._clock()
        if self._deadline is not None and now >= self._deadline:
            self._close("time_budget")
        wanted, wait = self._allowance(wanted, now)
        if wanted == 0:
            return [], (wait if self.stopped_by is None else None)
        ready = self._backlog.prepare(wanted, now)
        if ready == 0:
            return [], self._idle_wait(now)
        granted, wait = self._grant(ready, now)
        if self._circuit.is_open and granted:
            self._circuit.start_probe(now)
        return [self._hand_out(now) for _ in range(granted)], wait

    def _allowance(self, wanted: int, now: float) -> tuple[int, float]:
        """Say how many attempts may start as far as anything but pace is concerned."""
        if self.stopped_by is not None:
            return 0, 0.0
        if self._has_room is not None and not self._has_room():
            return 0, SUPPLY_SECONDS
        if self.policy.max_requests is not None:
            wanted = min(wanted, self.policy.max_requests - self.tally.requests)
            if wanted <= 0:
                self._close("daily_cap")
                return 0, 0.0
        if self._refusals.is_suspicious:
            return (0, IDLE_SECONDS) if self._in_flight else (1, 0.0)
        if self._circuit.is_open:
            return self._probe(now)
        return wanted, 0.0

    def _probe(self, now: float) -> tuple[int, float]:
        if self._circuit.is_spent(self._in_flight):
            self._close("circuit", f"{self._circuit.failures} failures in a row")
            return 0, 0.0
        wait = self._circuit.seconds_to_probe(now)
        return (0, wait) if wait > 0 else (1, 0.0)

    def _grant(self, ready: int, now: float) -> tuple[int, float]:
        if self._own_pacer is None:
            return self._pacer.grant(ready, now)
        own, own_wait = self._own_pacer.grant(ready, now)
        if own == 0:
            return 0, own_wait
        granted, wait = self._pacer.grant(own, now)
        if granted < own:
            self._own_pacer.give_back(own - granted)
        return granted, max(wait, own_wait)

    def _hand_out(self, now: float) -> Attempt:
        attempt = self._backlog.pop()
        if attempt.first_at < 0:
            attempt.first_at = now - self._held_seconds
        self.tally.retries += attempt.requests > 0
        self.tally.requests += 1
        attempt.sent_at = now
        self._in_flight += 1
        return attempt

    def _idle_wait(self, now: float) -> float | None:
        """Say how long there will be nothing to hand out; None: for ever."""
        due = self._backlog.next_due
        if due is not None:
            return min(IDLE_SECONDS, max(0.0, due - now))
        if self._backlog.has_fresh:
            return SUPPLY_SECONDS
        if self._in_flight:
            return IDLE_SECONDS
        self._forgive(self._wall())
        self._close("done")
        return None

    def _wait(self, seconds: float) -> None:
        if self._is_led:
            self._turn.wait()
            return
        self._is_led = True
        try:
            self._due.wait(seconds)
        finally:
            self._is_led = False
            self._turn.notify()

    def _wake_all(self) -> None:
        self._due.notify_all()
        self._turn.notify_all()

    def _close(self, stopped_by: str, detail: str = "") -> None:
        if self.stopped_by is None:
            self.stopped_by, self.stop_detail = stopped_by, detail
            self._closed_at = self._clock()
            self._wake_all()

    # Judging, under the lock.

    def _judge(self, attempt: Attempt, reply: Reply, moment: datetime) -> bool:
        """Act on anything but a found page; say whether the site answered as it should."""
        verdict = judge(reply)
        if verdict.action == "missing":
            if self._watch_missing(attempt, True):
                self._ledger.missing(attempt, reply, moment)
            return True
        kind = verdict.kind or "protocol"
        self.tally.kinds[kind] += 1
        if verdict.is_overload:
            self._heed_overload(attempt, reply, moment)
        if verdict.action == "refused":
            if self._refusals.confirm(attempt, reply):
                self._close("unauthorized", f"the site answered {reply.status}")
            return False
        if verdict.is_excused and attempt.requests == 1:
            self._backlog.wait_until(self._clock(), attempt)
            return False
        self._note_failure(kind, is_setup=verdict.is_setup)
        if verdict.action == "failed" or not self._retry(attempt, verdict):
            self._ledger.failed(attempt, reply, kind, moment)
        return False

    def _retry(self, attempt: Attempt, verdict: Verdict) -> bool:
        """Put the number back into the backlog, unless its tries or its time are used up.

        Exponential backoff with full jitter. A 429 and what fails while the circuit is open say
        nothing about the number, so they do not count.
        """
        policy, now = self.policy, self._clock()
        is_counted = verdict.is_counted and not self._circuit.is_open
        attempt.number += is_counted
        if attempt.number >= policy.max_attempts:
            return False
        ceiling = policy.backoff_seconds * 2.0 ** min(attempt.requests - 1, 16)
        due = now + self._uniform(0.0, min(policy.max_backoff_seconds, ceiling))
        if is_counted and due - self._held_seconds - attempt.first_at > policy.retry_seconds:
            return False
        self._backlog.wait_until(due, attempt)
        return True

    def _heed_overload(self, attempt: Attempt, reply: Reply, moment: datetime) -> None:
        """Pause everybody as the site asks, and go on at half the pace."""
        answered = http_date(reply.date, now=moment) or moment
        seconds = retry_after_seconds(reply.retry_after, now=answered)
        now = self._clock()
        if seconds and self._hold(seconds, now) and self._on_pause is not None:
            self._on_pause(seconds)
        self._pacer.slow_down(attempt.sent_at, now)

    def _hold(self, seconds: float, now: float) -> bool:
        """Begin or lengthen the shared pause; say whether that changed anything."""
        until, before = now + seconds, max(self._pacer.resume_at, now)
        if until <= before:
            return False
        self._pacer.hold(until, now)
        self._held_seconds += until - before
        outlasts = self._deadline is not None and until >= self._deadline
        if outlasts or seconds > self.policy.max_pause_seconds:
            self._close("paused", f"the site asked for a pause of {seconds:.0f} s")
        return True

    def _watch_missing(self, attempt: Attempt, is_missing: bool) -> bool:
        """Count one answer; say whether a missing number can be believed."""
        watch = self._missing_watch
        if watch is None:
            return True
        watch.note(attempt.song_num, is_missing)
        if watch.is_alarmed:
            self._close("circuit", watch.alarm)
        return not watch.is_alarmed

    def _note_failure(self, kind: str, *, is_setup: bool) -> None:
        self._circuit.note_failure(is_setup, self._clock())
        if self._circuit.is_hopeless:
            self._close("circuit", f"{self._circuit.failures} failures in a row: {kind}")

    def _note_good(self, moment: datetime) -> None:
        now = self._clock()
        self._held_seconds += self._circuit.seconds_open(now)
        self._circuit.note_good()
        self._refusals.has_succeeded = True
        self._forgive(moment)
        self._pacer.recover(now)

    def _forgive(self, moment: datetime) -> None:
        """Fail refused numbers that proved to be forbidden by themselves."""
        for attempt, reply in self._refusals.clear():
            self._note_failure(f"http_{reply.status}", is_setup=False)
            self._ledger.failed(attempt, reply, f"http_{reply.status}", moment)
