"""One list of fields leads everywhere: columns and their types, declared or found in the data."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from crawler.record import Record
from crawler.source.source import FieldType

MAX_COLUMNS = 500
"""Infos with more names than this are counts by word and the like: one column of JSON."""

MAX_PARTS = 100
"""The same for what is nested."""

MAX_DEPTH = 8
"""What is nested deeper is JSON in a text, which every reader takes."""

_EXACT = 2**53  # whole numbers up to here are exact as floating point
_KINDS = {kind.__name__: kind for kind in (bool, int, float, str, dict, list)}
_WORDS: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "text"}


class ListOf(NamedTuple):
    """The type of a list."""

    item: "ColumnType"


class Parts(NamedTuple):
    """The type of an object with names."""

    types: dict[str, "ColumnType"]


ColumnType = str | ListOf | Parts
"""A `FieldType`, `time`, `mixed` or a nested one. `json` is any value as JSON in a text; `mixed` is
the same, but a text stands for itself."""


class Column(NamedTuple):
    """One column of an export.

    Attributes:
        name: As it is called everywhere: letters, digits and `_`.
        type: Of its values.
        key: The name in the info that it holds; None for what the record itself holds.
    """

    name: str
    type: ColumnType
    key: str | None = None


_LINE: dict[str, tuple[ColumnType, str]] = {
    "song_num": ("integer", "Number of the page"),
    "outcome": ("text", "found, missing or failed"),
    "status": ("integer", "HTTP status of the last answer"),
    "info": ("json", "What was taken from the page; null unless found"),
    "error": ("text", "Kind of failure; null unless failed"),
    "attempts": ("integer", "Requests in the run that wrote it"),
    "fetched_at": ("time", "When the outcome was known"),
    "detail": ("text", "A line about the failure"),
    "failed_runs": ("integer", "Runs in a row that failed on it"),
    "next_try_at": ("time", "Before this it is not worth asking again"),
    "gone_since": ("time", "When the site last said that a found one is gone"),
    "proof": ("integer", "Of a missing one: a song that was found after the site had said so"),
}
"""What a line of a block holds."""

_ALWAYS = ("song_num", "outcome", "attempts", "fetched_at")


def _columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, _LINE[name][0]) for name in names)


_FIRST = _columns("song_num", "outcome", "status")
_LAST = _columns("error", "attempts", "fetched_at", "gone_since")


def columns_of(types: Mapping[str, ColumnType] | None) -> list[Column]:
    """Return the columns of records whose info holds these names, in order.

    A name that is no column's has `_` for each character that may not stand there, and `info_`
    before it where a column of ours has that name.

    Args:
        types: By name; None for an info that is no object: it is one column of JSON.
    """
    if types is None:
        return [*_FIRST, Column("info", "json"), *_LAST]
    taken = {column.name for column in (*_FIRST, *_LAST)}
    inner = []
    for key, column_type in types.items():
        name = column_name(key, taken)
        taken.add(name.lower())
        inner.append(Column(name, column_type, key))
    return [*_FIRST, *inner, *_LAST]


def column_name(key: str, taken: set[str]) -> str:
    """Make the name of a column that is none of those taken, whatever their case."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", key) or "_"
    if name[0].isdigit():
        name = f"_{name}"
    if name.lower() in taken:
        name = f"info_{name}"
    made, count = name, 1
    while made.lower() in taken:
        count += 1
        made = f"{name}_{count}"
    return made


def take_columns(columns: Sequence[Column], records: Sequence[Record]) -> list[list[Any]]:
    """Return each column's values, one for each record; None where a record has none."""
    nothing = defaultdict[str, Any](lambda: None)
    infos = [record.info if isinstance(record.info, dict) else nothing for record in records]
    return [
        list(map(attrgetter(column.name), records))
        if column.key is None
        else _values(infos, column.key)
        for column in columns
    ]


