"""Calls to Cloud Storage: retried within one deadline, their errors worded for who must act."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from crawler.errors import StoreUnavailableError
from crawler.store.contract import Deadline

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

T = TypeVar("T")

_POOL_SIZE = 32  # by default 10, fewer than the threads that read and write: python-storage #253
_ATTEMPT_SECONDS = 30.0  # one request, so that a dead connection leaves time for a second one


def make_client() -> "Client":
    """Make a client from the environment, as Google's own does; sends nothing yet."""
    from google.cloud import storage  # 0.2 to 0.6 s; a folder store does without
    from requests.adapters import HTTPAdapter

    client = storage.Client(project=None)  # a bucket has a project of its own
    for scheme in ("https://", "http://"):
        # The way given in github.com/googleapis/python-storage/issues/253.
        adapter = HTTPAdapter(pool_connections=_POOL_SIZE, pool_maxsize=_POOL_SIZE)
        client._http.mount(scheme, adapter)  # noqa: SLF001 - the client has no public name for it
    # Since 3.17 the client asks for the bucket itself in a thread of its own, again after each
    # failure, to label traces that are off. Its code allows for the absence of that cache.
    client._bucket_metadata_cache = None  # noqa: SLF001 - nor a switch but an environment variable
    return client


def call(
    doing: str,
    deadline: Deadline,
    request: Callable[[float], T],
    *,
    bucket: str,
    expected: type[Exception] | None = None,
) -> T | None:
    """Send a request, again where Google says that this can help, until the deadline.

    Args:
        doing: What the request is for, for the message of an error.
        deadline: What is left for all attempts and the waits between them.
        request: `request(seconds)` makes one attempt, without retries of its own.
        bucket: Name of the bucket, for the message of an error.
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
        return request(min(deadline.left(doing), _ATTEMPT_SECONDS))

    policy = DEFAULT_RETRY.with_delay(initial=0.2, maximum=8.0, multiplier=2.0)
    try:
        result: T = policy.with_timeout(deadline.left(doing))(attempt)()
    except (
        *(GoogleAPIError, GoogleAuthError, RequestException, OSError),
        *(DataCorruption, InvalidResponse),
    ) as error:
        if expected is not None and isinstance(error, expected):
            return None
        raise _explained(doing, bucket, error) from error
    return result


def list_objects(
    doing: str,
    deadline: Deadline,
    client: Callable[[], "Client"],
    *,
    bucket: str,
    **query: Any,
) -> Iterator["Blob"]:
    """Yield the objects of all pages, ascending by name, each page asked for with the time left.

    `query` is what `Client.list_blobs` takes; with `max_results` one page is asked for.
    """
    token = None
    while True:

        def ask(seconds: float, token: str | None = token) -> tuple[list["Blob"], str | None]:
            page = client().list_blobs(
                bucket, page_token=token, timeout=seconds, retry=None, **query
            )
            return list(next(page.pages, ())), page.next_page_token

        blobs, token = call(doing, deadline, ask, bucket=bucket) or ([], None)
        yield from blobs
        if token is None or "max_results" in query:
            return


def _explained(doing: str, bucket: str, error: Exception) -> StoreUnavailableError:
    from google.auth.exceptions import GoogleAuthError

    cause = getattr(error, "cause", None) or error  # of a RetryError: the last attempt's
    code = getattr(cause, "code", None)
    advice = "try again later; what was stored before is whole"
    if code == 404:
        advice = f"make the bucket {bucket}, or name another one (CRAWLER_STORE)"
    elif code == 403:
        advice = f"give the account roles/storage.objectUser on the bucket {bucket}"
    elif code == 401 or isinstance(cause, GoogleAuthError):
        advice = "run `gcloud auth application-default login`, or run as a service account"
    return StoreUnavailableError(f"{doing} failed ({str(cause)[:300]}): {advice}")
