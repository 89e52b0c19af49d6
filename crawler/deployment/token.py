"""The token's secret and the bucket's `control.json`: what is read and written by their REST APIs."""

import secrets
import sys
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from crawler.deployment.cloud import MEDIA, Cloud, CloudError, DeploymentError
from crawler.deployment.gcloud import tell
from crawler.errors import SettingsError
from crawler.settings.reading import read_settings
from crawler.store.control import Control, decode_control, with_stop, without_hold, without_stop

ORDERS = ("stop", "go", "release", "resume")
"""What `control.json` can be told: end running crawls; lift that; free what a refused token held;
both of these."""


def read_token(file: Path | None) -> str:
    """Read a token from a file or standard input, without the line end that an editor leaves.

    Raises:
        SettingsError: It is not there, or no header can carry it.
    """
    try:
        if file is None:
            if sys.stdin.isatty():
                tell("Paste the client access token, then press Enter and Ctrl-D:")
            token = sys.stdin.read().strip()
        else:
            token = file.read_text(encoding="utf-8").strip()
        read_settings({}, token=token, base_url="http://127.0.0.1")
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        where = "standard input" if file is None else f"TOKEN_FILE={file}"
        why = error if isinstance(error, SettingsError) else type(error).__name__
        message = f"{where} holds no usable token: {why}; SECRET=none where the site wants none"
        raise SettingsError("token_unusable", "TOKEN_FILE", message) from None
    return token


def newest_version(cloud: Cloud, secret: str) -> str | None:
    """Return the number of the newest version that is enabled; None where there is none.

    A listing may lag behind by minutes, while a version that is read by its number is there at
    once: so what follows the last one listed is looked for.

    Source: cloud.google.com/secret-manager/docs, consistency.
    """
    path = f"v1/projects/{cloud.project}/secrets/{secret}"
    try:
        listed = list(cloud.listed("secretmanager", f"{path}/versions", "versions"))
    except CloudError as error:
        if error.refusal.status == 404 or "SERVICE_DISABLED" in error.refusal.reasons:
            return None
        raise
    states = {int(version["name"].rpartition("/")[2]): version["state"] for version in listed}
    number = max(states, default=0)
    while (version := _version(cloud, f"{path}/versions/{number + 1}")) is not None:
        number += 1
        states[number] = version["state"]
    enabled = [number for number, state in states.items() if state == "ENABLED"]
    return str(max(enabled)) if enabled else None


def add_version(cloud: Cloud, secret: str, token: str) -> str:
    """Add a version of the secret and return its number, as the answer says it."""
    path = f"v1/projects/{cloud.project}/secrets/{secret}:addVersion"
    payload = {"payload": {"data": b64encode(token.encode()).decode()}}
    made = cloud.call("secretmanager", "POST", path, body=payload)
    return str(made["name"]).rpartition("/")[2]


def check_enabled(cloud: Cloud, secret: str, number: str) -> None:
    """Raise DeploymentError unless a version of the secret is enabled."""
    path = f"v1/projects/{cloud.project}/secrets/{secret}/versions/{number}"
    version = _version(cloud, path)
    if version is None or version["state"] != "ENABLED":
        message = (
            f"the revision before wants version {number} of {secret}, which is disabled: enable it "
            "(gcloud secrets versions enable), or deploy anew"
        )
        raise DeploymentError(message, "There is no version to go back to")


def _version(cloud: Cloud, path: str) -> dict[str, Any] | None:
    try:
        version: dict[str, Any] = cloud.call("secretmanager", "GET", path)
    except CloudError as error:
        if error.refusal.status == 404:
            return None
        raise
    return version


def read_object(cloud: Cloud, url: str) -> tuple[bytes, str]:
    """Read an object of a bucket, and its generation; nothing and `0` where it is not there.

    Args:
        cloud: Google.
        url: `gs://bucket/name`.
    """
    parts = urlsplit(url)
    path = f"storage/v1/b/{parts.netloc}/o/{quote(parts.path[1:], '')}"
    try:
        generation = str(cloud.call("storage", "GET", path)["generation"])
        return bytes(cloud.call("storage", "GET", path, params=MEDIA)), generation
    except CloudError as error:
        if error.refusal.status == 404:
            return b"", "0"
        raise


def order(cloud: Cloud, store: str, word: str, *, by: str, now: datetime | None = None) -> bool:
    """Rewrite `control.json` of a store; whether that changed it.

    What cannot be read is replaced by a stop: stopping must always work. Somebody else's change in
    between is kept.

    Args:
        cloud: Google.
        store: `gs://bucket/prefix`.
        word: One of ORDERS.
        by: Who orders it.
        now: The time of the order.
    """
    stop_id, now = secrets.token_hex(8), now or datetime.now(UTC)
    changes: dict[str, Callable[[Control], Control]] = {
        "stop": lambda control: with_stop(control, stop_id, now, by),
        "go": without_stop,
        "release": without_hold,
        "resume": lambda control: without_hold(without_stop(control)),
    }
    url = f"{store}/control.json"
    while True:
        data, generation = read_object(cloud, url)
        control = _decoded(data)
        changed = changes[word](control)
        if changed == control:
            return False
        parts = urlsplit(url)
        params = {"uploadType": "media", "name": parts.path[1:], "ifGenerationMatch": generation}
        path = f"upload/storage/v1/b/{parts.netloc}/o"
        try:
            cloud.call("storage", "POST", path, params=params, data=msgspec.json.encode(changed))
        except CloudError as error:
            if error.refusal.status != 412:
                raise
        else:
            return True


def _decoded(data: bytes) -> Control:
    try:
        return decode_control(data)
    except ValueError:
        return Control()
