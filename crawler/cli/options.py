"""What commands share: options, the settings and ranges they make, and words for people."""

import argparse
import contextlib
import getpass
import json
import logging
import os
import re
import shlex
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode

import msgspec

from crawler.answer import STOPS, Answer, why_not_complete
from crawler.errors import CrawlerError, RequestError
from crawler.frontier.verdict import failure_sentence, is_worth_repeating
from crawler.logs import configure_logging
from crawler.request.crawl_request import CrawlRequest, check_request, songs, with_sample
from crawler.request.incoming import query_fields
from crawler.settings.reading import read_settings
from crawler.settings.settings import MAX_SONG_NUM, SETTINGS, Settings


def program() -> str:
    """Return this program's name, for usage and errors."""
    called = Path(sys.argv[0]).name
    return "python -m crawler" if called.startswith("__main__") else called


def command(arguments: Sequence[str]) -> str:
    """Write a command line that a shell reads as it stands, and finds what runs here.

    A Python or program that is not found under its name is written with its path, as in a virtual
    environment that is not active.
    """
    called = Path(sys.argv[0])
    if called.name.startswith("__main__"):
        return f"{_python()} -m crawler {shlex.join(arguments)}"
    name = called.name if shutil.which(called.name) else _short_path(called)
    return f"{name} {shlex.join(arguments)}"


def _python() -> str:
    here = Path(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found is not None and Path(found).parent == here.parent:
            return name
    return _short_path(here)


def _short_path(path: Path) -> str:
    """Write a path from the working directory, where it lies below."""
    with contextlib.suppress(ValueError):
        path = Path(os.path.abspath(path)).relative_to(Path.cwd())  # noqa: PTH100 - links stay links
    return shlex.quote(str(path))


def caller() -> str:
    """Return who calls, for those who read an order later; a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # what it raises depends on the Python and the system
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"
    return f"{user} on {socket.gethostname()}"


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII, which every terminal and pipe can carry."""
    print(json.dumps(msgspec.to_builtins(value), separators=(",", ":")))


def count(number: int, noun: str) -> str:
    """Write a number of things: "1 request", "2,000 requests"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number_of_bytes: int) -> str:
    """Write the size of a file: "20 kB", "1.5 MB"; nothing is 0 but an empty file."""
    if number_of_bytes < 999_500:
        return f"{-(-number_of_bytes // 1000)} kB"
    return f"{number_of_bytes / 1e6:.1f} MB"


def answer_lines(answer: Answer, repeat: str) -> list[str]:
    """Return what a run did, why it ended, what failed and why, and how to go on.

    Args:
        repeat: The command line that was run.
    """
    here = songs(answer.start, answer.stop, answer.noun)
    lines = [
        f"{here[0].upper()}{here[1:]}: {answer.found:,} found, {answer.missing:,} missing, "
        f"{answer.failed:,} failed; {answer.skipped:,} were settled before.",
        f"{count(answer.requests, 'request')} in {answer.seconds:.1f} s, "
        f"{answer.mean_rate:.1f} a second; {count(answer.blocks_written, 'block')} written.",
    ]
    limits: dict[str, Any] = answer.__dict__
    if (rate := limits.get("advised_rate")) is not None:
        lines.append(
            f"The site said no {limits['refused']:,} times (429): --rate {rate:g} is what it bears."
        )
    if answer.complete:
        return [*lines, "Complete: every number is settled."]
    left = f"{answer.remaining:,} not asked, {answer.failed:,} failed"
    failures: dict[str, int] = answer.__dict__.get("failures", {})
    is_hopeless = failures and not answer.remaining and not any(map(is_worth_repeating, failures))
    why = [why_not_complete(answer), _ADVICE.get(answer.stopped_by)]
    if is_hopeless and answer.stopped_by == "done":  # it speaks of asking again
        why = []
    helps = {True: "worth asking again later", False: "asking again will not help"}
    lines += [
        " ".join(filter(None, [f"Not complete: {left}.", *why])),
        *(
            f"  failed: {n:,} {kind}: {failure_sentence(kind)}; {helps[is_worth_repeating(kind)]}"
            for kind, n in failures.items()
        ),
    ]
    if STOPS[answer.stopped_by].status == 502:
        kinds: dict[str, int] = answer.__dict__.get("kinds", {})
        lines += [
            f"  attempts: {n:,} {kind}: {failure_sentence(kind)}" for kind, n in kinds.items()
        ]
    if is_hopeless:
        return [*lines, "Repeating the command will not help: see to what failed first."]
    return [*lines, f"To go on: {repeat}"]


_ADVICE = {
    "unauthorized": "Set GENIUS_TOKEN, or what the source names, to a token that is valid; "
    "genius.com/api-clients makes new ones.",
    "barred": "Wait some hours, choose a lower --rate, and see whether the site allows crawling.",
    "circuit": "Look at the site, and at one page of it with the command doctor.",
    "store": "See to the store, then repeat the command: what was stored is whole.",
}
"""What to do about an end that nothing but somebody's doing changes."""


def error_lines(error: CrawlerError, given: dict[str, str]) -> list[str]:
    """Write an error, one line for each thing that is wrong, in the names that the caller wrote.

    Args:
        given: Option by setting name for those on the command line: `CRAWLER_RATE` to `--rate`.
    """
    lines = []
    for message in error.messages:
        text = " ".join(message.split())
        for variable, option in given.items():
            text = re.sub(rf"\b{variable}\b", option, text)
        lines.append(f"{program()}: {text}")
    return lines


ENV_FILE = Path("crawler.env")
"""Read where the command is called, beside `main.py`."""

EXIT_AT_ONCE = 130
"""What a shell expects of a program that Ctrl-C ended."""

VERBATIM = argparse.RawDescriptionHelpFormatter
"""Leaves the examples at the end of a help text as they are laid out."""


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - no other name
"""What a command is added to."""


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    epilog: str,
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command that `run` carries out; its help text leaves examples as they are laid out.

    `run` returns the exit code; what it raises as a `CrawlerError` is told in a line.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=VERBATIM,
        parents=parents,
    )
    parser.set_defaults(run=run)
    return parser


