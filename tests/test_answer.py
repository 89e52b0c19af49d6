"""The answer in a notebook: a small table and the map, and the same JSON as everywhere."""

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl
from crawler.answer import STOPS, Answer, StoppedBy
from crawler.demo.site import DemoSite
from crawler.page.status_page import map_strip
from crawler.store.folder import FolderStore
from tests.pages import a_run
from tests.records import failed, mixed
from tests.stores import fill


def answer_of(site: DemoSite, store: Path, start: int = 1, stop: int = 101) -> Answer:
    """Crawl a few songs."""
    return crawl(start, stop, store=str(store), base_url=site.base_url, token=site.token, rate=0)


def test_a_notebook_shows_counts_and_the_map(demo_site: DemoSite, tmp_path: Path):
    """The numbers of the answer, and the whole store's line, with what lies beside the range."""
    answer_of(demo_site, tmp_path, 5000, 5010)
    shown = answer_of(demo_site, tmp_path)._repr_html_()
    assert "<b>Songs 1 to 100</b>: " in shown
    assert " requests a second. Complete.</p>" in shown
    assert "<th>found</th>" in shown
    assert "songs 1 to 5,009" in shown
    assert "not asked" in shown


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"start": 5, "stop": 5}, "<b>No songs</b>"),
        ({"start": 5, "stop": 6}, "<b>Song 5</b>"),
        (
            {"complete": False, "stopped_by": "time_budget"},
            "a second. Not complete: The time budget ran out; the rest was not asked.</p>",
        ),
        (
            {"complete": False, "failed": 1},
            "a second. Not complete: What failed is worth asking again later.</p>",
        ),
    ],
    ids=["none", "one", "budget", "failed"],
)
def test_a_notebook_says_what_was_asked_and_what_is_left(fields: dict[str, Any], words: str):
    """In sentences, for every way a run can go."""
    assert (
        words
        in msgspec.structs.replace(a_run().answer, **{"complete": True} | fields)._repr_html_()
    )


def test_an_answer_is_given_on_as_a_dict():
    """Its names and values are those of its JSON, whoever writes it."""
    answer = msgspec.structs.replace(a_run().answer, notes={"odd": 3})
    assert json.loads(json.dumps(answer.to_dict())) == json.loads(msgspec.json.encode(answer))
    assert answer.to_dict()["notes"] == {"odd": 3}


def test_an_answer_of_version_1_0_is_read():
    """What a run left before there were notes has none."""
    before = a_run().answer.to_dict()
    del before["notes"]
    assert msgspec.convert(before, Answer).notes == {}


def test_the_repr_of_an_answer_is_short():
    """It fits on a line, and says what counts."""
    shown = repr(a_run().answer)
    assert len(shown) < 120
    assert f"{a_run().answer.found} found" in shown


def test_every_reason_for_a_stop_has_its_row():
    """The table and the type name the same words."""
    assert tuple(STOPS) == typing.get_args(StoppedBy)


def test_the_map_is_no_part_of_the_json(demo_site: DemoSite, tmp_path: Path):
    """An answer read back from its JSON is equal, and is shown without a map."""
    answer = answer_of(demo_site, tmp_path)
    again = msgspec.json.decode(msgspec.json.encode(answer), type=Answer)
    assert again == answer
    assert "<svg" in answer._repr_html_()
    assert "<svg" not in again._repr_html_()


def test_the_strip_has_a_bar_for_each_stretch(tmp_path: Path):
    """Each names its numbers and counts; a store without blocks has no strip."""
    store = FolderStore(tmp_path)
    assert map_strip(store.list_blocks(timeout=5)) == ""
    fill(store, [*mixed(range(2000)).values(), failed(7000)])
    strip = map_strip(store.list_blocks(timeout=5))
    assert strip.count("<rect") == 3
    assert "0 to 1,999, settled: 1,818 found, 182 missing, 0 failed, 0 not asked" in strip
    assert "7,000 to 7,000, some failed" in strip
