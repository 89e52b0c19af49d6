"""The table of what a site can do wrong: each fault has a name, its row of the list, and an act.

An act gets the exchange it is to spoil, and sends what it will. When it returns, the connection
goes on with the next request unless the act ended it.
"""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Protocol

from crawler.demo.songs import song

TRICKLE_SECONDS = 0.05
LARGE_BYTES = 8 * 1024 * 1024
BOMB_MEGABYTES = 600
REDIRECTS = (301, 302, 303, 307, 308)
ODD_TITLES = (
    "nul \x00 in it",
    "line\nbreak\r\nand\x85another",
    "line\u2028separator\u2029paragraph",
    "\ud800 half a pair",
    "half \udfff",
    "\u202eright to left\u202c \u200f",
    "=cmd|' /C calc'!A0",
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m \x07",
    '"quoted", \\back\\slashed\\ and 🎵',
)
"""What `odd-titles` serves: number `n` has title `n % len(ODD_TITLES)`."""


class Exchange(Protocol):
    """One request, and the ways to answer it.

    Attributes:
        number: The song number asked for.
        path: The address asked for, as sent.
        headers: The request's, names in lower case.
        value: What stands behind the colon in `/fault:value/…`, decoded; None without a colon.
        turn: Which request this is on its connection, the first being 1.
        total: Which request this is of all to this address's fault, the first being 1.
        now: The site's clock, as it stands in `Date`.
        other_url: Address of a second host, which only records.
        plain_url: The same without TLS.
    """

    number: int
    path: str
    headers: dict[str, str]
    value: str | None
    turn: int
    total: int
    now: datetime
    other_url: str
    plain_url: str

    async def send(self, *parts: bytes) -> None:
        """Send bytes as they are."""

    def head(self, status: int, *headers: bytes, length: int | None = None) -> bytes:
        """Write a right head with `Date`; without `Content-Length` where it is None."""

    async def right(self, *headers: bytes) -> None:
        """Answer as a site without faults does."""

    async def hang(self) -> None:
        """Say nothing more until the client leaves, which ends the connection."""

    def reset(self) -> None:
        """Reset the connection."""

    def finish(self) -> None:
        """End the connection as one should, after all that was sent."""

    def end(self) -> None:
        """End the connection after what was sent; over TLS without saying that this is the end."""


Act = Callable[[Exchange], Awaitable[None]]
Page = Callable[[int], bytes]


@dataclass(frozen=True)
class Fault:
    """One thing that a site does wrong.

    Attributes:
        name: How an address asks for it.
        row: The row of the list of faults that it belongs to; `right` for what is no fault.
        does: What a client meets.
        act: Does it.
    """

    name: str
    row: str
    does: str
    act: Act


# --- Pages ---------------------------------------------------------------------------------------


def page_object(number: int) -> dict[str, Any]:
    """Make a right page for any number, also for those without a song."""
    made = song(number) or next(filter(None, map(song, range(number + 1, number + 1000))))
    return {"meta": {"status": 200}, "response": {"song": made | {"id": number}}}


def page(number: int) -> bytes:
    """Encode the page of a number."""
    return json.dumps(page_object(number)).encode()


def page_with(**changes: Any) -> Page:
    """Encode pages whose songs have other fields."""

    def changed(number: int) -> bytes:
        made = page_object(number)
        made["response"]["song"] |= changes
        return json.dumps(made).encode()

    return changed


def page_with_literal(field: str, literal: bytes) -> Page:
    """Encode pages in which a field of the song is written with just these bytes."""
    marked = page_with(**{field: "@here@"})
    return lambda number: marked(number).replace(b'"@here@"', literal)


def page_odd_title(number: int) -> bytes:
    """Encode a page with one of the odd titles, halves of pairs as escapes."""
    return page_with(title=ODD_TITLES[number % len(ODD_TITLES)])(number)


def page_of_another(number: int) -> bytes:
    """Encode the page of the next number."""
    return page(number + 1)


