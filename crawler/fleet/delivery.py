"""A delivery by the task queue: a shard is run, and what it leaves goes on or ends its order."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from crawler.answer import STOPS, Answer, StoppedBy
from crawler.errors import QueueError, StoreError
from crawler.fleet.orders import (
    Delivery,
    Order,
    body_of,
    new_order,
    order_of,
    ordered_at,
    parse_task_name,
    read_order,
    task_name,
)
from crawler.fleet.task_queue import Task, TaskQueue
from crawler.request.crawl_request import CrawlRequest
from crawler.run.store_index import STORE_SECONDS
from crawler.settings.settings import Settings
from crawler.store import control
from crawler.store.contract import Store
from crawler.store.opening import open_store

logger = logging.getLogger("crawler")

TASK_HEADER = "X-CloudTasks-TaskName"
SCHEDULE_HEADER = "X-CloudScheduler-ScheduleTime"

GOES_ON = ("time_budget", "signal", "paused", "daily_cap", "stop_order")
"""Reasons after which what is left is worth a task of its own.

After a stop order it waits in the queue, which is paused, until somebody resumes it. Where the
queue was not paused, the task finds the stop standing, asks nothing, and has no successor.
"""

ENDS_ORDER = ("barred", "unauthorized", "circuit")
"""Reasons that no repeat can mend: the other shards of the order need not find out by themselves."""


BARREN_SECONDS = 600
"""A successor of a run that asked nothing waits so long: what kept the one may keep the next."""


class Claim(NamedTuple):
    """What the name of a task claims to stand for, and the order in the store that it names."""

    delivery: Delivery
    order: Order

    def holds_for(self, request: CrawlRequest) -> bool:
        """Whether what a request asks for lies within the order, so that it is a delivery."""
        return not request.fan_out and self.order.covers(order_of(request))


def read_claim(name: str | None, settings: Settings) -> Claim | None:
    """Read what the header `TASK_HEADER` claims; None where the store holds no such order.

    Raises:
        StoreError: The store cannot be reached.
    """
    delivery = None if name is None else parse_task_name(name)
    if delivery is None:
        return None
    order = read_order(open_store(settings.store), delivery.order)
    return None if order is None else Claim(delivery, order)


def scheduled_at(moment: str | None) -> datetime | None:
    """Read for when a request was planned from its `SCHEDULE_HEADER`; each delivery has the same."""
    try:
        planned = datetime.fromisoformat(moment or "")
    except ValueError:
        return None
    return planned if planned.tzinfo else planned.replace(tzinfo=UTC)


def deliver(
    request: CrawlRequest,
    settings: Settings,
    delivery: Delivery,
    *,
    run: Callable[[CrawlRequest], Answer],
    queue: Callable[[], TaskQueue],
    wall: Callable[[], datetime],
) -> tuple[int, Answer]:
    """Run one delivery; return the status for the queue, which repeats all but 2xx, and the answer.

    The queue is opened only where a successor is needed.

    Raises:
        SettingsError, StoreError: Before the first request to the site.
    """
    answer = run(msgspec.structs.replace(request, ordered_at=ordered_at(delivery.order)))
    if answer.stopped_by in ENDS_ORDER:
        if answer.requests:  # a run that was held sent none, and its order has ended already
            end_order(settings, delivery.order, answer.stopped_by, now=wall())
        return 200, answer
    if answer.stopped_by == "store":
        return STOPS["store"].status, answer
    # a queue that sees 503 slows all its tasks down; so it does only where nothing else helps
    is_cared_for = go_on(request, settings, delivery, answer, queue=queue, now=wall())
    return 200 if is_cared_for else 503, answer


def begin_chain(
    request: CrawlRequest,
    settings: Settings,
    answer: Answer,
    *,
    queue: Callable[[], TaskQueue],
    started: datetime,
    now: datetime,
) -> None:
    """Enqueue what a run that was no delivery left, as an order of its own; trouble is only logged.

    The queue is opened only where something is left.
    """
    if successor_body(request, answer) is None:
        return
    try:
        number = new_order(open_store(settings.store), order_of(request), now=started)
    except StoreError as error:
        logger.error("what is left could not be ordered: %s", error)  # noqa: TRY400 - it says all
        return
    go_on(request, settings, Delivery(number, 0), answer, queue=queue, now=now)


def go_on(
    request: CrawlRequest,
    settings: Settings,
    delivery: Delivery,
    answer: Answer,
    *,
    queue: Callable[[], TaskQueue],
    now: datetime,
) -> bool:
    """Enqueue a successor for what a run left; False where one is needed and cannot be had."""
    body = successor_body(request, answer)
    if body is None:
        return True
    name = task_name(delivery.order, body, delivery.sequence + 1)
    try:
        not_before = earliest(answer, open_store(settings.store), now)
        is_new = queue().create(Task(name, body, not_before))
    except (QueueError, StoreError) as error:
        logger.error("what is left could not be enqueued: %s", error)  # noqa: TRY400 - it says all
        return False
    fields = {"task": name, "remaining": answer.remaining, "is_new": is_new}
    logger.info(
        "%d numbers are left to task %s",
        answer.remaining,
        name,
        extra={"event": "successor_enqueued", "fields": fields},
    )
    return True


def successor_body(request: CrawlRequest, answer: Answer) -> dict[str, object] | None:
    """Return what a successor posts: the same request, less what was asked; None: none is needed."""
    is_range = request.mode == "range"
    if answer.stopped_by not in GOES_ON or (is_range and not answer.remaining):
        return None
    if answer.stopped_by == "stop_order" and not answer.requests:
        return None
    body = body_of(request)
    if request.limit is not None:
        body["limit"] = request.limit - answer.found - answer.missing - answer.failed
    return body if body.get("limit", 1) > 0 else None


def earliest(answer: Answer, store: Store, now: datetime) -> datetime | None:
    """Return before when a successor is of no use; None: at once.

    That is the end of the pause or of the day, or a while where the run came to nothing: a chain
    of such runs must not spin.

    Raises:
        StoreError: The pause cannot be looked up.
    """
    if answer.stopped_by == "daily_cap":
        tomorrow = now.astimezone(UTC).date() + timedelta(days=1)
        return datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=UTC)
    if answer.stopped_by == "paused":
        order = control.read_control(store, timeout=STORE_SECONDS)
        return now + control.pause_left(order, now=now)
    return None if answer.requests else now + timedelta(seconds=BARREN_SECONDS)


def end_order(settings: Settings, order: int, reason: StoppedBy, *, now: datetime) -> None:
    """Order the other shards of an order to stop, those at work and those to come."""
    meaning = STOPS[reason].meaning
    fields = {"order": order, "stopped_by": reason}
    logger.error(
        "order %d has ended: %s", order, meaning, extra={"event": "order_ended", "fields": fields}
    )
    try:
        control.order_stop(open_store(settings.store), now=now, by=f"order {order}: {reason}")
    except StoreError as error:
        logger.error("the other shards could not be told: %s", error)  # noqa: TRY400 - it says all
