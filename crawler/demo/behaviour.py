"""How the embedded site behaves, as the Genius API does or as ordered, and what it counts."""

import math
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from crawler.demo.songs import error_body, scatter, song_body

DEMO_TOKEN = "demo-token"  # noqa: S105 - opens nothing but this site
LAST_SONG = 2_110_000
FAULT_KINDS = ("500", "reset", "cut")
MAX_FAULTS_IN_A_ROW = 3
"""A number answers rightly after so many faults, so that a crawl with 5 attempts loses nothing."""

_NO_TOKEN = "This call requires an access_token. Please see: https://genius.com/developers"  # noqa: S105
_WRONG_TOKEN = {
    "error": "invalid_token",
    "error_description": "The access token provided is expired, revoked, malformed, or invalid "
    "for other reasons.",
}


@dataclass(frozen=True)
class SiteBehaviour:
    """How the site behaves.

    Attributes:
        token: What `Authorization: Bearer …` must say; otherwise 401.
        last_song: Numbers above it have no song.
        latency_seconds: Wait before each answer.
        rate_limit: Requests per second, a second's worth at once; above it 429. None: no limit.
        retry_after_seconds: What a 429 and a 503 tell in `Retry-After`, whole seconds.
        fault_share: Share of requests, 0 to 1, that get a fault; which ones depends on number and
            attempt only, and no number gets more than `MAX_FAULTS_IN_A_ROW`.
        fault_kinds: Out of `FAULT_KINDS`: status 500, a reset instead of an answer, half a body.
        outage: `(start, length, status)`: from so many seconds after the first request, for so
            many seconds, every answer has this status (404 too is one). None: no outage.
        gzip: Compress answers for those who accept it.
    """

    token: str = DEMO_TOKEN
    last_song: int = LAST_SONG
    latency_seconds: float = 0.0
    rate_limit: float | None = None
    retry_after_seconds: int = 1
    fault_share: float = 0.0
    fault_kinds: tuple[str, ...] = FAULT_KINDS
    outage: tuple[float, float, int] | None = None
    gzip: bool = False


class SiteRequest(NamedTuple):
    """One request: `target` as sent, header names in lower case, whether more may follow."""

    method: bytes
    target: bytes
    headers: dict[bytes, bytes]
    keep_alive: bool


class SiteReply(NamedTuple):
    """What goes out: an HTTP status, its body, further header lines, and a fault to put on it.

    Attributes:
        fault: `reset` (nothing is sent), `cut` (half the body, then the end) or empty.
    """

    status: int
    body: bytes
    extra: bytes = b""
    fault: str = ""


class Site:
    """One site: its behaviour, its counts, and what it has to remember to keep to the first."""

    def __init__(self, behaviour: SiteBehaviour) -> None:
        self.behaviour = behaviour
        self.counts = Counts()
        self._bearer = b"Bearer " + behaviour.token.encode()
        self._tokens, self._refilled_at = behaviour.rate_limit or 0.0, -math.inf
        self._first_request_at: float | None = None

    def reply(self, request: SiteRequest, now: float) -> SiteReply:
        """Decide what a request gets, and count it; `now` is of the monotonic clock, seconds."""
        self.counts.arrived(now)
        if self._first_request_at is None:
            self._first_request_at = now
        song_num = _song_num(request.target)
        attempt = 0 if song_num is None else self.counts.asked(song_num)
        refused = self._refuse(request, now)
        if refused is not None:
            return refused
        if song_num is None:
            return error_reply(404, "Not found")
        return self._song(song_num, attempt)

    def _refuse(self, request: SiteRequest, now: float) -> SiteReply | None:
        """Answer what is refused before anybody looks for a song; None: nothing is."""
        if request.method != b"GET":
            return error_reply(405, "Method not allowed", b"Allow: GET\r\n")
        out_of_order = self._outage_status(now)
        if out_of_order is not None:
            return self._told_to_wait(out_of_order, "The site is out of order", now)
        if not self._has_room(now):
            return self._told_to_wait(429, "Too many requests", now)
        sent = request.headers.get(b"authorization")
        if sent is None:
            return error_reply(401, _NO_TOKEN)
        if sent != self._bearer:
            return SiteReply(401, msgspec.json.encode(_WRONG_TOKEN))
        return None

    def _song(self, song_num: int, attempt: int) -> SiteReply:
        fault = self._fault(song_num, attempt)
        if fault == "500":
            return error_reply(500, "Internal error, ordered")
        body = None if song_num > self.behaviour.last_song else song_body(song_num)
        if body is None:
            return error_reply(404, "Not found")._replace(fault=fault)
        return SiteReply(200, body, fault=fault)

    def _fault(self, song_num: int, attempt: int) -> str:
        """Choose the fault of an attempt, the first of a number being 1; empty: none."""
        if not self.behaviour.fault_share or attempt > MAX_FAULTS_IN_A_ROW:
            return ""
        bits = scatter(scatter(song_num) ^ attempt)
        if (bits >> 11) * 2.0**-53 >= self.behaviour.fault_share:
            return ""
        return self.behaviour.fault_kinds[bits % len(self.behaviour.fault_kinds)]

    def _outage_status(self, now: float) -> int | None:
        """Return the status that every answer has now, or None outside the outage."""
        if self.behaviour.outage is None or self._first_request_at is None:
            return None
        start, length, status = self.behaviour.outage
        return status if start <= now - self._first_request_at < start + length else None

    def _has_room(self, now: float) -> bool:
        """Take a token from the bucket, which holds a second's worth and fills at that rate."""
        limit = self.behaviour.rate_limit
        if limit is None:
            return True
        self._tokens = min(max(limit, 1.0), self._tokens + (now - self._refilled_at) * limit)
        self._refilled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _told_to_wait(self, status: int, message: str, now: float) -> SiteReply:
        if status not in (429, 503):
            return error_reply(status, message)
        seconds = self.behaviour.retry_after_seconds
        self.counts.told_to_wait_until = max(self.counts.told_to_wait_until, now + seconds)
        return error_reply(status, message, b"Retry-After: %d\r\n" % seconds)


