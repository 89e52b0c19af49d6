"""The parts of one run, put together: scope, frontier, lanes, writer, watchers, and its answer."""

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from crawler.answer import STOPS, Answer, Note, StoppedBy, alert_fields, noun_of
from crawler.errors import StoreError, StoreUnavailableError
from crawler.frontier.canaries import KnownSongs
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Policy, Results
from crawler.logs import NOTICE
from crawler.page.status_page import map_strip
from crawler.plan.scope import Scope
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest, songs
from crawler.run.functions import DEFAULT_BASE_URL, host_of, identify, target_of
from crawler.run.monitor import (
    CONTROL_SECONDS,
    STATUS_SECONDS,
    ControlWatcher,
    Housekeeper,
    advised_rate,
)
from crawler.run.progress import Progress
from crawler.run.raw import RawKeeper
from crawler.run.store_index import STORE_SECONDS, StoreIndex, tell_new_fields
from crawler.run.writer import GIVE_UP_SECONDS, MAX_PENDING_BLOCKS, Writer
from crawler.settings.reading import repeat_options
from crawler.settings.settings import Settings
from crawler.source.source import Source, traits_of
from crawler.steps import execute_async_event_loop
from crawler.store import control
from crawler.store.control import RunObject, leave_run_object, requests_today
from crawler.store.coverage import count_unproven, odd_times
from crawler.store.opening import claim_store, open_store
from crawler.version import VERSION
from crawler.wire.robots import RobotsPolicy

logger = logging.getLogger("crawler")

CLOSE_SECONDS = 40.0
"""Time for the last blocks; budget, grace and this fit into the service's timeout."""

SIGNAL_CLOSE_SECONDS = 3.0
"""The same after SIGTERM: the platform leaves 10 s, of which 5 go to attempts in flight."""

