"""What the page on exports shows is run as it stands."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from crawler.__main__ import main
from crawler.exports.formats import to_pandas
from crawler.record import Record, encode_record
from crawler.store.folder import FolderStore
from tests.records import NOON, failed
from tests.stores import every_outcome, fill, hostile_songs, song

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
BIGQUERY = json.loads((ROOT / "docs" / "bigquery_schema.json").read_text(encoding="utf-8"))


def blocks_of(language: str) -> list[str]:
    """The page's code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """A store at `data/demo`, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    return FolderStore("data/demo")


def test_the_python_examples_run(demo: FolderStore, capsys):
    """They print the titles and the counts, and write a file."""
    fill(demo, every_outcome())
    exec(blocks_of("python")[0], {})
    assert "1 A song" in capsys.readouterr().out
    exec(blocks_of("python")[1], {})
    records = sum(1 <= record.song_num < 1001 for record in every_outcome())
    assert capsys.readouterr().out == f"{records} {Path('titles.csv').stat().st_size} {{}}\n"


def test_the_export_commands_run(demo: FolderStore):
    """Those on a folder, as they stand."""
    fill(demo, every_outcome())
    commands = re.findall(r"^python -m crawler (export .*data/demo.*)$", PAGE, re.MULTILINE)
    assert len(commands) == 3
    assert [main(command.split()) for command in commands] == [0, 0, 0]
    assert Path("songs.parquet").exists()
    exec(blocks_of("python")[2], shown := {})
    assert len(shown["songs"]) == len(every_outcome())


def test_the_table_of_columns_is_that_of_an_export(demo: FolderStore):
    """Each column is in it once."""
    fill(demo, [song(1)])
    rows = re.findall(r"^\| ([a-z_, ]+) \| (?:int64|text|time)", PAGE, re.MULTILINE)
    assert sorted(", ".join(rows).split(", ")) == sorted(to_pandas("data/demo").columns)


def test_duckdb_reads_the_blocks_in_place(demo: FolderStore):
    """The statement of the page gives what the records say, whatever the titles."""
    import duckdb

    fill(demo, [*every_outcome(), *hostile_songs(2000), song(3001, artist="Other", pageviews=9)])
    rows = duckdb.sql(blocks_of("sql")[0]).fetchall()
    readable = [r for r in hostile_songs() if not re.search("[\ud800-\udfff]", r.info["title"])]
    assert rows == [
        ("Somebody", 4 + len(readable), (3 + len(readable)) * 5000),
        ("Other", 1, 9),
    ]


def test_duckdb_sees_every_record_and_type(demo: FolderStore):
    """Times are times, and nothing in a block is unknown to the statement's columns."""
    import duckdb

    fill(demo, every_outcome())
    source = re.search(r"read_json\(.*?\n\)", blocks_of("sql")[0], re.DOTALL)[0]
    rows = duckdb.sql(f"SELECT song_num, outcome, epoch(fetched_at) FROM {source}").fetchall()
    assert sorted(rows) == [
        (record.song_num, record.outcome, NOON.timestamp()) for record in every_outcome()
    ]


def fits(field: dict[str, Any], value: Any) -> bool:
    """Whether a value of a line may stand in a column of BigQuery."""
    if value is None:
        return field["mode"] == "NULLABLE"
    if field["type"] == "RECORD":
        return agrees(field["fields"], value)
    if field["type"] == "TIMESTAMP":
        return datetime.fromisoformat(value).tzinfo is not None
    return type(value) is {"INTEGER": int, "STRING": str}[field["type"]]


def agrees(schema: list[dict[str, Any]], line: dict[str, Any]) -> bool:
    """Whether a line has no other names than the schema's, and each value fits."""
    known = {field["name"]: field for field in schema}
    return line.keys() <= known.keys() and all(
        fits(field, line.get(name)) for name, field in known.items()
    )


@pytest.mark.parametrize(
    "record",
    [*every_outcome(), failed(7, next_try_at=NOON), failed(8, error="http_500")],
    ids=lambda record: f"{record.outcome}-{record.song_num}",
)
def test_the_bigquery_schema_fits_every_record(record: Record):
    """Names and types are those of the lines."""
    assert agrees(BIGQUERY, json.loads(encode_record(record)))


def test_the_bigquery_schema_names_every_field_of_a_record():
    """A field added to the record is added there too."""
    assert [field["name"] for field in BIGQUERY] == list(Record.__struct_fields__)


@pytest.mark.parametrize(
    "change",
    [{"song_num": "1"}, {"song_num": None}, {"more": 1}, {"info": {"title": 5}}, {"status": True}],
    ids=repr,
)
def test_the_check_of_the_bigquery_schema_can_fail(change):
    """A line that does not fit is noticed."""
    assert not agrees(BIGQUERY, json.loads(encode_record(song(1))) | change)
