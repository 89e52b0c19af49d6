"""What Cloud Scheduler sends, sent by a thread: its headers, its type, twice, late, at once."""

import json
import threading
from datetime import UTC, datetime
from typing import Any

from tests.function_process import FunctionProcess, Reply


def deliver(
    function: FunctionProcess,
    body: Any = None,
    *,
    scheduled: datetime | None = None,
    content_type: str = "application/octet-stream",
) -> Reply:
    """Deliver one call of the job `song-crawler-next`; returns the function's answer.

    Args:
        function: Where.
        body: What the job says; None: `{"mode": "next"}`.
        scheduled: When it was due, which may be long ago.
        content_type: Scheduler's default; `deploy.sh` sets `application/json`.

    Source: docs.cloud.google.com/scheduler/docs/reference/rest/v1/projects.locations.jobs, HttpTarget.
    """
    headers = {
        "Content-Type": content_type,
        "User-Agent": "Google-Cloud-Scheduler",
        "X-CloudScheduler": "true",
        "X-CloudScheduler-JobName": "song-crawler-next",
        "X-CloudScheduler-ScheduleTime": (scheduled or datetime.now(UTC)).isoformat(),
    }
    sent = json.dumps({"mode": "next"} if body is None else body)
    return function.ask("/", "POST", sent.encode(), headers, timeout_seconds=100)


def deliver_at_once(function: FunctionProcess, times: int, body: Any = None) -> list[Reply]:
    """Deliver the same call several times, each while the others run."""
    replies: list[Reply] = []
    gate = threading.Barrier(times)

    def send() -> None:
        gate.wait()
        replies.append(deliver(function, body))

    threads = [threading.Thread(target=send) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies
