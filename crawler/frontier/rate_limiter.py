"""The pace towards one host: so many attempts a second, slower when told, and pauses for all.

And what a site announces of its limits: quotas, what is left of them, and until when.
"""

import math
import re
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from crawler.frontier.verdict import moment_of

CATCH_UP_SECONDS = 0.5
"""So much lateness (a busy machine, a long timer) is made good afterwards; more is let go."""

RECOVERY_PER_SECOND = 0.1
"""Share of the full rate won back in each second of good answers: 90 % within 9 s from anything."""

_HAIR = 1e-6
"""Of an attempt: a wait computed in floats may end this much before its token is whole."""


class Pause(msgspec.Struct, eq=False):
    """The pause of everybody who asks one host.

    Attributes:
        until: When the latest one ends, monotonic seconds; in the past where there is none.
    """

    until: float = -math.inf


class RateLimiter:
    """Grants attempts. Shared by every run of a process against one host; safe in threads.

    Two token buckets: one holds the mean rate and remembers a little lateness, the other keeps
    every single second below the peak. All times are seconds of one monotonic clock, given by
    the caller. A run with a lower rate of its own has a limiter in front of the shared one: it
    grants what both allow, and pauses are those of the shared one.

    Attributes:
        rate: Attempts per second, 0 for no limit.
        pause: When nobody may start anything; that of the shared limiter, if there is one.
    """

    def __init__(
        self, rate: float, *, shared: "RateLimiter | None" = None, share: float = 1.0
    ) -> None:
        """Start at full rate.

        Args:
            rate: Attempts per second, 0 for no limit.
            shared: A limiter in front of which this one stands.
            share: What part of the site's quotas is ours: one by the number of instances.
        """
        self.rate = rate
        self._share, self._ceiling = share, math.inf
        self._shared = shared
        self.pause: Pause = Pause() if shared is None else shared.pause
        self._held_seconds = 0.0
        self._full = rate or math.inf
        self._limit = self._full
        self._lock = threading.Lock()
        self._credit = self._burst = 1.0
        self._refilled_at = -math.inf
        self._cut_at = -math.inf
        self._recovered_at = -math.inf
        self._counted_from, self._counted, self._measured = -math.inf, 0, 0.0

    @property
    def limit(self) -> float:
        """Attempts per second granted at present, `inf` where there is no limit."""
        own = min(self._limit, self._ceiling)
        return own if self._shared is None else min(own, self._shared.limit)

    @property
    def announced(self) -> float:
        """Attempts per second that the site's quota leaves us, 0 where that is not below our rate."""
        ceiling = (self._shared or self)._ceiling  # noqa: SLF001 - another one of its own class
        return ceiling if ceiling < (self.rate or math.inf) else 0.0

    @property
    def resume_at(self) -> float:
        """When the latest shared pause ends; in the past where there is none."""
        return self.pause.until

    @property
    def held_seconds(self) -> float:
        """Length of all shared pauses so far, one under way counted whole."""
        return (self._shared or self)._held_seconds  # noqa: SLF001 - as above

    def grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Return how many of the wanted attempts may start now, and when to ask again.

        Args:
            wanted: Attempts the caller could start, >= 1.
            now: Monotonic seconds.

        Returns:
            `(granted, wait)`: 0 <= granted <= wanted; seconds until more will be granted.
        """
        if self._shared is None:
            return self._grant(wanted, now)
        own, own_wait = self._grant(wanted, now)
        if own == 0:
            return 0, own_wait
        granted, wait = self._shared.grant(own, now)
        if granted < own:
            self._give_back(own - granted)
            return granted, wait
        return granted, max(wait, own_wait)

    def for_another_host(self, most: float | None = None) -> "RateLimiter":
        """Return a limiter of the same rate, or of a lower one: at most `most` requests a second.

        What lowers this one's rate below that of the shared one is of its host alone.
        """
        rate = (self._shared or self).rate
        return RateLimiter(min(filter(None, (rate, most)), default=0.0), share=self._share)

    def _grant(self, wanted: int, now: float) -> tuple[int, float]:
        with self._lock:
            if now < self.pause.until:
                return 0, self.pause.until - now
            limit = min(self._limit, self._ceiling)
            if limit == math.inf:
                self._count(wanted, now)
                return wanted, 0.0
            self._refill(now, limit)
            ready = min(self._credit, self._burst)
            granted = max(0, min(wanted, int(ready + _HAIR)))
            self._credit -= granted
            self._burst -= granted
            self._count(granted, now)
            return granted, max(0.0, (1.0 - ready + granted) / limit)

    def give_back(self, count: int) -> None:
        """Take back grants that were not used."""
        self._give_back(count)
        if self._shared is not None:
            self._shared.give_back(count)

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._credit += count
            self._burst += count
            self._counted -= count

    def charge(self, count: int) -> None:
        """Pay for requests that were sent without a grant (a transport's own repeats)."""
        if self._shared is not None:
            self._shared.charge(count)
        with self._lock:
            if self._limit != math.inf:  # a debt made where nothing is owed would come due later
                self._credit -= count
                self._burst -= count

    def hold(self, until: float, now: float) -> bool:
        """Let no attempt start before `until`; return whether that is later than before.

        What could have been sent in the pause is not made good afterwards.
        """
        if self._shared is not None:
            return self._shared.hold(until, now)
        with self._lock:
            before = max(self.pause.until, now)
            if until <= before:
                return False
            self.pause.until = until
            self._held_seconds += until - before
            self._refilled_at = max(until, self._refilled_at)
            return True

    def announce(self, quota: float) -> float:
        """Grant no more than our share of what the site announces, until it announces another.

        Args:
            quota: Requests per second, > 0.

        Returns:
            The requests per second that are granted at most.
        """
        if self._shared is not None:
            return min(self._shared.announce(quota), self.rate or math.inf)
        with self._lock:
            self._ceiling = quota * self._share
            return min(self._ceiling, self.rate or math.inf)

    def slow_down(self, sent_at: float, now: float) -> None:
        """Halve the pace, once for all attempts that were under way when it was last halved."""
        if self._shared is not None:
            self._shared.slow_down(sent_at, now)
        with self._lock:
            if sent_at <= self._cut_at:
                return
            full = self._measured_rate(now) if self._full == math.inf else self._full
            if full > 1:
                self._full, self._limit = full, max(1.0, min(self._limit, full) / 2)
            self._cut_at = now
            self._recovered_at = max(now, self.pause.until)
            self._credit = min(self._credit, 1.0)

    def recover(self, now: float) -> None:
        """Win back pace after a good answer."""
        if self._shared is not None:
            self._shared.recover(now)
        if self._limit >= self._full:
            return
        with self._lock:
            passed = min(1.0, max(0.0, now - self._recovered_at))
            self._recovered_at = max(now, self._recovered_at)
            self._limit = min(self._full, self._limit + self._full * RECOVERY_PER_SECOND * passed)
            if self._limit >= self._full and self.rate == 0:
                self._limit = self._full = math.inf

    def _refill(self, now: float, limit: float) -> None:
        if self._refilled_at == -math.inf:
            self._refilled_at = now
        passed = now - self._refilled_at
        if passed <= 0:
            return
        peak, most = _peak(limit)
        self._credit = min(self._credit + passed * limit, max(1.0, limit * CATCH_UP_SECONDS))
        self._burst = min(self._burst + passed * peak, most)
        self._refilled_at = now

    def _count(self, granted: int, now: float) -> None:
        if now - self._counted_from >= 1.0:
            passed = now - self._counted_from
            self._measured = self._counted / passed
            self._counted_from, self._counted = now, 0
        self._counted += granted

    def _measured_rate(self, now: float) -> float:
        """Grants a second in the last whole second or in the one begun, whichever is more."""
        current = self._counted / max(now - self._counted_from, 0.1)
        return max(self._measured, current)


def _peak(limit: float) -> tuple[float, float]:
    """Return how fast lateness is made good, per second, and how many attempts may start at once.

    No second holds more than their sum. From 50 a second on that is at most 104 % of the rate
    (105 % below 100), which leaves 1 % for what the network shifts; below, where 3 % are less
    than one attempt, it is one attempt more than the rate, for lateness up to 50 ms.
    """
    if limit >= 50:
        return limit * 1.01, limit * 0.03
    return limit * 1.01, min(1.5, 1.0 + limit * 0.05)


# What a site announces.

LONGEST_RESET_SECONDS = 86_400.0
"""A quota that is renewed later than in a day is nonsense."""

DEFAULT_WINDOW_SECONDS = 60.0
"""Of a quota without a window and without a reset, such as Discogs' and others' per minute."""

_EPOCH, _EPOCH_MILLISECONDS = 1e9, 1e12
"""Larger numbers are moments, in seconds or in thousandths since 1970."""

_WORDS = ("limit", "remaining", "reset", "reset-after")
_FAMILIES = ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,20})?(?![\w.:-])", re.ASCII)
_PARAMETER = re.compile(r"([a-z]+)\s*=\s*([0-9]{1,15})", re.ASCII)
_LONGEST = 512


