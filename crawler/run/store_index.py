"""The index of a store: the counts of its blocks, kept true while a run reads and writes."""

import heapq
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from crawler.errors import StoreError
from crawler.page.status_page import write_status
from crawler.record import Record
from crawler.source.fields import MAX_COLUMNS
from crawler.store.block import ABSENT, BlockInfo, block_name, decode_block
from crawler.store.contract import Store, save_block
from crawler.store.control import RunObject
from crawler.store.opening import add_found_fields, claim_host

logger = logging.getLogger("crawler")

STORE_SECONDS = 60.0
"""Time for one look at the store: a listing, or the check of its rights."""


MAX_SONGS_NEAR = 8
"""So many songs known before are enough to tell whether the site lies."""


def tell_new_fields(store: Store, names: Sequence[str]) -> None:
    """Warn that the songs stored before lack some fields, and say what to do."""
    logger.warning(
        "the songs that are in %s already lack %s: --refresh-older-than-days 0 asks for them again, "
        "`rebuild` makes them of kept bodies",
        store.location,
        ", ".join(names),
        extra={"event": "fields_added", "fields": {"names": list(names)}},
    )


class StoreIndex:
    """The counts of a store's blocks, by first number, kept true while the run writes to it."""

    def __init__(
        self,
        store: Store,
        source: str,
        start: int | None,
        stop: int | None,
        *,
        notes_fields: bool = False,
        timeout: float = STORE_SECONDS,
    ) -> None:
        """List the blocks of `[start, stop)`, or all where `start` is None.

        Args:
            notes_fields: Whether to note what the info of the first block holds, because nobody
                declared it.
            timeout: Bounds each look at the store, seconds.
        """
        self._notes_fields = notes_fields
        self.asked_host: Callable[[], str] = lambda: ""
        """Returns which host a step 1 function was seen to ask; noted with the first block."""
        self.store, self.source, self.timeout = store, source, timeout
        self.met: set[int] = set()
        """Blocks in which another run was met: somebody else had written to them meanwhile."""
        self._range = (start or 0, stop)
        self._own: set[int] = set()
        self._known_runs: dict[str, RunObject | None] = {}
        blocks = store.list_blocks(start or 0, stop, timeout=timeout)
        self.listing = {info.first: info for info in blocks}
        self._is_whole = start is None

    def read(self, first: int) -> dict[int, Record]:
        """Read the records of a block."""
        name = block_name(first)
        stored = self.store.read(name, timeout=self.timeout)
        return {} if stored is None else decode_block(stored.data, name)

    def save(
        self, first: int, records: dict[int, Record], *, is_new: bool, timeout: float
    ) -> BlockInfo:
        """Merge records into a block; `is_new` where none is believed to be there."""
        if host := self.asked_host():
            claim_host(self.store, host, timeout=timeout)
            self.asked_host = lambda: ""
        known = self.listing.get(first)
        is_own = first in self._own  # our own earlier part of it may be on its way
        self._own.add(first)
        info = save_block(
            self.store,
            first,
            records,
            source=self.source,
            believed=ABSENT if is_new else known.token if known else None,
            timeout=timeout,
            on_conflict=(lambda: None) if is_own else (lambda: self.met.add(first)),
        )
        if self._notes_fields:
            self._note_fields(records.values())
        return info

    def _note_fields(self, records: Iterable[Record]) -> None:
        infos = [record.info for record in records if isinstance(record.info, dict)]
        names = dict.fromkeys(name for info in infos for name in info)
        self._notes_fields = not names  # nothing found in this block: look at the next one
        if 0 < len(names) <= MAX_COLUMNS and (
            added := add_found_fields(self.store, names, timeout=self.timeout)
        ):
            tell_new_fields(self.store, added)

    def songs_near(self, song_num: int) -> list[int]:
        """Return the last found songs of a few blocks, the nearest first."""
        lasts = [each.last_found for each in list(self.listing.values())]
        known = [last for last in lasts if last is not None]
        return heapq.nsmallest(MAX_SONGS_NEAR, known, key=lambda num: abs(num - song_num))

    def relist(self) -> None:
        """Bring the listing up to date with what others have stored."""
        for info in self.store.list_blocks(*self._range, timeout=self.timeout):
            self.listing[info.first] = info

    def note_stored(self, info: BlockInfo) -> None:
        """Note that a block was stored."""
        self.listing[info.first] = info
        logger.info(
            "block %d stored: %d found, %d missing, %d failed",
            info.first,
            info.found,
            info.missing,
            info.failed,
            extra={"event": "block_stored", "fields": {"first": info.first}},
        )

    def write_status(self) -> None:
        """Write the status of the whole store; trouble is only logged.

        Of what lies outside its range a run knows nothing, so a broken block may come to light here.
        """
        now = datetime.now(UTC)
        try:
            if not self._is_whole:
                for info in list(self.store.list_blocks(timeout=self.timeout)):
                    self.listing.setdefault(info.first, info)  # the plan looks into this very dict
                self._is_whole = True
            write_status(self.store, self.listing, now=now, known_runs=self._known_runs)
        except StoreError as error:
            logger.warning("the status could not be written: %s", error)
