"""What version 1.0.0 left behind goes on: its stores, its tasks, its deployment.

The fixtures were made with that version's own code; `tests/fixtures/v1/README.md` tells how.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl
from crawler.deployment.deployment import function_environment, read_deployment
from crawler.doctor import examine
from crawler.fleet.delivery import read_claim
from crawler.record import Record
from crawler.run.raw import decode_pages, raw_name
from crawler.settings.reading import read_settings
from crawler.store.block import block_name, decode_block
from crawler.store.contract import Content, Store
from crawler.store.control import read_runs
from crawler.store.coverage import coverage_of, verify
from crawler.store.opening import open_store
from tests.faulty_site import FaultySite
from tests.function_process import FunctionProcess

V1 = Path(__file__).parent / "fixtures" / "v1"
FAILED = 1013
"""The one number of 990 to 1059 that failed then; all others were settled."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultySite]:
    """A site in the place of the one of then; the function's own address is its, too."""
    with FaultySite() as site:
        monkeypatch.setenv("SONGS_AT", f"{site.url('right')}/songs")
        monkeypatch.syspath_prepend(str(V1))
        yield site


@pytest.fixture(params=["folder", "bucket"])
def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Copy a store of then into a folder or a bucket; returns the location."""

    def copy(name: str) -> str:
        if request.param == "folder":
            shutil.copytree(V1 / name, tmp_path / "store")
            return str(tmp_path / "store")
        location: str = request.getfixturevalue("bucket_url")
        store = open_store(location)
        for path in (V1 / name).rglob("*.*"):
            if path.is_file() and path.name != ".lock":
                content = Content(path.read_bytes())
                store.write(
                    path.relative_to(V1 / name).as_posix(), content, expected=None, timeout=9
                )
        return location

    return copy


def records_of(store: Store) -> dict[int, Record]:
    """Read both blocks."""
    held: dict[int, Record] = {}
    for first in (0, 1000):
        stored = store.read(block_name(first), timeout=9)
        assert stored is not None
        held |= decode_block(stored.data, block_name(first))
    return held


def options_for(name: str, site: FaultySite) -> dict[str, Any]:
    """Return what a crawl is told today to go on with a store of then."""
    if name == "genius_store":
        return {"base_url": site.url("right"), "token": "t", "keep_raw": True, "rate": 0}
    contact = "me@example.org"
    return {"function": "plain_songs:request_plain_song", "contact": contact, "rate": 0}


def asked(site: FaultySite) -> int:
    """Count the requests that the site has had."""
    return len(site.requests)


@pytest.mark.parametrize("name", ["genius_store", "function_store"])
def test_E15_a_store_goes_on(name: str, site: FaultySite, store_of: Any) -> None:
    """What is settled is not asked again, what failed is; all records stay as they were."""
    location = store_of(name)
    store, options = open_store(location), options_for(name, site)
    before = records_of(store)
    answer = crawl(990, 1060, store=location, **options)
    assert (answer.requests, answer.skipped, asked(site)) == (1, 69, 1)
    after = records_of(store)
    assert before.pop(FAILED).outcome == "failed"
    assert after.pop(FAILED).outcome in {"found", "missing"}
    assert after == before
    assert verify(store, 990, 1060, timeout=9).problem is None


@pytest.mark.parametrize("name", ["genius_store", "function_store"])
def test_E15_a_store_grows(name: str, site: FaultySite, store_of: Any) -> None:
    """Numbers beside those of then are added to the same blocks, and its runs are listed still."""
    location = store_of(name)
    store = open_store(location)
    before = records_of(store)
    answer = crawl(980, 1070, store=location, **options_for(name, site))
    assert (answer.complete, answer.requests) == (True, 21)
    after = records_of(store)
    assert {num: after[num] for num in before if num != FAILED} == {
        num: record for num, record in before.items() if num != FAILED
    }
    assert coverage_of(store.list_blocks(timeout=9)).settled == 90
    assert len(read_runs(store, latest=9)) == 2


def test_E15_raw_bodies_go_on(site: FaultySite, store_of: Any) -> None:
    """Those of then stay, and new ones lie beside them."""
    location = store_of("genius_store")
    store, name = open_store(location), raw_name(1000)
    stored = store.read(name, timeout=9)
    assert stored is not None
    before = decode_pages(stored.data, name)
    crawl(990, 1070, store=location, **options_for("genius_store", site))
    stored = store.read(name, timeout=9)
    assert stored is not None
    after = decode_pages(stored.data, name)
    assert {num: after[num] for num in before} == before
    assert len(after) > len(before)


@pytest.mark.parametrize("name", ["genius_store", "function_store"])
def test_E15_the_doctor_finds_nothing_wrong_with_a_store(
    name: str, site: FaultySite, tmp_path: Path
) -> None:
    """What a run would go on with, an examination does not refuse."""
    shutil.copytree(V1 / name, tmp_path / "store")
    given = {"CRAWLER_STORE": str(tmp_path / "store"), "CRAWLER_CONTACT": "me@example.org"}
    given |= {"CRAWLER_BASE_URL": site.url("right"), "GENIUS_TOKEN": "t"}
    if name == "function_store":
        given["CRAWLER_FUNCTION"] = "plain_songs:request_plain_song"
        del given["CRAWLER_BASE_URL"]
    findings = {finding.part: finding for finding in examine(given, song_num=990)}
    assert findings["store"].verdict != "wrong", findings["store"].words


def test_E15_a_task_of_then_is_served_as_a_caller_s(site: FaultySite, tmp_path: Path) -> None:
    """Its order is in no store; it is done all the same, and asks only what is not settled."""
    shutil.copytree(V1 / "genius_store", tmp_path / "store")
    task = json.loads((V1 / "task.json").read_text())
    name = task["name"].rpartition("/")[2]
    environ = {"GENIUS_TOKEN": "t", "CRAWLER_BASE_URL": site.url("right"), "CRAWLER_RATE": "0"}
    environ |= {"CRAWLER_STORE": str(tmp_path / "store"), "CRAWLER_CONTACT": "me@example.org"}
    assert read_claim(name, read_settings(environ)) is None
    with FunctionProcess(environ) as function:
        body = msgspec.json.encode(task["body"])
        answers = [function.post(body, X_CloudTasks_TaskName=name) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    first, second = (answer.json() for answer in answers)
    assert (first["requests"], first["complete"]) == (11, True)  # 10 that were never asked, 1013
    assert (second["requests"], second["complete"]) == (0, True)


def test_E15_a_deploy_env_of_then_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says is deployed; a setting that is gone is told and ignored, and no other is."""
    file = tmp_path / "deploy.env"
    file.write_text((V1 / "deploy.env").read_text().replace("\nCPU=\n", "\nCPU=1\n"))
    deployment = read_deployment({}, file)
    environ = function_environment(deployment) | {"GENIUS_TOKEN": "t", "K_SERVICE": "songs"}
    settings = read_settings(environ)
    assert (settings.store, settings.rate) == ("gs://my-songs/genius", 20)
    assert (settings.contact, settings.max_requests_per_day) == ("me@example.com", 500_000)
    assert deployment.size.cpu == 1
    told = capsys.readouterr().err
    assert "ENGINE" in told
    assert "CPU" not in told
