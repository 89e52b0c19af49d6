"""The frontier as a whole: order, retries, pauses, budgets and ends, in simulated time."""

import random
import sys
import threading
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest

from crawler.errors import StoreUnavailableError
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import MAX_WAITING, IterableSupply, Policy
from tests.simulation import NOON, Clock, Crawl, found, job_over, run_together, status


def starts_of(crawl: Crawl, song_num: int) -> list[float]:
    """Say when a number was asked."""
    return [at for at, num in zip(crawl.starts, crawl.sent, strict=True) if num == song_num]


# Order and supply.


def test_numbers_are_handed_out_in_order():
    """Ascending, each once, and the run is done when the last has its record."""
    crawl = Crawl(range(1, 501), rate=0).run()
    assert crawl.sent == list(range(1, 501))
    assert crawl.frontier.stopped_by == "done"
    assert crawl.frontier.in_flight == 0


def test_nothing_to_do_is_done():
    """An empty list needs no request."""
    crawl = Crawl([]).run()
    assert (crawl.frontier.stopped_by, crawl.starts) == ("done", [])


def test_the_end_is_seen_at_once_at_any_pace():
    """A run of one number at one request in a thousand seconds ends with its answer."""
    crawl = Crawl([1], rate=0.001).run()
    assert crawl.clock.now < 1002


@pytest.mark.parametrize("rate", [0.1, 100])
def test_a_generator_is_asked_only_for_what_is_due(rate):
    """However many lanes are free, it is never more than one item ahead of the pace."""
    given = []

    def items():
        for num in range(10**6):
            given.append(num)
            yield num

    crawl = Crawl(items(), rate=rate)
    for second in range(1, 20):
        crawl.run(seconds=1)
        assert len(given) <= len(crawl.starts) + 1
        assert crawl.clock.now == 1000 + second


def test_jobs_take_turns():
    """Two lists over one pace share it evenly; the longer one has it alone afterwards."""
    crawl = Crawl([f"a{num}" for num in range(50)], connections=1, latency=0.0)
    crawl.frontier.add_job(job_over([f"b{num}" for num in range(100)]))
    crawl.run()
    first = Counter(item[0] for item in crawl.sent[:100])
    assert first == {"a": 50, "b": 50}
    assert crawl.sent[0] == "a0"
    assert crawl.sent[1] == "b0"
    assert len(crawl.sent) == 150


def test_three_jobs_share_a_whole_batch():
    """Also when many attempts are handed out at once, no job is starved."""
    crawl = Crawl(["a"] * 500, rate=0)
    for word in ("b", "c"):
        crawl.frontier.add_job(job_over([word] * 500))
    attempts, _ = crawl.frontier.take(30)
    assert min(Counter(attempt.song_num for attempt in attempts).values()) >= 5


def test_pace_that_is_not_needed_is_left_to_others():
    """A run with one number left takes one attempt's worth of the shared pace."""
    rate_limiter = RateLimiter(1000)
    rate_limiter.grant(1, 999.0)
    attempts, _ = Crawl([1], rate_limiter=rate_limiter).frontier.take(64)
    assert len(attempts) == 1
    assert rate_limiter.grant(64, 1000.0)[0] == 29


class Flaky:
    """A supply that raises when it has given so many numbers."""

    exhausted, read_ahead = False, 1

    def __init__(self, error: Exception, after: int = 5) -> None:
        self._error, self._numbers = error, list(range(after))

    def take(self, wanted: int) -> list[int]:
        """Give numbers, then raise."""
        if not self._numbers:
            raise self._error
        given, self._numbers = self._numbers[:wanted], self._numbers[wanted:]
        return given


def test_E3_a_store_that_cannot_be_read_ends_the_run_as_such():
    """The supply's error closes the run by `store`; what was under way is still recorded."""
    crawl = Crawl(supply=Flaky(StoreUnavailableError("no bucket"))).run()
    assert (crawl.frontier.stopped_by, crawl.frontier.stop_detail) == ("store", "no bucket")
    assert len(crawl.records) == len(crawl.starts) > 0


