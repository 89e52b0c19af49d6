"""One transfer: what a request sends, how libcurl's handle is set for it, and what came back."""

import queue
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pycurl

from crawler.errors import PageError
from crawler.frontier.work import PendingNumber
from crawler.source.source import Source
from crawler.wire.answers import (
    MAX_HEAD_BYTES,
    MAX_HEADER_LINES,
    PlainLines,
    WireAnswer,
    check_head,
    content_encoding,
    final_head,
    is_final,
    note_failure,
)
from crawler.wire.body import MAX_BODY_BYTES, BodyDecoder

CONNECT_SECONDS = 10.0

SHORT_BODY_BYTES = 32 * 1024
"""A body this short takes no room: songs are shorter, and 900 connections of them weigh 30 MiB."""

_LINE_WEIGHT_BYTES = 48
"""What Python adds to each line: a head of 300 kB may be 10,000 of them."""

_BODILESS = (204, 304)
_SWITCHING_PROTOCOLS = 101

_ADDED_BY_LIBCURL, _ADDED_WITH_A_BODY = (b"accept", b"user-agent"), (b"content-type", b"expect")
"""Headers that libcurl would send by itself; those that nobody gave are left out."""


def is_let_out() -> bool:
    """Let a request go out whenever its connection stands: what has no pause to keep."""
    return True


class WireRequest(msgspec.Struct, eq=False):
    """One request that a thread has sent over the wire, and waits for.

    Attributes:
        method: As it is sent, such as `GET`.
        url: An address of http or https.
        headers: Lines as libcurl wants them; none but these are sent, beside `Host`.
        deadline: When the answer must be whole, monotonic seconds.
        may_send: Asked, on the wire's thread, when the connection stands.
        body: What is sent with it, None for no body.
        connect_seconds: For name, connection and handshake.
        read_seconds: Longest silence of the site once the request is sent; None for no limit.
        cut_bytes: A longer body is cut there, and no error; None: it is an error.
        inbox: Where the answer goes.
        origin: Scheme, host and port: requests of one origin may share a connection.
    """

    method: str
    url: str
    headers: list[bytes]
    deadline: float = 0.0
    may_send: Callable[[], bool] = is_let_out
    body: bytes | None = None
    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float | None = None
    cut_bytes: int | None = None
    inbox: "queue.SimpleQueue[WireAnswer]" = msgspec.field(default_factory=queue.SimpleQueue)
    origin: str = ""

    def __post_init__(self) -> None:
        """Note scheme, host and port."""
        self.origin = "/".join(self.url.split("/", 3)[:3])


