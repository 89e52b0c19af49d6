"""What comes back over the wire, read: heads checked once, and failures named in one table."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pycurl
import requests.exceptions as raised

from crawler.errors import Missing, PageError
from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber
from crawler.logs import one_line, redact
from crawler.source.source import Source, traits_of

MAX_HEADER_LINES = 100
MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers; the same for all heads of interim answers (1xx) together."""

MAX_DETAIL = 200
"""Characters."""

_STATUS_LINE = re.compile(rb"HTTP/([0-9.]+) [2-9][0-9]{2}(?: ([^\r\n]*))?\r?\n")  # 1xx ends nothing

_PLAIN_STATUS_LINES = frozenset({b"HTTP/1.1 200 OK\r\n", b"HTTP/2 200 \r\n"})
_HEAD_END = b"\r\n"
_TELLING = (b"transfer-encoding", b"content-encoding", b"set-cookie", b"ratelimit", b"rate-limit")
_MOST_KNOWN, _LONGEST_KNOWN_BYTES = 512, MAX_HEAD_BYTES // MAX_HEADER_LINES

Raised = type[raised.RequestException]

_FAILURES: dict[int, tuple[str, Raised]] = {
    pycurl.E_URL_MALFORMAT: ("protocol", raised.InvalidURL),
    pycurl.E_UNSUPPORTED_PROTOCOL: ("protocol", raised.InvalidSchema),
    pycurl.E_COULDNT_RESOLVE_HOST: ("dns", raised.ConnectionError),
    pycurl.E_COULDNT_CONNECT: ("connect", raised.ConnectionError),
    pycurl.E_SSL_CONNECT_ERROR: ("connect", raised.SSLError),
    pycurl.E_PEER_FAILED_VERIFICATION: ("tls", raised.SSLError),
    pycurl.E_SSL_CACERT_BADFILE: ("tls", raised.SSLError),
    pycurl.E_SSL_ISSUER_ERROR: ("tls", raised.SSLError),
    pycurl.E_OPERATION_TIMEDOUT: ("timeout", raised.ReadTimeout),
    pycurl.E_GOT_NOTHING: ("connection", raised.ConnectionError),
    pycurl.E_RECV_ERROR: ("connection", raised.ConnectionError),
    pycurl.E_SEND_ERROR: ("connection", raised.ConnectionError),
    pycurl.E_PARTIAL_FILE: ("connection", raised.ChunkedEncodingError),
    pycurl.E_HTTP2: ("connection", raised.ConnectionError),
    92: ("connection", raised.ConnectionError),  # CURLE_HTTP2_STREAM, which pycurl does not name
    pycurl.E_FILESIZE_EXCEEDED: ("too_large", raised.ContentDecodingError),
    pycurl.E_BAD_CONTENT_ENCODING: ("protocol", raised.ChunkedEncodingError),
}
"""By libcurl's error number: the kind of failure, and what requests raises for it. Any other is
`protocol`. Of the encodings libcurl is left to undo those of the transfer only."""

_UNSENT: dict[str, tuple[str, Raised]] = {
    "timeout": ("connect", raised.ConnectTimeout),
    "connection": ("connect", raised.ConnectionError),
}
"""What a kind turns into where the request had not been sent."""

_MORE_PRECISELY: tuple[tuple[str, str, tuple[str, Raised]], ...] = (
    ("connection", "Too large response headers", ("protocol", raised.ConnectionError)),
    ("protocol", "Received HTTP/0.9", ("protocol", raised.ConnectionError)),
    ("protocol", "Invalid Content-Length", ("protocol", raised.InvalidHeader)),
    ("connection", "Malformed encoding", ("protocol", raised.ChunkedEncodingError)),
    ("connection", "chunk hex-length", ("protocol", raised.ChunkedEncodingError)),
    ("connection", "invalid chunk size", ("protocol", raised.ChunkedEncodingError)),
)
"""Where libcurl's words say more than its number: kind, beginning of the message, what it is."""

