"""Step 1 functions of anybody's, called in lanes: each costs its own number at most."""

import contextlib
import functools
import gc
import socketserver
import sys
import threading
import time
import weakref

import pytest
import requests

from crawler.errors import Missing, PageError, StoppedError
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy
from crawler.steps import execute_async_event_loop
from tests.crawls import QUICK, RETRYING, TOKEN, Crawl, run_python
from tests.records import expected_info

SONG = 3
GONE = next(num for num in range(1, 100) if expected_info(num) is None)


def crawl_with(function, numbers=(SONG,), *, policy=QUICK, connections=4, **options):
    """Crawl with a function of one's own."""
    return Crawl("", numbers, policy=policy, connections=connections, function=function, **options)


def tutorial_function(base_url, get=None):
    """The tutorial's own step 1, `except: pass` and all."""

    def request_song_info(session, song_num, song_urls):
        try:
            with (get or session.get)(f"{base_url}/songs/{song_num}") as request:
                data = request.json()["response"]["song"]
                song_urls.append((song_num, data["title"], data["url"]))
        except:  # noqa: E722
            pass

    return request_song_info


# --- F5b: the tutorial's own function ------------------------------------------------------------


def test_F5b_the_tutorials_function_collects_its_longer_tuples(faulty_site):
    """Against a site without faults: found songs are appended, absent ones are missing."""
    numbers = range(1, 31)
    crawl = crawl_with(tutorial_function(faulty_site.url("right")), numbers)
    found = {num: expected_info(num) for num in numbers if expected_info(num)}
    assert sorted(crawl.results) == [
        (num, info["title"], info["url"]) for num, info in found.items()
    ]
    assert crawl.outcomes == {num: "found" if num in found else "missing" for num in numbers}
    assert crawl.records[SONG].info == [found[SONG]["title"], found[SONG]["url"]]


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        ("status:500", "http_500"),
        ("status:418", "http_418"),
        ("reset-before-headers", "connection"),
        ("reset-in-body", "connection"),
        ("hang-before-headers", "timeout"),
        ("html", "function"),
        ("empty-204", "http_204"),
        ("gzip-cut", "encoding"),
        ("large", "too_large"),
        ("redirect-self-302", "redirect"),
    ],
)
def test_F5b_what_the_tutorials_function_swallows_is_a_failure_all_the_same(
    faulty_site, scenario, kind
):
    """Nothing becomes missing that the site did not say is missing."""
    crawl = crawl_with(tutorial_function(faulty_site.url(scenario)))
    assert crawl.kinds == {SONG: kind}


@pytest.mark.parametrize("scenario", ["status:500@1", "reset-before-headers@1", "json-cut@1"])
def test_F5b_what_the_tutorials_function_swallows_is_asked_again(faulty_site, scenario):
    """And found, when the site has recovered."""
    crawl = crawl_with(tutorial_function(faulty_site.url(scenario)), policy=RETRYING)
    assert crawl.outcomes == {SONG: "found"}
    assert crawl.records[SONG].attempts == 2


def test_F5b_a_429_that_is_swallowed_still_holds_back_everyone(faulty_site):
    """The shared pause begins, and every number is found after it."""
    numbers = [num for num in range(1, 41) if expected_info(num)]
    function = tutorial_function(faulty_site.url("429:1~0.2"))
    crawl = crawl_with(function, numbers, policy=RETRYING)
    assert crawl.outcomes == dict.fromkeys(numbers, "found")
    assert faulty_site.too_early(1.0) == []
    assert crawl.frontier.tally.kinds["http_429"] >= 1


def test_F5b_a_pause_held_back_inside_a_swallowing_function_costs_no_attempt(faulty_site):
    """`except: pass` also swallows our holding back: the number is put back all the same."""
    function = tutorial_function(faulty_site.url("right"))
    limiter, calls = RateLimiter(0), []

    def pausing(session, song_num, song_urls):
        calls.append(song_num)
        if len(calls) == 1:
            limiter.hold(time.monotonic() + 0.3, time.monotonic())
        function(session, song_num, song_urls)

    crawl = crawl_with(pausing, rate_limiter=limiter)
    assert calls == [SONG, SONG]
    assert crawl.outcomes == {SONG: "found"}
    assert crawl.frontier.tally.requests == 1 == len(faulty_site.requests)


