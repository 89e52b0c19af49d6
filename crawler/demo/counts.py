"""What the embedded site counts about its clients: enough to prove a pace, a pause, a resume."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

ARRIVALS_KEPT = 100_000
"""Arrival times are kept for the last so many requests, so that memory stays flat."""

_PAGE = 4096


class Counts:
    """Counts of one site; used by its event loop's thread only.

    Attributes:
        requests: Requests for anything but the counts themselves.
        answers: Answers by status, and `reset`, `cut` (faults on order), `hung_up` (by the client).
        arrivals: Seconds of the monotonic clock at which the latest requests came.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.answers: Counter[str] = Counter()
        self.arrivals: deque[float] = deque(maxlen=ARRIVALS_KEPT)
        self.connections = self.open_connections = self.max_open_connections = 0
        self.in_flight = self.max_in_flight = 0
        self.numbers_asked = self.numbers_asked_again = 0
        self.told_to_wait_until = float("-inf")
        self.while_told_to_wait = 0
        self._asked: dict[int, bytearray] = {}

    def connected(self) -> None:
        """Count a connection that opens."""
        self.connections += 1
        self.open_connections += 1
        self.max_open_connections = max(self.max_open_connections, self.open_connections)

    def disconnected(self) -> None:
        """Count a connection that ends."""
        self.open_connections -= 1

    def arrived(self, now: float) -> None:
        """Count a request at the moment it has been read."""
        self.requests += 1
        self.arrivals.append(now)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        if now < self.told_to_wait_until:
            self.while_told_to_wait += 1

    def answered(self, outcome: str) -> None:
        """Count the answer to a request, or what it got instead."""
        self.in_flight -= 1
        self.answers[outcome] += 1

    def asked(self, song_num: int) -> int:
        """Count a request for a number; returns the count with it, which ends at 255."""
        page, place = divmod(song_num, _PAGE)
        times = self._asked.setdefault(page, bytearray(_PAGE))
        if times[place] < 255:
            times[place] += 1
        if times[place] == 1:
            self.numbers_asked += 1
        elif times[place] == 2:
            self.numbers_asked_again += 1
        return times[place]

    def times_asked(self, song_num: int) -> int:
        """Requests for a number so far; 255 stands for 255 or more."""
        page, place = divmod(song_num, _PAGE)
        return self._asked[page][place] if page in self._asked else 0

    def snapshot(self, *, arrivals: bool) -> dict[str, Any]:
        """All counts as they stand, ready for JSON.

        Args:
            arrivals: Whether to add the list of arrival times, seconds, ascending.

        Returns:
            Each attribute by name; `busiest_second`: requests in that second in which most of the
            arrivals kept came; `while_told_to_wait`: requests that came between a 429 or 503 and
            the end of its `Retry-After`, those that were under way then included.
        """
        counts = {
            "requests": self.requests,
            "answers": dict(self.answers),
            "connections": self.connections,
            "open_connections": self.open_connections,
            "max_open_connections": self.max_open_connections,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "numbers_asked": self.numbers_asked,
            "numbers_asked_again": self.numbers_asked_again,
            "while_told_to_wait": self.while_told_to_wait,
            "busiest_second": busiest_second(self.arrivals),
        }
        return counts | {"arrivals": list(self.arrivals)} if arrivals else counts


def busiest_second(arrivals: Iterable[float]) -> int:
    """Count the requests in that second, wherever it begins, in which most came.

    Args:
        arrivals: Seconds, ascending.
    """
    window: deque[float] = deque()
    most = 0
    for moment in arrivals:
        window.append(moment)
        while window[0] <= moment - 1.0:
            window.popleft()
        most = max(most, len(window))
    return most
