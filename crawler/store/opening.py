"""Opening a store by its location: a bucket for `gs://…`, else a folder."""

import operator
import os
import re
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, SupportsIndex

from crawler.errors import SettingsError, StoreMismatchError
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, block_name, decode_block
from crawler.store.contract import Store
from crawler.store.folder import FolderStore
from crawler.store.identity import read_identity


def open_store(location: str) -> Store:
    """Open the store at `gs://bucket/prefix` or in a folder; nothing is sent or made yet.

    Raises:
        SettingsError: `store_malformed`.
    """
    scheme, _, rest = location.rpartition("://")
    opener = _OPENERS.get(scheme)
    store = None if opener is None else opener(rest)
    if store is None:
        raise SettingsError(
            "store_malformed",
            "CRAWLER_STORE",
            f"CRAWLER_STORE must be gs://bucket, gs://bucket/prefix or a folder, got {location!r}",
        )
    return store


def is_remote(location: str) -> bool:
    """Whether a store can be reached from other machines too: it is no folder."""
    return "://" in location


def store_beside(location: str, name: str) -> str:
    """Return the location of another store beside one; within it where that is a whole bucket."""
    location = location.rstrip("/")
    is_whole_bucket = is_remote(location) and "/" not in location.partition("://")[2]
    return f"{location}/{name}" if is_whole_bucket else f"{location}-{name}"


def _open_folder(path: str) -> Store | None:
    if not path.strip() or "\0" in path or path.startswith("gs:"):
        return None
    try:
        return FolderStore(Path(path).expanduser())
    except RuntimeError:  # the home of somebody who is not known here
        return None


def _open_bucket(path: str) -> Store | None:
    from crawler.store.bucket import BucketStore  # a folder store does without

    bucket, _, prefix = path.partition("/")
    prefix = prefix.rstrip("/")
    # cloud.google.com/storage/docs/buckets#naming, dots allowed; `check` asks whether it is there.
    is_named = re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket) is not None
    is_plain = all(map(_is_plain, prefix.split("/"))) if prefix else True
    return BucketStore(bucket, prefix) if is_named and is_plain and len(prefix) <= 500 else None


def _is_plain(part: str) -> bool:
    """Whether a step of a prefix names something, and the same thing to every tool."""
    return part.isprintable() and part not in {"", ".", ".."} and not set(part) & set("*?[]#")


_OPENERS: dict[str, Callable[[str], Store | None]] = {"": _open_folder, "gs": _open_bucket}
"""What opens a store, by the scheme of its location; another kind of store is one line more."""


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
