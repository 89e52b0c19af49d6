"""A run from end to end: make every number of a range settled, and say what was done."""

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from crawler.answer import Answer
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import Results
from crawler.page.map import map_strip
from crawler.request.crawl_request import CrawlRequest, check_request, label
from crawler.run.functions import identify, target_of
from crawler.run.monitor import Progress, in_notebook, progress_bar
from crawler.run.run import Limits, Run
from crawler.run.store_index import StoreIndex
from crawler.settings.reading import Settings, read_settings
from crawler.store import identity
from crawler.store.opening import open_store

logger = logging.getLogger("crawler")


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
    on_progress: Callable[[Progress], None] | None = None,
    stop_event: threading.Event | None = None,
    limits: Limits | None = None,
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
        on_progress: Told several times a second where the run stands, in a thread of its own. By
            default a bar in a Jupyter notebook, and nothing elsewhere.
        stop_event: Set it to end the run early, from any thread or signal handler.
        limits: Deadlines and retries other than the usual ones.
        settings: Fields of `Settings`, such as `store="data/songs"`, `rate=50`; they win over the
            environment. There is no time budget unless one is given here.

    Raises:
        RequestError: What is asked for cannot be done as it stands, such as a stop before its
            start or a range with a mode; `field` names the argument. Nothing was asked of the site.
        SettingsError: A setting is wrong, or there is none of that name.
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
    asked = {
        "start": start,
        "stop": stop,
        "mode": None if mode == "range" else mode,  # a range is what has no mode
        "limit": limit,
        "refresh_older_than_days": refresh_older_than_days,
        "recheck": recheck,
    }
    request = check_request({name: value for name, value in asked.items() if value is not None})
    with _bar(request, on_progress) as show:
        return run(
            request,
            checked,
            function=None if isinstance(function, str) else function,
            song_urls=song_urls,
            on_progress=show,
            stop_event=stop_event,
            limits=limits,
        )


def _bar(
    request: CrawlRequest, on_progress: Callable[[Progress], None] | None
) -> AbstractContextManager[Callable[[Progress], None] | None]:
    """Show a bar where nobody wants to be told otherwise and somebody looks: in a notebook."""
    if on_progress is None and in_notebook():
        return progress_bar(label(request), notebook=True)
    return nullcontext(on_progress)


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

    Args:
        request: What is asked for.
        settings: How this deployment crawls.
        rate_limiter: The pace shared by all runs of a process against the host.
        function: Step 1 or a source; by default what the settings name.
        song_urls: Gets `(song_num, info)` as pages arrive.
        on_progress: Told several times a second where the run stands.
        stop_event: Set it to end the run early.
        is_unattended: Whether nobody looks on. Such a run leaves a hold when the site refuses the
            token, and asks for nothing while one stands.
        limits: Deadlines and retries other than the usual ones.

    Raises:
        SettingsError, StoreError: Before the first request to the site.
    """
    began = time.monotonic()  # the budget bounds the whole, the look at the store included
    limits = limits or Limits()
    target = function or target_of(settings)
    store = open_store(settings.store)
    mine = identify(target, settings.base_url)
    store.check(timeout=limits.store_seconds)
    identity.claim_store(store, mine, timeout=limits.store_seconds)
    index = StoreIndex(
        store, mine.source, request.start, request.stop, timeout=limits.store_seconds
    )
    made = Run(
        request,
        settings,
        index,
        target,
        rate_limiter,
        began=began,
        ca_file=settings.ca_file,
        is_unattended=is_unattended,
        limits=limits,
    )
    answer = made.execute(
        deque(maxlen=0) if song_urls is None else song_urls,  # records are in the blocks
        on_progress=on_progress,
        stop_event=stop_event or threading.Event(),
    )
    answer.__dict__["draw_map"] = lambda: map_strip(index.listing.values())
    return answer
