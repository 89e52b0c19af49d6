"""The `requests.Session` that step 1 gets: bounded in time and size, strict, and watched.

Whatever function runs on it, every request keeps the attempt's deadline however slowly the site
trickles, every body is whole and no larger than a page may be, and what the site answered is
remembered, so that a function that swallows errors still loses nothing.
"""

import http.client
import io
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from crawler.body import MAX_BODY_BYTES, decode_body
from crawler.errors import PageError

_CHUNK_BYTES = 1 << 16


class HeldBackError(Exception):
    """A shared pause began before the request was sent; the attempt is put back."""


class Seen(msgspec.Struct):
    """What the site answered to the last request of an attempt.

    Attributes:
        status: HTTP status, None where no answer came.
        error: A word of `crawler.verdict.FAILURE_KINDS`, None for a whole answer.
        detail: A line for people.
        retry_after: The header as received.
        date: The `Date` header as received.
        is_reused: Whether the connection had served an earlier request.
    """

    status: int | None = None
    error: str | None = None
    detail: str = ""
    retry_after: str | None = None
    date: str | None = None
    is_reused: bool = False


class GuardedSession(requests.Session):
    """A session for one lane; not safe in threads, as no `requests.Session` is.

    No proxies and no netrc. A session for a source also keeps no cookies.
    """

    def __init__(self, user_agent: str, *, keeps_cookies: bool, body_lock: threading.Lock) -> None:
        """Open a session; bodies are unpacked one at a time under `body_lock`."""
        super().__init__()
        self.trust_env = False
        self.headers["User-Agent"] = user_agent
        self.headers["Accept-Encoding"] = "gzip"
        if not keeps_cookies:
            self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._adapter = _GuardedAdapter(body_lock)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def begin(self, deadline: float, may_send: Callable[[], bool]) -> None:
        """Begin an attempt that ends at `deadline`, monotonic seconds."""
        self._adapter.begin(deadline, may_send)

    @property
    def seen(self) -> Seen | None:
        """What the attempt's last request came to, None when it made none."""
        return self._adapter.seen


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, body_lock: threading.Lock) -> None:
        self.seen: Seen | None = None
        self._deadline = float("inf")
        self._may_send: Callable[[], bool] = lambda: True
        self._is_warm = False
        self._body_lock = body_lock
        super().__init__(pool_connections=8, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}

    def begin(self, deadline: float, may_send: Callable[[], bool]) -> None:
        self.seen, self._deadline, self._may_send = None, deadline, may_send

    def send(  # type: ignore[override]  # stream: bodies are always read here, whole
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        if not self._may_send():
            raise HeldBackError
        self.seen = Seen(is_reused=self._is_warm)
        self._is_warm = False
        try:
            response = super().send(request, True, self._time_left(timeout), verify, cert, {})
            self._note_answer(response)
            self._read(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            self.seen.error, self.seen.detail = _classify(error), _describe(error)
            if isinstance(error, requests.RequestException):
                raise
            raise requests.ConnectionError(error, request=request) from error
        self._is_warm = True
        return response

    def _time_left(self, asked: Any) -> urllib3.Timeout:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise requests.ReadTimeout("the attempt's deadline has passed")
        connect, read = asked if isinstance(asked, tuple) else (asked, asked)
        return urllib3.Timeout(total=left, connect=connect, read=read)

    def _note_answer(self, response: requests.Response) -> None:
        headers, seen = response.headers, self.seen or Seen()
        seen.status = response.status_code
        seen.retry_after, seen.date = headers.get("Retry-After"), headers.get("Date")

    def _read(self, response: requests.Response) -> None:
        """Read the whole body now, raw, and undo its encoding strictly."""
        try:
            _check_framing(response.headers)
            chunks = list(_bounded(response.raw))
            with self._body_lock:  # one unpacked body at a time, whatever 64 lanes receive
                raw = b"".join(chunks)
                chunks.clear()
                body = decode_body(raw, response.headers.get("Content-Encoding", "").lower())
        except PageError as error:
            response.raw.close()
            if response.status_code != 200 and error.kind == "encoding":
                body = b""  # nobody needs the body of an error, so it cannot fail one
            else:
                raise _BodyError(error, response=response) from error
        except BaseException:
            response.raw.close()
            raise
        response._content = body  # noqa: SLF001 - requests has no other way to hand over a body
        response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
        response.raw.release_conn()


class _BodyError(requests.exceptions.ContentDecodingError):
    """A PageError in the clothes of requests, so that a function's own `except` sees it."""

    def __init__(self, cause: PageError, **kwargs: Any) -> None:
        super().__init__(str(cause), **kwargs)
        self.cause = cause


def _bounded(raw: Any) -> Iterator[bytes]:
    total = 0
    while chunk := raw.read(_CHUNK_BYTES, decode_content=False):
        total += len(chunk)
        if total > MAX_BODY_BYTES:
            raise PageError("too_large", f"more than {MAX_BODY_BYTES} bytes")
        yield chunk


def _check_framing(headers: Any) -> None:
    """Refuse an answer whose length is in doubt (RFC 9112, section 6.3)."""
    length = headers.get("Content-Length")
    if length is None:
        return
    if not (length.isascii() and length.isdigit()):
        raise PageError("protocol", "Content-Length is not a number")
    if int(length) > MAX_BODY_BYTES:
        raise PageError("too_large", f"announces more than {MAX_BODY_BYTES} bytes")
    if "Transfer-Encoding" in headers:
        raise PageError("protocol", "both Content-Length and Transfer-Encoding")


def _classify(error: Exception) -> str:
    """Name the kind of a failure that requests or urllib3 report."""
    if isinstance(error, _BodyError):
        return error.cause.kind
    causes = list(_causes(error))
    for kind, classes in _KINDS:
        if any(isinstance(cause, classes) for cause in causes):
            return kind
    return "connection"


_KINDS: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("tls", (ssl.SSLCertVerificationError, ssl.CertificateError)),
    ("dns", (urllib3.exceptions.NameResolutionError,)),
    ("timeout", (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)),
    ("connection", (http.client.RemoteDisconnected, http.client.IncompleteRead)),
    ("protocol", (http.client.HTTPException, urllib3.exceptions.InvalidHeader, ValueError)),
    ("connect", (urllib3.exceptions.NewConnectionError, ssl.SSLError)),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk through what an exception wraps; requests and urllib3 nest theirs in `args`."""
    waiting, known = [error], set()
    while waiting:
        cause = waiting.pop()
        if id(cause) in known:
            continue
        known.add(id(cause))
        yield cause
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        waiting += [other for other in inner if isinstance(other, BaseException)]


def _describe(error: BaseException) -> str:
    """Say what happened in one line, from the innermost cause; it carries no header of ours."""
    *_, innermost = _causes(error)
    return f"{type(innermost).__name__}: {innermost}"[:200]


class _TimedReader(io.RawIOBase):
    """Reads from a socket; each read gets only the time that is left of the whole."""

    def __init__(self, sock: Any, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the attempt's deadline has passed")
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """What `http.client.HTTPResponse` needs of a socket: a file to read from."""

    def __init__(self, sock: Any, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._deadline), _CHUNK_BYTES)


class _TimedAnswers:
    """Gives each answer of a connection the time that urllib3 has left of its total."""

    timeout: float

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        timed: Any = _TimedSocket(sock, time.monotonic() + self.timeout)
        return http.client.HTTPResponse(timed, *args, **kwargs)


class _Connection(_TimedAnswers, HTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_TimedAnswers, HTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection
