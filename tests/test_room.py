"""The memory that bodies share: none beyond it, and nobody stuck for want of it."""

import asyncio
import contextlib
import functools
import http.server
import socketserver
import threading
import time
import zlib
from typing import Any

import pytest

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.lanes import gather_lanes, lanes_for
from crawler.steps import make_job
from crawler.wire.body import MAX_BODY_BYTES
from crawler.wire.session import HeldBackError, WireSession
from crawler.wire.wire import Wire
from tests.crawls import crawl_apart
from tests.faulty_table import page

LANES = 64


@pytest.fixture
def long_site():
    """Serve nothing but a page of 100 kB."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"x" * 100_000)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, LANES

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


NARROW: dict[str, Any] = {
    "user_agent": "tests/1",
    "attempt_seconds": 2.0,
    "body_budget_bytes": 300_000,
}
"""A wire on which two long pages fill the room."""


def crawl_with(function, numbers, max_attempts=1, attempt_seconds=2.0):
    """Crawl with a step 1 function of one's own, over eight connections with little room."""
    records = {}
    frontier = Frontier(
        Policy(attempt_seconds=attempt_seconds, max_attempts=max_attempts),
        rate_limiter=RateLimiter(0),
        on_record=lambda record: records.update({record.song_num: record}),
    )
    job = make_job(function, numbers, [], is_recorded=True)
    frontier.add_job(job)
    wire = Wire(8, **NARROW | {"attempt_seconds": attempt_seconds})
    asyncio.run(gather_lanes(lanes_for([job], wire), frontier, wire))
    return records


def test_a_function_that_asks_for_several_long_pages_gets_them(long_site):
    """The room of the one before is free when it asks for the next."""

    def function(session, song_num, song_urls):
        pages = [session.get(f"{long_site}/{place}").text for place in range(3)]
        song_urls.append((song_num, sum(map(len, pages))))

    records = crawl_with(function, range(20), attempt_seconds=20.0)
    assert {record.info for record in records.values()} == {300_000}


def test_threads_of_a_function_leave_the_room_of_their_pages(long_site):
    """Pages that come at once are all let go of, and not the last one alone."""

    def function(session, song_num, song_urls):
        def ask():
            with contextlib.suppress(HeldBackError):
                session.get(long_site)

        asked = [threading.Thread(target=ask) for _ in range(2)]
        for each in asked:
            each.start()
        for each in asked:
            each.join()
        song_urls.append((song_num, "both"))

    records = crawl_with(function, range(30), attempt_seconds=4.0)
    assert {record.outcome for record in records.values()} == {"found"}


def test_a_function_that_never_returns_keeps_no_room_from_others(long_site):
    """F5: it has the only room there is; when its lane is given up the others have it."""
    release = threading.Event()

    def function(session, song_num, song_urls):
        song_urls.append((song_num, len(session.get(f"{long_site}/{song_num}").text)))
        if song_num == 0:
            release.wait(30)

    try:
        records = crawl_with(function, range(20), max_attempts=2)
        assert {num: record.error for num, record in records.items()} == {
            num: None if num else "timeout" for num in range(20)
        }
    finally:
        release.set()


def test_a_request_for_which_there_is_no_room_counts_against_nobody(long_site):
    """At the attempt's end it is held back, as in a pause, and nothing was asked of the site."""
    with (
        Wire(2, **NARROW) as wire,
        WireSession(wire) as one,
        WireSession(wire) as other,
    ):
        assert len(one.get(long_site).content) == 100_000
        other.begin(time.monotonic() + 0.3, lambda: True)
        with pytest.raises(HeldBackError):
            other.get(long_site)
        assert (other.was_held_back, other.returned, other.sent) == (True, [], 0)
        one.end()
        other.begin(time.monotonic() + 5, lambda: True)
        assert other.get(long_site).ok


# --- B9: all lanes at once -----------------------------------------------------------------------

BLANK = b" " * 65_536
NEARLY = 15 * BLANK


@functools.cache  # a third of a second, which only who asks for it should pay
def packed_parts():
    """Pack what is nearly too long, and then 100 MB."""
    packer = zlib.compressobj(1, wbits=31)
    first = packer.compress(NEARLY) + packer.flush(zlib.Z_SYNC_FLUSH)
    return first, b"".join(packer.compress(BLANK) for _ in range(1600)) + packer.flush()


def chunked(part):
    """Write a part as one chunk."""
    return b"%x\r\n%s\r\n" % (len(part), part)


AT_ONCE = {
    "plain": lambda: (b"Connection: close", NEARLY, BLANK * 64),
    "chunked": lambda: (b"Transfer-Encoding: chunked", chunked(NEARLY), chunked(BLANK) * 64),
    "packed": lambda: (b"Connection: close\r\nContent-Encoding: gzip", *packed_parts()),
    "at-the-cap": lambda: (b"Content-Length: %d" % MAX_BODY_BYTES, NEARLY, BLANK),
}
"""A header, what comes before all lanes have come so far, and what comes then."""


@contextlib.contextmanager
def holding_site():
    """Serve answers of which all have come nearly to the cap before any goes beyond it."""
    all_there = threading.Barrier(LANES)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):
                while asked := self.rfile.readline():
                    while self.rfile.readline() not in (b"\r\n", b""):
                        pass
                    _, which, _, number = asked.split()[1].decode().split("/")
                    self.answer(which, int(number))

        def answer(self, which, number):
            if which == "right":
                body = page(number)
                header, first, rest = b"Content-Length: %d" % len(body), body, b""
            else:
                header, first, rest = AT_ONCE[which]()
            self.wfile.write(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (header, first))
            if rest:
                with contextlib.suppress(threading.BrokenBarrierError):
                    all_there.wait(3)  # lanes that wait for room may leave some of it unread
                self.wfile.write(rest)
                if b"close" in header or b"chunked" in header:
                    raise ConnectionAbortedError

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, request_queue_size = True, False, 2 * LANES

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("which", "kind"),
    [
        ("plain", "too_large"),
        ("chunked", "too_large"),
        ("packed", "too_large"),
        ("at-the-cap", "json"),
    ],
)
def test_B9_bodies_on_all_64_lanes_at_once_share_their_room(which, kind):
    """A process of its own grows by no more than that, seen from outside.

    Each body is there twice for a moment when it is put together, and as a text when it is read;
    held so by all lanes for good they would be 192 MiB.
    """
    packed_parts()
    with holding_site() as url:
        numbers = range(1, 1 + LANES)
        crawl = crawl_apart(f"{url}/{which}", "function", numbers, connections=LANES)
    assert (crawl["records"], crawl["kinds"]) == (LANES, [kind])
    assert crawl["grown_bytes"] <= (64 + 32) << 20
