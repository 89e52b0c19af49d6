"""A run from end to end: make every number of a range settled, and say what was done."""

import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from crawler import control, identity
from crawler.answer import STOPS, Answer
from crawler.block import BlockInfo, block_name, decode_block
from crawler.errors import StoreUnavailableError
from crawler.frontier import Frontier
from crawler.functions import identify, load_function
from crawler.housekeeping import Housekeeper, Progress
from crawler.open_store import open_store
from crawler.pacer import Pacer
from crawler.record import Record
from crawler.request import CrawlRequest
from crawler.run_objects import RunObject, leave_run_object, requests_today, write_status
from crawler.scope import Scope
from crawler.settings import Settings, read_settings
from crawler.source import GeniusSource, Source
from crawler.steps import execute_async_event_loop, open_engine
from crawler.store import Store, save_block
from crawler.version import VERSION
from crawler.work import Policy, Results
from crawler.writer import Writer

logger = logging.getLogger("crawler")

STORE_SECONDS = 60.0
"""Time for one look at the store before the first request: a listing, or the check of its rights."""

CLOSE_SECONDS = 40.0
"""Time for the last blocks; budget, grace and this fit into the service's timeout."""

SIGNAL_CLOSE_SECONDS = 3.0
"""The same after SIGTERM: the platform leaves 10 s, of which 5 go to attempts in flight."""


class Nowhere:
    """Where tuples go that nobody collects: records are in the blocks."""

    def append(self, item: Any, /) -> None:
        """Let go of one tuple."""


def crawl(
    start: int | None = None,
    stop: int | None = None,
    *,
    mode: str = "range",
    limit: int | None = None,
    function: Any = None,
    song_urls: Results | None = None,
    refresh_older_than_days: float | None = None,
    recheck: str | None = None,
    ca_file: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop_event: threading.Event | None = None,
    **settings: Any,
) -> Answer:
    """Make every number from `start` to `stop` settled in a store.

    What is settled already costs no request, so calling it again after anything at all goes on
    where the store says.

    Args:
        start: First number, included.
        stop: Number after the last.
        mode: `range`, or `next` and `new` without start and stop.
        limit: In modes next and new: numbers to ask at most.
        function: Step 1 or a source of your own; by default the Genius API.
        song_urls: Anything with `append`; gets `(song_num, info)` as pages arrive.
        refresh_older_than_days: Settled records older than this are asked again.
        recheck: `"missing"` asks missing numbers again.
        ca_file: Certificate authorities to trust instead of the usual ones.
        on_progress: Told several times a second where the run stands, in a thread of its own.
        stop_event: Set it to end the run early, from any thread or signal handler.
        settings: Fields of `Settings`, such as `store="data/songs"`, `rate=50`; they win over the
            environment. There is no time budget unless one is given here.

    Raises:
        SettingsError: A setting is wrong.
        StoreError: The store cannot be used; nothing was asked of the site.
    """
    settings.setdefault("time_budget_seconds", None)
    given = {name: value for name, value in settings.items() if value is not None}
    given["time_budget_seconds"] = settings["time_budget_seconds"]
    if function is not None and not isinstance(function, str):
        own_name = getattr(function, "__qualname__", type(function).__qualname__)
        given["function"] = "own:" + re.sub(r"\W", "_", own_name)
    elif function is not None:
        given["function"] = function
    checked = read_settings(os.environ, **given)
    request = msgspec.convert(
        {
            "start": start,
            "stop": stop,
            "mode": mode,
            "limit": limit,
            "refresh_older_than_days": refresh_older_than_days,
            "recheck": recheck,
        },
        CrawlRequest,
    )
    return run(
        request,
        checked,
        function=None if isinstance(function, str) else function,
        song_urls=song_urls,
        ca_file=ca_file,
        on_progress=on_progress,
        stop_event=stop_event,
    )


def run(
    request: CrawlRequest,
    settings: Settings,
    *,
    pacer: Pacer | None = None,
    function: Any = None,
    song_urls: Results | None = None,
    ca_file: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop_event: threading.Event | None = None,
) -> Answer:
    """Carry out one checked request; what `crawl`, the function and the command line all call.

    Args:
        request: What is asked for.
        settings: How this deployment crawls.
        pacer: The pace shared by all runs of a process against the host.
        function: Step 1 or a source; by default what the settings name.
        song_urls: Gets `(song_num, info)` as pages arrive.
        ca_file: Certificate authorities to trust instead of the usual ones.
        on_progress: Told several times a second where the run stands.
        stop_event: Set it to end the run early.

    Raises:
        SettingsError, StoreError: Before the first request to the site.
    """
    target = function or _target(settings)
    store = open_store(settings.store)
    mine = identify(target, settings.base_url)
    store.check(timeout=STORE_SECONDS)
    identity.claim_store(store, mine, timeout=STORE_SECONDS)
    stock = _Stock(store, mine.source, request)
    return _Run(request, settings, stock, target, pacer).execute(
        Nowhere() if song_urls is None else song_urls,
        ca_file=ca_file,
        on_progress=on_progress,
        stop_event=stop_event or threading.Event(),
    )


