"""Chosen fields and kept bodies: new info of old pages, without asking the site again."""

import gzip
import json
import random
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl, read
from crawler.__main__ import main
from crawler.demo.site import DemoSite
from crawler.demo.songs import song, song_body
from crawler.errors import BlockFormatError, Missing, PageError, SettingsError, StoreMismatchError
from crawler.exports.export import rebuild
from crawler.record import Record
from crawler.run.raw import (
    RawKeeper,
    decode_pages,
    encode_pages,
    merge_pages,
    raw_name,
    raw_page,
    read_pages,
    save_pages,
)
from crawler.source.declared import open_source
from crawler.source.values import MAX_DEPTH
from crawler.store.block import BlockInfo, summarise
from crawler.store.contract import Deadline, Store
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store, store_beside
from tests.records import NOON, expected_info, found, missing
from tests.stores import SECONDS, fill

FIELDS = ["title", "primary_artist.name", "stats.pageviews"]


def body_of(**song: Any) -> bytes:
    """Make a page of the API about song 1."""
    return json.dumps({"meta": {"status": 200}, "response": {"song": {"id": 1} | song}}).encode()


def save_nothing(
    first: int, records: dict[int, Record], *, is_new: bool, timeout: float
) -> BlockInfo:
    """Count records as a store does that has saved them."""
    return summarise(records.values(), source="genius")


def take(*fields: str, **song: Any) -> dict[str, Any]:
    """Take fields from a song."""
    source = open_source("genius", "t", base_url="http://127.0.0.1", fields=fields)
    return source.info(1, body_of(**song))


@pytest.fixture
def kept(tmp_path: Path, demo_site: DemoSite) -> Callable[..., Any]:
    """Crawl the demo site into a folder, keeping bodies; more settings as given."""

    def run(start: int = 1, stop: int = 251, where: str = "old", **settings: Any) -> Any:
        given: dict[str, Any] = {"keep_raw": True, "rate": 0, "base_url": demo_site.base_url}
        store = str(tmp_path / where)
        return crawl(start, stop, store=store, token=demo_site.token, **given | settings)

    return run


@pytest.mark.parametrize(
    ("field", "song", "value"),
    [
        ("title", {"title": "A"}, "A"),
        ("title", {}, None),
        ("stats.pageviews", {"stats": {"pageviews": 3, "hot": True}}, 3),
        ("stats.pageviews", {"stats": None}, None),
        ("stats.pageviews", {"stats": 5}, None),
        ("album", {"album": {"name": "x", "id": 2}}, {"name": "x", "id": 2}),
        ("writers.name", {"writers": [{"name": "x"}, {}, 3]}, ["x", None, None]),
        ("id", {}, 1),
        ("class", {"class": [1]}, [1]),
    ],
)
def test_a_field_is_what_the_song_has_there_or_null(field, song, value):
    """A dotted name goes inwards, through lists too; where it leads nowhere it is null."""
    assert take(field, **song) == {field: value}


def test_a_field_and_what_lies_in_it_go_together():
    """One name may be the beginning of another."""
    assert take("album", "album.name", album={"name": "x"}) == {
        "album": {"name": "x"},
        "album.name": "x",
    }


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[", "json"),
        (b"{}", "schema"),
        (body_of(id=2), "mismatch"),
        (body_of(title="\xff").replace(b"\\u00ff", b"\xff"), "json"),
        (b'{"meta":{"status":500},"response":{"song":{"id":1}}}', "schema"),
    ],
)
def test_a_page_that_is_no_song_is_refused_whatever_the_fields(body, kind):
    """Chosen fields do not make a captcha a song."""
    with pytest.raises(PageError) as error:
        open_source("genius", "t", base_url="http://127.0.0.1", fields=["title"]).info(1, body)
    assert error.value.kind == kind


def test_odd_but_right_pages_are_read():
    """A BOM, half a surrogate pair, a 404 within a 200: as with the default fields."""
    source = open_source("genius", "t", base_url="http://127.0.0.1", fields=["title"])
    assert source.info(1, b"\xef\xbb\xbf" + body_of(title="A")) == {"title": "A"}
    assert source.info(1, body_of(title="\ud800")) == {"title": "\ud800"}
    with pytest.raises(Missing):
        source.info(1, b'{"meta":{"status":404}}')


def test_C10_a_field_nested_out_of_all_reason_is_null():
    """What could be decoded but not read back is not kept, and costs nothing else."""
    nested: Any = 0
    for _ in range(MAX_DEPTH + 1):
        nested = [nested]
    assert take("media", "title", media=nested, title="x") == {"media": None, "title": "x"}
    assert take("media", media=nested[0]) == {"media": nested[0]}


