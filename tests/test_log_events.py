"""The log of the running function in the cloud: one object a line, few lines, each in its trace."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from crawler.demo.site import DemoSite
from tests.faulty_site import FaultySite
from tests.function_process import FunctionProcess

pytestmark = pytest.mark.once

TRACE = "0123456789abcdef0123456789abcdef"
SONGS = 20_000
BOUND = 2_000_000
"""Bytes that the log of a million pages may have."""


def crawled(site: str, store: Path, stop: int, **settings: str) -> tuple[list[dict[str, Any]], int]:
    """Let the function crawl in the cloud; give its log's objects, and how many bytes it has."""
    environ = {
        "GENIUS_TOKEN": "demo-token",
        "CRAWLER_BASE_URL": site,
        "CRAWLER_STORE": str(store),
        "CRAWLER_RATE": "0",
        "K_SERVICE": "songs",
        "GOOGLE_CLOUD_PROJECT": "proj",
    }
    body = json.dumps({"start": 0, "stop": stop}).encode()
    with FunctionProcess(environ | settings) as function:
        before = len(function.log())
        reply = function.post(
            body, X_Cloud_Trace_Context=f"{TRACE}/1;o=1", Function_Execution_Id="execution-1"
        )
        log = function.log()[before:]
    assert reply.status == 200, reply.body
    return [json.loads(line) for line in log.splitlines()], len(log.encode())


def test_a_run_tells_its_events_in_the_trace_of_its_request(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """Begin, blocks, a pause, the end: each line has severity and trace, whatever thread wrote it."""
    lines, _ = crawled(faulty_site.url("429:1~0.3"), tmp_path, 2100)
    events = Counter(line.get("event") for line in lines)
    assert {"run_started", "block_stored", "paused", "run_finished"} <= events.keys()
    assert (events["run_started"], events["block_stored"], events["run_finished"]) == (1, 3, 1)
    for line in lines:
        assert line["severity"] in {"INFO", "NOTICE", "WARNING", "ERROR"}, line
        assert line["logging.googleapis.com/trace"] == f"projects/proj/traces/{TRACE}", line
    finished = next(line for line in lines if line.get("event") == "run_finished")
    assert finished["found"] + finished["missing"] == 2100


def test_every_line_keeps_the_label_of_its_execution(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """With LOG_EXECUTION_ID too: one line each, whatever thread wrote it, and none without."""
    lines, _ = crawled(faulty_site.url("429:1~0.3"), tmp_path, 1100, LOG_EXECUTION_ID="true")
    events = Counter(line.get("event") for line in lines)
    assert (events["run_started"], events["block_stored"], events["run_finished"]) == (1, 2, 1)
    assert len({(line["message"], line["time"]) for line in lines}) == len(lines)
    labels = {line["logging.googleapis.com/labels"]["execution_id"] for line in lines}
    assert labels == {"execution-1"}


def test_G4_neither_a_title_nor_a_caller_forges_a_line(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """In the cloud: line ends and escapes in pages, bodies, addresses and headers stay inside."""
    forged = '{"severity": "CRITICAL", "message": "forged"}'
    hostile = f"\r\n{forged}\r\n\x1b[31m\u2028"
    site = faulty_site.url("odd-titles")
    environ = {"CRAWLER_BASE_URL": site, "CRAWLER_STORE": str(tmp_path), "CRAWLER_RATE": "0"}
    with FunctionProcess(
        environ | {"GENIUS_TOKEN": "demo-token", "K_SERVICE": "songs"}
    ) as function:
        replies = [
            function.post(json.dumps({hostile: 1}).encode()),
            function.post(json.dumps({"mode": hostile}).encode()),
            function.ask("/?start=" + quote(hostile)),
            function.ask("/" + quote(hostile)),
            function.post(b'{"start": 0, "stop": 20}', X_Cloud_Trace_Context=forged),
        ]
        log = function.log()
    assert [reply.status for reply in replies] == [400, 400, 400, 404, 200]
    assert "\x1b" not in log
    ours = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "run_finished" in {line.get("event") for line in ours}
    assert "forged" not in {line["message"] for line in ours}


def test_G4_at_a_terminal_neither_a_title_nor_a_setting_forges_a_line(
    tmp_path: Path, faulty_site: FaultySite
) -> None:
    """On the command line: what is not ours comes escaped, one line each."""
    address = faulty_site.url("odd-titles")
    arguments = ["crawl", "0", "20", "--store", str(tmp_path), "--base-url", address, "--rate", "0"]
    for contact in ("me@example.com", "x\n12:00:00 ERROR forged\x1b[31m"):
        done = subprocess.run(
            [sys.executable, "-m", "crawler", *arguments],
            env={**os.environ, "GENIUS_TOKEN": "demo-token", "CRAWLER_CONTACT": contact},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == (0 if "@" in contact else 2), done.stderr
        told = (done.stdout + done.stderr).splitlines()
        assert not [line for line in told if line.startswith("12:00:00") or "\x1b" in line]


def test_a_long_run_tells_where_it_stands_every_ten_seconds(tmp_path: Path) -> None:
    """Progress is a line now and then, never one for each page."""
    with DemoSite() as site:
        lines, _ = crawled(
            site.base_url, tmp_path, 3000, CRAWLER_RATE="100", CRAWLER_TIME_BUDGET_SECONDS="11"
        )
    progress = [line for line in lines if line.get("event") == "progress"]
    assert len(progress) == 1
    assert progress[0]["requests"] > 800
    assert progress[0]["logging.googleapis.com/trace"].endswith(TRACE)


def test_the_log_of_a_million_pages_is_small(tmp_path: Path) -> None:
    """Scaled from a run of 20,000: under 2 MB, for a line is told of a block, not of a page."""
    with DemoSite() as site:
        _, size = crawled(site.base_url, tmp_path, SONGS)
    print(f"{size} bytes for {SONGS} pages, {size * 1_000_000 // SONGS} for a million")
    assert size * 1_000_000 // SONGS < BOUND
