"""What sites announce of their limits, in all the ways they do."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.frontier.rate_limiter import read_announced

NOON = 1_795_348_800.0
OWN = {"limit": "X-Discogs-Ratelimit", "remaining": "X-Discogs-Ratelimit-Remaining"}


def read(headers, own_names=None):
    """Read an answer's headers at noon."""
    return read_announced(headers, own_names or {}, time_of_day=NOON)


@pytest.mark.parametrize(
    ("headers", "limit", "window", "remaining", "reset"),
    [
        ({"ratelimit": '"default";r=50;t=30'}, None, None, 50, 30),
        (
            {"ratelimit": '"a";r=0;t=9', "ratelimit-policy": '"a";q=100;w=60'}, 100, 60, 0, 9,
        ),
        ({"ratelimit": "limit=100, remaining=7, reset=50"}, 100, None, 7, 50),
        ({"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "5"}, 100, 60, 5, None),
        ({"ratelimit-policy": "100;w=60", "ratelimit-remaining": "5"}, 100, 60, 5, None),
        (
            {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "59", "x-ratelimit-reset": "58"},
            60, None, 59, 58,
        ),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "12"}, None, None, 0, 12),
        ({"x-ratelimit-reset": str(int(NOON) + 20)}, None, None, None, 21),
        ({"x-ratelimit-reset": str((int(NOON) + 20) * 1000)}, None, None, None, 21),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": str(int(NOON) - 20)}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": str(int(NOON) + 90_000)}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "90000"}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "soon"}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "-5"}, 60, None, None, None),
        ({"x-ratelimit-reset": "0"}, None, None, None, 0),
        ({"x-ratelimit-reset": "86400"}, None, None, None, 86_400),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "86400.5"}, 60, None, None, None),
        ({"x-ratelimit-reset": "86399.5"}, None, None, None, 86_399.5),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": str(int(NOON))}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": str(int(NOON) - 1)}, 60, None, None, None),
    ],
    ids=str,
)  # fmt: skip
def test_D3b_each_way_is_understood(headers, limit, window, remaining, reset):
    """Seconds and moments are told apart; what is past, beyond a day or nonsense is ignored."""
    assert read(headers) == (limit, window, remaining, reset)


@pytest.mark.parametrize(
    ("reset", "at", "seconds"),
    [("999999999", 999_999_990.0, None), ("1000000000", 999_999_990.0, 11), ("1000000000000", 999_999_990.0, 11)],
)  # fmt: skip
def test_D3b_a_moment_is_told_from_seconds_by_its_size(reset, at, seconds):
    """From 10^9 on it is a moment, from 10^12 on in thousandths of a second."""
    announced = read_announced({"x-ratelimit-reset": reset}, {}, time_of_day=at)
    assert announced is not None
    assert announced.reset_seconds == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-remaining": "1", "x-ratelimit-reset": "12"}, 0.0),
        ({"x-ratelimit-remaining": "0"}, 0.0),
        ({"x-ratelimit-reset": "12"}, 0.0),
    ],
    ids=str,
)
def test_D3b_all_wait_until_the_reset_where_nothing_is_left(headers, seconds):
    """Only where the site says both."""
    announced = read(headers)
    assert announced is not None
    assert announced.pause_seconds == seconds


def test_D3b_names_that_a_source_declares_come_first():
    """In whatever case it writes them."""
    headers = {"x-discogs-ratelimit": "60", "x-discogs-ratelimit-remaining": "3"}
    assert read(headers) is None
    assert read(headers | {"x-ratelimit-remaining": "9"}, OWN) == (60, None, 3, None)


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/html"}, {"ratelimit": ""}])
def test_D3b_an_answer_may_announce_nothing(headers):
    """Then nothing follows."""
    assert read(headers) is None


@pytest.mark.parametrize(
    ("headers", "known", "rate"),
    [
        ({"x-ratelimit-limit": "60"}, None, 1.0),
        ({"x-ratelimit-limit": "3600"}, 3600.0, 1.0),
        ({"ratelimit-limit": "100;w=10"}, None, 10.0),
        ({"x-ratelimit-limit": "60", "x-ratelimit-remaining": "10", "x-ratelimit-reset": "40"}, None, 0.25),
        ({"x-ratelimit-remaining": "10", "x-ratelimit-reset": "5"}, None, 2.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "5"}, None, math.inf),
    ],
    ids=str,
)  # fmt: skip
def test_D3b_a_quota_becomes_a_pace(headers, known, rate):
    """Per window, or what is left until the reset, whichever is less; a minute where none is named."""
    announced = read(headers)
    assert announced is not None
    assert announced.rate(known) == rate


@pytest.mark.parametrize(("left", "is_left"), [("10", True), ("53", True), ("54", False)])
def test_D3b_what_is_left_counts_where_it_allows_clearly_less_than_the_quota(left, is_left):
    """By a tenth; the hair by which the two usually differ changes no pace."""
    names = ("limit", "remaining", "reset")
    values = ("60", left, "60")
    announced = read(dict(zip([f"x-ratelimit-{each}" for each in names], values, strict=True)))
    assert announced is not None
    tightest = announced.tightest(None)
    assert (tightest.limit, tightest.remaining) == ((None, int(left)) if is_left else (60, None))
    assert announced.tightest(120.0).limit == (60 if left != "10" else None)


def test_D3b_a_quota_is_told_as_people_say_it():
    """With the window's name where it has one."""
    announced = read({"x-ratelimit-limit": "60"})
    assert announced is not None
    assert announced.in_words(None) == "60 a minute"
    assert announced.in_words(3600.0) == "60 an hour"
    assert announced.in_words(45.0) == "60 in 45 s"
    windows = {1: "a second", 1.04: "a second", 57: "a minute", 86_400: "a day", 2: "in 2 s"}
    windows |= {0.5: "in 0 s", 56.5: "in 56 s", 63.0: "a minute", 63.04: "in 63 s", 64: "in 64 s"}
    assert {each: announced.in_words(each) for each in windows} == {
        each: f"60 {words}" for each, words in windows.items()
    }
    left = read({"x-ratelimit-remaining": "7", "x-ratelimit-reset": "12"})
    none = read({"x-ratelimit-remaining": "0"})
    assert left is not None
    assert none is not None
    assert (left.in_words(None), none.in_words(None)) == ("7 more in 12 s", "0 more in 60 s")


@given(
    st.dictionaries(
        st.sampled_from(
            ["ratelimit", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-reset"]
        ),
        st.text() | st.from_regex(r"[a-z]?;?=?[0-9]{0,30}[;,] ?[rtqw]?=?[0-9]{0,20}"),
    )
)
def test_D3b_no_text_raises(headers):
    """Anything gives numbers from 0 on, or nothing."""
    announced = read(headers)
    if announced is not None:
        assert announced.rate(None) >= 0
        assert 0 <= announced.pause_seconds <= 86_400
