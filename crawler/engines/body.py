"""A body as it came over the wire to the bytes that were meant: strictly whole, and bounded."""

import zlib
from collections.abc import Iterator
from typing import Any

from crawler.errors import PageError

MAX_BODY_BYTES = 1 << 20
"""A decoded page larger than this is cut off: a Genius page holds some kB."""


def decode_body(raw: bytes, content_encoding: str, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Undo the content encoding of one body that is whole as far as the transfer goes.

    Args:
        raw: The body as received, transfer encoding undone.
        content_encoding: The header's value, lower case, "" where absent.
        max_bytes: Most bytes to produce; one more is an error, found without producing it.

    Raises:
        PageError: `encoding` (not whole, not gzip, not asked for) or `too_large`.
    """
    decoder = BodyDecoder(content_encoding, max_bytes)
    body = b"".join(decoder.parts(raw, max_bytes + 1))
    decoder.finish()
    return body


class BodyDecoder:
    """Undoes the content encoding part by part, so that a bomb is found before it is unpacked.

    libcurl, requests and Scrapy all accept gzip that was cut short; here it is an error, since a
    page that is not whole is not known.
    """

    def __init__(self, content_encoding: str, max_bytes: int = MAX_BODY_BYTES) -> None:
        """Begin; the arguments and errors are those of `decode_body`."""
        self._gzip: Any = None
        if content_encoding in ("gzip", "x-gzip"):
            self._gzip = zlib.decompressobj(31)  # 31: a gzip header and trailer, nothing else
        elif content_encoding not in ("", "identity"):
            raise PageError("encoding", "an encoding that was not asked for")
        self._left = max_bytes

    def parts(self, raw: bytes, part_bytes: int) -> Iterator[bytes]:
        """Decode the next piece as received; gzip in parts of so many bytes at most."""
        if self._gzip is None:
            yield self._count(raw)
            return
        is_all = False
        while not is_all:
            most = min(part_bytes, self._left + 1)
            part = self._unpack(raw, most)
            yield self._count(part)
            is_all = len(part) < most  # else zlib may hold more, even where it took in all
            raw = self._gzip.unconsumed_tail

    def finish(self) -> None:
        """Check that the end of the encoding has come."""
        if self._gzip is not None and not self._gzip.eof:
            raise PageError("encoding", "gzip cut short")

    def _count(self, part: bytes) -> bytes:
        self._left -= len(part)
        if self._left < 0:
            raise PageError("too_large", "larger than any page may be")
        return part

    def _unpack(self, raw: bytes, most: int) -> bytes:
        try:
            part: bytes = self._gzip.decompress(raw, most)
        except (zlib.error, EOFError):
            raise PageError("encoding", "not gzip, or damaged") from None
        if self._gzip.unused_data:
            raise PageError("encoding", "bytes after the end of gzip")
        return part
