"""Exports of a store: a file of Parquet, CSV or JSON lines, or a folder of Parquet in parts."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec

from crawler.errors import SettingsError, StoreMismatchError
from crawler.exports.arrow import Batches, import_extra
from crawler.record import Record
from crawler.source.declared import built_in_names, chosen_fields, load_declaration
from crawler.source.fields import Column, columns_of, find_types, take_columns
from crawler.source.source import FieldType
from crawler.store.block import BLOCK_SIZE
from crawler.store.contract import Store
from crawler.store.identity import FOUND, Identity, read_identity
from crawler.store.opening import open_store
from crawler.store.reading import LIST_SECONDS, READ_SECONDS, read_blocks

ROWS_PER_GROUP = 50_000
"""Records of one row group: large enough to compress well, about 30 MB while it is made."""


_FINGERPRINT = b"song-crawler"
BLOCKS_PER_PART = 100
"""Of a folder: a change in one block costs the writing of so many."""


class ExportReport(msgspec.Struct):
    """What was exported.

    Attributes:
        records: Lines or rows, one for each number that has a record.
        bytes: Size of the file, or of all parts.
        misfits: Values by column that their column could not hold; they are null there.
        parts_written: Of a folder: files written by this export.
        parts_kept: Of a folder: files that were right already.
    """

    records: int
    bytes: int
    misfits: dict[str, int] = {}
    parts_written: int = 0
    parts_kept: int = 0


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

    The file is there whole or not at all. Its columns follow from the fields that the store's
    source declares; where nothing is declared, their types are found in the data by a first pass.
    Memory is flat.

    A folder gets all records of the store as Parquet in parts of a hundred blocks each; called
    again, only parts whose blocks or columns changed are written.

    Args:
        store: A folder or `gs://bucket/prefix`.
        out: The file, which ends in `.parquet`, `.csv` or `.jsonl`; or a folder, whose name ends in
            `/` where it is not there yet.
        start: First song number, included.
        stop: Number after the last; None: to the end.
        on_records: Told how many more were written, block by block.

    Raises:
        SettingsError: The format is unknown, or a package that it takes is not installed; or a
            folder is to hold a range.
        StoreError: The store is empty, cannot be reached, or holds a broken block.
        OSError: The file cannot be written.
    """
    is_folder = os.fspath(out).endswith(("/", os.sep)) or Path(out).is_dir()
    out = Path(out)
    if is_folder:
        if (start, stop) != (0, None):
            message = "a folder is kept in step with the whole store: name a file for a range"
            raise SettingsError("range_unfit", "OUT", message)
        return _export_parts(_opened(store), out, on_records)
    open_sink, store = _sink_for(out), _opened(store)
    columns = store_columns(store, start, stop)
    count, misfits = _write(store, start, stop, out, columns, open_sink, on_records)
    return ExportReport(count, out.stat().st_size, misfits)


def _opened(store: str | os.PathLike[str] | Store) -> Store:
    return open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store


def _write(
    store: Store,
    start: int,
    stop: int | None,
    out: Path,
    columns: Sequence[Column],
    open_sink: "Callable[[Path, Sequence[Column]], Sink]",
    on_records: Callable[[int], None] | None,
) -> tuple[int, dict[str, int]]:
    count = 0
    with _whole_file(out) as unfinished:
        sink = open_sink(unfinished, columns)
        try:
            for records in read_blocks(store, start, stop):
                sink.write(records)
                count += len(records)
                if on_records is not None:
                    on_records(len(records))
        finally:
            misfits = sink.close()
    return count, misfits


def _export_parts(
    store: Store, folder: Path, on_records: Callable[[int], None] | None
) -> ExportReport:
    """Bring a folder of Parquet files in step with a store.

    Each file carries a fingerprint of its columns and of its blocks as the listing showed them.
    """
    parquet = import_extra("pyarrow.parquet")
    blocks: dict[int, list[str]] = {}
    for info in store.list_blocks(timeout=LIST_SECONDS):
        part = info.first - info.first % (BLOCKS_PER_PART * BLOCK_SIZE)
        blocks.setdefault(part, []).append(f"{info.first} {info.token}")
    columns = store_columns(store)
    folder.mkdir(parents=True, exist_ok=True)
    report, misfits, rights = ExportReport(0, 0), Counter[str](), set[Path]()
    for first, tokens in blocks.items():
        path = folder / f"part-{first:012}.parquet"
        rights.add(path)
        fingerprint = blake2b(repr((columns, tokens)).encode(), digest_size=16).hexdigest().encode()
        if _fingerprint(path) == fingerprint:
            report.parts_kept += 1
        else:
            sink = partial(_parquet, metadata={_FINGERPRINT: fingerprint})
            stop = first + BLOCKS_PER_PART * BLOCK_SIZE
            misfits.update(_write(store, first, stop, path, columns, sink, on_records)[1])
            report.parts_written += 1
        report.records += parquet.read_metadata(path).num_rows
        report.bytes += path.stat().st_size
    for path in set(folder.glob("part-*.parquet")) - rights:
        path.unlink()  # its blocks are gone
    report.misfits = dict(misfits)
    return report


def _fingerprint(path: Path) -> bytes | None:
    try:
        metadata = import_extra("pyarrow.parquet").read_metadata(path).metadata or {}
    except (OSError, ValueError):  # none there, or no Parquet
        return None
    fingerprint: bytes | None = metadata.get(_FINGERPRINT)
    return fingerprint


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
    store = _opened(store)
    batches = Batches(store_columns(store, start, stop))
    tables = [batches.batch(records) for records in read_blocks(store, start, stop)]
    nullable = {arrow.int64(): pandas.Int64Dtype(), arrow.bool_(): pandas.BooleanDtype()}
    table = arrow.Table.from_batches(tables, schema=batches.schema)
    return table.to_pandas(types_mapper=nullable.get)


def store_columns(store: Store, start: int = 0, stop: int | None = None) -> list[Column]:
    """Return the columns of a store's records; types that nobody declared are found in the data.

    Raises:
        StoreMismatchError: No run has written to it yet.
    """
    identity = read_identity(store, timeout=READ_SECONDS)
    if identity is None:
        raise StoreMismatchError(f"{store.location} holds no songs yet: crawl some first")
    infos = (
        [record.info for record in records if record.info is not None]
        for records in read_blocks(store, start, stop)
    )
    return columns_of(find_types(infos, _declared_types(identity)))


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


def _parquet(
    path: Path, columns: Sequence[Column], metadata: dict[bytes, bytes] | None = None
) -> Sink:
    batches = Batches(columns)
    parquet, schema = import_extra("pyarrow.parquet"), batches.schema.with_metadata(metadata)
    writer = parquet.ParquetWriter(path, schema, compression="zstd")
    batches.schema = schema
    return _ArrowSink(writer, batches)


def _csv(path: Path, columns: Sequence[Column]) -> Sink:
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


def _sink_for(out: Path) -> Callable[[Path, Sequence[Column]], Sink]:
    sinks: dict[str, Callable[[Path, Sequence[Column]], Sink]] = {
        ".parquet": _parquet,
        ".csv": _csv,
        ".jsonl": _LinesSink,
    }
    if out.suffix not in sinks:
        raise SettingsError(
            "format_unknown", "OUT", f"OUT must end in {', '.join(sinks)} or /, got {out.name!r}"
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
