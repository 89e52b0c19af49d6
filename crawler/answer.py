"""The answer of a run: one struct, and the closed list of reasons for which a run ends."""

from collections.abc import Mapping
from html import escape
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Mode = Literal["range", "next", "new"]

StoppedBy = Literal[
    "done",
    "time_budget",
    "signal",
    "stop_order",
    "paused",
    "daily_cap",
    "barred",
    "unauthorized",
    "circuit",
    "store",
]
"""Why a run ended."""

Note = Literal["odd", "outside_session", "unproven"]
"""What an answer may note: fields that were not what the source declares; pages that a step 1
function fetched otherwise than by its session; missing numbers that nothing proved."""


class Stop(msgspec.Struct, frozen=True):
    """What follows from one reason for ending a run.

    Attributes:
        status: HTTP status of the function's answer.
        severity: Severity of the `run_finished` log line.
        repeat: Whether delivering the same request again is worth while at once.
        meaning: For people, one sentence; Markdown.
    """

    status: int
    severity: Literal["INFO", "NOTICE", "WARNING", "ERROR"]
    repeat: bool
    meaning: str


STOPS: dict[StoppedBy, Stop] = {
    "done": Stop(200, "INFO", False, "Every number of the range was asked or settled before."),
    "time_budget": Stop(200, "NOTICE", True, "The time budget ran out; the rest was not asked."),
    "signal": Stop(200, "NOTICE", True, "SIGTERM or Ctrl-C; what was settled is stored."),
    "stop_order": Stop(200, "NOTICE", False, "Somebody ordered all runs on this store to stop."),
    "paused": Stop(200, "WARNING", True, "The site asked for a pause longer than the time left."),
    "daily_cap": Stop(200, "WARNING", False, "`CRAWLER_MAX_REQUESTS_PER_DAY` is used up."),
    "barred": Stop(
        502,
        "ERROR",
        False,
        "The site bars us: it asks who we are (a challenge page), or answers 403 with a pause.",
    ),
    "unauthorized": Stop(502, "ERROR", False, "The site refused the token (401 or 403)."),
    "circuit": Stop(
        502,
        "ERROR",
        False,
        "The site failed, or denied its songs, too many times in a row; or step 1 made one mistake.",
    ),
    "store": Stop(503, "ERROR", True, "The store could not be reached in time."),
}
"""Every value of `stopped_by`."""


def _least(description: str) -> Meta:
    """Describe a number that is never below 0."""
    return Meta(ge=0, description=description)


