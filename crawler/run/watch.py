"""What the alerts look at: shares and yes-or-no facts of a run, reckoned where the counts are.

A filter over logs can compare one field with a number, but cannot divide two; so the run does.
"""

from collections.abc import Mapping
from typing import Any

from crawler.answer import Answer

MISSING_SHARE = 0.30
"""A run that found more missing below the last known song than this is worth a look: about 9 in 100
numbers of the Genius catalogue are missing."""

THROTTLED_SHARE = 0.01
"""A run of which more answers than this were 429 goes faster than the site likes."""

FEW = 100
"""A share of fewer numbers than this says nothing."""


def watch_fields(answer: Answer, kinds: Mapping[str, int], missing_at_end: int) -> dict[str, Any]:
    """Reckon what the alerts filter on; the names are those of `deploy/metrics`.

    Args:
        answer: What the run did.
        kinds: Failed attempts by kind.
        missing_at_end: Missing numbers beyond the last found song: every look for new songs ends
            with a thousand of them, so they are no sign of trouble.

    Returns:
        `missing_high`, `throttled`: booleans, see the constants. `gained`: whether the run settled
        anything below the end, or found nothing left to settle.
    """
    missing = max(0, answer.missing - missing_at_end)
    settled = answer.found + missing
    return {
        "missing_high": settled >= FEW and missing > MISSING_SHARE * settled,
        "throttled": answer.requests >= FEW
        and kinds.get("http_429", 0) > THROTTLED_SHARE * answer.requests,
        "gained": bool(settled) or answer.complete,
    }
