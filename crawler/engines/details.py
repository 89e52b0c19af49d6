"""The line that says what went wrong with one attempt: short, on one line, without our secrets."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from crawler.logs import one_line, redact

MAX_DETAIL = 200
"""Characters."""

_PLAIN_HEADERS = {
    "accept",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "host",
    "range",
    "referer",
    "user-agent",
}
_SHORTEST_SECRET = 6  # characters; to blot out less would blot out words


def secrets_in(headers: Mapping[str, Any], url: str = "") -> list[str]:
    """List what a request carries that must not be told, the longest first.

    Args:
        headers: As sent. Of `Authorization: Bearer abc` both the whole value and `abc` are secret.
        url: Its query may hold a key; only the values are secret.
    """
    values = [str(value) for name, value in headers.items() if name.lower() not in _PLAIN_HEADERS]
    words = {part for value in values for part in (value, *value.split())}
    if "?" in url:
        words |= {value for _, value in parse_qsl(urlsplit(url).query)}
    return sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True)


def detail_of(text: str, secrets: Iterable[str] = ()) -> str:
    """Make a detail of any text: what the site or somebody's function said may be in it."""
    return one_line(redact(text[: 10 * MAX_DETAIL], secrets))[:MAX_DETAIL]


def in_words(error: BaseException) -> str:
    """Say which exception it was, and what it says."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - `__str__` of anybody's exception
        return type(error).__name__
