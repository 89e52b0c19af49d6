"""Requests: any bytes in, one checked request or one clear error out."""

import io
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.errors import RequestError
from crawler.request.crawl_request import CrawlRequest, RequestFields, check_request, parse_request
from crawler.request.incoming import MAX_REQUEST_BYTES

GOOD = b'{"start": 1, "stop": 2001}'


def parse(body: bytes = b"", query: str = "", content_type: str | None = None, **more: Any):
    """Parse as a deployment of 100 requests/s and a million songs per request does."""
    encoding = more.pop("encoding", None)
    length = more.pop("length", len(body))
    reader = more.pop("reader", io.BytesIO(body).read)
    limits = {"max_range": 1_000_000, "deployed_rate": 100.0, **more}
    return parse_request("POST", content_type, encoding, reader, length, query=query, **limits)


def refusal(*arguments: Any, **more: Any) -> RequestError:
    """Parse what must be refused."""
    with pytest.raises(RequestError) as caught:
        parse(*arguments, **more)
    return caught.value


def parse_or_error(*arguments: Any) -> CrawlRequest | RequestError:
    """Parse, whatever comes of it."""
    try:
        return parse(*arguments)
    except RequestError as error:
        return error


def never(size: int) -> bytes:
    """Stand in for a body that must not be read."""
    raise AssertionError(f"{size} bytes of the body were read")


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "Application/JSON; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json; charset=utf8; x=y",
        "application/octet-stream",
    ],
)
@pytest.mark.parametrize("length", [len(GOOD), None])
def test_A1_json_under_any_of_its_names_is_read(content_type, length):
    """JSON is read as such under the types that callers and schedulers send, or none."""
    assert parse(GOOD, content_type=content_type, length=length) == CrawlRequest(start=1, stop=2001)


@pytest.mark.parametrize(
    ("content_type", "encoding", "field"),
    [
        ("text/plain", None, "Content-Type"),
        ("application/x-www-form-urlencoded", None, "Content-Type"),
        ("multipart/form-data; boundary=x", None, "Content-Type"),
        ("application/json; charset=utf-16", None, "Content-Type"),
        ("application/json; charset=latin1", None, "Content-Type"),
        ("application/json, text/plain", None, "Content-Type"),
        ("json", None, "Content-Type"),
        ("application/json", "gzip", "Content-Encoding"),
        ("application/json", "identity, gzip", "Content-Encoding"),
    ],
)
def test_A2_what_is_no_plain_json_is_refused_unread(content_type, encoding, field):
    """Another type, charset or encoding is refused before a byte of the body is read."""
    error = refusal(content_type=content_type, encoding=encoding, reader=never, length=100)
    assert (error.status, error.field) == (415, field)


def test_A3_an_empty_body_without_query_is_refused():
    """Nothing at all is no request; the error shows one."""
    error = refusal(b"")
    assert (error.status, error.code) == (400, "body_empty")
    assert '{"start": 1, "stop": 2001}' in str(error)


@pytest.mark.parametrize(
    ("body", "code", "place"),
    [
        (b'{"start": \xff}', "body_not_utf8", "byte 10"),
        (b'{"start":"\xed\xa0\x80"}', "body_not_utf8", "byte 10"),
        (GOOD.decode().encode("utf-16"), "body_not_utf8", "byte 0"),
        (GOOD.decode().encode("utf-16-le"), "body_not_json", "column 2"),
        (GOOD + b"x", "body_not_json", "column 27"),
        (GOOD + GOOD, "body_not_json", "column 27"),
        (b'{"start": 1, // first\n"stop": 5}', "body_not_json", "column 14"),
        (b"{'start': 1}", "body_not_json", "column 2"),
        (b'{"start": 007, "stop": 9}', "body_not_json", "column 12"),
        (b'{"start": 1, "stop": 5,}', "body_not_json", "line 1 column 2"),
        (b'{"start": 1', "body_not_json", "column 12"),
        (b"   ", "body_not_json", "column 4"),
    ],
)
def test_A4_what_is_no_json_is_refused_with_the_place(body, code, place):
    """A body that is not JSON in UTF-8 is refused, and told where it goes wrong."""
    error = refusal(body)
    assert (error.status, error.code) == (400, code)
    assert place in str(error)


def test_A5_a_byte_order_mark_is_accepted():
    """A UTF-8 BOM, which some editors write, is skipped."""
    assert parse(b"\xef\xbb\xbf" + GOOD) == CrawlRequest(start=1, stop=2001)


