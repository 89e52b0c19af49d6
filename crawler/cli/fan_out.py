"""The option `--fan-out` of `crawl`: a range is handed to the task queue of the deployed function."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from crawler.cli.options import settings_of
from crawler.cli.request import checked_request
from crawler.errors import RequestError, SettingsError
from crawler.request.words import songs
from crawler.settings.reading import Settings, is_loopback

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
    if settings.queue is None or settings.url is None:
        message = "--fan-out needs CRAWLER_QUEUE, CRAWLER_URL and CRAWLER_INVOKER, as deployed"
        raise SettingsError("queue_missing", "CRAWLER_QUEUE", message)
    if not settings.store.startswith("gs://") and not is_loopback(settings.url):
        message = "CRAWLER_STORE must be the bucket of the deployed function, gs://bucket/prefix"
        raise SettingsError("store_malformed", "CRAWLER_STORE", message)


def _lines(order: "OrderAnswer") -> Iterator[str]:
    yield (
        f"Order {order.order}: {order.enqueued} tasks enqueued, {order.already_there} there "
        f"already, for up to {order.to_ask:,} of {songs(order.start, order.stop)}."
    )
    if order.left:
        yield f"{order.left} are left, time ran out: repeat the command with --order {order.order}"
