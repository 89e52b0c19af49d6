"""A site and its lanes in simulated time, so that a crawl of minutes is tested in a moment."""

import heapq
import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, Job, PendingNumber, Policy
from crawler.record import Record

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

Answer = Callable[[PendingNumber, float], Reply]
"""What the site answers to an attempt that reaches it at a time."""


def found(attempt: PendingNumber, _now: float = 0.0) -> Reply:
    """Answer with the page."""
    return Reply(attempt, True, {"title": f"Song {attempt.song_num}"}, 200)


def status(number: int, **fields: Any) -> Answer:
    """Answer everything with one status."""
    return lambda attempt, _now: Reply(attempt, status=number, **fields)


class Clock:
    """Monotonic seconds and the time of day, moved by hand."""

    def __init__(self, *, wall: Callable[[float], datetime] | None = None) -> None:
        """Begin at 1,000 s, which is noon; `wall` tells another time of day for these seconds."""
        self.now = 1000.0
        self._wall = wall or (lambda now: NOON + timedelta(seconds=now - 1000))

    def __call__(self) -> float:
        """Seconds."""
        return self.now

    def wall(self) -> datetime:
        """The time of day."""
        return self._wall(self.now)


def job_over(
    items: Iterable[Any], results: Any = None, supply: Any = None, source: Any = None
) -> Job:
    """Make a job of a source over some items."""
    return Job(
        lambda *_: None,
        IterableSupply(items) if supply is None else supply,
        [] if results is None else results,
        object() if source is None else source,
        is_recorded=True,
    )


class Crawl:
    """A frontier with simulated lanes in front of a simulated site.

    Attributes:
        starts: When each attempt was handed out, seconds.
        sent: The number of each, in the same order.
        attempts: What was handed out, in the same order.
        on_replies: Told of replies before they are handed back.
        records: Each number's records, in the order of arrival.
    """

    def __init__(
        self,
        items: Iterable[Any] = (),
        *,
        connections: int = 64,
        latency: float = 0.1,
        answer: Answer = found,
        rate: float = 100.0,
        seed: int = 1,
        lateness: float = 0.0,
        clock: Clock | None = None,
        rate_limiter: RateLimiter | None = None,
        policy: Policy | None = None,
        supply: Any = None,
        source: Any = None,
        on_record: Callable[[Record], None] | None = None,
        **options: Any,
    ) -> None:
        """Prepare; `lateness` is the most by which a lane wakes too late, seconds."""
        self.clock = clock or Clock()
        self.random = random.Random(seed)
        self.rate_limiter = rate_limiter or RateLimiter(rate)
        self.records: dict[Any, list[Record]] = {}
        self.starts: list[float] = []
        self.sent: list[Any] = []
        self.attempts: list[PendingNumber] = []
        self.frontier = Frontier(
            policy,
            rate_limiter=self.rate_limiter,
            clock=self.clock,
            wall=self.clock.wall,
            uniform=self.random.uniform,
            on_record=self._note,
            **options,
        )
        self.frontier.add_job(job_over(items, supply=supply, source=source))
        self.answer, self.latency, self.lateness = answer, latency, lateness
        self.connections = connections
        self.is_over = False
        self.on_replies: Callable[[list[Reply]], None] = lambda _replies: None
        self._on_record = on_record
        self._order = count()
        self._flying: list[tuple[float, int, Reply]] = []
        self.wakes_at = self.clock.now

    def _note(self, record: Record) -> None:
        self.records.setdefault(record.song_num, []).append(record)
        if self._on_record is not None:
            self._on_record(record)

    @property
    def asked(self) -> list[Any]:
        """The numbers that were handed out, canaries left out."""
        return [attempt.song_num for attempt in self.attempts if not attempt.is_canary]

    @property
    def outcomes(self) -> dict[Any, str]:
        """The outcome of each number that has exactly one record."""
        return {num: only[0].outcome for num, only in self.records.items() if len(only) == 1}

    def turn(self) -> None:
        """Do what a lane does when it wakes: hand back what came, take what is due."""
        now = self.clock.now
        replies = []
        while self._flying and self._flying[0][0] <= now:
            replies.append(heapq.heappop(self._flying)[2])
        if replies:
            self.on_replies(replies)
            self.frontier.hand_back(replies)
        wait: float | None = 0.5
        if len(self._flying) < self.connections:
            attempts, wait = self.frontier.take(self.connections - len(self._flying))
            for attempt in attempts:
                self.starts.append(now)
                self.sent.append(attempt.song_num)
                self.attempts.append(attempt)
                arrives = now + self.latency * self.random.uniform(0.5, 1.0)
                landing = (arrives, next(self._order), self.answer(attempt, now))
                heapq.heappush(self._flying, landing)
        if wait is None and not self._flying:
            self.is_over = True
            return
        wakes_at = now + (0.5 if wait is None else wait)
        if self._flying:
            wakes_at = min(wakes_at, self._flying[0][0])
        self.wakes_at = wakes_at + self.random.uniform(0.0, self.lateness)

    def run(self, seconds: float = 1e6) -> "Crawl":
        """Crawl until the run is over, or so many seconds have passed."""
        return run_together([self], seconds)[0]


def run_together(crawls: list[Crawl], seconds: float = 1e6) -> list[Crawl]:
    """Run crawls that share one clock side by side."""
    clock = crawls[0].clock
    end = clock.now + seconds
    while running := [crawl for crawl in crawls if not crawl.is_over]:
        first = min(running, key=lambda crawl: crawl.wakes_at)
        if first.wakes_at > end:
            clock.now = end
            break
        clock.now = max(clock.now, first.wakes_at)
        first.turn()
    return crawls


def most_in_a_second(starts: list[float]) -> int:
    """Count the starts in the fullest second, wherever it begins."""
    most = begin = 0
    for end, start in enumerate(starts):
        while start - starts[begin] >= 1.0 - 1e-9:
            begin += 1
        most = max(most, end - begin + 1)
    return most
