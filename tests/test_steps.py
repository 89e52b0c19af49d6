"""The three steps as a user calls them: one request, lanes gathered, a loop anywhere."""

import asyncio
import threading
import time

import pytest
import requests

from crawler import execute_async_event_loop, get_data_asynchronous, request_song_info
from crawler.demo.site import DemoSite
from crawler.errors import Missing, PageError, StoppedError
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.source.declared import open_source
from crawler.steps import host_of
from tests.crawls import CALLERS, TOKEN, asked_by, nothing_left_behind
from tests.faulty_site import swallowing_port
from tests.records import expected_info

NUMBERS = range(1, 41)
FOUND = {num: expected_info(num) for num in NUMBERS if expected_info(num)}
GONE = next(num for num in NUMBERS if num not in FOUND)


def double(session, song_num, song_urls):
    """Append twice the number, without a request."""
    song_urls.append((song_num, 2 * song_num))


@pytest.fixture
def source(demo_site):
    """The demo site's songs."""
    return open_source("genius", demo_site.token, base_url=demo_site.base_url)


def test_step_1_appends_a_tuple(source):
    """With any session of requests, also outside a crawl."""
    song_urls = []
    with requests.Session() as session:
        assert request_song_info(session, 3, song_urls, source=source) is None  # type: ignore[func-returns-value]
    assert song_urls == [(3, FOUND[3])]


def test_step_1_reads_its_source_from_the_environment(demo_site, monkeypatch):
    """The Genius API, at the address and with the token that are set."""
    monkeypatch.setenv("CRAWLER_BASE_URL", demo_site.base_url)
    monkeypatch.setenv("GENIUS_TOKEN", demo_site.token)
    song_urls = []
    with requests.Session() as session:
        request_song_info(session, 3, song_urls)
    assert song_urls == [(3, FOUND[3])]
    assert sorted(execute_async_event_loop(NUMBERS, rate=0)) == sorted(FOUND.items())


def test_step_1_says_what_went_wrong(demo_site, source):
    """An absent song is `Missing`, another status an error with its kind."""
    with requests.Session() as session:
        with pytest.raises(Missing):
            request_song_info(session, GONE, [], source=source)
        wrong = open_source("genius", "wrong", base_url=demo_site.base_url)
        with pytest.raises(PageError, match="http_401"):
            request_song_info(session, 3, [], source=wrong)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(
    "numbers",
    [NUMBERS, list(NUMBERS), (num for num in NUMBERS), set(NUMBERS), iter(NUMBERS)],
    ids=lambda value: type(value).__name__,
)
def test_step_2_takes_any_iterable(source, caller, numbers):
    """A range, a list, a generator, a set: each number once."""
    if not hasattr(numbers, "__len__"):
        numbers = list(NUMBERS) if caller == "function" else numbers  # an iterator serves once
    function = asked_by(caller, source)
    song_urls = execute_async_event_loop(numbers, function=function, rate=0)
    assert sorted(song_urls) == sorted(FOUND.items())


def test_step_2_awaited_fills_the_list(source):
    """Beside whatever else the loop does."""
    song_urls = []
    asyncio.run(get_data_asynchronous(NUMBERS, song_urls, function=source, rate=0))
    assert sorted(song_urls) == sorted(FOUND.items())


def test_step_2_hands_results_to_anything_with_append(source):
    """A database, a file, a counter: what has `append` gets each tuple."""

    class Counter:
        count = 0

        def append(self, item):
            assert FOUND[item[0]] == item[1]
            self.count += 1

    counter = execute_async_event_loop(NUMBERS, Counter(), function=source, rate=0)
    assert counter.count == len(FOUND)


def test_step_2_gives_tuples_in_the_order_in_which_pages_come():
    """One lane: the order of the numbers. The first of several to answer is the first."""
    assert execute_async_event_loop([5, 3, 9, 1], function=double, rate=0, connections=1) == [
        (5, 10),
        (3, 6),
        (9, 18),
        (1, 2),
    ]

    def slowest_first(session, song_num, song_urls):
        time.sleep(0.3 * song_num)
        song_urls.append((song_num, 1))

    arrived = execute_async_event_loop([2, 1, 0], function=slowest_first, rate=0, connections=3)
    assert [num for num, _ in arrived] == [0, 1, 2]


def test_step_2_makes_no_task_for_each_number():
    """A generator is asked for what is due, not for everything."""
    taken = []

    def endless():
        for num in range(10**12):
            taken.append(num)
            yield num

    def stops(session, song_num, song_urls):
        song_urls.append((song_num, 1))
        if song_num >= 50:
            frontier.stop("stop_order")

    frontier = Frontier(rate_limiter=RateLimiter(0))
    execute_async_event_loop(endless(), function=stops, frontier=frontier, connections=4)
    assert len(taken) < 200


