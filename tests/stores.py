"""Stores filled without a crawl, for the tests of what reads them."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from crawler.record import Record
from crawler.store.block import block_first
from crawler.store.contract import Store, save_block
from crawler.store.opening import Identity, claim_store
from tests.records import HOSTILE, NOON, failed, missing

SECONDS = 10.0

FULL: dict[str, Any] = {
    "title": "A song",
    "url": "https://genius.example/a-song",
    "artist": "Somebody",
    "artist_id": 7,
    "album": None,
    "release_date": "1999-12-31",
    "pageviews": 5000,
}
"""The info of a song, as the Genius source makes it."""


def song(song_num: int, **fields: Any) -> Record:
    """Make a found record with some fields of its own."""
    return Record(song_num, "found", 200, FULL | fields, None, 1, NOON)


def hostile_songs(first: int = 1) -> list[Record]:
    """Make a song for each hostile title."""
    return [song(num, title=title) for num, title in enumerate(HOSTILE, first)]


def every_outcome() -> list[Record]:
    """Make records of every shape, over three blocks with a gap."""
    gone = song(999)
    gone.gone_since = NOON + timedelta(days=1)
    return [song(1), missing(2), failed(3), gone, song(1000, pageviews=None), song(5000, album="")]


def fill(
    store: Store, records: Iterable[Record], *, source: str = "genius", schema: str = "song-1"
) -> None:
    """Store records, and say whose they are."""
    claim_store(store, Identity(source, "api.genius.com", schema, 1), timeout=SECONDS)
    blocks: dict[int, dict[int, Record]] = {}
    for record in records:
        blocks.setdefault(block_first(record.song_num), {})[record.song_num] = record
    for first, block in blocks.items():
        save_block(store, first, block, source=source, timeout=SECONDS)
