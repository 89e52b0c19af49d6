"""The Genius source: a body in, an info out, or an error that says why not."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.demo.songs import song_body
from crawler.errors import Missing, PageError
from crawler.record import Record, decode_record, encode_record
from crawler.source.declared import open_source
from crawler.source.source import Source, traits_of, user_agent
from crawler.version import VERSION
from tests.faulty_table import page, page_object, page_with, page_with_literal
from tests.records import expected_info

SOURCE = open_source("genius", "token", base_url="https://api.example/")
SONG = 3


def outcome(body, num=SONG):
    """Give the info, the word missing, or the kind of error."""
    try:
        return SOURCE.info(num, body)
    except PageError as error:
        return error.kind
    except Missing:
        return "missing"


def test_a_source_says_where_and_with_what_to_ask():
    """The address has no doubled slash; the token goes into a header."""
    assert isinstance(SOURCE, Source)
    assert SOURCE.url(7) == "https://api.example/songs/7"
    assert SOURCE.headers()["Authorization"] == "Bearer token"
    assert not SOURCE.robots


class Bare:
    """A source that says no more than it must, and what it is given."""

    name, schema = "bare", "1"

    def __init__(self, **traits):
        self.__dict__ |= traits

    def url(self, song_num):
        """Return an address."""
        return f"http://127.0.0.1/{song_num}"

    def headers(self):
        """Return nothing to send."""
        return {}

    def info(self, song_num, body):
        """Return the number."""
        return song_num


def test_what_a_source_leaves_out_has_a_default():
    """A class of one's own needs five names; it is run in a lane, and asks robots.txt first."""
    traits = traits_of(Bare())
    assert isinstance(Bare(), Source)
    assert (traits.reads_on_wire, traits.redirects, traits.robots) == (False, "fail", True)
    assert traits.canary is traits.rate is None
    assert not traits.fields
    assert not traits.secrets
    assert not traits.rate_headers


def test_what_a_source_says_of_itself_is_heard():
    """Each trait is an attribute of the same name; `asks_robots` is that of version 1.0."""
    traits = traits_of(Bare(canary=7, redirects="follow", asks_robots=False))
    assert (traits.canary, traits.redirects, traits.robots) == (7, "follow", False)


def test_two_runs_count_oddities_apart():
    """Who has no counter of its own gets a fresh one each time."""
    traits_of(Bare()).odd["title"] += 1
    assert not traits_of(Bare()).odd


@pytest.mark.parametrize("num", [1, 2, 3, 1000, 2_110_000])
def test_the_info_of_a_song_has_its_seven_fields(num):
    """Title, address, artist, album, date and views, null where the site has none."""
    body = song_body(num)
    if body is not None:
        assert outcome(body, num) == expected_info(num)