_OF_A_PAGE: dict[str, Raised] = {
    "connection": raised.ConnectionError,
    "encoding": raised.ContentDecodingError,
    "too_large": raised.ContentDecodingError,
}
"""What is raised where a whole transfer is no answer; anything else is a ConnectionError."""


class WireAnswer(msgspec.Struct, gc=False):
    """What came of one request.

    Attributes:
        status: HTTP status of the final answer, None where none came.
        head: The lines of its head as received, the status line first.
        text: All of the head in lower case; empty where it was not checked, and where it is plain
            (`PlainLines`).
        body: Decoded; empty where there is an error.
        error: A word of `crawler.frontier.verdict.FAILURE_KINDS`, None for a whole answer.
        detail: The error in words, which may quote what was sent.
        raises: The exception of requests that stands for the error.
        is_held: Whether it was not sent, or not taken in, for a reason of our own: a shared pause
            began, or there was no room for its body. Counts against nobody.
        is_reused: Whether the connection had served an earlier request.
        sent: How often it went out: again where libcurl met a connection that had been closed.
        request: A step 1 function's request, for what it carried that must not be told.
    """

    status: int | None = None
    head: list[bytes] = []
    text: bytes = b""
    body: bytes = b""
    error: str | None = None
    detail: str = ""
    raises: Raised | None = None
    is_held: bool = False
    is_reused: bool = False
    sent: int = 0
    request: Any = None

    def fail(self, kind: str, detail: str, raises: Raised | None = None) -> None:
        """Make it a failure of this kind."""
        self.error, self.detail, self.body = kind, detail, b""
        self.raises = raises or _OF_A_PAGE.get(kind, raised.ConnectionError)

    @property
    def headers(self) -> dict[str, str]:
        """The headers as `Reply` has them: names in lower case, repeated ones joined."""
        return read_headers(self.head)

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
        """Whether the site says that this is what was asked for; a part is, to who asked for one."""
        if self.status == 206:
            return self.request is not None and "Range" in self.request.headers
        return self.status is not None and 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """What stands behind the status; "" where nothing does, as in HTTP/2."""
        line = _STATUS_LINE.match(self.head[0]) if self.head else None
        return (line[2] or b"").decode("latin-1").strip() if line else ""

    @property
    def version(self) -> int:
        """The version of HTTP as urllib3 writes it: 10, 11 or 20."""
        line = _STATUS_LINE.match(self.head[0]) if self.head else None
        return {b"1.0": 10, b"2": 20}.get(line[1], 11) if line else 11


class PlainLines:
    """Header lines that were looked at and change nothing; not safe in threads.

    Most lines of a site's answers are those of the answer before, so that they are known by their
    hash, and most heads need no other look.
    """

    def __init__(self) -> None:
        """Know the lines that begin and end a head."""
        self._known = {*_PLAIN_STATUS_LINES, _HEAD_END}

    def make_head(self, lines: list[bytes]) -> bool:
        """Whether these are one head that is plainly right: whole, of status 200, nothing in it told.

        Then `final_head` finds the same lines, `check_head` nothing wrong, and they name no encodings,
        cookies, caches and, by the usual names, limits. A head that is not plain may be right.
        """
        if not (self._known.issuperset(lines) or self._learn(lines)):
            return False
        count = len(lines)
        is_head = 1 < count <= MAX_HEADER_LINES and lines[-1] == _HEAD_END
        return is_head and lines[0] in _PLAIN_STATUS_LINES and lines.index(_HEAD_END) == count - 1

    def _learn(self, lines: list[bytes]) -> bool:
        """Look at the lines that are new; return whether all of them change nothing."""
        new = [line for line in lines if line not in self._known]
        if not all(map(_is_plain, new)):
            return False
        if len(self._known) > _MOST_KNOWN:
            self._known = {*_PLAIN_STATUS_LINES, _HEAD_END}
        self._known.update(new)
        return True


def _is_plain(line: bytes) -> bool:
    is_one_line = line.endswith(b"\n") and line.count(b"\n") == 1
    if not is_one_line or len(line) > _LONGEST_KNOWN_BYTES:
        return False
    written = line.lower()
    return not (written.startswith(b"age:") or any(word in written for word in _TELLING))


