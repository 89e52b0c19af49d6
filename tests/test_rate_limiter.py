"""The pace: what is granted in simulated seconds, what a 429 does to it, and what sites announce."""

import math
import random
import sys
import threading
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.frontier.rate_limiter import RateLimiter, read_announced
from tests.simulation import Clock, Crawl, most_in_a_second, run_together


def grants(
    rate_limiter: RateLimiter, seconds: float, lateness: float, *, seed: int = 1
) -> list[float]:
    """Take one attempt at a time as a lane does that wakes up to `lateness` seconds late."""
    now, chance, starts = 1000.0, random.Random(seed), []
    end = now + seconds
    while now < end:
        granted, wait = rate_limiter.grant(1, now)
        starts += [now] * granted
        now += wait + chance.uniform(0.0, lateness)
    return starts


def granted(rate_limiter: RateLimiter, wanted: int, now: float) -> tuple[int, float]:
    """Return what is granted, and when to ask again, to the microsecond."""
    count, wait = rate_limiter.grant(wanted, now)
    return count, round(wait, 6)


@pytest.mark.parametrize("lateness", [0.0, 0.002, 0.008])
def test_D8_the_pace_holds_for_a_minute(lateness):
    """At 100 a second the mean is within 1 %, and no second holds more than 105."""
    starts = grants(RateLimiter(100), 60, lateness)
    assert 0.99 * 6000 <= len(starts) <= 6001
    assert most_in_a_second(starts) <= 105


@pytest.mark.parametrize("rate", [0.5, 1, 3, 10, 20, 33.3, 40, 49.9, 50, 60, 100, 333, 1000])
def test_any_rate_is_held_with_late_lanes(rate):
    """The mean is within half a percent; no second holds 5 %, or where that is less one attempt, too many."""
    starts = grants(RateLimiter(rate), 60, min(0.01, 0.3 / rate))
    assert 0.995 * 60 * rate - 1 <= len(starts) <= 60 * rate + 1
    assert most_in_a_second(starts) <= max(1.05 * rate, rate + 1)


@pytest.mark.parametrize(
    ("rate", "own", "most", "another"),
    [(50, None, None, 50), (50, None, 20, 20), (50, None, 80, 50), (50, 10, None, 50), (0, None, None, 0), (0, None, 7, 7)],
)  # fmt: skip
def test_another_host_has_the_shared_rate_or_its_own_lower_one(rate, own, most, another):
    """What lowers the pace of the first host binds no other."""
    first = RateLimiter(rate)
    if own is not None:
        first = RateLimiter(own, shared=first)
    assert first.for_another_host(most).rate == another


def test_no_limit_grants_all_at_once():
    """At rate 0 everything wanted is granted, and nothing has to be waited for."""
    assert RateLimiter(0).grant(512, 5.0) == (512, 0.0)


@pytest.mark.parametrize("rate", [1, 10, 20, 50, 100, 1000])
@pytest.mark.parametrize("slept", [1.0, 3600.0, 1e7])
def test_D7_no_burst_follows_a_sleep(rate, slept):
    """However long nobody asked, the next second holds no more than any other."""
    rate_limiter = RateLimiter(rate)
    rate_limiter.grant(1, 10.0)
    now, starts = 10.0 + slept, []
    end = now + 3
    while now < end:
        granted, wait = rate_limiter.grant(1000, now)
        starts += [now] * granted
        now += max(wait, 1e-4)
    assert most_in_a_second(starts) <= max(1.05 * rate, rate + 1)


def test_an_even_pace_has_the_interval_of_its_rate():
    """Whoever asks again when told is granted one each time, and nothing before."""
    limiter = RateLimiter(100)
    assert granted(limiter, 1, 0.0) == (1, 0.01)
    assert granted(limiter, 1, 0.004) == (0, 0.006)
    assert granted(limiter, 1, 0.01) == (1, 0.01)


@pytest.mark.parametrize(
    ("rate", "wait"), [(1, 1.0), (4, 0.2), (20, 0.025), (60, 0.2 / 60), (100, 0.0)]
)
def test_how_much_may_start_at_once_after_a_rest_grows_with_the_rate(rate, wait):
    """One attempt, and a twentieth of the rate up to half an attempt; from 50 on 3 % of the rate."""
    limiter = RateLimiter(rate)
    limiter.grant(1, 0.0)
    assert granted(limiter, 1, 100.0) == (1, round(wait, 6))


