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
    ],
    ids=str,
)  # fmt: skip
def test_D3b_each_way_is_understood(headers, limit, window, remaining, reset):
    """Seconds and moments are told apart; what is past, beyond a day or nonsense is ignored."""
    assert read(headers) == (limit, window, remaining, reset)


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


def test_D3b_a_quota_is_told_as_people_say_it():
    """With the window's name where it has one."""
    announced = read({"x-ratelimit-limit": "60"})
    assert announced is not None
    assert announced.in_words(None) == "60 a minute"
    assert announced.in_words(3600.0) == "60 an hour"
    assert announced.in_words(45.0) == "60 in 45 s"


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
