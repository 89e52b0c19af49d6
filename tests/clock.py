"""Time for tests: the time of day, and a patient look at what another thread does."""

import time
from collections.abc import Callable
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
