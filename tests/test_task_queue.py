"""The task queue through the genuine client, against a queue that keeps to the real one's rules."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from crawler.errors import QueueError
from crawler.fleet.task_queue import EMULATOR, Task, TaskQueue
from crawler.settings.settings import Settings
from tests.clock import lateness
from tests.queue_server import QUEUE, Limits, QueueServer
from tests.queue_server import Task as Held


class Target:
    """A server that notes what it is sent and answers as told: statuses in turn, the last for ever."""

    def __init__(self, *statuses: int, seconds: float = 0.0) -> None:
        self.seen: list[dict[str, Any]] = []
        target, answers = self, list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target.seen.append({"body": body, "headers": dict(self.headers)})
                time.sleep(seconds)
                self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[QueueServer]:
    """A queue that delivers."""
    with QueueServer() as server:
        yield server


def queue_for(server: QueueServer, url: str = "http://127.0.0.1:9/", **settings: Any) -> TaskQueue:
    """Open a queue through the genuine client."""
    given = Settings(queue=QUEUE, url=url, **settings)
    return TaskQueue(given, environ={EMULATOR: server.host})


def enqueue(queue: TaskQueue, names: list[str], **options: Any) -> tuple[int, int, int]:
    """Create tasks by name; give created, already there, left."""
    tasks = [Task(name, {"start": 1}) for name in names]
    return queue.enqueue(tasks, **options)


def test_a_task_is_delivered_as_it_was_described(server: QueueServer) -> None:
    """The body, the queue's headers and the invoker's identity arrive; the deadline is the longest."""
    with Target(200) as target:
        queue_for(server, target.url, invoker="me@project.iam").create(Task("a-1-0", {"start": 7}))
        server.wait_until_empty(10)
        (seen,) = target.seen
    assert seen["body"] == b'{"start":7}'
    assert seen["headers"]["Content-Type"] == "application/json"
    assert seen["headers"]["X-CloudTasks-TaskName"] == "a-1-0"
    assert seen["headers"]["X-CloudTasks-TaskRetryCount"] == "0"
    assert seen["headers"]["Authorization"].startswith("Bearer ")
    (task,) = server.tasks.values()
    assert (task.deadline, task.email, task.audience) == (1800, "me@project.iam", target.url)


def test_a_name_is_used_once(server: QueueServer) -> None:
    """Creating tasks again changes nothing, also when they are long over."""
    with Target(200) as target:
        queue = queue_for(server, target.url)
        assert enqueue(queue, ["a", "b", "c"]) == (3, 0, 0)
        server.wait_until_empty(10)
        assert enqueue(queue, ["a", "b", "c", "d"]) == (1, 3, 0)
        assert queue.create(Task("a", {})) is False
        server.wait_until_empty(10)
        assert len(target.seen) == 4


def test_tasks_are_created_no_faster_than_told(server: QueueServer) -> None:
    """No second holds more than the rate and its burst."""
    server.answer("POST", f"/v2/{QUEUE}:pause", b"")
    with lateness() as late:
        enqueue(queue_for(server), [f"t{n}" for n in range(60)], rate=40)
    times = server.created_at
    assert len(times) == 60
    assert max(sum(a <= b < a + 1 for b in times) for a in times) <= late.arriving(43)


def test_time_that_runs_out_leaves_the_rest(server: QueueServer) -> None:
    """What is not tried is counted, and a second call goes on."""
    server.answer("POST", f"/v2/{QUEUE}:pause", b"")
    names = [f"t{n}" for n in range(50)]
    looks = iter([True] * 20)
    done = enqueue(queue_for(server), names, has_time=lambda: next(looks, False))
    assert done == (20, 0, 30)
    assert enqueue(queue_for(server), names) == (30, 20, 0)


def test_a_task_can_be_put_off(server: QueueServer) -> None:
    """It is not delivered before its time."""
    with Target(200) as target:
        queue = queue_for(server, target.url)
        queue.create(Task("now", {}))  # the client is loaded when the clock starts
        at, began = datetime.now(UTC) + timedelta(seconds=0.5), time.monotonic()
        queue.create(Task("late", {}, at))
        server.wait_until_empty(10)
    assert server.deliveries[-1].began_at - began >= 0.4


def test_a_queue_that_refuses_says_so(server: QueueServer) -> None:
    """A bad name, a queue that is not there and one that is out of reach are one error each."""
    with pytest.raises(QueueError, match="BadRequest"):
        queue_for(server).create(Task("no good name!", {}))
    other = Settings(queue=QUEUE.replace("songs", "other"), url="http://127.0.0.1:9/")
    with pytest.raises(QueueError, match="NotFound"):
        TaskQueue(other, environ={EMULATOR: server.host}).create(Task("a", {}))


def test_only_this_machine_stands_in_for_the_cloud() -> None:
    """Another address in place of the cloud's is refused: tasks carry what is to be crawled."""
    with pytest.raises(QueueError, match="on this machine"):
        TaskQueue(Settings(queue=QUEUE), environ={EMULATOR: "tasks.example.org:80"})


