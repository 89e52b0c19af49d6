"""How far the site is trusted: what its failures, refusals and missing pages add up to."""

from typing import Any

from crawler.frontier.circuit import Circuit, MissingWatch, Refusals
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt


class Trust:
    """Puts the three watches of a run together. Called under the frontier's lock.

    Attributes:
        is_shaken: Whether `allowance` has to be asked before anything is handed out.
        stop: Why the run must end, `(stopped_by, detail)`; None while it may go on.
        held_seconds: For how long the circuit was open so far, the present time excluded.
    """

    def __init__(self, last_known: int | None) -> None:
        """Begin in trust; `last_known` is the last song known before, None to believe any 404."""
        self.is_shaken = False
        self.stop: tuple[str, str] | None = None
        self.held_seconds = 0.0
        self._circuit, self._refusals = Circuit(), Refusals()
        self._last_kind = ""
        self._watch = None if last_known is None else MissingWatch(last_known)

    @property
    def is_suspicious(self) -> bool:
        """Whether a refusal waits to be confirmed."""
        return self._refusals.is_suspicious

    @property
    def is_circuit_open(self) -> bool:
        """Whether so much failed that failures say nothing about their number."""
        return self._circuit.is_open

    def allowance(self, wanted: int, in_flight: int, now: float) -> tuple[int, float]:
        """Say how many attempts may start, and if none, in how many seconds to ask again."""
        circuit = self._circuit
        if circuit.is_open:
            if circuit.is_spent(in_flight):
                last = f"{circuit.failures} failures in a row, the last: {self._last_kind}"
                self.stop = ("circuit", last)
                return 0, 0.0
            wait = circuit.seconds_to_probe(now)
            if wait > 0:
                return 0, wait
            wanted = 1
        if self._refusals.is_suspicious:
            return (0, 0.5) if in_flight else (1, 0.0)
        return wanted, 0.0

    def note_handed_out(self, now: float) -> None:
        """Count what was handed out of an allowance."""
        if self._circuit.is_open:
            self._circuit.start_probe(now)

    def note_good(self, now: float) -> list[tuple[Any, Any]]:
        """Regain trust; give the refused `(attempt, reply)` that were about their page alone."""
        self.held_seconds += self._circuit.seconds_open(now)
        self._circuit.note_good()
        self._refusals.has_succeeded = True
        self.is_shaken = False
        return self._refusals.clear()

    def note_failure(
        self, kind: str, now: float, *, is_setup: bool = False, is_unsent: bool = False
    ) -> None:
        """Count one failure."""
        circuit, self._last_kind = self._circuit, kind
        circuit.note_failure(now, is_setup=is_setup, is_unsent=is_unsent)
        self.is_shaken = self.is_shaken or circuit.is_open
        if circuit.is_hopeless:
            self.stop = ("circuit", f"{circuit.failures} failures in a row: {kind}")

    def note_refusal(self, attempt: Attempt, reply: Reply) -> None:
        """Count one 401 or 403."""
        self.is_shaken = True
        if self._refusals.note(attempt, reply):
            self.stop = ("unauthorized", f"the site answered {reply.status}")

    def conclude(self) -> list[tuple[Any, Any]]:
        """When nothing is left to ask: give the refused attempts that were about their page."""
        if self._refusals.conclude():
            self.stop = ("unauthorized", "the site answered 401")
        return self._refusals.clear()

    def note_found(self, song_num: Any) -> None:
        """Count a number that is found."""
        if self._watch is not None:
            self._watch.note(song_num, False)

    def believes_missing(self, song_num: Any) -> bool:
        """Count a number that the site says is missing; say whether that can be believed."""
        watch = self._watch
        if watch is None:
            return True
        watch.note(song_num, True)
        if watch.is_alarmed:
            self.stop = ("circuit", watch.alarm)
        return not watch.is_alarmed
