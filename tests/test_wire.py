"""The wire itself: names, memory, HTTP/2, waiting, sources that misbehave."""

import asyncio
import functools
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from crawler.demo.site import DemoSite
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import PendingNumber, Policy
from crawler.lanes import gather_lanes, lanes_for
from crawler.source.declared import open_source
from crawler.steps import execute_async_event_loop, make_job, request_song_info
from crawler.wire.transfer import WireRequest, exact_lines
from crawler.wire.wire import Wire
from tests.clock import lateness, wait_until
from tests.crawls import (
    CALLERS,
    QUICK,
    RETRYING,
    ROOT,
    TOKEN,
    Crawl,
    asking,
    crawl_apart,
    nothing_left_behind,
    run_python,
)
from tests.faulty_table import page
from tests.records import expected_info

SONG = 3


# --- B9: memory ----------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("caller", "connections", "most_mib"), [("source", 512, 80), ("function", 64, 50)]
)
@pytest.mark.parametrize("fault", ["bomb", "large-chunked"])
def test_B9_bodies_past_the_cap_on_all_connections_at_once(
    faulty_site, caller, connections, most_mib, fault
):
    """The process grows by no more than 80 MiB, whatever comes on however many connections."""
    numbers = range(1, 1 + connections)
    url = faulty_site.url(fault)
    crawl = crawl_apart(url, caller, numbers, connections=connections, limit_seconds=10)
    assert crawl["records"] >= 40  # after 100 the circuit opens: one probe a second
    assert crawl["kinds"] == ["too_large"]
    assert crawl["grown_bytes"] <= most_mib << 20


@pytest.mark.once
@pytest.mark.parametrize(("caller", "connections"), [("source", 256), ("function", 64)])
def test_B6_ten_megabytes_of_headers_on_all_connections_at_once(faulty_site, caller, connections):
    """A flood of headers is cut off early, on each of them."""
    numbers = range(1, 1 + connections)
    url = faulty_site.url("headers-10mb")
    crawl = crawl_apart(url, caller, numbers, connections=connections, limit_seconds=4)
    assert crawl["records"] >= 64
    assert set(crawl["kinds"]) <= {"protocol", "connection"}
    assert crawl["grown_bytes"] <= 80 << 20


# --- B2: a resolver that hangs -------------------------------------------------------------------

_HANGING = """
    import os, socket, sys, subprocess
    address = f"127.9.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"  # one for each process
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind((address, 53))
    with open(sys.argv[1], "w") as file:
        file.write(f"nameserver {address}\\noptions timeout:30 attempts:1\\n")
    subprocess.run(["mount", "--bind", sys.argv[1], "/etc/resolv.conf"], check=True)
    from tests.crawls import Crawl
    from crawler.frontier.work import Policy
    policy = Policy(attempt_seconds=0.5, max_attempts=1)
    crawl = Crawl("http://slow.example", range(1, 101), caller=sys.argv[2], policy=policy)
    tally = crawl.frontier.tally
    print(set(crawl.kinds.values()), crawl.frontier.stopped_by, tally.requests < 40,
          tally.latency_seconds / tally.requests < 1.0)
"""


def can_hide_files():
    """Whether this process may have a view of the file system of its own."""
    program = shutil.which("unshare")
    return (
        program is not None
        and subprocess.run([program, "-m", "true"], check=False, capture_output=True).returncode
        == 0
    )


