"""The one list of settings: each field with type, bounds, unit, meaning, option and deployment.

Options of the command line, `deploy.env`, the function's environment and `docs/settings.md` are
derived from `Settings`: a new setting is one field here.
"""

from typing import Annotated, Any, Literal, NamedTuple, cast, get_type_hints

import msgspec
from msgspec import Meta

MAX_SONG_NUM = 10**12
"""No song number above this is accepted anywhere: far beyond any catalogue, safe in every format."""

_ADDRESS = r"\A(?:https?://[\x21-\x7e]+|[\x21-\x7e]+@[\x21-\x7e]+)\Z"
_STORE = r"\A[^\x00-\x1f]+\Z"  # `crawler.store.opening` knows the rest
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


def _about(
    meaning: str,
    wanted: str = "",
    *,
    unit: str = "",
    metavar: str | None = None,
    also: tuple[str, ...] = (),
    deployed: bool = True,
) -> Meta:
    """Describe a setting.

    Args:
        meaning: One line, which ends with a full stop.
        wanted: Completes "must be", where type and bounds do not say it.
        unit: Of its value.
        metavar: Stands for the value in a help text; a setting without one is no option.
        also: Other variables that are read when its own is not set, the first wins.
        deployed: Whether it stands in `deploy.env`, under its own word, and goes to the function.
    """
    extra = {"unit": unit, "wanted": wanted, "metavar": metavar, "also": also, "deployed": deployed}
    return Meta(description=meaning, extra=extra)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How this deployment crawls; one field per environment variable, checked as a whole when read."""

    token: Annotated[
        Secret | None,
        _about(
            "The source's token, in the variable that it names; required where it names one.",
            also=("GENIUS_ACCESS_TOKEN",),
            deployed=False,
        ),
    ] = None
    store: Annotated[
        str,
        Meta(pattern=_STORE),
        _about(
            "Where blocks live: `gs://bucket/prefix` or a folder, `data/` and the source's name "
            "where unset; required in the cloud.",
            "gs://bucket/prefix or a folder",
            metavar="WHERE",
            deployed=False,
        ),
    ] = "data/genius"
    base_url: Annotated[
        str,
        _about(
            "Address of the site; https, plain http only on loopback; unset: the source's own.",
            metavar="URL",
            unit="URL",
        ),
    ] = "https://api.genius.com"
    contact: Annotated[
        Annotated[str, Meta(pattern=_ADDRESS)] | None,
        _about(
            "Mail address or URL told to the site; required unless it is on loopback.",
            "a mail address or URL",
        ),
    ] = None
    rate: Annotated[
        float,
        Meta(ge=0, le=10_000),
        _about("Pace of this process over all runs; 0: no limit.", metavar="N", unit="requests/s"),
    ] = 100.0
    instances: Annotated[
        int,
        Meta(ge=1, le=1000),
        _about(
            "How many crawl the site at once; what it announces or its source allows is divided by it.",
            deployed=False,
            unit="instances",
        ),
    ] = 1
    connections: Annotated[
        int,
        Meta(ge=1, le=900),
        _about("Requests in flight at most.", metavar="N", unit="connections"),
    ] = 64
    source: Annotated[
        str,
        Meta(pattern=r"\A(?:[a-z][a-z0-9_-]*|[^\x00-\x1f]*\.toml)\Z"),
        _about(
            "What a page is: a built-in source by its name, or a `.toml` file that declares one.",
            "the name of a built-in source, or a file that ends in .toml",
            metavar="NAME|FILE",
        ),
    ] = "genius"
    function: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")] | None,
        _about(
            "`module:name` of a step 1 function or source class, instead of a declared source.",
            "module:name of a step 1 function or source",
            metavar="MODULE:NAME",
        ),
    ] = None
    ca_file: Annotated[
        Annotated[str, Meta(pattern=r"\A[^\x00]+\Z")] | None,
        _about(
            "File of the certificate authorities to trust; unset: those that browsers trust.",
            "a file of certificates",
            metavar="FILE",
            also=("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"),
            deployed=False,
        ),
    ] = None
    time_budget_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=86_400)] | None,
        _about(
            "A run ends after this long; no limit on the command line unless given there.",
            metavar="SECONDS",
            unit="s",
        ),
    ] = 1680.0
    max_range: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SONG_NUM)] | None,
        _about(
            "Longest range one request may ask for; unset: 1,000,000 for the function, else no limit.",
            unit="songs",
        ),
    ] = None
    first_song: Annotated[SongNum, _about("Where mode `next` begins.", unit="song number")] = 1
    last_song: Annotated[
        SongNum | None,
        _about("Where mode `next` ends; unset: the last one found so far.", unit="song number"),
    ] = None
    robots: Annotated[
        Literal["obey", "ignore"] | None,
        _about("Whether robots.txt is asked; unset: for web pages yes, for JSON no."),
    ] = None
    max_requests_per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        _about(
            "Requests per day (UTC) of a run and those ended on this store before it; others under "
            "way and killed ones are not counted; unset: no cap.",
            unit="requests",
        ),
    ] = None
    fields: Annotated[
        Annotated[
            tuple[Annotated[str, Meta(pattern=r"\A\w+(?:\.\w+)*\Z")], ...], Meta(min_length=1)
        ]
        | None,
        _about(
            "What is kept of a song: dotted names, comma-separated; unset: what the source declares.",
            "dotted names with commas between them",
        ),
    ] = None
    keep_raw: Annotated[bool, _about("Whether what the site sent is kept beside the blocks.")] = (
        False
    )
    queue: Annotated[
        Annotated[str, Meta(pattern=_QUEUE)] | None,
        _about(
            "Task queue for fan-out: `projects/P/locations/L/queues/Q`.",
            "projects/P/locations/L/queues/Q",
            deployed=False,
        ),
    ] = None
    url: Annotated[
        str | None,
        _about(
            "Where the queue calls this function back; required with a queue.",
            deployed=False,
            unit="URL",
        ),
    ] = None
    invoker: Annotated[
        Annotated[str, Meta(pattern=r"\A[^@\s]+@[^@\s]+\Z")] | None,
        _about(
            "Service account as which the queue calls; required with a queue.",
            "the mail address of a service account",
            deployed=False,
        ),
    ] = None
    shard_songs: Annotated[
        int,
        Meta(ge=1000, le=10_000_000, multiple_of=1000),
        _about("Length of one shard of a fanned-out range, whole blocks.", unit="songs"),
    ] = 50_000


GONE = {
    "engine": "there is one way to send requests, and nothing to choose",
    "cpu": "no run estimates its cost any more",
    "memory_mib": "no run estimates its cost any more",
}
"""Settings of the version before, by field, with why: told and ignored for one version."""


class Setting(NamedTuple):
    """One setting, as everything that is derived from the list sees it."""

    field: str
    """Its word: the field of `Settings`, and the argument of `crawl()`."""
    variable: str
    """The environment variable, such as `CRAWLER_RATE`."""
    also: tuple[str, ...]
    """Variables that are read where its own is not set."""
    option: str | None
    """The option of the command line, such as `--rate`; None: there is none."""
    metavar: str | None
    """What stands for the value in a help text."""
    deploy_name: str | None
    """The variable of `deploy.env` whose value goes to the function; None: it is not passed on
    under a name of its own, because `deploy.sh` computes it or because it has no place there."""
    kind: Any
    """The type with its bounds, for `msgspec.convert` and for a record derived from this one."""
    type: str
    """The type in words."""
    unit: str
    default: str
    """The default as text; empty for None."""
    bounds: str
    meaning: str
    """What it is for: one line."""
    wanted: str
    """What is allowed, as one phrase that completes "must be"."""


def environment_of(values: dict[str, Any]) -> dict[str, str]:
    """Return the variables, as text, that make `read_settings` read these fields; None is left out."""
    given = {field: value for field, value in values.items() if value is not None}
    return {SETTINGS[field].variable: _text(value) for field, value in given.items()}


def _text(value: Any) -> str:
    if isinstance(value, bool | float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _setting(field: msgspec.inspect.Field, hint: Any) -> Setting:
    """Read all that is known of a field from its type."""
    kind, about, meaning = field.type, dict[str, Any](), ""
    while isinstance(kind, msgspec.inspect.Metadata):
        about |= kind.extra or {}
        meaning = (kind.extra_json_schema or {}).get("description", meaning)
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType))
    word, bounds, name = _type_word(kind), _bounds(kind), field.name
    return Setting(
        field=name,
        variable="GENIUS_TOKEN" if name == "token" else f"CRAWLER_{name.upper()}",
        also=about["also"],
        option=f"--{name.replace('_', '-')}" if about["metavar"] else None,
        metavar=about["metavar"],
        deploy_name=name.upper() if about["deployed"] else None,
        kind=hint,
        type=word,
        unit=about["unit"],
        default="" if field.default is None else _text(field.default),
        bounds=bounds,
        meaning=meaning,
        wanted=about["wanted"] or (f"{word}, {bounds}" if bounds else word),
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


def _bounds(kind: msgspec.inspect.Type) -> str:
    """Return which numbers are allowed, in words; empty for what is no number."""
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


_HINTS = get_type_hints(Settings, include_extras=True)
_FIELDS = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(Settings)).fields

SETTINGS = {field.name: _setting(field, _HINTS[field.name]) for field in _FIELDS}
"""Every setting by its word, in the order of `Settings`."""
