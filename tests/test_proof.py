"""When "missing" is believed: the eleven points of the rule, by crawls in simulated time."""

import random
from itertools import count, pairwise

import pytest

from crawler.frontier.canaries import (
    Canaries,
    CanaryQueue,
    KnownSongs,
    MissingWatch,
    reaches_back,
    some_of,
)
from crawler.frontier.proof import MOST_HELD, Proof
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, PendingNumber, Policy
from tests.simulation import NOON, Crawl, found, job_over, status

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


class Desk:
    """Writes down what a proof wants of the frontier; answers and moments are the test's own."""

    def __init__(self, *canaries, spread=None):
        self.asked, self.released, self.again, self.ended = [], [], [], []
        self.waiting, self.is_all_back, self.firsts = [], True, []
        self.job = job_over([])
        known = KnownSongs(published=canaries, spread=spread)
        self.proof = Proof(self, self.job, known, self.firsts.append, probe_seconds=1.0)

    def ask(self, song_num, job, on_reply):
        self.asked.append(song_num)
        self.waiting.append((PendingNumber(song_num, job, is_canary=True), on_reply))

    def release(self, held, canary):
        self.released.append(([each.attempt.song_num for each in held], canary))

    def ask_again(self, held):
        self.again.append([each.attempt.song_num for each in held])

    def end(self, stopped_by, detail):
        self.ended.append((stopped_by, detail))

    def is_back(self, _moment):
        return self.is_all_back

    def hold(self, nums, now):
        """Let numbers be missing."""
        for num in nums:
            attempt = PendingNumber(num, self.job)
            self.proof.hold(attempt, Reply(attempt, status=404), NOON, now)

    def song(self, num, sent_at, now):
        """Let a number be found."""
        attempt = PendingNumber(num, self.job)
        attempt.sent_at = sent_at
        self.proof.note_songs([attempt], now)

    def answer(self, now, *statuses, sent_at=None):
        """Answer all that is asked now, one status each, or one for all."""
        waiting, self.waiting = self.waiting, []
        assert len(statuses) in (1, len(waiting))
        for (attempt, on_reply), number in zip(
            waiting, statuses * (len(waiting) if len(statuses) == 1 else 1), strict=True
        ):
            attempt.sent_at = now if sent_at is None else sent_at
            on_reply(attempt, Reply(attempt, number == 200, {}, number), now)


def test_C9_the_looks_of_an_endless_gap_stand_ever_farther_apart():
    """At the tenth, 50 later, then each time after twice as many, at most 900 apart."""
    watch, looks = MissingWatch(), []
    for nth in range(1, 2800):
        assert watch.note_missing() == nth
        if watch.needs_canary():
            looks.append(nth)
            watch.begin_look()
            watch.end_look()
    assert looks == [10, 60, 120, 240, 480, 960, 1860, 2760]
    watch.note_found(1)
    watch.end_look()  # without a streak nothing changes
    assert [watch.note_missing() and watch.needs_canary() for _ in range(10)] == [False] * 9 + [
        True
    ]


@pytest.mark.parametrize(
    ("songs", "asked", "first_look"),
    [(0, 9, 10), (0, 10, 50), (38, 10, 12), (40, 10, 10), (39, 11, 50), (90, 11, 10), (80, 11, 20)],
)
def test_C9_ten_canaries_and_one_for_fifty_answers_are_in_the_budget(songs, asked, first_look):
    """Without budget the first look comes at the fiftieth in a row."""
    watch = MissingWatch()
    assert watch.canaries_asked == 0
    watch.note_found(songs)
    watch.canaries_asked = asked
    found_at = next(nth for nth in count(1) if watch.note_missing() and watch.needs_canary())
    assert found_at == first_look


@pytest.mark.parametrize(
    ("missing", "songs", "is_mostly"),
    [(120, 0, False), (121, 0, True), (121, 79, True), (121, 80, False), (122, 79, True)],
)
def test_C9_more_than_120_of_the_last_200_answers_are_most(missing, songs, is_mostly):
    """What is older than 200 answers does not count."""
    watch = MissingWatch()
    for _ in range(missing):
        watch.note_missing()
    watch.note_found(songs)
    assert watch.is_mostly_missing() is is_mostly


