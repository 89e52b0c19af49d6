"""The misbehaving site is what it says: each fault is looked at over raw sockets."""

import gzip
import http.client
import json
import re
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import pycurl
import pytest

from crawler.demo.songs import song, song_body
from tests.faulty_site import FAULTS, FaultySite, Page, closed_port, swallowing_port
from tests.faulty_table import (
    BOMB_MEGABYTES,
    LARGE_BYTES,
    ODD_TITLES,
    REDIRECTS,
    bomb,
    page,
    retry_after_lines,
)

FOUND = next(n for n in range(1, 100) if song(n))
MISSING = next(n for n in range(1, 100) if not song(n))
PAGE = page(FOUND)
QUIET_SECONDS = 0.25
NOW = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)


def connect(url, context=None):
    """A raw socket to an address, with TLS where it says so."""
    where = urlsplit(url)
    client = socket.create_connection((where.hostname, where.port), timeout=10)
    if where.scheme == "https":
        client = (context or ssl.create_default_context()).wrap_socket(
            client, server_hostname=where.hostname, suppress_ragged_eofs=False
        )
    return client


def request(url, number=FOUND, *lines):
    """The bytes of a request."""
    path = f"{urlsplit(url).path}/songs/{number}"
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode()


def receive(client, expected="end", first_seconds=10.0):
    """All that comes, and how it stopped: `end`, `reset`, `cut` (TLS) or `open`: not yet.

    Args:
        expected: Only for `open` does a short silence, or half a second of bytes, mean anything.
        first_seconds: How long to wait for the first byte.
    """
    parts = []
    client.settimeout(first_seconds)
    until = time.monotonic() + (0.5 if expected == "open" else 20.0)
    try:
        while part := client.recv(1_000_000):
            parts.append(part)
            client.settimeout(QUIET_SECONDS if expected == "open" else 10.0)
            if time.monotonic() > until:
                return b"".join(parts), "open"
    except TimeoutError:
        return b"".join(parts), "open"
    except ConnectionResetError:
        return b"".join(parts), "reset"
    except ssl.SSLEOFError:
        return b"".join(parts), "cut"
    return b"".join(parts), "end"


def meet(site, scenario, number=FOUND, context=None, expected="end"):
    """Ask once on a connection of its own; returns head, body, and how it stopped."""
    url = site.url(scenario)
    first_seconds = QUIET_SECONDS if scenario == "hang-before-headers" else 10.0
    with connect(url, context) as client:
        client.sendall(request(url, number, "Connection: close"))
        received, ending = receive(client, expected, first_seconds)
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, ending


