"""Running a coroutine to its end wherever one is called: no loop, a running loop, or uvloop."""

import asyncio
import concurrent.futures
import contextvars
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_FAREWELL_SECONDS = 5.0
"""How long an interrupted caller waits for the work to let go."""

_LOOK_SECONDS = 0.25


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


class LaneExecutor(concurrent.futures.Executor):
    """Runs each task in a daemon thread of its own.

    A lane lives as long as the run, so a pool would reuse nothing; and a thread stuck in somebody
    else's code must not keep the process from ending, as pool threads do.
    """

    def __init__(self) -> None:
        self._threads: list[tuple[threading.Thread, concurrent.futures.Future[Any]]] = []

    def submit(  # type: ignore[override]
        self, task: Callable[..., T], /, *args: Any
    ) -> concurrent.futures.Future[T]:
        """Start a thread; it sees the caller's context variables."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()  # a thread that runs cannot be cancelled
        run = contextvars.copy_context().run
        thread = threading.Thread(
            target=_fulfil, args=(future, run, task, *args), name="lane", daemon=True
        )
        self._threads.append((thread, future))
        thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Join the threads whose work is done; one that is stuck is left behind."""
        for thread, future in self._threads:
            if wait and future.done():
                thread.join(1.0)


def _fulfil(future: concurrent.futures.Future[Any], run: Callable[..., Any], *task: Any) -> None:
    try:
        result = run(*task)
    except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the lane
        future.set_exception(error)
    else:
        future.set_result(result)
