"""Raw bodies beside the blocks: what the site sent, kept so that new info needs no request."""

import logging
import threading
import zlib
from collections.abc import Mapping
from typing import Any

from crawler.errors import SettingsError, StoreConflictError
from crawler.record import Record
from crawler.run.raw_object import (
    RawPage,
    decode_pages,
    encode_pages,
    merge_pages,
    raw_name,
    raw_page,
)
from crawler.run.writer import Save
from crawler.source.source import Source, traits_of
from crawler.store.block import MAX_BLOCK_BYTES, BlockInfo
from crawler.store.contract import Deadline, Store

logger = logging.getLogger("crawler")

MAX_HELD_BYTES = 64 * 2**20
"""Packed bodies that wait for their block; with more the frontier hands out nothing."""


class RawKeeper:
    """Holds the bodies of a run, packed, until their block is stored, and stores them before it.

    `keep` is called by lanes, the function that `saving` makes by the writer's threads.
    """

    def __init__(self, store: Store, *, is_on: bool = True) -> None:
        """Prepare for a store; where it is not on, sources and saving stay as they are."""
        self._store, self._is_on = store, is_on
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
        if not isinstance(target, Source):
            raise SettingsError(
                "keep_raw_unfit",
                "CRAWLER_KEEP_RAW",
                "CRAWLER_KEEP_RAW works with a source: a step 1 function keeps what it appends",
            )
        return KeepingSource(target, self)

    def keep(self, song_num: int, body: bytes) -> None:
        """Hold one body."""
        packed = zlib.compress(body, 1)
        with self._lock:
            self._held_bytes += len(packed) - len(self._held.get(song_num, b""))
            self._held[song_num] = packed

    def has_room(self) -> bool:
        """Whether more bodies may come."""
        return self._held_bytes < MAX_HELD_BYTES

    def saving(self, save: Save) -> Save:
        """Make a `save` that stores the bodies first, so that no record is without its body."""
        if not self._is_on:
            return save

        def save_both(
            first: int, records: dict[int, Record], *, is_new: bool, timeout: float
        ) -> BlockInfo:
            deadline = Deadline(timeout)
            save_pages(self._store, self._pages(records), deadline)
            self._let_go(records)
            left = deadline.left(f"saving block {first}")
            return save(first, records, is_new=is_new, timeout=left)

        return save_both

    def _pages(self, records: Mapping[int, Record]) -> dict[int, RawPage]:
        return {
            num: raw_page(num, record.fetched_at, zlib.decompress(self._held[num]))
            for num, record in records.items()
            if record.outcome == "found" and num in self._held
        }

    def _let_go(self, records: Mapping[int, Record]) -> None:
        with self._lock:
            for num in records:
                self._held_bytes -= len(self._held.pop(num, b""))


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
        _save_object(store, name, fresh, deadline)


def read_pages(store: Store, name: str, *, timeout: float) -> dict[int, RawPage]:
    """Read a raw object; empty where there is none.

    Raises:
        StoreUnavailableError: Not read in time.
        BlockFormatError: It cannot be read; the message names it.
    """
    stored = store.read(name, timeout=timeout)
    return {} if stored is None else decode_pages(stored.data, name)


def _save_object(store: Store, name: str, fresh: Mapping[int, RawPage], deadline: Deadline) -> None:
    generation = 0
    known: dict[int, RawPage] = {}
    while True:
        data = _fitting(name, merge_pages(known, fresh))
        left = deadline.left(f"saving {name}")
        try:
            store.write(
                name, data, generation=generation, content_type="application/gzip", timeout=left
            )
            return
        except StoreConflictError:
            stored = store.read(name, timeout=deadline.left(f"saving {name}"))
            generation = stored.generation if stored else 0
            known = decode_pages(stored.data, name) if stored else {}


def _fitting(name: str, pages: dict[int, RawPage]) -> bytes:
    """Write bodies within the size of one upload; the largest that do not fit are left out."""
    data = encode_pages(pages)
    while len(data) > MAX_BLOCK_BYTES:
        largest = max(pages, key=lambda num: len(pages[num].content()))
        pages = {num: page for num, page in pages.items() if num != largest}
        logger.warning("%s is full: the raw body of song %d is not kept", name, largest)
        data = encode_pages(pages)
    return data
