"""Failures in a row, refusals and missing ones: what each costs, simulated with whole crawls."""

import pytest

from crawler.frontier.canaries import KnownSongs
from crawler.frontier.circuit_breaker import CircuitBreaker
from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber, Policy
from tests.simulation import Crawl, found, job_over, status

FAR = 10**9


@pytest.mark.parametrize("connections", [1, 64, 512])
@pytest.mark.parametrize("latency", [0.001, 0.3, 14.0])
@pytest.mark.parametrize("rate", [100, 0])
@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(429),
        status(429, headers={"retry-after": "2"}),
        status(503, headers={"retry-after": "30"}),
    ],
    ids=["500", "429", "429-retry-after", "503-retry-after"],
)
def test_D5_a_dead_site_costs_a_bounded_number_of_requests(connections, latency, rate, answer):
    """Whatever the range: at most 100 + connections + 60 requests."""
    crawl = Crawl(range(FAR), connections=connections, latency=latency, rate=rate, answer=answer)
    crawl.run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + connections + 60
    assert len(crawl.starts) == crawl.frontier.tally.requests


@pytest.mark.parametrize("numbers", [100, 101, 130])
def test_D5_sixty_probes_take_a_minute_however_few_numbers_are_left(numbers):
    """A number that serves as a probe does not wait longer and longer between two of them."""
    crawl = Crawl(range(numbers), rate=100, answer=status(500), policy=Policy(max_attempts=1))
    crawl.run()
    assert crawl.frontier.stopped_by == "circuit"
    assert crawl.starts[-1] - crawl.starts[-60] < 75


@pytest.mark.parametrize("rate", [1, 5, 20, 100, 0])
@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("numbers", [1, 5, 40, 2000])
def test_D6_five_seconds_of_errors_cost_nothing_but_time(rate, connections, numbers):
    """No number ends failed because a site was down for 5 s, whatever the pace and the jitter."""
    for seed in range(4 if numbers < 2000 else 1):

        def answer(attempt, now):
            is_down = 1002 <= now < 1007  # the run begins at 1000
            return Reply(attempt, status=500) if is_down else found(attempt)

        crawl = Crawl(
            range(min(numbers, 20 * rate or numbers)),
            connections=connections,
            rate=rate,
            answer=answer,
            latency=0.2,
            seed=seed,
        )
        crawl.run()
        assert crawl.frontier.stopped_by == "done"
        assert set(crawl.outcomes.values()) == {"found"}
        assert crawl.frontier.tally.failed == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (status(500), "http_500"),
        (status(429), "http_429"),
        (lambda attempt, now: Reply(attempt, error="connect"), "connect"),
    ],
    ids=["500", "429", "connect"],
)
def test_D5_the_end_names_what_failed_last(answer, kind):
    """A refused connection and a site that answers 500 are told apart without a debug log."""
    crawl = Crawl(range(200), rate=0, answer=answer).run()
    assert crawl.frontier.stop_detail.endswith(f"failures in a row, the last: {kind}")


CLUSTERS = {
    "500": {"status": 500},
    "522": {"status": 522},
    "cut": {"status": 200, "error": "json"},
    "connect": {"error": "connect"},
}


