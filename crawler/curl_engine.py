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

from crawler.body import MAX_BODY_BYTES
from crawler.curl_answers import read_failure, read_page
from crawler.curl_handles import Transfer, handle_options, header_lines
from crawler.details import detail_of, in_words
from crawler.frontier import Frontier
from crawler.verdict import Reply
from crawler.work import Attempt

BODY_BUDGET_BYTES = 64 << 20
"""Bodies in flight over all connections; beyond it the largest are cut and tried again."""

_LOOK_SECONDS = 0.5
_WEIGH_SECONDS = 0.02


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


class CurlLane:
    """One thread's loop around a `CurlMulti`; it cannot get stuck, so it is never replaced."""

    blocked_on: Attempt | None = None

    def __init__(self, engine: CurlEngine) -> None:
        self._options = handle_options(
            user_agent=engine.user_agent,
            attempt_seconds=engine.attempt_seconds,
            ca_file=engine.ca_file,
            may_send=self._may_send,
        )
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, engine.connections)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, engine.connections)
        self._free: list[Transfer] = []
        self._busy: set[Transfer] = set()
        self._unopened = engine.connections
        self._is_weighed = engine.connections * MAX_BODY_BYTES > BODY_BUDGET_BYTES
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
        try:
            if source is not transfer.source:
                handle.setopt(pycurl.HTTPHEADER, header_lines(source))
                transfer.source = source
            handle.setopt(pycurl.URL, source.url(attempt.song_num))
        except Exception as error:  # noqa: BLE001 - a source is anybody's code
            self._free.append(transfer)
            detail = detail_of(in_words(error))
            self._frontier.hand_back([Reply(attempt, error="function", detail=detail)])
            return
        self._busy.add(transfer)
        self._started += 1
        self._multi.add_handle(handle)

    def _collect(self) -> bool:
        """Drive the transfers, hand back those that ended; say whether there were any."""
        self._multi.perform()
        _, done, broken = self._multi.info_read(len(self._busy))
        if not (done or broken):
            if self._is_weighed:
                self._weigh()
            return False
        replies = [self._read(self._release(handle)) for handle in done]
        held = []
        for handle, number, message in broken:
            transfer = self._release(handle)
            if handle.getinfo(pycurl.PRETRANSFER_TIME) == 0:
                self._started -= 1  # it never came to sending
            if number == pycurl.E_ABORTED_BY_CALLBACK:
                held.append(transfer.attempt)
            else:
                replies.append(self._read_failure(transfer, number, message))
        self._settle_repeats()
        if held:
            self._frontier.put_back(held)
        self._frontier.hand_back(replies)
        return True

    def _release(self, handle: Any) -> Transfer:
        self._multi.remove_handle(handle)
        transfer: Transfer = handle.transfer
        self._busy.discard(transfer)
        self._free.append(transfer)
        return transfer

    def _read(self, transfer: Transfer) -> Reply:
        status = transfer.handle.getinfo(pycurl.RESPONSE_CODE)
        source: Any = transfer.source
        return read_page(transfer.attempt, source, status, transfer.lines, transfer.chunks)

    def _read_failure(self, at: Transfer, number: int, message: str) -> Reply:
        source: Any = at.source
        return read_failure(at.attempt, source, at.handle, number, message, at.lines)

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

    def _open(self) -> Transfer:
        self._unopened -= 1
        handle = pycurl.Curl()
        for option, value in self._options.items():
            handle.setopt(option, value)
        return Transfer(handle)

    def _close(self) -> None:
        for transfer in [*self._busy, *self._free]:
            with contextlib.suppress(pycurl.error):
                self._multi.remove_handle(transfer.handle)
            del transfer.handle.transfer  # a circle that would wait for the collector
            transfer.handle.close()
        self._multi.close()
        self._options.clear()  # holds a method of this lane: another circle
