"""The pace towards one host: so many attempts a second, slower when told, and pauses for all."""

import math
import threading

CATCH_UP_SECONDS = 0.5
"""So much lateness (a busy machine, a long timer) is made good afterwards; more is let go."""

PEAK = 1.02
"""How much faster than the rate lateness is made good. With a burst of 2 % no second holds more
than 104 % of the rate, which leaves 1 % for what the network shifts."""

RECOVERY_PER_SECOND = 0.1
"""Share of the full rate won back in each second of good answers: 90 % within 9 s from anything."""


class Pacer:
    """Grants attempts. Shared by every run of a process against one host; safe in threads.

    Two token buckets: one holds the mean rate and remembers a little lateness, the other keeps
    every single second below the peak. All times are seconds of one monotonic clock, given by
    the caller.
    """

    def __init__(self, rate: float) -> None:
        """Start at full rate; `rate` is attempts per second, 0 for no limit."""
        self.rate = rate
        self._full = rate or math.inf
        self._limit = self._full
        self._lock = threading.Lock()
        self._credit = self._burst = 1.0
        self._refilled_at = -math.inf
        self._resume_at = -math.inf
        self._cut_at = -math.inf
        self._recovered_at = -math.inf
        self._counted_from, self._counted, self._measured = -math.inf, 0, 0.0

    @property
    def limit(self) -> float:
        """Attempts per second granted at present, `inf` where there is no limit."""
        return self._limit

    @property
    def resume_at(self) -> float:
        """When the latest shared pause ends; in the past where there is none."""
        return self._resume_at

    def grant(self, wanted: int, now: float) -> tuple[int, float]:
        """Say how many of the wanted attempts may start now, and when to ask again.

        Args:
            wanted: Attempts the caller could start, >= 1.
            now: Monotonic seconds.

        Returns:
            `(granted, wait)`: 0 <= granted <= wanted; seconds until more will be granted.
        """
        with self._lock:
            if now < self._resume_at:
                return 0, self._resume_at - now
            limit = self._limit
            if limit == math.inf:
                self._count(wanted, now)
                return wanted, 0.0
            self._refill(now, limit)
            granted = min(wanted, int(min(self._credit, self._burst)))
            self._credit -= granted
            self._burst -= granted
            self._count(granted, now)
            lacking = 1.0 - min(self._credit, self._burst)
            return granted, max(0.0, lacking / limit)

    def give_back(self, count: int) -> None:
        """Take back grants that were not used."""
        with self._lock:
            self._credit += count
            self._burst += count

    def charge(self, count: int) -> None:
        """Pay for requests that were sent without a grant (a transport's own repeats)."""
        with self._lock:
            self._credit -= count

    def hold(self, until: float, now: float) -> None:
        """Let no attempt start before `until`; a pause that ends later stays."""
        with self._lock:
            if until > max(self._resume_at, now):
                self._resume_at = until

    def slow_down(self, sent_at: float, now: float) -> None:
        """Halve the pace, once for all attempts that were under way when it was last halved."""
        with self._lock:
            if sent_at <= self._cut_at:
                return
            if self._full == math.inf:
                self._full = max(
                    1.0, self._measured, self._counted / max(now - self._counted_from, 0.1)
                )
            self._limit = (
                max(1.0, min(self._limit, self._full) / 2) if self._full > 1 else self._full
            )
            self._cut_at = now
            self._recovered_at = max(now, self._resume_at)
            self._credit = min(self._credit, 1.0)

    def recover(self, now: float) -> None:
        """Win back pace after a good answer."""
        if self._limit >= self._full:
            return
        with self._lock:
            passed = min(1.0, max(0.0, now - self._recovered_at))
            self._recovered_at = max(now, self._recovered_at)
            self._limit = min(self._full, self._limit + self._full * RECOVERY_PER_SECOND * passed)
            if self._limit >= self._full and self.rate == 0:
                self._limit = self._full = math.inf

    def _refill(self, now: float, limit: float) -> None:
        passed = max(0.0, now - self._refilled_at)
        peak = limit * PEAK if limit >= 50 else limit  # below, 2 % is less than one attempt
        self._credit = min(self._credit + passed * limit, max(1.0, limit * CATCH_UP_SECONDS))
        self._burst = min(self._burst + passed * peak, max(1.0, limit * (PEAK - 1)))
        if self._refilled_at == -math.inf:
            self._credit = self._burst = 1.0
        self._refilled_at = max(now, self._refilled_at)

    def _count(self, granted: int, now: float) -> None:
        if now - self._counted_from >= 1.0:
            passed = now - self._counted_from
            self._measured = self._counted / passed
            self._counted_from, self._counted = now, 0
        self._counted += granted
