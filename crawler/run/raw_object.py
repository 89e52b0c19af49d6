"""Raw objects: the bodies of a hundred numbers in one gzip file of JSON lines."""

import zlib
from collections.abc import Mapping
from datetime import datetime

import msgspec

from crawler.errors import BlockFormatError

RAW_SIZE = 100
"""Numbers in one raw object: a thousand bodies can be more than one upload of 8 MiB takes."""

_MAX_TEXT_BYTES = 256 * 2**20  # a hundred bodies of at most 1 MiB each, escaped
_LEVEL = 6  # measured on 85 bodies, 244 kB: 28 kB in 1.3 ms at level 1, 21 kB in 2.7 ms at 6


class RawPage(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of a raw object.

    Attributes:
        song_num: The number of the page.
        fetched_at: That of the record that was made of it.
        body: As the site sent it, decoded, where it is UTF-8.
        body_base64: The same where it is not.
    """

    song_num: int
    fetched_at: datetime
    body: str | None = None
    body_base64: bytes | None = None

    def content(self) -> bytes:
        """Give the body as it came."""
        return self.body_base64 or b"" if self.body is None else self.body.encode()


def raw_page(song_num: int, fetched_at: datetime, body: bytes) -> RawPage:
    """Make the line of one body."""
    try:
        return RawPage(song_num, fetched_at, body=body.decode())
    except UnicodeDecodeError:
        return RawPage(song_num, fetched_at, body_base64=body)


def raw_name(song_num: int) -> str:
    """Name the object that holds the body of a number, as in `raw/000000378100.jsonl.gz`."""
    return f"raw/{song_num - song_num % RAW_SIZE:012}.jsonl.gz"


def merge_pages(one: Mapping[int, RawPage], other: Mapping[int, RawPage]) -> dict[int, RawPage]:
    """Keep of each number the newer body; commutative, associative and idempotent."""
    merged = {**one, **other}
    for num in one.keys() & other.keys():
        merged[num] = max(one[num], other[num], key=lambda p: (p.fetched_at, p.content()))
    return dict(sorted(merged.items()))


def encode_pages(pages: Mapping[int, RawPage]) -> bytes:
    """Write bodies, ascending, as one gzip member of JSON lines; the same give the same bytes."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    packed = [deflate.compress(msgspec.json.encode(page) + b"\n") for page in pages.values()]
    return b"".join([*packed, deflate.flush()])


def decode_pages(data: bytes, name: str) -> dict[int, RawPage]:
    """Read the bodies of a raw object.

    Raises:
        BlockFormatError: It is cut, damaged, or holds a wrong number.
    """
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = inflate.decompress(data, _MAX_TEXT_BYTES)
        lines = text.removesuffix(b"\n").split(b"\n")
        pages = [msgspec.json.decode(line, type=RawPage) for line in lines]
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise _broken(name, str(error)) from error
    if not inflate.eof or any(raw_name(page.song_num) != name for page in pages):
        raise _broken(name, "it is cut, or holds a number of another object")
    return {page.song_num: page for page in pages}


def _broken(name: str, why: str) -> BlockFormatError:
    return BlockFormatError(
        f"{name} cannot be read: {why}. Restore an earlier version of it, or delete it: its raw "
        f"bodies are then lost, its records are not"
    )
