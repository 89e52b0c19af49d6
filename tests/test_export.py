"""Exports: one schema whatever the data, hostile titles whole, the file there whole or not at all."""

import csv
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler import to_pandas
from crawler.__main__ import main
from crawler.errors import BlockFormatError, SettingsError, StoreMismatchError
from crawler.exports.export import export
from crawler.record import Record
from crawler.store.block import block_name
from crawler.store.contract import Store, Stored
from crawler.store.folder import FolderStore
from tests.records import HOSTILE, NOON, missing, mixed
from tests.stores import FULL, every_outcome, fill, hostile_songs, song

FORMATS = (".parquet", ".csv", ".jsonl")
SCHEMA = pa.schema(
    [
        ("song_num", pa.int64()),
        ("outcome", pa.string()),
        ("status", pa.int64()),
        ("title", pa.string()),
        ("url", pa.string()),
        ("artist", pa.string()),
        ("artist_id", pa.int64()),
        ("album", pa.string()),
        ("release_date", pa.string()),
        ("pageviews", pa.int64()),
        ("error", pa.string()),
        ("attempts", pa.int64()),
        ("fetched_at", pa.timestamp("us", "UTC")),
        ("gone_since", pa.timestamp("us", "UTC")),
    ]
)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read an export back with the tool of its format; absent values are None."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def expected(title: str, suffix: str) -> str:
    """What a title becomes: halves of pairs are escaped where UTF-8 must hold them."""
    if suffix == ".jsonl":
        return title
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in title)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_record_is_exported_once_in_order(store: Store, tmp_path: Path, suffix):
    """Found, missing and failed ones, from a folder or a bucket, each a row."""
    fill(store, every_outcome())
    report = export(store.location, tmp_path / f"songs{suffix}")
    rows = rows_of(tmp_path / f"songs{suffix}")
    assert report.records == len(rows) == 6
    assert [int(row["song_num"]) for row in rows] == [1, 2, 3, 999, 1000, 5000]
    assert [row["outcome"] for row in rows[:3]] == ["found", "missing", "failed"]
    assert list(rows[0]) == SCHEMA.names
    assert report.misfits == {}


@pytest.mark.parametrize(
    "records",
    [every_outcome(), [missing(1)], [song(1, **dict.fromkeys(FULL))], []],
    ids=["all-kinds", "only-missing", "only-nulls", "none"],
)
def test_the_schema_does_not_change_with_the_data(tmp_path: Path, records):
    """Types follow from the source, so files of any two days can be read together."""
    fill(FolderStore(tmp_path / "store"), records)
    export(str(tmp_path / "store"), tmp_path / "songs.parquet")
    assert pq.read_schema(tmp_path / "songs.parquet").equals(SCHEMA)


def test_parquet_holds_what_the_records_hold(tmp_path: Path):
    """Times to the microsecond in UTC, absent values null, whole numbers whole."""
    fill(FolderStore(tmp_path), every_outcome())
    export(str(tmp_path), tmp_path / "songs.parquet")
    rows = rows_of(tmp_path / "songs.parquet")
    assert {name: rows[0][name] for name in FULL} == FULL
    assert rows[0]["fetched_at"] == NOON
    assert isinstance(rows[3]["gone_since"], datetime)
    assert (rows[4]["pageviews"], rows[4]["album"], rows[5]["album"]) == (None, None, "")
    assert (rows[2]["error"], rows[2]["title"]) == ("timeout", None)


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_titles_come_through_every_format(tmp_path: Path, suffix):
    """NUL, line ends, quotes, formulas and tags come back as they were (C5).

    Half of a surrogate pair, which UTF-8 cannot hold, comes as its escape; in JSON as it was.
    """
    songs = [*hostile_songs(), song(50, title='"quoted", and\\more'), song(51, title="'\t;")]
    fill(FolderStore(tmp_path / "store"), songs)
    export(str(tmp_path / "store"), tmp_path / f"songs{suffix}")
    titles = [row["title"] for row in rows_of(tmp_path / f"songs{suffix}")]
    assert titles == [expected(record.info["title"], suffix) for record in songs]
    assert len(titles) == len(HOSTILE) + 2


def test_an_empty_text_is_not_an_absent_one_in_csv(tmp_path: Path):
    """Texts are quoted, what is absent is not."""
    fill(FolderStore(tmp_path), [song(1, album="", pageviews=None)])
    export(str(tmp_path), tmp_path / "songs.csv")
    line = (tmp_path / "songs.csv").read_text().splitlines()[1]
    assert ',"","1999-12-31",,,1,2026-11-22 12:00:00.000000Z,' in line


