"""The transfers under way on libcurl's multi interface: begun, driven, weighed and ended.

What can be done in C is. Python is called once per header line and piece of a body, by a list's own
`append` or a byte array's `extend`, and once before each request is sent.
"""

import functools
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pycurl

from crawler.errors import PageError
from crawler.frontier.work import PendingNumber
from crawler.wire.answers import MAX_HEADER_LINES, PlainLines, WireAnswer
from crawler.wire.body import MAX_BODY_BYTES
from crawler.wire.transfer import CONNECT_SECONDS, SHORT_BODY_BYTES, Transfer

BODY_BUDGET_BYTES = 64 << 20
"""Bodies in flight over all connections, and those that functions have not done with."""

IDLE_CONNECTION_SECONDS = 20
"""An idle connection is let go before a site usually does: libcurl would quietly send again."""

_BEGIN_BELOW = 3 / 8
"""With more than this share of the budget taken, no request is begun."""

_CUT_AT = 1 / 2
"""With more than this share in flight the largest bodies are cut off, and asked for again later:
the rest is for what comes between two looks."""

_PIECE_BYTES = 4096
"""Size of libcurl's pieces where many connections share a budget: it reads ten of each in a turn."""

_WEIGH_SECONDS = 0.02
_LOOK_SECONDS = 0.5
_LATEST = 16  # bodies over which their usual length is reckoned
_REPEATS = 5  # and a tenth of all: reusing connections costs more than it saves
_SEND, _ABORT = int(pycurl.PREREQFUNC_OK), int(pycurl.PREREQFUNC_ABORT)

Ended = tuple[Any, WireAnswer]
"""What was asked, the attempt or the request that its transfer was set for, and what came of it."""