def test_a_slow_pace_makes_no_lateness_good():
    """At one a second a rest is followed by whole seconds again."""
    limiter = RateLimiter(1)
    limiter.grant(1, 0.0)
    assert limiter.grant(1, 100.0)[0] == 1
    assert limiter.grant(1, 100.95)[0] == 0
    assert limiter.grant(1, 101.0)[0] == 1


def test_a_clock_that_another_thread_read_a_moment_before_costs_nothing():
    """What was granted by a later time is granted all the same."""
    limiter = RateLimiter(100)
    limiter.grant(1, 10.0)
    assert limiter.grant(5, 10.025)[0] == 2
    assert granted(limiter, 1, 9.99) == (0, 0.005)


def test_lateness_is_made_good_only_up_to_half_a_second():
    """After a stall of ten seconds at most half a second's attempts are caught up with."""
    rate_limiter = RateLimiter(100)
    rate_limiter.grant(1, 0.0)
    now, count = 10.0, 0
    while now < 110.0:
        granted, wait = rate_limiter.grant(1, now)
        count += granted
        now += wait
    assert 100 * 100 + 45 <= count <= 100 * 100 + 51


def test_a_wait_that_floats_shorten_still_ends():
    """Whoever waits exactly as long as told gets an attempt, at any time of the clock."""
    for begin in (0.0, 1e3, 1e6, 1e7):
        rate_limiter, now, idle = RateLimiter(3), begin, 0
        for _ in range(200):
            granted, wait = rate_limiter.grant(1, now)
            idle = 0 if granted else idle + 1
            assert idle <= 2
            now += wait


def test_nothing_is_granted_in_a_pause_nor_made_good_after_it():
    """A pause ends when it was said to end, and leaves no debt to the site."""
    rate_limiter = RateLimiter(100)
    rate_limiter.grant(1, 0.0)
    assert rate_limiter.hold(60.0, 0.0)
    granted, wait = rate_limiter.grant(5, 59.9)
    assert (granted, round(wait, 6)) == (0, 0.1)
    now, starts = 60.0, []
    while now < 62:
        granted, wait = rate_limiter.grant(100, now)
        starts += [now] * granted
        now += wait
    assert len(starts) <= 201


def test_a_pause_is_lengthened_but_never_shortened():
    """Of two pauses the later end counts; time held back is counted once."""
    rate_limiter = RateLimiter(100)
    assert rate_limiter.hold(10.0, 0.0)
    assert not rate_limiter.hold(5.0, 1.0)
    assert not rate_limiter.hold(10.0, 1.0)
    assert rate_limiter.hold(12.0, 1.0)
    assert (rate_limiter.resume_at, rate_limiter.held_seconds) == (12.0, 12.0)
    assert not rate_limiter.hold(20.0, 20.0)


def test_charged_requests_are_paid_for_in_the_same_second():
    """What a transport sends on its own comes off the pace, with no second above it."""
    rate_limiter = RateLimiter(100)
    rate_limiter.grant(1, 0.0)
    granted, _ = rate_limiter.grant(100, 100.0)  # late: half a second may be made good
    rate_limiter.charge(10)
    starts, now = [100.0] * (granted + 10), 100.0
    while now < 101:
        granted, wait = rate_limiter.grant(100, now)
        starts += [now] * granted
        now += wait
    assert most_in_a_second(starts) <= 105


def test_a_debt_is_waited_for():
    """Charged requests come off what is granted next, and are no grants less than none."""
    limiter = RateLimiter(100)
    limiter.grant(1, 0.0)
    limiter.charge(10)
    assert granted(limiter, 1, 0.0) == (0, 0.11)


def test_a_debt_made_without_a_limit_never_comes_due():
    """At rate 0 charged requests cost nothing, not even when the pace is cut afterwards."""
    rate_limiter = RateLimiter(0)
    rate_limiter.grant(64, 0.0)
    rate_limiter.charge(10_000)
    rate_limiter.slow_down(0.0, 0.5)
    assert rate_limiter.grant(1, 0.6)[0] == 1


def test_a_grant_given_back_is_granted_again():
    """Giving back leaves the pace as if nothing had been granted."""
    rate_limiter = RateLimiter(1)
    rate_limiter.grant(1, 0.0)
    rate_limiter.give_back(1)
    assert rate_limiter.grant(1, 0.0)[0] == 1


