"""The progress bar: seen on a terminal, silent elsewhere, clean at its end."""

import io
import os
import pty
import re
import threading
from dataclasses import dataclass, replace

import pytest

from crawler.progress import progress_bar


@dataclass(frozen=True)
class Counts:
    """Counts as a run reports them."""

    found: int = 0
    missing: int = 0
    failed: int = 0
    skipped: int = 0
    total: int | None = 2000
    rate: float = 98.4
    paused: float = 0.0


@pytest.fixture
def terminal():
    """Give a stream that is a terminal, and a function that reads what it shows."""
    ours, theirs = pty.openpty()
    stream = os.fdopen(theirs, "w")

    def shown() -> str:
        stream.close()
        text = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed
                return text.decode()
            if not piece:
                return text.decode()
            text += piece

    yield stream, shown
    stream.close()
    os.close(ours)


def show_all(stream, states, label="songs"):
    """Show some counts one after the other."""
    with progress_bar(label, stream=stream) as show:
        assert show is not None
        for counts in states:
            show(counts)


def last_line(text: str) -> str:
    """Return the last line as a person sees it, after all carriage returns."""
    return re.split(r"[\r\n]+", text.rstrip())[-1]


def test_a_terminal_shows_rate_outcomes_and_the_share_done(terminal):
    """The bar tells what is done, how fast, and what came of it."""
    stream, shown = terminal
    show_all(stream, [Counts(found=900, missing=90, failed=10)], label="songs 1 to 2000")
    line = last_line(shown())
    for part in ("songs 1 to 2000:  50%", " left, ", "98/s, found 900, missing 90, failed 10"):
        assert part in line


def test_the_last_state_stays_on_its_own_line(terminal):
    """What is printed after the bar begins on a new line, and the last counts are drawn."""
    stream, shown = terminal
    show_all(stream, [Counts(found=found) for found in range(0, 2001, 10)])
    text = shown()
    assert text.endswith("\n")
    assert "100%" in last_line(text)


def test_an_interrupted_run_leaves_a_clean_line(terminal):
    """Also a run that is cut off ends the bar's line."""
    stream, shown = terminal

    def interrupted():
        yield Counts(found=5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_all(stream, interrupted())
    assert shown().endswith("\n")


def test_skipped_numbers_count_as_done(terminal):
    """What was settled before is part of the bar from its beginning."""
    stream, shown = terminal
    show_all(stream, [Counts(skipped=1500)])
    assert " 75%" in last_line(shown())


def test_a_pause_is_shown_in_place_of_the_rate(terminal):
    """Who waits sees that the site asked for it."""
    stream, shown = terminal
    show_all(stream, [Counts(found=1), Counts(found=1, paused=12.3)])
    assert "paused 12 s, found 1" in last_line(shown())


def test_a_run_of_unknown_length_shows_no_share(terminal):
    """Mode new does not know how many numbers it will ask, and the bar does not pretend to."""
    stream, shown = terminal
    show_all(stream, [Counts(found=7, total=None)], label="new songs")
    line = last_line(shown())
    assert "new songs: 7 in " in line
    assert "%" not in line


def test_where_nobody_looks_nothing_is_written():
    """A stream that is no terminal gets no byte, and the run is told that nobody listens."""
    stream = io.StringIO()
    with progress_bar("songs", stream=stream) as show:
        assert show is None
    assert stream.getvalue() == ""


def test_a_notebook_gets_a_bar_on_any_stream():
    """A notebook's stderr is no terminal, but somebody looks."""
    stream = io.StringIO()
    with progress_bar("songs", stream=stream, notebook=True) as show:
        assert show is not None
        show(replace(Counts(), found=3))
    assert "found 3" in stream.getvalue()


def test_a_run_that_never_reports_leaves_nothing(terminal):
    """A run that fails before its first count shows its error alone."""
    stream, shown = terminal
    with progress_bar("songs", stream=stream):
        pass
    assert shown() == ""


def test_the_bar_starts_no_thread(terminal):
    """The bar leaves the process as it was."""
    stream, _ = terminal
    before = threading.active_count()
    with progress_bar("songs", stream=stream) as show:
        assert show is not None
        show(Counts(found=1))
        assert threading.active_count() == before