def test_C9_where_most_are_missing_a_canary_is_due_every_fifty_answers():
    """Though no ten stand in a row; and only where most are."""
    watch, looks = MissingWatch(), []
    for nth in range(1, 301):
        if nth % 8 == 0:
            watch.note_found(1)
            continue
        watch.note_missing()
        if watch.needs_canary():
            looks.append(nth)
            watch.begin_look()
    assert looks == [138, 188, 238, 289]  # the 121st missing one is the 138th answer; 288 is a song


def test_C9_a_site_that_lied_is_watched_for_a_hundred_answers():
    """And what stood in a row before counts no more."""
    watch = MissingWatch()
    for _ in range(9):
        watch.note_missing()
    assert not watch.is_wary
    watch.be_wary()
    assert [watch.note_missing() and watch.needs_canary() for _ in range(9)] == [False] * 9
    watch.note_missing()
    assert watch.needs_canary()
    watch.note_found(89)
    assert watch.is_wary
    watch.note_found(1)
    assert not watch.is_wary


@pytest.mark.parametrize(
    ("believed", "decided", "around"),
    [(0, 0, 25), (44, 440, 25), (19, 440, 50), (0, 940, 60), (24, 40, 20), (9, 540, 60)],
)
def test_C9_ten_are_a_crowd_at_four_times_the_usual_share(believed, decided, around):
    """Within 20 to 60 answers, by what share was missing so far, a tenth to begin with."""
    watch = MissingWatch()
    watch.believe(believed, decided)
    watch.note_found(1000)
    assert watch.is_crowd(1000 - around + 1)
    assert not watch.is_crowd(1000 - around)
    watch.believe(300, 900)
    assert watch.is_crowd(981)
    assert not watch.is_crowd(980)


@pytest.mark.parametrize(("many", "firsts"), [(3, [0, 1, 2]), (20, [25, 75]), (40, [1, 3, 5])])
def test_C9_numbers_all_over_the_range_lie_in_the_middle_of_its_parts(many, firsts):
    """Twenty of them, or all where the range has fewer."""
    spans = {3: range(3), 20: range(1000), 40: range(40)}
    nums = Canaries(KnownSongs(spread=spans[many]), None).spread()
    assert nums[: len(firsts)] == firsts
    assert len(nums) == min(many, 20)
    assert Canaries(KnownSongs(), None).spread() == []


