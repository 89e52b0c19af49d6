"""Finding the user's own step 1 function or source, and saying whose records it makes."""

import functools
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl, execute_async_event_loop, step, to_pandas
from crawler.demo.site import DemoSite
from crawler.errors import SettingsError, StoreMismatchError
from crawler.run.functions import DEFAULT_BASE_URL, fit, identify, load_function
from crawler.source.declared import BUILT_IN, open_source
from crawler.store.folder import FolderStore
from crawler.store.opening import read_identity
from tests.records import expected_info

FIXTURES = Path(__file__).parent / "fixtures" / "v1"

MODULE = """
from crawler.source.source import Source

class Words:
    name, schema, robots = "words", "1", True
    def url(self, song_num): return f"https://words.example/{song_num}"
    def headers(self): return {}
    def info(self, song_num, body): return body.decode()

class Picky:
    def __init__(self, needed): pass

def step1(session, song_num, song_urls): pass

NUMBER = 5
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own in the working directory; its name."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_function_is_found_by_its_name(own_module: str) -> None:
    """`module:name` gives the function itself."""
    assert load_function(f"{own_module}:step1").__name__ == "step1"


def test_a_script_that_exits_on_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither ends the process that loads it, nor does so without a word."""
    (tmp_path / "a_script.py").write_text("def step1(*_): pass\nraise SystemExit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SettingsError, match="a_script:step1 cannot be loaded: SystemExit"):
        load_function("a_script:step1")


def test_a_source_class_is_made(own_module: str) -> None:
    """A class without arguments is turned into a source."""
    assert load_function(f"{own_module}:Words").url(3) == "https://words.example/3"


@pytest.mark.parametrize("name", ["step2", "NUMBER", "Picky"])
def test_what_is_neither_function_nor_source_is_refused(own_module: str, name: str) -> None:
    """Absent, not callable, or a class that wants arguments: an error that names it."""
    with pytest.raises(SettingsError, match=name) as caught:
        load_function(f"{own_module}:{name}")
    assert caught.value.field == "CRAWLER_FUNCTION"


def test_a_module_that_is_not_there_is_an_error_of_the_setting() -> None:
    """The message says what could not be imported."""
    with pytest.raises(SettingsError, match="no_such_module"):
        load_function("no_such_module:step1")


def test_a_module_that_is_not_there_is_said_to_be_looked_for_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is named; a package that a module of one's own lacks is another matter."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    Path("lacks_one.py").write_text("import no_such_package\n")
    with pytest.raises(SettingsError, match=rf"looked for in {tmp_path}, and among"):
        load_function("no_such_module:step1")
    with pytest.raises(SettingsError, match=r"No module named 'no_such_package'$"):
        load_function("lacks_one:step1")


def test_a_source_is_known_by_name_host_and_schema() -> None:
    """Two hosts of one source are two stores."""
    identity = identify(open_source("genius", "token", base_url="https://api.genius.com"), "")
    assert (identity.source, identity.host, identity.schema) == (
        "genius",
        "api.genius.com",
        "song-1",
    )


def test_a_site_on_this_machine_is_known_whatever_its_port() -> None:
    """The demo site takes another port each time."""
    one, other = (
        identify(open_source("genius", "token", base_url=f"http://127.0.0.1:{port}"), "")
        for port in (8000, 9000)
    )
    assert one == other


def test_the_version_of_a_function_can_be_raised() -> None:
    """`version` on a function changes the schema, so that old and new info never mix."""

    def step1(_session: Any, _num: int, _out: list[Any]) -> None: ...

    before = identify(step1, "https://words.example")
    step1.version = "2"  # type: ignore[attr-defined]
    after = identify(step1, "https://words.example")
    assert (before.schema, after.schema) == ("1", "2")
    assert before.source.endswith("step1")


def test_a_function_says_its_name_and_schema() -> None:
    """A notebook, a script and `module:name` share one store; a renamed function keeps its own."""

    @step(name="hn", schema="2", fields={"title": "text", "score": "integer"})
    def request_item(_session: Any, _num: int, _out: list[Any]) -> None: ...

    identity = identify(functools.partial(request_item), DEFAULT_BASE_URL)
    assert (identity.source, identity.schema, identity.host) == ("hn", "2", "")
    assert identity.fields == {"title": "text", "score": "integer"}
    assert identify(request_item, "https://words.example").host == "words.example"


def test_a_type_that_there_is_not_is_told() -> None:
    """Before anything is asked."""

    def step1(_session: Any, _num: int, _out: list[Any]) -> None: ...

    step1.fields = {"year": "int"}  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="year is 'int': there are text, integer"):
        fit(step1)


