"""The schedule: how often a deployed crawl runs, when it is through, and how long cron is quiet."""

import math
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import pairwise

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
        cron: From one call to the next; a value of `CRONS`.
        songs_per_run: Numbers one run can ask for, >= 1.
        songs_per_day: Numbers all runs of a day can ask for, the daily cap included.
        completes_at: When all songs were asked, at the earliest; None where their number is not
            known.
    """

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
    return Schedule(CRONS[seconds], per_run, per_day, completes_at)


def _days(schedule: Schedule, now: datetime) -> int:
    assert schedule.completes_at is not None
    return math.ceil((schedule.completes_at - now) / timedelta(days=1))


# Cron texts.

_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_NINE_YEARS = range(date(2001, 1, 1).toordinal(), date(2010, 1, 1).toordinal())
"""Days that are looked at; the 29th of February is among them twice."""


def longest_gap_seconds(cron: str) -> int:
    """Return the longest time from one moment of a cron text to the next; clock changes aside.

    Args:
        cron: Five fields with one blank between them: minute, hour, day of month, month, weekday.

    Raises:
        ValueError: It is none, or its day never comes.

    Source: crontab(5); a day is taken if either the day of month or the weekday is, where both
    are given.
    """
    fields = cron.split(" ")
    if len(fields) != 5:
        raise ValueError(f"{len(fields)} fields instead of five")
    minutes, hours = _numbers(fields[0], range(60)), _numbers(fields[1], range(24))
    times = sorted(hour * 60 + minute for hour in hours for minute in minutes)
    days = _days_taken(*fields[2:])
    if not days:
        raise ValueError("a day that never comes")
    overnight = _longest(days) * 1440 - (times[-1] - times[0])
    return 60 * max(_longest(times), overnight)


def _days_taken(day: str, month: str, weekday: str) -> list[int]:
    """List the days of nine years that are taken, counted as `date.toordinal` does, ascending."""
    days = _numbers(day, range(1, 32))
    months = _numbers(month, range(1, 13), _MONTHS)
    weekdays = {number % 7 for number in _numbers(weekday, range(8), _WEEKDAYS)}
    either = not (day.startswith("*") or weekday.startswith("*"))
    is_taken = any if either else all
    dates = ((number, date.fromordinal(number)) for number in _NINE_YEARS)
    return [
        number
        for number, at in dates
        if at.month in months and is_taken((at.day in days, at.isoweekday() % 7 in weekdays))
    ]


def _numbers(field: str, span: range, names: tuple[str, ...] = ()) -> set[int]:
    """Read one field: numbers, names, ranges and steps, with commas between them."""
    chosen: set[int] = set()
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is no part of a field")
        first, last, step = match.groups()
        if step and ((first and not last) or int(step) not in range(1, span.stop)):
            raise ValueError(f"{part!r} has a step that does not fit")
        low = _number(first, span, names) if first else span[0]
        high = _number(last, span, names) if last else low if first else span[-1]
        if low > high:
            raise ValueError(f"{part!r} ends before it begins")
        chosen.update(range(low, high + 1, int(step or 1)))
    return chosen


def _number(word: str, span: range, names: tuple[str, ...]) -> int:
    if word.upper() in names:
        return span[names.index(word.upper())]
    if not re.fullmatch("[0-9]{1,2}", word) or int(word) not in span:
        raise ValueError(f"{word!r} is not from {span[0]} to {span[-1]}")
    return int(word)


def _longest(ascending: Iterable[int]) -> int:
    return max((after - before for before, after in pairwise(ascending)), default=0)
