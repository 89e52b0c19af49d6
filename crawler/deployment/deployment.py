"""The deployment: one record of settings, read from `deploy.env` and checked, and what follows.

What the function itself knows is not listed here again: every setting of `crawler.settings` that is
`deployed` is a variable of `deploy.env` under its own word, and is passed on as it was given.
"""

import difflib
import re
import zoneinfo
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from crawler.deployment.cost import SIZES, Size, size_for
from crawler.deployment.gcloud import tell
from crawler.deployment.schedule import Schedule, longest_gap_seconds, make_schedule
from crawler.errors import SettingsError
from crawler.settings.reading import read_env_file, read_settings
from crawler.settings.settings import GONE, SETTINGS, Settings, environment_of
from crawler.source.declared import load_declaration
from crawler.store.opening import open_store

_NAME = r"\A[a-z](?:[a-z0-9-]*[a-z0-9])?\Z"
_ACCOUNT = r"\A[a-z0-9-]+@[a-z0-9.-]+\.gserviceaccount\.com\Z"

CPU_WANTED = ", ".join(f"{size.cpu:g}" for size in SIZES[:-1]) + f" or {SIZES[-1].cpu:g}"

NEW_PROJECT_INSTANCES = 10
"""A new project may not have more instances of a size.

Source: firebase-tools issue 5867, "maxScale may not exceed 10".
"""

TRIAL_SONGS = 10
"""A new version is asked for so many songs before it gets any traffic, where its pace allows."""

TRIAL_SECONDS = 900
"""A trial takes no longer, of which a minute is for the instance to start."""


def _about(meaning: str, wanted: str = "") -> Meta:
    return Meta(description=meaning, extra={"wanted": wanted})


def _about_account(what: str) -> Meta:
    meaning = f"Account that {what}, where you may not make one; unset: made."
    return _about(meaning, "the mail address of a service account")


_Account = Annotated[str, Meta(pattern=_ACCOUNT)]


