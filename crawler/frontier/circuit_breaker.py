"""Failures in a row, overload and refusals: what tells a site in trouble from bad pages."""

from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber

FAILURES_TO_ASK = 100
"""After so many failures in a row a canary tells a site in trouble from a stretch of bad pages."""

MOST_BAD_PAGES = 1000
"""So many different numbers that fail in a row are beyond belief, whatever the canary says."""

PROBES = 60
"""Once open, one probe a second, and this many until the run ends."""

FEWEST_PROBES, LONGEST_OPEN_SECONDS = 10, 600.0
"""Where the site's pauses keep probes apart, fewer of them end the run after so long."""

SETUP_FAILURES = 10
"""A name or certificate that is wrong from the start is wrong for every number."""

UNSENT_FAILURES = 100
"""So many calls of step 1 that failed before they sent anything need no probe of the site."""

FEWEST_OF_A_QUOTA = 10
"""Good answers between refusals; with fewer they are some numbers' own, and not a quota's."""

WAIT_SECONDS = 0.5
"""So long a lane waits while everything depends on an answer that is under way."""


class CircuitBreaker:
    """Counts failures in a row. Called under the frontier's lock.

    A number counts once, however often it was retried; 429s count each time. At a hundred a canary
    is asked. If it is there, the pages are bad and not the site: each of them has one further
    attempt. If not, the circuit is open, and one probe a second goes out.

    Attributes:
        failures: Failures in a row, as they count.
        is_asking: Whether a canary is under way that decides.
        is_open: Whether only probes go out.
        has_succeeded: Whether there ever was a good answer.
        probes: Since it opened.
    """

    def __init__(self, probe_seconds: float) -> None:
        """Begin closed; while it is open, one probe goes out in `probe_seconds`."""
        self._probe_seconds = probe_seconds
        self.failures = 0
        self.is_asking = self.is_open = self.has_succeeded = False
        self.probes = 0
        self._row: dict[int, PendingNumber] = {}
        self._is_stretch = False
        self._requests = self._asked_at = 0
        self._setup_failures = self._unsent_failures = 0
        self._opened_at = self._next_probe_at = 0.0

    @property
    def is_hopeless(self) -> bool:
        """Whether nothing but faults of name, certificate or step 1 itself was ever seen."""
        if self.has_succeeded:
            return False
        if self._requests == self._unsent_failures:
            return self._requests >= UNSENT_FAILURES
        return self._requests == self._setup_failures and self._requests >= SETUP_FAILURES

    @property
    def is_beyond_belief(self) -> bool:
        """Whether so many different numbers failed that no canary matters."""
        return len(self._row) >= MOST_BAD_PAGES

    @property
    def needs_canary(self) -> bool:
        """Whether so much failed since the last one that a canary has to decide.

        Requests count here: with few numbers left none of them would ever be the hundredth.
        """
        is_closed = not (self.is_open or self.is_asking)
        return is_closed and self._requests - self._asked_at >= FAILURES_TO_ASK

    @property
    def is_trouble(self) -> bool:
        """Whether the site is in trouble as far as can be told without a canary."""
        return self.failures >= FAILURES_TO_ASK or not self.has_succeeded

    def note_failure(
        self, attempt: PendingNumber, *, is_setup: bool, is_unsent: bool, is_overload: bool
    ) -> None:
        """Count one failure."""
        self.failures += is_overload or id(attempt) not in self._row
        self._requests += 1
        if not is_overload:
            self._row[id(attempt)] = attempt
        self._setup_failures += is_setup
        self._unsent_failures += is_unsent

    def note_good(self) -> None:
        """Begin to count anew."""
        if self._requests:
            self._row.clear()
            self.failures = self._requests = self._asked_at = 0
        self.is_open = self.is_asking = self._is_stretch = False
        self.has_succeeded = True

    def begin_asking(self) -> None:
        """A canary is under way; nothing else goes out until it is answered."""
        self.is_asking = True
        self._asked_at = self._requests

    def note_bad_pages(self) -> None:
        """The site is well: what failed in this row has one further attempt each."""
        self.is_asking, self._is_stretch = False, True
        for attempt in self._row.values():
            attempt.is_last_try = True

    def note_canary_failed(self, now: float) -> None:
        """The site is in trouble."""
        if self.is_asking:
            self.is_asking = False
            self.open(now, probes=1)

    def is_spent_page(self, attempt: PendingNumber) -> bool:
        """Whether a number that just failed in a stretch of bad pages had its further attempt."""
        if attempt.is_last_try:
            return True
        attempt.is_last_try = self._is_stretch
        return False

    def open(self, now: float, probes: int = 0) -> None:
        """Let nothing but probes through; the canary that decided was the first."""
        self.is_open, self._opened_at = True, now
        self._next_probe_at, self.probes = now + self._probe_seconds, probes

    def seconds_open(self, now: float) -> float:
        """How long the circuit has been open; 0 while it is closed."""
        return max(0.0, now - self._opened_at) if self.is_open else 0.0

    def seconds_to_probe(self, now: float) -> float:
        """Return the seconds to wait before the next probe; 0: it may start."""
        if self.probes >= PROBES:
            return WAIT_SECONDS  # the last ones are still under way
        return max(0.0, self._next_probe_at - now)

    def start_probe(self, now: float) -> None:
        """Count a probe that was handed out."""
        self.probes += 1
        self._next_probe_at = now + self._probe_seconds

    def is_spent(self, in_flight: int, now: float) -> bool:
        """Whether enough probes were made, none is under way, and none succeeded."""
        is_long = self.probes >= FEWEST_PROBES and self.seconds_open(now) >= LONGEST_OPEN_SECONDS
        return (self.probes >= PROBES or is_long) and in_flight == 0


