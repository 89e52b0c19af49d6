"""Metrics, alerts and dashboard: the files under `deploy/`, filled in, and made to stand as they say."""

import hashlib
import json
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from crawler.deployment.cloud import Cloud, CloudError
from crawler.deployment.gcloud import tell

KINDS = ("metrics", "alerts", "dashboards")
"""Folders under `deploy/`, in the order in which they must be made: alerts look at metrics."""

LONGEST_WINDOW_SECONDS = 90_000
"""An alert looks back 25 h at most: its alignment period and its duration together.

Source: cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.alertPolicies, `alignmentPeriod`;
chainguard-dev/terraform-infra-common issues 783, 1022.
"""

ABSENCE_SECONDS = 60
"""The duration of the alert for a run that did not come; all others have none."""

_LATENESS_SECONDS = 1_800
"""A run counts when it has finished, up to half an hour after it was called."""

_METRICS = ("logging", "v2", "metrics", "metrics")
_ALERTS = ("monitoring", "v3", "alertPolicies", "alertPolicies")
_DASHBOARDS = ("monitoring", "v1", "dashboards", "dashboards")
_APIS = dict(zip(KINDS, (_METRICS, _ALERTS, _DASHBOARDS), strict=True))


class Rendered(NamedTuple):
    """One file, filled in: its kind, the name it goes by, a digest of its content, the content."""

    kind: str
    name: str
    digest: str
    content: dict[str, Any]


class Standing(NamedTuple):
    """One metric, alert or dashboard that stands: its kind, name, digest, and resource's name."""

    kind: str
    name: str
    digest: str
    resource: str


def render(source: Path, values: Mapping[str, str]) -> Iterator[Rendered]:
    """Fill in every file, with a digest of its content inside.

    The digest tells later whether what stands is what is wanted, without comparing what a
    platform adds by itself.

    Args:
        source: The folder `deploy`.
        values: By the names that stand as `${NAME}` in the files.
    """
    for kind in KINDS:
        for path in sorted((source / kind).glob("*.json")):
            text = string.Template(path.read_text(encoding="utf-8")).substitute(values)
            content = json.loads(text)
            digest = hashlib.sha256(text.encode()).hexdigest()[:12]
            _mark(content, kind, digest)
            name = str(content.get("displayName") or content["name"])
            yield Rendered(kind, name, digest, content)


def windows_of(period_seconds: int) -> dict[str, str]:
    """Return how far alerts look back where runs are so many seconds apart.

    No alert can wait for runs that are further apart than the longest window, so such a one is off.
    """
    one = period_seconds + _LATENESS_SECONDS
    two, three = one + period_seconds, one + 2 * period_seconds
    longest = LONGEST_WINDOW_SECONDS - ABSENCE_SECONDS
    return {
        "PERIOD": str(min(LONGEST_WINDOW_SECONDS, period_seconds)),
        "TWO_PERIODS": str(min(longest, two)),
        "THREE_PERIODS": str(min(LONGEST_WINDOW_SECONDS, three)),
        "RUNS_AWAITED": str(one <= longest).lower(),
        "GAIN_AWAITED": str(three <= LONGEST_WINDOW_SECONDS).lower(),
    }


def count_conditions(source: Path) -> int:
    """Return how many alert conditions there are, which is what Google asks money for."""
    values = {"SERVICE": "any", "CHANNEL": "", **windows_of(1)}
    alerts = (file.content for file in render(source, values) if file.kind == "alerts")
    return sum(len(alert["conditions"]) for alert in alerts)