def test_one_cut_for_all_that_was_under_way():
    """Sixty-four 429s to attempts sent before the cut halve the pace once; a later one again."""
    rate_limiter = RateLimiter(100)
    for late in range(64):
        rate_limiter.slow_down(sent_at=1.0, now=2.0 + late / 100)
    assert rate_limiter.limit == 50
    rate_limiter.slow_down(sent_at=2.0, now=2.7)  # on its way when the pace was cut
    assert rate_limiter.limit == 50
    rate_limiter.slow_down(sent_at=2.5, now=3.0)
    assert rate_limiter.limit == 25


def test_nothing_is_made_good_after_a_cut():
    """One attempt starts at once, however long nobody had asked."""
    limiter = RateLimiter(100)
    limiter.grant(1, 0.0)
    assert limiter.grant(1, 9.0)[0] == 1
    limiter.slow_down(8.5, 9.0)
    assert limiter.grant(10, 9.0)[0] == 1


def test_a_tenth_of_the_rate_comes_back_in_each_second_of_good_answers():
    """Answers that come in late, or after a long silence, win back no more than a second's share."""
    limiter = RateLimiter(100)
    limiter.slow_down(0.0, 2.0)
    limits = []
    for now in (1.5, 2.5, 2.5, 60.0, 61.0):
        limiter.recover(now)
        limits.append(limiter.limit)
    assert limits == pytest.approx([50, 55, 55, 65, 75])


def test_the_pace_is_never_cut_below_one_a_second():
    """However often it is cut, one attempt a second is left; a pace below that is not cut."""
    two = RateLimiter(2)
    two.slow_down(0.0, 1.0)
    assert two.limit == 1
    fast, slow = RateLimiter(100), RateLimiter(0.5)
    for now in range(1, 30):
        fast.slow_down(now - 0.5, now)
        slow.slow_down(now - 0.5, now)
    assert (fast.limit, slow.limit) == (1, 0.5)


@pytest.mark.parametrize("rate", [1, 2, 10, 100, 1000, 0])
@pytest.mark.parametrize("cuts", [1, 3, 30])
@pytest.mark.parametrize("latency", [0.05, 2.0])
def test_D6_the_pace_is_back_within_ten_seconds(rate, cuts, latency):
    """From any depth, and at rate 0, good answers win 90 % back within 10 s."""
    rate_limiter, now = RateLimiter(rate), 0.0
    for step in range(3000):
        rate_limiter.grant(1, now + step / 1000)
    before = 1000.0 if rate == 0 else rate
    now = 3.0
    for cut in range(cuts):
        rate_limiter.slow_down(now + cut - 0.5, now + cut)
    now += cuts
    answers, end = deque(), now + 10 + latency
    while now < end:
        granted, wait = rate_limiter.grant(64, now)
        answers.extend([now + latency] * granted)
        now += max(0.01, min(wait, 0.5))
        while answers and answers[0] <= now:
            rate_limiter.recover(answers.popleft())
    assert rate_limiter.limit >= 0.9 * before


def test_without_a_limit_the_cut_is_measured_on_the_pace_that_was():
    """At rate 0 the first 429 halves what was sent in the last second."""
    rate_limiter = RateLimiter(0)
    for step in range(4000):
        rate_limiter.grant(1, step / 400)
    rate_limiter.slow_down(9.9, 10.0)
    assert rate_limiter.limit == pytest.approx(200, rel=0.1)


@pytest.mark.parametrize(
    ("second", "then", "moment", "limit"),
    [
        (11.0, 10, 11.5, 50),  # a hundred in the second before
        (12.0, 10, 12.5, 25),  # fifty a second, over two of them
        (12.0, 100, 12.5, 100),  # the second that has begun counts, where it holds more
        (12.0, 100, 12.05, 500),  # of which a tenth has to be over
        (10.9, 10, 10.9, 61),  # not over yet: 110 in 0.9 s
    ],
)
def test_the_pace_that_was_is_that_of_the_last_second_or_of_the_present_one(
    second, then, moment, limit
):
    """At rate 0 a cut halves whichever is more."""
    limiter = RateLimiter(0)
    limiter.grant(100, 10.0)
    limiter.grant(then, second)
    limiter.slow_down(moment, moment)
    assert limiter.limit == pytest.approx(limit, rel=0.01)


