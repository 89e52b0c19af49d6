"""The request: an HTTP body or query becomes one checked `CrawlRequest`, or one clear error."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn

import msgspec
from msgspec import UNSET, Meta, UnsetType

from crawler.answer import numbered
from crawler.errors import RequestError
from crawler.request.incoming import (
    body_fields,
    check_media,
    culprit,
    query_fields,
    read_body,
    short,
)
from crawler.settings.settings import MAX_SONG_NUM, SongNum

MAX_ORDER = 10**13
"""An order's number is the moment at which it was given, in milliseconds since 1970."""

_EXAMPLE = '{"start": 1, "stop": 2001} or {"mode": "next"}'


class CrawlRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller asks for; valid by itself and for this deployment.

    Its fields are those of `RequestFields`, None where a caller left them out, and beside them what
    none may send: `sample`, so many numbers spread over the range, a pilot; and `ordered_at`, when
    the order was given of which this is a part, aware. A range is what has no other mode.
    """

    start: int | None = None
    stop: int | None = None
    mode: Literal["range", "next", "new"] = "range"
    limit: int | None = None
    fan_out: bool = False
    refresh_older_than_days: float | None = None
    recheck: Literal["missing"] | None = None
    canary: int | None = None
    max_rate: float | None = None
    sample: int | None = None
    order: int | None = None
    ordered_at: datetime | None = None


class RequestFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a caller may write, in a body or a query; absent is not the same as null."""

    start: Annotated[
        SongNum | UnsetType, Meta(description="First song number of the range, included.")
    ] = UNSET
    stop: Annotated[
        SongNum | UnsetType, Meta(description="Song number after the last of the range.")
    ] = UNSET
    mode: Annotated[
        Literal["next", "new"] | UnsetType,
        Meta(description="Instead of a range: go on where the store says, or look for new songs."),
    ] = UNSET
    limit: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SONG_NUM)] | UnsetType,
        Meta(description="With a mode: how many numbers at most; else what fits the time budget."),
    ] = UNSET
    fan_out: Annotated[
        bool, Meta(description="Hand the range to the task queue in shards and answer 202.")
    ] = False
    refresh_older_than_days: Annotated[
        Annotated[float, Meta(ge=0, le=36_500)] | UnsetType,
        Meta(description="Ask again for records older than this many days."),
    ] = UNSET
    recheck: Annotated[
        Literal["missing"] | UnsetType, Meta(description="Ask again for missing numbers.")
    ] = UNSET
    canary: Annotated[
        SongNum | UnsetType,
        Meta(description="A number known to be there, asked when the site denies many."),
    ] = UNSET
    max_rate: Annotated[
        Annotated[float, Meta(gt=0, le=10_000)] | UnsetType,
        Meta(description="Requests per second of each instance, at most the deployed rate."),
    ] = UNSET
    order: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_ORDER)] | UnsetType,
        Meta(description="With fan_out: an order's number, to enqueue what is left of it."),
    ] = UNSET


_SONG_NUM = f"a whole number from 0 to {MAX_SONG_NUM}, written in plain digits"
_WANTED = {
    "start": _SONG_NUM,
    "stop": _SONG_NUM,
    "mode": '"next" or "new"',
    "limit": f"a whole number from 1 to {MAX_SONG_NUM}, written in plain digits",
    "fan_out": "true or false",
    "refresh_older_than_days": "a number of days from 0 to 36500",
    "recheck": '"missing"',
    "canary": _SONG_NUM,
    "max_rate": "a number above 0, at most the deployed rate",
    "order": f"a whole number from 1 to {MAX_ORDER}",
}


def parse_request(
    method: str,
    content_type: str | None,
    content_encoding: str | None,
    body_reader: Callable[[int], bytes],
    content_length: int | None,
    *,
    query: str,
    max_range: int,
    deployed_rate: float,
) -> CrawlRequest:
    """Read what a caller asks for, from body, query or both where they agree.

    Args:
        content_type: The header as received; None when absent, which means JSON.
        content_encoding: The header as received.
        body_reader: Called with a number of bytes, returns at most as many, b"" at the end.
        content_length: Length of the body in bytes; 0: no body; None: not known beforehand.
        query: The query as received, percent-encoded, without `?`.
        max_range: Longest range, in songs, that is done without `fan_out`.
        deployed_rate: Requests per second that `max_rate` may not exceed; 0: no limit.

    Raises:
        RequestError: 400, 413, 414 or 415 with a code, the field and what is wanted. Of a body
            refused with 415, or with 413 for its stated length, nothing has been read.
    """
    in_query = query_fields(query)
    body = b""
    if content_length != 0:
        check_media(content_type, content_encoding)
        body = read_body(body_reader, content_length)
    in_body = body_fields(body) if body else {}
    if not body and not query:
        where = "query" if method == "GET" else "body"
        raise RequestError(
            400, f"{where}_empty", where, f"the {where} is empty: ask for {_EXAMPLE}"
        )
    for name in in_query.keys() & in_body.keys():
        if in_query[name] != in_body[name]:
            _refuse(name, "conflict", f"{name} is one thing in the query and another in the body")
    return check_request(in_query | in_body, max_range=max_range, deployed_rate=deployed_rate)


