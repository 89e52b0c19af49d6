"""The doctor: looks at token, store, queue, site and clock, and says in words what is wrong."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import requests

from crawler.answer import noun_of
from crawler.errors import CrawlerError, Missing, PageError, SettingsError, StoppedError
from crawler.frontier.verdict import Reply
from crawler.frontier.work import IterableSupply, Job, PendingNumber, Policy
from crawler.request.crawl_request import songs
from crawler.run.functions import identify, target_of
from crawler.settings.reading import read_settings
from crawler.settings.settings import Settings
from crawler.source.declared import DeclaredSource
from crawler.source.source import Source, traits_of, user_agent
from crawler.source.values import short
from crawler.step1 import read_outcome
from crawler.steps import request_song_info
from crawler.store.contract import Store
from crawler.store.coverage import odd_times
from crawler.store.opening import compare, open_store, read_identity
from crawler.wire.answers import detail_of, in_words
from crawler.wire.robots import asks_robots, read_robots
from crawler.wire.session import WireSession
from crawler.wire.wire import Wire

MAX_SKEW_SECONDS = 60.0
"""A clock further off than this writes times that mislead; Cloud Storage refuses it at 15 minutes."""

_STATUS_WORDS = {
    401: "it refuses the token (401): look where the site gives out tokens, "
    "genius.com/api-clients for Genius",
    403: "it forbids the page (403): the token lacks the right, or the site does not want crawlers",
    429: "it asks to slow down (429): wait a while, and choose a lower rate",
}


class Finding(msgspec.Struct, frozen=True):
    """What came of one look.

    Attributes:
        part: `settings`, `token`, `contact`, `store`, `queue`, `robots`, `site`, `clock`, `fields`.
        verdict: `ok`, `wrong` (a run would fail, or mislead), or `note` (worth knowing).
        words: What was seen and, where it is wrong, what to do.
    """

    part: str
    verdict: Literal["ok", "note", "wrong"]
    words: str


def _try_step_1(
    target: Any, song_num: int, settings: Settings, wall: Callable[[], datetime]
) -> Iterator[Finding]:
    """Ask for one song, without a second try; yields findings on site, clock and fields."""
    seen: list[requests.Response] = []
    results: list[Any] = []
    trouble: Exception | None = None
    before = wall()
    wire = Wire(
        1,
        user_agent=user_agent(settings.contact),
        attempt_seconds=Policy().attempt_seconds,
        ca_file=settings.ca_file,
        is_anonymous=settings.contact is None,
    )
    with wire, WireSession(wire) as session:
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
    # Described as a run does whose records are stored.
    source = target if isinstance(target, Source) else None
    job = Job(target, IterableSupply([]), [], source, is_recorded=True)
    reply = read_outcome(PendingNumber(song_num, job), returned, results, trouble)
    told = reply.detail or ("" if trouble is None else in_words(trouble))
    hidden = [secret for each in returned for secret in each.secrets]
    if settings.token is not None:
        hidden.append(settings.token.reveal())
    yield _site_finding(reply, seen, trouble, detail_of(told, hidden))
    if seen:
        yield _clock_finding(seen[-1].headers.get("Date"), before, wall())
    if reply.found and isinstance(target, DeclaredSource):
        for row in target.look(song_num, seen[-1].content):
            words = f"{row.name} = {short(row.value)} at {row.where}"
            if row.trouble:
                yield Finding("fields", "note", f"{words}: {row.trouble}")
            else:
                yield Finding("fields", "ok", words)


def _site_finding(
    reply: Reply, seen: list[requests.Response], trouble: Exception | None, told: str
) -> Finding:
    """Put it in words; `told` is what step 1 did wrong, fit to be shown."""
    status = reply.status
    song = f"{noun_of(getattr(reply.attempt.job.source, 'name', ''))} {reply.attempt.song_num}"
    if status in (404, 410) or isinstance(trouble, Missing):
        return Finding("site", "ok", f"answers; it has no {song}, which is nothing unusual")
    if status in _STATUS_WORDS:
        return Finding("site", "wrong", _STATUS_WORDS[status])
    if reply.found:
        took = f"{seen[-1].elapsed.total_seconds() * 1000:.0f} ms" if seen else "no request"
        return Finding("site", "ok", f"answers; {song} was found in {took}")
    if isinstance(trouble, requests.RequestException) and status is None:
        # The message of the cause may be long and repeat the address; its kind says enough.
        words = (
            f"cannot be reached ({type(trouble).__name__}): look at CRAWLER_BASE_URL, the network"
        )
        return Finding("site", "wrong", words)
    answered = "" if status is None else f"answers {status}, but "
    if isinstance(trouble, PageError) and status is not None:
        return Finding("site", "wrong", f"{answered}{song} is not as expected ({told})")
    why = told or "it appended nothing"
    return Finding("site", "wrong", f"{answered}step 1 failed on {song}: {why}")


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


LOOK_SECONDS = 30.0


def examine(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    song_num: int | None = None,
    wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    **overrides: Any,
) -> Iterator[Finding]:
    """Look at everything a run needs; yields findings one by one, as they are known.

    The site is asked for one song. The store is written to and cleaned up, as every run does first.

    Args:
        env_file: A file of `NAME=value` lines; ignored where there is none.
        song_num: The song to ask for; None: the first one of the settings.
        overrides: Fields of `Settings`, as options give them.
    """
    try:
        settings = read_settings(environ, env_file=env_file, for_site=False, **overrides)
        target = target_of(settings)
    except SettingsError as error:
        yield Finding("settings", "wrong", str(error))
        return
    trouble = None
    try:
        read_settings(environ, env_file=env_file, **overrides)
    except SettingsError as error:
        trouble = error
    yield from _settings_findings(settings, trouble)
    yield _store_finding(settings, target, wall())
    yield _queue_finding(settings)
    if trouble is None:
        known = traits_of(target).canary
        asked = song_num if song_num is not None else known or settings.first_song
        robots = _robots_finding(target, asked, settings)
        yield from robots
        if not any(finding.verdict == "wrong" for finding in robots):
            yield from _try_step_1(target, asked, settings, wall)
    else:
        yield Finding("site", "note", "not asked, because of what is wrong above")


def _settings_findings(settings: Settings, trouble: SettingsError | None) -> Iterator[Finding]:
    """Tell of token and contact, never showing the token."""
    if trouble is not None:
        part = trouble.code.split("_")[0]
        yield Finding(part, "wrong", str(trouble))
        return
    if settings.function is not None:
        yield Finding("token", "note", f"{settings.function} brings its own, if it needs one")
    elif settings.token is None:
        yield Finding("token", "ok", f"none is needed for {settings.source}")
    else:
        yield Finding("token", "ok", "is set, and can be sent in a header; it is not shown")
    contact = settings.contact or "not set, and not needed for a site on this machine"
    yield Finding("contact", "ok" if settings.contact else "note", contact)


def _store_finding(settings: Settings, target: Any, now: datetime) -> Finding:
    try:
        store = open_store(settings.store)
        store.check(timeout=LOOK_SECONDS)
        return _held(store, settings, target, now)
    except CrawlerError as error:
        return Finding("store", "wrong", str(error))


def _held(store: Store, settings: Settings, target: Any, now: datetime) -> Finding:
    """Compare what the store holds with what a run would add."""
    known = read_identity(store, timeout=LOOK_SECONDS)
    if known is None:
        return Finding("store", "ok", f"{store.location} can be written, and is empty")
    compare(store.location, known, identify(target, settings.base_url))
    words = f"{store.location} can be written, and holds records of {known.source} ({known.host})"
    odd = odd_times(store.list_blocks(timeout=LOOK_SECONDS), now)
    if odd:
        words = (
            f"{words}; {songs(odd[0][0], odd[-1][1], noun_of(known.source))} hold times that cannot be, of a machine "
            f"whose clock was wrong: crawl them with --refresh-older-than-days 0"
        )
    return Finding("store", "note" if odd else "ok", words)


def _robots_finding(target: Any, song_num: int, settings: Settings) -> list[Finding]:
    """Say what robots.txt has to say of one page, where a run would ask it; else nothing."""
    if not asks_robots(target, settings.robots):
        return []
    url = target.url(song_num)
    try:
        robots = read_robots(target, user_agent(settings.contact), ca_file=settings.ca_file)
    except StoppedError as error:
        return [Finding("robots", "wrong", str(error))]
    if not robots.allows(url):
        words = f"robots.txt does not allow {url}: a run would not ask it either"
        return [Finding("robots", "wrong", words)]
    words = f"robots.txt allows {url}"
    if rate := robots.slowed(0.0):
        return [Finding("robots", "note", f"{words}, at no more than {rate:.3g} a second")]
    return [Finding("robots", "ok", words)]


def _queue_finding(settings: Settings) -> Finding:
    if settings.queue is None:
        return Finding("queue", "note", "not set: fan_out is not available, all else is")
    if importlib.util.find_spec("google.cloud.tasks_v2") is None:
        return Finding("queue", "wrong", "google-cloud-tasks is not installed: pip install it")
    # Not asked: who runs this may only put tasks into it, and a task would be a real order.
    words = f"{settings.queue} calls back {settings.url or 'nobody'}"
    words = f"{words} as {settings.invoker or 'nobody'}: the settings are complete"
    return Finding("queue", "note", f"{words}; the queue itself was not asked")