def ask(site, path, tls_context=None):
    """A right request with a real client; returns status, headers, body."""
    where = urlsplit(site.base_url).netloc
    connection = (
        http.client.HTTPSConnection(where, context=tls_context, timeout=10)
        if tls_context
        else http.client.HTTPConnection(where, timeout=10)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def length(head):
    """What `Content-Length` says, as text, several with a bar between them; None where absent."""
    found = re.findall(rb"(?m)^Content-Length: ?(.*?)\r?$", head)
    return b"|".join(found) if found else None


def has_length(head, body):
    """Whether a body is as long as its head says."""
    return length(head) == b"%d" % len(body)


def is_gzip(head):
    """Whether the body is said to be gzip."""
    return b"\r\nContent-Encoding: gzip\r\n" in head + b"\r\n"


def unpack(body):
    """Decompress as strictly as one can; returns the bytes, or what is wrong."""
    unpacker = zlib.decompressobj(31)
    try:
        plain = unpacker.decompress(body)
    except zlib.error as error:
        return str(error)
    if not unpacker.eof:
        return "unfinished"
    return "trailing" if unpacker.unused_data else plain


def dechunk(body):
    """Take chunks apart; returns the bytes, or what is wrong."""
    plain = b""
    while True:
        size, found, body = body.partition(b"\r\n")
        if not found:
            return "unfinished"
        if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", size):
            return "bad size"
        if int(size, 16) == 0:
            return plain
        if len(body) < int(size, 16) + 2:
            return "short"
        plain, body = plain + body[: int(size, 16)], body[int(size, 16) + 2 :]


def is_page(head, body):
    """A whole and right answer."""
    return head.startswith(b"HTTP/1.1 200 ") and has_length(head, body) and json.loads(body)["meta"]


def json_error(body):
    """What a reader of JSON says about a body, or None: nothing."""
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:
        return type(error).__name__
    return None


def chunks(told):
    """Expect a chunked body of which `dechunk` says this."""
    return lambda head, body: b"Transfer-Encoding: chunked" in head and dechunk(body) == told


def said(value, size=None):
    """Expect just this `Content-Length`."""
    return lambda head, body: length(head) == value and body == PAGE


def packed(told):
    """Expect a compressed body of which `unpack` says this."""

    def check(head, body):
        seen = unpack(body)
        same = told in seen if isinstance(seen, str) and isinstance(told, str) else seen == told
        return is_gzip(head) and has_length(head, body) and same

    return check


def holds(text, status=200):
    """Expect a well-formed answer with this in its body."""
    return lambda head, body: (
        head.startswith(b"HTTP/1.1 %d " % status) and has_length(head, body) and text in body
    )


def says(line):
    """Expect a well-formed answer with this line in its head, and the page."""
    return lambda head, body: line in head and has_length(head, body) and body == PAGE


def status_is(code):
    """Expect a well-formed answer with a status and no song."""
    return lambda head, body: (
        head.startswith(b"HTTP/1.1 %d " % code) and has_length(head, body) and b'"song"' not in body
    )


def wrong_json(kind):
    """Expect a well-formed answer whose body a reader of JSON refuses in this way."""
    return lambda head, body: has_length(head, body) and json_error(body) == kind


def song_is(check):
    """Expect a well-formed page whose song passes a check."""
    return lambda head, body: has_length(head, body) and check(json.loads(body)["response"]["song"])


def head_only(head, body):
    """Expect nothing after a whole head that promises a body."""
    return int(length(head)) > 2000 and body == b""


def half_body(head, body):
    """Expect half of what the head promises."""
    return int(length(head)) == len(PAGE) and body == PAGE[: len(PAGE) // 2]


def nothing(head, body):
    """Expect not a byte."""
    return head == b"" and body == b""


def cut_head(head, body):
    """Expect the beginning of a head."""
    return head.startswith(b"HTTP/1.1 200 ") and len(head) == 60


def slow(head, body):
    """Expect a head, and of the body a few bytes only."""
    return head.startswith(b"HTTP/1.1 200 ") and 2 <= len(body) < 1500


def slow_head(head, body):
    """Expect the beginning of a head, and of its end not a trace."""
    return head.startswith(b"HTTP/1.1 200 ") and b"X-Slow" in head and body == b""


def large(head, body):
    """Expect 8 MiB of blanks and a right page."""
    return len(body) > LARGE_BYTES and body.strip() == PAGE


def text(code, where):
    """Expect a redirect."""
    line = b"\r\nLocation:" + (b" " + where if where else b"")
    return lambda head, body: (
        head.startswith(b"HTTP/1.1 %d " % code) and (line in head) and body == b""
    )


PLAIN_RIGHT = ("end", lambda head, body: is_page(head, body) and body == song_body(FOUND))
EXPECTED = {
    "right": PLAIN_RIGHT,
    "right-gzip": ("end", packed(PAGE)),
    "right-late": PLAIN_RIGHT,
    "right-folded": (
        "end",
        lambda head, body: b"\r\nContent-Encoding:\r\n gzip \r\n" in head and unpack(body) == PAGE,
    ),
    "right-chunked": ("end", chunks(PAGE)),
    "right-no-length": ("end", lambda head, body: length(head) is None and body == PAGE),
    "reset-before-headers": ("reset", nothing),
    "reset-in-headers": ("reset", lambda head, body: cut_head(head, body) or nothing(head, body)),
    "reset-in-body": ("reset", half_body),
    "reset-reused": PLAIN_RIGHT,
    "closed-before-headers": ("end", nothing),
    "closed-in-headers": ("end", cut_head),
    "closed-in-body": ("end", half_body),
    "closed-reused": PLAIN_RIGHT,
    "header-trickle": ("open", lambda head, body: 1 < len(head) < 300 and body == b""),
    "header-lines-trickle": ("open", slow_head),
    "body-trickle": ("open", slow),
    "gzip-trickle": ("open", lambda head, body: is_gzip(head) and slow(head, body)),
    "chunk-trickle": ("open", lambda head, body: slow(head, body) and body.startswith(b"1\r\n{")),
    "endless-continue": (
        "open",
        lambda head, body: (head + body).count(b"HTTP/1.1 100 ") > 2 and b" 200 " not in body,
    ),
    "hang-before-headers": ("open", nothing),
    "hang-in-headers": ("open", cut_head),
    "hang-after-headers": ("open", head_only),
    "hang-in-body": ("open", half_body),
    "length-longer": ("end", said(b"%d" % (len(PAGE) + 100))),
    "length-shorter": ("end", said(b"%d" % (len(PAGE) - 100))),
    "length-abc": ("end", said(b"abc")),
    "length-negative": ("end", said(b"-5")),
    "length-plus": ("end", said(b"+%d" % len(PAGE))),
    "length-empty": ("end", said(b"")),
    "length-two": ("end", said(b"%d|10" % len(PAGE))),
    "length-list": ("end", said(b"%d, 10" % len(PAGE))),
    "length-huge": ("end", said(b"1000000000000000")),
    "length-and-chunked": (
        "end",
        lambda head, body: chunks(PAGE)(head, body) and length(head) == b"%d" % (len(PAGE) // 2),
    ),
    "chunked-no-end": ("end", chunks("unfinished")),
    "chunked-cut": ("end", chunks("unfinished")),
    "chunked-short": ("end", chunks("short")),
    "chunked-bad-size": ("end", chunks("bad size")),
    "chunked-huge-size": ("end", chunks("bad size")),
    "no-length-cut": (
        "end",
        lambda head, body: length(head) is None and body == PAGE[: len(PAGE) // 2],
    ),
    "headers-150": ("end", lambda head, body: head.count(b"X-A: b") == 150 and body == PAGE),
    "header-70kb": ("end", lambda head, body: b"X: " + b"a" * 70_000 in head and body == PAGE),
    "headers-10mb": ("end", lambda head, body: len(head) > 10_000_000 and body == PAGE),
    "header-nul": ("end", lambda head, body: b"X: a\0b" in head and is_page(head, body)),
    "header-no-colon": ("end", lambda head, body: b"\r\nnonsense" in head and is_page(head, body)),
    "garbage": (
        "end",
        lambda head, body: not head.startswith(b"HTTP") and len(head + body) == 5120,
    ),
    "http-0.9": ("end", lambda head, body: head + body == PAGE),
    "status-abc": ("end", lambda head, body: head == b"HTTP/1.1 abc OK" and body == PAGE),
    "status-101": ("end", lambda head, body: head == b"HTTP/1.1 101 So" and body == PAGE),
    "status-short": ("end", lambda head, body: head == b"HTTP/1.1 20 OK" and body == PAGE),
    "gzip-cut": ("end", packed("unfinished")),
    "gzip-no-trailer": ("end", packed("unfinished")),
    "gzip-wrong-crc": ("end", packed("incorrect data check")),
    "gzip-wrong-size": ("end", packed("incorrect length check")),
    "gzip-garbage": ("end", packed("Error -3")),
    "gzip-plain": ("end", packed("incorrect header check")),
    "gzip-trailing": ("end", packed("trailing")),
    "gzip-empty": ("end", lambda head, body: is_gzip(head) and length(head) == b"0" and not body),
    "gzip-twice": (
        "end",
        lambda head, body: (
            b"Content-Encoding: gzip, gzip" in head
            and gzip.decompress(gzip.decompress(body)) == PAGE
        ),
    ),
    "encoding-br": ("end", says(b"Content-Encoding: br")),
    "encoding-deflate": (
        "end",
        lambda head, body: b"Encoding: deflate" in head and zlib.decompress(body) == PAGE,
    ),
    "encoding-unknown": ("end", says(b"Content-Encoding: x-none")),
    "bomb": ("end", lambda head, body: is_gzip(head) and has_length(head, body) and body == bomb()),
    "large": ("end", lambda head, body: has_length(head, body) and large(head, body)),
    "large-no-length": ("end", lambda head, body: length(head) is None and large(head, body)),
    "large-chunked": (
        "end",
        lambda head, body: length(head) is None and large(head, dechunk(body)),
    ),
    "close-always": PLAIN_RIGHT,
    "close-announced": (
        "end",
        lambda head, body: b"\r\nConnection: close" in head and is_page(head, body),
    ),
    "close-now-and-then": PLAIN_RIGHT,
    "close-unsaid-now-and-then": PLAIN_RIGHT,
    "html": ("end", holds(b"<!doctype html>")),
    "empty-200": ("end", lambda head, body: b" 200 " in head and length(head) == b"0" and not body),
    "empty-204": ("end", lambda head, body: head.startswith(b"HTTP/1.1 204 ") and not body),
    "partial-206": ("end", holds(PAGE, status=206)),
    "unmodified-304": ("end", lambda head, body: head.startswith(b"HTTP/1.1 304 ") and not body),
    "json-cut": ("end", wrong_json("JSONDecodeError")),
    "json-nan": ("end", holds(b": NaN")),
    "json-deep": ("end", wrong_json("RecursionError")),
    "json-huge-integer": ("end", wrong_json("ValueError")),
    "json-huge-views": ("end", wrong_json("ValueError")),
    "json-not-utf8": ("end", wrong_json("UnicodeDecodeError")),
    "json-trailing": ("end", wrong_json("JSONDecodeError")),
    "bom": ("end", lambda head, body: has_length(head, body) and body == b"\xef\xbb\xbf" + PAGE),
    "song-null": ("end", song_is(lambda made: made is None)),
    "song-list": ("end", song_is(lambda made: made == [])),
    "response-null": ("end", holds(b'"response":null')),
    "body-list": ("end", holds(b"[1, 2]")),
    "song-wrong-types": ("end", song_is(lambda made: made["title"] == 5)),
    "song-no-id": ("end", song_is(lambda made: made["id"] is None)),
    "missing-inside": ("end", holds(b'"status": 404')),
    "another-song": ("end", song_is(lambda made: made["id"] == FOUND + 1)),
    "odd-titles": ("end", song_is(lambda made: made["title"] == ODD_TITLES[FOUND])),
    "status": ("end", status_is(500)),
    "echo": ("end", holds(b"connection: close", status=401)),
    "large-500": (
        "end",
        lambda head, body: status_is(500)(head, body) and len(body) == LARGE_BYTES,
    ),
    "digest": ("end", status_is(401)),
    "half-500": ("end", status_is(500)),
    "429": ("end", lambda head, body: status_is(429)(head, body) and b"Retry-After" not in head),
    "503": ("end", lambda head, body: status_is(503)(head, body) and b"Retry-After" not in head),
}
"""What a raw socket sees of each fault: how the connection stops, and a check of head and body."""


@pytest.mark.parametrize("name", [name for name in FAULTS if not name.startswith("redirect-")])
def test_a_fault_is_what_it_says(faulty_site, name):
    """Each fault of the table is there, byte by byte, over a plain connection."""
    ending, check = EXPECTED[name]
    head, body, stopped = meet(faulty_site, name, expected=ending)
    assert stopped == ending
    assert check(head, body), (head[:300], body[:300])


@pytest.mark.parametrize("code", REDIRECTS)
@pytest.mark.parametrize("target", ["self", "other", "plain", "file", "empty", "unsaid"])
def test_a_redirect_leads_where_it_says(faulty_site, target, code):
    """Each redirect has its status, its target and no page."""
    name = f"redirect-{target}-{code}"
    head, body, _ = meet(faulty_site, name)
    path = f"/{name}/songs/{FOUND}"
    where = {
        "self": path,
        "other": faulty_site.other_url + path,
        "plain": faulty_site.plain_url + path,
        "file": "file:///etc/hostname",
        "empty": "",
        "unsaid": None,
    }[target]
    assert head.startswith(b"HTTP/1.1 %d " % code)
    found = re.findall(rb"(?m)^Location: ?(.*?)\r$", head + b"\r\n")
    assert found == ([] if where is None else [where.encode()])
    assert body == b""


def test_the_table_is_looked_at_whole():
    """No fault of the table goes without a look, and every row of the list that it serves is there."""
    assert set(EXPECTED) == {name for name in FAULTS if not name.startswith("redirect-")}
    rows = {fault.row for fault in FAULTS.values()}
    assert {"B1", "B4", "B5", "B6", "B7", "B8", "B9", "B10"} <= rows
    assert {"C1", "C2", "C3", "C4", "C5", "C6-C8", "D1-D5", "D6"} <= rows


def test_a_bomb_unpacks_to_spaces():
    """600 kB hold 600 MB, right to the checksum."""
    unpacker = zlib.decompressobj(31)
    rest, size = bomb(), 0
    while rest:
        part = unpacker.decompress(rest, 1_000_000)
        size, rest = size + len(part), unpacker.unconsumed_tail
        assert not part.strip()
    assert unpacker.eof
    assert (size, len(bomb()) < 700_000) == (BOMB_MEGABYTES * 1_000_000, True)


@pytest.mark.parametrize(("name", "second"), [("reset-reused", "reset"), ("closed-reused", "end")])
def test_a_reused_connection_fails_at_its_second_request(faulty_site, name, second):
    """The first answer of a connection is right, the second never comes."""
    url = faulty_site.url(name)
    with connect(url) as client:
        client.sendall(request(url))
        first = receive(client, "open")
        client.sendall(request(url))
        assert receive(client) == (b"", second)
    assert first[0].endswith(song_body(FOUND))
    assert first[1] == "open"


@pytest.mark.parametrize(
    ("name", "answers", "announced"),
    [
        ("close-always", 1, False),
        ("close-announced", 1, True),
        ("close-now-and-then", 5, True),
        ("close-unsaid-now-and-then", 5, False),
    ],
)
def test_connections_end_after_so_many_answers(faulty_site, name, answers, announced):
    """A site that closes connections serves just so many requests on each, all rightly."""
    url = faulty_site.url(name)
    with connect(url) as client:
        client.sendall(request(url) * 8)
        received, stopped = receive(client)
    assert received.count(b"HTTP/1.1 200 ") == answers
    assert (b"Connection: close" in received) == announced
    assert stopped == "end"


def test_a_body_too_long_spoils_the_next_answer(faulty_site):
    """What a body has beyond its length stays in a kept connection."""
    url = faulty_site.url("length-shorter")
    with connect(url) as client:
        client.sendall(request(url) * 2)
        received, stopped = receive(client, "open")
    assert received.count(b"HTTP/1.1 200 ") == 2
    assert stopped == "open"


def test_what_is_missing_stays_missing_where_nothing_is_wrong(faulty_site):
    """Right answers are the demo site's, with 404 where there is no song."""
    assert ask(faulty_site, f"/right/songs/{MISSING}")[0] == 404
    assert ask(faulty_site, f"/songs/{MISSING}")[0] == 404
    assert ask(faulty_site, f"/songs/{FOUND}")[2] == song_body(FOUND)


def test_a_fault_for_the_first_requests_of_each_number(faulty_site):
    """`@2` spoils two answers of each number, each number on its own."""
    path = "/status:500@2/songs/"
    statuses = [ask(faulty_site, f"{path}{n}")[0] for n in (FOUND, FOUND, MISSING, FOUND, MISSING)]
    assert statuses == [500, 500, 500, 200, 500]
    assert ask(faulty_site, f"{path}{MISSING}")[0] == 404
    assert [seen.spoilt for seen in faulty_site.requests_for(FOUND)] == [True, True, False]


def test_a_fault_after_so_many_requests(faulty_site):
    """`!3` lets three requests pass, whatever their numbers."""
    statuses = [ask(faulty_site, f"/status:401!3/songs/{FOUND + n % 2}")[0] for n in range(6)]
    assert 401 not in statuses[:3]
    assert statuses[3:] == [401, 401, 401]


def test_a_fault_for_some_seconds(faulty_site):
    """`~0.3` spoils everything for so long from its first request, and is over then."""
    assert ask(faulty_site, f"/status:500~0.3/songs/{FOUND}")[0] == 500
    end = time.monotonic() + 10
    while ask(faulty_site, f"/status:500~0.3/songs/{FOUND}")[0] != 200:
        assert time.monotonic() < end
    seen = [seen for seen in faulty_site.requests if seen.spoilt]
    assert seen[-1].at - seen[0].at < 0.3
    assert faulty_site.requests[-1].at - seen[0].at >= 0.3


def test_a_fault_can_fall_on_one_number_once(faulty_site):
    """`=n` spoils the first request of one number, and nothing else."""
    path, other = f"/status:500={FOUND}/songs/", FOUND + 1
    statuses = [ask(faulty_site, f"{path}{n}")[0] for n in (other, FOUND, FOUND, other)]
    assert statuses[1:3] == [500, 200]
    assert statuses.count(500) == 1


def test_conditions_hold_together(faulty_site):
    """`@1!2` spoils the first request of a number, but none of the first two of all."""
    path = "/status:500@1!2/songs/"
    assert [ask(faulty_site, f"{path}{n}")[0] for n in (1, 2, 3, 1, 3)] == [200, 200, 500, 200, 200]


def test_half_of_the_answers_fail(faulty_site):
    """`half-500` spoils every second request."""
    statuses = [ask(faulty_site, f"/half-500/songs/{FOUND}")[0] for _ in range(4)]
    assert statuses == [500, 200, 500, 200]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 408, 410, 418, 451, 502, 504, 599])
def test_any_status_can_be_ordered(faulty_site, code):
    """`status:N` answers with N."""
    status, _, body = ask(faulty_site, f"/status:{code}/songs/{FOUND}")
    assert (status, json.loads(body)["meta"]["status"]) == (code, code)


def test_an_echo_gives_our_headers_back(faulty_site):
    """`echo` repeats the token in a header and in the body."""
    url = faulty_site.url("echo:403")
    with connect(url) as client:
        client.sendall(request(url, FOUND, "Authorization: Bearer s3cret", "Connection: close"))
        received, _ = receive(client)
    assert received.startswith(b"HTTP/1.1 403 ")
    assert received.count(b"Bearer s3cret") == 2


def test_odd_titles_come_in_turn(faulty_site):
    """Each number has its odd title, halves of pairs included."""
    for number in range(len(ODD_TITLES)):
        made = json.loads(ask(faulty_site, f"/odd-titles/songs/{number}")[2])["response"]["song"]
        assert (made["id"], made["title"]) == (number, ODD_TITLES[number])


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("2", [b"2"]),
        ("-1", [b"-1"]),
        ("1.5", [b"1.5"]),
        ("１", ["１".encode()]),
        ("abc", [b"abc"]),
        ("empty", [b""]),
        ("twice", [b"2", b"4"]),
        ("digits", [b"1" * 30]),
        ("long", [b"7" * 10_000]),
        ("imf+2", [b"Fri, 06 Nov 2026 08:49:39 GMT"]),
        ("rfc850+2", [b"Friday, 06-Nov-26 08:49:39 GMT"]),
        ("asctime+2", [b"Fri Nov  6 08:49:39 2026"]),
        ("imf-60", [b"Fri, 06 Nov 2026 08:48:37 GMT"]),
    ],
)
def test_retry_after_has_every_form(value, lines):
    """A form is named in the address, or stands there as it is."""
    assert retry_after_lines(value, NOW) == [b"Retry-After: " + line for line in lines]


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_comes_from_the_address(faulty_site, code):
    """The value is percent-decoded, and dates follow the answer's own `Date`."""
    faulty_site.clock_skew_seconds = 3600.0
    assert ask(faulty_site, f"/{code}:2/songs/1")[1]["Retry-After"] == "2"
    raw = meet(faulty_site, f"{code}:%EF%BC%91%3A")[0]
    assert b"\r\nRetry-After: \xef\xbc\x91:" in raw
    status, headers, _ = ask(faulty_site, f"/{code}:asctime+5/songs/1")
    date, until = (parsedate_to_datetime(headers[name]) for name in ("Date", "Retry-After"))
    assert (status, (until.replace(tzinfo=UTC) - date).total_seconds()) == (code, 5)
    assert 3500 < (date - datetime.now(UTC)).total_seconds() < 3700


