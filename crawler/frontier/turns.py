"""How lanes wait: one of them watches the clock, the others wait behind it."""

import threading


class Turns:
    """Two queues over one lock: the lane that leads, and those that follow.

    So 64 lanes at 100 attempts a second wake one thread an attempt, not 64. As long as anybody
    follows, somebody leads or has been told to. Every method is called with the lock held.
    """

    def __init__(self, lock: threading.Lock) -> None:
        """Wait under `lock`, which is let go of meanwhile."""
        self._due = threading.Condition(lock)
        self._turn = threading.Condition(lock)
        self._is_led = False

    def wait(self, seconds: float) -> None:
        """Lead for so long, or follow until it is this lane's turn; then look again."""
        if self._is_led:
            self._turn.wait()
            return
        self._is_led = True
        try:
            self._due.wait(seconds)
        finally:
            self._is_led = False

    def rest(self, seconds: float) -> None:
        """Wait until something changes, or so long, outside the queue."""
        self._due.wait(seconds)

    def note_change(self) -> None:
        """Let the leader look again: what it waits for may be there sooner."""
        self._due.notify()

    def pass_on(self) -> None:
        """On leaving the queue: let one lane that follows lead, if nobody does."""
        if not self._is_led:
            self._turn.notify()

    def wake_all(self) -> None:
        """Let everybody look again."""
        self._due.notify_all()
        self._turn.notify_all()
