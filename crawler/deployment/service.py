"""The service in the cloud, the token's secret and `control.json`: what stands, and trials of it."""

import contextlib
import difflib
import secrets
import shlex
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import requests

from crawler.deployment.cloud import (
    MEDIA,
    TRANSIENT,
    Cloud,
    CloudError,
    DeploymentError,
    as_signed,
)
from crawler.deployment.gcloud import Refusal, tell
from crawler.errors import BlockFormatError, SettingsError
from crawler.settings.reading import read_settings
from crawler.store.control import Control, decode_control, with_stop, without_hold, without_stop

BORROWER = "roles/iam.serviceAccountOpenIdTokenCreator"
"""With this role on an account one may mint tokens that say to be it, and nothing else."""

PLACES = {
    "Cloud Run": ("run", "v1"),
    "Cloud Build": ("cloudbuild", "v2"),
    "Cloud Scheduler": ("cloudscheduler", "v1"),
    "Cloud Tasks": ("cloudtasks", "v2"),
}
"""The services that must be in the region, with the API and version that lists their regions."""


_ADDRESS = "https://song-crawler-123456789012.us-central1.run.app"

EXAMPLE_SERVICE = {
    "status": {
        "url": _ADDRESS,
        "traffic": [
            {"percent": 100, "revisionName": "song-crawler-00002-new"},
            {"tag": "previous", "revisionName": "song-crawler-00001-old"},
            {"tag": "trial", "url": _ADDRESS.replace("https://", "https://trial---")},
        ],
    }
}
"""What a dry run takes to stand."""


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


def pinned_token(resource: Mapping[str, Any], variable: str) -> str:
    """Read which version of the token's secret a revision wants; empty where it wants none.

    Args:
        resource: A revision as `gcloud run revisions describe --format=json` prints it.
    """
    for container in resource.get("spec", {}).get("containers", []):
        for entry in container.get("env", []):
            if entry["name"] == variable:
                return str(entry.get("valueFrom", {}).get("secretKeyRef", {}).get("key", ""))
    return ""


def check_region(cloud: Cloud, region: str, *, with_queue: bool) -> None:
    """Ask the services themselves whether they are in a region.

    Google adds regions every few months, so a list of our own would refuse good ones.

    Raises:
        DeploymentError: One is not; names it and the nearest region that has all.
    """
    everywhere: set[str] | None = None
    lacking = []
    for service, (api, version) in PLACES.items():
        if service == "Cloud Tasks" and not with_queue:
            continue
        path = f"{version}/projects/{cloud.project}/locations"
        found = {place["locationId"] for place in cloud.listed(api, path, "locations")}
        everywhere = found if everywhere is None else everywhere & found
        if region not in found:
            lacking.append(service)
    if lacking:
        nearest = difflib.get_close_matches(region, sorted(everywhere or ()), n=3, cutoff=0)
        message = (
            f"REGION={region} has no {' and no '.join(lacking)}; {', '.join(nearest)} have all"
        )
        raise DeploymentError(message, "The region lacks a service")


def identity_token(cloud: Cloud, audience: str, invoker: str, deployer: str = "") -> str:
    """Mint a token with which whoever deploys may call the function.

    Which way fits depends on who that is, so each is tried: a service account names the service it
    is for (a key, an override of the credentials' file and a machine's own account alike); a person
    does not and need not; workload identity federation can only borrow the caller's account.

    Args:
        audience: The function's address.
        invoker: The account that calls it otherwise.
        deployer: Who was let borrow that account, a moment ago; empty: nobody was.

    Raises:
        DeploymentError: No way fits; says what to have granted.
    """
    for options in ((f"--audiences={audience}",), ()):
        try:
            token = cloud.gcloud("auth", "print-identity-token", *options)
            if token and token.strip():
                return token.strip()
        except CloudError:
            continue  # not the way of whoever deploys
    path = f"v1/projects/-/serviceAccounts/{invoker}:generateIdToken"
    cloud.waits = bool(deployer)
    try:
        body = {"audience": audience, "includeEmail": True}
        return str(cloud.call("iamcredentials", "POST", path, body=body)["token"])
    except CloudError as error:
        message = (
            f"nobody can call the function for its trial: {error.refusal.message}\n"
            "With workload identity federation set DEPLOYER to the member that deploys, then run "
            f"the same command again; it is granted {BORROWER} on {invoker}."
        )
        raise DeploymentError(message, "No identity token can be had") from None
    finally:
        cloud.waits = True


def try_version(
    cloud: Cloud, url: str, *, token: str, songs: range, seconds: float, is_kept: bool
) -> int:
    """Ask a version for songs that it must fetch afresh, and return how many it has settled.

    It is waited for while the platform itself answers (a role, a new address), and while the
    version cannot reach its store, to which its account was let a moment ago.

    Args:
        seconds: In which it must answer.
        is_kept: Whether an older version keeps the traffic when this one fails.

    Raises:
        DeploymentError: It may not have the traffic; with what it answered.
    """
    body = {"start": songs.start, "stop": songs.stop, "refresh_older_than_days": 0}
    headers = {"Authorization": f"Bearer {token}"}
    what = "the trial of the new version"

    def attempt() -> int:
        try:
            reply = requests.post(
                f"{url}/", json=body, headers=headers, auth=as_signed, timeout=(30, seconds)
            )
        except requests.ReadTimeout:
            raise _failed(f"no answer within {seconds:g} s", is_kept) from None
        except requests.RequestException as error:
            refusal = Refusal("TRIAL /", 0, message=type(error).__name__)
            raise CloudError(what, refusal) from None
        return _judged(what, reply, songs, is_kept)

    settled = cloud.persist(what, attempt)
    tell(f"The new version fetched {settled} of {len(songs)} songs.")
    return settled


def _judged(what: str, reply: requests.Response, songs: range, is_kept: bool) -> int:
    try:
        answer = reply.json()
        is_ours = isinstance(answer, dict) and ("stopped_by" in answer or "code" in answer["error"])
    except (ValueError, KeyError, TypeError):
        answer, is_ours = {}, False
    status, text = reply.status_code, reply.text.strip()[:500]
    if is_ours and status == 503:
        code = str(answer.get("stopped_by") or answer["error"]["code"])
        raise CloudError(what, Refusal("TRIAL /", None, code, (), text))
    if not is_ours and status in TRANSIENT | {403, 404}:
        raise CloudError(what, Refusal("TRIAL /", status, "", (), text))
    if status == 200 and is_ours and "stopped_by" in answer:
        settled = answer["found"] + answer["missing"]
        if answer["stopped_by"] == "done" and settled == len(songs) and answer["requests"] > 0:
            return int(settled)
    raise _failed(f"{status} {text!r}", is_kept)


def _failed(answer: str, is_kept: bool) -> DeploymentError:
    consequence = "The old version keeps the traffic" if is_kept else "The schedule is not made"
    message = (
        f"the new version answered its trial with {answer}.\n{consequence}; mend what it names, "
        "then run the same command again."
    )
    return DeploymentError(message, "The trial of a new version failed")


# The token's secret, and `control.json`.


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
        store: `gs://bucket/prefix`.
        word: `stop` ends running crawls, `go` lifts that, `release` frees what a refused token held,
            `resume` does both of these.
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
        control = Control()
        with contextlib.suppress(BlockFormatError):
            control = decode_control(data)
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
