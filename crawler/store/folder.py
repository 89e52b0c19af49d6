"""The store in a folder: the same names and the same compare-and-swap as in a bucket."""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from crawler.errors import StoreConflictError, StoreUnavailableError
from crawler.store.block import HEAD_BYTES, BlockInfo, overlaps, parse_block_name, read_block_info
from crawler.store.block_info import broken_block
from crawler.store.contract import Deadline, Stored
from crawler.store.files import explained, sync_folder, write_all

LOCK_FILE = ".lock"
PARTIAL_FILE = ".partial"
# How often a process that waits for another one looks again, seconds; filelock's own 0.05 would let
# sixteen writers wait for most of their time.
_POLL_SECONDS = 0.005


class FolderStore:
    """A store in a folder, safe for any number of threads and processes of one machine.

    A write is one temporary file, synced and renamed over the old one, all under one lock: a reader
    sees the old object or the new one whole, a kill leaves at most that temporary file, which
    `check` sweeps away. Reading takes no lock and works in a read-only folder. The operating system
    does not let a call to a slow disk be cut short: deadlines bound the waiting for others.

    A generation is a digest of the content, so the same content has the same generation again. That
    is harmless: whoever merged with that content merged with what is there. Of a block the digest
    covers its size, its first 2 KiB (all counts) and its last 8 bytes (CRC-32 and length of its
    text), so that a listing need not read the rest.

    Attributes:
        location: The folder as given; made when something is written first.
    """

    def __init__(self, path: str | Path) -> None:
        self.location = str(path)
        self._root = Path(path)
        self._turn = threading.Lock()  # threads take turns without polling
        self._known: tuple[int, int] | None = None

    def check(self, timeout: float) -> None:
        """Sweep the leftover of a kill and write a probe where blocks will lie; see `Store`."""
        probe = self._root / "songs" / ".probe"
        with self._writing(f"checking the folder {self.location}", Deadline(timeout)):
            self._replace(probe, bytes(4096))
            probe.unlink()

    def list_blocks(
        self, start: int = 0, stop: int | None = None, *, timeout: float
    ) -> Iterator[BlockInfo]:
        """Yield the counts in the headers of the blocks, ascending; see `Store`."""
        doing = f"listing the folder {self.location}"
        deadline = Deadline(timeout)
        firsts: list[tuple[int, str]] = []
        with explained(doing), suppress(FileNotFoundError):
            names = os.listdir(self._root / "songs")  # noqa: PTH208 - names only, 20,000 of them
            found = ((parse_block_name(f"songs/{name}"), name) for name in names)
            firsts = sorted((first, name) for first, name in found if first is not None)
        for first, name in firsts:
            if overlaps(first, start, stop):
                deadline.left(doing)
                with explained(doing):
                    info = self._read_info(first, f"songs/{name}")
                if info is not None:
                    yield info

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read a file whole; see `Store`."""
        doing = f"reading {name} in {self.location}"
        Deadline(timeout).left(doing)
        with explained(doing), suppress(FileNotFoundError):
            data = (self._root / name).read_bytes()
            return Stored(data, _generation(name, io.BytesIO(data)))
        return None

    def write(
        self,
        name: str,
        data: bytes,
        *,
        generation: int | None,
        info: BlockInfo | None = None,  # noqa: ARG002 - the header of `data` carries it
        content_type: str = "application/octet-stream",  # noqa: ARG002 - files have none
        timeout: float,
    ) -> int:
        """Put a file whole in the place of the old one; see `Store`."""
        with self._writing(f"writing {name} in {self.location}", Deadline(timeout)):
            if generation is not None and generation != self._generation_of(name):
                raise StoreConflictError(f"{name} in {self.location} is not what it was")
            self._replace(self._root / name, data)
        return _generation(name, io.BytesIO(data))

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List files, ascending; see `Store`."""
        doing = f"listing the folder {self.location}"
        deadline = Deadline(timeout)
        names: list[str] = []
        top = self._root / os.path.dirname(prefix)  # noqa: PTH120 - "runs/" is a prefix, not a path
        with explained(doing):
            for folder, _, files in os.walk(top, onerror=_raise_unless_gone):
                deadline.left(doing)
                inside = Path(folder).relative_to(self._root)
                names += [
                    (inside / file).as_posix()
                    for file in files
                    if file not in (LOCK_FILE, PARTIAL_FILE)
                ]
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete a file; see `Store`."""
        with self._writing(f"deleting {name} in {self.location}", Deadline(timeout)):
            (self._root / name).unlink(missing_ok=True)

    def _read_info(self, first: int, name: str) -> BlockInfo | None:
        try:
            with open(f"{self.location}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - 20,000 times
                head = file.read(HEAD_BYTES)
                generation = _generation(name, file, head)
        except FileNotFoundError:
            return None  # deleted since the listing
        info = read_block_info(head, name)
        if info.first != first:
            raise broken_block(name, "its header is about another block")
        info.generation = generation
        return info

    def _generation_of(self, name: str) -> int:
        try:
            with (self._root / name).open("rb", buffering=0) as file:
                return _generation(name, file)
        except FileNotFoundError:
            return 0

    def _replace(self, target: Path, data: bytes) -> None:
        """Write, sync, rename; leave nothing behind on an error. Called under the lock."""
        partial = self._root / PARTIAL_FILE
        try:
            with partial.open("wb", buffering=0) as file:
                write_all(file, data)
                os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
        sync_folder(target.parent)

    @contextmanager
    def _writing(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """Hold the store's lock against other threads, then against other processes."""
        from filelock import FileLock, Timeout  # a bucket store has no need of it

        busy = f"{doing}: another writer holds the lock for more than {deadline.seconds:g} s"
        if not self._turn.acquire(timeout=deadline.left(doing)):
            raise StoreUnavailableError(busy)
        lock = FileLock(self._root / LOCK_FILE, poll_interval=_POLL_SECONDS)
        try:
            with explained(doing):
                self._enter(doing)
                try:
                    lock.acquire(deadline.left(doing))
                except Timeout:
                    raise StoreUnavailableError(busy) from None
                yield
        finally:
            lock.release()
            self._turn.release()

    def _enter(self, doing: str) -> None:
        """Make the folder at the first write, and from then on write to that one only.

        A new one in its place, made after a deletion or left by a disk that is gone, holds nothing
        of what was stored, nor whose records it may hold.
        """
        if self._known is None:
            self._root.mkdir(parents=True, exist_ok=True)
        try:
            found = self._root.stat()
            here = found.st_dev, found.st_ino
        except FileNotFoundError:
            here = None
        self._known = self._known or here
        if here is None or here != self._known:
            raise StoreUnavailableError(
                f"{doing} failed: the folder was deleted, moved or unmounted meanwhile; bring it "
                f"back, or run again to begin anew"
            )


def _raise_unless_gone(error: OSError) -> None:
    """Say so where a folder cannot be listed, which `os.walk` takes for an empty one."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _generation(name: str, file: BinaryIO | io.FileIO, head: bytes | None = None) -> int:
    """Digest what is there to 63 bits, never 0; `FolderStore` says of what."""
    if parse_block_name(name) is None:
        return _digest(file.read())
    head = file.read(HEAD_BYTES) if head is None else head
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    return _digest(b"%s%s%d" % (head, file.read(8), size))


def _digest(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest()) >> 1 or 1
