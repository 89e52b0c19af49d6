"""Opening a store: of one kind of records only, read back in order, broken blocks named."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crawler
from crawler.errors import BlockFormatError, SettingsError, StoreMismatchError
from crawler.store.block import FORMAT_VERSION, block_name
from crawler.store.contract import Content, Store
from crawler.store.folder import FolderStore
from crawler.store.opening import (
    FOUND,
    IDENTITY_FILE,
    Identity,
    add_found_fields,
    claim_store,
    read,
    read_blocks,
    read_identity,
)
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


# --- Identity ---------------------------------------------------------------------------------------


MINE = Identity("genius", "api.genius.com", "song-1", FORMAT_VERSION)


def claim(store, **changed):
    """Claim with one field changed."""
    claim_store(store, msgspec.structs.replace(MINE, **changed), timeout=20)


def claimed(store, **changed):
    """Claim, and return the fields that are new."""
    return claim_store(store, msgspec.structs.replace(MINE, **changed), timeout=20)


def test_the_first_run_writes_it_once(store):
    """A new store gets its identity, and later runs leave the object as it is."""
    assert read_identity(store, timeout=20) is None
    claim(store)
    first = store.read(IDENTITY_FILE, timeout=20)
    claim(store)
    assert store.read(IDENTITY_FILE, timeout=20) == first
    assert read_identity(store, timeout=20) == MINE


@pytest.mark.parametrize(
    ("field", "value"),
    [("source", "module.function"), ("host", "127.0.0.1:8080"), ("schema", "song-2")],
)
def test_E9_other_records_are_refused(store, field, value):
    """E9: another source, host or schema is refused, naming both and what to do."""
    claim(store)
    words = f"{field} '{getattr(MINE, field)}'.*'{value}'.*name another store"
    with pytest.raises(StoreMismatchError, match=words):
        claim(store, **{field: value})
    assert read_identity(store, timeout=20) == MINE


def test_E9_a_newer_format_is_refused(store):
    """E9: a store that a newer version filled asks for that version."""
    claim(store, format=FORMAT_VERSION + 1)
    with pytest.raises(StoreMismatchError, match="use the newer version"):
        claim(store)


def test_E9_an_older_format_is_accepted(store):
    """E9: a store of the version before is gone on with."""
    claim(store, format=FORMAT_VERSION - 1)
    claim(store)
    assert read_identity(store, timeout=20).format == FORMAT_VERSION - 1


def test_fields_that_are_new_are_added(store):
    """E9: the union is kept in the order in which they came; who adds some is told which."""
    claim(store)
    claim(store, fields={"a": "text"})  # nobody had said before
    assert claimed(store, fields={"a": "text", "b": "integer"}) == ["b"]
    assert claimed(store, fields={"c": "text", "b": "integer"}) == ["c"]
    assert list(read_identity(store, timeout=20).fields) == ["a", "b", "c"]
    assert claimed(store, fields={"a": "text"}) == []


def test_E9_a_field_of_another_type_is_refused(store):
    """E9: a column of two types would be none; what to do is said."""
    claim(store, fields={"year": "integer"})
    with pytest.raises(StoreMismatchError, match=r"'year' as integer.*as text.*another store"):
        claim(store, fields={"year": "text"})
    assert read_identity(store, timeout=20).fields == {"year": "integer"}


def test_E9_a_host_that_was_not_known_is_amended(store):
    """E9: a step 1 function's host is known when its settings name one, and then it counts."""
    claim(store)
    claim_store(
        store,
        msgspec.structs.replace(MINE, host=""),
        timeout=20,
        doubtful_host="api.genius.com",
    )
    assert read_identity(store, timeout=20).host == ""
    claim(store, host="words.example")
    with pytest.raises(StoreMismatchError, match=r"words\.example"):
        claim(store, host="other.example")


def test_fields_that_were_seen_are_noted_once(store):
    """What a step 1 function appends is known from its first block on."""
    assert add_found_fields(store, ["a"], timeout=20) == []
    claim(store)
    assert add_found_fields(store, ["a", "b"], timeout=20) == []
    assert add_found_fields(store, ["b", "c"], timeout=20) == ["c"]
    assert read_identity(store, timeout=20).fields == dict.fromkeys("abc", FOUND)


def test_of_two_first_runs_one_wins(store):
    """Runs of two hosts that begin at once never both go on."""

    def begin(number):
        try:
            claim(store, host=f"host-{number % 2}")
        except StoreMismatchError:
            return None
        return number % 2

    with ThreadPoolExecutor(8) as pool:
        hosts = list(pool.map(begin, range(8)))
    winner = int(read_identity(store, timeout=20).host[-1])
    assert hosts == [number % 2 if number % 2 == winner else None for number in range(8)]


@given(data=st.binary(max_size=60) | st.sampled_from([b"{}", b'{"source": 1}', b"[" * 10**5]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_unreadable_identity_is_refused(tmp_path, data):
    """A damaged store.json is never taken for an empty store, and is not written over."""
    store = FolderStore(tmp_path)
    store.write(IDENTITY_FILE, Content(data), expected=None, timeout=20)
    with pytest.raises(StoreMismatchError, match=r"store\.json .* cannot be read"):
        claim(store)
    assert store.read(IDENTITY_FILE, timeout=20).data == data
