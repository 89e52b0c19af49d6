"""The doctor says in words what is wrong, asks for one song, and never shows the token."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crawler.__main__ import main
from crawler.demo.site import DemoSite
from crawler.doctor import Finding, examine
from crawler.store.folder import FolderStore
from tests.faulty_site import Page
from tests.records import expected_info, found
from tests.stores import fill

MISSING = next(num for num in range(1, 100) if expected_info(num) is None)
SECRET = "wrong-token-4711"


@pytest.fixture
def environ(tmp_path: Path, demo_site: DemoSite) -> dict[str, str]:
    """An environment in which all is well."""
    return {
        "GENIUS_TOKEN": demo_site.token,
        "CRAWLER_BASE_URL": demo_site.base_url,
        "CRAWLER_STORE": str(tmp_path / "store"),
        "CRAWLER_CONTACT": "me@example.com",
    }


def look(environ: dict[str, str], **options: Any) -> dict[str, Finding]:
    """Examine, and give the findings by part."""
    return {finding.part: finding for finding in examine(environ, **options)}


def wrong_parts(environ: dict[str, str], **options: Any) -> set[str]:
    """Name the parts that are wrong."""
    return {
        part for part, finding in look(environ, **options).items() if finding.verdict == "wrong"
    }


def test_all_is_well_and_costs_one_request(environ, demo_site: DemoSite):
    """Every part is looked at; only the queue, which is not set, is no more than a note."""
    findings = look(environ)
    assert {part: finding.verdict for part, finding in findings.items()} == {
        "token": "ok",
        "contact": "ok",
        "store": "ok",
        "queue": "note",
        "site": "ok",
        "clock": "ok",
        "fields": "ok",
    }
    assert demo_site.stats()["requests"] == 1


def test_a_missing_song_is_no_trouble(environ):
    """The site answers; that is what was asked."""
    finding = look(environ, song_num=MISSING)["site"]
    assert (finding.verdict, f"no song {MISSING}" in finding.words) == ("ok", True)


@pytest.mark.parametrize("token", ["", "two words", "ümlaut"])
def test_a_token_that_cannot_be_sent_is_wrong_and_nothing_is(environ, demo_site, token):
    """The site is not asked, the store is looked at all the same (G2)."""
    findings = look(environ | {"GENIUS_TOKEN": token})
    assert (findings["token"].verdict, findings["store"].verdict) == ("wrong", "ok")
    assert findings["site"].verdict == "note"
    assert demo_site.stats()["requests"] == 0


def test_a_refused_token_is_told_and_not_shown(environ):
    """What to do stands there, the token nowhere (G1)."""
    findings = look(environ | {"GENIUS_TOKEN": SECRET})
    assert "refuses the token (401)" in findings["site"].words
    assert SECRET not in str(findings)


@pytest.mark.parametrize(
    ("change", "part", "words"),
    [
        ({"CRAWLER_CONTACT": "", "CRAWLER_BASE_URL": "https://api.example"}, "contact", "required"),
        ({"CRAWLER_RAET": "5"}, "settings", "did you mean CRAWLER_RATE"),
        ({"CRAWLER_RATE": "fast"}, "settings", "CRAWLER_RATE must be"),
        ({"CRAWLER_STORE": "/dev/null/songs"}, "store", "CRAWLER_STORE"),
        ({"CRAWLER_BASE_URL": "http://127.0.0.1:1"}, "site", "cannot be reached"),
        (
            {"CRAWLER_QUEUE": "projects/p/locations/l/queues/q"},
            "settings",
            "CRAWLER_URL is required",
        ),
        ({"CRAWLER_FUNCTION": "nowhere:f"}, "settings", "nowhere:f cannot be loaded"),
    ],
    ids=["contact", "unknown", "malformed", "store", "site", "queue", "function"],
)
def test_what_is_wrong_is_named_with_what_to_do(environ, change, part, words):
    """One part is wrong, the message names the setting or the way out."""
    findings = look(environ | change)
    assert wrong_parts(environ | change) == {part}
    assert words in findings[part].words


def test_a_queue_is_told_with_where_it_calls_back(environ):
    """Its form was checked with the settings; it was not asked, and is not called well."""
    queue = {
        "CRAWLER_QUEUE": "projects/p/locations/l/queues/q",
        "CRAWLER_URL": "https://crawl.example",
        "CRAWLER_INVOKER": "me@p.iam.gserviceaccount.com",
    }
    assert look(environ | queue)["queue"] == Finding(
        "queue",
        "note",
        "projects/p/locations/l/queues/q calls back https://crawl.example"
        " as me@p.iam.gserviceaccount.com: the settings are complete;"
        " the queue itself was not asked",
    )


def test_a_store_with_other_records_is_wrong(environ, tmp_path: Path):
    """As a run would refuse it (E9)."""
    fill(FolderStore(tmp_path / "store"), [found(1)])
    finding = look(environ)["store"]
    assert (finding.verdict, "host 'api.genius.com'" in finding.words) == ("wrong", True)


@pytest.mark.parametrize(
    ("minutes", "words"), [(3, "180 s ahead of"), (-3, "180 s behind")], ids=["ahead", "behind"]
)
def test_a_clock_that_is_off_is_wrong(environ, minutes, words):
    """By the site's own `Date`, in which direction and by how much."""
    findings = look(environ, wall=lambda: datetime.now(UTC) + timedelta(minutes=minutes))
    told, _, rest = findings["clock"].words.partition(" ")
    assert abs(int(told) - 180) <= 2
    assert rest.startswith(words.partition(" ")[2])
    assert findings["clock"].verdict == "wrong"


