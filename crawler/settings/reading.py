"""The settings are read once, at the edge: from environment, `crawler.env` and options."""

import difflib
import io
import ipaddress
import logging
import operator
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict
from urllib.parse import urlsplit

import msgspec

from crawler.errors import SettingsError
from crawler.settings.settings import GONE, SETTINGS, Secret, Settings
from crawler.source.declaration import Declaration
from crawler.source.declared import DeclaredSource, load_declaration, open_source

logger = logging.getLogger("crawler")


class SettingsArguments(TypedDict, total=False):
    """The settings as arguments of a Python call, for type checkers; a test compares the two."""

    token: str | Secret | None
    store: str | os.PathLike[str] | None
    base_url: str | None
    contact: str | None
    rate: float | None
    instances: int | None
    connections: int | None
    source: str | os.PathLike[str] | None
    function: str | None
    ca_file: str | os.PathLike[str] | None
    time_budget_seconds: float | None
    max_range: int | None
    first_song: int | None
    last_song: int | None
    robots: Literal["obey", "ignore"] | None
    max_requests_per_day: int | None
    fields: Sequence[str] | None
    keep_raw: bool | None
    queue: str | None
    url: str | None
    invoker: str | None
    shard_songs: int | None


_VARIABLES = {row.variable: row.field for row in SETTINGS.values()}
_KUBERNETES = re.compile(
    r"CRAWLER_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)\Z"
)
"""What Kubernetes sets in every pod beside a service named `crawler`, or `crawler-` and more.

Source: kubernetes.io/docs/concepts/services-networking/service, "Environment variables".
"""


def read_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    for_site: bool = True,
    **overrides: Any,
) -> Settings:
    """Read and check the settings; options win over the environment, and that over the file.

    An empty variable counts as unset. The environment is not changed.

    Args:
        environ: The process environment, with `K_SERVICE` in it when running in the cloud.
        env_file: A file of `NAME=value` lines; ignored where there is none.
        for_site: False for what only looks at the store: token and contact may then be absent.
        overrides: Fields of `Settings` by name, such as `rate=5`; None counts as given.

    Raises:
        SettingsError: Something is wrong: with a code, the variable's name and what is wanted of
            the first, and the others in `also`. What is malformed or unknown comes first, what is
            missing last.
    """
    problems: list[SettingsError] = []
    in_file = read_env_file(env_file)
    given = _known(in_file, problems) | _known(environ, problems) | _options(overrides, problems)
    settings = _convert(given, problems)
    declared = _declaration(settings, problems)
    if declared is not None:
        settings = _of_source(settings, declared, given, overrides, in_file | {**environ})
    problems += _misfits(settings, declared, given, for_site=for_site)
    if "K_SERVICE" in environ and "store" not in given:
        message = "CRAWLER_STORE is required in the cloud, such as gs://my-bucket/genius"
        problems.append(SettingsError("store_missing", "CRAWLER_STORE", message))
    if problems:
        problems[0].also = problems[1:]
        raise problems[0]
    return settings


def repeat_options(settings: Settings) -> list[str] | None:
    """Return the options by which a command crawls the same site in the same way as these settings.

    None where a function was handed in, which no command can name.
    """
    if settings.function is not None and settings.function.startswith("own:"):
        return None
    options = []
    usual = Settings()
    if settings.function is None and settings.source != usual.source:
        options += ["--source", settings.source]
    if settings.function is not None:
        options += ["--function", settings.function]
    own = usual.base_url if settings.function else load_declaration(settings.source).base_url
    if settings.base_url != own:
        options += ["--base-url", settings.base_url]
    return options


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def source_of(settings: Settings) -> DeclaredSource:
    """Make the declared source that settings name.

    Raises:
        SettingsError: Its file is wrong, or a field that is chosen is none.
    """
    return open_source(
        settings.source,
        settings.token.reveal() if settings.token else "",
        base_url=settings.base_url,
        fields=settings.fields,
    )


