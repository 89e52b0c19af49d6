"""The writer: gathers records into blocks and stores them beside the crawl, never stalling it."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from crawler.block import BLOCK_SIZE, BlockInfo
from crawler.errors import StoreError, StoreUnavailableError
from crawler.planned import PlannedBlock
from crawler.record import Record

logger = logging.getLogger("crawler")

MAX_OPEN_BLOCKS = 16
"""With more blocks open the oldest is written with what it has, and merged with the rest later."""

MAX_PENDING_BLOCKS = 8
"""With so many blocks waiting for the store the frontier hands out no more."""

FLUSH_SECONDS = 60.0
"""A record waits at most this long for its block, so that a kill costs a minute of work."""

SAVE_SECONDS = 30.0
"""Time for one try to save one block."""

GIVE_UP_SECONDS = 120.0
"""A store that was out of reach for so long ends the run."""


class Save(Protocol):
    """Merges records into a block of the store."""

    def __call__(
        self, first: int, records: dict[int, Record], *, is_new: bool, timeout: float
    ) -> BlockInfo:
        """Save; `is_new` where no block is believed to be there."""


class OpenBlock(msgspec.Struct):
    """A block on its way: how many records are expected, and those that have come."""

    expected: int
    is_new: bool
    failed_runs: dict[int, int]
    records: dict[int, Record] = {}
    opened_at: float = 0.0


class Writer:
    """Takes records, in any order, and hands blocks to the store.

    `expect` and `add` are called under the frontier's lock, the rest by the run's own threads.
    """

    def __init__(
        self,
        save: Save,
        *,
        on_stored: Callable[[BlockInfo], None],
        on_trouble: Callable[[str], None],
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare to write.

        Args:
            save: Merges records into a block of the store.
            on_stored: Told of each block stored, in a thread of the writer.
            on_trouble: Told why, when the store is given up.
            threads: Blocks saved at once.
            clock: Monotonic seconds.
        """
        self.blocks_written = 0
        self.lost: Counter[str] = Counter()
        self._save, self._on_stored, self._on_trouble = save, on_stored, on_trouble
        self._clock = clock
        self._awaited: dict[int, OpenBlock] = {}
        self._open: dict[int, OpenBlock] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, "store")
        self._pending: set[Future[None]] = set()
        self._ending = threading.Event()
        self._give_up_at: float | None = None

    def expect(self, block: PlannedBlock) -> None:
        """Learn how many numbers of a block will get a record."""
        count = len(block.numbers)
        with self._lock:
            known = self._open.get(block.first) or self._awaited.get(block.first)
            if known is not None:
                known.expected += count
            else:
                self._awaited[block.first] = OpenBlock(
                    expected=count, is_new=block.is_new, failed_runs=block.failed_runs
                )

    def add(self, record: Record) -> None:
        """Take one record; its block is handed to the store when it is whole."""
        num = record.song_num
        first = num - num % BLOCK_SIZE
        with self._lock:
            block = self._open.get(first) or self._begin(first)
            if record.outcome == "failed":
                _postpone(record, block.failed_runs.get(num, 0) + 1)
            block.records[num] = record
            if len(block.records) == block.expected:
                del self._open[first]
                self._hand_on(first, block)

    def has_room(self) -> bool:
        """Whether the store keeps up."""
        return len(self._pending) < MAX_PENDING_BLOCKS

    def tick(self) -> None:
        """Write blocks whose oldest record has waited long enough."""
        self._write_before(self._clock() - FLUSH_SECONDS)

    def flush(self) -> None:
        """Write all that is there, whole or not."""
        self._write_before(self._clock())

    def close(self, timeout: float) -> None:
        """Write what is left and wait for the store, at most `timeout` seconds."""
        self._give_up_at = self._clock() + timeout
        self.flush()
        with self._lock:
            pending = set(self._pending)
        wait(pending, timeout)
        self._ending.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(pending, 2.0)

    def _begin(self, first: int) -> OpenBlock:
        block = self._awaited.pop(first)
        block.opened_at = self._clock()
        self._open[first] = block
        if len(self._open) > MAX_OPEN_BLOCKS:
            oldest = next(iter(self._open))
            self._write_partly(oldest, self._open[oldest])
        return block

    def _write_before(self, moment: float) -> None:
        with self._lock:
            for first, block in list(self._open.items()):
                if block.opened_at <= moment:
                    self._write_partly(first, block)

    def _write_partly(self, first: int, block: OpenBlock) -> None:
        """Hand on what a block has; its stragglers are merged into it when they come."""
        del self._open[first]
        self._awaited[first] = OpenBlock(
            expected=block.expected - len(block.records),
            is_new=False,
            failed_runs=block.failed_runs,
        )
        self._hand_on(first, block)

    def _hand_on(self, first: int, block: OpenBlock) -> None:
        future = self._pool.submit(self._store, first, block.records, block.is_new)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def _store(self, first: int, records: dict[int, Record], is_new: bool) -> None:
        """Save one block, trying again while the store is out of reach."""
        give_up_at = self._clock() + GIVE_UP_SECONDS
        pause = 0.5
        while True:
            if self._give_up_at is not None:
                give_up_at = min(give_up_at, self._give_up_at)
            left = give_up_at - self._clock()
            try:
                info = self._save(
                    first, records, is_new=is_new, timeout=max(0.5, min(SAVE_SECONDS, left))
                )
            except StoreUnavailableError as error:
                trouble: StoreError = error
                if self._clock() + pause >= give_up_at or self._ending.is_set():
                    break
                logger.warning("block %s is not stored yet: %s", first, error)
                self._ending.wait(pause)
                pause = min(pause * 2, 10.0)
            except StoreError as error:
                trouble = error
                break
            else:
                self.blocks_written += 1
                self._on_stored(info)
                return
        for record in records.values():
            self.lost[record.outcome] += 1
        logger.error("block %s could not be stored: %s", first, trouble)
        self._on_trouble(str(trouble))


def next_try(failed_runs: int, now: datetime) -> datetime:
    """Say when a number that failed in so many runs in a row is worth asking again.

    One hour after the first, doubling to seven days.
    """
    return now + min(timedelta(hours=2 ** min(failed_runs - 1, 8)), timedelta(days=7))


def _postpone(record: Record, failed_runs: int) -> None:
    record.failed_runs = failed_runs
    record.next_try_at = next_try(failed_runs, record.fetched_at)
