"""The store's contract: named objects, compare-and-swap by opaque tokens, and the one way to update.

A store beside the folder and the bucket is one module with a class that keeps `Store`, and one line
in `crawler.store.opening`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from crawler.errors import StoreConflictError, StoreUnavailableError
from crawler.record import Record
from crawler.store.block import (
    ABSENT,
    BlockInfo,
    Token,
    block_name,
    decode_block,
    encode_block,
    merge_blocks,
)


class Stored(NamedTuple):
    """An object as it was read, and the token that a compare-and-swap needs."""

    data: bytes
    token: Token


class Content(NamedTuple):
    """What an object is to hold.

    Attributes:
        data: All of it, at most `MAX_BLOCK_BYTES`.
        content_type: For who looks at the object in a browser.
        info: The counts of a block.
    """

    data: bytes
    content_type: str = "application/octet-stream"
    info: BlockInfo | None = None


TRY_AGAIN = "try again later; what was stored before is whole"
"""What to do about a store that does not answer now."""


class Deadline:
    """What is left of a timeout: one clock for all steps of a call, retries included.

    Attributes:
        seconds: The whole timeout, > 0.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def left(self, doing: str) -> float:
        """Return how many seconds are left, more than 0.

        Raises:
            StoreUnavailableError: None are; `doing` says in the message what took so long.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise StoreUnavailableError(f"{doing} took longer than {self.seconds:g} s: {TRY_AGAIN}")
        return left


class Store(Protocol):
    """Where blocks live: a bucket or a folder. Every method may be called from any thread.

    Names are relative, with `/`, such as `songs/000000378000.jsonl.gz` or `control.json`.
    `timeout` is the whole call's, in seconds, more than 0, retries and waiting for locks included.
    Every method raises `StoreUnavailableError` when the store cannot be reached in that time, is
    full or refuses us, in words that say what to do; what it held before is then unharmed.

    Attributes:
        location: Where it is, as `open_store` takes it.
        parallel_writes: How many writes at once are worth while.
        clock: Monotonic seconds, by which time runs out for it.
    """

    location: str
    parallel_writes: int
    clock: Callable[[], float]

    def check(self, timeout: float) -> None:
        """Prove, before the first request to the site, that what a run needs will work.

        An object of its own is created, replaced, read, listed and deleted; checks of several runs
        at once do not disturb each other.
        """

    def list_blocks(
        self, start: int = 0, stop: int | None = None, *, timeout: float
    ) -> Iterator[BlockInfo]:
        """Yield the blocks that hold numbers of the range, ascending, without reading a record.

        What is not named like a block is left alone. The clock runs while the caller holds the
        iterator, so do not work between two items: make a list first.

        Raises:
            BlockFormatError: An object is named like a block, and its counts cannot be read or are
                of a newer version. To pass it over would ask the site for what it holds, and then
                overwrite it; so the listing ends with its name instead.
        """

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object whole; None where there is none."""

    def write(
        self, name: str, content: Content, *, expected: Token | None, timeout: float
    ) -> Token:
        """Write an object whole, or leave it as it is; return its new token.

        Args:
            name: Relative name.
            content: What it is to hold.
            expected: Token of what must be there; `ABSENT`: nothing; None: anything.
            timeout: Seconds.

        Raises:
            StoreConflictError: Something else is there. A write that landed although its answer
                was lost is no conflict.
        """

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List the names that begin with `prefix`, ascending."""

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete an object; one that is not there is no error."""


def update(
    store: Store,
    name: str,
    change: Callable[[bytes | None], Content | None],
    *,
    timeout: float,
    believed: Token | None = None,
    on_conflict: Callable[[], None] = lambda: None,
) -> Token:
    """Read an object, change it and write it back, again until nobody else wrote in between.

    Args:
        store, name: Which object.
        change: Takes what the object holds, None where there is none, and returns what it is to
            hold; None, or what it holds already, leaves it as it is. Called once for each try.
        timeout: Seconds for all tries together.
        believed: What is believed to be there; with `ABSENT` the object is created without being
            read first; None: no belief.
        on_conflict: Called when something else is there than was believed or read.

    Returns:
        The token of the object as it now is, `ABSENT` where there is none.

    Raises:
        StoreUnavailableError: Not written in time.
    """
    deadline, doing = Deadline(timeout, store.clock), f"saving {name} in {store.location}"
    stored = None if believed == ABSENT else store.read(name, timeout=timeout)
    if stored is not None and believed not in {None, stored.token}:
        on_conflict()
    while True:
        content = change(None if stored is None else stored.data)
        there = ABSENT if stored is None else stored.token
        if content is None or (stored is not None and stored.data == content.data):
            return there
        try:
            return store.write(name, content, expected=there, timeout=deadline.left(doing))
        except StoreConflictError:
            on_conflict()
            stored = store.read(name, timeout=deadline.left(doing))


def save_block(
    store: Store,
    first: int,
    records: Mapping[int, Record],
    *,
    source: str,
    timeout: float,
    believed: Token | None = ABSENT,
    on_conflict: Callable[[], None] = lambda: None,
) -> BlockInfo:
    """Merge records into the block that begins with `first`, whoever else writes to it meanwhile.

    Args beside those of `update`:
        records: By number, at least one; not changed.
        source: Name of the source.

    Returns:
        The counts of the block as it now is, with its new token.

    Raises:
        StoreUnavailableError: Not saved in time.
        BlockFormatError: What is there cannot be read, or the block grew too large. Not saved.
    """
    name = block_name(first)
    merged: list[BlockInfo] = []

    def merge(data: bytes | None) -> Content:
        known = {} if data is None else decode_block(data, name)
        packed, info = encode_block(merge_blocks(known, records).values(), source=source)
        merged[:] = [info]
        return Content(packed, "application/gzip", info)

    token = update(store, name, merge, timeout=timeout, believed=believed, on_conflict=on_conflict)
    merged[0].token = token
    return merged[0]
