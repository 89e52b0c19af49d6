"""The `requests.Session` that step 1 gets: its requests go over the wire, and are remembered.

It is a genuine one: what requests documents holds, at the attempt's deadline and the limits of the
wire. Bodies are always read whole before a response is handed over, with `stream=True` as well.
"""

import io
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from http.client import HTTPMessage
from itertools import chain
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.cookies import RequestsCookieJar, extract_cookies_to_jar
from requests.sessions import merge_hooks
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers, urldefragauth

from crawler.settings.reading import contact_missing, is_loopback
from crawler.wire.answers import WireAnswer, detail_of, header_fields
from crawler.wire.transfer import CONNECT_SECONDS, WireRequest, exact_lines, is_let_out
from crawler.wire.wire import Wire

MAX_UPLOAD_BYTES = 8 << 20
"""What a request may send; a stream or generator is read, in its own thread, before it goes out."""

_IGNORED = {
    "verify": "verify= is ignored: certificates are always verified (CRAWLER_CA_FILE names others)",
    "proxies": "proxies= is ignored: requests go to the site directly",
    "timeout": "a timeout= longer than an attempt's %g s is cut to that",
}


_of_lane: "ContextVar[WireSession | None]" = ContextVar("session of the lane", default=None)


class HeldBackError(Exception):
    """A shared pause began before the request was sent, or there was no room for what it brought.

    The attempt is put back, and counts against nobody.
    """


class WireSession(requests.Session):
    """A session for one lane; what threads of its function ask with it counts for its attempt.

    No proxies and no netrc, no adapters but its own, certificates always verified.

    Attributes:
        answers: What all of the attempt's requests came to, in order, hops of redirects among them.
    """

    def __init__(self, wire: Wire) -> None:
        """Open a session whose requests go over this wire."""
        super().__init__()
        self.trust_env = False
        self.headers["User-Agent"] = wire.user_agent
        self.headers["Accept-Encoding"] = "gzip"
        self._returned: dict[tuple[str | None, str | None], WireAnswer | None] = {}
        self._sending = set[int]()  # threads
        self.max_redirects = 10  # each number of a site that redirects for ever costs so many
        self._adapter = WireAdapter(wire)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)
        self.begin(time.monotonic() + wire.attempt_seconds, is_let_out)

    def mount(self, prefix: str | bytes, adapter: BaseAdapter) -> None:
        """Refuse any other adapter: it would keep no deadline, no pause and no count.

        Raises:
            ValueError: Always, once the session is open.
        """
        if getattr(self, "_adapter", adapter) is not adapter:
            raise ValueError(
                "leave out session.mount(...): retries, pace and deadline are the crawl's own"
            )
        super().mount(prefix, adapter)

    def begin(
        self, deadline: float, may_send: Callable[[], bool], *, is_canary: bool = False
    ) -> None:
        """Begin an attempt that ends at `deadline`, monotonic seconds.

        `may_send` is asked just before the bytes of each request go out. A canary is asked of the
        site itself, not of a cache before it.
        """
        self._adapter.begin(deadline, may_send, is_canary=is_canary)
        # New ones: a thread that an attempt left behind writes to its own.
        self.answers, self._returned = self._adapter.answers, {}

    def enter_lane(self) -> None:
        """Be the session of this thread, whichever other one a function has kept to ask with."""
        _of_lane.set(self)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Prepare a request as requests does, the commonest kind without what it has no use for.

        Checks of types in what merges empty settings take half of requests' own time (Python 3.11,
        measured 2026-11-28).
        """
        has_more = request.auth or self.auth or request.params or self.params or request.cookies
        ours, given = self.headers, request.headers
        is_plain = isinstance(ours, CaseInsensitiveDict) and isinstance(given, dict)
        if has_more or not is_plain or len(self.cookies) or "@" in str(request.url):
            return super().prepare_request(request)
        headers: CaseInsensitiveDict[Any] = CaseInsensitiveDict(ours)
        for name, value in given.items():
            headers[name] = value
        for name in [name for name, value in headers.items() if value is None]:
            del headers[name]
        prepared = requests.PreparedRequest()
        prepared.prepare_method(request.method)
        prepared.prepare_url(request.url, "")
        prepared.prepare_headers(headers)
        vars(prepared)["_cookies"] = RequestsCookieJar()  # redirects look there
        prepared.prepare_body(request.data, request.files, request.json)
        prepared.prepare_hooks(merge_hooks(request.hooks, self.hooks))  # type: ignore[no-untyped-call]
        return prepared

    def merge_environment_settings(
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> Any:
        """Return what a request's own settings and the session's make; no environment is asked."""
        del url  # what it says of proxies and authorities does not count
        return {
            "proxies": proxies or self.proxies,
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, and remember what its caller gets: redirects and challenges left out.

        requests calls this again for each hop of a redirect, and a hook such as that of digest
        authentication asks again beneath it. Neither hop is what the function sees.
        """
        if (own := _of_lane.get() or self) is not self:
            return own.send(request, **options)
        asked, returned = (request.method, request.url), self._returned
        thread, answers = threading.get_ident(), self.answers
        if thread in self._sending:
            return super().send(request, **options)
        self._sending.add(thread)
        returned.setdefault(asked, None)  # whatever comes first, this was asked before it
        try:
            response = super().send(request, **options)
        except requests.RequestException as error:
            returned.update((asked, each) for each in answers if each.request is error.request)
            raise
        else:
            returned[asked] = _answer_of(response)
            return response
        finally:
            self._sending.discard(thread)

    def resolve_redirects(self, resp: Any, req: Any, **options: Any) -> Any:  # type: ignore[override]
        """Follow redirects as requests does, but none that leads to itself and sets no cookie."""
        is_followed = not options.get("yield_requests")
        hops = super().resolve_redirects(resp, req, **options)
        for hop in chain([resp], hops):
            target = self.get_redirect_target(hop) if is_followed else None
            if target and urljoin(hop.url, target) == hop.url and not hop.cookies:
                raise requests.TooManyRedirects("it redirects to itself", response=hop)
            if hop is not resp:
                yield hop

    def end(self) -> None:
        """End an attempt: step 1 has what it wanted. May be called from another thread."""
        self._adapter.let_go()

    @property
    def returned(self) -> list[WireAnswer]:
        """What the attempt's requests came to, in order: of each method and address the last.

        Where the function went beneath `session`, what its adapter saw.
        """
        return [each for each in self._returned.values() if each] or list(self.answers)

    @property
    def was_held_back(self) -> bool:
        """Whether a request of the attempt was not sent, because a pause began."""
        return self._adapter.was_held_back

    @property
    def sent(self) -> int:
        """Requests that the attempt sent."""
        return self._adapter.sent


