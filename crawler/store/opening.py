"""Opening a store by its location, whose records it holds (`store.json`), and reading it back."""

import operator
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, SupportsIndex

import msgspec
from msgspec.structs import replace

from crawler.errors import SettingsError, StoreMismatchError
from crawler.record import UNREADABLE, Record
from crawler.store.block import BLOCK_SIZE, block_name, decode_block
from crawler.store.contract import Content, Store, update
from crawler.store.folder import FolderStore


def open_store(store: str | os.PathLike[str] | Store) -> Store:
    """Open the store at `gs://bucket/prefix` or in a folder; nothing is sent or made yet.

    One that is open already is returned as it is.

    Raises:
        SettingsError: `store_malformed`.
    """
    if not isinstance(store, str | os.PathLike):
        return store
    location = os.fspath(store)
    scheme, _, rest = location.rpartition("://")
    opener = _OPENERS.get(scheme)
    opened = None if opener is None else opener(rest)
    if opened is None:
        raise SettingsError(
            "store_malformed",
            "CRAWLER_STORE",
            f"CRAWLER_STORE must be gs://bucket, gs://bucket/prefix or a folder, got {location!r}",
        )
    return opened


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
    store = open_store(store)
    known_identity(store)
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
    store = open_store(store)
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


IDENTITY_FILE = "store.json"


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose records a store holds; written by the first run, its fields by each that adds some.

    Attributes:
        source: Name of the source, or qualified name of a step 1 function.
        host: Host, and port where it is not the usual one, that the pages come from; "" where a
            step 1 function has not been seen to ask one yet.
        schema: Changes when the meaning of `info` changes.
        format: Format version of the blocks.
        fields: What `info` holds: types by name, as the source declares them; `FOUND` for what a
            step 1 function was seen to append. Empty where nobody has said.
    """

    source: str
    host: str
    schema: str
    format: int
    fields: dict[str, str] = {}


FOUND = "found"
"""The type of a field that nobody declared: an export finds it in the data."""


def claim_store(
    store: Store, identity: Identity, *, timeout: float, doubtful_host: str | None = None
) -> list[str]:
    """Write `store.json` where there is none; else make sure that it says the same.

    An older format is accepted, since its blocks are read. Fields that are new are added.

    Args:
        identity: Of the records that a run will add.
        doubtful_host: A host that an earlier version wrote without knowing; it is amended.

    Returns:
        The fields that the records of the store do not have yet, where it is known what they have.

    Raises:
        StoreMismatchError: The store holds something else, in words that say what to do.
    """
    added: list[str] = []

    def claim(known: Identity | None) -> Identity:
        added.clear()
        if known is None:
            return identity
        if known.host == doubtful_host:
            known = replace(known, host="")
        compare(store.location, known, identity)
        if known.fields:
            added.extend(identity.fields.keys() - known.fields.keys())
        host, fields = known.host or identity.host, known.fields | identity.fields
        return replace(known, host=host, fields=fields)

    _rewrite(store, claim, timeout)
    return [name for name in identity.fields if name in added]


def claim_host(store: Store, host: str, *, timeout: float) -> None:
    """Note which host a step 1 function was seen to ask.

    Raises:
        StoreMismatchError: The store holds records of another one.
    """

    def claim(known: Identity | None) -> Identity | None:
        if known is None:
            return None  # somebody emptied the store
        wanted = replace(known, host=host)
        compare(store.location, known, wanted)
        return wanted

    _rewrite(store, claim, timeout)


def add_found_fields(store: Store, names: Iterable[str], *, timeout: float) -> list[str]:
    """Note what a step 1 function was seen to append.

    Returns:
        The names that are new to a store which knew others.
    """
    added: list[str] = []

    def add(known: Identity | None) -> Identity | None:
        if known is None:
            return None
        fresh = {name: FOUND for name in names if name not in known.fields}
        added[:] = fresh if known.fields else ()
        return replace(known, fields=known.fields | fresh)

    _rewrite(store, add, timeout)
    return added


def read_identity(store: Store, *, timeout: float) -> Identity | None:
    """Read `store.json`; None where no run has written to the store yet.

    Raises:
        StoreMismatchError: It cannot be read.
    """
    stored = store.read(IDENTITY_FILE, timeout=timeout)
    return None if stored is None else _decode(store, stored.data)


def known_identity(store: Store) -> Identity:
    """Read `store.json` of a store that somebody has crawled into.

    Raises:
        StoreMismatchError: Nobody has, or it cannot be read.
    """
    identity = read_identity(store, timeout=READ_SECONDS)
    if identity is None:
        raise StoreMismatchError(f"{store.location} holds no songs yet: crawl some first")
    return identity


def _decode(store: Store, data: bytes) -> Identity:
    try:
        return msgspec.json.decode(data, type=Identity)
    except UNREADABLE as error:
        raise StoreMismatchError(
            f"{IDENTITY_FILE} in {store.location} cannot be read ({error}): restore an earlier version of "
            f"it, or name another store (CRAWLER_STORE)"
        ) from error


def compare(location: str, known: Identity, wanted: Identity) -> None:
    """Raise StoreMismatchError, in words that say what to do, unless a store may hold both."""
    if known.format > wanted.format:
        raise StoreMismatchError(
            f"{location} has format version {known.format}, this crawler writes {wanted.format}: "
            f"use the newer version of the crawler"
        )
    for field in ("source", "host", "schema"):
        has, wants = getattr(known, field), getattr(wanted, field)
        if has != wants and not (field == "host" and "" in (has, wants)):
            raise StoreMismatchError(
                f"{location} holds records of {field} {has!r}, this run would add some of "
                f"{wants!r}: name another store (CRAWLER_STORE), or crawl with "
                f"{field} {has!r}"
            )
    for name, wants in wanted.fields.items():
        has = known.fields.get(name, wants)
        if has != wants and FOUND not in (has, wants):
            raise StoreMismatchError(
                f"{location} holds the field {name!r} as {has}, this run would add it as {wants}: "
                f"name another store, `rebuild` into one where raw bodies are kept, or leave it"
            )


def _rewrite(
    store: Store, change: Callable[[Identity | None], Identity | None], timeout: float
) -> None:
    """Put what `change` makes of `store.json` in its place; None leaves it as it is."""

    def rewrite(data: bytes | None) -> Content | None:
        known = None if data is None else _decode(store, data)
        wanted = change(known)
        if wanted is None or wanted == known:
            return None
        text = msgspec.json.format(msgspec.json.encode(wanted)) + b"\n"
        return Content(text, "application/json")

    update(store, IDENTITY_FILE, rewrite, timeout=timeout)