@pytest.mark.parametrize("length", [None, MAX_REQUEST_BYTES + 1])
def test_A6_a_body_over_64_kib_is_read_no_further(length):
    """One byte over the limit is too much, and no more than that byte is asked for."""
    source = io.BytesIO(GOOD + b" " * 10_000_000)
    error = refusal(reader=source.read, length=length)
    assert (error.status, error.code) == (413, "body_too_large")
    assert source.tell() == MAX_REQUEST_BYTES + 1
    assert parse(GOOD.ljust(MAX_REQUEST_BYTES)) == CrawlRequest(start=1, stop=2001)


def test_a_body_shorter_than_its_length_is_refused():
    """What was cut off on its way is not taken for a whole request, even if it reads like one."""
    assert refusal(GOOD, length=len(GOOD) + 2).code == "body_incomplete"


def test_A6_a_length_of_10_mb_is_refused_unread():
    """A body that is said to be far too long is believed."""
    assert refusal(reader=never, length=10_000_000).status == 413


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b"[" * 50_000 + b"]" * 50_000,
        b'{"start":' * 30_000,
        b'{"start":' + b"[" * 20 + b"]" * 20 + b"}",
    ],
    ids=["open", "closed", "objects", "just too deep"],
)
def test_A7_100_000_brackets_are_refused_at_once(body):
    """Depth is refused as depth, without recursion, in under 100 ms."""
    started = time.thread_time()
    error = refusal(body)
    assert time.thread_time() - started < 0.1
    assert (error.status, error.code) == (400, "body_too_deep")


def test_A7_brackets_in_a_string_are_no_depth():
    """Only structure counts: a string full of brackets and quotes is refused for what it is."""
    error = refusal(b'{"start": "' + b'[{\\"' * 1000 + b'", "stop": 5}')
    assert error.code == "start_malformed"


def test_A7_a_string_without_end_costs_no_time():
    """Escaped quotes without a closing one are scanned once, not once per quote."""
    started = time.thread_time()
    assert refusal(b'"' + b'\\"' * 32_000).code == "body_not_json"
    assert time.thread_time() - started < 0.1


@pytest.mark.parametrize("name", ["start", "stop"])
@pytest.mark.parametrize(
    "value",
    [
        "null",
        "true",
        "false",
        "1.9",
        "1.0",
        "1e3",
        "1E3",
        "-1.0",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "{}",
        "[]",
        "[1]",
        '"10"',
        '""',
        '{"start": 1}',
    ],
)
def test_A9_only_a_plain_number_is_a_song_number(name, value):
    """Whatever else JSON can say is refused under the field's name."""
    other = "stop" if name == "start" else "start"
    error = refusal(f'{{"{name}": {value}, "{other}": 1}}'.encode())
    assert (error.status, error.code, error.field) == (400, f"{name}_malformed", name)
    assert str(error).startswith(f"{name} must be a whole number from 0 to 1000000000000")


@pytest.mark.parametrize(
    ("body", "field"), [(b"{}", "start"), (b'{"stop": 5}', "start"), (b'{"start": 5}', "stop")]
)
def test_A9_half_a_range_is_refused(body, field):
    """A range has two ends."""
    error = refusal(body)
    assert (error.code, error.field) == (f"{field}_missing", field)


@pytest.mark.parametrize(
    "body", [b"[]", b'[{"start": 1, "stop": 5}]', b"5", b"null", b'"x"', b"true"]
)
def test_A9_only_an_object_is_a_request(body):
    """A list, a number or null as the body is refused."""
    error = refusal(body)
    assert (error.status, error.code, error.field) == (400, "body_not_object", "body")


@pytest.mark.parametrize(
    "text",
    [
        "+5",
        "%2B5",
        "%205",
        "5%20",
        "5%0A",
        "1_0",
        "%EF%BC%90%EF%BC%95",
        "%D9%A5",
        "05",
        "00",
        "0x5",
        "5.0",
        "5.",
        "1e3",
        "-0",
        "",
        "true",
        "null",
        "NaN",
        "5%00",
    ],
)
def test_A10_a_query_takes_canonical_ascii_decimals_only(text):
    """Any other spelling of a number is refused, even where Python's int() would read it."""
    error = refusal(query=f"start={text}&stop=9")
    assert (error.status, error.code, error.field) == (400, "start_malformed", "start")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("start=1&start=1&stop=5", "parameter_twice"),
        ("start=1&stop", "query_malformed"),
        ("start=1&&stop=5", "query_malformed"),
        ("start=%FF&stop=5", "query_malformed"),
        ("&".join(f"a{i}=1" for i in range(200)), "query_malformed"),
        ("START=1&stop=5", "parameter_unknown"),
    ],
)
def test_A10_a_query_is_read_strictly(query, code):
    """Repeated, nameless and undecodable pairs are refused."""
    assert refusal(query=query).code == code