class WireAdapter(BaseAdapter):
    """Hands the requests of one session to the wire, and makes responses of the answers.

    Attributes:
        answers: What each request of the attempt came to, in order.
        sent: Requests that went out in the attempt.
        was_held_back: Whether one was not let out, or its answer not taken.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.answers: list[WireAnswer] = []
        self._wire = wire
        self._held_bytes, self._asking = list[int](), list[Any]()
        self._written: tuple[Any, list[bytes]] = (None, [])  # headers, and the lines of them

    def begin(self, deadline: float, may_send: Callable[[], bool], *, is_canary: bool) -> None:
        """Begin an attempt."""
        self._deadline, self._may_send, self._is_canary = deadline, may_send, is_canary
        self.sent, self.was_held_back = 0, False
        self.answers = []

    def close(self) -> None:
        """Nothing: the connections are the wire's."""

    def let_go(self) -> None:
        """Give others the room of the body that came last: nobody reads it any more."""
        with suppress(IndexError):
            while self._held_bytes:
                self._wire.let_go(self._held_bytes.pop())

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        """Send one request and read its whole answer.

        Raises:
            HeldBackError: A shared pause began before it went out, there was no room for its
                body, or nobody is named whom the site may ask.
            requests.RequestException: No whole, right answer came within the deadline.
            ValueError: A client certificate is wanted, which is not offered.
        """
        if cert is not None:
            raise ValueError("leave out cert=...: client certificates are not offered")
        if verify is not True:
            self._wire.tell_once(_IGNORED["verify"])
        if proxies:
            self._wire.tell_once(_IGNORED["proxies"])
        if self._wire.is_anonymous and not is_loopback(str(request.url)):
            self._wire.refusal = contact_missing(str(request.url))
            self.was_held_back = True
            raise HeldBackError
        self.let_go()  # who asks again waits for room, and must have none that others wait for
        answers = self.answers
        answer = self._ask(request, timeout)
        self.sent += answer.sent
        if answer.is_held:
            self.was_held_back = True
            raise HeldBackError
        answer.request = request
        answers.append(answer)
        if answer.raises is not None:
            answer.detail = detail_of(answer.detail, answer.secrets)
            raise answer.raises(answer.detail, request=request)
        self._held_bytes.append(len(answer.body))
        if self._asking:  # a thread that waits for room shall not wait for this one's
            self.let_go()
        return _response(request, answer, self, is_streamed=stream)

    def _ask(self, request: requests.PreparedRequest, timeout: Any) -> WireAnswer:
        connect_seconds, read_seconds = _seconds_asked(timeout)
        if max(connect_seconds or 0, read_seconds or 0) > self._wire.attempt_seconds:
            self._wire.tell_once(_IGNORED["timeout"] % self._wire.attempt_seconds)
        if self._is_canary:
            request.headers["Cache-Control"] = "no-cache"
        headers = list(request.headers.lower_items())
        known, lines = self._written
        if headers != known:  # mostly they are as they were for the page before
            try:
                lines = exact_lines(request.headers.items())
            except ValueError as error:
                raise requests.exceptions.InvalidHeader(str(error), request=request) from None
            self._written = headers, lines
        url = str(request.url)
        wire_request = WireRequest(
            str(request.method),
            urldefragauth(url) if "@" in url else url,
            lines,
            self._deadline,
            self._may_send,
            None if request.body is None else _whole_upload(request.body),
            connect_seconds or CONNECT_SECONDS,
            read_seconds,
        )
        self._asking.append(wire_request)
        try:
            return self._wire.exchange(wire_request)
        finally:
            self._asking.remove(wire_request)


