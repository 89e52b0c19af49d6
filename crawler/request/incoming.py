"""What a caller sent: a body read in time and in bounds, a query, and both as plain fields."""

import contextlib
import json
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from crawler.errors import RequestError

MAX_REQUEST_BYTES = 64 * 1024
"""A longer body is refused: the longest sensible one has 300 bytes."""

_MAX_UNREAD_BYTES = 1024 * 1024  # a body said to be longer than this is refused without a look
_MAX_DEPTH = 16  # brackets in brackets; a request needs one
_MAX_DIGITS = 30  # more than any bound needs; int() is quadratic in the digits
_MEDIA_TYPES = {"", "application/json", "application/octet-stream"}
_UTF_8 = {"utf-8", "utf8"}


def check_media(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse, with 415, a body that is not plain JSON in UTF-8; without a type it is taken for it."""
    media, *parameters = (part.strip().lower() for part in (content_type or "").split(";"))
    if media not in _MEDIA_TYPES:
        raise RequestError(
            415, "media_type", "Content-Type", f"the body must be application/json, got {media!r}"
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip(' "') not in _UTF_8:
            raise RequestError(
                415, "charset", "Content-Type", f"the charset must be utf-8, got {parameter!r}"
            )
    if (content_encoding or "identity").strip().lower() != "identity":
        raise RequestError(
            415, "content_encoding", "Content-Encoding", "the body must not be compressed"
        )


def read_body(body_reader: Callable[[int], bytes], content_length: int | None) -> bytes:
    """Read a body of at most MAX_REQUEST_BYTES, never holding more than one byte above that.

    A body that is too long but already nested too deep in what was read is told the second,
    which mends more.
    """
    body = b""
    if content_length is None or content_length <= _MAX_UNREAD_BYTES:
        while len(body) <= MAX_REQUEST_BYTES:
            piece = body_reader(MAX_REQUEST_BYTES + 1 - len(body))
            if not piece:
                if content_length is not None and len(body) < content_length:
                    # gunicorn hands a body that was cut on as if it were whole
                    message = f"the body ended after {len(body)} of {content_length} bytes"
                    raise RequestError(400, "body_incomplete", "body", message)
                return body
            body += piece
        _check_depth(body)
    raise RequestError(
        413, "body_too_large", "body", f"the body must not exceed {MAX_REQUEST_BYTES} bytes"
    )


def _check_depth(body: bytes) -> None:
    """Refuse brackets in brackets before a parser recurses into them."""
    depth = 0
    for token in _TOKENS.finditer(body):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > _MAX_DEPTH:
            raise RequestError(
                400, "body_too_deep", "body", f"the body is nested too deep at byte {token.start()}"
            )


# a string, closed or not (so that no position is looked at twice), or a bracket
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def body_fields(body: bytes) -> dict[str, Any]:
    """Read the body as one JSON object with each key once.

    The standard parser, because it tells its hooks of duplicate keys, `-0` and long numbers,
    which faster ones accept in silence.
    """
    _check_depth(body)
    try:
        fields = json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=_unique,
            parse_int=_number,
            parse_float=_number,
        )
    except UnicodeDecodeError as error:
        message = f"the body is not UTF-8 at byte {error.start}"
        raise RequestError(400, "body_not_utf8", "body", message) from None
    except json.JSONDecodeError as error:
        message = f"the body is not JSON: {error}"
        raise RequestError(400, "body_not_json", "body", message) from None
    if type(fields) is not dict:
        message = "the body must be one JSON object"
        raise RequestError(400, "body_not_object", "body", message)
    return fields


class _Malformed(str):
    """A number as it was written, where its spelling already rules it out."""

    __slots__ = ()


_INTEGER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)


def _number(text: str) -> int | float | _Malformed:
    """Read a number as JSON spells it; one that is too long, infinite or `-0` is kept as malformed."""
    if len(text) > _MAX_DIGITS or text == "-0":
        return _Malformed(text)
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text)
    return value if math.isfinite(value) else _Malformed(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            message = f"{short(name)} is given twice"
            raise RequestError(400, "parameter_twice", name[:100], message)
        fields[name] = value
    return fields


def query_fields(query: str) -> dict[str, Any]:
    """Read a query as the fields a body would hold; numbers are canonical ASCII decimals."""
    if len(query) > MAX_REQUEST_BYTES:
        message = f"the query must not exceed {MAX_REQUEST_BYTES} bytes"
        raise RequestError(414, "query_too_long", "query", message)
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, True, True, errors="strict", max_num_fields=100)
    except ValueError:
        message = "the query must be name=value pairs in UTF-8, joined by &"
        raise RequestError(400, "query_malformed", "query", message) from None
    return _unique([(name, _query_value(text)) for name, text in pairs])


def _query_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    return _number(text) if _DECIMAL.fullmatch(text) else text


def culprit(fields: dict[str, Any], error: Exception) -> str:
    """Return the name of the field that could not be converted, as msgspec's error tells it.

    Half a surrogate pair, which JSON can write and UTF-8 cannot carry, is told without a place.
    """
    if isinstance(error, UnicodeEncodeError):
        return next(name for name, value in fields.items() if value == error.object)
    return str(error).rpartition("$.")[2].rstrip("`")


def short(value: Any) -> str:
    """Show what came, short and on one line; from Python it may be what JSON cannot write."""
    try:
        text = str(value) if isinstance(value, _Malformed) else json.dumps(value)
    except (TypeError, ValueError):
        text = ascii(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


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
    """Return the errors with which a body ends too early, or in chunks that are none."""
    from werkzeug.exceptions import ClientDisconnected  # the framework has loaded it already

    try:
        from gunicorn.http.errors import ParseException  # where gunicorn runs it is loaded already
    except ImportError:  # Windows, where the framework runs Flask's own server
        return OSError, ClientDisconnected
    return OSError, ClientDisconnected, ParseException
