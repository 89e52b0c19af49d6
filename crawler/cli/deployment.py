"""The command `deployment`: the steps of `deploy.sh` that need judgement, each tested here."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from crawler.cli.options import VERBATIM, caller
from crawler.errors import SettingsError

_DESCRIPTION = """\
Steps of deploy.sh. People call deploy.sh."""

EXIT_NOT_THERE = 4
"""What `gcloud --if-there` ends with where a resource is not there."""

DEPLOY = Path("deploy")
"""Where the files of metrics, alerts and dashboard lie."""


def add_commands(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    open_cloud: Callable[[str], object] | None = None,
) -> None:
    """Add the command and its steps to the command line.

    Args:
        commands: Of the command line.
        open_cloud: Opens Google for a project; None: with the process's own environment and clock.
    """
    parser = commands.add_parser(
        "deployment",
        help="steps of deploy.sh",
        description=_DESCRIPTION,
        formatter_class=VERBATIM,
    )
    parser.set_defaults(open_cloud=open_cloud or _open_cloud)
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)

    def add(
        name: str, run: Callable[[argparse.Namespace], int], *positional: str
    ) -> argparse.ArgumentParser:
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


def _run(step: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a step; a wrong setting ends with its paragraph of the runbook, as all else does."""
    try:
        return step(args)
    except SettingsError as error:
        from crawler.deployment.cloud import see

        message = f"{error}{see('A setting is wrong')}"
        raise SettingsError(error.code, error.field, message) from None


def _open_cloud(project: str) -> object:
    from crawler.deployment.cloud import Cloud

    return Cloud(os.environ, project)


def print_settings(args: argparse.Namespace) -> int:
    """Print assignments for a shell on stdout, and for people on stderr what they mean."""
    from crawler.deployment.deployment import read_deployment, shell_lines, told_lines
    from crawler.deployment.monitoring import count_conditions

    now = datetime.now(UTC)
    deployment = read_deployment(os.environ, args.file)
    print("\n".join(shell_lines(deployment, now)))
    if args.purpose == "deploy":
        told = told_lines(deployment, now, count_conditions(DEPLOY))
        print("\n".join(told), file=sys.stderr)
    return 0


def print_example(_args: argparse.Namespace) -> int:
    """Print every setting with its default, as `deploy.env.example` has it."""
    from crawler.deployment.deployment import example_lines

    print("\n".join(example_lines()))
    return 0


def stage_upload(args: argparse.Namespace) -> int:
    """Copy what is uploaded; load a function of the user's own as it will be loaded there."""
    from crawler.deployment.upload import check_own_function, stage

    names = [line for line in sys.stdin.read().splitlines() if line]
    if "main.py" not in names:
        raise SettingsError("upload_empty", "main.py", "gcloud named no main.py to upload")
    out = Path(args.out)
    stage(
        names,
        Path(),
        out,
        function=args.function or None,
        source=args.source or None,
        requirements=Path(args.requirements) if args.requirements else None,
    )
    if args.function:
        check_own_function(out, dict(pair.split("=", 1) for pair in args.environment.split(";")))
    return 0


def print_fingerprint(args: argparse.Namespace) -> int:
    """Print a digest of what is uploaded and of the settings given."""
    from crawler.deployment.upload import fingerprint

    print(fingerprint(Path(args.folder), *args.more))
    return 0


def run_gcloud(args: argparse.Namespace) -> int:
    """Run a gcloud command; what is not there is exit code 4 where that is no error."""
    arguments = args.arguments[1:] if args.arguments[:1] == ["--"] else args.arguments
    output = args.open_cloud("").gcloud(*arguments, may_lack=args.if_there)
    if output is None:
        return EXIT_NOT_THERE
    sys.stdout.write(output)
    return 0


def check_place(args: argparse.Namespace) -> int:
    """Check that all services that are needed are in the region."""
    from crawler.deployment.service import check_region

    check_region(args.open_cloud(args.project), args.region, with_queue=bool(args.queue))
    return 0


def keep_token(args: argparse.Namespace) -> int:
    """Read a token and print it, or keep the one on stdin and print its version.

    `read` reads it in any case, `take` only where the secret has no version; `keep` adds what is on
    stdin, or finds the newest version where there is nothing.
    """
    from crawler.deployment.cloud import DeploymentError
    from crawler.deployment.service import add_version, newest_version, read_token

    cloud = args.open_cloud(args.project)
    file = Path(args.file) if args.file else None
    if args.what == "keep":
        token = sys.stdin.read()
        version = add_version(cloud, args.secret, token) if token else None
        version = version or newest_version(cloud, args.secret)
        if version is None:
            message = f"{args.secret} holds no version that is enabled: run the same command again"
            raise DeploymentError(message, "Google does not come round")
        print(version)
        return 0
    cloud.waits = False
    if args.what == "read" or newest_version(cloud, args.secret) is None:
        sys.stdout.write(read_token(file))
    return 0


def check_identity(args: argparse.Namespace) -> int:
    """Mint a token for the trial, before anything is built that could not be tried."""
    from crawler.deployment.service import identity_token

    identity_token(args.open_cloud(""), args.audience, args.invoker, args.deployer)
    return 0


def read_service(_args: argparse.Namespace) -> int:
    """Print assignments for a shell of what stands."""
    from crawler.deployment.service import EXAMPLE_SERVICE, service_lines

    text = sys.stdin.read().strip()
    service = EXAMPLE_SERVICE if text == "example" else msgspec.json.decode(text or "{}")
    print("\n".join(service_lines(service)))
    return 0


def read_revision(args: argparse.Namespace) -> int:
    """Print which version of the token a revision wants."""
    from crawler.deployment.service import pinned_token

    text = sys.stdin.read().strip()
    print("1" if text == "example" else pinned_token(msgspec.json.decode(text), args.variable))
    return 0


def check_version(args: argparse.Namespace) -> int:
    """Check that a version of the token is enabled, so that a revision that wants it can start."""
    from crawler.deployment.service import check_enabled

    check_enabled(args.open_cloud(args.project), args.secret, args.version)
    return 0


def run_trial(args: argparse.Namespace) -> int:
    """Ask a new version for a few songs; it may have the traffic when this ends well."""
    from crawler.deployment.service import identity_token, try_version

    cloud = args.open_cloud("")
    try_version(
        cloud,
        args.url,
        token=identity_token(cloud, args.audience, args.invoker, args.deployer),
        songs=range(args.start, args.stop),
        seconds=args.seconds,
        is_kept=args.kept,
    )
    return 0


def rewrite_control(args: argparse.Namespace) -> int:
    """Stop running crawls; or lift the stop, the hold, or both."""
    from crawler.deployment.service import order

    order(args.open_cloud(""), args.store, args.order, by=f"{caller()}, deploy.sh")
    return 0


def show_object(args: argparse.Namespace) -> int:
    """Print an object of a bucket, or that it is not there."""
    from crawler.deployment.service import read_object

    data, _ = read_object(args.open_cloud(""), args.url)
    print(data.decode() or f"{args.url} is not there")
    return 0


def watch(args: argparse.Namespace) -> int:
    """Make what is watched: metrics early, alerts last."""
    from crawler.deployment.monitoring import make

    make(
        args.open_cloud(args.project),
        DEPLOY,
        tuple(args.kinds),
        service=args.service,
        period_seconds=args.period,
        email=args.email or None,
    )
    return 0


def unwatch(args: argparse.Namespace) -> int:
    """Take down alerts, dashboard, metrics and the channel."""
    from crawler.deployment.monitoring import remove

    remove(args.open_cloud(args.project), args.service)
    return 0
