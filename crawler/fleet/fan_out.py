"""Fan-out: a range cut into shards, each a named task of one order, settled ones left out."""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from crawler.errors import QueueError, RequestError
from crawler.fleet.task_queue import Task, TaskQueue
from crawler.plan.planned import Criteria, plan_from_counts
from crawler.plan.scope import criteria_of
from crawler.request.crawl_request import CrawlRequest
from crawler.run.store_index import STORE_SECONDS
from crawler.settings.reading import Settings
from crawler.store.block import BLOCK_SIZE, BlockInfo, block_first
from crawler.store.opening import open_store
from crawler.version import VERSION

MAX_SHARDS = 100_000
"""Tasks of one order, at most: they take 200 s to create."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAME = re.compile(r"[0-9a-f]{16}-([1-9][0-9]{0,12})-([0-9]{1,9})")


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
    """Number an order by the moment at which it is given, in milliseconds since 1970."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def ordered_at(order: int) -> datetime:
    """Say when an order was given: what its parts take for now."""
    return _EPOCH + timedelta(milliseconds=order)


def task_name(order: int, body: Mapping[str, Any], sequence: int) -> str:
    """Name a task: a hash first, since names in a row slow a queue down, then what it stands for.

    Args:
        order: Number of its order.
        body: What it posts.
        sequence: 0 for a shard, then one more for each successor.
    """
    identity = [order, sequence, sorted(body.items())]
    digest = hashlib.sha256(msgspec.json.encode(identity)).hexdigest()
    return f"{digest[:16]}-{order}-{sequence}"


def parse_task_name(name: str) -> tuple[int, int] | None:
    """Read `(order, sequence)` back from a name, with or without its queue; None for any other."""
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return (int(match[1]), int(match[2])) if match else None


def task_body(request: CrawlRequest, start: int, stop: int) -> dict[str, Any]:
    """Say what a shard posts: its range, and what the order asks again and how fast."""
    names = ("refresh_older_than_days", "recheck", "max_rate")
    given = {name: getattr(request, name) for name in names if getattr(request, name) is not None}
    return {"start": start, "stop": stop} | given


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
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> OrderAnswer:
    """Enqueue what is not settled of a range; give it the same order again to go on.

    Args:
        request: A range; its order, where one is gone on with.
        settings: Store, length of shards, and the time budget.
        queue: Where tasks go.
        now: The time, aware; a new order is numbered by it.
        clock: Monotonic seconds.
        sleep: Waits so many seconds.

    Raises:
        RequestError: The range makes too many shards.
        StoreError: The store cannot be listed; nothing was enqueued.
        QueueError: The queue takes no task; what was enqueued stays, and the order's number, with
            which to go on, is in the message.
    """
    begun, start, stop = clock(), request.start or 0, request.stop or 0
    if stop - start > MAX_SHARDS * settings.shard_songs:
        message = f"the range makes more than {MAX_SHARDS} shards: raise CRAWLER_SHARD_SONGS"
        raise RequestError(400, "range_too_long", "stop", message)
    order = request.order or order_number(now)
    criteria = criteria_of(
        msgspec.structs.replace(request, ordered_at=ordered_at(order)), ordered_at(order)
    )
    blocks = open_store(settings.store).list_blocks(start, stop, timeout=STORE_SECONDS)
    listing = {info.first: info for info in blocks}
    tasks, to_ask = [], 0
    for low, high in cut(start, stop, settings.shard_songs):
        left = high - low - count_settled(low, high, listing, criteria)
        if left:
            body = task_body(request, low, high)
            tasks.append(Task(task_name(order, body, 0), body))
            to_ask += left
    budget = settings.time_budget_seconds
    try:
        done = queue.enqueue(
            tasks,
            has_time=lambda: budget is None or clock() - begun < budget,
            clock=clock,
            sleep=sleep,
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