def page_missing_inside(_: int) -> bytes:
    """Encode what says 404 inside; to be sent with status 200."""
    return b'{"meta": {"status": 404, "message": "Not found"}}'


def html(_: int) -> bytes:
    """A page for people."""
    return b"<!doctype html><title>One moment</title><p>Are you a robot?</p>" + b" " * 2000


def fixed(body: bytes) -> Page:
    """The same body for every number."""
    return lambda _: body


def large_page(number: int) -> list[bytes]:
    """A right page after 8 MiB of spaces, in parts: only its length is wrong."""
    return [b" " * 65_536] * (LARGE_BYTES // 65_536) + [page(number)]


@cache  # half a second's work, the same every time
def bomb() -> bytes:
    """Make 600 kB of gzip that unpack to 600 MB of spaces.

    Each megabyte is the same run of bytes, since a full flush forgets what came before.
    """
    blank = b" " * 1_000_000
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(blank) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(BOMB_MEGABYTES):
        check = zlib.crc32(blank, check)
    size = BOMB_MEGABYTES * 1_000_000
    trailer = check.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return head + packed * BOMB_MEGABYTES + b"\x03\x00" + trailer


def packed(number: int) -> bytes:
    """The page of a number, compressed."""
    return gzip.compress(page(number), mtime=0)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- Acts ----------------------------------------------------------------------------------------

GZIP = b"Content-Encoding: gzip"
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"


def answer(body: Page, *headers: bytes, status: int = 200) -> Act:
    """Answer in good form, with another body, other headers or another status."""

    async def act(out: Exchange) -> None:
        content = body(out.number)
        await out.send(out.head(status, *headers, length=len(content)), content)

    return act


def bare(status: int, *headers: bytes) -> Act:
    """Answer with a head only, as 204 and 304 must."""

    async def act(out: Exchange) -> None:
        await out.send(out.head(status, *headers))

    return act


def lengths(*values: bytes, close: bool = False) -> Act:
    """Answer with these values of `Content-Length`; `%d` stands for the right one."""

    async def act(out: Exchange) -> None:
        body = page(out.number)
        lines = [b"Content-Length: " + value.replace(b"%d", b"%d" % len(body)) for value in values]
        await out.send(out.head(200, *lines), body)
        if close:
            out.end()

    return act


async def _length_longer(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body) + 100), body)
    out.end()


async def _length_shorter(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body) - 100), body)


async def _length_and_chunked(out: Exchange) -> None:
    body = page(out.number)
    head = out.head(200, CHUNKED, length=len(body) // 2)
    await out.send(head, chunk(body), b"0\r\n\r\n")


def chunked(*parts: Callable[[bytes], bytes]) -> Act:
    """Answer in chunks that end too early, or are none."""

    async def act(out: Exchange) -> None:
        body = page(out.number)
        await out.send(out.head(200, CHUNKED), *(part(body) for part in parts))
        out.end()

    return act


def whole(body: bytes) -> bytes:
    """All of it."""
    return body


def half(body: bytes) -> bytes:
    """The first half."""
    return body[: len(body) // 2]


async def _late(out: Exchange) -> None:
    await asyncio.sleep(float(out.value or 0))
    await out.right()


async def _folded(out: Exchange) -> None:
    content = packed(out.number)
    await out.send(
        b"HTTP/1.1 200 OK\r\nX-Note: one \t\r\n  two\r\n\tthree\r\n",
        b"Content-Encoding:\r\n gzip \r\nContent-Length:\t%d \t\r\n\r\n" % len(content),
        content,
    )


async def _right_chunked(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, CHUNKED), chunk(half(body)), chunk(body[len(half(body)) :]))
    await out.send(b"0\r\n\r\n")


def no_length(cut: Callable[[bytes], bytes]) -> Act:
    """Answer without any length; the end of the connection is the end of the body."""

    async def act(out: Exchange) -> None:
        await out.send(out.head(200, CLOSE), cut(page(out.number)))
        if cut is whole:
            out.finish()
        else:
            out.end()

    return act


async def _right(out: Exchange) -> None:
    await out.right()


async def _reset_before_headers(out: Exchange) -> None:
    out.reset()


async def _reset_in_headers(out: Exchange) -> None:
    await out.send(out.head(200, length=3000)[:60])
    out.reset()


async def _reset_in_body(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body)), half(body))
    await asyncio.sleep(0.02)  # a reset at once would overtake what was sent
    out.reset()


