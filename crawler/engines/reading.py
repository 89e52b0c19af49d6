"""Answers as they come over a connection: heads bounded and whole, chunks what they say.

Each read gets only the time that is left of the whole.
"""

import http.client
import io
import re
from typing import Any

from crawler.engines.body import MAX_BODY_BYTES
from crawler.engines.guard import Guard
from crawler.errors import PageError

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers of one answer; http.client alone would take 100 lines of 64 KiB."""

_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n")
_READ_BYTES = 1 << 15
_ENDLESS = 1 << 62
_BLANKS = b" \t\r\n"


class Answer(http.client.HTTPResponse):
    """An answer whose head is bounded and whole, and whose chunks are what they say.

    Attributes:
        has_two_lengths: Whether it came with a `Content-Length` besides its chunks.
    """

    has_two_lengths = False

    def begin(self) -> None:
        """Read the head."""
        reader: Any = self.fp
        super().begin()
        reader.ends_head()
        if self.headers.defects:
            raise http.client.HTTPException("a header line that is none")
        if self.chunked and "Content-Length" in self.headers:
            self.has_two_lengths = True
            del self.headers["Content-Length"]  # urllib3 would log a warning for each such page

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim answers (RFC 9110, 15.2); http.client takes all but 100 for the final one."""
        while 100 <= (line := super()._read_status())[1] < 200:  # type: ignore[misc]
            if line[1] == http.client.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("101, though nobody asked for another protocol")
            self._skip_lines()
        return line  # type: ignore[no-any-return]

    def _get_chunk_left(self) -> int | None:
        """Say how much of a chunk is to come, None after the last (RFC 9112, 7.1)."""
        if not self.chunk_left:
            if self.chunk_left == 0 and self._safe_read(2) != b"\r\n":  # type: ignore[attr-defined]
                raise http.client.HTTPException("a chunk longer than it says")
            size = _CHUNK_SIZE.fullmatch(self.fp.readline(MAX_HEAD_BYTES))
            if size is None:
                raise http.client.HTTPException("a chunk size that is none")
            self.chunk_left: int | None = int(size[1], 16) or None
            if self.chunk_left is None:
                self._skip_lines()
                self._close_conn()  # type: ignore[attr-defined]
        return self.chunk_left

    def _read_chunked(self, amt: int | None = None) -> bytes:
        """Read so much into one piece; http.client keeps a list of chunks, however small."""
        if amt is None:
            return super()._read_chunked()  # type: ignore[misc,no-any-return]
        piece = bytearray(amt)
        count = self._readinto_chunked(piece)  # type: ignore[attr-defined]
        return bytes(memoryview(piece)[:count])

    def _skip_lines(self) -> None:
        while self.fp.readline(MAX_HEAD_BYTES) not in (b"\r\n", b"\n"):
            pass


class TimedSocket:
    """What `http.client.HTTPResponse` needs of a socket: a file to read from."""

    def __init__(self, sock: Any, guard: Guard) -> None:
        self._sock, self._guard = sock, guard

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Open that file."""
        return _AnswerReader(_TimedReader(self._sock, self._guard), self._guard)


class _AnswerReader(io.BufferedReader):
    """Reads one answer; counts its head, wants whole lines, notices what came beyond its end.

    A header that goes on in the next lines is made one line, without blanks at its end (RFC 9112,
    sections 5.1 and 5.2): http.client leaves both in the value.
    """

    def __init__(self, raw: "_TimedReader", guard: Guard) -> None:
        super().__init__(raw, _READ_BYTES)
        self._reader, self._guard = raw, guard
        self._head_left, self._is_in_head = MAX_HEAD_BYTES, True

    def readline(self, size: int | None = -1, /) -> bytes:
        line = self._read_line(size)
        if self._is_in_head and line.strip():  # after the empty line nothing need ever come
            line = line.rstrip(_BLANKS) + b"\r\n"
            while self.peek(1)[:1] in (b" ", b"\t"):
                line = line.rstrip(_BLANKS) + b" " + self._read_line(size).strip(_BLANKS) + b"\r\n"
        return line

    def _read_line(self, size: int | None) -> bytes:
        line = super().readline(size)
        is_first = self._head_left == MAX_HEAD_BYTES
        self._head_left -= len(line)
        if self._head_left < 0:
            raise http.client.HTTPException(f"more than {MAX_HEAD_BYTES} bytes of headers")
        if not (is_first or line.endswith(b"\n")):
            raise http.client.IncompleteRead(b"")  # http.client takes it for the end
        if b"\0" in line:
            raise http.client.HTTPException("a NUL in a header")
        return line

    def ends_head(self) -> None:
        """Count no more: a body may hold any number of lines."""
        self._head_left, self._is_in_head = _ENDLESS, False

    def close(self) -> None:
        if not self.closed:
            self._reader.is_over = True
            self._guard.has_excess = len(self.peek(1)) > 0
        super().close()


class _TimedReader(io.RawIOBase):
    """Reads from a socket; each read gets only the time that is left of the whole."""

    def __init__(self, sock: Any, guard: Guard) -> None:
        self.is_over = False
        self._sock, self._guard = sock, guard
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.is_over:
            return 0
        self._sock.settimeout(self._guard.read_left())
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def check_framing(headers: Any, cut_bytes: int | None, answer: Answer) -> None:
    """Refuse an answer whose length is in doubt (RFC 9112, section 6.3).

    Args:
        headers: The answer's.
        cut_bytes: Where its body will be cut, if it will be: then it may be of any length.
        answer: As http.client read it.

    Raises:
        PageError: `protocol`, or `too_large`.
    """
    length, coding = headers.get("Content-Length"), headers.get("Transfer-Encoding", "identity")
    if {each.strip() for each in coding.lower().split(",")} != {
        "chunked" if answer.chunked else "identity"
    }:
        raise PageError("protocol", "a Transfer-Encoding other than chunked")
    if answer.has_two_lengths or (length is not None and "Transfer-Encoding" in headers):
        raise PageError("protocol", "both Content-Length and Transfer-Encoding")
    if length is None:
        return
    if not (length.isascii() and length.isdigit()):
        raise PageError("protocol", "Content-Length is not a number")
    is_large = len(length) > 15 or int(length) > MAX_BODY_BYTES
    if cut_bytes is None and is_large:
        raise PageError("too_large", f"announces more than {MAX_BODY_BYTES} bytes")
