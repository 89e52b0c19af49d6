"""The coverage page: what it says, what it may do, how large it is, who gets it, and its files."""

import html.parser
import json
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from crawler.page.status_page import (
    MAX_PLACES,
    crawl_command,
    duration,
    group_failures,
    numbers,
    share,
    some,
    status_page,
    write_status,
)
from crawler.run.store_index import StoreIndex
from crawler.store.contract import Store, Stored
from crawler.store.control import RunObject, leave_run_object, read_runs
from crawler.store.folder import FolderStore
from tests.function_process import FunctionProcess
from tests.pages import a_block, a_listing, a_run
from tests.records import NOON
from tests.test_cli import run

LATER = NOON + timedelta(days=1)
HOSTILE = "</script><script>window.hacked=1</script><b>\"'&amp;\u2028\u2029\ud800"


def page(blocks, runs=(), location="data/songs", **more):
    """Make a page as of a day after noon."""
    return status_page(blocks, runs, now=LATER, location=location, **more)


class Text(html.parser.HTMLParser):
    """Collects what a page shows, and which elements it has."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.words, self.tags, self.addresses = [], [], []
        self._is_shown = True
        self.feed(text)
        self.shown = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        """Note an element and the addresses it names."""
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        self._is_shown = tag not in ("script", "style")

    def handle_data(self, data):
        """Note text, unless it is a script's or a style's."""
        if self._is_shown:
            self.words.append(data)


def data_of(text):
    """Read the numbers that the charts draw."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text)[1])


def test_the_page_tells_the_totals_and_what_is_left():
    """Counts, what is left, and how long it takes at the deployed rate."""
    shown = Text(page([a_block(0), a_block(2000, found=890, failed=10)], rate=100)).shown
    for words in (
        "Songs 0 to 2,999",
        "1,990 of 3,000 numbers",
        "Left 1,010 10 seconds at 100 requests a second",
        "Each cell is 1,000 numbers, one block",
        "1,000 to 1,999 not asked 0 0 0 1,000",
        "timeout the answer was not whole within the deadline 10 2,000 to 2,999 (10)",
    ):
        assert words in shown


def test_the_numbers_to_look_at_are_told():
    """By reason: all numbers where blocks name all, else some, how many more, and where they lie."""
    blocks = [
        a_block(0, failed=2, reasons={"reset": 2}, nums={"reset": [17, 403]}),
        a_block(5000, failed=30, reasons={"timeout": 30}, nums={"timeout": [5001, 5002]}),
    ]
    shown = Text(page(blocks)).shown
    assert (
        "timeout the answer was not whole within the deadline 30 5,001, 5,002 and 28 more in 5,000 to 5,999 (30)"
        in shown
    )
    assert "reset 2 17, 403 For example" in shown


def test_of_many_places_the_page_names_those_with_the_most():
    """And says that these are not all."""
    blocks = [a_block(k * 2000, failed=2, nums={"timeout": [k * 2000]}) for k in range(9)]
    shown = Text(page(blocks)).shown
    assert "the most in 0 to 999 (2) 2,000 to 2,999 (2)" in shown
    assert "14,000 to 14,999 (2) and 1 more place For example" in shown


def test_the_shown_command_is_for_this_store():
    """Whatever it is called, a shell reads its name as it is."""
    shown = Text(page([a_block(2000, found=899, failed=1)], location="my songs")).shown
    assert "For example: python -m crawler crawl 2000 3000 --store 'my songs'" in shown


def test_the_shown_command_asks_nothing_that_nobody_wanted():
    """It is for a number that failed, or else ends where the store and its runs do."""
    named = a_block(0, found=150, failed=10, nums={"timeout": [17, 18]})
    assert "crawler crawl 17 18 --store" in Text(page([named])).shown
    assert "crawler crawl 0 160 --store" in Text(page([a_block(0, found=50, failed=10)])).shown


def test_failed_numbers_alone_are_not_forecast():
    """They come when they are worth asking, whatever the pace."""
    text = page([a_block(0, found=890, failed=10)], [a_run(start=0, stop=1000, found=900)])
    assert "Every number was asked; what failed is left." in Text(text).shown
    assert data_of(text)["end"] is None


def test_of_many_reasons_the_commonest_are_told():
    """A site that fails in every way it can makes no endless page."""
    reasons = {f"http_{code}": code for code in range(500, 540)}
    shown = Text(page([a_block(0, failed=sum(reasons.values()), reasons=reasons)])).shown
    assert "http_539 the site answers 539 539" in shown
    assert "http_509 509" not in shown
    assert "And 10 more reasons." in shown


