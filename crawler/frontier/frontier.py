"""The frontier hands out the next attempt that is due; all policy of a crawl is behind it, once."""

import logging
import math
import random
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any

from crawler.errors import StoreError
from crawler.frontier.canaries import KnownSongs
from crawler.frontier.host import IDLE_SECONDS, SUPPLY_SECONDS, Host
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Job, Ledger, PendingNumber, Policy
from crawler.record import Record

logger = logging.getLogger("crawler")


class Frontier:
    """Hands out attempts as pace, pauses, retries and budget allow, and judges what comes back.

    Lanes call `take` (or `next_attempt`, which waits) and `hand_back`; any thread may call
    `stop`. Nothing sleeps while it holds the lock. Numbers are handed out in order.

    Each host that the jobs of a run ask has a pace, pauses, health and proofs of its own, and takes
    turns with the others. One in trouble ends its own part alone; the run ends with the last part.

    One of the lanes that wait watches the clock, the others wait behind it: so 64 lanes at 100
    attempts a second wake one thread an attempt, not 64.

    Attributes:
        policy: The limits of the run.
        stopped_by: Why it ended, a word of `crawler.answer.STOPS`; None while it is open.
        stop_detail: The same in words, may be empty.
        tally: Counts so far.
        is_recording: Whether somebody gets a record of each number.
        connections: Requests under way at most; several hosts have an equal share each.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        rate_limiter: RateLimiter | None = None,
        deadline: float | None = None,
        known: KnownSongs | None = None,
        on_record: Callable[[Record], None] | None = None,
        on_proof: Callable[[list[int], int, datetime], None] | None = None,
        on_first_found: Callable[[int], None] | None = None,
        on_pause: Callable[[float], None] | None = None,
        on_pace: Callable[[float, str], None] | None = None,
        has_room: Callable[[], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Prepare a run.

        Args:
            policy: Its limits.
            rate_limiter: The pace, shared by all runs against the first host; by default one of its
                own, 100 a second. Each further host gets one of the same rate.
            deadline: End of the time budget, monotonic seconds; None for no end.
            known: Songs of the first host that are known to be there, for the proof of missing ones.
            on_record: Gets each number's record once, under the lock. Without it nothing is stored,
                and what the site says is missing needs no proof.
            on_proof: Called before the records of missing numbers that a canary proved, under the
                lock: the numbers, the canary, and when it was found.
            on_first_found: Called with the first song that each job of the first host finds, under the
                lock.
            on_pause: Told the seconds of each pause the site asked for, under the lock.
            on_pace: Told requests a second and the site's own words when what it announces lowers
                our pace, under the lock.
            has_room: Asked before more is handed out; false while the store cannot keep up.
            clock: Monotonic seconds.
            wall: The time of day, aware.
            uniform: Randomness of the backoff.
        """
        self.policy = policy or Policy()
        self.stopped_by: str | None = None
        self.stop_detail = ""
        self.asked_url: str | None = None  # the first that a step 1 function asked for
        self.connections = sys.maxsize
        ledger = Ledger(on_record)
        self.tally, self.is_recording = ledger.tally, ledger.is_recording
        self._clock, self._closed_at = clock, math.inf
        self._deadline = math.inf if deadline is None else deadline
        self._has_room = has_room
        self._make_host = partial(
            Host,
            policy=self.policy,
            ledger=ledger,
            deadline=self._deadline,
            on_proof=on_proof,
            on_pause=on_pause,
            on_pace=on_pace,
            clock=clock,
            wall=wall,
            uniform=uniform,
        )
        self._hosts, self._host_of = list[Host](), dict[Job, Host]()
        self._named = dict[str, Host]()
        self._working, self._ended = list[Host](), list[tuple[str, str]]()
        self._limiter = rate_limiter or RateLimiter(100.0)
        self._add_host(self._limiter, known=known, on_first_found=on_first_found)
        self._lock = threading.Lock()
        self._due, self._turn = threading.Condition(self._lock), threading.Condition(self._lock)
        self._is_led = self._is_finished = False

    # What a run looks at and calls.

    @property
    def in_flight(self) -> int:
        """Attempts handed out and not yet handed back."""
        return sum(host.in_flight for host in self._hosts)

    @property
    def is_one_host(self) -> bool:
        """Whether all jobs ask one host, as far as is known."""
        return len(self._hosts) == 1

    @property
    def resume_at(self) -> float:
        """When the longest pause of a host ends, monotonic seconds; in the past where there is none."""
        return max(host.limiter.resume_at for host in self._working or self._hosts)

    @property
    def announced_rate(self) -> float:
        """Attempts per second that a host's quota leaves us, 0 where that is not below our rate.

        The lowest one, where there are several.
        """
        return self._slowest.limiter.announced

    @property
    def announcement(self) -> str:
        """What that host announced last, such as "60 a minute"; empty where it announced nothing."""
        return self._slowest.health.announcement

    @property
    def _slowest(self) -> Host:
        return min(self._hosts, key=lambda host: host.limiter.announced or math.inf)

    def add_job(self, job: Job) -> None:
        """Add one function over one list; jobs take turns.

        One whose host nobody knows goes to the first one: it may well be the same.
        """
        with self._lock:
            host = self._host_of[job] = self._host_for(job)
            host.add_job(job)

    def stop(self, reason: str, detail: str = "") -> None:
        """End the run: hand out no more, and judge what is still under way; the first reason stays.

        Args:
            reason: A word of `crawler.answer.STOPS`.
            detail: The same in words.
        """
        with self._lock:
            self._stop(reason, detail)

    def hold(self, seconds: float) -> None:
        """Begin a pause of the first host that was learnt elsewhere."""
        with self._lock:
            now = self._clock()
            self._limiter.hold(now + seconds, now)

    def finish(self) -> None:
        """End the run: what a stuck lane still hands back changes nothing any more."""
        with self._lock:
            self._stop("done", "")
            self._is_finished = True

    def grace_left(self) -> float:
        """Seconds for which attempts in flight may still go on; `inf` while the run is open.

        The time budget may run out while all lanes are busy and none asks for more.
        """
        if self.stopped_by is None and self._clock() >= self._deadline:
            self.stop("time_budget")
        return self._closed_at + self.policy.grace_seconds - self._clock()

    # What lanes call.

    def take(self, wanted: int) -> tuple[list[PendingNumber], float | None]:
        """Hand out attempts that are due, without waiting.

        Returns:
            `(attempts, wait)`: at most `wanted` attempts; when there are none, the seconds after
            which to ask again, or None when there will be none ever again.
        """
        with self._lock:
            return self._take(wanted)

    def next_attempt(self) -> PendingNumber | None:
        """Wait for one attempt; None when there will be none ever again."""
        with self._lock:
            try:
                while True:
                    attempts, wait = self._take(1)
                    if attempts:
                        return attempts[0]
                    if wait is None:
                        return None
                    self._wait(wait)
            finally:
                if not self._is_led:
                    self._turn.notify()  # on leaving: one lane that follows is to lead

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
            if len(self._hosts) == 1:
                self._hosts[0].settle(replies)
            else:  # in the order of arrival
                for host, own in groupby(replies, lambda reply: self._host_of[reply.attempt.job]):
                    host.settle(list(own))
            self._due.notify()

    def put_back(self, attempts: list[PendingNumber]) -> None:
        """Take back attempts whose request was never sent; they cost nothing and come again."""
        with self._lock:
            for attempt in reversed(attempts):  # each comes before all others
                self._host_of[attempt.job].put_back([attempt])
            self._due.notify()

    def abandon(self, attempt: PendingNumber) -> None:
        """Fail a number whose lane is stuck in code that cannot be interrupted."""
        with self._lock:
            if attempt.is_out and not self._is_finished:
                self._host_of[attempt.job].give_up(attempt)
                self._due.notify()

    def charge(self, attempt: PendingNumber, requests: int, *, repeated: bool = True) -> None:
        """Count requests beyond one for an attempt, and pay for them.

        Args:
            attempt: What they were sent for.
            requests: How many.
            repeated: Whether a transport sent the same ones again on its own; redirects and further
                pages of a step 1 function are no retries.
        """
        with self._lock:
            self.tally.requests += requests
            if repeated:
                self.tally.retries += requests
            self._host_of[attempt.job].limiter.charge(requests)

    # Under the lock.

    def _take(self, wanted: int) -> tuple[list[PendingNumber], float | None]:
        if self.stopped_by is not None:
            return [], None
        now = self._clock()
        if now >= self._deadline:
            self._stop("time_budget", "")
            return [], None
        if self._has_room is not None and not self._has_room():
            return [], SUPPLY_SECONDS
        attempts, wait = list[PendingNumber](), 0.0
        try:
            if len(self._working) == 1:
                attempts, wait = self._working[0].take(wanted, now)
            else:
                wait = self._take_in_turn(attempts, wanted, now)
        except StoreError as error:  # a supply reads from the store what is settled
            self._stop("store", str(error))
        return attempts, wait if attempts or self._closed_at == math.inf else None

    def _take_in_turn(self, attempts: list[PendingNumber], wanted: int, now: float) -> float:
        """Take from all hosts, another one first each time; return when there may be more.

        What one does not want is left to those after it. None has more than its share of the
        connections under way: else one that answers late, or never, would come to have them all.
        """
        turn, wait = self._working, IDLE_SECONDS
        self._working = [*turn[1:], turn[0]]
        most = max(1, self.connections // len(turn))
        for place, host in enumerate(turn):
            share = -(-(wanted - len(attempts)) // (len(turn) - place))
            free = min(share, most - host.in_flight)
            if free > 0:
                own, own_wait = host.take(free, now)
                attempts += own
                wait = min(wait, own_wait)
        return wait

    def _wait(self, seconds: float) -> None:
        """Lead for so long, or follow until it is this lane's turn; then look again.

        As long as anybody follows, somebody leads or has been told to.
        """
        if self._is_led:
            self._turn.wait()
            return
        self._is_led = True
        try:
            self._due.wait(seconds)
        finally:
            self._is_led = False

    def _stop(self, reason: str, detail: str) -> None:
        if self.stopped_by is None:
            self.stopped_by, self.stop_detail = reason, detail
            self._closed_at = self._clock()
            self._due.notify_all()
            self._turn.notify_all()

    # Hosts.

    def _host_for(self, job: Job) -> Host:
        """Return the host that a job asks; the first job that names one names the first host."""
        named, name = self._named, job.host
        if not named and name:
            named[name] = self._hosts[0]
        elif name not in named and name:
            named[name] = self._add_host(self._limiter.for_another_host(job.most_rate))
        return named.get(name, self._hosts[0])

    def _add_host(self, limiter: RateLimiter, **options: Any) -> Host:
        def stop(reason: str, detail: str) -> None:
            self._end_part(host, reason, detail)

        host = self._make_host(limiter, stop=stop, **options)
        self._hosts.append(host)
        self._working.append(host)
        return host

    def _end_part(self, host: Host, reason: str, detail: str) -> None:
        """Ask one host no more. The run ends with the last one, for the first reason but `done`."""
        if host not in self._working:
            return
        if reason == "daily_cap":  # of all together
            self._stop(reason, detail)
            return
        self._working = [each for each in self._working if each is not host]
        if reason != "done":
            if len(self._hosts) > 1:
                name = next(name for name, named in self._named.items() if named is host)
                detail = f"{name}: {detail}" if detail else name
            self._ended.append((reason, detail))
        if not self._working:
            self._stop(*(self._ended or [(reason, detail)])[0])
        elif reason != "done":
            logger.warning(
                "nothing more is asked of %s",
                detail,
                extra={"event": "host_ended", "fields": {"stopped_by": reason}},
            )
