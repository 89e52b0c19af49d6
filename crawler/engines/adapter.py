"""The adapter beneath a session: every answer read whole, strictly, bounded, and remembered."""

import functools
import io
from collections.abc import Iterator
from typing import Any

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from crawler.engines.body import MAX_BODY_BYTES, BodyDecoder
from crawler.engines.connections import GuardedConnection, GuardedTLSConnection
from crawler.engines.details import detail_of, secrets_in
from crawler.engines.guard import Guard, HeldBackError
from crawler.engines.reading import check_framing
from crawler.engines.room import PIECE_BYTES, Body, BodyRoom
from crawler.engines.wire_errors import BodyError, describe, kind_of
from crawler.errors import PageError

_BODILESS = (204, 304)


class Seen(msgspec.Struct):
    """What the site answered to one request.

    Attributes:
        status: HTTP status, None where no answer came.
        error: A word of `crawler.frontier.verdict.FAILURE_KINDS`, None for a whole answer.
        detail: A line for people.
        headers: Of the answer, as `crawler.frontier.verdict.Reply` has them.
        is_reused: Whether the connection had served an earlier request.
        request: The request as sent, for what it carried that must not be told.
    """

    status: int | None = None
    error: str | None = None
    detail: str = ""
    headers: dict[str, str] | None = None
    is_reused: bool = False
    request: Any = None

    @property
    def secrets(self) -> list[str]:
        """List what no detail may hold."""
        request = self.request
        return [] if request is None else secrets_in(request.headers, request.url or "")

    @property
    def is_denial(self) -> bool:
        """Whether the site says that there is no such page."""
        return self.error is None and self.status in (404, 410)

    @property
    def is_page(self) -> bool:
        """Whether the site says that this is what was asked for."""
        return self.status is not None and 200 <= self.status < 300


def seen_of(response: requests.Response) -> Seen:
    """Describe a whole answer."""
    return Seen(
        response.status_code,
        headers=_lower(response),
        request=response.request,
    )


class GuardedAdapter(HTTPAdapter):
    """Sends the requests of one session.

    Attributes:
        answers: What each request of the attempt came to, in order.
    """

    def __init__(self, guard: Guard, room: BodyRoom, cut_bytes: int | None) -> None:
        self.answers: list[Seen] = []
        self._pools: list[Any] = []
        self._guard, self._room, self._cut_bytes = guard, room, cut_bytes
        self._body: Body | None = None
        super().__init__(pool_connections=8, pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have all connections made as guarded ones."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": functools.partial(self._open_pool, HTTPConnectionPool, GuardedConnection),
            "https": functools.partial(self._open_pool, HTTPSConnectionPool, GuardedTLSConnection),
        }

    def _open_pool(self, pool_class: Any, connection_class: Any, *args: Any, **kwargs: Any) -> Any:
        pool = pool_class(*args, **kwargs)
        self._pools.append(pool)
        pool.ConnectionCls = functools.partial(connection_class, guard=self._guard)
        return pool

    def close(self) -> None:
        """Close all connections; urllib3 alone waits until nobody remembers an answer."""
        super().close()
        while self._pools:
            self._pools.pop().close()

    def cert_verify(self, conn: Any, *_: Any) -> None:
        """Leave the certificate to the one context: there is no switch to turn that off."""
        conn.ca_certs = conn.ca_cert_dir = None

    def send(  # bodies are always read here, whole
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,  # noqa: ARG002
        cert: Any = None,  # noqa: ARG002
        proxies: Any = None,  # noqa: ARG002
    ) -> requests.Response:
        """Send one request and read its whole answer.

        Raises:
            HeldBackError: A shared pause began before it went out, or there was no room for its body.
            requests.RequestException: No whole, right answer came within the deadline.
        """
        seen = Seen(request=request)
        self.forget_body()  # who asks again waits for room, and must have none that others wait for
        self._guard.begin_request(*_seconds_asked(timeout))
        self.answers.append(seen)
        try:
            self._guard.left()
            response = super().send(request, stream=True, timeout=None, verify=True)
            _note_answer(seen, response)
            self._read(request, response)
        except HeldBackError:
            self.answers.remove(seen)
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            seen.error = kind_of(error, self._guard.phase)
            seen.detail = detail_of(describe(error), seen.secrets)
            if isinstance(error, requests.RequestException):
                raise
            if seen.error == "timeout":
                raise requests.ReadTimeout(error, request=request) from error
            raise requests.ConnectionError(error, request=request) from error
        finally:
            seen.is_reused = self._guard.is_reused
            self._guard.end_request(is_whole=seen.error is None)
        if stream:
            response.raw = _raw_again(response)
        return response

    def _read(self, request: requests.PreparedRequest, response: requests.Response) -> None:
        """Read the whole body now, raw, and undo its encoding strictly."""
        is_bodiless = request.method == "HEAD" or response.status_code in _BODILESS
        try:
            if not is_bodiless:
                check_framing(response.headers, self._cut_bytes, self._guard.answer)
            body = self._whole_body(response, is_bodiless=is_bodiless)
        except PageError as error:
            response.raw.close()
            if response.status_code != 200 and error.kind == "encoding":
                body = b""  # nobody needs the body of an error, so it cannot fail one
            else:
                raise BodyError(error, response=response) from error
        except BaseException:
            response.raw.close()
            raise
        response._content = body  # noqa: SLF001 - requests has no other way to hand over a body
        response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
        response.raw.release_conn()

    def _whole_body(self, response: requests.Response, *, is_bodiless: bool) -> bytes:
        pieces = _bounded(response.raw, self._cut_bytes)
        if is_bodiless:
            return b"".join(pieces)[:0]
        decoder = BodyDecoder(response.headers.get("Content-Encoding", "").lower())
        with Body(self._room, self._guard.room_left) as body:
            for piece in pieces:
                for part in decoder.parts(piece, PIECE_BYTES):
                    body.add(part)
            decoder.finish()
            self._body = body
            return body.whole()

    def forget_body(self) -> None:
        """Give others the room of the body that came last: nobody reads it any more."""
        if self._body is not None:
            self._body.forget()
            self._body = None


def _lower(response: requests.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _seconds_asked(timeout: Any) -> tuple[float | None, float | None]:
    """Read `timeout=` as requests understands it: one number, or one for connect and one for read."""
    if isinstance(timeout, tuple):
        return timeout[0], timeout[1]
    return (timeout, timeout) if isinstance(timeout, int | float) else (None, None)


def _note_answer(seen: Seen, response: requests.Response) -> None:
    seen.status = response.status_code
    seen.headers = _lower(response)


def _raw_again(response: requests.Response) -> urllib3.HTTPResponse:
    """Make what a function reads that takes `response.raw` itself; gzip is undone in it."""
    told = urllib3.HTTPHeaderDict(response.raw.headers)
    for name in ("Content-Encoding", "Content-Length", "Transfer-Encoding"):
        told.discard(name)
    return urllib3.HTTPResponse(
        io.BytesIO(response.content),
        told,
        response.status_code,
        reason=response.reason,
        preload_content=False,
        original_response=response.raw._original_response,  # noqa: SLF001 - for its cookies
    )


def _bounded(raw: Any, cut_bytes: int | None) -> Iterator[bytes]:
    total = 0
    while chunk := raw.read(PIECE_BYTES, decode_content=False):
        total += len(chunk)
        if cut_bytes is not None and total >= cut_bytes:
            yield chunk[: len(chunk) - (total - cut_bytes)]
            raw.close()
            return
        if total > MAX_BODY_BYTES:
            raise PageError("too_large", f"more than {MAX_BODY_BYTES} bytes")
        yield chunk