def run_with_hidden_files(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that may hang other files over those of the system."""
    command = ["unshare", "-m", sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "CRAWLER_CONTACT": "tests@songs.example"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not can_hide_files(), reason="needs root on Linux, to hang its own resolver")
@pytest.mark.parametrize("caller", CALLERS)
def test_B2_a_name_server_that_does_not_answer_is_dns_at_the_deadline(caller, tmp_path):
    """The system's own resolver hangs for half a minute; the run does not."""
    done = run_with_hidden_files(_HANGING, str(tmp_path / "resolv.conf"), caller)
    assert done.stdout == "{'dns'} circuit True True\n", done.stderr


# --- Waiting, HTTP versions ----------------------------------------------------------------------


def test_a_paced_crawl_sleeps_most_of_the_time():
    """It costs hardly more of a core than the same pages at full speed, in the same moments.

    Each page wakes it up of its own, which takes two to three times as much; who looks at a clock
    again and again until a page is due takes eighty times as much.
    """
    with DemoSite(token=TOKEN, latency_seconds=0.02) as site:
        full, paced = (
            crawl_apart(site.base_url, "source", range(1, 201), connections=64, rate=rate)
            for rate in (0, 100)
        )
    assert paced["seconds"] > 1.9
    assert paced["cpu_seconds"] < 6 * full["cpu_seconds"]


@pytest.mark.parametrize("connections", [1, 65, 200])
def test_a_site_without_http_2_is_crawled_over_tls(faulty_site_tls, connections):
    """Where only HTTP/1.1 is offered, each request has a connection, and all are used again."""
    crawl = Crawl(
        faulty_site_tls.url("right"),
        range(1, 401),
        connections=connections,
        ca_path=faulty_site_tls.ca_path,
        policy=Policy(attempt_seconds=15),
    )
    assert "failed" not in crawl.outcomes.values()
    assert len(crawl.records) == 400
    assert faulty_site_tls.max_open_connections <= connections


def has_nginx():
    """Whether the benchmarks' site can run here."""
    from benchmarks.site import SiteError, find_program

    try:
        return bool(find_program("nginx", "nginx-light") and find_program("openssl", "openssl"))
    except SiteError:
        return False


@pytest.mark.skipif(not has_nginx(), reason="needs nginx, which speaks HTTP/2")
def test_a_site_with_http_2_is_crawled_over_few_connections():
    """Two hundred requests at once share connections, and every page arrives."""
    code = """
        from benchmarks.site import running_site
        from crawler.source.declared import open_source
        from crawler.frontier.work import Policy
        from tests.crawls import Crawl
        with running_site() as site:
            source = open_source("genius", "demo-token", base_url=site.https)
            options = dict(ca_path=site.ca_file, function=source, policy=Policy(attempt_seconds=15))
            crawl = Crawl("", range(1, 1501), connections=200, **options)
            print(set(crawl.outcomes.values()), len(crawl.records))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{'found'} 1500\n", done.stderr


# --- Sources of one's own ------------------------------------------------------------------------


class OwnSource:
    """A source whose parts can be made to misbehave."""

    name, schema, robots = "own", "1", False

    def __init__(self, base_url, *, url=None, headers=None, info=None):
        self._base_url, self._url, self._headers, self._info = base_url, url, headers, info

    def url(self, song_num):
        """Address of a page."""
        if self._url and song_num == SONG:
            return self._url(song_num)
        return f"{self._base_url}/songs/{song_num}"

    def headers(self):
        """What is sent."""
        return self._headers() if self._headers else {}

    def info(self, song_num, body):
        """What is taken."""
        if self._info and song_num == SONG:
            return self._info(song_num, body)
        return len(body)


def fails(*_):
    """Raise."""
    raise KeyError("none")


MISDEEDS = {
    "url-raises": {"url": fails},
    "url-is-not-text": {"url": lambda _: 5},
    "info-raises": {"info": fails},
    "info-cannot-be-stored": {"info": lambda *_: object()},
    "info-is-a-huge-integer": {"info": lambda *_: 10**5000},
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_F5_a_source_that_misbehaves_costs_its_own_number(faulty_site, caller, misdeed):
    """One number fails, with a line on why; the others are found, with either caller."""
    source = OwnSource(faulty_site.url("right"), **MISDEEDS[misdeed])
    numbers = [num for num in range(1, 12) if expected_info(num)]
    patient = Policy(attempt_seconds=10, max_attempts=1)
    crawl = Crawl("", numbers, caller=caller, function=source, policy=patient)
    assert {num for num, kind in crawl.kinds.items() if kind} == {SONG}
    assert crawl.kinds[SONG] in {"function", "protocol"}
    assert crawl.records[SONG].detail
    assert crawl.frontier.stopped_by == "done"


@pytest.mark.parametrize("caller", CALLERS)
def test_F5_a_header_with_a_line_end_is_not_sent(faulty_site, caller):
    """What would become a header of its own, or a second request, never leaves."""
    source = OwnSource(faulty_site.url("right"), headers=lambda: {"X-A": "b\r\nX-Evil: yes"})
    crawl = Crawl("", [SONG], caller=caller, function=source)
    assert crawl.outcomes == {SONG: "failed"}
    assert faulty_site.requests == []


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "gopher://127.0.0.1/x", "ftp://127.0.0.1/"]
)
def test_only_http_is_spoken(faulty_site, caller, url):
    """Whatever a source gives as an address, no file is read and no other protocol used."""
    source = OwnSource(faulty_site.url("right"), url=lambda _: url)
    crawl = Crawl("", [SONG], caller=caller, function=source)
    assert crawl.outcomes == {SONG: "failed"}
    assert crawl.results == []


def test_two_sources_in_one_gather_each_send_their_own_headers(faulty_site):
    """Handles are reused from one source to the other, their headers are not."""
    one, two = [], []
    first = OwnSource(faulty_site.url("right"), headers=lambda: {"X-Source": "first"})
    second = OwnSource(faulty_site.url("right-gzip"), headers=lambda: {"X-Source": "second"})
    numbers = [num for num in range(1, 60) if expected_info(num)]
    execute_async_event_loop(
        jobs=[(first, numbers, one), (second, numbers, two)], rate=0, connections=4
    )
    assert sorted(num for num, _ in one) == sorted(num for num, _ in two) == numbers
    for seen in faulty_site.requests:
        expected = "second" if "gzip" in seen.path else "first"
        assert seen.headers["x-source"] == expected


def test_requests_that_libcurl_repeats_are_counted(faulty_site):
    """A reused connection that is reset gets its request sent again: the site's count is ours."""
    crawl = Crawl(faulty_site.url("reset-reused"), range(1, 41), connections=2, policy=QUICK)
    assert "failed" not in crawl.outcomes.values()
    assert crawl.frontier.tally.requests == len(faulty_site.requests) > 40


def test_a_run_that_is_closed_ends_within_its_grace(faulty_site):
    """What hangs is cut when the grace is over."""
    frontier = Frontier(Policy(grace_seconds=0.3), rate_limiter=RateLimiter(0))
    threading.Timer(0.2, frontier.stop, ("signal",)).start()
    began = time.monotonic()
    source = open_source("genius", TOKEN, base_url=faulty_site.url("hang-before-headers"))
    for function in (source, functools.partial(request_song_info, source=source)):
        execute_async_event_loop(range(10), [], function=function, frontier=frontier)
    assert time.monotonic() - began < 3


def test_the_environments_proxy_is_not_used(faulty_site, monkeypatch):
    """Nothing of ours goes through a host that the environment names."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        for caller in CALLERS:
            crawl = Crawl(faulty_site.url("right"), [SONG], caller=caller, policy=RETRYING)
            assert crawl.outcomes == {SONG: "found"}


# --- Whose code runs where -----------------------------------------------------------------------


class Slow(list):
    """Results whose `append` takes its time, and remembers the threads that called it."""

    def __init__(self):
        super().__init__()
        self.threads = set()

    def append(self, item):
        self.threads.add(threading.current_thread().name)
        time.sleep(0.01)
        super().append(item)


def test_no_code_of_anybodys_runs_on_the_wires_thread(faulty_site):
    """Not the source's class, not the numbers' generator, not the results' append."""
    threads = set()

    def here():
        threads.add(threading.current_thread().name)

    def numbers():
        for num in range(1, 30):
            here()
            yield num

    class Watched(OwnSource):
        def url(self, song_num):
            here()
            return super().url(song_num)

        def headers(self):
            here()
            return {}

        def info(self, song_num, body):
            here()
            return len(body)

    url = faulty_site.url("right")
    execute_async_event_loop(range(1, 30), function=Watched(url), rate=0, connections=4)
    declared = open_source("genius", TOKEN, base_url=url)
    execute_async_event_loop(numbers(), function=declared, rate=0, connections=4)
    slow = execute_async_event_loop(range(1, 30), Slow(), function=declared, rate=0, connections=4)
    assert threads | slow.threads == {"lane"}


def test_a_declared_source_is_read_on_the_wires_thread(faulty_site, monkeypatch):
    """Compiled decoding only, over plain numbers and into a plain list: that needs no other."""
    declared, threads = open_source("genius", TOKEN, base_url=faulty_site.url("right")), set()
    read = declared.info

    def info(song_num, body):
        threads.add(threading.current_thread().name)
        return read(song_num, body)

    monkeypatch.setattr(declared, "info", info)
    execute_async_event_loop(range(1, 30), function=declared, rate=0, connections=4)
    assert threads == {"wire"}


def test_a_wire_begins_with_its_first_request_and_ends_when_it_is_closed(demo_site):
    """Nothing is begun before, and nothing left after; who asks too late hears so."""
    with nothing_left_behind():
        wire = Wire(2, user_agent="tests/1", attempt_seconds=5)
        assert "wire" not in {thread.name for thread in threading.enumerate()}
        lines = exact_lines([])
        request = WireRequest("GET", f"{demo_site.base_url}/songs/3", lines, time.monotonic() + 5)
        assert wire.exchange(request).status == 401
        assert "wire" in {thread.name for thread in threading.enumerate()}
        wire.close()
        wire.close()
        late = wire.exchange(WireRequest("GET", request.url, lines, time.monotonic() + 5))
        assert (late.error, late.sent) == ("timeout", 0)


def test_who_waits_for_an_answer_when_the_wire_is_closed_does_not_hang(faulty_site):
    """It gets an answer that says that it is too late."""
    url = f"{faulty_site.url('hang-before-headers')}/songs/3"
    answers = []
    with Wire(2, user_agent="tests/1", attempt_seconds=30) as wire:
        request = WireRequest("GET", url, exact_lines([]), time.monotonic() + 30)
        thread = threading.Thread(target=lambda: answers.append(wire.exchange(request)))
        thread.start()
        assert wait_until(lambda: faulty_site.requests, 5)
    thread.join(5)
    assert [answer.error for answer in answers] == ["timeout"]


def test_a_process_may_end_without_closing_its_wire(demo_site):
    """The thread is joined before the interpreter ends, since it sees the main thread's end."""
    code = """
        import sys, time
        from crawler.wire.session import WireSession
        from crawler.wire.wire import Wire
        session = WireSession(Wire(2, user_agent="tests/1", attempt_seconds=5))
        print(session.get(sys.argv[1]).status_code)
    """
    assert run_python(code, f"{demo_site.base_url}/songs/3", seconds=20) == "401\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_gets_an_error_and_does_not_hang(demo_site):
    """The thread is the parent's; the parent's own requests go on."""
    code = """
        import os, sys
        from crawler.wire.session import WireSession
        from crawler.wire.wire import Wire
        with Wire(2, user_agent="tests/1", attempt_seconds=5) as wire:
            session = WireSession(wire)
            print(session.get(sys.argv[1]).status_code, flush=True)
            child = os.fork()
            if child == 0:
                try:
                    session.get(sys.argv[1])
                except RuntimeError as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            print(session.get(sys.argv[1]).status_code)
    """
    printed = run_python(code, f"{demo_site.base_url}/songs/3", seconds=20)
    assert printed.splitlines() == [
        "401", "this wire belongs to the parent process; a child opens its own", "401"
    ]  # fmt: skip


# --- H3, H4: addresses and authorities -----------------------------------------------------------

_DEAD_FIRST = """
    import json, os, socket, subprocess, sys, threading, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    os.makedirs(sys.argv[1], exist_ok=True)
    hosts = os.path.join(sys.argv[1], "hosts")
    with open(hosts, "w") as file:
        file.write("127.0.0.2 songs.example\\n127.0.0.1 songs.example\\n127.0.0.1 localhost\\n")
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for the client
        def do_GET(self):
            body = b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            if sys.argv[3] == "closing":
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size, daemon_threads, block_on_close = 128, True, False

    server = Server(("127.0.0.2", 0), Handler)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    dead = socket.create_server(("127.0.0.1", port), backlog=0)
    filling = [socket.socket() for _ in range(4)]
    for one in filling:  # its queue is full: the kernel drops what else comes
        one.setblocking(False)
        one.connect_ex(("127.0.0.1", port))
    time.sleep(0.1)
    assert socket.getaddrinfo("songs.example", port)[0][4][0] == "127.0.0.1"
    from crawler import execute_async_event_loop

    class Pages:
        name, schema, robots, reads_on_wire = "pages", "1", False, sys.argv[2] == "source"
        def url(self, num):
            return f"http://songs.example:{port}/{num}"
        def headers(self):
            return {}
        def info(self, num, body):
            return num

    def step1(session, num, results):
        results.append((num, session.get(Pages().url(num)).json()))

    function = step1 if sys.argv[2] == "function" else Pages()
    began = time.monotonic()
    results = execute_async_event_loop(range(200), function=function, rate=0, connections=8)
    print(len(results), time.monotonic() - began)
"""


@pytest.mark.skipif(not can_hide_files(), reason="needs root on Linux, for names of its own")
@pytest.mark.parametrize("site", ["keeping", "closing"])
@pytest.mark.parametrize("caller", ["source", "class", "function"])
def test_H3_a_first_address_that_is_dead_costs_once(caller, site, tmp_path):
    """Half a second at most for a run of 200 pages, even where each needs a new connection."""
    with lateness() as late:
        done = run_with_hidden_files(_DEAD_FIRST, str(tmp_path / "etc"), caller, site)
    assert done.returncode == 0, done.stderr
    count, seconds = done.stdout.split()
    assert int(count) == 200
    assert (
        float(seconds) < 3.5 + late.seconds
    )  # for each connection anew it would be 25 times 0.2 s


@pytest.mark.parametrize("name", ["CRAWLER_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("caller", CALLERS)
def test_H4_authorities_of_ones_own_are_named_by_the_environment(
    caller, name, faulty_site_tls, monkeypatch
):
    """For a source and a step 1 function alike."""
    for other in ("CRAWLER_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, str(faulty_site_tls.ca_path))
    function = asking(caller, faulty_site_tls.url("right"))
    results = execute_async_event_loop([SONG], function=function, rate=0)
    assert results == [(SONG, expected_info(SONG))]


@pytest.mark.parametrize("caller", CALLERS)
def test_H4_a_certificate_that_is_refused_is_told_once_with_the_reason(
    caller, faulty_site_tls, caplog
):
    """Not for each number, and in libcurl's words."""
    crawl = Crawl(faulty_site_tls.url("right"), range(1, 20), caller=caller)
    assert set(crawl.kinds.values()) == {"tls"}
    told = [line.message for line in caplog.records if "certificate was refused" in line.message]
    assert len(told) == 1
    assert "local issuer certificate" in told[0]


# --- What policy is told -------------------------------------------------------------------------


class Policy1:
    """A frontier of one attempt, that keeps the reply."""

    def __init__(self, job, *, is_canary):
        self.policy, self.stopped_by, self.is_one_host = Policy(), None, True
        self.replies, self.asked_url = [], None
        self._attempts = [PendingNumber(SONG, job, sent_at=time.monotonic(), is_canary=is_canary)]

    def grace_left(self):
        """There is no end."""
        return 1.0

    def take(self, _wanted):
        """Give the one."""
        taken, self._attempts = self._attempts, []
        return taken, None

    def next_attempt(self):
        """Give the one."""
        return self._attempts.pop() if self._attempts else None

    def hand_back(self, replies):
        """Keep them."""
        self.replies += replies

    def rest(self, seconds):
        """Wait."""
        time.sleep(seconds)

    def finish(self):
        """Nothing."""


@pytest.mark.parametrize("kind", ["source", "class", "function"])
@pytest.mark.parametrize(
    ("head", "is_canary", "told"),
    [
        (b"X-RateLimit-Remaining: 3", False, ("x-ratelimit-remaining", "3")),
        (b"Rate-Limit: 9", False, ("rate-limit", "9")),
        (b"Age: 5", True, ("age", "5")),
        (b"Age: 5", False, ("age", "5")),
        (b"Server: x", False, None),
    ],
)
def test_policy_gets_the_headers_that_it_needs(kind, head, is_canary, told):
    """Of a right page only with a limit, from a cache, and of a canary; that goes past caches."""
    with Headed(head) as site:
        source = open_source("genius", TOKEN, base_url=site.url)
        own = type("Own", (), dict.fromkeys(("name", "schema"), "x"))()
        own.url, own.headers, own.info = source.url, source.headers, lambda *_: 1

        def step1(session, num, results):
            results.append((num, session.get(source.url(num)).status_code))

        job = make_job({"source": source, "class": own, "function": step1}[kind], [], [])
        frontier = Policy1(job, is_canary=is_canary)
        wire = Wire(1, user_agent="tests/1", attempt_seconds=5)
        asyncio.run(gather_lanes(lanes_for([job], wire), frontier, wire))
    (reply,) = frontier.replies
    assert reply.status == 200
    assert reply.headers is None if told is None else reply.header(told[0]) == told[1]
    assert (b"cache-control: no-cache" in site.asked[0].lower()) is is_canary


class Headed:
    """A site that answers once, with one more header."""

    def __init__(self, head):
        self._head, self.asked = head, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(5)
        self._listener.close()

    def _answer(self):
        peer, _ = self._listener.accept()
        with peer:
            self.asked.append(peer.recv(65_536))
            body = page(SONG)
            length = b"Content-Length: %d" % len(body)
            peer.sendall(
                b"HTTP/1.1 200 OK\r\n" + self._head + b"\r\n" + length + b"\r\n\r\n" + body
            )
            peer.recv(1)