def test_C9_which_held_numbers_are_asked_again():
    """All of 24, every ninth of more, four of a hundred; the ends of long gaps, and lone ones."""
    assert some_of(list(range(24))) == list(range(24))
    assert some_of(list(range(25))) == [4, 13, 22, 0, 24]
    assert some_of(list(range(99))) == [*range(4, 99, 9), 0, 98]
    assert some_of(list(range(100))) == [3, 33, 66, 96, 0, 99]
    assert some_of(list(range(24)), is_long_held=True) == list(range(24))
    assert some_of(list(range(501)), is_long_held=True) == [*range(4, 501, 9), 0, 500]
    assert some_of([*range(90), *range(100, 109), 200]) == [3, 33, 66, 106, 0, 89, 100, 108]
    short = [*range(40, 60), *range(70, 75), *range(80, 86), 90]
    assert some_of(short) == [44, 53, 72, 90, 40, 59, 80, 85]
    lone = list(range(0, 60, 2))
    assert some_of(lone) == [8, 26, 44, 0, 2, 4, 6, 10, 12, 14, 16, 18, 20, 22, 24, 28]
    gaps = [num for first in range(0, 500, 100) for num in range(first, first + 6)]
    assert some_of(gaps) == [
        4,
        201,
        304,
        *[num for at in range(0, 400, 100) for num in (at, at + 5)],
    ]
    longer = [range(first, first + 6 + first // 100) for first in range(0, 500, 100)]
    asked = {*some_of([num for gap in longer for num in gap])}
    assert asked >= {num for gap in longer[1:] for num in (gap[0], gap[-1])}
    assert not {0, 5} & asked


def test_C9_canaries_go_out_in_the_order_in_which_they_are_asked_for():
    """One that somebody wants first goes before those that wait; so does what was never sent."""
    queue, told = CanaryQueue(), []
    for num in (1, 2, 3):
        queue.ask(num, job_over([]), lambda *answer: told.append(answer))
    queue.ask(4, job_over([]), lambda *answer: told.append(answer), is_first=True)
    assert [each.song_num for each in queue.waiting] == [4, 1, 2, 3]
    first, second = queue.pop(2)
    queue.put_first([first, second])
    assert [each.song_num for each in queue.waiting] == [4, 1, 2, 3]
    queue.answer(second, Reply(second, status=404), 5.0)
    assert [(each.song_num, now) for each, _, now in told] == [(1, 5.0)]


@pytest.mark.parametrize(
    ("age", "since", "is_old"),
    [
        (None, 1e9, False),
        ("0", 99.0, False),
        ("0", 99.1, None),
        ("1", 98.0, False),
        ("1", 98.1, True),
        ("7, 0", 92.5, True),
        ("999999999", 0.0, True),
        ("1000000000", 0.0, False),
        ("²", 0.0, False),
        ("-1", 1e9, False),
    ],
)
def test_C9_an_answer_is_as_old_as_its_age_says_and_a_second_more(age, since, is_old):
    """An age that is no whole number of seconds says nothing; the first cache's word counts."""
    attempt = PendingNumber(1, job_over([]))
    attempt.sent_at = 100.0
    reply = Reply(attempt, True, {}, 200, headers={} if age is None else {"age": age})
    assert reaches_back(reply, since) is is_old


def test_C9_a_song_that_was_denied_comes_last_until_it_is_found():
    """And a deleted one not at all; no song stands twice among the recent."""
    canaries = Canaries(KnownSongs(published=[1, 2, 3]), None)
    canaries.note(1, is_found=False)
    assert canaries.near(0) == [2, 3, 1]
    canaries.note(1, is_found=True)
    canaries.note(1, is_found=True)
    assert (list(canaries.recent), canaries.near(0)) == ([1], [1, 2, 3])
    canaries.deleted.add(2)
    assert canaries.near(0) == [1, 3]


@pytest.mark.parametrize("nine", [9, 10])
def test_C9_nine_need_no_canary_and_ten_ask_one(nine):
    """At the end nine are released by it, without any."""
    desk = Desk(500)
    desk.hold(range(nine), 1.0)
    assert desk.asked == [500] * (nine == 10)
    assert desk.proof.conclude(1.0) is (nine == 10)
    assert desk.released == ([([*range(9)], None)] if nine == 9 else [])


def test_C9_one_of_which_nothing_was_known_counts_among_the_ten():
    """Asked for the circuit breaker, until a song is found."""
    desk = Desk(500)
    desk.hold(range(9), 1.0)
    desk.proof.note_unknown()
    assert desk.proof.conclude(1.0)
    assert desk.asked == [500]
    other = Desk(500)
    other.proof.note_unknown()
    other.song(20, 0.5, 0.6)
    other.hold(range(9), 1.0)
    assert not other.proof.conclude(1.0)
    other.song(21, 1.5, 1.6)
    other.proof.note_unknown()
    other.hold(range(8), 2.0)
    assert not other.proof.conclude(2.0)
    other.hold(range(9), 3.0)
    assert other.proof.conclude(3.0)
    assert other.asked == [20]


def test_C9_nothing_held_is_nothing_to_release_and_one_look_is_enough():
    """However often it is asked what is left, at the end or before it."""
    desk = Desk(500)
    assert not desk.proof.conclude(0.1, is_end=False)
    assert not desk.proof.conclude(0.1)
    desk.hold(range(10), 0.5)
    assert desk.asked == [500]
    assert desk.proof.conclude(9.0)
    assert (desk.asked, desk.released) == ([500], [])


def test_C9_a_look_that_fails_is_repeated_at_the_second_that_was_told():
    """Not before; whoever asks in the meantime is told what is left."""
    desk = Desk(500)
    desk.hold(range(10), 1.0)
    desk.answer(1.5, 500)
    assert (desk.proof.wake(2.0), desk.asked) == (0.5, [500])
    assert (desk.proof.wake(2.5), desk.asked) == (1.0, [500, 500])


@pytest.mark.parametrize("number", [404, 500])
def test_C9_a_canary_that_is_not_found_once_more_proves_nothing(number):
    """Another spell may have begun while the held numbers were asked again."""
    desk = Desk(500)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 200, sent_at=1.0)
    assert desk.asked[1:] == [*range(10)]
    desk.answer(1.2, 404)
    desk.answer(1.3, number)
    assert (desk.asked[11:], desk.released) == ([500], [])
    assert desk.proof.conclude(1.4)


@pytest.mark.parametrize("second", [200, 404])
def test_C9_after_a_crowd_and_a_hundred_songs_all_is_as_before(second):
    """A few are released without a canary, and the first look that fails is repeated in a second."""
    desk = Desk(500)
    for fifth in range(5):
        desk.song(100 + fifth, 0.5, 0.6)
        desk.hold(range(2 * fifth, 2 * fifth + 2), 1.0)
    desk.proof.conclude(1.0)
    desk.answer(1.1, 500)
    desk.proof.wake(2.1)
    desk.answer(2.1, 200)
    desk.answer(2.2, second)  # there all the same, or believed once the canary is found again
    desk.answer(2.3, 200)
    assert len(desk.released) == (second == 404)
    for num in range(200, 400):
        desk.song(num, 3.0, 3.1)
    desk.hold([50], 4.0)
    desk.song(400, 4.5, 4.6)
    assert desk.released[-1] == ([50], None)
    desk.hold(range(60, 70), 5.0)
    desk.answer(5.5, 500)
    assert desk.proof.wake(5.5) == 1.0


def test_C9_a_song_asked_for_after_another_came_in_finds_all_back():
    """One that was asked for sooner does not ask whether what was under way then has come in."""
    desk = Desk(500)
    desk.is_all_back = False
    desk.hold([1], 1.0)
    desk.song(5, 2.0, 4.0)
    desk.is_all_back = True
    desk.song(6, 3.9, 4.1)
    assert desk.released == []
    desk.song(7, 4.0, 4.2)
    assert desk.released == [([1], None)]


def test_C9_of_songs_that_come_in_together_the_first_is_published():
    """Other runs need one, and the same in every run."""
    desk = Desk()
    desk.proof.note_songs([PendingNumber(num, desk.job) for num in (5, 6, 7)], 1.0)
    assert desk.firsts == [5]


def test_C9_a_supply_that_is_dry_for_two_seconds_asks_a_canary():
    """And for sixty: that look may end the run."""
    desk = Desk(500)
    desk.hold([1], 10.0)
    desk.hold([2], 11.0)
    assert desk.proof.conclude(12.9, is_end=False)
    assert desk.asked == []
    assert desk.proof.conclude(13.0, is_end=False)
    assert desk.asked == [500]
    desk.answer(13.1, 200)
    desk.answer(13.2, 404)
    desk.answer(13.3, 200)
    assert desk.asked == [500, 1, 2, 500]
    assert desk.released == [([1, 2], 500)]


@pytest.mark.parametrize("dry", [59.9, 60.0])
def test_C9_thirteen_looks_that_fail_end_a_run_that_has_nothing_else(dry):
    """Each after a pause twice as long, a minute at most; not before a supply is dry for a minute."""
    desk = Desk(500)
    desk.hold([1], 1.0)
    waits, now = [], 61.0
    for _ in range(12):
        desk.proof.conclude(now, is_end=False)
        desk.answer(now, 500)
        waits.append(desk.proof.wake(now))
        assert desk.proof.conclude(now + waits[-1] - 0.01, is_end=False)
        assert desk.waiting == []
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert (desk.ended, desk.asked) == ([], [500] * 12)
    desk.hold([2], now - dry)
    desk.proof.conclude(now, is_end=False)
    desk.answer(now, 500)
    detail = "songs that were there fail when asked again: 500"
    assert desk.ended == ([("circuit", detail)] if dry == 60 else [])


def test_C9_a_wary_look_at_the_end_may_end_the_run():
    """A look at one number that a song would release where nobody is wary counts as the last."""
    desk = Desk(500)
    desk.proof.note_canary(500, is_found=False)
    desk.is_all_back = False
    desk.hold([1], 1.0)
    desk.song(2, 2.0, 2.1)
    now = 3.0
    for _ in range(13):
        assert desk.ended == []
        desk.proof.conclude(now)
        desk.answer(now, 500)
        now += desk.proof.wake(now)
    assert [stopped_by for stopped_by, _ in desk.ended] == ["circuit"]


def test_C9_a_song_releases_what_came_before_it_was_asked_for():
    """The first of two; the other waits for the next song."""
    desk = Desk()
    desk.hold([1], 1.0)
    desk.hold([2], 3.0)
    desk.song(5, 2.0, 4.0)
    assert desk.released == [([1], None)]
    desk.song(6, 2.9, 5.0)
    assert len(desk.released) == 1
    desk.song(7, 3.0, 6.0)
    assert desk.released == [([1], None), ([2], None)]
    assert desk.firsts == [5]


@pytest.mark.parametrize(("between", "is_crowd"), [(15, False), (14, True)])
def test_C9_ten_held_among_25_answers_need_a_canary(between, is_crowd):
    """Though songs stand between them: the next song asks one, and releases nothing."""
    desk = Desk(500)
    desk.is_all_back = False
    desk.hold(range(5), 1.0)
    for num in range(100, 100 + between + 1):
        desk.song(num, 0.5, 1.0)
    desk.hold(range(5, 10), 1.5)
    desk.is_all_back = True
    desk.song(200, 2.0, 2.5)
    assert (desk.asked != [], desk.released == []) == (is_crowd, is_crowd)


@pytest.mark.parametrize(
    ("known", "others"),
    [
        ([1998, 1000, 2000, 3000], [2000, 3000]),
        ([2000, 1999, 2999, 3000], [1999, 3000]),
        ([7, 8], [8]),
    ],
)
def test_C9_a_denied_canary_asks_two_others_of_other_blocks(known, others):
    """One that is found shows that the denied ones are deleted; then the held are asked again."""
    desk = Desk(*known)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 404)
    assert desk.asked == [known[0], *others]
    desk.answer(1.2, 200, *[404] * (len(others) - 1))
    assert desk.proof.canaries.deleted == {known[0], *others[1:]}
    assert desk.asked[1 + len(others) :] == list(range(10))
    desk.answer(1.3, 404)
    desk.answer(1.4, 200)
    assert desk.asked[-1] == others[0]
    assert desk.released == [([*range(10)], others[0])]
    assert (desk.again[-1:], desk.proof.room) == ([[]], 1000)