def test_F5b_a_401_that_is_swallowed_ends_the_run(faulty_site):
    """The function says nothing, but the session has seen it."""
    crawl = crawl_with(tutorial_function(faulty_site.url("status:401")), range(1, 1001))
    assert crawl.frontier.stopped_by == "unauthorized"
    assert len(faulty_site.requests) <= 8


def test_F5b_a_function_that_ignores_the_session_is_told_so(demo_site):
    """`requests.get` knows neither deadline nor pause; where it takes nothing, the error says why."""
    crawl = crawl_with(tutorial_function(demo_site.base_url, requests.get))
    assert crawl.kinds == {SONG: "function"}
    assert "session.get" in crawl.records[SONG].detail
    assert "requests.get" in crawl.records[SONG].detail


# --- F5: functions that misbehave ----------------------------------------------------------------


def raises(session, song_num, song_urls):
    """Raise."""
    raise KeyError("title")


def exits(session, song_num, song_urls):
    """Try to end the process."""
    sys.exit(3)


def interrupts(session, song_num, song_urls):
    """Raise what only Ctrl-C should."""
    raise KeyboardInterrupt


def returns_at_once(session, song_num, song_urls):
    """Do nothing."""


class RudeError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no")


def raises_rudely(session, song_num, song_urls):
    """Raise an error that raises."""
    raise RudeError


class Rude:
    """An object that can be neither compared nor shown."""

    def __eq__(self, other):
        raise RuntimeError("no")

    def __repr__(self):
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def appends(*entries):
    """Make a function that appends these, its number standing for `...` in them."""

    def function(session, song_num, song_urls):
        for entry in entries:
            is_tuple = isinstance(entry, tuple)
            song_urls.append(
                tuple(song_num if part is ... else part for part in entry) if is_tuple else entry
            )

    return function


@pytest.mark.parametrize(
    "function",
    [
        raises,
        exits,
        interrupts,
        returns_at_once,
        raises_rudely,
        appends("a string"),
        appends(None),
        appends((...,)),
        appends((SONG + 1, "another's")),
        appends((Rude(), "x")),
        appends(Rude()),
        appends((..., object())),
        appends((..., 10**5000)),
        appends((..., {1: {2, 3}}), "and a string"),
    ],
    ids=lambda value: getattr(value, "__name__", "value"),
)
def test_F5_a_function_that_misbehaves_costs_its_own_number(demo_site, function):
    """One number fails with a line on why; the others are found, and the run ends as done."""
    good = tutorial_function(demo_site.base_url)

    def mixed(session, song_num, song_urls):
        session.headers["Authorization"] = f"Bearer {demo_site.token}"
        (function if song_num == SONG else good)(session, song_num, song_urls)

    numbers = [num for num in range(1, 12) if expected_info(num)]
    crawl = crawl_with(mixed, numbers)
    assert crawl.kinds == {num: "function" if num == SONG else None for num in numbers}
    assert crawl.records[SONG].detail
    assert crawl.frontier.stopped_by == "done"


@pytest.mark.parametrize(
    ("entries", "info"),
    [
        ([(..., {"a": 1})], {"a": 1}),
        ([(..., None)], None),
        ([(..., 1, 2, 3)], [1, 2, 3]),
        ([(..., 1), (..., 2)], [1, 2]),
        ([(..., 1, 2), (..., 3, 4)], [[1, 2], [3, 4]]),
        ([(..., "\ud800")], "\ud800"),
    ],
)
def test_F5_what_is_appended_is_the_info(entries, info):
    """A pair's second half, a longer tuple's rest as a list, several tuples as a list of these."""
    crawl = crawl_with(appends(*entries))
    assert crawl.outcomes == {SONG: "found"}
    assert crawl.records[SONG].info == info
    assert len(crawl.results) == len(entries)


def test_F5e_any_objects_may_be_appended_where_nothing_is_stored():
    """Without a store the tuples go to the caller's list as they are."""
    made = object()
    results = execute_async_event_loop([SONG], function=appends((..., made)), rate=0)
    assert results == [(SONG, made)]


@pytest.mark.parametrize("item", ["a string", ("a", "tuple"), 3.5, None, frozenset({1})])
def test_F5e_items_may_be_anything(item):
    """A function of one's own takes what its list holds."""
    results = execute_async_event_loop([item], function=appends((..., 1)), rate=0)
    assert results == [(item, 1)]


