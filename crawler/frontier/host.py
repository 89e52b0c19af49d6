"""What is asked of one host: which attempts may start now, and what follows from each reply."""

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial

from crawler.frontier.canaries import CanaryQueue, Held, KnownSongs
from crawler.frontier.proof import MOST_HELD, Proof
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.site_health import SiteHealth
from crawler.frontier.verdict import Reply, Verdict, judge
from crawler.frontier.work import Backlog, Job, Ledger, PendingNumber, Policy

SUPPLY_SECONDS = 0.02
"""How soon a supply that is still reading ahead, or a store without room, is asked again."""

IDLE_SECONDS = 0.5
"""How long a lane with nothing to do sleeps at most before it looks again."""

SONGS_AT_ONCE = 32
"""While nothing is held the proofs are told of so many songs at a time."""

MAX_EXCUSES = 3
"""So often a number may meet an idle connection that was closed: the next one may be idle too."""


class Host:
    """Hands out what is due for one host, and judges what comes back, each number once.

    Every method is called under the frontier's lock.

    Attributes:
        limiter: The pace towards the host.
        health: How well it is.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        policy: Policy,
        ledger: Ledger,
        *,
        stop: Callable[[str, str], None],
        deadline: float,
        on_proof: Callable[[list[int], int, datetime], None] | None,
        on_pause: Callable[[float], None] | None,
        on_pace: Callable[[float, str], None] | None,
        clock: Callable[[], float],
        wall: Callable[[], datetime],
        uniform: Callable[[float, float], float],
        known: KnownSongs | None = None,
        on_first_found: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare; `stop` ends its part of the run, with a reason and a detail. See `Frontier` for the rest."""
        self.limiter = limiter
        self._backlog = Backlog(policy, uniform)
        self.health = SiteHealth(
            limiter,
            stop=stop,
            ask_canary=self._ask_for_health,
            policy=policy,
            deadline=deadline,
            on_pause=on_pause,
            on_pace=on_pace,
        )
        self._policy, self.end = policy, stop
        self._ledger, self._tally = ledger, ledger.tally
        self._known, self._proofs = known or KnownSongs(), dict[Job, Proof]()
        self._on_proof, self._on_first_found = on_proof, on_first_found or (lambda _num: None)
        self._canaries, self._watches_step1 = CanaryQueue(), False
        self._out = set[PendingNumber]()
        self._songs = list[PendingNumber]()  # found, which the proofs have not been told of
        self._is_trusting = False  # no proof held anything when last looked at
        self.ask = self._canaries.ask
        self._clock, self._wall = clock, wall

    @property
    def in_flight(self) -> int:
        """Attempts handed out and not yet handed back."""
        return len(self._out)

    def add_job(self, job: Job) -> None:
        """Add one function over one list."""
        job.pause = self.limiter.pause
        self._backlog.add_job(job)
        self._watches_step1 = self._watches_step1 or job.source is None
        self._is_trusting = False
        if self._ledger.is_recording:  # so all its items are numbers
            self._proofs[job] = Proof(
                self,
                job,
                self._known,
                self._on_first_found,
                probe_seconds=self._policy.probe_seconds,
            )

    # Handing out.

    def take(self, wanted: int, now: float) -> tuple[list[PendingNumber], float]:
        """Hand out at most so many attempts; return in how many seconds there may be more."""
        resume_at = self.limiter.resume_at
        if resume_at > now:
            attempts, wait = list[PendingNumber](), resume_at - now
            self.health.check_pause(now)
        elif self._canaries.waiting:
            attempts, wait = self._take_canaries(wanted, now)
        else:
            allowed, wait = self._allowance(wanted, now)
            if allowed:
                allowed, wait = self._grant(allowed, now)
            attempts = self._hand_out(allowed, now) if allowed else []
            if not attempts and self._canaries.waiting:
                attempts, wait = self._take_canaries(wanted, now)
        return attempts, min(wait, IDLE_SECONDS)

    def put_back(self, attempts: list[PendingNumber]) -> None:
        """Take back attempts whose request was never sent."""
        unsent = [attempt for attempt in attempts if attempt.is_out]
        self._out.difference_update(unsent)
        for attempt in unsent:
            attempt.is_out = False
            self._tally.requests -= 1
            self._tally.retries -= attempt.requests > 0
        self._canaries.put_first([attempt for attempt in unsent if attempt.is_canary])
        self._backlog.put_first([attempt for attempt in unsent if not attempt.is_canary])

    def _take_canaries(self, wanted: int, now: float) -> tuple[list[PendingNumber], float]:
        left = self._requests_left
        if left <= 0:
            self.end("daily_cap", "")
            return [], 0.0
        is_probing, waiting = self.health.is_probing, len(self._canaries.waiting)
        if is_probing and self._out:
            return [], IDLE_SECONDS
        wanted = int(min(1 if is_probing else wanted, waiting, left))
        granted, wait = self.limiter.grant(wanted, now)
        return self._send_out(self._canaries.pop(granted), now), wait

    @property
    def _requests_left(self) -> float:
        most = self._policy.max_requests
        return math.inf if most is None else most - self._tally.requests

    def _allowance(self, wanted: int, now: float) -> tuple[int, float]:
        """Return how many attempts may start as far as anything but pace is concerned."""
        for proof in () if self._is_trusting else self._proofs.values():
            if (room := proof.room) < MOST_HELD:
                wanted = min(wanted, room - len(self._out))
                if room == 0:
                    return 0, proof.wake(now)
        if self._watches_step1:
            wanted = min(wanted, self.health.step1_room - len(self._out))
        if wanted <= 0:
            return 0, IDLE_SECONDS
        if self.health.is_in_doubt:
            return self.health.allowance(wanted, len(self._out), now)
        return wanted, 0.0

    def _grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Return how many may start that there are; a supply is asked for one more than is due."""
        backlog, left = self._backlog, self._requests_left
        is_failing = not self.health.is_at_ease and self.health.is_failing
        is_there = backlog.prepare(1, now, is_failing=is_failing) > 0
        if left <= 0 and (is_there or backlog.next_due is not None):
            self.end("daily_cap", "")
            return 0, 0.0
        if not is_there:
            return 0, self._idle_wait(now)
        granted, wait = self.limiter.grant(wanted if left > wanted else int(left), now)
        ready = backlog.prepare(granted, now, is_failing=is_failing) if granted > 1 else granted
        if ready < granted:
            self.limiter.give_back(granted - ready)
        return ready, wait

    def _hand_out(self, count: int, now: float) -> list[PendingNumber]:
        if self.health.is_in_doubt:
            self.health.note_handed_out(now)
        attempts = self._backlog.pop(count)
        began_at = now - self._held_seconds
        for attempt in attempts:
            if attempt.requests:
                self._tally.retries += 1
            else:
                attempt.first_at = began_at
        return self._send_out(attempts, now)

    def _send_out(self, attempts: list[PendingNumber], now: float) -> list[PendingNumber]:
        for attempt in attempts:
            attempt.sent_at, attempt.is_out = now, True
        self._tally.requests += len(attempts)
        self._out.update(attempts)
        return attempts

    def _idle_wait(self, now: float) -> float:
        """Return how long there will be nothing to hand out, or end the run."""
        due = self._backlog.next_due
        soon = IDLE_SECONDS if due is None else max(0.0, due - now)
        is_last = due is None and not self._out
        if is_last and self.health.is_suspicious:
            self._fail_refused(self.health.conclude(), self._wall())
            return 0.0
        if is_last:
            is_end = not self._backlog.has_fresh
            self._note_songs(now)
            if any(proof.conclude(now, is_end=is_end) for proof in self._proofs.values()):
                return 0.0 if self._canaries.waiting else SUPPLY_SECONDS
        if self._backlog.has_fresh:
            return min(SUPPLY_SECONDS, soon)
        if is_last:
            self.end("done", "")
        return soon

    @property
    def _held_seconds(self) -> float:
        """All time held back so far; it counts towards no number's own time."""
        return self.limiter.held_seconds + self.health.held_seconds

    # Canaries, for the proofs and for the circuit breaker.

    def release(self, held: list[Held], canary: int | None) -> None:
        """Record numbers as missing; `canary` was found after them, None where none was needed."""
        if canary is not None and self._on_proof is not None:
            self._on_proof([each.attempt.song_num for each in held], canary, self._wall())
        for each in held:
            self._ledger.missing(each.attempt, each.reply, each.moment)

    def is_back(self, moment: float) -> bool:
        """Whether all that was sent before a moment, monotonic seconds, has come back."""
        return all(attempt.sent_at >= moment for attempt in self._out)

    def ask_again(self, held: list[Held]) -> None:
        """Give numbers back to the backlog."""
        for each in held:
            self._backlog.wait_until(self._clock(), each.attempt)

    def _ask_for_health(self, turn: int) -> bool:
        """Ask a canary for the circuit breaker, another each turn; False where there is none."""
        self._note_songs(self._clock())
        for job, proof in self._proofs.items():
            if chosen := proof.canaries.by_turn(turn):
                on_reply = partial(self._note_health, is_known=chosen[1])
                self.ask(chosen[0], job, on_reply, is_first=True)
                return True
        return False

    def _note_health(
        self, attempt: PendingNumber, reply: Reply, now: float, *, is_known: bool
    ) -> None:
        """Of an unknown number "missing" is as good an answer as a song."""
        proof, is_missing = self._proofs[attempt.job], judge(reply).action == "missing"
        if is_missing and not is_known:
            proof.note_unknown()
        elif is_missing or reply.found:
            proof.note_canary(attempt.song_num, is_found=reply.found)
        is_well = reply.found or (is_missing and not is_known)
        self._fail_refused(self.health.note_canary(reply, is_well=is_well, now=now), self._wall())

    def _note_canary(
        self, attempt: PendingNumber, reply: Reply, moment: datetime, now: float
    ) -> None:
        verdict = judge(reply)
        if reply.fault is not None:
            self.health.note_fault(attempt, reply.fault)
        if verdict.action in ("retry", "failed", "challenged"):
            self._ledger.failed_attempt(attempt, reply, verdict.kind or "protocol")
        if verdict.is_overload or verdict.action == "challenged":
            self.health.note_overload(attempt, reply, verdict, moment, now)
        elif verdict.action == "refused":
            self.health.note_refusal(attempt, reply)
        elif verdict.action in ("found", "missing"):
            self.health.end_probing(attempt.sent_at)
        self._canaries.answer(attempt, reply, now)

    # Judging.

    def settle(self, replies: list[Reply]) -> None:
        """Judge replies, in the order of arrival."""
        moment, now = self._wall(), self._clock()
        ledger, out, songs = self._ledger, self._out, self._songs
        waited, good, last_good = 0.0, 0, None
        for reply in replies:
            attempt = reply.attempt
            if not attempt.is_out:
                continue  # it was given up meanwhile
            attempt.is_out = False
            out.discard(attempt)
            attempt.requests += 1
            waited += now - attempt.sent_at
            if reply.headers:
                self.health.note_headers(attempt, reply, moment, now)
            if reply.is_unsent:
                ledger.unsent(attempt, reply)
            if reply.found and not attempt.is_canary:
                good, last_good = good + 1, attempt
                ledger.found(attempt, reply, moment)
                proof = self._proofs.get(attempt.job) if reply.headers else None
                if proof is None or proof.is_evidence(reply):
                    songs.append(attempt)
                continue
            self._note_songs(now)
            self._is_trusting = False
            if attempt.is_canary:
                self._note_canary(attempt, reply, moment, now)
                continue
            verdict = judge(reply)
            if verdict.action == "missing":
                good, last_good = good + 1, attempt
                self._note_missing(attempt, reply, verdict, moment, now)
                continue
            self._note_good(good, last_good, now)
            good, last_good = 0, None
            self._note_bad(attempt, reply, verdict, moment, now)
        if not self._is_trusting or len(songs) >= SONGS_AT_ONCE:
            self._note_songs(now)
            self._is_trusting = all(proof.is_idle for proof in self._proofs.values())
        self._note_good(good, last_good, now)
        self._tally.latency_seconds += waited

    def _note_songs(self, now: float) -> None:
        """Tell the proofs of the songs found since they were told last."""
        if self._songs and self._watches_step1:
            self.health.note_songs()
            self._watches_step1 = False
        for job, proof in self._proofs.items() if self._songs else ():
            if own := [song for song in self._songs if song.job is job]:
                proof.note_songs(own, now)
        self._songs.clear()

    def _note_good(self, count: int, last: PendingNumber | None, now: float) -> None:
        """Count good answers, the last of them known; 0 and None where there was none."""
        if last is None:
            return
        if self.health.is_at_ease:
            self.health.good += count
            self.limiter.recover(now)
        else:
            self._fail_refused(self.health.note_good(count, last.sent_at, now), self._wall())

    def _note_missing(
        self, attempt: PendingNumber, reply: Reply, verdict: Verdict, moment: datetime, now: float
    ) -> None:
        if verdict.moved_to is not None:
            reply.detail = f"moved to {verdict.moved_to}"
        if (proof := self._proofs.get(attempt.job)) is not None:
            proof.hold(attempt, reply, moment, now)
        else:
            self._ledger.missing(attempt, reply, moment)

    def give_up(self, attempt: PendingNumber) -> None:
        """Fail a number that nobody works on any more, though no reply ever came."""
        self._out.discard(attempt)
        attempt.is_out, attempt.is_abandoned = False, True
        attempt.requests += 1
        now = self._clock()
        reply = Reply(attempt, error="timeout", detail="stuck; its lane was replaced")
        self._ledger.failed_attempt(attempt, reply, "timeout")
        if attempt.is_canary:
            self._canaries.answer(attempt, reply, now)
            return
        self.health.note_failure(attempt, judge(reply), now, is_unsent=False)
        self._ledger.failed(attempt, reply, "timeout", self._wall())

    def _fail_refused(self, refused: list[tuple[PendingNumber, Reply]], moment: datetime) -> None:
        """Fail the numbers that were refused by themselves, and not the token."""
        for attempt, reply in refused:
            if not attempt.is_canary:
                self._ledger.failed(attempt, reply, f"http_{reply.status}", moment)

    def _note_bad(
        self, attempt: PendingNumber, reply: Reply, verdict: Verdict, moment: datetime, now: float
    ) -> None:
        kind = verdict.kind or "protocol"
        self._ledger.failed_attempt(attempt, reply, kind)
        if reply.fault is not None:
            self.health.note_fault(attempt, reply.fault)
            self._watches_step1 = True
        if verdict.is_overload or verdict.action == "challenged":
            self.health.note_overload(attempt, reply, verdict, moment, now)
        if verdict.action == "challenged":
            self._backlog.wait_until(now, attempt)
            return
        if verdict.action == "refused" and not self.health.note_refusal(attempt, reply):
            return
        if verdict.is_excused and attempt.requests <= MAX_EXCUSES:
            self._backlog.wait_until(now, attempt)
            return
        self.health.note_failure(attempt, verdict, now, is_unsent=reply.is_unsent)
        if verdict.action in ("failed", "refused") or not self._retry(attempt, reply, verdict, now):
            self._ledger.failed(attempt, reply, kind, moment)

    def _retry(self, attempt: PendingNumber, reply: Reply, verdict: Verdict, now: float) -> bool:
        """Put the number back into the backlog, unless its tries or its time are used up.

        While the circuit is open a failure says nothing about the number, which serves as a probe
        at the circuit's pace.
        """
        if self.health.is_circuit_open:
            self._backlog.wait_until(now, attempt)
            return True
        if self.health.is_spent_page(attempt):
            return False
        return self._backlog.retry(
            attempt,
            is_counted=verdict.is_counted,
            is_unsent=reply.is_unsent,
            now=now,
            held_seconds=self._held_seconds,
            asked_seconds=0.0 if verdict.is_overload else reply.retry_after(self._wall()) or 0.0,
        )