def contact_missing(url: str) -> SettingsError:
    """Make the error for a request to another machine that would name nobody."""
    why = "is required: a mail address or URL under which the site reaches you"
    return _missing("contact", f"{why} (the site is {urlsplit(url).hostname})")


def read_env_file(path: Path | None) -> dict[str, str]:
    """Read a file of `NAME=value` lines as values by name; an empty dict where there is none.

    A line that is none ends it, for the setting in it would silently have its default: a crawl at
    100 requests a second in place of the 3 that somebody wrote as `CRAWLER_RATE 3`.

    Raises:
        SettingsError: The file cannot be read, or one of its lines; the message names the line,
            and does not show it, since it may hold the token.
    """
    if path is None or not os.path.isfile(path):  # noqa: PTH113 - where nobody may look there is none
        return {}
    from dotenv.parser import parse_stream  # 10 ms, and no file is uploaded to the cloud

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path.name} cannot be read: {error}"
        raise SettingsError("env_file_unreadable", path.name, message) from None
    values = {}
    # Not dotenv_values: it goes on after a line that it cannot read. A `$` stays a dollar.
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            message = f"line {line.original.line} of {path.name} must be NAME=value"
            raise SettingsError("env_file_malformed", path.name, message)
        if line.key is not None:
            values[line.key] = line.value or ""
    return values


def _known(environ: Mapping[str, str], problems: list[SettingsError]) -> dict[str, Any]:
    """Pick the values of our own variables, by field, without the empty ones."""
    for name in environ:
        if name.startswith("CRAWLER_") and name not in _VARIABLES and not _KUBERNETES.match(name):
            gone = GONE.get(name.removeprefix("CRAWLER_").lower())
            if gone is not None:
                logger.warning("%s is ignored, and no setting any more: %s", name, gone)
                continue
            nearest = difflib.get_close_matches(name, _VARIABLES, n=1, cutoff=0)[0]
            message = f"{name} is not a setting; did you mean {nearest}?"
            problems.append(SettingsError("setting_unknown", name, message))
    given = {}
    for row in SETTINGS.values():
        value = next((environ[name] for name in (row.variable, *row.also) if environ.get(name)), "")
        if value:
            given[row.field] = value
    return given


def _options(overrides: Mapping[str, Any], problems: list[SettingsError]) -> dict[str, Any]:
    """Pick the options that are settings; a misspelt one is told what it may have meant."""
    for field in overrides.keys() - SETTINGS.keys():
        if field == "genius_token":  # its name in version 1.0, which had one source
            continue
        if field in GONE:
            logger.warning("%s is ignored, and no setting any more: %s", field, GONE[field])
            continue
        nearest = difflib.get_close_matches(field, SETTINGS, n=1)
        known = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(SETTINGS)}"
        message = f"{field} is not a setting; {known}"
        problems.append(SettingsError("setting_unknown", field, message))
    former = {"token": overrides["genius_token"]} if "genius_token" in overrides else {}
    return former | {field: value for field, value in overrides.items() if field in SETTINGS}


def _convert(given: Mapping[str, Any], problems: list[SettingsError]) -> Settings:
    """Turn strings into typed fields; one that is out of its bounds is told, and has its default."""
    fields = {}
    for field, value in given.items():
        if field == "fields" and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]  # noqa: PLW2901 - as a file has it
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)  # noqa: PLW2901
        elif not isinstance(value, bool | float | str) and hasattr(value, "__index__"):
            value = operator.index(value)  # noqa: PLW2901 - NumPy's whole numbers
        try:
            fields[field] = msgspec.convert(
                value, SETTINGS[field].kind, strict=False, dec_hook=_decode_secret
            )
        except msgspec.ValidationError:
            problems.append(_malformed(field, SETTINGS[field].wanted, value))
    return Settings(**fields)


def _decode_secret(_wanted: type, value: Any) -> Any:
    return value if isinstance(value, Secret) else Secret(str(value))


