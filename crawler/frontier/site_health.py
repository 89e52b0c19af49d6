"""How well the site is: what its failures, refusals and missing pages add up to."""

from collections import deque
from collections.abc import Callable

from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt

FAILURES_TO_OPEN = 100
PROBES = 60
"""Once open, one probe a second, and this many until the run ends."""

SETUP_FAILURES = 10
"""A name or certificate that is wrong from the start is wrong for every number."""

UNSENT_FAILURES = 100
"""So many calls of step 1 that failed before they sent anything need no probe of the site."""

MISSING_WINDOW = 1000
MOST_MISSING = 600
"""More missing ones than this among the last answers are beyond belief."""


class SiteHealth:
    """Puts the three watches of a run together. Called under the frontier's lock.

    Attributes:
        is_in_doubt: Whether `allowance` has to be asked before anything is handed out.
        held_seconds: For how long the circuit was open so far, the present time excluded.
    """

    def __init__(self, stop: Callable[[str, str], None], last_known: int | None) -> None:
        """Begin well.

        Args:
            stop: Called with reason and detail when the run must end.
            last_known: The last song known before the run; None to believe any 404.
        """
        self.is_in_doubt = False
        self.held_seconds = 0.0
        self._stop = stop
        self._breaker, self._refusals = CircuitBreaker(), Refusals()
        self._last_kind = ""
        self._watch = None if last_known is None else MissingWatch(last_known)

    @property
    def is_suspicious(self) -> bool:
        """Whether a refusal waits to be confirmed."""
        return self._refusals.is_suspicious

    @property
    def is_circuit_open(self) -> bool:
        """Whether so much failed that failures say nothing about their number."""
        return self._breaker.is_open

    def allowance(self, wanted: int, in_flight: int, now: float) -> tuple[int, float]:
        """Return how many attempts may start, and if none, in how many seconds to ask again."""
        breaker = self._breaker
        if breaker.is_open:
            if breaker.is_spent(in_flight):
                last = f"{breaker.failures} failures in a row, the last: {self._last_kind}"
                self._stop("circuit", last)
                return 0, 0.0
            wait = breaker.seconds_to_probe(now)
            if wait > 0:
                return 0, wait
            wanted = 1
        if self._refusals.is_suspicious:
            return (0, 0.5) if in_flight else (1, 0.0)
        return wanted, 0.0

    def note_handed_out(self, now: float) -> None:
        """Count what was handed out of an allowance."""
        if self._breaker.is_open:
            self._breaker.start_probe(now)

    def note_good(self, now: float) -> list[tuple[Attempt, Reply]]:
        """Be well again; return the refused `(attempt, reply)` that were about their page alone."""
        self.held_seconds += self._breaker.seconds_open(now)
        self._breaker.note_good()
        self._refusals.has_succeeded = True
        self.is_in_doubt = False
        return self._refusals.clear()

    def note_failure(
        self, kind: str, now: float, *, is_setup: bool = False, is_unsent: bool = False
    ) -> None:
        """Count one failure."""
        breaker, self._last_kind = self._breaker, kind
        breaker.note_failure(now, is_setup=is_setup, is_unsent=is_unsent)
        self.is_in_doubt = self.is_in_doubt or breaker.is_open
        if breaker.is_hopeless:
            self._stop("circuit", f"{breaker.failures} failures in a row: {kind}")

    def note_refusal(self, attempt: Attempt, reply: Reply) -> None:
        """Count one 401 or 403."""
        self.is_in_doubt = True
        if self._refusals.note(attempt, reply):
            self._stop("unauthorized", f"the site answered {reply.status}")

    def conclude(self) -> list[tuple[Attempt, Reply]]:
        """When nothing is left to ask: return the refused attempts that were about their page."""
        if self._refusals.conclude():
            self._stop("unauthorized", "the site answered 401")
        return self._refusals.clear()

    def note_found(self, song_num: int) -> None:
        """Count a number that is found."""
        if self._watch is not None:
            self._watch.note(song_num, False)

    def believes_missing(self, song_num: int) -> bool:
        """Count a number that the site says is missing; return whether that can be believed."""
        watch = self._watch
        if watch is None:
            return True
        watch.note(song_num, True)
        if watch.is_alarmed:
            self._stop("circuit", watch.alarm)
        return not watch.is_alarmed


