"""Opening a store by its location: a bucket for `gs://…`, else a folder."""

import re
from pathlib import Path

from crawler.errors import SettingsError
from crawler.store.contract import Store
from crawler.store.folder import FolderStore

# Bucket names: cloud.google.com/storage/docs/buckets#naming, dots allowed; whether one exists is
# asked by check().
_GS = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?", re.DOTALL)


def open_store(location: str) -> Store:
    """Open the store at `gs://bucket/prefix` or in a folder; nothing is sent or made yet.

    Raises:
        SettingsError: `store_malformed`.
    """
    if "://" not in location:
        return FolderStore(_folder(location))
    match = _GS.fullmatch(location)
    prefix = ((match[2] or "") if match else "").rstrip("/")
    parts = prefix.split("/") if prefix else []
    if match is None or not all(_is_plain(part) for part in parts) or len(prefix) > 500:
        raise _malformed(location)
    from crawler.store.bucket import BucketStore  # a folder store does without

    return BucketStore(match[1], prefix)


def _folder(location: str) -> Path:
    if not location.strip() or "\0" in location or location.startswith("gs:"):
        raise _malformed(location)
    try:
        return Path(location).expanduser()
    except RuntimeError:
        raise _malformed(location) from None


def _is_plain(part: str) -> bool:
    """Whether a step of a prefix names something, and the same thing to every tool."""
    return part.isprintable() and part not in {"", ".", ".."} and not set(part) & set("*?[]#")


def _malformed(location: str) -> SettingsError:
    return SettingsError(
        "store_malformed",
        "CRAWLER_STORE",
        f"CRAWLER_STORE must be gs://bucket, gs://bucket/prefix or a folder, got {location!r}",
    )
