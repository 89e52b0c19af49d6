"""robots.txt, asked once per run and host: what may be crawled, and how slowly (RFC 9309)."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from crawler.engines.session import GuardedSession, Shared
from crawler.errors import StoppedError
from crawler.frontier.work import Supply
from crawler.source.source import Source, traits_of

PRODUCT = "song-crawler"
"""The name under which a robots.txt addresses us."""

MAX_REDIRECTS = 5
MAX_BYTES = 500 * 1024
"""What lies beyond is not read (RFC 9309, section 2.5)."""

_DENIALS_AT_ONCE = 1000


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

    def slowed(self, rate: float) -> float:
        """Give the pace, requests per second, that heeds `Crawl-delay`; 0 is no limit in both."""
        if self.crawl_delay == 0:
            return rate
        return min(rate or float("inf"), 1 / self.crawl_delay)


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
    session = GuardedSession(user_agent, Shared(ca_file), keeps_cookies=False, cut_bytes=MAX_BYTES)
    session.headers["Accept-Encoding"] = "identity"
    session.begin(time.monotonic() + seconds, lambda: True)
    with session:
        response = _follow(session, urljoin(source.url(0), "/robots.txt"))
    if 200 <= response.status_code < 300:
        return Robots(_text(response.content))
    return Robots()


class AllowedSupply:
    """A supply without the numbers whose pages robots.txt forbids; these are denied unasked."""

    def __init__(
        self, supply: Supply, source: Source, robots: Robots, on_denied: Callable[[Any], None]
    ) -> None:
        """Filter a supply; `on_denied` gets each forbidden number, under the frontier's lock."""
        self._supply, self._source, self._robots = supply, source, robots
        self._on_denied = on_denied
        self.exhausted = False

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


def _follow(session: GuardedSession, url: str) -> requests.Response:
    """Get an address, through redirects to http and https."""
    host = urlsplit(url).hostname
    for _ in range(1 + MAX_REDIRECTS):
        try:
            response = session.get(url, allow_redirects=False)
        except requests.RequestException as error:
            kind = session.returned[-1].error if session.returned else None
            raise _left_alone(host, kind or type(error).__name__) from None
        if response.status_code >= 500:
            raise _left_alone(host, f"http_{response.status_code}")
        location = response.headers.get("Location")
        if not (300 <= response.status_code < 400 and location):
            return response
        url = urljoin(url, location)
        if urlsplit(url).scheme not in ("http", "https"):
            return response
    return response


def _left_alone(host: str | None, kind: str) -> StoppedError:
    return StoppedError(
        "circuit", f"robots.txt of {host} could not be read ({kind}), so no page was asked for"
    )


def _text(body: bytes) -> str:
    """Decode a robots.txt; the last line of one that was cut is not whole, and left out."""
    if len(body) >= MAX_BYTES:
        body = body[: body.rfind(b"\n") + 1]
    return body.decode("utf-8-sig", "replace")
