"""Failures in a row, refusals, and pauses of an overloaded site: each counter by itself."""

import pytest

from crawler.frontier.circuit_breaker import CircuitBreaker, Refusals, SharedBackoff
from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber
from tests.simulation import job_over


def fail(breaker: CircuitBreaker, count: int, *, is_setup: bool = False) -> None:
    """Let so many different numbers fail."""
    for num in range(count):
        attempt = PendingNumber(num, job_over([]))
        breaker.note_failure(attempt, is_setup=is_setup, is_unsent=False, is_overload=False)


def test_D5_the_hundredth_failure_in_a_row_is_trouble_though_the_site_was_well():
    """Where no canary is known; before any good answer every failure is."""
    breaker = CircuitBreaker(1.0)
    assert breaker.is_trouble
    breaker.note_good()
    fail(breaker, 99)
    assert not breaker.is_trouble
    fail(breaker, 1)
    assert breaker.is_trouble


def test_D5_the_seconds_of_an_open_circuit_are_never_below_zero():
    """Neither how long it is open, told by a clock that was read before, nor what is to be waited."""
    breaker = CircuitBreaker(1.0)
    breaker.open(5.0)
    assert [breaker.seconds_open(now) for now in (4.9, 5.0, 5.25)] == [0.0, 0.0, 0.25]
    assert [breaker.seconds_to_probe(now) for now in (5.0, 5.75, 6.0, 9.0)] == [1.0, 0.25, 0.0, 0.0]


def test_D5_ten_probes_within_ten_minutes_are_enough():
    """Where pauses keep them apart."""
    for probes, seconds, is_spent in [(10, 600.0, True), (9, 600.0, False), (10, 599.9, False)]:
        breaker = CircuitBreaker(1.0)
        breaker.open(5.0)
        for _ in range(probes):
            breaker.start_probe(6.0)
        assert breaker.is_spent(0, 5.0 + seconds) is is_spent
        assert not breaker.is_spent(1, 5.0 + seconds)
        assert breaker.seconds_open(5.0 + seconds) == pytest.approx(seconds)
    assert CircuitBreaker(1.0).seconds_open(99.0) == 0.0


def test_a_name_that_fails_in_mid_run_is_an_outage_like_any_other():
    """After good answers ten failures of the resolver prove nothing."""
    breaker = CircuitBreaker(1.0)
    breaker.note_good()
    fail(breaker, 50, is_setup=True)
    assert not breaker.is_hopeless


def test_D5_what_was_sent_until_a_pause_began_neither_lengthens_nor_ends_it():
    """It was under way when the site refused, to the very moment."""
    backoff = SharedBackoff(1.0, 60.0)
    assert backoff.next_pause(4.0, 5.0) == 1.0
    assert (backoff.next_pause(5.0, 5.5), backoff.count) == (0.0, 1)
    backoff.reset(5.0)
    assert (backoff.is_probing, backoff.count) == (True, 1)
    backoff.reset(5.1)
    assert (backoff.is_probing, backoff.count) == (False, 0)


def pauses_of(quota: int, seconds: float, pace: float) -> list[list[float]]:
    """List the pauses in each of six windows of a site that refuses what is beyond its quota."""
    backoff, now, good, windows = SharedBackoff(1.0, 60.0), 100.0, 0, []
    while len(windows) < 6:
        ends_at, pauses = now + seconds, []
        for nth in range(quota):
            backoff.reset(now + nth / pace)
        good, now = good + quota, now + quota / pace
        while now < ends_at:
            pauses.append(round(backoff.next_pause(now, now, good), 3))
            now += pauses[-1]
        windows.append(pauses)
    return windows


