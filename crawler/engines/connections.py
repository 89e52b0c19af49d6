"""Connections that keep an attempt's deadline at every step, and ask before they send.

urllib3 and http.client give each read its full time anew, so a site that sends a byte a second
holds them for ever. Here every step (name, connect, handshake, sending, each read) gets what is
left of the whole.
"""

import http.client
import socket
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from crawler.engines.guard import Guard
from crawler.engines.reading import Answer, TimedSocket


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
        timed: Any = TimedSocket(sock, self.guard)
        self.guard.answer = answer = Answer(timed, *args, **kwargs)
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