def _seconds_asked(timeout: Any) -> tuple[float | None, float | None]:
    """Read `timeout=` as requests does: one number, or one for connecting and one for reading.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(timeout, urllib3.Timeout):
        timeout = timeout.connect_timeout, timeout.read_timeout
    both = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(both) != 2 or not all(isinstance(each, int | float | None) for each in both):
        words = "must be an int, float or None, or a (connect, read) timeout tuple"
        raise ValueError(f"Invalid timeout {timeout}: it {words}")
    return both


def _whole_upload(body: Any) -> bytes:
    """Read what is to be sent, here in the thread whose code may bring it piece by piece.

    Raises:
        ValueError: It is longer than may be sent.
    """
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if isinstance(body, str):
        return body.encode("utf-8")
    pieces: list[bytes] = []
    left = MAX_UPLOAD_BYTES
    read = getattr(body, "read", None)
    for piece in body if read is None else iter(lambda: read(1 << 16) or b"", b""):
        pieces.append(piece.encode("utf-8") if isinstance(piece, str) else bytes(piece))
        left -= len(pieces[-1])
        if left < 0:
            raise ValueError(f"an upload may be {MAX_UPLOAD_BYTES} bytes long at most")
    return b"".join(pieces)


def _response(
    request: requests.PreparedRequest,
    answer: WireAnswer,
    adapter: WireAdapter,
    *,
    is_streamed: bool,
) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status  # type: ignore[assignment]
    fields = header_fields(answer.head)
    headers = response.headers
    for name, value in fields:
        headers[name] = value
    if len(headers) < len(fields):  # the values of repeated ones are joined
        headers.update(urllib3.HTTPHeaderDict(fields))
    response.encoding = get_encoding_from_headers(response.headers)
    response.reason = answer.reason
    response.url = str(request.url)
    response.request = request
    response.connection = adapter  # type: ignore[assignment]
    body, answer.body = answer.body, b""  # what the session remembers is the rest
    response.raw = raw = _RawBody(answer, fields, body if is_streamed else b"")
    if raw._original_response is not None:  # noqa: SLF001 - as requests does
        extract_cookies_to_jar(response.cookies, request, raw)  # type: ignore[no-untyped-call]
    response._content = body  # noqa: SLF001 - requests has no other way to hand one over
    response._content_consumed = not is_streamed  # type: ignore[attr-defined]  # noqa: SLF001
    return response


class _RawBody:
    """`response.raw`: a `urllib3.HTTPResponse` over the body, made when somebody wants one."""

    def __init__(self, answer: WireAnswer, fields: list[tuple[str, str]], body: bytes) -> None:
        self._original_response: Any = None
        if b"\nset-cookie:" in answer.text:
            message = HTTPMessage()  # which requests asks for cookies; each stands for itself
            for name, value in fields:
                message[name] = value
            told = {"msg": message, "close": lambda: None, "isclosed": lambda: True}
            self._original_response = SimpleNamespace(**told)
        self.answer, self._fields, self._body = answer, fields, body

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_made" in self.__dict__:
            return getattr(self.__dict__["_made"], name)
        told = urllib3.HTTPHeaderDict(self._fields)
        if "content-encoding" in told:  # it is undone
            for header in ("Content-Encoding", "Content-Length", "Transfer-Encoding"):
                told.discard(header)
        self._made = urllib3.HTTPResponse(
            io.BytesIO(self._body),
            told,
            self.answer.status or 0,
            version=self.answer.version,
            reason=self.answer.reason,
            preload_content=False,
            original_response=self._original_response,
        )
        return getattr(self._made, name)


def _answer_of(response: requests.Response) -> WireAnswer:
    """Return the answer that a response was made of; a hook may have put another in its place."""
    raw = response.raw
    if isinstance(raw, _RawBody):
        return raw.answer
    head = [f"{name}: {value}".encode("latin-1") for name, value in response.headers.items()]
    return WireAnswer(response.status_code, head, request=response.request)
