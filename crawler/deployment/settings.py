"""The settings of a deployment: one frozen record, each variable of `deploy.env` with its bounds."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from crawler.deployment.cost import SIZES, Size, size_for, worst_day
from crawler.deployment.schedule import Schedule, make_schedule

_NAME = r"\A[a-z](?:[a-z0-9-]*[a-z0-9])?\Z"

CPU_WANTED = ", ".join(f"{size.cpu:g}" for size in SIZES[:-1]) + f" or {SIZES[-1].cpu:g}"


def _about(meaning: str, wanted: str = "") -> Meta:
    return Meta(description=meaning, extra={"wanted": wanted})


class Deployment(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """What is deployed; one field per variable of `deploy.env`, by the same word."""

    project_id: Annotated[
        str,
        Meta(pattern=r"\A[a-z][a-z0-9-]{4,28}[a-z0-9]\Z"),
        _about("Project that pays.", "a project id, such as my-project-123"),
    ]
    region: Annotated[
        str,
        Meta(pattern=r"\A[a-z]+-[a-z]+\d+\Z"),
        _about("Where function, bucket and schedule live.", "a region, such as us-central1"),
    ]
    bucket: Annotated[
        str,
        Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]\Z"),
        _about("Bucket for the songs, made if it is not there.", "a bucket name without gs://"),
    ]
    contact: Annotated[
        str,
        Meta(pattern=r"\A(?:https?://[^\s;]+|[^\s;@]+@[^\s;@]+)\Z"),
        _about("Told to the site, so that it can reach you.", "a mail address or URL"),
    ]
    rate: Annotated[
        float,
        Meta(gt=0, le=10_000),
        _about(
            "Requests per second over all instances; what the site allows.",
            "a number above 0, at most 10000",
        ),
    ]
    service: Annotated[
        str,
        Meta(pattern=_NAME, max_length=21),
        _about(
            "Name of the function, and beginning of all other names.",
            "at most 21 small letters, digits and hyphens",
        ),
    ] = "song-crawler"
    prefix: Annotated[
        str,
        Meta(pattern=r"\A[^\s;/]+(?:/[^\s;/]+)*\Z"),
        _about("Where in the bucket.", "a path without a slash at its ends"),
    ] = "genius"
    first_song: Annotated[
        int, Meta(ge=0, le=10**12), _about("First song number.", "a whole number")
    ] = 1
    last_song: Annotated[
        Annotated[int, Meta(ge=0, le=10**12)] | None,
        _about("Last song number; unset: on and on, with what is new.", "a whole number"),
    ] = None
    max_requests_per_day: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        _about("Cap over all runs of a day (UTC); unset: none.", "a whole number above 0"),
    ] = None
    max_instances: Annotated[
        int,
        Meta(ge=1, le=100),
        _about("Instances at most; the rate is divided by it.", "a whole number from 1 to 100"),
    ] = 1
    time_budget_seconds: Annotated[
        int,
        Meta(ge=60, le=1680),
        _about("A run ends after this long.", "whole seconds from 60 to 1680"),
    ] = 1680
    connections: Annotated[
        int,
        Meta(ge=1, le=900),
        _about("Requests under way at once.", "a whole number from 1 to 900"),
    ] = 64
    engine: Annotated[
        Literal["curl", "requests"] | None,
        _about("How requests are sent; unset: what fits.", "curl or requests"),
    ] = None
    base_url: Annotated[
        str,
        Meta(pattern=r"\Ahttps://[^\s;]+\Z"),
        _about("Address of the site.", "an https address"),
    ] = "https://api.genius.com"
    function: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z")] | None,
        _about("Your own step 1 function or source, uploaded too.", "module:name"),
    ] = None
    function_requirements: Annotated[
        str | None, _about("File with the packages it needs.", "a file name")
    ] = None
    fields: Annotated[
        str | None,
        _about(
            "What is kept of a song; unset: the default seven.", "dotted names with commas between"
        ),
    ] = None
    keep_raw: Annotated[
        bool | None,
        _about("Whether the site's own JSON is kept beside the blocks; unset: no.", "1 or 0"),
    ] = None
    max_range: Annotated[
        Annotated[int, Meta(ge=1, le=10**12)] | None,
        _about("Longest range one request may ask for; unset: 1000000.", "a whole number above 0"),
    ] = None
    robots: Annotated[
        Literal["obey", "ignore"] | None,
        _about("Whether robots.txt is asked; unset: for web pages.", "obey or ignore"),
    ] = None
    secret: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z0-9_-]{1,255}\Z"),
        _about("Name of the token in Secret Manager; none: the site wants none.", "a name or none"),
    ] = "genius-token"  # noqa: S105 - the name under which it is kept, not the token
    token_file: Annotated[
        str | None, _about("File with the token; unset: standard input.", "a file name")
    ] = None
    schedule: Annotated[
        Annotated[str, Meta(pattern=r"\A\S+(?: \S+){4}\Z")] | None,
        _about("Cron text; unset: computed.", "five fields of cron with one blank between them"),
    ] = None
    time_zone: Annotated[
        str,
        Meta(pattern=r"\A[A-Za-z_+-]+(?:/[\w+-]+)*\Z"),
        _about("Of the schedule.", "a time zone, such as Europe/Vienna"),
    ] = "Etc/UTC"
    cpu: Annotated[
        float | None,
        _about("vCPUs of an instance; unset: what holds the rate.", CPU_WANTED),
    ] = None
    memory_mib: Annotated[
        Annotated[int, Meta(ge=256, le=32768)] | None,
        _about("Memory of an instance, MiB; unset: what fits.", "a whole number from 256"),
    ] = None
    queue: Annotated[
        Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,100}\Z")] | None,
        _about("Task queue for fan-out, made if it is not there; unset: none.", "a name"),
    ] = None
    shard_songs: Annotated[
        int,
        Meta(ge=1000, le=10_000_000, multiple_of=1000),
        _about("Songs per shard of a fanned-out range.", "a multiple of 1000"),
    ] = 50_000
    alert_email: Annotated[
        Annotated[str, Meta(pattern=r"\A[^\s@]+@[^\s@]+\Z")] | None,
        _about("Who is told when it stops; unset: the contact.", "a mail address"),
    ] = None

    @property
    def rate_per_instance(self) -> float:
        """Requests per second of one instance."""
        return self.rate / self.max_instances

    @property
    def size(self) -> Size:
        """How big an instance is: what was given, the rest computed."""
        engine = self.engine or ("requests" if self.function else "curl")
        fit = size_for(self.rate_per_instance, engine)
        return Size(self.cpu or fit.cpu, self.memory_mib or fit.memory_mib)

    @property
    def told(self) -> str | None:
        """Who gets the alerts: a mail address, or nobody."""
        return self.alert_email or (self.contact if "://" not in self.contact else None)

    def schedule_at(self, now: datetime) -> Schedule:
        """Compute the schedule of a crawl that begins now."""
        last = self.last_song
        return make_schedule(
            None if last is None else last - self.first_song + 1,
            rate=self.rate_per_instance,
            budget_seconds=self.time_budget_seconds,
            max_requests_per_day=self.max_requests_per_day,
            now=now,
        )

    def worst_day(self) -> float:
        """Estimate the dearest day, in US dollars."""
        return worst_day(
            self.size,
            rate=self.rate,
            instances=self.max_instances,
            max_requests_per_day=self.max_requests_per_day,
        )


VARIABLES = {field.encode_name: field.name for field in msgspec.structs.fields(Deployment)}
"""The field of each variable."""
