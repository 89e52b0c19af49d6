"""What is known of numbers beyond the last found song that failed before: when they are due again."""

import contextvars
import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from crawler.errors import BlockFormatError
from crawler.plan.planned import Criteria
from crawler.record import Record
from crawler.store.block import BLOCK_SIZE, BlockInfo

logger = logging.getLogger("crawler")


class Failures(msgspec.Struct, frozen=True):
    """The failed numbers of one block.

    Attributes:
        postponed: Those that are not to be asked now.
        runs: In how many runs in a row they failed, by number.
    """

    postponed: AbstractSet[int] = frozenset()
    runs: Mapping[int, int] = {}


_NONE = Failures()


class KnownFailures:
    """Reads the blocks in which numbers failed, one at a time, in a thread of its own."""

    def __init__(
        self,
        listing: Mapping[int, BlockInfo],
        criteria: Criteria,
        read: Callable[[int], dict[int, Record]],
    ) -> None:
        """Prepare to look into a store's blocks; see `Scope`."""
        self._listing, self._criteria, self._read = listing, criteria, read
        self._reading: tuple[int, Future[Failures]] | None = None
        self._pool: ThreadPoolExecutor | None = None

    def of_block(self, first: int) -> Failures | None:
        """Tell which numbers of a block failed; None while it is being read: ask again soon.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        info = self._listing.get(first)
        if self._reading is not None and self._reading[0] == first:
            future = self._reading[1]
            return future.result() if future.done() else None
        if info is None or not info.failed:
            return _NONE
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "plan")
        run = contextvars.copy_context().run  # what is logged there has the request's trace
        self._reading = first, self._pool.submit(run, self._look_into, first)
        return None

    def close(self) -> None:
        """Let go of the reader."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _look_into(self, first: int) -> Failures:
        try:
            records = self._read(first)
        except BlockFormatError as error:
            logger.error("%s; its numbers are left out", error)  # noqa: TRY400 - no trace is needed
            return Failures(frozenset(range(first, first + BLOCK_SIZE)))
        failed = [record for record in records.values() if record.outcome == "failed"]
        return Failures(
            frozenset(record.song_num for record in failed if not self._criteria.wants(record)),
            {record.song_num: record.failed_runs for record in failed},
        )
