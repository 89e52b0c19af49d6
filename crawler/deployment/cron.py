"""Cron texts: whether one is well-formed, and how long a schedule of it is quiet at most."""

import re
from collections.abc import Iterable
from datetime import date
from itertools import pairwise

_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]+))?")

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")

_NINE_YEARS = range(date(2001, 1, 1).toordinal(), date(2010, 1, 1).toordinal())
"""Days that are looked at; the 29th of February is among them twice."""


def longest_gap_seconds(cron: str) -> int:
    """Say how long it is at most from one moment of a cron text to the next; clock changes aside.

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
    days = _days(*fields[2:])
    if not days:
        raise ValueError("a day that never comes")
    overnight = _longest(days) * 1440 - (times[-1] - times[0])
    return 60 * max(_longest(times), overnight)


def _days(day: str, month: str, weekday: str) -> list[int]:
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