def test_a_generator_that_raises_leaves_the_lock_free():
    """The caller's own error comes out of one lane; the others are not left waiting."""
    frontier = Frontier(rate_limiter=RateLimiter(0))
    frontier.add_job(job_over([], supply=Flaky(ZeroDivisionError(), after=0)))
    raised = []

    def lane() -> None:
        try:
            frontier.next_attempt()
        except ZeroDivisionError:
            raised.append(1)

    threads = [threading.Thread(target=lane) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(raised) == 8
    frontier.finish()
    assert frontier.take(1) == ([], None)


def test_a_store_without_room_holds_everything_back():
    """While the store cannot keep up nothing is handed out, and it goes on by itself."""
    full = [True]
    crawl = Crawl(range(10), has_room=lambda: not full[0])
    crawl.run(seconds=5)
    assert crawl.starts == []
    full[0] = False
    assert len(crawl.run().records) == 10


# Retries.


def test_a_number_is_asked_five_times_at_most():
    """A page that always fails gets one failed record, after five requests."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if attempt.song_num == 3 else found(attempt)

    crawl = Crawl(range(200), answer=answer).run()
    [record] = crawl.records[3]
    assert (record.outcome, record.error, record.attempts) == ("failed", "http_500", 5)
    assert len(starts_of(crawl, 3)) == 5
    assert crawl.frontier.tally.retries == 4
    assert crawl.frontier.tally.kinds == {"http_500": 5}


@pytest.mark.parametrize("seed", range(20))
def test_retries_back_off_with_full_jitter(seed):
    """Each wait is at most 1, 2, 4 and 8 s; the last try is 7.5 s or more after the first."""
    crawl = Crawl([7], answer=status(502), seed=seed, latency=0.0, rate=0).run()
    starts = starts_of(crawl, 7)
    waits = [after - before for before, after in pairwise(starts)]
    assert all(wait <= most + 0.01 for wait, most in zip(waits[:3], (1, 2, 4), strict=True))
    assert 7.5 <= starts[-1] - starts[0] <= 15.1


@pytest.mark.parametrize("number", [408, 500, 502, 504, 522, 529])
def test_C8b_a_number_is_asked_again_no_sooner_than_its_answer_says(number):
    """The others go on meanwhile: what is told is about this page, and not about the site."""

    def answer(attempt, now):
        if attempt.song_num == 3 and now < 1020:
            return Reply(attempt, status=number, headers={"retry-after": "20"})
        return found(attempt)

    crawl = Crawl(range(1000), answer=answer).run()
    first, second = starts_of(crawl, 3)
    assert second - first >= 20
    assert set(crawl.outcomes.values()) == {"found"}
    assert max(starts_of(crawl, 999)) < 1011


def test_C8b_a_number_that_must_wait_too_long_is_left_to_a_later_run():
    """Its answer names a later time than any try of this run could have."""
    busy = {"retry-after": "121"}
    crawl = Crawl([7], answer=lambda a, _now: Reply(a, status=502, headers=busy)).run()
    assert (crawl.outcomes, len(starts_of(crawl, 7))) == ({7: "failed"}, 1)


def test_a_slow_number_is_given_up_after_two_minutes():
    """Tries that take their time are fewer: none begins later than 120 s after the first."""
    crawl = Crawl([7], answer=lambda a, _now: Reply(a, error="timeout"), latency=100.0, seed=3)
    crawl.run()
    starts = starts_of(crawl, 7)
    assert crawl.outcomes == {7: "failed"}
    assert starts[-1] - starts[0] <= 120
    assert len(starts) < 5


def test_429s_count_towards_neither_tries_nor_time():
    """A number that was put off twenty times by 429 is found in the end."""
    asked = []

    def answer(attempt, _now):
        asked.append(1)
        return (
            found(attempt)
            if len(asked) > 20
            else Reply(attempt, status=429, headers={"retry-after": "60"})
        )

    crawl = Crawl([7], answer=answer).run()
    assert crawl.outcomes == {7: "found"}
    assert crawl.clock.now > 2000


def test_a_pause_of_another_run_does_not_count_as_a_number_s_time():
    """Ten minutes of pause that somebody else learnt of leave a number its tries."""
    clock, rate_limiter, asked = Clock(), RateLimiter(100), []

    def answer(attempt, _now):
        asked.append(1)
        return found(attempt) if len(asked) > 2 else Reply(attempt, status=500)

    crawl = Crawl([7], clock=clock, rate_limiter=rate_limiter, answer=answer, latency=0.0)
    crawl.run(seconds=0.1)
    rate_limiter.hold(clock.now + 600, clock.now)
    assert crawl.run().outcomes == {7: "found"}


def test_time_with_an_open_circuit_does_not_count_as_a_number_s_time():
    """Numbers that waited for a minute of outage still have all their tries afterwards."""

    def answer(attempt, now):
        return Reply(attempt, status=500) if now < 1045 else found(attempt)

    policy = Policy(retry_seconds=20.0)
    crawl = Crawl(range(300), answer=answer, policy=policy, rate=0).run()
    assert set(crawl.outcomes.values()) == {"found"}
    assert len(crawl.outcomes) == 300


def test_what_fails_once_more_after_a_minute_of_outage_is_still_tried_again():
    """The time for which the circuit was open is no number's own."""
    failed_since = set()

    def answer(attempt, now):
        num = attempt.song_num
        if now < 1045 or (num % 2 and num not in failed_since):
            failed_since.update([num] if now >= 1045 else [])
            return Reply(attempt, status=500)
        return found(attempt)

    policy = Policy(retry_seconds=20.0)
    crawl = Crawl(range(120), answer=answer, policy=policy, rate=0).run()
    assert failed_since
    assert crawl.outcomes == dict.fromkeys(range(120), "found")


def test_B1_a_reset_on_a_reused_connection_is_excused():
    """It is tried again at once, at no cost to the number and with no word to the circuit."""

    def answer(attempt, _now):
        if attempt.requests == 0:
            return Reply(attempt, error="connection", is_reused=True)
        return found(attempt)

    crawl = Crawl(range(500), rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert set(crawl.outcomes.values()) == {"found"}
    assert crawl.clock.now < 1010


def test_resets_again_and_again_are_not_excused():
    """Excused three times only, so a number still costs eight requests at most."""
    crawl = Crawl(
        [7], answer=lambda a, _now: Reply(a, error="connection", is_reused=True), rate=0
    ).run()
    assert crawl.outcomes == {7: "failed"}
    assert len(crawl.starts) == 8


def test_C6_missing_is_asked_once():
    """404, 410 and 451 settle a number at once."""
    crawl = Crawl(range(9), answer=lambda a, _n: Reply(a, status=(404, 410, 451)[a.song_num % 3]))
    crawl.run()
    assert crawl.sent == list(range(9))
    assert set(crawl.outcomes.values()) == {"missing"}


def test_memory_is_bounded_while_numbers_wait():
    """With 10,000 numbers waiting for a retry no fresh one is begun."""
    # every second answer is good, so that the circuit stays closed
    crawl = Crawl(range(10**9), rate=0, connections=512, latency=0.001)
    crawl.answer = lambda a, _n: Reply(a, status=500) if a.song_num % 2 else found(a)
    crawl.run(seconds=0.5)
    begun = len(set(crawl.sent)) - len(crawl.records)
    assert MAX_WAITING <= begun <= MAX_WAITING + 2 * 512  # and what is under way


def test_one_number_that_waits_for_minutes_holds_up_nothing():
    """The rest of the range goes on, and nothing but that number stays in memory."""
    policy = Policy(backoff_seconds=60, max_backoff_seconds=60, retry_seconds=1e6)

    def answer(attempt, _now):
        return Reply(attempt, status=500) if attempt.song_num == 0 else found(attempt)

    crawl = Crawl(range(10_000), rate=0, answer=answer, policy=policy).run(seconds=30)
    assert set(crawl.sent) - set(crawl.records) == {0}
    assert len(crawl.records) == 9_999


# Pauses.


@pytest.mark.parametrize(
    "reply", [status(429), status(503, headers={"retry-after": "1"})], ids=["429", "503"]
)
def test_an_overloaded_site_is_asked_half_as_often(reply):
    """One cut for all that was under way, with or without a pause."""
    crawl = Crawl(range(10))
    crawl.clock.now += 1
    attempts, _ = crawl.frontier.take(2)
    crawl.frontier.hand_back([reply(attempt, 0.0) for attempt in attempts])
    assert crawl.rate_limiter.limit == 50


@pytest.mark.parametrize("number", [429, 503])
@pytest.mark.parametrize(
    "retry_after",
    [
        "2",
        "Sun, 22 Nov 2026 12:00:12 GMT",
        "Sunday, 22-Nov-26 12:00:12 GMT",
        "Sun Nov 22 12:00:12 2026",
    ],
)
@pytest.mark.parametrize("skew_hours", [0, -7, 31])
def test_D1_D2_one_shared_pause(number, retry_after, skew_hours):
    """No attempt starts inside the window, in whatever form and by whatever clock it is given."""
    read_at: list[float] = []
    told: list[float] = []
    skew = timedelta(hours=skew_hours)

    def answer(attempt, now):
        if 1010 <= now < 1010.5:
            # the date in the header was written by the site's own clock, 2 s before it resumes
            text = retry_after
            date = "Sun, 22 Nov 2026 12:00:10 GMT" if len(text) > 1 else None
            if date is None and skew_hours:
                date = (NOON + skew).strftime("%a, %d %b %Y %H:%M:%S GMT")
            headers = {"retry-after": text} | ({} if date is None else {"date": date})
            return Reply(attempt, status=number, headers=headers)
        return found(attempt)

    def watch(replies):
        if any(reply.status == number for reply in replies):
            read_at.append(clock.now)

    clock = Clock(wall=lambda now: NOON + skew + timedelta(seconds=now - 1000))
    crawl = Crawl(
        range(10**6), answer=answer, clock=clock, rate=0, on_pause=told.append, connections=8
    )
    crawl.on_replies = watch
    crawl.run(seconds=25)
    assert told == pytest.approx([2.0] * len(told))
    for at in read_at:
        assert not [start for start in crawl.starts if at < start < at + 2 - 1e-6]
    assert crawl.rate_limiter.limit == float("inf")  # one cut, long won back


@pytest.mark.parametrize(
    "text", ["abc", "-1", "1.5", "1e3", "１", "", "2, 2", "9" * 30, "x" * 10**4]
)
def test_D3_an_unreadable_retry_after_is_none(text):
    """All wait for a second, as after any 429 that does not say for how long; nothing is lost."""
    told = []

    def answer(attempt, _now):
        is_first = attempt.song_num == 5 and attempt.requests == 0
        return (
            Reply(attempt, status=429, headers={"retry-after": text})
            if is_first
            else found(attempt)
        )

    crawl = Crawl(range(1000), answer=answer, on_pause=told.append).run()
    assert told == [1.0]
    assert crawl.rate_limiter.held_seconds == 1.0
    assert len(crawl.outcomes) == 1000


@pytest.mark.parametrize("text", ["0", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_D2_a_pause_that_is_over_is_none(text):
    """Zero seconds, and a date in the past, hold nobody back."""
    crawl = Crawl(
        [1], answer=lambda a, _n: Reply(a, status=429, headers={"retry-after": text})
    ).run(10)
    assert crawl.rate_limiter.held_seconds == 0


@pytest.mark.parametrize("budget", [1680.0, None])
def test_D4_a_pause_longer_than_the_time_left_ends_the_run(budget):
    """A day's pause: the run ends at once, with what is left to be reported."""

    def answer(attempt, now):
        return (
            found(attempt)
            if now < 1005
            else Reply(attempt, status=429, headers={"retry-after": "86400"})
        )

    crawl = Crawl(
        range(10**6), answer=answer, deadline=None if budget is None else 1000 + budget
    ).run()
    assert crawl.frontier.stopped_by == "paused"
    assert "86400" in crawl.frontier.stop_detail
    assert crawl.clock.now < 1010


@pytest.mark.parametrize("budget", [1680.0, None])
def test_D4_a_run_that_begins_in_a_long_pause_ends_at_once(budget):
    """The pause was learnt by an earlier run of the process: nothing is asked."""
    rate_limiter = RateLimiter(100)
    rate_limiter.hold(1000.0 + 86400, 1000.0)
    crawl = Crawl(
        range(100), rate_limiter=rate_limiter, deadline=None if budget is None else 1000 + budget
    ).run()
    assert (crawl.frontier.stopped_by, crawl.starts) == ("paused", [])
    assert crawl.clock.now == 1000


def test_D4_a_long_pause_ends_all_runs_of_the_process():
    """A run beside the one that was told ends as well."""
    clock, rate_limiter = Clock(), RateLimiter(100)
    told = Crawl(
        range(10**6),
        clock=clock,
        rate_limiter=rate_limiter,
        answer=status(429, headers={"retry-after": "86400"}),
    )
    other = Crawl(range(10**6), clock=clock, rate_limiter=rate_limiter, deadline=2000.0)
    run_together([told, other])
    assert (told.frontier.stopped_by, other.frontier.stopped_by) == ("paused", "paused")


def test_a_pause_that_can_be_waited_for_is_waited_for():
    """A run begun in a pause of a minute goes on when it is over."""
    rate_limiter = RateLimiter(100)
    rate_limiter.hold(1060.0, 1000.0)
    crawl = Crawl(range(10), rate_limiter=rate_limiter, deadline=1100.0).run()
    assert crawl.frontier.stopped_by == "done"
    assert min(crawl.starts) >= 1060


def test_E12_a_pause_learnt_elsewhere_is_kept():
    """What another instance wrote down holds this one back, too."""
    crawl = Crawl(range(10**6))
    crawl.run(seconds=1)
    crawl.frontier.hold(30.0)
    crawl.run(seconds=60)
    assert not [start for start in crawl.starts if 1001.01 < start < 1031]
    assert [start for start in crawl.starts if start >= 1031]


def test_D7_a_wall_clock_that_jumps_changes_nothing():
    """Neither pace nor pauses look at the time of day."""
    clock = Clock(wall=lambda now: NOON + timedelta(hours=random.Random(now).randint(-5, 5)))

    def answer(attempt, now):
        is_told = 1010 <= now < 1010.05
        return (
            Reply(attempt, status=429, headers={"retry-after": "3"}) if is_told else found(attempt)
        )

    crawl = Crawl(range(10**6), clock=clock, answer=answer).run(60)
    assert crawl.rate_limiter.held_seconds == pytest.approx(3, abs=0.5)
    assert sum(start >= 1050 for start in crawl.starts) == pytest.approx(1000, rel=0.02)


# Budgets and ends.


@pytest.mark.parametrize("rate", [0.01, 100, 0])
def test_F3_the_time_budget_ends_the_run_in_time(rate):
    """However slow the pace, no lane sleeps beyond the end of the budget."""
    crawl = Crawl(range(10**9), rate=rate, deadline=1010.0, connections=4).run()
    assert crawl.frontier.stopped_by == "time_budget"
    assert crawl.clock.now <= 1010.6 + 0.1
    assert len(crawl.records) == len(crawl.starts)


@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("most", [0, 1, 50, 500])
def test_no_more_requests_than_allowed_are_sent(connections, most):
    """The cap counts retries too, and ends the run by its name."""
    crawl = Crawl(
        range(10**6),
        connections=connections,
        answer=lambda a, _n: Reply(a, status=500) if a.song_num % 2 else found(a),
        policy=Policy(max_requests=most),
    ).run()
    assert len(crawl.starts) == crawl.frontier.tally.requests == most
    assert crawl.frontier.stopped_by == "daily_cap"


@pytest.mark.parametrize("connections", [1, 64])
def test_a_cap_that_is_just_enough_is_no_reason_to_stop(connections):
    """A run that asked its last number with its last allowed request is done."""
    crawl = Crawl(range(50), connections=connections, policy=Policy(max_requests=50)).run()
    assert crawl.frontier.stopped_by == "done"


def test_put_back_costs_nothing_and_comes_again():
    """An attempt whose request was never sent is asked again, before fresh ones."""
    crawl = Crawl(range(100), rate=0)
    attempts, _ = crawl.frontier.take(4)
    crawl.frontier.put_back(attempts[1:3])
    assert (crawl.frontier.tally.requests, crawl.frontier.in_flight) == (2, 2)
    again, _ = crawl.frontier.take(3)
    assert [attempt.song_num for attempt in again] == [1, 2, 4]
    assert crawl.frontier.tally.retries == 0
    crawl.frontier.hand_back([found(attempt) for attempt in [attempts[0], attempts[3], *again]])
    crawl.run()
    assert sorted(crawl.outcomes) == list(range(100))


def test_a_retry_that_is_put_back_is_still_one_retry():
    """Counts of requests and repeats stay true."""
    crawl = Crawl([7], rate=0)
    [attempt], _ = crawl.frontier.take(1)
    crawl.frontier.hand_back([Reply(attempt, status=500)])
    crawl.clock.now += 5
    [attempt], _ = crawl.frontier.take(1)
    crawl.frontier.put_back([attempt])
    [attempt], _ = crawl.frontier.take(1)
    crawl.frontier.hand_back([found(attempt)])
    assert (crawl.frontier.tally.requests, crawl.frontier.tally.retries) == (2, 1)
    assert crawl.records[7][0].attempts == 2


def test_F5_an_abandoned_number_fails_once():
    """Its lane's late reply, or putting back, changes nothing."""
    crawl = Crawl(range(3), rate=0)
    attempts, _ = crawl.frontier.take(3)
    stuck = attempts[1]
    crawl.frontier.abandon(stuck)
    crawl.frontier.abandon(stuck)
    crawl.frontier.hand_back([found(stuck)])
    crawl.frontier.put_back([stuck])
    crawl.frontier.hand_back([found(attempts[0]), found(attempts[2])])
    crawl.run()
    assert crawl.outcomes == {0: "found", 1: "failed", 2: "found"}
    assert (crawl.frontier.in_flight, crawl.frontier.stopped_by) == (0, "done")
    assert crawl.frontier.tally.kinds == {"timeout": 1}
    assert stuck.is_abandoned


@pytest.mark.parametrize("reply", [found, status(500), status(403)], ids=["found", "500", "403"])
def test_F5_an_attempt_handed_back_in_time_cannot_be_abandoned(reply):
    """The watch may come a moment too late: the number is not judged twice."""
    crawl = Crawl(range(3), rate=0)
    attempts, _ = crawl.frontier.take(3)
    crawl.frontier.hand_back([reply(attempts[1], 0.0)])
    crawl.frontier.abandon(attempts[1])
    crawl.frontier.hand_back([found(attempts[0]), found(attempts[2])])
    crawl.run()
    assert not attempts[1].is_abandoned
    assert (crawl.frontier.in_flight, crawl.frontier.stopped_by) == (0, "done")
    assert sorted(crawl.outcomes) == [0, 1, 2]


def test_what_comes_after_the_end_is_ignored():
    """Once the run is finished, late lanes change no count and no record."""
    crawl = Crawl(range(5), rate=0)
    attempts, _ = crawl.frontier.take(3)
    crawl.frontier.finish()
    crawl.frontier.hand_back([found(attempts[0])])
    crawl.frontier.abandon(attempts[1])
    crawl.frontier.put_back([attempts[2]])
    assert crawl.records == {}
    assert crawl.frontier.take(5) == ([], None)
    assert crawl.frontier.next_attempt() is None


@pytest.mark.parametrize("moment", [0.0, 0.3, 5.0, 12.0, 30.0])
def test_close_in_the_midst_of_everything(moment):
    """In pauses, retries and outages: what is under way is judged, and nothing more is sent."""

    def answer(attempt, now):
        if now < 1003:
            return Reply(attempt, status=429, headers={"retry-after": "3"})
        if now < 1011:
            return Reply(attempt, status=500)
        return found(attempt) if attempt.song_num % 3 else Reply(attempt, status=404)

    crawl = Crawl(range(10**6), answer=answer, rate=0)
    crawl.run(seconds=moment)
    asked = len(crawl.starts)
    crawl.frontier.stop("stop_order", "because")
    crawl.frontier.stop("signal")
    crawl.run()
    assert (crawl.frontier.stopped_by, crawl.frontier.stop_detail) == ("stop_order", "because")
    assert len(crawl.starts) == asked
    assert crawl.frontier.in_flight == 0
    assert all(len(records) == 1 for records in crawl.records.values())


def test_the_grace_time_begins_when_the_run_is_closed():
    """Endless while it is open, then five seconds that run out."""
    crawl = Crawl(range(5))
    assert crawl.frontier.grace_left() == float("inf")
    crawl.frontier.stop("signal")
    crawl.clock.now += 3
    crawl.frontier.stop("done")
    assert crawl.frontier.grace_left() == 2.0


def test_repeats_of_a_transport_are_counted_and_paid_for():
    """Ten requests that libcurl sent by itself slow the next ones down."""
    crawl = Crawl(range(100), rate=10)
    (attempt,), _ = crawl.frontier.take(1)
    crawl.frontier.charge(attempt, 10)
    assert (crawl.frontier.tally.requests, crawl.frontier.tally.retries) == (11, 10)

    crawl.clock.now += 0.9
    assert crawl.frontier.take(1)[0] == []


# Lanes that wait, in real threads.


@pytest.fixture
def hasty():
    """Switch threads as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("lanes", [2, 16, 64])
@pytest.mark.parametrize("rate", [0, 2000])
def test_no_lane_is_left_waiting(lanes, rate, hasty):
    """Every number is worked on once, and every lane ends, whoever watches the clock."""
    seen: list = []
    frontier = Frontier(
        Policy(backoff_seconds=0.01),
        rate_limiter=RateLimiter(rate),
        on_record=seen.append,
    )
    frontier.add_job(job_over(range(600)))
    chance = random.Random(7)

    def lane() -> None:
        while (attempt := frontier.next_attempt()) is not None:
            draw = chance.random()
            if draw < 0.05:
                frontier.put_back([attempt])
            elif draw < 0.15:
                frontier.hand_back([Reply(attempt, status=500)])
            elif draw < 0.2:
                frontier.abandon(attempt)
                frontier.hand_back([found(attempt)])
            else:
                frontier.hand_back([found(attempt)])

    threads = [threading.Thread(target=lane, daemon=True) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(record.song_num for record in seen) == list(range(600))
    assert (frontier.in_flight, frontier.stopped_by) == (0, "done")


def test_every_lane_that_waits_gets_its_turn(hasty):
    """Eight lanes that keep what they get are all served, one after the other."""

    class Gated(IterableSupply):
        def take(self, wanted):
            return super().take(wanted) if is_open.is_set() else []

    is_open = threading.Event()
    frontier = Frontier(rate_limiter=RateLimiter(0))
    frontier.add_job(job_over([], supply=Gated(range(8))))
    threads = [threading.Thread(target=frontier.next_attempt, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    is_open.set()
    for thread in threads:
        thread.join(10)
    assert frontier.in_flight == 8
    frontier.finish()


@pytest.mark.parametrize("ending", ["close", "finish"])
def test_lanes_that_wait_in_a_pause_end_when_the_run_is_closed(ending, hasty):
    """All of them wake, though one only watched the clock."""
    frontier = Frontier(rate_limiter=RateLimiter(100))
    frontier.add_job(job_over(range(1000)))
    frontier.hold(600.0)
    got: list = []
    threads = [
        threading.Thread(target=lambda: got.append(frontier.next_attempt()), daemon=True)
        for _ in range(32)
    ]
    for thread in threads:
        thread.start()
    frontier.finish() if ending == "finish" else frontier.stop("signal")
    for thread in threads:
        thread.join(10)
    assert got == [None] * 32


def test_a_lane_that_rests_is_woken_by_the_end():
    """Nobody sleeps on when there is nothing left to wait for."""
    frontier = Frontier()
    frontier.add_job(job_over(range(5)))
    thread = threading.Thread(target=frontier.rest, args=(600.0,), daemon=True)
    thread.start()
    frontier.stop("signal")
    thread.join(10)
    assert not thread.is_alive()
    frontier.rest(600.0)  # and nobody falls asleep afterwards


def test_an_iterable_supply_gives_what_there_is():
    """In order, as many as wanted, and knows when it is empty."""
    supply = IterableSupply(iter("abc"))
    assert supply.take(2) == ["a", "b"]
    assert not supply.exhausted
    assert supply.take(2) == ["c"]
    assert supply.exhausted


def test_further_requests_of_a_function_are_no_retries():
    """A redirect, or a cover beside a song, is paid for and counted as a request."""
    crawl = Crawl(range(100), rate=10)
    (attempt,), _ = crawl.frontier.take(1)
    crawl.frontier.charge(attempt, 3, repeated=False)
    assert (crawl.frontier.tally.requests, crawl.frontier.tally.retries) == (4, 0)