class _Stock:
    """What the store holds, kept true while the run writes to it."""

    def __init__(self, store: Store, source: str, request: CrawlRequest) -> None:
        self.store, self.source = store, source
        blocks = store.list_blocks(request.start or 0, request.stop, timeout=STORE_SECONDS)
        self.listing = {info.first: info for info in blocks}
        self.is_whole = request.start is None

    def read(self, first: int) -> dict[int, Record]:
        """Read the records of a block."""
        name = block_name(first)
        stored = self.store.read(name, timeout=STORE_SECONDS)
        return {} if stored is None else decode_block(stored.data, name)

    def save(
        self, first: int, records: dict[int, Record], is_new: bool, timeout: float
    ) -> BlockInfo:
        """Merge records into a block."""
        return save_block(
            self.store,
            first,
            records,
            source=self.source,
            generation=0 if is_new else 1,
            timeout=timeout,
        )

    def note_stored(self, info: BlockInfo) -> None:
        """Learn that a block was stored."""
        self.listing[info.first] = info
        logger.info(
            "block %d stored: %d found, %d missing, %d failed",
            info.first,
            info.found,
            info.missing,
            info.failed,
            extra={"event": "block_stored", "fields": {"first": info.first}},
        )

    def write_status(self) -> None:
        """Write the status of the whole store."""
        if not self.is_whole:
            blocks = self.store.list_blocks(timeout=STORE_SECONDS)
            self.listing = {info.first: info for info in blocks} | self.listing
            self.is_whole = True
        write_status(self.store, self.listing)


class _Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        request: CrawlRequest,
        settings: Settings,
        stock: _Stock,
        target: Any,
        pacer: Pacer | None,
    ) -> None:
        self.settings, self.stock, self.target = settings, stock, target
        self.started_at, self.started = datetime.now(UTC), time.monotonic()
        self.writer = Writer(
            stock.save,
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
        )
        budget = settings.time_budget_seconds
        self.frontier = Frontier(
            Policy(max_requests=_requests_left(settings, stock.store, self.started_at)),
            pacer=pacer or Pacer(settings.rate),
            own_pacer=None if request.max_rate is None else Pacer(request.max_rate),
            deadline=None if budget is None else self.started + budget,
            on_record=self._book,
            on_pause=lambda seconds: self.keeper.tell_pause(seconds),
            has_room=self.writer.has_room,
            last_known=None if request.recheck == "missing" else self.scope.last_found,
        )
        self.keeper: Housekeeper

    def execute(
        self,
        song_urls: Results,
        *,
        ca_file: str | None,
        on_progress: Callable[[Progress], None] | None,
        stop_event: threading.Event,
    ) -> Answer:
        """Crawl, store, and report."""
        engine = open_engine(
            self.settings.engine,
            runs_step1=not isinstance(self.target, Source),
            connections=self.settings.connections,
            policy=self.frontier.policy,
            contact=self.settings.contact,
            ca_file=ca_file,
        )
        order, _ = control.read_control(self.stock.store, timeout=STORE_SECONDS)
        self.keeper = Housekeeper(
            self.frontier,
            self.writer,
            self.stock.store,
            seen_stop_id=order.stop_id,
            stop_event=stop_event,
            skipped=lambda: self.scope.skipped,
            total=self.scope.total,
            on_progress=on_progress,
            on_status=self.stock.write_status,
        )
        self._log_start()
        with self.keeper:
            try:
                execute_async_event_loop(
                    self.scope.supply,
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
        tally, lost, scope = self.frontier.tally, self.writer.lost, self.scope
        found, missing = tally.found - lost["found"], tally.missing - lost["missing"]
        failed, skipped = tally.failed - lost["failed"], scope.skipped_in_all()
        remaining = max(0, scope.stop - scope.start - found - missing - failed - skipped)
        seconds = time.monotonic() - self.started
        return Answer(
            start=scope.start,
            stop=scope.stop,
            mode=scope.mode,
            found=found,
            missing=missing,
            failed=failed,
            skipped=skipped,
            complete=not (remaining or failed or scope.has_gaps),
            remaining=remaining,
            requests=tally.requests,
            retries=tally.retries,
            seconds=round(seconds, 3),
            mean_rate=round(tally.requests / max(seconds, 1e-9), 2),
            stopped_by="store" if lost.total() else self.frontier.stopped_by or "done",
            blocks_written=self.writer.blocks_written,
            version=VERSION,
        )

    def _leave(self, answer: Answer, engine: str) -> None:
        stop, detail = STOPS[answer.stopped_by], self.frontier.stop_detail
        logger.log(
            getattr(logging, stop.severity.replace("NOTICE", "INFO")),
            "run finished: %s%s",
            answer.stopped_by,
            f" ({detail})" if detail else "",
            extra={"event": "run_finished", "fields": msgspec.structs.asdict(answer)},
        )
        run_object = RunObject(
            started_at=self.started_at,
            answer=answer,
            kinds=dict(self.frontier.tally.kinds),
            rate=self.settings.rate,
            connections=self.settings.connections,
            engine=engine,
            samples=list(self.keeper.samples),
        )
        if answer.stopped_by != "store":
            leave_run_object(self.stock.store, run_object, secrets.token_hex(4))
            self.stock.write_status()

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


def _target(settings: Settings) -> Any:
    if settings.function is not None:
        return load_function(settings.function)
    token = settings.genius_token
    return GeniusSource(settings.base_url, token.reveal() if token else "")


def _requests_left(settings: Settings, store: Store, now: datetime) -> int | None:
    cap = settings.max_requests_per_day
    if cap is None:
        return None
    return max(0, cap - requests_today(store, now, timeout=STORE_SECONDS))
