"""The command `crawl`: a range, or what a mode finds, filled here or handed to the task queue."""

import argparse
import contextlib
import gzip
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from crawler.answer import STOPS, Answer, why_not_complete
from crawler.cli.options import (
    EXIT_AT_ONCE,
    Commands,
    add_command,
    add_range,
    answer_lines,
    checked_request,
    command,
    print_json,
    setting_options,
    settings_of,
    site_options,
    size,
    store_options,
)
from crawler.errors import RequestError, SettingsError
from crawler.record import Record, encode_records
from crawler.request.crawl_request import CrawlRequest, songs
from crawler.run.progress import progress_bar
from crawler.settings.reading import is_loopback
from crawler.settings.settings import Settings

_DESCRIPTION = """\
Make every song number of a range settled: found, or known to be missing.

Numbers that the store has settled cost no request, so the same command goes on after anything:
an interruption, a full disk, a night. START is included, STOP is not, as in Python's range."""

_EXAMPLES = """\
examples:
  %(prog)s 1 2001                      songs 1 to 2000
  %(prog)s 1 2001 --rate 20            the same, slower
  %(prog)s 1 2000001 --sample 200      ask 200 of them, and say what the whole would be
  %(prog)s --mode next --limit 50000   the next 50,000 numbers that are not settled
  %(prog)s --mode new                  what came after the last song found so far
  %(prog)s 1 2001 --refresh-older-than-days 30
  %(prog)s 1 10000001 --fan-out        hand it to the deployed function's task queue

exit codes:
  0 complete, 3 not complete, 2 wrong usage or settings, 1 error, 130 ended at once

GENIUS_TOKEN and CRAWLER_CONTACT come from the environment or from crawler.env."""


def add_commands(commands: Commands) -> None:
    """Add the command to the command line."""
    pace = setting_options("pace", "rate", "connections", time_budget_seconds="no limit")
    options, summary = (store_options(), site_options(), pace), "fill a range of song numbers"
    parser = add_command(commands, "crawl", crawl, summary, _DESCRIPTION, _EXAMPLES, *options)
    add_range(parser, "?")
    add = parser.add_argument
    add("--mode", choices=("next", "new"), help="in place of a range: go on, or look for new songs")
    add("--limit", metavar="N", help="with a mode: look at so many numbers at most")
    add("--refresh-older-than-days", metavar="DAYS", help="ask again what is older than this")
    add("--recheck", choices=("missing",), help="ask again what was missing")
    add("--canary", metavar="N", help="a number known to be there, for when many are missing")
    add("--sample", metavar="N", help="a pilot: ask N numbers of the range, reckon the rest")
    add("--yes", action="store_true", help="do not ask before a crawl of more than a day")
    add = parser.add_argument_group("past one machine").add_argument
    add("--fan-out", action="store_true", help="hand the range to the task queue, CRAWLER_QUEUE")
    add("--order", metavar="N", help="with --fan-out: enqueue what is left of this order")


def crawl(args: argparse.Namespace) -> int:
    """Run a crawl as the command says; returns the exit code."""
    if args.fan_out:
        return _order_fan_out(args)
    if args.order is not None:
        message = "--order goes with --fan-out: it names what was ordered there"
        raise RequestError(400, "order_unfit", "order", message)
    # Imported here: the wire, the store and all they need, which --help does not.
    from crawler.run.crawl import prepare
    from crawler.run.run import run

    prepared = prepare(
        lambda most: checked_request(_asked(args, "sample"), max_range=most),
        lambda for_site: settings_of(args, for_site=for_site, time_budget_seconds=None),
    )
    request, settings, target = prepared
    sample = request.sample
    if not (args.yes or sample or _is_wanted(request, settings)):
        return 3
    with stop_on_signals() as stop, progress_bar(prepared.label) as show:
        on_progress = None if args.json or args.verbose else show
        answer = run(request, settings, function=target, stop_event=stop, on_progress=on_progress)
    if args.json:
        print_json(answer)
    elif sample and answer.stopped_by != "store":
        print("\n".join(pilot_lines(answer, _sampled(request, settings), settings)))
    else:
        print("\n".join(answer_lines(answer, command(args.argv))))
    sys.stdout.flush()
    return 0 if sample and answer.stopped_by == "done" else exit_code(answer)


def _sampled(request: CrawlRequest, settings: Settings) -> list[Record]:
    """Read what the store now holds of a pilot's numbers, those settled before it included."""
    from crawler.plan.fill import sample_numbers
    from crawler.store.opening import read_blocks

    start, stop = request.start or 0, request.stop or 0
    numbers = set(sample_numbers(start, stop, request.sample))
    blocks = read_blocks(settings.store, start, stop)
    return [record for block in blocks for record in block if record.song_num in numbers]


def pilot_lines(answer: Answer, records: Sequence[Record], settings: Settings) -> Iterator[str]:
    """Reckon from a sample what the whole range would be: its shares, fields, time, size and cost."""
    whole, noun = answer.stop - answer.start, answer.noun
    found = [record for record in records if record.outcome == "found"]
    failed = sum(record.outcome == "failed" for record in records)
    settled = len(records) - failed
    if not settled:
        yield f"The pilot settled nothing: {why_not_complete(answer)}"
        return
    share = len(found) / settled
    error = 1.96 * math.sqrt(share * (1 - share) / settled)
    yield (
        f"A pilot of {settled:,} of {whole:,} {noun}s: {100 * share:.1f} % found "
        f"(give or take {100 * error:.1f}), {failed:,} failed."
    )
    if answer.skipped:
        yield f"  {answer.skipped:,} of them were settled before, and cost no request"
    if fields := _filled([record.info for record in found]):
        yield f"  filled: {', '.join(fields)}"
    if answer.requests:
        latency = answer.__dict__.get("latency_seconds", 0.0)
        yield f"  an answer takes {1000 * latency:.0f} ms, from request to the end of its body"
        yield f"  the site announces {answer.__dict__.get('announced') or 'no limit'}"
    pace = answer.__dict__.get("pace") or settings.rate or answer.mean_rate
    if pace:
        yield f"  the whole at {pace:g} a second: {timedelta(seconds=round(whole / pace))}"
    songs_bytes = len(gzip.compress(encode_records(found))) * whole / settled
    yield f"  its blocks: about {size(round(songs_bytes + _MISSING_BYTES * whole * (1 - share)))}"
    if pace:
        cost = _cost(whole, pace)
        yield f"  deployed: about {cost:.2f} US dollars at list prices, storage not counted"


