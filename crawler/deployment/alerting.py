"""The files under `deploy/`: metrics, alert policies and dashboard, filled in for one deployment."""

import hashlib
import json
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("metrics", "alerts", "dashboards")
"""Folders under `deploy/`, in the order in which they must be made: alerts look at metrics."""

LONGEST_WINDOW_SECONDS = 90_000
"""An alert looks back 25 h at most.

Source: cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies, `alignmentPeriod`.
"""

_LATENESS_SECONDS = 1_800
"""A run counts when it has finished, up to half an hour after it was called."""


class Rendered(NamedTuple):
    """One file, filled in: its kind, the name it goes by, a digest of its content, where it lies."""

    kind: str
    name: str
    digest: str
    path: Path


def render(source: Path, out: Path, values: Mapping[str, str]) -> Iterator[Rendered]:
    """Fill in every file and write it, with a digest of its content inside.

    The digest tells later whether what stands is what is wanted, without comparing what a
    platform adds by itself.

    Args:
        source: The folder `deploy`.
        out: Where to write; made if it is not there.
        values: By the names that stand as `${NAME}` in the files.
    """
    for kind in KINDS:
        for path in sorted((source / kind).glob("*.json")):
            text = string.Template(path.read_text(encoding="utf-8")).substitute(values)
            content = json.loads(text)
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            _mark(content, kind, digest)
            target = out / kind / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content, indent=2), encoding="utf-8")
            yield Rendered(kind, _name(content), digest, target)


def windows_of(period_seconds: int) -> dict[str, str]:
    """Say how far alerts look back where runs are so many seconds apart.

    No alert can wait for runs that are further apart than the longest window, so that one is off.
    """
    periods = {
        "PERIOD": period_seconds,
        "TWO_PERIODS": 2 * period_seconds + _LATENESS_SECONDS,
        "THREE_PERIODS": 3 * period_seconds + _LATENESS_SECONDS,
    }
    values = {name: str(min(LONGEST_WINDOW_SECONDS, value)) for name, value in periods.items()}
    return values | {"RUNS_AWAITED": str(period_seconds <= LONGEST_WINDOW_SECONDS).lower()}


def _name(content: Mapping[str, Any]) -> str:
    return str(content.get("displayName") or content["name"])


def _mark(content: dict[str, Any], kind: str, digest: str) -> None:
    if kind == "metrics":
        content["description"] = f"{content['description']} ({digest})"
    elif kind == "alerts":
        content["userLabels"] = {**content.get("userLabels", {}), "content": digest}
        content["notificationChannels"] = [c for c in content["notificationChannels"] if c]
    else:
        content["labels"] = {**content.get("labels", {}), "content": digest}
