"""The parts of one run, put together: scope, frontier, lanes, writer, housekeeping, answer."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from crawler.answer import STOPS, Answer
from crawler.engines.heeding import Heeding
from crawler.errors import StoreError, StoreUnavailableError
from crawler.frontier.frontier import Frontier
from crawler.frontier.pacer import Pacer
from crawler.frontier.work import Policy, Results
from crawler.plan.scope import Scope
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest
from crawler.run.contact import Contact
from crawler.run.cost import answer_cost
from crawler.run.housekeeping import Housekeeper, Progress
from crawler.run.raw import RawKeeper
from crawler.run.report import make_answer
from crawler.run.stock import STORE_SECONDS, Stock
from crawler.run.watch import watch_fields
from crawler.run.writer import Writer
from crawler.settings.reading import Settings
from crawler.source.source import Source
from crawler.steps import execute_async_event_loop, open_engine
from crawler.store import control
from crawler.store.contract import Store
from crawler.store.run_objects import RunObject, leave_run_object, requests_today

logger = logging.getLogger("crawler")

CLOSE_SECONDS = 40.0
"""Time for the last blocks; budget, grace and this fit into the service's timeout."""

SIGNAL_CLOSE_SECONDS = 3.0
"""The same after SIGTERM: the platform leaves 10 s, of which 5 go to attempts in flight."""


class Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        request: CrawlRequest,
        settings: Settings,
        stock: Stock,
        target: Any,
        pacer: Pacer | None,
        *,
        began: float,
        ca_file: str | None = None,
        is_unattended: bool = False,
    ) -> None:
        self.settings, self.stock, self.target = settings, stock, target
        self.is_unattended, self.ordered_at = is_unattended, request.ordered_at
        self.started_at, self.started = datetime.now(UTC), began
        self.raw = RawKeeper(stock.store, is_on=settings.keep_raw)
        self.target = self.raw.keeping(target)
        self.writer = Writer(
            self.raw.saving(stock.save),
            on_stored=stock.note_stored,
            on_trouble=lambda reason: self.frontier.close("store", reason),
            threads=8 if stock.store.location.startswith("gs://") else 1,
        )
        self.scope = Scope(
            request,
            settings,
            stock.listing,
            now=self.started_at,
            read=stock.read,
            on_block=self.writer.expect,
            met=stock.met,
            relist=stock.relist,
        )
        self.heeding, self.ca_file = Heeding(target, settings, ca_file), ca_file
        budget = settings.time_budget_seconds
        self.frontier = Frontier(
            Policy(max_requests=_requests_left(settings, stock.store, self.started_at)),
            pacer=pacer or Pacer(settings.rate),
            own_pacer=self.heeding.own_pacer(request.max_rate),
            deadline=None if budget is None else self.started + budget,
            on_record=self._book if self.scope.has_tail else self.writer.add,
            on_pause=lambda seconds: self.contact.tell_pause(seconds),  # noqa: PLW0108 - made later
            has_room=lambda: self.writer.has_room() and self.raw.has_room(),
            last_known=None if request.recheck == "missing" else self.scope.last_found,
        )
        self.keeper: Housekeeper
        self.contact: Contact

    def execute(
        self,
        song_urls: Results,
        *,
        on_progress: Callable[[Progress], None] | None,
        stop_event: threading.Event,
    ) -> Answer:
        """Crawl, store, and report."""
        engine = open_engine(
            None,
            runs_step1=not isinstance(self.target, Source),
            connections=self.settings.connections,
            policy=self.frontier.policy,
            contact=self.settings.contact,
            ca_file=self.ca_file,
        )
        order, _ = control.read_control(self.stock.store, timeout=STORE_SECONDS)
        self.contact = Contact(self.frontier, self.stock.store, seen_stop_id=order.stop_id)
        self.keeper = Housekeeper(
            self.frontier,
            self.writer,
            stop_event=stop_event,
            skipped=lambda: self.scope.skipped,
            total=self.scope.total,
            on_progress=on_progress,
            on_status=self.stock.write_status,
        )
        self._log_start()
        self.contact.keep_pause(order)
        stop = control.standing_stop(
            order, ordered_at=self.ordered_at, is_unattended=self.is_unattended
        )
        if stop is not None:
            self.frontier.close(*stop)
        with self.contact, self.keeper:
            try:
                execute_async_event_loop(
                    self.heeding.apply(self.frontier, self.scope.supply, self._book),
                    song_urls,
                    function=self.target,
                    engine=engine,
                    frontier=self.frontier,
                )
            except StoreUnavailableError as error:
                self.frontier.close("store", str(error))
            finally:
                self.scope.close()
                self.writer.close(self._seconds_to_close())
        answer = self._answer()
        self._leave(answer, engine.name)
        return answer

    def _book(self, record: Record) -> None:
        self.scope.note(record)
        self.writer.add(record)

    def _seconds_to_close(self) -> float:
        return SIGNAL_CLOSE_SECONDS if self.frontier.stopped_by == "signal" else CLOSE_SECONDS

    def _answer(self) -> Answer:
        seconds = time.monotonic() - self.started
        return make_answer(self.frontier, self.writer, self.scope, seconds=seconds)

    def _leave(self, answer: Answer, engine: str) -> None:
        stop, detail = STOPS[answer.stopped_by], self.frontier.stop_detail
        kinds, settings = dict(self.frontier.tally.kinds), self.settings
        cost_usd = answer_cost(settings, answer)
        watched = watch_fields(answer, kinds, self.scope.missing_at_end)
        fields = msgspec.structs.asdict(answer) | watched | {"cost_usd": cost_usd}
        logger.log(
            getattr(logging, stop.severity.replace("NOTICE", "INFO")),
            "run finished: %s%s",
            answer.stopped_by,
            f" ({detail})" if detail else "",
            extra={"event": "run_finished", "fields": fields},
        )
        run_object = RunObject(
            started_at=self.started_at,
            answer=answer,
            kinds=kinds,
            rate=settings.rate,
            connections=settings.connections,
            engine=engine,
            samples=list(self.keeper.samples),
            cost_usd=cost_usd,
        )
        if self.is_unattended and answer.stopped_by == "unauthorized":
            self._hold()
        if answer.stopped_by != "store" and not self.writer.lost:  # a store in trouble would hang
            leave_run_object(self.stock.store, run_object, secrets.token_hex(4))
            self.stock.write_status()

    def _hold(self) -> None:
        try:
            control.order_hold(self.stock.store, "unauthorized", now=datetime.now(UTC))
        except StoreError as error:
            logger.warning("scheduled runs could not be held: %s", error)

    def _log_start(self) -> None:
        scope = self.scope
        logger.info(
            "run started: mode %s, from song %d",
            scope.mode,
            scope.start,
            extra={
                "event": "run_started",
                "fields": {"mode": scope.mode, "start": scope.start, "total": scope.total},
            },
        )


def _requests_left(settings: Settings, store: Store, now: datetime) -> int | None:
    cap = settings.max_requests_per_day
    if cap is None:
        return None
    return max(0, cap - requests_today(store, now, timeout=STORE_SECONDS))
