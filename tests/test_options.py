"""Options: each is known by the word of its setting, and none is accepted and dropped."""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from crawler.__main__ import build_parser, main
from crawler.cli.options import overrides_of, set_up_logs
from crawler.demo.behaviour import SiteBehaviour
from crawler.demo.site import DemoSite
from crawler.run.crawl import crawl as run_crawl
from crawler.settings.settings import SETTINGS
from crawler.store.folder import FolderStore
from tests.faulty_site import FaultySite
from tests.records import expected_info, missing
from tests.stores import fill, song

TESTS = Path(__file__).parent
MISSING = sum(expected_info(num) is None for num in range(1, 31))

SOURCE = """
name = "mine"
schema = "1"
base_url = "http://127.0.0.1:1"
url = "{base_url}/songs/{song_num}"
token = "GENIUS_TOKEN"
[headers]
Authorization = "Bearer {token}"
[page]
record = "response.song"
id = "id"
[fields]
title = "title"
"""


class Effect(NamedTuple):
    """What an option of `crawl` changes.

    Attributes:
        given: The option, as it is given beside `crawl 1 31 --json`.
        shows: Whether its effect shows: of the answer, the site's counts, and the store.
        before: Arguments of a crawl that goes before.
    """

    given: str
    shows: Callable[[dict[str, Any], dict[str, Any], Path], bool]
    before: str = ""


EFFECTS = {
    "--store": Effect("--store other", lambda _a, _c, s: (s.parent / "other").is_dir()),
    "--source": Effect(
        "--source mine.toml --base-url {url}",
        lambda _a, _c, s: json.loads((s / "store.json").read_text())["source"] == "mine",
    ),
    "--function": Effect(
        "--function mine:step",
        lambda _a, c, s: b'"mine.step"' in (s / "store.json").read_bytes() and not c["requests"],
    ),
    "--rate": Effect("--rate 40", lambda a, _c, _s: a["mean_rate"] < 60),
    "--connections": Effect("--connections 1", lambda _a, c, _s: c["connections"] == 1),
    "--time-budget-seconds": Effect(
        "--time-budget-seconds 0.3 --rate 20", lambda a, _c, _s: a["stopped_by"] == "time_budget"
    ),
    "--limit": Effect("--mode next --limit 7", lambda a, _c, _s: a["requests"] == 7),
    "--mode": Effect("--mode next --limit 7", lambda a, _c, _s: a["mode"] == "next"),
    "--refresh-older-than-days": Effect(
        "--refresh-older-than-days 0", lambda a, _c, _s: a["requests"] == 30, "1 31"
    ),
    "--recheck": Effect(
        "--recheck missing", lambda a, _c, _s: a["missing"] == MISSING and a["found"] == 0, "1 31"
    ),
    "--canary": Effect(
        "3000001 3000031 --canary 1", lambda a, _c, _s: (a["missing"], a["complete"]) == (30, True)
    ),
    "--sample": Effect("--sample 10", lambda a, _c, _s: a["requests"] == 10),
}

SHOWN_ELSEWHERE = {
    ("crawl", "--json"): "test_cli.test_json_is_the_answer_and_nothing_else",
    ("crawl", "--base-url"): "test_options.test_an_option_of_crawl_has_its_effect",
    ("crawl", "--ca-file"): "test_options.test_a_certificate_file_is_read",
    ("crawl", "--verbose"): "test_cli.test_G1_verbose_tells_what_happens_and_never_the_token",
    ("crawl", "--yes"): "test_cli.test_a_range_of_more_than_a_day_is_questioned_on_a_terminal",
    ("crawl", "--fan-out"): "test_options.test_fan_out_refuses_what_it_would_drop",
    ("crawl", "--order"): "test_options.test_an_order_goes_with_fan_out",
    ("status", "--html"): "test_cli.test_help_has_examples_that_can_be_pasted",
    ("export", "--songs"): "test_options.test_an_export_may_be_of_some_songs",
    **{
        (command, "--source"): "test_options.test_a_source_says_where_its_store_lies"
        for command in ("status", "verify", "stop", "export", "schema")
    },
    ("demo", "--serve"): "test_cli.test_the_served_demo_stays_up_until_it_is_ended",
    (
        "demo",
        "--rate",
    ): "test_cli.test_the_demo_fills_songs_1_to_2000_and_the_second_time_asks_nothing",
    ("demo", "--connections"): "test_cli.test_the_demo_takes_no_settings_from_its_surroundings",
}
"""Options by command, and the test that fails when they are dropped."""

