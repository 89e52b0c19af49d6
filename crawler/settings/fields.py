"""The settings themselves: one frozen record, each field with its type, bounds, unit and meaning."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

MAX_SONG_NUM = 10**12
"""No song number above this is accepted anywhere: far beyond any catalogue, safe in every format."""

TOKEN_NAMES = ("GENIUS_TOKEN", "GENIUS_ACCESS_TOKEN")
"""Where the token is looked for; the first wins."""

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
    return TOKEN_NAMES[0] if field == "genius_token" else f"CRAWLER_{field.upper()}"


def _about(unit: str, meaning: str, wanted: str = "") -> Meta:
    """Describe a setting; `wanted` completes "must be", where type and bounds do not say it."""
    return Meta(description=meaning, extra={"unit": unit, "wanted": wanted})


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename=_env_name):
    """How this deployment crawls; one field per environment variable, checked as a whole when read."""

    genius_token: Annotated[
        Secret | None,
        _about("", "Client access token of the Genius API; required for the built-in source."),
    ] = None
    store: Annotated[
        str,
        Meta(pattern=_STORE),
        _about(
            "",
            "Where blocks live: `gs://bucket/prefix` or a folder; required in the cloud.",
            "gs://bucket/prefix or a folder",
        ),
    ] = "data/genius"
    base_url: Annotated[
        str, _about("URL", "Address of the site; https, plain http only on loopback.")
    ] = "https://api.genius.com"
    contact: Annotated[
        Annotated[str, Meta(pattern=_ADDRESS)] | None,
        _about(
            "",
            "Mail address or URL told to the site; required unless it is on loopback.",
            "a mail address or URL",
        ),
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
        _about(
            "",
            "`module:name` of a step 1 function or source; unset: the Genius source.",
            "module:name of a step 1 function or source",
        ),
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
        _about(
            "requests",
            "Requests per day (UTC) of a run and those ended on this store before it; others under "
            "way and killed ones are not counted; unset: no cap.",
        ),
    ] = None
    fields: Annotated[
        Annotated[
            tuple[Annotated[str, Meta(pattern=r"\A\w+(?:\.\w+)*\Z")], ...], Meta(min_length=1)
        ]
        | None,
        _about(
            "",
            "What is kept of a song: dotted names, comma-separated; unset: the default seven.",
            "dotted names with commas between them",
        ),
    ] = None
    keep_raw: Annotated[
        bool, _about("", "Whether the site's own JSON is kept beside the blocks.")
    ] = False
    queue: Annotated[
        Annotated[str, Meta(pattern=_QUEUE)] | None,
        _about(
            "",
            "Task queue for fan-out: `projects/P/locations/L/queues/Q`.",
            "projects/P/locations/L/queues/Q",
        ),
    ] = None
    url: Annotated[
        str | None,
        _about("URL", "Where the queue calls this function back; required with a queue."),
    ] = None
    invoker: Annotated[
        Annotated[str, Meta(pattern=r"\A[^@\s]+@[^@\s]+\Z")] | None,
        _about(
            "",
            "Service account as which the queue calls; required with a queue.",
            "the mail address of a service account",
        ),
    ] = None
    shard_songs: Annotated[
        int,
        Meta(ge=1000, le=10_000_000, multiple_of=1000),
        _about("songs", "Length of one shard of a fanned-out range, whole blocks."),
    ] = 50_000
    cpu: Annotated[
        Annotated[float, Meta(gt=0, le=8)] | None,
        _about("vCPU", "Of this instance, for the estimate of a run's cost; unset: no estimate."),
    ] = None
    memory_mib: Annotated[
        Annotated[int, Meta(ge=128, le=32_768)] | None,
        _about("MiB", "Of this instance, for the same estimate; `deploy.sh` sets both."),
    ] = None


ENV_NAMES = {field: _env_name(field) for field in Settings.__struct_fields__}
"""The environment variable of each field."""
