"""The command `deployment`: the steps of `deploy.sh` that need judgement, each tested here."""

import argparse
import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec

from crawler.cli.options import VERBATIM, Commands, caller
from crawler.deployment import monitoring, service, upload
from crawler.deployment.cloud import Cloud, DeploymentError, see
from crawler.deployment.cost import DATED, MONTH_DAYS, monthly_costs
from crawler.deployment.deployment import (
    NEW_PROJECT_INSTANCES,
    OWN,
    PASSED_ON,
    Deployment,
    function_environment,
    read_deployment,
    words_of,
)
from crawler.deployment.schedule import longest_gap_seconds
from crawler.errors import SettingsError

_DESCRIPTION = """\
Steps of deploy.sh. People call deploy.sh."""

EXIT_NOT_THERE = 4
"""What `gcloud --if-there` ends with where a resource is not there."""

DEPLOY = Path("deploy")
"""Where the files of metrics, alerts and dashboard lie."""

Step: TypeAlias = Callable[[argparse.Namespace], int | None]
"""Carries out a step; returns an exit code that is not 0, or nothing."""


def add_commands(
    commands: Commands,
    open_cloud: Callable[[str], Cloud] = lambda project: Cloud(os.environ, project),
) -> None:
    """Add the command and its steps to the command line."""
    parser = commands.add_parser(
        "deployment",
        help="steps of deploy.sh",
        description=_DESCRIPTION,
        formatter_class=VERBATIM,
    )
    parser.set_defaults(open_cloud=open_cloud)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)

    def add(name: str, run: Step, *positional: str) -> argparse.ArgumentParser:
        step = steps.add_parser(name, help=str(run.__doc__).splitlines()[0])
        for argument in positional:
            step.add_argument(argument)
        step.set_defaults(run=functools.partial(_run, run))
        return step

    def add_caller(step: argparse.ArgumentParser) -> None:
        step.add_argument("invoker")
        step.add_argument("--deployer", default="")

    step = add("settings", print_settings, "purpose")
    step.add_argument("--file", type=Path, default=Path("deploy.env"))
    add("example", print_example)
    step = add("stage", stage_upload, "out")
    for option in ("--function", "--source", "--requirements", "--environment"):
        step.add_argument(option, default="")
    add("fingerprint", print_fingerprint, "folder").add_argument("more", nargs="*", metavar="TEXT")
    step = add("gcloud", run_gcloud)
    step.add_argument("--if-there", action="store_true", help="exit 4 where it is not there")
    step.add_argument("arguments", nargs=argparse.REMAINDER)
    add("region", check_place, "project", "region").add_argument("--queue", default="")
    add("token", keep_token, "what", "project", "secret").add_argument("--file", default="")
    add_caller(add("identity", check_identity, "audience"))
    add("service", read_service)
    add("pinned", read_revision, "variable")
    add("usable", check_version, "project", "secret", "version")
    step = add("try", run_trial, "url", "audience")
    add_caller(step)
    for number in ("start", "stop", "seconds"):
        step.add_argument(number, type=int)
    step.add_argument("--kept", action="store_true", help="an older version serves on")
    add("control", rewrite_control, "order", "store")
    add("show", show_object, "url")
    step = add("watch", watch, "project", "service")
    step.add_argument("period", type=int)
    step.add_argument("kinds", nargs="+")
    step.add_argument("--email", default="")
    add("unwatch", unwatch, "project", "service")


def _run(step: Step, args: argparse.Namespace) -> int:
    """Run a step; a wrong setting ends with its paragraph of the runbook, as all else does."""
    try:
        return step(args) or 0
    except SettingsError as error:
        message = f"{error}{see('A setting is wrong')}"
        raise SettingsError(error.code, error.field, message) from None


def print_settings(args: argparse.Namespace) -> None:
    """Print assignments for a shell on stdout, and for people on stderr what they mean."""
    now = datetime.now(UTC)
    deployment = read_deployment(os.environ, args.file)
    print("\n".join(shell_lines(deployment, now)))
    if args.purpose == "deploy":
        told = told_lines(deployment, now, monitoring.count_conditions(DEPLOY))
        print("\n".join(told), file=sys.stderr)


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


def print_example(_args: argparse.Namespace) -> None:
    """Print every setting with its default, as `deploy.env.example` has it."""
    print("\n".join(example_lines()))


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