class Announced(NamedTuple):
    """What one answer says of the site's limits.

    Attributes:
        limit: Requests in one window, None where it does not say.
        window_seconds: Length of the window, None where it does not say.
        remaining: Requests left in this window, None where it does not say.
        reset_seconds: Until the next window begins, None where it does not say, or says nonsense.
    """

    limit: float | None
    window_seconds: float | None
    remaining: float | None
    reset_seconds: float | None

    @property
    def pause_seconds(self) -> float:
        """For how long nothing more may be asked; 0 where something is left, or it does not say."""
        return self.reset_seconds or 0.0 if self.remaining == 0 else 0.0

    def rate(self, known_window: float | None) -> float:
        """Return the requests per second that the quota allows, `inf` where it names none.

        Args:
            known_window: Length of the window in seconds as far as resets have shown it.
        """
        rate = math.inf
        if self.limit:
            rate = self.limit / (self.window_seconds or known_window or DEFAULT_WINDOW_SECONDS)
        if self.remaining and self.reset_seconds:
            rate = min(rate, self.remaining / self.reset_seconds)
        return rate

    def tightest(self, known_window: float | None) -> "Announced":
        """Return the part that allows least: the quota, or what is left of it until the reset."""
        quota, left = self._replace(remaining=None), self._replace(limit=None)
        return left if left.rate(None) < 0.9 * quota.rate(known_window) else quota

    def in_words(self, known_window: float | None) -> str:
        """Return the quota as people say it, such as "60 a minute"."""
        seconds = self.window_seconds or known_window or DEFAULT_WINDOW_SECONDS
        if self.limit is None:
            return f"{self.remaining or 0:g} more in {self.reset_seconds or seconds:.0f} s"
        spans = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}
        near = [word for span, word in spans.items() if abs(seconds - span) <= 0.05 * span]
        return f"{self.limit:g} {near[0] if near else f'in {seconds:.0f} s'}"


