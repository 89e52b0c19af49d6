"""Ctrl-C and SIGTERM on the command line: the first asks the run to stop, the second ends it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_AT_ONCE = 130
"""What a shell expects of a program that Ctrl-C ended."""

_FIRST = b"\nStopping: what is under way is finished and stored. Once more ends it at once.\n"
_SECOND = b"\nEnded at once. Run the same command again: it goes on where the store says.\n"


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second ends the process, code 130.

    Only for the main thread. Blocks are written whole or not at all, so that ending at once loses
    at most the work of a minute.
    """
    stop = threading.Event()
    heard = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        # The second may interrupt the handling of the first, so it must not wait for the event's
        # lock; os.write and os._exit, because a print may be interrupted, and lanes still run.
        nonlocal heard
        heard += 1
        if heard > 1:
            os.write(2, _SECOND)
            os._exit(EXIT_AT_ONCE)
        stop.set()
        os.write(2, _FIRST)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
