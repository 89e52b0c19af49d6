"""The command `doctor`: says in words whether a crawl would work, and what to mend."""

import argparse
import os

import msgspec

from crawler.cli.options import (
    ENV_FILE,
    VERBATIM,
    checked_range,
    overrides_of,
    site_options,
    store_options,
)

_DESCRIPTION = """\
Look at the token, the store, the queue, the site and the clock, and say what is wrong.

Asks the site for one song, and makes sure that the store can be written, as every run does first.
The token is never shown."""

_EXAMPLES = """\
examples:
  %(prog)s
  %(prog)s --store gs://my-bucket/genius --song 378195

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
    parser.add_argument("--song", metavar="N", help="the song to ask for (default: the first)")
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
        print(msgspec.json.encode(findings).decode())
    return 1 if any(finding.verdict == "wrong" for finding in findings) else 0