@pytest.mark.parametrize(
    "changes",
    [{"album": None}, {"primary_artist": None}, {"stats": None}, {"url": None}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_song_does_not_have_is_null(changes):
    """A part that is absent or null takes its fields with it, and nothing else."""
    info = outcome(page_with(**changes)(SONG))
    absent = page_object(SONG)
    for name in changes:
        del absent["response"]["song"][name]
    assert info == outcome(json.dumps(absent).encode())
    assert None in info.values()
    assert info["title"] == expected_info(SONG)["title"]


@pytest.mark.parametrize(
    ("field", "literal", "expected"),
    [
        ("annotation_count", b"NaN", "json"),
        ("annotation_count", b"-Infinity", "json"),
        ("annotation_count", b"01", "json"),
        ("annotation_count", b"9" * 5000, "found"),  # right JSON, and nobody needs the number
        ("annotation_count", b"1e400", "found"),
        ("id", b"9" * 5000, "json"),
        ("id", b"3.0", "mismatch"),
        ("id", b"true", "schema"),
        ("id", b"null", "schema"),
        ("id", b'"3"', "found"),  # compared as text
        ("id", b"4", "mismatch"),
        ("id", b"-3", "mismatch"),
        ("stats", b'{"pageviews":%s}' % (b"9" * 5000), "json"),
        ("description", b'"\xff"', "json"),
        ("description", b'"\xed\xa0\x80"', "json"),
        ("description", b'"\\ud800"', "found"),
        ("description", b'"a\nb"', "json"),
        ("description", b"[" * 100_000 + b"]" * 100_000, "json"),
        ("description", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json"),
        ("title", b'"\xff"', "json"),
        ("title", b'"\\udfff"', "found"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_C2_any_field_may_be_broken(field, literal, expected):
    """In fields we keep and in fields we skip: a named error, or the page as it was meant."""
    got = outcome(page_with_literal(field, literal)(SONG))
    assert (got if isinstance(got, str) else "found") == expected


@pytest.mark.parametrize(
    ("field", "literal", "name", "value", "is_odd"),
    [
        ("stats", b'{"pageviews":12.0}', "pageviews", 12, False),
        ("stats", b'{"pageviews":"12"}', "pageviews", 12, False),
        ("stats", b'{"pageviews":9223372036854775807}', "pageviews", 2**63 - 1, False),
        ("stats", b'{"pageviews":9223372036854775808}', "pageviews", None, True),
        ("stats", b'{"pageviews":1%s}' % (b"0" * 30), "pageviews", None, True),
        ("stats", b'{"pageviews":1e400}', "pageviews", None, True),
        ("stats", b'{"pageviews":1.5}', "pageviews", None, True),
        ("stats", b'{"pageviews":true}', "pageviews", None, True),
        ("stats", b'{"pageviews":[12]}', "pageviews", None, True),
        ("stats", b'{"pageviews":null}', "pageviews", None, False),
        ("stats", b"[]", "pageviews", None, True),
        ("album", b'"Blue"', "album", None, True),
        ("album", b'{"name":["Blue"]}', "album", None, True),
        ("title", b"null", "title", None, False),
        ("title", b"[1]", "title", None, True),
        ("title", b"7", "title", "7", False),
        ("title", b"7.5", "title", "7.5", False),
        ("title", b"true", "title", None, True),
        ("release_date", b"2026", "release_date", "2026", False),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_C10_an_odd_field_never_costs_the_song(field, literal, name, value, is_odd):
    """What cannot be what it is declared to be is null and counted; what can, is made that."""
    source = open_source("genius", "token", base_url="https://api.example")
    expected = expected_info(SONG) | {name: value}
    assert source.info(SONG, page_with_literal(field, literal)(SONG)) == expected
    assert source.odd == ({name: 1} if is_odd else {})
    source.info(SONG, page(SONG))
    assert source.odd.total() == is_odd


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "json"),
        (b" ", "json"),
        (b"<html>", "json"),
        (b"null", "schema"),
        (b"[]", "schema"),
        (b"{}", "schema"),
        (b'{"meta":{"status":404}}', "missing"),
        (b'{"meta":{"status":404,"message":"x"},"response":{}}', "missing"),
        (b'\xef\xbb\xbf{"meta":{"status":404}}', "missing"),
        (b'{"meta":{"status":"404"}}', "schema"),
        (b'{"meta":{"status":401,"message":"x"}}', "schema"),
        (b'{"meta":{"status":200},"response":{"song":null}}', "schema"),
        (page(SONG).replace(b'"status": 200', b'"status": 500', 1), "schema"),
        (page(SONG) + page(SONG), "json"),
        (page(SONG)[:-1], "json"),
        (page(SONG).decode().encode("utf-16"), "json"),
        (page(SONG).decode().encode("utf-16-le"), "json"),
        (page(SONG + 1), "mismatch"),
    ],
)
def test_C4_another_shape_is_told_apart_from_no_song(body, expected):
    """Only the site's own 404 is missing; all else is a failure with its kind."""
    assert outcome(body) == expected


def test_C3_a_byte_order_mark_before_a_page_is_accepted():
    """One BOM is let pass, also with half a surrogate pair behind it."""
    assert outcome(b"\xef\xbb\xbf" + page(SONG)) == expected_info(SONG)
    assert outcome(b"\xef\xbb\xbf" + page_with(title="\ud800")(SONG))["title"] == "\ud800"


@given(st.text() | st.text(st.characters(categories=["Cs", "Cc", "Lo"]), min_size=1))
def test_C5_any_title_is_stored_as_it_came(title):
    """Halves of pairs, control characters and all scripts survive the way into a line and back."""
    info = outcome(page_with(title=title)(SONG))
    # two halves that meet become the whole that they mean
    assert info["title"] == json.loads(json.dumps(title))
    record = msgspec.convert(
        {
            "song_num": SONG,
            "outcome": "found",
            "status": 200,
            "info": info,
            "error": None,
            "attempts": 1,
            "fetched_at": "2026-11-22T06:12:20Z",
        },
        Record,
    )
    line = encode_record(record)
    assert b"\n" not in line
    assert decode_record(line) == record


@given(st.binary(max_size=200))
def test_C2_any_bytes_are_a_page_or_a_named_error(body):
    """Nothing but PageError and Missing escapes, whatever comes."""
    assert outcome(body) in {"json", "schema", "missing"}


@given(st.integers(0, 4000), st.binary(max_size=3))
def test_C2_a_damaged_page_is_never_another_song(place, damage):
    """Bytes put anywhere into a right page leave it about its own number, or no page."""
    body = page(SONG)
    got = outcome(body[:place] + damage + body[place:])
    assert isinstance(got, dict) or got in {"json", "schema", "mismatch", "missing"}


def test_the_user_agent_names_project_version_and_contact():
    """A site's owner sees who asks, and whom to ask."""
    assert user_agent(None) == f"song-crawler/{VERSION}"
    assert user_agent("me@example.org") == f"song-crawler/{VERSION} (+me@example.org)"
