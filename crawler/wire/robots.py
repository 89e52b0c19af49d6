"""robots.txt, asked once per run and host: what may be crawled, and how slowly (RFC 9309)."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

from crawler.errors import StoppedError
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import FAILURE_KINDS
from crawler.frontier.work import Supply
from crawler.record import Record
from crawler.settings.settings import Settings
from crawler.source.source import Source, traits_of, user_agent
from crawler.wire.answers import WireAnswer
from crawler.wire.transfer import WireRequest, exact_lines
from crawler.wire.wire import Wire

PRODUCT = "song-crawler"
"""The name under which a robots.txt addresses us."""

MAX_REDIRECTS = 5
MAX_BYTES = 500 * 1024
"""What lies beyond is not read (RFC 9309, section 2.5)."""

_DENIALS_AT_ONCE = 1000


class RobotsPolicy:
    """What a run makes of robots.txt: numbers it leaves alone, a slower pace, or no run at all."""

    def __init__(self, target: Any, settings: Settings) -> None:
        """Ask once, where the source wants that.

        Args:
            target: The source, or a step 1 function, for which nothing is asked.
            settings: Whether to obey, whom the site may ask back, and whom to trust.
        """
        self._source, self._robots = target, Robots()
        self._stop: StoppedError | None = None
        if asks_robots(target, settings.robots):
            agent = user_agent(settings.contact)
            try:
                self._robots = read_robots(target, agent, ca_file=settings.ca_file)
            except StoppedError as error:
                self._stop = error

    def slowed(
        self, shared: RateLimiter, max_rate: float | None, *, share: float = 1.0
    ) -> RateLimiter:
        """Return the shared pace, or a lower one of this run alone in front of it.

        Args:
            shared: The pace of all runs of the process.
            max_rate: What this run may have at most; robots.txt may ask for a longer delay.
            share: What part of the host's pace is ours: one by the number of instances.
        """
        rate = self._robots.slowed(max_rate or 0.0, share=share)
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


class Robots:
    """What one host's robots.txt lets us do.

    Attributes:
        has_rules: Whether there is anything to heed.
        crawl_delay: Seconds from one request to the next that the host asks for, 0 where none.
    """

    def __init__(self, text: str = "") -> None:
        """Read the rules; an empty text allows everything."""
        self.has_rules, self.crawl_delay = bool(text), 0.0
        if text:
            # Here alone: only a source of web pages needs it.
            from protego import Protego

            self._rules = Protego.parse(text)
            self.crawl_delay = max(0.0, self._rules.crawl_delay(PRODUCT) or 0.0)

    def allows(self, url: str) -> bool:
        """Whether we may ask for an address."""
        return not self.has_rules or self._rules.can_fetch(url, PRODUCT)

    def slowed(self, rate: float, *, share: float = 1.0) -> float:
        """Return the pace, requests per second, that heeds `Crawl-delay`; 0 is no limit in both."""
        if self.crawl_delay == 0:
            return rate
        return min(rate or float("inf"), share / self.crawl_delay)


def asks_robots(source: Any, setting: str | None) -> bool:
    """Whether robots.txt is to be asked: as `CRAWLER_ROBOTS` says, else as the source does.

    A step 1 function chooses its addresses itself, one by one: there is nothing to ask for it.
    """
    if not isinstance(source, Source):
        return False
    return traits_of(source).robots if setting is None else setting == "obey"


def read_robots(
    source: Source,
    user_agent: str,
    *,
    seconds: float = 15.0,
    ca_file: str | None = None,
) -> Robots:
    """Ask a source's host for its robots.txt.

    Up to five redirects are followed, also to other hosts; none of the source's headers is sent.
    A 4xx, or more redirects, means that everything is allowed.

    Args:
        source: Whose addresses are to be asked for; all of one host.
        user_agent: Whom the site sees.
        seconds: Deadline for all of it.
        ca_file: Replaces the usual certificate authorities.

    Raises:
        StoppedError: The host failed, so that it must be left alone; `stopped_by` is `circuit`.

    Source: RFC 9309, sections 2.3.1 and 2.5.
    """
    with Wire(1, user_agent=user_agent, attempt_seconds=seconds, ca_file=ca_file) as wire:
        answer = _follow(wire, urljoin(source.url(0), "/robots.txt"))
    if 200 <= (answer.status or 0) < 300:
        return Robots(_text(answer.body))
    return Robots()


class AllowedSupply:
    """A supply without the numbers whose pages robots.txt forbids; these are denied unasked."""

    def __init__(
        self, supply: Supply, source: Source, robots: Robots, on_denied: Callable[[Any], None]
    ) -> None:
        """Filter a supply; `on_denied` gets each forbidden number, under the frontier's lock."""
        self._supply, self._source, self._robots = supply, source, robots
        self._on_denied = on_denied
        self.exhausted, self.read_ahead = False, supply.read_ahead

    def take(self, wanted: int) -> list[Any]:
        """Give allowed numbers, in order; none while a long run of forbidden ones goes by."""
        allowed: list[Any] = []
        looked_at = 0
        while len(allowed) < wanted and looked_at < _DENIALS_AT_ONCE:
            items = self._supply.take(wanted - len(allowed))
            if not items:
                break
            looked_at += len(items)
            for item in items:
                if self._robots.allows(self._source.url(item)):
                    allowed.append(item)
                else:
                    self._on_denied(item)
        self.exhausted = self._supply.exhausted
        return allowed


def _follow(wire: Wire, url: str) -> WireAnswer:
    """Get an address, through redirects to http and https."""
    host, deadline = urlsplit(url).hostname, time.monotonic() + wire.attempt_seconds
    lines = exact_lines([("User-Agent", wire.user_agent), ("Accept-Encoding", "identity")])
    for _ in range(1 + MAX_REDIRECTS):
        answer = wire.exchange(WireRequest("GET", url, lines, deadline, cut_bytes=MAX_BYTES))
        if answer.error is not None or answer.status is None:
            raise _left_alone(host, answer.error or "timeout")
        if answer.status >= 500:
            raise _left_alone(host, f"http_{answer.status}")
        location = answer.headers.get("location")
        if not (300 <= answer.status < 400 and location):
            return answer
        url = urljoin(url, location)
        if urlsplit(url).scheme not in ("http", "https"):
            return answer
    return answer


def _left_alone(host: str | None, kind: str) -> StoppedError:
    return StoppedError(
        "circuit", f"robots.txt of {host} could not be read ({kind}), so no page was asked for"
    )


def _text(body: bytes) -> str:
    """Decode a robots.txt; the last line of one that was cut is not whole, and left out."""
    if len(body) >= MAX_BYTES:
        body = body[: body.rfind(b"\n") + 1]
    return body.decode("utf-8-sig", "replace")
