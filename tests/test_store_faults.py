"""What a store can do wrong, met by whole crawls: nothing lost, nothing claimed that is not so."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl
from crawler.__main__ import main
from crawler.answer import Answer
from crawler.demo.site import DemoSite
from crawler.doctor import examine
from crawler.errors import BlockFormatError, StoreMismatchError, StoreUnavailableError
from crawler.frontier.work import Policy
from crawler.record import Record, last_asked_at
from crawler.run.run import Limits
from crawler.store.block import (
    FORMAT_VERSION,
    block_name,
    decode_block,
    encode_block,
    format_block_info,
)
from crawler.store.contract import Content, Store, save_block
from crawler.store.control import order_pause, order_stop
from crawler.store.coverage import verify
from crawler.store.opening import IDENTITY_FILE as IDENTITY
from crawler.store.opening import Identity, open_store
from tests.clock import utc_now
from tests.crawls import CALLERS, asking
from tests.faulty_site import FaultySite
from tests.records import expected_info
from tests.storage_server import RoughWay, StorageServer

pytestmark = pytest.mark.once

FIRST = block_name(0)


class Place:
    """A store and a site, and crawls from one into the other.

    Attributes:
        location: Of the store.
        site: That is asked.
    """

    def __init__(self, location: str, site: DemoSite) -> None:
        self.location, self.site = location, site

    @property
    def store(self) -> Store:
        """The store, opened anew."""
        return open_store(self.location)

    def crawl(self, start: int, stop: int, **options: Any) -> Answer:
        """Crawl a range as fast as it goes."""
        given: dict[str, Any] = {"store": self.location, "base_url": self.site.base_url, "rate": 0}
        return crawl(start, stop, token="demo-token", **given | options)

    def records(self) -> dict[int, Record]:
        """Read all records."""
        held: dict[int, Record] = {}
        for info in list(self.store.list_blocks(timeout=20)):
            stored = self.store.read(block_name(info.first), timeout=20)
            assert stored is not None
            held |= decode_block(stored.data, block_name(info.first))
        return held

    def asked(self) -> int:
        """Count the requests that the site got."""
        count: int = self.site.stats()["requests"]
        return count


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, demo_site: DemoSite) -> Place:
    """A new store of either kind, and a site without faults."""
    is_folder = request.param == "folder"
    location = str(tmp_path / "store") if is_folder else request.getfixturevalue("bucket_url")
    return Place(location, demo_site)


@pytest.fixture
def rough_way(
    storage_server: StorageServer, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RoughWay]:
    """A bucket on the way to which things go wrong."""
    with RoughWay(storage_server) as way:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", way.url)
        yield way


def once(condition: Callable[[Any], bool], action: Callable[[], None]) -> Callable[[Any], None]:
    """Make a listener to a run's progress that does something once."""
    done = threading.Event()

    def listen(progress: Any) -> None:
        if not done.is_set() and condition(progress):
            done.set()
            action()

    return listen


# ---------------------------------------------------------------- before the first request


def test_E1_without_a_bucket_nothing_is_asked(bucket_url: str, demo_site: DemoSite) -> None:
    """A bucket that is not there ends the run before its first request, with what to do."""
    with pytest.raises(StoreUnavailableError, match="make the bucket no-such-bucket"):
        Place("gs://no-such-bucket/x", demo_site).crawl(1, 11)
    assert demo_site.stats()["requests"] == 0


@pytest.mark.parametrize("passed", [0, 1, 2], ids=["list", "replace", "delete"])
def test_E1_without_a_right_nothing_is_asked(
    rough_way: RoughWay, bucket_url: str, demo_site: DemoSite, passed: int
) -> None:
    """A right that lacks ends the run before its first request, with the role to give."""
    rough_way.faults = [*[None] * passed, 403]
    with pytest.raises(StoreUnavailableError, match=r"roles/storage\.objectUser"):
        Place(bucket_url, demo_site).crawl(1, 11)
    assert demo_site.stats()["requests"] == 0


