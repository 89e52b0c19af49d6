"""The deployment: every setting of `deploy.sh`, checked before anything is touched."""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from crawler.cost import Size, size_for, worst_day
from crawler.errors import SettingsError
from crawler.schedule import Schedule, interval_of, make_schedule

PERIOD_SLACK_SECONDS = 1800
"""A run may take this long until it is seen to have finished."""

_NAME = r"\A[a-z](?:[a-z0-9-]*[a-z0-9])?\Z"


def _about(meaning: str, wanted: str = "") -> Meta:
    return Meta(description=meaning, extra={"wanted": wanted})


class Deployment(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """What is deployed; one field per variable of `deploy.env`, by the same word."""

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
        Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]\Z"),
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
    first_song: Annotated[
        int, Meta(ge=0, le=10**12), _about("First song number.", "a whole number")
    ] = 1
    last_song: Annotated[
        Annotated[int, Meta(ge=0, le=10**12)] | None,
        _about("Last song number; unset: on and on, with what is new.", "a whole number"),
    ] = None
    max_requests_per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        _about("Cap over all runs of a day (UTC); unset: none.", "a whole number above 0"),
    ] = None
    max_instances: Annotated[
        int,
        Meta(ge=1, le=100),
        _about("Instances at most; the rate is divided by it.", "a whole number from 1 to 100"),
    ] = 1
    time_budget_seconds: Annotated[
        int,
        Meta(ge=60, le=1680),
        _about("A run ends after this long.", "whole seconds from 60 to 1680"),
    ] = 1680
    connections: Annotated[
        int,
        Meta(ge=1, le=900),
        _about("Requests under way at once.", "a whole number from 1 to 900"),
    ] = 64
    engine: Annotated[
        Literal["curl", "requests"] | None,
        _about("How requests are sent; unset: what fits.", "curl or requests"),
    ] = None
    base_url: Annotated[
        str,
        Meta(pattern=r"\Ahttps://[^\s;]+\Z"),
        _about("Address of the site.", "an https address"),
    ] = "https://api.genius.com"
    function: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")] | None,
        _about("Your own step 1 function or source, uploaded too.", "module:name"),
    ] = None
    function_requirements: Annotated[
        str | None, _about("File with the packages it needs.", "a file name")
    ] = None
    robots: Annotated[
        Literal["obey", "ignore"] | None,
        _about("Whether robots.txt is asked; unset: for web pages.", "obey or ignore"),
    ] = None
    secret: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z0-9_-]{1,255}\Z"),
        _about("Name of the token in Secret Manager; none: the site wants none.", "a name or none"),
    ] = "genius-token"  # noqa: S105 - the name under which it is kept, not the token
    token_file: Annotated[
        str | None, _about("File with the token; unset: standard input.", "a file name")
    ] = None
    schedule: Annotated[
        Annotated[str, Meta(pattern=r"\A\S+(?: \S+){4}\Z")] | None,
        _about("Cron text; unset: computed.", "five fields with one blank between them"),
    ] = None
    time_zone: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z_+-]+(?:/[\w+-]+)*\Z"),
        _about("Of the schedule.", "a time zone"),
    ] = "Etc/UTC"
    cpu: Annotated[
        Annotated[float, Meta(ge=0.08, le=8)] | None,
        _about("vCPUs of an instance; unset: what holds the rate.", "a number from 0.08 to 8"),
    ] = None
    memory_mib: Annotated[
        Annotated[int, Meta(ge=256, le=32768)] | None,
        _about("Memory of an instance, MiB; unset: what fits.", "a whole number from 256"),
    ] = None
    queue: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,100}\Z")] | None,
        _about("Task queue for fan-out, made if it is not there; unset: none.", "a name"),
    ] = None
    shard_songs: Annotated[
        int,
        Meta(ge=1000, le=10_000_000, multiple_of=1000),
        _about("Songs per shard of a fanned-out range.", "a multiple of 1000"),
    ] = 50_000
    alert_email: Annotated[
        Annotated[str, Meta(pattern=r"\A[^\s@]+@[^\s@]+\Z")] | None,
        _about("Who is told when it stops; unset: the contact.", "a mail address"),
    ] = None

    @property
    def rate_per_instance(self) -> float:
        """Requests per second of one instance."""
        return self.rate / self.max_instances

    @property
    def size(self) -> Size:
        """How big an instance is: what was given, the rest computed."""
        engine = self.engine or ("requests" if self.function else "curl")
        fit = size_for(self.rate_per_instance, engine)
        return Size(self.cpu or fit.cpu, self.memory_mib or fit.memory_mib)

    @property
    def told(self) -> str | None:
        """Who gets the alerts: a mail address, or nobody."""
        return self.alert_email or (self.contact if "://" not in self.contact else None)

    def schedule_at(self, now: datetime) -> Schedule:
        """Compute the schedule of a crawl that begins now."""
        last = self.last_song
        return make_schedule(
            None if last is None else last - self.first_song + 1,
            rate=self.rate_per_instance,
            budget_seconds=self.time_budget_seconds,
            max_requests_per_day=self.max_requests_per_day,
            now=now,
        )

    def worst_day(self) -> float:
        """Estimate the dearest day, in US dollars."""
        return worst_day(
            self.size,
            rate=self.rate,
            instances=self.max_instances,
            max_requests_per_day=self.max_requests_per_day,
        )


VARIABLES = {field.encode_name: field.name for field in msgspec.structs.fields(Deployment)}
"""The field of each variable."""


