"""The store in a folder: the same names and the same compare-and-swap as in a bucket."""

import errno
import io
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from crawler.errors import StoreConflictError, StoreUnavailableError
from crawler.store.block import (
    ABSENT,
    HEAD_BYTES,
    BlockInfo,
    Token,
    broken_block,
    overlaps,
    parse_block_name,
    read_block_info,
)
from crawler.store.contract import Content, Deadline, Stored

LOCK_FILE = ".lock"
PARTIAL_FILE = ".partial"
CHECK_FILE = ".check"
MARK_FILE = ".mark"
"""Holds a random text, made at the first write: tells this folder from one made in its place."""

# How often a process that waits for another one looks again, seconds; filelock's own 0.05 would let
# sixteen writers wait for most of their time.
_POLL_SECONDS = 0.005

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class FolderStore:
    """A store in a folder, safe for any number of threads and processes of one machine.

    A write is one temporary file, synced and renamed over the old one, all under one lock: a reader
    sees the old object or the new one whole, a kill leaves at most that temporary file, which
    the next write replaces. Reading takes no lock and works in a read-only folder. The operating
    system does not let a call to a slow disk be cut short: deadlines bound the waiting for others.

    A token is a digest of the content, so the same content has the same token again. That is
    harmless: whoever merged with that content merged with what is there. Of a block the digest
    covers its size, its first 2 KiB (all counts) and its last 8 bytes (CRC-32 and length of its
    text), so that a listing need not read the rest. Neither inode numbers nor times of files matter.

    Attributes:
        location: The folder as given; made when something is written first.
        parallel_writes: 1, since writers wait for one lock.
        clock: Monotonic seconds.
    """

    parallel_writes, clock = 1, staticmethod(time.monotonic)

    def __init__(self, path: str | Path) -> None:
        self.location = str(path)
        self._root = Path(path)
        self._turn = threading.Lock()  # threads take turns without polling
        self._mark = ""

    def check(self, timeout: float) -> None:
        """Make, replace, read, list and delete a file where blocks will lie; see `Store`."""
        doing = f"checking the folder {self.location}"
        probe = self._root / "songs" / CHECK_FILE
        with self._writing(doing, Deadline(timeout)):
            (self._root / PARTIAL_FILE).unlink(missing_ok=True)
            self._replace(probe, bytes(4096))
            try:
                self._replace(probe, b"replaced")
                is_there = probe.name in {path.name for path in probe.parent.iterdir()}
                is_whole = probe.read_bytes() == b"replaced"
                probe.unlink()
            except OSError as error:
                if error.errno in _FULL:
                    raise
                raise _unfit(doing, str(error)) from error
            if not (is_there and is_whole):
                raise _unfit(doing, "a file that was replaced shows its old content")

    def list_blocks(
        self, start: int = 0, stop: int | None = None, *, timeout: float
    ) -> Iterator[BlockInfo]:
        """Yield the counts in the headers of the blocks, ascending; see `Store`."""
        doing = f"listing the folder {self.location}"
        deadline = Deadline(timeout)
        firsts: list[tuple[int, str]] = []
        with _explained(doing), suppress(FileNotFoundError):
            names = os.listdir(self._root / "songs")  # noqa: PTH208 - names only, 20,000 of them
            found = ((parse_block_name(f"songs/{name}"), name) for name in names)
            firsts = sorted((first, name) for first, name in found if first is not None)
        for first, name in firsts:
            if overlaps(first, start, stop):
                deadline.left(doing)
                with _explained(doing):
                    info = self._read_info(f"songs/{name}")
                if info is not None:
                    yield info

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read a file whole; see `Store`."""
        doing = f"reading {name} in {self.location}"
        Deadline(timeout).left(doing)
        with _explained(doing), suppress(FileNotFoundError), self._open(name) as file:
            data = file.read()
            return Stored(data, _token(name, io.BytesIO(data)))
        return None

    def write(
        self, name: str, content: Content, *, expected: Token | None, timeout: float
    ) -> Token:
        """Put a file whole in the place of the old one; see `Store`."""
        with self._writing(f"writing {name} in {self.location}", Deadline(timeout)):
            if expected is not None and expected != self._token_of(name):
                raise StoreConflictError(f"{name} in {self.location} is not what it was")
            self._replace(self._root / name, content.data)
        return _token(name, io.BytesIO(content.data))

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List files, ascending; see `Store`."""
        doing = f"listing the folder {self.location}"
        deadline = Deadline(timeout)
        names: list[str] = []
        top = self._root / os.path.dirname(prefix)  # noqa: PTH120 - "runs/" is a prefix, not a path
        with _explained(doing):
            for folder, _, files in os.walk(top, onerror=_raise_unless_gone):
                deadline.left(doing)
                inside = Path(folder).relative_to(self._root)
                names += [
                    (inside / file).as_posix()
                    for file in files
                    if file not in {LOCK_FILE, PARTIAL_FILE, MARK_FILE}
                ]
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete a file; see `Store`."""
        with self._writing(f"deleting {name} in {self.location}", Deadline(timeout)):
            (self._root / name).unlink(missing_ok=True)

    def _open(self, name: str) -> io.FileIO:
        """Open a file to read it; what is none, such as a pipe, is named and never opened."""
        path = f"{self.location}/{name}"
        try:
            kind = stat.S_IFMT(os.stat(path).st_mode)  # noqa: PTH116 - 20,000 times
        except FileNotFoundError:
            if Path(path).is_symlink():  # what it leads to may come back
                raise broken_block(name, "it is a link to nothing") from None
            raise
        if kind != stat.S_IFREG:
            raise broken_block(name, f"it is no file but {_KINDS.get(kind, 'something else')}")
        return open(path, "rb", buffering=0)  # noqa: PTH123 - as above; the caller closes it

    def _read_info(self, name: str) -> BlockInfo | None:
        try:
            with self._open(name) as file:
                head = file.read(HEAD_BYTES)
                token = _token(name, file, head)
        except FileNotFoundError:
            return None  # deleted since the listing
        info = read_block_info(head, name)
        info.token = token
        return info

    def _token_of(self, name: str) -> Token:
        try:
            with self._open(name) as file:
                return _token(name, file)
        except FileNotFoundError:
            return ABSENT

    def _replace(self, target: Path, data: bytes) -> None:
        """Write, sync, rename; leave nothing behind on an error. Called under the lock."""
        partial = self._root / PARTIAL_FILE
        try:
            with partial.open("wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:  # near the end of a disk the system may take only a part
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
        _sync_folder(target.parent)

    @contextmanager
    def _writing(self, doing: str, deadline: Deadline) -> Iterator[None]:
        """Hold the store's lock against other threads, then against other processes."""
        from filelock import FileLock, Timeout  # a bucket store has no need of it

        busy = f"{doing}: another writer holds the lock for more than {deadline.seconds:g} s"
        if not self._turn.acquire(timeout=deadline.left(doing)):
            raise StoreUnavailableError(busy)
        # Where flock is missing, filelock would take the mere presence of a file for a lock, and
        # wait for ever for one that a kill or another system left behind.
        lock = FileLock(self._root / LOCK_FILE, poll_interval=_POLL_SECONDS, fallback_to_soft=False)
        try:
            with _explained(doing):
                self._enter(doing)
                try:
                    lock.acquire(deadline.left(doing))
                except Timeout:
                    raise StoreUnavailableError(busy) from None
                except OSError as error:
                    raise _without_locks(doing, error) from error
                self._mark = self._mark or self._read_mark() or self._leave_mark()
                yield
        finally:
            lock.release()
            self._turn.release()

    def _enter(self, doing: str) -> None:
        """Make the folder at the first write, and from then on write to that one only.

        A new one in its place, made after a deletion or left by a disk that is gone, holds nothing
        of what was stored, nor whose records it may hold.
        """
        if not self._mark:
            self._root.mkdir(parents=True, exist_ok=True)
        elif self._read_mark() != self._mark:
            raise StoreUnavailableError(
                f"{doing} failed: the folder was deleted, moved or unmounted meanwhile; bring it "
                f"back, or run again to begin anew"
            )

    def _read_mark(self) -> str:
        try:
            return (self._root / MARK_FILE).read_text("ascii", errors="replace")
        except FileNotFoundError:
            return ""

    def _leave_mark(self) -> str:
        mark = secrets.token_hex(16)
        self._replace(self._root / MARK_FILE, mark.encode())
        return mark


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    """Turn an error of the file system into one that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "look at the disk, or name another folder as the store (CRAWLER_STORE)"
        if error.errno in _FULL:
            advice = "make room on the disk and run again; what was stored before is whole"
        elif error.errno in _REFUSED:
            advice = "make the folder writable, or name another one as the store (CRAWLER_STORE)"
        raise StoreUnavailableError(f"{doing} failed ({error}): {advice}") from error


def _unfit(doing: str, why: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"{doing} failed ({why}): files can be made there but not replaced, read, listed and "
        f"deleted, which blocks need; name a folder on another disk, or a bucket (CRAWLER_STORE)"
    )


def _without_locks(doing: str, error: OSError) -> OSError | StoreUnavailableError:
    if error.errno not in _NO_LOCKS:
        return error
    return StoreUnavailableError(
        f"{doing} failed ({error}): its file system has no working locks (flock), without which two "
        f"runs could overwrite each other; name a folder on another disk, or a bucket "
        f"(CRAWLER_STORE)"
    )


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a loss of power, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:  # such mounts promise no more than the rename
            raise
    finally:
        os.close(descriptor)


def _raise_unless_gone(error: OSError) -> None:
    """Raise where a folder cannot be listed, which `os.walk` takes for an empty one."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _token(name: str, file: io.BytesIO | io.FileIO, head: bytes | None = None) -> Token:
    """Digest what is there; `FolderStore` says of what."""
    if parse_block_name(name) is None:
        return _digest(file.read())
    head = file.read(HEAD_BYTES) if head is None else head
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    return _digest(b"%s%s%d" % (head, file.read(8), size))


def _digest(data: bytes) -> Token:
    return Token(blake2b(data, digest_size=8).hexdigest())
