"""The block: a thousand numbers in one gzip file of JSON lines.

A block is one ordinary gzip member (RFC 1952). Its header carries the counts as compact JSON in an
extra field, so that a listing reads 2 KiB of a file and unpacks nothing; `zcat`, Python's `gzip`
and DuckDB skip the field (DuckDB refuses a comment field instead). No time stamp, no file name: the
same records give the same bytes.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, NewType

import msgspec

from crawler.errors import BlockFormatError
from crawler.record import (
    UNREADABLE,
    Moment,
    Record,
    decode_record,
    decode_records,
    encode_records,
    last_asked_at,
    merge_records,
)

Token = NewType("Token", str)
"""Stands for the content of an object; only the store that made it can tell what is in it."""

ABSENT = Token("")
"""The token of an object that is not there."""

BLOCK_SIZE = 1000
FORMAT_VERSION = 1

_NAME = re.compile(r"songs/([0-9]{9}000)\.jsonl\.gz")
UNPROVEN_IN_A_ROW = 50
"""So many missing numbers in a row without a proof are worth asking again."""

LATER_FIELDS = frozenset({"failed_nums", "newest_fetched_at", "proof", "unproven"})
"""Fields of `BlockInfo` that blocks of earlier crawlers lack; there they are not known."""

_COMMON_REASONS = 5
_LATEST_PROOFS = 3
_UNPROVEN_STRETCHES = 10
_NUMS_PER_REASON = 5

_Count = Annotated[int, msgspec.Meta(ge=0)]


class BlockInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a listing tells about one block without reading its records.

    Attributes:
        format: Format version of the block.
        source: Name of the source whose records it holds, printable ASCII, at most 100 characters.
        first: First number of the block, a multiple of 1000.
        token: Token of the object in its store, `ABSENT` where it is in none; not stored.
        first_num: Lowest number that has a record.
        last_num: Highest number that has a record.
        last_found: Highest number that is found, None where none is.
        oldest_fetched_at: When the settled record that waited longest was last asked for
            (`last_asked_at`), None where none is settled.
        newest_fetched_at: When any of its numbers was last asked for; None where not known.
        next_try_at: Earliest time at which a failed one is worth asking again; None where none
            failed, or where one may be asked at any time.
        reasons: The five commonest kinds of failure and how many records failed so, most first.
        failed_nums: Of each of these kinds the first numbers that failed so, ascending, at most
            five; empty in blocks of a crawler that did not name any.
        proof: The canaries that prove missing numbers (`Record.proof`), as texts, and when the
            last number that each proves was asked for: the latest three, ascending.
        unproven: Stretches `[start, stop)` of `UNPROVEN_IN_A_ROW` and more missing numbers in a row
            without proof, ascending, the first ten; None where not known.
    """

    format: _Count
    source: str
    first: _Count
    token: Token = ABSENT
    found: _Count
    missing: _Count
    failed: _Count
    first_num: _Count
    last_num: _Count
    last_found: _Count | None = None
    oldest_fetched_at: Moment | None = None
    newest_fetched_at: Moment | None = None
    next_try_at: Moment | None = None
    reasons: dict[str, _Count] = {}
    failed_nums: dict[str, list[_Count]] = {}
    proof: dict[str, Moment] = {}
    unproven: list[tuple[_Count, _Count]] | None = None

    @property
    def settled(self) -> int:
        """Numbers for which the site has answered for good: found or missing."""
        return self.found + self.missing


_encode_info = msgspec.json.Encoder().encode
_decode_info = msgspec.json.Decoder(BlockInfo).decode


def block_first(song_num: int) -> int:
    """Return the number with which the block of `song_num` begins."""
    return song_num - song_num % BLOCK_SIZE


def block_name(first: int) -> str:
    """Return the name of the block that begins with `first`, such as `songs/000000378000.jsonl.gz`.

    Raises:
        ValueError: No block begins there.
    """
    if first % BLOCK_SIZE or not 0 <= first < 10**12:
        raise ValueError(
            f"first must be a multiple of {BLOCK_SIZE} from 0 below 10^12, got {first}"
        )
    return f"songs/{first:012}.jsonl.gz"