class Deployment(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """What is deployed; one field per variable of `deploy.env` that is not the function's alone."""

    project_id: Annotated[
        str,
        Meta(pattern=r"\A[a-z][a-z0-9-]{4,28}[a-z0-9]\Z"),
        _about("Project that pays.", "a project id, such as my-project-123"),
    ]
    region: Annotated[
        str,
        Meta(pattern=r"\A[a-z]+-[a-z]+\d+\Z"),
        _about("Where function, bucket and schedule live.", "a region, such as us-central1"),
    ]
    bucket: Annotated[
        str,
        Meta(pattern=r"\A(?!goog|.*(?:google|\.[.-]|-\.))[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]\Z"),
        _about("Bucket for the songs, made if it is not there.", "a bucket name without gs://"),
    ]
    contact: Annotated[
        str,
        Meta(pattern=r"\A(?:https?://[^\s;]+|[^\s;@]+@[^\s;@]+)\Z"),
        _about("Told to the site, so that it can reach you.", "a mail address or URL"),
    ]
    rate: Annotated[
        float,
        Meta(gt=0, le=10_000),
        _about(
            "Requests per second over all instances; what the site allows.",
            "a number above 0, at most 10000",
        ),
    ]
    service: Annotated[
        str,
        Meta(pattern=_NAME, max_length=21),
        _about(
            "Name of the function, and beginning of all other names.",
            "at most 21 small letters, digits and hyphens",
        ),
    ] = "song-crawler"
    prefix: Annotated[
        str,
        Meta(pattern=r"\A[^\s;/]+(?:/[^\s;/]+)*\Z"),
        _about("Where in the bucket.", "a path without a slash at its ends"),
    ] = "genius"
    max_instances: Annotated[
        int,
        Meta(ge=1, le=100),
        _about(
            f"Instances at most; the rate is divided by it; a new project may have "
            f"{NEW_PROJECT_INSTANCES}.",
            "a whole number from 1 to 100",
        ),
    ] = 1
    time_budget_seconds: Annotated[
        int,
        Meta(ge=60, le=1680),
        _about("A run ends after this long.", "whole seconds from 60 to 1680"),
    ] = 1680
    function_requirements: Annotated[
        str | None, _about("File with the packages that FUNCTION needs.", "a file name")
    ] = None
    secret: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z0-9_-]{1,255}\Z"),
        _about("Name of the token in Secret Manager; none: the site wants none.", "a name or none"),
    ] = "genius-token"  # noqa: S105 - the name under which it is kept, not the token
    secret_replication: Annotated[
        Literal["automatic", "region"],
        _about(
            "Where the token is kept; region: in REGION alone, as some organisations want it.",
            "automatic or region",
        ),
    ] = "automatic"  # noqa: S105 - a word
    token_file: Annotated[
        str | None, _about("File with the token; unset: standard input.", "a file name")
    ] = None
    schedule: Annotated[
        Annotated[str, Meta(pattern=r"\A\S+(?: \S+){4}\Z")] | None,
        _about("Cron text; unset: computed.", "five fields of cron with one blank between them"),
    ] = None
    time_zone: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z_+-]+(?:/[\w+-]+)*\Z"),
        _about("Of the schedule.", "a time zone, such as Europe/Vienna"),
    ] = "Etc/UTC"
    cpu: Annotated[
        float | None,
        _about("vCPUs of an instance; unset: what holds the rate.", CPU_WANTED),
    ] = None
    memory_mib: Annotated[
        Annotated[int, Meta(ge=128, le=32768)] | None,
        _about("Memory of an instance, MiB; unset: what fits.", "a whole number from 128"),
    ] = None
    queue: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,100}\Z")] | None,
        _about("Task queue for fan-out, made if it is not there; unset: none.", "a name"),
    ] = None
    alert_email: Annotated[
        Annotated[str, Meta(pattern=r"\A[^\s@\"]+@[^\s@\"]+\Z")] | None,
        _about("Who is told when it stops; unset: the contact.", "a mail address"),
    ] = None
    run_account: Annotated[_Account | None, _about_account("runs the crawl")] = None
    build_account: Annotated[_Account | None, _about_account("builds its image")] = None
    call_account: Annotated[_Account | None, _about_account("calls the function")] = None
    deployer: Annotated[
        Annotated[str, Meta(pattern=r"\A(?:principal(?:Set)?://|serviceAccount:)\S+\Z")] | None,
        _about(
            "Who deploys by workload identity federation; is let mint the caller's token.",
            "a member, such as principal://iam.googleapis.com/…",
        ),
    ] = None
    network: Annotated[
        Annotated[str, Meta(pattern=r"\A[\w./-]+\Z")] | None,
        _about("VPC network that the function's traffic goes through; unset: none.", "a network"),
    ] = None
    subnet: Annotated[
        Annotated[str, Meta(pattern=r"\A[\w./-]+\Z")] | None,
        _about("Its subnetwork.", "a subnetwork"),
    ] = None
    kms_key: Annotated[
        Annotated[str, Meta(pattern=r"\Aprojects/[^/]+/locations/[^/]+/keyRings/\S+\Z")] | None,
        _about(
            "Key that encrypts the bucket; unset: Google's own.",
            "projects/P/locations/L/keyRings/R/cryptoKeys/K",
        ),
    ] = None
    passed_on: Annotated[dict[str, str], _about("What the function alone reads, by field.")] = {}

    @property
    def site(self) -> Settings:
        """The function's settings, as it will read them; token and queue are not among them."""
        return read_settings(function_environment(self), for_site=False)

    @property
    def rate_per_instance(self) -> float:
        """Requests per second of one instance."""
        return self.rate / self.max_instances

    @property
    def size(self) -> Size:
        """How big an instance is: what was given, the rest computed."""
        fit = size_for(
            self.rate_per_instance, "function" if "function" in self.passed_on else "source"
        )
        return Size(self.cpu or fit.cpu, self.memory_mib or fit.memory_mib)

    @property
    def told(self) -> str | None:
        """Who gets the alerts: a mail address, or nobody."""
        return self.alert_email or (self.contact if "://" not in self.contact else None)

    @property
    def token_variable(self) -> str | None:
        """The variable from which the function reads its token; None where it wants none.

        Raises:
            SettingsError: There is no such source.
        """
        if self.secret == "none":  # noqa: S105 - a word
            return None
        if "function" in self.passed_on:
            return "GENIUS_TOKEN"
        return load_declaration(self.passed_on.get("source", "genius")).token

    @property
    def trial(self) -> tuple[int, int]:
        """How many songs a new version is asked for, and in how many seconds it must answer."""
        songs = min(TRIAL_SONGS, max(1, int(self.rate_per_instance * (TRIAL_SECONDS - 60) / 2)))
        return songs, min(TRIAL_SECONDS, 300 + int(2 * songs / self.rate_per_instance))

    def account(self, role: str, given: str | None) -> str:
        """Return an account's address: the one that was named, or the one that is made."""
        return given or f"{self.service}-{role}@{self.project_id}.iam.gserviceaccount.com"

    def schedule_at(self, now: datetime) -> Schedule:
        """Compute the schedule of a crawl that begins now."""
        last, first = self.site.last_song, self.site.first_song
        return make_schedule(
            None if last is None else last - first + 1,
            rate=self.rate_per_instance,
            budget_seconds=self.time_budget_seconds,
            max_requests_per_day=self.site.max_requests_per_day,
            now=now,
        )


