"""The three steps: one request, tasks gathered in an executor, an event loop that runs anywhere.

1. `request_song_info` asks for one song. Swap it for a function of your own.
2. `get_data_asynchronous` turns numbers into lanes, run in an executor and gathered.
3. `execute_async_event_loop` runs step 2 to its end wherever it is called.
"""

import asyncio
import concurrent.futures
import functools
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, overload
from urllib.parse import urlsplit

import requests

from crawler.errors import Missing, PageError, StoppedError
from crawler.frontier.frontier import Frontier
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.work import IterableSupply, Job, Results, Supply
from crawler.lanes import LaneExecutor, gather_lanes, lanes_for
from crawler.source.declared import DeclaredSource
from crawler.source.source import Source, user_agent
from crawler.wire.wire import Wire

_NO_ITEMS: tuple[Any, ...] = ()

_FAREWELL_SECONDS = 5.0
"""How long an interrupted caller waits for the work to let go."""

_LOOK_SECONDS = 0.25

R = TypeVar("R", bound=Results)
T = TypeVar("T")

Step1 = Callable[[Any, Any, list[Any]], Any]


def request_song_info(
    session: requests.Session,
    song_num: int,
    song_urls: Results,
    *,
    source: Source | None = None,
) -> None:
    """Step 1: ask for one song, and append `(song_num, info)`.

    Args:
        session: What to send the request with.
        song_num: The number of the song.
        song_urls: Gets one tuple when the song is found, and none otherwise.
        source: What a page is; by default what the environment says, the Genius API if nothing.

    Raises:
        Missing: The site has no song under this number.
        PageError: The answer is not a song; the status or the reason is in `kind`.
        requests.RequestException: No whole answer came.
    """
    source = source or default_source()
    url, headers = source.url(song_num), source.headers()
    response = session.get(url, headers=headers, allow_redirects=False, timeout=15)
    if response.status_code in (404, 410):
        raise Missing
    if response.status_code != 200:
        raise PageError(f"http_{response.status_code}")
    song_urls.append((song_num, source.info(song_num, response.content)))


async def get_data_asynchronous(
    song_nums: Iterable[Any] | Supply = _NO_ITEMS,
    song_urls: Results | None = None,
    max_workers: int | None = None,
    *,
    function: Step1 | Source = request_song_info,
    jobs: Sequence[tuple[Step1 | Source, Iterable[Any], Results]] = (),
    connections: int = 64,
    rate: float = 100.0,
    contact: str | None = None,
    ca_file: str | None = None,
    frontier: Frontier | None = None,
) -> None:
    """Step 2: run lanes in an executor, gather them, and append tuples as pages arrive.

    Lanes take numbers from one frontier, so there is no task per number, and the pace, the
    retries and the pauses are the same for all of them. Sources of several hosts have these each
    for their own, and one host in trouble costs the others nothing; a step 1 function chooses its
    addresses itself, and keeps the pace of the first host.

    Args:
        song_nums: Numbers, or any other items the function takes; any iterable.
        song_urls: Anything with `append`; gets `(song_num, info)` in the order pages arrive.
        max_workers: The tutorial's word for `connections`, which it is where it is given.
        function: Step 1, or a source.
        jobs: More work for the same gather: `(function, items, results)` each.
        connections: Requests under way at once.
        rate: Attempts per second at each host, retries included; 0 for no limit. A source that
            names a lower one is asked at that.
        contact: Whom the site may ask: an address or URL, told in `User-Agent`; required for any
            site but one on this machine. By default `CRAWLER_CONTACT` of the environment.
        ca_file: A file of certificate authorities to trust instead of the usual ones; by default
            the one that the environment names (`CRAWLER_CA_FILE`, `SSL_CERT_FILE` …), if any.
        frontier: A prepared frontier, for callers who want its counts; it brings its own rate.

    Raises:
        SettingsError: The first request to another machine would name nobody.
        StoppedError: The run ended early, for instance because the token was refused; what was
            collected is in `song_urls`. Not raised when a `frontier` was given: it knows. Of
            several hosts the others' numbers are settled first.
    """
    pairs: list[tuple[Step1 | Source, Iterable[Any] | Supply, Results]] = list(jobs)
    if song_urls is not None and not (pairs and song_nums is _NO_ITEMS):
        pairs.insert(0, (function, song_nums, song_urls))
    own_frontier = frontier is None
    is_recorded = frontier is not None and frontier.is_recording
    made = [make_job(*pair, is_recorded=is_recorded) for pair in pairs]
    for job in made if len(made) > 1 else ():  # one alone needs no name
        job.host = host_of(job.source)
    for job in made:
        job.most_rate = _least_rate(made, job.host)
    frontier = frontier or Frontier(rate_limiter=_limiter(rate, made))
    for job in made:
        frontier.add_job(job)
    contact = contact or _named("contact")
    if contact is None:
        _refuse_anonymous(made)
    wire = Wire(
        connections if max_workers is None else max_workers,
        user_agent=user_agent(contact),
        attempt_seconds=frontier.policy.attempt_seconds,
        ca_file=ca_file or _named("ca_file"),
        is_anonymous=contact is None,
    )
    await gather_lanes(lanes_for(made, wire), frontier, wire)
    if own_frontier:
        _report(frontier)


@overload
def execute_async_event_loop(
    song_nums: Iterable[Any] | Supply = ...,
    song_urls: None = None,
    max_workers: int | None = None,
    **options: Any,
) -> list[Any]: ...


@overload
def execute_async_event_loop(
    song_nums: Iterable[Any] | Supply,
    song_urls: R,
    max_workers: int | None = None,
    **options: Any,
) -> R: ...


