"""The schedule: how often a deployed crawl is to run, and when it will be through."""

import math
from datetime import datetime, timedelta

import msgspec

CRONS = {
    1_800: "*/30 * * * *",
    3_600: "0 * * * *",
    7_200: "0 */2 * * *",
    10_800: "0 */3 * * *",
    14_400: "0 */4 * * *",
    21_600: "0 */6 * * *",
}
"""Intervals in seconds, ascending, as cron says them.

The shortest is longer than the service's timeout (1740 s), so that no two runs meet. The longest is
6 h: alerts look back over three periods, and Cloud Monitoring aligns over 25 h at most.
"""

DAY_SECONDS = 86_400

_CENTURY_DAYS = 36_525


class Schedule(msgspec.Struct, frozen=True):
    """When a scheduler calls the function.

    Attributes:
        interval_seconds: From one call to the next; a key of `CRONS`.
        cron: The same as cron says it.
        songs_per_run: Numbers one run can ask for, >= 1.
        songs_per_day: Numbers all runs of a day can ask for, the daily cap included.
        completes_at: When all songs were asked, at the earliest; None where their number is not
            known.
    """

    interval_seconds: int
    cron: str
    songs_per_run: int
    songs_per_day: int
    completes_at: datetime | None


def make_schedule(
    songs: int | None,
    *,
    rate: float,
    budget_seconds: float,
    max_requests_per_day: int | None = None,
    now: datetime,
) -> Schedule:
    """Choose the longest interval that is through on the same day as running without a break.

    A range that fits into one run is so looked at every six hours, and one of weeks every half.

    Args:
        songs: Numbers to ask for; None: not known, which is taken as endless.
        rate: Requests per second of one run, > 0.
        budget_seconds: A run ends after this long.
        max_requests_per_day: The cap over all runs.
        now: When the first run begins, aware.
    """
    per_run = max(1, math.floor(rate * budget_seconds))
    cap = max_requests_per_day or math.inf
    busy = timedelta(seconds=budget_seconds)
    shortest = _at_interval(next(iter(CRONS)), songs, per_run, cap, now, busy)
    if songs is None:
        return shortest
    days = _days(shortest, now)
    choices = [_at_interval(seconds, songs, per_run, cap, now, busy) for seconds in CRONS]
    return [choice for choice in choices if _days(choice, now) <= days][-1]


def _at_interval(
    seconds: int, songs: int | None, per_run: int, cap: float, now: datetime, busy: timedelta
) -> Schedule:
    per_day = int(min(cap, per_run * (DAY_SECONDS // seconds)))
    completes_at = None
    if songs is not None:
        days, rest = divmod(max(0, songs - 1), per_day)
        days = min(days, _CENTURY_DAYS)  # there are dates that no calendar here holds
        completes_at = now + timedelta(days=days, seconds=rest // per_run * seconds)
        completes_at += busy * ((rest % per_run + 1) / per_run)
    return Schedule(seconds, CRONS[seconds], per_run, per_day, completes_at)


def _days(schedule: Schedule, now: datetime) -> int:
    assert schedule.completes_at is not None
    return math.ceil((schedule.completes_at - now) / timedelta(days=1))
