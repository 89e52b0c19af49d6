"""A body as it came over the wire to the bytes that were meant: strictly whole, and bounded."""

import zlib
from typing import Any

from crawler.errors import PageError

MAX_BODY_BYTES = 1 << 20
"""A decoded page larger than this is cut off: a Genius page holds some kB."""


class BodyDecoder:
    """Undoes the content encoding piece by piece, so that a bomb is found before it is unpacked.

    libcurl, requests and Scrapy all accept gzip that was cut short; here it is an error, since a
    page that is not whole is not known. Several members are one body (RFC 1952, section 2.2);
    bytes behind them that are no member are an error.
    """

    def __init__(self, content_encoding: str, max_bytes: int = MAX_BODY_BYTES) -> None:
        """Begin.

        Args:
            content_encoding: The header's value, lower case, "" where absent.
            max_bytes: Most bytes to produce; one more is an error, found without producing it.

        Raises:
            PageError: `encoding` (not whole, not gzip, not asked for) or `too_large`; as below.
        """
        self._gzip: Any = None
        if content_encoding in ("gzip", "x-gzip"):
            self._gzip = _begin_member()
        elif content_encoding not in ("", "identity"):
            raise PageError("encoding", "an encoding that was not asked for")
        self._left = max_bytes

    def decode(self, raw: bytes) -> bytes:
        """Return what the next piece holds."""
        if self._gzip is None:
            return self._count(raw)
        parts = []
        while raw:
            if self._gzip.eof:
                self._gzip = _begin_member()
            parts.append(self._count(self._unpack(raw)))
            raw = self._gzip.unconsumed_tail or self._gzip.unused_data
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Check that the end of the encoding has come."""
        if self._gzip is not None and not self._gzip.eof:
            raise PageError("encoding", "gzip cut short")

    def _count(self, part: bytes) -> bytes:
        self._left -= len(part)
        if self._left < 0:
            raise PageError("too_large", "larger than any page may be")
        return part

    def _unpack(self, raw: bytes) -> bytes:
        try:
            # One byte more than is left: then it is too large, and zlib may keep the rest.
            part: bytes = self._gzip.decompress(raw, self._left + 1)
        except (zlib.error, EOFError):
            raise PageError("encoding", "not gzip, or damaged") from None
        return part


def _begin_member() -> Any:
    return zlib.decompressobj(31)  # 31: a gzip header and trailer, nothing else
