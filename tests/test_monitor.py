"""What is done beside a crawl: a stop event obeyed, progress told, samples bounded."""

import threading

import pytest

from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.run.monitor import MAX_SAMPLES, Housekeeper, Progress
from crawler.run.writer import Writer
from tests.clock import wait_until


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
