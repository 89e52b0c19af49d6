"""The store in a Cloud Storage bucket, through Google's own client."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from crawler.errors import StoreConflictError, StoreUnavailableError
from crawler.store.block import (
    ABSENT,
    BLOCK_SIZE,
    HEAD_BYTES,
    BlockInfo,
    Token,
    block_first,
    format_block_info,
    overlaps,
    parse_block_info,
    parse_block_name,
    read_block_info,
)
from crawler.store.contract import TRY_AGAIN, Content, Deadline, Stored

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

T = TypeVar("T")

METADATA_KEY = "block"
CHECK_FOLDER = ".check/"

_POOL_SIZE = 32  # by default 10, fewer than the threads that read and write: python-storage #253
_ATTEMPT_SECONDS = 30.0  # one request, so that a dead connection leaves time for a second one

_CAUSES = (
    ("retention", "remove the retention policy: blocks are replaced as they grow"),
    ("hold", "release the holds and the default hold: blocks are replaced as they grow"),
    ("requester pays", "turn requester pays off: no project is named that would pay"),
    ("kms", "restore the key that the bucket encrypts with, or let Cloud Storage use it"),
)
"""What to do about a bucket that refuses what a run needs, by words of its refusal."""


class BucketStore:
    """A store in a bucket, below a prefix.

    Every write is one request with a precondition on the object's generation, which is its token; a
    block's counts are its custom metadata, one JSON text under the key `block`. `STORAGE_EMULATOR_HOST` is honoured
    as the client does. The client is made at first use. A timeout bounds attempts and the waits
    between them; within one attempt it bounds each wait for the network.

    Attributes:
        location: `gs://bucket` or `gs://bucket/prefix`.
        parallel_writes: 8, since their waits for the network overlap.
        clock: Monotonic seconds.
    """

    parallel_writes, clock = 8, staticmethod(time.monotonic)

    def __init__(
        self, bucket: str, prefix: str, client: Any = None, *, page_size: int | None = None
    ) -> None:
        """Remember where; nothing is sent yet.

        Args:
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
        """List, create, replace, read and delete an object of its own; see `Store`."""
        doing = f"checking the store {self.location}"
        deadline = Deadline(timeout)
        name = f"{CHECK_FOLDER}{secrets.token_hex(8)}"
        self.list_names(name, timeout=timeout)
        created = self.write(name, Content(b"1"), expected=ABSENT, timeout=deadline.left(doing))
        self.write(name, Content(b"2"), expected=created, timeout=deadline.left(doing))
        stored = self.read(name, timeout=deadline.left(doing))
        self.delete(name, timeout=deadline.left(doing))
        if stored is None or stored.data != b"2":
            raise StoreUnavailableError(
                f"{doing} failed: an object that was replaced shows its old content"
            )

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
            info.token = Token(str(blob.generation))
            yield info

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object whole; see `Store`."""
        return self._read(name, Deadline(timeout))

    def write(
        self, name: str, content: Content, *, expected: Token | None, timeout: float
    ) -> Token:
        """Write an object whole in one request; see `Store`."""
        from google.api_core.exceptions import PreconditionFailed

        doing = f"writing {name} in {self.location}"
        deadline = Deadline(timeout)
        generation = None if expected is None else int(expected or 0)
        attempts = 0

        def upload(seconds: float) -> Token:
            nonlocal attempts
            attempts += 1
            blob = self._blob(name)
            if content.info is not None:
                blob.metadata = {METADATA_KEY: format_block_info(content.info)}
            blob.upload_from_string(
                content.data,
                content.content_type,
                if_generation_match=generation,
                timeout=seconds,
                retry=None,
            )
            return Token(str(blob.generation))

        written = self._call(doing, deadline, upload, expected=PreconditionFailed)
        if written is not None:
            return written
        # An earlier attempt may have landed although its answer was lost:
        # docs.cloud.google.com/storage/docs/retry-strategy
        there = self._read(name, deadline) if attempts > 1 else None
        if there is not None and there.data == content.data:
            return there.token
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
            return Stored(data, Token(str(blob.generation)))

        return self._call(
            f"reading {name} in {self.location}", deadline, download, expected=NotFound
        )

    def _read_head(self, name: str, size: int, deadline: Deadline) -> BlockInfo | None:
        if not size:
            return read_block_info(b"", name)  # the server has no first byte of nothing: 416
        head = self._read(name, deadline, end=HEAD_BYTES - 1)
        return read_block_info(head.data, name) if head else None

    def _pages(self, doing: str, deadline: Deadline, **query: Any) -> Iterator["Blob"]:
        """Yield the objects of all pages, ascending by name, each page asked for with the time left.

        `query` is what `Client.list_blobs` takes.
        """
        token = None
        while True:

            def ask(seconds: float, token: str | None = token) -> tuple[list["Blob"], str | None]:
                page = self._client().list_blobs(
                    self._bucket_name,
                    page_token=token,
                    page_size=self._page_size,
                    timeout=seconds,
                    retry=None,
                    **query,
                )
                return list(next(page.pages, ())), page.next_page_token

            blobs, token = self._call(doing, deadline, ask) or ([], None)
            yield from blobs
            if token is None:
                return

    def _blob(self, name: str) -> "Blob":
        return self._client().bucket(self._bucket_name).blob(self._prefix + name)

    def _client(self) -> "Client":
        with self._making:
            if self._known_client is None:
                self._known_client = _make_client()
            return self._known_client

    def _call(
        self,
        doing: str,
        deadline: Deadline,
        request: Callable[[float], T],
        *,
        expected: type[Exception] | None = None,
    ) -> T | None:
        """Send a request, again where Google says that this can help, until the deadline.

        Args:
            request: `request(seconds)` makes one attempt, without retries of its own.
            expected: An error that is an answer too.

        Returns:
            What the request returned; None if it raised what was expected.

        Raises:
            StoreUnavailableError: Nothing else came in time.
        """
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from google.cloud.storage.retry import DEFAULT_RETRY
        from requests import RequestException

        def attempt() -> T:
            try:
                return request(min(deadline.left(doing), _ATTEMPT_SECONDS))
            except DataCorruption as error:  # tried again as a connection that broke, which it did
                raise ConnectionError(str(error)) from error

        policy = DEFAULT_RETRY.with_delay(initial=0.2, maximum=8.0, multiplier=2.0)
        try:
            result: T = policy.with_timeout(deadline.left(doing))(attempt)()
        except (
            *(GoogleAPIError, GoogleAuthError, RequestException, OSError, InvalidResponse),
        ) as error:
            if expected is not None and isinstance(error, expected):
                return None
            raise _explained(doing, self._bucket_name, error) from error
        return result


def _make_client() -> "Client":
    """Make a client from the environment, as Google's own does; sends nothing yet."""
    from google.cloud import storage  # 0.2 to 0.6 s; a folder store does without
    from requests.adapters import HTTPAdapter

    class ReadingAdapter(HTTPAdapter):
        """Reads refusals at once: google-auth drops a 401 unread, and its connection with it."""

        def send(self, *args: Any, **options: Any) -> Any:
            answer = super().send(*args, **options)
            if not answer.ok:
                _ = answer.content
            return answer

    client = storage.Client(project=None)  # a bucket has a project of its own
    for scheme in ("https://", "http://"):
        # The way given in github.com/googleapis/python-storage/issues/253.
        adapter = ReadingAdapter(pool_connections=_POOL_SIZE, pool_maxsize=_POOL_SIZE)
        client._http.mount(scheme, adapter)  # noqa: SLF001 - the client has no public name for it
    # Since 3.17 the client asks for the bucket itself in a thread of its own, again after each
    # failure, to label traces that are off. Its code allows for the absence of that cache.
    client._bucket_metadata_cache = None  # noqa: SLF001 - nor a switch but an environment variable
    return client


def _explained(doing: str, bucket: str, error: Exception) -> StoreUnavailableError:
    from google.auth.exceptions import GoogleAuthError

    cause = getattr(error, "cause", None) or error  # of a RetryError: the last attempt's
    code = getattr(cause, "code", None)
    told = str(cause).lower()
    known = next((advice for word, advice in _CAUSES if word in told), None)
    advice = TRY_AGAIN
    if known is not None:
        advice = f"{known}; or name another bucket than {bucket} (CRAWLER_STORE)"
    elif code == 404:
        advice = f"make the bucket {bucket}, or name another one (CRAWLER_STORE)"
    elif code == 403:
        advice = f"give the account roles/storage.objectUser on the bucket {bucket}"
    elif code == 401 or isinstance(cause, GoogleAuthError):
        advice = "run `gcloud auth application-default login`, or run as a service account"
    return StoreUnavailableError(f"{doing} failed ({str(cause)[:300]}): {advice}")
