"""Fields lead everywhere: types found in data, names of columns, statements of DuckDB and BigQuery."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler import to_pandas
from crawler.__main__ import main
from crawler.exports.formats import Batches
from crawler.record import Record
from crawler.source.fields import (
    MAX_COLUMNS,
    MAX_DEPTH,
    MAX_PARTS,
    Column,
    ColumnFinder,
    Finder,
    ListOf,
    Parts,
    bigquery_schema,
    column_name,
    columns_of,
)
from crawler.store.folder import FolderStore
from tests.records import NOON, infos
from tests.stores import every_outcome, fill
from tests.test_export import OWN, fill_own

ROOT = Path(__file__).parent.parent


def type_of(*values):
    """Find the type of values that come one by one."""
    finder = Finder()
    for value in values:
        finder.see([value])
    return finder.found()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((), "text"),
        ((None,), "text"),
        ((None, 1), "integer"),
        ((True, None, False), "boolean"),
        ((True, 1), "mixed"),
        ((1, 2.5), "number"),
        ((2**53, 2.5), "number"),
        ((2**53 + 1, 2.5), "mixed"),
        ((-(2**53) - 2, 2.5), "mixed"),
        ((2**63 - 1,), "integer"),
        ((2**63,), "mixed"),
        ((-(2**63),), "integer"),
        ((-(2**63) - 1,), "mixed"),
        (("a", None), "text"),
        (("a", 1), "mixed"),
        (([], None), ListOf("text")),
        (([1], [2.5, None]), ListOf("number")),
        (([[1]],), ListOf(ListOf("integer"))),
        (([1], "a"), "mixed"),
        (([1, "a"],), ListOf("mixed")),
        (({},), "json"),
        (({"a": 1}, {"b": "x"}, None), Parts({"a": "integer", "b": "text"})),
        (({"a": {"b": []}},), Parts({"a": Parts({"b": ListOf("text")})})),
        (({"a": 1}, [1]), "mixed"),
        (({f"w{n}": n for n in range(MAX_PARTS + 1)},), "json"),
        (
            ({f"w{n}": n for n in range(MAX_PARTS)},),
            Parts({f"w{n}": "integer" for n in range(100)}),
        ),
    ],
)
def test_a_type_holds_all_that_came(values, found):
    """The narrowest one; where values disagree, text."""
    assert type_of(*values) == found


def test_what_is_nested_too_deep_is_json():
    """No tool need go down further."""
    value: object = 1
    for _ in range(MAX_DEPTH + 2):
        value = [value]
    found, depth = type_of(value), 0
    while isinstance(found, ListOf):
        found, depth = found.item, depth + 1
    assert (found, depth) == ("json", MAX_DEPTH)


def found_types(infos, declared=None):
    """Find the types of infos; None where they are one column."""
    finder = ColumnFinder(declared)
    finder.see([Record(num, "found", 200, info, None, 1, NOON) for num, info in enumerate(infos)])
    inner = {c.key: c.type for c in finder.columns() if c.key is not None}
    return inner if inner or not any(c.name == "info" for c in finder.columns()) else None


def test_declared_types_need_no_look_at_the_data():
    """What is declared holds, whatever comes."""
    finder = ColumnFinder({"a": "text"})
    assert not finder.needs_data
    assert ColumnFinder({"a": "json"}).needs_data
    assert ColumnFinder(None).needs_data
    assert found_types([{"a": 1, "b": 2}], {"a": "text"}) == {"a": "text"}


def test_any_value_and_names_nobody_declared_are_found():
    """What is declared as JSON has the type of what came; the union of the names is kept."""
    found = found_types([{"a": 1, "b": [1], "c": "x"}], {"a": "text", "b": "json", "d": "json"})
    assert found == {"a": "text", "b": ListOf("integer"), "d": "json", "c": "text"}


def test_infos_with_very_many_names_are_one_column():
    """Counts by word are no table."""
    assert found_types([{f"w{n}": n for n in range(MAX_COLUMNS + 1)}]) is None
    assert len(found_types([{f"w{n}": n for n in range(MAX_COLUMNS)}]) or ()) == MAX_COLUMNS


@settings(deadline=None)
@given(st.lists(infos, max_size=8), st.integers(0, 8))
def test_what_two_saw_is_what_one_would_have_seen(values, cut):
    """Types, and the order of names; told as plain values that any JSON can hold."""
    whole, first, second = Finder(), Finder(), Finder()
    whole.see(values)
    first.see(values[:cut])
    second.see(values[cut:])
    first.add(json.loads(json.dumps(second.types())))
    assert first.found() == whole.found()
    assert repr(first.types()) == repr(whole.types())


@pytest.mark.parametrize(
    ("key", "taken", "name"),
    [
        ("title", set(), "title"),
        ("stats.pageviews", set(), "stats_pageviews"),
        ("título", set(), "t_tulo"),
        ("2nd", set(), "_2nd"),
        ("", set(), "_"),
        ("status", {"status"}, "info_status"),
        ("Title", {"title"}, "info_Title"),
        ("a.b", {"a_b", "info_a_b"}, "info_a_b_2"),
    ],
)
def test_a_column_has_a_name_that_every_tool_takes(key, taken, name):
    """Letters, digits and `_`; none twice, whatever the case."""
    assert column_name(key, taken) == name


@settings(deadline=None)
@given(st.lists(infos | st.none() | st.integers(), max_size=8))
def test_any_infos_become_a_table(values):
    """No info of anybody's makes an error, and no value that has a place is lost."""
    records = [Record(num, "found", 200, info, None, 1, NOON) for num, info in enumerate(values)]
    finder = ColumnFinder(None)
    finder.see(records)
    columns = finder.columns()
    batches = Batches(columns)
    rows = batches.batch(records).to_pylist()
    assert not +batches.misfits
    for row, info in zip(rows, values, strict=True):
        for column in columns:
            if column.key is not None and isinstance(info, dict):
                is_null = info.get(column.key) is None
                assert (row[column.name] is None) == is_null


