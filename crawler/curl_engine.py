"""The `curl` engine: libcurl's multi interface in one lane, many requests on one thread.

What can be done in C is: total and connect deadlines, size limits, connection reuse, HTTP/2.
Python is called once per header line and chunk, by a list's own `append`, and once before each
request is sent.
"""

import contextlib
import time
from typing import Any

import certifi
import pycurl

from crawler.body import MAX_BODY_BYTES, decode_body
from crawler.errors import Missing, PageError
from crawler.frontier import Frontier
from crawler.source import Source
from crawler.verdict import Reply
from crawler.work import Attempt

CONNECT_SECONDS = 10.0
STALLED_SECONDS = 10
IDLE_CONNECTION_SECONDS = 20
"""An idle connection is let go before a site usually does: libcurl would quietly send again."""

MAX_HEADER_LINES = 100
MAX_HEADER_BYTES = 64 * 1024
BODY_BUDGET_BYTES = 64 << 20
"""Bodies in flight over all connections; beyond it the largest are cut and tried again."""

_LOOK_SECONDS = 0.5
_WEIGH_SECONDS = 0.02

_KINDS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_SSL_CONNECT_ERROR: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_GOT_NOTHING: "connection",
    pycurl.E_RECV_ERROR: "connection",
    pycurl.E_SEND_ERROR: "connection",
    pycurl.E_PARTIAL_FILE: "connection",
    pycurl.E_HTTP2: "connection",
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_BAD_CONTENT_ENCODING: "encoding",
}
"""Kinds of failure by libcurl's error number; any other is `protocol`."""


class CurlEngine:
    """Runs a source in one lane with so many connections."""

    name = "curl"
    lane_count = 1

    def __init__(
        self,
        connections: int,
        *,
        user_agent: str,
        attempt_seconds: float,
        ca_file: str | None = None,
    ) -> None:
        """Prepare; `ca_file` replaces the usual certificate authorities (certifi's)."""
        self.connections = connections
        self.attempt_seconds = attempt_seconds
        self.user_agent = user_agent
        self.ca_file = ca_file or certifi.where()

    def open_lane(self) -> "CurlLane":
        """Make the lane."""
        return CurlLane(self)


class _Transfer:
    """One reusable handle, with what the transfer under way has received."""

    __slots__ = ("attempt", "chunks", "handle", "lines", "source")

    def __init__(self, handle: pycurl.Curl) -> None:
        self.handle = handle
        self.lines: list[bytes] = []
        self.chunks: list[bytes] = []
        self.attempt: Attempt
        self.source: Source | None = None
        handle.transfer = self
        handle.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        handle.setopt(pycurl.WRITEFUNCTION, self.chunks.append)


