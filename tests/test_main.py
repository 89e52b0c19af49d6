"""The function over real HTTP: routes, refusals and faults, in the real functions-framework."""

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import main
from crawler.cli.demo import call, demo_environment
from crawler.cli.demo import function as demo_function
from crawler.demo.site import DemoSite
from crawler.deployment.deployment import THREADS
from crawler.fleet.orders import Order, keep_order
from crawler.store.block import ABSENT
from crawler.store.contract import Content
from crawler.store.control import read_control
from crawler.store.coverage import coverage_of
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store
from tests.clock import lateness
from tests.function_process import ROOT, FunctionProcess, read_reply

TOKEN = "tok-marked-4711"  # looked for in every answer and log line
DEPLOYMENT = {"GENIUS_TOKEN": TOKEN, "CRAWLER_CONTACT": "me@example.org"}
BACKWARD = b'{"start": 9, "stop": 5}'  # refused only once it has been read and understood


@pytest.fixture(scope="module")
def function() -> Iterator[FunctionProcess]:
    """The function, deployed rightly, with a site that is never asked."""
    with FunctionProcess(DEPLOYMENT) as process:
        yield process


def deployed_for(site: DemoSite, store: Path, **settings: str) -> FunctionProcess:
    """The function with an embedded site and a folder."""
    environ = {
        "GENIUS_TOKEN": site.token,
        "CRAWLER_BASE_URL": site.base_url,
        "CRAWLER_STORE": str(store),
    }
    return FunctionProcess(environ | settings)


def source_with(tmp_path: Path, broken: str) -> Path:
    """Write a function whose look at the store ends as told."""
    source = tmp_path / "function.py"
    source.write_text(
        "import main\nfrom main import crawl_songs\nfrom crawler.errors import *\n"
        f"def broken(request):\n    {broken}\nmain._status = broken\n"
    )
    return source


def error_of(reply) -> dict[str, str]:
    """Read the error of an answer, which has this shape always."""
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert {"code", "field", "message"} <= error.keys()
    return error


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "application/octet-stream", None],
)
def test_A1_json_is_read_under_any_of_its_names(function, content_type):
    """What a scheduler sends is read as JSON, and so is a body without a type."""
    headers = {"Content-Type": content_type} if content_type else {}
    reply = function.ask("/", "POST", BACKWARD, headers)
    assert (reply.status, error_of(reply)["code"]) == (400, "stop_malformed")


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: text/plain",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: application/json; charset=utf-16",
        "Content-Encoding: gzip",
    ],
)
def test_A2_what_is_no_json_is_refused_before_it_arrives(function, header):
    """The refusal comes although not a byte of the body was sent."""
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 1000\r\n\r\n"
    reply = function.send_raw(head.encode())
    assert reply.status == 415
    assert error_of(reply)["field"] == header.partition(":")[0]


def test_A3_an_empty_body_without_query_is_refused(function):
    """Neither POST nor GET without anything starts a run; each is shown an example."""
    posted, got = function.post(b""), function.ask("/")
    assert (posted.status, error_of(posted)["code"]) == (400, "body_empty")
    assert (got.status, error_of(got)["code"]) == (400, "query_empty")
    assert '"start": 1' in error_of(got)["message"]


def test_A3_a_post_without_any_length_is_empty(function):
    """No length and no chunks mean no body; the answer does not wait for one."""
    reply = function.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert error_of(reply)["code"] == "body_empty"


@pytest.mark.parametrize("body", [b"{'start': 1}", b'{"start": 007}', b'{"start": \xff}'])
def test_A4_broken_json_is_refused_with_the_place(function, body):
    """The message says where."""
    reply = function.post(body)
    assert reply.status == 400
    assert any(word in error_of(reply)["message"] for word in ("column", "byte"))


def test_A5_a_byte_order_mark_is_accepted(function):
    """A BOM before the JSON changes nothing."""
    assert error_of(function.post(b"\xef\xbb\xbf" + BACKWARD))["code"] == "stop_malformed"


