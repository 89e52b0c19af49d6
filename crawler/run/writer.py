"""The writer: gathers records into blocks and stores them beside the crawl, never stalling it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from crawler.plan.planned import PlannedBlock
from crawler.record import Record
from crawler.run.saver import Save, Saver
from crawler.store.block import BLOCK_SIZE, BlockInfo

__all__ = ["FLUSH_SECONDS", "GIVE_UP_SECONDS", "MAX_OPEN_BLOCKS", "MAX_PENDING_BLOCKS"]
__all__ += ["Save", "Writer", "next_try"]

MAX_OPEN_BLOCKS = 16
"""With more blocks open the oldest is written with what it has, and merged with the rest later."""

MAX_PENDING_BLOCKS = 8
"""With so many blocks waiting for the store the frontier hands out no more."""

FLUSH_SECONDS = 60.0
"""A record waits at most this long for its block, so that a kill costs a minute of work."""

GIVE_UP_SECONDS = 120.0
"""A store that was out of reach for so long ends the run."""


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
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            save: Merges records into a block of the store.
            on_stored: Told of each block stored, in a thread of the writer.
            on_trouble: Told why, when a block is given up, in a thread of the writer.
            threads: Blocks saved at once.
            clock: Monotonic seconds.
            sleep: How to wait so many seconds between two tries; by default until the run ends.
        """
        self._saver = Saver(
            save,
            on_stored=on_stored,
            on_trouble=on_trouble,
            threads=threads,
            give_up_seconds=GIVE_UP_SECONDS,
            clock=clock,
            sleep=sleep,
        )
        self._clock = clock
        self._awaited: dict[int, OpenBlock] = {}
        self._open: dict[int, OpenBlock] = {}
        self._lock = threading.Lock()

    @property
    def blocks_written(self) -> int:
        """Blocks stored so far."""
        return self._saver.blocks_written

    @property
    def lost(self) -> Counter[str]:
        """Records by outcome that are not in the store, though the run made them."""
        return self._saver.lost

    def expect(self, block: PlannedBlock) -> None:
        """Learn how many numbers of a block will get a record."""
        count = len(block.numbers)
        with self._lock:
            known = self._open.get(block.first) or self._awaited.get(block.first)
            if known is not None:
                known.expected += count
                known.failed_runs = known.failed_runs | block.failed_runs
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
                self._saver.hand_on(first, block.records, is_new=block.is_new)

    def has_room(self) -> bool:
        """Whether the store keeps up."""
        return self._saver.pending < MAX_PENDING_BLOCKS

    def tick(self) -> None:
        """Write blocks whose oldest record has waited long enough."""
        self._write_before(self._clock() - FLUSH_SECONDS)

    def flush(self) -> None:
        """Write all that is there, whole or not."""
        self._write_before(self._clock())

    def close(self, timeout: float) -> None:
        """Write what is left and wait for the store, at most `timeout` seconds and a little."""
        self._saver.hurry(timeout)
        self.flush()
        self._saver.close(timeout)

    def _begin(self, first: int) -> OpenBlock:
        block = self._awaited.pop(first, None) or OpenBlock(0, is_new=False, failed_runs={})
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
        left = block.expected - len(block.records)
        if left > 0:
            self._awaited[first] = OpenBlock(left, is_new=False, failed_runs=block.failed_runs)
        self._saver.hand_on(first, block.records, is_new=block.is_new)


def next_try(failed_runs: int, now: datetime) -> datetime:
    """Say when a number that failed in so many runs in a row is worth asking again.

    One hour after the first, doubling to seven days.
    """
    return now + min(timedelta(hours=2 ** min(failed_runs - 1, 8)), timedelta(days=7))


def _postpone(record: Record, failed_runs: int) -> None:
    record.failed_runs = failed_runs
    record.next_try_at = next_try(failed_runs, record.fetched_at)
