"""The command line: one parser, one way in, errors in words, and streams that may be closed."""

import argparse
import contextlib
import difflib
import errno
import io
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

try:
    from crawler.cli.options import (
        EXIT_AT_ONCE,
        VERBATIM,
        error_lines,
        given_options,
        program,
        set_up_logs,
    )
except ModuleNotFoundError as error:
    sys.exit(
        f"{error.name} is not installed for {sys.executable}: run `make setup` and use "
        ".venv/bin/python, or run `pip install .`"
    )
from crawler.errors import CrawlerError, RequestError, SettingsError
from crawler.version import VERSION

_DESCRIPTION = """\
Crawl numbered song pages, politely and without losing one, into a folder or a bucket."""

_EXAMPLES = """\
examples:
  %(prog)s demo                     see it work: 2,000 made-up songs, no token, no internet
  %(prog)s crawl 1 2001             songs 1 to 2000 of the Genius API into data/genius
  %(prog)s status                   what is settled, what is left
  %(prog)s verify 1 2001            prove that each number is there exactly once
  %(prog)s stop                     end all runs on this store within 10 s
  %(prog)s export songs.parquet     what was found, for pandas, DuckDB and the rest
  %(prog)s doctor                   say whether a crawl would work, and what to mend

Each command has a --help of its own."""


def run_process() -> NoReturn:
    """Run one command as a process of its own, which ends with the exit code.

    A call that was given up, to a store that hangs for instance, is not waited for: at its end
    Python would join the threads of pools, whatever they are stuck in.
    """
    code = main()
    if threading.active_count() > 1:
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments without the program's name; None: those of the process.

    Returns:
        The exit code: 0 complete, 3 not complete, 2 wrong usage or settings, 1 error, 141 where
        whoever read the output, such as `head`, is gone.
    """
    open_closed_streams()
    try:
        try:
            return _run(sys.argv[1:] if argv is None else list(argv))
        finally:
            sys.stdout.flush()  # here, where its failure can be told from others
    except BrokenPipeError:
        discard_output()
        return EXIT_UNREAD
    except OSError as error:
        if error.errno not in FULL:  # of files and the network each command speaks itself
            raise
        discard_output()
        complain(f"{program()}: the output cannot be written: {error.strerror}; the rest is done")
        return 1


def _run(argv: list[str]) -> int:
    args = build_parser(next(iter(argv), None)).parse_args(argv)
    args.argv = argv
    set_up_logs(args)
    try:
        return int(args.run(args))
    except CrawlerError as error:
        for line in error_lines(error, given_options(args)):
            complain(line)
        return 2 if isinstance(error, RequestError | SettingsError) else 1
    except KeyboardInterrupt:
        return EXIT_AT_ONCE


class _Parser(argparse.ArgumentParser):
    """Tells a misspelt option what it may have meant."""

    def error(self, message: str) -> NoReturn:
        start, _, unknown = message.partition("unrecognized arguments: ")
        if not start and unknown.startswith("--"):
            name = unknown.split()[0].partition("=")[0]
            known = _options(self)  # one that is among them is another command's
            near = [] if name in known else difflib.get_close_matches(name, known, n=1)
            message += f"; did you mean {near[0]}?" if near else ""
        super().error(message)


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Collect the options of a parser and of all its commands."""
    names: set[str] = set()
    for action in parser._actions:  # noqa: SLF001 - there is no other way to list them
        names.update(name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                names |= _options(command)
    return names


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of the whole command line; each command brings its own part.

    The steps of `deployment` are loaded where that is the command, and the others where it is not.
    """
    parser = _Parser(
        prog=program(), description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=VERBATIM
    )
    parser.add_argument("--version", action="version", version=f"song-crawler {VERSION}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=argparse.ArgumentParser
    )
    if command == "deployment":
        from crawler.cli import deployment

        deployment.add_commands(commands)
    else:
        from crawler.cli import crawl, demo, export, store

        for module in (crawl, store, export, demo):
            module.add_commands(commands)
        commands.add_parser("deployment", help="steps of deploy.sh")
    return parser


EXIT_UNREAD = 141
"""What a shell expects of a program whose output nobody reads any more: 128 + SIGPIPE."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a full disk, quota or limit, or a terminal that is gone, says to who writes to it."""


def open_closed_streams() -> None:
    """Let closed streams, as by `>&-` or a supervisor, lead nowhere, and the others escape letters.

    Python has None in their place, which nothing can be printed to. Worse, the next file that is
    opened, a block or a connection, would get the number of the stream, and what C code or a signal
    handler writes to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is the one that is missing
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it is no path of anybody's, and stays open
    for stream in (sys.stdout, sys.stderr):  # a title, or a folder's name, may hold any letter
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Throw away what stdout still holds, or Python's own flush at the end would complain."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - it is no path of anybody's
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def complain(line: str) -> None:
    """Write a line to stderr; where it does not take any, nobody can be told."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_process()
