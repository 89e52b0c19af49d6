"""The body of a request as it comes in: read in time, or dropped in time, whoever sends it."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from werkzeug.exceptions import ClientDisconnected

from crawler.errors import RequestError

if TYPE_CHECKING:
    from flask import Request


class Patience(NamedTuple):
    """How long a body may take, in seconds: at most between two pieces, and for all of it."""

    between_seconds: float
    all_seconds: float


BODY_PATIENCE = Patience(10.0, 30.0)  # a task's or a scheduler's body comes in one piece


def body_reader(request: "Request") -> Callable[[int], bytes]:
    """Make what reads so many bytes of the body; b"" at its end.

    Its errors are `RequestError`, 400 `body_incomplete`, where the body ends early or is no body.
    """

    def read(size: int) -> bytes:
        try:
            return request.stream.read(size)
        except _cut_off():
            message = "the body ended before it was complete"
            raise RequestError(400, "body_incomplete", "body", message) from None

    return read


def drain(request: "Request") -> None:
    """Read and drop the rest of a body that is too long, so that its sender can read the answer.

    A server that answers and closes while bytes still come in resets the connection, and the
    answer may be lost with it. Ends after 32 MiB (the platform's own limit), when nothing came
    for a second, or when it has taken as long as a body may.
    """
    patience = Patience(1.0, BODY_PATIENCE.all_seconds)
    # gone, or silent: the answer goes out all the same
    with contextlib.suppress(*_cut_off()), in_time(request, patience):
        for _ in range(512):
            if not request.stream.read(64 * 1024):
                break


@contextlib.contextmanager
def in_time(request: "Request", patience: Patience | None = None) -> Iterator[None]:
    """Let reads of the body fail or end when its sender takes too long, as if it had hung up.

    Without it as many silent senders as there are threads stop the process for ever. One read of
    the body is many of the socket, each with a timeout of its own; their sum can only be bounded
    from outside. A socket shut for reading still carries the answer.

    Args:
        request: Whose body is read inside.
        patience: How long that may take; by default `BODY_PATIENCE`.
    """
    patience = patience or BODY_PATIENCE
    connection = request.environ.get("gunicorn.socket")
    if connection is None:  # Windows, where the framework runs Flask's own server
        yield
        return
    last = threading.Timer(patience.all_seconds, _shut, [connection])
    last.daemon = True  # a process that ends does not wait for it
    connection.settimeout(patience.between_seconds)
    last.start()
    try:
        yield
    finally:
        last.cancel()
        connection.settimeout(None)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # its sender was quicker
        connection.shutdown(socket.SHUT_RD)


def _cut_off() -> tuple[type[Exception], ...]:
    """Name the errors with which a body ends too early, or in chunks that are none."""
    try:
        from gunicorn.http.errors import ParseException  # where gunicorn runs it is loaded already
    except ImportError:  # Windows, where the framework runs Flask's own server
        return OSError, ClientDisconnected
    return OSError, ClientDisconnected, ParseException