def test_an_empty_store_has_a_page():
    """Before the first run the page says that there is nothing, and how to begin."""
    shown = Text(page([])).shown
    assert "This store holds nothing yet" in shown
    assert "To begin: python -m crawler crawl 1 2001 --store data/songs" in shown


def test_what_runs_were_told_and_did_not_reach_is_left():
    """A run over 10,000 numbers that stored 1,000 leaves 9,000."""
    shown = Text(page([a_block(0)], [a_run(start=0, stop=10_000, found=900, missing=100)])).shown
    assert "1,000 of 10,000 numbers" in shown
    assert "Left 9,000" in shown


def test_the_deployed_last_song_ends_the_line():
    """Where the deployment says how far it goes, the page does, too."""
    assert "1,000 of 5,001 numbers" in Text(page([a_block(0)], last_song=5000)).shown


def test_without_a_rate_the_last_run_tells_how_long_it_takes():
    """At no limit the pace that was reached counts; without any run nothing is claimed."""
    fast = a_run(seconds=10, found=4500, missing=500)
    fast.rate = 0.0
    assert "8 seconds at 500 requests a second" in Text(page([a_block(0)], [fast], rate=0)).shown
    assert "requests a second" not in Text(page([a_block(0)], last_song=5000)).shown


def test_the_forecast_is_told():
    """5,000 in the first minute of a day leave 5,000 for a day."""
    blocks = [a_block(k * 1000) for k in range(5)]
    text = page(blocks, [a_run(start=0, stop=10_000, found=4500, missing=500)])
    assert "nothing is left by 2026-11-24 12:00 UTC" in Text(text).shown


def test_the_page_needs_no_network():
    """It names no address that a browser would ask, and forbids asking any."""
    text = page([a_block(0)], [a_run()])
    assert Text(text).addresses == ["data:,"]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy
    assert "sourceMappingURL" not in text


def test_C10_values_that_were_odd_are_told_of_their_run():
    """C10: they cost no song, but somebody may have declared a field wrongly."""
    odd = a_run()
    odd.answer.notes["odd"] = 1234
    said = "1,234 values were not what their field is declared to be"
    assert said in Text(page([a_block(0)], [odd, a_run(hours=-1)])).shown
    assert "declared to be" not in Text(page([a_block(0)], [a_run()])).shown


def test_hostile_text_stays_text():
    """Names of stores, sources, reasons and runs' words are shown, never obeyed."""
    block = a_block(0, found=899, failed=1, reasons={HOSTILE[:-1]: 1})
    block.source = HOSTILE[:-1]
    hostile = a_run()
    hostile.answer = msgspec.structs.replace(hostile.answer, stopped_by=HOSTILE)
    text, harmless = (
        page([block], [hostile], location=HOSTILE),
        page([a_block(0, failed=1, found=899, reasons={"x": 1})], [a_run()]),
    )
    assert Text(text).tags == Text(harmless).tags
    assert "window.hacked=1" in Text(text).shown
    assert "<b>" not in text
    text.encode()


def test_the_data_are_those_of_the_listing():
    """Charts and tables are drawn from the same counts."""
    blocks = a_listing(300)
    data = data_of(page(blocks, [a_run()]))
    assert sum(cell[2] for cell in data["cells"]) == sum(block.found for block in blocks)
    assert len(data["runs"][0]) == 60


def test_a_page_of_20000_blocks_is_small_and_soon_made():
    """Under 500 kB, and far within the 2 s in which the function is to answer."""
    blocks = a_listing(20_000)
    runs = [a_run(hours=-hours, seconds=240) for hours in range(200)]
    began = time.thread_time()  # a machine that others use as well takes longer, but works no more
    text = page(blocks, runs)
    worked = time.thread_time() - began
    assert len(text.encode()) < 500_000
    assert worked < 1.5


def test_a_checkered_store_makes_no_larger_page():
    """A map that changes with every cell is told by its first lines, and the rest is counted."""
    text = page([a_block(k * 2000) for k in range(1000)])
    assert len(text.encode()) < 500_000
    assert "more stretches" in Text(text).shown


def test_a_run_writes_the_page_beside_its_blocks(store: Store) -> None:
    """Over both stores: `status.html` for people, `status.json` for programs, of one listing."""
    write_status(store, {0: a_block(0)}, now=LATER, known_runs={})
    stored = store.read("status.html", timeout=5)
    assert stored is not None
    assert "Left 0 complete" in Text(stored.data.decode()).shown
    status = store.read("status.json", timeout=5)
    assert status is not None
    assert json.loads(status.data)["settled"] == 1000


