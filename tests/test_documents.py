"""The documents are true: their tables, examples, answers and links are held against the code."""

import json
import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl, read
from crawler.answer import STOPS, Answer
from crawler.demo.site import DemoSite
from crawler.version import VERSION
from tests.records import expected_info

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ANSWER = (ROOT / "docs" / "answer.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])

SITE = "http://127.0.0.1:8000"
"""Where the examples look for the demo site."""


def rows(text: str, head: str) -> list[list[str]]:
    """Read the table whose head line begins so, a list of cells per row."""
    lines = text[text.index(head) :].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_for_somebody_with_ten_minutes():
    """It has at most 150 lines, and what was never run stands at the top."""
    lines = README.splitlines()
    assert len(lines) <= 150
    assert any("Nothing has been run against Google Cloud" in line for line in lines[:10])


def test_six_lines_of_python_come_before_any_json():
    """A reader sees a table sooner than a record."""
    first = blocks(README, "python")[0].strip().splitlines()
    assert len([line for line in first if line.strip()]) <= 6
    assert "```json" not in README


def test_the_table_of_the_answer_is_the_answer() -> None:
    """Each field stands there in its order, with the meaning the code gives it."""
    hints = typing.get_type_hints(Answer, include_extras=True)
    meanings = [[f"`{name}`", hint.__metadata__[0].description] for name, hint in hints.items()]
    assert rows(ANSWER, "| field | meaning |") == meanings


def test_the_table_of_stops_is_the_closed_list() -> None:
    """Each reason stands there with its status, severity, repeat and meaning."""
    wanted = [
        [f"`{name}`", str(stop.status), stop.severity, "yes" if stop.repeat else "no", stop.meaning]
        for name, stop in STOPS.items()
    ]
    assert rows(ANSWER, "| `stopped_by` | HTTP |") == wanted


def test_all_that_one_meets_in_python_is_named() -> None:
    """What `crawler` exports stands on one page, once."""
    import crawler

    table = ANSWER[ANSWER.index("## In Python") :]
    named = set(re.findall(r"`(?:await )?(\w+)", "\n".join(r[0] for r in rows(table, "| name |"))))
    assert set(crawler.__all__) <= named


def test_the_shown_answer_could_be_given() -> None:
    """The JSON has the fields of an answer, its counts add up, and the demo songs are those."""
    answer = msgspec.json.decode(blocks(ANSWER, "json")[0], type=Answer)
    found = sum(expected_info(num) is not None for num in range(1, 2001))
    assert (answer.found, answer.missing, answer.version) == (found, 2000 - found, VERSION)
    assert list(json.loads(blocks(ANSWER, "json")[0])) == list(Answer.__struct_fields__)


def test_the_shown_record_is_a_record() -> None:
    """The line of a block decodes, and holds the song of the demo site."""
    line = json.loads(blocks((ROOT / "docs" / "store.md").read_text(encoding="utf-8"), "json")[0])
    assert line["info"] == expected_info(line["song_num"])


@pytest.mark.parametrize(
    "page", ["README.md", "docs/answer.md", "docs/step1.md", "docs/tutorial.md"]
)
def test_the_examples_run_as_written(
    page: str, tmp_path: Path, demo_site: DemoSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The Python of a page runs from top to bottom, with the demo site in the site's place."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for code in blocks((ROOT / page).read_text(encoding="utf-8"), "python"):
        if code.startswith("def request_object"):
            continue  # the museum's; tests/test_example.py runs it
        exec(code.replace(SITE, demo_site.base_url), names)
    found = {num: info for num in range(1, 301) if (info := expected_info(num)) is not None}
    if page == "README.md":
        assert "Electric Letter" in capsys.readouterr().out
        assert dict(names["titles"]) == {n: i["title"] for n, i in found.items() if n < 101}
    if page == "docs/answer.md":
        assert names["answer"].complete
        assert names["filled"]["complete"]
    if page == "docs/step1.md":
        assert dict(names["titles"]) == {n: i["title"] for n, i in found.items() if n < 51}
        assert len(names["lengths"]) >= len(names["titles"])
    if page == "docs/tutorial.md":
        assert sorted(names["song_urls"]) == [
            (n, i["url"], i["title"]) for n, i in found.items() if n < 101
        ]


def test_the_source_of_the_readme_crawls(tmp_path: Path, demo_site: DemoSite) -> None:
    """The file is a source as it stands, and keeps the fields it names."""
    [text] = blocks(README, "toml")
    (tmp_path / "demo.toml").write_text(text.replace(SITE, demo_site.base_url), encoding="utf-8")
    where = {"store": tmp_path / "s", "token": demo_site.token, "rate": 0}
    answer = crawl(1, 51, source=tmp_path / "demo.toml", **where)
    assert answer.complete
    names = ("title", "artist", "pageviews")
    wanted = {n: {name: i[name] for name in names} for n in range(1, 51) if (i := expected_info(n))}
    assert dict(read(tmp_path / "s")) == wanted


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", head.lower()) for head in heads]
    return {head.replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    """Every file and every heading that a page points to is there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?://|mailto:)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        there = page if not name else (page.parent / name)
        assert there.exists(), target
        if anchor:
            assert anchor in anchors_of(there.read_text(encoding="utf-8")), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    """No page of docs/ is known to its author alone."""
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        for target in re.findall(
            r"\]\((?!https?://)([^)#]+\.md)", page.read_text(encoding="utf-8")
        ):
            there = (page.parent / target).resolve()
            if there.exists() and there not in reached:
                ahead.append(there)
    assert {page for page in PAGES if page.parent.name == "docs"} <= reached
