"""What pace a site saw, read from its log: the proof comes from outside the crawler."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Requests per second as the site saw them.

    Attributes:
        requests: Lines in the log.
        mean: From the first to the last.
        most_in_a_clock_second: The fullest second by the clock.
        most_in_any_second: The fullest span of 1 s, wherever it begins; at least the former.
    """

    requests: int
    mean: float
    most_in_a_clock_second: int
    most_in_any_second: int


def read_pace(lines: Iterable[str]) -> Pace:
    """Read log lines that begin with `seconds.milliseconds`, in any order."""
    times = sorted(int(line.split(maxsplit=1)[0].replace(".", "")) for line in lines)
    span = (times[-1] - times[0]) / 1000 if times else 0.0
    return Pace(
        requests=len(times),
        mean=(len(times) - 1) / span if span else 0.0,
        most_in_a_clock_second=max(Counter(time // 1000 for time in times).values(), default=0),
        most_in_any_second=_most_within(times, 1000),
    )


def _most_within(times: list[int], width: int) -> int:
    """Count the most times in any half-open span of `width`; times ascend."""
    most = begin = 0
    for end, time in enumerate(times):
        while time - times[begin] >= width:
            begin += 1
        most = max(most, end - begin + 1)
    return most
