"""Time for tests: the time of day, a patient look at another thread, and how late a machine is."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


def wait_until(condition: Callable[[], bool], seconds: float = 8.0) -> bool:
    """Wait for something another thread does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Lateness:
    """How late a machine woke up one that slept a hundredth of a second, again and again.

    Attributes:
        seconds: All of it together; next to nothing where nobody else wants a core.
    """

    TICK, USUAL = 0.01, 0.001
    """Seconds; waking up takes up to a millisecond on any machine."""

    def __init__(self) -> None:
        """Begin with none."""
        self.seconds = 0.0

    def arriving(self, sent: float) -> float:
        """Return how many may arrive in a second where so many are sent: late ones come with others."""
        return sent * (1 + min(self.seconds, 0.5))

    def measure(self, ended: threading.Event) -> None:
        """Sleep and look at the clock until told."""
        began = time.monotonic()
        while not ended.wait(self.TICK):
            woken = time.monotonic()
            self.seconds += max(woken - began - self.TICK - self.USUAL, 0.0)
            began = time.monotonic()


@contextlib.contextmanager
def lateness() -> Iterator[Lateness]:
    """Measure, beside what a block does, by how much its own waits come late through no fault of it.

    A bound on the clock holds with so much more: what is measured then is the code, not who else
    wanted the cores.
    """
    late, ended = Lateness(), threading.Event()
    twin = threading.Thread(target=late.measure, args=(ended,))
    twin.start()
    try:
        yield late
    finally:
        ended.set()
        twin.join()
