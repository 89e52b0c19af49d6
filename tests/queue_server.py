"""A task queue on loopback that speaks the REST form of Cloud Tasks and really delivers.

It keeps to what is documented for version 2 of the API: a name is used once, deliveries are paced,
bounded in number and in time, repeated with growing waits unless answered with 2xx, and carry the
queue's headers and an identity token. On request it delivers twice, late and out of order.
"""

import base64
import heapq
import http.client
import json
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

QUEUE = "projects/test/locations/here/queues/songs"
_PATH = re.compile(r"/v2/(projects/[^/]+/locations/[^/]+/queues/[^/:]+)(/tasks(?:/[^/]+)?|:\w+)?")
_SECOND_LOOK = 0.01  # how long the dispatcher sleeps when it cannot tell until when


@dataclass
class Task:
    """One task, from its creation to its end; `attempts` were dispatched, `responses` came back."""

    name: str
    url: str
    headers: dict[str, str]
    body: bytes
    deadline: float
    email: str
    audience: str
    attempts: int = 0
    responses: int = 0
    is_over: bool = False


class Delivery(NamedTuple):
    """One attempt to deliver: to which port, when, and with what status (0: no answer)."""

    task: str
    body: Any
    port: int
    began_at: float
    ended_at: float
    status: int
    answer: bytes


@dataclass
class Limits:
    """What `gcloud tasks queues create` sets; seconds and counts."""

    per_second: float = 500.0
    concurrent: int = 1000
    attempts: int = 100
    min_backoff: float = 0.05
    max_backoff: float = 10.0
    doublings: int = 16


