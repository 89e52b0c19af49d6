"""The settings: one frozen record, read once at the edge from environment, `crawler.env` and options.

`python -m crawler.settings` prints the table of `docs/settings.md`.
"""

import difflib
import ipaddress
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from crawler.errors import SettingsError

MAX_SONG_NUM = 10**12
"""No song number above this is accepted anywhere: far beyond any catalogue, safe in every format."""

_TOKEN_NAMES = ("GENIUS_TOKEN", "GENIUS_ACCESS_TOKEN")  # the first wins
_ADDRESS = r"\A(?:https?://[\x21-\x7e]+|[\x21-\x7e]+@[\x21-\x7e]+)\Z"
_STORE = (
    r"\A(?:gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](?:/[^\x00-\x1f]*)?|(?!\w+://)[^\x00-\x1f]+)\Z"
)
_QUEUE = r"\Aprojects/[^/\s]+/locations/[^/\s]+/queues/[^/\s]+\Z"

SongNum = Annotated[int, Meta(ge=0, le=MAX_SONG_NUM)]


class Secret:
    """A string that shows itself only to who asks for it by `reveal()`, in no `repr`, log or JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def _env_name(field: str) -> str:
    return _TOKEN_NAMES[0] if field == "genius_token" else f"CRAWLER_{field.upper()}"


def _about(unit: str, meaning: str) -> Meta:
    return Meta(description=meaning, extra={"unit": unit})


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=_env_name):
    """How this deployment crawls; one field per environment variable, checked as a whole when read."""

    genius_token: Annotated[
        Secret | None,
        _about("", "Client access token of the Genius API; required for the built-in source."),
    ] = None
    store: Annotated[
        str,
        Meta(pattern=_STORE),
        _about("", "Where blocks live: `gs://bucket/prefix` or a folder; required in the cloud."),
    ] = "data/genius"
    base_url: Annotated[
        str, _about("URL", "Address of the site; https, plain http only on loopback.")
    ] = "https://api.genius.com"
    contact: Annotated[
        Annotated[str, Meta(pattern=_ADDRESS)] | None,
        _about("", "Mail address or URL told to the site; required unless it is on loopback."),
    ] = None
    rate: Annotated[
        float,
        Meta(ge=0, le=10_000),
        _about("requests/s", "Pace of this process over all runs; 0: as fast as it goes."),
    ] = 100.0
    connections: Annotated[
        int, Meta(ge=1, le=900), _about("connections", "Requests in flight at most.")
    ] = 64
    engine: Annotated[
        Literal["curl", "requests"] | None,
        _about("", "How requests are sent; unset: `curl` for a source, `requests` for a function."),
    ] = None
    function: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")] | None,
        _about("", "`module:name` of a step 1 function or source; unset: the Genius source."),
    ] = None
    time_budget_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)] | None,
        _about("s", "A run ends after this long; no limit on the command line unless given there."),
    ] = 1680.0
    max_range: Annotated[
        int, Meta(ge=1, le=MAX_SONG_NUM), _about("songs", "Longest range one request may ask for.")
    ] = 1_000_000
    first_song: Annotated[SongNum, _about("song number", "Where mode `next` begins.")] = 1
    last_song: Annotated[
        SongNum | None,
        _about("song number", "Where mode `next` ends; unset: the last one found so far."),
    ] = None
    robots: Annotated[
        Literal["obey", "ignore"] | None,
        _about("", "Whether robots.txt is asked; unset: for web pages yes, for the Genius API no."),
    ] = None
    max_requests_per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        _about("requests", "Requests per day (UTC) over all runs on this store; unset: no cap."),
    ] = None
    fields: Annotated[
        Annotated[
            tuple[Annotated[str, Meta(pattern=r"\A\w+(?:\.\w+)*\Z")], ...], Meta(min_length=1)
        ]
        | None,
        _about(
            "", "What is kept of a song: dotted names, comma-separated; unset: the default seven."
        ),
    ] = None
    keep_raw: Annotated[
        bool, _about("", "Whether the site's own JSON is kept beside the blocks.")
    ] = False
    queue: Annotated[
        Annotated[str, Meta(pattern=_QUEUE)] | None,
        _about("", "Task queue for fan-out: `projects/P/locations/L/queues/Q`."),
    ] = None
    url: Annotated[
        str | None,
        _about("URL", "Where the queue calls this function back; required with a queue."),
    ] = None
    invoker: Annotated[
        Annotated[str, Meta(pattern=r"\A[^@\s]+@[^@\s]+\Z")] | None,
        _about("", "Service account as which the queue calls; required with a queue."),
    ] = None
    shard_songs: Annotated[
        int,
        Meta(ge=1000, le=10_000_000, multiple_of=1000),
        _about("songs", "Length of one shard of a fanned-out range, whole blocks."),
    ] = 50_000


_ENV_NAMES = {field: _env_name(field) for field in Settings.__struct_fields__}


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
        SettingsError: With a code, the variable's name, and what is wanted.
    """
    given = _known(_env_file_values(env_file)) | _known(environ)
    given |= {_ENV_NAMES[field]: value for field, value in overrides.items()}
    settings = _convert(given)
    _check_addresses(settings)
    if for_site:
        _check_token(settings)
        _check_contact(settings)
    _check_queue(settings)
    if "K_SERVICE" in environ and _ENV_NAMES["store"] not in given:
        raise SettingsError(
            "store_missing",
            "CRAWLER_STORE",
            "CRAWLER_STORE is required in the cloud, such as gs://my-bucket/genius",
        )
    if settings.last_song is not None and settings.last_song < settings.first_song:
        raise _wanted(
            "last_song", f"at least CRAWLER_FIRST_SONG={settings.first_song}", settings.last_song
        )
    return settings


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _env_file_values(env_file: Path | None) -> dict[str, str]:
    if env_file is None or not env_file.is_file():
        return {}
    from dotenv import dotenv_values  # 10 ms, and no file is uploaded to the cloud

    try:
        # interpolate=False: a `$` in a token is a dollar, not somebody's variable
        values = dotenv_values(env_file, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "env_file_unreadable", env_file.name, f"{env_file.name} cannot be read: {error}"
        ) from None
    return {name: value or "" for name, value in values.items()}