def test_F5_missing_is_said_with_an_exception():
    """`crawler.Missing` makes a number missing, whatever was appended before; nothing was sent."""

    def function(session, song_num, song_urls):
        song_urls.append((song_num, "half"))
        raise Missing

    crawl = crawl_with(function, policy=RETRYING)
    assert crawl.outcomes == {SONG: "missing"}
    assert crawl.results == []
    assert (crawl.frontier.tally.missing, crawl.frontier.tally.requests) == (1, 0)


def test_F5_an_error_of_a_page_keeps_its_kind(faulty_site):
    """A function may say itself what is wrong with a page."""

    def function(session, song_num, song_urls):
        session.get(f"{faulty_site.url('right')}/songs/{song_num}")
        raise PageError("schema", "no title")

    crawl = crawl_with(function)
    assert crawl.kinds == {SONG: "schema"}
    assert crawl.records[SONG].detail == "no title"


def test_F5_an_exception_after_a_404_is_about_a_missing_page(faulty_site):
    """`raise_for_status` is how most functions say it."""

    def function(session, song_num, song_urls):
        answer = session.get(f"{faulty_site.url('right')}/songs/{song_num}")
        answer.raise_for_status()
        song_urls.append((song_num, answer.json()["response"]["song"]["title"]))

    crawl = crawl_with(function, [SONG, GONE])
    assert crawl.outcomes == {SONG: "found", GONE: "missing"}


async def is_async(session, song_num, song_urls):
    """Append as anybody would, if it ran."""
    song_urls.append((song_num, 1))


def is_generator(session, song_num, song_urls):
    """Yield what should be appended."""
    yield (song_num, 1)


async def is_both(session, song_num, song_urls):
    """Yield asynchronously."""
    yield (song_num, 1)


@pytest.mark.parametrize("function", [is_async, is_generator, is_both])
def test_F5_a_function_that_a_call_does_not_run_is_told_what_to_write(function):
    """Async functions and generators alike, also behind a partial; Python need not warn."""
    for each in (function, functools.partial(function)):
        crawl = crawl_with(each)
        assert crawl.kinds == {SONG: "function"}
        assert "must be a plain function" in crawl.records[SONG].detail


@pytest.mark.parametrize("wrap", [tuple, list, dict], ids=lambda wrap: wrap.__name__)
def test_F5d_a_function_that_returns_what_it_found_is_told_to_append_it(faulty_site, wrap):
    """The run ends within ten requests, and a 404 is still one."""

    def function(session, num, _results):
        page = session.get(f"{faulty_site.url('right')}/songs/{num}")
        return wrap([(num, page.json()), ("and", "more")])

    assert crawl_with(function, [GONE]).outcomes == {GONE: "missing"}
    crawl = crawl_with(function, range(1, 200))
    assert crawl.frontier.stopped_by == "circuit"
    assert "must append what it found" in crawl.frontier.stop_detail
    assert crawl.frontier.tally.requests <= 10


def raises_while_handling(page):
    """Raise one error because of another."""
    try:
        page.title  # noqa: B018
    except AttributeError:
        raise ValueError(len(page)) from None


def raises_a_group(page):
    """Raise an error that holds others."""
    try:
        raises_while_handling(page)
    except ValueError as error:
        raise ExceptionGroup("several", [error]) from None


@pytest.mark.parametrize("fail", [raises_while_handling, raises_a_group])
def test_F5_what_a_function_held_when_it_raised_is_let_go_at_once(fail):
    """Not by the collector some time later, even where one error led to another."""

    class Page(list):
        """A list of which one can tell whether it is still there."""

    held = []

    def function(session, song_num, song_urls):
        page = Page()
        held.append(weakref.ref(page))
        fail(page)

    gc.disable()
    try:
        crawl_with(function)
        assert [page() for page in held] == [None]
    finally:
        gc.enable()


def test_F5_requests_beyond_the_first_are_counted_and_paced(faulty_site):
    """A function that asks three times pays for three."""

    def function(session, song_num, song_urls):
        for _ in range(3):
            answer = session.get(f"{faulty_site.url('right')}/songs/{SONG}")
        song_urls.append((song_num, answer.status_code))

    began = time.monotonic()
    crawl = crawl_with(function, range(10), rate=50)
    assert crawl.frontier.tally.requests == 30 == len(faulty_site.requests)
    assert time.monotonic() - began > 0.4


