"""Identity: a store is filled with one kind of records, and says so."""

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crawler.errors import StoreMismatchError
from crawler.store.block import FORMAT_VERSION
from crawler.store.contract import Content
from crawler.store.folder import FolderStore
from crawler.store.identity import NAME, Identity, claim_store, read_identity

MINE = Identity("genius", "api.genius.com", "song-1", FORMAT_VERSION)


def claim(store, **changed):
    """Claim with one field changed."""
    claim_store(store, msgspec.structs.replace(MINE, **changed), timeout=20)


def test_the_first_run_writes_it_once(store):
    """A new store gets its identity, and later runs leave the object as it is."""
    assert read_identity(store, timeout=20) is None
    claim(store)
    first = store.read(NAME, timeout=20)
    claim(store)
    assert store.read(NAME, timeout=20) == first
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
    store.write(NAME, Content(data), expected=None, timeout=20)
    with pytest.raises(StoreMismatchError, match=r"store\.json .* cannot be read"):
        claim(store)
    assert store.read(NAME, timeout=20).data == data
