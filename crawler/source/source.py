"""What a page is: its address, its headers, and how a body becomes `info`."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import msgspec

from crawler.errors import Missing, PageError
from crawler.version import VERSION

T = TypeVar("T")


FieldType = Literal["text", "integer", "number", "boolean", "json"]
"""What a field may hold; `json` is any value, a nested one among them."""


class Field(NamedTuple):
    """One thing kept of a page: an entry of `info`, and a column of every export.

    Attributes:
        name: As it is called in `info`.
        path: The names that lead to it inside the record; for a web page the CSS selector alone.
        type: What it is declared to be; what cannot be that is null, and counted as odd.
        attr: For a web page: the attribute that holds it; "" for the text of the element.
    """

    name: str
    path: tuple[str, ...]
    type: FieldType = "text"
    attr: str = ""


@runtime_checkable
class Source(Protocol):
    """A site of numbered pages. Write a class with these names to crawl another one.

    What else a source may say has defaults: see `Traits`.

    Attributes:
        name: A word that the store remembers; records of two sources never mix.
        schema: A word that changes when the meaning of `info` changes.
    """

    name: str
    schema: str

    def url(self, song_num: int) -> str:
        """Return the address of a page; one host for all numbers."""

    def headers(self) -> dict[str, str]:
        """Return what to send beside `User-Agent` and `Accept-Encoding`."""

    def info(self, song_num: int, body: bytes) -> Any:
        """Take from a whole, decoded 200 body what is to be kept: something JSON can hold.

        Raises:
            PageError: The body is not what was asked for, or about another number.
            Missing: The body says that there is no such page.
        """


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a source may say beside what it must; an attribute of the same name says it.

    Attributes:
        reads_on_wire: Whether `info` is quick compiled decoding that may run on the wire's thread.
            Not for anybody's own class.
        redirects: `follow` follows slugs within the host; `fail` makes them failed attempts.
        canary: A number known to be there.
        robots: Whether robots.txt is asked first (yes for web pages, RFC 9309).
        rate_headers: The site's own names of headers by what they say: `limit`, `remaining`,
            `reset`.
        rate: Requests per second that the site allows at most; None where it says nothing.
        fields: What `info` holds; empty where nobody declared it.
        odd: Counts, by field, values that could not be what they are declared to be. Of one run.
        secrets: What no log and no message may show.
    """

    reads_on_wire: bool = False
    redirects: Literal["fail", "follow"] = "fail"
    canary: int | None = None
    robots: bool = True
    rate_headers: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    fields: tuple[Field, ...] = ()
    odd: Counter[str] = field(default_factory=Counter)
    secrets: tuple[str, ...] = ()


def traits_of(target: object) -> Traits:
    """Return what a source, or a step 1 function, says of itself, with defaults for the rest."""
    names = [each.name for each in fields(Traits)]
    said = {name: getattr(target, name) for name in names if hasattr(target, name)}
    if "robots" not in said and hasattr(target, "asks_robots"):  # its name in version 1.0
        said["robots"] = target.asks_robots
    return Traits(**said)


Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What the columns of an export can hold; JSON knows larger numbers."""


class _Artist(msgspec.Struct):
    id: Int64 | None = None
    name: str | None = None


class _Album(msgspec.Struct):
    name: str | None = None


class _Stats(msgspec.Struct):
    pageviews: Int64 | None = None


class _Song(msgspec.Struct):
    id: int
    title: str
    url: str | None = None
    primary_artist: _Artist | None = None
    album: _Album | None = None
    release_date: str | None = None
    stats: _Stats | None = None


class _Response(msgspec.Struct):
    song: _Song


class _Meta(msgspec.Struct):
    status: int


class _Page(msgspec.Struct):
    meta: _Meta
    response: _Response


class _Head(msgspec.Struct):
    meta: _Meta


_decode_page = msgspec.json.Decoder(_Page).decode
_NO_ARTIST, _NO_ALBUM, _NO_STATS = _Artist(), _Album(), _Stats()
_BOM = b"\xef\xbb\xbf"


class GeniusSource:
    """The songs of the Genius API.

    Source: docs.genius.com; the shape of a song: schemas.apis.io/schemas/genius/genius-song.
    """

    name = "genius"
    schema = "song-1"
    reads_on_wire = True
    robots = False  # an API used with a token under its own terms

    def __init__(self, base_url: str, token: str) -> None:
        self._prefix = f"{base_url.rstrip('/')}/songs/"
        self._token = token
        self.secrets = (token,) if token else ()

    def url(self, song_num: int) -> str:
        """Address of one song."""
        return f"{self._prefix}{song_num}"

    def headers(self) -> dict[str, str]:
        """The token, and that JSON is wanted."""
        return {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}

    def info(self, song_num: int, body: bytes) -> dict[str, Any]:
        """Take title, url, artist, artist_id, album, release_date and pageviews from a song.

        Raises:
            PageError: `json`, `schema` or `mismatch`.
            Missing: The body's own `meta.status` is 404.
        """
        page = read_page(body, _decode_page, _Page)
        song = page.response.song
        if page.meta.status != 200 or song.id != song_num:
            check_page(song_num, page.meta.status, song.id)
        artist = song.primary_artist or _NO_ARTIST
        return {
            "title": song.title,
            "url": song.url,
            "artist": artist.name,
            "artist_id": artist.id,
            "album": (song.album or _NO_ALBUM).name,
            "release_date": song.release_date,
            "pageviews": (song.stats or _NO_STATS).pageviews,
        }


def check_page(song_num: int, status: int, song_id: int) -> None:
    """Make sure that a page is about the song asked for.

    Raises:
        PageError: `schema` or `mismatch`.
    """
    if status != 200:
        raise PageError("schema", f"meta.status is {status}")
    if song_id != song_num:
        raise PageError("mismatch", f"asked for song {song_num}, got song {song_id}")


def read_page(body: bytes, decode: Callable[[bytes], T], page_type: type[T]) -> T:
    """Decode straight into the typed page; what is not exactly that takes the slow way.

    Args:
        body: Whole and decoded.
        decode: The decoder of `page_type`.
        page_type: A struct with `meta.status` and `response.song`.

    Raises:
        PageError: `json` or `schema`.
        Missing: The body's own `meta.status` is 404.
    """
    try:
        if not body.isascii():
            str(body, "utf-8")  # msgspec skips unknown fields without looking at their bytes
        return decode(body)
    except UnicodeDecodeError:
        raise PageError("json", "not UTF-8") from None
    except RecursionError:
        raise PageError("json", "nested too deep") from None
    except (msgspec.DecodeError, ValueError):
        return _read_odd_page(body, page_type)


def _read_odd_page(body: bytes, page_type: type[T]) -> T:
    """Read what the fast decoder refuses: a BOM, half a surrogate pair, a 404 inside a 200."""
    try:
        text = str(body.removeprefix(_BOM), "utf-8")  # of bytes it would guess the encoding
        page = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise PageError("json", "not JSON") from None
    try:
        if msgspec.convert(page, _Head).meta.status == 404:
            raise Missing
        return msgspec.convert(page, page_type)
    except msgspec.ValidationError as error:
        raise PageError("schema", str(error)) from None


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def user_agent(contact: str | None) -> str:
    """Name the project, its version and whom to ask, as a site's owner would like to read it."""
    return f"song-crawler/{VERSION}" + (f" (+{contact})" if contact else "")