def test_the_command_writes_the_page(tmp_path, demo_site):
    """`status --html OUT` leaves one file, of what the store holds."""
    environ = {"CRAWLER_BASE_URL": demo_site.base_url, "GENIUS_TOKEN": demo_site.token}
    environ |= {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    run(tmp_path, "crawl", 1, 301, "--rate", 0, "--store", "songs", environ=environ)
    code, out, _ = run(tmp_path, "status", "--store", "songs", "--html", "a.html", environ=environ)
    assert (code, out.splitlines()[-1]) == (0, "The page: a.html")
    shown = Text((tmp_path / "a.html").read_text(encoding="utf-8")).shown
    assert "300 of 300 numbers" in shown
    assert (tmp_path / "songs" / "status.html").exists()


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    """The message names the file and why."""
    environ = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": "/usr/bin:/bin"}
    code, _, err = run(
        tmp_path, "status", "--store", "songs", "--html", "no/a.html", environ=environ
    )
    assert code == 1
    assert "no/a.html cannot be written: No such file or directory" in err


@pytest.fixture(scope="module")
def function(tmp_path_factory):
    """The real function over a store of two blocks."""
    folder = tmp_path_factory.mktemp("store")
    environ = {"CRAWLER_STORE": str(folder), "CRAWLER_BASE_URL": "http://127.0.0.1:9"}
    with FunctionProcess(environ | {"GENIUS_TOKEN": "unused"}) as process:
        yield process


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/html", "text/html"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("", "application/json"),
        ("\xff;;q=,", "application/json"),
    ],
    ids=["browser", "page", "json", "anything", "rather json", "empty", "garbage"],
)
def test_browsers_get_a_page_and_programs_get_json(function, accept, kind):
    """`GET /status` looks at what the caller takes."""
    reply = function.ask("/status", headers={"Accept": accept})
    assert reply.status == 200
    assert reply.headers["content-type"].startswith(kind)
    assert reply.headers["vary"] == "Accept"
    assert b"holds nothing yet" in reply.body or reply.json()["blocks"] == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "1 second"),
        (59.6, "1 minute"),
        (61, "1 minute 1 second"),
        (7500, "2 hours 5 minutes"),
        (86_400, "1 day"),
        (86_401, "1 day"),
        (2_110_000, "24 days 10 hours"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds, words):
    """Nobody wants the seconds of a week."""
    assert duration(seconds) == words


def test_ranges_are_written_as_people_do():
    """Both ends are included, and one number is itself."""
    assert numbers(1000, 2000) == "1,000 to 1,999"
    assert numbers(7, 8) == "7"


def test_some_numbers_say_how_many_more_there_are():
    """Whoever reads a few of many knows that."""
    assert some([7, 2017], 2) == "7, 2,017"
    assert some([7, 2017], 1000) == "7, 2,017 and 998 more"


def test_a_command_names_its_store():
    """A store of any name stays one word of the shell's."""
    assert crawl_command(1, 9, "gs://b/p") == "python -m crawler crawl 1 9 --store gs://b/p"
    assert crawl_command(1, 9, "a;b") == "python -m crawler crawl 1 9 --store 'a;b'"


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [(0, 0, "0 %"), (1, 3, "33.3 %"), (999_999, 1_000_000, "99.9 %"), (5, 5, "100 %")],
)
def test_only_what_is_whole_is_a_hundred_per_cent(part, whole, words):
    """One number left of a million is not rounded away."""
    assert share(part, whole) == words


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


class CountingStore(FolderStore):
    """A folder that notes what is read from it."""

    def __init__(self, folder):
        super().__init__(folder)
        self.reads: list[str] = []

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object, and note its name."""
        self.reads.append(name)
        return super().read(name, timeout=timeout)


def test_a_run_that_was_read_is_not_read_again(tmp_path):
    """Nobody changes a run's object, so once a minute only new ones are asked for."""
    store = CountingStore(tmp_path)
    known: dict[str, RunObject | None] = {}
    for hour in range(3):
        leave_run_object(store, a_run(hours=hour), "aa")
    for _ in range(3):
        write_status(store, {0: a_block(0)}, now=NOW, known_runs=known)
    assert len(store.reads) == 3
    leave_run_object(store, a_run(hours=4), "aa")
    write_status(store, {0: a_block(0)}, now=NOW, known_runs=known)
    assert len(store.reads) == 4


def test_no_block_is_read(tmp_path):
    """The page of any number of blocks costs the listing that the run has anyway."""
    store = CountingStore(tmp_path)
    write_status(store, {k * 1000: a_block(k * 1000) for k in range(50)}, now=NOW, known_runs={})
    assert store.reads == []


