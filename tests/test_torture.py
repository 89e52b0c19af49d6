"""A short form of the kill harness (`make torture` is the long one), and that it can fail."""

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.store.block import ABSENT, block_name, encode_block
from crawler.store.contract import Content
from crawler.store.folder import FolderStore
from tests.records import found
from tests.storage_server import StorageServer
from tests.torture import (
    Scene,
    kill_at_random,
    run_twice_at_once,
    signal_at_random,
    song_site,
    stop_the_storage,
)

CHANCE = random.Random(20)

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The demo site in a process of its own."""
    with song_site() as address:
        yield address


@pytest.fixture
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new store of the kind asked for, by its location."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return str(request.getfixturevalue("bucket_url"))


@pytest.mark.parametrize(
    ("location", "caller"), [("folder", "source"), ("bucket", "function")], indirect=["location"]
)
def test_F1_kills_at_random_moments_lose_nothing(location: str, site: str, caller: str) -> None:
    """SIGKILL again and again, a last run, and each number is there once, as the site serves it."""
    scene = Scene(location, site, 2501, rate=800, caller=caller)
    struck = kill_at_random(scene, 3, CHANCE)
    scene.finish()
    outcome = scene.judge("kills", struck)
    assert outcome.is_clean, outcome
    assert struck


@pytest.mark.parametrize(
    ("location", "number"),
    [("bucket", signal.SIGTERM), ("folder", signal.SIGINT)],
    indirect=["location"],
)
def test_F2_a_signal_ends_a_run_within_8_s_and_loses_nothing(
    location: str, site: str, number: signal.Signals
) -> None:
    """What is settled is stored, and the next run goes on."""
    scene = Scene(location, site, 1501, rate=400)
    assert signal_at_random(scene, number, 1, CHANCE) < 8
    scene.finish()
    outcome = scene.judge("signals", 1)
    assert outcome.is_clean, outcome


@pytest.mark.parametrize("location", ["folder", "bucket"], indirect=True)
def test_E4_two_processes_on_one_range_keep_each_number_once(location: str, site: str) -> None:
    """Both end complete, and the records are right."""
    scene = Scene(location, site, 3001, rate=0)
    run_twice_at_once(scene)
    outcome = scene.judge("two at once", 1)
    assert outcome.is_clean, outcome


def test_E2_a_storage_server_that_comes_back_gets_everything(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is out of reach for two seconds in mid-run; nothing is lost."""
    with StorageServer(folder=tmp_path) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        server.make_bucket("torture")
        scene = Scene("gs://torture/songs", site, 4001, rate=1000)
        stop_the_storage(scene, server)
        scene.finish()
        outcome = scene.judge("storage stopped", 1)
    assert outcome.is_clean, outcome


def test_the_judge_sees_what_is_lost_and_what_is_wrong(tmp_path: Path, site: str) -> None:
    """A harness that cannot fail proves nothing: a lost block and a wrong title are both seen."""
    scene = Scene(str(tmp_path / "store"), site, 2001, rate=0)
    scene.finish()
    (tmp_path / "store" / block_name(1000)).unlink()
    assert scene.judge("lost", 0).missing == 1000
    store = FolderStore(str(tmp_path / "store"))
    data, info = encode_block([found(1001, title="not what the site serves")], source="genius")
    store.write(block_name(1000), Content(data, info=info), expected=ABSENT, timeout=5)
    outcome = scene.judge("wrong", 0)
    assert (outcome.missing, outcome.wrong > 0) == (999, True)
