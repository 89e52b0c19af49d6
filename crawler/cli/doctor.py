"""The commands `doctor` (would a crawl work, and what to mend) and `sources` (what is built in)."""

import argparse
import os

from crawler.cli.options import (
    ENV_FILE,
    VERBATIM,
    checked_range,
    overrides_of,
    print_json,
    site_options,
    store_options,
)

_DESCRIPTION = """\
Look at the token, the store, the queue, the site and the clock, and say what is wrong.

Asks the site for one song, shows what would be kept of it, field by field, and makes sure that the
store can be written, as every run does first. The token is never shown."""

_EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s 378195 --store gs://my-bucket/genius
  %(prog)s 1 --source discogs.toml

exit codes:
  0 a crawl would work, 1 it would not"""

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


def add_doctor(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say whether a crawl would work, and what to mend",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=VERBATIM,
        parents=[store_options(), site_options()],
    )
    parser.add_argument(
        "song",
        metavar="SONG",
        nargs="?",
        default=argparse.SUPPRESS,
        help="the song to ask for (default: the first)",
    )
    parser.add_argument("--song", dest="song", help=argparse.SUPPRESS)  # its form in version 1.0
    parser.set_defaults(run=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Print one line for each part; returns 0 or 1.

    Raises:
        RequestError: `--song` is no number.
    """
    from crawler.doctor.examination import examine

    song_num = None if args.song is None else checked_range("0", args.song)[1]
    findings = []
    for finding in examine(os.environ, env_file=ENV_FILE, song_num=song_num, **overrides_of(args)):
        findings.append(finding)
        if not args.json:
            print(f"{_MARKS[finding.verdict]}  {finding.part:<8}  {finding.words}", flush=True)
    if args.json:
        print_json(findings)
    return 1 if any(finding.verdict == "wrong" for finding in findings) else 0


def add_sources(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "sources",
        help="list the sources that are built in",
        description="List the sources that --source knows by name, with address and token.",
        epilog="Another one is a .toml file: docs/sources.md says what stands in it.",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")
    parser.set_defaults(run=list_sources)


def list_sources(args: argparse.Namespace) -> int:
    """Print one line for each built-in source; returns 0."""
    from crawler.source.declared import built_in_names, load_declaration

    declared = [load_declaration(name) for name in built_in_names()]
    if args.json:
        rows = [{"name": d.name, "base_url": d.base_url, "token": d.token} for d in declared]
        print_json(rows)
        return 0
    for each in declared:
        token = f"needs {each.token}" if each.token else "no token"
        print(f"{each.name:<12} {each.base_url:<40} {token}")
    return 0