def test_F5_a_session_that_a_function_has_kept_makes_nobody_else_missing(faulty_site):
    """What is asked with it in another call counts for that call alone."""
    absent = next(num for num in range(1, 100) if expected_info(num) is None)
    kept, has_asked = [], threading.Event()

    def function(session, num, results):
        if num == absent:
            while not kept:
                time.sleep(0.01)
        else:
            kept.append(session)
            has_asked.wait(5)
        page = kept[0].get(f"{faulty_site.url('right')}/songs/{num}")
        if num == absent:
            has_asked.set()
        results.append((num, page.json()["response"]["song"]["title"]))

    crawl = crawl_with(function, (SONG, absent))
    assert crawl.outcomes == {SONG: "found", absent: "missing"}


def test_F5_lists_shared_by_all_calls_do_no_harm(demo_site):
    """What a function writes elsewhere is its own affair; its number has what it appended."""
    shared = []

    def function(session, song_num, song_urls):
        shared.append(song_num)
        shared.sort()
        song_urls.append((song_num, len(shared) > 0))

    crawl = crawl_with(function, range(200), connections=16)
    assert sorted(shared) == list(range(200))
    assert set(crawl.outcomes.values()) == {"found"}


def test_F5_a_function_that_never_returns_costs_its_number_and_no_more():
    """Its lane is replaced, the others go on, and the run ends."""
    release = threading.Event()

    def function(session, song_num, song_urls):
        if song_num == SONG:
            release.wait(30)
        song_urls.append((song_num, 1))

    try:
        policy = Policy(attempt_seconds=0.3, max_attempts=3, backoff_seconds=0.01)
        crawl = crawl_with(function, range(6), connections=1, policy=policy)
        assert crawl.kinds == {num: "timeout" if num == SONG else None for num in range(6)}
        assert "stuck" in crawl.records[SONG].detail
        assert crawl.frontier.stopped_by == "done"
    finally:
        release.set()


def test_F5_a_function_that_comes_back_late_sends_and_changes_nothing(demo_site):
    """Its number is settled as failed by then, and its lane has been replaced."""
    came_back = threading.Event()

    def function(session, song_num, song_urls):
        if song_num == SONG:
            time.sleep(1.5)
            try:
                session.get(f"{demo_site.base_url}/songs/{song_num}")
            finally:
                came_back.set()
        elif song_num > SONG:
            time.sleep(0.4)  # the run is still under way when the late one comes back
        song_urls.append((song_num, threading.get_ident()))

    policy = Policy(attempt_seconds=0.5, max_attempts=1)
    crawl = crawl_with(function, range(1, 10), connections=1, policy=policy)
    assert came_back.wait(5)
    assert crawl.kinds[SONG] == "timeout"
    assert len(crawl.records) == 9
    assert demo_site.stats()["requests"] == 0
    assert len({info for num, info in crawl.results if num > SONG}) == 1


def test_F5_a_process_does_not_wait_for_a_function_that_never_returns():
    """The script ends although a lane is stuck for ever."""
    code = """
        import threading, time
        from crawler import execute_async_event_loop
        from crawler.frontier.frontier import Frontier
        from crawler.frontier.work import Policy
        def function(session, song_num, song_urls):
            if song_num == 1:
                threading.Event().wait()
            song_urls.append((song_num, 1))
        frontier = Frontier(Policy(attempt_seconds=0.2, max_attempts=1))
        print(execute_async_event_loop(range(3), function=function, frontier=frontier))
    """
    assert run_python(code, seconds=20) == "[(0, 1), (2, 1)]\n"


def test_G3_a_function_that_tells_what_it_sent_is_blotted_out(faulty_site):
    """Its exception may hold the page, and the page our header: neither header nor key is told."""

    def function(session, song_num, song_urls):
        url = f"{faulty_site.url('echo:500')}/songs/{song_num}?access_token=key-of-mine"
        answer = session.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        raise ValueError(f"{url}\r\n{answer.text[-300:]}")

    def on_200(session, song_num, song_urls):
        url = f"{faulty_site.url('right')}/songs/{song_num}?access_token=key-of-mine"
        session.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        raise ValueError(f"{url}\r\nBearer {TOKEN}")

    for each in (function, on_200):
        detail = crawl_with(each).records[SONG].detail
        assert TOKEN not in detail
        assert "key-of-mine" not in detail
        assert "\n" not in detail