async def _closed_before_headers(out: Exchange) -> None:
    out.end()


async def _closed_in_headers(out: Exchange) -> None:
    await out.send(out.head(200, length=3000)[:60])
    out.end()


async def _closed_in_body(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body)), half(body))
    out.end()


async def _reset_reused(out: Exchange) -> None:
    if out.turn > 1:
        out.reset()
    else:
        await out.right()


async def _closed_reused(out: Exchange) -> None:
    if out.turn > 1:
        out.end()
    else:
        await out.right()


async def _trickle(out: Exchange, data: bytes) -> None:
    for place in range(len(data)):
        await out.send(data[place : place + 1])
        await asyncio.sleep(TRICKLE_SECONDS)


async def _header_trickle(out: Exchange) -> None:
    await _trickle(out, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 3000)


async def _header_lines_trickle(out: Exchange) -> None:
    await out.send(b"HTTP/1.1 200 OK\r\n")
    for count in range(3000):
        await out.send(b"X-Slow-%d: a\r\n" % count)
        await asyncio.sleep(TRICKLE_SECONDS)


async def _body_trickle(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body)))
    await _trickle(out, body)


async def _gzip_trickle(out: Exchange) -> None:
    body = packed(out.number)
    await out.send(out.head(200, GZIP, length=len(body)))
    await _trickle(out, body)


async def _chunk_trickle(out: Exchange) -> None:
    await out.send(out.head(200, CHUNKED))
    for place in page(out.number):
        await out.send(chunk(bytes([place])))
        await asyncio.sleep(TRICKLE_SECONDS)


async def _endless_continue(out: Exchange) -> None:
    while True:
        await out.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.01)


async def _hang_before_headers(out: Exchange) -> None:
    await out.hang()


async def _hang_in_headers(out: Exchange) -> None:
    await out.send(out.head(200, length=3000)[:60])
    await out.hang()


async def _hang_after_headers(out: Exchange) -> None:
    await out.send(out.head(200, length=len(page(out.number))))
    await out.hang()


async def _hang_in_body(out: Exchange) -> None:
    body = page(out.number)
    await out.send(out.head(200, length=len(body)), half(body))
    await out.hang()


def more_headers(make: Callable[[], bytes], times: int = 1) -> Act:
    """Answer rightly, but with these lines among the headers, so many times."""

    async def act(out: Exchange) -> None:
        body = page(out.number)
        head = out.head(200, length=len(body))
        await out.send(head[:-2])
        for _ in range(times):
            await out.send(make())
        await out.send(b"\r\n", body)

    return act


def raw(*parts: bytes) -> Act:
    """Send these bytes instead of a head, then the page, then end."""

    async def act(out: Exchange) -> None:
        await out.send(*parts, page(out.number))
        out.end()

    return act


async def _garbage(out: Exchange) -> None:
    await out.send(bytes(range(256)) * 20)
    out.end()


def redirect(code: int, target: str) -> Act:
    """Redirect to itself, another host, plain http, a file, nowhere, or without saying where."""

    async def act(out: Exchange) -> None:
        where = {
            "self": out.path,
            "other": out.other_url + out.path,
            "plain": out.plain_url + out.path,
            "file": "file:///etc/hostname",
            "empty": "",
        }
        lines = [] if target == "unsaid" else [b"Location: " + where[target].encode()]
        await out.send(out.head(code, *lines, length=0))

    return act


async def _large_with_length(out: Exchange) -> None:
    parts = large_page(out.number)
    await out.send(out.head(200, length=sum(map(len, parts))))
    for part in parts:
        await out.send(part)


