"""Names to addresses within a deadline, though the system's own resolver cannot be interrupted."""

import concurrent.futures
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any

Address = tuple[Any, ...]
"""What `socket.getaddrinfo` lists: family, kind, protocol, canonical name, socket address."""


class Resolver:
    """Asks for each name in a thread of its own; shared by all lanes, which wait for one answer.

    The system's `getaddrinfo` may take half a minute and knows no time limit, so a lane waits
    beside it. There is one thread per name, however many lanes want it.
    """

    def __init__(self, ask: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        """Prepare; `ask` has the signature of `socket.getaddrinfo`."""
        self._ask = ask
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, int], concurrent.futures.Future[list[Address]]] = {}

    def addresses(self, host: str, port: int, seconds: float) -> list[Address]:
        """List the addresses of a host, at least one.

        Raises:
            socket.gaierror: There is no such name, or no answer came within so many seconds.
        """
        if _is_literal(host):
            return self._ask(host, port, type=socket.SOCK_STREAM)
        try:
            return self._begin(host, port).result(seconds)
        except TimeoutError:
            message = "no answer about the name within the deadline"
            raise socket.gaierror(socket.EAI_AGAIN, message) from None
        except UnicodeError:
            raise socket.gaierror(socket.EAI_NONAME, "not a name a host can have") from None

    def _begin(self, host: str, port: int) -> "concurrent.futures.Future[list[Address]]":
        with self._lock:
            pending = self._pending.get((host, port))
            if pending is None:
                pending = self._pending[host, port] = concurrent.futures.Future()
                thread = threading.Thread(
                    target=self._fulfil, args=(pending, host, port), name="resolver", daemon=True
                )
                thread.start()
            return pending

    def _fulfil(
        self, pending: "concurrent.futures.Future[list[Address]]", host: str, port: int
    ) -> None:
        addresses, failure = [], None
        try:
            addresses = self._ask(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failure = error
        with self._lock:
            del self._pending[host, port]
        if failure is None:
            pending.set_result(addresses)
        else:
            pending.set_exception(failure)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
