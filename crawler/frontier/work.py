"""The work of a run: its limits, jobs and numbers, what is still to be done, and what has come of it."""

import heapq
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import count, islice
from typing import Any, Protocol

import msgspec

from crawler.frontier.rate_limiter import Pause
from crawler.frontier.verdict import Reply
from crawler.record import Record
from crawler.source.source import Traits, traits_of

logger = logging.getLogger("crawler")

MAX_TOLD = 5
"""Different things that step 1 does wrong, told in one run; the records have them all."""

MAX_WAITING = 10_000
"""With so many numbers waiting for a retry no fresh one is begun, so that memory stays bounded."""

_LONGEST_DOUBLING = 16


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one run.

    Attributes:
        max_attempts: Requests for one number, the first included.
        retry_seconds: No number is tried again when this long has passed since its first attempt.
        backoff_seconds: Mean wait before the second attempt is half of this; it doubles each time.
            The last attempt comes no sooner after the first than the mean waits together.
        max_backoff_seconds: The wait never grows beyond this.
        attempt_seconds: Deadline of one attempt: connect, headers, body and decoding.
        grace_seconds: How long attempts in flight may go on after the run was told to end.
        probe_seconds: While the site is in trouble, one probe in so many seconds; sixty at most.
        max_pause_seconds: A longer pause than this ends the run even without a time budget.
        max_requests: Attempts this run may make at most, None for no limit.
    """

    max_attempts: int = 5
    retry_seconds: float = 120.0
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 30.0
    attempt_seconds: float = 15.0
    grace_seconds: float = 5.0
    probe_seconds: float = 1.0
    max_pause_seconds: float = 3600.0
    max_requests: int | None = None


class Tally(msgspec.Struct):
    """Counts of one run: numbers by outcome, requests, repeats, failed attempts by kind.

    `latency_seconds` is the time from handing out to handing back, summed over all attempts;
    `outside_session` counts calls of a step 1 function that asked around its session.
    """

    found: int = 0
    missing: int = 0
    failed: int = 0
    requests: int = 0
    retries: int = 0
    latency_seconds: float = 0.0
    outside_session: int = 0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)


class Supply(Protocol):
    """Where fresh numbers come from; called under the frontier's lock, so it must not wait.

    Attributes:
        exhausted: Whether no number will ever come again.
        read_ahead: Numbers to take at once, though fewer are due; 1 where taking one has effects.
    """

    exhausted: bool
    read_ahead: int

    def take(self, wanted: int) -> list[Any]:
        """Return at most so many numbers; fewer, or none, when they are not at hand yet."""


class IterableSupply:
    """A supply over any iterable; a generator is asked only for what is due.

    Attributes:
        is_plain: Whether to take an item runs nobody's code.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.is_plain = type(items) in (range, list, tuple, set, frozenset, dict)
        self._items = iter(items)
        self.exhausted, self.read_ahead = False, 1

    def take(self, wanted: int) -> list[Any]:
        """Return the next items, in order."""
        chunk = list(islice(self._items, wanted))
        self.exhausted = len(chunk) < wanted
        return chunk


class Results(Protocol):
    """Anything tuples can be appended to."""

    def append(self, item: Any, /) -> None:
        """Take one `(song_num, info)`."""


class Job(msgspec.Struct, eq=False):
    """One function over one list: what to call for each item, and where its tuples go.

    Attributes:
        function: Step 1: `function(session, item, results)`.
        supply: The items.
        results: Gets what each call appended, once, when the item is found.
        source: The source behind a built-in step 1; None for a function of the user's own.
        is_recorded: Whether info will be stored, so that it must be something JSON can hold.
        at_hand: Items that were taken from the supply and are not due yet.
        host: Where its pages lie; empty where nobody knows before it asks.
        most_rate: Requests a second that the sources of its host allow, None where none says.
        pause: That of its host: none of its requests is sent meanwhile.
        traits: What the source says of itself.
    """

    function: Callable[..., Any]
    supply: Supply
    results: Results
    source: Any = None
    is_recorded: bool = False
    at_hand: list[Any] = []
    host: str = ""
    most_rate: float | None = None
    pause: Pause = msgspec.field(default_factory=Pause)
    traits: Traits = Traits()

    def __post_init__(self) -> None:
        """Read what the source says of itself, once."""
        self.traits = traits_of(self.source)

    def take(self, wanted: int) -> list[Any]:
        """Return at most so many items; fewer, or none, when they are not at hand yet."""
        if not self.at_hand and not self.supply.exhausted:
            self.at_hand = self.supply.take(max(wanted, self.supply.read_ahead))
        items, self.at_hand = self.at_hand[:wanted], self.at_hand[wanted:]
        return items