async def _large_without_length(out: Exchange) -> None:
    await out.send(out.head(200, CLOSE))
    for part in large_page(out.number):
        await out.send(part)
    out.finish()


async def _large_chunked(out: Exchange) -> None:
    await out.send(out.head(200, CHUNKED))
    for part in large_page(out.number):
        await out.send(chunk(part))
    await out.send(b"0\r\n\r\n")


async def _gzip_bomb(out: Exchange) -> None:
    data = bomb()
    await out.send(out.head(200, GZIP, length=len(data)))
    for start in range(0, len(data), 65_536):
        await out.send(data[start : start + 65_536])


async def _close_always(out: Exchange) -> None:
    await out.right()
    out.finish()


async def _close_announced(out: Exchange) -> None:
    await out.right(CLOSE)
    out.finish()


async def _close_now_and_then(out: Exchange) -> None:
    await (_close_announced(out) if out.turn % 5 == 0 else out.right())


async def _close_unsaid_now_and_then(out: Exchange) -> None:
    await (_close_always(out) if out.turn % 5 == 0 else out.right())


async def _status(out: Exchange) -> None:
    await answer(_error(int(out.value or 500)), status=int(out.value or 500))(out)


async def _half_500(out: Exchange) -> None:
    await (answer(_error(500), status=500)(out) if out.total % 2 else out.right())


async def _echo(out: Exchange) -> None:
    code = int(out.value or 401)
    sent = "; ".join(f"{name}: {value}" for name, value in out.headers.items())
    body = json.dumps({"meta": {"status": code, "message": f"Refused: {sent}"}}).encode()
    echoed = b"X-Refused: " + out.headers.get("authorization", "").encode()
    await answer(fixed(body), echoed, status=code)(out)


async def _digest(out: Exchange) -> None:
    if out.headers.get("authorization", "").startswith("Digest "):
        await out.right()
    else:
        challenge = b'WWW-Authenticate: Digest realm="songs", nonce="n0nce", qop="auth"'
        await answer(_error(401), challenge, status=401)(out)


def told_to_wait(code: int) -> Act:
    """Refuse with `Retry-After` as the address says."""

    async def act(out: Exchange) -> None:
        await answer(_error(code), *retry_after_lines(out.value, out.now), status=code)(out)

    return act


def retry_after_lines(value: str | None, now: datetime) -> list[bytes]:
    """Write `Retry-After` lines: a named form, or the value as it is.

    Args:
        value: `imf+2`, `rfc850-60`, `asctime+0`: an HTTP date in one of its three forms, so many
            seconds from `now`; `twice`: two lines, 2 and 4; `digits`: 30 of them; `long`: 10 kB;
            `empty`. None: no line. Anything else stands in the line itself, as UTF-8.
        now: The time in the answer's `Date`.
    """
    if value is None:
        return []
    dated = re.fullmatch(r"(imf|rfc850|asctime)([+-]\d+)", value)
    if dated:
        return [b"Retry-After: " + http_date(dated[1], now + timedelta(seconds=int(dated[2])))]
    named = {
        "twice": [b"2", b"4"],
        "digits": [b"1" * 30],
        "long": [b"7" * 10_000],
        "empty": [b""],
    }
    return [b"Retry-After: " + one for one in named.get(value, [value.encode()])]


