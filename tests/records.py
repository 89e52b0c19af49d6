"""Records for the tests: plain ones by the hundred, and hostile ones for Hypothesis."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from crawler.demo.songs import song
from crawler.record import Record

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOSTILE = ["", "\0", "a\nb\r\u2028\u2029", "\ud800", "x\udfff", "\u202eevil", "=cmd()", "<script>"]

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")  # two halves are one character in JSON

texts = st.sampled_from(HOSTILE) | st.text(
    st.characters(exclude_categories=()), max_size=20
).filter(lambda text: not _PAIR.search(text))
infos = st.dictionaries(
    texts,
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.lists(texts, max_size=3),
    max_size=4,
)
moments = (st.integers(0, 5) | st.integers(-(10**9), 10**9)).map(
    lambda seconds: NOON + timedelta(seconds=seconds, microseconds=seconds % 3)
)


def found(song_num: int, title: str = "A song", at: datetime = NOON) -> Record:
    """Make a found record."""
    return Record(song_num, "found", 200, {"title": title}, None, 1, at)


def missing(song_num: int, at: datetime = NOON) -> Record:
    """Make a missing record."""
    return Record(song_num, "missing", 404, None, None, 1, at)


def failed(
    song_num: int, error: str = "timeout", at: datetime = NOON, next_try_at: datetime | None = None
) -> Record:
    """Make a failed record."""
    return Record(
        song_num, "failed", None, None, error, 5, at, failed_runs=1, next_try_at=next_try_at
    )


def mixed(nums: range, at: datetime = NOON) -> dict[int, Record]:
    """Make a record for each number: every eleventh is missing."""
    return {n: found(n, f"Song {n}", at) if n % 11 else missing(n, at) for n in nums}


def _found_and_perhaps_denied(
    song_num: int, info: object, attempts: int, at: datetime, hours: int
) -> Record:
    gone_since = at + timedelta(hours=hours) if hours else None
    return Record(song_num, "found", 200, info, None, attempts, at, gone_since=gone_since)


def records_of(nums: st.SearchStrategy[int]) -> st.SearchStrategy[Record]:
    """Draw any record of any of these numbers."""
    return st.one_of(
        st.builds(
            _found_and_perhaps_denied, nums, infos, st.integers(1, 5), moments, st.integers(0, 4)
        ),
        st.builds(
            Record,
            nums,
            st.just("missing"),
            st.sampled_from([404, 410]),
            st.none(),
            st.none(),
            st.integers(1, 5),
            moments,
        ),
        st.builds(
            Record,
            nums,
            st.just("failed"),
            st.none() | st.just(503),
            st.none(),
            st.sampled_from(["timeout", "http_503", "json"]) | texts,
            st.integers(1, 5),
            moments,
            detail=texts,
            failed_runs=st.integers(0, 9),
            next_try_at=st.none() | moments,
        ),
    )


def blocks_of(first: int = 7000, max_size: int = 8) -> st.SearchStrategy[dict[int, Record]]:
    """Draw the records of a block, by number, at least one; few numbers, so that they collide."""
    nums = st.integers(first, first + 4) | st.integers(first, first + 999)
    return st.lists(records_of(nums), min_size=1, max_size=max_size).map(
        lambda records: {record.song_num: record for record in records}
    )


def expected_info(song_num: int) -> dict[str, Any] | None:
    """Return what a right record holds as its info, or None where the site has no song."""
    made = song(song_num)
    if made is None:
        return None
    return {
        "title": made["title"],
        "url": made["url"],
        "artist": made["primary_artist"]["name"],
        "artist_id": made["primary_artist"]["id"],
        "album": (made.get("album") or {}).get("name"),
        "release_date": made.get("release_date"),
        "pageviews": made["stats"].get("pageviews"),
    }
