"""The writer: gathers records into blocks and stores them beside the crawl, never stalling it."""

import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from crawler.errors import StoreError, StoreUnavailableError
from crawler.plan.planned import LONGEST_WAIT, PlannedBlock
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, BlockInfo

logger = logging.getLogger("crawler")

MAX_OPEN_BLOCKS = 16
"""With more blocks open the oldest is written with what it has, and merged with the rest later."""

MAX_PENDING_BLOCKS = 8
"""With so many blocks waiting for the store the frontier hands out no more."""

FLUSH_SECONDS = 60.0
"""A record waits at most this long for its block, so that a kill costs a minute of work."""

GIVE_UP_SECONDS = 120.0
"""A store that was out of reach for so long ends the run."""

SAVE_SECONDS = 30.0
"""Time for one try to save one block."""

_MICROSECOND = timedelta(microseconds=1)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_LAST_SECONDS = 2.0
"""After the time for the last blocks is over, so much more for calls that are under way."""


class Save(Protocol):
    """Merges records into a block of the store."""

    def __call__(
        self, first: int, records: dict[int, Record], *, is_new: bool, timeout: float
    ) -> BlockInfo:
        """Save; `is_new` where no block is believed to be there."""


class _Block(msgspec.Struct, eq=False):
    """A block on its way: how many records are expected, and those that have come."""

    first: int
    expected: int
    is_new: bool
    failed_runs: dict[int, int] = {}
    newest: dict[int, datetime] = {}
    records: dict[int, Record] = {}
    opened_at: float = 0.0
    is_begun: bool = False
    is_settled: bool = False