def stage_upload(args: argparse.Namespace) -> None:
    """Copy what is uploaded; load a function of the user's own as it will be loaded there."""
    names = [line for line in sys.stdin.read().splitlines() if line]
    if "main.py" not in names:
        raise SettingsError("upload_empty", "main.py", "gcloud named no main.py to upload")
    out = Path(args.out)
    upload.stage(
        names,
        Path(),
        out,
        function=args.function or None,
        source=args.source or None,
        requirements=Path(args.requirements) if args.requirements else None,
    )
    if args.function:
        environment = dict(pair.split("=", 1) for pair in args.environment.split(";"))
        upload.check_own_function(out, environment)


def print_fingerprint(args: argparse.Namespace) -> None:
    """Print a digest of what is uploaded and of the settings given."""
    print(upload.fingerprint(Path(args.folder), *args.more))


def run_gcloud(args: argparse.Namespace) -> int | None:
    """Run a gcloud command; what is not there is exit code 4 where that is no error."""
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    output = args.open_cloud("").gcloud(*arguments, may_lack=args.if_there)
    if output is None:
        return EXIT_NOT_THERE
    sys.stdout.write(output)
    return None


def check_place(args: argparse.Namespace) -> None:
    """Check that all services that are needed are in the region."""
    service.check_region(args.open_cloud(args.project), args.region, with_queue=bool(args.queue))


def keep_token(args: argparse.Namespace) -> None:
    """Read a token and print it, or keep the one on stdin and print its version.

    `read` reads it in any case, `take` only where the secret has no version; `keep` adds what is on
    stdin, or finds the newest version where there is nothing.
    """
    cloud = args.open_cloud(args.project)
    file = Path(args.file) if args.file else None
    if args.what == "keep":
        token = sys.stdin.read()
        version = service.add_version(cloud, args.secret, token) if token else None
        version = version or service.newest_version(cloud, args.secret)
        if version is None:
            message = f"{args.secret} holds no version that is enabled: run the same command again"
            raise DeploymentError(message, "Google does not come round")
        print(version)
        return
    cloud.waits = False
    if args.what == "read" or service.newest_version(cloud, args.secret) is None:
        sys.stdout.write(service.read_token(file))


def check_identity(args: argparse.Namespace) -> None:
    """Mint a token for the trial, before anything is built that could not be tried."""
    service.identity_token(args.open_cloud(""), args.audience, args.invoker, args.deployer)


def read_service(_args: argparse.Namespace) -> None:
    """Print assignments for a shell of what stands."""
    text = sys.stdin.read().strip()
    stands = service.EXAMPLE_SERVICE if text == "example" else msgspec.json.decode(text or "{}")
    print("\n".join(service.service_lines(stands)))


def read_revision(args: argparse.Namespace) -> None:
    """Print which version of the token a revision wants."""
    text = sys.stdin.read().strip()
    is_example = text == "example"
    print("1" if is_example else service.pinned_token(msgspec.json.decode(text), args.variable))


def check_version(args: argparse.Namespace) -> None:
    """Check that a version of the token is enabled, so that a revision that wants it can start."""
    service.check_enabled(args.open_cloud(args.project), args.secret, args.version)


def run_trial(args: argparse.Namespace) -> None:
    """Ask a new version for a few songs; it may have the traffic when this ends well."""
    cloud = args.open_cloud("")
    service.try_version(
        cloud,
        args.url,
        token=service.identity_token(cloud, args.audience, args.invoker, args.deployer),
        songs=range(args.start, args.stop),
        seconds=args.seconds,
        is_kept=args.kept,
    )


def rewrite_control(args: argparse.Namespace) -> None:
    """Stop running crawls; or lift the stop, the hold, or both."""
    service.order(args.open_cloud(""), args.store, args.order, by=f"{caller()}, deploy.sh")


def show_object(args: argparse.Namespace) -> None:
    """Print an object of a bucket, or that it is not there."""
    data, _ = service.read_object(args.open_cloud(""), args.url)
    print(data.decode() or f"{args.url} is not there")


def watch(args: argparse.Namespace) -> None:
    """Make what is watched: metrics early, alerts last."""
    monitoring.make(
        args.open_cloud(args.project),
        DEPLOY,
        tuple(args.kinds),
        service=args.service,
        period_seconds=args.period,
        email=args.email or None,
    )


def unwatch(args: argparse.Namespace) -> None:
    """Take down alerts, dashboard, metrics and the channel."""
    monitoring.remove(args.open_cloud(args.project), args.service)
