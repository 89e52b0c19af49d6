"""`crawl` and `crawl_async` under somebody else's roof: what they take, refuse, and how they end."""

import asyncio
import functools
import os
import subprocess
import sys
import textwrap
import threading
import time
import typing
from pathlib import Path
from typing import Any

import pytest
import uvloop

from crawler import RequestError, SettingsError, crawl, crawl_async, read
from crawler.demo.site import DemoSite
from crawler.doctor import examine
from crawler.frontier.work import Policy
from crawler.run.functions import fit, qualified_name
from crawler.run.run import Limits
from crawler.settings.reading import SettingsArguments
from crawler.settings.settings import SETTINGS
from crawler.source.declared import open_source
from tests.crawls import ROOT
from tests.faulty_site import FaultySite


@pytest.fixture
def where(demo_site: DemoSite, tmp_path: Path) -> dict[str, Any]:
    """Say where a crawl of the demo site goes."""
    return {
        "store": tmp_path / "songs",
        "base_url": demo_site.base_url,
        "token": demo_site.token,
        "rate": 0,
    }


class Whole:
    """A whole number as numerical libraries have them."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def double(_session: object, num: int, results: list[Any], *, factor: int = 2) -> None:
    """Ask nobody."""
    results.append((num, num * factor))


class Doubling:
    """A step 1 that keeps something."""

    def __call__(self, session: object, num: int, results: list[Any]) -> None:
        double(session, num, results)


def test_the_arguments_for_type_checkers_are_the_settings():
    """A setting more is an argument more."""
    assert set(typing.get_type_hints(SettingsArguments)) == set(SETTINGS)


def test_paths_and_whole_numbers_of_any_kind_are_taken(where: dict[str, Any]):
    """A `Path` names a store, and what stands for a whole number is one."""
    answer = crawl(Whole(1), Whole(51), connections=Whole(3), **where)  # type: ignore[arg-type]
    assert (answer.start, answer.stop, answer.complete) == (1, 51, True)
    assert len(list(read(where["store"], Whole(1), Whole(11)))) <= 10  # type: ignore[arg-type]


@pytest.mark.parametrize("start", [1.0, "1", True, None], ids=repr)
def test_what_is_no_whole_number_is_refused(where: dict[str, Any], start: Any):
    """A float, a text, a truth value are not taken for one."""
    with pytest.raises(RequestError) as caught:
        crawl(start, 10, **where)
    assert caught.value.field == "start"


@pytest.mark.parametrize(
    "function",
    [double, functools.partial(double, factor=2), Doubling(), lambda s, n, r: r.append((n, 2 * n))],
    ids=["function", "partial", "object", "lambda"],
)
def test_F5d_everything_that_can_be_called_is_a_step_1(where: dict[str, Any], function: Any):
    """It is called for each number, and the store knows it by its name."""
    del where["token"]
    answer = crawl(1, 3, function=function, **where)
    assert dict(read(where["store"])) == {1: 2, 2: 4}
    assert answer.complete
    assert "." in qualified_name(function)


async def a_coroutine(_session: object, num: int, results: list[Any]) -> None:
    """Do nothing that a lane would run."""
    results.append((num, num))


def a_generator(_session: object, num: int, _results: list[Any]) -> Any:
    """Yield, which a lane would not look at."""
    yield num


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (42, "neither a function"),
        (Doubling, "neither a function"),
        (a_coroutine, "must be a plain function"),
        (functools.partial(a_coroutine), "must be a plain function"),
        (a_generator, "must be a plain function"),
        ("nowhere.at_all:step", "cannot be loaded"),
    ],
)
def test_F5d_what_is_no_step_1_is_refused_before_the_first_request(
    where: dict[str, Any], demo_site: DemoSite, function: Any, words: str
):
    """In words that say what is wanted."""
    before = demo_site.stats()["requests"]
    with pytest.raises(SettingsError, match=words) as caught:
        crawl(1, 3, function=function, **where)
    assert caught.value.field == "CRAWLER_FUNCTION"
    assert demo_site.stats()["requests"] == before


def test_a_source_is_no_function_to_be_refused():
    """What has the four methods of a source passes as it is."""
    source = open_source("genius", "t")
    assert fit(source) is source


def test_all_mistakes_are_told_at_once_the_request_s_first(monkeypatch: pytest.MonkeyPatch):
    """A wrong range, a setting, a function, and what is missing: one error tells them all."""
    for name in os.environ:
        if name.startswith(("CRAWLER_", "GENIUS_")):
            monkeypatch.delenv(name)
    with pytest.raises(RequestError) as caught:
        crawl(9, 5, rate=-1, stroe="x")  # type: ignore[call-arg]
    told = caught.value.messages
    assert [text.split()[0] for text in told] == [
        "stop",
        "stroe",
        "CRAWLER_RATE",
        "GENIUS_TOKEN",
        "CRAWLER_CONTACT",
    ]
    with pytest.raises(SettingsError, match=r"nowhere:step cannot be loaded.*CRAWLER_CONTACT"):
        crawl(1, 2, function="nowhere:step", base_url="https://songs.example")


def test_a_longest_range_holds_in_python_too_when_it_is_set(where: dict[str, Any]):
    """Unset there is none."""
    with pytest.raises(RequestError, match="CRAWLER_MAX_RANGE=10") as caught:
        crawl(1, 100, max_range=10, **where)
    assert caught.value.code == "range_too_long"


TYPED = """
    from crawler import Answer, crawl
    answer: Answer = crawl(1, 2, store="x", rate=5)
    kind: str = answer.stopped_by
    crawl(1, 2, strore="x")
    crawl(mode="nextt")
    crawl(1, 2, recheck="found")
    crawl(1, 2, rate="fast")
    answer.fund
    print(answer.stopped_by == "dnoe")
