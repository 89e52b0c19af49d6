"""Lanes, run in an executor and gathered; one that gets stuck in somebody's code is replaced."""

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import urldefrag, urljoin, urlsplit

from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import REDIRECTS, Reply, moved_to
from crawler.frontier.work import Job, PendingNumber
from crawler.settings.reading import contact_missing, is_loopback
from crawler.step1 import call_step1
from crawler.wire.answers import WireAnswer, detail_of, in_words, read_page
from crawler.wire.session import WireSession
from crawler.wire.transfer import WireRequest, page_request
from crawler.wire.wire import Wire

T = TypeVar("T")

MAX_HOPS = 3

_WATCH_SECONDS = 0.25
_STUCK_SECONDS = 0.5
"""How long after its deadline an attempt counts as stuck in code that cannot be interrupted."""


class Lane(Protocol):
    """One executor task that takes attempts from the frontier, and hands back replies."""

    @property
    def blocked_on(self) -> PendingNumber | None:
        """The attempt this lane's thread is stuck with at this moment, None if it cannot be."""

    def run(self, frontier: Frontier) -> None:
        """Work until the frontier has no attempt any more."""

    def give_up(self) -> None:
        """Give back what other lanes wait for: this one is stuck. Called from another thread."""


class WireLane:
    """The lane whose thread is the wire's own: it reads the pages of declared sources there."""

    blocked_on: PendingNumber | None = None

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def run(self, frontier: Frontier) -> None:
        """Have all attempts performed on the wire's thread."""
        self._wire.read_pages(frontier)

    def give_up(self) -> None:
        """Nothing: it cannot get stuck."""


class ThreadLane:
    """A thread of its own for anybody's code: step 1 functions, and classes that are a source."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._attempt: PendingNumber | None = None
        self._session: WireSession | None = None

    @property
    def blocked_on(self) -> PendingNumber | None:
        """The attempt under way: step 1 may never return from it."""
        return self._attempt

    def run(self, frontier: Frontier) -> None:
        """Perform attempts one by one until there are none, or until this lane was replaced."""
        try:
            while (attempt := frontier.next_attempt()) is not None:
                self._attempt = attempt
                reply = self._perform(attempt, frontier)
                self._attempt = None
                if attempt.is_abandoned:
                    return
                if reply is None:
                    frontier.put_back([attempt])
                else:
                    frontier.hand_back([reply])
        finally:
            if self._session is not None:
                self._session.close()

    def give_up(self) -> None:
        """Leave the room of its pages to others; the thread goes on until step 1 returns."""
        if self._session is not None:
            self._session.end()

    def _perform(self, attempt: PendingNumber, frontier: Frontier) -> Reply | None:
        """Return what came of an attempt; None when a pause began before it was sent."""
        deadline, pause = attempt.sent_at + self._wire.attempt_seconds, attempt.job.pause

        def may_send() -> bool:
            return pause.until <= time.monotonic()

        if attempt.job.source is not None:
            reply, sent = self._fetch(attempt, deadline, may_send)
        else:
            if self._session is None:
                self._session = WireSession(self._wire)
                self._session.enter_lane()
            self._session.begin(deadline, may_send, is_canary=attempt.is_canary)
            reply = call_step1(attempt, self._session)
            if self._wire.refusal is not None:
                raise self._wire.refusal
            if frontier.asked_url is None:
                seen = (each.request.url for each in self._session.returned if each.status)
                frontier.asked_url = next(seen, None)
            sent = self._session.sent
        granted = 0 if reply is None else 1
        if sent > granted:  # a function may ask several times, and libcurl repeats by itself
            is_source = attempt.job.source is not None
            frontier.charge(attempt, sent - granted, repeated=is_source)
        return reply

    def _fetch(
        self, attempt: PendingNumber, deadline: float, may_send: Callable[[], bool]
    ) -> tuple[Reply | None, int]:
        """Ask for a source's page; return the reply, and how often the request was sent."""
        try:
            request = page_request(attempt, self._wire.user_agent)
        except Exception as error:  # noqa: BLE001 - a source is anybody's code
            return Reply(attempt, error="function", detail=detail_of(in_words(error))), 0
        if self._wire.is_anonymous and not is_loopback(request.url):
            raise contact_missing(request.url)
        hops, sent = MAX_HOPS if attempt.job.traits.redirects == "follow" else 0, 0
        while True:
            request.deadline, request.may_send = deadline, may_send
            answer = self._wire.exchange(request)
            sent += answer.sent
            reply = None if answer.is_held else read_page(attempt, answer)
            self._wire.let_go(len(answer.body))
            target = _slug(reply, request.url, answer) if hops else None
            if reply is None or target is None:
                return reply, sent
            request, hops = WireRequest("GET", target, request.headers), hops - 1


