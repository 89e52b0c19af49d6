"""Proof: what a site says is missing is held until it is known not to lie.

A site in trouble (an outage, a proxy, a wrong address) answers 404 for everything, and a stored
`missing` cannot be taken back by a later failure. So such answers are held; after many of them a
canary is asked, a song known to be there, and then some of the held numbers once more. The rule
in full: docs/missing.md.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import cast

from crawler.frontier.canaries import (
    IN_A_ROW,
    SPREAD,
    Asker,
    Canaries,
    Held,
    KnownSongs,
    Look,
    MissingWatch,
    reaches_back,
    some_of,
    stored_at,
)
from crawler.frontier.verdict import Reply, judge
from crawler.frontier.work import Job, PendingNumber

MOST_HELD = 1000
"""With so many held, nothing but canaries goes out."""

DRY_SECONDS, LONG_DRY_SECONDS = 2.0, 60.0
"""So long a supply may take its time until a few held numbers need a canary, since it may wait for
them; and until the run ends where there is none."""

MOST_FAILED_LOOKS = 12
"""Where nothing else is left to ask, so many looks at canaries that fail end the run."""

PROBES = 60
"""A site that lies is probed once a second, and so often."""


class Proof:
    """Holds the missing numbers of one job until there is proof. Called under the frontier's lock.

    Attributes:
        canaries: Songs that are known to be there.
        is_lying: Whether canaries are denied: nothing but probes goes out.
    """

    def __init__(
        self,
        asker: Asker,
        job: Job,
        known: KnownSongs,
        on_first_found: Callable[[int], None],
        *,
        probe_seconds: float,
    ) -> None:
        """Begin in trust; `on_first_found` is called with the first song that is found."""
        self._probe_seconds = probe_seconds
        self.canaries = Canaries(known, job.traits.canary)
        self.is_lying = False
        self._asker, self._job, self._on_first_found = asker, job, on_first_found
        self._held, self._current = list[Held](), cast("Look | None", None)
        self._watch, self._not_before = MissingWatch(), 0.0
        self._probes = self._failed_looks = 0
        self._next_probe_at = self._lying_since = 0.0
        self._unknown = 0  # missing ones that are not held
        self._has_spread = self._is_crowded = False  # too many at once are among the held
        self._songs = self._cached_songs = 0  # that were told, and those of them from a cache
        self._song: tuple[float, float] | None = None  # found among them: when sent and arrived
        self._sent_at = 0.0  # of the song that was asked for last

    @property
    def room(self) -> int:
        """How many more answers can be held; 0 where nothing but canaries may go out."""
        is_doubtful = self._current is not None and self._current.stage == "opinion"
        return 0 if self.is_lying or is_doubtful else max(0, MOST_HELD - len(self._held))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held: songs need not be told at once."""
        return self.room == MOST_HELD and bool(self.canaries.recent)

    def is_evidence(self, reply: Reply) -> bool:
        """Whether a song says that the site is well: where others come fresh, a cached one does not."""
        kept_at = stored_at(reply)
        if kept_at == math.inf:
            return True
        if self._held and self._songs > self._cached_songs:
            return kept_at >= self._held[0].arrived_at
        self._cached_songs += 1
        return True

    def note_songs(self, songs: Sequence[PendingNumber], now: float) -> None:
        """Count songs, in the order of arrival, > 0.

        Each releases what was said to be missing before it was asked for.
        """
        recent = self.canaries.recent
        if not recent:
            self._on_first_found(songs[0].song_num)
        self._unknown = 0
        self._songs += len(songs)
        # Where nothing is held all can be counted at once, as on a busy wire.
        for group in [[song] for song in songs] if self._held else [songs]:
            recent.extend([song.song_num for song in group])
            self._watch.note_found(len(group))
            self._sent_at = max([self._sent_at, *[song.sent_at for song in group]])
            if self._held and self._current is None:
                self._note_song(group[0].sent_at, now)

    def hold(self, attempt: PendingNumber, reply: Reply, moment: datetime, now: float) -> None:
        """Take an answer that says "missing"."""
        watch = self._watch
        held = Held(attempt, reply, now, moment, watch.note_missing())
        if self.is_lying:
            self._asker.ask_again([held])
            return
        self._held.append(held)
        if len(self._held) >= IN_A_ROW and watch.is_crowd(self._held[-IN_A_ROW].answer_num):
            self._is_crowded = True
        if self._current is None and watch.needs_canary():
            self._look(now)

    def note_unknown(self) -> None:
        """An unknown number was asked for the circuit breaker, and is missing."""
        self._unknown += 1

    def note_canary(self, song_num: int, *, is_found: bool) -> None:
        """Learn what came of a canary that the circuit breaker asked: was it denied, the site lies."""
        self.canaries.note(song_num, is_found=is_found)
        if not is_found:
            self._watch.be_wary()

    def conclude(self, now: float, *, is_end: bool = True) -> bool:
        """When nothing else is left to ask: release the held numbers, or ask a canary.

        Args:
            now: Monotonic seconds.
            is_end: Whether no number will ever come again; else a supply takes its time, which
                may wait for what becomes of the held ones.

        Returns whether anything is still held.
        """
        if not (self._is_crowded or self._watch.is_wary or self._current):
            self._release_few(self._sent_at, now)
        if self._held and self._current is None and now >= self._not_before:
            is_few = len(self._held) + self._unknown < IN_A_ROW and not self._watch.is_wary
            if is_few and not self._watch.is_mostly_missing():
                if is_end:
                    self._release(len(self._held), None)
                elif now >= self._held[-1].arrived_at + DRY_SECONDS:
                    self._look(now, is_last=now >= self._held[-1].arrived_at + LONG_DRY_SECONDS)
            else:
                self._look(now, is_last=True)
        return bool(self._held)

    def wake(self, now: float) -> float:
        """When it blocks: ask the next canary that is due; return the seconds until the next one."""
        if self.is_lying:
            if self._probes >= PROBES:
                return 1.0  # the last ones are still under way
            if now >= self._next_probe_at:
                self._probe(now)
            return self._next_probe_at - now
        if self._current is None and now >= self._not_before:
            self._look(now)
        return max(0.0, self._not_before - now) or 1.0

    def _note_song(self, sent_at: float, now: float) -> None:
        """Release what came in before a song was asked for, once all is back that might belong to it."""
        song = self._song
        if song is None and self._held[0].arrived_at <= sent_at:
            song = self._song = sent_at, now
        elif song is None or sent_at < song[1]:
            return
        if self._asker.is_back(song[1]):
            self._release_few(song[0], now)

    def _release_few(self, sent_at: float, now: float) -> None:
        """Release what came in before a song was asked for, unless it is too much.

        All that was under way together with the song has come in: answers that the site gave
        before it may come in after it.
        """
        self._song = None
        held, watch = self._held, self._watch
        count = next((i for i, each in enumerate(held) if each.arrived_at > sent_at), len(held))
        if not count or watch.is_mostly_missing():
            return
        if self._is_crowded or watch.is_wary:
            if watch.has_budget or watch.is_wary:
                self._look(now)
        else:
            self._release(count, None)

    # One look.

    def _look(self, now: float, *, is_last: bool = False) -> None:
        """Ask a canary about all that is held now."""
        if not self._held or now < self._not_before:
            return
        self._song = None
        self._watch.begin_look()
        self._current = look = Look(
            len(self._held),
            since=self._held[0].arrived_at,
            near=self._held[0].attempt.song_num,
            is_last=is_last,
        )
        if not (self._ask_canaries(look, 1) or self._ask_spread(look)):
            self._find_no_song(look, now)

    def _ask_canaries(self, look: Look, wanted: int) -> bool:
        """Ask so many canaries that were not asked in this look; return whether there was one."""
        blocks = {num // 1000 for num in look.tried}
        known = self.canaries.near(look.near)
        turn = self._failed_looks % max(1, len(known))
        fresh = [num for num in known[turn:] + known[:turn] if num not in look.tried]
        fresh.sort(key=lambda num: num // 1000 in blocks)  # those of other blocks first
        chosen = fresh[:wanted]
        self._watch.canaries_asked += len(chosen)
        self._ask(look, chosen)
        return bool(chosen)

    def _ask_spread(self, look: Look) -> bool:
        """Ask numbers all over the range, once, where no song is known that proves anything.

        Behind a cache, whenever it answers for those that are known: numbers not asked yet. Returns
        whether there were any.
        """
        if self.canaries.is_cached:
            numbers = self.canaries.unasked(self._held[-1].attempt.song_num)
            self._watch.canaries_asked += len(numbers)
        else:
            numbers = [] if self._has_spread else self.canaries.spread()
            self._has_spread = True
        look.stage = "spread"
        look.spread += numbers
        self._ask(look, numbers)
        return bool(numbers)

    def _ask(self, look: Look, numbers: Iterable[int]) -> None:
        for num in numbers:
            look.tried.add(num)
            look.outstanding += 1
            self._asker.ask(num, self._job, lambda *answer: self._note(look, *answer))

    def _note(self, look: Look, attempt: PendingNumber, reply: Reply, now: float) -> None:
        """Learn what came of a canary, or of a held number that was asked again."""
        look.outstanding -= 1
        num, is_again = attempt.song_num, look.stage == "again"
        is_stale = reaches_back(
            reply, look.arrived.get(num, look.since) if is_again else look.since
        )
        if reply.found and (is_again or is_stale is not None):
            if is_again or not is_stale:
                look.has_found = True
                if not is_again:
                    look.fresh_at = max(look.fresh_at, stored_at(reply))
                look.canary = num if look.canary is None else look.canary
            if not is_again:
                self.canaries.note(num, is_found=True)
                self.canaries.is_cached |= is_stale is True
        elif judge(reply).action == "missing" and (is_stale is False if is_again else not is_stale):
            look.missing.add(num)
            if not is_again:
                self.canaries.note(num, is_found=False)
        else:
            look.failed.add(num)
            look.is_repeated |= is_again and judge(reply).action == "missing"
        if look.outstanding == 0 and self._current is look:
            self._go_on(look, now)

    def _go_on(self, look: Look, now: float) -> None:
        """Draw the conclusion when all numbers of one stage are answered."""
        if look.stage in ("again", "confirm"):
            self._conclude(look, now)
        elif look.has_found:
            self.canaries.deleted |= look.missing if look.stage == "opinion" else set()
            self._ask_held_again(look)
        elif look.failed:
            self._look_again_later(look, now)
        elif look.stage == "spread":
            self._find_no_song(look, now)
        elif look.stage == "canary" and self._ask_canaries(look, 2):
            look.stage = "opinion"
        elif look.missing:  # canaries are denied: the site lies
            self._begin_probing(look, now)
        elif not self._ask_spread(look):  # a cache answers: look for songs that it does not know
            self._find_no_song(look, now)

    def _conclude(self, look: Look, now: float) -> None:
        """Believe what is still missing, once the canary is found after that, too."""
        if look.stage == "again" and look.has_found:
            self._ask_all_again()
        elif look.stage == "again" and look.is_repeated:
            self._look_again_later(look, now)  # those asked stand for those that were not
        elif look.stage == "again" and look.missing and look.canary is not None:
            look.stage, look.bad = "confirm", set(look.failed)  # another spell may have begun
            look.failed.clear()
            last = self._held[-1].attempt.song_num
            others = self.canaries.unasked(last) if self.canaries.is_cached else []
            self._ask(look, [look.canary, *others])
        elif look.stage == "confirm" and look.has_found:
            self._release_but(look)
            self._end_look()
        else:
            self._look_again_later(look, now)

    def _ask_held_again(self, look: Look) -> None:
        """Ask some of the held numbers once more, since a spell may have come and gone."""
        look.stage, look.has_found, look.is_repeated = "again", False, False
        look.missing.clear()
        look.failed.clear()
        group = self._held[: look.group]
        look.group = sum(held.arrived_at <= look.fresh_at for held in group)
        look.arrived = {held.attempt.song_num: held.arrived_at for held in self._held[: look.group]}
        is_long_held = self.canaries.is_cached or self._failed_looks > 0
        nums = some_of(list(look.arrived), is_long_held=is_long_held)
        self._ask(look, nums)

    def _end_look(self) -> None:
        """Go on after what was held is believed."""
        self._current, self._failed_looks = None, 0
        self._watch.end_look()

    def _ask_all_again(self) -> None:
        held, self._held, self._is_crowded = self._held, [], False
        self._current, self._failed_looks = None, 0
        self._watch.be_wary()
        self._asker.ask_again(held)

    def _look_again_later(self, look: Look, now: float) -> None:
        """Hold on, and ask another canary next: one that fails is the circuit breaker's affair."""
        self._current, self._not_before = None, now + min(2.0**self._failed_looks, 60.0)
        self._failed_looks += 1
        if (look.is_last or self.room == 0) and self._failed_looks > MOST_FAILED_LOOKS:
            nums = ", ".join(map(str, sorted(look.failed or look.tried)))
            trouble = "songs that were there come from a cache"
            if look.failed:
                trouble = "songs that were there fail when asked again"
            if look.stage == "again":
                trouble = "what is missing fails, or comes from a cache, when asked again"
            self._asker.end("circuit", f"{trouble}: {nums}")

    def _find_no_song(self, look: Look, now: float) -> None:
        """Go on holding while there is room; without any song nothing can be believed."""
        if self.canaries.is_cached:
            may_go_on = look.is_spread_denied and len(look.spread) < SPREAD
            if not (may_go_on and self._ask_spread(look)):
                self._look_again_later(look, now)  # nobody was denied who is known to be there
            return
        look.missing.clear()
        look.stage = "canary"
        if self._ask_canaries(look, 1):
            return  # a song was found meanwhile
        self._current = None
        self._watch.wait_until(MOST_HELD)
        if look.is_last or len(self._held) >= MOST_HELD:
            self._asker.end(
                "circuit",
                f"{len(self._held)} numbers are missing and no song was ever found: look at the "
                "address, or name a number that is there: --canary N",
            )

    # A site that lies.

    def _begin_probing(self, look: Look, now: float) -> None:
        self.is_lying, self._lying_since = True, look.since
        self._probes, self._next_probe_at = 0, now + self._probe_seconds
        self._ask_all_again()

    def _probe(self, now: float) -> None:
        chosen = self.canaries.by_turn(self._probes)
        assert chosen is not None  # it was denied
        self._asker.ask(chosen[0], self._job, self._note_probe)
        self._probes += 1
        self._next_probe_at = now + self._probe_seconds

    def _note_probe(self, attempt: PendingNumber, reply: Reply, _now: float) -> None:
        if reply.found and reaches_back(reply, self._lying_since) is False:
            self.is_lying = False
            self.canaries.note(attempt.song_num, is_found=True)
        elif self._probes >= PROBES and self.is_lying:
            num = attempt.song_num
            self._asker.end("circuit", f"the site denies songs that are there, such as {num}")

    def _release_but(self, look: Look) -> None:
        """Release what was looked at; what failed when it was asked again is asked as any other."""
        group = self._held[: look.group]
        failed = [held for held in group if held.attempt.song_num in look.bad]
        kept = [held for held in group if held.attempt.song_num not in look.bad]
        self._held[: look.group] = kept
        self._asker.ask_again(failed)
        self._release(len(kept), look.canary)

    def _release(self, count: int, canary: int | None) -> None:
        released, self._held = self._held[:count], self._held[count:]
        if released:
            self._watch.believe(count, released[-1].answer_num)
        self._is_crowded = len(self._held) >= IN_A_ROW and self._is_crowded
        self._asker.release(released, canary)