def test_many_runs_come_the_newest_first(tmp_path):
    """Runs are read several at a time, and are in their order all the same."""
    store = FolderStore(tmp_path)
    for hour in range(30):
        leave_run_object(store, a_run(hours=hour), f"{hour:02}")
    runs = read_runs(store, latest=20)
    assert [run.started_at for run in runs] == [
        a_run(hours=hour).started_at for hour in range(29, 9, -1)
    ]


def test_trouble_is_only_logged(tmp_path, caplog):
    """A status that cannot be written ends no crawl."""
    (tmp_path / "status.json").mkdir()  # a folder lies where the file should
    with caplog.at_level(logging.WARNING, "crawler"):
        StoreIndex(FolderStore(tmp_path), "s", None, None).write_status()
    assert "the status could not be written" in caplog.text


def test_the_run_shown_first_is_the_last_that_asked_something():
    """A second run that found everything settled does not hide the first one's course."""
    asked = a_run()
    idle = msgspec.structs.replace(
        asked, answer=msgspec.structs.replace(asked.answer, requests=0, skipped=5000)
    )
    shown = status_page([a_block(0)], [idle, asked], now=LATER, location="data/demo")
    assert re.findall(r'<option value="(\d)" selected>', shown) == ["1"]
    alone = status_page([a_block(0)], [idle], now=LATER, location="data/demo")
    assert re.findall(r'<option value="(\d)" selected>', alone) == ["0"]


def test_the_page_s_commands_name_source_and_site():
    """They can be pasted, or are not there: a function of Python's own has no command."""
    blocks = [a_block(0, failed=1, found=899, reasons={"timeout": 1})]
    run = msgspec.structs.replace(a_run(), options=["--source", "museum.toml"])
    shown = status_page(blocks, [run], now=LATER, location="s")
    assert "crawl 0 1000 --source museum.toml --store s" in shown
    run = msgspec.structs.replace(run, options=None)
    assert "python -m crawler crawl" not in status_page(blocks, [run], now=LATER, location="s")


def test_numbers_of_another_source_are_called_numbers():
    """Only Genius has songs."""
    blocks = [msgspec.structs.replace(a_block(0), source="museum")]
    shown = status_page(blocks, [a_run()], now=LATER, location="s")
    assert "Numbers 0 to" in shown
    assert not re.search(r"[Ss]ongs? \d", shown)


def test_failures_are_grouped_by_reason_most_first():
    """Each reason has its count and its blocks."""
    groups = group_failures(
        [
            a_block(0, found=990, missing=0, failed=10, reasons={"timeout": 7, "reset": 3}),
            a_block(5000, found=980, missing=0, failed=20, reasons={"reset": 20}),
        ]
    )
    assert [(group.reason, group.failed) for group in groups] == [("reset", 23), ("timeout", 7)]
    assert [(p.start, p.stop, p.failed) for p in groups[0].places] == [
        (0, 1000, 3),
        (5000, 6000, 20),
    ]


def test_neighbouring_blocks_are_one_place():
    """An outage that spoiled three blocks is one range to look at."""
    (group,) = group_failures([a_block(k * 1000, found=899, failed=1) for k in (4, 5, 6)])
    assert [(p.start, p.stop, p.failed) for p in group.places] == [(4000, 7000, 3)]


def test_what_a_block_could_not_name_is_other():
    """A listing names five kinds; the rest is not lost."""
    (first, second) = group_failures([a_block(0, found=890, failed=10, reasons={"timeout": 4})])
    assert (first.reason, first.failed) == ("other", 6)
    assert (second.reason, second.failed) == ("timeout", 4)


def test_of_many_places_the_worst_are_named():
    """The page names some, counts the others, and the sum is of all."""
    blocks = [a_block(k * 2000, found=800, failed=1 + k) for k in range(MAX_PLACES + 5)]
    (group,) = group_failures(blocks)
    assert len(group.places) == MAX_PLACES
    assert group.places_left_out == 5
    assert group.failed == sum(block.failed for block in blocks)
    assert group.places[0].start == 10_000


def test_the_numbers_to_look_at_are_named():
    """Numbers that blocks name stand with their reason; where all are named, it is known."""
    (reset, timeout) = group_failures(
        [
            a_block(0, failed=3, reasons={"reset": 2, "timeout": 1}, nums={"timeout": [17]}),
            a_block(4000, failed=9, reasons={"reset": 9}, nums={"reset": [4001, 4002]}),
        ]
    )
    assert (timeout.nums, timeout.all_named) == ([17], True)
    assert (reset.nums, reset.all_named) == ([4001, 4002], False)


def test_where_nothing_failed_there_is_no_group():
    """No failures, no table."""
    assert group_failures([a_block(0)]) == []
