"""A careless newcomer's mistakes: each is answered within seconds, in a sentence that says what to do."""

import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from crawler.demo.site import DemoSite
from tests.test_cli import environment

SECONDS = 5.0
"""Nobody waits longer for the answer; a machine that is busy with other tests gets thrice that."""


class Mistake(NamedTuple):
    """What somebody does wrong.

    Attributes:
        arguments: Of the command line.
        told: What its answer says: what is wrong, and what to do.
        code: Exit code.
        settings: In the environment, beside a site and its token.
        limit: Called in the process before it begins.
    """

    arguments: str
    told: str
    code: int = 2
    settings: Mapping[str, str] = MappingProxyType({})
    limit: Callable[[], None] | None = None


def _disk_is_full() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


MISTAKES = {
    "a wrong range": Mistake("crawl 2001 1", r"STOP must not be less than START, got"),
    "no token": Mistake(
        "crawl 1 11",
        r"GENIUS_TOKEN is missing or empty: .*create a client access token at genius.com/api-clients",
        settings={"GENIUS_TOKEN": ""},
    ),
    "a wrong token": Mistake(
        "crawl 1 11 --store s",
        r"The site refused the token \(401 or 403\)\. .*GENIUS_TOKEN",
        1,
        {"GENIUS_TOKEN": "wrong"},
    ),
    "a wrong path": Mistake(
        "crawl 1 11 --store /proc/nowhere",
        r"/proc/nowhere.*(cannot be|CRAWLER_STORE|--store)",
        1,
    ),
    "a typo in an option": Mistake(
        "crawl 1 11 --rte 5", r"unrecognized arguments: --rte 5; did you mean --rate\?"
    ),
    "a typo in a setting": Mistake(
        "crawl 1 11",
        r"CRAWLER_RAET is not a setting; did you mean CRAWLER_RATE\?",
        settings={"CRAWLER_RAET": "5"},
    ),
    "a typo in a function": Mistake(
        "crawl 1 11 --function mine:stepp",
        r"mine:stepp cannot be loaded: .*did you mean mine:step\?",
    ),
    "a typo in a store": Mistake(
        "export songs.jsonl --store data/demoo",
        r"data/demoo holds no songs yet: crawl some first",
        1,
    ),
    "a full disk": Mistake(
        "crawl 1 11 --store s", r"File too large|No space left", 1, limit=_disk_is_full
    ),
    "no network": Mistake(
        "crawl 1 100001 --store s --base-url https://songs.invalid",
        r"dns: the host name could not be resolved",
        1,
        {"CRAWLER_CONTACT": "me@example.org"},
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_in_a_sentence_within_seconds(
    name: str, demo_site: DemoSite, tmp_path: Path
):
    """What is wrong and what to do stand in one line, and the exit code says that it went wrong."""
    mistake = MISTAKES[name]
    (tmp_path / "mine.py").write_text("def step(session, num, found):\n    pass\n")
    environ = environment(demo_site) | mistake.settings
    if mistake.limit is not None:  # coverage could not write its file, either, and says so
        environ = {name: text for name, text in environ.items() if not name.startswith("COVERAGE")}
    command: list[Any] = [sys.executable, "-m", "crawler", *mistake.arguments.split()]
    began = time.monotonic()
    took = None
    lines = []
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environ,
        preexec_fn=mistake.limit,  # noqa: PLW1509 - the child runs no thread of ours
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if took is None and re.search(mistake.told, line):
                took = time.monotonic() - began
    assert took is not None, "".join(lines)
    assert "Traceback" not in "".join(lines)
    assert took < 3 * SECONDS
    assert process.returncode == mistake.code
