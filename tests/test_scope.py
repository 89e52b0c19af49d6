"""The scope: what a request is about, what of it is skipped, and where the tail ends."""

import random
from datetime import timedelta
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.frontier.canaries import KnownSongs
from crawler.frontier.verdict import Reply
from crawler.plan.planned import PlannedBlock
from crawler.plan.scope import Scope, TailSupply, criteria_of
from crawler.request.crawl_request import CrawlRequest
from crawler.settings.reading import read_settings
from crawler.settings.settings import MAX_SONG_NUM
from crawler.store.block import BLOCK_SIZE, block_first
from tests.records import NOON, failed, found, missing, mixed
from tests.simulation import Crawl, status
from tests.simulation import found as page_of
from tests.test_fill import Shelf, drain


def scope_of(shelf, *, first_song=1, last_song=None, read=None, **request) -> Scope:
    """Plan a request over what a shelf holds."""
    given = {"first_song": first_song, "last_song": last_song, "contact": "me@example.org"}
    settings = read_settings({}, token="x", **{k: v for k, v in given.items() if v is not None})
    return Scope(
        CrawlRequest(**request),
        settings,
        shelf.listing,
        now=NOON,
        read=read or shelf.read,
        on_block=shelf.entered.append,
    )


def carry_out(scope, songs=(), most=10**9) -> list[int]:
    """Take numbers one by one and tell the outcome of each."""
    asked: list[int] = []
    while not scope.supply.exhausted and len(asked) < most:
        got = drain_some(scope)
        for num in got:
            scope.note(found(num) if num in songs else missing(num))
        asked += got
    scope.close()
    return asked


def drain_some(scope) -> list[int]:
    """Take one number, or none at the end."""
    while not scope.supply.exhausted:
        if got := scope.supply.take(1):
            return got
    return []


def test_a_range_is_what_was_asked_for():
    """Its bounds, its total, and what was settled before."""
    shelf = Shelf(mixed(range(1000)).values())
    scope = scope_of(shelf, start=500, stop=1500)
    assert (scope.mode, scope.start, scope.stop, scope.total) == ("range", 500, 1500, 1000)
    assert drain(scope.supply) == list(range(1000, 1500))
    assert (scope.skipped, scope.skipped_in_all(), scope.has_gaps) == (500, 500, False)
    scope.note(found(1499))
    assert (scope.has_tail, scope.missing_at_end, scope.numbers) == (False, 0, range(500, 1500))


def test_a_range_of_nothing_is_done_at_once():
    """It ends where it begins, at 0, too."""
    scope = scope_of(Shelf(), start=0, stop=0)
    assert (scope.start, scope.stop, scope.total, drain(scope.supply)) == (0, 0, 0, [])


@pytest.mark.parametrize(("stop", "total"), [(5000, 50), (1010, 10)])
def test_a_sample_is_the_total_where_the_range_is_longer(stop, total):
    """A pilot of fifty numbers asks fifty, or all there are."""
    scope = scope_of(Shelf(), start=1000, stop=stop, sample=50)
    assert scope.total == total == len(drain(scope.supply))


@pytest.mark.parametrize(
    ("last", "last_song", "request_of", "numbers"),
    [
        (0, None, {"start": 500, "stop": 1500}, range(500, 1500)),
        (0, None, {"mode": "next"}, range(1, 1001)),
        (0, 300, {"mode": "next"}, range(1, 301)),
        (2000, None, {"mode": "next"}, range(1, 3001)),
        (2000, 2500, {"mode": "next"}, range(1, 2501)),
        (2000, None, {"mode": "new"}, range(2001, 3001)),
        (2000, 1500, {"mode": "new"}, range(2001, 2001)),
    ],
)
def test_E11b_numbers_among_which_songs_may_be_looked_for(last, last_song, request_of, numbers):
    """Its own, and the first thousand after the last known song where a tail follows."""
    shelf = Shelf([found(last)] if last else [])
    assert scope_of(shelf, last_song=last_song, **request_of).numbers == numbers


def test_next_fills_the_holes_and_goes_on_beyond():
    """From the first song of the catalogue to the last found one, then a thousand further."""
    shelf = Shelf([found(n) for n in range(1, 2000) if n not in (7, 1500)])
    scope = scope_of(shelf, mode="next")
    assert carry_out(scope, songs={2500}) == [7, 1500, *range(2000, 3501)]
    assert (scope.start, scope.stop, scope.total) == (1, 3501, None)
    assert (scope.skipped_in_all(), scope.missing_at_end) == (1997, 1000)


