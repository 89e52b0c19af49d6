"""The README is true: its tables, its examples and its answer are held against the code."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import msgspec

from crawler.answer import STOPS, Answer
from crawler.demo.site import DemoSite
from crawler.demo.songs import expected_info

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """Read the table whose head line begins so, a list of cells per row."""
    lines = README[README.index(head) :].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def blocks(language: str) -> list[str]:
    """Give the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_table_of_the_answer_is_the_answer() -> None:
    """Each field stands there in its order, with the meaning the code gives it."""
    hints = typing.get_type_hints(Answer, include_extras=True)
    meanings = [[f"`{name}`", hint.__metadata__[0].description] for name, hint in hints.items()]
    assert rows("| field | meaning |") == meanings


def test_the_table_of_stops_is_the_closed_list() -> None:
    """Each reason stands there with its status, severity, repeat and meaning."""
    wanted = [
        [f"`{name}`", str(stop.status), stop.severity, "yes" if stop.repeat else "no", stop.meaning]
        for name, stop in STOPS.items()
    ]
    assert rows("| `stopped_by` | HTTP |") == wanted


def test_the_shown_answer_could_be_given() -> None:
    """The JSON has the fields of an answer, its counts add up, and the demo songs are those."""
    answer = msgspec.json.decode(blocks("json")[0], type=Answer)
    found = sum(expected_info(num) is not None for num in range(1, 2001))
    assert (answer.found, answer.missing) == (found, 2000 - found)
    assert list(json.loads(blocks("json")[0])) == list(Answer.__struct_fields__)


def test_the_shown_record_is_a_record() -> None:
    """The line of a block decodes, and holds the song of the demo site."""
    line = json.loads(blocks("json")[1])
    assert line["info"] == expected_info(line["song_num"])


def test_the_examples_run_as_written(tmp_path: Path, demo_site: DemoSite) -> None:
    """Step 1 is swapped and crawled into a store with the very lines of the README."""
    names: dict[str, Any] = {}
    for code in blocks("python"):
        if code.startswith("def request_object"):
            continue  # the museum's; tests/test_example.py runs it
        here = code.replace("http://127.0.0.1:8000", demo_site.base_url)
        exec(here.replace("data/mine", str(tmp_path / "mine")), names)
    titles = [expected_info(num) for num in range(1, 101)]
    assert sorted(names["titles"]) == [
        (num, info["title"]) for num, info in enumerate(titles, 1) if info is not None
    ]
    assert names["answer"].complete


def test_every_file_it_points_to_is_there() -> None:
    """No link leads nowhere."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target
