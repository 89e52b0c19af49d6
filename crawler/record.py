"""The record: what is known about one song number, how it is written as a line, how two merge."""

import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import msgspec

Outcome = Literal["found", "missing", "failed"]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone; one without is no part of a record."""

UNREADABLE = msgspec.MsgspecError, ValueError, RecursionError
"""What decoding raises where JSON is not what was written."""

_WORST_FIRST = ("failed", "missing", "found")

CLOCK_TOLERANCE = timedelta(minutes=5)
"""The clocks of machines that crawl into one store differ by this at most."""


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """The outcome for one song number; one line of a block.

    Attributes:
        song_num: The number of the page, >= 0.
        outcome: `found`, `missing` (the site says there is none) or `failed` (we do not know).
        status: HTTP status of the last answer, None where there was none.
        info: What the source or step 1 function took from the page; None unless found.
        error: The kind of failure, None unless failed.
        attempts: HTTP requests spent on it in the run that wrote it; 0 where robots.txt forbids it.
        fetched_at: When the outcome was known, UTC, to the microsecond.
        detail: A line about the failure, for people; absent when there is nothing to add.
        failed_runs: For a failed one: runs in a row that failed on it, this one included.
        next_try_at: For a failed one: before this time it is not worth asking again.
        gone_since: For a found one: the latest time at which the site said it has none.
        proof: For a missing one: the canary, a song that was found after the site had said that
            this number is missing, so that it did not deny everything; None: none was asked.
    """

    song_num: int
    outcome: Outcome
    status: int | None
    info: Any
    error: str | None
    attempts: int
    fetched_at: Moment
    detail: str = ""
    failed_runs: int = 0
    next_try_at: Moment | None = None
    gone_since: Moment | None = None
    proof: int | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Write a record as one line of JSON, without the newline; the same record gives the same bytes.

    A title may hold half of a surrogate pair, which UTF-8 cannot carry: such a record is written
    with escapes only, as RFC 8259 section 8.2 allows.
    """
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(record), separators=(",", ":")).encode("ascii")


def encode_records(records: list[Record]) -> bytes:
    """Write records as lines of JSON, each with its newline, as `encode_record` writes them."""
    try:
        return _encoder.encode_lines(records)
    except UnicodeEncodeError:
        return b"".join([encode_record(record) + b"\n" for record in records])


def decode_record(line: bytes) -> Record:
    """Read one line back.

    Raises:
        msgspec.ValidationError, ValueError: The line is not a record.
    """
    try:
        return _decoder.decode(line)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return msgspec.convert(json.loads(line), Record)


def decode_records(text: bytes) -> list[Record] | None:
    """Read lines back at once; None where one is no record, or cannot be read but by itself."""
    try:
        records = _decoder.decode_lines(text)
    except UNREADABLE:
        return None
    return records if len(records) == text.count(b"\n") else None


def is_settled(record: Record) -> bool:
    """Whether the site has answered for good: found or missing."""
    return record.outcome != "failed"


def last_asked_at(record: Record) -> datetime:
    """Return when the site was last asked about a number: a found one may since have been denied."""
    return max(record.fetched_at, record.gone_since or record.fetched_at)


def is_from_future(moment: datetime, now: datetime) -> bool:
    """Whether a time is later than clocks may differ: the clock that it was read from was wrong."""
    return moment > now + CLOCK_TOLERANCE


def merge_records(one: Record, other: Record) -> Record:
    """Keep what is known best about one number, whatever the order in which it was learnt.

    Found beats missing beats failed; of equals the newer wins, then the greater content. A found
    record that the site later denies stays found and says so in `gone_since`. The function is
    commutative, associative and idempotent, so runs may overlap, repeat and arrive late.
    """
    best, rest = (one, other) if _order(one) >= _order(other) else (other, one)
    if best.outcome != "found":
        return best
    denials = best.gone_since, rest.fetched_at if rest.outcome == "missing" else rest.gone_since
    denied = max((moment for moment in denials if moment is not None), default=None)
    if denied is not None and denied <= best.fetched_at:
        denied = None
    if denied == best.gone_since:
        return best
    return msgspec.structs.replace(best, gone_since=denied)


def _order(record: Record) -> tuple[int, datetime, bytes]:
    return _WORST_FIRST.index(record.outcome), record.fetched_at, encode_record(record)
