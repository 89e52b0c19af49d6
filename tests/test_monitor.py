"""What is done beside a crawl: a stop event obeyed, samples bounded, progress shown."""

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.run.monitor import MAX_SAMPLES, ControlWatcher, Housekeeper
from crawler.run.progress import Progress, progress_bar
from crawler.run.writer import Writer
from crawler.store.control import order_pause, order_stop, publish_canary, read_control
from crawler.store.folder import FolderStore
from tests.clock import utc_now, wait_until
from tests.kernels import run_notebook


@pytest.fixture
def frontier() -> Frontier:
    """A frontier without a limit."""
    return Frontier(rate_limiter=RateLimiter(0))


def keeper_of(frontier: Frontier, **options: object) -> Housekeeper:
    """Make a housekeeper with a writer that is never used."""

    def save(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be saved")

    writer = Writer(save, on_stored=lambda _: None, on_trouble=lambda _: None)  # type: ignore[arg-type]
    settings = {"stop_event": threading.Event(), "skipped": lambda: 3, "total": 10}
    return Housekeeper(frontier, writer, **settings | options)  # type: ignore[arg-type]


def test_a_stop_event_closes_the_frontier(frontier: Frontier) -> None:
    """Ctrl-C and SIGTERM only set an event; the frontier is closed here."""
    event = threading.Event()
    with keeper_of(frontier, stop_event=event):
        event.set()
        assert wait_until(lambda: frontier.stopped_by == "signal")


@pytest.mark.parametrize("trouble", ["hangs", "breaks"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_F2_a_listener_in_trouble_does_not_hold_up_the_end(
    frontier: Frontier, trouble: str
) -> None:
    """Whoever is told of a run may hang or raise: its end is not for them to delay."""
    event, is_told, is_over = threading.Event(), threading.Event(), threading.Event()

    def listen(_: Progress) -> None:
        if is_over.is_set():
            return
        is_told.set()
        if trouble == "breaks":
            raise OSError("nobody reads this any more")
        is_over.wait(20)

    with keeper_of(frontier, stop_event=event, on_progress=listen):
        assert is_told.wait(8)
        event.set()
        assert wait_until(lambda: frontier.stopped_by == "signal")
        is_over.set()


def test_progress_counts_what_was_skipped(frontier: Frontier) -> None:
    """A bar knows the whole range, and what of it was settled before."""
    seen: list[Progress] = []
    with keeper_of(frontier, on_progress=seen.append):
        assert wait_until(lambda: bool(seen))
    assert (seen[-1].skipped, seen[-1].total, seen[-1].requests) == (3, 10, 0)


def test_samples_stay_bounded_however_long_a_run_is(frontier: Frontier) -> None:
    """When there are too many points every second one goes, and later ones come half as often."""
    keeper = keeper_of(frontier)
    for second in range(10_000):
        keeper._sample(float(second))  # noqa: SLF001 - hours, without waiting for them
    assert len(keeper.samples) < MAX_SAMPLES
    seconds = [sample.seconds for sample in keeper.samples]
    assert seconds == sorted(seconds)


# --- The progress bar -------------------------------------------------------------------------------


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
    site_rate: float = 0.0


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


def test_a_run_with_nothing_to_ask_says_so(terminal):
    """What was settled before takes no time: no rate and no time left is guessed at."""
    stream, shown = terminal
    show_all(stream, [Counts(skipped=2000, rate=0.0)])
    line = last_line(shown())
    assert line.startswith("songs: 100%|")
    assert line.endswith("| settled before")


def test_a_pause_is_shown_in_place_of_the_rate(terminal):
    """Who waits sees that the site asked for it, and until when."""
    stream, shown = terminal
    show_all(stream, [Counts(found=1), Counts(found=1, paused=12.3)])
    line = last_line(shown())
    assert re.search(r"the site limits us: paused until \d\d:\d\d:\d\d", line)


def test_a_pace_that_the_site_lowers_is_shown_with_the_time_that_it_takes(terminal):
    """1,800 songs at one a second take half an hour, however fast the first ones came."""
    stream, shown = terminal
    show_all(stream, [Counts(found=1), Counts(found=200, rate=90.0, site_rate=1.0)])
    line = last_line(shown())
    assert "1.0/s by the site's limit" in line
    assert "30:00 left" in line


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


def cells_of(*codes):
    """Run cells in one real kernel; gives what each shows, as text, and the bars that are widgets."""
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    run_notebook(notebook, seconds=60)
    widgets = json.dumps(notebook.metadata.get("widgets", ""))
    return [json.dumps(cell.outputs) + widgets for cell in notebook.cells]


CELL = """
from types import SimpleNamespace
from crawler import progress_bar
counts = dict(found=3, missing=1, failed=0, skipped=0, total=8, rate=98.4, paused=0.0, site_rate=0.0)
with progress_bar("songs 1 to 8") as show:
    show(SimpleNamespace(**counts))
"""


def test_a_notebook_gets_a_bar():
    """In a real kernel, whose stderr is no terminal, the bar is a widget with all its words."""
    [shown] = cells_of(CELL)
    for words in ("songs 1 to 8", "50%", "98/s, found 3, missing 1, failed 0"):
        assert words in shown


CRAWL = """
from crawler import crawl
where = dict(store={store!r}, base_url={site.base_url!r}, token={site.token!r}, rate=0)
answer = crawl(1, 31, **where)
"""


def test_a_crawl_in_a_notebook_shows_a_bar_by_itself(demo_site, tmp_path):
    """Nobody need ask for it, and whoever listens to the counts gets these instead."""
    code = CRAWL.format(store=str(tmp_path), site=demo_site)
    own = "told = []; crawl(31, 61, on_progress=told.append, **where); print(told[-1].total)"
    shown, listened = cells_of(code, own)
    assert "songs 1 to 30" in shown
    assert "100%" in shown
    assert "songs 31 to 60" not in listened
    assert "30\\n" in listened


def test_a_crawl_in_a_script_shows_nothing(demo_site, tmp_path):
    """Even where IPython is loaded and stderr is a terminal: what a script prints is its own."""
    ours, theirs = pty.openpty()
    code = "import IPython\n" + CRAWL.format(store=str(tmp_path), site=demo_site)
    environ = {name: text for name, text in os.environ.items() if not name.startswith("CRAWLER_")}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(answer.complete)"],
        env=environ | {"PYTHONPATH": os.getcwd()},  # noqa: PTH109
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    seen = _read(ours)
    os.close(ours)
    assert (done.stdout, seen) == (b"True\n", b"")


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


def test_ctrl_c_on_a_terminal_ends_with_how_to_go_on(demo_site, tmp_path):
    """A person at a terminal sees the bar, and after Ctrl-C clean lines: the last is the command."""
    ours, theirs = pty.openpty()
    command = ["crawl", "1", "90001", "--rate", "200", "--store", str(tmp_path / "songs")]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("CRAWLER_")}
    environ |= {"CRAWLER_BASE_URL": demo_site.base_url, "GENIUS_TOKEN": demo_site.token}
    with subprocess.Popen(
        [sys.executable, "-m", "crawler", *command],
        env=environ | {"COLUMNS": "120", "PYTHONPATH": os.getcwd()},  # noqa: PTH109
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        seen = b""
        while piece := _read(ours):
            seen += piece
            if b"found 1" in seen and b"Stopping" not in seen and process.poll() is None:
                process.send_signal(signal.SIGINT)
                while b"Stopping" not in seen:
                    seen += _read(ours)
    os.close(ours)
    lines = [line.split("\r")[-1] for line in seen.decode().replace("\r\n", "\n").splitlines()]
    assert process.returncode == 3
    assert re.search(r"songs 1 to 90000: .*left, \d+/s, found 1\d*, missing", seen.decode())
    assert lines[-1].startswith("To go on: ")
    assert lines[-1].endswith(f"python -m crawler {' '.join(command)}")
    assert lines[-4].startswith("Songs 1 to 90000: ")


def _read(descriptor):
    """Read what is there; nothing once the other side has closed."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


# The watcher of control.json.


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    """A folder store that is ready."""
    folder = FolderStore(tmp_path)
    folder.check(timeout=5)
    return folder


def test_a_pause_is_told_to_the_others_through_the_store(
    frontier: Frontier, store: FolderStore
) -> None:
    """What the site asked of one instance lies in `control.json` for all."""
    with ControlWatcher(frontier, store, seen_stop_id=None) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)
    until = read_control(store, timeout=5).pause_until
    assert until is not None
    assert 20 < (until - utc_now()).total_seconds() <= 30


def test_a_pause_is_told_also_where_the_store_fails_at_first(
    frontier: Frontier,
    store: FolderStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A store that cannot be written to for a moment does not keep the others in the dark."""
    blocked = Path(store.location) / "control.json"
    blocked.mkdir()  # no file can take its place
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: "control.json cannot be used" in caplog.text)
        blocked.rmdir()
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)


def test_the_same_pause_is_told_once(
    frontier: Frontier, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Sixty-four answers of one moment ask for one pause: one log line, one write."""
    with (
        caplog.at_level(logging.WARNING, "crawler"),
        ControlWatcher(frontier, store, seen_stop_id=None) as watcher,
    ):
        for _ in range(64):
            watcher.publish_pause(5.0)
    assert len(caplog.records) == 1


def test_E12_a_pause_of_another_instance_holds_this_one(
    frontier: Frontier, store: FolderStore
) -> None:
    """`control.json` is looked at, and its pause is kept here too."""
    order_pause(store, utc_now() + timedelta(seconds=60), now=utc_now())
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05):
        assert wait_until(lambda: frontier.resume_at > time.monotonic() + 30)


def test_D7_a_pause_is_kept_once_whatever_the_time_of_day(
    frontier: Frontier, store: FolderStore
) -> None:
    """The clock was set back an hour: a pause of 0.2 s lasts 0.2 s, however often it is read."""
    ordered_at = utc_now() + timedelta(hours=1)
    order_pause(store, ordered_at + timedelta(seconds=0.2), now=ordered_at)
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05):
        assert wait_until(lambda: 0 < frontier.resume_at < time.monotonic())
        ended_at = frontier.resume_at
        order_stop(store, now=utc_now(), by="ann")
        assert wait_until(lambda: frontier.stopped_by == "stop_order")  # it was read again
    assert frontier.resume_at == ended_at


def test_D7_a_pause_told_by_this_run_is_not_read_as_another(
    frontier: Frontier, store: FolderStore
) -> None:
    """What the site told this run holds its frontier already: what it wrote itself adds nothing."""
    with ControlWatcher(frontier, store, seen_stop_id=None, every_seconds=0.05) as watcher:
        watcher.publish_pause(30.0)
        assert wait_until(lambda: read_control(store, timeout=5).pause_until is not None)
        order_stop(store, now=utc_now(), by="ann")
        assert wait_until(lambda: frontier.stopped_by == "stop_order")
    assert frontier.resume_at < time.monotonic()


def test_the_first_song_of_any_run_is_there_for_all(frontier: Frontier, store: FolderStore) -> None:
    """C9: shards and fresh stores know a song to ask when the site denies everything."""
    mine: list[int] = []
    theirs: list[int] = []
    with (
        ControlWatcher(frontier, store, seen_stop_id=None, canaries=mine, every_seconds=0.05),
        ControlWatcher(
            frontier, store, seen_stop_id=None, canaries=theirs, every_seconds=9
        ) as they,
    ):
        they.publish_canary(17)
        assert wait_until(lambda: mine == [17])
        assert wait_until(lambda: theirs == [17])
        they.publish_canary(18)
    assert read_control(store, timeout=5).canary == 17


def test_a_song_that_is_named_stays(store: FolderStore) -> None:
    """Later ones are no better, and each would be a write."""
    publish_canary(store, 5)
    assert publish_canary(store, 6).canary == 5
