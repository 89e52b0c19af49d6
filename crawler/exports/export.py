"""What is made of a store: a file of Parquet, CSV or JSON lines, Parquet in parts, a store rebuilt."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from crawler.errors import Missing, PageError, SettingsError, StoreMismatchError
from crawler.exports.formats import (
    OpenSink,
    column_finder,
    import_extra,
    parquet_sink,
    sink_for,
    store_columns,
)
from crawler.record import Record
from crawler.run.raw import RawPage, raw_name, read_pages, save_pages
from crawler.source.fields import Column, ColumnFinder
from crawler.source.source import Source, traits_of
from crawler.store.block import BLOCK_SIZE, block_first
from crawler.store.contract import Deadline, Store, save_block
from crawler.store.opening import (
    LIST_SECONDS,
    READ_SECONDS,
    Identity,
    claim_store,
    known_identity,
    open_store,
    read_blocks,
)

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
        return _export_parts(open_store(store), out)
    open_sink, store = sink_for(out), open_store(store)
    columns = store_columns(store, start, stop)
    count, misfits = _write(store, start, stop, out, columns, open_sink)
    return ExportReport(count, out.stat().st_size, misfits)


def _write(
    store: Store,
    start: int,
    stop: int | None,
    out: Path,
    columns: Sequence[Column],
    open_sink: OpenSink,
) -> tuple[int, dict[str, int]]:
    """Write the records of `[start, stop)`; return how many, and what did not fit, by column."""
    count = 0
    with _whole_file(out) as unfinished:
        sink = open_sink(unfinished, columns)
        try:
            for records in read_blocks(store, start, stop):
                sink.write(records)
                count += len(records)
        finally:
            misfits = sink.close()
    return count, misfits


def _export_parts(store: Store, folder: Path) -> ExportReport:
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
    finder = column_finder(store)
    origins = {
        first: _look_at_part(store, first, _hash(tokens), known[first], finder)
        for first, tokens in blocks.items()
    }
    columns = finder.columns()
    columns_hash = _hash(columns)
    folder.mkdir(parents=True, exist_ok=True)
    report, misfits = ExportReport(0, 0), Counter[str]()
    for first, path in parts.items():
        origin = msgspec.structs.replace(origins[first], columns=columns_hash)
        if known[first] == origin:
            report.parts_kept += 1
        else:
            text = json.dumps(msgspec.to_builtins(origin))  # numbers and names of any kind
            sink = partial(parquet_sink, metadata={_ORIGIN: text.encode()})
            stop = first + _PART_NUMBERS
            misfits.update(_write(store, first, stop, path, columns, sink)[1])
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


def _hash(parts: Sequence[object]) -> str:
    return blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def _read_origin(path: Path) -> _Origin | None:
    try:
        metadata = import_extra("pyarrow.parquet").read_metadata(path).metadata or {}
        return msgspec.convert(json.loads(metadata.get(_ORIGIN, b"")), _Origin)
    except (OSError, ValueError, msgspec.MsgspecError):  # none there, no Parquet, or none of ours
        return None


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
        partial.unlink(missing_ok=True)


# New info from the raw bodies, without a request.

_READERS = 10
MAX_NAMED = 10
"""So many numbers are named of each kind of trouble."""


class RebuildReport(msgspec.Struct):
    """What was rebuilt.

    Attributes:
        rebuilt: Found songs with new info.
        copied: Missing and failed records, as they were.
        without_raw: Found songs whose body was not kept; they are not in the new store, and a
            crawl of the same range into it asks for these alone.
        refused: Found songs whose body the source does not accept; not in the new store either.
        first_troubles: The first numbers of both kinds, with the reason.
    """

    rebuilt: int = 0
    copied: int = 0
    without_raw: int = 0
    refused: int = 0
    first_troubles: dict[int, str] = {}


def rebuild(
    old: Store,
    new: Store,
    source: Any,
    start: int,
    stop: int,
) -> RebuildReport:
    """Fill another store with the records of `[start, stop)`, their info made anew from raw bodies.

    The old store is only read, so nothing can be lost; run again, it goes on. The bodies are
    copied too.

    Args:
        old: Crawled with `CRAWLER_KEEP_RAW=1`.
        new: Empty, or begun by an earlier rebuild with the same source and fields.

    Raises:
        SettingsError: The target is a step 1 function, which reads its pages itself.
        StoreError: The stores do not fit, or cannot be used.
    """
    if not isinstance(source, Source):
        raise SettingsError("rebuild_unfit", "CRAWLER_FUNCTION", "only a source can be rebuilt")
    identity = _new_identity(old, new, source)
    new.check(timeout=READ_SECONDS)
    claim_store(new, identity, timeout=READ_SECONDS)
    report = RebuildReport()
    with ThreadPoolExecutor(_READERS, "raw") as readers:
        for records in read_blocks(old, start, stop):
            names = sorted({raw_name(record.song_num) for record in records})
            read = readers.map(lambda name: read_pages(old, name, timeout=READ_SECONDS), names)
            pages = {num: page for held in read for num, page in held.items()}
            rebuilt = {r.song_num: r for r in _rebuilt(records, pages, source, report)}
            if rebuilt:
                _save(new, rebuilt, pages, identity)
    return report


def _new_identity(old: Store, new: Store, source: Source) -> Identity:
    known = known_identity(old)
    if known.source != source.name:
        raise StoreMismatchError(
            f"{old.location} holds records of source {known.source!r}, not of {source.name!r}"
        )
    if new.location == old.location:
        raise StoreMismatchError(f"rebuild into another store than {old.location} (--into)")
    fields = {field.name: field.type for field in traits_of(source).fields}
    return msgspec.structs.replace(known, schema=source.schema, fields=fields)


def _rebuilt(
    records: Sequence[Record],
    pages: dict[int, RawPage],
    source: Source,
    report: RebuildReport,
) -> Iterator[Record]:
    for record in records:
        num = record.song_num
        if record.outcome != "found":
            report.copied += 1
            yield record
        elif num not in pages:
            report.without_raw += 1
            _tell(report, num, "its body was not kept")
        else:
            try:
                info = source.info(num, pages[num].content())
            except (PageError, Missing) as error:
                report.refused += 1
                _tell(report, num, str(error) or "the body says that there is no such page")
            else:
                report.rebuilt += 1
                yield msgspec.structs.replace(record, info=info)


def _tell(report: RebuildReport, num: int, why: str) -> None:
    if len(report.first_troubles) < MAX_NAMED:
        report.first_troubles[num] = why


def _save(
    store: Store, records: dict[int, Record], pages: dict[int, RawPage], identity: Identity
) -> None:
    deadline = Deadline(READ_SECONDS)
    kept = {num: page for num, page in pages.items() if num in records}
    save_pages(store, kept, deadline)
    first = block_first(next(iter(records)))
    left = deadline.left(f"saving block {first}")
    save_block(store, first, records, source=identity.source, timeout=left)
