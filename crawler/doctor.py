"""The doctor: looks at token, store, queue, site and clock, and says in words what is wrong."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import requests

from crawler.errors import CrawlerError, Missing, PageError, SettingsError
from crawler.fields import FieldsSource
from crawler.functions import identify, target_of
from crawler.identity import read_identity
from crawler.open_store import open_store
from crawler.settings import Settings, read_settings
from crawler.source import Source, user_agent
from crawler.steps import request_song_info
from crawler.store import Store

STORE_SECONDS = 30.0
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
        environ: The process environment.
        env_file: A file of `NAME=value` lines; ignored where there is none.
        song_num: The song to ask for; None: the first one of the settings.
        wall: The time of day, aware.
        overrides: Fields of `Settings`, as options give them.
    """
    try:
        settings = read_settings(environ, env_file=env_file, for_site=False, **overrides)
        target = target_of(settings)
    except SettingsError as error:
        yield Finding("settings", "wrong", str(error))
        return
    trouble = _site_trouble(environ, env_file, overrides)
    yield from _settings_findings(settings, trouble)
    yield _store_finding(settings, target)
    yield _queue_finding(settings)
    if trouble is None:
        asked = settings.first_song if song_num is None else song_num
        yield from _site_findings(settings, target, asked, wall)
    else:
        yield Finding("site", "note", "not asked, because of what is wrong above")


def _site_trouble(
    environ: Mapping[str, str], env_file: Path | None, overrides: dict[str, Any]
) -> SettingsError | None:
    try:
        read_settings(environ, env_file=env_file, **overrides)
    except SettingsError as error:
        return error
    return None


def _settings_findings(settings: Settings, trouble: SettingsError | None) -> Iterator[Finding]:
    """Tell of token and contact, never showing the token."""
    if trouble is not None:
        part = trouble.code.split("_")[0]
        yield Finding(part, "wrong", str(trouble))
        return
    if settings.function is not None:
        yield Finding("token", "note", f"{settings.function} brings its own, if it needs one")
    else:
        yield Finding("token", "ok", "is set, and can be sent in a header; it is not shown")
    contact = settings.contact or "not set, and not needed for a site on this machine"
    yield Finding("contact", "ok" if settings.contact else "note", contact)


def _store_finding(settings: Settings, target: Any) -> Finding:
    try:
        store = open_store(settings.store)
        store.check(timeout=STORE_SECONDS)
        return _held(store, settings, target)
    except CrawlerError as error:
        return Finding("store", "wrong", str(error))


def _held(store: Store, settings: Settings, target: Any) -> Finding:
    """Compare what the store holds with what a run would add."""
    known = read_identity(store, timeout=STORE_SECONDS)
    if known is None:
        return Finding("store", "ok", f"{store.location} can be written, and is empty")
    wanted = identify(target, settings.base_url)
    for name in ("source", "host", "schema"):
        has, wants = getattr(known, name), getattr(wanted, name)
        if has != wants:
            words = f"{store.location} holds records of {name} {has!r}, a run would add {wants!r}"
            return Finding("store", "wrong", f"{words}: name another store (CRAWLER_STORE)")
    words = f"{store.location} can be written, and holds records of {known.source} ({known.host})"
    return Finding("store", "ok", words)


def _queue_finding(settings: Settings) -> Finding:
    if settings.queue is None:
        return Finding("queue", "note", "not set: fan_out is not available, all else is")
    if importlib.util.find_spec("google.cloud.tasks_v2") is None:
        return Finding("queue", "wrong", "google-cloud-tasks is not installed: pip install it")
    words = f"{settings.queue} calls back {settings.url or 'nobody'}"
    return Finding("queue", "ok", f"{words} as {settings.invoker or 'nobody'}")


def _site_findings(
    settings: Settings, target: Any, song_num: int, wall: Callable[[], datetime]
) -> Iterator[Finding]:
    """Ask for one song, without a second try, and look at what came back."""
    seen: list[requests.Response] = []
    results: list[Any] = []
    trouble: Exception | None = None
    before = wall()
    with requests.Session() as session:
        session.trust_env = False  # no proxy, no .netrc, as in a run
        session.headers["User-Agent"] = user_agent(settings.contact)
        session.hooks["response"].append(lambda response, *_a, **_k: seen.append(response))
        try:
            if isinstance(target, Source):
                request_song_info(session, song_num, results, source=target)
            else:
                target(session, song_num, results)
        except Exception as error:  # noqa: BLE001 - step 1 is anybody's code
            trouble = error
    yield _site_finding(song_num, seen, results, trouble)
    if seen:
        yield _clock_finding(seen[-1].headers.get("Date"), before, wall())
    if results and isinstance(target, FieldsSource):
        yield from _fields_findings(song_num, results[0][1])


def _site_finding(
    song_num: int, seen: list[requests.Response], results: list[Any], trouble: Exception | None
) -> Finding:
    status = seen[-1].status_code if seen else None
    if status in (404, 410) or isinstance(trouble, Missing):
        words = f"answers; it has no song {song_num}, which is nothing unusual"
        return Finding("site", "ok", words)
    if status in _STATUS_WORDS:
        return Finding("site", "wrong", _STATUS_WORDS[status])
    if results and trouble is None:
        took = f"{seen[-1].elapsed.total_seconds() * 1000:.0f} ms" if seen else "no request"
        return Finding("site", "ok", f"answers; song {song_num} was found in {took}")
    if isinstance(trouble, requests.RequestException):
        # The message of the cause may be long and repeat the address; its kind says enough.
        words = (
            f"cannot be reached ({type(trouble).__name__}): look at CRAWLER_BASE_URL, the network"
        )
        return Finding("site", "wrong", words)
    if isinstance(trouble, PageError):
        words = f"answers {status}, but song {song_num} is not as expected ({trouble})"
        return Finding("site", "wrong", words)
    why = "it appended nothing" if trouble is None else f"it raised {type(trouble).__name__}"
    return Finding("site", "wrong", f"step 1 did not find song {song_num}: {why}")


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


def _fields_findings(song_num: int, info: Mapping[str, Any]) -> Iterator[Finding]:
    absent = [name for name, value in info.items() if value is None]
    if absent:
        words = f"song {song_num} has no {', '.join(absent)}: null, or a name spelt wrongly?"
        yield Finding("fields", "note", words)
