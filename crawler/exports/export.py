"""Exports of a store to one file: Parquet, CSV or JSON lines, block by block."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from crawler.errors import SettingsError, StoreMismatchError
from crawler.exports.arrow import Batches, import_extra
from crawler.exports.columns import Column, columns_of, take_columns
from crawler.record import Record
from crawler.store.contract import Store
from crawler.store.identity import read_identity
from crawler.store.opening import open_store
from crawler.store.reading import READ_SECONDS, read_blocks

ROWS_PER_GROUP = 50_000
"""Records of one row group: large enough to compress well, about 30 MB while it is made."""


class ExportReport(msgspec.Struct):
    """What was exported.

    Attributes:
        records: Lines or rows written, one for each number that has a record.
        bytes: Size of the file.
        misfits: Values by column that their column could not hold; they are null there.
    """

    records: int
    bytes: int
    misfits: dict[str, int] = {}


class Sink(Protocol):
    """Takes records and writes them to the file it was opened for."""

    def write(self, records: list[Record]) -> None:
        """Write the records of a block."""

    def close(self) -> dict[str, int]:
        """Write what is left; say what did not fit, by column."""


def export(
    store: str | os.PathLike[str] | Store,
    out: str | Path,
    start: int = 0,
    stop: int | None = None,
    *,
    on_records: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write all records of `[start, stop)` to a file; its extension says in which format.

    The file is there whole or not at all. Its columns follow from the store's source, not from the
    data. Memory is flat.

    Args:
        store: A folder or `gs://bucket/prefix`.
        out: The file; ends in `.parquet`, `.csv` or `.jsonl`.
        start: First song number, included.
        stop: Number after the last; None: to the end.
        on_records: Told how many more were written, block by block.

    Raises:
        SettingsError: The format is unknown, or a package that it takes is not installed.
        StoreError: The store is empty, cannot be reached, or holds a broken block.
        OSError: The file cannot be written.
    """
    out = Path(out)
    open_sink = _sink_for(out)
    store = open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store
    columns = store_columns(store)
    count = 0
    with _whole_file(out) as partial:
        sink = open_sink(partial, columns)
        try:
            for records in read_blocks(store, start, stop):
                sink.write(records)
                count += len(records)
                if on_records is not None:
                    on_records(len(records))
        finally:
            misfits = sink.close()
    return ExportReport(count, out.stat().st_size, misfits)


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
    store = open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store
    batches = Batches(store_columns(store))
    tables = [batches.batch(records) for records in read_blocks(store, start, stop)]
    nullable = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
    table = arrow.Table.from_batches(tables, schema=batches.schema)
    return table.to_pandas(types_mapper=nullable.get)


def store_columns(store: Store) -> list[Column]:
    """Say which columns a store's records have.

    Raises:
        StoreMismatchError: No run has written to it yet.
    """
    identity = read_identity(store, timeout=READ_SECONDS)
    if identity is None:
        raise StoreMismatchError(f"{store.location} holds no songs yet: crawl some first")
    return columns_of(identity)


class _ArrowSink:
    """Gathers batches to row groups for one of pyarrow's writers."""

    def __init__(self, writer: Any, batches: Batches) -> None:
        self._writer, self._batches = writer, batches
        self._records: list[Record] = []

    def write(self, records: list[Record]) -> None:
        self._records += records
        if len(self._records) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> dict[str, int]:
        self._flush()
        self._writer.close()
        return {name: count for name, count in self._batches.misfits.items() if count}

    def _flush(self) -> None:
        if self._records:
            self._writer.write_batch(self._batches.batch(self._records))
            self._records = []


def _parquet(path: Path, columns: Sequence[Column]) -> Sink:
    batches = Batches(columns)
    parquet = import_extra("pyarrow.parquet")
    return _ArrowSink(parquet.ParquetWriter(path, batches.schema, compression="zstd"), batches)


def _csv(path: Path, columns: Sequence[Column]) -> Sink:
    """Quote every text, so that an empty one and an absent one stay two things."""
    batches = Batches(columns)
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


def _sink_for(out: Path) -> Callable[[Path, Sequence[Column]], Sink]:
    sinks: dict[str, Callable[[Path, Sequence[Column]], Sink]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".jsonl": _LinesSink,
    }
    if out.suffix not in sinks:
        raise SettingsError(
            "format_unknown", "OUT", f"OUT must end in {', '.join(sinks)}, got {out.name!r}"
        )
    return sinks[out.suffix]


@contextmanager
def _whole_file(out: Path) -> Iterator[Path]:
    """Give a name to write to; what is there at the end takes the place of `out`."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