class CircuitBreaker:
    """Counts failures in a row, and lets one probe a second through when there are too many."""

    def __init__(self) -> None:
        self.failures = 0
        self.is_open = False
        self.has_succeeded = False
        self._setup_failures = self._unsent_failures = 0
        self._opened_at = self._next_probe_at = 0.0
        self._probes = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing but faults of name, certificate or step 1 itself was ever seen."""
        if self.has_succeeded:
            return False
        if self.failures == self._unsent_failures:
            return self.failures >= UNSENT_FAILURES
        return self.failures == self._setup_failures and self.failures >= SETUP_FAILURES

    def note_failure(self, now: float, *, is_setup: bool = False, is_unsent: bool = False) -> None:
        """Count one failure."""
        self.failures += 1
        self._setup_failures += is_setup
        self._unsent_failures += is_unsent
        if self.failures >= FAILURES_TO_OPEN and not self.is_open:
            self.is_open, self._opened_at = True, now
            self._next_probe_at, self._probes = now + 1.0, 0

    def note_good(self) -> None:
        """Begin to count anew."""
        self.failures = self._setup_failures = self._unsent_failures = 0
        self.is_open, self.has_succeeded = False, True

    def seconds_open(self, now: float) -> float:
        """How long the circuit has been open; 0 while it is closed."""
        return max(0.0, now - self._opened_at) if self.is_open else 0.0

    def seconds_to_probe(self, now: float) -> float:
        """Return the seconds to wait before the next probe; 0: it may start."""
        if self._probes >= PROBES:
            return 0.5  # the last ones are still under way
        return max(0.0, self._next_probe_at - now)

    def start_probe(self, now: float) -> None:
        """Count a probe that was handed out."""
        self._probes += 1
        self._next_probe_at = now + 1.0

    def is_spent(self, in_flight: int) -> bool:
        """Whether every probe was made, none is under way, and none succeeded."""
        return self._probes >= PROBES and in_flight == 0


class Refusals:
    """Tells one forbidden page from a token that is refused altogether.

    The first 401 or 403 is only suspicious: nothing more is asked until what is in flight has
    come back, and then one at a time. A second one before any good answer is proof. So a run ends
    within the requests in flight and one more, and one forbidden page costs that page alone.
    """

    def __init__(self) -> None:
        self.has_succeeded = self.is_proven = False
        self._waiting: list[tuple[Attempt, Reply]] = []

    @property
    def is_suspicious(self) -> bool:
        """Whether a refusal waits to be confirmed."""
        return bool(self._waiting)

    def note(self, attempt: Attempt, reply: Reply) -> bool:
        """Take one refusal; return whether it proves that we are not wanted."""
        self.is_proven = self.is_proven or bool(self._waiting)
        self._waiting.append((attempt, reply))
        return self.is_proven

    def conclude(self) -> bool:
        """Return, when nothing is left to ask, whether a lone refusal was about the token.

        401 is, where nothing else was ever answered; 403 may well be about the page.
        """
        if not self.has_succeeded and any(reply.status == 401 for _, reply in self._waiting):
            self.is_proven = True
        return self.is_proven

    def clear(self) -> list[tuple[Attempt, Reply]]:
        """Return the refused attempts that were about their page alone; none once it is proven."""
        if self.is_proven or not self._waiting:
            return []
        cleared, self._waiting = self._waiting, []
        return cleared


class MissingWatch:
    """Watches the share of missing numbers below the last song that was known before the run.

    A site in trouble, or a wrong address, answers 404 for everything; believing it would empty
    the catalogue. The alarm, once given, stays.
    """

    def __init__(self, last_known: int) -> None:
        self.is_alarmed = False
        self._last_known = last_known
        self._answers: deque[bool] = deque([False] * MISSING_WINDOW, MISSING_WINDOW)
        self._missing = 0

    def note(self, song_num: int, is_missing: bool) -> None:
        """Count one answer; numbers beyond the last known song may be missing."""
        if song_num > self._last_known:
            return
        answers = self._answers
        self._missing += is_missing - answers[0]
        answers.append(is_missing)
        if is_missing and self._missing > MOST_MISSING:
            self.is_alarmed = True

    @property
    def alarm(self) -> str:
        """The alarm in words."""
        return f"{self._missing} of the last {MISSING_WINDOW} known numbers answered as missing"
