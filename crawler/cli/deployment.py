"""The command `deployment`: what `deploy.sh` asks, because it is better said in Python."""

import argparse
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from crawler.cli.options import VERBATIM, caller
from crawler.deployment.deployment import read_deployment, shell_lines, told_lines
from crawler.errors import CrawlerError, SettingsError
from crawler.settings.reading import read_settings

_DESCRIPTION = """\
Steps of deploy.sh that need no cloud. People call deploy.sh."""

TRIED_SONGS = 10
"""A new version is asked for so many songs before it gets any traffic."""


def add_deployment(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its steps to the command line."""
    parser = commands.add_parser(
        "deployment",
        help="steps of deploy.sh that need no cloud",
        description=_DESCRIPTION,
        formatter_class=VERBATIM,
    )
    steps = parser.add_subparsers(title="steps", metavar="STEP", required=True)
    step = steps.add_parser("settings", help="check deploy.env, print all settings for a shell")
    step.add_argument("--file", type=Path, default=Path("deploy.env"))
    how = step.add_mutually_exclusive_group()
    how.add_argument("--tell", action="store_true", help="say on stderr what will be deployed")
    how.add_argument("--quiet", action="store_true")
    step.set_defaults(run=print_settings)
    step = steps.add_parser("token", help="check a token on stdin and pass it on")
    step.set_defaults(run=pass_token)
    step = steps.add_parser("stage", help="copy the files named on stdin")
    step.add_argument("out", type=Path)
    step.add_argument("--function")
    step.add_argument("--requirements")
    step.set_defaults(run=stage_upload)
    step = steps.add_parser("own", help="check the own function that the environment names")
    step.set_defaults(run=check_own)
    step = steps.add_parser("fingerprint", help="digest a folder, and texts beside it")
    step.add_argument("folder", type=Path)
    step.add_argument("more", nargs="*", metavar="TEXT")
    step.set_defaults(run=print_fingerprint)
    step = steps.add_parser("control", help="rewrite control.json from stdin to stdout")
    step.add_argument("order", choices=("stop", "go", "release", "resume"))
    step.set_defaults(run=rewrite_control)
    step = steps.add_parser("watch", help="fill in the files under deploy/")
    step.add_argument("out", type=Path)
    step.add_argument("values", nargs="*", metavar="NAME=VALUE")
    step.set_defaults(run=fill_in)
    step = steps.add_parser("service", help="read a service's description from stdin")
    step.set_defaults(run=read_service)
    step = steps.add_parser(
        "pinned", help="read a revision's description, print its token's version"
    )
    step.set_defaults(run=read_revision)
    step = steps.add_parser("tried", help="judge the answer of a trial on stdin")
    step.set_defaults(run=judge_trial)


def print_settings(args: argparse.Namespace) -> int:
    """Print assignments for a shell on stdout, and for people on stderr what they mean."""
    now = datetime.now(UTC)
    deployment = read_deployment(os.environ, args.file)
    print("\n".join(shell_lines(deployment, now)))
    if args.tell:
        print("\n".join(told_lines(deployment, now)), file=sys.stderr)
    return 0


def pass_token(_args: argparse.Namespace) -> int:
    """Pass a token from stdin to stdout, without the line end that an editor leaves."""
    token = sys.stdin.read().strip()
    read_settings({}, token=token, base_url="http://127.0.0.1")
    sys.stdout.write(token)
    return 0


def stage_upload(args: argparse.Namespace) -> int:
    """Copy what is uploaded."""
    from crawler.deployment.upload import stage

    names = [line for line in sys.stdin.read().splitlines() if line]
    if "main.py" not in names:
        raise SettingsError("upload_empty", "main.py", "gcloud named no main.py to upload")
    stage(
        names,
        Path(),
        args.out,
        function=args.function or None,
        requirements=Path(args.requirements) if args.requirements else None,
    )
    return 0


def check_own(_args: argparse.Namespace) -> int:
    """Load the own step 1 function or source with the environment it will have in the cloud."""
    from crawler.run.functions import check_own_function

    check_own_function(read_settings(os.environ, for_site=False))
    return 0


def print_fingerprint(args: argparse.Namespace) -> int:
    """Print a digest of what is uploaded and of the settings given."""
    from crawler.deployment.upload import fingerprint

    print(fingerprint(args.folder, *args.more))
    return 0


def rewrite_control(args: argparse.Namespace) -> int:
    """Rewrite what stands: stop; go (lift the stop); release (lift the hold); resume (lift both).

    What cannot be read is replaced.
    """
    from crawler.store.control import Control, decode_control, with_stop, without_hold, without_stop

    try:
        control = decode_control(sys.stdin.buffer.read())
    except ValueError:
        control = Control()
    if args.order == "stop":
        by = f"{caller()}, deploy.sh"
        control = with_stop(control, secrets.token_hex(8), datetime.now(UTC), by)
    if args.order in ("go", "resume"):
        control = without_stop(control)
    if args.order in ("release", "resume"):
        control = without_hold(control)
    sys.stdout.buffer.write(msgspec.json.encode(control))
    return 0


def fill_in(args: argparse.Namespace) -> int:
    """Write the files under deploy/ for one deployment; print kind, digest, path, name of each."""
    from crawler.deployment.alerting import render, windows_of

    values = dict(pair.split("=", 1) for pair in args.values)
    values |= windows_of(int(values["PERIOD"]))
    for file in render(Path("deploy"), args.out, values):
        print(file.kind, file.digest, file.path.as_posix(), file.name, sep="\t")
    return 0


def read_service(_args: argparse.Namespace) -> int:
    """Print assignments for a shell of what stands."""
    from crawler.deployment.cloud_service import service_lines

    print("\n".join(service_lines(msgspec.json.decode(sys.stdin.read()))))
    return 0


def read_revision(_args: argparse.Namespace) -> int:
    """Print which version of the token a revision wants."""
    from crawler.deployment.cloud_service import pinned_token

    print(pinned_token(msgspec.json.decode(sys.stdin.read())))
    return 0


def judge_trial(_args: argparse.Namespace) -> int:
    """Say whether a version that was asked for a few songs may have the traffic.

    Raises:
        CrawlerError: It may not; with what it answered.
    """
    text = sys.stdin.read()
    try:
        answer = msgspec.json.decode(text)
        settled = answer["found"] + answer["missing"]
        good = answer["stopped_by"] == "done" and settled == TRIED_SONGS and answer["requests"] > 0
    except (msgspec.MsgspecError, KeyError, TypeError):
        good = False
    if not good:
        raise CrawlerError(f"the new version answered its trial with {text.strip()[:500]!r}")
    print(f"The new version fetched {settled} of {TRIED_SONGS} songs.", file=sys.stderr)
    return 0