def _song_num(target: bytes) -> int | None:
    """Read the number out of `/songs/123`, or None for any other address."""
    before, _, number = target.partition(b"?")[0].rpartition(b"/")
    if before != b"/songs" or not number.isdigit() or len(number) > 15:
        return None
    return int(number)


def error_reply(status: int, message: str, extra: bytes = b"") -> SiteReply:
    """Answer with a status and the API's words for it."""
    return SiteReply(status, error_body(status, message), extra)


ARRIVALS_KEPT = 100_000
"""Arrival times are kept for the last so many requests, so that memory stays flat."""

_PAGE = 4096


class Counts:
    """Counts of one site; used by its event loop's thread only.

    Attributes:
        requests: Requests for anything but the counts themselves.
        answers: Answers by status, and `reset`, `cut` (faults on order), `hung_up` (by the client).
        arrivals: Seconds of the monotonic clock at which the latest requests came.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.answers: Counter[str] = Counter()
        self.arrivals: deque[float] = deque(maxlen=ARRIVALS_KEPT)
        self.connections = self.open_connections = self.max_open_connections = 0
        self.in_flight = self.max_in_flight = 0
        self.numbers_asked = self.numbers_asked_again = 0
        self.told_to_wait_until = float("-inf")
        self.while_told_to_wait = 0
        self._asked: dict[int, bytearray] = {}

    def connected(self) -> None:
        """Count a connection that opens."""
        self.connections += 1
        self.open_connections += 1
        self.max_open_connections = max(self.max_open_connections, self.open_connections)

    def disconnected(self) -> None:
        """Count a connection that ends."""
        self.open_connections -= 1

    def arrived(self, now: float) -> None:
        """Count a request at the moment it has been read."""
        self.requests += 1
        self.arrivals.append(now)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        if now < self.told_to_wait_until:
            self.while_told_to_wait += 1

    def answered(self, outcome: str) -> None:
        """Count the answer to a request, or what it got instead."""
        self.in_flight -= 1
        self.answers[outcome] += 1

    def asked(self, song_num: int) -> int:
        """Count a request for a number; returns the count with it, which ends at 255."""
        page, place = divmod(song_num, _PAGE)
        times = self._asked.setdefault(page, bytearray(_PAGE))
        if times[place] < 255:
            times[place] += 1
        if times[place] == 1:
            self.numbers_asked += 1
        elif times[place] == 2:
            self.numbers_asked_again += 1
        return times[place]

    def times_asked(self, song_num: int) -> int:
        """Requests for a number so far; 255 stands for 255 or more."""
        page, place = divmod(song_num, _PAGE)
        return self._asked[page][place] if page in self._asked else 0

    def snapshot(self, *, arrivals: bool) -> dict[str, Any]:
        """All counts as they stand, ready for JSON; with the arrival times where they are wanted.

        Returns:
            Each attribute by name; `busiest_second`: requests in that second in which most of the
            arrivals kept came; `while_told_to_wait`: requests that came between a 429 or 503 and
            the end of its `Retry-After`, those that were under way then included.
        """
        hidden = {"arrivals", "told_to_wait_until", "_asked"}
        counts = {name: value for name, value in vars(self).items() if name not in hidden}
        counts |= {"answers": dict(self.answers), "busiest_second": busiest_second(self.arrivals)}
        return counts | {"arrivals": list(self.arrivals)} if arrivals else counts


def busiest_second(arrivals: Iterable[float]) -> int:
    """Count the requests in that second, wherever it begins, in which most came.

    Their times ascend.
    """
    window: deque[float] = deque()
    most = 0
    for moment in arrivals:
        window.append(moment)
        while window[0] <= moment - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most
