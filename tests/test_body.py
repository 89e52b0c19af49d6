"""Bodies: whole or not, encoded as asked or not, never larger than they may be."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.errors import PageError
from crawler.wire.body import MAX_BODY_BYTES, BodyDecoder
from tests.faulty_table import bomb

PAGE = b'{"meta": {"status": 200}}' * 40
PACKED = gzip.compress(PAGE, mtime=0)


def decode_body(raw, encoding, max_bytes=MAX_BODY_BYTES):
    """Undo the encoding of a whole body at once."""
    decoder = BodyDecoder(encoding, max_bytes)
    body = decoder.decode(raw)
    decoder.finish()
    return body


def kind_of(raw, encoding, max_bytes=MAX_BODY_BYTES):
    """Name the kind of error, or None where the body is decoded."""
    try:
        decode_body(raw, encoding, max_bytes)
    except PageError as error:
        return error.kind
    return None


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [(PAGE, ""), (PAGE, "identity"), (PACKED, "gzip"), (PACKED, "x-gzip"), (b"", "")],
)
def test_a_whole_body_is_decoded(raw, encoding):
    """Plain and compressed bodies give the same bytes."""
    assert decode_body(raw, encoding) == (PAGE if raw else b"")


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (PACKED[:-1], "gzip"),
        (PACKED[:-8], "gzip"),
        (PACKED[: len(PACKED) // 2], "gzip"),
        (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "gzip"),
        (PACKED + b"x", "gzip"),
        (PAGE, "gzip"),
        (b"", "gzip"),
        (zlib.compress(PAGE), "gzip"),
        (gzip.compress(PACKED, mtime=0), "gzip, gzip"),
        (PAGE, "br"),
        (zlib.compress(PAGE), "deflate"),
        (PAGE, "none-such"),
    ],
)
def test_B8_a_damaged_or_unasked_encoding_is_an_error(raw, encoding):
    """Cut, without a trailer, with a wrong checksum, with more behind it, twice, or another one."""
    assert kind_of(raw, encoding) == "encoding"


EMPTY = gzip.compress(b"", mtime=0)


@pytest.mark.parametrize(
    ("members", "body"),
    [
        ([PACKED, PACKED], PAGE + PAGE),
        ([EMPTY, PACKED], PAGE),
        ([PACKED, EMPTY], PAGE),
        ([EMPTY, EMPTY], b""),
        ([PACKED[:30], PACKED[30:]], PAGE),
    ],
    ids=["two", "empty-first", "empty-last", "only-empty", "one-in-pieces"],
)
def test_B8_several_whole_members_are_one_body(members, body):
    """An empty one among them, however the pieces fall (RFC 1952, section 2.2)."""
    assert decode_body(b"".join(members), "gzip") == body
    decoder = BodyDecoder("gzip")
    assert b"".join(decoder.decode(piece) for piece in members) == body
    decoder.finish()


@pytest.mark.parametrize(
    "tail", [b"x", b"\0", PACKED[:-1], PACKED[:9], PACKED[:-8] + b"\0" * 8, PAGE]
)
def test_B8_what_follows_a_member_must_be_one(tail):
    """A byte, a zero, a member that is cut or damaged, a page that is not packed."""
    assert kind_of(PACKED + tail, "gzip") == "encoding"


def test_B9_all_members_share_one_cap():
    """A thousand small ones are as much too large as a single one."""
    assert kind_of(gzip.compress(b"x" * 10, mtime=0) * 100, "gzip", 1000) is None
    assert kind_of(gzip.compress(b"x" * 10, mtime=0) * 101, "gzip", 1000) == "too_large"


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize(("size", "kind"), [(999, None), (1000, None), (1001, "too_large")])
def test_B9_the_cap_is_the_last_size_that_passes(encoding, size, kind):
    """As many bytes as allowed pass; one more does not, whatever the encoding."""
    raw = b"x" * size
    assert kind_of(gzip.compress(raw, mtime=0) if encoding else raw, encoding, 1000) == kind


def test_B9_a_bomb_is_found_without_unpacking_it():
    """600 MB in 600 kB cost no more than the cap and two MiB beside what was received."""
    raw = bomb()
    tracemalloc.start()
    assert kind_of(raw, "gzip") == "too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= MAX_BODY_BYTES + (2 << 20)


@given(raw=st.binary(max_size=300), encoding=st.sampled_from(["", "gzip", "br"]))
def test_any_bytes_are_a_body_or_a_named_error(raw, encoding):
    """Nothing but PageError escapes, whatever comes."""
    assert kind_of(raw, encoding) in {None, "encoding"}


@given(raw=st.binary(max_size=300), place=st.integers(0, 400))
def test_gzip_that_is_cut_anywhere_is_never_taken_for_whole(raw, place):
    """Only all of it is all of it."""
    packed = gzip.compress(raw, mtime=0)
    assert kind_of(packed[:place], "gzip") == (None if place >= len(packed) else "encoding")
