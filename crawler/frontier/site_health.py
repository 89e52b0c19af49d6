"""How well the site is: what its failures, refusals and challenges add up to."""

import math
from collections.abc import Callable
from datetime import datetime

from crawler.frontier.circuit_breaker import (
    WAIT_SECONDS,
    CircuitBreaker,
    Refusals,
    SharedBackoff,
)
from crawler.frontier.rate_limiter import Announced, RateLimiter, read_announced
from crawler.frontier.verdict import Reply, Verdict, http_date, judge
from crawler.frontier.work import PendingNumber, Policy

SAME_FAULTS = 5
"""So often running step 1 makes the same mistake before the run ends; so many calls are under way
until the first one has gone well."""

MOST_UNKNOWN, MANY = 20, 10**9
"""After so many good answers and no song a step 1 function may be wrong, but most are missing."""

OVERLOAD_SECONDS, MAX_OVERLOAD_SECONDS = 1.0, 60.0
"""Pauses where the site says that we are too fast, but not for how long to wait."""

MAX_LONE_429S = 5
"""A number that alone is answered so, while others are fine, fails by itself."""

MOST_BESIDE = 3
"""So many canaries are asked beside it until one is found: a site may be overloaded altogether."""

CHALLENGE_SECONDS, CHALLENGES = 30.0, 4
"""The first pause for a challenge page; each is twice as long; after so many the run ends."""


