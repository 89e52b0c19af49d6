"""Room for the long bodies of all lanes at once: so much and no more, whatever comes.

A body counts from its first piece until the function that asked for it is done with it.
"""

import mmap
import threading
from collections.abc import Callable
from typing import Self

from crawler.engines.body import MAX_BODY_BYTES

PIECE_BYTES = 32 * 1024
"""A body this short takes no room: songs are shorter, and 64 lanes of them weigh 2 MiB."""

_COMMON_PIECES = (16 << 20) // PIECE_BYTES
_LAST_BODIES = 8
_BODY_PIECES = MAX_BODY_BYTES // PIECE_BYTES


class BodyRoom:
    """The pieces that long bodies are gathered in; safe in threads.

    When all are taken, eight bodies at a time get room for the whole of them, set aside for that;
    the others wait, so that none holds what another one needs to end.

    The pieces are one stretch of memory, used again and again. `malloc` would keep, for each group
    of threads, as much as these ever held at once.
    """

    def __init__(
        self, common_pieces: int = _COMMON_PIECES, last_bodies: int = _LAST_BODIES
    ) -> None:
        """Prepare; nothing is taken from the system until a body is long."""
        self._common_left, self._last_left = common_pieces, last_bodies
        self._piece_count = common_pieces + last_bodies * _BODY_PIECES
        self._free: list[memoryview] | None = None
        self._changed = threading.Condition()

    def take(self, body: "Body") -> memoryview:
        """Take one more piece for a body; waits while there is none."""
        with self._changed:
            while not self._admit(body):
                self._changed.wait(body.seconds_left())
            if self._free is None:
                memory = memoryview(mmap.mmap(-1, self._piece_count * PIECE_BYTES))
                starts = range(0, len(memory), PIECE_BYTES)
                self._free = [memory[start : start + PIECE_BYTES] for start in reversed(starts)]
            return self._free.pop()

    def _admit(self, body: "Body") -> bool:
        if body.is_last:
            return True
        if self._common_left > 0:
            self._common_left -= 1
            body.common_pieces += 1
            return True
        if self._last_left > 0:
            self._last_left -= 1
            body.is_last = True
        return body.is_last

    def take_back(self, pieces: list[memoryview]) -> None:
        """Take back pieces; the room they took stays the body's."""
        with self._changed:
            if self._free is not None:
                self._free += pieces

    def forget(self, body: "Body") -> None:
        """Give the room that a body has to others."""
        with self._changed:
            self._common_left += body.common_pieces
            self._last_left += body.is_last
            body.common_pieces, body.is_last = 0, False
            self._changed.notify_all()


class Body:
    """One body, as far as it has come; used in a `with` until it is whole.

    A whole one keeps its room until `forget()`, since now it lies elsewhere as a whole: as many as
    find room are read by somebody's function at once. One that broke off is forgotten at once.

    Attributes:
        common_pieces: Pieces it took while there were enough for all.
        is_last: Whether it has room for the whole of it set aside.
        seconds_left: Says how long it may wait for room, and raises when that is over.
    """

    def __init__(self, room: BodyRoom, seconds_left: Callable[[], float]) -> None:
        self.common_pieces, self.is_last, self.seconds_left = 0, False, seconds_left
        self._room = room
        self._short: list[bytes] = []
        self._short_left = PIECE_BYTES
        self._pieces: list[memoryview] = []
        self._piece_left = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._short.clear()
        self._room.take_back(self._pieces)
        self._pieces = []
        if error is not None:
            self.forget()

    def forget(self) -> None:
        """Give its room to others; again and from another thread does no harm."""
        if self.common_pieces or self.is_last:
            self._room.forget(self)

    def add(self, part: bytes) -> None:
        """Take the next part; no more than `MAX_BODY_BYTES` in all."""
        if len(part) <= self._short_left:
            self._short.append(part)
            self._short_left -= len(part)
            return
        self._short_left = -1  # what follows stands behind it
        rest = memoryview(part)
        while rest:
            if self._piece_left == 0:
                self._pieces.append(self._room.take(self))
                self._piece_left = PIECE_BYTES
            count = min(len(rest), self._piece_left)
            start = PIECE_BYTES - self._piece_left
            self._pieces[-1][start : start + count] = rest[:count]
            self._piece_left -= count
            rest = rest[count:]

    def whole(self) -> bytes:
        """Give all of it."""
        if not self._pieces:
            return self._short[0] if len(self._short) == 1 else b"".join(self._short)
        last = self._pieces[-1][: PIECE_BYTES - self._piece_left]
        return b"".join([*self._short, *self._pieces[:-1], last])