def test_without_a_limit_a_trickle_is_not_cut_and_what_follows_is():
    """A 429 to the first request leaves the pace as it was, and open to be cut later."""
    limiter = RateLimiter(0)
    limiter.grant(1, 0.0)
    limiter.slow_down(0.0, 5.0)
    assert limiter.limit == math.inf
    for step in range(4000):
        limiter.grant(1, 5 + step / 400)
    limiter.slow_down(14.9, 15.0)
    assert limiter.limit == pytest.approx(200, rel=0.1)
    for second in range(15, 40):
        limiter.recover(float(second))
    assert limiter.limit == math.inf


def test_what_was_given_back_is_not_measured():
    """Grants that were not used do not make the measured pace look faster."""
    rate_limiter = RateLimiter(0)
    for step in range(400):
        rate_limiter.grant(64, step / 40)
        rate_limiter.give_back(63)
    rate_limiter.slow_down(9.9, 10.0)
    assert rate_limiter.limit == pytest.approx(20, rel=0.1)


# A pace of one's own beside the shared one.


def test_the_lower_of_two_paces_counts():
    """A run with a rate of its own keeps it, beside a run that takes the rest of the shared one."""
    clock, shared = Clock(), RateLimiter(100)
    slow = Crawl(range(10**6), clock=clock, rate_limiter=RateLimiter(10, shared=shared))
    fast = Crawl(range(10**6), clock=clock, rate_limiter=shared)
    run_together([slow, fast], 60)
    assert len(slow.starts) == pytest.approx(600, rel=0.02)
    assert len(slow.starts) + len(fast.starts) == pytest.approx(6000, rel=0.01)
    assert most_in_a_second(sorted(slow.starts + fast.starts)) <= 105


def test_the_longer_wait_of_two_paces_is_told():
    """What both allow is granted, and asked for again when both will grant."""
    shared = RateLimiter(100)
    own = RateLimiter(1, shared=shared)
    assert granted(own, 1, 0.0) == (1, 1.0)
    assert granted(own, 1, 0.25) == (0, 0.75)
    fast = RateLimiter(1000, shared=RateLimiter(10))
    assert granted(fast, 1, 0.0) == (1, 0.1)


def test_what_the_shared_pace_does_not_grant_is_given_back_to_ones_own():
    """Once the shared one grants again, the own one still has all that was not used."""
    shared = RateLimiter(100)
    own = RateLimiter(1000, shared=shared)
    own.grant(1, 0.0)
    assert own.grant(30, 1.0)[0] == 3
    shared.give_back(100)
    assert own.grant(100, 1.0)[0] == 27


def test_D3b_an_announced_quota_is_divided_and_never_raises_the_pace():
    """Our share of it counts until another is announced; where it is no less than our rate, none."""
    limiter = RateLimiter(100, share=0.5)
    own, fast = RateLimiter(10, shared=limiter), RateLimiter(50, shared=limiter)
    assert (limiter.announced, own.announced) == (0.0, 0.0)
    assert [each.announce(60) for each in (limiter, own, fast)] == [30, 10, 30]
    assert [each.limit for each in (limiter, own, fast)] == [30, 10, 30]
    assert [each.announced for each in (limiter, own, fast)] == [30, 0.0, 30]
    assert (limiter.announce(200), limiter.announced, limiter.limit) == (100, 0.0, 100)
    assert (limiter.announce(400), limiter.announced, limiter.limit) == (100, 0.0, 100)


def test_D3b_without_a_limit_of_ones_own_the_quota_is_the_pace():
    """All of it, where there is one instance."""
    limiter = RateLimiter(0)
    assert RateLimiter(0, shared=limiter).announce(7) == 7
    assert (limiter.announce(7), limiter.announced, limiter.limit) == (7, 7, 7)
    assert granted(limiter, 512, 0.0) == (1, round(1 / 7, 6))


def test_what_the_shared_pace_refuses_costs_nothing_of_ones_own():
    """A lane that the shared pace holds back is told that pace's wait, not a whole own interval."""
    shared = RateLimiter(100)
    own = RateLimiter(1, shared=shared)
    shared.grant(1, 0.0)
    granted, wait = own.grant(1, 0.0)
    assert (granted, round(wait, 6)) == (0, 0.01)
    assert own.grant(1, 0.011)[0] == 1


