"""The command `crawl`: a range, or what a mode finds, filled here or handed to the task queue."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from crawler.answer import STOPS, Answer
from crawler.cli.options import (
    VERBATIM,
    answer_lines,
    checked_request,
    command,
    setting_options,
    settings_of,
    site_options,
    store_options,
)
from crawler.errors import RequestError, SettingsError
from crawler.request.crawl_request import CrawlRequest, label, songs
from crawler.run.monitor import progress_bar
from crawler.settings.reading import Settings, is_loopback

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
    """Return how a run went: 0 complete, 3 not complete, 1 where the site or the store failed us."""
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


if TYPE_CHECKING:
    from crawler.fleet.fan_out import OrderAnswer

_NAMES = ("start", "stop", "mode", "limit", "refresh_older_than_days", "recheck", "order")


def add_fan_out_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command `crawl`."""
    add = parser.add_argument_group("past one machine").add_argument
    add("--fan-out", action="store_true", help="hand the range to the task queue, CRAWLER_QUEUE")
    add("--order", metavar="N", help="with --fan-out: enqueue what is left of this order")


def order_fan_out(args: argparse.Namespace) -> int:
    """Hand a range to the queue, and tell of it; returns the exit code: 0 all enqueued, 3 not all.

    Raises:
        CrawlerError: The request or the settings are wrong, or store or queue cannot be used.
    """
    _refuse_ineffective(args)
    settings = settings_of(args, for_site=False, time_budget_seconds=None)
    _check(settings)
    given = {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
    if "start" not in given and "mode" not in given:
        raise RequestError(400, "range_missing", "start", "give START and STOP")
    request = checked_request(given | {"fan_out": "true"})
    # Imported here: with them come the clients of store and queue, 0.8 s.
    from crawler.fleet.fan_out import fan_out
    from crawler.fleet.task_queue import TaskQueue

    order = fan_out(request, settings, TaskQueue(settings), now=datetime.now(UTC))
    if args.json:
        print(msgspec.json.encode(order).decode())
    else:
        print("\n".join(_lines(order)))
    return 3 if order.left else 0


def _refuse_ineffective(args: argparse.Namespace) -> None:
    """Refuse options that the deployed function would not hear of."""
    for option in ("base_url", "function", "ca_file", "rate", "connections"):
        if getattr(args, option) is not None:
            name = f"--{option.replace('_', '-')}"
            message = f"{name} has no effect with --fan-out: the deployed function has its own"
            raise RequestError(400, "option_unfit", option, message)


def _check(settings: Settings) -> None:
    """Refuse a store that the function cannot see: what it settled would be left out wrongly."""
    from crawler.store.opening import is_remote

    if settings.queue is None or settings.url is None:
        message = "--fan-out needs CRAWLER_QUEUE, CRAWLER_URL and CRAWLER_INVOKER, as deployed"
        raise SettingsError("queue_missing", "CRAWLER_QUEUE", message)
    if not is_remote(settings.store) and not is_loopback(settings.url):
        message = "CRAWLER_STORE must be the bucket of the deployed function, gs://bucket/prefix"
        raise SettingsError("store_malformed", "CRAWLER_STORE", message)


def _lines(order: "OrderAnswer") -> Iterator[str]:
    yield (
        f"Order {order.order}: {order.enqueued} tasks enqueued, {order.already_there} there "
        f"already, for up to {order.to_ask:,} of {songs(order.start, order.stop)}."
    )
    if order.left:
        yield f"{order.left} are left, time ran out: repeat the command with --order {order.order}"


EXIT_AT_ONCE = 130
"""What a shell expects of a program that Ctrl-C ended."""

_FIRST = b"\nStopping: what is under way is finished and stored. Once more ends it at once.\n"
_SECOND = b"\nEnded at once. Run the same command again: it goes on where the store says.\n"


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; the second ends the process, code 130.

    Only for the main thread. Blocks are written whole or not at all, so that ending at once loses
    at most the work of a minute.
    """
    stop = threading.Event()
    heard = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        # The second may interrupt the handling of the first, so it must not wait for the event's
        # lock; os.write and os._exit, because a print may be interrupted, and lanes still run.
        nonlocal heard
        heard += 1
        if heard > 1:
            os.write(2, _SECOND)
            os._exit(EXIT_AT_ONCE)
        stop.set()
        os.write(2, _FIRST)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