@pytest.mark.parametrize(
    ("quota", "seconds", "pace", "pauses"),
    [
        (100, 60, 10, [[1, 2, 4, 8, 16, 32], [37, 16], [45, 8], [49, 4], [51], [50]]),
        (50, 10, 50, [[1, 2, 4, 8], [10], [8, 2], [9], [9], [9]]),
        (5, 10, 5, [[1, 2, 4, 8]] * 6),  # so few may be anything
    ],
)
def test_D3b_the_window_of_a_silent_quota_is_learnt(quota, seconds, pace, pauses):
    """Half of what is not known of it is waited for, then the rest; soon one pause is enough."""
    assert pauses_of(quota, seconds, pace) == pauses


def learnt(usual: int, seconds: float = 10.0) -> SharedBackoff:
    """Refuse at 100 s after so many good answers, and answer well again so many seconds later."""
    backoff = SharedBackoff(1.0, 60.0)
    assert backoff.next_pause(100.0, 100.0, usual) == 1.0
    backoff.reset(100.0 + seconds)
    return backoff


@pytest.mark.parametrize(
    ("usual", "good", "pause"),
    [(20, 15, 1), (20, 16, 8), (20, 29, 8), (20, 30, 1), (10, 10, 8), (9, 9, 1)],
)
def test_D3b_about_as_many_good_answers_again_show_a_quota(usual, good, pause):
    """Ten or more, more than three quarters and less than one and a half of those before."""
    assert learnt(usual).next_pause(112.0, 112.0, usual + good) == pause


def test_D3b_fewer_good_answers_count_with_those_that_follow():
    """As where a window slides: its beginning stays where it was."""
    backoff = learnt(20)
    assert backoff.next_pause(112.0, 112.0, 35) == 1.0
    backoff.reset(114.0)
    assert backoff.next_pause(116.0, 116.0, 40) == 4.0


def test_D3b_a_window_that_lasts_longer_than_ever_is_tried_ever_more_seldom():
    """The pauses double the spell of refusals; none is below the first, none above the longest."""
    backoff, now, pauses = learnt(20), 121.0, []
    for _ in range(5):
        pauses.append(backoff.next_pause(now, now, 40))
        now += pauses[-1]
    assert pauses == [1, 1, 2, 4, 8]
    assert learnt(20).next_pause(110.5, 110.5, 40) == 9.5
    assert learnt(20).next_pause(119.5, 119.5, 40) == 1.0
    assert learnt(20, 500.0).next_pause(610.0, 610.0, 40) == 60.0


def test_D3b_a_window_that_has_just_become_the_longest_is_tried_again_after_as_long_a_spell():
    """To the second: what was not known of it has passed."""
    backoff = learnt(20)
    assert backoff.next_pause(116.0, 116.0, 40) == 4.0
    assert backoff.next_pause(120.0, 120.0, 40) == 4.0


@pytest.mark.parametrize(
    ("refused_at", "good_at", "again_at", "pause"),
    [(109.0, 110.0, 112.0, 8.0), (108.0, 110.0, 112.0, 7.0), (104.0, 110.0, 114.0, 6.0)],
    ids=["known to a second", "known to two seconds", "all that is known has passed"],
)
def test_D3b_half_of_what_is_not_known_of_a_window_is_waited_for(
    refused_at, good_at, again_at, pause
):
    """Where that is more than the first pause, and only until the window may be over."""
    backoff = SharedBackoff(1.0, 60.0)
    backoff.next_pause(100.0, 100.0, 20)
    backoff.next_pause(refused_at, refused_at, 20)
    backoff.reset(good_at)
    assert backoff.next_pause(again_at, again_at, 40) == pause


@pytest.mark.parametrize(("status", "is_proof"), [(401, True), (403, False)])
def test_C7_a_lone_401_is_about_the_token_unless_anything_was_answered_well(status, is_proof):
    """After a good answer it is about its page, as 403 is from the start."""
    for was_well in (False, True):
        refusals, reply = Refusals(), Reply(PendingNumber(7, job_over([])), status=status)
        if was_well:
            refusals.note_good()
        assert not refusals.note(reply.attempt, reply)
        assert refusals.conclude() is (is_proof and not was_well)
        assert bool(refusals.clear()) is not refusals.is_proven
