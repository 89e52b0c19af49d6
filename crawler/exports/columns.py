"""The columns of an export: fixed by what the store says it holds, never by the data."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from crawler.record import Record
from crawler.store.identity import Identity

Kind = Literal["integer", "text", "yes_no", "time", "loose", "json"]
"""`json` is any value as JSON; `loose` the same, but a string stands for itself."""

DEFAULT_FIELDS: dict[str, Kind] = {
    "title": "text",
    "url": "text",
    "artist": "text",
    "artist_id": "integer",
    "album": "text",
    "release_date": "text",
    "pageviews": "integer",
}
"""The info of the Genius source as it comes."""

_INTEGERS = {
    "annotation_count",
    "comment_count",
    "pageviews",
    "pyongs_count",
    "unreviewed_annotations",
}
_YES_NO = {"explicit", "featured_video", "hidden", "hot", "instrumental", "is_music", "is_verified"}
_TEXTS = {
    *("api_path", "artist_names", "full_title", "language", "lyrics_state", "name", "path"),
    *("primary_artist_names", "recording_location", "release_date", "title", "url"),
    *("release_date_for_display", "release_date_with_abbreviated_month_for_display"),
    *("header_image_url", "song_art_image_url", "title_with_featured"),
}
# Source of these names: schemas.apis.io/schemas/genius/genius-song.


class Column(NamedTuple):
    """One column of an export.

    Attributes:
        name: As it is called.
        kind: Of its values.
        take: Takes its value from a record, or from a record's info.
        is_inner: Whether it is from the info.
    """

    name: str
    kind: Kind
    take: Callable[[Any], Any]
    is_inner: bool = False


def columns_of(identity: Identity) -> list[Column]:
    """Say which columns the records of a store have, in order.

    For the Genius source each field of the info is one; for any other the info is one text of
    JSON. A field with the name of a column of ours is called `info.<name>`.
    """
    ours = [
        _column("song_num", "integer"),
        _column("outcome", "text"),
        _column("status", "integer"),
    ]
    more = [
        _column("error", "text"),
        _column("attempts", "integer"),
        _column("fetched_at", "time"),
        _column("gone_since", "time"),
    ]
    taken = {column.name for column in ours + more}
    fields = _fields_of(identity)
    if fields is None:
        return [*ours, _column("info", "json"), *more]
    inner = [
        Column(f"info.{name}" if name in taken else name, kind, _taker(name), is_inner=True)
        for name, kind in fields.items()
    ]
    return [*ours, *inner, *more]


def take_columns(columns: Sequence[Column], records: Sequence[Record]) -> list[list[Any]]:
    """Give each column's values, one for each record; None where a record has none."""
    nothing: dict[str, Any] = {}
    infos = [record.info if isinstance(record.info, dict) else nothing for record in records]
    return [list(map(c.take, infos if c.is_inner else records)) for c in columns]


def _fields_of(identity: Identity) -> dict[str, Kind] | None:
    if identity.source != "genius":
        return None
    names = _fields_of_schema(identity.schema)
    return DEFAULT_FIELDS if names is None else {name: _kind_of(name) for name in names}


def _fields_of_schema(schema: str) -> tuple[str, ...] | None:
    """Read the names back from a schema; None where it is that of the default fields."""
    names = schema.partition(":")[2]
    return tuple(names.split(",")) if names else None


def _kind_of(name: str) -> Kind:
    """Say what a field of the API holds, by its name; what is not known is written as JSON."""
    *path, last = name.split(".")
    if path and path[0].endswith(("_artists", "media", "relationships", "performances")):
        return "loose"  # lists
    if last == "id" or last.endswith("_id") or last in _INTEGERS:
        return "integer"
    return "text" if last in _TEXTS else "yes_no" if last in _YES_NO else "loose"


def _column(name: str, kind: Kind) -> Column:
    return Column(name, kind, attrgetter(name))


def _taker(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda info: info.get(name)