class PendingNumber(msgspec.Struct, eq=False, gc=False):
    """One number that is to be settled, over all its attempts.

    Attributes:
        song_num: The number, or whatever item the user's function takes.
        job: The job it belongs to.
        counted_attempts: Requests made for it before this one that count towards the limit.
        requests: All requests made for it before this one.
        first_at: When its first request was handed out, monotonic seconds less all time held back.
        sent_at: When it was handed out this time, monotonic seconds.
        is_out: Whether it is handed out and not yet handed back.
        is_abandoned: Whether it was given up while its lane still worked on it.
        is_canary: Whether only the site is to be known by it: no cache may answer, and what it
            finds is thrown away.
        is_last_try: Whether it fails for good when it fails once more.
        lone_429s: Answers of 429 to it while other numbers were answered well.
        put_off: Answers of 429 to it since any other was answered well.
        good_before: Good answers of the run when it last got a 429.
    """

    song_num: Any
    job: Job
    counted_attempts: int = 0
    requests: int = 0
    first_at: float = 0.0
    sent_at: float = 0.0
    is_out: bool = False
    is_abandoned: bool = False
    is_canary: bool = False
    is_last_try: bool = False
    lone_429s: int = 0
    put_off: int = 0
    good_before: int = -1


class Backlog:
    """Fresh numbers of all jobs, which take turns, and a heap of retries by due time.

    Not safe in threads: the frontier holds its lock.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Begin empty; `uniform` is the randomness of the backoff."""
        self._policy, self._uniform = policy or Policy(), uniform
        self._jobs: deque[Job] = deque()
        self._ready: deque[PendingNumber] = deque()
        self._waiting: list[tuple[float, int, PendingNumber]] = []
        self._order = count()

    def add_job(self, job: Job) -> None:
        """Add one function over one list."""
        self._jobs.append(job)

    def wait_until(self, due: float, attempt: PendingNumber) -> None:
        """Put an attempt back, to be handed out at `due` or later."""
        heapq.heappush(self._waiting, (due, next(self._order), attempt))

    def retry(
        self,
        attempt: PendingNumber,
        *,
        is_counted: bool,
        is_unsent: bool,
        now: float,
        held_seconds: float,
        asked_seconds: float = 0.0,
    ) -> bool:
        """Put a number back after its failure, unless its attempts or its time are used up.

        Exponential backoff with full jitter. The last attempt is made no sooner than half of all
        the longest waits after the first one: by chance all waits may be short, and then a site
        that was down for 5 s would have failed the number.

        Args:
            attempt: What just failed; its request is counted in `requests`, and here in
                `counted_attempts`.
            is_counted: Whether the failure says anything about the number.
            is_unsent: Whether step 1 sent nothing, so that there is nothing to wait for.
            now: Monotonic seconds.
            held_seconds: All time held back so far, by pauses or the circuit.
            asked_seconds: For how long the answer asked this number alone to wait.

        Source: aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter.
        """
        policy = self._policy
        attempt.counted_attempts += is_counted
        left = policy.max_attempts - attempt.counted_attempts
        if left <= 0:
            return False
        due = now + max(asked_seconds, self._uniform(0.0, _ceiling(policy, attempt.requests)))
        began = attempt.first_at + held_seconds
        if left == 1:
            waits = sum(_ceiling(policy, count) for count in range(1, policy.max_attempts))
            due = max(due, began + waits / 2)
        if is_counted and due - began > policy.retry_seconds:
            return False
        self.wait_until(now if is_unsent else due, attempt)
        return True

    def put_first(self, attempts: list[PendingNumber]) -> None:
        """Put attempts back that were never sent: they come before all others."""
        self._ready.extendleft(reversed(attempts))

    def prepare(self, wanted: int, now: float, *, is_failing: bool = False) -> int:
        """Count the attempts that could start now, up to `wanted`.

        Due retries and fresh numbers share what is wanted, so that a stretch of bad pages, tried
        again and again, never keeps fresh numbers from being asked.

        Args:
            wanted: Attempts, > 0.
            now: Monotonic seconds.
            is_failing: Whether the last answer was a failure: a single one wanted is then fresh.
        """
        ready = self._ready
        short = wanted - len(ready)
        if short > 0:
            waiting = self._waiting
            if waiting and waiting[0][0] <= now:
                self._fetch_due(len(ready) + (short + (not is_failing)) // 2, now)
            if len(waiting) < MAX_WAITING:
                self._fetch(wanted)
            self._fetch_due(wanted, now)
        return min(wanted, len(ready))

    def pop(self, count: int) -> list[PendingNumber]:
        """Return the next attempts, no more than `prepare` counted."""
        popleft = self._ready.popleft
        return [popleft() for _ in range(count)]

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def has_fresh(self) -> bool:
        """Whether a number that was never asked may still come."""
        return bool(self._jobs or self._ready)

    def _fetch_due(self, wanted: int, now: float) -> None:
        ready, waiting = self._ready, self._waiting
        while len(ready) < wanted and waiting and waiting[0][0] <= now:
            ready.append(heapq.heappop(waiting)[2])

    def _fetch(self, wanted: int) -> None:
        """Fill up with fresh numbers, each job in its turn, until none has any at hand."""
        barren = 0
        while len(self._ready) < wanted and barren < len(self._jobs):
            job = self._jobs[0]
            share = -(-(wanted - len(self._ready)) // len(self._jobs))
            items = job.take(share)
            self._ready.extend([PendingNumber(item, job) for item in items])
            if job.supply.exhausted and not job.at_hand:
                self._jobs.popleft()
            else:
                self._jobs.rotate(-1)
                barren = 0 if items else barren + 1


def _ceiling(policy: Policy, requests: int) -> float:
    """Return how long the wait after so many requests may be."""
    doublings = min(requests - 1, _LONGEST_DOUBLING)
    return min(policy.max_backoff_seconds, policy.backoff_seconds * 2.0**doublings)


class Ledger:
    """Books what is known of each number. Called under the frontier's lock."""

    def __init__(self, on_record: Callable[[Record], None] | None) -> None:
        """Start empty; `on_record` gets each number's record once."""
        self.tally = Tally()
        self.is_recording = on_record is not None
        self._on_record = on_record
        self._told: set[str] = set()

    def found(self, attempt: PendingNumber, reply: Reply, moment: datetime) -> None:
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

    def missing(self, attempt: PendingNumber, reply: Reply, moment: datetime) -> None:
        """Record that the site has no such page."""
        self.tally.missing += 1
        num = attempt.song_num
        if self._on_record is not None:
            requests, detail = attempt.requests, reply.detail[:200]
            self._on_record(
                Record(num, "missing", reply.status, None, None, requests, moment, detail=detail)
            )

    def failed(self, attempt: PendingNumber, reply: Reply, kind: str, moment: datetime) -> None:
        """Record that we do not know, and why."""
        self.tally.failed += 1
        num, detail = attempt.song_num, reply.detail[:200]
        logger.debug("number %s failed: %s %s", num, kind, detail)
        if self._on_record is not None:
            requests = attempt.requests
            self._on_record(
                Record(num, "failed", reply.status, None, kind, requests, moment, detail=detail)
            )

    def failed_attempt(self, attempt: PendingNumber, reply: Reply, kind: str) -> None:
        """Count why an attempt failed; tell what step 1 does wrong, whose author may mend it.

        At the first attempt: where it is wrong for every song, no number may come to its last.
        """
        self.tally.kinds[kind] += 1
        if kind == "function":
            where = f" ({reply.fault[0]}, line {reply.fault[1]})" if reply.fault else ""
            detail = reply.detail + where
            self._tell("step 1 failed on number %s: %s", attempt, detail, "step_1_failed")

    def unsent(self, attempt: PendingNumber, reply: Reply) -> None:
        """Take back the request counted for an attempt that sent none; tell what is wrong with it."""
        self.tally.requests -= 1
        self.tally.retries -= attempt.requests > 1
        if reply.found and reply.detail:
            self.tally.outside_session += 1
            self._tell("step 1 and number %s: %s", attempt, reply.detail, "step_1_unpaced")

    def _tell(self, message: str, attempt: PendingNumber, detail: str, event: str) -> None:
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