@pytest.mark.parametrize(
    ("value", "column_type", "made", "misfits"),
    [
        ([1, "x"], ListOf("mixed"), ["1", "x"], 0),
        ({"a": [1], "b": "x"}, Parts({"a": "json", "b": "mixed"}), {"a": "[1]", "b": "x"}, 0),
        ({"a": "\ud800"}, "json", '{"a":"\\ud800"}', 0),
        (["\ud800"], ListOf("text"), ["\\ud800"], 0),
        ({"a": ["\ud800", 5]}, Parts({"a": ListOf("text")}), {"a": ["\\ud800", None]}, 1),
        ([2**70], ListOf("integer"), [None], 1),
        ("x", "number", None, 1),
        (5, ListOf("json"), None, 1),
        ("x", Parts({"a": "json"}), None, 1),
    ],
)
def test_a_value_has_its_place_or_is_counted(value, column_type, made, misfits):
    """Packed where it is packed, wherever it is nested; what does not fit is null."""
    batches = Batches([Column("info_x", column_type, "x")])
    record = Record(1, "found", 200, {"x": value}, None, 1, NOON)
    assert batches.batch([record]).to_pylist() == [{"info_x": made}]
    assert batches.misfits.total() == misfits


def test_names_beyond_a_hundred_are_looked_at_no_more():
    """The place of an object is JSON then, however many more come."""
    finder = Finder()
    for start in (0, 80, 160):
        finder.see([{f"w{n}": n for n in range(start, start + 80)}])
    assert finder.found() == "json"
    assert len(finder.parts) <= MAX_PARTS + 1


def as_objects(frame: Any) -> list[list[object]]:
    """Take the values of a frame, nulls of every kind as None."""
    import pandas as pd  # half a second for each process of the tests

    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if hasattr(value, "tolist") and not isinstance(value, str):
            value = value.tolist()
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        is_nan = isinstance(value, float) and math.isnan(value)
        return None if is_nan or value is pd.NA or value is pd.NaT else value

    return [[plain(value) for value in frame[name]] for name in frame.columns]


SAFE = [info | {"word": "b"} for info in OWN]  # DuckDB takes no half of a surrogate pair


@pytest.mark.parametrize("kind", ["genius", "function", "chosen", "no-object"])
def test_the_statement_of_duckdb_gives_what_pandas_gets(tmp_path, kind, capsys):
    """`schema --duckdb` reads the blocks in place: the same columns, the same values."""
    import duckdb

    folder = FolderStore(tmp_path)
    if kind == "function":
        fill_own(folder, SAFE)
    elif kind == "no-object":
        fill_own(folder, [["x", 1], "it's", 5])
    elif kind == "genius":
        fill(folder, every_outcome())
    else:
        info = {"title": "A", "primary_artist.id": 5, "media": [{"url": "x"}], "status": "theirs"}
        record = Record(1, "found", 200, info, None, 1, NOON)
        fill(folder, [record], schema=f"song-1:{','.join(info)}")
    assert main(["schema", "--duckdb", "--store", str(tmp_path)]) == 0
    shown = duckdb.sql(capsys.readouterr().out).to_arrow_table()
    frame = to_pandas(str(tmp_path))
    assert shown.column_names == list(frame.columns)
    assert [column.to_pylist() for column in shown.columns] == as_objects(frame)


def test_the_schema_of_bigquery_is_that_of_the_page(tmp_path, capsys):
    """The file that the docs name is what the command prints for the Genius source."""
    fill(FolderStore(tmp_path), every_outcome())
    assert main(["schema", "--bigquery", "--store", str(tmp_path)]) == 0
    written = json.loads((ROOT / "docs" / "bigquery_schema.json").read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == written


def test_names_that_bigquery_does_not_take_lie_in_json():
    """Dotted names of `CRAWLER_FIELDS` among them; what is nested stays nested."""

    def info_of(types):
        [field] = [f for f in bigquery_schema(columns_of(types)) if f["name"] == "info"]
        return field

    assert info_of({"stats.pageviews": "integer"})["type"] == "JSON"
    nested = info_of({"of": Parts({"born": "integer", "a b": "text"}), "uses": ListOf("text")})
    assert [field["type"] for field in nested["fields"]] == ["JSON", "JSON"]
    nested = info_of({"of": Parts({"born": "integer"}), "size": "number"})
    assert [field["type"] for field in nested["fields"]] == ["RECORD", "FLOAT"]
    assert info_of(None)["type"] == "JSON"


def test_a_schema_of_an_empty_store_is_told(tmp_path, capsys):
    """Its fields are not known yet."""
    assert main(["schema", "--duckdb", "--store", str(tmp_path)]) == 1
    assert "crawl some first" in capsys.readouterr().err


def test_columns_are_in_the_order_of_the_fields():
    """Ours stand around them."""
    names = [column.name for column in columns_of({"b": "text", "a": "text"})]
    assert names[2:6] == ["status", "b", "a", "error"]
    assert Column("b", "text", "b") in columns_of({"b": "text"})