"""


@pytest.mark.once
def test_a_type_checker_refuses_wrong_names(tmp_path: Path):
    """Misspelt arguments, modes and outcomes are errors of mypy's, on their lines, and no others."""
    file = tmp_path / "user.py"
    file.write_text(textwrap.dedent(TYPED).lstrip())
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", str(file)],
        cwd=ROOT,
        env=os.environ | {"MYPY_CACHE_DIR": str(ROOT / ".mypy_cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["4", "5", "6", "7", "8", "9"], done.stdout


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_crawl_can_be_awaited_without_blocking_the_loop(where: dict[str, Any], factory: Any):
    """Other tasks run on, in asyncio's loop and uvloop's, and asyncio is not patched."""

    async def main() -> tuple[Any, int]:
        ticks = 0
        crawling = asyncio.create_task(crawl_async(1, 201, **where | {"rate": 400}))
        while not crawling.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return await crawling, ticks

    with asyncio.Runner(loop_factory=factory) as runner:
        answer, ticks = runner.run(main())
    assert (answer.complete, answer.requests) == (True, 200)
    assert ticks > 10


def test_an_awaited_crawl_raises_what_is_wrong(where: dict[str, Any]):
    """As `crawl` does."""
    with pytest.raises(RequestError):
        asyncio.run(crawl_async(9, 5, **where))


def test_cancelling_an_awaited_crawl_stores_what_is_settled(where: dict[str, Any]):
    """It ends as Ctrl-C would, within seconds, and the next crawl asks only the rest."""

    async def main() -> None:
        seen: list[Any] = []
        going = asyncio.create_task(
            crawl_async(1, 100_001, song_urls=seen, **where | {"rate": 500})
        )
        while len(seen) < 50:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.01)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

    began = time.monotonic()
    before = set(threading.enumerate())
    asyncio.run(main())
    assert time.monotonic() - began < 12
    assert not {thread for thread in set(threading.enumerate()) - before if thread.name == "lane"}
    stored = len(list(read(where["store"])))
    assert stored >= 50
    assert crawl(1, 51, **where).requests == 0


def test_cancelling_twice_does_not_wait(where: dict[str, Any]):
    """Whoever is in a hurry has the loop back at once."""

    async def main() -> float:
        with DemoSite(latency_seconds=3.0) as slow:
            going = asyncio.create_task(crawl_async(1, 1001, **where | {"base_url": slow.base_url}))
            await asyncio.sleep(0.5)
            going.cancel()
            await asyncio.sleep(0.05)
            began = time.monotonic()
            going.cancel()
            with pytest.raises(asyncio.CancelledError):
                await going
            return time.monotonic() - began

    assert asyncio.run(main()) < 0.5


@pytest.mark.parametrize("name", ["CRAWLER_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_H4_an_authority_of_the_user_s_own_is_trusted(
    name: str, tmp_path: Path, faulty_site_tls: FaultySite, monkeypatch: pytest.MonkeyPatch
):
    """A crawl and the doctor trust what the variable names; without it there is no answer."""
    for variable in ("CRAWLER_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    where = {"base_url": faulty_site_tls.url("right"), "token": "demo-token", "rate": 0}
    limits = Limits(policy=Policy(backoff_seconds=0.01))
    refused = crawl(1, 3, store=tmp_path / "refused", limits=limits, **where)
    assert (refused.found, refused.stopped_by) == (0, "circuit")
    monkeypatch.setenv(name, str(faulty_site_tls.ca_path))
    assert crawl(1, 3, store=tmp_path / "trusted", **where).found == 2
    findings = examine(os.environ, song_num=1, store=str(tmp_path / "trusted"), **where)
    assert [finding.part for finding in findings if finding.verdict == "wrong"] == []


def test_a_sample_and_a_known_number_are_arguments_too(where: dict[str, Any], demo_site: DemoSite):
    """A pilot from Python asks so many numbers and no more."""
    answer = crawl(1, 100_001, sample=Whole(20), canary=Whole(1), **where)  # type: ignore[arg-type]
    assert (answer.requests, answer.stopped_by, answer.complete) == (20, "done", False)
    assert answer.remaining == 100_000 - 20


@pytest.mark.parametrize(
    ("options", "field"),
    [({"sample": 0}, "sample"), ({"sample": 1.5}, "sample"), ({"canary": -1}, "canary")],
    ids=str,
)
def test_a_sample_is_a_whole_number(where: dict[str, Any], options: dict[str, Any], field: str):
    """What is none is refused by name."""
    with pytest.raises(RequestError) as caught:
        crawl(1, 10, **where, **options)
    assert caught.value.field == field


def test_a_sample_has_a_range(where: dict[str, Any]):
    """A mode finds its own numbers."""
    with pytest.raises(RequestError, match="sample goes with a range"):
        crawl(mode="next", sample=5, **where)
