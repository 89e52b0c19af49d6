"""What goes on beside a crawl: old blocks written, progress, its bar, log lines, samples, status."""

import contextlib
import contextvars
import importlib
import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Self, TextIO

import msgspec

from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import FAILURE_KINDS
from crawler.run.writer import Writer

logger = logging.getLogger("crawler")

TURN_SECONDS = 0.2
LOG_SECONDS = 10.0
STATUS_SECONDS = 60.0
END_SECONDS = 2.0
"""So long the end of a run waits for what is being told."""
MAX_SAMPLES = 240

SILENCE_SECONDS = 3.0
"""A site that has not answered at all for so long is told."""

_UNREACHED = {"connect", "connection", "dns", "tls", "timeout"}

# Short, so that 80 columns hold it; how many there are in all stands in the label.
_KNOWN = "{desc}: {percentage:3.0f}%|{bar}| {remaining} left{postfix}"
_SETTLED = "{desc}: {percentage:3.0f}%|{bar}| settled before"  # nothing was to be asked
_OPEN = "{desc}: {n_fmt} in {elapsed}{postfix}"  # how many there will be is not known


class Progress(msgspec.Struct, frozen=True):
    """Where a run stands: numbers by outcome, requests, seconds since its start.

    Attributes:
        total: Numbers of the range, skipped ones included; None where the end is not known yet.
        rate: Requests per second over the last few seconds.
        paused: Seconds until a shared pause ends, 0 where there is none.
        site_rate: Requests per second that the site announced, where that is less than ours; 0
            where it is not.
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
    site_rate: float = 0.0


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
            writer: Told to write blocks that have waited long enough.
            stop_event: Ends the run early.
            skipped: Returns how many numbers were left out so far.
            total: Numbers of the range, None where the end is not known.
            on_progress: Told several times a second where the run stands.
            on_status: Called now and then, to write the status.
            status_seconds: How often that is.
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
def progress_bar(
    label: str, *, stream: TextIO | None = None, notebook: bool | None = None
) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar while the body runs; yields what the run is to call with its counts.

    Yields None where nobody looks, so that the run need not count for nobody: the stream is no
    terminal, and this is no notebook. The last state stays on its own line when the body ends,
    however it ends.

    Args:
        label: What is crawled, such as "songs 1 to 2000".
        stream: Where the bar goes; None: the process's stderr.
        notebook: Show it whatever the stream is, as a widget where there are widgets; None: where
            this runs in a notebook.
    """
    notebook = in_notebook() if notebook is None else notebook
    stream = sys.stderr if stream is None else stream
    if not (notebook or stream.isatty()):
        yield None
        return
    bar = _Bar(label, stream, notebook=notebook)
    try:
        yield bar.show
    finally:
        bar.close()


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, where somebody looks at what a cell shows.

    Nothing is imported to find out: a kernel has IPython loaded.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None  # IPython in a terminal has none


class _Bar:
    """A bar that appears with the first counts; called by one thread at a time."""

    def __init__(self, label: str, stream: TextIO, *, notebook: bool) -> None:
        self._label = label
        self._stream = stream
        self._class = _bar_class(notebook=notebook)
        self._bar: Any = None

    def show(self, counts: Progress) -> None:
        """Bring the bar up to date; draws at most ten times a second."""
        if self._bar is None:
            has_width = _has_width(self._stream)
            self._bar = self._class(
                desc=self._label,
                total=counts.total,
                initial=counts.skipped,  # cost no time, so must not shorten the time left
                file=self._stream,
                dynamic_ncols=has_width,
                ncols=None if has_width else 80,
                nrows=None if has_width else 24,
                bar_format=_format(counts),
            )
        self._bar.bar_format = _format(counts)
        self._bar.total = counts.total
        self._bar.set_postfix_str(_postfix(counts), refresh=False)
        done = counts.found + counts.missing + counts.failed + counts.skipped
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Draw the last state and end its line."""
        if self._bar is not None:
            self._bar.refresh()  # a widget would keep what it showed a tenth of a second ago
            self._bar.close()


def _format(counts: Progress) -> str:
    if counts.total is None:
        return _OPEN
    if counts.skipped == counts.total:
        return _SETTLED
    if not counts.site_rate:
        return _KNOWN
    # What went faster before the site said how fast we may go would shorten the time left.
    done = counts.found + counts.missing + counts.failed + counts.skipped
    left = int((counts.total - done) / counts.site_rate)
    hours, minutes = divmod(left // 60, 60)
    words = f"{hours}:{minutes:02}:{left % 60:02}" if hours else f"{minutes:02}:{left % 60:02}"
    return _KNOWN.replace("{remaining}", words)


def _postfix(counts: Progress) -> str:
    pace = f"{counts.rate:.0f}/s"
    if counts.site_rate:
        pace = f"{counts.site_rate:.1f}/s by the site's limit"
    if counts.paused > 0:
        until = datetime.now().astimezone() + timedelta(seconds=counts.paused)
        pace = f"the site limits us: paused until {until:%H:%M:%S}"
    outcomes = f"found {counts.found}, missing {counts.missing}, failed {counts.failed}"
    return f"{pace}, {outcomes}"


def _bar_class(*, notebook: bool) -> Any:
    """Return tqdm's bar, without the thread and the process-wide lock it would start for itself.

    tqdm is imported here because most runs, the deployed ones above all, show no bar.
    """
    widgets = notebook and _has_widgets()
    base: Any = importlib.import_module("tqdm.notebook" if widgets else "tqdm").tqdm

    class Bar(base):  # type: ignore[misc]
        monitor_interval = 0

    Bar.set_lock(threading.RLock())
    return Bar


def _has_width(stream: TextIO) -> bool:
    """Whether the terminal says how wide it is; one of width 0 would be drawn empty."""
    try:
        return os.get_terminal_size(stream.fileno()).columns > 0
    except OSError:
        return False


def _has_widgets() -> bool:
    return importlib.util.find_spec("ipywidgets") is not None
