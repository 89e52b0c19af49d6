"""Canaries: songs known to be there, asked again to tell a gap in a catalogue from a site in trouble."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt, Job

RECENT_CANARIES = 8
SPREAD = 20
"""Without a known song so many numbers, spread over the range, are asked first."""

OnReply = Callable[[Attempt, Reply, float], None]
"""Called with what came of a canary, and when, monotonic seconds."""


class KnownSongs(msgspec.Struct, frozen=True, kw_only=True):
    """Songs that are known to be there without having been found in this run.

    Attributes:
        nearest: Returns songs found before, those near a number first.
        published: What other runs published, then what the user named.
        spread: Numbers of the run among which songs may be looked for; None where not known.
    """

    nearest: Callable[[int], Iterable[int]] = lambda _song_num: ()
    published: Sequence[int] = ()
    spread: range | None = None


class Canaries:
    """Chooses canaries for one job.

    Attributes:
        recent: The last songs found in this run, the latest last.
        deleted: Canaries that are there no more.
    """

    def __init__(self, known: KnownSongs, source_canary: int | None) -> None:
        """Begin with what is known; `source_canary` is what the source itself names."""
        self.recent = deque[int](maxlen=RECENT_CANARIES)
        self.deleted = set[int]()
        self._known, self._source = known, source_canary

    def near(self, near: int) -> Iterator[int]:
        """Yield songs known to be there, the best first."""
        seen = set(self.deleted)
        recent = sorted(self.recent, key=lambda num: abs(num - near))
        for nums in (recent, self._known.nearest(near), self._known.published, (self._source,)):
            for num in nums:
                if num is not None and num not in seen:
                    seen.add(num)
                    yield num

    def spread(self) -> list[int]:
        """Return numbers all over the range; none where that is not known."""
        span = self._known.spread
        if not span:
            return []
        count = min(SPREAD, len(span))
        return [span[(2 * each + 1) * len(span) // (2 * count)] for each in range(count)]


class CanaryQueue:
    """Canaries that are to go out, and who waits for what comes of each."""

    def __init__(self) -> None:
        self._waiting = deque[Attempt]()
        self._on_replies: dict[int, OnReply] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, song_num: int, job: Job, on_reply: OnReply) -> None:
        """Ask a number soon, and throw away what is found; `on_reply` learns what came of it."""
        attempt = Attempt(song_num, job, is_canary=True)
        self._waiting.append(attempt)
        self._on_replies[id(attempt)] = on_reply

    def pop(self, count: int) -> list[Attempt]:
        """Return the next ones, no more than there are."""
        return [self._waiting.popleft() for _ in range(count)]

    def put_first(self, attempts: list[Attempt]) -> None:
        """Put back what was never sent."""
        self._waiting.extendleft(reversed(attempts))

    def answer(self, attempt: Attempt, reply: Reply, now: float) -> None:
        """Tell who waits for it what came of a canary."""
        self._on_replies.pop(id(attempt))(attempt, reply, now)


def reaches_back(reply: Reply, since: float) -> bool | None:
    """Whether an answer comes from a cache that got it before `since`; None: it cannot be told yet.

    `Age` is whole seconds, cut, as of some time after the request was sent; several caches in a
    row join their words. Without a second passed it may be a cache's, or say that it is none.

    Source: RFC 9111, sections 4.2.3 and 5.1.
    """
    age = (reply.header("age") or "").partition(",")[0].strip()
    if not (age.isascii() and age.isdecimal() and len(age) < 10):
        return False
    if reply.attempt.sent_at - int(age) - 1.0 >= since:
        return False
    return True if int(age) else None