def make(
    cloud: Cloud,
    source: Path,
    kinds: tuple[str, ...],
    *,
    service: str,
    period_seconds: int,
    email: str | None,
) -> None:
    """Make what is not there of these kinds, and replace what stands with another content.

    Args:
        source: The folder `deploy`.
        kinds: Some of KINDS; metrics early, since alerts wait until they are visible.
        period_seconds: The longest time between two runs.
        email: Who is told by alerts; None: nobody.

    Raises:
        CloudError: A listing or a change was refused: nothing is made on half of the knowledge.
    """
    channel = _channel(cloud, service, email) if "alerts" in kinds and email else ""
    values = {"SERVICE": service, "CHANNEL": channel, **windows_of(period_seconds)}
    there = {(one.kind, one.name): one for kind in kinds for one in standing(cloud, kind, service)}
    for file in render(source, values):
        if file.kind in kinds:
            found = there.get((file.kind, file.name))
            if found is None or found.digest != file.digest:
                _put(cloud, file, found)
                tell(f"{'Made' if found is None else 'Changed'}: {file.kind} {file.name}")


def standing(cloud: Cloud, kind: str, service: str) -> Iterator[Standing]:
    """List what stands of a kind and is ours."""
    api, version, collection, plural = _APIS[kind]
    for one in cloud.listed(api, f"{version}/projects/{cloud.project}/{collection}", plural):
        if kind == "metrics":
            is_named = one["name"].startswith(f"{service}-")  # as is one of SERVICE=song-two
            is_ours = is_named and f'.service_name="{service}"' in one.get("filter", "")
            digest = one.get("description", "").rpartition("(")[2].rstrip(")")
            resource = f"projects/{cloud.project}/metrics/{one['name']}"
            name = one["name"]
        else:
            labels = one.get("userLabels" if kind == "alerts" else "labels", {})
            is_ours = labels.get("service") == service
            digest, resource, name = labels.get("content", ""), one["name"], one["displayName"]
        if is_ours:
            yield Standing(kind, name, digest, resource)


def remove(cloud: Cloud, service: str) -> None:
    """Take down alerts, dashboard and metrics of ours, then the channel that was made for them."""
    for kind in ("alerts", "dashboards", "metrics"):
        for one in list(standing(cloud, kind, service)):
            api, version, *_ = _APIS[kind]
            _delete(cloud, api, f"{version}/{one.resource}")
    for channel in list(_channels(cloud, f'type="email" AND display_name="{service}"')):
        _delete(cloud, "monitoring", f"v3/{channel['name']}")


def _channel(cloud: Cloud, service: str, email: str) -> str:
    """Return the notification channel of a mail address; it is made once."""
    quoted = f'type="email" AND labels.email_address="{email}"'
    for channel in _channels(cloud, quoted):
        return str(channel["name"])
    body = {"type": "email", "displayName": service, "labels": {"email_address": email}}
    path = f"v3/projects/{cloud.project}/notificationChannels"
    return str(cloud.call("monitoring", "POST", path, body=body)["name"])


def _channels(cloud: Cloud, quoted: str) -> Iterator[dict[str, Any]]:
    path = f"v3/projects/{cloud.project}/notificationChannels"
    return cloud.listed("monitoring", path, "notificationChannels", filter=quoted)


def _put(cloud: Cloud, file: Rendered, found: Standing | None) -> None:
    api, version, collection, _ = _APIS[file.kind]
    path = f"{version}/projects/{cloud.project}/{collection}"
    if file.kind == "metrics":
        cloud.call(api, "PUT", f"{path}/{file.name}", body=file.content)
    elif found is None:
        cloud.call(api, "POST", path, body=file.content)
    else:
        body = {**file.content, "name": found.resource}
        cloud.call(api, "PATCH", f"{version}/{found.resource}", body=body)


def _delete(cloud: Cloud, api: str, path: str) -> None:
    try:
        cloud.call(api, "DELETE", path)
    except CloudError as error:
        if error.refusal.status != 404:
            raise
    else:
        tell(f"Deleted: {path}")


def _mark(content: dict[str, Any], kind: str, digest: str) -> None:
    if kind == "metrics":
        content["description"] = f"{content['description']} ({digest})"
    elif kind == "alerts":
        content["userLabels"] = {**content.get("userLabels", {}), "content": digest}
        content["notificationChannels"] = [c for c in content["notificationChannels"] if c]
    else:
        content["labels"] = {**content.get("labels", {}), "content": digest}
