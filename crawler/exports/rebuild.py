"""Rebuilding a store: new info from the raw bodies, without a request."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from crawler.errors import Missing, PageError, SettingsError, StoreMismatchError
from crawler.record import Record
from crawler.run.raw import RawPage, raw_name, read_pages, save_pages
from crawler.source.source import Source, traits_of
from crawler.store.block import block_first
from crawler.store.contract import Deadline, Store, save_block
from crawler.store.opening import READ_SECONDS, Identity, claim_store, read_blocks, read_identity

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
    *,
    on_block: Callable[[int], None] | None = None,
) -> RebuildReport:
    """Fill another store with the records of `[start, stop)`, their info made anew from raw bodies.

    The old store is only read, so nothing can be lost; run again, it goes on. The bodies are
    copied too.

    Args:
        old: Crawled with `CRAWLER_KEEP_RAW=1`.
        new: Empty, or begun by an earlier rebuild with the same source and fields.
        source: Says what info is now.
        start: First song number, included.
        stop: Number after the last.
        on_block: Told how many more records were looked at.

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
            pages = _pages_of(old, records, readers)
            rebuilt = {r.song_num: r for r in _rebuilt(records, pages, source, report)}
            if rebuilt:
                _save(new, rebuilt, pages, identity)
            if on_block is not None:
                on_block(len(records))
    return report


def _new_identity(old: Store, new: Store, source: Source) -> Identity:
    known = read_identity(old, timeout=READ_SECONDS)
    if known is None:
        raise StoreMismatchError(f"{old.location} holds no songs yet: crawl some first")
    if known.source != source.name:
        raise StoreMismatchError(
            f"{old.location} holds records of source {known.source!r}, not of {source.name!r}"
        )
    if new.location == old.location:
        raise StoreMismatchError(f"rebuild into another store than {old.location} (--into)")
    fields = {field.name: field.type for field in traits_of(source).fields}
    return msgspec.structs.replace(known, schema=source.schema, fields=fields)


def _pages_of(
    store: Store, records: Sequence[Record], readers: ThreadPoolExecutor
) -> dict[int, RawPage]:
    names = sorted({raw_name(record.song_num) for record in records})
    read = readers.map(lambda name: read_pages(store, name, timeout=READ_SECONDS), names)
    return {num: page for pages in read for num, page in pages.items()}


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
