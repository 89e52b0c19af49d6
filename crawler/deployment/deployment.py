"""The deployment: its settings read and checked, and what `deploy.sh` needs to know of them."""

import difflib
import re
import shlex
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Meta

from crawler.deployment.cost import SIZES
from crawler.deployment.cron import longest_gap_seconds
from crawler.deployment.settings import CPU_WANTED, VARIABLES, Deployment
from crawler.errors import SettingsError
from crawler.settings.reading import read_env_file, read_settings


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
        "function": deployment.function,
        "time_budget_seconds": deployment.time_budget_seconds,
        "fields": deployment.fields,
        "keep_raw": None if deployment.keep_raw is None else int(deployment.keep_raw),
        "max_range": deployment.max_range,
        "first_song": deployment.first_song,
        "last_song": deployment.last_song,
        "robots": deployment.robots,
        "max_requests_per_day": deployment.max_requests_per_day,
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
        "PERIOD_SECONDS": longest_gap_seconds(cron),
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


def example_lines() -> Iterator[str]:
    """Write `deploy.env.example`: every variable, what it is for, its default."""
    yield "# Settings of deploy.sh. Copy this file to deploy.env, which git ignores, and fill it in."
    yield "# The environment wins over the file; an empty value counts as unset."
    yield "# Written by: python -m crawler.deployment > deploy.env.example"
    for field in msgspec.structs.fields(Deployment):
        if field.encode_name in ("PROJECT_ID", "SERVICE"):
            yield f"\n# --- {'required' if field.required else 'with a default'}"
        default = "" if field.required or field.default is None else field.default
        yield f"\n# {_meaning(field)} ({_wanted(field)})"
        yield f"{field.encode_name}={default}"


def _file_values(file: Path | None) -> dict[str, str]:
    values = read_env_file(file)
    for name in values:
        if name not in VARIABLES:
            nearest = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0)[0]
            message = f"{name} in {file} is not a setting; did you mean {nearest}?"
            raise SettingsError("setting_unknown", name, message)
    return values


def _about_field(field: msgspec.structs.FieldInfo) -> Meta:
    metas = getattr(field.type, "__metadata__", ())
    about: Meta = next(meta for meta in reversed(metas) if meta.description is not None)
    return about


def _meaning(field: msgspec.structs.FieldInfo) -> str:
    return str(_about_field(field).description).rstrip(".")


def _wanted(field: msgspec.structs.FieldInfo) -> str:
    return str((_about_field(field).extra or {})["wanted"])


def _check(deployment: Deployment) -> None:
    """Refuse what no single setting shows."""
    last, function = deployment.last_song, deployment.function
    if last is not None and last < deployment.first_song:
        raise _malformed("LAST_SONG", f"LAST_SONG={last} is below FIRST_SONG")
    if deployment.function_requirements and not function:
        raise _malformed("FUNCTION_REQUIREMENTS", "FUNCTION_REQUIREMENTS goes with FUNCTION")
    if deployment.fields and function:
        raise _malformed("FIELDS", "FIELDS goes without FUNCTION: an own source chooses itself")
    _check_size(deployment)
    _check_schedule(deployment)
    _check_environment(deployment)


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


def _check_environment(deployment: Deployment) -> None:
    """Let the crawler's own settings refuse what the function would refuse in the cloud."""
    try:
        read_settings(function_environment(deployment), for_site=False)
    except SettingsError as error:
        name = error.field.removeprefix("CRAWLER_")
        raise _malformed(name, str(error).replace("CRAWLER_", "")) from None


def _malformed(name: str, message: str) -> SettingsError:
    return SettingsError("setting_malformed", name, message)
