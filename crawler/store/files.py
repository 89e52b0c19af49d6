"""Calls to the file system: whole writes, synced renames, and errors that say what to do."""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crawler.errors import StoreUnavailableError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def explained(doing: str) -> Iterator[None]:
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


def write_all(file: io.FileIO, data: bytes) -> None:
    """Write on where the system took only a part, as it may near the end of a disk."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_folder(folder: Path) -> None:
    """Make the rename itself survive a loss of power; Windows has no such call."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