_NAMED = 5  # stretches with odd times; the status names them all


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a run waits for what, and how much it holds; tests have smaller ones.

    Attributes:
        policy: The limits that the frontier keeps.
        store_seconds: Time for one look at the store: its check, a listing, a block.
        give_up_seconds: A store that was out of reach for so long ends the run.
        max_pending_blocks: With so many waiting for the store, no more numbers are handed out.
        control_seconds: How often `control.json` is looked at.
        status_seconds: How often the status is written.
    """

    policy: Policy = Policy()
    store_seconds: float = STORE_SECONDS
    give_up_seconds: float = GIVE_UP_SECONDS
    max_pending_blocks: int = MAX_PENDING_BLOCKS
    control_seconds: float = CONTROL_SECONDS
    status_seconds: float = STATUS_SECONDS


class Run:
    """The parts of one run, put together."""

    def __init__(
        self,
        request: CrawlRequest,
        settings: Settings,
        target: Any,
        rate_limiter: RateLimiter | None,
        is_unattended: bool,
        limits: Limits,
    ) -> None:
        # The budget bounds the whole, the look at the store included.
        self.started_at, self.started = datetime.now(UTC), time.monotonic()
        self.settings, self.limits = settings, limits
        self.is_unattended, self.ordered_at = is_unattended, request.ordered_at
        self.index = index = self._open(request, target)
        self.raw = RawKeeper(index.store, is_on=settings.keep_raw)
        self.target = self.raw.keeping(target)
        self.writer = Writer(
            self.raw.saving(index.save),
            on_stored=index.note_stored,
            on_trouble=lambda reason: self.frontier.stop("store", reason),
            threads=index.store.parallel_writes,
            give_up_seconds=limits.give_up_seconds,
            max_pending_blocks=limits.max_pending_blocks,
        )
        self.scope = Scope(
            request,
            settings,
            index.listing,
            now=self.started_at,
            read=index.read,
            on_block=self.writer.expect,
            met=index.met,
            relist=index.relist,
        )
        self.canaries: list[int] = [] if request.canary is None else [request.canary]
        self.robots = RobotsPolicy(target, settings)
        budget, share = settings.time_budget_seconds, 1 / settings.instances
        self.frontier = Frontier(
            msgspec.structs.replace(limits.policy, max_requests=self._requests_left()),
            rate_limiter=self.robots.slowed(
                rate_limiter or RateLimiter(settings.rate, share=share),
                _least(request.max_rate, (traits_of(target).rate or 0.0) * share),
                share=share,
            ),
            deadline=None if budget is None else self.started + budget,
            on_record=self._book if self.scope.has_tail else self.writer.add,
            on_pause=lambda seconds: self.watcher.publish_pause(seconds),  # noqa: PLW0108 - made later
            on_pace=_log_pace,
            has_room=self.raw.bounding(self.writer.has_room),
            known=KnownSongs(
                nearest=index.songs_near, published=self.canaries, spread=self.scope.numbers
            ),
            on_proof=self.writer.prove,
            on_first_found=lambda song_num: self.watcher.publish_canary(song_num),  # noqa: PLW0108 - made later
        )
        if not isinstance(target, Source):
            index.asked_host = lambda: host_of(self.frontier.asked_url)
        self.keeper: Housekeeper
        self.watcher: ControlWatcher

    def _open(self, request: CrawlRequest, target: Any) -> StoreIndex:
        """Open the store, prove that it works and may hold what this run makes, and list it."""
        store, timeout = open_store(self.settings.store), self.limits.store_seconds
        store.check(timeout=timeout)
        mine = identify(target, self.settings.base_url)
        doubtful = None if isinstance(target, Source) else host_of(DEFAULT_BASE_URL)
        added = claim_store(store, mine, timeout=timeout, doubtful_host=doubtful)
        index = StoreIndex(
            store,
            mine.source,
            request.start,
            request.stop,
            notes_fields=not mine.fields,
            timeout=timeout,
        )
        if added and index.listing:
            tell_new_fields(store, added)
        return index

    def execute(
        self,
        song_urls: Results,
        *,
        on_progress: Callable[[Progress], None] | None,
        stop_event: threading.Event,
    ) -> Answer:
        """Crawl, store, and report."""
        order = control.read_control(self.index.store, timeout=self.limits.store_seconds)
        self.watcher = ControlWatcher(
            self.frontier,
            self.index.store,
            seen_stop_id=order.stop_id,
            every_seconds=self.limits.control_seconds,
            canaries=self.canaries,
        )
        self.keeper = Housekeeper(
            self.frontier,
            self.writer,
            stop_event=stop_event,
            skipped=lambda: self.scope.skipped,
            total=self.scope.total,
            on_progress=on_progress,
            on_status=self.index.write_status,
            status_seconds=self.limits.status_seconds,
        )
        self._log_start()
        self.watcher.keep_pause(order)
        self.watcher.keep_canary(order)
        stop = control.standing_stop(
            order, ordered_at=self.ordered_at, is_unattended=self.is_unattended
        )
        if stop is not None:
            self.frontier.stop(*stop)
        with self.watcher, self.keeper:
            try:
                execute_async_event_loop(
                    self.robots.apply(self.frontier, self.scope.supply, self._book),
                    song_urls,
                    function=self.target,
                    connections=self.settings.connections,
                    contact=self.settings.contact,
                    ca_file=self.settings.ca_file,
                    frontier=self.frontier,
                )
            except StoreUnavailableError as error:
                self.frontier.stop("store", str(error))
            finally:
                self.scope.close()
                is_signal = self.frontier.stopped_by == "signal"
                self.writer.close(SIGNAL_CLOSE_SECONDS if is_signal else CLOSE_SECONDS)
        answer = self._answer()
        self._leave(answer)
        answer.__dict__.update(self._more(answer))
        return answer

    def _book(self, record: Record) -> None:
        self.scope.note(record)
        self.writer.add(record)

    def _answer(self) -> Answer:
        seconds = time.monotonic() - self.started
        if odd := traits_of(self.target).odd:
            logger.warning(
                "values that could not be what their field is declared to be are null: %s",
                ", ".join(f"{name} {count:,}" for name, count in odd.most_common()),
                extra={"event": "odd_fields", "fields": {"odd": dict(odd)}},
            )
        counts: dict[Note, int] = {
            "odd": odd.total(),
            "outside_session": self.frontier.tally.outside_session,
            "unproven": count_unproven(
                list(self.index.listing.values()), self.scope.start, self.scope.stop
            ),
        }
        tally, scope, lost = self.frontier.tally, self.scope, self.writer.lost
        # What could not be stored is taken back from the counts: its numbers are left.
        found, missing = tally.found - lost["found"], tally.missing - lost["missing"]
        failed, skipped = tally.failed - lost["failed"], scope.skipped_in_all()
        remaining = max(0, scope.stop - scope.start - found - missing - failed - skipped)
        stopped_by = "store" if lost.total() else self.frontier.stopped_by or "done"
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
            stopped_by=cast("StoppedBy", stopped_by),
            blocks_written=self.writer.blocks_written,
            version=VERSION,
            notes={note: count for note, count in counts.items() if count},
        )

    def _leave(self, answer: Answer) -> None:
        stop, detail = STOPS[answer.stopped_by], self.frontier.stop_detail
        kinds, settings = dict(self.frontier.tally.kinds), self.settings
        alerting = alert_fields(answer, kinds, self.scope.missing_at_end)
        fields = msgspec.structs.asdict(answer) | alerting
        logger.log(
            NOTICE if stop.severity == "NOTICE" else getattr(logging, stop.severity),
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
            samples=[[*msgspec.structs.astuple(each)] for each in self.keeper.samples],
            options=repeat_options(settings),
        )
        if self.is_unattended and answer.stopped_by == "unauthorized":
            try:
                control.order_hold(self.index.store, "unauthorized", now=datetime.now(UTC))
            except StoreError as error:
                logger.warning("scheduled runs could not be held: %s", error)
        if answer.stopped_by != "store" and not self.writer.lost:  # a store in trouble would hang
            leave_run_object(self.index.store, run_object, secrets.token_hex(4))
            self.index.write_status()

    def _log_start(self) -> None:
        scope, noun = self.scope, noun_of(self.index.source)
        for start, stop in odd_times(self.index.listing.values(), self.started_at)[:_NAMED]:
            logger.warning(
                "%s hold times that cannot be: the clock of a machine was wrong; "
                "a crawl of them with refresh_older_than_days=0 asks them again",
                songs(start, stop, noun),
                extra={"event": "odd_times", "fields": {"start": start, "stop": stop}},
            )
        logger.info(
            "run started: mode %s, from %s %d",
            scope.mode,
            noun,
            scope.start,
            extra={
                "event": "run_started",
                "fields": {"mode": scope.mode, "start": scope.start, "total": scope.total},
            },
        )

    def _more(self, answer: Answer) -> dict[str, Any]:
        """Return what an answer tells people and is no field of it.

        Of the site's limits: `announced`, its own words, such as "60 a minute", or ""; `pace`,
        requests per second that settings, source and site allow, 0 for no limit; `refused`, answers
        of 429; `advised_rate`, see there.
        """
        tally, announced = self.frontier.tally, self.frontier.announced_rate
        rate, samples, refused = self.settings.rate, self.keeper.samples, tally.kinds["http_429"]
        allowed = (traits_of(self.target).rate or 0.0) / self.settings.instances
        listing = self.index.listing  # of a run that has ended an answer keeps no more
        return {
            "latency_seconds": tally.latency_seconds / max(1, tally.requests),
            "kinds": dict(tally.kinds.most_common(3)),
            "failures": dict(self.writer.failures.most_common()),
            "source": self.index.source,
            "detail": self.frontier.stop_detail,
            "draw_map": lambda: map_strip(listing.values()),
            "announced": self.frontier.announcement,
            "pace": _least(rate, allowed, announced) or 0.0,
            "refused": refused,
            "advised_rate": advised_rate(answer, samples, refused, announced=announced, rate=rate),
        }

    def _requests_left(self) -> int | None:
        if (cap := self.settings.max_requests_per_day) is None:
            return None
        timeout = self.limits.store_seconds
        return max(0, cap - requests_today(self.index.store, self.started_at, timeout=timeout))


def run(
    request: CrawlRequest,
    settings: Settings,
    *,
    rate_limiter: RateLimiter | None = None,
    function: Any = None,
    song_urls: Results | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stop_event: threading.Event | None = None,
    is_unattended: bool = False,
    limits: Limits | None = None,
) -> Answer:
    """Carry out one checked request; what `crawl`, the function and the command line all call.

    Args beside those of `crawl`:
        rate_limiter: The pace shared by all runs of a process against the host.
        is_unattended: Whether nobody looks on. Such a run leaves a hold when the site refuses the
            token, and asks for nothing while one stands.

    Raises:
        SettingsError, StoreError: Before the first request to the site.
    """
    target = function or target_of(settings)
    made = Run(request, settings, target, rate_limiter, is_unattended, limits or Limits())
    return made.execute(
        deque(maxlen=0) if song_urls is None else song_urls,  # records are in the blocks
        on_progress=on_progress,
        stop_event=stop_event or threading.Event(),
    )


def _log_pace(rate: float, announced: str) -> None:
    """Say that the site's own words lower our pace."""
    logger.warning(
        "pace lowered to %.3g/s as the site announces %s",
        rate,
        announced,
        extra={"event": "pace_lowered", "fields": {"rate": rate, "announced": announced}},
    )


def _least(*rates: float | None) -> float | None:
    """Return the lowest of the rates that somebody set, requests per second; None: nobody did."""
    return min((rate for rate in rates if rate), default=None)
