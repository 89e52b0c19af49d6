"""The settings read and checked, and what follows: shell variables, words for people, the example."""

import difflib
import re
import shlex
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from crawler.deployment.cost import DATED, MONTH_DAYS, SIZES, monthly_costs
from crawler.deployment.gcloud import tell
from crawler.deployment.schedule import longest_gap_seconds
from crawler.deployment.settings import (
    CPU_WANTED,
    NEW_PROJECT_INSTANCES,
    OWN,
    PASSED_ON,
    TRIAL_SECONDS,
    VARIABLES,
    Deployment,
    function_environment,
    words_of,
)
from crawler.errors import SettingsError
from crawler.settings.reading import read_env_file
from crawler.settings.settings import GONE


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


def shell_lines(deployment: Deployment, now: datetime) -> Iterator[str]:
    """Write what `deploy.sh` reads, given and computed, as assignments that it may evaluate."""
    project, size = deployment.project_id, deployment.size
    cron = deployment.schedule or deployment.schedule_at(now).cron
    songs, seconds = deployment.trial
    environment = function_environment(deployment) | {"GOOGLE_CLOUD_PROJECT": project}
    first = deployment.site.first_song
    values: dict[str, object] = {
        **{name: getattr(deployment, field.name) for name, field in OWN.items()},
        "SCHEDULE": cron,
        "PERIOD_SECONDS": longest_gap_seconds(cron),
        "CPU": f"{size.cpu:g}",
        "MEMORY_MIB": size.memory_mib,
        "GENERATION": "gen1" if size.cpu < 1 or size.memory_mib < 512 else "gen2",
        "ALERT_EMAIL": deployment.told,
        "ENVIRONMENT": ";".join(f"{name}={value}" for name, value in environment.items()),
        "TOKEN_VARIABLE": deployment.token_variable,
        "SECRET": deployment.secret if deployment.token_variable else "none",
        "FUNCTION": deployment.passed_on.get("function"),
        "SOURCE": deployment.passed_on.get("source"),
        "RUNTIME": deployment.account("run", deployment.run_account),
        "BUILDER": deployment.account("build", deployment.build_account),
        "INVOKER": deployment.account("call", deployment.call_account),
        "STORE": f"gs://{deployment.bucket}/{deployment.prefix}",
        "JOB": f"{deployment.service}-next",
        "FIRST_SONG": first,
        "TRIAL_STOP": first + songs,
        "TRIAL_SECONDS": seconds,
    }
    for name, value in values.items():
        yield f"{name}={shlex.quote('' if value is None else str(value))}"


def told_lines(deployment: Deployment, now: datetime, conditions: int) -> Iterator[str]:
    """Write for people what will be deployed, how long it takes, and what it costs at worst."""
    schedule, size = deployment.schedule_at(now), deployment.size
    yield f"{deployment.service} in {deployment.project_id}, {deployment.region}:"
    yield (
        f"  {deployment.rate:g} requests a second over at most {deployment.max_instances} "
        f"instance(s) of {size.cpu:g} vCPU and {size.memory_mib} MiB, told to the site as "
        f"{deployment.contact}"
    )
    if deployment.max_instances > NEW_PROJECT_INSTANCES:
        yield (
            f"  MAX_INSTANCES={deployment.max_instances}: a new project may have "
            f"{NEW_PROJECT_INSTANCES}; Google refuses more until its quota is raised"
        )
    yield f"  songs to gs://{deployment.bucket}/{deployment.prefix}"
    cron = deployment.schedule or schedule.cron
    yield (
        f"  a run at '{cron}' ({deployment.time_zone}), each of up to "
        f"{schedule.songs_per_run:,} songs"
    )
    if deployment.schedule is not None:
        yield "  SCHEDULE is yours: no date is reckoned for it"
    elif schedule.completes_at is None:
        yield f"  up to {schedule.songs_per_day:,} songs a day; set LAST_SONG to be told a date"
    else:
        yield f"  complete on {schedule.completes_at:%Y-%m-%d %H:%M} UTC at the earliest"
    yield from _cost_lines(deployment, conditions)


def _cost_lines(deployment: Deployment, conditions: int) -> Iterator[str]:
    costs = list(
        monthly_costs(
            deployment.size,
            region=deployment.region,
            rate=deployment.rate,
            instances=deployment.max_instances,
            conditions=conditions,
            has_secret=deployment.token_variable is not None,
            max_requests_per_day=deployment.site.max_requests_per_day,
        )
    )
    total = sum(cost.dollars for cost in costs)
    yield (
        f"  at worst about {total / MONTH_DAYS:.2f} US dollars a day, {total:.2f} a month, by "
        f"list prices of {DATED}, songs' storage not counted:"
    )
    for cost in costs:
        yield f"    {cost.dollars:8.2f}  {cost.what}"


def example_lines() -> Iterator[str]:
    """Write `deploy.env.example`: every variable, what it is for, its default."""
    yield "# Settings of deploy.sh. Copy this file to deploy.env, which git ignores, and fill it in."
    yield "# The environment wins over the file; an empty value counts as unset."
    yield "# Written by: python -m crawler deployment example > deploy.env.example"
    for name, field in OWN.items():
        if name in ("PROJECT_ID", "SERVICE"):
            yield f"\n# --- {'required' if field.required else 'of the deployment'}"
        meaning, wanted = words_of(field)
        default = "" if field.required or field.default is None else field.default
        yield f"\n# {meaning} ({wanted})"
        yield f"{name}={default}"
    yield "\n# --- of the function, which has its own defaults"
    for name, row in PASSED_ON.items():
        default = f"; unset: {row.default}" if row.default else ""
        yield f"\n# {row.meaning.rstrip('.')} ({row.wanted}{default})"
        yield f"{name}="


def _file_values(file: Path | None) -> dict[str, str]:
    values = read_env_file(file)
    for name in list(values):
        if name in VARIABLES:  # such as CPU, which is a size still and no setting of a run
            continue
        if name.lower() in GONE:
            tell(f"{name} in {file} is ignored: {GONE[name.lower()]}")
            del values[name]
        else:
            nearest = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0)[0]
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
    if not site.base_url.startswith("https:"):
        raise _malformed("BASE_URL", "BASE_URL must be an https address")


def _malformed(name: str, message: str) -> SettingsError:
    return SettingsError("setting_malformed", name, message)
