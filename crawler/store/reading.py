"""Reading a store back: blocks in order, a few ahead of who consumes them."""

import operator
import os
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, SupportsIndex

from crawler.errors import StoreMismatchError
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, block_name, decode_block
from crawler.store.contract import Store
from crawler.store.identity import read_identity
from crawler.store.opening import open_store

LIST_SECONDS = 120.0
"""Time for the listing; one of 20,000 blocks takes 2 s."""

READ_SECONDS = 120.0
"""Time for one block."""

_LEAST_THREADS = 2  # one unpacks while the other decodes


def read(
    store: str | os.PathLike[str] | Store,
    start: SupportsIndex = 0,
    stop: SupportsIndex | None = None,
) -> Generator[tuple[int, Any], None, None]:
    """Iterate over the songs that were found.

    Memory is flat: a few blocks at a time are held.

    Args:
        store: What `crawl` was given: a folder, or `gs://bucket/prefix`.
        start: First song number, included.
        stop: Number after the last; None: to the end.

    Yields:
        `(song_num, info)`, ascending.

    Raises:
        SettingsError: `store` is no store's location.
        StoreMismatchError: Nothing was crawled into it, as where its name is misspelt.
        StoreUnavailableError: It cannot be reached.
        BlockFormatError: A block cannot be read; the message names it.
    """
    store = open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store
    if read_identity(store, timeout=READ_SECONDS) is None:
        raise StoreMismatchError(f"{store.location} holds no songs yet: crawl some first")
    return _found(store, operator.index(start), None if stop is None else operator.index(stop))


def _found(store: Store, start: int, stop: int | None) -> Generator[tuple[int, Any], None, None]:
    for records in read_blocks(store, start, stop):
        for record in records:
            if record.outcome == "found":
                yield record.song_num, record.info


def read_blocks(
    store: str | os.PathLike[str] | Store, start: int = 0, stop: int | None = None
) -> Generator[list[Record], None, None]:
    """Iterate over the records of `[start, stop)`, a list for each block, both ascending.

    Raises:
        StoreError: As `read`.
    """
    store = open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store
    firsts = iter([info.first for info in store.list_blocks(start, stop, timeout=LIST_SECONDS)])
    threads = max(store.parallel_writes, _LEAST_THREADS)
    ahead: deque[Future[list[Record]]] = deque()
    pool = ThreadPoolExecutor(threads, "read")
    try:
        while True:
            for first in islice(firsts, threads + 1 - len(ahead)):
                ahead.append(pool.submit(_read_block, store, first, start, stop))
            if not ahead:
                return
            yield ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_block(store: Store, first: int, start: int, stop: int | None) -> list[Record]:
    name = block_name(first)
    stored = store.read(name, timeout=READ_SECONDS)
    if stored is None:
        return []  # deleted since the listing
    records = list(decode_block(stored.data, name).values())
    if start <= first and (stop is None or first + BLOCK_SIZE <= stop):
        return records
    end = first + BLOCK_SIZE if stop is None else stop
    return [record for record in records if start <= record.song_num < end]
