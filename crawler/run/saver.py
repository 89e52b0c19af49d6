"""The saver: brings blocks to the store in threads of its own, and counts what could not be saved."""

import contextvars
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Protocol

import msgspec

from crawler.errors import StoreError, StoreUnavailableError
from crawler.record import Record
from crawler.store.block import BlockInfo

logger = logging.getLogger("crawler")

SAVE_SECONDS = 30.0
"""Time for one try to save one block."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_LAST_SECONDS = 2.0
"""After the time for the last blocks is over, so much more for calls that are under way."""


class Save(Protocol):
    """Merges records into a block of the store."""

    def __call__(
        self, first: int, records: dict[int, Record], *, is_new: bool, timeout: float
    ) -> BlockInfo:
        """Save; `is_new` where no block is believed to be there."""


class _Parcel(msgspec.Struct, eq=False):
    """Records of one block on their way to the store."""

    first: int
    records: dict[int, Record]
    is_new: bool
    is_begun: bool = False
    is_settled: bool = False


class Saver:
    """Saves what it is handed, trying again while the store is out of reach.

    Attributes:
        blocks_written: Blocks saved so far.
        lost: Records by outcome that were given up: they are not in the store.
    """

    def __init__(
        self,
        save: Save,
        *,
        on_stored: Callable[[BlockInfo], None],
        on_trouble: Callable[[str], None],
        threads: int,
        give_up_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        """Prepare; see `Writer`. A block is given up after `give_up_seconds`."""
        self.blocks_written = 0
        self.lost: Counter[str] = Counter()
        self._save, self._on_stored, self._on_trouble = save, on_stored, on_trouble
        self._clock, self._sleep = clock, sleep or self._pause
        self._pool = ThreadPoolExecutor(threads, "store")
        self._pending: dict[int, _Parcel] = {}
        self._tickets = count()
        self._changed = threading.Condition()
        self._closing, self._ended = threading.Event(), threading.Event()
        self._give_up_seconds = give_up_seconds
        self._give_up_at = float("inf")

    @property
    def pending(self) -> int:
        """Blocks that wait for the store or are on their way."""
        return len(self._pending)

    def hand_on(self, first: int, records: dict[int, Record], *, is_new: bool) -> None:
        """Save a block soon; never waits. Called by one thread at a time."""
        if self._ended.is_set():
            self._lose(first, records, "the run has ended")
            return
        ticket, parcel = next(self._tickets), _Parcel(first, records, is_new)
        self._pending[ticket] = parcel
        run = contextvars.copy_context().run  # a line logged there belongs to the request's trace
        self._pool.submit(run, self._bring, ticket, parcel)

    def hurry(self, timeout: float) -> None:
        """Leave `timeout` seconds for all that is and will be handed on."""
        self._give_up_at = self._clock() + timeout
        self._closing.set()

    def close(self, timeout: float) -> None:
        """Wait for the store, at most `timeout` seconds; what is left then is given up."""
        self._wait_for_none(timeout)
        self._ended.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._give_up(lambda parcel: not parcel.is_begun)
        self._wait_for_none(_LAST_SECONDS)
        self._give_up(lambda _parcel: True)

    def _wait_for_none(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, seconds)

    def _give_up(self, which: Callable[[_Parcel], bool]) -> None:
        for ticket, parcel in list(self._pending.items()):
            if which(parcel):
                self._settle(ticket, None, "it was not stored in time")

    def _bring(self, ticket: int, parcel: _Parcel) -> None:
        info, trouble = None, "unexpected, see the log"
        parcel.is_begun = True
        try:
            info = self._save_in_time(parcel)
        except StoreError as error:
            trouble = str(error)
        except BaseException:  # nobody looks at the future, so it is told here
            logger.exception("saving block %s broke", parcel.first)
            raise
        finally:
            self._settle(ticket, info, trouble)

    def _save_in_time(self, parcel: _Parcel) -> BlockInfo:
        """Save one block, trying again while the store is out of reach.

        Raises:
            StoreError: It cannot be saved, or not in time.
        """
        began, pause = self._clock(), _FIRST_PAUSE
        while True:
            left = self._time_left(began)
            timeout = max(_FIRST_PAUSE, min(SAVE_SECONDS, left))
            try:
                return self._save(
                    parcel.first, parcel.records, is_new=parcel.is_new, timeout=timeout
                )
            except StoreUnavailableError as error:
                pause = _FIRST_PAUSE if self._closing.is_set() else pause
                if pause >= self._time_left(began) or self._ended.is_set():
                    raise
                logger.warning("block %s is not stored yet: %s", parcel.first, error)
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

    def _settle(self, ticket: int, info: BlockInfo | None, trouble: str) -> None:
        """Book what became of a block, once."""
        with self._changed:
            parcel = self._pending.get(ticket)
            if parcel is None or parcel.is_settled:
                return
            parcel.is_settled = True
        try:
            if info is not None:
                with self._changed:
                    self.blocks_written += 1
                self._on_stored(info)
            else:
                self._lose(parcel.first, parcel.records, trouble)
                self._on_trouble(trouble)
        finally:
            with self._changed:
                del self._pending[ticket]
                self._changed.notify_all()

    def _lose(self, first: int, records: dict[int, Record], why: str) -> None:
        with self._changed:
            self.lost.update(record.outcome for record in records.values())
        logger.error("block %s could not be stored: %s", first, why)