def note_failure(
    answer: WireAnswer, number: int, message: str, *, is_resolved: bool, is_head_whole: bool
) -> None:
    """Turn an error of libcurl's into a failure.

    Args:
        answer: Of the transfer, with how often it was sent.
        number: libcurl's error number.
        message: libcurl's words.
        is_resolved: Whether the host's name was known by then.
        is_head_whole: Whether the failure came in the body.
    """
    kind, raises = _FAILURES.get(number, ("protocol", raised.ConnectionError))
    if answer.sent == 0:
        kind, raises = _UNSENT.get(kind, (kind, raises))
        if kind == "connect" and not is_resolved:
            kind = "dns"
    elif is_head_whole and raises is raised.ConnectionError:
        raises = raised.ChunkedEncodingError
    for before, beginning, better in _MORE_PRECISELY:
        if kind == before and message.startswith(beginning):
            kind, raises = better
    answer.fail(kind, message, raises)


def final_head(lines: list[bytes]) -> tuple[list[bytes], bool]:
    """Return a copy of the final answer's head in what libcurl hands over, and whether it is whole.

    Heads of interim answers (1xx) stand before it, trailers of a chunked body after it.
    """
    if lines and lines[-1] == b"\r\n" and lines.count(b"\r\n") == 1:
        return lines.copy(), True
    begin = max((i for i, line in enumerate(lines) if line.startswith(b"HTTP/")), default=0)
    for end in range(begin, len(lines)):
        if lines[end] in (b"\r\n", b"\n"):
            return lines[begin : end + 1], True
    return lines[begin:], False


def is_final(status_line: bytes) -> bool:
    """Whether this is the right status line of an answer that ends the exchange: of no 1xx."""
    return _STATUS_LINE.match(status_line) is not None


def check_head(head: list[bytes], *, is_whole: bool) -> bytes:
    """Check the head of an answer; return all of it in lower case.

    Raises:
        PageError: `connection`: its end never came. `protocol`: it is too large, is none, or leaves
            the length of the body in doubt (RFC 9112, section 6.3).
    """
    if not is_whole:  # libcurl takes the end of the connection for the head's
        raise PageError("connection", "the end amid the headers")
    if not is_final(head[0]):
        raise PageError("protocol", "the status line is not as it should be")
    if len(head) > MAX_HEADER_LINES:
        raise PageError("protocol", f"more than {MAX_HEADER_LINES} header lines")
    joined = b"".join(head).lower()
    if len(joined) > MAX_HEAD_BYTES:
        raise PageError("protocol", f"more than {MAX_HEAD_BYTES} bytes of headers")
    if b"\ntransfer-encoding:" in joined:
        _check_transfer_encoding(joined)
    return joined


def content_encoding(text: bytes) -> str:
    """Return the content encoding that a head in lower case names, "" for none."""
    if b"\ncontent-encoding:" not in text:
        return ""
    return read_headers(text.split(b"\n"))["content-encoding"]


def _check_transfer_encoding(head: bytes) -> None:
    if b"\ncontent-length:" in head:
        raise PageError("protocol", "both Content-Length and Transfer-Encoding")
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"transfer-encoding" and value.strip() not in (b"chunked", b"identity"):
            raise PageError("protocol", "a Transfer-Encoding other than chunked")


def read_headers(lines: Iterable[bytes]) -> dict[str, str]:
    """Read the lines of a head; repeated ones are joined, as RFC 9110 section 5.3 says."""
    headers: dict[str, str] = {}
    for written, value in header_fields(lines):
        name = written.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def header_fields(lines: Iterable[bytes]) -> list[tuple[str, str]]:
    """Return the names and values of a head's lines, in order, names as they were written."""
    fields = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            fields.append((name.strip(), value.strip()))
    return fields


