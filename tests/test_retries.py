"""When a number is tried again; `Retry-After` and `Date`, whatever a site writes into them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.frontier.verdict import http_date, retry_after_seconds

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        ("120", 120),
        ("86400", 86400),
        ("007", 7),
        (" 5 ", 5),
        ("\t5", 5),
        ("999999999", 999999999),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30),
        ("Sun Nov 22 12:00:30 2026", 30),
        ("Tue Dec  1 12:00:00 2026", 9 * 86400),
        ("Sun, 22 Nov 2026 11:59:59 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 22 Nov 2026 12:00:60 GMT", 59),
    ],
)
def test_D2_seconds_and_dates_are_read(value, seconds):
    """Whole seconds, and dates in all three forms; what is past is 0."""
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None, "", " ", "abc", "-1", "+1", "1.5", "1e3", "１", "٣", "2, 2", "2 3", "0x10", "1_0",
        "9" * 10, "9" * 30, "x" * 10_000, "5\n", "5\0", "Infinity", "nan",
        "Sun, 22 Nov 2026 12:00:30", "Sun, 22 Nov 2026 12:00:30 +0000",
        "Sun, 22 Nov 2026 25:00:30 GMT", "Sun, 22 Nov 2026 12:00:99 GMT",
        "Sun, 31 Feb 2026 12:00:30 GMT", "Sun, 22 Nov 0000 12:00:30 GMT",
        "Sun, 22 nov 2026 12:00:30 GMT", "2026-11-22T12:00:30Z", "Sun Nov 22 12:00:30 26",
    ],
)  # fmt: skip
def test_D3_anything_else_is_none(value):
    """What cannot be believed is not guessed at."""
    assert retry_after_seconds(value, now=NOW) is None


@given(st.text() | st.from_regex(r"\A[A-Za-z]{3,9},? ?[0-9A-Za-z :-]{0,40}( GMT)?\Z"))
def test_D3_no_text_raises(value):
    """Any text gives seconds from 0 on, or None."""
    seconds = retry_after_seconds(value, now=NOW)
    assert seconds is None or seconds >= 0


@given(st.datetimes(timezones=st.just(UTC)))
def test_D2_a_wait_does_not_depend_on_anybody_s_clock(moment):
    """The three forms of one date mean the same, and count from the answer's own `Date`."""
    moment = moment.replace(microsecond=0)
    texts = [f"{moment:%a, %d %b} {moment.year:04} {moment:%H:%M:%S} GMT"]
    texts.append(f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}")
    for text in texts:
        assert http_date(text, now=NOW) == moment
    answered = http_date(texts[0], now=NOW)
    assert answered is not None
    later = answered + timedelta(seconds=17) if moment.year < 9999 else answered
    text = f"{later:%a, %d %b} {later.year:04} {later:%H:%M:%S} GMT"
    expected = (later - answered).total_seconds()
    assert retry_after_seconds(text, now=answered) == expected


@pytest.mark.parametrize(
    ("text", "year"), [("26", 2026), ("76", 2076), ("77", 1977), ("00", 2000), ("99", 1999)]
)
def test_a_two_digit_year_is_at_most_fifty_years_ahead(text, year):
    """RFC 9110, section 5.6.7."""
    moment = http_date(f"Sunday, 22-Nov-{text} 12:00:30 GMT", now=NOW)
    assert moment is not None
    assert moment.year == year


@pytest.mark.parametrize("text", [None, "", "yesterday", "x" * 10_000])
def test_an_unreadable_date_is_none(text):
    """So that the time of day is taken instead."""
    assert http_date(text, now=NOW) is None
