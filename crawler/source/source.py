"""What a page is: its address, its headers, and how a body becomes `info`."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

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
    if isinstance(said.get("fields"), Mapping):  # of a step 1 function: types by name
        said["fields"] = tuple(Field(name, (name,), kind) for name, kind in said["fields"].items())
    if "robots" not in said and hasattr(target, "asks_robots"):  # its name in version 1.0
        said["robots"] = target.asks_robots
    return Traits(**said)


def step(
    *, name: str | None = None, schema: str = "1", fields: Mapping[str, FieldType] | None = None
) -> Callable[[T], T]:
    """Say what a step 1 function is, so that its store knows it wherever it is called from.

        @crawler.step(name="hn", schema="2", fields={"title": "text", "score": "integer"})
        def request_item(session, item_num, items): ...

    The attributes `name`, `schema` and `fields` of the function say the same.

    Args:
        name: What the store remembers; None: the qualified name, which changes when it moves.
        schema: A word to change when the meaning of what it appends changes.
        fields: Types of what it appends; None: exports find them in the data.
    """
    said = {"name": name, "schema": schema, "fields": fields}

    def say(function: T) -> T:
        for word, value in said.items():
            if value is not None:
                setattr(function, word, value)
        return function

    return say


def user_agent(contact: str | None) -> str:
    """Name the project, its version and whom to ask, as a site's owner would like to read it."""
    return f"song-crawler/{VERSION}" + (f" (+{contact})" if contact else "")
