"""What one reply means: the outcome of its number, and for how long it asks to wait."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urljoin

import msgspec

FAILURE_KINDS = {
    "connect": "no connection could be made",
    "connection": "the connection broke before the answer was whole",
    "dns": "the host name could not be resolved",
    "tls": "the certificate is not valid for the host",
    "timeout": "the answer was not whole within the deadline",
    "protocol": "the answer is not HTTP as it should be",
    "encoding": "the body is not whole, or not in an encoding asked for",
    "json": "the body is not JSON",
    "schema": "the body is not shaped as the source declares",
    "mismatch": "the body is about another number",
    "too_large": "the body is larger than 1 MiB",
    "redirect": "the site points elsewhere; not followed",
    "robots": "robots.txt does not allow this page",
    "function": "the step 1 function raised, took nothing, or appended something else",
}
"""Why an attempt failed, one word each; a status that settles nothing is `http_<status>`."""

_HOPELESS = {"too_large", "redirect", "robots"}
_PASSING_STATUS = {401, 403, 408, 421, 425, 429}
_MISSING_STATUS = {404, 410, 451}
REDIRECTS = {301, 302, 303, 307, 308}
_MOVED_STATUS = {301, 308}
_RETRIED_STATUS = {408, 421, 425, 429, *range(500, 600)} - {501, 505}
"""Of the 5xx all but those that say what will not change; 520 to 530 are a proxy's own."""

_MOST_NUMBERS = 8
_SETUP_KINDS = {"dns", "tls"}

Action = Literal["found", "missing", "retry", "failed", "refused", "challenged"]


class Reply(msgspec.Struct, gc=False):
    """What came of one attempt.

    Attributes:
        attempt: The attempt as the frontier gave it.
        found: Whether `info` is what was asked for.
        info: What the source or function took from the page.
        status: HTTP status, None where no answer came.
        error: A word of FAILURE_KINDS, "missing", or None where the status speaks for itself.
        detail: A line for people.
        headers: Of an answer that is no plain page: names in lower case, the values of repeated
            ones joined by `, ` (RFC 9110, section 5.3). None where policy needs none.
        is_reused: Whether the connection had served an earlier request.
        is_unsent: Whether step 1 came to this without sending anything.
        fault: Where step 1 itself is wrong: file, line, and what to write; None where it is not.
        asked_url: The address that a step 1 function asked, where it was redirected; else empty.
    """

    attempt: Any
    found: bool = False
    info: Any = None
    status: int | None = None
    error: str | None = None
    detail: str = ""
    headers: dict[str, str] | None = None
    is_reused: bool = False
    is_unsent: bool = False
    fault: tuple[str, int, str] | None = None
    asked_url: str = ""

    def header(self, name: str) -> str | None:
        """Return a header of the answer by its name in lower case, None where there is none."""
        return None if self.headers is None else self.headers.get(name)

    def retry_after(self, moment: datetime) -> float | None:
        """Return for how many seconds the answer asks to wait, None where it does not.

        It is reckoned from its own `Date`; without one from `moment`, when it came.
        """
        answered = http_date(self.header("date"), now=moment) or moment
        return retry_after_seconds(self.header("retry-after"), now=answered)


class Verdict(msgspec.Struct, frozen=True):
    """What follows from a reply.

    Attributes:
        action: What to do with the number.
        kind: Why, where it is not found.
        is_counted: Whether the attempt counts towards the number's limit of attempts.
        is_overload: Whether the site told us to slow down.
        is_setup: Whether the fault lies between us and the site rather than in the page.
        is_excused: Whether an idle connection had simply been closed: try once more, at no cost.
        moved_to: The number under which the site has the page now, None where it has not moved.
    """

    action: Action
    kind: str | None = None
    is_counted: bool = True
    is_overload: bool = False
    is_setup: bool = False
    is_excused: bool = False
    moved_to: int | None = None


_MISSING = Verdict("missing")