_MISSING_BYTES = 25  # of a missing record in a packed block, measured on 2026-11-27


def _filled(infos: Sequence[Any]) -> list[str]:
    """Return for each field the share of those found that have it."""
    infos = [info for info in infos if isinstance(info, dict)]
    names = dict.fromkeys(name for info in infos for name in info)
    have = {name: sum(info.get(name) not in (None, "", []) for info in infos) for name in names}
    return [f"{name} {100 * number / len(infos):.0f} %" for name, number in have.items()]


def _cost(requests: int, rate: float) -> float:
    from crawler.deployment.cost import run_cost, size_for

    blocks = -(-requests // 1000)
    size, seconds = size_for(rate, "source"), requests / rate
    return run_cost(size, seconds=seconds, requests=requests, blocks_written=blocks)


def exit_code(answer: Answer) -> int:
    """Return how a run went: 0 complete, 3 not complete, 1 where the site or the store failed us."""
    if answer.complete:
        return 0
    return 1 if STOPS[answer.stopped_by].status >= 500 else 3


def _asked(args: argparse.Namespace, *more: str) -> dict[str, str]:
    """Collect what is asked for, in the words of a request.

    Raises:
        RequestError: Neither a range nor a mode is.
    """
    names = ("start", "stop", "mode", "limit", "refresh_older_than_days", "recheck", "canary")
    given = {name: getattr(args, name) for name in (*names, *more)}
    fields = {name: value for name, value in given.items() if value is not None}
    if not fields.keys() & {"start", "mode"}:
        how = "give START and STOP" + ("" if args.fan_out else ", or a --mode")
        raise RequestError(400, "range_missing", "start", how)
    return fields


def _is_wanted(request: CrawlRequest, settings: Settings) -> bool:
    """Ask on a terminal whether a range is wanted that would take more than a day."""
    if request.start is None or request.stop is None or not settings.rate:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    from crawler.store.opening import open_store

    blocks = open_store(settings.store).list_blocks(request.start, request.stop, timeout=60)
    left = request.stop - request.start - sum(info.settled for info in blocks)
    days = left / settings.rate / 86_400
    if days <= 1:
        return True
    sample = command(["crawl", str(request.start), str(request.stop), "--sample", "200"])
    sys.stderr.write(
        f"{left:,} numbers at {settings.rate:g} a second take {days:.1f} days. "
        f"A pilot says beforehand what would come of it:\n  {sample}\n"
        "Crawl them all now? (--yes does not ask) [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _order_fan_out(args: argparse.Namespace) -> int:
    """Hand a range to the queue, and tell of it; returns the exit code: 0 all enqueued, 3 not all."""
    for option in ("source", "base_url", "function", "ca_file", "rate", "connections", "sample"):
        if getattr(args, option) is not None:
            name = f"--{option.replace('_', '-')}"
            message = f"{name} has no effect with --fan-out: the deployed function has its own"
            raise RequestError(400, "option_unfit", option, message)
    settings = settings_of(args, for_site=False, time_budget_seconds=None)
    _check(settings)
    request = checked_request(_asked(args, "order") | {"fan_out": "true"})
    # Imported here: with them come the clients of store and queue, 0.8 s.
    from crawler.fleet.orders import fan_out
    from crawler.fleet.task_queue import TaskQueue

    order = fan_out(request, settings, TaskQueue(settings), now=datetime.now(UTC))
    if args.json:
        print_json(order)
        return 3 if order.left else 0
    print(
        f"Order {order.order}: {order.enqueued} tasks enqueued, {order.already_there} there "
        f"already, for up to {order.to_ask:,} of {songs(order.start, order.stop)}."
    )
    if order.left:
        print(f"{order.left} are left, time ran out: repeat the command with --order {order.order}")
    return 3 if order.left else 0


def _check(settings: Settings) -> None:
    """Refuse a store that the function cannot see: what it settled would be left out wrongly."""
    from crawler.store.opening import is_remote

    if settings.queue is None or settings.url is None:
        message = "--fan-out needs CRAWLER_QUEUE, CRAWLER_URL and CRAWLER_INVOKER, as deployed"
        raise SettingsError("queue_missing", "CRAWLER_QUEUE", message)
    if not is_remote(settings.store) and not is_loopback(settings.url):
        message = "CRAWLER_STORE must be the bucket of the deployed function, gs://bucket/prefix"
        raise SettingsError("store_malformed", "CRAWLER_STORE", message)


STOP_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Ctrl-C, the end that a supervisor asks for, and a terminal that is closed."""

_FIRST = b"\nStopping: what is under way is finished and stored. Once more ends it at once.\n"
_SECOND = b"\nEnded at once. Run the same command again: it goes on where the store says.\n"


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that the first stop signal sets; the second ends the process, code 130.

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
            with contextlib.suppress(OSError):
                os.write(2, _SECOND)
            os._exit(EXIT_AT_ONCE)
        stop.set()
        with contextlib.suppress(OSError):  # a closed terminal takes no words
            os.write(2, _FIRST)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