class Writer:
    """Takes records, in any order, and brings blocks to the store, trying again while it is away.

    `expect` and `add` are called under the frontier's lock, the rest by the run's own threads.

    Attributes:
        blocks_written: Blocks stored so far.
        lost: Records by outcome that were given up: the run made them, the store has them not.
    """

    def __init__(
        self,
        save: Save,
        *,
        on_stored: Callable[[BlockInfo], None],
        on_trouble: Callable[[str], None],
        threads: int = 1,
        give_up_seconds: float = GIVE_UP_SECONDS,
        max_pending_blocks: int = MAX_PENDING_BLOCKS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        pool: Executor | None = None,
    ) -> None:
        """Prepare to write.

        Args:
            on_stored: Called with each block stored, in a thread of the writer.
            on_trouble: Called with the reason when a block is given up, in a thread of the writer.
            give_up_seconds: A block is given up when it could not be saved for so long.
            sleep: How to wait so many seconds between two tries; by default until the run ends.
            pool: Where blocks are saved; by default threads of its own.
        """
        self.blocks_written = 0
        self.lost: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """Numbers that failed, by kind."""
        self._save, self._on_stored, self._on_trouble = save, on_stored, on_trouble
        self._give_up_seconds, self._give_up_at = give_up_seconds, float("inf")
        self._max_pending_blocks = max_pending_blocks
        self._clock, self._sleep = clock, sleep or self._pause
        self._proofs: dict[int, int] = {}
        self._awaited: dict[int, _Block] = {}
        self._open: dict[int, _Block] = {}
        self._lock = threading.Lock()  # of the blocks that are filled; the rest are on their way
        self._pool = pool or ThreadPoolExecutor(threads, "store")
        self._pending: list[_Block] = []
        self._changed = threading.Condition()
        self._closing, self._ended = threading.Event(), threading.Event()

    def prove(self, song_nums: Sequence[int], canary: int, _found_at: datetime) -> None:
        """Note the song that proves missing numbers, before their records come."""
        with self._lock:
            self._proofs.update(dict.fromkeys(song_nums, canary))

    def expect(self, block: PlannedBlock) -> None:
        """Note how many numbers of a block will get a record."""
        first = block.first
        with self._lock:
            known = self._open.get(first) or self._awaited.get(first)
            if known is None:
                known = self._awaited[first] = _Block(first, 0, block.is_new)
            known.expected += len(block.numbers)
            known.failed_runs = known.failed_runs | block.failed_runs
            known.newest = known.newest | block.newest

    def add(self, record: Record) -> None:
        """Take one record; its block is handed to the store when it is whole."""
        num = record.song_num
        first = num - num % BLOCK_SIZE
        with self._lock:
            block = self._open.get(first) or self._begin(first)
            if record.outcome == "failed":
                self.failures[record.error or "unknown"] += 1
                record.failed_runs = block.failed_runs.get(num, 0) + 1
                record.next_try_at = next_try(record.failed_runs, record.fetched_at)
            elif record.outcome == "missing":
                record.proof = self._proofs.pop(num, None)
            if num in block.newest:  # else the merge would keep the record from the future
                record.fetched_at = max(record.fetched_at, block.newest[num] + _MICROSECOND)
            block.records[num] = record
            if len(block.records) == block.expected:
                self._hand_on(block)

    def has_room(self) -> bool:
        """Whether the store keeps up: fewer than `max_pending_blocks` wait for it."""
        return len(self._pending) < self._max_pending_blocks

    def tick(self) -> None:
        """Write blocks whose oldest record has waited long enough."""
        self._write_before(self._clock() - FLUSH_SECONDS)

    def flush(self) -> None:
        """Write all that is there, whole or not."""
        self._write_before(self._clock())

    def close(self, timeout: float) -> None:
        """Write what is left and wait for the store, at most `timeout` seconds and a little."""
        self._hurry(timeout)
        self.flush()
        self._wait_for_none(timeout)
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._give_up(lambda block: not block.is_begun)
        self._wait_for_none(_LAST_SECONDS)
        self._give_up(lambda _block: True)

    def _hurry(self, timeout: float) -> None:
        """Leave `timeout` seconds for all that is and will be handed on."""
        self._give_up_at = self._clock() + timeout
        self._closing.set()

    # Filling blocks.

    def _begin(self, first: int) -> _Block:
        block = self._awaited.pop(first, None) or _Block(first, 0, is_new=False)
        block.opened_at = self._clock()
        self._open[first] = block
        if len(self._open) > MAX_OPEN_BLOCKS:
            self._write_partly(next(iter(self._open.values())))
        return block

    def _write_before(self, moment: float) -> None:
        with self._lock:
            for block in list(self._open.values()):
                if block.opened_at <= moment:
                    self._write_partly(block)

    def _write_partly(self, block: _Block) -> None:
        """Hand on what a block has; its stragglers are merged into it when they come."""
        first, left = block.first, block.expected - len(block.records)
        if left > 0:
            self._awaited[first] = _Block(first, left, False, block.failed_runs, block.newest)
        self._hand_on(block)

    # Bringing them to the store.

    def _hand_on(self, block: _Block) -> None:
        """Save a block soon; never waits. Called under `_lock`."""
        del self._open[block.first]
        if self._ended.is_set():
            self._lose(block, "the run has ended")
            return
        self._pending.append(block)
        run = contextvars.copy_context().run  # a line logged there belongs to the request's trace
        self._pool.submit(run, self._bring, block)

    def _wait_for_none(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)

    def _give_up(self, which: Callable[[_Block], bool]) -> None:
        for block in list(self._pending):
            if which(block):
                self._settle(block, None, "it was not stored in time")

    def _bring(self, block: _Block) -> None:
        info, trouble = None, "unexpected, see the log"
        block.is_begun = True
        try:
            info = self._save_in_time(block)
        except StoreError as error:
            trouble = str(error)
        except BaseException:  # nobody looks at the future, so it is told here
            logger.exception("saving block %s broke", block.first)
            raise
        finally:
            self._settle(block, info, trouble)

    def _save_in_time(self, block: _Block) -> BlockInfo:
        """Save one block, trying again while the store is out of reach.

        Raises:
            StoreError: It cannot be saved, or not in time.
        """
        began, pause, told = self._clock(), _FIRST_PAUSE, ""
        while True:
            left = self._time_left(began)
            timeout = max(_FIRST_PAUSE, min(SAVE_SECONDS, left))
            try:
                return self._save(block.first, block.records, is_new=block.is_new, timeout=timeout)
            except StoreUnavailableError as error:
                pause = _FIRST_PAUSE if self._closing.is_set() else pause
                if pause >= self._time_left(began) or self._ended.is_set():
                    raise
                if str(error) != told:
                    told = str(error)
                    logger.warning("block %s is not stored yet: %s", block.first, error)
            self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _time_left(self, began: float) -> float:
        return min(began + self._give_up_seconds, self._give_up_at) - self._clock()

    def _pause(self, seconds: float) -> None:
        """Sleep; the first word of an end wakes everybody for one more try, then pauses are short."""
        if self._closing.is_set():
            self._ended.wait(min(seconds, _FIRST_PAUSE))
        else:
            self._closing.wait(seconds)

    def _settle(self, block: _Block, info: BlockInfo | None, trouble: str) -> None:
        """Book what became of a block, once."""
        with self._changed:
            if block.is_settled:
                return
            block.is_settled = True
        try:
            if info is not None:
                with self._changed:
                    self.blocks_written += 1
                self._on_stored(info)
            else:
                self._lose(block, trouble)
                self._on_trouble(trouble)
        finally:
            with self._changed:
                self._pending.remove(block)
                self._changed.notify_all()

    def _lose(self, block: _Block, why: str) -> None:
        with self._changed:
            self.lost.update(record.outcome for record in block.records.values())
        logger.error("block %s could not be stored: %s", block.first, why)


def next_try(failed_runs: int, now: datetime) -> datetime:
    """Return when a number that failed in so many runs in a row is worth asking again.

    One hour after the first, doubling to seven days.
    """
    return now + min(timedelta(hours=2 ** min(failed_runs - 1, 8)), LONGEST_WAIT)