def execute_async_event_loop(
    song_nums: Iterable[Any] | Supply = _NO_ITEMS,
    song_urls: Results | None = None,
    max_workers: int | None = None,
    **options: Any,
) -> Any:
    """Step 3: run step 2 to its end, in a script, a worker thread, a notebook or under uvloop.

    Args:
        song_nums: As in `get_data_asynchronous`.
        song_urls: As there; a new list where none is given.
        max_workers: As there.
        options: All other arguments of `get_data_asynchronous`.

    Returns:
        `song_urls`, filled.
    """
    if song_urls is None:
        song_urls = []
    run_anywhere(lambda: get_data_asynchronous(song_nums, song_urls, max_workers, **options))
    return song_urls


def default_source() -> DeclaredSource:
    """Make the declared source that the environment describes.

    Raises:
        SettingsError: The token is missing or malformed.
    """
    # Only where nobody handed a source in.
    from crawler.settings.reading import read_settings, source_of

    return source_of(read_settings(os.environ))


def _refuse_anonymous(jobs: Sequence[Job]) -> None:
    from crawler.settings.reading import contact_missing, is_loopback

    for job in jobs:  # lanes and sessions look at addresses that anybody's code makes
        if isinstance(job.source, DeclaredSource) and not is_loopback(url := job.source.url(0)):
            raise contact_missing(url)


def _named(field: str) -> str | None:
    """Return what the environment says of a setting, None where it says nothing."""
    from crawler.settings.settings import SETTINGS  # the names are written there, once

    row = SETTINGS[field]
    return next(filter(None, map(os.environ.get, (row.variable, *row.also))), None)


def make_job(
    function: Step1 | Source,
    items: Iterable[Any] | Supply,
    results: Results,
    *,
    is_recorded: bool = False,
) -> Job:
    """Make a job of a step 1 function or a source; numbers may come as a `Supply`."""
    supply: Supply = items if hasattr(items, "take") else IterableSupply(items)  # type: ignore[assignment]
    source = default_source() if function is request_song_info else function
    if isinstance(source, Source):
        step1 = functools.partial(request_song_info, source=source)
        return Job(step1, supply, results, source, is_recorded)
    if not callable(function):
        raise TypeError(f"step 1 must be a function or a source, not {function!r}")
    return Job(function, supply, results, None, is_recorded)


def _limiter(rate: float, jobs: Sequence[Job]) -> RateLimiter:
    """Return the pace of the first host: no faster than its sources say, which binds no other."""
    first = next((job.host for job in jobs if job.host), "")
    shared, least = RateLimiter(rate), _least_rate(jobs, first)
    return RateLimiter(least, shared=shared) if least else shared


def _least_rate(jobs: Sequence[Job], host: str) -> float | None:
    said = [job.traits.rate for job in jobs if job.host == host]
    return min(filter(None, said), default=None)


def host_of(source: Source | None) -> str:
    """Return host and port of a source's pages; empty of a function, or where number 0 has none.

    The usual port of http and https is left out, as is the dot at the end of a whole name.
    """
    if source is None:
        return ""
    try:
        parts = urlsplit(source.url(0))
        name, port = (parts.hostname or "").rstrip("."), parts.port
    except Exception:  # noqa: BLE001 - a source is anybody's code
        return ""
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return name if port in (None, usual) else f"{name}:{port}"


def _report(frontier: Frontier) -> None:
    if frontier.stopped_by != "done":
        raise StoppedError(str(frontier.stopped_by), frontier.stop_detail)


# Step 3, wherever it is called.


def run_anywhere(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `make` makes, and return what it returns.

    Where no loop runs (a script, a function's worker thread) it gets a fresh one, closed
    afterwards. Inside a running loop (Jupyter) nest_asyncio makes that loop re-entrant; it changes
    asyncio for the whole process, so it is applied nowhere else. A loop that it cannot change
    (uvloop) is left alone: the work gets a thread with a loop of its own.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _run_fresh(make)
    if _make_reentrant(loop):
        return _run_inside(loop, make)
    return _run_beside(make)


def _run_fresh(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(make())


def _run_inside(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in a loop that was made re-entrant; an interrupt ends the work, not only the wait."""
    task = loop.create_task(make())
    try:
        result: T = loop.run_until_complete(task)
        return result
    except BaseException:
        task.cancel()
        if not task.done():
            loop.run_until_complete(asyncio.wait({task}, timeout=_FAREWELL_SECONDS))
        raise


def _run_beside(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run in a thread with a loop of its own; an interrupt of the waiting thread ends the work."""
    begun: concurrent.futures.Future[Callable[[], Any]] = concurrent.futures.Future()

    async def work() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await make()

    executor = LaneExecutor()
    future: concurrent.futures.Future[T] = executor.submit(lambda: _run_fresh(work))
    try:
        while not future.done():  # a signal that comes just before the wait does not end it
            concurrent.futures.wait({future}, _LOOK_SECONDS)
        return future.result()
    except BaseException:
        if not future.done():
            begun.result(_FAREWELL_SECONDS)()
            concurrent.futures.wait({future}, _FAREWELL_SECONDS)
        raise
    finally:
        executor.shutdown()


def _make_reentrant(loop: asyncio.AbstractEventLoop) -> bool:
    # Imported here alone: it is needed in notebooks only. The original is archived; from 3.12 on it
    # refuses `asyncio.run(loop_factory=...)` to the whole process (github.com/Kludex/uvicorn/pull/2737),
    # so there its maintained fork takes its place.
    if sys.version_info >= (3, 12):
        import nest_asyncio2 as nest_asyncio
    else:
        import nest_asyncio
    try:
        nest_asyncio.apply(loop)
    except ValueError:  # "Can't patch loop of type ..."
        return False
    return True
