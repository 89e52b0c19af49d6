"""What the frontier deals in: the limits of a run, its counts, jobs, and attempts."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol

import msgspec


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

    `latency_seconds` is the time from handing out to handing back, summed over all attempts.
    """

    found: int = 0
    missing: int = 0
    failed: int = 0
    requests: int = 0
    retries: int = 0
    latency_seconds: float = 0.0
    kinds: Counter[str] = msgspec.field(default_factory=Counter)


class Supply(Protocol):
    """Where fresh numbers come from; called under the frontier's lock, so it must not wait.

    Attributes:
        exhausted: Whether no number will ever come again.
    """

    exhausted: bool

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
        self.exhausted = False

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
    """

    function: Callable[..., Any]
    supply: Supply
    results: Results
    source: Any = None
    is_recorded: bool = False


class Attempt(msgspec.Struct, eq=False, gc=False):
    """One HTTP request for one number.

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