ALIKE = {"--store", "--json", "--verbose"}
"""Read by one function for all commands; each command's own tests name a store."""

OF_OTHER_ROOMS = {"demo-site", "deployment", "doctor", "schema", "rebuild", "sources"}
"""Commands whose options are held by the tests of what stands behind them, one and all."""


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command."""
    [action] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]  # noqa: SLF001 - argparse lists them nowhere else
    return dict(action.choices)


def options_of(parser: argparse.ArgumentParser) -> list[str]:
    """Return the long options of a command."""
    names = [a.option_strings[-1] for a in parser._actions if a.option_strings]  # noqa: SLF001 - as above
    return [name for name in names if name != "--help"]


@pytest.fixture
def crawl(
    demo_site: DemoSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> Callable[[str], dict[str, Any]]:
    """Return what runs `crawl --json` with arguments in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {
        "CRAWLER_BASE_URL": demo_site.base_url,
        "GENIUS_TOKEN": demo_site.token,
        "CRAWLER_STORE": str(tmp_path / "s"),
        "CRAWLER_RATE": "0",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mine.toml").write_text(SOURCE)
    (tmp_path / "mine.py").write_text("def step(s, num, found):\n    found.append((num, 1))\n")

    def run(arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        main(["crawl", "--json", *arguments.split()])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_of_crawl_has_its_effect(option, crawl, demo_site: DemoSite, tmp_path: Path):
    """With it the answer, the site or the store shows what it asks for; without it does not."""
    effect = EFFECTS[option]
    if effect.before:
        crawl(effect.before)
    given = effect.given.format(url=demo_site.base_url)
    answer = crawl(given if given.startswith(("--mode", "3")) else f"1 31 {given}")
    assert effect.shows(answer, demo_site.stats(), tmp_path / "s")


@pytest.mark.parametrize(
    "option", sorted(EFFECTS.keys() - {"--refresh-older-than-days", "--recheck"})
)
def test_without_an_option_its_effect_is_not_there(option, crawl, demo_site, tmp_path: Path):
    """What shows is the option's doing."""
    answer = crawl("1 31")
    assert not EFFECTS[option].shows(answer, demo_site.stats(), tmp_path / "s")


def test_every_option_has_a_test_that_misses_it():
    """One that a command accepts and drops has none, and fails here."""
    for name, parser in commands().items():
        if name in OF_OTHER_ROOMS:
            continue
        shown = {option for command, option in SHOWN_ELSEWHERE if command == name} | ALIKE
        assert set(options_of(parser)) <= shown | (set(EFFECTS) if name == "crawl" else set()), name
    for test in SHOWN_ELSEWHERE.values():
        module, _, function = test.partition(".")
        assert f"def {function}(" in (TESTS / f"{module}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", ["status", "verify 1 4", "stop", "export out.jsonl", "schema --duckdb"]
)
def test_a_source_says_where_its_store_lies(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """What `crawl --source FILE` filled is found by the same option, and by nothing else."""
    monkeypatch.chdir(tmp_path)
    text = 'name = "hn"\nschema = "1"\nbase_url = "http://127.0.0.1:9"\n'
    text += 'url = "{base_url}/{song_num}"\n[fields]\ntitle = "title"\n'
    Path("hn.toml").write_text(text)
    fill(FolderStore("data/hn"), [song(1), missing(2), missing(3)], source="hn", schema="1")
    assert main([*command.split(), "--source", "hn.toml"]) == 0
    assert "genius" not in capsys.readouterr().out


SETTINGS_SHOWN = {
    "token": "test_cli.test_a_refused_token_is_an_error",
    "contact": "test_options.test_the_contact_is_told_to_the_site",
    "instances": "test_source_examples.test_D3b_a_pilot_says_what_the_site_announces",
    "max_range": "test_crawl.test_a_longest_range_holds_in_python_too_when_it_is_set",
    "first_song": "test_scope.test_next_in_an_empty_store_begins_at_the_first_song",
    "last_song": "test_scope.test_nothing_is_asked_above_the_last_song",
    "robots": "test_robots.test_D9_a_run_that_is_told_to_ignore_it_does_not_ask",
    "max_requests_per_day": "test_run.test_the_daily_cap_holds_over_runs",
    "fields": "test_raw.test_chosen_fields_are_stored",
    "keep_raw": "test_raw.test_bodies_are_kept_in_a_bucket_too",
    "queue": "test_orders.test_an_order_is_in_the_store_before_its_first_task",
    "url": "test_task_queue.test_a_task_is_delivered_as_it_was_described",
    "invoker": "test_task_queue.test_a_task_is_delivered_as_it_was_described",
    "shard_songs": "test_orders.test_a_range_of_too_many_shards_is_refused",
}
"""Settings that are no option, and the test that fails when one has no effect."""


def test_every_setting_has_a_test_that_misses_it():
    """One that is read and has no effect has none, and fails here."""
    assert {row.field for row in SETTINGS.values() if not row.option} == set(SETTINGS_SHOWN)
    for test in SETTINGS_SHOWN.values():
        module, _, function = test.partition(".")
        assert f"def {function}(" in (TESTS / f"{module}.py").read_text(encoding="utf-8")


def test_the_contact_is_told_to_the_site(faulty_site: FaultySite, tmp_path: Path):
    """Each page is asked for under the crawler's name and the address of who runs it."""
    site = {"base_url": faulty_site.url("right"), "token": "t", "store": tmp_path, "rate": 0}
    run_crawl(1, 4, contact="me@example.org", **site)
    seen = [request.headers["user-agent"] for request in faulty_site.requests]
    assert seen
    assert all("(+me@example.org)" in name for name in seen)


def test_every_command_reads_what_it_accepts():
    """An option whose value nothing behind its command looks at is dropped, and fails here."""
    shared = {"verbose", *SETTINGS}  # read for all commands by `set_up_logs` and `settings_of`
    shared |= {"bigquery"}  # what is left where it is not --duckdb
    site = set(SiteBehaviour.__dataclass_fields__)  # read by their names, all of them
    for name, parser in commands().items():
        if name == "crawl":  # by their names, too; each shows its effect above
            continue
        text = inspect.getsource(sys.modules[(parser.get_default("run") or main).__module__])
        for action in parser._actions:  # noqa: SLF001 - as above
            if action.dest not in {"help", argparse.SUPPRESS, *shared, *site}:
                assert re.search(rf"\bargs\.{action.dest}\b", text), (name, action.dest)


def test_an_option_that_is_a_setting_has_its_word():
    """`--base-url`, `CRAWLER_BASE_URL`, `base_url`: one word, and its help is the setting's."""
    words = {row.option: row for row in SETTINGS.values() if row.option}
    for parser in commands().values():
        for action in parser._actions:  # noqa: SLF001 - as above
            if action.dest in SETTINGS and action.option_strings and action.dest != "token":
                assert action.option_strings == [f"--{action.dest.replace('_', '-')}"]
    offered = {option for parser in commands().values() for option in options_of(parser)}
    assert set(words) <= offered


def test_a_certificate_file_is_read(crawl, capsys):
    """One that is not there is refused before anything is asked."""
    assert main(["crawl", "1", "3", "--ca-file", "no.pem"]) == 2
    assert "--ca-file must be a file of certificates, got 'no.pem'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--rate 5", "--connections 5", "--function a:b", "--base-url x", "--ca-file x"]
)
def test_fan_out_refuses_what_it_would_drop(option, crawl, capsys):
    """The deployed function has its own."""
    assert main(["crawl", "1", "3", "--fan-out", *option.split()]) == 2
    told = f"{option.split()[0]} has no effect with --fan-out: the deployed function has its own"
    assert told in capsys.readouterr().err


def test_an_order_goes_with_fan_out(crawl, capsys):
    """Alone it would be dropped."""
    assert main(["crawl", "1", "3", "--order", "5"]) == 2
    assert "--order goes with --fan-out" in capsys.readouterr().err


def test_an_export_may_be_of_some_songs(crawl, capsys, tmp_path: Path):
    """`--songs START STOP` leaves out the rest."""
    crawl("1 31")
    assert main(["export", "out.jsonl", "--songs", "5", "8"]) == 0
    nums = re.findall(r'"song_num": ?(\d+)', (tmp_path / "out.jsonl").read_text())
    assert nums == ["5", "6", "7"]


def test_what_is_given_as_an_option_is_an_override():
    """And nothing else is."""
    args = build_parser().parse_args(["crawl", "1", "2", "--rate", "5"])
    set_up_logs(args)
    assert overrides_of(args) == {"rate": "5"}
