"""The store's contract: named objects with generations, and the one way to save a block."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from crawler.errors import StoreConflictError, StoreUnavailableError
from crawler.record import Record
from crawler.store.block import BlockInfo, block_name, decode_block, encode_block, merge_blocks


class Stored(NamedTuple):
    """An object as it was read, and the generation that a compare-and-swap needs."""

    data: bytes
    generation: int


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
        """Say how many seconds are left, more than 0.

        Raises:
            StoreUnavailableError: None are; `doing` says in the message what took so long.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise StoreUnavailableError(f"{doing} took longer than {self.seconds:g} s")
        return left


class Store(Protocol):
    """Where blocks live: a bucket or a folder. Every method may be called from any thread.

    Names are relative, with `/`, such as `songs/000000378000.jsonl.gz` or `control.json`.
    `timeout` is the whole call's, in seconds, more than 0, retries and waiting for locks included.
    Every method raises `StoreUnavailableError` when the store cannot be reached in that time, is
    full or refuses us, in words that say what to do; what it held before is then unharmed.

    Attributes:
        location: Where it is, as `open_store` takes it.
    """

    location: str

    def check(self, timeout: float) -> None:
        """Find out, before the first request to the site, whether reading and writing will work."""

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
        self,
        name: str,
        data: bytes,
        *,
        generation: int | None,
        info: BlockInfo | None = None,
        content_type: str = "application/octet-stream",
        timeout: float,
    ) -> int:
        """Write an object whole, or leave it as it is; return its new generation, never 0.

        Args:
            name: Relative name.
            data: All of it, at most `MAX_BLOCK_BYTES`.
            generation: What must be there: 0 nothing, g exactly that one, None: anything.
            info: The counts of a block.
            content_type: For who looks at the object in a browser.
            timeout: Seconds.

        Raises:
            StoreConflictError: Something else is there. A write that landed although its answer
                was lost is no conflict.
        """

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List the names that begin with `prefix`, ascending."""

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete an object; one that is not there is no error."""


def save_block(
    store: Store,
    first: int,
    records: Mapping[int, Record],
    *,
    source: str,
    generation: int,
    timeout: float,
    on_conflict: Callable[[], None] = lambda: None,
) -> BlockInfo:
    """Merge records into the block that begins with `first`, whoever else writes to it meanwhile.

    Args:
        store: Where.
        first: First number of the block.
        records: By number, at least one; not changed.
        source: Name of the source.
        generation: A hint: 0 where no block is believed to be there, which is then created without
            reading first; any other number: it is read first.
        timeout: Seconds for all attempts together.
        on_conflict: Told when the block is not of that generation: somebody else writes to it.

    Returns:
        The counts of the block as it now is, with its new generation.

    Raises:
        StoreUnavailableError: Not saved in time.
        BlockFormatError: What is there cannot be read, or the block grew too large. Not saved.
    """
    name = block_name(first)
    deadline = Deadline(timeout)
    stored = store.read(name, timeout=timeout) if generation else None
    if stored and stored.generation != generation:
        on_conflict()
    while True:
        known = decode_block(stored.data, name) if stored else {}
        data, info = encode_block(merge_blocks(known, records).values(), source=source)
        if stored and stored.data == data:
            info.generation = stored.generation  # a second delivery: nothing to add
            return info
        try:
            info.generation = store.write(
                name,
                data,
                generation=stored.generation if stored else 0,
                info=info,
                content_type="application/gzip",
                timeout=deadline.left(f"saving {name}"),
            )
            return info
        except StoreConflictError:
            on_conflict()
            stored = store.read(name, timeout=deadline.left(f"saving {name}"))