def _slug(reply: Reply | None, url: str, answer: WireAnswer) -> str | None:
    """Return where a redirect within the host leads, None for none, or one to another number."""
    location = answer.headers.get("location") if answer.error is None else None
    if answer.status not in REDIRECTS or not location or reply is None or moved_to(reply):
        return None
    target = urldefrag(urljoin(url, location.strip())).url
    return target if urlsplit(target)[:2] == urlsplit(url)[:2] else None


def lanes_for(jobs: list[Job], wire: Wire) -> list[Callable[[], Lane]]:
    """Return what makes each lane of a run.

    Where every job is a declared source over numbers of ours, one lane reads all pages on the
    wire's thread. Anybody's code (a function, a class, a generator, a list of one's own) needs
    threads, one for each connection; then they read the pages of declared sources as well, so that
    all take what is due in turn.
    """
    if all(_reads_on_wire(job) for job in jobs):
        return [lambda: WireLane(wire)]
    return [lambda: ThreadLane(wire)] * wire.connections


def _reads_on_wire(job: Job) -> bool:
    """Whether a job runs no code but ours: its source, its numbers and its results."""
    is_ours = getattr(job.supply, "is_plain", True) and type(job.results) in (list, deque)
    return job.traits.reads_on_wire and is_ours


class LaneExecutor(concurrent.futures.Executor):
    """Runs each task in a daemon thread of its own.

    A lane lives as long as the run, so a pool would reuse nothing; and a thread stuck in somebody
    else's code must not keep the process from ending, as pool threads do.
    """

    def __init__(self) -> None:
        self._threads: list[tuple[threading.Thread, concurrent.futures.Future[Any]]] = []

    def submit(  # type: ignore[override]
        self, task: Callable[..., T], /, *args: Any
    ) -> concurrent.futures.Future[T]:
        """Start a thread; it sees the caller's context variables."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # a thread that runs cannot be cancelled
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=_fulfil, args=(future, run, task, *args), name="lane", daemon=True
        )
        self._threads.append((thread, future))
        thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Join the threads whose work is done; one that is stuck is left behind."""
        for thread, future in self._threads:
            if wait and future.done():
                thread.join(1.0)


def _fulfil(future: concurrent.futures.Future[Any], run: Callable[..., Any], *task: Any) -> None:
    try:
        result = run(*task)
    except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the lane
        future.set_exception(error)
    else:
        future.set_result(result)


async def gather_lanes(makers: list[Callable[[], Lane]], frontier: Frontier, wire: Wire) -> None:
    """Run lanes until the frontier has no more attempts, or the run is over; close the wire.

    Raises:
        Exception: What a lane raised, such as an error of the `append` of somebody's results.
    """
    frontier.connections = wire.connections
    slots = [_LaneSlot(make) for make in makers]
    executor = LaneExecutor()
    watch = asyncio.ensure_future(_watch(slots, frontier))
    tasks = [asyncio.ensure_future(_keep_lane(executor, slot, frontier)) for slot in slots]
    try:
        await asyncio.gather(*tasks)
    finally:
        frontier.finish()
        for task in (watch, *tasks):
            task.cancel()
        await asyncio.wait({watch, *tasks})  # a loop of the caller's must not find them pending
        wire.close()  # lets go of lanes that wait for an answer
        executor.shutdown()


class _LaneSlot:
    """The place of one lane, which is replaced when it gets stuck."""

    def __init__(self, make: Callable[[], Lane]) -> None:
        self.make, self.lane = make, make()
        self.given_up: asyncio.Future[None] | None = None

    def give_up(self) -> None:
        self.lane.give_up()
        if self.given_up is not None and not self.given_up.done():
            self.given_up.set_result(None)


async def _keep_lane(executor: LaneExecutor, slot: _LaneSlot, frontier: Frontier) -> None:
    """Run one lane to its end; put another in its place when it is given up."""
    loop = asyncio.get_running_loop()
    while True:
        running = loop.run_in_executor(executor, slot.lane.run, frontier)
        slot.given_up = loop.create_future()
        try:
            await asyncio.wait({running, slot.given_up}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
        finally:
            running.cancel()  # the thread goes on, but tells a loop that may be closed nothing
        if frontier.stopped_by is not None:
            return None
        slot.lane = slot.make()


async def _watch(slots: list[_LaneSlot], frontier: Frontier) -> None:
    """Look after the lanes: give up those that are stuck, and all when the grace time is over."""
    limit = frontier.policy.attempt_seconds + _STUCK_SECONDS
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        is_over = frontier.grace_left() <= 0
        for slot in slots:
            attempt = slot.lane.blocked_on
            if attempt is None or attempt.is_abandoned:
                continue
            if time.monotonic() - attempt.sent_at > limit:
                frontier.abandon(attempt)
                slot.give_up()
            elif is_over:
                slot.give_up()
