"""The store in a Cloud Storage bucket, through Google's own client."""

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from crawler.errors import StoreConflictError
from crawler.store.block import (
    BLOCK_SIZE,
    HEAD_BYTES,
    BlockInfo,
    block_first,
    format_block_info,
    overlaps,
    parse_block_info,
    parse_block_name,
    read_block_info,
)
from crawler.store.block_info import broken_block
from crawler.store.bucket_calls import call, list_objects, make_client
from crawler.store.contract import Deadline, Stored

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

T = TypeVar("T")

METADATA_KEY = "block"
CHECK_NAME = ".check"
"""Never exists: `check` asks to replace and to delete it, and looks at how it is refused."""


class BucketStore:
    """A store in a bucket, below a prefix.

    Every write is one request with a precondition on the object's generation; a block's counts are
    its custom metadata, one JSON text under the key `block`. `STORAGE_EMULATOR_HOST` is honoured
    as the client does. The client is made at first use. A timeout bounds attempts and the waits
    between them; within one attempt it bounds each wait for the network.

    Attributes:
        location: `gs://bucket` or `gs://bucket/prefix`.
    """

    def __init__(
        self, bucket: str, prefix: str, client: Any = None, *, page_size: int | None = None
    ) -> None:
        """Remember where; nothing is sent yet.

        Args:
            bucket: Name of the bucket.
            prefix: Objects lie below it; empty for none.
            client: A `google.cloud.storage.Client`, by default one made from the environment.
            page_size: Objects per page of a listing; None: as many as the server likes.
        """
        self.location = f"gs://{bucket}/{prefix}".rstrip("/")
        self._bucket_name = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._known_client = client
        self._page_size = page_size
        self._making = threading.Lock()

    def check(self, timeout: float) -> None:
        """Find out whether listing, replacing and deleting are allowed; leaves no trace."""
        from google.api_core.exceptions import PreconditionFailed

        doing = f"checking the store {self.location}"
        deadline = Deadline(timeout)
        list(self._pages(doing, deadline, prefix=self._prefix, fields="items(name)", max_results=1))

        def replace(seconds: float) -> None:
            # No object has generation 1, so a right that is there shows as a lost precondition.
            blob = self._blob(CHECK_NAME)
            blob.upload_from_string(b"", if_generation_match=1, timeout=seconds, retry=None)

        self._call(doing, deadline, replace, expected=PreconditionFailed)
        self.delete(CHECK_NAME, timeout=deadline.left(doing))

    def list_blocks(
        self, start: int = 0, stop: int | None = None, *, timeout: float
    ) -> Iterator[BlockInfo]:
        """Yield the counts in the blocks' metadata, ascending; see `Store`.

        A block without our metadata, copied here from a folder say, is asked for its first bytes.
        """
        doing = f"listing {self.location}"
        deadline = Deadline(timeout)
        songs = f"{self._prefix}songs/"
        span = {"start_offset": f"{songs}{block_first(start):012}"}
        end = None if stop is None else block_first(max(stop - 1, 0)) + BLOCK_SIZE
        if end is not None and end < 10**12:  # a name of 13 digits would sort before the last ones
            span["end_offset"] = f"{songs}{end:012}"
        fields = "items(name,generation,metadata,size),nextPageToken"
        for blob in self._pages(doing, deadline, prefix=songs, fields=fields, **span):
            name = blob.name.removeprefix(self._prefix)
            first = parse_block_name(name)
            if first is None or not overlaps(first, start, stop):
                continue
            counts = (blob.metadata or {}).get(METADATA_KEY)
            if counts is not None:
                info: BlockInfo | None = parse_block_info(counts, name)
            else:
                info = self._read_head(name, blob.size, deadline)
            if info is None:
                continue  # deleted since the listing
            if info.first != first:
                raise broken_block(name, "its counts are another block's")
            info.generation = blob.generation
            yield info

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object whole; see `Store`."""
        return self._read(name, Deadline(timeout))

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
        """Write an object whole in one request; see `Store`."""
        from google.api_core.exceptions import PreconditionFailed

        doing = f"writing {name} in {self.location}"
        deadline = Deadline(timeout)
        attempts = 0

        def upload(seconds: float) -> int:
            nonlocal attempts
            attempts += 1
            blob = self._blob(name)
            if info is not None:
                blob.metadata = {METADATA_KEY: format_block_info(info)}
            blob.upload_from_string(
                data,
                content_type,
                if_generation_match=generation,
                timeout=seconds,
                retry=None,
            )
            return int(blob.generation)

        written = self._call(doing, deadline, upload, expected=PreconditionFailed)
        if written is not None:
            return written
        # An earlier attempt may have landed although its answer was lost:
        # docs.cloud.google.com/storage/docs/retry-strategy
        there = self._read(name, deadline) if attempts > 1 else None
        if there is not None and there.data == data:
            return there.generation
        raise StoreConflictError(f"{name} in {self.location} is not what it was")

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List objects, ascending; see `Store`."""
        doing, fields = f"listing {self.location}", "items(name),nextPageToken"
        wanted = self._prefix + prefix
        blobs = self._pages(doing, Deadline(timeout), prefix=wanted, fields=fields)
        return sorted(blob.name.removeprefix(self._prefix) for blob in blobs)

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete an object; see `Store`."""
        from google.api_core.exceptions import NotFound

        def delete(seconds: float) -> None:
            self._blob(name).delete(timeout=seconds, retry=None)

        doing = f"deleting {name} in {self.location}"
        self._call(doing, Deadline(timeout), delete, expected=NotFound)

    def _read(self, name: str, deadline: Deadline, end: int | None = None) -> Stored | None:
        from google.api_core.exceptions import NotFound

        def download(seconds: float) -> Stored:
            blob = self._blob(name)
            data = blob.download_as_bytes(end=end, raw_download=True, timeout=seconds, retry=None)
            return Stored(data, int(blob.generation))

        return self._call(
            f"reading {name} in {self.location}", deadline, download, expected=NotFound
        )

    def _read_head(self, name: str, size: int, deadline: Deadline) -> BlockInfo | None:
        if not size:
            return read_block_info(b"", name)  # the server has no first byte of nothing: 416
        head = self._read(name, deadline, end=HEAD_BYTES - 1)
        return read_block_info(head.data, name) if head else None

    def _pages(self, doing: str, deadline: Deadline, **query: Any) -> Iterator["Blob"]:
        query |= {"bucket": self._bucket_name, "page_size": self._page_size}
        return list_objects(doing, deadline, self._client, **query)

    def _blob(self, name: str) -> "Blob":
        return self._client().bucket(self._bucket_name).blob(self._prefix + name)

    def _client(self) -> "Client":
        with self._making:
            if self._known_client is None:
                self._known_client = make_client()
            return self._known_client

    def _call(
        self,
        doing: str,
        deadline: Deadline,
        request: Callable[[float], T],
        expected: type[Exception] | None = None,
    ) -> T | None:
        return call(doing, deadline, request, bucket=self._bucket_name, expected=expected)