OWN = {f.encode_name: f for f in msgspec.structs.fields(Deployment) if f.name != "passed_on"}

PASSED_ON = {
    row.deploy_name: row
    for row in SETTINGS.values()
    if row.deploy_name is not None and row.deploy_name not in OWN
}
"""Settings of the function alone, by their variable of `deploy.env`."""

VARIABLES = (*OWN, *PASSED_ON)
"""All variables of `deploy.env`."""


THREADS = 256
"""Threads of the function's server, of which a client that sends a byte now and then keeps one.

By default functions-framework has four for each processor, so that a handful of such clients would
silence it. A body has its deadline (`crawler.request.incoming`), but gunicorn 27 waits for headers
without one; a thread costs a stack, and is made when it is needed. Requests that crawl come one at
a time: the service has a concurrency of 1.
"""


def function_environment(deployment: Deployment) -> dict[str, str]:
    """Make the environment of the deployed function, without token and queue.

    What was not given is left to the function's own defaults.
    """
    values = {
        "store": f"gs://{deployment.bucket}/{deployment.prefix}",
        "contact": deployment.contact,
        "rate": deployment.rate_per_instance,
        "instances": deployment.max_instances if deployment.max_instances > 1 else None,
        "time_budget_seconds": deployment.time_budget_seconds,
        **deployment.passed_on,
    }
    return environment_of(values) | {"THREADS": str(THREADS)}


def words_of(field: msgspec.structs.FieldInfo) -> tuple[str, str]:
    """Return what a variable of ours is for, and what is wanted."""
    metas = getattr(field.type, "__metadata__", ())
    about: Meta = next(meta for meta in reversed(metas) if meta.description is not None)
    return str(about.description).rstrip("."), str((about.extra or {})["wanted"])


def read_deployment(environ: Mapping[str, str], file: Path | None = None) -> Deployment:
    """Read and check the settings; the environment wins over the file.

    Args:
        environ: The process environment; what is not ours in it is left alone.
        file: `NAME=value` lines; ignored where there is none.

    Raises:
        SettingsError: For the first that is missing, malformed, or unknown in the file.
    """
    given = _file_values(file) | {k: v for k, v in environ.items() if v and k in VARIABLES}
    given = {name: value for name, value in given.items() if value}
    for name, field in OWN.items():
        if field.required and name not in given:
            message = f"{name} is missing: {words_of(field)[1]}"
            raise SettingsError("setting_missing", name, message)
    own = {name: value for name, value in given.items() if name in OWN}
    passed_on = {PASSED_ON[name].field: given[name] for name in given if name in PASSED_ON}
    try:
        deployment = msgspec.convert(own | {"PASSED_ON": passed_on}, Deployment, strict=False)
    except msgspec.ValidationError as error:
        name = re.findall(r"\$\.(\w+)", str(error))[-1]
        message = f"{name} must be {words_of(OWN[name])[1]}, got {given[name]!r:.100}"
        raise _malformed(name, message) from None
    _check(deployment)
    return deployment