@dataclass
class QueueServer:
    """One queue and its dispatcher; a context manager.

    Attributes:
        limits: Rates, concurrency, attempts, back-off.
        instances: Ports that serve the address of the tasks, one request each at a time, as a
            service with a concurrency of 1 does; empty: the address itself is asked.
        again: Asked at the first delivery of each task: after how many seconds it is delivered
            once more, whatever comes of the first; None: not.
        is_shuffled: Whether tasks are delivered in no order.
        deliveries: What was delivered, in the order in which it ended.
    """

    limits: Limits = field(default_factory=Limits)
    instances: list[int] = field(default_factory=list)
    again: Callable[[Task], float | None] = lambda _task: None
    is_shuffled: bool = False
    deliveries: list[Delivery] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Bind the port."""
        self.tasks: dict[str, Task] = {}
        self.created_at: list[float] = []
        self.due: list[tuple[float, float, Task]] = []
        self._changed = threading.Condition()
        self._busy: set[int] = set()
        self._running = 0
        self._is_paused = self._is_closed = False
        self._next_at = 0.0
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.host = f"127.0.0.1:{self._http.server_port}"
        work = (self._dispatch, lambda: self._http.serve_forever(0.02))
        self._threads = [threading.Thread(target=target, daemon=True) for target in work]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._http.shutdown()
        for thread in self._threads:
            thread.join()
        self._http.server_close()

    def wait_until_empty(self, timeout: float) -> None:
        """Wait until every task is over and nothing is under way."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.due and not self._running, timeout):
                raise TimeoutError(f"{len(self.due)} tasks wait, {self._running} under way")

    # What the REST methods do.

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Answer one call of the API."""
        match = _PATH.fullmatch(urlsplit(path).path)
        queue, rest = (match[1], match[2] or "") if match else ("", "")
        if queue != QUEUE:
            return _error(404, "NOT_FOUND", "Queue does not exist.")
        if method == "POST" and rest == "/tasks":
            return self._create(json.loads(body).get("task", {}))
        if method == "POST" and rest in (":pause", ":resume", ":purge"):
            with self._changed:
                self._is_paused = {":pause": True, ":resume": False}.get(rest, self._is_paused)
                if rest == ":purge":
                    self.due.clear()
                self._changed.notify_all()
        if method == "GET" and rest.startswith("/tasks"):
            with self._changed:
                return 200, {"tasks": [{"name": task.name} for *_, task in sorted(self.due)]}
        return 200, {"name": QUEUE, "state": "PAUSED" if self._is_paused else "RUNNING"}

    def _create(self, given: dict[str, Any]) -> tuple[int, Any]:
        post = given.get("httpRequest", {})
        name = given.get("name") or f"{QUEUE}/tasks/{random.getrandbits(60)}"
        deadline = float(str(given.get("dispatchDeadline", "600s")).rstrip("s"))
        token = post.get("oidcToken", {})
        if not re.fullmatch(re.escape(QUEUE) + r"/tasks/[A-Za-z0-9_-]{1,500}", name):
            return _error(400, "INVALID_ARGUMENT", f"Bad task name: {name}")
        if not str(post.get("url", "")).startswith("http") or not 15 <= deadline <= 1800:
            return _error(400, "INVALID_ARGUMENT", "Bad URL or dispatch deadline.")
        if len(json.dumps(given)) > 100_000:
            return _error(400, "INVALID_ARGUMENT", "Task size too large.")
        body, headers = base64.b64decode(post.get("body", "")), post.get("headers", {})
        email, audience = token.get("serviceAccountEmail", ""), token.get("audience", "")
        task = Task(name, post["url"], headers, body, deadline, email, audience)
        with self._changed:
            if name in self.tasks:  # also of one that is over: a tombstone
                return _error(409, "ALREADY_EXISTS", "The task existed too recently.")
            self.tasks[name] = task
            self.created_at.append(time.monotonic())
            self._put(task, _seconds_until(given.get("scheduleTime")))
        return 200, {"name": name}

    # Dispatching.

    def _put(self, task: Task, wait: float) -> None:
        place = random.random() if self.is_shuffled else float(len(self.created_at))
        heapq.heappush(self.due, (time.monotonic() + wait, place, task))
        self._changed.notify_all()

    def _dispatch(self) -> None:
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                port = self._free_instance()
                is_ready = (
                    self.due
                    and self.due[0][0] <= now >= self._next_at
                    and not self._is_paused
                    and self._running < self.limits.concurrent
                    and port is not None
                )
                if not is_ready:
                    self._changed.wait(_SECOND_LOOK)
                    continue
                ready = [entry for entry in self.due if entry[0] <= now]
                entry = min(ready, key=lambda entry: entry[1]) if self.is_shuffled else ready[0]
                self.due.remove(entry)
                heapq.heapify(self.due)
                self._next_at = max(self._next_at, now - 0.1) + 1 / self.limits.per_second
                self._start(entry[2], port or 0)

    def _free_instance(self) -> int | None:
        if not self.instances:
            return 0
        return next((port for port in self.instances if port not in self._busy), None)

    def _start(self, task: Task, port: int) -> None:
        task.attempts += 1
        wait = self.again(task) if task.attempts == 1 else None
        if wait is not None:
            self._put(task, wait)
        self._running += 1
        if port:
            self._busy.add(port)
        threading.Thread(target=self._deliver, args=(task, port), daemon=True).start()

    def _deliver(self, task: Task, port: int) -> None:
        began_at, status, answer, wait = time.monotonic(), 0, b"", 0.0
        address = urlsplit(task.url)
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or address.port, timeout=task.deadline
        )
        try:
            connection.request("POST", address.path or "/", task.body, self._headers(task))
            reply = connection.getresponse()
            status, answer = reply.status, reply.read()
            wait = float(reply.headers.get("Retry-After", 0))
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        with self._changed:
            body = json.loads(task.body or b"null")
            ended_at = time.monotonic()
            delivery = Delivery(task.name, body, port, began_at, ended_at, status, answer)
            self.deliveries.append(delivery)
            self._running -= 1
            self._busy.discard(port)
            self._settle(task, status, wait)
            self._changed.notify_all()

    def _settle(self, task: Task, status: int, retry_after: float) -> None:
        task.responses += status > 0
        task.is_over = task.is_over or 200 <= status < 300 or task.attempts >= self.limits.attempts
        if status in (429, 503):  # the queue as a whole slows down
            self._next_at = max(self._next_at, time.monotonic() + max(0.1, retry_after))
        if not task.is_over:
            doublings = min(task.attempts - 1, self.limits.doublings)
            wait = min(self.limits.max_backoff, self.limits.min_backoff * 2.0**doublings)
            self._put(task, wait)

    def _headers(self, task: Task) -> dict[str, str]:
        sent = dict(task.headers)
        sent |= {
            "User-Agent": "Google-Cloud-Tasks",
            "X-CloudTasks-QueueName": QUEUE.rpartition("/")[2],
            "X-CloudTasks-TaskName": task.name.rpartition("/")[2],
            "X-CloudTasks-TaskRetryCount": str(task.attempts - 1),
            "X-CloudTasks-TaskExecutionCount": str(task.responses),
        }
        if task.email:
            claims = {"aud": task.audience, "email": task.email, "iss": "accounts.google.com"}
            parts = [{"alg": "none"}, claims]
            coded = [base64.urlsafe_b64encode(json.dumps(part).encode()) for part in parts]
            sent["Authorization"] = f"Bearer {b'.'.join(coded).decode()}."
        return sent


def _handler(server: QueueServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, answer = server.answer(self.command, self.path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815 - the library's own name

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _error(code: int, status: str, message: str) -> tuple[int, Any]:
    return code, {"error": {"code": code, "message": message, "status": status}}


def _seconds_until(moment: str | None) -> float:
    if moment is None:
        return 0.0
    left = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    return max(0.0, left)
