"""What libcurl hands over, read: heads of interim answers, trailers, ends and garbage."""

import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crawler.errors import PageError
from crawler.frontier.work import IterableSupply, Job, PendingNumber
from crawler.wire.answers import (
    MAX_HEAD_BYTES,
    MAX_HEADER_LINES,
    PlainLines,
    WireAnswer,
    check_head,
    content_encoding,
    final_head,
    read_page,
)

END = b"\r\n"
EARLY = [b"HTTP/1.1 103 Early Hints\r\n", b"Content-Encoding: gzip\r\n", b"Date: x\r\n", END]
GOOD = [b"HTTP/1.1 200 OK\r\n", b"Content-Type: application/json\r\n", END]
GONE = [b"HTTP/1.1 404 NF\r\n", b"Date: y\r\n", END]
TRAILERS = [b"Content-Encoding: br\r\n", b"Content-Length: 1\r\n", END]


def kind_of(lines: list[bytes]) -> str | None:
    """Check the final head; name the kind of error, None where it is right."""
    head, is_whole = final_head(lines)
    try:
        check_head(head, is_whole=is_whole)
    except PageError as error:
        return error.kind
    return None


@pytest.mark.parametrize(
    ("lines", "head", "is_whole"),
    [
        (GOOD, GOOD, True),
        ([*EARLY, *EARLY, *GOOD], GOOD, True),
        ([*GOOD, *TRAILERS], GOOD, True),
        ([*EARLY, *GONE[:1]], GONE[:1], False),
        (GOOD[:2], GOOD[:2], False),
        ([], [], False),
    ],
)
def test_the_final_head_stands_between_interim_ones_and_trailers(lines, head, is_whole):
    """What comes before it or after it says nothing about the page."""
    assert final_head(lines) == (head, is_whole)


@pytest.mark.parametrize("lines", [GOOD, [*EARLY, *GOOD], [*GOOD, *TRAILERS], EARLY * 60 + GOOD])
def test_B6_headers_of_interim_answers_and_trailers_change_nothing(lines):
    """An encoding or a length said there is not the page's; nor do they count as its headers."""
    assert kind_of(lines) is None


def test_B1_a_head_that_is_cut_after_an_interim_one_is_no_answer():
    """The end of the first is not taken for the end of the second."""
    assert kind_of([*EARLY, *GONE[:1]]) == "connection"


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 404X\r\n", b"HTTP/1.1 2000 OK\r\n", b"HTTP/1.1 20\r\n"]
)
def test_B6_a_garbled_status_line_is_no_answer(line):
    """The library reads three digits and lets the rest be."""
    assert kind_of([line, *GOOD[1:]]) == "protocol"


LINES = st.sampled_from([
    *GOOD, *GONE, *EARLY, *TRAILERS, b"\n", b"HTTP/2 200 \r\n", b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 200 OK\n", b"HTTP/1.1 100 Continue\r\n", b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding: gzip\r\n", b"X: content-encoding: gzip\r\n", b"Content-Length: 5\r\n",
    b"X-RateLimit-Limit: 5\r\n", b"Set-Cookie: a=b\r\n", b"X: a\r\nTransfer-Encoding: x\r\n", b"X: a",
    b"X: " + b"x" * (MAX_HEAD_BYTES // 3) + b"\r\n", b"no colon\r\n", b"AGE: 7\r\n",
])  # fmt: skip


@given(
    st.lists(LINES, max_size=8).flatmap(
        lambda lines: st.sampled_from([lines, [*GOOD[:2], *lines, END], [*GOOD[:1], *lines, END]])
    ),
    st.lists(LINES, max_size=8),
)
@example([*GOOD[:1], *[b"A: b\r\n"] * (MAX_HEADER_LINES - 2), END], [])
@example([*GOOD[:1], *[b"A: b\r\n"] * (MAX_HEADER_LINES - 1), END], [])
def test_B6_the_short_way_through_a_head_ends_where_the_long_one_does(lines, before):
    """A head that it takes is whole, right, of status 200, and tells nothing, whatever came before."""
    known = PlainLines()
    ways = [known.make_head(each) for each in (before, lines, lines)]
    assert ways[1] == ways[2] or len(lines) > MAX_HEADER_LINES
    if ways[2]:
        assert final_head(lines) == (lines, True)
        text = check_head(lines, is_whole=True)
        assert content_encoding(text) == ""
        assert lines[0].split()[1] == b"200"
        assert not any(
            word in text for word in (b"ratelimit", b"rate-limit", b"\nset-cookie:", b"\nage:")
        )


@pytest.mark.parametrize("lines", [GOOD, [b"HTTP/2 200 \r\n", b"Via: a\r\n", END]])
def test_the_head_of_a_usual_page_takes_the_short_way(lines):
    """Of HTTP/1.1 and of HTTP/2, with any headers that change nothing, however many there are."""
    known = PlainLines()
    tracemalloc.start()
    for each in range(5000):
        assert known.make_head([lines[0], b"ETag: %d\r\n" % each, *lines[1:]])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 150_000  # of 5,000 lines, of which each takes 100 bytes with its place in a set


def test_the_date_of_an_interim_answer_is_not_joined_to_the_final_one():
    """Retry-After is reckoned from it."""
    assert WireAnswer(404, final_head([*EARLY, *GONE])[0]).headers["date"] == "y"


class TokenInAddress:
    """A source whose token stands in the query of its addresses."""

    name, schema, secrets = "query", "1", ("t0ken-abc",)

    def url(self, song_num):
        """Where the page is."""
        return f"https://songs.example/{song_num}?key=t0ken-abc"

    def headers(self):
        """None of its own."""
        return {}

    def info(self, song_num, body):
        """Quote the token, as a page may."""
        raise PageError("schema", f"{song_num}: the key t0ken-abc is not known")


@pytest.mark.parametrize(
    "answer",
    [
        WireAnswer(200, GOOD, body=b"{}"),
        WireAnswer(error="dns", detail="no host for ?key=t0ken-abc"),
    ],
    ids=["page", "no-page"],
)
def test_G1_a_token_in_an_address_is_told_nowhere(answer):
    """What is told of a failure hides it, as it hides what headers carry."""
    source = TokenInAddress()
    job = Job(lambda *_: None, IterableSupply([]), [], source)
    reply = read_page(PendingNumber(7, job), answer)
    assert reply.error in ("schema", "dns")
    assert reply.detail
    assert "t0ken" not in reply.detail
