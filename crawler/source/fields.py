"""The Genius source with fields of the user's choice: dotted names in, a flat info out."""

from collections.abc import Sequence
from typing import Any

import msgspec

from crawler.errors import PageError
from crawler.source.source import GeniusSource, check_page, read_page

MAX_DEPTH = 64
"""A chosen value nested deeper than this is refused, so that every reader can read it back."""


class FieldsSource(GeniusSource):
    """The songs of the Genius API, each with the fields that were asked for and no others.

    `primary_artist.name` is the name inside the song's primary artist. A field that a song does
    not have is null; a name that goes through a list, as `writer_artists.name` does, gives the
    list of what each entry has.

    Attributes:
        schema: `song-1` and the names in the order given, so that a store holds one choice.
    """

    def __init__(self, base_url: str, token: str, fields: Sequence[str]) -> None:
        super().__init__(base_url, token)
        self.fields = tuple(dict.fromkeys(fields))
        self.schema = f"{GeniusSource.schema}:{','.join(self.fields)}"
        self._paths = [(name, *_parts(name)) for name in self.fields]
        self._page = _page_type({top for _, top, _ in self._paths})
        self._decode = msgspec.json.Decoder(self._page).decode

    def info(self, song_num: int, body: bytes) -> dict[str, Any]:
        """Take the chosen fields from a song; the keys are the dotted names.

        Raises:
            PageError: `json`, `schema` or `mismatch`.
            Missing: The body's own `meta.status` is 404.
        """
        page = read_page(body, self._decode, self._page)
        song = page.response.song
        check_page(song_num, page.meta.status, song.id_)
        info = {name: _value_at(getattr(song, f"{top}_"), rest) for name, top, rest in self._paths}
        if any(_is_deep(value, MAX_DEPTH) for value in info.values()):
            raise PageError("schema", f"a field is nested deeper than {MAX_DEPTH}")
        return info


def genius_source(base_url: str, token: str, fields: Sequence[str] | None = None) -> GeniusSource:
    """Make the Genius source with the default fields, or with those named."""
    return (
        GeniusSource(base_url, token) if fields is None else FieldsSource(base_url, token, fields)
    )


def fields_of_schema(schema: str) -> tuple[str, ...] | None:
    """Read the names back from a schema; None where it is that of the default fields."""
    names = schema.partition(":")[2]
    return tuple(names.split(",")) if names else None


def _parts(name: str) -> tuple[str, list[str]]:
    top, *rest = name.split(".")
    return top, rest


def _page_type(tops: set[str]) -> Any:
    """Make the typed page that decodes only the parts of a song that are wanted.

    Its attributes are the name and `_`, since a name may be a word of Python's own.
    """
    chosen = [(f"{top}_", Any, None) for top in sorted(tops - {"id"})]
    song = msgspec.defstruct("Song", [("id_", int), *chosen], rename=lambda name: name[:-1])
    response = msgspec.defstruct("Response", [("song", song)])
    meta = msgspec.defstruct("Meta", [("status", int)])
    return msgspec.defstruct("Page", [("meta", meta), ("response", response)])


def _value_at(value: Any, path: list[str]) -> Any:
    for place, name in enumerate(path):
        if isinstance(value, list):
            return [_value_at(entry, path[place:]) for entry in value]
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _is_deep(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deep(entry, depth - 1) for entry in inside)