def read_page(attempt: PendingNumber, answer: WireAnswer) -> Reply:
    """Turn an answer about a source's page into a reply; the source takes the info from it."""
    job = attempt.job
    source = job.source
    if answer.error is not None:
        detail = _told(source, answer.detail)
        return Reply(
            attempt,
            status=answer.status,
            error=answer.error,
            detail=detail,
            headers=headers_for_policy(attempt, answer),
            is_reused=answer.is_reused,
        )
    if answer.status != 200:
        return Reply(attempt, status=answer.status, headers=answer.headers)
    try:
        info = source.info(attempt.song_num, answer.body)
    except PageError as error:
        return _no_page(attempt, answer, error.kind, error.detail)
    except Missing:
        return Reply(attempt, status=200, error="missing", headers=answer.headers)
    except Exception as error:  # noqa: BLE001 - a source is anybody's code
        return _no_page(attempt, answer, "function", in_words(error))
    if job.is_recorded and not job.traits.reads_on_wire:
        trouble = storage_trouble(info)
        if trouble is not None:
            return _no_page(attempt, answer, "function", trouble)
    may_tell = answer.text or attempt.is_canary or job.traits.rate_headers
    headers = headers_for_policy(attempt, answer) if may_tell else None
    return Reply(attempt, True, info, 200, headers=headers)


def headers_for_policy(attempt: PendingNumber, answer: WireAnswer) -> dict[str, str] | None:
    """Return the headers of an answer where policy may need them.

    It does of all that is no plain page, of a canary, of what a cache has kept, and where a limit
    is announced: by the usual names, or by those that the source declares.
    """
    if answer.status == 200 and answer.error is None and not attempt.is_canary:
        names = attempt.job.traits.rate_headers.values()
        text = answer.text or (b"".join(answer.head).lower() if names else b"")
        if not (
            b"ratelimit" in text
            or b"rate-limit" in text
            or b"\nage:" in text
            or any(name.lower().encode() in text for name in names)
        ):
            return None
    return answer.headers if answer.head else None


def _no_page(attempt: PendingNumber, answer: WireAnswer, kind: str, detail: str) -> Reply:
    told = _told(attempt.job.source, detail)
    return Reply(attempt, status=200, error=kind, detail=told, headers=answer.headers)


def _told(source: Source, detail: str) -> str:
    """Make a detail without what the source sends: in its headers, or as a token in its address."""
    secrets = {*traits_of(source).secrets, *secrets_in(source.headers())}
    return detail_of(detail, sorted(secrets, key=len, reverse=True))


def storage_trouble(info: Any) -> str | None:
    """Return why an info cannot be written as JSON, or None: it can."""
    try:
        msgspec.json.encode(info)
    except UnicodeEncodeError:
        return None  # half a surrogate pair: the record's own encoder writes it with escapes
    except Exception as error:  # noqa: BLE001 - anybody's objects
        return f"info cannot be stored: {in_words(error)}"
    return None


# --- The line that tells what went wrong: short, on one line, without our secrets ----------------

_PLAIN_HEADERS = {
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "host",
    "range",
    "referer",
    "user-agent",
}
_SHORTEST_SECRET = 6  # characters; to blot out less would blot out words


def secrets_in(headers: Mapping[str, Any], url: str = "") -> list[str]:
    """List what a request carries that must not be told, the longest first.

    Args:
        headers: As sent. Of `Authorization: Bearer abc` both the whole value and `abc` are secret.
        url: Its query may hold a key; only the values are secret.
    """
    values = [str(value) for name, value in headers.items() if name.lower() not in _PLAIN_HEADERS]
    words = {part for value in values for part in (value, *value.split())}
    if "?" in url:
        words |= {value for _, value in parse_qsl(urlsplit(url).query)}
    return sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True)


def detail_of(text: str, secrets: Iterable[str] = ()) -> str:
    """Make a detail of any text: what the site or somebody's function said may be in it."""
    return one_line(redact(text[: 10 * MAX_DETAIL], secrets))[:MAX_DETAIL]


def in_words(error: BaseException) -> str:
    """Return which exception it was, and what it says."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - `__str__` of anybody's exception
        return type(error).__name__
