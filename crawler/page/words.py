"""What the coverage page says in words: counts, ranges, times, durations."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def counted(number: float) -> str:
    """Write a count with commas: "20,000"."""
    return f"{number:,.0f}"


def numbers(start: int, stop: int) -> str:
    """Write a range as people do, both ends included: "1,000 to 1,999"."""
    return counted(start) if stop == start + 1 else f"{counted(start)} to {counted(stop - 1)}"


def some(nums: Sequence[int], total: int) -> str:
    """Name some numbers of so many: "2,017, 2,018 and 5 more"."""
    shown = ", ".join(counted(num) for num in nums)
    return f"{shown} and {counted(total - len(nums))} more" if total > len(nums) else shown


def crawl(start: int, stop: int, location: str) -> str:
    """Write the command that fills a range of this store, as a shell reads it."""
    return f"python -m crawler crawl {start} {stop} --store {shlex.quote(location)}"


def share(part: int, whole: int) -> str:
    """Write a share in per cent; only what is whole reads "100 %"."""
    if not whole or part == whole:
        return "100 %" if whole else "0 %"
    return f"{min(99.9, 100 * part / whole):.1f} %"


def duration(seconds: float) -> str:
    """Write a duration with its two largest units: "2 hours 5 minutes"."""
    left = max(1, round(seconds))
    parts = []
    for size, name in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count:,} {name}{'s' if count > 1 else ''}")
        elif parts:
            break
    return " ".join(parts[:2])


def moment(time: datetime) -> str:
    """Write a time, UTC: "2026-11-22 06:12 UTC"."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
