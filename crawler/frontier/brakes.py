"""The brakes of one run: the shared pace, a lower pace of its own, and pauses."""

from crawler.frontier.pacer import Pacer


class Brakes:
    """Grants what both paces allow, and passes on what the site says about them.

    Not safe in threads, the shared pacer excepted: the frontier holds its lock.
    """

    def __init__(self, pacer: Pacer, own_pacer: Pacer | None) -> None:
        """Brake with the pacer that all runs share, and with a lower one of this run alone."""
        self._pacer, self._own_pacer = pacer, own_pacer

    @property
    def resume_at(self) -> float:
        """When the shared pause ends, monotonic seconds; in the past where there is none."""
        return self._pacer.resume_at

    @property
    def held_seconds(self) -> float:
        """Length of all shared pauses, whoever learnt of them."""
        return self._pacer.held_seconds

    def grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Say how many attempts may start now, and in how many seconds there may be more."""
        if self._own_pacer is None:
            return self._pacer.grant(wanted, now)
        own, own_wait = self._own_pacer.grant(wanted, now)
        if own == 0:
            return 0, own_wait
        granted, wait = self._pacer.grant(own, now)
        if granted < own:
            self._own_pacer.give_back(own - granted)
            return granted, wait
        return granted, max(wait, own_wait)

    def give_back(self, count: int) -> None:
        """Take back grants that were not used."""
        for pacer in self._pacers():
            pacer.give_back(count)

    def charge(self, count: int) -> None:
        """Pay for requests that were sent without a grant."""
        for pacer in self._pacers():
            pacer.charge(count)

    def hold(self, seconds: float, now: float) -> bool:
        """Begin or lengthen the shared pause; say whether that changed anything."""
        return self._pacer.hold(now + seconds, now)

    def slow_down(self, sent_at: float, now: float) -> None:
        """Halve the pace: that of this run too, or a lower one would not be halved at all."""
        for pacer in self._pacers():
            pacer.slow_down(sent_at, now)

    def recover(self, now: float) -> None:
        """Win back pace after a good answer."""
        self._pacer.recover(now)
        if self._own_pacer is not None:
            self._own_pacer.recover(now)

    def _pacers(self) -> list[Pacer]:
        return [self._pacer] if self._own_pacer is None else [self._pacer, self._own_pacer]
