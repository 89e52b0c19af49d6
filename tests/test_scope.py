"""The scope: what a request is about, in each mode, and what of it is counted as skipped."""

from datetime import timedelta

import pytest

from crawler.plan.scope import Scope, criteria_of
from crawler.request.crawl_request import CrawlRequest
from crawler.settings.reading import read_settings
from tests.records import NOON, failed, found, missing, mixed
from tests.test_fill import Shelf, drain


def scope_of(shelf, *, first_song=1, last_song=None, **request) -> Scope:
    """Plan a request over what a shelf holds."""
    given = {"first_song": first_song, "last_song": last_song, "contact": "me@example.org"}
    settings = read_settings({}, token="x", **{k: v for k, v in given.items() if v})
    return Scope(
        CrawlRequest(**request),
        settings,
        shelf.listing,
        now=NOON,
        read=shelf.read,
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


def test_song_0_may_be_the_last_found_one():
    """A catalogue may count from 0."""
    scope = scope_of(Shelf([found(0), missing(1)]), mode="new", first_song=0)
    assert scope.last_found == 0
    assert carry_out(scope)[0] == 1


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
