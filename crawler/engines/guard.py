"""What the connections of one lane keep to: the attempt's deadline, and leave before they send."""

import time
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, Literal

from crawler.engines.resolver import Resolver

_LONGEST_SECONDS = 3600.0
"""What stands for no limit: a socket cannot be told to wait for ever and a deadline at once."""


class HeldBackError(Exception):
    """A shared pause began before the request was sent, or there was no room for what it brought.

    The attempt is put back, and counts against nobody.
    """


class Guard:
    """What the connections of one lane keep to, and what they tell of the request under way.

    Attributes:
        phase: How far the request came: not begun, `connecting` (name and handshake included),
            or `sent`.
        is_reused: Whether its connection had served an earlier one.
        was_held_back: Whether a request of the attempt was not let out, or its answer not taken.
        sent: Requests that went out in the attempt.
        connection: The one that the request went out on.
        answer: What comes back on it.
    """

    phase: Literal["", "connecting", "sent"]

    def __init__(self, resolver: Resolver, tls: Callable[[], SSLContext]) -> None:
        """Prepare; `tls` gives the context for https, made when first asked for."""
        self.resolver, self.tls = resolver, tls
        self.connection: Any = None
        self.answer: Any = None
        self.begin(time.monotonic() + _LONGEST_SECONDS, lambda: True)

    def begin(self, deadline: float, may_send: Callable[[], bool]) -> None:
        """Begin an attempt.

        Args:
            deadline: Its end, monotonic seconds.
            may_send: Asked just before the bytes of each request go out.
        """
        self._deadline, self._may_send = deadline, may_send
        self.was_held_back, self.sent = False, 0
        self.begin_request(None, None)

    def begin_request(self, connect_seconds: float | None, read_seconds: float | None) -> None:
        """Begin one request; a function may ask for less time than there is, as requests lets it."""
        self._connect_seconds = connect_seconds or _LONGEST_SECONDS
        self._read_seconds = read_seconds or _LONGEST_SECONDS
        self.phase, self.is_reused, self.has_excess = "", False, False

    def left(self, longest: float = _LONGEST_SECONDS) -> float:
        """Say how many seconds the next step has, > 0.

        Raises:
            TimeoutError: The deadline has passed.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the attempt's deadline has passed")
        return min(left, longest)

    def connect_left(self) -> float:
        """Say how many seconds the next step of connecting has."""
        return self.left(self._connect_seconds)

    def read_left(self) -> float:
        """Say how many seconds the next read has."""
        return self.left(self._read_seconds)

    def room_left(self) -> float:
        """Say how many seconds there are to wait for room that other lanes' bodies take.

        Raises:
            HeldBackError: The deadline has passed, which is not the site's fault.
        """
        try:
            return self.left()
        except TimeoutError:
            self.was_held_back = True
            raise HeldBackError from None

    def let_out(self, connection: Any, *, is_reused: bool) -> None:
        """Note that a request is about to go out.

        Raises:
            HeldBackError: It may not.
        """
        if not self._may_send():
            self.was_held_back = True
            raise HeldBackError
        self.phase, self.is_reused, self.connection = "sent", is_reused, connection
        self.sent += 1

    def end_request(self, *, is_whole: bool) -> None:
        """Let go of what a broken answer held; close a connection on which more came than one.

        What came beyond the answer's end would be taken for the next one.
        """
        if self.answer is not None and not is_whole:
            self.answer.close()
        if self.has_excess and self.connection is not None:
            self.connection.close()
        self.answer = None
