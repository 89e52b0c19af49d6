"""A body as it came over the wire to the bytes that were meant: strictly whole, and bounded."""

import zlib

from crawler.errors import PageError

MAX_BODY_BYTES = 1 << 20
"""A decoded page larger than this is cut off: a Genius page holds some kB."""


def decode_body(raw: bytes, content_encoding: str, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Undo the content encoding of one body.

    libcurl, requests and Scrapy all accept gzip that was cut short; here it is an error, since a
    page that is not whole is not known.

    Args:
        raw: The body as received, transfer encoding undone.
        content_encoding: The header's value, lower case, "" where absent.
        max_bytes: Most bytes to produce; one more is an error, found without producing it.

    Raises:
        PageError: `encoding` (not whole, not gzip, not asked for) or `too_large`.
    """
    if content_encoding in ("", "identity"):
        if len(raw) > max_bytes:
            raise PageError("too_large", f"more than {max_bytes} bytes")
        return raw
    if content_encoding not in ("gzip", "x-gzip"):
        raise PageError("encoding", "an encoding that was not asked for")
    decoder = zlib.decompressobj(31)  # 31: a gzip header and trailer, nothing else
    try:
        body = decoder.decompress(raw, max_bytes + 1)
    except zlib.error:
        raise PageError("encoding", "not gzip, or damaged") from None
    if len(body) > max_bytes:
        raise PageError("too_large", f"more than {max_bytes} bytes once unpacked")
    if not decoder.eof:
        raise PageError("encoding", "gzip cut short")
    if decoder.unused_data:
        raise PageError("encoding", "bytes after the end of gzip")
    return body
