"""What requests, urllib3 and http.client raise, named by the kinds of failure of `crawler.frontier.verdict`."""

import http.client
import socket
import ssl
from collections.abc import Iterator

import requests
import urllib3

from crawler.errors import PageError

_BEFORE_SENDING: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("tls", (ssl.SSLCertVerificationError, ssl.CertificateError)),
    ("dns", (urllib3.exceptions.NameResolutionError, socket.gaierror)),
    ("protocol", (ValueError,)),  # an address that is none
)
_AFTERWARDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("timeout", (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)),
    ("connection", (http.client.RemoteDisconnected, http.client.IncompleteRead)),
    ("protocol", (http.client.HTTPException, urllib3.exceptions.InvalidHeader, ValueError)),
)
_OURS = (OSError, http.client.LineTooLong, http.client.IncompleteRead, PageError)
"""Errors whose words come from the system or from us; others may quote what the site sent."""


class BodyError(requests.exceptions.ContentDecodingError):
    """A PageError in the clothes of requests, so that a function's own `except` sees it."""

    def __init__(self, cause: PageError, **kwargs: object) -> None:
        super().__init__(str(cause), **kwargs)  # type: ignore[arg-type]
        self.cause = cause


def kind_of(error: BaseException, phase: str) -> str:
    """Name the kind of a failure.

    Args:
        error: What requests or urllib3 raised, with all it wraps.
        phase: How far the request came: see `crawler.engines.guard.Guard`.
    """
    if isinstance(error, BodyError):
        return error.cause.kind
    causes = list(_causes(error))
    if phase == "sent":
        return _first_match(causes, _AFTERWARDS) or "connection"
    if phase == "":
        return _first_match(causes, _AFTERWARDS) or "protocol"
    return _first_match(causes, _BEFORE_SENDING) or "connect"


def describe(error: BaseException) -> str:
    """Say what happened, from the innermost cause; nothing that the site sent is quoted."""
    innermost = error.cause if isinstance(error, BodyError) else _innermost(error)
    name = type(innermost).__name__
    if isinstance(innermost, PageError):
        return innermost.detail
    if isinstance(innermost, _OURS) or type(innermost) is http.client.HTTPException:
        return f"{name}: {innermost}"
    return name


def _first_match(
    causes: list[BaseException], table: tuple[tuple[str, tuple[type[BaseException], ...]], ...]
) -> str | None:
    for kind, classes in table:
        if any(isinstance(cause, classes) for cause in causes):
            return kind
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk through what an exception wraps; requests and urllib3 nest theirs in `args`."""
    waiting, known = [error], set()
    while waiting:
        cause = waiting.pop()
        if id(cause) not in known:
            known.add(id(cause))
            yield cause
            waiting += _wrapped(cause)


def _innermost(error: BaseException) -> BaseException:
    known = set()
    while id(error) not in known and (wrapped := _wrapped(error)):
        known.add(id(error))
        error = wrapped[0]
    return error


def _wrapped(error: BaseException) -> list[BaseException]:
    # Not its context: a function that asks again while it handles an error would lend it that one.
    inner = (getattr(error, "reason", None), *error.args, error.__cause__)
    return [other for other in inner if isinstance(other, BaseException)]
