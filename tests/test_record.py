"""Records: what is known best wins, in whatever order it is learnt."""

from contextlib import suppress
from datetime import timedelta
from functools import reduce
from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.record import (
    Record,
    decode_record,
    decode_records,
    encode_record,
    encode_records,
    is_from_future,
    is_settled,
    last_asked_at,
    merge_records,
)
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


def test_a_denial_of_the_same_moment_is_older_than_the_page():
    """What found a song at the moment of its denial is believed."""
    assert merge_records(found(7, at=LATER), missing(7, at=LATER)).gone_since is None


def test_the_latest_denial_counts():
    """Two runs that were told so: the record keeps the later one."""
    denied = merge_records(found(7), missing(7, at=LATER + timedelta(hours=1)))
    assert merge_records(denied, missing(7, at=LATER)) == denied


def test_a_denied_song_was_last_asked_about_when_it_was_denied():
    """A refresh need not ask it again at once."""
    denied = merge_records(found(7), missing(7, at=LATER))
    assert [last_asked_at(one) for one in (found(7), denied)] == [NOON, LATER]


def test_E13_a_time_is_from_the_future_from_five_minutes_on():
    """By so much the clocks of machines may differ."""
    latest = NOON + timedelta(minutes=5)
    assert not is_from_future(latest, NOON)
    assert is_from_future(latest + timedelta(microseconds=1), NOON)


def test_found_and_missing_are_settled_and_failed_is_not():
    """Only what the site has answered for good costs no request again."""
    assert [is_settled(one(7)) for one in (found, missing, failed)] == [True, True, False]


def test_a_plain_record_has_one_short_line():
    """The format: what a record does not have is not written, and is nothing when it is read."""
    line = encode_record(Record(7, "found", 200, {"title": "A"}, None, 1, NOON))
    assert line == (
        b'{"song_num":7,"outcome":"found","status":200,"info":{"title":"A"},"error":null,'
        b'"attempts":1,"fetched_at":"2026-11-22T12:00:00Z"}'
    )
    read = decode_record(line)
    assert (read.detail, read.failed_runs, read.next_try_at, read.gone_since) == ("", 0, None, None)


@pytest.mark.parametrize("title", ["plain", "\ud800 half a pair"], ids=["plain", "half-a-pair"])
def test_many_records_are_written_as_one_by_one(title):
    """C5: one title that UTF-8 cannot carry changes no other line."""
    records = [found(1), found(2, title), missing(3)]
    lines = encode_records(records).split(b"\n")
    assert lines == [*map(encode_record, records), b""]


def test_many_records_are_read_as_one_by_one():
    """None where it takes more than that: a line cut, or no record, or half of a surrogate pair."""
    records = [found(1), missing(2), failed(3)]
    text = encode_records(records)
    assert decode_records(text) == records
    assert decode_records(b"") == []
    for other in (text[:-1], text + b"{}\n", text + encode_records([found(4, "\ud800")])):
        assert decode_records(other) is None


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