def test_a_field_that_a_song_does_not_have_is_noted(environ):
    """A name spelt wrongly would be null for ever, so it is told."""
    fields = {"CRAWLER_FIELDS": "title,titel"}
    assert "there is nothing; did you mean title?" in look(environ | fields)["fields"].words


STEPS = """
import os, crawler

URL = os.environ.get("DOCTORS_SITE")

def works(session, num, out):
    answer = session.get(f"{URL}/songs/{num}", headers={"Authorization": "Bearer demo-token"})
    out.append((num, answer.json()["meta"]))

def takes_nothing(session, num, out):
    session.get(f"{URL}/songs/{num}", headers={"Authorization": "Bearer demo-token"})

def raises(session, num, out):
    raise ValueError("no luck")

def fails(session, num, out):
    answer = session.get(f"{URL}/songs/{num}", headers={"Authorization": "Bearer demo-token"})
    raise ValueError(f"no luck with demo-token")

def tells(session, num, out):
    raise ValueError("sent " + os.environ["GENIUS_TOKEN"])

def appends_a_word(session, num, out):
    session.get(f"{URL}/songs/{num}", headers={"Authorization": "Bearer demo-token"})
    out.append("x")

def goes_past(session, num, out):
    pass

def gives_up(session, num, out):
    session.get(f"{URL}/songs/{num}").raise_for_status()

def knows(session, num, out):
    raise crawler.Missing
"""


@pytest.mark.parametrize(
    ("name", "verdict", "words"),
    [
        ("works", "ok", "number 1 was found"),
        ("takes_nothing", "wrong", "step 1 failed on number 1: the function appended nothing"),
        ("raises", "wrong", "step 1 failed on number 1: ValueError: no luck"),
        (
            "fails",
            "wrong",
            "answers 200, but step 1 failed on number 1: ValueError: no luck with ***",
        ),
        ("tells", "wrong", "step 1 failed on number 1: ValueError: sent ***"),
        ("appends_a_word", "wrong", "on number 1: append a tuple (1, info), not 'x'"),
        ("goes_past", "wrong", "call session.get(...), not requests.get(...)"),
        ("gives_up", "wrong", "it refuses the token (401)"),
        ("knows", "ok", "has no number 1"),
    ],
)
def test_a_step1_function_is_tried_too(environ, tmp_path, monkeypatch, name, verdict, words):
    """With the session it would be given; what it does wrong is said in words."""
    module = f"steps_of_the_doctor_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(STEPS)
    monkeypatch.setenv("DOCTORS_SITE", environ["CRAWLER_BASE_URL"])
    monkeypatch.setenv("GENIUS_TOKEN", environ["GENIUS_TOKEN"])
    monkeypatch.syspath_prepend(str(tmp_path))
    finding = look(environ | {"CRAWLER_FUNCTION": f"{module}:{name}"})["site"]
    assert finding.verdict == verdict
    assert words in finding.words


def test_a_page_that_is_no_song_is_wrong(environ, faulty_site):
    """A site that answers something else is not fit to be crawled."""
    findings = look(environ | {"CRAWLER_BASE_URL": f"{faulty_site.base_url}/html"})
    assert findings["site"].verdict == "wrong"


@pytest.mark.parametrize(
    ("robots", "verdict", "words", "pages"),
    [
        (Page(200, b"User-agent: *\nDisallow: /songs/14\n"), "ok", "allows", 1),
        (Page(200, b"User-agent: *\nDisallow: /songs/13\n"), "wrong", "does not allow", 0),
        (Page(200, b"User-agent: *\nCrawl-delay: 4\n"), "note", "0.25 a second", 1),
        (Page(503), "wrong", "http_503", 0),
    ],
)
def test_robots_txt_is_looked_at_where_a_run_would(
    environ, faulty_site, robots, verdict, words, pages
):
    """What it forbids is not asked for here either (D9)."""
    faulty_site.robots = robots
    site = {"CRAWLER_BASE_URL": faulty_site.base_url, "CRAWLER_ROBOTS": "obey"}
    finding = look(environ | site, song_num=13)["robots"]
    assert (finding.verdict, words in finding.words) == (verdict, True)
    asked = [seen.path for seen in faulty_site.requests if "/songs/" in seen.path]
    assert len(asked) == pages


@pytest.fixture
def options(environ, monkeypatch, tmp_path) -> list[str]:
    """The same as options of the command line."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return ["doctor", "--store", environ["CRAWLER_STORE"]]


def test_the_command_prints_a_line_for_each_part(options, capsys):
    """Exit 0 when a crawl would work."""
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines][:3] == [
        ["ok", "token"],
        ["ok", "contact"],
        ["ok", "store"],
    ]


def test_the_command_fails_when_a_crawl_would(options, capsys):
    """Exit 1; options win over the environment; JSON for machines."""
    assert main([*options, "--base-url", "http://127.0.0.1:1", "--json", "--song", "5"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [f["part"] for f in findings if f["verdict"] == "wrong"] == ["site"]


def test_a_song_that_is_no_number_is_wrong_usage(options, capsys):
    """Exit 2, before anything is looked at."""
    assert main([*options, "--song", "five"]) == 2
    assert capsys.readouterr().out == ""
