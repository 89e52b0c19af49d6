"""Sites in trouble over real sockets: what they cost, for a source and for a step 1 function."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from crawler.frontier.canaries import KnownSongs
from crawler.frontier.work import Policy
from tests.crawls import CALLERS, Crawl, asking

Answer = tuple[int, dict[str, str]]
"""Status and headers; 200 carries the song's page."""

QUICK_PROBES = Policy(backoff_seconds=0.01, probe_seconds=0.05, attempt_seconds=5.0)


class Site:
    """A site that answers as it is told.

    Attributes:
        asked: Each request: number, and seconds since the first.
        base_url: Where it is.
    """

    def __init__(self, answer: Callable[[int, int, float], Answer]) -> None:
        """Answer by number, by how often it was asked before, and by seconds since the first."""
        self.asked: list[tuple[int, float]] = []
        self.base_url = ""
        self._answer, self._counts, self._lock = answer, Counter[int](), threading.Lock()
        self._began: float | None = None

    def serve(self, num: int) -> Answer:
        """Answer one request."""
        with self._lock:
            now = time.monotonic()
            self._began = self._began or now
            self.asked.append((num, now - self._began))
            self._counts[num] += 1
            return self._answer(num, self._counts[num] - 1, now - self._began)


def handler_of(site: Site) -> type[BaseHTTPRequestHandler]:
    """Make the handler of a site's requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for the client

        def do_GET(self) -> None:
            num = int(self.path.rpartition("/")[2])
            status, headers = site.serve(num)
            song: dict[str, Any] = {"meta": {"status": status}}
            if status == 200:
                song["response"] = {"song": {"id": num, "title": f"Song {num}"}}
            body = json.dumps(song).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    return Handler


@contextmanager
def serving(answer: Callable[[int, int, float], Answer]) -> Iterator[Site]:
    """Run a site while the body runs."""
    site = Site(answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site))
    server.daemon_threads = True
    site.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def crawl(caller: str, site: Site, numbers: range, **options: Any) -> Crawl:
    """Crawl it."""
    options = {"policy": QUICK_PROBES, "rate": 200, "connections": 8} | options
    options.setdefault("known", KnownSongs(spread=numbers))
    return Crawl("", numbers, function=asking(caller, site.base_url), **options)


def nums_of(crawled: Crawl, outcome: str) -> set[int]:
    """List the numbers of one outcome."""
    return {num for num, what in crawled.outcomes.items() if what == outcome}


@pytest.mark.parametrize("caller", CALLERS)
def test_C9_a_spell_of_404s_costs_no_song(caller):
    """Two seconds of them in the midst of a first crawl: every song is found, holes are missing."""
    holes = {num for num in range(1000) if num % 11 == 0} | set(range(700, 730))

    def answer(num: int, _nth: int, now: float) -> Answer:
        return (404 if num in holes or 1.0 <= now < 3.0 else 200), {}

    with serving(answer) as site:
        crawled = crawl(caller, site, range(1000))
    assert crawled.frontier.stopped_by == "done"
    assert nums_of(crawled, "missing") == holes
    assert nums_of(crawled, "found") == set(range(1000)) - holes
    assert len(site.asked) - 1000 <= 200


@pytest.mark.parametrize("caller", CALLERS)
def test_C9_nor_does_one_with_a_cache_before_the_site(caller):
    """A cache goes on serving every seventh song, and says so; the site denies all."""

    def answer(num: int, _nth: int, now: float) -> Answer:
        if num % 7 == 0:
            return 200, {"Age": str(600 + int(now))}
        return (404 if 1.0 <= now < 3.0 else 200), {}

    with serving(answer) as site:
        crawled = crawl(caller, site, range(1000))
    assert nums_of(crawled, "found") == set(range(1000))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("right", [0, 100])
def test_C9_a_site_that_denies_everything_is_believed_nothing(caller, right):
    """From its first request on, or after a hundred: no number becomes missing."""
    asked: list[int] = []

    def answer(num: int, _nth: int, _now: float) -> Answer:
        asked.append(num)
        return (200 if len(asked) <= right else 404), {}

    with serving(answer) as site:
        crawled = crawl(caller, site, range(3000), rate=0)
    assert crawled.frontier.stopped_by == "circuit"
    assert set(crawled.outcomes.values()) <= {"found"}
    assert len(site.asked) <= 1100


@pytest.mark.parametrize("caller", CALLERS)
def test_C8b_an_outage_of_a_proxy_s_own_loses_nothing(caller):
    """Two seconds of 522 at full speed."""
    with serving(lambda _num, _nth, now: (522 if 0.5 <= now < 2.5 else 200, {})) as site:
        policy = Policy(probe_seconds=0.2)
        crawled = crawl(caller, site, range(600), policy=policy)
    assert nums_of(crawled, "found") == set(range(600))


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("first", [0, 101])
def test_E11b_a_cluster_of_dead_pages_costs_only_itself(caller, first):
    """At the begin or in the midst: every healthy number is found in the first run."""
    dead = range(first, first + 150)
    with serving(lambda num, _nth, _now: (500 if num in dead else 200, {})) as site:
        crawled = crawl(caller, site, range(400))
    assert crawled.frontier.stopped_by == "done"
    assert nums_of(crawled, "failed") == set(dead)
    assert nums_of(crawled, "found") == set(range(400)) - set(dead)


@pytest.mark.parametrize("caller", CALLERS)
def test_D5_a_dead_site_costs_a_bounded_number_of_requests(caller):
    """At most 100 + connections + 60, canaries included."""
    with serving(lambda _num, _nth, _now: (500, {})) as site:
        crawled = crawl(caller, site, range(100_000), rate=0)
    assert crawled.frontier.stopped_by == "circuit"
    assert len(site.asked) <= 100 + 8 + 60


@pytest.mark.parametrize("caller", CALLERS)
def test_D7b_a_number_that_always_answers_429_fails_by_itself(caller):
    """After at most five answers; the others lose at most ten seconds in all."""
    began = time.monotonic()
    with serving(lambda num, _nth, _now: (429 if num == 50 else 200, {})) as site:
        crawled = crawl(caller, site, range(400))
    assert crawled.frontier.stopped_by == "done"
    assert nums_of(crawled, "failed") == {50}
    assert [num for num, _ in site.asked].count(50) <= 5
    assert time.monotonic() - began < 2 + 10


@pytest.mark.parametrize("caller", CALLERS)
def test_D3b_an_announced_quota_is_kept(caller):
    """Twenty in two seconds under a pace of 200/s: at most three answers of 429."""
    refused: list[int] = []
    windows: Counter[int] = Counter()

    def answer(num: int, _nth: int, now: float) -> Answer:
        window = int(now // 2)
        windows[window] += 1
        reset = 2 * (window + 1) - now
        left = max(0, 20 - windows[window])
        headers = {
            "RateLimit": f'"a";r={left};t={int(reset) + 1}',
            "RateLimit-Policy": '"a";q=20;w=2',
        }
        if windows[window] > 20:
            refused.append(num)
            return 429, headers
        return 200, headers

    with serving(answer) as site:
        crawled = crawl(caller, site, range(50))
    assert nums_of(crawled, "found") == set(range(50))
    assert len(refused) <= 3


@pytest.mark.parametrize("caller", CALLERS)
def test_C7b_a_challenge_page_that_stays_bars_the_run(caller):
    """Within a hundred requests, where the pause would outlast the run."""
    headers = {"cf-mitigated": "challenge", "Content-Type": "text/html"}
    with serving(lambda _num, _nth, _now: (403, headers)) as site:
        crawled = crawl(caller, site, range(1000), deadline=time.monotonic() + 20)
    assert crawled.frontier.stopped_by == "barred"
    assert len(site.asked) <= 100
    assert crawled.records == {}


@pytest.mark.parametrize("caller", CALLERS)
def test_C7b_a_403_with_retry_after_is_a_pause(caller):
    """Nothing starts inside it, and everything is found afterwards."""
    with serving(
        lambda _num, _nth, now: (403, {"Retry-After": "1"}) if 0.3 <= now < 0.4 else (200, {})
    ) as site:
        crawled = crawl(caller, site, range(300))
    assert nums_of(crawled, "found") == set(range(300))
    told = [at for _, at in site.asked if 0.3 <= at < 0.4]
    assert not [at for _, at in site.asked if told[-1] + 0.1 < at < told[0] + 1.0]


def test_B7_a_page_that_moved_for_good_is_missing():
    """The record tells where it went; a slash says nothing about the number."""
    moved = {7: "/songs/9", 8: "/songs/8/", 9: "/login"}
    with serving(
        lambda num, _nth, _now: (301, {"Location": moved[num]}) if num in moved else (200, {})
    ) as site:
        crawled = crawl("source", site, range(1, 20))
    assert (crawled.outcomes[7], crawled.records[7].detail) == ("missing", "moved to 9")
    assert crawled.kinds[8] == crawled.kinds[9] == "redirect"


@pytest.mark.parametrize("is_followed", [True, False], ids=["followed", "as it is"])
def test_B7_a_page_that_moved_for_good_is_missing_for_a_function_too(is_followed):
    """Though the function read the other page: it is the other number's. 302 leaves it open."""
    moved = {7: (301, "/songs/9"), 8: (308, "/songs/10"), 9: (302, "/songs/11"), 12: (301, "/end")}

    def answer(num: int, _nth: int, _now: float) -> Answer:
        status, target = moved.get(num, (200, ""))
        return status, {"Location": target} if target else {}

    with serving(answer) as site:

        def ask(session: Any, num: int, out: list[Any]) -> None:
            url = f"{site.base_url}/songs/{num}"
            page = session.get(url, allow_redirects=is_followed and num != 12).json()
            out.append((num, page.get("response")))

        crawled = Crawl("", range(1, 20), function=ask, policy=QUICK_PROBES, rate=200)
    assert {num: crawled.records[num].detail for num in (7, 8)} == {
        7: "moved to 9",
        8: "moved to 10",
    }
    assert nums_of(crawled, "missing") == {7, 8}
    assert {num: crawled.kinds[num] for num in (9, 12)} == {9: "redirect", 12: "redirect"}
    assert nums_of(crawled, "found") == set(range(1, 20)) - moved.keys()


@pytest.mark.parametrize("caller", CALLERS)
def test_C6_gone_for_legal_reasons_is_missing(caller):
    """451, asked once."""
    with serving(lambda num, _nth, _now: (451 if num == 5 else 200, {})) as site:
        crawled = crawl(caller, site, range(1, 10))
    assert crawled.outcomes[5] == "missing"
    assert [num for num, _ in site.asked].count(5) == 1
