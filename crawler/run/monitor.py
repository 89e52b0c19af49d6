"""What goes on beside a crawl: `control.json` obeyed, old blocks written, progress, log, status."""

import contextlib
import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self

import msgspec

from crawler.answer import Answer
from crawler.errors import StoreError
from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import FAILURE_KINDS
from crawler.run.progress import Progress
from crawler.run.writer import Writer
from crawler.store import control
from crawler.store.contract import Store

logger = logging.getLogger("crawler")

TURN_SECONDS = 0.2
LOG_SECONDS = 10.0
STATUS_SECONDS = 60.0
END_SECONDS = 2.0
"""So long the end of a run waits for what is being told."""
MAX_SAMPLES = 240

CONTROL_SECONDS = 5.0
"""How often `control.json` is looked at: a stop order is obeyed within 10 s."""

SAME_PAUSE_SECONDS = 1.0
"""A pause that ends less than this after one already told is the same one."""

SILENCE_SECONDS = 3.0
"""A site that has not answered at all for so long is told."""

_UNREACHED = {"connect", "connection", "dns", "tls", "timeout"}


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
    site_rate: float = 0.0


FEW_REFUSALS = 2
"""So many answers of 429 are how a site tells its limit; more are a pace that is too high."""


def advised_rate(
    answer: Answer, samples: Sequence[Sample], refused: int, *, announced: float, rate: float
) -> float | None:
    """Return the requests per second that a site bears, two digits of them.

    None where it said no at most twice, or nothing was settled. Counted is from its first pause to
    its last: what it gives away before and after, such as a whole quota in a second, would promise
    too much.

    Args:
        refused: Answers of 429.
        announced: Requests per second that the site announced, 0 where it did not.
        rate: Those of the run's settings, 0 for no limit.
    """
    if refused <= FEW_REFUSALS:
        return None
    began: dict[int, float] = {}  # each pause, by what was settled before
    for each in samples:
        if each.paused:
            began.setdefault(each.found + each.missing, each.seconds)
    pauses = list(began.items())
    first = pauses[0] if pauses else (0, 0.0)
    last = pauses[-1] if len(pauses) > 1 else (answer.found + answer.missing, answer.seconds)
    borne = announced or (last[0] - first[0]) / max(last[1] - first[1], 1.0)
    borne = min(borne, 0.9 * (rate or math.inf))
    if borne <= 0:
        return None
    unit = 10.0 ** (math.floor(math.log10(borne)) - 1)
    return float(f"{math.floor(borne / unit + 1e-9) * unit:.2g}")


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
        status_seconds: float = STATUS_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            frontier: Closed when `stop_event` is set.
            skipped: Returns how many numbers were left out so far.
            total: Numbers of the range, None where the end is not known.
            on_progress: Told several times a second where the run stands.
            on_status: Called now and then, to write the status.
        """
        self.samples: list[Sample] = []
        self._frontier, self._writer, self._stop_event = frontier, writer, stop_event
        self._skipped, self._total = skipped, total
        self._on_progress = on_progress
        self._ended = threading.Event()
        self._started_at = time.monotonic()
        self._recent: list[tuple[float, int]] = [(self._started_at, 0)]
        self._sample_every = 1.0
        self._is_silence_told = False
        self._threads = [_thread("time", self._keep_time)]
        if on_progress is not None:
            self._threads.append(_thread("progress", self._every, TURN_SECONDS, self._report))
        if on_status is not None:
            self._threads.append(_thread("status", self._every, status_seconds, on_status))

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
        """Return where the run stands."""
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
            site_rate=self._frontier.announced_rate,
        )

    def _keep_time(self) -> None:
        logged_at = sampled_at = self._started_at
        while not self._ended.wait(TURN_SECONDS):
            now = time.monotonic()
            if self._stop_event.is_set() and self._frontier.stopped_by is None:
                self._frontier.stop("signal")
                self._writer.flush()
            self._writer.tick()
            self._recent = [*self._recent[-25:], (now, self._frontier.tally.requests)]
            if now - sampled_at >= self._sample_every:
                sampled_at = now
                self._sample(now)
            if now - logged_at >= LOG_SECONDS:
                logged_at = now
                self._log()
            if not self._is_silence_told and now - self._started_at >= SILENCE_SECONDS:
                self._is_silence_told = True
                self._tell_silence()

    def _tell_silence(self) -> None:
        """Tell that nothing has come of the first requests, while the run goes on trying."""
        tally = self._frontier.tally
        if not tally.requests or tally.found or tally.missing or not set(tally.kinds) <= _UNREACHED:
            return
        why = tally.kinds.most_common(1)
        logger.warning(
            "the site has not answered for %g s (%s); the run goes on trying",
            SILENCE_SECONDS,
            FAILURE_KINDS[why[0][0]] if why else "nothing has come back",
            extra={"event": "site_silent"},
        )

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
                round(self._frontier.announced_rate, 3),
            )
        )
        if len(self.samples) >= MAX_SAMPLES:
            self.samples = self.samples[1::2]
            self._sample_every *= 2


def _thread(name: str, target: Callable[..., None], *args: object) -> threading.Thread:
    run = contextvars.copy_context().run  # a line logged there belongs to the request's trace
    return threading.Thread(target=run, args=(target, *args), name=name, daemon=True)


@contextlib.contextmanager
def _trouble_logged() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        logger.warning("control.json cannot be used at present: %s", error)


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
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Prepare.

        Args:
            frontier: Stopped by a stop order, held back by a pause.
            seen_stop_id: The stop order that stood before the run began.
            canaries: Gets the song that other runs publish there.
        """
        self._every_seconds, self._clock, self._wall = every_seconds, clock, wall
        self._frontier, self._store, self._seen_stop_id = frontier, store, seen_stop_id
        self._news, self._lock = threading.Event(), threading.Lock()
        self._published_until = 0.0
        self._unpublished = 0.0  # end of a pause that the store does not have yet
        self._canaries = [] if canaries is None else canaries
        self._found: int | None = None  # a song that the store does not name yet
        self._has_canary = False
        self._kept_until: datetime | None = None
        self._ended = False
        self._thread = _thread("control", self._run)

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
        until = self._clock() + seconds
        if until < self._published_until + SAME_PAUSE_SECONDS:
            return
        self._published_until = until
        logger.warning(
            "the site limits us: paused until %s",
            f"{self._wall().astimezone() + timedelta(seconds=seconds):%H:%M:%S}",
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
        left = control.pause_left(order, now=self._wall())
        if left:
            self._frontier.hold(left.total_seconds())

    def keep_canary(self, order: control.Control) -> None:
        """Learn of the song that a run has published."""
        if order.canary is not None:
            self._has_canary = True
            if order.canary not in self._canaries:
                self._canaries.insert(0, order.canary)  # before what the user named

    def _run(self) -> None:
        look_at = self._clock() + self._every_seconds
        while not self._ended:
            self._news.wait(max(0.0, look_at - self._clock()))
            self._news.clear()
            self.pass_on()
            if self._clock() >= look_at:
                self.obey()
                look_at = self._clock() + self._every_seconds

    @_trouble_logged()
    def pass_on(self) -> None:
        """Publish what this run has learnt; trouble of the store is only logged."""
        if self._found is not None:
            self.keep_canary(control.publish_canary(self._store, self._found))
            self._found = None
        if not (ends_at := self._unpublished):
            return
        now = self._wall()
        until = now + timedelta(seconds=ends_at - self._clock())
        if control.order_pause(self._store, until, now=now).pause_until == until:
            self._kept_until = until  # the site told this run first, so its frontier holds already
        with self._lock:
            if self._unpublished == ends_at:  # none that is longer came meanwhile
                self._unpublished = 0.0

    @_trouble_logged()
    def obey(self) -> None:
        """Read what stands, and keep to it; trouble of the store is only logged."""
        order = control.read_control(self._store, timeout=CONTROL_SECONDS)
        if order.stop_id is not None and order.stop_id != self._seen_stop_id:
            self._frontier.stop("stop_order")
        self.keep_pause(order)
        self.keep_canary(order)
