"""What is still to be done: numbers not asked yet, in order, and retries waiting for their time."""

import heapq
from collections import deque
from itertools import count

from crawler.frontier.work import Attempt, Job

MAX_WAITING = 10_000
"""With so many numbers waiting for a retry no fresh one is begun, so that memory stays bounded."""


class Backlog:
    """Fresh numbers of all jobs, which take turns, and a heap of retries by due time.

    Not safe in threads: the frontier holds its lock.
    """

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._ready: deque[Attempt] = deque()
        self._waiting: list[tuple[float, int, Attempt]] = []
        self._order = count()

    def add_job(self, job: Job) -> None:
        """Add one function over one list."""
        self._jobs.append(job)

    def wait_until(self, due: float, attempt: Attempt) -> None:
        """Put an attempt back, to be handed out at `due` or later."""
        heapq.heappush(self._waiting, (due, next(self._order), attempt))

    def put_first(self, attempts: list[Attempt]) -> None:
        """Put attempts back that were never sent: they come before all others."""
        self._ready.extendleft(reversed(attempts))

    def prepare(self, wanted: int, now: float, *, is_failing: bool = False) -> int:
        """Count the attempts that could start now, up to `wanted`.

        Due retries and fresh numbers share what is wanted, so that a stretch of bad pages, tried
        again and again, never keeps fresh numbers from being asked.

        Args:
            wanted: Attempts, > 0.
            now: Monotonic seconds.
            is_failing: Whether the last answer was a failure: a single one wanted is then fresh.
        """
        ready = self._ready
        short = wanted - len(ready)
        if short > 0:
            waiting = self._waiting
            if waiting and waiting[0][0] <= now:
                self._fetch_due(len(ready) + (short + (not is_failing)) // 2, now)
            if len(waiting) < MAX_WAITING:
                self._fetch(wanted)
            self._fetch_due(wanted, now)
        return min(wanted, len(ready))

    def pop(self, count: int) -> list[Attempt]:
        """Return the next attempts, no more than `prepare` counted."""
        popleft = self._ready.popleft
        return [popleft() for _ in range(count)]

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def has_fresh(self) -> bool:
        """Whether a number that was never asked may still come."""
        return bool(self._jobs or self._ready)

    def _fetch_due(self, wanted: int, now: float) -> None:
        ready, waiting = self._ready, self._waiting
        while len(ready) < wanted and waiting and waiting[0][0] <= now:
            ready.append(heapq.heappop(waiting)[2])

    def _fetch(self, wanted: int) -> None:
        """Fill up with fresh numbers, each job in its turn, until none has any at hand."""
        barren = 0
        while len(self._ready) < wanted and barren < len(self._jobs):
            job = self._jobs[0]
            share = -(-(wanted - len(self._ready)) // len(self._jobs))
            items = job.supply.take(share)
            self._ready.extend([Attempt(item, job) for item in items])
            if job.supply.exhausted:
                self._jobs.popleft()
            else:
                self._jobs.rotate(-1)
                barren = 0 if items else barren + 1