def test_A6_10_mb_are_refused_and_memory_stays_flat(function):
    """With a length, in chunks, and as a form: refused, readable, and never held in memory."""
    for _ in range(4):  # refused, too: then threads and buffers are what they will be
        function.post(b"x" * 1_000_000)
        function.post(iter([b"y" * 65_536] * 16))
    before = function.peak_bytes()
    for _ in range(3):
        with_length = function.post(b"x" * 10_000_000)
        in_chunks = function.post(iter([b"y" * 65_536] * 160))
        assert (with_length.status, in_chunks.status) == (413, 413)
        assert error_of(with_length)["code"] == "body_too_large"
    assert function.peak_bytes() - before < 8_000_000  # one of them held whole would be more


def test_A6_a_long_body_that_never_comes_is_refused_all_the_same(function):
    """A client that announces 10 MB and sends none gets its answer within seconds."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
    assert function.send_raw(head).status == 413


def test_A7_100_000_brackets_are_refused(function):
    """Depth is no match for the parser."""
    assert function.post(b"[" * 100_000).status == 400


@pytest.mark.parametrize("path", ["/", "/status", "/health"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "SONG"])
def test_A8_other_methods_are_refused_with_allow(function, path, method):
    """405 names the methods that there are."""
    reply = function.ask(path, method)
    allowed = "GET, HEAD, OPTIONS" + (", POST" if path == "/" else "")
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert error_of(reply)["code"] == "method_not_allowed"


def test_A8_head_and_options_start_nothing(function):
    """Both answer at once, without a body, whatever the query says."""
    head = function.ask("/?start=1&stop=5", "HEAD")
    options = function.ask("/?start=1&stop=5", "OPTIONS")
    assert (head.status, head.body) == (200, b"")
    assert (options.status, options.body) == (204, b"")
    assert options.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert "run started" not in function.log()


@pytest.mark.parametrize(
    "path", ["/crawl", "/status/", "/healthz", "/robots.txt", "/%00", "//status"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_A8_unknown_paths_are_not_found(function, path, method):
    """There is nothing beside the three paths."""
    assert function.ask(path, method).status == 404


@pytest.mark.parametrize("target", ["//?start=9&stop=5", "///", "//health", "/./", "/%2F"])
def test_A8_slashes_are_taken_as_sent(function, target):
    """A second slash is another path, not the one beside it: nothing is run or looked at."""
    reply = function.send_raw(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (reply.status, error_of(reply)["code"]) == (404, "not_found")


def test_A8_an_address_in_full_is_its_path(function):
    """A client that names the host in its request line, as to a proxy, is understood."""
    reply = function.send_raw(b"GET http://x/?start=9&stop=5 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert error_of(reply)["code"] == "stop_malformed"


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        (b'{"start": null, "stop": 5}', "", "start_malformed"),
        (b'{"start": 1e400, "stop": 5}', "", "start_malformed"),
        (b"[1, 2]", "", "body_not_object"),
        (b"", "?start=+5&stop=9", "start_malformed"),
        (b"", "?start=%EF%BC%90%EF%BC%95&stop=9", "start_malformed"),
        (b"", "?start=1&start=1&stop=9", "parameter_twice"),
        (b'{"start": -0, "stop": 5}', "", "start_malformed"),
        (b'{"start": 0, "stop": ' + b"9" * 5000 + b"}", "", "stop_malformed"),
        (b'{"start": 9, "stop": 5}', "", "stop_malformed"),
        (b'{"start": 0, "stop": 1000001}', "", "range_too_long"),
        (b'{"start": 0, "stop": 5, "url": "http://x"}', "", "parameter_unknown"),
        (b'{"start": 0, "stop": 5}', "?stop=6", "stop_conflict"),
        (b'{"mode": "all"}', "", "mode_malformed"),
        (b'{"mode": "next", "max_rate": 101}', "", "max_rate_malformed"),
        (b'{"start": 0, "stop": 5, "fan_out": true}', "", "fan_out_unavailable"),
        (b'{"\\ud800": 1}', "", "parameter_unknown"),
        (b'{"mode": "\\ud800"}', "", "mode_malformed"),
    ],
    ids=[
        "A9null",
        "A9huge",
        "A9list",
        "A10plus",
        "A10wide",
        "A10twice",
        "A11minus",
        "A11digits",
        "A12",
        "A13",
        "A14key",
        "A14differ",
        "A15mode",
        "A15rate",
        "fan_out",
        "surrogate",
        "surrogate as a value",
    ],
)
def test_A9_to_A15_a_wrong_request_gets_one_clear_error(function, body, query, code):
    """400 with a code, in well under the time a run would take."""
    reply = function.ask(f"/{query}", "POST", body)
    assert (reply.status, error_of(reply)["code"]) == (400, code)


def test_A12_an_empty_range_is_complete_and_asks_nothing(demo_site, tmp_path):
    """`stop == start` answers 200, complete, without a request to the site."""
    with deployed_for(demo_site, tmp_path) as function:
        reply = function.post(b'{"start": 5, "stop": 5}')
    assert (reply.status, reply.json()["complete"]) == (200, True)
    assert reply.json()["requests"] == 0
    assert demo_site.stats()["requests"] == 0


def test_A16_slow_clients_hold_up_nobody(function):
    """While bodies trickle in, and one client has sent half a head, others are answered."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n"
    slow = [function.connect() for _ in range(4)]
    for sent, connection in enumerate(slow):
        connection.sendall(head[:30] if sent == 0 else head + BACKWARD[:sent])
    assert function.ask("/health", timeout_seconds=5).status == 200
    assert function.post(BACKWARD).status == 400
    for byte in BACKWARD[3:]:
        slow[3].sendall(bytes([byte]))
    assert error_of(read_reply(slow[3]))["code"] == "stop_malformed"
    for connection in slow:
        connection.close()
    assert function.ask("/health", timeout_seconds=5).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 23\r\n\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["short", "no chunk", "half a chunk"],
)
def test_A16_a_body_cut_off_is_no_error_of_ours(function, data):
    """A client that stops sending gets 400, if it still listens; the log has no stack trace."""
    with function.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + data)
        connection.shutdown(1)  # socket.SHUT_WR: we have said all
        reply = read_reply(connection)
    assert (reply.status, error_of(reply)["code"]) == (400, "body_incomplete")
    assert "Traceback" not in function.log()


