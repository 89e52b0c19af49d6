"""Orders: what was asked for, kept in the store, and a range cut into shards that are named tasks.

An order is an object `orders/<number>.json`, written before its first task. Whoever may call the
function can invent the headers of a queue; so a delivery is one only where its task names an order
that the store holds, and what it asks for lies within that order.
"""

import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from crawler.errors import QueueError, RequestError
from crawler.fleet.task_queue import Task, TaskQueue
from crawler.plan.planned import Criteria, plan_from_counts
from crawler.plan.scope import criteria_of
from crawler.record import UNREADABLE
from crawler.request.crawl_request import CrawlRequest
from crawler.run.store_index import STORE_SECONDS
from crawler.settings.settings import Settings
from crawler.store.block import BLOCK_SIZE, BlockInfo, block_first
from crawler.store.contract import Content, Store, update
from crawler.store.opening import open_store
from crawler.version import VERSION

MAX_SHARDS = 100_000
"""Tasks of one order, at most: they take 200 s to create."""

PREFIX = "orders/"
_SAME_MOMENT = 1000  # orders that are given for one moment, as schedules do, get numbers in a row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[0-9a-f]{16}-([1-9][0-9]{0,12})-([0-9]{1,9})")


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `orders/<number>.json` holds: what was asked for, as in `CrawlRequest`."""

    mode: str = "range"
    start: int | None = None
    stop: int | None = None
    limit: int | None = None
    refresh_older_than_days: float | None = None
    recheck: str | None = None
    canary: int | None = None
    max_rate: float | None = None

    def covers(self, part: "Order") -> bool:
        """Whether what a part asks for lies within this order."""
        if self.mode == "range" == part.mode:
            start, stop = self.start or 0, self.stop or 0
            is_within = start <= (part.start or 0) <= (part.stop or 0) <= stop
        else:
            is_within = self.limit is None or (part.limit or math.inf) <= self.limit
        same = ("mode", "refresh_older_than_days", "recheck", "canary", "max_rate")
        return is_within and all(getattr(self, name) == getattr(part, name) for name in same)


class Delivery(NamedTuple):
    """What a task stands for: the order it belongs to, and its place after the shard's first task."""

    order: int
    sequence: int


class OrderAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an order: a range handed to the task queue in shards."""

    order: Annotated[
        int,
        Meta(ge=1, description="Its number; send it along to enqueue what is left of this order."),
    ]
    start: Annotated[int, Meta(ge=0, description="First song number, included.")]
    stop: Annotated[int, Meta(ge=0, description="Song number after the last.")]
    shards: Annotated[int, Meta(ge=0, description="Shards with something left to ask.")]
    enqueued: Annotated[int, Meta(ge=0, description="Tasks created now.")]
    already_there: Annotated[
        int, Meta(ge=0, description="Tasks that an earlier delivery of this order had created.")
    ]
    left: Annotated[int, Meta(ge=0, description="Tasks not created yet, since time ran out.")]
    skipped: Annotated[int, Meta(ge=0, description="Numbers in blocks that are settled.")]
    to_ask: Annotated[int, Meta(ge=0, description="Numbers that the shards may have to ask.")]
    version: Annotated[str, Meta(description="Version of the crawler.")]


def order_number(moment: datetime) -> int:
    """Return the number of an order that is given at a moment: milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def ordered_at(order: int) -> datetime:
    """Return when an order was given: what its parts take for now."""
    return _EPOCH + timedelta(milliseconds=order)


def task_name(order: int, body: Mapping[str, Any], sequence: int) -> str:
    """Return a task's name: a hash first, since names in a row slow a queue, then what it stands for.

    Args:
        body: What it posts.
        sequence: 0 for a shard, then one more for each successor.
    """
    identity = [order, sequence, sorted(body.items())]
    digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()
    return f"{digest[:16]}-{order}-{sequence}"


def parse_task_name(name: str) -> Delivery | None:
    """Read what a task stands for from its name, with or without its queue; None for any other."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return Delivery(int(match[1]), int(match[2])) if match else None


def order_name(number: int) -> str:
    """Return the name of an order's object."""
    return f"{PREFIX}{number}.json"


def order_of(request: CrawlRequest) -> Order:
    """Return the order that asks for what a request asks for."""
    return Order(**{name: getattr(request, name) for name in Order.__struct_fields__})


def body_of(request: CrawlRequest) -> dict[str, Any]:
    """Return what a task posts, or anybody could, to ask for the same."""
    fields = msgspec.structs.asdict(order_of(request))
    is_range = fields.pop("mode") == "range"
    given = {name: value for name, value in fields.items() if value is not None}
    return given if is_range else {"mode": request.mode} | given


