"""When "missing" is believed: the eleven points of the rule, by crawls in simulated time."""

import random
from itertools import count

import pytest

from crawler.frontier.canaries import Canaries, KnownSongs
from crawler.frontier.proof import MOST_HELD
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, Policy
from tests.simulation import Crawl, found, job_over, status

MISSING = status(404)


def site(*, missing=(), lies=(0.0, 0.0), headers=None):
    """Make a site that lacks some numbers, and denies everything between two moments."""

    def answer(attempt, now):
        if lies[0] <= now < lies[1] or attempt.song_num in missing:
            return Reply(attempt, status=404)
        return found(attempt) if headers is None else Reply(attempt, True, {}, 200, headers=headers)

    return answer


def canaries_of(crawl: Crawl) -> list[int]:
    """List the numbers that were asked as canaries."""
    return [attempt.song_num for attempt in crawl.attempts if attempt.is_canary]


def right(crawl: Crawl, missing=()) -> bool:
    """Whether each number has the outcome that is true, once."""
    return all(
        [record.outcome for record in records] == ["missing" if num in missing else "found"]
        for num, records in crawl.records.items()
    )


def test_C9_point_1_what_says_missing_is_held_without_a_record():
    """No record and no count until there is proof, at most a thousand at once."""
    crawl = Crawl(range(10**6), rate=0, answer=MISSING, connections=512)
    crawl.run(seconds=20)
    assert crawl.records == {}
    assert crawl.frontier.tally.missing == 0
    assert len(crawl.sent) - len(canaries_of(crawl)) <= MOST_HELD


def test_C9_point_2_a_few_are_released_by_the_next_found_one():
    """Nine in a row, without any canary, when a song is found that was asked for after them."""
    crawl = Crawl(range(40), connections=1, answer=site(missing=range(5, 14))).run()
    assert right(crawl, range(5, 14))
    assert canaries_of(crawl) == []


def test_C9_point_2_a_few_at_the_end_are_released_by_the_end():
    """Nine missing numbers are the whole range."""
    crawl = Crawl(range(9), answer=MISSING).run()
    assert crawl.outcomes == dict.fromkeys(range(9), "missing")
    assert crawl.frontier.stopped_by == "done"


def test_C9_point_2_a_song_asked_for_before_releases_nothing():
    """What was on its way before the site began to lie says nothing about now."""
    crawl = Crawl(range(100), rate=0)
    attempts, _ = crawl.frontier.take(3)
    crawl.clock.now += 1
    crawl.frontier.hand_back([Reply(attempts[0], status=404), found(attempts[1])])
    assert 0 not in crawl.outcomes
    crawl.clock.now += 1
    later, _ = crawl.frontier.take(1)
    crawl.frontier.hand_back([found(attempts[2]), found(later[0])])
    assert crawl.outcomes[0] == "missing"


def test_C9_point_2_what_is_under_way_when_a_song_comes_is_waited_for():
    """An answer that comes in after the song may have been given before it, in the same spell."""
    crawl = Crawl(range(100), rate=0)
    first, _ = crawl.frontier.take(1)
    crawl.clock.now += 1
    crawl.frontier.hand_back([Reply(first[0], status=404)])
    slow, quick = crawl.frontier.take(2)[0]
    crawl.clock.now += 1
    crawl.frontier.hand_back([found(quick)])
    crawl.clock.now += 1
    later, _ = crawl.frontier.take(1)
    crawl.frontier.hand_back([found(later[0])])
    assert 0 not in crawl.outcomes
    crawl.clock.now += 1
    crawl.frontier.hand_back([Reply(slow, status=404)])
    last, _ = crawl.frontier.take(1)
    crawl.frontier.hand_back([found(last[0])])
    assert crawl.outcomes[0] == "missing"