def parse_block_name(name: str) -> int | None:
    """Read the first number back from a block's name; None for any other object."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def overlaps(first: int, start: int, stop: int | None) -> bool:
    """Whether the block that begins with `first` holds numbers of `[start, stop)`; None: no end."""
    return first + BLOCK_SIZE > start and (stop is None or max(first, start) < stop)


def summarise(records: Iterable[Record], *, source: str) -> BlockInfo:
    """Count the records of one block.

    Raises:
        ValueError: No records.
    """
    records = list(records)
    nums = [record.song_num for record in records]
    if not nums:
        raise ValueError("a block needs at least one record")
    # Lists, not generators: this runs beside the crawl and holds it up for as long as it takes.
    outcomes = Counter([record.outcome for record in records])
    failed = [record for record in records if record.outcome == "failed"]
    settled = [record for record in records if record.outcome != "failed"]
    denied = [last_asked_at(record) for record in settled if record.gone_since is not None]
    asked_at = denied + [record.fetched_at for record in settled if record.gone_since is None]
    kinds = _nums_by_kind(failed)
    missing = [record for record in records if record.outcome == "missing"]
    return BlockInfo(
        format=FORMAT_VERSION,
        source=_plain(source, 100),
        first=block_first(nums[0]),
        found=outcomes["found"],
        missing=outcomes["missing"],
        failed=len(failed),
        first_num=min(nums),
        last_num=max(nums),
        last_found=max([r.song_num for r in records if r.outcome == "found"], default=None),
        oldest_fetched_at=min(asked_at, default=None),
        newest_fetched_at=max([*asked_at, *(record.fetched_at for record in failed)]),
        next_try_at=earliest_try([record.next_try_at for record in failed]),
        reasons={kind: len(nums) for kind, nums in kinds.items()},
        failed_nums={kind: sorted(nums)[:_NUMS_PER_REASON] for kind, nums in kinds.items()},
        proof=_proof(missing),
        unproven=_unproven(missing),
    )


def unproven_stretches(records: Iterable[Record]) -> Iterator[tuple[int, int]]:
    """Yield stretches `[start, stop)` of missing numbers in a row without proof, of any length.

    Args:
        records: Ascending by number; those of other outcomes end a stretch.
    """
    nums = [r.song_num for r in records if r.outcome == "missing" and r.proof is None]
    start = stop = nums[0] if nums else 0
    for num in nums:
        if num != stop:
            yield start, stop
            start = num
        stop = num + 1
    if nums:
        yield start, stop


def parse_block_info(text: bytes | str, name: str) -> BlockInfo:
    """Read a block's counts from their JSON, as the header and an object's metadata carry it.

    Raises:
        BlockFormatError: It is not a block's, or from a newer version.
    """
    try:
        info = _decode_info(text)
    except UNREADABLE as error:
        raise broken_block(name, f"its counts cannot be read ({error})") from error
    if info.format > FORMAT_VERSION:
        raise BlockFormatError(
            f"{name} has format version {info.format}, this crawler reads up to {FORMAT_VERSION}: "
            f"use the newer version of the crawler"
        )
    if not info.first <= info.first_num <= info.last_num < info.first + BLOCK_SIZE:
        raise broken_block(name, "its counts contradict each other")
    if parse_block_name(name) not in {None, info.first}:
        raise broken_block(name, "its counts are another block's")
    return info


def format_block_info(info: BlockInfo) -> str:
    """Write a block's counts as compact JSON, ASCII, without the token."""
    return _encode_info(msgspec.structs.replace(info, token=ABSENT)).decode("ascii")


def broken_block(
    name: str, why: str, then: str = "its numbers are then asked again"
) -> BlockFormatError:
    """Make the error for an object that is not what its name says, with what to do."""
    return BlockFormatError(
        f"{name} cannot be read: {why}. Restore an earlier version of it, or move it out of the "
        f"store: {then}"
    )


def earliest_try(times: list[datetime | None]) -> datetime | None:
    """Return the earliest of the times of next tries; None where one may be asked at any time."""
    known = [time for time in times if time is not None]
    return min(known) if known and len(known) == len(times) else None


def _nums_by_kind(failed: list[Record]) -> dict[str, list[int]]:
    """Gather the numbers that failed by the commonest kinds of failure, most first."""
    nums = defaultdict[str, list[int]](list)
    for record in failed:
        nums[_plain(record.error or "unknown", 40)].append(record.song_num)
    kinds = sorted(nums.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return dict(kinds[:_COMMON_REASONS])


def _proof(missing: list[Record]) -> dict[str, datetime]:
    """Return the latest canaries, and when the last number that each proves was asked for."""
    asked_at: dict[int, datetime] = {}
    for record in missing:
        if record.proof is not None:
            before = asked_at.get(record.proof, record.fetched_at)
            asked_at[record.proof] = max(before, record.fetched_at)
    latest = sorted(asked_at.items(), key=lambda proof: (proof[1], proof[0]))[-_LATEST_PROOFS:]
    return {str(canary): moment for canary, moment in sorted(latest)}


def _unproven(missing: list[Record]) -> list[tuple[int, int]]:
    stretches = unproven_stretches(sorted(missing, key=lambda record: record.song_num))
    long = [(start, stop) for start, stop in stretches if stop - start >= UNPROVEN_IN_A_ROW]
    return long[:_UNPROVEN_STRETCHES]


def _plain(text: str, longest: int) -> str:
    """Keep the header small and ASCII, whatever a user's own function is called."""
    return re.sub(r"[^ !#-\[\]-~]", "?", text[:longest])


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
    ordered = sorted(records, key=attrgetter("song_num"))
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
    read_block_info(data[:HEAD_BYTES], name)
    text = _unpack(data, name)
    if text and not text.endswith(b"\n"):
        raise broken_block(name, "its last line is cut")
    records = decode_records(text)
    if records is None:
        records = [_read_line(line, name) for line in text.split(b"\n")[:-1]]
    if not records:
        raise broken_block(name, "it holds no record")
    nums = [record.song_num for record in records]
    for before, num in pairwise([first - 1, *nums]):
        if not before < num < first + BLOCK_SIZE:
            raise broken_block(name, f"number {num} is twice, out of order or out of place")
    return dict(zip(nums, records, strict=True))


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
    size = len(field)
    return b"".join((
        _HEADER, (size + 4).to_bytes(2, "little"), _FIELD_ID, size.to_bytes(2, "little"), field,
        zlib.compress(text, _LEVEL, -zlib.MAX_WBITS),
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
        return decode_record(line)
    except UNREADABLE as error:
        raise broken_block(name, f"a line is not a record ({error})") from error