def test_chosen_fields_are_stored(kept, tmp_path: Path):
    """The info's keys are the dotted names."""
    kept(fields=FIELDS, keep_raw=False)
    songs = dict(read(str(tmp_path / "old")))
    assert songs.keys() == {num for num in range(1, 251) if expected_info(num)}
    for num, info in songs.items():
        made: Any = song(num)
        assert info == {
            "title": made["title"],
            "primary_artist.name": made["primary_artist"]["name"],
            "stats.pageviews": made["stats"].get("pageviews"),
        }


def test_other_fields_need_another_store(kept):
    """Two choices never mix: the run is refused before its first request."""
    kept(fields=FIELDS, keep_raw=False)
    with pytest.raises(StoreMismatchError, match=r"song-1:title,primary_artist\.name"):
        kept(fields=["title"], keep_raw=False)


def test_fields_beside_a_function_of_ones_own_are_refused(kept, monkeypatch, tmp_path: Path):
    """They would be without effect."""
    (tmp_path / "my_step.py").write_text("def step(session, num, out): ...\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="CRAWLER_FIELDS"):
        kept(fields=FIELDS, function="my_step:step", keep_raw=False)


def test_every_body_is_kept_as_the_site_sent_it(kept, tmp_path: Path):
    """Beside the blocks, a hundred numbers an object, a line each; found songs only."""
    kept()
    lines = [
        json.loads(line)
        for path in sorted((tmp_path / "old" / "raw").iterdir())
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert [line["song_num"] for line in lines] == [n for n in range(1, 251) if song_body(n)]
    assert all(line["body"].encode() == song_body(line["song_num"]) for line in lines)


def test_bodies_are_kept_in_a_bucket_too(kept, bucket_url, demo_site: DemoSite):
    """The same names, and the second run adds to what is there."""
    for start, stop in ((1, 51), (51, 101)):
        crawl(
            start,
            stop,
            store=bucket_url,
            base_url=demo_site.base_url,
            token=demo_site.token,
            keep_raw=True,
            rate=0,
        )
    pages = read_pages(open_store(bucket_url), raw_name(1), timeout=SECONDS)
    assert list(pages) == [n for n in range(1, 100) if song_body(n)]


def test_a_step1_function_keeps_what_it_appends_and_no_body(kept):
    """To ask for both is an error that says so."""
    with pytest.raises(SettingsError, match="a step 1 function keeps what it appends"):
        kept(function=lambda _session, _num, _out: None)


def test_a_body_that_is_not_utf8_comes_back_byte_by_byte():
    """Pages of other sites may be in any encoding."""
    pages = {7: raw_page(7, NOON, b"\xff\xfe\x00"), 8: raw_page(8, NOON, b"")}
    again = decode_pages(encode_pages(pages), raw_name(7))
    assert {num: page.content() for num, page in again.items()} == {7: b"\xff\xfe\x00", 8: b""}


def test_merging_bodies_keeps_the_newer_whatever_the_order():
    """So overlapping runs end with the same object."""
    old = {1: raw_page(1, NOON, b"old"), 3: raw_page(3, NOON, b"three")}
    new = {1: raw_page(1, NOON + timedelta(seconds=1), b"new"), 2: raw_page(2, NOON, b"two")}
    assert merge_pages(old, new) == merge_pages(new, old)
    assert [page.content() for page in merge_pages(old, new).values()] == [b"new", b"two", b"three"]


def test_many_writers_of_one_raw_object_lose_nothing(store: Store):
    """Each reads, merges and swaps, so every body is there in the end."""
    threads = [
        threading.Thread(
            target=save_pages,
            args=(store, {n: raw_page(n, NOON, str(n).encode())}, Deadline(30)),
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(read_pages(store, raw_name(0), timeout=SECONDS)) == list(range(8))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        encode_pages({1: raw_page(1, NOON, b"x")})[:-5],
        encode_pages({500: raw_page(500, NOON, b"x")}),
        gzip.compress(b"{}\n"),
    ],
    ids=["empty", "garbage", "cut", "of-another", "no-page"],
)
def test_a_broken_raw_object_is_named(data):
    """With what to do about it."""
    with pytest.raises(BlockFormatError, match=r"raw/000000000000\.jsonl\.gz cannot be read"):
        decode_pages(data, raw_name(1))


def test_bodies_that_wait_have_a_limit(tmp_path: Path):
    """Beyond it there is no room for more, until their block is stored or they are let go."""
    keeper = RawKeeper(FolderStore(tmp_path), max_held_bytes=2000)
    assert keeper.has_room()
    body = random.Random(1).randbytes(1000)
    keeper.keep(1, body)
    keeper.keep(1, body)
    assert keeper.has_room()
    keeper.keep(2, body)
    assert not keeper.has_room()
    save = keeper.saving(save_nothing)
    save(0, {1: missing(1), 2: missing(2)}, is_new=True, timeout=SECONDS)
    assert keeper.has_room()


def test_new_fields_are_made_of_kept_bodies_without_a_request(kept, tmp_path: Path, demo_site):
    """`rebuild` gives what a crawl with those fields would have given, record by record."""
    kept()
    asked = demo_site.stats()["requests"]
    source = open_source("genius", "t", base_url=demo_site.base_url, fields=FIELDS)
    report = rebuild(
        open_store(str(tmp_path / "old")), open_store(str(tmp_path / "new")), source, 1, 251
    )
    assert (report.rebuilt + report.copied, report.without_raw, report.refused) == (250, 0, 0)
    assert demo_site.stats()["requests"] == asked
    kept(where="fresh", fields=FIELDS)
    assert dict(read(str(tmp_path / "new"))) == dict(read(str(tmp_path / "fresh")))
    assert kept(where="new", fields=FIELDS).skipped == 250


def test_songs_without_a_body_are_left_to_a_crawl(kept, tmp_path: Path):
    """They are counted and named, and cost the crawl that follows what they must."""
    kept(1, 101, keep_raw=False)
    kept(101, 201)
    source = open_source("genius", "t", base_url="http://127.0.0.1", fields=FIELDS)
    report = rebuild(
        open_store(str(tmp_path / "old")), open_store(str(tmp_path / "new")), source, 1, 201
    )
    without = sum(expected_info(num) is not None for num in range(1, 101))
    assert report.without_raw == without
    assert report.first_troubles[1] == "its body was not kept"
    answer = kept(1, 201, where="new", fields=FIELDS)
    assert (answer.requests, answer.complete) == (without, True)


def test_a_body_that_the_source_refuses_is_told(tmp_path: Path):
    """Its song is not in the new store, so nothing wrong is."""
    old, new = FolderStore(tmp_path / "old"), FolderStore(tmp_path / "new")
    fill(old, [found(1), found(2)])
    save_pages(old, {1: raw_page(1, NOON, b"<html>")}, Deadline(SECONDS))
    report = rebuild(
        old, new, open_source("genius", "t", base_url="http://127.0.0.1", fields=FIELDS), 0, 10
    )
    assert (report.refused, report.without_raw, report.rebuilt) == (1, 1, 0)
    assert "json" in report.first_troubles[1]


def test_a_rebuild_goes_to_another_store_of_the_same_source(tmp_path: Path):
    """The old store is never written; another source's, an empty or the same one is refused."""
    old, source = (
        FolderStore(tmp_path),
        open_source("genius", "t", base_url="http://127.0.0.1", fields=FIELDS),
    )
    new = FolderStore(tmp_path / "new")
    with pytest.raises(StoreMismatchError, match="crawl some first"):
        rebuild(old, new, source, 0, 1)
    fill(old, [found(1)])
    with pytest.raises(StoreMismatchError, match="rebuild into another store"):
        rebuild(old, old, source, 0, 1)
    fill(new, [found(1)], source="other")
    with pytest.raises(StoreMismatchError, match="source 'other'"):
        rebuild(new, old, source, 0, 1)
    with pytest.raises(SettingsError, match="only a source"):
        rebuild(old, new, print, 0, 1)


def test_the_command_rebuilds_and_says_how_to_get_the_rest(kept, tmp_path, capsys, monkeypatch):
    """`rebuild START STOP` goes to a store beside the old one; exit 3 while some are lacking."""
    kept(1, 11, keep_raw=False)
    kept(11, 21)
    monkeypatch.setenv("CRAWLER_FIELDS", ",".join(FIELDS))
    old = str(tmp_path / "old")
    assert main(["rebuild", "1", "21", "--store", old]) == 3
    out = capsys.readouterr().out
    assert f"{old}-rebuilt: " in out
    assert f"crawl 1 21 --store {old}-rebuilt" in out
    assert main(["rebuild", "11", "21", "--store", old, "--into", f"{old}2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["without_raw"] == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("data/genius", "data/genius-rebuilt"),
        ("data/genius/", "data/genius-rebuilt"),
        ("gs://bucket/genius", "gs://bucket/genius-rebuilt"),
        ("gs://bucket", "gs://bucket/rebuilt"),
    ],
)
def test_the_new_store_lies_beside_the_old_one(old, new):
    """Never in another bucket."""
    assert store_beside(old, "rebuilt") == new