def test_C9_a_song_among_the_held_gives_all_back():
    """A spell has come and gone: nothing is believed, and the site is watched closely."""
    desk = Desk(500)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 200)
    desk.answer(1.2, *[404] * 9, 200)
    assert (desk.again, desk.released) == ([[*range(10)]], [])
    desk.hold([3], 2.0)
    assert desk.proof.conclude(2.0)
    assert desk.asked[-1] == 500


def test_C9_what_fails_when_it_is_asked_again_is_asked_as_any_other():
    """The rest is released."""
    desk = Desk(500)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 200)
    desk.answer(1.2, 500, *[404] * 9)
    desk.answer(1.3, 200)
    assert (desk.again, desk.released) == ([[0]], [([*range(1, 10)], 500)])


def test_C9_a_site_that_lies_is_probed_sixty_times_a_second_apart():
    """Nothing else goes out; the sixtieth that is denied ends the run."""
    desk = Desk(500, 600)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 404)
    desk.answer(1.2, 404)
    assert desk.proof.is_lying
    assert (desk.proof.room, desk.again) == (0, [[*range(10)]])
    desk.hold([77], 1.3)
    assert desk.again[-1] == [77]
    assert desk.proof.wake(1.7) == pytest.approx(0.5)
    begun = len(desk.asked)
    for nth in range(60):
        assert desk.ended == []
        assert desk.proof.wake(2.2 + nth) == pytest.approx(1.0)
        assert len(desk.asked) == begun + nth + 1
        desk.answer(2.3 + nth, 404)
    assert desk.ended == [
        ("circuit", f"the site denies songs that are there, such as {desk.asked[-1]}")
    ]
    assert desk.asked[begun:] == [500, 600] * 30
    assert desk.proof.wake(100.0) == 1.0
    assert len(desk.asked) == begun + 60


