"""One call of a step 1 function, and what it did and its session saw, turned into a reply."""

import functools
import inspect
import sysconfig
import traceback
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

from crawler.errors import Missing, PageError
from crawler.frontier.verdict import REDIRECTS, Reply, moved_to
from crawler.frontier.work import PendingNumber
from crawler.wire.answers import (
    WireAnswer,
    detail_of,
    headers_for_policy,
    in_words,
    storage_trouble,
)
from crawler.wire.session import HeldBackError, WireSession

_NO_REQUEST = (
    "the function made no request through the session it was given: "
    "call session.get(...), not requests.get(...)"
)
_AROUND_SESSION = (
    "the function asked around the session it was given: pace, pauses, retries and deadlines hold "
    "for session.get(...) alone"
)
_NOTHING_TAKEN = "the function appended nothing, though the site answered 200"

_CLIENTS = ("requests", "httpx", "urllib3", "urllib.request", "http", "aiohttp", "pycurl", "socket")


def call_step1(attempt: PendingNumber, session: WireSession) -> Reply | None:
    """Call step 1 once; return None when a shared pause began before a request of its was sent.

    The session has begun the attempt.
    """
    appended: list[Any] = []
    try:
        raised, place = _call(attempt, session, appended)
    finally:
        session.end()
    if session.was_held_back:
        return None
    reply = _moved(attempt, session) or read_outcome(attempt, session.returned, appended, raised)
    if reply.is_unsent and reply.found and _asks_around(attempt.job.function):
        reply.detail = _AROUND_SESSION
    if reply.error == "function" and reply.detail != _NOTHING_TAKEN:
        if raised is None or isinstance(raised, _UnrunError):
            place = _place_of(attempt.job.function)
        reply.fault = None if place is None else (*place, reply.detail)
    return reply


def _moved(attempt: PendingNumber, session: WireSession) -> Reply | None:
    """Return the redirect that leads to the page of another number, whether it was followed or not.

    What stands there is another number's; None where there was no such redirect.
    """
    hops = [each for each in session.answers if each.status in REDIRECTS and each.error is None]
    for hop in hops:
        asked = str(hop.request.url)
        reply = Reply(attempt, status=hop.status, headers=hop.headers, asked_url=asked)
        if hop.status not in _accepted(attempt.job.function) and moved_to(reply) is not None:
            return reply
    return None


class _UnrunError(TypeError):
    """Calling step 1 brings nothing, whatever the site answers."""


def _call(
    attempt: PendingNumber, session: WireSession, appended: list[Any]
) -> tuple[BaseException | None, tuple[str, int] | None]:
    """Return what step 1 raised, and where, if in its own code."""
    try:
        _refuse_unrun(attempt.job.function(session, attempt.song_num, appended), appended)
    except HeldBackError:
        return None, None
    except BaseException as error:  # noqa: BLE001 - step 1 is anybody's code, sys.exit() an error
        place = _place_of_error(error, attempt.job.function)
        _forget_frames(error)
        return error, place
    return None, None


def _place_of_error(error: BaseException, function: Any) -> tuple[str, int] | None:
    """Return file and line where an error was raised, None where that is no code of the user's."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if len(frames) < 2:  # calling it raised: it takes other arguments
        return _place_of(function)
    frame, line = frames[-1]
    file = frame.f_code.co_filename
    return None if file.startswith(_libraries()) else (file, line)


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return where the code lies that is not the user's."""
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return ("<frozen", str(Path(__file__).parent), *(paths[name] for name in names))


def _place_of(function: Any) -> tuple[str, int] | None:
    """Return file and line of a function, None where it has none."""
    function = inspect.unwrap(getattr(function, "func", function))  # of a functools.partial
    code = getattr(function, "__code__", getattr(type(function).__call__, "__code__", None))
    return None if code is None else (code.co_filename, code.co_firstlineno)


