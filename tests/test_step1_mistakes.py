"""F5d: a step 1 function with a mistake of its own, met by crawls over the wire."""

import pytest

from crawler.frontier.work import Policy
from tests.crawls import QUICK, RETRYING, Crawl
from tests.records import expected_info

SONG = 3

ADDRESS = [""]
"""Of the site; functions at the top of a file take it from here."""


def misspelt(session, song_num, results):
    """Use a name that does not exist, after asking."""
    page = session.get(f"{ADDRESS[0]}/songs/{song_num}").json()
    results.append((song_num, pgae))  # type: ignore[name-defined]  # noqa: F821 - the mistake
    return page


def misspelt_at_once(_session, _song_num, results):
    """Use a name that does not exist, before asking."""
    results.append(nothing_of_this_name)  # type: ignore[name-defined]  # noqa: F821 - the mistake


def untupled(session, song_num, results):
    """Append what is no tuple."""
    results.append(session.get(f"{ADDRESS[0]}/songs/{song_num}").json()["response"])


def misnumbered(session, song_num, results):
    """Append a tuple about another number."""
    results.append((song_num + 1, session.get(f"{ADDRESS[0]}/songs/{song_num}").text))


def short_of_a_list(_session, song_num):
    """Take one argument fewer than step 1 gets."""


async def asynchronous(session, song_num, results):
    """Be what calling does not run."""
    results.append((song_num, session.get(f"{ADDRESS[0]}/songs/{song_num}").text))


def generating(session, song_num, results):
    """Be what calling does not run, either."""
    yield results.append((song_num, session))


@pytest.mark.parametrize(
    ("function", "line", "text"),
    [
        (misspelt, 2, "pgae"),
        (misspelt_at_once, 1, "nothing_of_this_name"),
        (untupled, 0, "append a tuple"),
        (misnumbered, 0, "append a tuple"),
        (short_of_a_list, 0, "takes 2 positional arguments but 3 were given"),
        (asynchronous, 0, "plain function"),
        (generating, 0, "plain function"),
    ],
)
@pytest.mark.parametrize("connections", [1, 64])
def test_F5d_the_same_mistake_five_times_running_ends_the_run(
    function, line, text, connections, faulty_site
):
    """Within ten requests, with file, line and what to write; the site is not blamed."""
    ADDRESS[0] = faulty_site.url("right")
    numbers = [num for num in range(1, 2000) if expected_info(num)]
    crawl = Crawl("", numbers, policy=RETRYING, connections=connections, function=function)
    assert len(faulty_site.requests) <= 10
    detail = crawl.frontier.stop_detail
    place = function.__code__.co_firstlineno + (line + 1 if line else 0)
    assert crawl.frontier.stopped_by == "circuit"
    assert f"{__file__}, line {place}: " in detail
    assert text in detail


def test_F5d_a_page_that_a_function_cannot_read_costs_that_page(faulty_site):
    """Once something went well the same error counts once a number: the run goes on."""

    def picky(session, song_num, results):
        page = session.get(f"{faulty_site.url('right')}/songs/{song_num}").json()
        if song_num == SONG:
            raise KeyError("title")
        results.append((song_num, page["response"]["song"]["title"]))

    numbers = [num for num in range(1, 40) if expected_info(num)]
    policy = Policy(attempt_seconds=1.0, max_attempts=8, backoff_seconds=0.001)
    crawl = Crawl("", numbers, policy=policy, connections=1, function=picky)
    assert crawl.frontier.stopped_by == "done"
    assert [num for num, what in crawl.outcomes.items() if what == "failed"] == [SONG]


def test_F5d_what_the_site_sends_is_no_mistake_of_the_function(faulty_site):
    """An error from a library that reads a broken page, or a refused status, blames nobody's line."""

    def careless(session, song_num, results):
        results.append(
            (song_num, session.get(f"{faulty_site.url('html')}/songs/{song_num}").json())
        )

    crawl = Crawl("", range(1, 8), policy=QUICK, connections=1, function=careless)
    assert crawl.frontier.stopped_by == "done"
    assert set(crawl.outcomes.values()) == {"failed"}
