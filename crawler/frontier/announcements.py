"""What a site announces of its limits: quotas, what is left of them, and until when."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

LONGEST_RESET_SECONDS = 86_400.0
"""A quota that is renewed later than in a day is nonsense."""

DEFAULT_WINDOW_SECONDS = 60.0
"""Of a quota without a window and without a reset, such as Discogs' and others' per minute."""

_EPOCH, _EPOCH_MILLISECONDS = 1e9, 1e12
"""Larger numbers are moments, in seconds or in thousandths since 1970."""

_FAMILIES = ("ratelimit-", "x-ratelimit-", "x-rate-limit-")
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?", re.ASCII)
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

    Args:
        headers: Names in lower case, repeated ones joined by `, `.
        own_names: The source's own names by what they say: `limit`, `remaining`, `reset`.
        time_of_day: The answer's own `Date` where it has one, seconds since 1970.

    Source: draft-ietf-httpapi-ratelimit-headers, in its versions 03 (`RateLimit-Limit`) to 10
    (`RateLimit: "name";r=50;t=30`); the `X-` names are as sites use them.
    """
    words = {
        what: headers[name.lower()] for what, name in own_names.items() if name.lower() in headers
    }
    for family in _FAMILIES:
        for what in ("limit", "remaining", "reset"):
            if what not in words and family + what in headers:
                words[what] = headers[family + what]
    structured = _parameters(headers.get("ratelimit", ""))
    policy = _parameters(headers.get("ratelimit-policy", "") or words.get("limit", ""))
    limit = _first(structured.get("limit"), policy.get("q"), _number(words.get("limit")))
    if limit is None:
        limit = _number(headers.get("ratelimit-policy"))
    remaining = _first(
        structured.get("r"), structured.get("remaining"), _number(words.get("remaining"))
    )
    reset = _first(structured.get("t"), structured.get("reset"), _number(words.get("reset")))
    if limit is None and remaining is None and reset is None:
        return None
    return Announced(limit, policy.get("w") or None, remaining, _seconds(reset, time_of_day))


def _first(*numbers: float | None) -> float | None:
    return next((number for number in numbers if number is not None), None)


def _parameters(text: str) -> dict[str, float]:
    """Read `name=number` pairs; of several quotas in one header the first counts."""
    found: dict[str, float] = {}
    for name, number in _PARAMETER.findall(text[:_LONGEST].lower()):
        found.setdefault(name, float(number))
    return found


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