def words(session: Any, num: int, out: list[Any]) -> None:
    """Keep the title of a song; what else, the tests say."""
    song = session.get(f"{os.environ['SONGS_AT']}/songs/{num}", headers=TOKEN).json()
    out.append((num, {"title": song["response"]["song"]["title"]}))


TOKEN = {"Authorization": "Bearer demo-token"}


def test_a_run_whose_function_appends_more_says_so(
    demo_site: DemoSite, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """At its first block, with what to do; the store reads as the union of both."""
    monkeypatch.setenv("SONGS_AT", demo_site.base_url)
    monkeypatch.setenv("CRAWLER_CONTACT", "me@example.org")

    @step(name="words")
    def more(session: Any, num: int, out: list[Any]) -> None:
        words(session, num, out)
        out[-1][1]["num"] = num

    crawl(1, 6, store=tmp_path, function=step(name="words")(words), rate=0)
    assert read_identity(FolderStore(tmp_path), timeout=9).fields == {"title": "found"}
    assert not caplog.records
    crawl(6, 11, store=tmp_path, function=more, rate=0)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "already lack num: --refresh-older-than-days 0" in told
    frame = to_pandas(tmp_path)
    assert list(frame.columns[3:5]) == ["title", "num"]
    assert frame["num"].count() == frame["title"].count() - sum(
        expected_info(num) is not None for num in range(1, 6)
    )


def test_a_run_of_a_source_with_a_new_field_says_so_before_it_asks(
    demo_site: DemoSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A field of another type is refused, one that is new is told."""
    text = (BUILT_IN / "genius.toml").read_text(encoding="utf-8")
    source = tmp_path / "genius.toml"
    where = {"store": tmp_path / "store", "base_url": demo_site.base_url, "token": "demo-token"}
    source.write_text(text)
    crawl(1, 6, source=str(source), rate=0, **where)
    source.write_text(f'{text}path = "path"\n')
    crawl(6, 11, source=str(source), rate=0, **where)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "already lack path" in told
    assert to_pandas(where["store"])["path"].notna().sum() == sum(
        expected_info(num) is not None for num in range(6, 11)
    )
    source.write_text(
        text.replace(
            'release_date = "release_date"', 'release_date = { path = "id", type = "integer" }'
        )
    )
    with pytest.raises(StoreMismatchError, match="'release_date' as text"):
        crawl(11, 12, source=str(source), rate=0, **where)


def test_a_run_goes_no_faster_than_its_source_allows(demo_site: DemoSite, tmp_path: Path) -> None:
    """Whatever the settings say: 30 numbers at 20 a second, less the burst, take a second."""
    text = (BUILT_IN / "genius.toml").read_text(encoding="utf-8")
    (tmp_path / "slow.toml").write_text(f"rate = 20\n{text}")
    where = {"store": tmp_path / "store", "base_url": demo_site.base_url, "token": "demo-token"}
    answer = crawl(1, 31, source=str(tmp_path / "slow.toml"), rate=0, **where)
    assert answer.requests == 30
    assert answer.seconds > 1


def test_C10_odd_values_are_counted_in_answer_and_log(
    demo_site: DemoSite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C10: they cost no song."""
    text = (BUILT_IN / "genius.toml").read_text(encoding="utf-8")
    (tmp_path / "odd.toml").write_text(text.replace('"title"\n', '"writer_artists"\n', 1))
    answer = crawl(
        1,
        11,
        store=tmp_path,
        base_url=demo_site.base_url,
        token="demo-token",
        rate=0,
        source=str(tmp_path / "odd.toml"),
    )
    assert (answer.failed, answer.notes) == (0, {"odd": answer.found})
    assert f"declared to be are null: title {answer.found}" in caplog.text


def test_E9_a_store_of_version_1_goes_on_though_it_names_the_default_host(
    demo_site: DemoSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E9: a function's store of version 1.0 named the default host, whomever it asked."""
    shutil.copytree(FIXTURES / "function_store", tmp_path / "store")
    monkeypatch.setenv("CRAWLER_CONTACT", "me@example.org")
    monkeypatch.setenv("SONGS_AT", f"{demo_site.base_url}/songs")
    monkeypatch.syspath_prepend(str(FIXTURES))
    answer = crawl(990, 1000, store=tmp_path / "store", function="plain_songs:request_plain_song")
    assert answer.skipped > 0
    assert read_identity(FolderStore(tmp_path / "store"), timeout=9).host == ""


class Asking:
    """A step 1 function that asks one site for its songs, whatever the settings say."""

    name = "asking"

    def __init__(self, address: str) -> None:
        self.address, self.answers = address, list[Any]()

    def __call__(self, session: Any, song_num: int, songs: list[Any]) -> None:
        """Append what came; like the tutorial's own it swallows what is raised."""
        with suppress(Exception):
            response = session.get(f"{self.address}/{song_num}", headers=DEMO_TOKEN)
            self.answers.append(response)
            songs.append((song_num, response.json()))


DEMO_TOKEN = {"Authorization": "Bearer demo-token"}


def test_a_function_s_host_is_the_one_that_was_really_asked(
    demo_site: DemoSite, tmp_path: Path
) -> None:
    """The store notes it with the first block, and takes no other one's from then on (E9)."""
    function = Asking(f"{demo_site.base_url}/songs")
    assert crawl(1, 5, store=tmp_path, function=function, rate=0).complete
    store = FolderStore(tmp_path)
    assert read_identity(store, timeout=9).host == "localhost"
    text = (tmp_path / "store.json").read_text("utf-8")
    (tmp_path / "store.json").write_text(text.replace("localhost", "songs.example"))
    answer = crawl(1000, 1005, store=tmp_path, function=function, rate=0)
    assert (answer.stopped_by, answer.blocks_written) == ("store", 0)
    assert read_identity(store, timeout=9).host == "songs.example"


def test_a_function_on_this_machine_needs_no_contact(demo_site: DemoSite, tmp_path: Path) -> None:
    """Nobody but oneself is asked."""
    function = Asking(f"{demo_site.base_url}/songs")
    assert crawl(1, 3, store=tmp_path, function=function).complete
    assert execute_async_event_loop([1], function=function)


def test_a_function_without_a_contact_sends_nothing_elsewhere(
    demo_site: DemoSite, tmp_path: Path
) -> None:
    """Whatever base_url says and whatever the function swallows; steps 2 and 3 alike."""
    function = Asking("https://songs.invalid/songs")
    for ask in (
        lambda: crawl(1, 50, store=tmp_path, base_url=demo_site.base_url, function=function),
        lambda: execute_async_event_loop([1, 2], function=function),
        lambda: execute_async_event_loop([1, 2], function=open_source("genius", "token")),
    ):
        with pytest.raises(SettingsError, match="CRAWLER_CONTACT is required") as refused:
            ask()
        assert refused.value.code == "contact_missing"
    assert function.answers == []
    assert [*FolderStore(tmp_path).list_blocks(timeout=9)] == []