def _declaration(settings: Settings, problems: list[SettingsError]) -> Declaration | None:
    """Read what the source declares; None where it cannot be read, or a function takes its place."""
    if settings.function is not None:
        if settings.source != Settings().source:
            message = "CRAWLER_SOURCE and CRAWLER_FUNCTION both say what is crawled: set one"
            problems.append(SettingsError("source_unfit", "CRAWLER_SOURCE", message))
        return None
    try:
        return load_declaration(settings.source)
    except SettingsError as error:
        problems.append(error)
        return None


def _of_source(
    settings: Settings,
    declared: Declaration,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Settings:
    """Fill in what the source says: its address, a store of its name, the token that it names."""
    changes: dict[str, Any] = {}
    if given.get("base_url") is None:
        changes["base_url"] = declared.base_url
    if given.get("store") is None:
        changes["store"] = f"data/{declared.name}"
    if declared.token != SETTINGS["token"].variable and overrides.get("token") is None:
        token = environ.get(declared.token) if declared.token else None
        changes["token"] = Secret(token) if token else None
    return msgspec.structs.replace(settings, **changes)


def _misfits(
    settings: Settings,
    declared: Declaration | None,
    given: Mapping[str, Any],
    *,
    for_site: bool,
) -> Iterator[SettingsError]:
    """Find what no single setting shows: which need each other, and which addresses are safe."""
    yield from _url_problems("base_url", settings.base_url)
    if settings.url is not None:
        yield from _url_problems("url", settings.url)
    last, first = settings.last_song, settings.first_song
    if last is not None and last < first:
        yield _malformed("last_song", f"at least CRAWLER_FIRST_SONG={first}", last)
    if settings.queue is not None and not (settings.url and is_loopback(settings.url)):
        for field in ("url", "invoker"):  # where to call back, and as whom
            if getattr(settings, field) is None:
                yield _missing(field, "is required where CRAWLER_QUEUE is set")
    if for_site:
        if settings.ca_file is not None and not Path(settings.ca_file).is_file():
            yield _malformed("ca_file", "a file of certificates", settings.ca_file)
        if declared is not None and declared.token is not None:
            yield from _token_problems(settings, declared.token)
        knows_site = settings.function is None or "base_url" in given  # else a function alone knows
        if settings.contact is None and knows_site and not is_loopback(settings.base_url):
            yield contact_missing(settings.base_url)


def _token_problems(settings: Settings, name: str) -> Iterator[SettingsError]:
    """Find what no header can carry; the message never shows the token."""
    token = settings.token.reveal() if settings.token else ""
    if not token.strip():
        message = f"{name} is missing or empty: the source {settings.source} asks with a token"
        if name == SETTINGS["token"].variable:
            message += "; create a client access token at genius.com/api-clients"
        yield SettingsError("token_missing", name, message)
    elif not re.fullmatch(r"[\x21-\x7e]+", token):
        message = (
            f"{name} must be printable ASCII without spaces or line ends; its value is not shown"
        )
        yield SettingsError("token_malformed", name, message)


def _url_problems(field: str, url: str) -> Iterator[SettingsError]:
    """Find what is no plain address, and http to anywhere but this machine.

    The message never repeats the URL: one with a password in it is one of the mistakes.
    """
    name = SETTINGS[field].variable
    if not _is_plain_url(url):
        message = f"{name} must be an http(s) address without user name, query and fragment"
        yield SettingsError(f"{field}_malformed", name, message)
    elif urlsplit(url).scheme != "https" and not is_loopback(url):
        message = f"{name} must be https; plain http only on loopback"
        yield SettingsError(f"{field}_insecure", name, message)


def _is_plain_url(url: str) -> bool:
    if not re.fullmatch(r"https?://[\x21-\x7e]+", url) or set("@?#\\") & set(url):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _malformed(field: str, wanted: str, got: object) -> SettingsError:
    """Make the error for a setting that is not what is wanted; what came is shown cut short."""
    name = SETTINGS[field].variable
    return SettingsError(f"{field}_malformed", name, f"{name} must be {wanted}, got {got!r:.100}")


def _missing(field: str, why: str) -> SettingsError:
    name = SETTINGS[field].variable
    return SettingsError(f"{field}_missing", name, f"{name} {why}")