class Transfer:
    """One reusable handle, with what the transfer under way has received.

    libcurl appends to a list and a byte array in C. A handle looks up its attributes slowly (pycurl
    7.49), so the two needed for each page are kept.

    Attributes:
        attempt: The source's attempt under way, if it is one.
        request: The request of a thread under way, if it is one.
        url: Its address.
        origin: Scheme, host and port of a thread's request; "" for a page.
        sent: How often its bytes went out.
        sockets: Connections begun for it.
    """

    __slots__ = (
        "_decoded", "_decoder", "_headers", "_is_plain", "_plain_lines", "attempt", "decoded_bytes",
        "getinfo", "handle", "lines", "origin", "raw", "request", "sent", "setopt", "sockets",
        "source", "url",
    )  # fmt: skip

    def __init__(self, handle: pycurl.Curl, plain_lines: PlainLines) -> None:
        self.handle, self._plain_lines = handle, plain_lines
        self.setopt, self.getinfo = handle.setopt, handle.getinfo
        self.lines: list[bytes] = []
        self.raw = bytearray()
        self.attempt: PendingNumber | None = None
        self.source: Source | None = None
        self.request: WireRequest | None = None
        self.url = self.origin = ""
        self.sent = self.sockets = 0
        self._headers: list[bytes] | None = None
        self._is_plain = True
        self._decoder: BodyDecoder | None = None
        self._decoded: list[bytes] = []
        self.decoded_bytes = 0
        handle.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        handle.setopt(pycurl.WRITEFUNCTION, self.raw.extend)

    def begin_page(self, attempt: PendingNumber, user_agent: str) -> None:
        """Set the handle for a source's page.

        Raises:
            Exception: What the source raised.
        """
        self.attempt, source = attempt, attempt.job.source
        if source is not self.source or attempt.is_canary:
            self.setopt(pycurl.HTTPHEADER, source_lines(attempt, user_agent))
            self.source = source
        self.url = url = source.url(attempt.song_num)
        self.setopt(pycurl.URL, url)

    def begin_request(self, request: WireRequest, now: float) -> None:
        """Set the handle for a thread's request, of which some time is left."""
        self.request, setopt = request, self.setopt
        self.url, self.origin = request.url, request.origin
        setopt(pycurl.URL, request.url)
        if request.headers != self._headers:
            setopt(pycurl.HTTPHEADER, request.headers)
            self._headers = request.headers
        left = request.deadline - now
        setopt(pycurl.TIMEOUT_MS, _milliseconds(left))
        setopt(pycurl.CONNECTTIMEOUT_MS, _milliseconds(min(left, request.connect_seconds)))
        is_plain = request.method == "GET" and request.body is None and request.cut_bytes is None
        if not (is_plain and self._is_plain):
            self._set_method(request)
            self._is_plain = is_plain

    def _set_method(self, request: WireRequest) -> None:
        setopt, is_head = self.setopt, request.method == "HEAD"
        setopt(pycurl.HTTPGET, 1)  # forgets what the request before was
        setopt(pycurl.NOBODY, is_head)
        setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.body is not None:
            setopt(pycurl.POST, 1)
            setopt(pycurl.POSTFIELDS, request.body)
        # A HEAD announces the length of what it does not bring.
        is_bounded = not is_head and request.cut_bytes is None
        setopt(pycurl.MAXFILESIZE, MAX_BODY_BYTES if is_bounded else 0)
        if request.cut_bytes is None:
            setopt(pycurl.WRITEFUNCTION, self.raw.extend)
        else:
            setopt(pycurl.WRITEFUNCTION, _cutting(self.raw, request.cut_bytes))

    def end(self, number: int = 0, message: str = "") -> WireAnswer:
        """Return what came of the transfer; the numbers and words are libcurl's."""
        lines, raw = self.lines, self.raw
        is_right = number == 0 and self._decoder is None and len(raw) <= MAX_BODY_BYTES
        if is_right and self._plain_lines.make_head(lines):
            return WireAnswer(200, lines.copy(), b"", bytes(raw), sent=self.sent)
        head, is_whole = final_head(lines)
        status = self.getinfo(pycurl.RESPONSE_CODE)
        answer = WireAnswer(status if status >= 200 else None, head, sent=self.sent)
        if number:
            is_cut = number == pycurl.E_WRITE_ERROR and self._is_cut
            if not is_cut:
                self._fail(answer, number, message, is_whole=is_whole)
                is_interim = status < 200 and status != _SWITCHING_PROTOCOLS
                if answer.is_held or is_interim or not is_whole:
                    return answer  # else the head may say more
        try:
            if len(self.lines) > MAX_HEADER_LINES:
                self.check_size_of_heads()
            answer.text = check_head(head, is_whole=is_whole)
            if answer.error is None:
                self._read_body(answer)
        except PageError as error:
            if not (is_whole and is_final(head[0])):
                answer.status = None
            answer.fail(error.kind, error.detail)
        return answer

    def _fail(self, answer: WireAnswer, number: int, message: str, *, is_whole: bool) -> None:
        """Note an error of libcurl's."""
        if number == pycurl.E_ABORTED_BY_CALLBACK:
            answer.is_held = True
            return
        answer.is_reused = self.getinfo(pycurl.NUM_CONNECTS) == 0
        is_resolved = self.getinfo(pycurl.NAMELOOKUP_TIME) > 0
        note_failure(answer, number, message, is_resolved=is_resolved, is_head_whole=is_whole)

    def check_size_of_heads(self) -> None:
        """Refuse interim answers without end.

        Raises:
            PageError: `protocol`.
        """
        if sum(map(len, self.lines)) > 2 * MAX_HEAD_BYTES:
            raise PageError("protocol", "more headers than any answer has")

    def _read_body(self, answer: WireAnswer) -> None:
        request, raw, is_page = self.request, self.raw, answer.status == 200
        if not is_page and (request is None or answer.status in _BODILESS):
            return
        if request is not None and request.method == "HEAD":
            return
        is_packed = b"\ncontent-encoding:" in answer.text
        if not is_packed and self._decoder is None and len(raw) <= MAX_BODY_BYTES:
            answer.body = bytes(raw)
            return
        try:
            decoder = self._decode(content_encoding(answer.text))
            decoder.finish()
            answer.body = b"".join(self._decoded)
        except PageError as error:
            if is_page or error.kind != "encoding":  # nobody needs the body of an error
                raise

    def decode_so_far(self) -> None:
        """Decode what has come of a long body, so that it weighs what it will, and no more.

        Raises:
            PageError: It is too large or damaged already.
        """
        if len(self.lines) > MAX_HEADER_LINES:
            self.check_size_of_heads()
        head, is_whole = final_head(self.lines)
        if is_whole and self.raw and not self._is_cut:
            self._decode(content_encoding(b"".join(head).lower()))

    def _decode(self, encoding: str) -> BodyDecoder:
        if self._decoder is None:
            self._decoder = BodyDecoder(encoding)
        raw = bytes(self.raw)
        self.raw.clear()
        self._decoded.append(self._decoder.decode(raw))
        self.decoded_bytes += len(self._decoded[-1])
        return self._decoder

    @property
    def _is_cut(self) -> bool:
        return self.request is not None and self.request.cut_bytes is not None

    @property
    def is_long(self) -> bool:
        """Whether it has received more than a page usually is."""
        return (
            len(self.raw) + self.decoded_bytes > SHORT_BODY_BYTES
            or len(self.lines) > MAX_HEADER_LINES
        )

    @property
    def progress(self) -> tuple[int, int, int]:
        """What changes whenever something comes."""
        return len(self.lines), len(self.raw), self.decoded_bytes

    @property
    def weight_bytes(self) -> int:
        """What it has received, and what that takes; of heads libcurl keeps a copy."""
        lines = sum(map(len, self.lines)) + _LINE_WEIGHT_BYTES * len(self.lines)
        return len(self.raw) + self.decoded_bytes + 2 * lines

    def clear(self) -> int:
        """Let go of all of it; return how many header lines it had."""
        count = len(self.lines)
        self.lines.clear()
        self.raw.clear()
        if self._decoder is not None:
            self._decoder, self.decoded_bytes = None, 0
            self._decoded.clear()
        if self.attempt is not None and self.attempt.is_canary:
            self.source = None  # the next page has other headers
        self.attempt = self.request = None
        self.sent = self.sockets = 0
        return count