@pytest.fixture(scope="module")
def impatient(tmp_path_factory) -> Iterator[FunctionProcess]:
    """The function where a second of silence ends a body, and two seconds any body."""
    source = tmp_path_factory.mktemp("impatient") / "function.py"
    source.write_text(
        "from crawler.request import incoming\nfrom main import crawl_songs\n"
        "incoming.BODY_PATIENCE = incoming.Patience(between_seconds=1.0, all_seconds=2.0)\n"
    )
    with FunctionProcess(DEPLOYMENT, source=source) as process:
        yield process


HEADS = {
    "length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 23\r\n\r\n{",
    "chunks": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n17\r\n{",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_A16_as_many_silent_clients_as_threads_block_nobody_for_long(impatient, head):
    """Who falls silent within a body gets 400, and the threads are free again."""
    silent = [impatient.connect() for _ in range(8)]
    for connection in silent:
        connection.sendall(head)
    assert impatient.ask("/health", timeout_seconds=10).status == 200
    for connection in silent:
        reply = read_reply(connection)
        assert (reply.status, error_of(reply)["code"]) == (400, "body_incomplete")
        connection.close()
    assert impatient.post(BACKWARD).status == 400
    assert "Traceback" not in impatient.log()


@pytest.mark.parametrize("length", [1000, 10_000_000], ids=["read", "dropped"])
def test_A16_a_body_that_trickles_for_ever_is_ended(impatient, length):
    """A byte now and then is no silence; all the same the whole has its time."""
    with impatient.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
        assert trickle(connection, seconds=10) < 10
        assert read_reply(connection).status == (400 if length == 1000 else 413)


def test_A16_a_body_in_time_leaves_the_connection_as_it_was(impatient):
    """The next request on the same connection is not hurried by the last one's body."""
    whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BACKWARD) + BACKWARD
    with impatient.connect() as connection:
        for _ in range(8):  # longer in all than one body may take
            connection.sendall(whole[:60])
            time.sleep(0.3)
            connection.sendall(whole[60:])
            assert error_of(read_reply(connection))["code"] == "stop_malformed"


def test_A16_a_task_whose_body_broke_off_is_delivered_again(impatient):
    """The queue still has all of it: an answer of 200 would lose what it asks for."""
    head = HEADS["length"].replace(
        b"Host: x", b"Host: x\r\nX-CloudTasks-TaskName: 1763000000000-0-1-2"
    )
    assert impatient.send_raw(head).status == 400


INVENTED = {
    "of-no-order": {},
    "unknown-order": {"X_CloudTasks_TaskName": "0123456789abcdef-1763000000000-0"},
    "another-range": {"X_CloudTasks_TaskName": "0123456789abcdef-1700000000000-3"},
    "all-headers": {
        "X_CloudTasks_TaskName": "0123456789abcdef-1763000000000-0",
        "X_CloudTasks_QueueName": "shards",
        "X_CloudTasks_TaskRetryCount": "99",
        "X_CloudTasks_TaskExecutionCount": "99",
        "X_CloudTasks_TaskETA": "1763000000.0",
        "X_CloudScheduler_ScheduleTime": "2026-11-22T12:00:00Z",
        "X_CloudScheduler": "true",
    },
}
"""Headers that a queue sends, written by a caller; one names an order for songs 1 to 9."""


@pytest.fixture
def with_order(tmp_path):
    """A store that holds one order, for songs 1 to 9, and a site that refuses the token."""
    store = FolderStore(tmp_path)
    keep_order(store, 1_700_000_000_000, Order(start=1, stop=10))
    with DemoSite(token="another") as site:
        environ = {"GENIUS_TOKEN": "wrong", "CRAWLER_BASE_URL": site.base_url, "CRAWLER_RATE": "50"}
        environ |= {"CRAWLER_STORE": str(tmp_path), "CRAWLER_MAX_RANGE": "1000"}
        with FunctionProcess(environ) as process:
            yield process, store


def test_A19_invented_headers_lift_no_limit_hide_no_error_and_stop_nobody(with_order):
    """A caller who writes a queue's headers is a caller like others."""
    process, store = with_order
    for name, headers in INVENTED.items():
        too_long = process.post(b'{"start": 0, "stop": 5000}', **headers)
        assert (too_long.status, error_of(too_long)["code"]) == (400, "range_too_long"), name
        too_fast = process.post(b'{"start": 20, "stop": 25, "max_rate": 99}', **headers)
        assert (too_fast.status, error_of(too_fast)["field"]) == (400, "max_rate"), name
        refused = process.post(b'{"start": 20, "stop": 25}', **headers)
        assert (refused.status, refused.json()["stopped_by"]) == (502, "unauthorized"), name
        wrong = process.post(b'{"start": 9, "stop": 5}', **headers)
        assert (wrong.status, error_of(wrong)["code"]) == (400, "stop_malformed"), name
    assert read_control(store, timeout=5).stop_id is None
    assert "a task is given up" not in process.log()


def test_A19_a_task_of_a_stored_order_is_a_delivery(with_order):
    """What lies within its order is run as such: the queue hears 200, the other shards to stop."""
    process, store = with_order
    named = {"X_CloudTasks_TaskName": "0123456789abcdef-1700000000000-3"}
    refused = process.post(b'{"start": 5, "stop": 10}', **named)
    assert (refused.status, refused.json()["stopped_by"]) == (200, "unauthorized")
    assert read_control(store, timeout=5).stop_id is not None


def test_A19_a_delivery_to_another_s_store_is_given_up(with_order):
    """No repeat mends that, so the queue is to let go of it; whoever else asks hears the error."""
    process, store = with_order
    identity = Content(b'{"source": "x", "host": "y", "schema": "z", "format": 1}')
    store.write("store.json", identity, expected=ABSENT, timeout=5)
    named = {"X_CloudTasks_TaskName": "0123456789abcdef-1700000000000-3"}
    statuses = [process.post(b'{"start": 5, "stop": 10}', **more).status for more in (named, {})]
    assert statuses == [200, 500]
    assert "a task is given up" in process.log()


def trickle(connection: socket.socket, *, seconds: float) -> float:
    """Send a byte every 0.1 s until an answer comes; returns how long that took."""
    began = time.monotonic()
    while (took := time.monotonic() - began) < seconds:
        if select.select([connection], [], [], 0.1)[0]:
            break
        connection.sendall(b" ")
    return took


SLOW = {
    "body": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    "headers": b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
}


@pytest.mark.parametrize("count", [40, 128, 200])
@pytest.mark.parametrize("kind", SLOW)
def test_A20_slow_clients_of_make_serve_keep_nobody_waiting(kind, count, tmp_path):
    """The demo's function has as many threads as a deployed one, though nobody set them."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(DemoSite())
        environ = demo_environment(site.base_url, site.token, store=str(tmp_path))
        environ.pop("THREADS", None)
        url = stack.enter_context(demo_function(environ, logs_to_stderr=False))
        port = int(url.rpartition(":")[2])
        for _ in range(count):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            slow.sendall(SLOW[kind])
        assert call(f"{url}/health", "GET", timeout=20)[0] == 200


@pytest.mark.parametrize("kinds", [["body"], ["headers"], ["body", "headers"]], ids=" and ".join)
def test_A20_forty_slow_clients_keep_nobody_waiting(kinds, tmp_path):
    """A byte a second from each, in body or headers: others are answered within 2 s all the while."""
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(DemoSite())
        function = stack.enter_context(deployed_for(site, tmp_path, THREADS=str(THREADS)))
        function.post(b'{"start": 1, "stop": 2}')  # the first request loads the rest of the code
        slow = [stack.enter_context(function.connect()) for _ in range(40)]
        for number, connection in enumerate(slow):
            connection.sendall(SLOW[kinds[number % len(kinds)]])
        for start in range(10, 60, 10):
            for connection in slow:
                connection.sendall(b" ")
            began = time.monotonic()
            assert function.ask("/health").status == 200
            health_at = time.monotonic()
            reply = function.post(b'{"start": %d, "stop": %d}' % (start, start + 10))
            assert (reply.status, reply.json()["complete"]) == (200, True)
            assert health_at - began < 2
            assert time.monotonic() - health_at < 2
            time.sleep(max(0.0, 1 - (time.monotonic() - began)))


def test_A16_who_hangs_up_in_mid_run_loses_nothing(tmp_path):
    """The run goes on without its caller, and its blocks are stored."""
    with DemoSite(latency_seconds=0.02) as site, deployed_for(site, tmp_path) as function:
        with function.connect() as connection:
            connection.sendall(b"GET /?start=1&stop=301 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: site.stats()["requests"] >= 20)
        wait_for(lambda: "run finished" in function.log())
    held = coverage_of(open_store(str(tmp_path)).list_blocks(timeout=10))
    assert (held.settled, held.first_num, held.last_num) == (300, 1, 300)


def test_A17_two_requests_at_once_keep_one_pace(tmp_path):
    """Both are right, and the site sees the deployed rate, not twice that."""
    ranges = [(1, 101), (5001, 5101)]
    with DemoSite() as site, deployed_for(site, tmp_path, CRAWLER_RATE="100") as function:
        replies = []
        threads = [
            threading.Thread(
                target=lambda r=r: replies.append(function.ask(f"/?start={r[0]}&stop={r[1]}"))
            )
            for r in ranges
        ]
        with lateness() as late:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        arrivals = sorted(site.stats()["arrivals"])
    assert [reply.status for reply in replies] == [200, 200]
    assert all(reply.json()["complete"] for reply in replies)
    assert sorted(reply.json()["start"] for reply in replies) == [1, 5001]
    busiest = max(sum(a <= b < a + 1 for b in arrivals) for a in arrivals)
    assert busiest <= late.arriving(106)


def test_A17_first_requests_at_once_share_one_rate_limiter(monkeypatch):
    """However many threads ask first, one rate limiter is made."""
    for name, value in DEPLOYMENT.items():
        monkeypatch.setenv(name, value)
    together = threading.Barrier(4)
    # whoever comes in waits for others to come in, too
    monkeypatch.setattr(main, "configure_logging", lambda *_, **__: meet(together))
    main._read_deployment.cache_clear()  # noqa: SLF001 - as in a process that begins
    with ThreadPoolExecutor(4) as pool:
        deployments = list(pool.map(lambda _: main._deployment(), range(4)))  # noqa: SLF001 - as each request does
    main._read_deployment.cache_clear()  # noqa: SLF001 - as above
    assert len({id(deployment.rate_limiter) for deployment in deployments}) == 1


def test_A18_an_error_nobody_foresaw_keeps_its_secrets(tmp_path):
    """500 with an id that the log knows; neither shows the token or can be forged."""
    source = source_with(tmp_path, f"raise RuntimeError('{TOKEN}\\r\\nERROR forged')")
    with FunctionProcess(DEPLOYMENT, source=source) as function:
        function.ask("/")
        reply = function.ask("/status")
        log = function.log()
    error = error_of(reply)
    assert (reply.status, error["code"]) == (500, "unforeseen")
    assert error["id"] in error["message"]
    assert f"unforeseen error {error['id']}" in log
    assert "RuntimeError: ***" in log
    assert TOKEN not in log + reply.body.decode()
    assert not any(line.startswith("ERROR forged") for line in log.splitlines())


@pytest.mark.parametrize(
    ("raised", "status", "code"),
    [
        ("StoreUnavailableError('no bucket')", 503, "store_unavailable"),
        ("BlockFormatError('songs/1 is broken')", 503, "store_unavailable"),
        ("StoreMismatchError('another host')", 500, "store_mismatch"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_apart(tmp_path, raised, status, code):
    """What a repeat can mend answers 503, what it cannot answers 500."""
    with FunctionProcess(DEPLOYMENT, source=source_with(tmp_path, f"raise {raised}")) as function:
        reply = function.ask("/status")
    assert (reply.status, error_of(reply)["code"]) == (status, code)


def test_G2_a_wrong_deployment_lives_and_says_what_is_wrong():
    """Without a token the process starts, is healthy, and answers its code to every request."""
    with FunctionProcess({"CRAWLER_CONTACT": "me@example.org"}) as function:
        assert function.ask("/health").status == 200
        for _ in range(2):
            reply = function.post(BACKWARD)
            assert (reply.status, error_of(reply)["code"]) == (500, "token_missing")
            assert error_of(reply)["field"] == "GENIUS_TOKEN"


def test_in_the_cloud_the_log_is_json_with_the_request_s_trace(tmp_path):
    """Every line is an object, and belongs to the trace of the request that caused it."""
    trace = "0123456789abcdef0123456789abcdef"
    cloud = {"K_SERVICE": "songs", "CRAWLER_STORE": "gs://b-ucket", "GOOGLE_CLOUD_PROJECT": "proj"}
    source = source_with(tmp_path, f"raise ValueError('{TOKEN}')")
    with FunctionProcess(DEPLOYMENT | cloud, source=source) as function:
        function.ask("/")
        function.ask("/status", headers={"X-Cloud-Trace-Context": f"{trace}/1;o=1"})
        lines = [json.loads(line) for line in function.log().splitlines()]
    assert [line["severity"] for line in lines] == ["ERROR"]
    assert lines[0]["logging.googleapis.com/trace"] == f"projects/proj/traces/{trace}"
    assert "ValueError: ***" in lines[0]["stack_trace"]


def test_status_answers_what_the_store_holds(demo_site, tmp_path):
    """`GET /status` is JSON, before and after a run."""
    with deployed_for(demo_site, tmp_path) as function:
        before = function.ask("/status")
        function.post(b'{"start": 1, "stop": 11}')
        after = function.ask("/status")
    assert (before.status, after.status) == (200, 200)
    assert before.json() != after.json()


def test_importing_main_loads_nothing_heavy():
    """A cold start does not wait for what a first request may not need."""
    heavy = ["google.cloud.storage", "google.cloud.tasks_v2", "grpc", "tqdm", "pandas", "dotenv"]
    heavy += ["pycurl", "requests", "nest_asyncio", "filelock", "crawler.run.crawl"]
    script = f"import sys, main; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_main_adds_little_to_the_framework():
    """Less than the framework itself takes in the same process; measured: a fifth of it."""
    command = [sys.executable, "-X", "importtime", "-c", "import functions_framework, main"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in done.stderr.splitlines()]
    cumulative = {row[2].strip(): int(row[1]) for row in rows[1:] if len(row) == 3}
    assert cumulative["main"] < cumulative["functions_framework"]


def meet(barrier: threading.Barrier) -> None:
    """Wait for the others at a barrier, but not for long."""
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait(timeout=0.2)


def wait_for(condition) -> None:
    """Wait until something is so, at most 30 seconds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