def test_a_request_inside_a_pause_is_told(faulty_site):
    """Requests after a spoilt answer count as too early up to the end of its pause, and no longer."""
    for _ in range(2):
        ask(faulty_site, f"/429:2@1/songs/{FOUND}")
    first, second = faulty_site.requests
    assert first.answered_at is not None
    assert faulty_site.too_early(60.0, slack_seconds=0.0) == [second]
    assert faulty_site.too_early(second.at - first.answered_at, slack_seconds=0.0) == []
    assert faulty_site.too_early(60.0, slack_seconds=59.0) == []


def test_requests_are_recorded(faulty_site):
    """Each request leaves when it came, on which connection, with which headers."""
    url = faulty_site.url("right")
    before = time.monotonic()
    for _ in range(2):
        with connect(url) as client:
            client.sendall(request(url, 5, "Authorization: Bearer t") * 2)
            receive(client, "open")
    seen = faulty_site.requests
    assert [one.number for one in seen] == [5] * 4
    assert [one.connection for one in seen] == [1, 1, 2, 2]
    assert {one.headers["authorization"] for one in seen} == {"Bearer t"}
    assert {(one.tls, one.listener, one.spoilt) for one in seen} == {(False, "main", True)}
    assert before <= seen[0].at <= seen[0].answered_at <= seen[3].at <= time.monotonic()
    assert (faulty_site.connections, faulty_site.max_in_flight) == (2, 1)


