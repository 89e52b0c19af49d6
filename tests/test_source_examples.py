"""The declared examples: each crawls a site of its shape on loopback, without a line of Python."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler import crawl, read, to_pandas
from crawler.__main__ import main
from crawler.run.functions import identify
from crawler.source import declared
from crawler.source.declaration import KEYS
from crawler.source.declared import load_declaration, open_source
from crawler.source.source import traits_of
from crawler.store.opening import read_blocks
from tests.test_example import outcome_of, page_of

EXAMPLES = Path(__file__).parent.parent / "examples"
LAST = 40


def hackernews(num: int) -> tuple[int, str, dict[str, str]]:
    """Answer as the items of Hacker News do: 200 and `null` for what is not there."""
    if num % 7 == 3 or num > LAST:
        return 200, "null", {}
    if num % 5 == 0:
        return (
            200,
            json.dumps({"deleted": True, "id": num, "time": 1_160_418_111, "type": "comment"}),
            {},
        )
    item = {"by": "ann", "id": num, "kids": [num + 1, num + 2], "score": num, "time": 1_160_418_111}
    return 200, json.dumps(item | {"title": f"Story {num}", "type": "story", "url": "x"}), {}


def discogs(num: int) -> tuple[int, str, dict[str, str]]:
    """Answer as the releases of Discogs do: 404 for what is not there, a limit in the headers."""
    left = {"X-Discogs-Ratelimit": "60", "X-Discogs-Ratelimit-Remaining": str(60 - num % 60)}
    if num % 7 == 3 or num > LAST:
        return 404, json.dumps({"message": "Release not found."}), left
    release = {"id": num, "title": f"Record {num}", "artists_sort": "Ann", "year": 1950 + num}
    more = {"genres": ["Pop"], "community": {"have": num, "want": 1}, "country": "UK"}
    return 200, json.dumps(release | more), left


def museum(num: int) -> tuple[int, str, dict[str, str]]:
    """Answer as a museum does: web pages, some of which only say that there is none."""
    status, page = page_of(num)
    return status, page, {}


def slugs(num: int) -> tuple[int, str, dict[str, str]]:
    """Answer some items by redirects."""
    return (301, "", {"Location": SLUGS[num]}) if num in SLUGS else hackernews(num)


def busy(num: int) -> tuple[int, str, dict[str, str]]:
    """Answer as a site that says no to each number from 21 on when it is first asked for."""
    is_new = num > 20 and num not in ASKED
    ASKED.add(num)
    return (429, "", {"Retry-After": "0"}) if is_new else hackernews(num)


ASKED: set[int] = set()
SITES = {
    "busy": busy,
    "slugs": slugs,
    "hackernews": hackernews,
    "discogs": discogs,
    "museum": museum,
}


class Site(BaseHTTPRequestHandler):
    """One of the three sites; what it was asked stands in `seen`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm, wbufsize = True, -1  # or each answer waits 40 ms for the client

    def do_GET(self) -> None:
        """Answer one request; without its token Discogs answers 401."""
        self.server.seen.append((self.path, dict(self.headers)))  # type: ignore[attr-defined]
        name = self.server.site  # type: ignore[attr-defined]
        num = self.path.rpartition("/")[2].removesuffix(".json")
        if num == "1-a-story":
            status, body, headers = hackernews(1)
        else:
            status, body, headers = SITES[name](int(num)) if num.isdecimal() else (404, "", {})
        if name == "discogs" and self.headers["Authorization"] != "Discogs token=key-1":
            status, body = 401, "{}"
        data = body.encode()
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextlib.contextmanager
def serving(name: str) -> Iterator[ThreadingHTTPServer]:
    """Run one of the sites on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.daemon_threads = True
    server.site, server.seen = name, []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def crawl_example(
    name: str, folder: Path, last: int
) -> tuple[Path, list[tuple[str, dict[str, str]]]]:
    """Crawl an example and export it, as two commands do; give the file, and what was asked."""
    store, out = folder / "store", folder / "out.parquet"
    with serving(name) as site:
        address = f"http://127.0.0.1:{site.server_port}"
        source = str(EXAMPLES / f"{name}.toml")
        where = ["--source", source, "--store", str(store)]
        assert main(["crawl", "1", str(last), *where, "--base-url", address, "--rate", "0"]) in (
            0,
            3,
        )
    assert main(["export", str(out), "--store", str(store)]) == 0
    return out, site.seen  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "most"), [("hackernews", 12), ("discogs", 25), ("museum", 25)])
def test_an_example_is_short_and_right(name, most):
    """Lines are counted as they stand."""
    assert len((EXAMPLES / f"{name}.toml").read_text(encoding="utf-8").splitlines()) <= most
    assert load_declaration(str(EXAMPLES / f"{name}.toml")).name == name


def test_hacker_news_comes_from_nothing_to_a_typed_table(tmp_path, capsys):
    """One file, two commands: what is `null` is missing, what was deleted is found and empty."""
    out, seen = crawl_example("hackernews", tmp_path, LAST + 1)
    schema = pq.read_schema(out)
    assert schema.field("score").type == schema.field("time").type == pa.int64()
    assert schema.field("kids").type == pa.list_(pa.int64())
    rows = pq.read_table(out).to_pylist()
    missing = [row["song_num"] for row in rows if row["outcome"] == "missing"]
    assert missing == [num for num in range(1, LAST + 1) if num % 7 == 3]
    assert (rows[0]["title"], rows[0]["kids"], rows[4]["title"]) == ("Story 1", [2, 3], None)
    assert "/item/1.json" in {path for path, _ in seen}
    assert "found" in capsys.readouterr().out


def test_discogs_gets_its_token_and_is_known_by_its_limit(tmp_path, monkeypatch):
    """The token goes into the header that the file says, and no other token goes anywhere."""
    monkeypatch.setenv("DISCOGS_TOKEN", "key-1")
    monkeypatch.setenv("GENIUS_TOKEN", "another-token")
    out, seen = crawl_example("discogs", tmp_path, 5)
    row = pq.read_table(out).to_pylist()[0]
    assert (row["title"], row["year"], row["genres"], row["have"]) == ("Record 1", 1951, ["Pop"], 1)
    assert "another-token" not in str(seen)
    traits = traits_of(open_source(str(EXAMPLES / "discogs.toml"), "key-1"))
    assert traits.rate_headers["remaining"] == "X-Discogs-Ratelimit-Remaining"
    assert traits.rate == 1


@pytest.mark.parametrize(("own_rate", "instances"), [("rate = 1", 1), ("rate = 1", 2), ("", 2)])
def test_D3b_a_pilot_says_what_the_site_announces(
    tmp_path, monkeypatch, capsys, own_rate, instances
):
    """D3b: it reckons at that pace; what is announced or declared is shared by the instances."""
    monkeypatch.setenv("DISCOGS_TOKEN", "key-1")
    monkeypatch.setenv("CRAWLER_INSTANCES", str(instances))
    text = (EXAMPLES / "discogs.toml").read_text(encoding="utf-8")
    source = tmp_path / "discogs.toml"
    source.write_text(text.replace("rate = 1", own_rate, 1), encoding="utf-8")
    with serving("discogs") as site:
        where = ["--source", str(source), "--store", str(tmp_path / "store"), "--sample", "2"]
        address = f"http://127.0.0.1:{site.server_port}"
        assert main(["crawl", "1", "60001", *where, "--base-url", address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  the site announces 60 a minute" in lines
    took = timedelta(seconds=60_000 * instances)
    assert f"  the whole at {1 / instances:g} a second: {took}" in lines


def test_the_end_proposes_a_rate_where_the_site_said_no_more_than_twice(tmp_path, capsys):
    """Twice is how a site tells its limit."""
    for last, times in ((23, 2), (25, 4)):
        ASKED.clear()
        with serving("busy") as site:
            where = [
                "--source",
                str(EXAMPLES / "hackernews.toml"),
                "--store",
                str(tmp_path / f"{times}"),
            ]
            where += ["--base-url", f"http://127.0.0.1:{site.server_port}"]
            assert main(["crawl", str(last - times), str(last), *where]) == 0
        told = re.search(
            r"The site said no (\d+) times \(429\): --rate ([\d.]+) is what it bears",
            capsys.readouterr().out,
        )
        assert (told is not None) == (times > 2)


def test_a_museum_s_web_pages_are_records(tmp_path):
    """robots.txt is asked first; a captcha and another object's page fail, and are no record."""
    _, seen = crawl_example("museum", tmp_path, 11)
    assert seen[0][0] == "/robots.txt"
    objects = dict(read(tmp_path / "store"))
    assert list(objects) == [num for num in range(1, 11) if outcome_of(num) == "found"]
    assert objects[5] == {
        "title": "Vase & lid N° 5",
        "maker": "Ann",
        "dated": "about 1505",
        "materials": ["clay", "gold"],
    }


