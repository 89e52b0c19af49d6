"""What a run makes of robots.txt: numbers it leaves alone, a slower pace, or no run at all."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from crawler.engines.robots import AllowedSupply, Robots, asks_robots, read_robots
from crawler.errors import StoppedError
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import FAILURE_KINDS
from crawler.frontier.work import Supply
from crawler.record import Record
from crawler.settings.reading import Settings
from crawler.source.source import user_agent


class Heeding:
    """Asks robots.txt once for a run, where its source wants that."""

    def __init__(self, target: Any, settings: Settings, ca_file: str | None = None) -> None:
        """Ask, or do not.

        Args:
            target: The source, or a step 1 function, for which nothing is asked.
            settings: Whether to obey, and whom the site may ask back.
            ca_file: Certificate authorities to trust instead of the usual ones.
        """
        self._source, self._robots = target, Robots()
        self._stop: StoppedError | None = None
        if asks_robots(target, settings.robots):
            agent = user_agent(settings.contact)
            try:
                self._robots = read_robots(target, agent, ca_file=ca_file)
            except StoppedError as error:
                self._stop = error

    def slowed(self, shared: RateLimiter, max_rate: float | None) -> RateLimiter:
        """Return the shared pace, or a lower one of this run alone in front of it.

        Args:
            shared: The pace of all runs of the process.
            max_rate: What this run may have at most; robots.txt may ask for a longer delay.
        """
        rate = self._robots.slowed(max_rate or 0.0)
        return RateLimiter(rate, shared=shared) if rate else shared

    def apply(self, frontier: Frontier, supply: Supply, book: Callable[[Record], None]) -> Supply:
        """Leave out what is forbidden; close a run whose host must be left alone.

        Args:
            frontier: Of the run; its counts take in the numbers denied.
            supply: The run's numbers.
            book: Gets the record of each number denied, under the frontier's lock.
        """
        if self._stop is not None:
            frontier.stop(self._stop.stopped_by, str(self._stop))
        if not self._robots.has_rules:
            return supply

        def deny(song_num: int) -> None:
            frontier.tally.failed += 1
            frontier.tally.kinds["robots"] += 1
            now, detail = datetime.now(UTC), FAILURE_KINDS["robots"]
            book(Record(song_num, "failed", None, None, "robots", 0, now, detail=detail))

        return AllowedSupply(supply, self._source, self._robots, deny)
