"""The room that the bodies in flight share: none beyond it, nobody stuck for want of it."""

import contextlib
import http.server
import socketserver
import threading
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.engines.body import MAX_BODY_BYTES
from crawler.engines.guard import HeldBackError
from crawler.engines.requests_engine import RequestsEngine
from crawler.engines.room import PIECE_BYTES, Body, BodyRoom
from crawler.engines.session import GuardedSession, Shared
from crawler.frontier.work import Policy
from tests.crawls import Crawl, crawl_apart
from tests.faulty_table import page

LANES = 64


class _OverError(Exception):
    """The wait is over."""


def within(seconds):
    """Make what says how long a body may wait."""
    end = time.monotonic() + seconds

    def seconds_left():
        if time.monotonic() >= end:
            raise _OverError
        return end - time.monotonic()

    return seconds_left


def gathered(room, parts, seconds=20):
    """Gather a body's parts, and give it whole."""
    with Body(room, within(seconds)) as body:
        for part in parts:
            body.add(part)
        whole = body.whole()
    body.forget()
    return whole


@given(sizes=st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=8))
def test_a_body_is_what_its_parts_were(sizes):
    """However long they are, and wherever one piece ends and the next begins."""
    parts = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    assert gathered(BodyRoom(), parts) == b"".join(parts)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, MAX_BODY_BYTES])
def test_a_body_may_end_where_a_piece_does(size):
    """One short of it, at it, one past it, and at the last of all."""
    assert gathered(BodyRoom(), [b"x"] * 3 + [b"y" * (size - 3)]) == b"xxx" + b"y" * (size - 3)


def test_what_one_body_left_behind_is_in_no_other():
    """Pieces are used again, without what they held."""
    room = BodyRoom(common_pieces=2, last_bodies=0)
    assert gathered(room, [b"a" * 2 * PIECE_BYTES]) == b"a" * 2 * PIECE_BYTES
    assert gathered(room, [b"b" * (PIECE_BYTES + 9)]) == b"b" * (PIECE_BYTES + 9)