def test_the_other_hosts_record_too(faulty_site):
    """Whoever follows a redirect is seen there, headers and all."""
    for url, name in ((faulty_site.other_url, "other"), (faulty_site.plain_url, "plain")):
        with connect(url) as client:
            client.sendall(request(url, FOUND, "X-Ours: 1", "Connection: close"))
            assert receive(client)[0].endswith(song_body(FOUND))
        assert faulty_site.requests[-1].listener == name
        assert faulty_site.requests[-1].headers["x-ours"] == "1"


@pytest.mark.parametrize(
    ("robots", "status", "body"),
    [
        pytest.param(Page(404), 404, b"", id="none"),
        pytest.param(Page(403), 403, b"", id="forbidden"),
        pytest.param(Page(503), 503, b"", id="broken"),
        pytest.param(Page(200, b"User-agent: *\nDisallow: /"), 200, b"Disallow: /", id="disallow"),
        pytest.param(Page(200, b"\xef\xbb\xbfUser-agent: *"), 200, b"\xef\xbb\xbfUser", id="bom"),
        pytest.param(Page(200, b"#" * 600_000), 200, b"#" * 600_000, id="600kb"),
    ],
)
def test_robots_can_be_set(faulty_site, robots, status, body):
    """D9: `/robots.txt` of the host is what the test says."""
    faulty_site.robots = robots
    seen_status, _, seen_body = ask(faulty_site, "/robots.txt")
    assert (seen_status, body in seen_body) == (status, True)
    assert faulty_site.requests[-1].number is None