def test_next_in_an_empty_store_begins_at_the_first_song():
    """There is nothing to fill, so it looks for what is new."""
    scope = scope_of(Shelf(), mode="next", first_song=100)
    assert carry_out(scope, songs={150}) == list(range(100, 1151))
    assert (scope.start, scope.stop) == (100, 1151)


def test_new_begins_after_the_last_found_song():
    """What is missing before that is left alone, what is missing after it is asked again."""
    shelf = Shelf([found(10), found(1700), missing(1701), missing(5)])
    scope = scope_of(shelf, mode="new")
    assert carry_out(scope) == list(range(1701, 2701))
    assert (scope.start, scope.stop, scope.skipped_in_all()) == (1701, 2701, 0)


@pytest.mark.parametrize("mode", ["next", "new"])
def test_a_catalogue_may_count_from_0(mode):
    """In an empty store it is the first to be asked, and announced; it may be the last found one."""
    empty = Shelf()
    assert carry_out(scope_of(empty, mode=mode, first_song=0), most=2) == [0, 1]
    assert [each.numbers for each in empty.entered] == [range(1000)]
    scope = scope_of(Shelf([found(0), missing(1)]), mode=mode, first_song=0)
    assert (scope.last_found, scope.has_tail) == (0, True)
    assert carry_out(scope)[0] == 1


@pytest.mark.parametrize("mode", ["next", "new"])
def test_missing_numbers_right_after_the_last_song_are_asked_again(mode):
    """They may have come since; no fill takes them for settled."""
    scope = scope_of(Shelf([*map(found, range(1, 5)), missing(5)]), mode=mode)
    assert carry_out(scope, songs={5})[0] == 5


def test_a_last_song_below_the_last_found_one_ends_the_fill():
    """What lies above is not the catalogue's."""
    scope = scope_of(Shelf([found(2000)]), mode="next", last_song=50)
    assert carry_out(scope) == list(range(1, 51))
    assert (scope.stop, scope.skipped_in_all(), scope.missing_at_end) == (51, 0, 0)


def test_there_is_a_highest_number():
    """Beyond it no block has a name, wherever the deployment puts the last song."""
    highest = MAX_SONG_NUM - 1
    assert carry_out(scope_of(Shelf([found(highest - 2)]), mode="new")) == [highest - 1, highest]


@pytest.mark.parametrize("mode", ["next", "new"])
def test_nothing_is_asked_above_the_last_song(mode):
    """Where the deployment names it."""
    scope = scope_of(Shelf(mixed(range(1, 500)).values()), mode=mode, last_song=520)
    assert carry_out(scope, songs=range(1000))[-1] == 520
    assert scope.stop == 521


def test_a_limit_counts_fill_and_tail_together():
    """Modes next and new ask no more than that."""
    shelf = Shelf([found(n) for n in range(1, 2000) if n not in (7, 1500)])
    assert carry_out(scope_of(shelf, mode="next", limit=5)) == [7, 1500, 2000, 2001, 2002]
    assert carry_out(scope_of(shelf, mode="new", limit=2)) == [2000, 2001]


def test_E11_numbers_that_are_not_due_are_skipped_by_next_and_leave_a_gap():
    """They are not settled, so the catalogue is not complete."""
    later = NOON + timedelta(hours=1)
    shelf = Shelf([found(1), failed(2, next_try_at=later), found(3)])
    scope = scope_of(shelf, mode="next", last_song=3)
    assert carry_out(scope) == []
    assert (scope.skipped_in_all(), scope.has_gaps) == (3, True)
    assert carry_out(scope_of(shelf, start=1, stop=4)) == [2]


@pytest.mark.parametrize("most", [0, 1, 700, 2500])
def test_counts_make_up_the_range_when_interrupted(most):
    """Asked, skipped in all and the rest add up at any moment."""
    records = [*mixed(range(1000, 2000)).values(), *[found(n) for n in range(2000, 4000, 2)]]
    scope = scope_of(Shelf(records), start=1000, stop=5000)
    asked = carry_out(scope, most=most)
    remaining = scope.stop - scope.start - len(asked) - scope.skipped_in_all()
    assert remaining == 2000 - len(asked)


def test_criteria_look_from_the_moment_of_the_order():
    """All parts of an order mean the same age by `refresh_older_than_days`."""
    request = CrawlRequest(
        start=1, stop=2, refresh_older_than_days=2, recheck="missing", ordered_at=NOON
    )
    criteria = criteria_of(request, NOON + timedelta(days=1))
    assert (criteria.now, criteria.refresh_before) == (NOON, NOON - timedelta(days=2))
    assert criteria.is_missing_rechecked
    assert not criteria.skip_until_due
    criteria = criteria_of(CrawlRequest(mode="next"), NOON)
    assert (criteria.now, criteria.refresh_before) == (NOON, None)
    assert (criteria.is_missing_rechecked, criteria.skip_until_due) == (False, True)