def judge(reply: Reply) -> Verdict:
    """Turn one reply into its verdict; the only place where a status or a fault gets a meaning."""
    status, error = reply.status, reply.error
    if reply.found:
        return Verdict("found")
    if error == "missing" or status in _MISSING_STATUS:
        return _MISSING
    asks_to_wait = reply.header("retry-after") is not None
    if status == 429 or (status in (403, 503) and asks_to_wait):
        return Verdict("retry", f"http_{status}", is_counted=status == 503, is_overload=True)
    if status in (403, 503) and _is_challenge(reply):
        return Verdict("challenged", f"http_{status}", is_counted=False)
    if status in (401, 403):
        return Verdict("refused", f"http_{status}")
    if error is None and status is None:
        error = "protocol"
    if status in _MOVED_STATUS and (number := moved_to(reply)) is not None:
        return Verdict("missing", moved_to=number)
    if error is not None and error != f"http_{status}":  # step 1 may repeat what the status says
        is_hopeless = error in _HOPELESS and status not in _RETRIED_STATUS
        action: Action = "failed" if is_hopeless else "retry"
        is_excused = reply.is_reused and error == "connection" and status is None
        return Verdict(action, error, is_setup=error in _SETUP_KINDS, is_excused=is_excused)
    if status in _RETRIED_STATUS:
        return Verdict("retry", f"http_{status}")
    if status is not None and 300 <= status < 400 and status != 304:
        return Verdict("failed", "redirect")
    return Verdict("failed", f"http_{status}")


def _is_challenge(reply: Reply) -> bool:
    """Whether the answer is a page that wants to see a browser, and no answer of the site's own.

    Source: developers.cloudflare.com, "Detect a challenge page response"; HTML where JSON was
    asked for is what other such walls send.
    """
    if reply.header("cf-mitigated") == "challenge":
        return True
    is_html = (reply.header("content-type") or "").lower().startswith("text/html")
    return reply.status == 403 and is_html and _wants_json(reply)


def _wants_json(reply: Reply) -> bool:
    source = _source_of(reply)
    headers = source.headers() if hasattr(source, "headers") else {}
    return any("json" in text for name, text in headers.items() if name.lower() == "accept")


def moved_to(reply: Reply) -> int | None:
    """Return the number of the same source's page to which the answer points, if it is another."""
    location = reply.header("location")
    if not location or (address := _address_of(reply)) is None:
        return None
    own = reply.attempt.song_num
    target = urljoin(address(own), location.strip())
    for digits in re.findall(r"[0-9]{1,12}", target, re.ASCII)[-_MOST_NUMBERS:]:
        number = int(digits)
        if number != own and address(number) == target:
            return number
    return None


def _address_of(reply: Reply) -> Callable[[int], str] | None:
    """Return where the pages lie: as the source says, or as the address that was asked shows."""
    source = _source_of(reply)
    if hasattr(source, "url"):
        url: Callable[[int], str] = source.url
        return url
    own = rf"(?<![0-9]){re.escape(str(reply.attempt.song_num))}(?![0-9])"
    start = reply.asked_url.find("/", len("https://"))
    host, path = reply.asked_url[:start], reply.asked_url[start:]
    if not re.search(own, path):
        return None
    return lambda number: host + re.sub(own, str(number), path)


def _source_of(reply: Reply) -> Any:
    return getattr(getattr(reply.attempt, "job", None), "source", None)


def failure_sentence(kind: str) -> str:
    """Return what a kind of failure means, in words: "the certificate is not valid for the host"."""
    if not kind.startswith("http_"):
        return FAILURE_KINDS.get(kind, "several kinds" if kind == "other" else kind)
    status = kind.removeprefix("http_")
    phrase = {str(known.value): known.phrase for known in HTTPStatus}.get(status, "")
    return f"the site answers {status} {phrase}".rstrip()


def is_worth_repeating(kind: str) -> bool:
    """Whether asking again later may help, without anything being mended here or there."""
    status = kind.removeprefix("http_")
    if status.isdecimal():
        return not 400 <= int(status) < 500 or int(status) in _PASSING_STATUS
    return kind not in _HOPELESS | {"function"}


# How long it asks to wait.

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


def moment_of(text: str | None, time_of_day: float) -> float | None:
    """Read an HTTP date or one of ISO 8601 as seconds since 1970, or None.

    Args:
        text: A date without a zone is UTC.
        time_of_day: Now, seconds since 1970.
    """
    now = datetime.fromtimestamp(time_of_day, UTC)
    try:
        moment = http_date(text, now=now) or datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


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
