"""The contract of an engine: how lanes perform attempts. All policy stays in the frontier.

A new engine is a class with these names and nothing else of the crawl. A lane loops: ask the
frontier for attempts, perform them, hand back one `Reply` each. It never retries, waits, paces
or judges; it keeps each attempt within its deadline, follows no redirect, and keeps every body
whole and bounded (`crawler.engines.body`). `tests/test_engines.py` holds for every engine.
"""

from typing import Protocol

from crawler.frontier.frontier import Frontier
from crawler.frontier.work import Attempt


class Lane(Protocol):
    """One executor task that performs attempts."""

    @property
    def blocked_on(self) -> Attempt | None:
        """The attempt this lane's thread is stuck with at this moment, None if it cannot be."""

    def run(self, frontier: Frontier) -> None:
        """Work until the frontier has no attempt any more; close what was opened."""

    def give_up(self) -> None:
        """Give back what other lanes wait for: this one is stuck. Called from another thread."""


class Engine(Protocol):
    """How lanes do HTTP.

    Attributes:
        name: The word of `CRAWLER_ENGINE`.
        lane_count: Lanes to run at once.
    """

    name: str
    lane_count: int

    def open_lane(self) -> Lane:
        """Make one lane, not yet running; called again for a lane that got stuck."""