# --- Blocks beyond the last song in which numbers failed ------------------------------------------

HOUR = timedelta(hours=1)


def half_failed() -> Shelf:
    """Put songs up to 1452 on a shelf, and numbers beyond them that failed, half of them not due."""
    late = [failed(num, next_try_at=NOON + HOUR) for num in (1451, 1453, 1600, 2001)]
    due = [failed(num, next_try_at=NOON - HOUR) for num in (1700, 2002)]
    return Shelf([found(1450), found(1452), missing(1650), *late, *due])


def test_E11_beyond_the_last_song_next_passes_over_what_failed_and_is_not_due():
    """All else is asked, what is missing there too; what is passed over counts as skipped."""
    shelf = half_failed()
    scope = scope_of(shelf, mode="next", first_song=1450)
    assert carry_out(scope) == [n for n in range(1453, 2453) if n not in {1453, 1600, 2001}]
    assert (scope.start, scope.stop, scope.missing_at_end) == (1450, 2453, 997)
    assert (scope.skipped, scope.skipped_in_all(), scope.has_gaps) == (6, 6, True)
    assert [(each.first, each.is_new, each.numbers[0]) for each in shelf.entered] == [
        (1000, False, 1454), (2000, False, 2000),
    ]  # fmt: skip
    assert [each.failed_runs for each in shelf.entered] == [{1700: 1}, {2002: 1}]


def test_new_asks_all_beyond_the_last_song_whatever_is_due():
    """Only what a scheduler sends time and again waits."""
    shelf = half_failed()
    scope = scope_of(shelf, mode="new", first_song=1450)
    assert carry_out(scope) == list(range(1453, 2453))
    assert (scope.skipped, scope.has_gaps) == (0, False)
    assert {1453, 1600, 1700} <= shelf.entered[0].failed_runs.keys()


def test_a_block_beyond_without_failed_numbers_is_asked_unread():
    """It is no new one, all the same; the one after it is."""
    shelf = Shelf([found(1500), missing(1501)])
    assert carry_out(scope_of(shelf, mode="new")) == list(range(1501, 2501))
    assert shelf.reads == []
    assert [(each.first, each.is_new) for each in shelf.entered] == [(1000, False), (2000, True)]


def test_where_all_that_is_left_is_not_due_nothing_is_asked():
    """The run is over, and knows that it left a gap."""
    shelf = Shelf([found(1), failed(2, next_try_at=NOON + HOUR)])
    scope = scope_of(shelf, mode="next", last_song=2)
    assert carry_out(scope) == []
    assert (scope.stop, scope.skipped_in_all(), scope.has_gaps) == (3, 2, True)
    assert scope.missing_at_end == 0


def test_E5_numbers_of_a_broken_block_beyond_the_last_song_are_left_out(caplog):
    """The log says so, and the run does not call the catalogue complete."""
    shelf = Shelf([found(1500), failed(2100)])
    shelf.broken.add(2000)
    scope = scope_of(shelf, mode="new")
    assert carry_out(scope) == list(range(1501, 2000))
    assert "block 2000 is broken; its numbers are left out" in caplog.text
    assert (scope.stop, scope.skipped, scope.has_gaps) == (2501, 501, True)


def test_while_a_block_is_read_none_of_its_numbers_is_asked():
    """Nor does an end of the run wait for it."""
    gate, is_over = Event(), Event()
    shelf = half_failed()

    def read(first):
        gate.wait(10)
        is_over.set()
        return shelf.read(first)

    scope = scope_of(shelf, read=read, mode="new", first_song=1450)
    taken = [scope.supply.take(5) for _ in range(20)]
    scope.close()
    assert (taken, scope.supply.exhausted, is_over.is_set()) == ([[]] * 20, False, False)
    gate.set()


# --- The tail ---------------------------------------------------------------------------------------


def tail_after(last_found=0, **options) -> TailSupply:
    """Make a tail that announces its blocks to nobody."""
    options.setdefault("on_block", lambda _block: None)
    return TailSupply(last_found, plan=new_block, **options)


def new_block(first: int) -> PlannedBlock:
    """Plan a block of which nothing is known."""
    return PlannedBlock(first, range(first, first + BLOCK_SIZE), is_new=True)


CANARY = 10**9


