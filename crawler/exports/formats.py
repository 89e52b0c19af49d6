"""What an export holds and is written as: its columns, and files of Parquet, CSV and JSON lines."""

import importlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from crawler.errors import SettingsError
from crawler.record import Record
from crawler.source.declared import built_in_names, chosen_fields, load_declaration
from crawler.source.fields import Column, ColumnFinder, ColumnType, ListOf, Parts, take_columns
from crawler.source.source import FieldType
from crawler.store.contract import Store
from crawler.store.opening import FOUND, Identity, known_identity, open_store, read_blocks

if TYPE_CHECKING:
    import pyarrow as pa

_HALF = re.compile("[\ud800-\udfff]")
_LARGEST = 2**63


ROWS_PER_GROUP = 50_000
"""Records of one row group: large enough to compress well."""


def store_columns(store: Store, start: int = 0, stop: int | None = None) -> list[Column]:
    """Return the columns of a store's records; types that nobody declared are found in the data.

    Raises:
        StoreMismatchError: No run has written to it yet.
    """
    finder = column_finder(store)
    if finder.needs_data:
        for records in read_blocks(store, start, stop):
            finder.see(records)
    return finder.columns()


def column_finder(store: Store) -> ColumnFinder:
    """Make what knows the columns that a store declares, and finds the others in its records.

    Raises:
        StoreMismatchError: No run has written to it yet.
    """
    return ColumnFinder(_declared_types(known_identity(store)))


def _declared_types(identity: Identity) -> dict[str, FieldType] | None:
    """Return the types that a store says of its fields; those of version 1.0 say them by schema."""
    if identity.fields:
        known = {name: kind for name, kind in identity.fields.items() if kind != FOUND}
        return cast("dict[str, FieldType]", known) or None
    if identity.source not in built_in_names():
        return None
    declaration = load_declaration(identity.source)
    schema, _, names = identity.schema.partition(":")
    fields = declaration.shape.fields
    if schema != declaration.document.schema:
        return None
    if names:
        fields = chosen_fields(declaration, names.split(","))
    return {field.name: field.type for field in fields}