def test_two_functions_over_two_lists_run_in_one_gather(source):
    """Each has its own items and results; both share one pace."""
    songs, doubled = [], []
    began = time.monotonic()
    execute_async_event_loop(
        jobs=[(source, NUMBERS, songs), (double, range(40), doubled)], rate=100
    )
    assert sorted(songs) == sorted(FOUND.items())
    assert sorted(doubled) == [(num, 2 * num) for num in range(40)]
    assert time.monotonic() - began > 0.6


def test_jobs_may_stand_beside_the_numbers():
    """The first function and list are given as usual, others as jobs."""
    one, two = [], []
    execute_async_event_loop(
        range(3), one, function=double, jobs=[(double, range(3, 5), two)], rate=0
    )
    assert (sorted(one), sorted(two)) == ([(0, 0), (1, 2), (2, 4)], [(3, 6), (4, 8)])


def test_no_numbers_are_no_work():
    """An empty list is done at once."""
    with nothing_left_behind():
        assert execute_async_event_loop([], function=double) == []
        assert execute_async_event_loop(iter(()), function=double) == []


@pytest.mark.parametrize("caller", CALLERS)
def test_an_append_that_raises_ends_the_run_with_its_error(source, caller):
    """It is the caller's own error, and comes through as it is."""

    class Full:
        def append(self, item):
            raise OverflowError("full")

    function = asked_by(caller, source)
    with pytest.raises(OverflowError, match="full"):
        execute_async_event_loop(NUMBERS, Full(), function=function, rate=0)


def test_an_iterable_that_raises_ends_the_run_with_its_error():
    """So does an error of the caller's own generator."""

    def breaks():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        execute_async_event_loop(breaks(), function=double, rate=0)


def test_a_run_that_ends_early_says_why_and_keeps_what_it_has(demo_site):
    """A refused token is an error of its own, unless the caller brought a frontier that knows."""
    wrong = open_source("genius", "wrong", base_url=demo_site.base_url)
    with pytest.raises(StoppedError) as caught:
        execute_async_event_loop(NUMBERS, function=wrong, rate=0)
    assert caught.value.stopped_by == "unauthorized"
    assert "401" in str(caught.value)
    frontier = Frontier(rate_limiter=RateLimiter(0))
    assert execute_async_event_loop(NUMBERS, function=wrong, frontier=frontier) == []
    assert frontier.stopped_by == "unauthorized"


def test_a_gather_may_mix_sources_and_functions(source, demo_site):
    """A declared source, a class that is one, and a function each get their pages, in turn."""

    class Titles:
        name, schema, robots = "titles", "1", False
        url, headers = source.url, source.headers

        def info(self, song_num, body):
            return source.info(song_num, body)["title"]

    def titles(session, song_num, song_urls):
        answer = session.get(source.url(song_num), headers=source.headers())
        song_urls.append((song_num, answer.json()["response"]["song"]["title"]))

    arrived = []

    class Names(list):
        def __init__(self, name):
            self.name = name

        def append(self, item):
            arrived.append(self.name)
            super().append(item)

    songs, classed, called = Names("song"), Names("class"), Names("function")
    jobs = [(source, FOUND, songs), (Titles(), FOUND, classed), (titles, FOUND, called)]
    execute_async_event_loop(jobs=jobs, rate=0, connections=4)
    assert sorted(songs) == sorted(FOUND.items())
    wanted = sorted((num, info["title"]) for num, info in FOUND.items())
    assert sorted(classed) == sorted(called) == wanted
    assert {*arrived[:12]} == {"song", "class", "function"}


@pytest.mark.parametrize("function", [None, "text", 5])
def test_what_cannot_be_called_is_no_step_1(function):
    """The error names what came."""
    with pytest.raises(TypeError, match="step 1 must be a function or a source"):
        execute_async_event_loop([1], function=function)


def test_the_tutorial_s_third_argument_is_how_many_run_at_once():
    """`max_workers` bounds the calls under way, in step 2 as in step 3."""
    under_way = most = 0
    lock = threading.Lock()

    def step1(session, num, results):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        results.append((num, num))

    found = execute_async_event_loop(range(60), [], 3, function=step1, rate=0)
    asyncio.run(get_data_asynchronous(range(60), found, 3, function=step1, rate=0))
    assert len(found) == 120
    assert 1 < most <= 3


# --- Several hosts in one gather -----------------------------------------------------------------


class OnThreads(list):
    """A list of anybody's own: its numbers are asked for by lanes in threads."""


SONGS = [num for num in range(1, 161) if expected_info(num)]