class Answer(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What a run did, as the function, the command line and `crawl()` all report it.

    For every run `found + missing + failed + skipped + remaining == stop - start`.
    A run leaves in the answer's `__dict__` what is no field, so that neither JSON nor `==` sees it:
    `draw_map`, whose drawing a notebook shows, `failures`, numbers by kind, `source`, its name,
    and `detail`, what exactly ended it.
    """

    start: Annotated[
        int, _least("First song number, included; in modes next and new: where the run began.")
    ]
    stop: Annotated[
        int,
        _least(
            "Song number after the last; in modes next and new: "
            "one after the last number the run came to."
        ),
    ]
    mode: Annotated[Mode, Meta(description="`range`, `next` or `new`.")]
    found: Annotated[int, _least("Numbers this run found, songs.")]
    missing: Annotated[int, _least("Numbers the site told this run it has no song for.")]
    failed: Annotated[
        int, _least("Numbers asked in this run until the policy was exhausted: not known.")
    ]
    skipped: Annotated[
        int,
        _least(
            "Numbers of the range that cost no request: settled before, "
            "or failed and not due again (mode next)."
        ),
    ]
    complete: Annotated[
        bool, Meta(description="Whether every number from start to stop is settled in the store.")
    ]
    remaining: Annotated[int, _least("Numbers not asked because the run ended first.")]
    requests: Annotated[int, _least("HTTP requests sent to the site, retries included.")]
    retries: Annotated[int, _least("Requests that repeated an earlier one for the same number.")]
    seconds: Annotated[float, _least("Wall time of the run, seconds.")]
    mean_rate: Annotated[float, _least("requests / seconds, per second.")]
    stopped_by: Annotated[
        StoppedBy, Meta(description="Why the run ended: a key of the table of stops.")
    ]
    blocks_written: Annotated[int, _least("Block objects written to the store.")]
    version: Annotated[str, Meta(description="Version of the crawler.")]
    notes: Annotated[
        dict[Note, Annotated[int, Meta(ge=1)]],
        Meta(
            description=(
                "Counts that are rarely there: `odd` fields, calls of a step 1 function that asked "
                "around its session (`outside_session`), "
                "numbers in stretches that a store of version 1.0 holds as missing without proof "
                "(`unproven`)."
            )
        ),
    ] = msgspec.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON has it: names to numbers, texts, booleans, and `notes`."""
        return msgspec.structs.asdict(self)

    def __repr__(self) -> str:
        return (
            f"<Answer {self.start}..{self.stop}: {self.found} found, {self.missing} missing, "
            f"{self.failed} failed, {self.skipped} skipped, {self.remaining} remaining, "
            f"{self.stopped_by}>"
        )

    @property
    def noun(self) -> str:
        """What its numbers stand for: "song", or "number" where the source is not Genius."""
        return noun_of(self.__dict__.get("source", GENIUS))

    def _range(self) -> str:
        words = numbered(self.start, self.stop, self.noun)
        return f"{words[0].upper()}{words[1:]}"

    def _repr_html_(self) -> str:
        """Show it in a notebook: a small table, and the map of the store it went to."""
        names = ("found", "missing", "failed", "skipped", "remaining", "requests", "retries")
        heads = "".join(f"<th>{name}</th>" for name in names)
        counts = "".join(f"<td>{getattr(self, name):,}</td>" for name in names)
        state = "Complete." if self.complete else f"Not complete: {why_not_complete(self)}"
        draw = self.__dict__.get("draw_map")
        return (
            f"<p><b>{self._range()}</b>: {self.seconds:.1f} s, "
            f"{self.mean_rate:,.0f} requests a second. {escape(state)}</p>"
            f"<table><tr>{heads}</tr><tr>{counts}</tr></table>{draw() if draw else ''}"
        )


def why_not_complete(answer: Answer) -> str:
    """Return in one sentence, plain text, why a run left numbers that are not settled."""
    if answer.stopped_by == "done":
        return "What failed is worth asking again later."
    meaning, detail = STOPS[answer.stopped_by].meaning, answer.__dict__.get("detail")
    if detail and answer.stopped_by == "circuit":  # its meaning is a list of what may be
        meaning = f"The run gave up: {detail}."
    elif detail and answer.stopped_by == "store":
        meaning = f"{meaning[:-1]}: {detail}."
    return meaning.replace("`", "")


MISSING_SHARE = 0.30
"""A run that found more missing below the last known song than this is worth a look: about 9 in 100
numbers of the Genius catalogue are missing."""

THROTTLED_SHARE = 0.01
"""A run of which more answers than this were 429 goes faster than the site likes."""

FEW = 100
"""A share of fewer numbers than this says nothing."""


def alert_fields(answer: Answer, kinds: Mapping[str, int], missing_at_end: int) -> dict[str, Any]:
    """Compute what the alerts filter on; the names are those of `deploy/metrics`.

    A filter over logs can compare one field with a number, but cannot divide two.

    Args:
        kinds: Failed attempts by kind.
        missing_at_end: Missing numbers beyond the last found song: every look for new songs ends
            with a thousand of them, so they are no sign of trouble.

    Returns:
        `missing_high`, `throttled`: booleans, see the constants. `gained`: whether the run settled
        anything below the end, or found nothing left to settle.
    """
    missing = max(0, answer.missing - missing_at_end)
    settled = answer.found + missing
    return {
        "missing_high": settled >= FEW and missing > MISSING_SHARE * settled,
        "throttled": answer.requests >= FEW
        and kinds.get("http_429", 0) > THROTTLED_SHARE * answer.requests,
        "gained": bool(settled) or answer.complete,
    }


GENIUS = "genius"
"""The source whose numbers are songs."""


def noun_of(source: str) -> str:
    """Return what a source's numbers stand for, in words for people."""
    return "song" if source == GENIUS else "number"


def numbered(start: int, stop: int, noun: str) -> str:
    """Write a range as people do, both ends included: "songs 1 to 2,000"."""
    if stop <= start:
        return f"no {noun}s"
    return f"{noun} {start:,}" if stop == start + 1 else f"{noun}s {start:,} to {stop - 1:,}"
