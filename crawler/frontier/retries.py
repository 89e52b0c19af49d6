"""When a number is tried again: backoff with full jitter, and what `Retry-After` asks for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

from crawler.frontier.work import Attempt, Policy

_LONGEST_DOUBLING = 16

_SECONDS = re.compile(r"[0-9]{1,9}")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = "(?P<month>" + "|".join(_MONTHS) + ")"
_TIME = r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_DATES = (
    # IMF-fixdate: Sun, 06 Nov 1994 08:49:37 GMT
    re.compile(rf"[A-Z][a-z]{{2}}, (?P<day>[0-9]{{2}}) {_MONTH} (?P<year>[0-9]{{4}}) {_TIME} GMT"),
    # RFC 850: Sunday, 06-Nov-94 08:49:37 GMT
    re.compile(
        rf"[A-Z][a-z]{{5,8}}, (?P<day>[0-9]{{2}})-{_MONTH}-(?P<year>[0-9]{{2}}) {_TIME} GMT"
    ),
    # asctime: Sun Nov  6 08:49:37 1994
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[0-9 ][0-9]) {_TIME} (?P<year>[0-9]{{4}})"),
)
_LONGEST_HEADER = 64


def retry_at(
    attempt: Attempt,
    policy: Policy,
    *,
    is_counted: bool,
    now: float,
    held_seconds: float,
    uniform: Callable[[float, float], float],
) -> float | None:
    """Return when a number is due again, monotonic seconds; None when its attempts or its time are used up.

    Exponential backoff with full jitter. The last attempt is made no sooner than half of all the
    longest waits after the first one: by chance all waits may be short, and then a site that was
    down for 5 s would have failed the number.

    Args:
        attempt: What just failed; its request is counted in `requests`, and here in `counted_attempts`.
        policy: The limits.
        is_counted: Whether the failure says anything about the number.
        now: Monotonic seconds.
        held_seconds: All time held back so far, by pauses or the circuit.
        uniform: Randomness.

    Source: aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter.
    """
    attempt.counted_attempts += is_counted
    left = policy.max_attempts - attempt.counted_attempts
    if left <= 0:
        return None
    due = now + uniform(0.0, _ceiling(policy, attempt.requests))
    began = attempt.first_at + held_seconds
    if left == 1:
        waits = sum(_ceiling(policy, count) for count in range(1, policy.max_attempts))
        due = max(due, began + waits / 2)
    if is_counted and due - began > policy.retry_seconds:
        return None
    return due


def _ceiling(policy: Policy, requests: int) -> float:
    """Return how long the wait after so many requests may be."""
    doublings = min(requests - 1, _LONGEST_DOUBLING)
    return min(policy.max_backoff_seconds, policy.backoff_seconds * 2.0**doublings)


def retry_after_seconds(value: str | None, *, now: datetime) -> float | None:
    """Read a `Retry-After` header as seconds from now, or None when absent or unreadable.

    Args:
        value: The header as received: whole seconds or an HTTP date; any text is accepted.
        now: The answer's own `Date`, so that clock skew does not matter; aware.

    Returns:
        Seconds >= 0; a date in the past is 0. Ten digits and more are no credible wait: None.

    Source: RFC 9110, section 10.2.3.
    """
    if value is None or len(value) > _LONGEST_HEADER:
        return None
    text = value.strip(" \t")
    if _SECONDS.fullmatch(text):
        return float(int(text))
    moment = http_date(text, now=now)
    return None if moment is None else max(0.0, (moment - now).total_seconds())


def http_date(text: str | None, *, now: datetime) -> datetime | None:
    """Read an HTTP date in any of its three forms as an aware time, or None.

    A two-digit year more than 50 years ahead of `now` lies in the past.

    Source: RFC 9110, section 5.6.7.
    """
    if text is None or len(text) > _LONGEST_HEADER:
        return None
    for form in _DATES:
        if match := form.fullmatch(text.strip(" \t")):
            return _moment(match, now)
    return None


def _moment(match: re.Match[str], now: datetime) -> datetime | None:
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += now.year // 100 * 100
        if year > now.year + 50:
            year -= 100
    try:
        return datetime(
            year,
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            59 if match["second"] == "60" else int(match["second"]),  # a leap second
            tzinfo=UTC,
        )
    except ValueError:
        return None