def check_request(
    fields: dict[str, Any], *, max_range: int = MAX_SONG_NUM, deployed_rate: float = 0
) -> CrawlRequest:
    """Check what is asked for, by the rules that hold for every way in.

    Args:
        fields: By the names of `RequestFields`; what is not asked for is left out.
        max_range, deployed_rate: As `parse_request` takes them; by default there is no limit.

    Raises: RequestError: 400 with a code, the field and what is wanted.
    """
    given = _convert(fields)
    if given.mode is UNSET:
        _check_range(given, max_range)
    else:
        _check_mode(given)
    if given.max_rate is not UNSET and 0 < deployed_rate < given.max_rate:
        wanted = f"at most the deployed rate, {deployed_rate:g}"
        _refuse("max_rate", "malformed", f"max_rate must be {wanted}, got {given.max_rate:g}")
    if given.order is not UNSET and not given.fan_out:
        _refuse("order", "conflict", "order goes with fan_out")
    present = msgspec.structs.asdict(given).items()
    return CrawlRequest(**{name: value for name, value in present if value is not UNSET})


def with_sample(request: CrawlRequest, sample: Any) -> CrawlRequest:
    """Return the request for so many of its numbers, spread over the range; None: for all.

    Raises:
        RequestError: 400: the sample is no whole number, or has no range.
    """
    if sample is None:
        return request
    if type(sample) is not int or not 1 <= sample <= MAX_SONG_NUM:
        wanted = f"a whole number from 1 to {MAX_SONG_NUM}"
        _refuse("sample", "malformed", f"sample must be {wanted}, got {short(sample)}")
    if request.start is None:
        _refuse("sample", "conflict", "sample goes with a range: give start and stop, no mode")
    return msgspec.structs.replace(request, sample=sample)


def _convert(fields: dict[str, Any]) -> RequestFields:
    for name in fields:
        if name not in _WANTED:
            known = ", ".join(_WANTED)
            _refuse(name, "unknown", f"{short(name)} is not a parameter; there are {known}")
    try:
        return msgspec.convert(fields, RequestFields)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        name = culprit(fields, error)
        _refuse(name, "malformed", f"{name} must be {_WANTED[name]}, got {short(fields[name])}")


def _check_range(given: RequestFields, max_range: int) -> None:
    start, stop = given.start, given.stop
    if start is UNSET:
        _refuse("start", "missing", f"start is missing: ask for {_EXAMPLE}")
    if stop is UNSET:
        _refuse("stop", "missing", f"stop is missing: ask for {_EXAMPLE}")
    if stop < start:
        _refuse(
            "stop", "malformed", f"stop must not be less than start, got start={start} stop={stop}"
        )
    if given.limit is not UNSET:
        _refuse("limit", "conflict", "limit goes with a mode; a range is limited by its stop")
    if stop - start > max_range and not given.fan_out:
        _refuse(
            "stop",
            "range_too_long",
            f"the range holds {stop - start} songs, at most CRAWLER_MAX_RANGE={max_range} "
            "are done by one request; set fan_out to hand a longer one to the task queue",
        )


def _check_mode(given: RequestFields) -> None:
    for name in ("start", "stop"):
        if getattr(given, name) is not UNSET:
            _refuse("mode", "conflict", f"mode {given.mode} finds its own range: leave out {name}")
    if given.fan_out:
        _refuse("fan_out", "conflict", "fan_out needs a range: give start and stop, no mode")


def _refuse(field: str, problem: str, message: str) -> NoReturn:
    """Raise the error for one field; its code is the problem in a word, with the field's name."""
    code = problem if problem == "range_too_long" else f"{field}_{problem}"
    if field not in _WANTED and field != "sample":
        field, code = field[:100], f"parameter_{problem}"
    raise RequestError(400, code, field, message)


def songs(start: int, stop: int, noun: str = "song") -> str:
    """Write a range as people do: "songs 1 to 2000" for `range(1, 2001)`; to be pasted, so without commas."""
    return numbered(start, stop, noun).replace(",", "")


def label(request: CrawlRequest, noun: str = "song") -> str:
    """Write what a run is about: its range, or its mode where it has none."""
    if request.start is None or request.stop is None:
        return f"{request.mode} {noun}s"
    return songs(request.start, request.stop, noun)
