"""What libcurl received, or failed to, read as a reply."""

import re
from collections.abc import Iterable
from typing import Any

import pycurl

from crawler.engines.body import MAX_BODY_BYTES, decode_body
from crawler.engines.details import detail_of, in_words, secrets_in
from crawler.engines.outcome import storage_trouble
from crawler.errors import Missing, PageError
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt
from crawler.source.source import Source

MAX_HEADER_LINES = 100
MAX_HEADER_BYTES = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/[0-9.]+ [2-9][0-9]{2}[ \r\n]")  # 1xx ends no exchange

_KINDS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "connect",
    pycurl.E_SSL_CONNECT_ERROR: "connect",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
    pycurl.E_GOT_NOTHING: "connection",
    pycurl.E_RECV_ERROR: "connection",
    pycurl.E_SEND_ERROR: "connection",
    pycurl.E_PARTIAL_FILE: "connection",
    pycurl.E_HTTP2: "connection",
    92: "connection",  # CURLE_HTTP2_STREAM, which pycurl does not name
    pycurl.E_FILESIZE_EXCEEDED: "too_large",
    pycurl.E_BAD_CONTENT_ENCODING: "encoding",
}
"""Kinds of failure by libcurl's error number; any other is `protocol`."""

_MORE_PRECISELY = (
    ("timeout", "Resolving", "dns"),
    ("timeout", "Connection timed out", "connect"),
    ("timeout", "Connection timeout", "connect"),
    ("timeout", "SSL connection timeout", "connect"),
    ("connection", "Too large response headers", "protocol"),
)
"""Where libcurl's words say more than its number: kind, beginning of the message, better kind."""


def read_page(
    attempt: Attempt, source: Source, status: int, lines: list[bytes], chunks: list[bytes]
) -> Reply:
    """Turn a whole answer into a reply.

    Args:
        attempt: What it answers.
        source: Takes the info from its body.
        status: HTTP status.
        lines: Its head as received, a line each.
        chunks: Its body as received, encoded.
    """
    head, is_whole = final_head(lines)
    if not is_whole:  # libcurl takes the end of the connection for the head's
        return Reply(attempt, error="connection", detail="the end amid the headers")
    if not _STATUS_LINE.match(head[0]):
        return Reply(attempt, error="protocol", detail="the status line is not as it should be")
    if status != 200:
        return answer_without_page(attempt, status, head)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    try:
        encoding = _check_head(b"".join(head).lower(), len(head))
        if encoding or len(body) > MAX_BODY_BYTES:
            body = decode_body(body, encoding)
        info = source.info(attempt.song_num, body)
    except PageError as error:
        return _failure(attempt, source, error.kind, error.detail)
    except Missing:
        return Reply(attempt, status=200, error="missing")
    except Exception as error:  # noqa: BLE001 - a source is anybody's code
        return _failure(attempt, source, "function", in_words(error))
    if attempt.job.is_recorded and not getattr(source, "reads_on_wire", False):
        trouble = storage_trouble(info)
        if trouble is not None:
            return _failure(attempt, source, "function", trouble)
    return Reply(attempt, True, info, 200)


def final_head(lines: list[bytes]) -> tuple[list[bytes], bool]:
    """Pick the final answer's head from what libcurl hands over; say whether its end has come.

    Heads of interim answers (1xx) stand before it, trailers of a chunked body after it.
    """
    if lines and lines[-1] == b"\r\n" and lines.count(b"\r\n") == 1:
        return lines, True
    begin = max((i for i, line in enumerate(lines) if line.startswith(b"HTTP/")), default=0)
    for end in range(begin, len(lines)):
        if lines[end] in (b"\r\n", b"\n"):
            return lines[begin : end + 1], True
    return lines[begin:], False


def read_failure(
    attempt: Attempt, source: Source, handle: Any, number: int, message: str, lines: list[bytes]
) -> Reply:
    """Turn a broken transfer into a reply; what came of a status counts all the same.

    Args:
        attempt: What failed.
        source: Whose headers were sent.
        handle: The handle, for what libcurl knows of the transfer.
        number: libcurl's error number.
        message: libcurl's words.
        lines: What came of a head.
    """
    kind = _KINDS.get(number, "protocol")
    for before, beginning, better in _MORE_PRECISELY:
        if kind == before and message.startswith(beginning):
            kind = better
    if kind == "connect" and handle.getinfo(pycurl.NAMELOOKUP_TIME) == 0:
        kind = "dns"
    status = handle.getinfo(pycurl.RESPONSE_CODE)
    reply = answer_without_page(attempt, status or None, final_head(lines)[0])
    reply.error, reply.detail = kind, detail_of(message, secrets_in(source.headers()))
    reply.is_reused = handle.getinfo(pycurl.NUM_CONNECTS) == 0
    return reply


def answer_without_page(attempt: Attempt, status: int | None, lines: list[bytes]) -> Reply:
    """Make the reply of an answer that is not a page, with the headers that policy needs."""
    return Reply(
        attempt,
        status=status,
        headers=read_headers(lines),
    )


def _failure(attempt: Attempt, source: Source, kind: str, detail: str) -> Reply:
    told = detail_of(detail, secrets_in(source.headers()))
    return Reply(attempt, status=200, error=kind, detail=told)


def _check_head(head: bytes, line_count: int) -> str:
    """Look through the head of a 200 in lower case; say the content encoding, "" for none.

    Raises:
        PageError: `protocol`: too large, or its length is in doubt (RFC 9112, section 6.3).
    """
    if line_count > MAX_HEADER_LINES:
        raise PageError("protocol", f"more than {MAX_HEADER_LINES} header lines")
    if len(head) > MAX_HEADER_BYTES:
        raise PageError("protocol", f"more than {MAX_HEADER_BYTES} bytes of headers")
    if b"\ntransfer-encoding:" in head and b"\ncontent-length:" in head:
        raise PageError("protocol", "both Content-Length and Transfer-Encoding")
    if b"\ncontent-encoding:" not in head:
        return ""
    return _header(head.split(b"\n"), b"content-encoding") or ""


def read_headers(lines: Iterable[bytes]) -> dict[str, str]:
    """Read the lines of a head; repeated ones are joined, as RFC 9110 section 5.3 says."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if colon:
            name, value = name.strip().lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _header(lines: Iterable[bytes], name: bytes) -> str | None:
    """Find a header among raw lines; repeated ones are joined, as RFC 9110 section 5.3 says."""
    prefix = name + b":"
    values = [
        line[len(prefix) :].strip().decode("latin-1")
        for line in lines
        if line[: len(prefix)].lower() == prefix
    ]
    return ", ".join(values) if values else None