def test_a_query_may_say_all_that_a_body_may():
    """The same names and the same types, in both."""
    query = (
        "mode=next&limit=500&recheck=missing&refresh_older_than_days=0.5&max_rate=5&fan_out=false"
    )
    body = (
        b'{"mode": "next", "limit": 500, "recheck": "missing", "refresh_older_than_days": 0.5,'
        b' "max_rate": 5, "fan_out": false}'
    )
    assert parse(query=query) == parse(body)
    assert parse(body).max_rate == 5.0


def test_a_query_too_long_is_refused():
    """A query is held to the limit of a body."""
    assert refusal(query="start=" + "1" * MAX_REQUEST_BYTES).status == 414


@pytest.mark.parametrize(
    "number",
    [
        "-1",
        "-0",
        "1000000000001",
        "9" * 25,
        "9" * 5000,
        "-" + "9" * 5000,
        "0." + "1" * 5000,
        "1e" + "9" * 5000,
        "9" * 60000,
    ],
    ids=lambda number: number[:14],
)
def test_A11_numbers_out_of_bounds_are_refused_at_once(number):
    """Negative, too large and endless numbers cost under 50 ms and no long answer."""
    for body, query in (
        (f'{{"start": {number}, "stop": 5}}'.encode(), ""),
        (b"", f"start={number}"),
    ):
        started = time.thread_time()
        error = refusal(body, query)
        assert time.thread_time() - started < 0.05
        assert (error.status, error.field) == (400, "start")
        assert len(str(error)) < 250


def test_A11_the_largest_song_number_is_accepted():
    """10^12 itself is still a number."""
    request = parse(b'{"start": 999999999999, "stop": 1000000000000}')
    assert request.stop == 10**12


def test_A12_a_range_may_be_empty_but_not_backward():
    """`stop == start` asks for nothing; `stop < start` is a mistake."""
    assert parse(b'{"start": 5, "stop": 5}') == CrawlRequest(start=5, stop=5)
    error = refusal(b'{"start": 9, "stop": 5}')
    assert (error.code, error.field) == ("stop_malformed", "stop")
    assert str(error) == "stop must not be less than start, got start=9 stop=5"


def test_A13_a_range_too_long_is_refused_with_the_way_out():
    """One song more than allowed names the limit and `fan_out`; with that it passes."""
    assert parse(b'{"start": 7, "stop": 1000007}').stop == 1_000_007
    error = refusal(b'{"start": 7, "stop": 1000008}')
    assert (error.status, error.code) == (400, "range_too_long")
    assert "CRAWLER_MAX_RANGE=1000000" in str(error)
    assert "fan_out" in str(error)
    assert parse(b'{"start": 7, "stop": 1000008, "fan_out": true}').fan_out


@pytest.mark.parametrize(
    "body", [b'{"start": 1, "stop": 5, "start": 1}', b'{"start": 1, "stop": 5, "\\u0073tart": 2}']
)
def test_A14_the_same_key_twice_is_refused(body):
    """Also when both agree, and however it is written."""
    error = refusal(body)
    assert (error.code, error.field) == ("parameter_twice", "start")


@pytest.mark.parametrize("name", ["url", "headers", "bucket", "base_url", "rate", "token", "Start"])
def test_A14_an_unknown_key_is_refused(name):
    """The caller may set numbers only; a key that is not one of ours is named."""
    error = refusal(f'{{"start": 1, "stop": 5, "{name}": "x"}}'.encode())
    assert (error.status, error.code, error.field) == (400, "parameter_unknown", name)