def test_a_value_that_fits_no_column_is_told_not_hidden(tmp_path: Path):
    """It is null in its column, and the report counts it."""
    fill(FolderStore(tmp_path), [song(1, pageviews=2**70, title=5), song(2, pageviews=3)])
    report = export(str(tmp_path), tmp_path / "songs.parquet")
    assert [row["pageviews"] for row in rows_of(tmp_path / "songs.parquet")] == [None, 3]
    assert report.misfits == {"pageviews": 1, "title": 1}


def test_chosen_fields_are_columns_of_their_kinds(tmp_path: Path):
    """A dotted name has `_` for its dots; what is not declared has the type of what came."""
    schema = "song-1:title,primary_artist.id,stats.hot,writer_artists.name,error"
    info = {
        "title": "A",
        "primary_artist.id": 5,
        "stats.hot": True,
        "writer_artists.name": ["x", "y"],
        "error": "theirs",
    }
    fill(FolderStore(tmp_path), [Record(1, "found", 200, info, None, 1, NOON)], schema=schema)
    export(str(tmp_path), tmp_path / "songs.parquet")
    assert pq.read_schema(tmp_path / "songs.parquet").types[3:8] == [
        pa.string(),
        pa.int64(),
        pa.bool_(),
        pa.list_(pa.string()),
        pa.string(),
    ]
    row = rows_of(tmp_path / "songs.parquet")[0]
    assert (row["writer_artists_name"], row["info_error"]) == (["x", "y"], "theirs")
    assert (row["error"], row["stats_hot"]) == (None, True)


@pytest.mark.parametrize("info", [["x", 2], "text", 5, "\ud800", {}], ids=repr)
def test_an_info_that_is_no_object_is_one_column_of_json(tmp_path: Path, info):
    """Whatever a step 1 function appends has a place; in JSON lines it is not packed twice."""
    record = Record(1, "found", 200, info, None, 1, NOON)
    fill(FolderStore(tmp_path), [record, missing(2)], source="mine.pages", schema="1")
    for suffix in (".parquet", ".jsonl"):
        export(str(tmp_path), tmp_path / f"songs{suffix}")
    packed = [row["info"] for row in rows_of(tmp_path / "songs.parquet")]
    assert [json.loads(packed[0]), packed[1]] == [info, None]
    assert rows_of(tmp_path / "songs.jsonl")[0]["info"] == info


OWN = [
    {"word": "a", "year": 1650, "size": 1, "of": {"maker": "Ann", "born": None}, "uses": ["x"]},
    {"word": None, "year": "about 1700", "size": 2.5, "of": None, "uses": []},
    {"word": "\ud800", "year": [1700], "size": None, "of": {"maker": "Bob"}, "2nd.row": True},
]


def fill_own(store: Store, infos: list[Any] = OWN) -> None:
    """Store what a step 1 function of somebody's own appended."""
    records = [Record(num, "found", 200, info, None, 1, NOON) for num, info in enumerate(infos, 1)]
    fill(store, [*records, missing(len(infos) + 1)], source="my.words", schema="1")


def test_the_info_of_a_function_becomes_columns_of_found_types(tmp_path: Path):
    """Nested parts stay nested; a column whose values disagree is text, never an error."""
    fill_own(FolderStore(tmp_path / "store"))
    export(str(tmp_path / "store"), tmp_path / "words.parquet")
    schema = pq.read_schema(tmp_path / "words.parquet")
    assert schema.names[3:9] == ["word", "year", "size", "of", "uses", "_2nd_row"]
    assert schema.types[3:9] == [
        pa.string(),
        pa.string(),
        pa.float64(),
        pa.struct([("maker", pa.string()), ("born", pa.string())]),
        pa.list_(pa.string()),
        pa.bool_(),
    ]
    rows = rows_of(tmp_path / "words.parquet")
    assert [row["year"] for row in rows] == ["1650", "about 1700", "[1700]", None]
    assert [row["size"] for row in rows] == [1.0, 2.5, None, None]
    assert rows[0]["of"] == {"maker": "Ann", "born": None}
    assert rows[2]["word"] == "\\ud800"


def test_pandas_gets_the_columns_of_a_function(tmp_path: Path):
    """As an export has them; no column is called info."""
    fill_own(FolderStore(tmp_path))
    frame = to_pandas(str(tmp_path))
    assert list(frame["year"][:3]) == ["1650", "about 1700", "[1700]"]
    assert "info" not in frame.columns