def read_order(store: Store, number: int) -> Order | None:
    """Read an order; None where the store holds none of that number, or none that can be read.

    Raises:
        StoreUnavailableError: The store cannot be reached.
    """
    stored = store.read(order_name(number), timeout=STORE_SECONDS)
    return None if stored is None else _decode(stored.data)


def keep_order(store: Store, number: int, order: Order) -> bool:
    """Write an order unless its number is taken; return whether what is there covers it.

    Raises:
        StoreUnavailableError: The store cannot be reached.
    """
    held: list[Order | None] = []

    def keep(data: bytes | None) -> Content | None:
        held[:] = [order if data is None else _decode(data)]
        return Content(msgspec.json.encode(order), "application/json") if data is None else None

    update(store, order_name(number), keep, timeout=STORE_SECONDS)
    return held[0] is not None and held[0].covers(order)


def new_order(store: Store, order: Order, *, now: datetime) -> int:
    """Write an order under the first number from `now` on that is free, or holds it; return that.

    So a second delivery for the same moment is the same order, and another schedule's is not.

    Raises:
        StoreUnavailableError: The store cannot be reached.
    """
    first = order_number(now)
    return next(n for n in range(first, first + _SAME_MOMENT) if keep_order(store, n, order))


def _decode(data: bytes) -> Order | None:
    try:
        return msgspec.json.decode(data, type=Order)
    except UNREADABLE:
        return None


def cut(start: int, stop: int, shard_songs: int) -> Iterator[tuple[int, int]]:
    """Cut a range at block boundaries into shards `(start, stop)`, ascending."""
    for low in range(block_first(start), stop, shard_songs):
        yield max(low, start), min(low + shard_songs, stop)


def count_settled(
    start: int, stop: int, listing: Mapping[int, BlockInfo], criteria: Criteria
) -> int:
    """Count the numbers of a shard that are settled, as far as the listing alone can tell."""
    count = 0
    for first in range(block_first(start), stop, BLOCK_SIZE):
        if first in listing:
            numbers = range(max(first, start), min(first + BLOCK_SIZE, stop))
            plan = plan_from_counts(listing[first], first, numbers, criteria)
            count += plan.settled if plan else 0
    return count


def fan_out(
    request: CrawlRequest,
    settings: Settings,
    queue: TaskQueue,
    *,
    now: datetime,
) -> OrderAnswer:
    """Enqueue what is not settled of a range; give it the same order again to go on.

    Args:
        request: A range; its order, where one is gone on with.
        settings: Store, length of shards, and the time budget.
        now: The time, aware; a new order is numbered by it.

    Raises:
        RequestError: The range makes too many shards, or the order with that number is another.
        StoreError: The store cannot be listed; nothing was enqueued.
        QueueError: The queue takes no task; what was enqueued stays, and the order's number, with
            which to go on, is in the message.
    """
    begun, start, stop = time.monotonic(), request.start or 0, request.stop or 0
    if stop - start > MAX_SHARDS * settings.shard_songs:
        message = f"the range makes more than {MAX_SHARDS} shards: raise CRAWLER_SHARD_SONGS"
        raise RequestError(400, "range_too_long", "stop", message)
    store, wanted = open_store(settings.store), order_of(request)
    order = request.order or new_order(store, wanted, now=now)
    if request.order and not keep_order(store, order, wanted):
        message = f"order {order} is about something else: leave order out for a new one"
        raise RequestError(400, "order_mismatch", "order", message)
    criteria = criteria_of(
        msgspec.structs.replace(request, ordered_at=ordered_at(order)), ordered_at(order)
    )
    blocks = store.list_blocks(start, stop, timeout=STORE_SECONDS)
    listing = {info.first: info for info in blocks}
    tasks, to_ask = [], 0
    for low, high in cut(start, stop, settings.shard_songs):
        left = high - low - count_settled(low, high, listing, criteria)
        if left:
            body = body_of(msgspec.structs.replace(request, start=low, stop=high))
            tasks.append(Task(task_name(order, body, 0), body))
            to_ask += left
    budget = settings.time_budget_seconds
    try:
        done = queue.enqueue(
            tasks, has_time=lambda: budget is None or time.monotonic() - begun < budget
        )
    except QueueError as error:  # a new order would make tasks beside those that are there
        raise QueueError(f"{error}; to go on, repeat it with order {order}") from error
    return OrderAnswer(
        order=order,
        start=start,
        stop=stop,
        shards=len(tasks),
        enqueued=done.created,
        already_there=done.already_there,
        left=done.left,
        skipped=stop - start - to_ask,
        to_ask=to_ask,
        version=VERSION,
    )
