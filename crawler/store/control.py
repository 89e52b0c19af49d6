"""What runs on one store tell each other and people: `control.json`, and one object a run leaves.

A run remembers the `stop_id` that it sees at its start, and ends when another one stands there. So
an order ends the runs that are at work when it is given, and none that begin later: nobody needs to
take it back. Only the parts of a fan-out that was ordered before it stay stopped, until `without_stop`
lets them go on. A pause binds everyone until it is over. Runs look every 5 s.

A hold is what a scheduled run leaves when the site refuses the token: the scheduled runs after it
ask for nothing, so that a revoked token is not hammered every half hour, until somebody releases
it. Who names a range, or sits before a command line, is not held.
"""

import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from crawler.answer import Answer
from crawler.errors import BlockFormatError, StoreError
from crawler.record import UNREADABLE, Moment
from crawler.store.contract import Content, Deadline, Store, update

logger = logging.getLogger("crawler")

NAME = "control.json"

WRITE_SECONDS = 10.0
"""Time for a change of it."""


class Control(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `control.json` holds; times are aware.

    Attributes:
        stop_id: Names the latest stop order, None where there never was one.
        stop_ordered_at: When that order was given.
        stop_ordered_by: Who gave it, for people.
        pause_until: No request may start before this time; it may have passed long since.
        paused_at: When that pause was ordered; None where an older version ordered it.
        held_at: Since when scheduled runs ask for nothing; None where they may.
        held_by: Why: a word of `crawler.answer.STOPS`.
        canary: A song that is there: the first that any run on this store found.
    """

    stop_id: str | None = None
    stop_ordered_at: Moment | None = None
    stop_ordered_by: str = ""
    pause_until: Moment | None = None
    paused_at: Moment | None = None
    held_at: Moment | None = None
    held_by: str = ""
    canary: int | None = None


def read_control(store: Store, *, timeout: float) -> Control:
    """Read what stands; an empty `Control` where nobody ordered anything.

    Raises:
        BlockFormatError: The object cannot be read.
    """
    stored = store.read(NAME, timeout=timeout)
    return Control() if stored is None else decode_control(stored.data, store.location)


def decode_control(data: bytes, location: str = "the store") -> Control:
    """Read the object's bytes.

    Raises:
        BlockFormatError: They are not what this module writes.
    """
    try:
        return msgspec.json.decode(data, type=Control)
    except UNREADABLE as error:
        raise BlockFormatError(
            f"{NAME} in {location} cannot be read ({error}): delete it, or order a stop, "
            f"which replaces it"
        ) from error


def order_stop(store: Store, *, now: datetime, by: str, timeout: float = WRITE_SECONDS) -> Control:
    """Order every run at work on this store to stop; what stands otherwise is kept.

    A control object that cannot be read is replaced: stopping must always work.
    """
    stop_id = secrets.token_hex(8)
    return _change(store, lambda control: with_stop(control, stop_id, now, by), timeout)


def with_stop(control: Control, stop_id: str, now: datetime, by: str) -> Control:
    """Add a stop order to what stands."""
    return replace(control, stop_id=stop_id, stop_ordered_at=now, stop_ordered_by=by)


def order_hold(store: Store, reason: str, *, now: datetime) -> Control:
    """Hold scheduled runs back until somebody releases them; the first hold stays."""
    return _change(
        store, lambda known: known if known.held_at else replace(known, held_at=now, held_by=reason)
    )


def publish_canary(store: Store, song_num: int) -> Control:
    """Name a song that is there for runs that know of none; one that is named stays."""
    return _change(
        store, lambda known: replace(known, canary=song_num) if known.canary is None else known
    )


def standing_stop(
    control: Control, *, ordered_at: datetime | None, is_unattended: bool
) -> tuple[str, str] | None:
    """Return why a run must not begin, as `(stopped_by, detail)`; None where it may.

    A stop order ends also those parts of an order that begin later, if it came after the order.

    Args:
        ordered_at: When the order was given of which the run is a part; None where it is of none.
        is_unattended: Whether nobody looks on.
    """
    if is_unattended and control.held_at is not None:
        since = f"held since {control.held_at:%Y-%m-%d %H:%M} UTC, until somebody resumes it"
        return control.held_by, since
    stopped_at = control.stop_ordered_at
    if ordered_at is not None and stopped_at is not None and stopped_at > ordered_at:
        return "stop_order", f"its order was stopped by {control.stop_ordered_by}"
    return None


def without_stop(control: Control) -> Control:
    """Return the control by which what was ordered before the stop goes on; no run stops anew."""
    return replace(control, stop_ordered_at=None, stop_ordered_by="")


def without_hold(control: Control) -> Control:
    """Release scheduled runs."""
    return replace(control, held_at=None, held_by="")


def order_pause(
    store: Store,
    until: datetime,
    *,
    now: datetime,
    timeout: float = WRITE_SECONDS,
) -> Control:
    """Hold back every run on this store until then; a longer pause that stands is never shortened.

    Args:
        until: End of the pause, aware; nothing is written if it has passed.
    """

    def add_pause(control: Control) -> Control:
        if until - now <= pause_left(control, now=now):
            return control
        return replace(control, pause_until=until, paused_at=now)

    return _change(store, add_pause, timeout)


def pause_left(control: Control, *, now: datetime) -> timedelta:
    """Return how long the pause that stands still lasts, >= 0; never longer than it was ordered for.

    The clock that ordered it may have been ahead, or have been set back since.
    """
    if control.pause_until is None:
        return timedelta()
    left = control.pause_until - now
    if control.paused_at is not None:
        left = min(left, control.pause_until - control.paused_at)
    return max(left, timedelta())


def _change(
    store: Store, change: Callable[[Control], Control], timeout: float = WRITE_SECONDS
) -> Control:
    """Change what stands, whoever else does so meanwhile; what cannot be read is replaced."""
    changed: list[Control] = []

    def rewrite(data: bytes | None) -> Content | None:
        known: Control | None = None
        with contextlib.suppress(BlockFormatError):
            known = Control() if data is None else decode_control(data)
        changed[:] = [change(known or Control())]
        if changed[0] == known:
            return None
        return Content(msgspec.json.encode(changed[0]), "application/json")

    update(store, NAME, rewrite, timeout=timeout)
    return changed[0]


# What a run leaves for whoever looks at the last ones.

RUNS = "runs/"
KEPT_RUNS = 200
MAX_REMOVED = 20
"""So many objects are removed at the end of one run; the next ones remove the rest."""

READERS = 8
"""Objects read at once: 200 of them, one after the other, would take a bucket 6 s."""

RUN_SECONDS = 20.0
"""Time for leaving or reading one of these objects: worth having, not worth waiting for."""


class RunObject(msgspec.Struct, kw_only=True):
    """One run, as the status page shows it; what version 1.0 wrote besides is not read.

    Attributes:
        started_at: When it began, UTC.
        answer: What it answered.
        kinds: Failed attempts by kind.
        rate: The pace that was set, requests per second; 0 for no limit.
        connections: Requests under way at most.
        samples: Its course: `[seconds, requests, found, missing, failed, retries,
            latency_seconds, paused, site_rate]`, counts and the sum of latencies since the start;
            version 1.0 wrote no `site_rate`, the pace that the site announced.
        options: What a command has to name to crawl the same site in the same way, such as
            `--source FILE`; None where no command can.
    """

    started_at: Moment
    answer: Answer
    kinds: dict[str, int]
    rate: float
    connections: int
    samples: list[list[float]]
    options: list[str] | None = []


def run_name(started_at: datetime, run_id: str) -> str:
    """Return the name of a run's object; names sort by time."""
    return f"{RUNS}{started_at:%Y%m%dT%H%M%SZ}-{run_id}.json"


def leave_run_object(
    store: Store, run: RunObject, run_id: str, *, kept_runs: int = KEPT_RUNS
) -> None:
    """Write a run's object, and remove what is beyond the latest and of an earlier day.

    Takes `RUN_SECONDS` at most; trouble is only logged.
    """
    deadline, doing = Deadline(RUN_SECONDS, store.clock), f"leaving a run in {store.location}"
    name = run_name(run.started_at, run_id)
    try:
        content = Content(msgspec.json.encode(run), "application/json")
        store.write(name, content, expected=None, timeout=deadline.left(doing))
        names = store.list_names(RUNS, timeout=deadline.left(doing))[:-kept_runs]
        for old in names[:MAX_REMOVED]:
            if old < _runs_of(run.started_at):
                store.delete(old, timeout=deadline.left(doing))
    except StoreError as error:
        logger.warning("the run's object could not be written: %s", error)


def read_runs(
    store: Store,
    *,
    latest: int = KEPT_RUNS,
    timeout: float = RUN_SECONDS,
    known: dict[str, RunObject | None] | None = None,
) -> list[RunObject]:
    """Read the latest runs, the newest first; unreadable ones are left out, with a log line.

    Args:
        timeout: Seconds for each object.
        known: Runs by name that were read before (None: unreadable), and are not read again, since
            nobody changes them; gets what is read now.
    """
    known = {} if known is None else known
    names = store.list_names(RUNS, timeout=timeout)[-latest:]
    new = [name for name in names if name not in known]
    known.update(zip(new, _read_all(store, new, timeout), strict=True))
    return [run for name in reversed(names) if (run := known[name]) is not None]


def requests_today(store: Store, now: datetime, *, timeout: float) -> int:
    """Sum the requests of the runs that began on this day, UTC."""
    names = store.list_names(_runs_of(now), timeout=timeout)
    runs = _read_all(store, names, timeout)
    return sum(run.answer.requests for run in runs if run is not None)


def _runs_of(day: datetime) -> str:
    """Return how the names of the runs begin that began on a day, UTC."""
    return f"{RUNS}{day.astimezone(UTC):%Y%m%d}"


def _read_all(store: Store, names: Sequence[str], timeout: float) -> list[RunObject | None]:
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda name: _read_run(store, name, timeout), names))


def _read_run(store: Store, name: str, timeout: float) -> RunObject | None:
    try:
        stored = store.read(name, timeout=timeout)
        return None if stored is None else msgspec.json.decode(stored.data, type=RunObject)
    except (BlockFormatError, *UNREADABLE) as error:
        logger.warning("%s cannot be read: %s", name, error)
        return None
