"""What no single setting can say: which ones need each other, and which addresses are safe."""

import ipaddress
import re
from urllib.parse import urlsplit

from crawler.errors import SettingsError
from crawler.settings.fields import ENV_NAMES, TOKEN_NAMES, Settings


def check_settings(settings: Settings, *, for_site: bool) -> None:
    """Refuse settings that do not fit together.

    Args:
        settings: Each within its own bounds.
        for_site: Whether the site will be asked, which takes a token and a contact.

    Raises:
        SettingsError: For the first that is wrong.
    """
    _check_url("base_url", settings.base_url)
    if settings.url is not None:
        _check_url("url", settings.url)
    if for_site:
        _check_token(settings)
        _check_contact(settings)
    _check_queue(settings)
    if settings.last_song is not None and settings.last_song < settings.first_song:
        raise malformed(
            "last_song", f"at least CRAWLER_FIRST_SONG={settings.first_song}", settings.last_song
        )


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def malformed(field: str, wanted: str, got: object) -> SettingsError:
    """Make the error for a setting that is not what is wanted; what came is shown cut short."""
    name = ENV_NAMES[field]
    return SettingsError(f"{field}_malformed", name, f"{name} must be {wanted}, got {got!r:.100}")


def _check_token(settings: Settings) -> None:
    """Refuse a token that no header can carry; only the built-in source needs one at all."""
    if settings.function is not None:
        return
    name = TOKEN_NAMES[0]
    token = settings.genius_token.reveal() if settings.genius_token else ""
    if not token.strip():
        raise SettingsError(
            "token_missing",
            name,
            f"{name} is missing or empty: create a client access token at genius.com/api-clients",
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SettingsError(
            "token_malformed",
            name,
            f"{name} must be printable ASCII without spaces or line ends; its value is not shown",
        )


def _check_url(field: str, url: str) -> None:
    """Refuse what is no plain address, and http to anywhere but this machine.

    The message never repeats the URL: one with a password in it is one of the mistakes.
    """
    name = ENV_NAMES[field]
    if not _is_plain_url(url):
        raise SettingsError(
            f"{field}_malformed",
            name,
            f"{name} must be an http(s) address without user name, query and fragment",
        )
    if urlsplit(url).scheme != "https" and not is_loopback(url):
        raise SettingsError(
            f"{field}_insecure", name, f"{name} must be https; plain http only on loopback"
        )


def _is_plain_url(url: str) -> bool:
    if not re.fullmatch(r"https?://[\x21-\x7e]+", url) or set("@?#\\") & set(url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_contact(settings: Settings) -> None:
    if settings.contact is None and not is_loopback(settings.base_url):
        raise SettingsError(
            "contact_missing",
            "CRAWLER_CONTACT",
            "CRAWLER_CONTACT is required: a mail address or URL under which the site reaches you",
        )


def _check_queue(settings: Settings) -> None:
    """A queue must know where to call back, and as whom, unless it calls this machine."""
    if settings.queue is None:
        return
    for field, value in (("url", settings.url), ("invoker", settings.invoker)):
        if value is None and not (settings.url and is_loopback(settings.url)):
            name = ENV_NAMES[field]
            raise SettingsError(
                f"{field}_missing", name, f"{name} is required where CRAWLER_QUEUE is set"
            )