def test_polars_reads_exports_with_the_types_of_the_fields(tmp_path: Path):
    """Declared and found ones; from Parquet, from a folder of parts and from JSON lines."""
    import polars as pl  # as pandas, half a second for each process of the tests

    fill(FolderStore(tmp_path / "songs"), every_outcome())
    export(str(tmp_path / "songs"), tmp_path / "songs.parquet")
    songs = pl.read_parquet(tmp_path / "songs.parquet")
    assert (songs.schema["artist_id"], songs.schema["title"]) == (pl.Int64(), pl.String())
    assert songs.schema["fetched_at"] == pl.Datetime("us", "UTC")
    fill_own(FolderStore(tmp_path / "words"))
    export(str(tmp_path / "words"), f"{tmp_path}/parts/")
    words = pl.read_parquet(tmp_path / "parts" / "*.parquet")
    assert words.schema["of"] == pl.Struct({"maker": pl.String, "born": pl.String})
    assert (words.schema["uses"], words.schema["size"]) == (pl.List(pl.String), pl.Float64())
    assert words["_2nd_row"].to_list() == [None, None, True, None]
    export(str(tmp_path / "songs"), tmp_path / "songs.jsonl")
    lines = pl.read_ndjson(tmp_path / "songs.jsonl", infer_schema_length=None)
    numbers = ["song_num", "artist_id", "pageviews", "attempts"]
    assert lines.select(numbers).equals(songs.select(numbers))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_what_is_nested_has_a_place_in_every_format(tmp_path: Path, suffix):
    """As JSON in a text where there are only texts, as it is in JSON lines."""
    fill_own(FolderStore(tmp_path / "store"))
    export(str(tmp_path / "store"), tmp_path / f"words{suffix}")
    of = rows_of(tmp_path / f"words{suffix}")[0]["of"]
    assert (json.loads(of) if suffix == ".csv" else of) == {"maker": "Ann", "born": None}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_that_comes_late_has_its_place(tmp_path: Path, suffix):
    """What the first rows did not show is taken in all the same."""
    early = 10_500
    infos: list[Any] = (
        [{"word": "a"}] * early + [{"word": 5, "late": [1.5]}] + [{"word": "b"}] * 2000
    )
    fill_own(FolderStore(tmp_path / "store"), infos)
    out = tmp_path / f"words{suffix}"
    report = export(str(tmp_path / "store"), out)
    rows = rows_of(out)
    assert report.records == len(rows) == early + 2002
    assert rows[early]["late"] in ([1.5], "[1.5]")
    assert {str(row["word"]) for row in rows[: early + 2001]} == {"a", "5", "b"}


def test_a_folder_gets_parts_and_only_those_that_changed(store: Store, tmp_path: Path):
    """A hundred blocks a part; a block that changed costs its part, one that is gone goes."""
    import pandas as pd

    fill(store, [song(1), song(99_999), song(100_000), song(250_000)])
    out = tmp_path / "songs"
    report = export(store.location, f"{out}/")
    assert (report.records, report.parts_written, report.parts_kept) == (4, 3, 0)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert sorted(before) == [f"part-{first:012}.parquet" for first in (0, 100_000, 200_000)]
    fill(store, [song(100_001)])
    store.delete(block_name(250_000), timeout=10)
    report = export(store.location, out)
    assert (report.records, report.parts_written, report.parts_kept) == (4, 1, 1)
    after = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert [name for name in sorted(after) if after[name] != before[name]] == [sorted(before)[1]]
    assert sorted(pd.read_parquet(out)["song_num"]) == [1, 99_999, 100_000, 100_001]
    with pytest.raises(SettingsError, match="whole store"):
        export(store.location, out, 1, 5)


def test_a_folder_is_written_anew_where_a_column_is_new(tmp_path: Path):
    """All parts have the same columns, so that they are read as one table."""
    words = FolderStore(tmp_path / "store")
    fill_own(words, [{"word": "a"}])
    export(str(tmp_path / "store"), f"{tmp_path}/out/")
    record = Record(100_001, "found", 200, {"more": 1}, None, 1, NOON)
    fill(words, [record], source="my.words", schema="1")
    report = export(str(tmp_path / "store"), tmp_path / "out")
    assert report.parts_written == 2
    assert pq.read_table(tmp_path / "out").to_pandas()["more"].sum() == 1


class Watched(FolderStore):
    """A folder that remembers which blocks were read whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.blocks_read: set[str] = set()

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object."""
        self.blocks_read |= {name} if name.startswith("songs/") else set()
        return super().read(name, timeout=timeout)


