"""The doctor: looks at token, store, queue, site and clock, and says in words what is wrong."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crawler.doctor.trial import Finding, try_step_1
from crawler.errors import CrawlerError, SettingsError
from crawler.run.functions import identify, target_of
from crawler.settings.reading import Settings, read_settings
from crawler.source.source import traits_of
from crawler.store.contract import Store
from crawler.store.coverage import odd_times
from crawler.store.opening import open_store, read_identity

STORE_SECONDS = 30.0


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
    yield _store_finding(settings, target, wall())
    yield _queue_finding(settings)
    if trouble is None:
        known = traits_of(target).canary
        asked = song_num if song_num is not None else known or settings.first_song
        token = settings.token
        yield from try_step_1(
            target,
            asked,
            contact=settings.contact,
            ca_file=settings.ca_file,
            wall=wall,
            secrets=[token.reveal()] if token else [],
        )
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
    elif settings.token is None:
        yield Finding("token", "ok", f"none is needed for {settings.source}")
    else:
        yield Finding("token", "ok", "is set, and can be sent in a header; it is not shown")
    contact = settings.contact or "not set, and not needed for a site on this machine"
    yield Finding("contact", "ok" if settings.contact else "note", contact)


def _store_finding(settings: Settings, target: Any, now: datetime) -> Finding:
    try:
        store = open_store(settings.store)
        store.check(timeout=STORE_SECONDS)
        return _held(store, settings, target, now)
    except CrawlerError as error:
        return Finding("store", "wrong", str(error))


def _held(store: Store, settings: Settings, target: Any, now: datetime) -> Finding:
    """Compare what the store holds with what a run would add."""
    known = read_identity(store, timeout=STORE_SECONDS)
    if known is None:
        return Finding("store", "ok", f"{store.location} can be written, and is empty")
    wanted = identify(target, settings.base_url)
    for name in ("source", "host", "schema"):
        has, wants = getattr(known, name), getattr(wanted, name)
        if has != wants and not (name == "host" and "" in (has, wants)):
            words = f"{store.location} holds records of {name} {has!r}, a run would add {wants!r}"
            return Finding("store", "wrong", f"{words}: name another store (CRAWLER_STORE)")
    words = f"{store.location} can be written, and holds records of {known.source} ({known.host})"
    odd = odd_times(store.list_blocks(timeout=STORE_SECONDS), now)
    if odd:
        words = (
            f"{words}; songs {odd[0][0]} to {odd[-1][1] - 1} hold times that cannot be, of a machine "
            f"whose clock was wrong: crawl them with --refresh-older-than-days 0"
        )
    return Finding("store", "note" if odd else "ok", words)


def _queue_finding(settings: Settings) -> Finding:
    if settings.queue is None:
        return Finding("queue", "note", "not set: fan_out is not available, all else is")
    if importlib.util.find_spec("google.cloud.tasks_v2") is None:
        return Finding("queue", "wrong", "google-cloud-tasks is not installed: pip install it")
    # Not asked: who runs this may only put tasks into it, and a task would be a real order.
    words = f"{settings.queue} calls back {settings.url or 'nobody'}"
    words = f"{words} as {settings.invoker or 'nobody'}: the settings are complete"
    return Finding("queue", "note", f"{words}; the queue itself was not asked")
