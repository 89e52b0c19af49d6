"""Raw bodies beside the blocks: what the site sent, kept so that new info needs no request.

A raw object holds the bodies of a hundred numbers in one gzip file of JSON lines.
"""

import logging
import threading
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from crawler.record import UNREADABLE, Record
from crawler.run.functions import refuse_step_1
from crawler.run.writer import Save
from crawler.source.source import Source, traits_of
from crawler.store.block import ABSENT, MAX_BLOCK_BYTES, BlockInfo, broken_block
from crawler.store.contract import Content, Deadline, Store, update

logger = logging.getLogger("crawler")

MAX_HELD_BYTES = 64 * 2**20
"""Packed bodies that wait for their block; with more the frontier hands out nothing."""

RAW_SIZE = 100
"""Numbers in one raw object: a thousand bodies can be more than one upload of 8 MiB takes."""

_MAX_TEXT_BYTES = 256 * 2**20  # a hundred bodies of at most 1 MiB each, escaped
_LEVEL = 6  # measured on 85 bodies, 244 kB: 28 kB in 1.3 ms at level 1, 21 kB in 2.7 ms at 6


_THEN = "its raw bodies are then lost, its records are not"


class RawPage(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of a raw object.

    Attributes:
        fetched_at: That of the record that was made of it.
        body: As the site sent it, decoded, where it is UTF-8.
        body_base64: The same where it is not.
    """

    song_num: int
    fetched_at: datetime
    body: str | None = None
    body_base64: bytes | None = None

    def content(self) -> bytes:
        """Return the body as it came."""
        return self.body_base64 or b"" if self.body is None else self.body.encode()


_decoder = msgspec.json.Decoder(RawPage)


def raw_page(song_num: int, fetched_at: datetime, body: bytes) -> RawPage:
    """Make the line of one body."""
    try:
        return RawPage(song_num, fetched_at, body=body.decode())
    except UnicodeDecodeError:
        return RawPage(song_num, fetched_at, body_base64=body)


def raw_name(song_num: int) -> str:
    """Return the name of the object that holds the body of a number, such as `raw/000000378100.jsonl.gz`."""
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
        pages = _decoder.decode_lines(text)
    except (zlib.error, *UNREADABLE) as error:
        raise broken_block(name, str(error), _THEN) from error
    if not inflate.eof or any(raw_name(page.song_num) != name for page in pages):
        raise broken_block(name, "it is cut, or holds a number of another object", _THEN)
    return {page.song_num: page for page in pages}


class RawKeeper:
    """Holds the bodies of a run, packed, until their block is stored, and stores them before it.

    `keep` is called by lanes, the function that `saving` makes by the writer's threads.
    """

    def __init__(
        self, store: Store, *, is_on: bool = True, max_held_bytes: int = MAX_HELD_BYTES
    ) -> None:
        """Prepare for a store; where it is not on, sources and saving stay as they are."""
        self._store, self._is_on, self._max_held_bytes = store, is_on, max_held_bytes
        self._held: dict[int, bytes] = {}
        self._held_bytes = 0
        self._lock = threading.Lock()

    def keeping(self, target: Any) -> Any:
        """Make a source that also keeps the bodies it has read.

        Raises:
            SettingsError: A step 1 function reads its pages itself.
        """
        if not self._is_on:
            return target
        refuse_step_1(target)
        return KeepingSource(target, self)

    def keep(self, song_num: int, body: bytes) -> None:
        """Hold one body."""
        packed = zlib.compress(body, 1)
        with self._lock:
            self._held_bytes += len(packed) - len(self._held.get(song_num, b""))
            self._held[song_num] = packed

    def has_room(self) -> bool:
        """Whether more bodies may come."""
        return self._held_bytes < self._max_held_bytes

    def bounding(self, has_room: Callable[[], bool]) -> Callable[[], bool]:
        """Make a `has_room` that also asks whether more bodies may come."""
        return (lambda: has_room() and self.has_room()) if self._is_on else has_room

    def saving(self, save: Save) -> Save:
        """Make a `save` that stores the bodies first, so that no record is without its body."""
        if not self._is_on:
            return save

        def save_both(
            first: int, records: dict[int, Record], *, is_new: bool, timeout: float
        ) -> BlockInfo:
            deadline = Deadline(timeout)
            save_pages(self._store, self._pages(records), deadline)
            with self._lock:
                for num in records:
                    self._held_bytes -= len(self._held.pop(num, b""))
            left = deadline.left(f"saving block {first}")
            return save(first, records, is_new=is_new, timeout=left)

        return save_both

    def _pages(self, records: Mapping[int, Record]) -> dict[int, RawPage]:
        return {
            num: raw_page(num, record.fetched_at, zlib.decompress(self._held[num]))
            for num, record in records.items()
            if record.outcome == "found" and num in self._held
        }


class KeepingSource:
    """A source that hands each body it could read to a keeper; else the one it stands for."""

    def __init__(self, source: Source, keeper: RawKeeper) -> None:
        self.name, self.schema = source.name, source.schema
        self.url, self.headers = source.url, source.headers
        self._source, self._keeper = source, keeper
        for name, value in vars(traits_of(source)).items():
            setattr(self, name, value)

    def info(self, song_num: int, body: bytes) -> object:
        """Take the info from a body, and keep the body; see `Source`."""
        info = self._source.info(song_num, body)
        self._keeper.keep(song_num, body)
        return info


def save_pages(store: Store, pages: Mapping[int, RawPage], deadline: Deadline) -> None:
    """Merge bodies into the raw objects of their numbers, whoever else writes meanwhile.

    Raises:
        StoreUnavailableError: Not saved in time.
        BlockFormatError: What is there cannot be read.
    """
    by_name: dict[str, dict[int, RawPage]] = {}
    for num, page in pages.items():
        by_name.setdefault(raw_name(num), {})[num] = page
    for name, fresh in by_name.items():

        def merge(
            data: bytes | None, name: str = name, fresh: Mapping[int, RawPage] = fresh
        ) -> Content:
            known = {} if data is None else decode_pages(data, name)
            return Content(_fitting(name, merge_pages(known, fresh)), "application/gzip")

        left = deadline.left(f"saving {name}")
        update(store, name, merge, timeout=left, believed=ABSENT)


def read_pages(store: Store, name: str, *, timeout: float) -> dict[int, RawPage]:
    """Read a raw object; empty where there is none.

    Raises:
        StoreUnavailableError: Not read in time.
        BlockFormatError: It cannot be read; the message names it.
    """
    stored = store.read(name, timeout=timeout)
    return {} if stored is None else decode_pages(stored.data, name)


def _fitting(name: str, pages: dict[int, RawPage]) -> bytes:
    """Write bodies within the size of one upload; the largest that do not fit are left out."""
    data = encode_pages(pages)
    while len(data) > MAX_BLOCK_BYTES:
        largest = max(pages, key=lambda num: len(pages[num].content()))
        pages = {num: page for num, page in pages.items() if num != largest}
        logger.warning("%s is full: the raw body of song %d is not kept", name, largest)
        data = encode_pages(pages)
    return data