def test_A14_query_and_body_may_agree_but_not_differ():
    """What stands in both must be the same."""
    assert parse(GOOD, "start=1") == CrawlRequest(start=1, stop=2001)
    assert parse(b'{"start": 1}', "stop=2001") == CrawlRequest(start=1, stop=2001)
    assert refusal(GOOD, "start=2").code == "start_conflict"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"mode": "all"}', "mode"),
        (b'{"mode": "range"}', "mode"),
        (b'{"mode": null}', "mode"),
        (b'{"mode": 5}', "mode"),
        (b'{"mode": "next", "start": 1, "stop": 5}', "mode"),
        (b'{"mode": "new", "stop": 5}', "mode"),
        (b'{"mode": "next", "fan_out": true}', "fan_out"),
        (b'{"mode": "next", "limit": 0}', "limit"),
        (b'{"mode": "next", "limit": -5}', "limit"),
        (b'{"mode": "next", "limit": true}', "limit"),
        (b'{"start": 1, "stop": 5, "limit": 3}', "limit"),
        (b'{"mode": "next", "max_rate": 0}', "max_rate"),
        (b'{"mode": "next", "max_rate": -1}', "max_rate"),
        (b'{"mode": "next", "max_rate": NaN}', "max_rate"),
        (b'{"mode": "next", "max_rate": 100.5}', "max_rate"),
        (b'{"mode": "next", "max_rate": true}', "max_rate"),
        (b'{"mode": "next", "recheck": "found"}', "recheck"),
        (b'{"mode": "next", "refresh_older_than_days": -1}', "refresh_older_than_days"),
        (b'{"mode": "next", "refresh_older_than_days": -0}', "refresh_older_than_days"),
        (b'{"mode": "next", "refresh_older_than_days": NaN}', "refresh_older_than_days"),
        (b'{"start": 1, "stop": 5, "fan_out": 1}', "fan_out"),
    ],
)
def test_A15_modes_limits_and_rates_are_checked(body, field):
    """What does not fit its field, or the other fields, is refused by name."""
    error = refusal(body)
    assert (error.status, error.field) == (400, field)


def test_A15_the_deployed_rate_bounds_the_caller_s():
    """A caller may only slow a run down; without a deployed rate any pace is slower."""
    body = b'{"mode": "new", "max_rate": 100}'
    assert parse(body).max_rate == 100.0
    assert refusal(body, deployed_rate=50.0).code == "max_rate_malformed"
    assert parse(body, deployed_rate=0.0).max_rate == 100.0


def test_fields_are_checked_by_themselves_without_limits():
    """Who is no stranger's caller gets the same checks, without limit of range and rate."""
    wide = {"start": 0, "stop": 5_000_000, "max_rate": 500}
    assert check_request(wide) == CrawlRequest(start=0, stop=5_000_000, max_rate=500)
    with pytest.raises(RequestError) as caught:
        check_request({"start": 9, "stop": 5})
    assert (caught.value.code, caught.value.field) == ("stop_malformed", "stop")


@pytest.mark.parametrize("value", [{1, 2}, object(), {(1, 2): 3}, b"5", 5 + 0j])
def test_a_value_that_is_no_json_is_shown_all_the_same(value):
    """From Python anything may come; the refusal names the field and shows it."""
    with pytest.raises(RequestError, match=r"^start must be a whole number") as caught:
        check_request({"start": value, "stop": 9})
    assert len(str(caught.value)) < 200


def test_a_message_is_one_line_of_ascii():
    """Whatever the caller names a key, the message holds no control character of theirs."""
    error = refusal('{"\\n\\u001b[31m\\ud800é": 1}'.encode())
    assert str(error).isascii()
    assert str(error).isprintable()


@pytest.mark.parametrize("name", RequestFields.__struct_fields__)
def test_A4_half_a_surrogate_pair_is_no_value(name):
    """JSON can write what UTF-8 cannot carry: as a value it is refused like any other wrong one."""
    error = refusal(f'{{"{name}": "\\ud800"}}'.encode())
    assert (error.status, error.code, error.field) == (400, f"{name}_malformed", name)
    assert "\\ud800" in str(error)


def test_every_parameter_has_its_words():
    """Each field of the wire has a meaning in the schema, and every error can say what is wanted."""
    for field in msgspec.structs.fields(RequestFields):
        body = f'{{"{field.name}": {{}}}}'.encode()
        assert refusal(body).code == f"{field.name}_malformed"
    schema = msgspec.json.schema(RequestFields)["$defs"]["RequestFields"]
    assert all(part.get("description") for part in schema["properties"].values())


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_request_or_a_named_error(body):
    """No body raises anything but the one error that carries a status."""
    outcome = parse_or_error(body)
    assert isinstance(outcome, CrawlRequest) or 400 <= outcome.status < 500


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_NAMES = st.sampled_from(RequestFields.__struct_fields__) | st.text(max_size=3)


@given(st.dictionaries(_NAMES, _JSON, max_size=4), st.text(max_size=60))
def test_any_fields_are_a_request_or_a_named_error(fields, query):
    """No object, with no query beside it, raises anything else either; a range is never backward."""
    outcome = parse_or_error(json.dumps(fields).encode(), query)
    if isinstance(outcome, RequestError):
        assert 400 <= outcome.status < 500
    else:
        assert outcome.mode != "range" or 0 <= (outcome.start or 0) <= (outcome.stop or 0)