def test_robots_can_hang_and_lead_astray(faulty_site):
    """D9: `/robots.txt` may be a fault by name, or a row of redirects."""
    faulty_site.robots = "hang-before-headers"
    with connect(faulty_site.base_url) as client:
        client.sendall(b"GET /robots.txt HTTP/1.1\r\nHost: here\r\n\r\n")
        assert receive(client, "open", QUIET_SECONDS) == (b"", "open")
    assert ask(faulty_site, "/hop/5/robots.txt")[1]["Location"] == "/hop/4/robots.txt"
    assert ask(faulty_site, "/hop/0/robots.txt")[2].startswith(b"User-agent")


def test_an_unknown_fault_is_an_error():
    """A name that is not in the table is noticed by whoever makes the address, or by the end."""
    with FaultySite() as site, pytest.raises(ValueError, match="no such fault: nonsense"):
        site.url("nonsense")
    site = FaultySite()
    with pytest.raises(http.client.RemoteDisconnected):
        ask(site, "/nonsense/songs/1")
    with pytest.raises(ValueError, match="no such fault"):
        site.close()


def trusting(site):
    """A context that trusts the site's own authority."""
    return ssl.create_default_context(cafile=str(site.ca_path))


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("right", "end"),
        ("right-gzip", "end"),
        ("right-chunked", "end"),
        ("right-no-length", "end"),
        ("large-no-length", "end"),
        ("closed-in-body", "cut"),
        ("no-length-cut", "cut"),
        ("hang-after-headers", "open"),
        ("close-announced", "end"),
        ("429", "end"),
    ],
)
def test_faults_come_over_tls_too(faulty_site_tls, name, ending):
    """Over TLS faults are the same; an end without TLS's goodbye can be told from one with it."""
    head, body, stopped = meet(
        faulty_site_tls, name, context=trusting(faulty_site_tls), expected=ending
    )
    assert EXPECTED[name][1](head, body)
    assert stopped == ending
    assert faulty_site_tls.requests[0].tls


