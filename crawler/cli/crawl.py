"""The command `crawl`: a range, or what a mode finds, filled from the site into the store."""

import argparse
import sys

import msgspec

from crawler.answer import STOPS, Answer
from crawler.cli.fan_out import add_fan_out_options, order_fan_out
from crawler.cli.options import (
    VERBATIM,
    setting_options,
    settings_of,
    site_options,
    store_options,
)
from crawler.cli.request import checked_request
from crawler.cli.signals import stop_on_signals
from crawler.cli.words import answer_lines, command
from crawler.errors import RequestError
from crawler.request.crawl_request import CrawlRequest
from crawler.request.words import label
from crawler.run.progress import progress_bar
from crawler.settings.reading import Settings

_DESCRIPTION = """\
Make every song number of a range settled: found, or known to be missing.

Numbers that the store has settled cost no request, so the same command goes on after anything:
an interruption, a full disk, a night. START is included, STOP is not, as in Python's range."""

_EXAMPLES = """\
examples:
  %(prog)s 1 2001                      songs 1 to 2000
  %(prog)s 1 2001 --rate 20            the same, slower
  %(prog)s --mode next --limit 50000   the next 50,000 numbers that are not settled
  %(prog)s --mode new                  what came after the last song found so far
  %(prog)s 1 2001 --refresh-older-than-days 30
  %(prog)s 1 10000001 --fan-out        hand it to the deployed function's task queue

exit codes:
  0 complete, 3 not complete, 2 wrong usage or settings, 1 error, 130 ended at once

GENIUS_TOKEN and CRAWLER_CONTACT come from the environment or from crawler.env."""


def add_crawl(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "crawl",
        help="fill a range of song numbers",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=VERBATIM,
        parents=[
            store_options(),
            site_options(),
            setting_options("pace", "rate", "connections", time_budget_seconds="no limit"),
        ],
    )
    add = parser.add_argument
    add("start", nargs="?", metavar="START", help="first song number")
    add("stop", nargs="?", metavar="STOP", help="the number after the last")
    add("--mode", choices=("next", "new"), help="in place of a range: go on, or look for new songs")
    add("--limit", metavar="N", help="with a mode: look at so many numbers at most")
    add("--refresh-older-than-days", metavar="DAYS", help="ask again what is older than this")
    add("--recheck", choices=("missing",), help="ask again what was missing")
    add_fan_out_options(parser)
    parser.set_defaults(run=crawl)


def crawl(args: argparse.Namespace) -> int:
    """Run a crawl as the command says; returns the exit code.

    Raises:
        CrawlerError: The request or the settings are wrong, or the store cannot be used.
    """
    if args.fan_out:
        return order_fan_out(args)
    if args.order is not None:
        message = "--order goes with --fan-out: it names what was ordered there"
        raise RequestError(400, "order_unfit", "order", message)
    settings = settings_of(args, time_budget_seconds=None)
    request = _request_of(args, settings)
    answer = _run(request, settings, quiet=args.json or args.verbose > 0)
    _tell(answer, args)
    return exit_code(answer)


def exit_code(answer: Answer) -> int:
    """Say how a run went: 0 complete, 3 not complete, 1 where the site or the store failed us."""
    if answer.complete:
        return 0
    return 1 if STOPS[answer.stopped_by].status >= 500 else 3


def _request_of(args: argparse.Namespace, settings: Settings) -> CrawlRequest:
    names = ("start", "stop", "mode", "limit", "refresh_older_than_days", "recheck")
    fields = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if not fields.keys() & {"start", "mode"}:
        raise RequestError(400, "range_missing", "start", "give START and STOP, or a --mode")
    return checked_request(fields, deployed_rate=settings.rate)


def _run(request: CrawlRequest, settings: Settings, *, quiet: bool) -> Answer:
    # Imported here: the engines, the store and all they need, which --help does not.
    from crawler.run.crawl import run

    with stop_on_signals() as stop, progress_bar(label(request)) as show:
        return run(request, settings, stop_event=stop, on_progress=None if quiet else show)


def _tell(answer: Answer, args: argparse.Namespace) -> None:
    if args.json:
        print(msgspec.json.encode(answer).decode())
        return
    for line in answer_lines(answer, command(args.argv)):
        print(line)
    sys.stdout.flush()