def test_C9_a_probe_that_is_found_ends_the_lying():
    """What is missing then is held again."""
    desk = Desk(500)
    desk.hold(range(10), 1.0)
    desk.answer(1.1, 404)
    assert desk.proof.is_lying
    desk.proof.wake(2.2)
    desk.answer(2.3, 200)
    assert not desk.proof.is_lying
    assert desk.proof.room == 1000
    assert desk.proof.wake(2.4) == 1.0


def test_C9_without_any_song_a_thousand_are_held_and_no_more():
    """Numbers all over the range are asked once; then the thousandth ends the run."""
    desk = Desk(spread=range(40_000))
    desk.hold(range(10), 1.0)
    assert desk.asked == list(range(1000, 40_000, 2000))
    desk.answer(1.1, 404)
    desk.hold(range(10, 999), 2.0)
    assert (desk.proof.room, desk.ended, len(desk.asked)) == (1, [], 20)
    desk.hold([999], 3.0)
    assert [stopped_by for stopped_by, _ in desk.ended] == ["circuit"]
    assert desk.ended[0][1].startswith("1000 numbers are missing and no song was ever found")
    desk.hold([1000], 3.0)
    assert desk.proof.room == 0


def test_C9_a_song_that_a_spread_finds_is_the_canary():
    """The others of the spread are no deleted songs."""
    desk = Desk(spread=range(3))
    desk.hold(range(10, 20), 1.0)
    assert desk.asked == [0, 1, 2]
    desk.answer(1.1, 404, 200, 404)
    assert desk.proof.canaries.deleted == set()
    desk.answer(1.2, 404)
    assert desk.asked[-1] == 1
    desk.answer(1.3, 200)
    assert desk.released == [([*range(10, 20)], 1)]


