"""What one reply means for its number: found, missing, try again, failed, refused, or barred."""

import re
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
    "schema": "the body is not shaped like a song page",
    "mismatch": "the body is about another song",
    "too_large": "the body is larger than any song page",
    "redirect": "the site points elsewhere; not followed",
    "robots": "robots.txt does not allow this page",
    "function": "the step 1 function raised, took nothing, or appended something else",
}
"""Why an attempt failed, one word each; a status that settles nothing is `http_<status>`."""

_HOPELESS = {"too_large", "redirect", "robots"}
_PASSING_STATUS = {401, 403, 408, 421, 425, 429}
_MISSING_STATUS = {404, 410, 451}
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

    def header(self, name: str) -> str | None:
        """Return a header of the answer by its name in lower case, None where there is none."""
        return None if self.headers is None else self.headers.get(name)


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
    location, attempt = reply.header("location"), reply.attempt
    source = _source_of(reply)
    if not location or not hasattr(source, "url"):
        return None
    target = urljoin(source.url(attempt.song_num), location.strip())
    for digits in re.findall(r"[0-9]{1,12}", target, re.ASCII)[-_MOST_NUMBERS:]:
        number = int(digits)
        if number != attempt.song_num and source.url(number) == target:
            return number
    return None


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
