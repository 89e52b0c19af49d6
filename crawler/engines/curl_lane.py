"""The lane of the `curl` engine: libcurl's multi interface, many requests on one thread.

What can be done in C is. Python is called once per header line and chunk, by a list's own `append`,
and once before each request is sent.
"""

import contextlib
import threading
import time
from typing import Any

import pycurl

from crawler.engines import curl_handles
from crawler.engines.body import MAX_BODY_BYTES
from crawler.engines.curl_answers import read_failure, read_page
from crawler.engines.curl_handles import Handles, Transfer, header_lines, to_cut
from crawler.engines.details import detail_of, in_words
from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt

_LOOK_SECONDS = 0.5
_NAP_SECONDS = 0.02  # from 50 a second on the lane wakes so often: a slow pace costs its wakings
_WEIGH_SECONDS = 0.02
_REPEATS = 5  # and a tenth of all: reusing connections costs more than it saves
_SEND, _ABORT = int(pycurl.PREREQFUNC_OK), int(pycurl.PREREQFUNC_ABORT)


class CurlLane:
    """One thread's loop around a `CurlMulti`; it cannot get stuck, so it is never replaced."""

    blocked_on: Attempt | None = None

    def __init__(self, connections: int, options: dict[int, Any]) -> None:
        """Prepare a lane with so many connections, whose handles have these options."""
        options = options | {pycurl.PREREQFUNCTION: self._may_send}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, connections)
        self._busy: set[Transfer] = set()
        self._is_weighed = connections * MAX_BODY_BYTES > curl_handles.BODY_BUDGET_BYTES
        # Until the first connection stands nobody knows whether requests can share it (HTTP/2), so
        # only one is begun. Not libcurl's PIPEWAIT: what waits there knows no deadline while a
        # name is being resolved (8.23, measured 2026-11-22).
        self._is_acquainted = False
        self._is_resolving = False
        if self._is_weighed:
            options[pycurl.BUFFERSIZE] = curl_handles.PIECE_BYTES
        self._handles = Handles(connections, options)
        self._sent = self._started = self._repeats = 0
        self._weighed_at = 0.0
        self._frontier: Frontier

    def give_up(self) -> None:
        """Nothing: it holds what no other lane could use."""

    def run(self, frontier: Frontier) -> None:
        """Perform attempts until there are none; after the run was closed, to the grace's end."""
        self._frontier = frontier
        has_slept = False
        try:
            while frontier.grace_left() > 0:
                if has_slept:  # what came meanwhile may ask for a pause: it is read first
                    has_slept = False
                    self._collect()
                started_before = self._started
                wait = self._start_due()
                if not self._busy:
                    if wait is None:
                        return
                    frontier.rest(min(wait, _LOOK_SECONDS))
                    continue
                if self._started > started_before and self._collect():
                    continue
                self._sleep(_LOOK_SECONDS if wait is None else wait)
                has_slept = True
        finally:
            self._close()

    def _start_due(self) -> float | None:
        """Start what is due on the handles that are free; say when there will be more."""
        room = self._handles.room()
        if not self._is_acquainted:
            room = 0 if self._busy else 1
        if room == 0:
            return _LOOK_SECONDS
        attempts, wait = self._frontier.take(room)
        for attempt in attempts:
            self._start(attempt)
        return wait

    def _start(self, attempt: Attempt) -> None:
        transfer = self._handles.take()
        transfer.attempt = attempt
        source = attempt.job.source
        try:
            if source is not transfer.source:
                transfer.setopt(pycurl.HTTPHEADER, header_lines(source))
                transfer.source = source
            transfer.setopt(pycurl.URL, source.url(attempt.song_num))
        except Exception as error:  # noqa: BLE001 - a source is anybody's code
            self._handles.give_back(transfer)
            detail = detail_of(in_words(error))
            self._frontier.hand_back([Reply(attempt, error="function", detail=detail)])
            return
        self._busy.add(transfer)
        self._started += 1
        self._multi.add_handle(transfer.handle)

    def _collect(self) -> bool:
        """Drive the transfers, hand back those that ended; say whether there is more to do now."""
        if self._is_weighed:
            self._weigh()
        was_acquainted = self._is_acquainted
        self._multi.perform()
        _, done, broken = self._multi.info_read(len(self._busy))
        if not (done or broken):
            return self._is_acquainted is not was_acquainted
        self._is_acquainted = True
        replies, held = [self._read(self._release(handle)) for handle in done], []
        for handle, number, message in broken:
            transfer = self._release(handle)
            if handle.getinfo(pycurl.PRETRANSFER_TIME) == 0:
                self._started -= 1  # it never came to sending
            if number == pycurl.E_ABORTED_BY_CALLBACK:
                held.append(transfer.attempt)
                self._handles.give_back(transfer)
            else:
                replies.append(self._read_failure(transfer, number, message))
        self._settle_repeats()
        if held:
            self._frontier.put_back(held)
        self._frontier.hand_back(replies)
        return True

    def _release(self, handle: Any) -> Transfer:
        self._multi.remove_handle(handle)
        transfer = self._handles.transfers[handle]
        self._busy.discard(transfer)
        return transfer

    def _read(self, transfer: Transfer) -> Reply:
        status = transfer.getinfo(pycurl.RESPONSE_CODE)
        source: Any = transfer.source
        reply = read_page(transfer.attempt, source, status, transfer.lines, transfer.chunks)
        self._handles.give_back(transfer)
        return reply

    def _read_failure(self, at: Transfer, number: int, message: str) -> Reply:
        source: Any = at.source
        reply = read_failure(at.attempt, source, at.handle, number, message, at.lines)
        self._handles.give_back(at)
        self._is_resolving |= reply.error == "dns"
        return reply

    def _settle_repeats(self) -> None:
        """Pay for requests that libcurl sent again by itself on a fresh connection."""
        repeats = self._sent - self._started
        if repeats > 0:
            self._sent = self._started
            self._frontier.charge(repeats)
            self._repeats += repeats
            if self._repeats >= _REPEATS and self._repeats * 10 > self._started:
                # The site ends connections without a word: each request gets one of its own.
                self._handles.set_option(pycurl.FORBID_REUSE, 1)

    def _may_send(self, *_connection: Any) -> int:
        """Asked by libcurl when a connection stands and the request is about to be sent."""
        self._is_acquainted = True
        if self._frontier.resume_at > time.monotonic():
            return _ABORT
        self._sent += 1
        return _SEND

    def _weigh(self) -> None:
        """Keep bodies in flight within their budget: cut off the largest, and ask again later.

        That is no fault of the site's, so it counts against nobody; what was sent is paid for.
        """
        now = time.monotonic()
        if now - self._weighed_at < _WEIGH_SECONDS:
            return
        self._weighed_at = now
        for transfer in to_cut(self._busy):
            self._handles.give_back(self._release(transfer.handle))
            self._frontier.put_back([transfer.attempt])
            self._frontier.charge(1)

    def _sleep(self, seconds: float) -> None:
        """Wait for the network, an attempt that is due, or libcurl; what is due soon, for a nap."""
        timeout, is_soon = self._multi.timeout(), seconds <= _NAP_SECONDS
        if timeout == 0 or seconds <= 0:
            return
        seconds = min(seconds, _LOOK_SECONDS, timeout / 1000 if timeout > 0 else _LOOK_SECONDS)
        if is_soon or self._multi.select(seconds) == -1:  # -1: nothing to wait on but a name server
            time.sleep(_NAP_SECONDS if is_soon else min(seconds, 0.005))

    def _close(self) -> None:
        for transfer in self._busy:
            with contextlib.suppress(pycurl.error):
                self._multi.remove_handle(transfer.handle)
        self._handles.close()
        if self._is_resolving:
            # It waits until the system's resolver gives up, half a minute; nobody else shall.
            threading.Thread(target=self._multi.close, name="resolver", daemon=True).start()
        else:
            self._multi.close()