class CurlLane:
    """One thread's loop around a `CurlMulti`; it cannot get stuck, so it is never replaced."""

    blocked_on: Attempt | None = None

    def __init__(self, engine: CurlEngine) -> None:
        self._engine = engine
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, engine.connections)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, engine.connections)
        self._free: list[_Transfer] = []
        self._busy: set[_Transfer] = set()
        self._unopened = engine.connections
        self._sent = self._started = 0
        self._weighed_at = 0.0
        self._frontier: Frontier

    def run(self, frontier: Frontier) -> None:
        """Perform attempts until there are none; after the run was closed, to the grace's end."""
        self._frontier = frontier
        try:
            while frontier.grace_left() > 0:
                wait = self._start_due()
                if not self._busy:
                    if wait is None:
                        return
                    frontier.rest(min(wait, _LOOK_SECONDS))
                elif not self._collect():
                    self._sleep(_LOOK_SECONDS if wait is None else wait)
        finally:
            self._close()

    def _start_due(self) -> float | None:
        """Start what is due on the handles that are free; say when there will be more."""
        room = len(self._free) + self._unopened
        if room == 0:
            return _LOOK_SECONDS
        attempts, wait = self._frontier.take(room)
        for attempt in attempts:
            self._start(attempt)
        return wait

    def _start(self, attempt: Attempt) -> None:
        transfer = self._free.pop() if self._free else self._open()
        transfer.attempt = attempt
        transfer.lines.clear()
        transfer.chunks.clear()
        source = attempt.job.source
        handle = transfer.handle
        if source is not transfer.source:
            transfer.source = source
            handle.setopt(pycurl.HTTPHEADER, self._header_lines(source))
        handle.setopt(pycurl.URL, source.url(attempt.song_num))
        self._busy.add(transfer)
        self._started += 1
        self._multi.add_handle(handle)

    def _collect(self) -> bool:
        """Drive the transfers, hand back those that ended; say whether there were any."""
        self._multi.perform()
        _, done, broken = self._multi.info_read(len(self._busy))
        if not (done or broken):
            self._weigh()
            return False
        replies = [self._read(self._release(handle)) for handle in done]
        held = []
        for handle, number, message in broken:
            transfer = self._release(handle)
            if number == pycurl.E_ABORTED_BY_CALLBACK:
                held.append(transfer.attempt)
                self._started -= 1
            else:
                replies.append(self._read_failure(transfer, number, message))
        self._settle_repeats()
        if held:
            self._frontier.put_back(held)
        self._frontier.hand_back(replies)
        return True

    def _release(self, handle: Any) -> _Transfer:
        self._multi.remove_handle(handle)
        transfer: _Transfer = handle.transfer
        self._busy.discard(transfer)
        self._free.append(transfer)
        return transfer

    def _read(self, transfer: _Transfer) -> Reply:
        """Turn a whole answer into a reply."""
        attempt, lines = transfer.attempt, transfer.lines
        status = transfer.handle.getinfo(pycurl.RESPONSE_CODE)
        if status != 200:
            return _refused(attempt, status, lines)
        chunks = transfer.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        num = attempt.song_num
        try:
            encoding = _check_head(b"".join(lines).lower())
            if len(lines) > MAX_HEADER_LINES:
                raise PageError("protocol", f"more than {MAX_HEADER_LINES} header lines")
            if encoding or len(body) > MAX_BODY_BYTES:
                body = decode_body(body, encoding)
            return Reply(attempt, True, transfer.source.info(num, body), 200)  # type: ignore[union-attr]
        except PageError as error:
            return Reply(attempt, status=200, error=error.kind, detail=error.detail)
        except Missing:
            return Reply(attempt, status=200, error="missing")

    def _read_failure(self, transfer: _Transfer, number: int, message: str) -> Reply:
        """Turn a broken transfer into a reply; what came of a status counts all the same."""
        kind = _KINDS.get(number, "protocol")
        if kind == "timeout" and message.startswith("Resolving"):
            kind = "dns"
        status = transfer.handle.getinfo(pycurl.RESPONSE_CODE)
        reply = _refused(transfer.attempt, status or None, transfer.lines)
        reply.error, reply.detail = kind, message
        return reply

    def _settle_repeats(self) -> None:
        """Pay for requests that libcurl sent again by itself on a fresh connection."""
        repeats = self._sent - self._started
        if repeats > 0:
            self._sent = self._started
            self._frontier.charge(repeats)

    def _may_send(self, *_connection: Any) -> int:
        """Asked by libcurl when a connection stands and the request is about to be sent."""
        if self._frontier.resume_at > time.monotonic():
            return int(pycurl.PREREQFUNC_ABORT)
        self._sent += 1
        return int(pycurl.PREREQFUNC_OK)

    def _weigh(self) -> None:
        """Keep bodies in flight within their budget: cut off the largest, to be tried again."""
        now = time.monotonic()
        if self._engine.connections * MAX_BODY_BYTES <= BODY_BUDGET_BYTES:
            return
        if now - self._weighed_at < _WEIGH_SECONDS:
            return
        self._weighed_at = now
        weights = [(sum(map(len, t.chunks)), id(t), t) for t in self._busy if len(t.chunks) > 1]
        excess = sum(weight for weight, _, _ in weights) - BODY_BUDGET_BYTES
        for weight, _, transfer in sorted(weights, reverse=True):
            if excess <= 0:
                return
            excess -= weight
            self._release(transfer.handle)
            transfer.chunks.clear()
            detail = "bodies in flight exceeded their budget"
            reply = Reply(transfer.attempt, error="connection", detail=detail)
            self._frontier.hand_back([reply])

    def _sleep(self, seconds: float) -> None:
        """Wait for the network, at most until the next attempt is due or libcurl has to act."""
        timeout = self._multi.timeout()
        if timeout >= 0:
            seconds = min(seconds, timeout / 1000)
        if seconds > 0 and self._multi.select(min(seconds, _LOOK_SECONDS)) == -1:
            time.sleep(min(seconds, 0.005))  # names are being resolved: nothing to wait on

    def _open(self) -> _Transfer:
        self._unopened -= 1
        handle = pycurl.Curl()
        for option, value in self._options().items():
            handle.setopt(option, value)
        return _Transfer(handle)

    def _options(self) -> dict[int, Any]:
        return {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.PROXY: "",
            pycurl.NETRC: pycurl.NETRC_IGNORED,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
            pycurl.HTTP09_ALLOWED: 0,
            pycurl.HTTP_CONTENT_DECODING: 0,
            pycurl.SSL_VERIFYPEER: 1,
            pycurl.SSL_VERIFYHOST: 2,
            pycurl.CAINFO: self._engine.ca_file,
            pycurl.TIMEOUT_MS: int(self._engine.attempt_seconds * 1000),
            pycurl.CONNECTTIMEOUT_MS: int(
                min(CONNECT_SECONDS, self._engine.attempt_seconds) * 1000
            ),
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: STALLED_SECONDS,
            pycurl.MAXFILESIZE: MAX_BODY_BYTES,
            pycurl.MAXAGE_CONN: IDLE_CONNECTION_SECONDS,
            pycurl.TCP_NODELAY: 1,
            pycurl.USERAGENT: self._engine.user_agent,
            pycurl.PREREQFUNCTION: self._may_send,
        }

    def _header_lines(self, source: Source) -> list[str]:
        return [
            "Accept-Encoding: gzip",
            *(f"{name}: {value}" for name, value in source.headers().items()),
        ]

    def _close(self) -> None:
        for transfer in [*self._busy, *self._free]:
            with contextlib.suppress(pycurl.error):
                self._multi.remove_handle(transfer.handle)
            del transfer.handle.transfer  # a circle that would wait for the collector
            transfer.handle.close()
        self._multi.close()