def _known(environ: Mapping[str, str]) -> dict[str, Any]:
    """Pick our own variables, by their first name, without the empty ones."""
    known = set(_ENV_NAMES.values())
    for name in environ:
        if name.startswith("CRAWLER_") and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(
                "setting_unknown", name, f"{name} is not a setting; did you mean {nearest}?"
            )
    given: dict[str, Any] = {name: environ[name] for name in known if environ.get(name)}
    token = next((environ[name] for name in _TOKEN_NAMES if environ.get(name)), None)
    return given if token is None else given | {_TOKEN_NAMES[0]: token}


def _convert(given: dict[str, Any]) -> Settings:
    """Turn strings into typed fields, or raise for the first that is out of its bounds."""
    fields_name = _ENV_NAMES["fields"]
    if isinstance(given.get(fields_name), str):
        given[fields_name] = [part.strip() for part in given[fields_name].split(",")]
    try:
        return msgspec.convert(given, Settings, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        name = re.findall(r"\$\.(\w+)", str(error))[-1]
        row = next(row for row in settings_table() if row.name == name)
        field = next(field for field, env_name in _ENV_NAMES.items() if env_name == name)
        raise _wanted(field, row.wanted, given[name]) from None


def _decode_secret(_wanted: type, value: Any) -> Any:
    return value if isinstance(value, Secret) else Secret(str(value))


def _wanted(field: str, wanted: str, got: object) -> SettingsError:
    name = _ENV_NAMES[field]
    return SettingsError(f"{field}_malformed", name, f"{name} must be {wanted}, got {got!r:.100}")


def _check_token(settings: Settings) -> None:
    """Refuse a token that no header can carry; only the built-in source needs one at all."""
    if settings.function is not None:
        return
    name = _TOKEN_NAMES[0]
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


def _check_addresses(settings: Settings) -> None:
    _check_url("base_url", settings.base_url)
    if settings.url is not None:
        _check_url("url", settings.url)


def _check_url(field: str, url: str) -> None:
    """Refuse what is no plain address, and http to anywhere but this machine.

    The message never repeats the URL: one with a password in it is one of the mistakes.
    """
    name = _ENV_NAMES[field]
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
            name = _ENV_NAMES[field]
            raise SettingsError(
                f"{field}_missing", name, f"{name} is required where CRAWLER_QUEUE is set"
            )


class SettingRow(NamedTuple):
    """One line of the table of settings, as text."""

    name: str
    type: str
    unit: str
    default: str
    bounds: str
    meaning: str

    @property
    def wanted(self) -> str:
        """What is allowed, as one phrase for a message; of a text its meaning says it best."""
        if self.type == "text":
            return f"text ({self.meaning})"
        return f"{self.type}, {self.bounds}" if self.bounds else self.type


def settings_table() -> list[SettingRow]:
    """Describe every setting, in the struct's own order, from the struct itself."""
    info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(Settings))
    return [_row(field) for field in info.fields]


def settings_page() -> str:
    """Write the page `docs/settings.md`."""
    head = ["name", "type", "unit", "default", "bounds", "meaning"]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in settings_table()]
    table = [" | ".join(head), " | ".join("---" for _ in head), *lines]
    return _PAGE_HEAD + "".join(f"| {line} |\n" for line in table)


_PAGE_HEAD = """# Settings

Each is an environment variable, or a line `NAME=value` in a git-ignored `crawler.env` beside `main.py`.
An option of the command line wins over the environment, and that over the file; an empty value counts as unset.
They are read and checked once, before the first request; an unknown name that begins with `CRAWLER_` is an error.
`GENIUS_TOKEN` is also read as `GENIUS_ACCESS_TOKEN`.
This page is written by `python -m crawler.settings > docs/settings.md`.

"""


def _row(field: msgspec.inspect.Field) -> SettingRow:
    kind = field.type
    unit = meaning = ""
    while isinstance(kind, msgspec.inspect.Metadata):
        unit = (kind.extra or {}).get("unit", unit)
        meaning = (kind.extra_json_schema or {}).get("description", meaning)
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType))
    return SettingRow(
        field.encode_name, _type_word(kind), unit, _default_text(field), _bounds(kind), meaning
    )


def _type_word(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    words: dict[type[msgspec.inspect.Type], str] = {
        msgspec.inspect.IntType: "a whole number",
        msgspec.inspect.FloatType: "a number",
        msgspec.inspect.BoolType: "1 or 0",
        msgspec.inspect.VarTupleType: "names",
        msgspec.inspect.CustomType: "secret",
    }
    return words.get(type(kind), "text")


def _default_text(field: msgspec.inspect.Field) -> str:
    default = field.default
    if isinstance(default, bool | float):
        return f"{default:g}"
    return "" if default is None else str(default)


def _bounds(kind: msgspec.inspect.Type) -> str:
    """Say which numbers are allowed, in words; empty for what is no number."""
    if not isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        return ""
    parts = [
        f"{word} {bound:,}"
        for word, bound in (
            ("at least", kind.ge),
            ("above", kind.gt),
            ("at most", kind.le),
            ("a multiple of", kind.multiple_of),
        )
        if bound is not None
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.stdout.write(settings_page())
