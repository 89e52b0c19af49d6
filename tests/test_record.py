"""Records: what is known best wins, in whatever order it is learnt."""

from contextlib import suppress
from datetime import timedelta
from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.record import Record, decode_record, encode_record, merge_records
from tests.records import HOSTILE, NOON, failed, found, missing, records_of

LATER = NOON + timedelta(hours=1)
one_number = records_of(st.just(7))


@given(one_number, one_number)
@settings(deadline=None)
def test_merging_is_commutative(one, other):
    """Two records of a number merge to the same, whichever comes first."""
    assert merge_records(one, other) == merge_records(other, one)


@given(one_number, one_number, one_number)
@settings(deadline=None)
def test_merging_is_associative(one, two, three):
    """Three records of a number merge to the same, however they are grouped."""
    assert merge_records(merge_records(one, two), three) == merge_records(
        one, merge_records(two, three)
    )


@given(one_number, one_number)
@settings(deadline=None)
def test_merging_is_idempotent(one, other):
    """A record that is merged in a second time changes nothing."""
    merged = merge_records(one, other)
    assert merge_records(merged, other) == merged
    assert merge_records(merged, merged) == merged


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_found_beats_missing_beats_failed(order):
    """The better outcome wins, though it be the older one."""
    ranked = [failed(7, at=LATER), missing(7, at=NOON), found(7, at=NOON - timedelta(days=9))]
    best = reduce(merge_records, [ranked[place] for place in order])
    assert best.outcome == "found"
    assert merge_records(ranked[0], ranked[1]).outcome == "missing"


def test_of_equals_the_newer_wins():
    """A refreshed song replaces the older one, to the microsecond."""
    newer = found(7, "New", NOON + timedelta(microseconds=1))
    assert merge_records(found(7, "Old"), newer) == newer


def test_a_found_song_that_is_denied_stays_found():
    """A 404 after a 200 takes nothing away, and is noted with its time."""
    merged = merge_records(found(7), missing(7, at=LATER))
    assert (merged.outcome, merged.gone_since) == ("found", LATER)


def test_a_song_that_is_found_again_is_no_longer_gone():
    """A denial older than the newest page is forgotten."""
    denied = merge_records(found(7), missing(7, at=LATER))
    again = found(7, at=LATER + timedelta(hours=1))
    assert merge_records(denied, again) == again


@given(one_number)
@settings(deadline=None)
def test_a_record_is_read_back_equal(record):
    """C5: whatever a title holds, it is one line of JSON and comes back as it was."""
    line = encode_record(record)
    assert b"\n" not in line
    assert decode_record(line) == record


@pytest.mark.parametrize("title", HOSTILE, ids=ascii)
def test_a_hostile_title_is_one_line(title):
    """C5: NUL, newlines, U+2028 and half surrogates do not break a line."""
    line = encode_record(found(7, title))
    assert len(line.splitlines()) == 1
    assert decode_record(line).info == {"title": title}


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_a_record_or_an_error(line):
    """No line, however broken, raises anything but what is promised."""
    with suppress(msgspec.ValidationError, ValueError):
        assert isinstance(decode_record(line), Record)