class SharedBackoff:
    """Pauses for everybody, each twice as long as the one before, until something goes well.

    A site with a quota of which it says nothing refuses after as many good answers each time. Its
    window is learnt: counted from the good answer that ended the pauses before, it lies between the
    last probe that was refused and the first that was not. So soon one pause a window is enough.

    Attributes:
        count: Pauses in a row.
        is_probing: Whether one attempt at a time goes out, until one is answered well.
    """

    def __init__(self, first_seconds: float, most_seconds: float) -> None:
        self.count, self.is_probing = 0, False
        self._first, self._most = first_seconds, most_seconds
        self._began_at = self._spell_began_at = self._window_began_at = float("-inf")
        self._too_short = self._long_enough = 0.0  # of the windows so far, seconds
        self._good = self._usual_good = 0
        self._is_quota = self._is_between = False

    def next_pause(self, sent_at: float, now: float, good: int = 0) -> float:
        """Return the seconds of the next pause, 0 for what was sent before the last one began.

        Args:
            sent_at: When the refused attempt was sent, monotonic seconds.
            now: Monotonic seconds.
            good: Good answers so far, where the refusal may be a quota's.
        """
        self.is_probing = True
        if sent_at <= self._began_at:
            return 0.0
        if self.count == 0:
            self._compare(good)
            self._spell_began_at = now
            if not (self._is_quota or self._is_between):
                self._window_began_at = now
        self._began_at = now
        self.count += 1
        if self._is_quota:
            return min(max(self._seconds_left(now), self._first), self._most)
        return min(self._first * 2.0 ** min(self.count - 1, 30), self._most)

    def reset(self, sent_at: float) -> None:
        """Begin anew after a good answer, unless it was asked for before the last pause began."""
        if sent_at <= self._began_at:
            return
        if self.count and not self._is_between:
            self._long_enough = sent_at - self._window_began_at
            if self.count > 1:
                self._too_short = self._began_at - self._window_began_at
            self._window_began_at = sent_at
        self.count, self.is_probing = 0, False

    def _compare(self, good: int) -> None:
        """Learn whether there were about as many good answers as before the last refusals.

        Fewer come in between, as where a window slides, and are counted with those that follow.
        """
        since = good - self._good
        self._is_between = 4 * since <= 3 * self._usual_good
        is_alike = not self._is_between and 4 * since < 6 * self._usual_good
        self._is_quota = is_alike and since >= FEWEST_OF_A_QUOTA
        if not self._is_between:
            self._good, self._usual_good = good, since

    def _seconds_left(self, now: float) -> float:
        """Return how much longer a window may last: half of what is not known, then all of it.

        Beyond that each pause makes the spell of refusals twice as long.
        """
        low, high, passed = self._too_short, self._long_enough, now - self._window_began_at
        if passed >= high:
            return now - self._spell_began_at
        is_open = high - low > self._first and passed < low
        return ((low + high) / 2 if is_open else high) - passed


class Refusals:
    """Tells forbidden pages from a token that is refused altogether.

    The first 401 or 403 is only suspicious: nothing more is asked until what is in flight has come
    back, and then a canary. A canary that is refused, too, is proof; one that is answered means
    that these pages are forbidden, and those refused after them until the next good answer. Where
    no canary is known a second refusal before any good answer is proof. So a run ends within the
    requests in flight and one more, and forbidden pages cost themselves alone.

    Attributes:
        is_proven: Whether the token is refused.
        is_asking: Whether a canary is under way that decides.
        has_asked: Whether one was asked since the last good answer.
        are_pages: Whether it was answered: then these pages are forbidden.
        has_succeeded: Whether there ever was a good answer.
    """

    def __init__(self) -> None:
        self.has_succeeded = self.is_proven = False
        self.is_asking = self.has_asked = self.are_pages = False
        self._waiting: list[tuple[PendingNumber, Reply]] = []

    @property
    def is_suspicious(self) -> bool:
        """Whether a refusal waits to be confirmed."""
        return bool(self._waiting)

    def note(self, attempt: PendingNumber, reply: Reply) -> bool:
        """Take one refusal; return whether it is the second in a row."""
        self._waiting.append((attempt, reply))
        return len(self._waiting) > 1

    def conclude(self) -> bool:
        """Return, when nothing is left to ask, whether a lone refusal was about the token.

        401 is, where nothing else was ever answered; 403 may well be about the page.
        """
        if not self.has_succeeded and any(reply.status == 401 for _, reply in self._waiting):
            self.is_proven = True
        return self.is_proven

    def note_good(self) -> None:
        """Begin to suspect anew."""
        self.has_succeeded = True
        self.is_asking = self.has_asked = self.are_pages = False

    def clear(self) -> list[tuple[PendingNumber, Reply]]:
        """Return the refused attempts that were about their page alone; none once it is proven."""
        if self.is_proven or not self._waiting:
            return []
        cleared, self._waiting = self._waiting, []
        return cleared