class Transfers:
    """So many handles on one multi interface. All but `let_go` is for one thread."""

    def __init__(
        self,
        connections: int,
        *,
        attempt_seconds: float,
        ca_file: str,
        body_budget_bytes: int,
        is_one_site: bool = True,
    ) -> None:
        """Prepare; without `is_one_site` no page waits until another's first connection stands.

        For the other arguments see `crawler.wire.wire.Wire`.
        """
        self._budget_bytes = body_budget_bytes
        self._options = _options(attempt_seconds, ca_file)
        if connections * MAX_BODY_BYTES > body_budget_bytes:
            self._options[pycurl.BUFFERSIZE] = _PIECE_BYTES
        self._unopened, self._plain_lines = connections, PlainLines()
        self._free: list[Transfer] = []
        self._by_handle: dict[Any, Transfer] = {}
        self._busy: set[Transfer] = set()
        self._silent_since: dict[Transfer, tuple[Any, float]] = {}
        # Until the first connection to a site stands nobody knows whether requests can share it
        # (HTTP/2), so one is begun. Not PIPEWAIT: it knows no deadline while a name is resolved.
        self._met: set[str] = set() if is_one_site else {""}
        self._meeting: set[str] = set()
        self._pins: dict[str, str] = {}
        self._unread_pins: list[str] = []
        self._begun = self._repeats = 0
        self._usual_bytes = self._in_flight_bytes = 0.0
        self._delivered_bytes, self._delivered_lock = 0, threading.Lock()
        self._weighed_at = self._driven_at = 0.0
        self._is_resolving = False
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, connections)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, connections)

    def __len__(self) -> int:
        """Count those under way."""
        return len(self._busy)

    def room(self, origin: str = "") -> int:
        """Count the transfers to a site that may begin now: by handles, acquaintance and memory."""
        expected = max(self._in_flight_bytes, len(self._busy) * self._usual_bytes)
        if expected + self._delivered_bytes >= _BEGIN_BELOW * self._budget_bytes:
            return 0
        free = len(self._free) + self._unopened
        if origin in self._met:
            return free
        return 0 if origin in self._meeting else min(free, 1)

    def take(self) -> Transfer:
        """Return a free transfer, to be set, and then begun or finished; there must be room."""
        return self._free.pop() if self._free else self._open()

    def begin(self, transfer: Transfer) -> None:
        """Begin what the transfer was set for."""
        self._busy.add(transfer)
        self._begun += 1
        if transfer.origin not in self._met:
            self._meeting.add(transfer.origin)
        request = transfer.request
        if request is not None and request.read_seconds is not None:
            now = time.monotonic()
            if now + request.read_seconds < request.deadline:
                self._silent_since[transfer] = (None, now)
        self._multi.add_handle(transfer.handle)

    def begin_page(self, attempt: PendingNumber, user_agent: str) -> None:
        """Begin an attempt at a source's page; there must be room.

        Raises:
            Exception: What the source raised.
        """
        transfer = self._free.pop() if self._free else self._open()
        try:
            transfer.begin_page(attempt, user_agent)
        except BaseException:
            self.finish(transfer)
            raise
        self._busy.add(transfer)
        self._begun += 1
        if "" not in self._met:
            self._meeting.add("")
        self._multi.add_handle(transfer.handle)

    def collect(self) -> tuple[list[Ended], bool]:
        """Drive them all; return those that ended, and whether there is more to do at once."""
        ended: list[Ended] = []
        self._driven_at = now = time.monotonic()
        if now - self._weighed_at >= _WEIGH_SECONDS or self._is_filling():
            self._weigh(now, ended)
        met_before = len(self._met)
        self._multi.perform()
        _, done, broken = self._multi.info_read(len(self._busy) or 1)
        by_handle, end = self._by_handle, self._end
        ended += [end(by_handle[handle]) for handle in done]
        ended += [end(by_handle[handle], number, message) for handle, number, message in broken]
        if self._unread_pins:
            self._set_option(pycurl.RESOLVE, self._unread_pins)
            self._unread_pins = []
        return ended, bool(ended) or len(self._met) > met_before

    def finish(self, transfer: Transfer) -> None:
        """Take a transfer back that is not under way, and let go of what it received.

        libcurl keeps its own copy of a head until the handle is used again: one with a long head
        is closed, and another takes its place (8.23, measured 2026-11-25).
        """
        if transfer.clear() <= MAX_HEADER_LINES:
            self._free.append(transfer)
            return
        del self._by_handle[transfer.handle]
        transfer.handle.close()
        self._unopened += 1

    def wait(self, seconds: float, bell: socket.socket | None = None) -> None:
        """Wait for the network, for libcurl, for what rings the bell, or so long."""
        timeout = self._multi.timeout() if self._busy else -1
        seconds = min(seconds, timeout / 1000) if timeout >= 0 else seconds
        if seconds <= 0:
            return
        if bell is None:
            if self._multi.select(seconds) == -1:  # nothing to wait on but a name server
                time.sleep(min(seconds, 0.005))
            return
        reads, writes, errors = self._multi.fdset() if self._busy else ([], [], [])
        if self._busy and not (reads or writes):
            seconds = min(seconds, 0.005)
        select.select([bell, *reads], writes, errors, seconds)

    def nap(self, seconds: float) -> None:
        """Sleep so long, whatever comes meanwhile, unless libcurl has something to do now."""
        if self._multi.timeout() != 0:
            time.sleep(seconds)

    @property
    def is_watching(self) -> bool:
        """Whether some wait for a limit that libcurl does not keep."""
        return bool(self._silent_since)

    def let_go(self, body_bytes: int) -> None:
        """Note that nobody reads a delivered body any more. May be called from any thread."""
        self._note_delivered(-body_bytes)

    def close(self) -> list[Transfer]:
        """Break off and close them all; return those that were under way."""
        broken_off = list(self._busy)
        for transfer in broken_off:
            self._remove(transfer)
        for transfer in self._by_handle.values():
            transfer.handle.close()
        self._by_handle.clear()
        self._free.clear()
        self._options.clear()  # holds methods of this object: a circle
        if self._is_resolving:
            # It waits until the system's resolver gives up, half a minute; nobody else shall.
            threading.Thread(target=self._multi.close, name="resolver", daemon=True).start()
        else:
            self._multi.close()
        return broken_off

    # Handles.

    def _open(self) -> Transfer:
        self._unopened -= 1
        handle = pycurl.Curl()
        transfer = Transfer(handle, self._plain_lines)
        for option, value in self._options.items():
            handle.setopt(option, value)
        handle.setopt(pycurl.PREREQFUNCTION, self._gate(transfer))
        handle.setopt(pycurl.SOCKOPTFUNCTION, functools.partial(_count_socket, transfer))
        return self._by_handle.setdefault(handle, transfer)

    def _set_option(self, option: int, value: Any) -> None:
        self._options[option] = value
        for transfer in self._by_handle.values():
            transfer.setopt(option, value)

    def _gate(self, transfer: Transfer) -> Callable[..., int]:
        """Make what libcurl asks when a connection stands and a request is about to be sent.

        While its host's pause lasts, no page is asked for though its connection stands.
        """
        meeting = self._meeting

        def let_out(address: str, *_connection: Any) -> int:
            if meeting:
                self._note_met(transfer)
            if transfer.sockets > 1:
                self._pin(transfer.url, address)
            attempt = transfer.attempt
            if attempt is None:
                is_held = transfer.request is not None and not transfer.request.may_send()
            else:  # the clock is read only where its pause was not over a moment ago
                until = attempt.job.pause.until
                is_held = until > self._driven_at and until > time.monotonic()
            if is_held:
                return _ABORT
            transfer.sent += 1
            return _SEND

        return let_out

    def _note_met(self, transfer: Transfer) -> None:
        self._met.add(transfer.origin)
        self._meeting.discard(transfer.origin)

    def _pin(self, url: str, address: str) -> None:
        """Remember the address that answered, since one before it did not.

        libcurl waits 200 ms before it tries the next one, on each connection anew.
        """
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self._pins[place] = f"[{address}]" if ":" in address else address
        self._unread_pins = [f"{name}:{where}" for name, where in self._pins.items()]

    # Ends.

    def _remove(self, transfer: Transfer) -> None:
        self._multi.remove_handle(transfer.handle)
        self._busy.discard(transfer)
        self._note_end(transfer)

    def _note_end(self, transfer: Transfer) -> None:
        self._silent_since.pop(transfer, None)
        self._note_met(transfer)

    def _end(self, transfer: Transfer, number: int = 0, message: str = "") -> Ended:
        self._multi.remove_handle(transfer.handle)
        self._busy.discard(transfer)
        if self._silent_since or self._meeting:
            self._note_end(transfer)
        received_bytes = len(transfer.raw) + transfer.decoded_bytes
        self._usual_bytes += (received_bytes - self._usual_bytes) / _LATEST
        answer = transfer.end(number, message)
        if answer.error is not None:
            self._is_resolving |= answer.error == "dns"
            if self._pins and answer.error == "connect":  # it does not answer any more
                self._unread_pins = [f"-{name}" for name in self._pins]
                self._pins.clear()
        if answer.sent > 1:
            self._note_repeats(answer.sent - 1)
        asked: Any = transfer.attempt
        if asked is None:
            asked = transfer.request
            self._note_delivered(len(answer.body))
        self.finish(transfer)
        return asked, answer

    def _note_repeats(self, repeats: int) -> None:
        """Note that libcurl sent a request again by itself: its connection had been closed."""
        self._repeats += repeats
        if self._repeats >= _REPEATS and self._repeats * 10 > self._begun:
            # The site ends connections without a word: each request gets one of its own.
            self._set_option(pycurl.FORBID_REUSE, 1)

    def _note_delivered(self, body_bytes: int) -> None:
        if abs(body_bytes) > SHORT_BODY_BYTES:  # twice: as itself, and as what is made of it
            with self._delivered_lock:
                self._delivered_bytes += 2 * body_bytes

    # Limits that libcurl does not keep.

    def _is_filling(self) -> bool:
        return self._in_flight_bytes > _BEGIN_BELOW / 4 * self._budget_bytes

    def _weigh(self, now: float, ended: list[Ended]) -> None:
        """Decode what came of long bodies, cut what is too much, and end what was silent."""
        self._weighed_at = now
        weights = []
        for transfer in [each for each in self._busy if each.is_long]:
            try:
                transfer.decode_so_far()
            except PageError as error:
                asked, answer = self._end(transfer)
                answer.fail(error.kind, error.detail)
                ended.append((asked, answer))
            else:
                weights.append((transfer.weight_bytes, id(transfer), transfer))
        weights.sort(reverse=True)
        self._in_flight_bytes = sum(weight for weight, _, _ in weights)
        for weight, _, transfer in weights:
            if self._in_flight_bytes <= _CUT_AT * self._budget_bytes:
                break
            # No fault of the site's, so it counts against nobody; what was sent is paid for.
            self._in_flight_bytes -= weight
            self._remove(transfer)
            answer = WireAnswer(is_held=True, sent=transfer.sent)
            ended.append((transfer.attempt or transfer.request, answer))
            self.finish(transfer)
        for transfer in list(self._silent_since):
            if self._is_silent(transfer, now):
                message = "the site was silent for too long"
                ended.append(self._end(transfer, pycurl.E_OPERATION_TIMEDOUT, message))

    def _is_silent(self, transfer: Transfer, now: float) -> bool:
        """Whether nothing has come for longer than the thread that asked will wait."""
        known, since = self._silent_since[transfer]
        progress, request = transfer.progress, transfer.request
        if progress != known or transfer.sent == 0:
            self._silent_since[transfer] = (progress, now)
            return False
        assert request is not None
        return request.read_seconds is not None and now - since > request.read_seconds


