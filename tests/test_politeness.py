"""Politeness as the site itself records it: the pace, the pause, and what a broken site costs."""

import contextlib
import socket
import threading
import time

import pytest

from crawler.demo.site import DemoSite
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.source.declared import open_source
from crawler.steps import execute_async_event_loop
from tests.clock import lateness
from tests.crawls import CALLERS, TOKEN, Crawl, asked_by, crawl_apart
from tests.faulty_site import FaultySite
from tests.records import expected_info

pytestmark = pytest.mark.once


def too_early(site, scenario, pause_seconds, slack_seconds):
    """List the requests under an address that came in spite of its pause."""
    seen = [one for one in site.requests if one.path.startswith(f"/{scenario}/")]
    told = [one.answered_at for one in seen if one.spoilt and one.answered_at]
    assert told
    return [one for one in seen if any(slack_seconds < one.at - at < pause_seconds for at in told)]


def arrivals(site, scenario):
    """When the requests under an address arrived."""
    return [seen.at for seen in site.requests if seen.path.startswith(f"/{scenario}/")]


def most_in_a_second(times):
    """Count the requests in that second, wherever it begins, in which most came."""
    times, first, most = sorted(times), 0, 0
    for place, moment in enumerate(times):
        while moment - times[first] >= 1:
            first += 1
        most = max(most, place - first + 1)
    return most


@pytest.mark.parametrize(
    ("scheme", "status", "caller", "connections", "pause_seconds"),
    [
        ("http", 429, "source", 8, 1),
        ("http", 503, "source", 64, 1),
        ("http", 429, "source", 512, 2),
        ("http", 429, "function", 64, 2),
        ("tls", 429, "source", 512, 3),
        ("tls", 503, "function", 64, 2),
    ],
)
def test_D1_no_request_arrives_inside_the_pause(scheme, status, caller, connections, pause_seconds):
    """At full speed, over all connections: the pause begins for all, and nothing is lost by it."""
    right_before = "" if connections > 100 else f"!{connections // 2}"
    scenario = f"{status}:{pause_seconds}~0.4{right_before}"
    numbers = range(1, 801)
    with FaultySite(tls=scheme == "tls") as site, lateness() as late:
        crawl = crawl_apart(
            site.url(scenario),
            caller,
            numbers,
            connections=connections,
            max_attempts=9,
            ca_path=site.ca_path if scheme == "tls" else None,
        )
    # what was sent before the answer was read may still arrive, the longer the more is under way
    assert too_early(site, scenario, pause_seconds, pause_seconds * 0.5 + late.seconds) == []
    assert len(too_early(site, scenario, pause_seconds, 0)) <= connections
    assert crawl["kinds"] == ["None"]
    assert crawl["records"] == len(numbers)


@pytest.mark.parametrize("caller", CALLERS)
def test_D1_connections_that_are_still_being_made_wait_too(faulty_site_tls, caller):
    """The very first answer is a 429, while others are still shaking hands."""
    scenario = "429:1~0.4"
    crawl = Crawl(
        faulty_site_tls.url(scenario),
        range(1, 301),
        caller=caller,
        connections=64,
        ca_path=faulty_site_tls.ca_path,
        policy=Policy(attempt_seconds=10),
    )
    assert too_early(faulty_site_tls, scenario, 1.0, 0.5) == []
    assert "failed" not in crawl.outcomes.values()
    assert len(crawl.records) == 300


def pump(source, target):
    """Pass on what comes, up to its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def slow_to_connect(port, seconds):
    """Stand before a port, and let the first connection through only after some seconds."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets = [listener]

    def serve():
        wait = seconds
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                open_sockets.extend([near, far])
                time.sleep(wait)
                wait = 0
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    for one in open_sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for one in open_sockets:
        one.close()


@pytest.mark.parametrize("caller", CALLERS)
def test_D1_a_pause_that_begins_during_a_handshake_is_kept(faulty_site_tls, caller):
    """The request of a connection that stands only afterwards is held back, and comes later."""
    began = time.monotonic()
    frontier = Frontier(Policy(attempt_seconds=10), rate_limiter=RateLimiter(0))
    threading.Timer(0.2, frontier.hold, (1.0,)).start()
    port = int(faulty_site_tls.base_url.rpartition(":")[2])
    with slow_to_connect(port, 0.5) as slow:
        source = open_source("genius", TOKEN, base_url=f"https://127.0.0.1:{slow}/right")
        options = {"ca_file": str(faulty_site_tls.ca_path), "connections": 1}
        results = execute_async_event_loop(
            [3], function=asked_by(caller, source), frontier=frontier, **options
        )
    assert [num for num, _ in results] == [3]
    assert len(faulty_site_tls.requests) == 1
    assert all(seen.at >= began + 1.15 for seen in faulty_site_tls.requests)
    assert frontier.resume_at >= began + 1.15


