"""Connections that keep an attempt's deadline at every step, and ask before they send.

urllib3 and http.client give each read its full time anew, so a site that sends a byte a second
holds them for ever. Here every step (name, connect, handshake, sending, each read) gets what is
left of the whole.
"""

import http.client
import io
import re
import socket
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from crawler.engines.guard import Guard

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers of one answer; http.client alone would take 100 lines of 64 KiB."""

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n")
_READ_BYTES = 1 << 16
_ENDLESS = 1 << 62


class _Guarded:
    """The steps of a connection, each under its guard."""

    guard: Guard
    sock: Any
    host: str
    _dns_host: str
    port: int
    timeout: float
    socket_options: Any
    _served: int = 0

    def __init__(self, *args: Any, guard: Guard, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.guard = guard

    def _new_conn(self) -> socket.socket:
        self._served = 0
        self.guard.phase = "connecting"
        try:
            addresses = self.guard.resolver.addresses(
                self._dns_host, self.port, self.guard.connect_left()
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        try:
            return self._reach(addresses)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no connection within the deadline") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]

    def _reach(self, addresses: list[Any]) -> socket.socket:
        """Try one address after the other, each with its share of the time."""
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.guard.connect_left() / (len(addresses) - place))
                sock.connect(address)
            except OSError:
                sock.close()
                if place + 1 == len(addresses):
                    raise
            else:
                return sock
        raise OSError("the name has no address")

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, unless a pause began while the connection was made."""
        if self.sock is None:
            self.connect()
        self.guard.let_out(self, is_reused=self._served > 0)
        self._served += 1
        self.timeout = self.guard.read_left()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def connect(self) -> None:
        """Make the connection."""
        super().connect()  # type: ignore[misc]

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        """Make the answer that http.client reads from the socket."""
        timed: Any = _TimedSocket(sock, self.guard)
        self.guard.answer = answer = _Answer(timed, *args, **kwargs)
        return answer


class GuardedConnection(_Guarded, HTTPConnection):  # type: ignore[misc]
    """A plain connection."""


class GuardedTLSConnection(_Guarded, HTTPSConnection):  # type: ignore[misc]
    """A connection over TLS, whose certificate is always verified, by one context for all lanes.

    urllib3 would read the authorities' file anew for each connection (20 ms and 1 MB).
    """

    def connect(self) -> None:
        """Connect, and shake hands within the same deadline."""
        sock = self._new_conn()
        try:
            sock.settimeout(self.guard.connect_left())
            self.sock = self.guard.tls().wrap_socket(
                sock, server_hostname=self.host, suppress_ragged_eofs=False
            )
        except BaseException:
            sock.close()
            raise
        self.is_verified = True


class _Answer(http.client.HTTPResponse):
    """An answer whose head is bounded and whole, and whose chunks are what they say."""

    def begin(self) -> None:
        """Read the head."""
        reader: Any = self.fp
        super().begin()
        reader.ends_head()
        if self.headers.defects:
            raise http.client.HTTPException("a header line that is none")

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim answers (RFC 9110, 15.2); http.client takes all but 100 for the final one."""
        while 100 <= (line := super()._read_status())[1] < 200:  # type: ignore[misc]
            if line[1] == http.client.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("101, though nobody asked for another protocol")
            self._skip_lines()
        return line  # type: ignore[no-any-return]

    def _get_chunk_left(self) -> int | None:
        """Say how much of a chunk is to come, None after the last (RFC 9112, 7.1)."""
        if not self.chunk_left:
            if self.chunk_left == 0 and self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
                raise http.client.HTTPException("a chunk longer than it says")
            size = _CHUNK_SIZE.fullmatch(self.fp.readline(MAX_HEAD_BYTES))
            if size is None:
                raise http.client.HTTPException("a chunk size that is none")
            self.chunk_left: int | None = int(size[1], 16) or None
            if self.chunk_left is None:
                self._skip_lines()
                self._close_conn()  # type: ignore[attr-defined]
        return self.chunk_left

    def _skip_lines(self) -> None:
        while self.fp.readline(MAX_HEAD_BYTES) not in (b"\r\n", b"\n"):
            pass


class _TimedSocket:
    """What `http.client.HTTPResponse` needs of a socket: a file to read from."""

    def __init__(self, sock: Any, guard: Guard) -> None:
        self._sock, self._guard = sock, guard

    def makefile(self, _mode: str) -> io.BufferedReader:
        return _AnswerReader(_TimedReader(self._sock, self._guard), self._guard)


class _AnswerReader(io.BufferedReader):
    """Reads one answer; counts its head, wants whole lines, notices what came beyond its end."""

    def __init__(self, raw: "_TimedReader", guard: Guard) -> None:
        super().__init__(raw, _READ_BYTES)
        self._reader, self._guard = raw, guard
        self._head_left = MAX_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        is_first = self._head_left == MAX_HEAD_BYTES
        self._head_left -= len(line)
        if self._head_left < 0:
            raise http.client.HTTPException(f"more than {MAX_HEAD_BYTES} bytes of headers")
        if not (is_first or line.endswith(b"\n")):
            raise http.client.IncompleteRead(b"")  # http.client takes it for the end
        if b"\0" in line:
            raise http.client.HTTPException("a NUL in a header")
        return line

    def ends_head(self) -> None:
        """Count no more: a body may hold any number of lines."""
        self._head_left = _ENDLESS

    def close(self) -> None:
        if not self.closed:
            self._reader.is_over = True
            self._guard.has_excess = len(self.peek(1)) > 0
        super().close()


class _TimedReader(io.RawIOBase):
    """Reads from a socket; each read gets only the time that is left of the whole."""

    def __init__(self, sock: Any, guard: Guard) -> None:
        self.is_over = False
        self._sock, self._guard = sock, guard
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_over:
            return 0
        self._sock.settimeout(self._guard.read_left())
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