@pytest.mark.parametrize("connections", [4, 16, 64])
def test_C9_point_3_ten_that_come_in_among_songs_need_a_canary(connections):
    """Answers come in another order than the site gave them, so that no ten of a spell are in a row."""
    asked = connections * 2  # answers in the latency's time
    for seed in range(20):
        crawl = Crawl(range(40 * connections), rate=0, connections=connections, latency=1.0)
        crawl.random.seed(seed)
        lies = range(10 * connections, 10 * connections + max(12, asked // 3))
        gave = count()

        def answer(attempt, now, lies=lies, gave=gave):
            is_lie = not attempt.is_canary and next(gave) in lies
            return Reply(attempt, status=404) if is_lie else found(attempt)

        crawl.answer = answer
        assert right(crawl.run()), f"seed {seed}"


def test_C9_point_3_ten_in_a_row_need_a_canary():
    """The tenth asks one; so do ten that are held when nothing else is left."""
    gap = range(50, 60)
    crawl = Crawl(range(100), connections=1, answer=site(missing=gap)).run()
    assert right(crawl, gap)
    assert canaries_of(crawl)[0] == 49
    tail = Crawl(range(60), answer=site(missing=gap)).run()
    assert right(tail, gap)
    assert canaries_of(tail)


def test_C9_point_3_more_than_sixty_in_a_hundred_need_a_canary():
    """Though no ten of them stand in a row."""
    missing = {num for num in range(1000) if num % 8 and num > 200}
    crawl = Crawl(range(1000), connections=1, answer=site(missing=missing)).run()
    assert right(crawl, missing)
    assert 0 < len(canaries_of(crawl)) <= (10 + 1000 // 50) * 26


@pytest.mark.parametrize("rate", [20, 100, 0])
def test_C9_point_3_a_real_gap_costs_one_request_in_forty(rate):
    """A gap of 5,000 numbers is believed for at most 125 requests more than there are numbers."""
    gap = range(300, 5300)
    crawl = Crawl(range(5600), rate=rate, answer=site(missing=gap)).run()
    assert right(crawl, gap)
    assert len(crawl.records) == 5600
    assert len(crawl.sent) - 5600 <= 5000 // 40


def test_C9_point_4_the_nearest_of_the_last_found_comes_first():
    """Then songs of blocks nearby, what was published, and what the source names."""
    known = KnownSongs(nearest=lambda _num: [900, 3900], published=[70_000])
    canaries = Canaries(known, 5)
    assert list(canaries.near(50)) == [900, 3900, 70_000, 5]
    canaries.recent.extend(range(10, 22))
    assert list(canaries.near(18)) == [18, 17, 19, 16, 20, 15, 21, 14, 900, 3900, 70_000, 5]


def test_C9_point_4_an_answer_of_a_cache_proves_nothing():
    """A canary whose Age reaches back before the stretch is no proof: the site is found lying."""

    def answer(attempt, now):
        if now < 1003:
            return found(attempt)
        if attempt.is_canary:
            return Reply(attempt, True, {}, 200, headers={"age": "400"})
        return Reply(attempt, status=404)

    crawl = Crawl(range(10**6), answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert set(crawl.outcomes.values()) == {"found"}


def test_C9_point_5_a_spell_that_begins_while_held_numbers_are_asked_again():
    """What is denied then counts among the ten in a row."""
    asked = count(1)

    def answer(attempt, _now):
        nth = next(asked)
        is_denied = 20 < nth <= 30 or 35 <= nth < 45
        return Reply(attempt, status=404) if is_denied else found(attempt)

    crawl = Crawl(range(90), connections=1, rate=5, answer=answer).run()
    assert crawl.outcomes == dict.fromkeys(range(90), "found")


def test_C9_point_4_an_age_below_a_second_is_waited_out():
    """A cache that took the canary just before the spell says `Age: 0`: it proves nothing yet."""

    def answer(attempt, now):
        if now < 1000.3 or now >= 1001.2:
            return found(attempt)
        if attempt.is_canary and attempt.song_num < 30:
            return Reply(attempt, True, {}, 200, headers={"age": str(int(now - 1000.2))})
        return Reply(attempt, status=404)

    crawl = Crawl(range(90), answer=answer).run()
    assert crawl.outcomes == dict.fromkeys(range(90), "found")


def test_C9_point_4_a_site_that_says_age_0_of_all_it_sends_is_believed():
    """Some caches do so for what they just fetched: after a second that is proof."""

    def answer(attempt, _now):
        if 50 <= attempt.song_num < 150:
            return Reply(attempt, status=404, headers={"age": "0"})
        return Reply(attempt, True, {}, 200, headers={"age": "0"})

    crawl = Crawl(range(300), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    missing = {num for num, what in crawl.outcomes.items() if what == "missing"}
    assert missing == set(range(50, 150))
    assert len(crawl.sent) <= 300 + 60


def test_C9_point_4_the_first_song_found_is_published():
    """Once, so that shards and fresh stores have a canary."""
    told = []
    Crawl(
        range(100), connections=1, answer=site(missing=range(5)), on_first_found=told.append
    ).run()
    assert told == [5]


def test_C9_point_5_held_numbers_are_released_with_their_proof():
    """Which canary was found, and when; the first and the last of them were asked once more."""
    told, gap = [], range(100, 130)
    crawl = Crawl(
        range(200),
        connections=1,
        answer=site(missing=gap),
        on_proof=lambda *each: told.append(each),
    ).run()
    assert right(crawl, gap)
    assert sorted(num for nums, _, _ in told for num in nums)[:10] == list(range(100, 110))
    assert {canary for _, canary, _ in told} == {99}
    assert {100, 109} <= set(canaries_of(crawl))


@pytest.mark.parametrize("rate", [1, 10, 200])
@pytest.mark.parametrize("begin", [1003.0, 1020.5])
def test_C9_point_5_a_spell_that_is_over_is_asked_again(rate, begin):
    """Twelve seconds of 404s in the midst of a first crawl: every song is found in the end."""
    missing = {num for num in range(4000) if random.Random(num).random() < 0.09}
    numbers = range(30 * rate + 30)
    crawl = Crawl(numbers, rate=rate, answer=site(missing=missing, lies=(begin, begin + 12))).run()
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, missing)
    assert len(crawl.records) == len(numbers)
    assert len(crawl.sent) - len(numbers) <= 200


def test_C9_point_6_a_deleted_canary_is_told_from_a_lying_site():
    """Two others of other blocks are asked: one that is there proves that the canary is gone."""
    known = KnownSongs(nearest=lambda _num: [99_999, 88_888, 77_777])
    gone = {*range(30), 99_999}
    crawl = Crawl(range(60), known=known, answer=site(missing=gone)).run()
    assert right(crawl, gone)
    assert crawl.frontier.stopped_by == "done"
    assert {99_999, 88_888, 77_777} <= set(canaries_of(crawl))


def test_C9_point_6_a_site_that_goes_on_lying_ends_the_run():
    """One probe a second for a minute; nothing is believed, and the end says why."""
    crawl = Crawl(range(10**6), answer=site(lies=(1005, 1e9))).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert "denies songs that are there" in crawl.frontier.stop_detail
    assert set(crawl.outcomes.values()) == {"found"}
    assert crawl.clock.now < 1005 + 75


def test_C9_point_7_a_canary_that_fails_proves_nothing_either_way():
    """What is held stays held while canaries answer 500, and is released when they do not."""

    def answer(attempt, now):
        if attempt.is_canary and now < 1010:
            return Reply(attempt, status=500)
        return site(missing=range(50, 80))(attempt, now)

    crawl = Crawl(range(100), answer=answer).run()
    assert right(crawl, range(50, 80))
    assert crawl.clock.now > 1010


def test_C9_point_8_without_a_canary_numbers_all_over_the_range_are_asked_first():
    """Twenty of them; one that is found is the canary."""
    gap = range(400)
    known = KnownSongs(spread=range(5000))
    crawl = Crawl(range(5000), rate=0, known=known, answer=site(missing=gap)).run()
    assert right(crawl, gap)
    assert len([num for num in canaries_of(crawl) if num >= 400 and num % 250 == 125]) >= 18


def test_C9_point_8_a_thousand_missing_and_nothing_found_end_the_run():
    """A wrong address on a fresh store: no record, and words that say what to do."""
    crawl = Crawl(range(3000), answer=MISSING, known=KnownSongs(spread=range(3000))).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert "--canary" in crawl.frontier.stop_detail
    assert crawl.records == {}
    assert len(crawl.sent) <= MOST_HELD + 20


def test_C9_point_8_a_short_range_without_any_song_is_not_believed():
    """Fifty missing numbers and nothing found end like a thousand."""
    crawl = Crawl(range(50), answer=MISSING, known=KnownSongs(spread=range(50))).run()
    assert (crawl.frontier.stopped_by, crawl.records) == ("circuit", {})


def test_C9_point_8_a_named_canary_proves_an_empty_range():
    """`--canary` makes a stretch without any song believable."""
    known = KnownSongs(published=[378195])
    crawl = Crawl(range(3000), answer=site(missing=range(3000)), known=known).run()
    assert crawl.outcomes == dict.fromkeys(range(3000), "missing")


def test_C9_point_9_what_is_held_at_an_early_end_is_not_recorded():
    """It counts as not asked."""
    crawl = Crawl(range(10**6), connections=1, answer=site(missing=range(50, 10**6)))
    crawl.run(seconds=4.2)
    crawl.frontier.stop("signal")
    crawl.run()
    assert set(crawl.outcomes.values()) == {"found"}
    assert len(crawl.outcomes) < len(crawl.sent)


def test_C9_point_10_canaries_are_paced_counted_and_thrown_away():
    """They keep pace and cap, count as requests, and leave neither tuple nor record."""
    results: list = []
    crawl = Crawl([], answer=site(missing=range(50, 90)))
    crawl.frontier.add_job(job_over(range(200), results))
    crawl.run()
    assert crawl.frontier.tally.requests == len(crawl.sent) > 200
    assert len(results) == 160
    capped = Crawl(
        range(200), answer=site(missing=range(50, 90)), policy=Policy(max_requests=100)
    ).run()
    assert len(capped.sent) == 100
    assert capped.frontier.stopped_by == "daily_cap"


@pytest.mark.parametrize("seed", range(10))
def test_C9_point_11_no_spell_of_ten_and_more_answers_is_believed(seed):
    """Short and long ones, among holes and gaps: no song that is there becomes missing."""
    chance = random.Random(seed)
    missing = {num for num in range(3000) if chance.random() < 0.09}
    for _ in range(3):
        begin = chance.randrange(3000)
        missing |= set(range(begin, begin + chance.choice([12, 40, 200])))
    spells = []
    moment = 1000.0
    for _ in range(6):
        moment += chance.uniform(0.5, 6)
        spells.append((moment, moment + chance.choice([0.3, 0.6, 2, 5])))
        moment = spells[-1][1]

    def answer(attempt, now):
        lies = any(begin <= now < end for begin, end in spells)
        return Reply(attempt, status=404) if lies else site(missing=missing)(attempt, now)

    crawl = Crawl(range(3000), answer=answer, seed=seed, latency=0.05).run()
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, missing)
    assert len(crawl.records) == 3000


def test_C9_point_6_songs_that_were_deleted_are_asked_last():
    """Three of the nearest songs are gone: the one that a probe found is asked, and the run ends."""
    asked = count()

    def answer(attempt, _now):
        num = attempt.song_num
        is_gone = num >= 60 or (attempt.is_canary and num in range(54, 60))
        if is_gone and attempt.is_canary:
            next(asked)
        return Reply(attempt, status=404) if is_gone else found(attempt)

    crawl = Crawl(range(120), rate=20, connections=1, answer=answer).run(seconds=600)
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, range(60, 120))
    assert next(asked) < 100


def test_C9_point_6_a_song_denied_to_the_circuit_breaker_makes_wary():
    """A single missing number before a cluster of dead pages needs a canary when the site lies."""
    lies = (2.0, 40.0)

    def answer(attempt, now):
        if attempt.song_num in range(41, 181):
            return Reply(attempt, status=500)
        is_lie = lies[0] <= now - 1000 < lies[1]
        return Reply(attempt, status=404) if is_lie else found(attempt)

    crawl = Crawl(range(200), rate=20, latency=0.01, answer=answer).run()
    assert 40 in crawl.asked
    assert crawl.outcomes[40] == "found"


def test_C9_point_2_a_supply_that_takes_its_time_is_no_end():
    """A few are held until the supply goes on; a run that has all its numbers releases them."""

    class Slow(IterableSupply):
        is_ready = False

        def take(self, wanted):
            return super().take(wanted) if self.is_ready or wanted <= 0 else super().take(0)

    supply = Slow(range(5))
    crawl = Crawl(supply=supply, answer=MISSING)
    supply.is_ready = True
    attempts, _ = crawl.frontier.take(4)
    supply.is_ready = False
    crawl.frontier.hand_back([Reply(attempt, status=404) for attempt in attempts])
    crawl.frontier.take(1)
    assert crawl.records == {}


def test_C7_a_refused_canary_counts():
    """A token refused from the second look on ends the run within a few requests more."""
    is_refused = False

    def answer(attempt, _now):
        nonlocal is_refused
        if attempt.is_canary and attempt.song_num != 49:
            is_refused = True
        if is_refused:
            return Reply(attempt, status=403)
        return Reply(attempt, status=404) if attempt.song_num >= 50 else found(attempt)

    crawl = Crawl(range(120), connections=1, answer=answer).run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert len(canaries_of(crawl)) <= 5
    assert 50 not in crawl.records
