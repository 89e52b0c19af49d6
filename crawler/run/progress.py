"""Where a run stands, and the bar that shows it at a terminal or in a notebook."""

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, TextIO

import msgspec

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
    stream = stream or sys.stderr
    if not (notebook or stream.isatty()):
        yield None
        return
    with contextlib.closing(_Bar(label, stream, notebook=notebook)) as bar:
        yield bar.show


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
        self._label, self._stream = label, stream
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
        self._bar.update(_done(counts) - self._bar.n)

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
    left = int((counts.total - _done(counts)) / counts.site_rate)
    hours, minutes = divmod(left // 60, 60)
    words = f"{hours}:{minutes:02}:{left % 60:02}" if hours else f"{minutes:02}:{left % 60:02}"
    return _KNOWN.replace("{remaining}", words)


def _done(counts: Progress) -> int:
    return counts.found + counts.missing + counts.failed + counts.skipped


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
    widgets = notebook and importlib.util.find_spec("ipywidgets") is not None
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
