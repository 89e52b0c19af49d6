"""The watcher of `control.json`: what runs on one store tell each other, read every few seconds."""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Self

from crawler.errors import StoreError
from crawler.frontier.frontier import Frontier
from crawler.store import control
from crawler.store.contract import Store

logger = logging.getLogger("crawler")

CONTROL_SECONDS = 5.0
"""How often `control.json` is looked at: a stop order is obeyed within 10 s."""

SAME_PAUSE_SECONDS = 1.0
"""A pause that ends less than this after one already told is the same one."""


class ControlWatcher:
    """A thread beside a run: obeys stop orders, keeps the pauses of others, publishes its own."""

    def __init__(
        self,
        frontier: Frontier,
        store: Store,
        *,
        seen_stop_id: str | None,
        every_seconds: float = CONTROL_SECONDS,
        canaries: list[int] | None = None,
    ) -> None:
        """Prepare.

        Args:
            frontier: Stopped by a stop order, held back by a pause.
            store: Where `control.json` lies.
            seen_stop_id: The stop order that stood before the run began.
            every_seconds: How often it is looked at.
            canaries: Gets the song that other runs publish there.
        """
        self._every_seconds = every_seconds
        self._frontier, self._store, self._seen_stop_id = frontier, store, seen_stop_id
        self._news, self._lock = threading.Event(), threading.Lock()
        self._published_until = 0.0
        self._unpublished = 0.0  # end of a pause that the store does not have yet
        self._canaries = [] if canaries is None else canaries
        self._found: int | None = None  # a song that the store does not name yet
        self._has_canary = False
        self._kept_until: datetime | None = None
        self._ended = False
        run = contextvars.copy_context().run  # a line logged there belongs to the request's trace
        self._thread = threading.Thread(target=run, args=(self._run,), name="control", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._news.set()
        self._thread.join(2.0)

    def publish_canary(self, song_num: int) -> None:
        """Name a song that is there for the runs beside this one; never waits."""
        if not self._has_canary:
            self._found = song_num
            self._news.set()

    def publish_pause(self, seconds: float) -> None:
        """Pass a pause the site asked for on to the other instances; never waits.

        Answers that were under way when it began ask for the same pause: they are not news.
        """
        until = time.monotonic() + seconds
        if until < self._published_until + SAME_PAUSE_SECONDS:
            return
        self._published_until = until
        logger.warning(
            "the site limits us: paused until %s",
            f"{datetime.now().astimezone() + timedelta(seconds=seconds):%H:%M:%S}",
            extra={"event": "paused", "fields": {"seconds": seconds}},
        )
        with self._lock:
            self._unpublished = max(until, self._unpublished)
        self._news.set()

    def keep_pause(self, order: control.Control) -> None:
        """Keep the pause that stands, also one that began before this run; each of them once.

        The frontier's clock runs evenly, but the time of day may be set back: read again and again
        by it, a pause of 2 s would last for hours.
        """
        if order.pause_until == self._kept_until:
            return
        self._kept_until = order.pause_until
        left = control.pause_left(order, now=datetime.now(UTC))
        if left:
            self._frontier.hold(left.total_seconds())

    def keep_canary(self, order: control.Control) -> None:
        """Learn of the song that a run has published."""
        if order.canary is not None:
            self._has_canary = True
            if order.canary not in self._canaries:
                self._canaries.insert(0, order.canary)  # before what the user named

    def _run(self) -> None:
        look_at = time.monotonic() + self._every_seconds
        while not self._ended:
            self._news.wait(max(0.0, look_at - time.monotonic()))
            self._news.clear()
            self._guarded(self._pass_on)
            if time.monotonic() >= look_at:
                self._guarded(self._obey)
                look_at = time.monotonic() + self._every_seconds

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except StoreError as error:
            logger.warning("control.json cannot be used at present: %s", error)

    def _pass_on(self) -> None:
        if self._found is not None:
            self.keep_canary(control.publish_canary(self._store, self._found))
            self._found = None
        if not (ends_at := self._unpublished):
            return
        now = datetime.now(UTC)
        until = now + timedelta(seconds=ends_at - time.monotonic())
        if control.order_pause(self._store, until, now=now).pause_until == until:
            self._kept_until = until  # the site told this run first, so its frontier holds already
        with self._lock:
            if self._unpublished == ends_at:  # none that is longer came meanwhile
                self._unpublished = 0.0

    def _obey(self) -> None:
        order = control.read_control(self._store, timeout=CONTROL_SECONDS)
        if order.stop_id is not None and order.stop_id != self._seen_stop_id:
            self._frontier.stop("stop_order")
        self.keep_pause(order)
        self.keep_canary(order)