@pytest.mark.parametrize(
    ("name", "told"),
    [("reset-in-body", "reset by peer"), ("closed-in-body", "unexpected eof")],
)
def test_a_reset_is_no_mere_end_over_tls(faulty_site_tls, name, told):
    """Over TLS a reset is a reset too; Python's own sockets would call both an early end."""
    client = pycurl.Curl()
    client.setopt(pycurl.URL, f"{faulty_site_tls.url(name)}/songs/{FOUND}")
    client.setopt(pycurl.CAINFO, str(faulty_site_tls.ca_path))
    client.setopt(pycurl.WRITEFUNCTION, len)
    with pytest.raises(pycurl.error, match=told):
        client.perform()
    client.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("expired", "certificate has expired"),
        ("other-host", "not valid for '127.0.0.1'"),
        ("self-signed", "self-signed certificate"),
    ],
)
def test_a_bad_certificate_is_refused(faulty_site_tls, name, words):
    """B3: each bad certificate is bad in its own way, and nothing is asked over it."""
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        meet(faulty_site_tls, name, context=trusting(faulty_site_tls))
    assert faulty_site_tls.requests == []


def test_a_handshake_can_stall(faulty_site_tls):
    """B1: `tls-stall` accepts a connection, and says nothing to a greeting."""
    where = urlsplit(faulty_site_tls.url("tls-stall"))
    assert where.scheme == "https"
    with socket.create_connection((where.hostname, where.port), timeout=10) as client:
        client.settimeout(QUIET_SECONDS)
        with pytest.raises(TimeoutError):
            trusting(faulty_site_tls).wrap_socket(client, server_hostname="127.0.0.1")


