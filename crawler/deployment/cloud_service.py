"""What stands in the cloud: the description of a service, read for what `deploy.sh` must know."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any


def service_lines(description: Mapping[str, Any]) -> Iterator[str]:
    """Write what a shell needs of a service, as assignments that it may evaluate.

    `URL`, `TRIAL_URL`: of the service, and of the version on trial; `SERVING`, `PREVIOUS`: the
    revision that has the traffic, and the one that had it before; `FINGERPRINT_SERVED`: of the
    newest version if that has all the traffic. Empty where there is none.

    Args:
        description: As `gcloud run services describe --format=json` prints it.
    """
    status = description.get("status", {})
    traffic = status.get("traffic", [])
    tagged = {target["tag"]: target for target in traffic if "tag" in target}
    serving: Mapping[str, Any] = next((t for t in traffic if t.get("percent") == 100), {})
    labels = description.get("metadata", {}).get("labels", {})
    values = {
        "URL": status.get("url"),
        "TRIAL_URL": tagged.get("trial", {}).get("url"),
        "SERVING": serving.get("revisionName"),
        "PREVIOUS": tagged.get("previous", {}).get("revisionName"),
        "FINGERPRINT_SERVED": labels.get("fingerprint") if serving.get("latestRevision") else None,
    }
    for name, value in values.items():
        yield f"{name}={shlex.quote(value or '')}"


def pinned_token(revision: Mapping[str, Any]) -> str:
    """Read which version of the token's secret a revision wants; empty where it wants none.

    Args:
        revision: As `gcloud run revisions describe --format=json` prints it.
    """
    for container in revision.get("spec", {}).get("containers", []):
        for variable in container.get("env", []):
            if variable["name"] == "GENIUS_TOKEN":
                return str(variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key", ""))
    return ""
