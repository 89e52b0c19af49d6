"""A run from end to end: make every number of a range settled, and say what was done."""

import asyncio
import operator
import os
import re
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple, SupportsIndex, Unpack

from crawler.answer import Answer, Mode, noun_of
from crawler.errors import Problems
from crawler.frontier.work import Results
from crawler.lanes import LaneExecutor
from crawler.request.crawl_request import CrawlRequest, check_request, label, with_sample
from crawler.run.functions import fit, qualified_name, target_of
from crawler.run.progress import Progress, in_notebook, progress_bar
from crawler.run.run import Limits, run
from crawler.settings.reading import SettingsArguments, read_settings
from crawler.settings.settings import MAX_SONG_NUM, Settings
from crawler.source.source import Source

_REQUEST_NAMES = ("limit", "refresh_older_than_days", "recheck", "canary")


class CrawlArguments(SettingsArguments, total=False):
    """What `crawl` and `crawl_async` take beside start and stop; every setting is one of them."""

    mode: Mode
    limit: SupportsIndex | None
    function: Callable[..., Any] | Source | str | None  # type: ignore[misc] # more than its name
    song_urls: Results | None
    refresh_older_than_days: float | None
    recheck: Literal["missing"] | None
    sample: SupportsIndex | None
    canary: SupportsIndex | None
    on_progress: Callable[[Progress], None] | None
    stop_event: threading.Event | None
    limits: Limits | None


def crawl(
    start: SupportsIndex | None = None,
    stop: SupportsIndex | None = None,
    **options: Unpack[CrawlArguments],
) -> Answer:
    """Make every number from `start` to `stop` settled in a store.

    What is settled already costs no request, so calling it again after anything at all goes on
    where the store says.

    Args:
        start: First number, included.
        stop: Number after the last.
        mode: `range`, or `next` and `new` without start and stop.
        limit: In modes next and new: numbers to ask at most.
        function: Step 1 (a function, a `functools.partial`, a callable object), a source, or
            `module:name` of either; by default what the settings say.
        song_urls: Anything with `append`; gets `(song_num, info)` as pages arrive.
        refresh_older_than_days: Settled records older than this are asked again.
        recheck: `"missing"` asks missing numbers again.
        sample: Only so many numbers, spread over the range: a pilot.
        canary: A number known to be there: asked when many are missing, to tell a gap from a site
            in trouble. Needed only where no song was found before, and the source names none.
        on_progress: Called several times a second with where the run stands, in a thread of its
            own. By default a bar in a Jupyter notebook, and nothing elsewhere.
        stop_event: Set it to end the run early, from any thread or signal handler.
        limits: Deadlines and retries other than the usual ones.
        options: Fields of `Settings`, such as `store="data/songs"`, `rate=50`; they win over the
            environment. There is no time budget unless one is given here.

    Raises:
        RequestError: What is asked for cannot be done as it stands, such as a stop before its
            start or a range with a mode; `field` names the argument. Nothing was asked of the site.
        SettingsError: A setting is wrong, or there is none of that name. What else is wrong is in
            the message of either, too.
        StoreError: The store cannot be used; nothing was asked of the site.
    """
    sample = _plain(options.pop("sample", None))
    asked, given, function = _sorted_out(start, stop, dict(options))
    prepared = prepare(
        lambda max_range: with_sample(check_request(asked, max_range=max_range), sample),
        lambda for_site: read_settings(os.environ, for_site=for_site, **given),
        function=function,
    )
    on_progress = options.get("on_progress")
    is_shown = on_progress is None and in_notebook()
    bar = progress_bar(prepared.label, notebook=True) if is_shown else nullcontext(on_progress)
    with bar as show:
        return run(
            prepared.request,
            prepared.settings,
            function=prepared.target,
            song_urls=options.get("song_urls"),
            on_progress=show,
            stop_event=options.get("stop_event"),
            limits=options.get("limits"),
        )


async def crawl_async(
    start: SupportsIndex | None = None,
    stop: SupportsIndex | None = None,
    **options: Unpack[CrawlArguments],
) -> Answer:
    """Do what `crawl` does inside a running loop, asyncio's or uvloop's, without blocking it.

    The run has a thread of its own, and nothing of the loop is changed. Cancelling the task ends
    the run as Ctrl-C does: what is settled is stored, within some 8 seconds, before the
    cancellation goes on; cancelling it again does not wait for that.

    Args and errors are those of `crawl`.
    """
    stop_event = options.get("stop_event") or threading.Event()
    options["stop_event"] = stop_event
    executor = LaneExecutor()  # daemon threads, so that nothing stuck keeps the process from ending
    future = asyncio.wrap_future(executor.submit(lambda: crawl(start, stop, **options)))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop_event.set()
        await asyncio.wait({future})
        if not future.cancelled() and (error := future.exception()) is not None:
            raise error from None  # what went wrong while it ended is not to be lost
        raise
    finally:
        executor.shutdown()


class Prepared(NamedTuple):
    """A run that was checked: what is asked for, how, and with which step 1 or source."""

    request: CrawlRequest
    settings: Settings
    target: Any

    @property
    def label(self) -> str:
        """What it is about, such as "songs 1 to 2000"."""
        settings = self.settings
        return label(self.request, noun_of(settings.function or settings.source))


def prepare(
    check: Callable[[int], CrawlRequest],
    read: Callable[[bool], Settings],
    *,
    function: Any = None,
) -> Prepared:
    """Check the request, the settings and the function, and tell all that is wrong at once.

    Args:
        check: Makes the request, given the longest range that is allowed.
        read: Reads the settings, given whether token and contact must be there.
        function: Step 1 or a source; None: what the settings name.

    Raises:
        RequestError, SettingsError: The request's mistakes first, what is missing last.
    """
    problems, settings, max_range = Problems(), None, MAX_SONG_NUM
    with problems:
        settings = read(True)
    with problems:
        known = settings or read(False)  # what is missing need not hide other mistakes
        max_range = known.max_range or MAX_SONG_NUM
        target = target_of(known) if function is None else fit(function)
    with problems:
        request = check(max_range)
    problems.raise_all()
    assert settings is not None
    return Prepared(request, settings, target)


def _sorted_out(
    start: SupportsIndex | None, stop: SupportsIndex | None, options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Sort arguments into what is asked for, the settings, and a function that is no name."""
    mode = options.pop("mode", "range")
    asked: dict[str, Any] = {
        "start": start,
        "stop": stop,
        "mode": None if mode == "range" else mode,  # a range is what has no mode
    }
    asked |= {name: options.pop(name, None) for name in _REQUEST_NAMES}
    for name in ("song_urls", "on_progress", "stop_event", "limits"):
        options.pop(name, None)
    given = {name: value for name, value in options.items() if value is not None}
    given["time_budget_seconds"] = options.get("time_budget_seconds")
    function = None
    if not isinstance(given.get("function", ""), str):
        function = given["function"]
        given["function"] = "own:" + re.sub(r"\W", "_", qualified_name(function))
    asked = {name: _plain(value) for name, value in asked.items() if value is not None}
    return asked, given, function


def _plain(value: Any) -> Any:
    """Return a number of any kind that stands for a whole one, such as NumPy's, as an int."""
    if isinstance(value, bool | str | float) or not hasattr(value, "__index__"):
        return value  # the check says what is wrong with it
    return operator.index(value)