def test_E1_without_credentials_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_site: DemoSite
) -> None:
    """Who is nobody to the cloud is told how to log in."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(StoreUnavailableError, match="gcloud auth application-default login"):
        Place("gs://some-bucket", demo_site).crawl(1, 11)
    assert demo_site.stats()["requests"] == 0


# ---------------------------------------------------------------- while a crawl runs


@pytest.mark.parametrize("faults", [[503, 503], ["lose"], [429], ["lose", 503, "lose"]], ids=str)
def test_E2_uploads_that_are_repeated_leave_each_number_once(
    rough_way: RoughWay, bucket_url: str, demo_site: DemoSite, faults: list[Any]
) -> None:
    """The store stumbles in mid-run: the answer is as ever, and so are the records."""
    place = Place(bucket_url, demo_site)
    stumble = once(
        lambda progress: progress.requests > 200, lambda: rough_way.faults.extend(faults)
    )
    answer = place.crawl(0, 2500, rate=4000, on_progress=stumble)
    assert rough_way.faults == []
    assert (answer.complete, answer.stopped_by) == (True, "done")
    assert verify(place.store, 0, 2500, timeout=20).problem is None
    assert {n: r.info for n, r in place.records().items()} == {
        n: expected_info(n) for n in range(2500)
    }


def break_folder(folder: Path) -> None:
    """Put a file in the place of the folder with the songs, which nothing can be written to."""
    (folder / "songs").rename(folder / "songs-aside")
    (folder / "songs").write_text("in the way")


def mend_folder(folder: Path) -> None:
    """Undo that."""
    (folder / "songs").unlink()
    (folder / "songs-aside").rename(folder / "songs")


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_E3_a_store_that_fails_for_ever_ends_the_run(
    kind: str, tmp_path: Path, demo_site: DemoSite, request: pytest.FixtureRequest
) -> None:
    """The crawl pauses within its memory limit, ends, and claims nothing that is not stored."""
    limits = Limits(give_up_seconds=2.0, max_pending_blocks=2)
    if kind == "folder":
        place, way = Place(str(tmp_path / "store"), demo_site), None
    else:
        way = request.getfixturevalue("rough_way")
        place = Place(request.getfixturevalue("bucket_url"), demo_site)

    def break_store() -> None:
        if way is None:
            break_folder(tmp_path / "store")
        else:
            way.fault_for_ever = 503

    listen = once(lambda progress: progress.requests > 2000, break_store)
    start = time.monotonic()
    answer = place.crawl(0, 100_000, on_progress=listen, limits=limits)
    assert time.monotonic() - start < 30
    assert (answer.stopped_by, answer.complete) == ("store", False)
    asked = place.asked()
    if way is None:
        mend_folder(tmp_path / "store")
    else:
        way.fault_for_ever = None
    records = place.records()
    # those that wait, one more on its way, one that is being filled, and what was in flight
    assert asked - len(records) <= (limits.max_pending_blocks + 2) * 1000 + 64
    assert answer.found + answer.missing + answer.failed == len(records)
    assert answer.remaining == 100_000 - answer.found - answer.missing - answer.failed
    again = place.crawl(0, 5000)
    assert (again.complete, verify(place.store, 0, 5000, timeout=20).problem) == (True, None)


def test_E6_a_folder_that_cannot_be_written_any_more_keeps_what_it_has(
    tmp_path: Path, demo_site: DemoSite
) -> None:
    """Blocks stored before the trouble are whole, and are all that the answer claims."""
    limits = Limits(give_up_seconds=0.5)
    place = Place(str(tmp_path / "store"), demo_site)
    before = place.crawl(0, 2000)
    trouble = once(
        lambda progress: progress.requests > 100, lambda: break_folder(tmp_path / "store")
    )
    answer = place.crawl(0, 30_000, rate=8000, on_progress=trouble, limits=limits)
    mend_folder(tmp_path / "store")
    assert answer.stopped_by == "store"
    assert answer.skipped == before.found + before.missing == 2000
    assert len(place.records()) >= 2000 + answer.found + answer.missing
    assert verify(place.store, 0, 2000, timeout=20).problem is None


# ---------------------------------------------------------------- what lies there already


def put(store: Store, name: str, data: bytes, **more: Any) -> None:
    """Write an object whatever was there."""
    store.write(name, Content(data, **more), expected=None, timeout=20)


@pytest.mark.parametrize(
    "data", [b"", b"no block", b"\x1f\x8b\x08\x04"], ids=["empty", "text", "cut"]
)
def test_E5_a_block_that_is_none_is_named_before_anything_is_asked(
    place: Place, data: bytes
) -> None:
    """An object that is no block under a block's name is neither passed over nor replaced."""
    put(place.store, FIRST, data)
    with pytest.raises(BlockFormatError, match=FIRST):
        place.crawl(0, 2000)
    assert place.asked() == 0
    stored = place.store.read(FIRST, timeout=20)
    assert stored is not None
    assert stored.data == data


