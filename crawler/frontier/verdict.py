"""What one reply means for its number: found, missing, try again, failed, or refused."""

from typing import Any, Literal

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
_RETRIED_STATUS = {408, 429, 500, 502, 503, 504}
_SETUP_KINDS = {"dns", "tls"}

Action = Literal["found", "missing", "retry", "failed", "refused"]


class Reply(msgspec.Struct, gc=False):
    """What an engine hands back for one attempt.

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
    """

    action: Action
    kind: str | None = None
    is_counted: bool = True
    is_overload: bool = False
    is_setup: bool = False
    is_excused: bool = False


_MISSING = Verdict("missing")


def judge(reply: Reply) -> Verdict:
    """Turn one reply into its verdict; the only place where a status or a fault gets a meaning."""
    status, error = reply.status, reply.error
    if reply.found:
        return Verdict("found")
    if error == "missing" or status in (404, 410):
        return _MISSING
    if status in (401, 403):
        return Verdict("refused", f"http_{status}")
    if status == 429 or (status == 503 and reply.header("retry-after") is not None):
        return Verdict("retry", f"http_{status}", is_counted=status != 429, is_overload=True)
    if error is None and status is None:
        error = "protocol"
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
