"""When a number whose attempt failed is tried again, if it is."""

from collections.abc import Callable

from crawler.frontier.work import Attempt, Policy

_LONGEST_DOUBLING = 16


def retry_at(
    attempt: Attempt,
    policy: Policy,
    *,
    is_counted: bool,
    now: float,
    held_seconds: float,
    uniform: Callable[[float, float], float],
) -> float | None:
    """Say when a number is due again; None when its attempts or its time are used up.

    Exponential backoff with full jitter. The last attempt is made no sooner than half of all the
    longest waits after the first one: by chance all waits may be short, and then a site that was
    down for 5 s would have failed the number.

    Args:
        attempt: What just failed; its request is counted in `requests`, and here in `number`.
        policy: The limits.
        is_counted: Whether the failure says anything about the number.
        now: Monotonic seconds.
        held_seconds: All time held back so far, by pauses or the circuit.
        uniform: Randomness.

    Source: aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter.
    """
    attempt.number += is_counted
    left = policy.max_attempts - attempt.number
    if left <= 0:
        return None
    due = now + uniform(0.0, _ceiling(policy, attempt.requests))
    began = attempt.first_at + held_seconds
    if left == 1:
        waits = sum(_ceiling(policy, count) for count in range(1, policy.max_attempts))
        due = max(due, began + waits / 2)
    if is_counted and due - began > policy.retry_seconds:
        return None
    return due


def _ceiling(policy: Policy, requests: int) -> float:
    """Say how long the wait after so many requests may be."""
    doublings = min(requests - 1, _LONGEST_DOUBLING)
    return min(policy.max_backoff_seconds, policy.backoff_seconds * 2.0**doublings)
