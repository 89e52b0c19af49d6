"""Canaries: songs known to be there, asked again to tell a gap in a catalogue from a site in trouble.

Which ones are asked, and when missing numbers are so many that one is needed.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import count
from typing import NamedTuple, Protocol, cast

import msgspec

from crawler.frontier.verdict import Reply
from crawler.frontier.work import Job, PendingNumber

RECENT_CANARIES = 8
SPREAD = 20
"""Without a known song so many numbers, spread over the range, are asked first."""

UNASKED = 8
"""Where a cache answers for the songs that are known, so many numbers further on are asked."""

IN_A_ROW = 10
"""So many missing ones in a row need a canary; fewer are released by the next found one."""

ALWAYS_IN_A_ROW = 50
"""So many in a row need one whatever the budget says; the next look comes after twice as many."""

MOST_BETWEEN_LOOKS = 900

WINDOW, MOST_MISSING = 200, 120
"""More missing ones than this among the last answers need a canary, too."""

CROWDING, FEWEST_AROUND, MOST_AROUND = 4.0, 20, 60
"""Ten among so few answers that they are four times as many as usual need one as well.

Answers come in another order than the site gave them: of a spell no ten need stand in a row.
"""

BUDGET, ANSWERS_PER_CANARY = 10, 50
"""So many canaries a run, and one more for so many answers."""

WARY_ANSWERS = 100
"""So many answers after a site was found lying even a single missing number needs a canary."""

ASKED_ALL, LARGE_GROUP, ASKED_OF_MANY = 24, 100, 8
"""Of so many held numbers all are asked again, so many at most of more, and fewer of a large group.