class Batches:
    """Turns records into Arrow batches of one schema.

    Attributes:
        schema: The Arrow schema.
        misfits: Values by column that could not be held in it and are null instead.
    """

    def __init__(self, columns: Sequence[Column], *, is_flat: bool = False) -> None:
        """Prepare for these columns.

        Args:
            is_flat: Whether what is nested becomes JSON in a text, as CSV needs it.

        Raises:
            SettingsError: pyarrow is not installed.
        """
        self._arrow = import_extra("pyarrow")
        if is_flat:
            columns = [c if isinstance(c.type, str) else c._replace(type="json") for c in columns]
        self._columns = columns
        self.schema = self._arrow.schema([(c.name, self._type(c.type)) for c in columns])
        self.misfits = Counter[str]()

    def batch(self, records: Sequence[Record]) -> "pa.RecordBatch":
        """Make one batch of records, in their order."""
        taken = take_columns(self._columns, records)
        arrays = [
            self._array(column, values, field.type)
            for column, values, field in zip(self._columns, taken, self.schema, strict=True)
        ]
        return self._arrow.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _type(self, column_type: ColumnType) -> Any:
        arrow = self._arrow
        if isinstance(column_type, ListOf):
            return arrow.list_(self._type(column_type.item))
        if isinstance(column_type, Parts):
            return arrow.struct([(n, self._type(part)) for n, part in column_type.types.items()])
        return {
            "integer": arrow.int64(),
            "number": arrow.float64(),
            "boolean": arrow.bool_(),
            "time": arrow.timestamp("us", "UTC"),
        }.get(column_type, arrow.string())

    def _array(self, column: Column, values: list[Any], arrow_type: Any) -> Any:
        if holds_packed(column.type):
            values = [packed(value, column.type) for value in values]
        try:
            return self._arrow.array(values, arrow_type)
        except (self._arrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
            misfits: list[Any] = []
            fitted = [fit(value, column.type, misfits.append) for value in values]
            self.misfits[column.name] += len(misfits)
            return self._arrow.array(fitted, arrow_type)


def holds_packed(column_type: ColumnType) -> bool:
    """Whether something of a type is packed as JSON in a text."""
    if isinstance(column_type, ListOf):
        return holds_packed(column_type.item)
    if isinstance(column_type, Parts):
        return any(map(holds_packed, column_type.types.values()))
    return column_type in ("json", "mixed")


def packed(value: Any, column_type: ColumnType) -> Any:
    """Pack what is JSON in a text, wherever it lies in a value."""
    if isinstance(column_type, ListOf):
        is_list = isinstance(value, list)
        return [packed(entry, column_type.item) for entry in value] if is_list else value
    if isinstance(column_type, Parts):
        if not isinstance(value, dict):
            return value
        return {name: packed(value.get(name), kind) for name, kind in column_type.types.items()}
    if value is None or column_type not in ("json", "mixed"):
        return value
    if column_type == "mixed" and isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:  # half a surrogate pair: with escapes
        return json.dumps(value, separators=(",", ":"))


def fit(value: Any, column_type: ColumnType, on_misfit: Callable[[Any], None]) -> Any:
    r"""Make a value fit a column; what cannot is None, and told.

    Half of a surrogate pair, which UTF-8 cannot hold, becomes six characters such as `\ud83d`.
    """
    if value is None:
        return None
    if isinstance(column_type, ListOf) and isinstance(value, list):
        return [fit(entry, column_type.item, on_misfit) for entry in value]
    if isinstance(column_type, Parts) and isinstance(value, dict):
        return {
            name: fit(value.get(name), part, on_misfit) for name, part in column_type.types.items()
        }
    if not (isinstance(column_type, str) and _fits(value, column_type)):
        on_misfit(value)
        return None
    if isinstance(value, str):
        return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", value)
    return value


def import_extra(name: str) -> Any:
    """Import a package that only some people need.

    Raises:
        SettingsError: It is not installed; the message says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise SettingsError(
            "extra_missing",
            package,
            f"{package} is not installed: pip install pandas pyarrow, or export to .jsonl",
        ) from error


def _fits(value: Any, word: str) -> bool:
    if word == "integer":
        return type(value) is int and -_LARGEST <= value < _LARGEST
    if word == "number":
        return type(value) in (int, float)
    return isinstance(value, {"boolean": bool, "time": datetime}.get(word, str))


def to_pandas(
    store: str | os.PathLike[str] | Store, start: int = 0, stop: int | None = None
) -> Any:
    """Load the records of `[start, stop)` into a pandas data frame, with the columns of an export.

    Whole numbers are `Int64`, so that an absent one is `<NA>` and the rest stay whole.

    Raises:
        SettingsError: pandas or pyarrow is not installed.
        StoreError: As `export`.
    """
    pandas, arrow = import_extra("pandas"), import_extra("pyarrow")
    store = open_store(store)
    batches = Batches(store_columns(store, start, stop))
    tables = [batches.batch(records) for records in read_blocks(store, start, stop)]
    nullable = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
    table = arrow.Table.from_batches(tables, schema=batches.schema)
    return table.to_pandas(types_mapper=nullable.get)


class _ArrowSink:
    """Gathers batches to row groups for one of pyarrow's writers."""

    def __init__(self, writer: Any, batches: Batches) -> None:
        self._writer, self._batches = writer, batches
        self._ready: list[Any] = []  # a batch takes a tenth of the memory of its records
        self._rows = 0

    def write(self, records: list[Record]) -> None:
        self._ready.append(self._batches.batch(records))
        self._rows += len(records)
        if self._rows >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> dict[str, int]:
        self._flush()
        self._writer.close()
        return {name: count for name, count in self._batches.misfits.items() if count}

    def _flush(self) -> None:
        if self._rows:
            table = import_extra("pyarrow").Table.from_batches(self._ready)
            self._writer.write_table(table, self._rows)
            self._ready, self._rows = [], 0


def parquet_sink(
    path: Path, columns: Sequence[Column], metadata: dict[bytes, bytes] | None = None
) -> _ArrowSink:
    """Open a Parquet file, with metadata of its own."""
    batches = Batches(columns)
    parquet, schema = import_extra("pyarrow.parquet"), batches.schema.with_metadata(metadata)
    writer = parquet.ParquetWriter(path, schema, compression="zstd")
    batches.schema = schema
    return _ArrowSink(writer, batches)


def _csv_sink(path: Path, columns: Sequence[Column]) -> _ArrowSink:
    """Quote every text, so that an empty one and an absent one stay two things."""
    batches = Batches(columns, is_flat=True)
    return _ArrowSink(import_extra("pyarrow.csv").CSVWriter(path, batches.schema), batches)


class _LinesSink:
    """Writes one JSON object a line; what JSON can hold stays as it is, halves of pairs escaped."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._columns = columns

    def write(self, records: list[Record]) -> None:
        names = [column.name for column in self._columns]
        taken = take_columns(self._columns, records)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*taken, strict=True)]
        self._file.writelines(_line(row) for row in rows)

    def close(self) -> dict[str, int]:
        self._file.close()
        return {}


def _line(row: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(row) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(row), separators=(",", ":")).encode() + b"\n"


Sink: TypeAlias = _ArrowSink | _LinesSink
"""Writes the records of a block with `write`; `close` returns what did not fit, by column."""

OpenSink: TypeAlias = Callable[[Path, Sequence[Column]], Sink]
"""Opens a file for records of these columns."""


def sink_for(out: Path) -> OpenSink:
    """Return what opens a file of the kind that its extension says.

    Raises:
        SettingsError: There is no such kind.
    """
    sinks: dict[str, OpenSink] = {
        ".parquet": parquet_sink,
        ".csv": _csv_sink,
        ".jsonl": _LinesSink,
    }
    if out.suffix not in sinks:
        raise SettingsError(
            "format_unknown", "OUT", f"OUT must end in {', '.join(sinks)} or /, got {out.name!r}"
        )
    return sinks[out.suffix]
