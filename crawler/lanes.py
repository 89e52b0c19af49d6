"""Lanes, run in an executor and gathered; one that gets stuck in somebody's code is replaced."""

import asyncio
import time

from crawler.engines.contract import Engine, Lane
from crawler.frontier.frontier import Frontier
from crawler.loops import LaneExecutor

_WATCH_SECONDS = 0.25
_STUCK_SECONDS = 0.5
"""How long after its deadline an attempt counts as stuck in code that cannot be interrupted."""


async def gather_lanes(engine: Engine, frontier: Frontier) -> None:
    """Run `engine.lane_count` lanes until the frontier has no more attempts, or the run is over.

    Raises:
        Exception: What a lane raised, such as an error of the `append` of somebody's results.
    """
    posts = [_Post(engine.open_lane()) for _ in range(engine.lane_count)]
    executor = LaneExecutor()
    watch = asyncio.ensure_future(_watch(posts, frontier))
    tasks = [asyncio.ensure_future(_keep_lane(executor, engine, post, frontier)) for post in posts]
    try:
        await asyncio.gather(*tasks)
    finally:
        frontier.finish()
        for task in (watch, *tasks):
            task.cancel()
        await asyncio.wait({watch, *tasks})  # a loop of the caller's must not find them pending
        executor.shutdown()


class _Post:
    """The place of one lane, which is replaced when it gets stuck."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.given_up: asyncio.Future[None] | None = None

    def give_up(self) -> None:
        self.lane.give_up()
        if self.given_up is not None and not self.given_up.done():
            self.given_up.set_result(None)


async def _keep_lane(
    executor: LaneExecutor, engine: Engine, post: _Post, frontier: Frontier
) -> None:
    """Run one lane to its end; put another in its place when it is given up."""
    loop = asyncio.get_running_loop()
    while True:
        running = loop.run_in_executor(executor, post.lane.run, frontier)
        post.given_up = loop.create_future()
        try:
            await asyncio.wait({running, post.given_up}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
        finally:
            running.cancel()  # the thread goes on, but tells a loop that may be closed nothing
        if frontier.stopped_by is not None:
            return None
        post.lane = engine.open_lane()


async def _watch(posts: list[_Post], frontier: Frontier) -> None:
    """Look after the lanes: give up those that are stuck, and all when the grace time is over."""
    limit = frontier.policy.attempt_seconds + _STUCK_SECONDS
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        is_over = frontier.grace_left() <= 0
        for post in posts:
            attempt = post.lane.blocked_on
            if attempt is None or attempt.is_abandoned:
                continue
            if time.monotonic() - attempt.sent_at > limit:
                frontier.abandon(attempt)
                post.give_up()
            elif is_over:
                post.give_up()