def _check_head(head: bytes) -> str:
    """Look through the head of a 200 in lower case; say the content encoding, "" for none.

    Raises:
        PageError: `protocol`: too large, or its length is in doubt (RFC 9112, section 6.3).
    """
    if len(head) > MAX_HEADER_BYTES:
        raise PageError("protocol", f"more than {MAX_HEADER_BYTES} bytes of headers")
    if b"\ntransfer-encoding:" in head and b"\ncontent-length:" in head:
        raise PageError("protocol", "both Content-Length and Transfer-Encoding")
    if b"\ncontent-encoding:" not in head:
        return ""
    return _header(head.split(b"\n"), b"content-encoding") or ""


def _refused(attempt: Attempt, status: int | None, lines: list[bytes]) -> Reply:
    """Make the reply of an answer that is not a page, with the headers that policy needs."""
    return Reply(
        attempt,
        status=status,
        retry_after=_header(lines, b"retry-after"),
        date=_header(lines, b"date"),
    )


def _header(lines: list[bytes], name: bytes) -> str | None:
    """Find a header among raw lines; repeated ones are joined, as RFC 9110 section 5.3 says."""
    prefix = name + b":"
    values = [
        line[len(prefix) :].strip().decode("latin-1")
        for line in lines[-MAX_HEADER_LINES * 2 :]
        if line[: len(prefix)].lower() == prefix
    ]
    return ", ".join(values) if values else None