def _values(objects: Sequence[dict[str, Any]], name: str) -> list[Any]:
    """Return what each object has under a name, None where it has none."""
    try:
        return list(map(itemgetter(name), objects))  # all in C, three times as fast
    except KeyError:
        return [each.get(name) for each in objects]


class Finder:
    """Finds types in data that streams by; memory is that of the types.

    Attributes:
        parts: What the names of objects held, in the order in which they came.
    """

    def __init__(self, max_parts: int = MAX_PARTS) -> None:
        self.parts: dict[str, Finder] = {}
        self._max_parts = max_parts
        self._items: Finder | None = None
        self._kinds: set[type] = set()
        self._largest = 0

    def see(self, values: Sequence[Any]) -> None:
        """Look at more values of one place."""
        kinds = set(map(type, values)) - {type(None)}
        self._kinds |= kinds
        if int in kinds:
            whole = [value for value in values if type(value) is int]
            largest = max(max(whole), -1 - min(whole))  # noqa: PLW3301 - of thousands
            self._largest = max(self._largest, largest)
        if dict in kinds:
            self._see_objects([value for value in values if type(value) is dict])
        if list in kinds:
            self._items = self._items or Finder()
            self._items.see([entry for value in values if type(value) is list for entry in value])

    def _see_objects(self, objects: list[dict[str, Any]]) -> None:
        if len(self.parts) > self._max_parts:
            return
        for name in dict.fromkeys(chain.from_iterable(objects)):
            if name not in self.parts:
                if len(self.parts) >= self._max_parts:
                    self.parts["…"] = Finder()  # too many: never looked at again
                    return
                self.parts[name] = Finder()
            self.parts[name].see(_values(objects, name))

    def types(self) -> dict[str, Any]:
        """Return all that was seen as plain values, for `add`."""
        seen: dict[str, Any] = {"kinds": sorted(kind.__name__ for kind in self._kinds)}
        seen["largest"] = self._largest
        seen["parts"] = {name: part.types() for name, part in self.parts.items()}
        seen["items"] = self._items and self._items.types()
        return seen

    def add(self, seen: dict[str, Any]) -> None:
        """Add what another one saw, as its `types` tell it, in values that come after ours."""
        self._kinds |= {_KINDS[name] for name in seen["kinds"]}
        self._largest = max(self._largest, seen["largest"])
        for name, part in seen["parts"].items():
            if len(self.parts) > self._max_parts:
                break
            self.parts.setdefault(name, Finder()).add(part)
        if seen["items"] is not None:
            self._items = self._items or Finder()
            self._items.add(seen["items"])

    def found(self, depth: int = 0) -> ColumnType:
        """Return the type that holds all that came."""
        kinds = self._kinds
        if not kinds:
            return "text"
        if kinds == {dict}:
            if not 0 < len(self.parts) <= self._max_parts or depth >= MAX_DEPTH:
                return "json"
            return Parts({name: part.found(depth + 1) for name, part in self.parts.items()})
        if kinds == {list}:
            assert self._items is not None
            return "json" if depth >= MAX_DEPTH else ListOf(self._items.found(depth + 1))
        if kinds == {int, float} and self._largest <= _EXACT:
            return "number"
        if len(kinds) > 1 or (kinds == {int} and self._largest >= 2**63):
            return "mixed"
        return _WORDS.get(next(iter(kinds)), "json")


class ColumnFinder:
    """Finds the columns of records that stream by: as declared, else as found in the data.

    Attributes:
        needs_data: Whether there is anything to find.
    """

    def __init__(self, declared: Mapping[str, FieldType] | None) -> None:
        """Begin with what is declared.

        Args:
            declared: Types by name; `json` means any value, and is found. None: nothing is declared.
        """
        self.needs_data = declared is None or "json" in declared.values()
        self.declared, self._top = declared, Finder(MAX_COLUMNS)
        self.types, self.add = self._top.types, self._top.add

    def see(self, records: Iterable[Record]) -> None:
        """Look at more records."""
        if self.needs_data:
            self._top.see([record.info for record in records if record.info is not None])

    def columns(self) -> list[Column]:
        """Return the columns of all records seen: those declared first; see `columns_of`."""
        if self.declared is None:
            made = self._top.found()
            return columns_of(made.types if isinstance(made, Parts) else None)
        found = {name: part.found() for name, part in self._top.parts.items()}
        types: dict[str, ColumnType] = {
            name: found.get(name, kind) if kind == "json" else kind
            for name, kind in self.declared.items()
        }
        return columns_of(types | {name: kind for name, kind in found.items() if name not in types})


