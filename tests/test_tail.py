"""The tail: how far beyond the last found song is asked, and when that ends."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.frontier.canaries import KnownSongs
from crawler.frontier.verdict import Reply
from crawler.plan.planned import PlannedBlock
from crawler.plan.scope import TailSupply
from crawler.store.block import BLOCK_SIZE, block_first
from tests import records
from tests.simulation import Crawl, found, status
from tests.test_fill import Shelf


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
        answer=lambda a, now: found(a) if a.song_num == CANARY else answer(a, now),
        on_record=lambda record: tail.note(record.song_num, record.outcome == "found"),
        **options,
    )


def songs(*nums):
    """Answer with songs under these numbers only."""
    return lambda a, _now: found(a) if a.song_num in nums else Reply(a, status=404)


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
            return found(attempt) if now > 1004 else Reply(attempt, status=500)
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


@pytest.mark.parametrize("limit", [1, 999, 1000, 5000])
def test_a_limit_ends_the_tail(limit):
    """After so many numbers, whatever is found."""
    crawl = crawl_over(tail_after(100, limit=limit), found).run()
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
    shelf = Shelf([records.found(n) for n in range(1, 1500) if n not in (3, 1200)])
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
    shelf = Shelf([records.found(n) for n in range(1, 1500) if n not in (3, 1200)])
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


def test_late_outcomes_of_the_fill_are_not_the_tail_s():
    """The tail waits for each of its own numbers, whatever still comes in from before."""
    shelf = Shelf([records.found(1499)])
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