def read_deployment(environ: Mapping[str, str], file: Path | None = None) -> Deployment:
    """Read and check the settings; the environment wins over the file.

    Args:
        environ: The process environment; what is not ours in it is left alone.
        file: `NAME=value` lines; ignored where there is none.

    Raises:
        SettingsError: For the first that is missing, malformed, or unknown in the file.
    """
    given = _file_values(file) | {k: v for k, v in environ.items() if k in VARIABLES}
    given = {name: value for name, value in given.items() if value}
    for field in msgspec.structs.fields(Deployment):
        if field.required and field.encode_name not in given:
            raise SettingsError(
                "setting_missing",
                field.encode_name,
                f"{field.encode_name} is missing: {_wanted(field)}",
            )
    try:
        deployment = msgspec.convert(given, Deployment, strict=False)
    except msgspec.ValidationError as error:
        name = re.findall(r"\$\.(\w+)", str(error))[-1]
        field = next(f for f in msgspec.structs.fields(Deployment) if f.encode_name == name)
        message = f"{name} must be {_wanted(field)}, got {given[name]!r:.100}"
        raise SettingsError("setting_malformed", name, message) from None
    _check(deployment)
    return deployment


def function_environment(deployment: Deployment) -> dict[str, str]:
    """Make the environment of the deployed function, without token and queue."""
    values: dict[str, Any] = {
        "store": f"gs://{deployment.bucket}/{deployment.prefix}",
        "base_url": deployment.base_url,
        "contact": deployment.contact,
        "rate": f"{deployment.rate_per_instance:g}",
        "connections": deployment.connections,
        "engine": deployment.engine,
        "function": deployment.function,
        "time_budget_seconds": deployment.time_budget_seconds,
        "first_song": deployment.first_song,
        "last_song": deployment.last_song,
        "robots": deployment.robots,
        "max_requests_per_day": deployment.max_requests_per_day,
        "cpu": f"{deployment.size.cpu:g}",
        "memory_mib": deployment.size.memory_mib,
    }
    return {f"CRAWLER_{k.upper()}": str(v) for k, v in values.items() if v is not None}


def shell_lines(deployment: Deployment, now: datetime) -> Iterator[str]:
    """Write all settings, given and computed, as assignments that a shell may evaluate."""
    schedule = deployment.schedule_at(now)
    cron = deployment.schedule or schedule.cron
    values = {name: getattr(deployment, field) for name, field in VARIABLES.items()}
    environment = function_environment(deployment)
    values |= {
        "SCHEDULE": cron,
        "CPU": f"{deployment.size.cpu:g}",
        "MEMORY_MIB": deployment.size.memory_mib,
        "ALERT_EMAIL": deployment.told,
        "ENVIRONMENT": ";".join(f"{name}={value}" for name, value in environment.items()),
        "PERIOD_SECONDS": interval_of(cron) or schedule.interval_seconds,
    }
    for name, value in values.items():
        yield f"{name}={shlex.quote('' if value is None else str(value))}"


def told_lines(deployment: Deployment, now: datetime) -> Iterator[str]:
    """Say to people what will be deployed, how long it takes, and what it costs at worst."""
    schedule, size = deployment.schedule_at(now), deployment.size
    yield f"{deployment.service} in {deployment.project_id}, {deployment.region}:"
    yield (
        f"  {deployment.rate:g} requests a second over at most {deployment.max_instances} "
        f"instance(s) of {size.cpu:g} vCPU and {size.memory_mib} MiB, told to the site as "
        f"{deployment.contact}"
    )
    yield f"  songs to gs://{deployment.bucket}/{deployment.prefix}"
    cron = deployment.schedule or schedule.cron
    yield f"  a run at '{cron}' ({deployment.time_zone}), each of up to {schedule.songs_per_run:,} songs"
    if deployment.schedule is not None:
        yield "  SCHEDULE is yours: no date is reckoned for it"
    elif schedule.completes_at is None:
        yield f"  up to {schedule.songs_per_day:,} songs a day; set LAST_SONG to be told a date"
    else:
        yield f"  complete on {schedule.completes_at:%Y-%m-%d %H:%M} UTC at the earliest"
    yield (
        f"  at worst about {deployment.worst_day():.2f} US dollars a day at list prices, "
        "storage not counted"
    )


def _file_values(file: Path | None) -> dict[str, str]:
    if file is None or not file.is_file():
        return {}
    from dotenv import dotenv_values  # 10 ms, for this command alone

    values = dotenv_values(file, interpolate=False, encoding="utf-8-sig")
    for name in values:
        if name not in VARIABLES:
            nearest = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0)[0]
            message = f"{name} in {file} is not a setting; did you mean {nearest}?"
            raise SettingsError("setting_unknown", name, message)
    return {name: value or "" for name, value in values.items()}


def _wanted(field: msgspec.structs.FieldInfo) -> str:
    extras = [meta.extra for meta in getattr(field.type, "__metadata__", ()) if meta.extra]
    return str(extras[-1]["wanted"])


def _check(deployment: Deployment) -> None:
    """Refuse what no single setting shows."""
    last, size = deployment.last_song, deployment.size
    if last is not None and last < deployment.first_song:
        raise SettingsError(
            "setting_malformed", "LAST_SONG", f"LAST_SONG={last} is below FIRST_SONG"
        )
    most = 512 if size.cpu < 0.5 else 1024 if size.cpu < 1 else 32_768
    if size.memory_mib > most:
        message = (
            f"MEMORY_MIB={size.memory_mib} needs more CPU: {size.cpu:g} goes with {most} at most"
        )
        raise SettingsError("setting_malformed", "MEMORY_MIB", message)
    if deployment.function_requirements and not deployment.function:
        message = "FUNCTION_REQUIREMENTS goes with FUNCTION"
        raise SettingsError("setting_malformed", "FUNCTION_REQUIREMENTS", message)