def _refuse_unrun(returned: Any, appended: list[Any]) -> None:
    """Refuse what would run the function, and has not, and what was returned in vain.

    Raises:
        _UnrunError: Step 1 is asynchronous, or a generator, or returned what it should append.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # else Python warns that nobody awaited it
    elif not (inspect.isgenerator(returned) or inspect.isasyncgen(returned)):
        if returned and not appended and isinstance(returned, tuple | list | dict):
            raise _UnrunError(
                "step 1 must append what it found to its third argument, not return it"
            )
        return
    raise _UnrunError("step 1 must be a plain function: without async, await and yield")


def _forget_frames(error: BaseException) -> None:
    """Take the frames from an error and all that led to it.

    Each frame knows its caller, and so that of this call, which knows the error: a circle that
    would keep the session's pages until the collector comes.
    """
    waiting: list[BaseException | None] = [error]
    known = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in known:
            known.add(id(each))
            BaseException.with_traceback(each, None)
            waiting += (each.__cause__, each.__context__)
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions


def read_outcome(
    attempt: PendingNumber,
    returned: Sequence[WireAnswer],
    appended: list[Any],
    raised: BaseException | None,
) -> Reply:
    """Judge one call of step 1.

    The status decides before what was appended: a function may append the body of an error, and
    one that swallows errors says nothing. Only 2xx, and what `function.accepts` names, can bring
    info; only a 404 or 410 of the first address, or `crawler.Missing`, makes a number missing.

    Args:
        attempt: What was asked for.
        returned: What `session` gave the function, of each method and address the last, in order.
        appended: What the function appended.
        raised: What it raised, None where it returned.
    """
    is_unsent, accepted = not returned, _accepted(attempt.job.function)
    seen = next((seen for seen in returned if _is_failure(seen, accepted)), None)
    seen = seen or (returned[0] if returned else WireAnswer())
    if is_unsent and not appended and not isinstance(raised, Missing):
        detail = _NO_REQUEST if raised is None else detail_of(in_words(raised))
        return Reply(attempt, error="function", detail=detail, is_unsent=True)
    reply = Reply(
        attempt,
        status=seen.status,
        error=seen.error,
        detail=seen.detail,
        headers=headers_for_policy(attempt, seen),
        is_reused=seen.is_reused,
        is_unsent=is_unsent,
    )
    if is_unsent or _is_usable(seen, accepted):
        _read_function(reply, appended, raised)
    if reply.detail:
        reply.detail = detail_of(reply.detail, seen.secrets)
    return reply


def _accepted(function: Any) -> Container[Any]:
    """Return the statuses, besides 2xx, whose answers a function says it can use."""
    function = getattr(function, "func", function)  # of a functools.partial
    accepts: Container[Any] = getattr(function, "accepts", ())
    return accepts


def _is_usable(seen: WireAnswer, accepted: Container[Any]) -> bool:
    """Whether a function may take what it appends from this answer."""
    return seen.error is None and (seen.is_page or seen.status in accepted)


def _is_failure(seen: WireAnswer, accepted: Container[Any]) -> bool:
    """Whether this answer leaves the number open, whatever else the function was told."""
    return not (_is_usable(seen, accepted) or seen.is_denial)


def _read_function(reply: Reply, appended: list[Any], raised: BaseException | None) -> None:
    """Read what the function made of an answer that it may use."""
    if isinstance(raised, Missing):
        reply.error = "missing"
    elif raised is None and appended:
        _take_info(reply, appended)
    elif reply.status in (None, 200):
        _blame_function(reply, raised)


def _blame_function(reply: Reply, raised: BaseException | None) -> None:
    """Say what the function made of a whole page."""
    if isinstance(raised, PageError):
        reply.error, reply.detail = raised.kind, raised.detail
    else:
        reply.error = "function"
        reply.detail = _NOTHING_TAKEN if raised is None else in_words(raised)


def _take_info(reply: Reply, appended: list[Any]) -> None:
    """Check what was appended, and take it as the info."""
    num = reply.attempt.song_num
    trouble = _first_trouble(num, appended, is_recorded=reply.attempt.job.is_recorded)
    if trouble is not None:
        reply.error, reply.detail = "function", trouble
        return
    is_source = reply.attempt.job.source is not None
    reply.found, reply.error, reply.detail = True, None, ""
    reply.info = appended[0][1] if is_source else appended


def _asks_around(function: Any) -> bool:
    """Whether a step 1 that sent nothing may have asked by an HTTP client of its own."""
    function = getattr(function, "func", function)  # of a functools.partial
    return inspect.isfunction(function) and _names_a_client(function)


@functools.cache
def _names_a_client(function: Any, depth: int = 3) -> bool:
    """Whether a function, or one that it names, names an HTTP client, however it was imported."""
    named = inspect.getclosurevars(function)
    values = [*named.globals.values(), *named.nonlocals.values()]
    return (
        not set(_CLIENTS).isdisjoint(function.__code__.co_names)  # imported where it is used
        or any(map(_is_client, values))
        or any(
            _names_a_client(each, depth - 1)
            for each in values
            if depth and inspect.isfunction(each)
        )
    )


def _is_client(value: Any) -> bool:
    """Whether a module, or a thing of a module, is an HTTP client's."""
    name = value.__name__ if inspect.ismodule(value) else _try(lambda: value.__module__, "")
    return f"{name}.".startswith(tuple(f"{client}." for client in _CLIENTS))


def _first_trouble(num: Any, appended: list[Any], *, is_recorded: bool) -> str | None:
    for entry in appended:
        if not isinstance(entry, tuple) or len(entry) < 2 or not _is_same(entry[0], num):
            return f"append a tuple ({_short(num)}, info), not {_short(entry)}"
    return storage_trouble(appended) if is_recorded else None


def _is_same(one: Any, other: Any) -> bool:
    return one is other or _try(lambda: bool(one == other), False)


def _short(entry: Any) -> str:
    text: str = _try(lambda: repr(entry), f"a {type(entry).__name__}")
    return text if len(text) <= 80 else text[:77] + "..."


def _try(make: Callable[[], Any], default: Any) -> Any:
    """Call a method of anybody's object, which may raise."""
    try:
        return make()
    except Exception:  # noqa: BLE001
        return default