def crawl_over(tail, answer, **options) -> Crawl:
    """Make a crawl of the tail's numbers, which tells it each outcome; one song is known before."""
    options.setdefault("rate", 0)
    options.setdefault("known", KnownSongs(published=[CANARY]))
    return Crawl(
        supply=tail,
        answer=lambda a, now: page_of(a) if a.song_num == CANARY else answer(a, now),
        on_record=lambda record: tail.note(record.song_num, record.outcome == "found"),
        **options,
    )


def songs(*nums):
    """Answer with songs under these numbers only."""
    return lambda a, _now: page_of(a) if a.song_num in nums else Reply(a, status=404)


@pytest.mark.parametrize("connections", [1, 64, 512])
@pytest.mark.parametrize(
    ("there", "end"), [((), 1000), ((1000,), 2000), ((1001,), 1000), ((7, 500, 1400), 2400)]
)
def test_the_tail_ends_after_a_thousand_missing_in_a_row(there, end, connections):
    """Counted from the last found one; no number beyond is asked."""
    tail = tail_after(0)
    crawl = crawl_over(tail, songs(*there), connections=connections).run()
    assert crawl.frontier.stopped_by == "done"
    assert sorted(crawl.asked) == list(range(1, end + 1))
    assert tail.exhausted
    assert tail.last_found == end - 1000


def test_a_song_that_is_found_late_lengthens_the_tail():
    """The tail waits for every outcome before it believes in the end."""

    def answer(attempt, now):
        if attempt.song_num == 999:
            return page_of(attempt) if now > 1004 else Reply(attempt, status=500)
        return Reply(attempt, status=404)

    crawl = crawl_over(tail_after(0), answer).run()
    assert set(crawl.asked) == set(range(1, 2000))


@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("bad", [[500], [1000], [1], [998, 999, 1000]])
@pytest.mark.parametrize("number", [500, 400, 403, 429])
def test_failed_ones_at_the_end_never_hang_it(bad, number, connections):
    """Failed, forbidden or put off: the run ends, and every number has a record."""

    def answer(attempt, now):
        is_bad = attempt.song_num in bad and (number != 429 or now < 1050)
        return Reply(attempt, status=number if is_bad else 404)

    if number == 403 and len(bad) > 1:
        bad = bad[-1:]
    tail = tail_after(0)
    crawl = crawl_over(tail, answer, connections=connections).run(seconds=600)
    assert crawl.is_over
    assert crawl.frontier.stopped_by == "done"
    assert sorted(crawl.outcomes) == list(range(1, 1001))


@pytest.mark.parametrize("moment", [0.01, 0.5, 3.0])
def test_a_run_that_is_closed_does_not_wait_for_the_tail(moment):
    """Answers that never come keep nobody."""
    crawl = crawl_over(tail_after(0), status(500), rate=100)
    crawl.run(seconds=moment)
    crawl.frontier.stop("signal")
    crawl.run(seconds=60)
    assert crawl.is_over


def test_no_number_of_the_tail_is_taken_before_its_turn():
    """Whether it is asked at all depends on the answers until then."""
    tail = tail_after(0)
    crawl = crawl_over(tail, songs(), rate=1, connections=1).run(seconds=5.5)
    assert 3 < len(crawl.asked) >= tail.supplied - 1


@pytest.mark.parametrize("limit", [1, 999, 1000, 5000])
def test_a_limit_ends_the_tail(limit):
    """After so many numbers, whatever is found."""
    crawl = crawl_over(tail_after(100, limit=limit), page_of).run()
    assert sorted(crawl.asked) == list(range(101, 101 + limit))
    assert crawl.frontier.stopped_by == "done"


@pytest.mark.parametrize(("last_song", "end"), [(150, 150), (100, 100), (40, 100), (5000, 1100)])
def test_the_last_song_of_the_catalogue_ends_the_tail(last_song, end):
    """Nothing above it is ever asked."""
    crawl = crawl_over(tail_after(100, last_song=last_song), songs()).run()
    assert sorted(crawl.asked) == list(range(101, end + 1))
    assert crawl.frontier.stopped_by == "done"


def test_a_tail_begins_where_a_fill_ends():
    """First the numbers that are not settled, then those beyond the last song."""
    shelf = Shelf([found(n) for n in range(1, 1500) if n not in (3, 1200)])
    fill = shelf.fill(1, 1500)
    tail = tail_after(1499, fill=fill, on_block=shelf.entered.append)
    crawl = crawl_over(tail, songs(3, 1200, 1600))
    while not crawl.is_over:
        crawl.run(seconds=1)
    assert sorted(crawl.asked) == [3, 1200, *range(1500, 2601)]
    assert tail.supplied == 1101
    assert tail.missing_at_end == 1000


