"""Reading a store back: songs in order, memory flat, broken blocks named."""

import threading
from pathlib import Path

import pytest

import crawler
from crawler.errors import BlockFormatError, SettingsError, StoreMismatchError
from crawler.store.block import block_name
from crawler.store.contract import Store
from crawler.store.folder import FolderStore
from crawler.store.opening import read, read_blocks
from tests.records import mixed
from tests.stores import FULL, every_outcome, fill, hostile_songs


def test_found_songs_come_in_order_with_their_info(store: Store):
    """`read` yields `(song_num, info)` of what was found, ascending, from a folder or a bucket."""
    fill(store, every_outcome())
    songs = list(read(store.location))
    assert [num for num, _ in songs] == [1, 999, 1000, 5000]
    assert songs[0] == (1, FULL)


@pytest.mark.parametrize(
    ("start", "stop", "nums"),
    [
        (0, None, [1, 999, 1000, 5000]),
        (1, 999, [1]),
        (999, 1001, [999, 1000]),
        (1000, None, [1000, 5000]),
        (5000, 5000, []),
        (5001, None, []),
        (0, 1, []),
    ],
)
def test_a_range_is_read_alone(tmp_path: Path, start, stop, nums):
    """Start is included, stop is not, across blocks and at their edges."""
    fill(FolderStore(tmp_path), every_outcome())
    assert [num for num, _ in crawler.read(str(tmp_path), start, stop)] == nums


def test_hostile_titles_are_read_back_equal(store: Store):
    """What a site put into a title comes back as it was (C5)."""
    fill(store, hostile_songs())
    assert [record.info["title"] for record in hostile_songs()] == [
        info["title"] for _, info in read(store)
    ]


def test_an_empty_store_has_no_songs(store: Store):
    """Nothing is read where nothing was written, and nothing is made: it is an error that says so."""
    with pytest.raises(StoreMismatchError, match="holds no songs yet"):
        read(store)


def test_a_broken_block_is_named_not_skipped(tmp_path: Path):
    """The songs before it come, then an error with its name (E5)."""
    fill(FolderStore(tmp_path), mixed(range(3000)).values())
    path = tmp_path / block_name(1000)
    path.write_bytes(path.read_bytes()[:-20])
    songs = read(str(tmp_path), 990)
    assert [next(songs)[0] for _ in range(9)] == list(range(991, 1000))
    with pytest.raises(BlockFormatError, match=block_name(1000)):
        next(songs)


def test_what_is_no_store_is_refused():
    """A location of no kind we know is an error before anything is read."""
    with pytest.raises(SettingsError, match="CRAWLER_STORE"):
        list(read("s3://bucket"))


def test_a_reader_that_ends_early_leaves_no_thread(tmp_path: Path):
    """Closing the iterator closes what reads ahead."""
    fill(FolderStore(tmp_path), mixed(range(8000)).values())
    blocks = read_blocks(str(tmp_path))
    assert len(next(blocks)) == 1000
    blocks.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read")]


def test_a_store_that_is_misspelt_is_an_error_at_once(tmp_path):
    """Nobody takes a folder that is not there for one without songs."""
    with pytest.raises(StoreMismatchError, match="holds no songs yet"):
        read(tmp_path / "demoo")
