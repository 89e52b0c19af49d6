"""What goes on beside a crawl: stop orders, pauses of others, old blocks, progress, samples."""

import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec

from crawler import control
from crawler.errors import StoreError
from crawler.frontier import Frontier
from crawler.store import Store
from crawler.writer import Writer

logger = logging.getLogger("crawler")

TURN_SECONDS = 0.2
CONTROL_SECONDS = 5.0
"""How often `control.json` is looked at: a stop order is obeyed within 10 s."""

SAME_PAUSE_SECONDS = 1.0
"""A pause that ends less than this after one already told is the same one."""

LOG_SECONDS = 10.0
STATUS_SECONDS = 60.0
MAX_SAMPLES = 240


class Progress(msgspec.Struct, frozen=True):
    """Where a run stands: numbers by outcome, requests, seconds since its start.

    Attributes:
        total: Numbers of the range, None where the end is not known yet.
        rate: Requests per second over the last few seconds.
        paused: Seconds until a shared pause ends, 0 where there is none.
    """

    found: int
    missing: int
    failed: int
    skipped: int
    total: int | None
    requests: int
    retries: int
    seconds: float
    rate: float
    paused: float


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One point of a run's course: counts since its start, at so many seconds."""

    seconds: float
    requests: int
    found: int
    missing: int
    failed: int
    retries: int
    latency_seconds: float
    paused: float


class Housekeeper:
    """Two threads beside a run: one keeps time, the other talks to the store's `control.json`."""

    def __init__(
        self,
        frontier: Frontier,
        writer: Writer,
        store: Store,
        *,
        seen_stop_id: str | None,
        stop_event: threading.Event,
        skipped: Callable[[], int],
        total: int | None,
        on_progress: Callable[[Progress], None] | None = None,
        on_status: Callable[[], None] | None = None,
    ) -> None:
        """Prepare; `seen_stop_id` is the stop order that stood before the run began."""
        self.samples: list[Sample] = []
        self._frontier, self._writer, self._store = frontier, writer, store
        self._seen_stop_id, self._stop_event = seen_stop_id, stop_event
        self._skipped, self._total = skipped, total
        self._on_progress, self._on_status = on_progress, on_status
        self._pauses: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._told_until = 0.0
        self._ended = threading.Event()
        self._started_at = time.monotonic()
        self._recent: list[tuple[float, int]] = [(self._started_at, 0)]
        self._sample_every = 1.0
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._keep_time, "time"), (self._keep_contact, "control"))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pauses.put(None)
        for thread in self._threads:
            thread.join(2.0)
        self._report()

    def tell_pause(self, seconds: float) -> None:
        """Pass a pause the site asked for on to the other instances; never waits.

        Answers that were under way when it began ask for the same pause: they are not news.
        """
        until = time.monotonic() + seconds
        if until < self._told_until + SAME_PAUSE_SECONDS:
            return
        self._told_until = until
        logger.warning(
            "the site asked for a pause of %.0f s",
            seconds,
            extra={"event": "paused", "fields": {"seconds": seconds}},
        )
        self._pauses.put(seconds)

    def progress(self) -> Progress:
        """Say where the run stands."""
        now, tally = time.monotonic(), self._frontier.tally
        since, before = self._recent[0]
        return Progress(
            found=tally.found,
            missing=tally.missing,
            failed=tally.failed,
            skipped=self._skipped(),
            total=self._total,
            requests=tally.requests,
            retries=tally.retries,
            seconds=now - self._started_at,
            rate=(tally.requests - before) / max(now - since, 1e-3),
            paused=max(0.0, self._frontier.resume_at - now),
        )

    def _keep_time(self) -> None:
        logged_at = status_at = sampled_at = self._started_at
        while not self._ended.wait(TURN_SECONDS):
            now = time.monotonic()
            if self._stop_event.is_set() and self._frontier.stopped_by is None:
                self._frontier.close("signal")
                self._writer.flush()
            self._writer.tick()
            self._recent = [*self._recent[-25:], (now, self._frontier.tally.requests)]
            self._report()
            if now - sampled_at >= self._sample_every:
                sampled_at = now
                self._sample(now)
            if now - logged_at >= LOG_SECONDS:
                logged_at = now
                self._log()
            if now - status_at >= STATUS_SECONDS and self._on_status is not None:
                status_at = now
                self._on_status()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.progress())

    def _log(self) -> None:
        progress = self.progress()
        logger.info(
            "%d found, %d missing, %d failed, %.1f requests/s",
            progress.found,
            progress.missing,
            progress.failed,
            progress.rate,
            extra={"event": "progress", "fields": msgspec.structs.asdict(progress)},
        )

    def _sample(self, now: float) -> None:
        """Note the run's course; when there are too many points every second one is dropped."""
        tally = self._frontier.tally
        self.samples.append(
            Sample(
                round(now - self._started_at, 1),
                tally.requests,
                tally.found,
                tally.missing,
                tally.failed,
                tally.retries,
                round(tally.latency_seconds, 3),
                round(max(0.0, self._frontier.resume_at - now), 1),
            )
        )
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = self.samples[1::2]
            self._sample_every *= 2

    def _keep_contact(self) -> None:
        look_at = time.monotonic() + CONTROL_SECONDS
        while not self._ended.is_set():
            try:
                seconds = self._pauses.get(timeout=max(0.0, look_at - time.monotonic()))
            except queue.Empty:
                look_at = time.monotonic() + CONTROL_SECONDS
                self._guarded(self._obey)
            else:
                if seconds is not None:
                    until = datetime.now(UTC) + timedelta(seconds=seconds)
                    self._guarded(functools.partial(self._pass_on, until))

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except StoreError as error:
            logger.warning("control.json cannot be used at present: %s", error)

    def _pass_on(self, until: datetime) -> None:
        control.order_pause(self._store, until, now=datetime.now(UTC))

    def _obey(self) -> None:
        order, _ = control.read_control(self._store, timeout=CONTROL_SECONDS)
        if order.stop_id is not None and order.stop_id != self._seen_stop_id:
            self._frontier.close("stop_order")
        if order.pause_until is not None:
            left = (order.pause_until - datetime.now(UTC)).total_seconds()
            if left > 0:
                self._frontier.hold(left)