def test_the_doctor_shows_a_source_field_by_field(tmp_path, capsys):
    """What would be kept, where it was found, and what looks wrong: a name that is nowhere."""
    text = (EXAMPLES / "hackernews.toml").read_text(encoding="utf-8")
    source = tmp_path / "hn.toml"
    source.write_text(text.replace('by = "by"', 'by = "bye"').replace('"title"\n', '"kids"\n'))
    with serving("hackernews") as site:
        address = f"http://127.0.0.1:{site.server_port}"
        where = ["--source", str(source), "--base-url", address, "--store", str(tmp_path / "s")]
        assert main(["doctor", "1", *where]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "ok fields score = 1 at score" in lines
    assert "note fields by = null at bye: there is nothing; did you mean by?" in lines
    assert "note fields title = null at kids: a list of 2 is no text" in lines


def test_the_sources_that_are_built_in_are_listed(capsys):
    """With address and token."""
    assert main(["sources"]) == 0
    assert "genius       https://api.genius.com" in capsys.readouterr().out
    assert main(["sources", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["token"] for row in rows if row["name"] == "genius"] == ["GENIUS_TOKEN"]


def test_another_built_in_source_is_one_file(tmp_path):
    """Beside genius.toml: it is listed, crawled by its name into a store of its name, exported."""
    package = EXAMPLES.parent / "crawler"
    shutil.copytree(package, tmp_path / "crawler", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLES / "hackernews.toml", tmp_path / "crawler" / "source")

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "crawler", *words]
        environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.check_output(command, cwd=tmp_path, env=environ, text=True, timeout=60)

    assert "hackernews   https://hacker-news.firebaseio.com/v0" in run("sources")
    with serving("hackernews") as site:
        address = f"http://127.0.0.1:{site.server_port}"
        told = run("crawl", "1", "11", "--source", "hackernews", "--base-url", address)
    assert "Complete: every number is settled." in told
    run("export", "items.parquet", "--store", "data/hackernews")
    assert pq.read_schema(tmp_path / "items.parquet").field("kids").type == pa.list_(pa.int64())


def test_another_field_of_genius_is_one_line(tmp_path, demo_site, capsys):
    """It is a column of every export and of both schemas, under its name and of its type."""
    text = (declared.BUILT_IN / "genius.toml").read_text(encoding="utf-8")
    source, store = tmp_path / "genius.toml", str(tmp_path / "store")
    source.write_text(f'{text}year = {{ path = "id", type = "integer" }}\n', encoding="utf-8")
    where = {"base_url": demo_site.base_url, "token": demo_site.token, "rate": 0}
    crawl(1, 11, source=source, store=store, **where)
    for suffix in ("parquet", "csv", "jsonl"):
        assert main(["export", str(tmp_path / f"out.{suffix}"), "--store", store]) == 0
    assert pq.read_schema(tmp_path / "out.parquet").field("year").type == pa.int64()
    assert '"year"' in (tmp_path / "out.csv").read_text("utf-8").splitlines()[0]
    assert '"year":' in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()[0]
    assert to_pandas(store)["year"].dtype == "Int64"
    capsys.readouterr()
    for tool, words in (("--duckdb", "year BIGINT"), ("--bigquery", '"name": "year"')):
        assert main(["schema", tool, "--store", store]) == 0
        assert words in capsys.readouterr().out


def test_a_rebuild_of_another_source_speaks_of_numbers(tmp_path, monkeypatch, capsys):
    """Only Genius' numbers are songs."""
    monkeypatch.setenv("CRAWLER_KEEP_RAW", "1")
    crawl_example("hackernews", tmp_path, 11)
    source, old = str(EXAMPLES / "hackernews.toml"), str(tmp_path / "store")
    assert main(["rebuild", "1", "11", "--source", source, "--store", old]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert re.search(r"\d numbers rebuilt, .* of numbers 1 to 10\.$", told)


SLUGS = {
    1: "/item/1-a-story.json",
    2: "http://elsewhere.invalid/item/2.json",
    3: "/item/4.json",
    5: "/item/5.json",
}


def test_B7_slugs_are_followed_within_the_host_where_a_source_says_so(tmp_path):
    """B7: another host is not asked, another number means moved, a circle ends; else as it was."""
    text = (EXAMPLES / "hackernews.toml").read_text(encoding="utf-8")
    source = tmp_path / "hn.toml"
    outcomes = {}
    for redirects in ("fail", "follow"):
        source.write_text(f'redirects = "{redirects}"\n{text}')
        store = tmp_path / redirects
        with serving("slugs") as site:
            where = ["--source", str(source), "--store", str(store), "--rate", "0"]
            address = f"http://127.0.0.1:{site.server_port}"
            main(["crawl", "1", "6", *where, "--base-url", address])
        records = [record for block in read_blocks(store) for record in block]
        outcomes[redirects] = {
            record.song_num: record.error or record.outcome for record in records
        }
    assert outcomes["fail"] == {
        1: "redirect",
        2: "redirect",
        3: "missing",
        4: "found",
        5: "redirect",
    }
    assert outcomes["follow"] == outcomes["fail"] | {1: "found"}


PAGE = (EXAMPLES.parent / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_page_on_sources_shows_an_example_whole():
    """Word for word; the Python on it runs."""
    assert f"```toml\n{(EXAMPLES / 'discogs.toml').read_text(encoding='utf-8')}```" in PAGE
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, names := {})
    identity = identify(names["request_item"], "https://hacker-news.firebaseio.com")
    assert (identity.source, identity.schema) == ("hn", "1")
    assert identity.fields == {"title": "text", "score": "integer"}


def test_the_page_on_sources_names_every_key():
    """Its tables are those of the code, in whatever order."""
    tables = re.findall(r"\| (key[^|]*) \|[^\n]*\n\| ---[^\n]*\n((?:\|.*\n)+)", PAGE)
    shown = {head: re.findall(r"^\| (\w+) \|", rows, re.MULTILINE) for head, rows in tables}
    assert {head: sorted(names) for head, names in shown.items()} == {
        "key": sorted(KEYS[()]),
        "key of `[page]`": sorted(KEYS["page",]),
        "key of a rule": sorted(KEYS["page", "ok"]),
        "key of a field": sorted(KEYS["fields",]),
    }