def read_announced(
    headers: Mapping[str, str], own_names: Mapping[str, str], *, time_of_day: float
) -> Announced | None:
    """Read what an answer announces; any text is accepted, None where there is nothing.

    Of several quotas the one counts that allows least.

    Args:
        headers: Names in lower case, repeated ones joined by `, `.
        own_names: The source's own names by what they say: `limit`, `remaining`, `reset`.
        time_of_day: The answer's own `Date` where it has one, seconds since 1970.

    Source: draft-ietf-httpapi-ratelimit-headers, in its versions 03 (`RateLimit-Limit`) to 10
    (`RateLimit: "name";r=50;t=30`); the `X-` names are as sites use them.
    """
    own = {
        what: headers[name.lower()] for what, name in own_names.items() if name.lower() in headers
    }
    families = [
        {what: headers[each + what] for what in _WORDS if each + what in headers}
        for each in _FAMILIES
    ]
    told = [
        each
        for words in [family | own for family in families if family] or [own]
        for each in _quotas(headers, words, time_of_day)
    ]
    return min(told, key=lambda each: (-each.pause_seconds, each.rate(None)), default=None)


def _quotas(
    headers: Mapping[str, str], words: Mapping[str, str], time_of_day: float
) -> Iterator[Announced]:
    """Yield each quota that an answer names; what is told of none by name is told of all."""
    policies = _items(headers.get("ratelimit-policy", "") or words.get("limit", ""))
    if any("w" in values for _, values in policies):  # one without a window repeats one of them
        policies = [(name, values) for name, values in policies if "w" in values]
    states, names = dict(_items(headers.get("ratelimit", ""))), {name for name, _ in policies}
    shared: dict[str, float] = {}
    if len(states) < 2 and names.isdisjoint(states):
        shared = states.popitem()[1] if states else {}
        text = words.get("reset-after") or words.get("reset")
        told = {"limit": _number(words.get("limit")), "r": _number(words.get("remaining"))}
        number = _number(text)
        told["t"] = moment_of(text, time_of_day) if number is None else number
        shared = {name: number for name, number in told.items() if number is not None} | shared
    quotas = [(name, policy | states.pop(name, shared)) for name, policy in policies]
    quotas += states.items()
    for name, values in quotas or [("", shared)]:
        limit = _first(values.get("q"), _number(name), values.get("limit"))
        remaining = _first(values.get("r"), values.get("remaining"))
        reset = _first(values.get("t"), values.get("reset"))
        if not (limit is None and remaining is None and reset is None):
            seconds = _seconds(reset, time_of_day)
            yield Announced(limit, values.get("w") or None, remaining, seconds)


def _first(*numbers: float | None) -> float | None:
    return next((number for number in numbers if number is not None), None)


def _items(text: str) -> list[tuple[str, dict[str, float]]]:
    """Read a list of quotas: names, or numbers, with `name=number` behind them.

    Without names (`limit=100, remaining=7`) all is about one.
    """
    items: list[tuple[str, dict[str, float]]] = []
    for part in text[:_LONGEST].lower().split(","):
        head = part.partition(";")[0].strip()
        if "=" not in head or not items:
            items.append(("" if "=" in head else head.strip('"'), {}))
        for name, number in _PARAMETER.findall(part):
            items[-1][1].setdefault(name, float(number))
    return [item for item in items if any(item)]


def _number(text: str | None) -> float | None:
    match = _NUMBER.match(text.strip()) if text else None
    return float(match[0]) if match else None


def _seconds(reset: float | None, time_of_day: float) -> float | None:
    """Return the seconds until a reset: told as such, or as a moment, which may be cut to seconds."""
    if reset is None:
        return None
    if reset >= _EPOCH_MILLISECONDS:
        reset /= 1000.0
    if reset >= _EPOCH:
        reset = reset - time_of_day + 1.0 if reset > time_of_day else -1.0
    return reset if 0.0 <= reset <= LONGEST_RESET_SECONDS else None