def test_C9_point_8_a_song_found_while_a_spread_is_asked_is_the_canary():
    """The site is not said to lie because none of the spread is there."""
    desk = Desk(spread=range(3))
    desk.hold(range(10, 20), 1.0)
    desk.song(20, 0.9, 1.05)
    desk.answer(1.1, 404)
    assert (desk.asked, desk.proof.is_lying) == ([0, 1, 2, 20], False)
    desk.answer(1.2, 200)
    desk.answer(1.3, 404)
    desk.answer(1.4, 200)
    assert desk.released == [([*range(10, 20)], 20)]


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
    """A canary whose Age reaches back before the stretch is no proof: nothing is believed."""

    def answer(attempt, now):
        if now < 1003:
            return found(attempt)
        if attempt.is_canary:
            return Reply(attempt, True, {}, 200, headers={"age": str(int(now - 1002))})
        return Reply(attempt, status=404)

    crawl = Crawl(range(10**6), answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert set(crawl.outcomes.values()) == {"found"}
    assert len(crawl.sent) <= 300 + MOST_HELD + 100


@pytest.mark.parametrize("kept", [0.0, 60.0, 3600.0])
@pytest.mark.parametrize(("begin", "seconds"), [(1003.0, 0.6), (1002.0, 1.5), (1004.0, 3.0)])
def test_C9_point_5_a_cache_that_keeps_what_was_denied_proves_nothing(kept, begin, seconds):
    """What is asked again is then the same answer once more, and says so by its Age."""
    songs, denied = dict[int, float](), dict[int, float]()

    def answer(attempt, now):
        num = attempt.song_num
        for answers, longest in ((songs, kept), (denied, 3600.0)):
            if now - answers.get(num, -1e9) < longest:
                age = {"age": str(int(now - answers[num]))}
                is_song = answers is songs
                return Reply(attempt, is_song, {}, 200 if is_song else 404, headers=age)
        if begin <= now < begin + seconds:
            denied[num] = now
            return Reply(attempt, status=404)
        songs[num] = now
        return found(attempt)

    crawl = Crawl(range(2000), answer=answer, known=KnownSongs(spread=range(2000))).run()
    assert set(crawl.outcomes.values()) == {"found"}
    assert len(crawl.outcomes) >= 2000 - len(denied)


@pytest.mark.parametrize(
    ("kept", "end"), [(10.0, "done"), (60.0, "done"), (300.0, "done"), (7200.0, "circuit")]
)
def test_C9_point_4_a_long_tail_behind_a_cache_is_proved_when_it_lets_go(kept, end):
    """Nobody is denied who is known to be there, so the site is not taken for lying."""
    known = KnownSongs(spread=range(1300))
    answer = behind_a_cache([range(300, 1300)], seconds=kept)
    crawl = Crawl(range(1300), rate=50, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == end
    assert right(crawl, range(300, 1300))
    assert len(crawl.sent) <= 1300 + 350
    assert crawl.clock.now - 1000 <= max(kept + 60, 500)


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


def behind_a_cache(gaps, *, seconds=3600.0, known=()):
    """Make a site behind a cache that keeps each song for so long and heeds no `no-cache`."""
    kept = dict.fromkeys(known, 900.0)

    def answer(attempt, now):
        num = attempt.song_num
        if any(num in gap for gap in gaps):
            return Reply(attempt, status=404)
        kept_at = kept.get(num, -1e9)
        if now - kept_at < seconds:
            return Reply(attempt, True, {}, 200, headers={"age": str(int(now - kept_at))})
        kept[num] = now
        return found(attempt)

    return answer


@pytest.mark.parametrize("known", [(), range(0, 2000, 5)])
def test_C9_point_4_behind_a_cache_that_heeds_no_cache_gaps_are_proved_by_other_numbers(known):
    """By those that were not asked yet, since what was asked before comes from the cache."""
    gaps = [range(100, 160), range(500, 530), range(900, 1100), range(1400, 1412)]
    answer = behind_a_cache(gaps, known=known)
    crawl = Crawl(range(2000), rate=20, answer=answer, known=KnownSongs(spread=range(2000))).run()
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, {num for gap in gaps for num in gap})
    assert len(crawl.sent) <= 2000 + 250


def test_C9_point_4_a_gap_at_the_end_behind_a_cache_is_told_as_such():
    """Where no number is left that could prove it; some minutes are waited for the cache."""
    crawl = Crawl(
        range(300),
        answer=behind_a_cache([range(200, 300)]),
        known=KnownSongs(spread=range(300)),
    ).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert "come from a cache" in crawl.frontier.stop_detail
    assert right(crawl)
    assert len(crawl.outcomes) == 200
    assert 300 <= crawl.clock.now - 1000 <= 600


def test_C9_point_4_it_is_proved_once_the_cache_lets_go():
    """A cache that keeps a song for a minute costs minutes."""
    crawl = Crawl(
        range(300),
        answer=behind_a_cache([range(200, 300)], seconds=60.0),
        known=KnownSongs(spread=range(300)),
    ).run()
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, range(200, 300))