def gather(bad, good, lists, *, max_pause_seconds=3600.0, is_cut=False):
    """Ask two sources for the songs; give each list, the records in their order, and the frontier.

    With `is_cut` a stop order comes when all of the good one's are found.
    """
    outcomes, results = [], (lists(), lists())
    policy = Policy(grace_seconds=0.1, max_pause_seconds=max_pause_seconds)

    def book(record):
        outcomes.append(record.outcome)
        if is_cut and outcomes.count("found") == len(SONGS):
            threading.Timer(0, frontier.stop, ["stop_order"]).start()  # this is under its lock

    end = time.monotonic() + 30
    frontier = Frontier(policy, rate_limiter=RateLimiter(0), on_record=book, deadline=end)
    jobs = [(bad, SONGS, results[0]), (good, SONGS, results[1])]
    execute_async_event_loop(jobs=jobs, frontier=frontier, connections=8)
    return *results, outcomes, frontier


@pytest.mark.parametrize("lists", [list, OnThreads])
def test_a_host_that_never_answers_takes_no_connection_of_another_s(source, lists):
    """All of the other's numbers are settled before the first of its own times out."""
    with swallowing_port() as port:
        dead = open_source("genius", TOKEN, base_url=f"http://127.0.0.1:{port}")
        none, songs, outcomes, frontier = gather(dead, source, lists, is_cut=True)
    assert sorted(songs) == [(num, expected_info(num)) for num in SONGS]
    assert (none, outcomes) == ([], ["found"] * len(SONGS))
    assert (frontier.tally.kinds, frontier.stopped_by) == ({}, "stop_order")


@pytest.mark.parametrize("lists", [list, OnThreads])
def test_a_host_that_asks_for_a_long_pause_holds_back_itself_alone(source, lists, faulty_site):
    """None of its other pages is asked for; the run ends for it once the other's are settled."""
    pausing = open_source("genius", TOKEN, base_url=faulty_site.url("429:1000"))
    none, songs, outcomes, frontier = gather(pausing, source, lists, max_pause_seconds=100.0)
    assert sorted(songs) == [(num, expected_info(num)) for num in SONGS]
    assert (none, outcomes) == ([], ["found"] * len(SONGS))
    assert frontier.stopped_by == "paused"
    assert len(faulty_site.requests) <= 8


@pytest.mark.parametrize("lists", [list, OnThreads])
def test_a_host_that_refuses_the_token_ends_its_own_part(source, lists):
    """The other's numbers are collected before the error is raised, which names the host."""
    with DemoSite() as other:
        wrong = open_source("genius", "wrong", base_url=other.base_url)
        none, songs = lists(), lists()
        with pytest.raises(StoppedError) as caught:
            execute_async_event_loop(
                jobs=[(wrong, NUMBERS, none), (source, SONGS, songs)], rate=0, connections=8
            )
    assert sorted(songs) == [(num, expected_info(num)) for num in SONGS]
    assert none == []
    assert caught.value.stopped_by == "unauthorized"
    assert str(caught.value) == f"{other.base_url[7:]}: the site answered 401"


@pytest.mark.parametrize("is_first", [True, False])
def test_a_source_that_names_a_rate_is_asked_at_that(source, is_first):
    """Whatever the rate of the rest; and it binds no other host."""
    arrived = []

    class Named(list):
        def append(self, item):
            arrived.append(self)
            super().append(item)

    with DemoSite() as other:
        slow = open_source("genius", other.token, base_url=other.base_url)
        slow.rate = 20.0
        titles, songs = Named(), Named()
        jobs = [(slow, SONGS[:30], titles), (source, SONGS[:30], songs)]
        began = time.monotonic()
        execute_async_event_loop(jobs=jobs if is_first else jobs[::-1], rate=0)
    assert time.monotonic() - began > 1.4
    assert len(titles) == len(songs) == 30
    assert arrived[-1] is titles


def test_of_two_sources_of_one_host_the_lower_rate_counts(source):
    """On the first host and on any other; the same host with its usual port and a dot is one."""
    with DemoSite() as other:
        fast = open_source("genius", other.token, base_url=other.base_url)
        slow = open_source("genius", other.token, base_url=other.base_url)
        fast.rate, slow.rate = 500.0, 20.0
        lists = [[], [], []]
        jobs = list(zip((source, fast, slow), [SONGS[:30]] * 3, lists, strict=True))
        began = time.monotonic()
        execute_async_event_loop(jobs=jobs, rate=0)
    assert time.monotonic() - began > 2.5  # 60 at 20 a second
    assert [len(songs) for songs in lists] == [30] * 3


class Elsewhere:
    """A source of which nothing is asked."""

    rate = None

    def __init__(self, base_url):
        self._base_url = base_url

    def url(self, song_num):
        """Return an address, as a source does."""
        return f"{self._base_url}/{song_num}"


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("https://a.example", "a.example"),
        ("https://A.example.:443/songs", "a.example"),
        ("https://user:word@a.example", "a.example"),
        ("http://a.example:443", "a.example:443"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:80", "::1"),
        ("http://a.example:99999", ""),
        ("no address", ""),
    ],
)
def test_a_host_is_known_by_its_name_and_an_unusual_port(base_url, host):
    """However it is written; empty where there is none."""
    assert host_of(Elsewhere(base_url)) == host
    assert host_of(None) == ""