def add_range(parser: argparse.ArgumentParser, nargs: Literal["?"] | None = None) -> None:
    """Add the arguments START and STOP."""
    parser.add_argument("start", nargs=nargs, metavar="START", help="first song number")
    parser.add_argument("stop", nargs=nargs, metavar="STOP", help="the number after the last")


def store_options(store: str = "data/genius") -> argparse.ArgumentParser:
    """Make the options of every command that opens a store, by default the one named here."""
    parser = setting_options("where and how", store=store)
    add = parser.add_argument
    add("--json", action="store_true", help="print the answer as JSON, and nothing else, on stdout")
    add("-v", "--verbose", action="count", default=0, help="tell what happens; twice: everything")
    return parser


def reading_options() -> list[argparse.ArgumentParser]:
    """Make the options of a command that reads a store: its source says where it lies by default."""
    return [store_options(), setting_options("whose store", "source")]


def setting_options(title: str, *fields: str, **defaults: object) -> argparse.ArgumentParser:
    """Make options of settings, each by its own word; what is given wins over the environment.

    Args:
        title: Of their group in the help text.
        fields: Fields of `Settings` that are options.
        defaults: The same, with a default that differs from that of the settings.
    """
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(title)
    for name in (*fields, *defaults):
        row = SETTINGS[name]
        assert row.option is not None, f"{name} is no option"
        default = defaults.get(name, row.default)
        meaning = row.meaning.rstrip(".").replace("`", "").replace("%", "%%")
        help_text = f"{meaning} (default: {default})" if default else meaning
        group.add_argument(row.option, metavar=row.metavar, help=help_text)
    return parser


def site_options() -> argparse.ArgumentParser:
    """Make the options of a command that asks a site of the user's choice."""
    return setting_options("the site", "source", "base_url", "function", "ca_file")


def settings_of(args: argparse.Namespace, **more: Any) -> Settings:
    """Read the settings; what was given as an option wins over environment and `crawler.env`.

    Args:
        more: Settings that win over the environment where no option is given; and `for_site`,
            False for a command that asks the site for nothing: without token and contact.

    Raises:
        SettingsError: A setting is missing or malformed.
    """
    settings = read_settings(os.environ, env_file=ENV_FILE, **(more | overrides_of(args)))
    if settings.token is not None:
        set_up_logs(args, secrets=[settings.token.reveal()])
    return settings


def given_options(args: argparse.Namespace) -> dict[str, str]:
    """Map settings to the options they came from, for messages: `CRAWLER_RATE` to `--rate`."""
    return {SETTINGS[name].variable: SETTINGS[name].option or "" for name in overrides_of(args)}


def set_up_logs(args: argparse.Namespace, *, secrets: Sequence[str] = ()) -> None:
    """Send what is logged to stderr: warnings, with -v what happens, with -vv everything."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    handler = configure_logging(os.environ, sys.stderr, secrets=secrets)
    verbose = getattr(args, "verbose", 0)
    logging.getLogger().setLevel(levels[min(verbose, 2)])
    if not verbose:  # the command itself says how its run ended
        handler.addFilter(lambda record: getattr(record, "event", None) != "run_finished")


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the settings that were given as options."""
    given = {row.field: getattr(args, row.field, None) for row in SETTINGS.values() if row.option}
    return {name: value for name, value in given.items() if value is not None}


def checked_request(fields: Mapping[str, str], *, max_range: int = MAX_SONG_NUM) -> CrawlRequest:
    """Check words of the command line as if they were the query of a request to the function.

    Args:
        fields: By the names of the function's parameters, such as `start`; and `sample`.
        max_range: Longest range that is done without --fan-out.

    Raises:
        RequestError: With what is wanted, in words for a command line.
    """
    try:
        given = query_fields(urlencode(fields))
        sample = given.pop("sample", None)
        return with_sample(check_request(given, max_range=max_range), sample)
    except RequestError as error:
        field = error.field or ""
        message = str(error).partition(": ask for")[0]
        if field not in ("start", "stop"):
            message = message.replace(field, f"--{field.replace('_', '-')}", 1)
        message = re.sub(r"\b(start|stop)\b(?!=)", lambda match: match[0].upper(), message)
        message = message.replace("set fan_out to hand", "--fan-out hands")
        raise RequestError(error.status, error.code, error.field, message) from None


def checked_range(start: str, stop: str) -> tuple[int, int]:
    """Check a range alone; returns `(start, stop)`.

    Raises:
        RequestError: It is none.
    """
    request = checked_request({"start": start, "stop": stop})
    return request.start or 0, request.stop or 0