def http_date(form: str, moment: datetime) -> bytes:
    """Write a time as one of the three forms of an HTTP date (RFC 9110, section 5.6.7)."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    day, month, clock = days[moment.weekday()], months[moment.month - 1], f"{moment:%H:%M:%S}"
    forms = {
        "imf": f"{day[:3]}, {moment:%d} {month} {moment:%Y} {clock} GMT",
        "rfc850": f"{day}, {moment:%d}-{month}-{moment:%y} {clock} GMT",
        "asctime": f"{day[:3]} {month} {moment.day:2d} {clock} {moment:%Y}",
    }
    return forms[form].encode()


def _error(code: int) -> Page:
    return fixed(json.dumps({"meta": {"status": code, "message": "Ordered"}}).encode())


# --- The table -----------------------------------------------------------------------------------


def _redirects() -> list[Fault]:
    words = {
        "self": "to itself",
        "other": "to another host",
        "plain": "to another host without TLS",
        "file": "to a file",
        "empty": "to an empty address",
        "unsaid": "without saying where",
    }
    return [
        Fault(f"redirect-{target}-{code}", "B7", f"{code} {where}", redirect(code, target))
        for target, where in words.items()
        for code in REDIRECTS
    ]


_TABLE = (
    # What is no fault, to compare with.
    Fault("right", "right", "right answers, 404 where there is no song", _right),
    Fault("right-gzip", "right", "a right page, compressed", answer(packed, GZIP)),
    Fault("right-chunked", "right", "a right page in two chunks", _right_chunked),
    Fault("right-folded", "right", "headers over several lines, blanks at their ends", _folded),
    Fault("right-late", "right", "a right page after the seconds of `right-late:2`", _late),
    Fault("right-no-length", "right", "a right page up to the end", no_length(whole)),
    # The connection.
    Fault("reset-before-headers", "B1", "a reset instead of an answer", _reset_before_headers),
    Fault("reset-in-headers", "B1", "a reset amid the headers", _reset_in_headers),
    Fault("reset-in-body", "B1", "half a body, then a reset", _reset_in_body),
    Fault("reset-reused", "B1", "a reset at a connection's second request", _reset_reused),
    Fault("closed-before-headers", "B1", "the end instead of an answer", _closed_before_headers),
    Fault("closed-in-headers", "B1", "the end amid the headers", _closed_in_headers),
    Fault("closed-in-body", "B1", "half a body, then the end", _closed_in_body),
    Fault("closed-reused", "B1", "the end at a connection's second request", _closed_reused),
    # Time.
    Fault("header-trickle", "B4", "an endless header line, byte by byte", _header_trickle),
    Fault("header-lines-trickle", "B4", "header after header, slowly", _header_lines_trickle),
    Fault("body-trickle", "B4", "a body, byte by byte", _body_trickle),
    Fault("gzip-trickle", "B4", "a compressed body, byte by byte", _gzip_trickle),
    Fault("chunk-trickle", "B4", "a body in chunks of a byte, slowly", _chunk_trickle),
    Fault("endless-continue", "B4", "100 Continue for ever", _endless_continue),
    Fault("hang-before-headers", "B4", "no answer", _hang_before_headers),
    Fault("hang-in-headers", "B4", "half a head, then nothing", _hang_in_headers),
    Fault("hang-after-headers", "B4", "a head, then nothing", _hang_after_headers),
    Fault("hang-in-body", "B4", "half a body, then nothing", _hang_in_body),
    # Lengths.
    Fault("length-longer", "B5", "a body shorter than its length, then the end", _length_longer),
    Fault("length-shorter", "B5", "a body longer than its length", _length_shorter),
    Fault("length-abc", "B5", "a length of letters", lengths(b"abc", close=True)),
    Fault("length-negative", "B5", "a length of -5", lengths(b"-5", close=True)),
    Fault("length-plus", "B5", "a length with a sign", lengths(b"+%d", close=True)),
    Fault("length-empty", "B5", "an empty length", lengths(b"", close=True)),
    Fault("length-two", "B5", "two different lengths", lengths(b"%d", b"10", close=True)),
    Fault("length-list", "B5", "two lengths in one line", lengths(b"%d, 10", close=True)),
    Fault("length-huge", "B5", "a length of 10^15", lengths(b"1000000000000000", close=True)),
    Fault("length-and-chunked", "B5", "chunks and a wrong length too", _length_and_chunked),
    Fault("chunked-no-end", "B5", "a whole body in chunks without a last", chunked(chunk)),
    Fault("chunked-cut", "B5", "half a body in chunks", chunked(lambda body: chunk(half(body)))),
    Fault("chunked-short", "B5", "half a chunk", chunked(lambda body: half(chunk(body)))),
    Fault("chunked-bad-size", "B5", "a chunk of size ZZ", chunked(lambda body: b"ZZ\r\n" + body)),
    Fault(
        "chunked-huge-size",
        "B5",
        "a chunk of 2^68",
        chunked(lambda body: b"F" * 17 + b"\r\n" + body),
    ),
    Fault("no-length-cut", "B5", "half a body without a length, then the end", no_length(half)),
    # Heads.
    Fault("headers-150", "B6", "150 headers more", more_headers(lambda: b"X-A: b\r\n", 150)),
    Fault(
        "header-70kb",
        "B6",
        "a header of 70 kB",
        more_headers(lambda: b"X: " + b"a" * 70_000 + b"\r\n"),
    ),
    Fault(
        "headers-10mb",
        "B6",
        "10 MB of headers",
        more_headers(lambda: (b"X-A: " + b"b" * 993 + b"\r\n") * 10, 1000),
    ),
    Fault("header-nul", "B6", "a NUL in a header", more_headers(lambda: b"X: a\0b\r\n")),
    Fault(
        "header-no-colon", "B6", "a header without a colon", more_headers(lambda: b"nonsense\r\n")
    ),
    Fault("garbage", "B6", "bytes that are no HTTP", _garbage),
    Fault("status-101", "B6", "another protocol, not asked for", raw(b"HTTP/1.1 101 So\r\n\r\n")),
    Fault("http-0.9", "B6", "a page without a head", raw()),
    Fault("status-abc", "B6", "a status of letters", raw(b"HTTP/1.1 abc OK\r\n\r\n")),
    Fault("status-short", "B6", "a status of two digits", raw(b"HTTP/1.1 20 OK\r\n\r\n")),
    *_redirects(),
    # Encodings.
    Fault("gzip-cut", "B8", "half of the compressed page", answer(lambda n: half(packed(n)), GZIP)),
    Fault(
        "gzip-no-trailer",
        "B8",
        "gzip without its last 8 bytes",
        answer(lambda n: packed(n)[:-8], GZIP),
    ),
    Fault(
        "gzip-wrong-crc",
        "B8",
        "gzip with a wrong checksum",
        answer(lambda n: packed(n)[:-8] + b"\0\0\0\0" + packed(n)[-4:], GZIP),
    ),
    Fault(
        "gzip-wrong-size",
        "B8",
        "gzip with a wrong size",
        answer(lambda n: packed(n)[:-4] + b"\0\0\0\0", GZIP),
    ),
    Fault(
        "gzip-garbage",
        "B8",
        "garbage said to be gzip",
        answer(fixed(b"\x1f\x8b" + b"x" * 500), GZIP),
    ),
    Fault("gzip-plain", "B8", "a plain page said to be gzip", answer(page, GZIP)),
    Fault(
        "gzip-trailing",
        "B8",
        "gzip with bytes after it",
        answer(lambda n: packed(n) + b"more", GZIP),
    ),
    Fault("gzip-empty", "B8", "nothing, said to be gzip", answer(fixed(b""), GZIP)),
    Fault(
        "gzip-twice",
        "B8",
        "`gzip, gzip`, and it is",
        answer(lambda n: gzip.compress(packed(n), mtime=0), b"Content-Encoding: gzip, gzip"),
    ),
    Fault("encoding-br", "B8", "an encoding not asked for", answer(page, b"Content-Encoding: br")),
    Fault(
        "encoding-deflate",
        "B8",
        "another encoding not asked for",
        answer(lambda n: zlib.compress(page(n)), b"Content-Encoding: deflate"),
    ),
    Fault("encoding-unknown", "B8", "an unheard-of one", answer(page, b"Content-Encoding: x-none")),
    # Sizes.
    Fault("bomb", "B9", "600 kB of gzip that unpack to 600 MB", _gzip_bomb),
    Fault("large", "B9", "8 MiB with a length", _large_with_length),
    Fault("large-no-length", "B9", "8 MiB without a length", _large_without_length),
    Fault("large-chunked", "B9", "8 MiB in chunks", _large_chunked),
    # Connections.
    Fault("close-always", "B10", "the end after each answer, unsaid", _close_always),
    Fault("close-announced", "B10", "the end after each answer, announced", _close_announced),
    Fault("close-now-and-then", "B10", "the end after each fifth, announced", _close_now_and_then),
    Fault(
        "close-unsaid-now-and-then",
        "B10",
        "the end after each fifth, unsaid",
        _close_unsaid_now_and_then,
    ),
    # Bodies.
    Fault("html", "C1", "HTML with 200", answer(html)),
    Fault("empty-200", "C1", "nothing with 200", answer(fixed(b""))),
    Fault("empty-204", "C1", "204", bare(204)),
    Fault(
        "partial-206",
        "C1",
        "a part, unasked",
        answer(page, b"Content-Range: bytes 0-9/99", status=206),
    ),
    Fault("unmodified-304", "C1", "304, unasked", bare(304, b'ETag: "1"')),
    Fault(
        "json-cut", "C2", "half of the JSON, with its right length", answer(lambda n: half(page(n)))
    ),
    Fault("json-nan", "C2", "NaN", answer(page_with_literal("annotation_count", b"NaN"))),
    Fault(
        "json-deep",
        "C2",
        "100,000 brackets",
        answer(page_with_literal("media", b"[" * 100_000 + b"]" * 100_000)),
    ),
    Fault("json-huge-integer", "C2", "5,000 digits", answer(page_with_literal("id", b"9" * 5000))),
    Fault(
        "json-huge-views",
        "C2",
        "5,000 digits of page views",
        answer(page_with_literal("stats", b'{"pageviews":%s}' % (b"9" * 5000))),
    ),
    Fault(
        "json-not-utf8",
        "C2",
        "bytes that are no UTF-8",
        answer(page_with_literal("title", b'"\xff\xfe"')),
    ),
    Fault("json-trailing", "C2", "two pages in one", answer(lambda n: page(n) + page(n))),
    Fault(
        "bom",
        "C3",
        "a byte order mark, then a right page",
        answer(lambda n: b"\xef\xbb\xbf" + page(n)),
    ),
    Fault(
        "song-null",
        "C4",
        "no song",
        answer(fixed(b'{"meta":{"status":200},"response":{"song":null}}')),
    ),
    Fault(
        "song-list",
        "C4",
        "a list for a song",
        answer(fixed(b'{"meta":{"status":200},"response":{"song":[]}}')),
    ),
    Fault(
        "response-null",
        "C4",
        "no response",
        answer(fixed(b'{"meta":{"status":200},"response":null}')),
    ),
    Fault("body-list", "C4", "a list for a page", answer(fixed(b"[1, 2]"))),
    Fault(
        "song-wrong-types",
        "C10",
        "a title that is a number",
        answer(page_with(title=5, primary_artist="me")),
    ),
    Fault("song-no-id", "C4", "a song without a number", answer(page_with(id=None))),
    Fault("missing-inside", "C4", "404 inside 200", answer(page_missing_inside)),
    Fault("another-song", "C4", "the next number's song", answer(page_of_another)),
    Fault("odd-titles", "C5", "titles that break things", answer(page_odd_title)),
    # Statuses.
    Fault("status", "C6-C8", "the status of the address: `status:418`", _status),
    Fault("large-500", "C6-C8", "500 and 8 MiB", answer(fixed(b" " * LARGE_BYTES), status=500)),
    Fault("echo", "G3", "the status of the address, and our headers back", _echo),
    Fault("digest", "F5c", "401 with a digest challenge, then the page", _digest),
    Fault("half-500", "D6", "500 to every second request", _half_500),
    Fault("429", "D1-D5", "429, with `Retry-After` as in `429:2`", told_to_wait(429)),
    Fault("503", "D1-D5", "503, with `Retry-After` as in `503:2`", told_to_wait(503)),
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _TABLE}
"""Every fault by its name."""