# --- B4, B5: what sites do on the wire -----------------------------------------------------------


@contextlib.contextmanager
def raw_site(write):
    """Serve connections at once; `write(num, file)` writes an answer, and says whether to go on."""

    class Handler(socketserver.StreamRequestHandler):
        wbufsize, disable_nagle_algorithm = 0, True

        def handle(self):
            with contextlib.suppress(ConnectionError):
                while asked := self.rfile.readline():
                    while self.rfile.readline() not in (b"\r\n", b""):
                        pass
                    if not write(int(asked.split()[1].rpartition(b"/")[2]), self.wfile):
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def text_of(base_url):
    """Make a function that takes any page's text, and swallows every error."""

    def function(session, song_num, song_urls):
        with contextlib.suppress(Exception):
            answer = session.get(f"{base_url}/songs/{song_num}")
            if answer.status_code == 200:
                song_urls.append((song_num, answer.text))

    return function


def page_of(num, status=b"200 OK"):
    """Write the answer for a number: its page is the number."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%d" % (status, len(str(num)), num)


@pytest.mark.parametrize("final", [b"404 Not Found", b"200 OK"])
@pytest.mark.parametrize("interim", [b"103 Early Hints", b"102 Processing", b"100 Continue"])
def test_B4_an_interim_answer_makes_nobody_else_missing(interim, final):
    """The answer after it is this number's own, and not that of the next on the connection."""

    def write(num, file):
        if num % 10 == SONG:
            file.write(b"HTTP/1.1 %s\r\nLink: </a>; rel=preload\r\n\r\n" % interim)
            time.sleep(0.02)
        file.write(page_of(num, final if num % 10 == SONG else b"200 OK"))
        return True

    numbers = range(1, 41)
    with raw_site(write) as base_url:
        crawl = crawl_with(text_of(base_url), numbers, policy=RETRYING, connections=2)
    gone = [num for num in numbers if num % 10 == SONG and final.startswith(b"404")]
    assert crawl.outcomes == {num: "missing" if num in gone else "found" for num in numbers}
    assert all(info == str(num) for num, info in crawl.results)
    assert crawl.frontier.tally.requests == len(numbers)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"0x1\r\n3\r\n0\r\n\r\n", "protocol"),
        (b"-5\r\n3\r\n0\r\n\r\n", "protocol"),
        (b"\r\n3\r\n0\r\n\r\n", "protocol"),
        (b"1\r\n3xx0\r\n\r\n", "protocol"),
        (b"", "connection"),
        (b"1\r\n3\r\n", "connection"),
        (b"1\r\n3\r\n0", "connection"),
        (b"1\r\n3\r\n0\r\n", "connection"),
        (b"1\r\n3\r\n0\r\nX-Trailer", "connection"),
        (b"1\r\n3\r\n0\r\nX-Trailer: 1\r\n", "connection"),
    ],
)
def test_B5_chunks_that_are_broken_or_cut_are_asked_for_again(body, kind):
    """They are the site's failure and not step 1's, and nothing is found in them."""
    asked = []
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    def write(num, file):
        asked.append(num)
        file.write(head + body if len(asked) == 1 else page_of(num))
        return False

    with raw_site(write) as base_url:
        crawl = crawl_with(text_of(base_url), policy=RETRYING)
    assert crawl.results == [(SONG, str(SONG))]
    assert crawl.frontier.tally.kinds == {kind: 1}


# --- Lanes ---------------------------------------------------------------------------------------


def test_there_are_as_many_lanes_as_connections():
    """A hundred functions run at once where a hundred connections are allowed, once one went well."""
    all_there = threading.Barrier(100)

    def function(session, song_num, song_urls):
        if song_num:
            all_there.wait(10)
        song_urls.append((song_num, 1))

    crawl = crawl_with(function, range(101), connections=100, policy=Policy(max_attempts=1))
    assert set(crawl.outcomes.values()) == {"found"}


def test_a_run_that_ends_early_says_why(faulty_site):
    """Where no frontier was given, there is an exception, and the results so far are kept."""
    results = []
    function = tutorial_function(faulty_site.url("status:403!20"))
    with pytest.raises(StoppedError) as caught:
        execute_async_event_loop(range(1, 1001), results, function=function, rate=0, connections=2)
    assert caught.value.stopped_by == "unauthorized"
    assert 10 <= len(results) <= 20
