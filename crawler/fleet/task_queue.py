"""The task queue: creates named HTTP tasks through the genuine client, at a bounded rate."""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from crawler.errors import QueueError
from crawler.frontier.rate_limiter import RateLimiter
from crawler.settings.reading import is_loopback
from crawler.settings.settings import Settings

CREATES_PER_SECOND = 500.0
"""Tasks created a second, at most: what one queue takes (cloud.google.com/tasks/docs/quotas)."""

DISPATCH_SECONDS = 1800
"""A delivery may take this long: the longest there is, above time budget and service timeout."""

CREATE_SECONDS = 20.0
"""Time to create one task, repeats included."""

EMULATOR = "CLOUD_TASKS_EMULATOR_HOST"
"""The variable that names a queue server on this machine, in place of the cloud's."""

_LANES = 8
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Task(NamedTuple):
    """One task: its name, what it posts, and the time before which it must not be delivered."""

    name: str
    body: Mapping[str, Any]
    not_before: datetime | None = None


class Enqueued(NamedTuple):
    """What became of tasks: created now, there already, not tried since time ran out."""

    created: int
    already_there: int
    left: int


class TaskQueue:
    """One queue, which posts each of its tasks to this deployment's own address.

    A name is used once: creating it again changes nothing, for up to a day after the task is done.
    Any thread may call.
    """

    def __init__(self, settings: Settings, *, environ: Mapping[str, str] = os.environ) -> None:
        """Prepare; nothing is sent yet. `settings` must name queue and url.

        Raises:
            QueueError: There are no credentials.
        """
        self._queue, self._url = settings.queue or "", settings.url or ""
        self._invoker = settings.invoker
        self._make = _client_maker(environ.get(EMULATOR))

    def enqueue(
        self,
        tasks: Sequence[Task],
        *,
        has_time: Callable[[], bool] = lambda: True,
        rate: float = CREATES_PER_SECOND,
    ) -> Enqueued:
        """Create tasks, several at a time, in about the order given.

        Args:
            has_time: Asked before each task; the rest is left once it says no.
            rate: Tasks a second, at most.

        Raises:
            QueueError: The queue refuses us or cannot be reached; what was created stays.
        """
        rate_limiter, waiting = RateLimiter(rate), deque(tasks)

        def work() -> list[bool]:
            client, created = self._make(), []
            with suppress(IndexError):  # another lane took the last one
                while waiting:
                    _wait_for_turn(rate_limiter)
                    if not has_time():
                        break
                    created.append(self._create(client, waiting.popleft()))
            return created

        lanes = min(_LANES, len(tasks))
        with ThreadPoolExecutor(max(1, lanes), "enqueue") as pool:
            done = [pool.submit(work) for _ in range(lanes)]
        results = [was_new for lane in done for was_new in lane.result()]
        created = sum(results)
        return Enqueued(created, len(results) - created, len(tasks) - len(results))

    def create(self, task: Task) -> bool:
        """Create one task; False where its name was used before.

        Raises:
            QueueError: The queue refuses us or cannot be reached.
        """
        return self._create(self._make(), task)

    def _create(self, client: Any, task: Task) -> bool:
        import requests
        from google.api_core import exceptions, retry
        from google.auth.exceptions import GoogleAuthError

        # A name is used once, so repeating a create whose answer was lost is safe.
        patience = retry.Retry(
            retry.if_exception_type(
                exceptions.ServerError, exceptions.TooManyRequests, requests.ConnectionError
            ),
            initial=0.1,
            maximum=2.0,
            timeout=CREATE_SECONDS,
        )
        try:
            client.create_task(
                parent=self._queue, task=self._describe(task), retry=patience, timeout=10.0
            )
        except exceptions.Conflict:
            return False
        except (exceptions.GoogleAPIError, GoogleAuthError, OSError) as error:
            raise QueueError(
                f"{self._queue} takes no task: {type(error).__name__}: {error}"[:500]
            ) from error
        return True

    def _describe(self, task: Task) -> dict[str, Any]:
        post: dict[str, Any] = {
            "url": self._url,
            "http_method": "POST",
            "headers": {"Content-Type": "application/json"},
            "body": msgspec.json.encode(task.body),
        }
        if self._invoker is not None:
            audience = self._url
            post["oidc_token"] = {"service_account_email": self._invoker, "audience": audience}
        described: dict[str, Any] = {
            "name": f"{self._queue}/tasks/{task.name}",
            "http_request": post,
            "dispatch_deadline": {"seconds": DISPATCH_SECONDS},
        }
        if task.not_before is not None:
            described["schedule_time"] = task.not_before
        return described


def _wait_for_turn(rate_limiter: RateLimiter) -> None:
    while True:
        granted, wait = rate_limiter.grant(1, time.monotonic())
        if granted:
            return
        time.sleep(wait)


def _client_maker(emulator: str | None) -> Callable[[], Any]:
    """Return what makes a client: one for each lane, since its HTTP session is not for several."""
    # Imported here: with it come 0.4 s, which only who fans out should wait for.
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import tasks_v2

    if emulator:
        if not is_loopback(f"http://{urlsplit(f'//{emulator}').netloc}"):
            raise QueueError(f"{EMULATOR} must be on this machine, got {emulator!r:.100}")
        options = {"api_endpoint": f"http://{emulator}"}
        nobody = AnonymousCredentials()  # type: ignore[no-untyped-call]
        return lambda: tasks_v2.CloudTasksClient(
            transport="rest", client_options=options, credentials=nobody
        )
    try:
        credentials, _ = google.auth.default(scopes=[_SCOPE])
    except GoogleAuthError as error:
        raise QueueError(f"no credentials for the task queue: {error}") from error
    return lambda: tasks_v2.CloudTasksClient(transport="rest", credentials=credentials)