def test_a_closed_port_refuses():
    """B1: nobody listens, and nobody else can take the port meanwhile."""
    with closed_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_port_can_swallow_connections():
    """B1: a connection is neither accepted nor refused."""
    with swallowing_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=QUIET_SECONDS)


def test_it_bears_512_connections(faulty_site):
    """Five hundred clients hang at once, and are all let go at the end."""
    url = faulty_site.url("hang-after-headers")
    clients = [connect(url) for _ in range(512)]
    for client in clients:
        client.sendall(request(url))
    for client in clients:
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert faulty_site.max_in_flight == 512
    assert faulty_site.max_open_connections == 512
    faulty_site.close()
    for client in clients:
        with client:
            assert receive(client)[0] == b""


def test_close_ends_whatever_is_going_on():
    """Amid faults of every slow kind the site ends at once, and leaves no thread."""
    before = threading.active_count()
    with FaultySite() as site:
        clients = []
        for name in ("body-trickle", "endless-continue", "hang-before-headers", "large"):
            clients.append(connect(site.url(name)))
            clients[-1].sendall(request(site.url(name)))
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert threading.active_count() == before
    for client in clients:
        client.close()


def test_a_large_body_is_not_held_for_those_who_do_not_read(faulty_site):
    """A client that reads nothing gets no more than buffers hold."""
    bomb()
    tracemalloc.start()
    try:
        url = faulty_site.url("headers-10mb")
        with connect(url) as client:
            client.sendall(request(url))
            client.recv(1000)
            time.sleep(0.1)
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