@pytest.mark.parametrize("infos", [OWN, [{"\ud800": 2**70}, {"a": {"b": [None, 1.5]}}]])
def test_where_nothing_changed_no_block_is_read(tmp_path: Path, infos):
    """What was found in a part stands in its file, so that types need no second look."""
    words = FolderStore(tmp_path / "store")
    fill_own(words, infos)
    late = Record(100_001, "found", 200, {"late": 1, "word": 5}, None, 1, NOON)
    fill(words, [late], source="my.words", schema="1")
    export(words, f"{tmp_path}/out/")
    columns = pq.read_schema(tmp_path / "out" / "part-000000100000.parquet").names
    words = Watched(tmp_path / "store")
    assert export(words, tmp_path / "out").parts_kept == 2
    assert words.blocks_read == set()
    more = Record(200_001, "found", 200, {"late": 2}, None, 1, NOON)
    fill(words, [more], source="my.words", schema="1")
    report = export(words, tmp_path / "out")
    assert (report.parts_kept, report.parts_written) == (2, 1)
    assert words.blocks_read == {block_name(200_000)}
    assert pq.read_schema(tmp_path / "out" / "part-000000200000.parquet").names == columns


def test_a_part_that_is_no_parquet_is_written_anew(tmp_path: Path):
    """Whoever damaged it."""
    fill(FolderStore(tmp_path / "store"), [song(1)])
    export(str(tmp_path / "store"), f"{tmp_path}/out/")
    [part] = (tmp_path / "out").iterdir()
    part.write_bytes(b"")
    assert export(str(tmp_path / "store"), tmp_path / "out").parts_written == 1


def test_a_broken_block_leaves_the_old_file(tmp_path: Path):
    """An export that cannot be whole is none; nothing half-written lies about (E5)."""
    fill(FolderStore(tmp_path), mixed(range(2000)).values())
    out = tmp_path / "out" / "songs.csv"
    out.parent.mkdir()
    out.write_text("the old one")
    path = tmp_path / block_name(1000)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BlockFormatError, match=block_name(1000)):
        export(str(tmp_path), out)
    assert [file.read_text() for file in out.parent.iterdir()] == ["the old one"]


@pytest.mark.parametrize("name", ["songs.xlsx", "songs", ".parquet"])
def test_an_unknown_format_is_refused_with_those_known(tmp_path: Path, name):
    """Before the store is looked at."""
    with pytest.raises(SettingsError, match=r"\.parquet, \.csv, \.jsonl"):
        export("gs://none/there", tmp_path / name)


def test_a_store_without_songs_says_so(tmp_path: Path):
    """Its columns are not known yet."""
    with pytest.raises(StoreMismatchError, match="crawl some first"):
        export(str(tmp_path), tmp_path / "songs.jsonl")


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch):
    """It names the packages, not a name of ours that no registry has, and what needs none."""
    fill(FolderStore(tmp_path), [song(1)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as Python itself marks what is not there
    with pytest.raises(SettingsError, match=r"not installed: pip install pandas pyarrow, or"):
        export(str(tmp_path), tmp_path / "songs.parquet")
    assert export(str(tmp_path), tmp_path / "songs.jsonl").records == 1


def test_pandas_gets_typed_columns_with_whole_numbers(tmp_path: Path):
    """An absent number is `<NA>`, and does not turn the others into floats."""
    fill(FolderStore(tmp_path), every_outcome())
    frame = to_pandas(str(tmp_path))
    assert list(frame.columns) == SCHEMA.names
    assert str(frame["pageviews"].dtype) == "Int64"
    assert frame["pageviews"].sum() == 15000
    assert repr(frame.set_index("song_num").loc[1000, "pageviews"]) == "<NA>"
    assert str(frame["fetched_at"].dtype) == "datetime64[us, UTC]"


def test_pandas_gets_a_range(tmp_path: Path):
    """Start is included, stop is not; an empty range has the columns all the same."""
    fill(FolderStore(tmp_path), every_outcome())
    assert list(to_pandas(str(tmp_path), 2, 1000)["song_num"]) == [2, 3, 999]
    assert list(to_pandas(str(tmp_path), 6000).columns) == SCHEMA.names


def test_the_command_exports_and_tells_how_much(tmp_path: Path, capsys):
    """`export OUT --songs START STOP` writes the file and one line."""
    fill(FolderStore(tmp_path / "store"), every_outcome())
    out = tmp_path / "songs.parquet"
    assert main(["export", str(out), "--store", str(tmp_path / "store"), "--songs", "1", "3"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 2 records, ")
    assert main(["export", str(out), "--store", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 6


def test_the_command_tells_of_a_folder_that_is_not_there(tmp_path: Path, capsys):
    """A file that cannot be written is an error in words, exit 1."""
    fill(FolderStore(tmp_path), [song(1)])
    for name in ("songs.jsonl", "songs.parquet"):
        out = tmp_path / "none" / name
        assert main(["export", str(out), "--store", str(tmp_path)]) == 1
        told = f"{out} cannot be written: No such file or directory\n"
        assert capsys.readouterr().err.endswith(told)
