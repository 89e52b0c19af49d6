"""What is done now and then beside a crawl: old blocks, progress, log lines, samples, status."""

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Self

import msgspec

from crawler.frontier.frontier import Frontier
from crawler.run.writer import Writer

logger = logging.getLogger("crawler")

TURN_SECONDS = 0.2
LOG_SECONDS = 10.0
STATUS_SECONDS = 60.0
END_SECONDS = 2.0
"""So long the end of a run waits for what is being told."""
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
    """Threads beside a run: one keeps time, and each that tells others something has its own.

    A listing that hangs or fails, or a progress bar that breaks, must neither delay the end that a
    signal asks for nor the writing of blocks that have waited long enough.
    """

    def __init__(
        self,
        frontier: Frontier,
        writer: Writer,
        *,
        stop_event: threading.Event,
        skipped: Callable[[], int],
        total: int | None,
        on_progress: Callable[[Progress], None] | None = None,
        on_status: Callable[[], None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            frontier: Closed when `stop_event` is set.
            writer: Told to write blocks that have waited long enough.
            stop_event: Ends the run early.
            skipped: Says how many numbers were left out so far.
            total: Numbers of the range, None where the end is not known.
            on_progress: Told several times a second where the run stands.
            on_status: Called once a minute, to write the status.
        """
        self.samples: list[Sample] = []
        self._frontier, self._writer, self._stop_event = frontier, writer, stop_event
        self._skipped, self._total = skipped, total
        self._on_progress = on_progress
        self._ended = threading.Event()
        self._started_at = time.monotonic()
        self._recent: list[tuple[float, int]] = [(self._started_at, 0)]
        self._sample_every = 1.0
        self._threads = [_thread("time", self._keep_time)]
        if on_progress is not None:
            self._threads.append(_thread("progress", self._every, TURN_SECONDS, self._report))
        if on_status is not None:
            self._threads.append(_thread("status", self._every, STATUS_SECONDS, on_status))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        give_up_at = time.monotonic() + END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        self._report()

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
        logged_at = sampled_at = self._started_at
        while not self._ended.wait(TURN_SECONDS):
            now = time.monotonic()
            if self._stop_event.is_set() and self._frontier.stopped_by is None:
                self._frontier.close("signal")
                self._writer.flush()
            self._writer.tick()
            self._recent = [*self._recent[-25:], (now, self._frontier.tally.requests)]
            if now - sampled_at >= self._sample_every:
                sampled_at = now
                self._sample(now)
            if now - logged_at >= LOG_SECONDS:
                logged_at = now
                self._log()

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        while not self._ended.wait(seconds):
            action()

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


def _thread(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    run = contextvars.copy_context().run  # a line logged there belongs to the request's trace
    return threading.Thread(target=run, args=(target, *args), name=name, daemon=True)