@pytest.mark.parametrize("limit", [1, 2, 3, 700])
def test_fill_and_tail_share_a_limit(limit):
    """Together they supply no more than asked for."""
    shelf = Shelf([found(n) for n in range(1, 1500) if n not in (3, 1200)])
    fill = shelf.fill(1, 1500, limit=limit)
    tail = tail_after(1499, fill=fill, limit=limit)
    crawl = crawl_over(tail, songs(3, 1200))
    while not crawl.is_over:
        crawl.run(seconds=1)
    assert sorted(crawl.asked) == [3, 1200, *range(1500, 2500)][:limit]


def test_a_tail_that_must_end_waits_for_no_outcome():
    """Where a limit or the last song ends it, nothing that is found could lengthen it."""
    tail = tail_after(0, limit=5)
    assert tail.take(64) == [1, 2, 3, 4, 5]
    assert tail.exhausted


def test_the_end_is_believed_when_every_outcome_is_known():
    """While one is open the tail supplies nothing and goes on; a song that is found lengthens it."""
    tail = tail_after(0, missing_in_a_row=9, last_song=50)
    assert (tail.take(5), tail.take(5), tail.take(5)) == ([1, 2, 3, 4, 5], [6, 7, 8, 9], [])
    for num in range(1, 9):
        tail.note(num, False)
    assert (tail.take(5), tail.exhausted) == ([], False)
    tail.note(9, True)
    assert (tail.take(99), tail.exhausted, tail.missing_at_end) == ([*range(10, 19)], False, 9)
    for num in range(10, 19):
        tail.note(num, False)
    assert (tail.take(5), tail.exhausted) == ([], True)


def test_songs_that_the_fill_finds_move_the_beginning_of_the_tail():
    """Nothing is at its end before; then what follows the highest song is asked."""
    fill = Shelf().fill(1, 30)
    tail = tail_after(10, fill=fill, missing_in_a_row=5)
    for num in tail.take(99):
        tail.note(num, num == 25)
    assert (tail.last_found, tail.missing_at_end, tail.exhausted) == (25, 0, False)
    assert [*tail.take(99), *tail.take(99)] == [26, 27, 28, 29, 30]
    assert (tail.supplied, tail.missing_at_end) == (5, 5)


def test_late_outcomes_of_the_fill_are_not_the_tail_s():
    """The tail waits for each of its own numbers, whatever still comes in from before."""
    shelf = Shelf([found(1499)])
    tail = tail_after(1499, fill=shelf.fill(1490, 1499), missing_in_a_row=9)
    filled = tail.take(100)
    while len(own := tail.take(100)) == 0:
        pass  # the fill is learning that it is exhausted
    for num in filled:
        tail.note(num, False)
    assert (tail.take(100), tail.exhausted) == ([], False)
    tail.note(own[-1], True)
    assert tail.take(100) == list(range(own[-1] + 1, own[-1] + 10))


def test_each_block_is_announced_once_with_all_that_may_be_asked_of_it():
    """The first from where the tail begins."""
    announced = []
    tail = tail_after(1499, on_block=announced.append)
    crawl_over(tail, songs(2400)).run()
    assert [(b.first, b.numbers) for b in announced] == [
        (1000, range(1500, 2000)), (2000, range(2000, 3000)), (3000, range(3000, 4000)),
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    there=st.sets(st.integers(1, 300), max_size=30),
    limit=st.none() | st.integers(1, 200),
    last_song=st.none() | st.integers(0, 250),
    seed=st.integers(0, 9),
)
def test_a_tail_always_ends_whatever_the_order_of_answers(there, limit, last_song, seed):
    """It asks each number once, in order, to the first fifty in a row without a song."""
    tail = tail_after(0, limit=limit, last_song=last_song, missing_in_a_row=50)
    chance, flying, asked = random.Random(seed), [], []
    for _ in range(10_000):
        if tail.exhausted and not flying:
            break
        if not tail.exhausted and chance.random() < 0.6:
            got = tail.take(chance.randint(1, 20))
            asked += got
            flying += got
        elif flying:
            num = flying.pop(chance.randrange(len(flying)))
            tail.note(num, num in there)
    assert tail.exhausted
    end = 50
    for num in sorted(there):
        end = num + 50 if num <= end else end
    end = min(end, limit or end, end if last_song is None else last_song)
    assert asked == list(range(1, end + 1))
    assert all(block_first(num) == 0 for num in asked)