def source_lines(attempt: PendingNumber, user_agent: str) -> list[bytes]:
    """Write the headers of a source as libcurl wants them; no cache may answer for a canary.

    Raises:
        ValueError: One holds a line end.
    """
    headers = attempt.job.source.headers()
    given = {name.lower() for name in headers}
    ours = [("User-Agent", user_agent), ("Accept-Encoding", "gzip")]
    if attempt.is_canary:
        ours.append(("Cache-Control", "no-cache"))
    ours = [each for each in ours if each[0].lower() not in given]
    return exact_lines([*ours, *headers.items()], has_body=False)


def page_request(attempt: PendingNumber, user_agent: str) -> WireRequest:
    """Write the request for a source's page.

    Raises:
        Exception: What the source raised, or a TypeError: its address is no text.
    """
    url = attempt.job.source.url(attempt.song_num)
    if not isinstance(url, str):
        raise TypeError(f"an address must be text, not {url!r}")
    return WireRequest("GET", url, source_lines(attempt, user_agent))


def exact_lines(headers: Iterable[tuple[Any, Any]], *, has_body: bool = True) -> list[bytes]:
    """Write headers, text or bytes, as libcurl wants them, so that it adds none of its own.

    Without a body it adds fewer, and the shorter the list, the sooner it is searched.

    Raises:
        ValueError: One holds a line end, or what is not Latin-1.
    """
    lines, given = [], set()
    for name, value in headers:
        line = _as_bytes(name) + (b": " + _as_bytes(value) if value.strip() else b";")
        if b"\n" in line or b"\r" in line or b"\0" in line:
            raise ValueError(f"the header {name!r} holds a line end")
        given.add(_as_bytes(name).lower())
        lines.append(line)
    added = _ADDED_BY_LIBCURL + (_ADDED_WITH_A_BODY if has_body else ())
    return lines + [name + b":" for name in added if name not in given]


def _as_bytes(text: Any) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))  # 0 would be no limit


def _cutting(raw: bytearray, most: int) -> Callable[[bytes], int | None]:
    """Make what takes in a body up to so many bytes, and breaks the transfer off there."""

    def take(piece: bytes) -> int | None:
        raw.extend(piece[: most - len(raw)])
        return None if len(raw) < most else 0

    return take