def test_a_429_halves_the_own_pace_too():
    """A run below the shared pace slows down as well, or a 429 would change nothing."""
    shared = RateLimiter(100)
    own = RateLimiter(10, shared=shared)
    own.slow_down(1.0, 2.0)
    assert (shared.limit, own.limit) == (50, 5)
    for second in range(3, 13):
        own.recover(float(second))
    assert (shared.limit, own.limit) == (100, 10)


def test_A17_two_runs_over_one_pacer_keep_one_pace():
    """Two frontiers that share a rate limiter send together what one would send."""
    clock, shared = Clock(), RateLimiter(100)
    crawls = [
        Crawl(range(10**6), clock=clock, rate_limiter=shared, lateness=0.002, seed=seed)
        for seed in range(2)
    ]
    run_together(crawls, 60)
    starts = sorted(crawls[0].starts + crawls[1].starts)
    assert len(starts) == pytest.approx(6000, rel=0.01)
    assert most_in_a_second(starts) <= 105


def test_pacing_is_safe_in_threads():
    """Eight threads at one rate_limiter are granted no more than its bucket holds."""
    rate_limiter, total, lock = RateLimiter(100), [0], threading.Lock()

    def take() -> None:
        for _ in range(2000):
            granted, _ = rate_limiter.grant(1, 7.0)
            with lock:
                total[0] += granted

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert total[0] == 1


# --- What sites announce ----------------------------------------------------------------------------


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
        ({"x-ratelimit-reset": "2026-11-22T12:00:20Z"}, None, None, None, 21),
        ({"x-ratelimit-reset": "2026-11-22T14:00:20.25+02:00"}, None, None, None, 21.25),
        ({"x-ratelimit-reset": "2026-11-22 12:00:20"}, None, None, None, 21),
        ({"x-ratelimit-reset": "Sun, 22 Nov 2026 12:00:20 GMT"}, None, None, None, 21),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "2026-11-22T11:59:00Z"}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "0001-01-01T00:00:00+14:00"}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "6m0s"}, 60, None, None, None),
        ({"x-ratelimit-limit": "60", "x-ratelimit-reset": "12:30"}, 60, None, None, None),
        ({"x-ratelimit-reset": "1470173023.123", "x-ratelimit-reset-after": "64.57"}, None, None, None, 64.57),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "3"}, None, None, 0, 3),
    ],
    ids=str,
)  # fmt: skip
def test_D3b_each_way_is_understood(headers, limit, window, remaining, reset):
    """Seconds and moments are told apart; what is past, beyond a day or nonsense is ignored."""
    assert read(headers) == (limit, window, remaining, reset)


@pytest.mark.parametrize(
    ("headers", "limit", "window", "remaining", "reset"),
    [
        (
            {"ratelimit": '"burst";r=50;t=30, "day";r=5;t=3600',
             "ratelimit-policy": '"burst";q=100;w=60,"day";q=1000;w=86400'},
            1000, 86_400, 5, 3600,
        ),
        (
            {"ratelimit": '"day";r=900;t=3600, "burst";r=0;t=7',
             "ratelimit-policy": '"burst";q=100;w=60,"day";q=1000;w=86400'},
            100, 60, 0, 7,
        ),
        ({"ratelimit": '"burst";r=50;t=30', "ratelimit-policy": '"burst";q=10;w=1,"hour";q=60;w=3600'}, 60, 3600, None, None),
        ({"ratelimit": '"a";r=50;t=30,"b";r=2;t=30'}, None, None, 2, 30),
        ({"ratelimit": '"default";r=0;t=9', "ratelimit-policy": '"a";q=100;w=60'}, 100, 60, 0, 9),
        ({"ratelimit": '"a";r=0;t=3,"b";r=0;t=30'}, None, None, 0, 30),
        ({"ratelimit-limit": "100, 100;w=60, 1000;w=3600", "ratelimit-remaining": "5"}, 1000, 3600, 5, None),
        ({"ratelimit-limit": "600, 60", "ratelimit-reset": "6"}, 60, None, None, 6),
        ({"ratelimit-limit": "600", "x-ratelimit-limit": "60", "x-ratelimit-remaining": "9"}, 60, None, 9, None),
        ({"ratelimit-limit": "60", "x-ratelimit-limit": "600", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "8"}, 600, None, 0, 8),
    ],
    ids=str,
)  # fmt: skip
def test_D3b_of_several_quotas_the_one_counts_that_allows_least(
    headers, limit, window, remaining, reset
):
    """One by the second and one by the day; what is left of each; two kinds that contradict."""
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
