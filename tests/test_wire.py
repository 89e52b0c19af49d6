"""The wire itself: names, memory, HTTP/2, waiting, sources that misbehave."""

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
from crawler.demo.songs import expected_info
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.source.declared import open_source
from crawler.steps import execute_async_event_loop, request_song_info
from tests.crawls import CALLERS, QUICK, RETRYING, ROOT, TOKEN, Crawl, crawl_apart

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


@pytest.mark.skipif(not can_hide_files(), reason="needs root on Linux, to hang its own resolver")
@pytest.mark.parametrize("caller", CALLERS)
def test_B2_a_name_server_that_does_not_answer_is_dns_at_the_deadline(caller, tmp_path):
    """The system's own resolver hangs for half a minute; the run does not."""
    command = ["unshare", "-m", sys.executable, "-W", "error", "-c", textwrap.dedent(_HANGING)]
    done = subprocess.run(
        [*command, str(tmp_path / "resolv.conf"), caller],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "{'dns'} circuit True True\n", done.stderr


# --- Waiting, HTTP versions ----------------------------------------------------------------------


def test_a_paced_crawl_sleeps_most_of_the_time():
    """At 100 pages a second less than a tenth of a core, with room for a busy machine."""
    with DemoSite(token=TOKEN, latency_seconds=0.02) as site:
        crawl = crawl_apart(site.base_url, "source", range(1, 201), connections=64, rate=100)
    assert crawl["cpu_share"] < 0.1


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