def test_bodies_that_want_more_room_than_there_is_all_end():
    """Each comes whole, though all together want 64 times what is set aside for one."""
    room = BodyRoom(common_pieces=40, last_bodies=1)
    begun, whole = threading.Barrier(LANES), []

    def lane(number):
        begun.wait(10)
        parts = [bytes([number]) * 30_000] * (MAX_BODY_BYTES // 30_000)
        whole.append(gathered(room, parts) == b"".join(parts))

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(LANES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert whole == [True] * LANES
    assert gathered(room, [b"z" * 40 * PIECE_BYTES]) == b"z" * 40 * PIECE_BYTES  # all came back


def test_a_short_body_waits_for_nobody():
    """Songs are short: they need none of the room that long ones fight for."""
    room = BodyRoom(common_pieces=0, last_bodies=0)
    assert gathered(room, [b"song"] * 3) == b"song" * 3


def test_a_body_waits_no_longer_than_it_may_and_leaves_nothing_taken():
    """What it had is there for the next one."""
    room = BodyRoom(common_pieces=2, last_bodies=0)

    with pytest.raises(_OverError):
        gathered(room, [b"x" * 3 * PIECE_BYTES], seconds=0.01)
    assert gathered(room, [b"x" * 2 * PIECE_BYTES])


def test_a_whole_body_keeps_its_room_until_it_is_forgotten():
    """Whoever reads it has it elsewhere now; as many as find room do so at once."""
    room = BodyRoom(common_pieces=2, last_bodies=0)
    with Body(room, within(1)) as body:
        body.add(b"x" * 2 * PIECE_BYTES)
        body.whole()
    with pytest.raises(_OverError):
        gathered(room, [b"y" * 2 * PIECE_BYTES], seconds=0.01)
    body.forget()
    body.forget()  # the lane's own thread and the one that gives it up may both come by
    assert gathered(room, [b"z" * 2 * PIECE_BYTES])
    with pytest.raises(_OverError):
        gathered(room, [b"y" * 3 * PIECE_BYTES], seconds=0.01)


@pytest.fixture
def narrow():
    """What sessions share, with room for one long page at a time."""
    shared = Shared()
    shared.room = BodyRoom(common_pieces=0, last_bodies=1)
    return shared


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

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def crawl_with(function, numbers, shared, **options):
    """Crawl with a step 1 function of one's own."""
    engine = RequestsEngine(8, user_agent="tests/1", attempt_seconds=1, shared=shared)
    policy = Policy(attempt_seconds=1, max_attempts=1)
    return Crawl("", numbers, engine=engine, policy=policy, function=function, **options)


def test_a_function_that_asks_for_several_long_pages_gets_them(long_site, narrow):
    """The room of the one before is free when it asks for the next."""

    def function(session, song_num, song_urls):
        pages = [session.get(f"{long_site}/{place}").text for place in range(3)]
        song_urls.append((song_num, sum(map(len, pages))))

    crawl = crawl_with(function, range(20), narrow)
    assert {record.info for record in crawl.records.values()} == {300_000}


def test_a_function_that_never_returns_keeps_no_room_from_others(long_site, narrow):
    """F5: it has the only room there is; when its lane is given up the others have it."""
    release = threading.Event()

    def function(session, song_num, song_urls):
        song_urls.append((song_num, len(session.get(f"{long_site}/{song_num}").text)))
        if song_num == 0:
            release.wait(30)

    try:
        crawl = crawl_with(function, range(20), narrow)
        assert crawl.kinds == {num: None if num else "timeout" for num in range(20)}
    finally:
        release.set()


def test_an_answer_for_which_there_was_no_room_counts_against_nobody(faulty_site):
    """At the attempt's end it is held back, as in a pause, and nothing was seen of the site."""
    shared = Shared()
    shared.room = BodyRoom(common_pieces=1, last_bodies=0)
    with GuardedSession("tests/1", shared, keeps_cookies=False) as session:
        session.begin(time.monotonic() + 0.3, lambda: True)
        with pytest.raises(HeldBackError):
            session.get(f"{faulty_site.url('large-no-length')}/songs/3")
        assert (session.was_held_back, session.returned, session.sent) == (True, [], 1)
        session.begin(time.monotonic() + 5, lambda: True)
        assert session.get(f"{faulty_site.url('right')}/songs/3").json()["meta"]["status"] == 200


# --- B9: all lanes at once -----------------------------------------------------------------------

BLANK = b" " * 65_536
NEARLY = 15 * BLANK


def packed_parts():
    """Pack what is nearly too long, and then 100 MB."""
    packer = zlib.compressobj(1, wbits=31)
    first = packer.compress(NEARLY) + packer.flush(zlib.Z_SYNC_FLUSH)
    return first, b"".join(packer.compress(BLANK) for _ in range(1600)) + packer.flush()


def chunked(part):
    """Write a part as one chunk."""
    return b"%x\r\n%s\r\n" % (len(part), part)


AT_ONCE = {
    "plain": (b"Connection: close", NEARLY, BLANK * 64),
    "chunked": (b"Transfer-Encoding: chunked", chunked(NEARLY), chunked(BLANK) * 64),
    "packed": (b"Connection: close\r\nContent-Encoding: gzip", *packed_parts()),
    "at-the-cap": (b"Content-Length: %d" % MAX_BODY_BYTES, NEARLY, BLANK),
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
                header, first, rest = AT_ONCE[which]
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
    ("which", "kind", "most_mib"),
    [
        ("plain", "too_large", 50),
        ("chunked", "too_large", 50),
        ("packed", "too_large", 50),
        ("at-the-cap", "json", 80),  # besides the room, what is made of pages that are whole
    ],
)
def test_B9_bodies_on_all_64_lanes_at_once_share_their_room(which, kind, most_mib):
    """A process of its own grows by no more than that, seen from outside."""
    with holding_site() as url:
        numbers = range(1, 1 + LANES)
        crawl = crawl_apart(f"{url}/{which}", "requests", numbers, connections=LANES)
    assert (crawl["records"], crawl["kinds"]) == (LANES, [kind])
    assert crawl["grown_bytes"] <= most_mib << 20