def _options(attempt_seconds: float, ca_file: str) -> dict[int, Any]:
    """List the options of all handles: no redirects, no proxies, no netrc, verified TLS."""
    connect_seconds = min(CONNECT_SECONDS, attempt_seconds)
    return {
        pycurl.NOSIGNAL: 1,
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROXY: "",
        pycurl.NOPROXY: "*",  # else each request looks for it in the environment
        pycurl.NETRC: pycurl.NETRC_IGNORED,
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
        pycurl.HTTP09_ALLOWED: 0,
        pycurl.HTTP_CONTENT_DECODING: 0,
        pycurl.PATH_AS_IS: 1,
        pycurl.SSL_VERIFYPEER: 1,
        pycurl.SSL_VERIFYHOST: 2,
        pycurl.CAINFO: ca_file,
        pycurl.TIMEOUT_MS: int(attempt_seconds * 1000),
        pycurl.CONNECTTIMEOUT_MS: int(connect_seconds * 1000),
        pycurl.MAXFILESIZE: MAX_BODY_BYTES,
        pycurl.MAXAGE_CONN: IDLE_CONNECTION_SECONDS,
        pycurl.TCP_NODELAY: 1,
    }


def _count_socket(transfer: Transfer, *_socket: Any) -> int:
    transfer.sockets += 1
    return int(pycurl.SOCKOPT_OK)