def test_without_credentials_the_error_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Who is not logged in reads so at once."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(QueueError, match="no credentials"):
        TaskQueue(Settings(queue=QUEUE), environ={})


# The queue of the tests itself: what other tests lean on.


def test_the_queue_repeats_until_it_is_answered_well(server: QueueServer) -> None:
    """Anything but 2xx is tried again, with the count in the headers."""
    with Target(500, 429, 204) as target:
        queue_for(server, target.url).create(Task("a", {}))
        server.wait_until_empty(10)
        counts = [seen["headers"]["X-CloudTasks-TaskRetryCount"] for seen in target.seen]
    assert counts == ["0", "1", "2"]
    assert [delivery.status for delivery in server.deliveries] == [500, 429, 204]


def test_the_queue_ends_after_the_last_attempt() -> None:
    """A task that never succeeds is dropped."""
    with QueueServer(Limits(attempts=3)) as server, Target(500) as target:
        queue_for(server, target.url).create(Task("a", {}))
        server.wait_until_empty(10)
        assert len(target.seen) == 3


def test_the_queue_bounds_what_is_under_way() -> None:
    """No more are under way than allowed, and one to an instance."""
    with QueueServer(Limits(concurrent=2)) as server, Target(200, seconds=0.05) as target:
        enqueue(queue_for(server, target.url), list("abcdef"))
        server.wait_until_empty(10)
    ends = server.deliveries
    at_a_start = [sum(a.began_at <= b.began_at < a.ended_at for a in ends) for b in ends]
    assert max(at_a_start) == 2


def test_the_queue_waits_while_it_is_paused_and_forgets_when_purged(server: QueueServer) -> None:
    """Pause and resume keep tasks, purge drops them."""
    with Target(200) as target:
        server.answer("POST", f"/v2/{QUEUE}:pause", b"")
        enqueue(queue_for(server, target.url), ["a", "b"])
        assert server.answer("GET", f"/v2/{QUEUE}", b"")[1]["state"] == "PAUSED"
        assert len(server.answer("GET", f"/v2/{QUEUE}/tasks", b"")[1]["tasks"]) == 2
        server.answer("POST", f"/v2/{QUEUE}:purge", b"")
        enqueue(queue_for(server, target.url), ["c"])
        server.answer("POST", f"/v2/{QUEUE}:resume", b"")
        server.wait_until_empty(10)
        assert len(target.seen) == 1


def test_the_queue_delivers_twice_and_late_when_told() -> None:
    """A second delivery comes whatever became of the first."""

    def again(task: Held) -> float | None:
        return 0.3 if task.name.endswith("b") else None

    with QueueServer(again=again, is_shuffled=True) as server, Target(200) as target:
        enqueue(queue_for(server, target.url), ["a", "b"])
        server.wait_until_empty(10)
        names = sorted(seen["headers"]["X-CloudTasks-TaskName"] for seen in target.seen)
    assert names == ["a", "b", "b"]
