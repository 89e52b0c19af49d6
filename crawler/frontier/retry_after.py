"""Reading `Retry-After` and `Date` headers: any text in, seconds or None out, never an exception."""

import re
from datetime import UTC, datetime

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