@pytest.mark.parametrize("caller", CALLERS)
def test_D1_what_was_held_back_was_never_sent(faulty_site, caller):
    """The site sees as many requests as the run counts."""
    crawl = Crawl(
        faulty_site.url("429:1~0.2"),
        range(1, 201),
        caller=caller,
        connections=16,
        policy=Policy(attempt_seconds=10),
    )
    assert crawl.frontier.tally.requests == len(faulty_site.requests)


@pytest.mark.parametrize("caller", CALLERS)
def test_D4_a_pause_longer_than_the_budget_ends_the_run(faulty_site, caller):
    """A day's pause: what is left is reported, and nobody waits."""
    crawl = Crawl(faulty_site.url("429:86400!20"), range(1, 1001), caller=caller)
    assert crawl.frontier.stopped_by == "paused"
    assert 20 <= len(faulty_site.requests) <= 20 + 16


@pytest.mark.parametrize("caller", CALLERS)
def test_D8_the_pace_holds_as_the_site_sees_it(caller):
    """Three seconds at 100 a second: within 3 % of it, and no second above 105."""
    with DemoSite() as site, lateness() as late:
        source = open_source("genius", site.token, base_url=site.base_url)
        Crawl("", range(1, 301), caller=caller, function=source, rate=100, connections=64)
        times = site.stats()["arrivals"]
    assert len(times) == 300
    assert most_in_a_second(times) <= late.arriving(105)
    assert 299 / 103 - late.seconds <= times[-1] - times[0] <= 299 / 97 + late.seconds


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("fault", ["close-always", "close-announced"])
def test_B10_the_pace_holds_where_every_connection_ends(faulty_site, caller, fault):
    """No second above the rate and 5 %, and few requests lost on connections that were ended."""
    numbers = range(1, 201)
    with lateness() as late:
        crawl = Crawl(
            faulty_site.url(fault),
            numbers,
            caller=caller,
            rate=100,
            connections=16,
            policy=Policy(attempt_seconds=5),
        )
    times = arrivals(faulty_site, fault)
    assert crawl.outcomes == {num: "found" if expected_info(num) else "missing" for num in numbers}
    assert most_in_a_second(times) <= late.arriving(105)
    assert max(times) - min(times) < 3 + late.seconds


@pytest.mark.parametrize("caller", CALLERS)
def test_D5_429_for_ever_costs_a_hundred_requests_and_the_connections(faulty_site, caller):
    """Then one probe a second, here until the time is up, or no pause fits into what is left."""
    crawl = Crawl(
        faulty_site.url("429"),
        range(1, 100_000),
        caller=caller,
        connections=16,
        deadline=time.monotonic() + 3,
        policy=Policy(attempt_seconds=5, backoff_seconds=0.01),
    )
    assert crawl.frontier.stopped_by in ("time_budget", "paused")
    assert len(faulty_site.requests) <= 100 + 16 + 3


@pytest.mark.parametrize("caller", CALLERS)
def test_C1_a_run_of_pages_that_are_none_opens_the_circuit(faulty_site, caller):
    """A captcha for every number costs no more than that either."""
    crawl = Crawl(
        faulty_site.url("html"),
        range(1, 100_000),
        caller=caller,
        connections=16,
        deadline=time.monotonic() + 2.5,
        policy=Policy(attempt_seconds=5, backoff_seconds=0.01),
    )
    assert crawl.results == []
    assert len(faulty_site.requests) <= 100 + 16 + 3


def test_D6_half_of_all_answers_500_lose_nothing(faulty_site):
    """Both callers get every number in the end."""
    numbers = range(1, 151)
    for caller in CALLERS:
        crawl = Crawl(
            faulty_site.url("half-500"),
            numbers,
            caller=caller,
            policy=Policy(attempt_seconds=5, max_attempts=20, backoff_seconds=0.01),
        )
        assert crawl.outcomes == {
            num: "found" if expected_info(num) else "missing" for num in numbers
        }


def test_the_token_goes_to_the_site_and_nowhere_else(faulty_site):
    """Every request of a crawl carries it, to the one host."""
    Crawl(faulty_site.url("redirect-other-301"), range(1, 50))
    assert {seen.listener for seen in faulty_site.requests} == {"main"}
    assert {seen.headers["authorization"] for seen in faulty_site.requests} == {f"Bearer {TOKEN}"}