def test_C9_point_2_a_song_from_a_cache_releases_nothing_where_others_come_fresh():
    """Every fifth song is still in a cache while the site denies all others, so no ten stand in a row."""

    def answer(attempt, now):
        if attempt.song_num % 5 == 0 and not attempt.is_canary:
            return Reply(attempt, True, {}, 200, headers={"age": str(int(now - 900))})
        return Reply(attempt, status=404) if 1003 <= now < 1008 else found(attempt)

    crawl = Crawl(range(2000), connections=1, answer=answer).run()
    assert crawl.outcomes == dict.fromkeys(range(2000), "found")


def test_C9_point_2_where_all_songs_come_from_a_cache_they_count():
    """Else a catalogue that a cache knows whole could never be crawled."""
    missing = range(7, 2000, 11)

    def answer(attempt, _now):
        if attempt.song_num in missing:
            return Reply(attempt, status=404)
        return Reply(attempt, True, {}, 200, headers={"age": "4000"})

    crawl = Crawl(range(2000), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert right(crawl, missing)
    assert len(crawl.sent) == 2000


def test_C9_numbers_that_were_not_asked_yet_lie_all_over_the_rest():
    """Eight each time, others each time, beyond what is held; fewer near the end of the range."""
    canaries = Canaries(KnownSongs(spread=range(0, 3000, 3)), None)
    first, second = canaries.unasked(1500), canaries.unasked(1500)
    for nums in (first, second):
        assert len(set(nums)) == 8
        assert all(1500 < num < 3000 and num % 3 == 0 for num in nums)
        ends = [1500, *sorted(nums), 3000]
        assert max(b - a for a, b in pairwise(ends)) < 600
    assert not set(first) & set(second)
    assert set(canaries.unasked(2993)) <= {2994, 2997}
    assert canaries.unasked(2997) == []
    assert Canaries(KnownSongs(), None).unasked(0) == []


def test_C9_point_5_what_a_cache_repeats_releases_nothing_beside_it():
    """The held numbers that are asked again stand for those that are not."""
    desk = Desk(900)
    desk.proof.canaries.is_cached = True
    desk.hold(range(10), 5.0)
    desk.answer(7.0, 200)
    assert desk.asked[1:] == list(range(10))
    waiting, desk.waiting = desk.waiting, []
    for attempt, on_reply in waiting:
        attempt.sent_at = 8.0
        headers = {"age": "3"} if attempt.song_num == 4 else {}
        on_reply(attempt, Reply(attempt, status=404, headers=headers), 8.0)
    assert (desk.waiting, desk.released) == ([], [])


def test_C9_point_6_while_two_others_are_asked_nothing_else_goes_out():
    """The first canary was denied, so the site may well be lying."""
    desk = Desk(900, 1900, 2900)
    desk.hold(range(10), 5.0)
    assert desk.proof.room == MOST_HELD - 10
    desk.answer(6.0, 404)
    assert len(desk.waiting) == 2
    assert desk.proof.room == 0
    desk.answer(7.0, 200, 404)
    assert desk.proof.room == MOST_HELD - 10


def test_canaries_take_turns_and_then_numbers_all_over_the_range():
    """Those that are known may all be dead pages by now."""
    canaries = Canaries(KnownSongs(published=[5, 7], spread=range(10, 40, 10)), None)
    asked = [canaries.by_turn(turn) for turn in range(6)]
    assert asked == [(5, True), (7, True), (10, False), (20, False), (30, False), (5, True)]
    assert Canaries(KnownSongs(), None).by_turn(3) is None


def test_C9_behind_a_cache_songs_of_this_run_are_the_last_canaries():
    """They were asked a moment ago; others may have left the cache."""
    canaries = Canaries(KnownSongs(nearest=lambda _num: [900], published=[7000]), 5)
    canaries.recent.append(18)
    canaries.is_cached = True
    assert canaries.near(18) == [900, 7000, 5, 18]


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