_DUCKDB = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "text": "VARCHAR",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMPTZ",
    "json": "JSON",
    "mixed": "JSON",
}
_BIGQUERY = {
    "integer": "INTEGER",
    "number": "FLOAT",
    "text": "STRING",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMP",
}


def duckdb_statement(location: str, columns: Sequence[Column]) -> str:
    """Return the statement that reads the blocks of a store in place, as `to_pandas` shows them.

    Args:
        location: Of the store: a folder, or `gs://bucket/prefix`.
    """
    inner = {column.key: column.type for column in columns if column.key is not None}
    types = {column.name: column.type for column in (*_FIRST, *_LAST)}
    types["info"] = Parts(inner) if inner else "json"
    shown = ",\n    ".join(map(_duckdb_value, columns))
    listed = ",\n        ".join(f"{name}: {_text(_duckdb_type(t))}" for name, t in types.items())
    return (
        f"SELECT\n    {shown}\nFROM read_json(\n"
        f"    {_text(location.rstrip('/') + '/songs/*.jsonl.gz')},\n"
        "    format = 'newline_delimited',\n    ignore_errors = true,\n"
        f"    columns = {{\n        {listed}\n    }}\n)\n"
        "WHERE song_num IS NOT NULL\nORDER BY song_num;\n"
    )


def _duckdb_type(column_type: ColumnType) -> str:
    if isinstance(column_type, ListOf):
        return f"{_duckdb_type(column_type.item)}[]"
    if isinstance(column_type, Parts):
        parts = (
            f"{_quoted(name)} {_duckdb_type(part)}" for name, part in column_type.types.items()
        )
        return f"STRUCT({', '.join(parts)})"
    return _DUCKDB[column_type]


def _duckdb_value(column: Column) -> str:
    value = _quoted(column.name) if column.key is None else f"info.{_quoted(column.key)}"
    if column.type == "json":
        value = f"nullif({value}::VARCHAR, 'null')"
    elif column.type == "mixed":
        text = f"CASE json_type({value}) WHEN 'VARCHAR' THEN {value} ->> '$'"
        value = f"nullif({text} ELSE {value}::VARCHAR END, 'null')"
    return value if value == _quoted(column.name) else f"{value} AS {_quoted(column.name)}"


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def bigquery_schema(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the schema with which BigQuery reads the blocks of a store.

    An object with a name that BigQuery does not take is of its type JSON.
    """
    inner = {column.key: column.type for column in columns if column.key is not None}
    types = {name: kind for name, (kind, _) in _LINE.items()}
    types["info"] = Parts(inner) if inner else "json"
    fields = [_bigquery_field(name, kind) for name, kind in types.items()]
    for field in fields:
        field["mode"] = "REQUIRED" if field["name"] in _ALWAYS else "NULLABLE"
        field["description"] = _LINE[field["name"]][1]
    return fields


def _bigquery_field(name: str, column_type: ColumnType) -> dict[str, Any]:
    field: dict[str, Any] = {"name": name, "type": "JSON", "mode": "NULLABLE"}
    if isinstance(column_type, str):
        field["type"] = _BIGQUERY.get(column_type, "JSON")
    elif isinstance(column_type, Parts) and all(map(_is_plain, column_type.types)):
        field["type"] = "RECORD"
        field["fields"] = [_bigquery_field(*part) for part in column_type.types.items()]
    return field  # a list stays JSON: one that is REPEATED may hold no null


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w{0,299}", name, re.ASCII) is not None