@pytest.mark.parametrize("reply", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("rate", [5, 20, 100, 1000])
@pytest.mark.parametrize(("first", "count"), [(0, 24), (0, 300), (101, 24), (101, 300), (380, 20)])
def test_E11b_a_cluster_of_dead_pages_costs_only_itself(reply, rate, first, count):
    """In front, in the midst or at the end, at any pace: every healthy number is found at once."""

    def answer(attempt, _now):
        is_bad = first <= attempt.song_num < first + count
        return Reply(attempt, **reply) if is_bad else found(attempt)

    stop = max(400, first + count + 10) if first < 380 else 400
    crawl = Crawl(range(stop), rate=rate, answer=answer, known=KnownSongs(spread=range(stop)))
    crawl.run()
    assert crawl.frontier.stopped_by == "done"
    dead = range(first, first + count)
    assert {num for num, what in crawl.outcomes.items() if what == "found"} == (
        set(range(stop)) - set(dead)
    )
    assert {num for num, what in crawl.outcomes.items() if what == "failed"} == set(dead)


@pytest.mark.parametrize("rate", [5, 100, 0])
def test_E11b_one_in_five_dead_everywhere(rate):
    """Each is tried five times; every healthy number is found."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if attempt.song_num % 5 == 0 else found(attempt)

    crawl = Crawl(range(1000), rate=rate, answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert (crawl.frontier.tally.found, crawl.frontier.tally.failed) == (800, 200)


def test_E11b_a_thousand_different_numbers_that_fail_end_the_run():
    """Whatever the canary says: so many bad pages in a row are beyond belief."""

    def answer(attempt, _now):
        return found(attempt) if attempt.song_num < 10 else Reply(attempt, status=500)

    crawl = Crawl(range(FAR), rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert "1000 different numbers" in crawl.frontier.stop_detail
    assert 1010 <= len(set(crawl.sent)) <= 1200


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_D7b_a_number_that_always_answers_429_fails_by_itself(retry_after):
    """After at most five answers; the others lose at most ten seconds in all."""
    headers = {} if retry_after is None else {"retry-after": retry_after}

    def answer(attempt, _now):
        return (
            Reply(attempt, status=429, headers=headers)
            if attempt.song_num == 300
            else found(attempt)
        )

    crawl = Crawl(range(6000), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.sent.count(300) <= 5
    assert [num for num, what in crawl.outcomes.items() if what != "found"] == [300]
    assert crawl.starts[-1] - crawl.starts[0] <= 60 + 10


@pytest.mark.parametrize("num", [0, 97, 99])
def test_D7b_the_last_number_left_fails_by_itself_too(num):
    """Where no other number is left to show that the site is well, a canary does."""

    def answer(attempt, _now):
        return Reply(attempt, status=429) if attempt.song_num == num else found(attempt)

    crawl = Crawl(range(100), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.sent.count(num) <= 8
    assert crawl.starts[-1] - crawl.starts[0] <= 30


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("numbers", [1, 7, 90])
def test_D6_an_outage_from_the_start_fails_no_number(seed, numbers):
    """Five seconds of errors from the first request on are sat out at full speed as well."""

    def answer(attempt, now):
        return Reply(attempt, status=500) if now < 1005 else found(attempt)

    crawl = Crawl(range(numbers), rate=0, latency=0.01, answer=answer, seed=seed).run()
    assert crawl.outcomes == dict.fromkeys(range(numbers), "found")


def test_D6_half_of_all_answers_failing_loses_nothing():
    """Every number gets one record, and nearly all are found."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if chance.random() < 0.5 else found(attempt)

    crawl = Crawl(range(2000), rate=0, answer=answer)
    chance = crawl.random
    crawl.run()
    assert crawl.frontier.stopped_by == "done"
    assert sorted(crawl.outcomes) == list(range(2000))
    assert crawl.frontier.tally.found > 1850


def test_D6_the_pace_is_back_as_soon_as_the_site_is():
    """After an outage that opened the circuit the next ten seconds run at full pace."""

    def answer(attempt, now):
        return Reply(attempt, status=500) if 1010 <= now < 1040 else found(attempt)

    crawl = Crawl(range(10**6), answer=answer).run(60)
    assert sum(1050 <= start < 1060 for start in crawl.starts) >= 900


@pytest.mark.parametrize("kind", ["dns", "tls"])
@pytest.mark.parametrize("connections", [1, 64])
def test_B2_B3_a_wrong_name_or_certificate_ends_the_run_early(kind, connections):
    """What is wrong from the start is wrong for every number: a handful of requests shows it."""
    crawl = Crawl(
        range(FAR), connections=connections, answer=lambda a, _now: Reply(a, error=kind)
    ).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert kind in crawl.frontier.stop_detail
    assert len(crawl.starts) <= 10 + connections


def test_a_name_that_fails_in_mid_run_is_an_outage_like_any_other():
    """After good answers ten failures of the resolver prove nothing."""
    breaker = CircuitBreaker()
    breaker.note_good()
    for num in range(50):
        breaker.note_failure(
            PendingNumber(num, job_over([])), is_setup=True, is_unsent=False, is_overload=False
        )
    assert not breaker.is_hopeless


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("connections", [1, 64])
def test_D7b_a_stretch_of_numbers_that_answer_429_costs_itself_alone(first, connections):
    """A canary tells it from a site that is overloaded: seconds a number, not a minute."""

    def answer(attempt, _now):
        is_bad = first <= attempt.song_num < first + 30
        return Reply(attempt, status=429) if is_bad else found(attempt)

    known = KnownSongs(published=[300])
    crawl = Crawl(range(400), connections=connections, rate=100, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.frontier.tally.found == 370
    assert len(crawl.starts) <= 370 + 30 * 5 + 30
    assert crawl.starts[-1] - crawl.starts[0] < 30 * 5


# Refusals.


@pytest.mark.parametrize("connections", [1, 2, 64, 512])
@pytest.mark.parametrize("refused_from", [0, 1, 500])
@pytest.mark.parametrize("number", [401, 403])
@pytest.mark.parametrize("latency", [0.001, 0.4])
def test_C7_a_refused_token_ends_the_run(connections, refused_from, number, latency):
    """From the first request or the 500th on: within twice as many requests as connections."""
    asked = []

    def answer(attempt, _now):
        asked.append(attempt)
        return found(attempt) if len(asked) <= refused_from else Reply(attempt, status=number)

    crawl = Crawl(range(FAR), connections=connections, rate=0, answer=answer, latency=latency)
    crawl.run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert str(number) in crawl.frontier.stop_detail
    assert len(asked) - refused_from <= 2 * connections
    assert crawl.frontier.tally.found == refused_from


@pytest.mark.parametrize("forbidden", [{0}, {500}, {999}, {0, 400}, {400, 700}, {400, 430}])
@pytest.mark.parametrize("connections", [1, 2, 64, 512])
@pytest.mark.parametrize("number", [401, 403])
def test_one_forbidden_page_costs_only_itself(forbidden, connections, number):
    """First, in the middle or last, alone or two apart: every other number is found."""

    def answer(attempt, _now):
        return Reply(attempt, status=number) if attempt.song_num in forbidden else found(attempt)

    crawl = Crawl(range(1000), connections=connections, rate=0, answer=answer, latency=0.0).run()
    assert crawl.frontier.stopped_by == "done"
    failed = {num for num, outcome in crawl.outcomes.items() if outcome == "failed"}
    assert failed == forbidden
    assert len(crawl.outcomes) == 1000


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("count", [2, 30, 300])
@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("number", [401, 403])
def test_C7_a_stretch_of_forbidden_pages_is_no_refused_token(first, count, connections, number):
    """A canary tells them apart: each of the pages fails, all others are found."""

    def answer(attempt, _now):
        is_forbidden = first <= attempt.song_num < first + count
        return Reply(attempt, status=number) if is_forbidden else found(attempt)

    known = KnownSongs(published=[999])
    crawl = Crawl(range(1000), connections=connections, rate=0, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == "done"
    failed = [num for num, outcome in crawl.outcomes.items() if outcome == "failed"]
    assert sorted(failed) == list(range(first, first + count))
    assert len(crawl.starts) <= 1000 + 10


@pytest.mark.parametrize("connections", [1, 2, 64])
def test_C7_a_token_that_is_refused_amid_forbidden_pages_ends_the_run(connections):
    """At the hundredth failure in a row a canary is asked again."""
    asked = []

    def answer(attempt, _now):
        asked.append(attempt)
        is_let_in = len(asked) < 200 and attempt.song_num < 100
        return found(attempt) if is_let_in else Reply(attempt, status=403)

    crawl = Crawl(range(FAR), connections=connections, rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert len(asked) - 100 <= 100 + 3 * connections + 2


def test_a_canary_that_fails_says_nothing_about_the_token():
    """Then a fresh number is asked, and a site that only fails costs no more than a dead one."""

    def answer(attempt, _now):
        return Reply(attempt, status=403 if attempt.song_num == 0 else 500)

    crawl = Crawl(range(FAR), rate=0, answer=answer, known=KnownSongs(published=[7])).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + 64 + 60


def test_after_a_refusal_nothing_is_asked_until_what_is_under_way_is_back():
    """Then one number at a time, until it is clear what the refusal was about."""
    crawl = Crawl(range(100), rate=0)
    attempts, _ = crawl.frontier.take(3)
    crawl.frontier.hand_back([Reply(attempts[0], status=403)])
    assert crawl.frontier.take(64)[0] == []
    crawl.frontier.hand_back([Reply(attempt, status=500) for attempt in attempts[1:]])
    [probe], _ = crawl.frontier.take(64)
    crawl.frontier.hand_back([found(probe)])
    assert len(crawl.frontier.take(64)[0]) == 64
    assert crawl.outcomes == {0: "failed", probe.song_num: "found"}


def test_a_lone_forbidden_page_is_that_page_and_a_lone_401_is_the_token():
    """A run that asks one number only cannot tell 403 from a page's own; 401 never is one's own."""
    forbidden = Crawl([7], answer=status(403)).run()
    refused = Crawl([7], answer=status(401)).run()
    assert (forbidden.frontier.stopped_by, forbidden.outcomes) == ("done", {7: "failed"})
    assert (refused.frontier.stopped_by, refused.outcomes) == ("unauthorized", {})


def test_failures_after_a_refusal_are_bounded_too():
    """A site that refuses once and then only fails costs no more than a dead one."""

    def answer(attempt, _now):
        return Reply(attempt, status=403 if attempt.song_num == 0 else 500)

    crawl = Crawl(range(FAR), rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + 64 + 60


def test_a_good_answer_that_was_under_way_does_not_undo_a_proven_refusal():
    """Refused numbers of a run that ends unauthorized have no record: they are asked again."""
    crawl = Crawl(range(10), connections=10, rate=0)
    attempts, _ = crawl.frontier.take(10)
    crawl.frontier.hand_back([Reply(attempts[0], status=401), Reply(attempts[1], status=401)])
    crawl.frontier.hand_back([found(attempts[2])])
    assert crawl.frontier.stopped_by == "unauthorized"
    assert crawl.outcomes == {2: "found"}