def _file_values(file: Path | None) -> dict[str, str]:
    values = read_env_file(file)
    for name in list(values):
        if name in VARIABLES:  # such as CPU, which is a size still and no setting of a run
            continue
        if name.lower() in GONE:
            tell(f"{name} in {file} is ignored: {GONE[name.lower()]}")
            del values[name]
        else:
            meant = name.removeprefix("CRAWLER_")
            nearest = difflib.get_close_matches(meant, VARIABLES, n=1, cutoff=0)[0]
            message = f"{name} in {file} is not a setting; did you mean {nearest}?"
            raise SettingsError("setting_unknown", name, message)
    return values


def _check(deployment: Deployment) -> None:
    """Refuse what no single setting shows."""
    passed_on = deployment.passed_on
    for field, value in passed_on.items():
        if ";" in value:
            raise _malformed(field.upper(), f"{field.upper()} must hold no semicolon")
    if deployment.function_requirements and "function" not in passed_on:
        message = "FUNCTION_REQUIREMENTS goes with FUNCTION"
        raise _malformed("FUNCTION_REQUIREMENTS", message)
    if "fields" in passed_on and "function" in passed_on:
        raise _malformed("FIELDS", "FIELDS goes without FUNCTION: an own source chooses itself")
    if bool(deployment.network) != bool(deployment.subnet):
        raise _malformed("NETWORK", "NETWORK and SUBNET go together")
    _check_size(deployment)
    _check_schedule(deployment)
    _check_function_settings(deployment)
    if deployment.rate_per_instance * (TRIAL_SECONDS - 60) < 1:
        message = f"RATE={deployment.rate:g} is too slow: no song in a trial's {TRIAL_SECONDS} s"
        raise _malformed("RATE", message)


def _check_size(deployment: Deployment) -> None:
    """Refuse a size that the platform does not offer.

    Source: docs.cloud.google.com/run/docs/configuring/services/memory-limits.
    """
    cpu, memory = deployment.size.cpu, deployment.size.memory_mib
    if cpu not in [size.cpu for size in SIZES]:
        raise _malformed("CPU", f"CPU must be {CPU_WANTED}, got {cpu:g}")
    most = 512 if cpu < 0.5 else 1024 if cpu < 1 else 4096 if cpu < 2 else 8192
    if memory > most:
        message = f"MEMORY_MIB={memory} needs more CPU: {cpu:g} goes with {most} at most"
        raise _malformed("MEMORY_MIB", message)


def _check_schedule(deployment: Deployment) -> None:
    """Refuse a schedule that never comes, and a time zone that nobody knows."""
    cron, zone = deployment.schedule, deployment.time_zone
    try:
        if cron is not None:
            longest_gap_seconds(cron)
    except ValueError as error:
        raise _malformed(
            "SCHEDULE", f"SCHEDULE must be five fields of cron, got {cron!r:.100}: {error}"
        ) from None
    known = zoneinfo.available_timezones()  # none where a machine has no database of them
    if known and zone not in known:
        nearest = difflib.get_close_matches(zone, known, n=1, cutoff=0)[0]
        message = f"TIME_ZONE={zone} is not a time zone; did you mean {nearest}?"
        raise _malformed("TIME_ZONE", message)


def _check_function_settings(deployment: Deployment) -> None:
    """Let the crawler's own settings refuse what the function would refuse in the cloud."""
    try:
        site = deployment.site
    except SettingsError as error:
        name = error.field.removeprefix("CRAWLER_")
        raise _malformed(name, str(error).replace("CRAWLER_", "")) from None
    try:
        open_store(site.store)
    except SettingsError as error:
        raise _malformed("PREFIX", f"PREFIX={deployment.prefix} fits no store: {error}") from None
    if not site.base_url.startswith("https:"):
        raise _malformed("BASE_URL", "BASE_URL must be an https address")


def _malformed(name: str, message: str) -> SettingsError:
    return SettingsError("setting_malformed", name, message)