def test_E5_a_block_with_a_damaged_inside_is_left_out_by_name(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Its numbers count as left, the rest is crawled, and the object stays for who can mend it."""
    place.crawl(0, 500)
    stored = place.store.read(FIRST, timeout=20)
    assert stored is not None
    damaged = stored.data[:-40]
    (info,) = place.store.list_blocks(timeout=20)
    info.failed, info.found = 1, info.found - 1  # so that its records have to be read
    place.store.write(
        FIRST, Content(_with_counts(damaged, info), info=info), expected=None, timeout=20
    )
    with caplog.at_level(logging.ERROR, "crawler"):
        answer = place.crawl(0, 2000)
    assert FIRST in caplog.text
    assert (answer.complete, answer.remaining) == (False, 1000)
    assert answer.found + answer.missing == 1000
    kept = place.store.read(FIRST, timeout=20)
    assert kept is not None
    assert kept.data == _with_counts(damaged, info)


def test_E5_a_block_that_is_none_beyond_the_range_costs_no_answer(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes to light when the status of the whole store is written, which then is not."""
    put(place.store, block_name(500_000), b"no block")
    with caplog.at_level(logging.WARNING, "crawler"):
        answer = place.crawl(0, 1000)
    assert (answer.complete, answer.stopped_by) == (True, "done")
    assert block_name(500_000) in caplog.text


def _with_counts(data: bytes, info: Any) -> bytes:
    """Put other counts into a block's header."""
    field = format_block_info(info).encode()
    rest = data[16 + int.from_bytes(data[14:16], "little") :]
    sizes = (len(field) + 4).to_bytes(2, "little") + b"SC" + len(field).to_bytes(2, "little")
    return data[:10] + sizes + field + rest


def test_E8_foreign_objects_among_the_songs_stay_as_they_are(place: Place) -> None:
    """A crawl neither counts them, nor trips over them, nor touches them."""
    foreign = {
        "songs/notes.txt": b"mine",
        "songs/000000000000.jsonl": b"mine too",
        "songs/000000000000.jsonl.gz.bak": b"and mine",
        "songs/old/000000001000.jsonl.gz": b"mine as well",
    }
    for name, data in foreign.items():
        put(place.store, name, data)
    assert place.crawl(0, 1500).complete
    assert place.crawl(0, 1500).requests == 0
    for name, data in foreign.items():
        stored = place.store.read(name, timeout=20)
        assert stored is not None
        assert stored.data == data
    assert verify(place.store, 0, 1500, timeout=20).problem is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("source", "module.function", "name another store"),
        ("host", "api.genius.com", "name another store"),
        ("schema", "song-0", "name another store"),
        ("format", FORMAT_VERSION + 1, "use the newer version"),
    ],
)
def test_E9_the_records_of_others_are_left_in_peace(
    place: Place, field: str, value: Any, words: str
) -> None:
    """Another source, host or schema, or a newer format: refused before the first request."""
    place.crawl(0, 0)
    stored = place.store.read(IDENTITY, timeout=20)
    assert stored is not None
    other = msgspec.structs.replace(
        msgspec.json.decode(stored.data, type=Identity), **{field: value}
    )
    put(place.store, IDENTITY, msgspec.json.encode(other))
    with pytest.raises(StoreMismatchError, match=words):
        place.crawl(0, 10)
    assert place.asked() == 0


def test_E9_the_format_before_is_gone_on_with(place: Place) -> None:
    """A store and a block of the version before are read, and cost no request."""
    answer = place.crawl(0, 500)
    stored = place.store.read(IDENTITY, timeout=20)
    assert stored is not None
    mine = msgspec.json.decode(stored.data, type=Identity)
    older = msgspec.structs.replace(mine, format=FORMAT_VERSION - 1)
    put(place.store, IDENTITY, msgspec.json.encode(older))
    _, info = encode_block(place.records().values(), source="genius")
    info.format = FORMAT_VERSION - 1
    block = place.store.read(FIRST, timeout=20)
    assert block is not None
    put(place.store, FIRST, _with_counts(block.data, info), info=info)
    again = place.crawl(0, 500)
    assert (again.requests, again.skipped, again.complete) == (
        0,
        answer.found + answer.missing,
        True,
    )


def test_E9_a_block_of_a_newer_format_is_refused_before_anything_is_asked(place: Place) -> None:
    """It may hold what we cannot see, so it is neither read nor replaced."""
    data, info = encode_block(
        [Record(5, "missing", 404, None, None, 1, utc_now())], source="genius"
    )
    info.format = FORMAT_VERSION + 1
    put(place.store, FIRST, _with_counts(data, info), info=info)
    with pytest.raises(BlockFormatError, match="use the newer version"):
        place.crawl(0, 10)
    assert place.asked() == 0


