"""The block: a thousand numbers in one gzip file of JSON lines.

A block is one ordinary gzip member (RFC 1952). Its header carries the counts as compact JSON in an
extra field, so that a listing reads 2 KiB of a file and unpacks nothing; `zcat`, Python's `gzip`
and DuckDB skip the field (DuckDB refuses a comment field instead). No time stamp, no file name: the
same records give the same bytes.
"""

import zlib
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from crawler.errors import BlockFormatError
from crawler.record import Record, decode_record, encode_records, merge_records
from crawler.store.block_info import (
    ABSENT,
    BLOCK_SIZE,
    CLOCK_TOLERANCE,
    FORMAT_VERSION,
    LATER_FIELDS,
    UNPROVEN_IN_A_ROW,
    BlockInfo,
    Token,
    block_first,
    block_name,
    broken_block,
    format_block_info,
    is_from_future,
    last_asked_at,
    overlaps,
    parse_block_info,
    parse_block_name,
    summarise,
    unproven_stretches,
)

__all__ = [
    "ABSENT",
    "BLOCK_SIZE",
    "CLOCK_TOLERANCE",
    "FORMAT_VERSION",
    "HEAD_BYTES",
    "LATER_FIELDS",
    "MAX_BLOCK_BYTES",
    "MAX_TEXT_BYTES",
    "UNPROVEN_IN_A_ROW",
    "BlockInfo",
    "Token",
    "block_first",
    "block_name",
    "broken_block",
    "decode_block",
    "encode_block",
    "format_block_info",
    "is_from_future",
    "last_asked_at",
    "merge_blocks",
    "overlaps",
    "parse_block_info",
    "parse_block_name",
    "read_block_info",
    "summarise",
    "unproven_stretches",
]

HEAD_BYTES = 2048
"""So many first bytes of a block always hold its whole `BlockInfo`."""
MAX_BLOCK_BYTES = 8 * 2**20 - 2**16
"""A little under 8 MiB: uploads up to there are one request, which alone keeps preconditions."""
MAX_TEXT_BYTES = 64 * 2**20
"""Unpacked; bounds the memory that one damaged or hostile object can cost."""

_HEADER = bytes([0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 255])  # deflate, extra field, no time, any system
_FIELD_ID = b"SC"
# Measured on 300 bytes a record: level 1 costs 1.5 us and 63 bytes a record, 6 costs 4.0 and 57,
# 9 costs 10.9 and 55; a page has 40 us in all at 26,000 pages/s.
_LEVEL = 1


def encode_block(
    records: Iterable[Record], *, source: str, max_bytes: int = MAX_BLOCK_BYTES
) -> tuple[bytes, BlockInfo]:
    """Write records of one block, in any order, as the bytes of its object, and count them.

    Raises:
        ValueError: No records, a number twice, or numbers of two blocks.
        BlockFormatError: The records are too large for one object.
    """
    ordered = sorted(records, key=lambda record: record.song_num)
    info = summarise(ordered, source=source)
    _check_numbers(ordered, info.first)
    text = encode_records(ordered)
    data = _pack(text, format_block_info(info).encode())
    if len(text) > MAX_TEXT_BYTES or len(data) > max_bytes:
        raise BlockFormatError(
            f"{block_name(info.first)} would hold {len(text)} bytes, packed {len(data)}; at most "
            f"{MAX_TEXT_BYTES}, packed {max_bytes}, can be stored: keep less of each page"
        )
    return data, info


def decode_block(data: bytes, name: str) -> dict[int, Record]:
    """Read the records of a block, ascending; anything but a whole, right block is refused.

    Raises:
        BlockFormatError: The object is cut, damaged, empty, from a newer version, or holds a wrong
            number, a number twice or out of order. The message names it and what to do.
    """
    first = parse_block_name(name)
    if first is None:
        raise broken_block(name, "its name is not a block's")
    if read_block_info(data[:HEAD_BYTES], name).first != first:
        raise broken_block(name, "its header is about another block")
    lines = _unpack(data, name).split(b"\n")
    if lines.pop() != b"":
        raise broken_block(name, "its last line is cut")
    records: dict[int, Record] = {}
    before = first - 1
    for line in lines:
        record = _read_line(line, name)
        if not before < record.song_num < first + BLOCK_SIZE:
            raise broken_block(
                name, f"number {record.song_num} is twice, out of order or out of place"
            )
        before = record.song_num
        records[before] = record
    if not records:
        raise broken_block(name, "it holds no record")
    return records


def read_block_info(head: bytes, name: str = "the block") -> BlockInfo:
    """Read a block's counts from its first bytes; `HEAD_BYTES` of them are always enough.

    Raises:
        BlockFormatError: These are not the first bytes of a block this version can read.
    """
    if not head.startswith(_HEADER):
        raise broken_block(name, "it does not begin as a block does" if head else "it is empty")
    length = int.from_bytes(head[14:16], "little")
    if head[12:14] != _FIELD_ID or len(head) < 16 + length:
        raise broken_block(name, "its header is cut or not a block's")
    return parse_block_info(head[16 : 16 + length], name)


def merge_blocks(a: Mapping[int, Record], b: Mapping[int, Record]) -> dict[int, Record]:
    """Join two states of a block, ascending, keeping of each number what is known best.

    Commutative, associative and idempotent, as `merge_records` is.
    """
    merged = {**a, **b}
    for num in a.keys() & b.keys():
        merged[num] = merge_records(a[num], b[num])
    return dict(sorted(merged.items()))


def _check_numbers(ordered: list[Record], first: int) -> None:
    if ordered[-1].song_num >= first + BLOCK_SIZE:
        raise ValueError(f"number {ordered[-1].song_num} is not of the block {first}")
    nums = [record.song_num for record in ordered]
    if len(set(nums)) < len(nums):
        twice = next(one for one, other in pairwise(nums) if one == other)
        raise ValueError(f"number {twice} is given twice")


def _pack(text: bytes, field: bytes) -> bytes:
    """Frame a gzip member by hand, since neither `gzip` nor `zlib` writes an extra field."""
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    size = len(field)
    return b"".join((
        _HEADER, (size + 4).to_bytes(2, "little"), _FIELD_ID, size.to_bytes(2, "little"), field,
        deflate.compress(text), deflate.flush(),
        zlib.crc32(text).to_bytes(4, "little"), (len(text) % 2**32).to_bytes(4, "little"),
    ))  # fmt: skip


def _unpack(data: bytes, name: str) -> bytes:
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = inflate.decompress(data, MAX_TEXT_BYTES)
    except zlib.error as error:
        raise broken_block(name, f"it is damaged ({error})") from error
    if not inflate.eof:
        raise broken_block(name, "it is cut" if len(text) < MAX_TEXT_BYTES else "it is too large")
    if inflate.unused_data:
        raise broken_block(name, "something follows its end")
    return text


def _read_line(line: bytes, name: str) -> Record:
    try:
        record = decode_record(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise broken_block(name, f"a line is not a record ({error})") from error
    for moment in (record.fetched_at, record.next_try_at, record.gone_since):
        if moment is not None and moment.tzinfo is None:
            raise broken_block(name, f"a time of number {record.song_num} has no zone")
    return record