With two a spell that begins and ends among real holes would be believed (9 in 100 numbers of a
catalogue are missing); eight hold the cost of a gap of 5,000 numbers below 1 request in 40.
"""

MOST_GAPS, LONG_GAP = 4, 5
"""Of so many of the longest gaps, of more than so many numbers, both ends are asked again."""

_GOLDEN = 0.618034  # multiples of it, without their whole part, lie ever between each other

OnReply = Callable[[PendingNumber, Reply, float], None]
"""Called with what came of a canary, and when, monotonic seconds."""


class Held(NamedTuple):
    """One answer that says "missing": when it came in, and the how manieth of the job it was.

    `arrived_at` is monotonic seconds, `moment` the time of day.
    """

    attempt: PendingNumber
    reply: Reply
    arrived_at: float
    moment: datetime
    answer_num: int


class Asker(Protocol):
    """What a proof needs of the frontier."""

    def ask(self, song_num: int, job: Job, on_reply: OnReply) -> None:
        """Ask a number soon, and throw away what is found."""

    def release(self, held: list[Held], canary: int | None) -> None:
        """Record numbers as missing; `canary` was found after them, None where none was needed."""

    def ask_again(self, held: list[Held]) -> None:
        """Give numbers back to the frontier."""

    def end(self, stopped_by: str, detail: str) -> None:
        """End the run."""

    def is_back(self, moment: float) -> bool:
        """Whether all that was sent before a moment, monotonic seconds, has come back."""


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
        is_cached: Whether a cache has answered for one, though it was asked not to: what this run
            has asked once proves nothing any more.
    """

    def __init__(self, known: KnownSongs, source_canary: int | None) -> None:
        """Begin with what is known; `source_canary` is what the source itself names."""
        self.recent = deque[int](maxlen=RECENT_CANARIES)
        self.deleted, self._denied = set[int](), set[int]()
        self._known, self._source = known, source_canary
        self.is_cached, self._unasked_turn = False, 0

    def near(self, near: int) -> list[int]:
        """Return songs known to be there, the best first; last those that were denied last time."""
        recent = sorted(self.recent, key=lambda num: abs(num - near))
        rest = (self._known.nearest(near), self._known.published, (self._source,))
        groups = (*rest, recent) if self.is_cached else (recent, *rest)
        known = dict.fromkeys(num for nums in groups for num in nums if num is not None)
        there = [num for num in known if num not in self.deleted]
        return sorted(there, key=self._denied.__contains__)

    def note(self, song_num: int, *, is_found: bool) -> None:
        """Learn what came of a canary; one that was denied may be deleted, or the site may lie."""
        if not is_found:
            self._denied.add(song_num)
            return
        self._denied.discard(song_num)
        if song_num not in self.recent:
            self.recent.append(song_num)

    def spread(self) -> list[int]:
        """Return numbers all over the range; none where that is not known."""
        span = self._known.spread
        if not span:
            return []
        count = min(SPREAD, len(span))
        return [span[(2 * each + 1) * len(span) // (2 * count)] for each in range(count)]

    def by_turn(self, turn: int) -> tuple[int, bool] | None:
        """Return a canary, another each turn, and whether it is known to be there; None: none is.

        After those that are known come numbers all over the range: the known ones may be dead.
        """
        known = self.near(0)
        numbers = known + self.spread()
        return (numbers[turn % len(numbers)], turn % len(numbers) < len(known)) if numbers else None

    def unasked(self, beyond: int) -> list[int]:
        """Return numbers all over what comes after one, others each time; fewer near the end."""
        span = self._known.spread or range(0)
        rest = span[bisect_right(span, beyond) :]
        turns = range(self._unasked_turn, self._unasked_turn + min(UNASKED, len(rest)))
        self._unasked_turn = turns.stop
        return list(dict.fromkeys(rest[int(turn * _GOLDEN % 1.0 * len(rest))] for turn in turns))


class MissingWatch:
    """Counts the answers of one job, and tells when too many of them say "missing".

    Attributes:
        canaries_asked: So far; more are in the budget the more was answered.
    """

    def __init__(self) -> None:
        """Begin in trust."""
        self.canaries_asked = 0
        self._answers = self._streak = self._looked_at = self._wary_until = 0
        self._believed = self._decided = 0
        self._missing_at = deque[int]()
        self._look_at_streak = IN_A_ROW

    def note_found(self, count: int) -> None:
        """Count songs that came in a row."""
        self._answers += count
        self._streak, self._look_at_streak = 0, IN_A_ROW

    def note_missing(self) -> int:
        """Count a missing number; return the how manieth answer it is."""
        self._answers += 1
        self._streak += 1
        self._missing_at.append(self._answers)
        return self._answers

    def needs_canary(self) -> bool:
        """Whether the last missing number was one too many."""
        if self._streak < IN_A_ROW:
            is_due = self._answers - self._looked_at >= ANSWERS_PER_CANARY
            if not (is_due and self.is_mostly_missing()):
                return False
        elif self._streak < self._look_at_streak:
            return False
        return self.has_budget or self._streak >= ALWAYS_IN_A_ROW

    @property
    def is_wary(self) -> bool:
        """Whether the site lied a moment ago: then even a few need a canary."""
        return self._answers < self._wary_until

    @property
    def has_budget(self) -> bool:
        """Whether a canary may be asked for less than fifty in a row."""
        return self.canaries_asked < BUDGET + self._answers // ANSWERS_PER_CANARY

    def is_mostly_missing(self) -> bool:
        """Whether most of the last answers said "missing"."""
        missing_at = self._missing_at
        while missing_at and missing_at[0] <= self._answers - WINDOW:
            missing_at.popleft()
        return len(missing_at) > MOST_MISSING

    def is_crowd(self, since: int) -> bool:
        """Whether ten since that answer are more than chance would have."""
        usual = (self._believed + 0.1 * MOST_AROUND) / (self._decided + MOST_AROUND)
        around = min(max(IN_A_ROW / (CROWDING * usual), FEWEST_AROUND), MOST_AROUND)
        return self._answers - since < around

    def believe(self, count: int, last: int) -> None:
        """Count missing numbers that are believed, up to the how manieth answer."""
        self._believed, self._decided = self._believed + count, last

    def begin_look(self) -> None:
        """A canary is asked now."""
        self._looked_at = self._answers

    def end_look(self) -> None:
        """What was held is believed: the next canary comes after twice as many in a row."""
        if self._streak:
            step = min(max(ALWAYS_IN_A_ROW, self._streak), MOST_BETWEEN_LOOKS)
            self._look_at_streak = self._streak + step

    def be_wary(self) -> None:
        """The site lied: begin anew, and look closely for a while."""
        self._streak, self._look_at_streak = 0, IN_A_ROW
        self._wary_until = self._answers + WARY_ANSWERS

    def wait_until(self, in_a_row: int) -> None:
        """Nothing can be proved: need no canary before so many in a row."""
        self._look_at_streak = in_a_row


class Look:
    """One look whether the site lies: canaries are asked, then held numbers once more.

    Attributes:
        group: So many of the held numbers, the first ones, it is about.
        since, near: When the first of them came in, monotonic seconds, and its number.
        is_last: Whether nothing else is left to ask.
        stage: Who is asked: a "canary", two more for their "opinion", numbers all over the range
            ("spread"), held numbers "again", and once more a canary to "confirm" it.
        fresh_at: Until when the best canary was surely there.
        tried, missing, failed: Canaries that were asked, and what came of those of this stage.
        spread: Numbers all over the range that were asked.
        arrived: When each of the held numbers that are asked again came in, monotonic seconds.
        is_repeated: Whether a cache gave one of them the very answer that is held.
        bad: Held numbers that failed when they were asked again.
        canary: The first song that was found, None where none was.
        has_found: Whether one was found that proves something, in this stage.
        outstanding: Answers that are awaited.
    """

    def __init__(self, group: int, *, since: float, near: int, is_last: bool) -> None:
        """Begin with a canary."""
        self.group, self.since, self.near, self.is_last = group, since, near, is_last
        self.stage, self.fresh_at, self.outstanding = "canary", 0.0, 0
        self.tried, self.missing, self.failed, self.bad = (set[int]() for _ in range(4))
        self.spread, self.canary, self.has_found = list[int](), cast("int | None", None), False
        self.arrived, self.is_repeated = dict[int, float](), False

    @property
    def is_spread_denied(self) -> bool:
        """Whether numbers all over the range were asked, enough of them, and all are missing."""
        return len(self.spread) >= UNASKED and self.missing.issuperset(self.spread)


class CanaryQueue:
    """Canaries that are to go out, and who waits for what comes of each.

    Attributes:
        waiting: Those that are to go out, in order.
    """

    def __init__(self) -> None:
        self.waiting = deque[PendingNumber]()
        self._on_replies: dict[int, OnReply] = {}

    def ask(self, song_num: int, job: Job, on_reply: OnReply, *, is_first: bool = False) -> None:
        """Ask a number soon, and throw away what is found; `on_reply` learns what came of it."""
        attempt = PendingNumber(song_num, job, is_canary=True)
        self.waiting.insert(0 if is_first else len(self.waiting), attempt)
        self._on_replies[id(attempt)] = on_reply

    def pop(self, count: int) -> list[PendingNumber]:
        """Return the next ones, no more than there are."""
        return [self.waiting.popleft() for _ in range(count)]

    def put_first(self, attempts: list[PendingNumber]) -> None:
        """Put back what was never sent."""
        self.waiting.extendleft(reversed(attempts))

    def answer(self, attempt: PendingNumber, reply: Reply, now: float) -> None:
        """Tell who waits for it what came of a canary."""
        self._on_replies.pop(id(attempt))(attempt, reply, now)


def some_of(nums: list[int], *, is_long_held: bool = False) -> list[int]:
    """Choose of held numbers, in the order of arrival, those that are asked again.

    A few all; of more every ninth, since a spell of ten may lie in a real gap; of a large group a
    few all over it. Then the first and last number of the longer gaps, and those that stand alone:
    a retry among the numbers of a gap has no neighbours. What was held for long, behind a cache or
    since a look failed, may hold spells among all holes: of that these all, however many they are.
    """
    if len(nums) <= ASKED_ALL:
        return nums
    many, there = len(nums), set(nums)
    is_large = many >= LARGE_GROUP and not is_long_held
    spots = [nums[at] for at in (3, many // 3, many * 2 // 3, -4)] if is_large else nums[4::9]
    firsts = sorted(num for num in there if num - 1 not in there)
    gaps = [(num, next(end for end in count(num) if end + 1 not in there)) for num in firsts]
    gaps.sort(key=lambda gap: gap[0] - gap[1])
    ends = [num for gap in gaps[:MOST_GAPS] if gap[1] - gap[0] >= LONG_GAP for num in gap]
    alone = [first for first, last in gaps if first == last]
    chosen = list(dict.fromkeys(spots + ends + alone))
    most = ASKED_OF_MANY if is_large else 2 * ASKED_OF_MANY
    return chosen if is_long_held else chosen[:most]


def reaches_back(reply: Reply, since: float) -> bool | None:
    """Whether an answer comes from a cache that got it before `since`; None: it cannot be told yet.

    `Age` is whole seconds, cut, as of some time after the request was sent; several caches in a
    row join their words. Without a second passed it may be a cache's, or say that it is none.

    Source: RFC 9111, sections 4.2.3 and 5.1.
    """
    if stored_at(reply) >= since:
        return False
    return True if _age_of(reply) else None


def stored_at(reply: Reply) -> float:
    """Return when a cache may have got an answer at the earliest; `inf` where none served it."""
    age = _age_of(reply)
    return math.inf if age is None else float(reply.attempt.sent_at) - age - 1.0


def _age_of(reply: Reply) -> int | None:
    age = (reply.header("age") or "").partition(",")[0].strip()
    return int(age) if age.isascii() and age.isdecimal() and len(age) < 10 else None