@pytest.mark.parametrize("caller", CALLERS)
def test_E10_a_site_that_denies_all_it_had_is_not_believed(place: Place, caller: str) -> None:
    """The run ends by its circuit, and every song that was found is found still."""
    function = asking(caller, place.site.base_url, "demo-token")
    first = place.crawl(1, 2000, function=function)
    known = {num: record.info for num, record in place.records().items()}
    port = int(place.site.base_url.rpartition(":")[2])
    place.site.close()
    with DemoSite(port, last_song=0) as place.site:
        limits = Limits(policy=Policy(probe_seconds=0.02))  # real: 1 s; a test cannot wait so long
        options = {"refresh_older_than_days": 0.0, "limits": limits}
        answer = place.crawl(1, 2000, function=function, **options)
        asked = place.asked()
    assert (answer.stopped_by, answer.complete) == ("circuit", False)
    assert asked <= 150 + 64 + 60  # canaries and what is held, what was under way, probes
    records = place.records()
    assert sum(record.outcome == "found" for record in records.values()) == first.found
    assert {num: record.info for num, record in records.items()} == known


def test_E12_a_stop_order_in_a_bucket_ends_a_run_within_10_s(
    bucket_url: str, demo_site: DemoSite
) -> None:
    """Whoever gives it: the run looks every few seconds."""
    place = Place(bucket_url, demo_site)
    ordered: list[float] = []

    def order() -> None:
        order_stop(place.store, now=utc_now(), by="test")
        ordered.append(time.monotonic())

    listen = once(lambda progress: progress.requests > 5, order)
    answer = place.crawl(0, 100_000, rate=50, on_progress=listen)
    assert answer.stopped_by == "stop_order"
    assert time.monotonic() - ordered[0] < 10
    assert len(place.records()) == answer.found + answer.missing


def test_E12_a_pause_of_another_instance_is_kept(bucket_url: str, demo_site: DemoSite) -> None:
    """What another one wrote holds this one back: nothing is sent until the pause is over."""
    place = Place(bucket_url, demo_site)
    limits = Limits(control_seconds=0.1)  # real: 5 s; a test cannot wait so long
    with FaultySite() as site:

        def order() -> None:
            order_pause(place.store, utc_now() + timedelta(seconds=2), now=utc_now())

        listen = once(lambda progress: progress.requests > 20, order)
        where = {"base_url": site.url("right"), "rate": 40}
        answer = place.crawl(0, 100, on_progress=listen, limits=limits, **where)
        times = sorted(seen.at for seen in site.requests)
    assert answer.complete
    longest = max(later - earlier for earlier, later in pairwise(times))
    assert 1.2 < longest < 4


# ---------------------------------------------------------------- clocks that are wrong


def records_at(moment: datetime, nums: range) -> dict[int, Record]:
    """Make what a machine with another clock stored."""
    return {n: Record(n, "found", 200, {"title": "old"}, None, 1, moment) for n in nums}


@pytest.mark.parametrize("years", [-30, 5], ids=["behind", "ahead"])
def test_E13_records_of_a_wrong_clock_are_named_and_refreshed(
    place: Place, years: int, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next run, `status` and `doctor` name them; a refresh asks all, and the new ones stay."""
    place.crawl(0, 0)  # so that the store knows whose it is
    wrong = utc_now() + timedelta(days=365 * years)
    save_block(place.store, 0, records_at(wrong, range(10)), source="genius", timeout=20)
    with caplog.at_level(logging.WARNING, "crawler"):
        assert place.crawl(0, 10).requests == 0
    assert "songs 0 to 999 hold times that cannot be" in caplog.text
    assert main(["status", "--store", place.location]) == 0
    named = capsys.readouterr().out
    assert "crawl 0 1000 --refresh-older-than-days 0" in named
    environ = {"CRAWLER_BASE_URL": place.site.base_url, "CRAWLER_STORE": place.location}
    findings = list(examine(environ | {"GENIUS_TOKEN": "demo-token"}, song_num=1))
    assert any("times that cannot be" in finding.words for finding in findings)
    for _ in range(2):
        before = place.asked()
        answer = place.crawl(0, 10, refresh_older_than_days=0.0)
        assert (answer.complete, place.asked() - before) == (True, 10)
        held = place.records()
        songs = [num for num in range(10) if expected_info(num)]
        assert [held[num].info for num in songs] == [expected_info(num) for num in songs]
    assert [last_asked_at(record) > wrong for record in held.values()] == [True] * 10