class SiteHealth:
    """Puts the watches of a run together. Called under the frontier's lock.

    Attributes:
        is_in_doubt: Whether `allowance` has to be asked before anything is handed out.
        is_at_ease: Whether nothing went wrong since a good answer: another one teaches nothing
            more than its number, which `good` counts.
        good: Good answers so far.
        held_seconds: For how long the circuit was open so far, the present time excluded.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        stop: Callable[[str, str], None],
        ask_canary: Callable[[int], bool],
        policy: Policy,
        deadline: float = math.inf,
        on_pause: Callable[[float], None] | None = None,
        on_pace: Callable[[float, str], None] | None = None,
    ) -> None:
        """Begin well.

        Args:
            limiter: The pace, which is slowed down and paused.
            stop: Called with reason and detail when the run must end.
            deadline: End of the time budget, monotonic seconds.
            policy: The limits of the run.
            on_pause: Told the seconds of each pause.
            on_pace: Told requests a second and the site's own words when it lowers our pace.
            ask_canary: Asks the canary of this turn and calls `note_canary` with what came of it;
                returns False where none is known.
        """
        self.is_in_doubt = self.is_at_ease = self._has_found = False
        self.good = 0
        self.held_seconds = 0.0
        self._limiter, self._stop, self._ask_canary = limiter, stop, ask_canary
        self._deadline, self._on_pause = deadline, on_pause
        self._on_pace, self._window, self._told_pace = on_pace, 0.0, math.inf
        self._announced: Announced | None = None
        self._max_pause_seconds = policy.max_pause_seconds
        self._asked_beside = 0
        self._fault_place, self._faulty = ("", 0), list[PendingNumber]()
        self._breaker, self._refusals = CircuitBreaker(policy.probe_seconds), Refusals()
        self._overload = SharedBackoff(OVERLOAD_SECONDS, MAX_OVERLOAD_SECONDS)
        self._challenge = SharedBackoff(CHALLENGE_SECONDS, CHALLENGE_SECONDS * 2**CHALLENGES)
        self._last_kind = ""

    @property
    def is_suspicious(self) -> bool:
        """Whether a refusal waits to be confirmed."""
        return self._refusals.is_suspicious

    @property
    def is_circuit_open(self) -> bool:
        """Whether so much failed that failures say nothing about their number."""
        return self._breaker.is_open

    @property
    def is_probing(self) -> bool:
        """Whether one attempt at a time goes out, until one is answered well."""
        return self._overload.is_probing or self._challenge.is_probing

    @property
    def is_failing(self) -> bool:
        """Whether the last answer was a failure: fresh numbers may fare better than due retries."""
        return bool(self._breaker.failures)

    def allowance(self, wanted: int, in_flight: int, now: float) -> tuple[int, float]:
        """Return how many attempts may start, and if none, in how many seconds to ask again."""
        breaker = self._breaker
        if breaker.is_asking or self._refusals.is_asking:
            return 0, WAIT_SECONDS
        if breaker.is_open:
            if breaker.is_spent(in_flight, now):
                last = f"{breaker.failures} failures in a row, the last: {self._last_kind}"
                self._stop("circuit", last)
                return 0, 0.0
            wait = breaker.seconds_to_probe(now)
            if wait > 0:
                return 0, wait
            if self._ask_canary(breaker.probes):
                breaker.start_probe(now)
                return 0, 0.0
            wanted = 1
        if self._refusals.is_suspicious and not in_flight and self._ask_whether_refused():
            return 0, 0.0
        if self._refusals.is_suspicious or self.is_probing:
            return (0, WAIT_SECONDS) if in_flight else (1, 0.0)
        return wanted, 0.0

    def note_handed_out(self, now: float) -> None:
        """Count what was handed out of an allowance."""
        if self._breaker.is_open:
            self._breaker.start_probe(now)

    def note_good(
        self, count: int, sent_at: float, now: float
    ) -> list[tuple[PendingNumber, Reply]]:
        """Be well again; return the refused `(attempt, reply)` that were about their page alone.

        Args:
            count: Good answers.
            sent_at: When the last of them was asked for.
            now: Monotonic seconds.
        """
        self.good, self._asked_beside = self.good + count, 0
        self._limiter.recover(now)
        self.held_seconds += self._breaker.seconds_open(now)
        self._breaker.note_good()
        self._refusals.note_good()
        self.is_in_doubt = False
        self.end_probing(sent_at)
        self.is_at_ease = not self.is_in_doubt
        return self._refusals.clear()

    def end_probing(self, sent_at: float) -> None:
        """After a good answer: what was asked for at `sent_at` was neither too much nor barred."""
        self._overload.reset(sent_at)
        self._challenge.reset(sent_at)
        self.is_in_doubt = self.is_in_doubt or self.is_probing

    def note_failure(
        self, attempt: PendingNumber, verdict: Verdict, now: float, *, is_unsent: bool
    ) -> None:
        """Count one failure; at a hundred in a row ask a canary."""
        breaker, self._last_kind = self._breaker, verdict.kind or "protocol"
        self.is_at_ease = False
        breaker.note_failure(
            attempt,
            is_setup=verdict.is_setup,
            is_unsent=is_unsent,
            is_overload=not verdict.is_counted,
        )
        if breaker.is_hopeless:
            self._stop("circuit", f"{breaker.failures} failures in a row: {self._last_kind}")
        elif breaker.is_beyond_belief:
            last = (
                f"{breaker.failures} different numbers failed in a row, the last: {self._last_kind}"
            )
            self._stop("circuit", last)
        elif breaker.needs_canary:
            if self._ask_canary(0):
                breaker.begin_asking()
            elif breaker.is_trouble:
                breaker.open(now)
        self.is_in_doubt = self.is_in_doubt or breaker.is_asking or breaker.is_open

    def note_canary(
        self, reply: Reply, *, is_well: bool, now: float
    ) -> list[tuple[PendingNumber, Reply]]:
        """Learn what came of a canary that was asked for the site's health; see `note_good`."""
        self.is_at_ease = False
        if self._refusals.is_asking or (self._refusals.are_pages and self._is_refusal(reply)):
            return self._conclude_refusals(reply, is_well=is_well)
        if is_well and self._breaker.is_open:
            return self.note_good(1, now, now)
        if is_well and self._breaker.is_asking:
            self._breaker.note_bad_pages()
            self.is_in_doubt = self.is_probing or self.is_suspicious
        elif not is_well:
            self._breaker.note_canary_failed(now)
        elif not self._breaker.is_open:
            self.good += 1  # so a number that is put off again and again is so alone
            self._asked_beside = 0
        return []

    def is_spent_page(self, attempt: PendingNumber) -> bool:
        """Whether a number that just failed had its last attempt: it is bad, and not the site."""
        return attempt.lone_429s >= MAX_LONE_429S or self._breaker.is_spent_page(attempt)

    def note_refusal(self, attempt: PendingNumber, reply: Reply) -> bool:
        """Count one 401 or 403; return whether its page alone is known to be forbidden."""
        if self._refusals.are_pages:
            return True
        self.is_in_doubt, self.is_at_ease = True, False
        is_second = self._refusals.note(attempt, reply)
        if is_second and not self._refusals.is_asking and not self._ask_whether_refused():
            self._refuse(reply)
        return False

    def _ask_whether_refused(self) -> bool:
        """Ask a canary, once, whether the token is refused; return False where none is known."""
        refusals = self._refusals
        refusals.is_asking = not refusals.has_asked and self._ask_canary(0)
        refusals.has_asked = True
        return refusals.is_asking

    def _conclude_refusals(
        self, reply: Reply, *, is_well: bool
    ) -> list[tuple[PendingNumber, Reply]]:
        self._refusals.is_asking = False
        if self._is_refusal(reply):
            self._refuse(reply)
        elif is_well or judge(reply).action == "missing":
            self._refusals.are_pages = True
            self.is_in_doubt = self.is_probing or self._breaker.is_open
            return self._refusals.clear()
        return []  # it says nothing about the token: a fresh number decides

    @staticmethod
    def _is_refusal(reply: Reply) -> bool:
        return judge(reply).action == "refused"

    def _refuse(self, reply: Reply) -> None:
        self._refusals.is_proven = True
        self._stop("unauthorized", f"the site answered {reply.status}")

    @property
    def step1_room(self) -> int:
        """How many of its calls may be under way: at first those that would show a mistake."""
        is_known = self._has_found or self.good >= MOST_UNKNOWN
        return MANY if is_known else SAME_FAULTS - len(self._faulty)

    def note_songs(self) -> None:
        """Songs were found: the mistakes that step 1 made before were of their pages."""
        self._has_found = True
        self._faulty.clear()

    def note_fault(self, attempt: PendingNumber, fault: tuple[str, int, str]) -> None:
        """Count a mistake in step 1 itself; the same one five times running ends the run.

        Once a song was found a number counts once: a page that the function cannot read costs
        that page alone. Missing numbers show nothing: their answers are judged by the status.
        """
        self.is_at_ease = False
        file, line, text = fault
        if self._fault_place != (file, line):
            self._fault_place, self._faulty = (file, line), []
        if not (self._has_found and attempt in self._faulty):
            self._faulty.append(attempt)
        if len(self._faulty) >= SAME_FAULTS:
            self._stop("circuit", f"step 1 is wrong in {file}, line {line}: {text}")

    def note_headers(
        self, attempt: PendingNumber, reply: Reply, moment: datetime, now: float
    ) -> None:
        """Go no faster than the site announces; where nothing is left all wait for the reset."""
        announced = self._read_announced(attempt, reply, moment)
        if announced is None:
            return
        self._announced = announced
        self._window = max(self._window, announced.reset_seconds or 0.0)
        quota = announced.rate(self._window or None)
        if quota < math.inf:
            self._tell_pace(self._limiter.announce(quota), announced)
        if reply.status != 429:
            self._hold(announced.pause_seconds, now)

    @property
    def announcement(self) -> str:
        """What the site announced last, such as "60 a minute"; empty where it announced nothing."""
        return self._announced.in_words(self._window or None) if self._announced else ""

    def _tell_pace(self, pace: float, announced: Announced) -> None:
        is_lowered = not self._limiter.rate or pace < self._limiter.rate
        if is_lowered and pace < self._told_pace * 0.8 and self._on_pace is not None:
            self._told_pace = pace
            window = self._window or None
            self._on_pace(pace, announced.tightest(window).in_words(window))

    def _read_announced(
        self, attempt: PendingNumber, reply: Reply, moment: datetime
    ) -> Announced | None:
        answered = http_date(reply.header("date"), now=moment) or moment
        return read_announced(
            reply.headers or {}, attempt.job.traits.rate_headers, time_of_day=answered.timestamp()
        )

    def note_overload(
        self, attempt: PendingNumber, reply: Reply, verdict: Verdict, moment: datetime, now: float
    ) -> None:
        """Hold everybody back as the site asks, and go on at half the pace.

        A challenge page pauses all, twice as long each time; the run ends when it lasts, or when
        the pause would outlast the run.
        """
        self.is_at_ease = False
        if verdict.action == "challenged":
            self.is_in_doubt = True
            seconds = self._challenge.next_pause(attempt.sent_at, now)
            if self._challenge.count > CHALLENGES or now + seconds >= self._deadline:
                self._stop("barred", "the site answers with a challenge page for browsers")
            else:
                self._hold(seconds, now)
            return
        wished = reply.retry_after(moment)
        if wished is None and reply.status == 429:
            announced = self._read_announced(attempt, reply, moment)
            wished = announced.reset_seconds if announced and announced.reset_seconds else None
        is_alone = self._is_alone(attempt, reply)
        if wished is not None:
            self._hold(wished, now)
        elif not is_alone:
            self.is_in_doubt = True
            good = self.good if reply.status == 429 else 0
            self._hold(self._overload.next_pause(attempt.sent_at, now, good), now)
        if not is_alone:
            self._limiter.slow_down(attempt.sent_at, now)
            self._ask_whether_alone(attempt, reply)

    def _ask_whether_alone(self, attempt: PendingNumber, reply: Reply) -> None:
        """Ask a canary where numbers are put off again and again, with none answered in between."""
        is_again = attempt.put_off > 1 or self._overload.count > 1
        if attempt.is_canary or reply.status != 429 or not is_again:
            return
        is_closed = not (self._breaker.is_open or self._breaker.is_asking)
        if is_closed and self._asked_beside < MOST_BESIDE:
            self._asked_beside += self._ask_canary(attempt.put_off)

    def check_pause(self, now: float) -> None:
        """End the run when a pause cannot be waited for, whichever run of the process learnt it."""
        resume_at = self._limiter.resume_at
        left = resume_at - now
        if resume_at >= self._deadline or left > self._max_pause_seconds:
            self._stop("paused", f"the site asked for a pause; {left:.0f} s of it are left")

    def _hold(self, seconds: float, now: float) -> None:
        if seconds and self._limiter.hold(now + seconds, now) and self._on_pause is not None:
            self._on_pause(seconds)

    def _is_alone(self, attempt: PendingNumber, reply: Reply) -> bool:
        """Whether others were answered well since this number last got a 429: it alone is meant."""
        if reply.status != 429 or attempt.is_canary:
            return False
        is_alone = 0 <= attempt.good_before < self.good
        attempt.put_off = 1 if is_alone else attempt.put_off + 1
        attempt.lone_429s += is_alone or attempt.lone_429s == 0
        attempt.good_before = self.good
        return is_alone

    def conclude(self) -> list[tuple[PendingNumber, Reply]]:
        """When nothing is left to ask: return the refused attempts that were about their page."""
        if self._refusals.conclude():
            self._stop("unauthorized", "the site answered 401")
        return self._refusals.clear()
