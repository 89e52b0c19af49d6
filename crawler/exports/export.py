"""Exports of a store: a file of Parquet, CSV or JSON lines, or a folder of Parquet in parts."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import msgspec

from crawler.errors import SettingsError, StoreMismatchError
from crawler.exports.formats import Batches, Sink, import_extra, parquet_sink, sink_for
from crawler.record import Record
from crawler.source.declared import built_in_names, chosen_fields, load_declaration
from crawler.source.fields import Column, ColumnFinder
from crawler.source.source import FieldType
from crawler.store.block import BLOCK_SIZE
from crawler.store.contract import Store
from crawler.store.opening import (
    FOUND,
    LIST_SECONDS,
    READ_SECONDS,
    Identity,
    open_store,
    read_blocks,
    read_identity,
)

FIRST_LOOK = 10_000
"""So many records are looked at for the types of their columns before the first is written."""

_ORIGIN = b"song-crawler"
_PART_NUMBERS = 100 * BLOCK_SIZE
"""Of one file of a folder: a change in one block costs the writing of so many."""


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
    open_sink, store = sink_for(out), _opened(store)
    finder = _finder(store)
    count, misfits = _write(store, start, stop, out, finder, open_sink, on_records)
    return ExportReport(count, out.stat().st_size, misfits)


def _opened(store: str | os.PathLike[str] | Store) -> Store:
    return open_store(os.fspath(store)) if isinstance(store, str | os.PathLike) else store


def _write(
    store: Store,
    start: int,
    stop: int | None,
    out: Path,
    finder: ColumnFinder,
    open_sink: "Callable[[Path, Sequence[Column]], Sink]",
    on_records: Callable[[int], None] | None,
) -> tuple[int, dict[str, int]]:
    """Write records with the columns that a finder has found, or finds on the way.

    The columns of the first records do for most stores, which are then read once. Where a later
    block holds others, the rest is looked at, and all is written again with what was found.
    """
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        if on_records is not None and count > told:
            on_records(count - told)
        told = max(told, count)

    with _whole_file(out) as unfinished:
        while True:
            blocks = read_blocks(store, start, stop)
            written = _write_blocks(blocks, finder, partial(open_sink, unfinished), tell)
            if written is not None:
                return written
            for records in blocks:
                finder.see(records)
            finder.needs_data = False


def _write_blocks(
    blocks: Iterator[list[Record]],
    finder: ColumnFinder,
    open_sink: "Callable[[Sequence[Column]], Sink]",
    tell: Callable[[int], None],
) -> tuple[int, dict[str, int]] | None:
    """Write blocks; None where one does not fit the columns of those before it."""
    first: list[Record] = []
    for records in blocks:
        first += records
        finder.see(records)
        if len(first) >= FIRST_LOOK or not finder.needs_data:
            break
    columns, count = finder.columns(), len(first)
    sink = open_sink(columns)
    try:
        sink.write(first)
        del first  # it may be all that memory holds
        tell(count)
        for records in blocks:
            if finder.needs_data:
                finder.see(records)
                if finder.columns() != columns:
                    return None
            sink.write(records)
            count += len(records)
            tell(count)
    finally:
        misfits = sink.close()
    return count, misfits


def _export_parts(
    store: Store, folder: Path, on_records: Callable[[int], None] | None
) -> ExportReport:
    """Bring a folder of Parquet files in step with a store.

    Each file carries which blocks it was made of, as the listing showed them, its columns, and what
    was found in its records: where nothing changed no block is read.
    """
    blocks: dict[int, list[str]] = {}
    for info in store.list_blocks(timeout=LIST_SECONDS):
        part = info.first - info.first % _PART_NUMBERS
        blocks.setdefault(part, []).append(f"{info.first} {info.token}")
    parts = {first: folder / f"part-{first:012}.parquet" for first in blocks}
    known = {first: _read_origin(path) for first, path in parts.items()}
    finder = _finder(store)
    origins = {
        first: _look_at_part(store, first, _hash(tokens), known[first], finder)
        for first, tokens in blocks.items()
    }
    finder.needs_data = False
    columns = _hash(finder.columns())
    folder.mkdir(parents=True, exist_ok=True)
    report, misfits = ExportReport(0, 0), Counter[str]()
    for first, path in parts.items():
        origin = msgspec.structs.replace(origins[first], columns=columns)
        if known[first] == origin:
            report.parts_kept += 1
        else:
            sink = partial(parquet_sink, metadata={_ORIGIN: _text(origin)})
            stop = first + _PART_NUMBERS
            misfits.update(_write(store, first, stop, path, finder, sink, on_records)[1])
            report.parts_written += 1
        report.records += import_extra("pyarrow.parquet").read_metadata(path).num_rows
        report.bytes += path.stat().st_size
    for path in set(folder.glob("part-*.parquet")) - set(parts.values()):
        path.unlink()  # its blocks are gone
    report.misfits = dict(misfits)
    return report


class _Origin(msgspec.Struct, frozen=True):
    """What one file of a folder was made of.

    Attributes:
        blocks: Stands for its blocks and their content.
        columns: Stands for its columns.
        types: What was found in its records; None where all is declared.
    """

    blocks: str
    columns: str = ""
    types: dict[str, Any] | None = None


def _look_at_part(
    store: Store, first: int, blocks: str, known: _Origin | None, finder: ColumnFinder
) -> _Origin:
    """Find what a part holds, in its blocks where they are not those of its file."""
    if not finder.needs_data:
        return _Origin(blocks)
    if known is None or known.blocks != blocks or known.types is None:
        part = ColumnFinder(finder.declared)
        for records in read_blocks(store, first, first + _PART_NUMBERS):
            part.see(records)
        known = _Origin(blocks, types=part.types())
    assert known.types is not None
    finder.add(known.types)
    return known


def _text(origin: _Origin) -> bytes:
    return json.dumps(msgspec.to_builtins(origin)).encode()  # numbers and names of any kind


def _hash(parts: Sequence[object]) -> str:
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _read_origin(path: Path) -> _Origin | None:
    try:
        metadata = import_extra("pyarrow.parquet").read_metadata(path).metadata or {}
        return msgspec.convert(json.loads(metadata.get(_ORIGIN, b"")), _Origin)
    except (OSError, ValueError, msgspec.MsgspecError):  # none there, no Parquet, or none of ours
        return None


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
    return _looked_through(store, start, stop).columns()


def _looked_through(store: Store, start: int = 0, stop: int | None = None) -> ColumnFinder:
    """Make a finder that has seen all there is to see."""
    finder = _finder(store)
    if finder.needs_data:
        for records in read_blocks(store, start, stop):
            finder.see(records)
        finder.needs_data = False
    return finder


def _finder(store: Store) -> ColumnFinder:
    identity = read_identity(store, timeout=READ_SECONDS)
    if identity is None:
        raise StoreMismatchError(f"{store.location} holds no songs yet: crawl some first")
    return ColumnFinder(_declared_types(identity))


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
