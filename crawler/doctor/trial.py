"""A trial of step 1: asks the site for one song, once, and says in words what came of it."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import msgspec
import requests

from crawler.errors import Missing, PageError
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, Job, PendingNumber, Policy
from crawler.source.declared import DeclaredSource
from crawler.source.source import Source, user_agent
from crawler.source.values import short
from crawler.step1 import read_outcome
from crawler.steps import request_song_info
from crawler.wire.answers import detail_of, in_words
from crawler.wire.session import WireSession
from crawler.wire.wire import Wire

MAX_SKEW_SECONDS = 60.0
"""A clock further off than this writes times that mislead; Cloud Storage refuses it at 15 minutes."""

_STATUS_WORDS = {
    401: "it refuses the token (401): make a new client access token at genius.com/api-clients",
    403: "it forbids the page (403): the token lacks the right, or the site does not want crawlers",
    429: "it asks to slow down (429): wait a while, and choose a lower rate",
}


class Finding(msgspec.Struct, frozen=True):
    """What came of one look.

    Attributes:
        part: `settings`, `token`, `contact`, `store`, `queue`, `site`, `clock` or `fields`.
        verdict: `ok`, `wrong` (a run would fail, or mislead), or `note` (worth knowing).
        words: What was seen and, where it is wrong, what to do.
    """

    part: str
    verdict: Literal["ok", "note", "wrong"]
    words: str


def try_step_1(
    target: Any,
    song_num: int,
    *,
    contact: str | None,
    ca_file: str | None = None,
    wall: Callable[[], datetime],
    secrets: Sequence[str] = (),
) -> Iterator[Finding]:
    """Ask for one song, without a second try; yields findings on site, clock and fields.

    Args:
        target: A source, or a step 1 function of somebody's own.
        song_num: The song to ask for.
        contact: Told to the site.
        ca_file: Certificate authorities to trust instead of the usual ones.
        wall: The time of day, aware.
        secrets: What no finding may show, besides what the request carried.
    """
    seen: list[requests.Response] = []
    results: list[Any] = []
    trouble: Exception | None = None
    before = wall()
    agent, seconds = user_agent(contact), Policy().attempt_seconds
    anonymous = contact is None
    with (
        Wire(
            1,
            user_agent=agent,
            attempt_seconds=seconds,
            ca_file=ca_file,
            is_anonymous=anonymous,
        ) as wire,
        WireSession(wire) as session,
    ):
        session.hooks["response"].append(lambda response, *_a, **_k: seen.append(response))
        try:
            if isinstance(target, Source):
                request_song_info(session, song_num, results, source=target)
            else:
                target(session, song_num, results)
        except Exception as error:  # noqa: BLE001 - step 1 is anybody's code
            trouble = error
        returned = session.returned
    if wire.refusal is not None:
        yield Finding("contact", "wrong", str(wire.refusal))
        return
    reply = read_outcome(_attempt(target, song_num), returned, results, trouble)
    told = reply.detail or ("" if trouble is None else in_words(trouble))
    hidden = [*secrets, *(secret for each in returned for secret in each.secrets)]
    yield _site_finding(reply, seen, trouble, detail_of(told, hidden))
    if seen:
        yield _clock_finding(seen[-1].headers.get("Date"), before, wall())
    if reply.found and isinstance(target, DeclaredSource):
        yield from field_findings(target, song_num, seen[-1].content)


def _attempt(target: Any, song_num: int) -> PendingNumber:
    """Describe the call as a run does whose records are stored."""
    source = target if isinstance(target, Source) else None
    return PendingNumber(song_num, Job(target, IterableSupply([]), [], source, is_recorded=True))


def _site_finding(
    reply: Reply, seen: list[requests.Response], trouble: Exception | None, told: str
) -> Finding:
    """Put it in words; `told` is what step 1 did wrong, fit to be shown."""
    num, status = reply.attempt.song_num, reply.status
    if status in (404, 410) or isinstance(trouble, Missing):
        return Finding("site", "ok", f"answers; it has no song {num}, which is nothing unusual")
    if status in _STATUS_WORDS:
        return Finding("site", "wrong", _STATUS_WORDS[status])
    if reply.found:
        took = f"{seen[-1].elapsed.total_seconds() * 1000:.0f} ms" if seen else "no request"
        return Finding("site", "ok", f"answers; song {num} was found in {took}")
    if isinstance(trouble, requests.RequestException) and status is None:
        # The message of the cause may be long and repeat the address; its kind says enough.
        words = (
            f"cannot be reached ({type(trouble).__name__}): look at CRAWLER_BASE_URL, the network"
        )
        return Finding("site", "wrong", words)
    answered = "" if status is None else f"answers {status}, but "
    if isinstance(trouble, PageError) and status is not None:
        return Finding("site", "wrong", f"{answered}song {num} is not as expected ({told})")
    why = told or "it appended nothing"
    return Finding("site", "wrong", f"{answered}step 1 failed on song {num}: {why}")


def _clock_finding(date: str | None, before: datetime, after: datetime) -> Finding:
    """Compare the site's clock with ours, halfway between question and answer."""
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return Finding("clock", "note", "the site does not tell its time, so ours is not checked")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    ours = before + (after - before) / 2
    skew = (ours - theirs).total_seconds()
    if abs(skew) <= MAX_SKEW_SECONDS:
        return Finding("clock", "ok", f"within {MAX_SKEW_SECONDS:g} s of the site's")
    words = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the site's"
    return Finding("clock", "wrong", f"{words}: records would carry wrong times; set the clock")


def field_findings(source: DeclaredSource, song_num: int, body: bytes) -> Iterator[Finding]:
    """Show what would be kept of a page, field by field, where it was found, and what looks wrong."""
    for row in source.look(song_num, body):
        words = f"{row.name} = {short(row.value)} at {row.where}"
        if row.trouble:
            yield Finding("fields", "note", f"{words}: {row.trouble}")
        else:
            yield Finding("fields", "ok", words)
