"""Finding the user's own step 1 function or source, and saying whose records it makes."""

import sys
from pathlib import Path
from typing import Any

import pytest

from crawler.errors import SettingsError
from crawler.run.functions import identify, load_function
from crawler.source.declared import open_source

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
