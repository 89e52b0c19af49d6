"""Opening a store by its location: a bucket for `gs://…`, else a folder."""

import re
from collections.abc import Callable
from pathlib import Path

from crawler.errors import SettingsError
from crawler.store.contract import Store
from crawler.store.folder import FolderStore


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
