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

    def prepare(self, wanted: int, now: float) -> int:
        """Count the attempts that could start now, up to `wanted`; due retries come first."""
        ready, waiting = self._ready, self._waiting
        while len(ready) < wanted and waiting and waiting[0][0] <= now:
            ready.append(heapq.heappop(waiting)[2])
        if len(ready) < wanted and len(waiting) < MAX_WAITING:
            self._fetch(wanted)
        return min(wanted, len(ready))

    def pop(self, count: int) -> list[Attempt]:
        """Return the next attempts, no more than `prepare` counted."""
        popleft = self._ready.popleft
        return [popleft() for _ in range(count)]

    def give_up_tried(self) -> list[Attempt]:
        """Return those that wait for another try, or could have it now; none of them comes again."""
        tried = [attempt for attempt in self._ready if attempt.requests]
        tried += [attempt for _, _, attempt in self._waiting]
        self._ready = deque(attempt for attempt in self._ready if not attempt.requests)
        self._waiting.clear()
        return tried

    @property
    def next_due(self) -> float | None:
        """When the next retry is due, None where none waits."""
        return self._waiting[0][0] if self._waiting else None

    @property
    def has_fresh(self) -> bool:
        """Whether a number that was never asked may still come."""
        return bool(self._jobs or self._ready)

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
