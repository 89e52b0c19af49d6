"""Who takes part, and how one of them is run: a process of its own, bounded in time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, contestants_python

_LEFT_OUT = ("PROXY", "CA_BUNDLE", "SSL_CERT", "CRAWLER_", "GENIUS_", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class Contestant:
    """One of those who take part.

    Attributes:
        name: As it stands in the tables.
        module: Its file under benchmarks/contestants.
        usual_rate: Pages/s it is known to reach, to choose how many pages it is given.
        ours: Whether it runs in the project's own environment.
        on_requests: Whether it is built on requests.
        arguments: What it takes beside the common arguments.
    """

    name: str
    module: str
    usual_rate: int
    ours: bool = False
    on_requests: bool = False
    arguments: tuple[str, ...] = ()


OURS = Contestant("ours, source", "ours", 20_000, ours=True)
OURS_FUNCTION = Contestant(
    "ours, function",
    "ours",
    1_800,
    ours=True,
    on_requests=True,
    arguments=("--caller", "function"),
)
BARE_LOOP = Contestant("bare pycurl loop", "pycurl_loop", 20_000)
WRK = Contestant("wrk (the ceiling)", "wrk_ceiling", 20_000)
SESSION = Contestant("requests, one session", "requests_session", 550, on_requests=True)
TUTORIAL = Contestant("tutorial's pattern", "tutorial", 350, on_requests=True)
AIOHTTP = Contestant("aiohttp, uvloop", "aiohttp_uvloop", 5_000)
SCRAPY = Contestant("Scrapy", "scrapy_spider", 330)
WREQ = Contestant("wreq", "wreq_async", 14_000)
CONTESTANTS: tuple[Contestant, ...] = (
    OURS,
    OURS_FUNCTION,
    BARE_LOOP,
    WREQ,
    Contestant("pyreqwest", "pyreqwest_async", 9_000),
    Contestant("primp", "primp_async", 7_000),
    AIOHTTP,
    Contestant("curl_cffi", "curl_cffi_async", 3_000),
    Contestant("Crawlee", "crawlee_http", 1_000),
    Contestant("niquests", "niquests_async", 700),
    SESSION,
    Contestant("requests-futures", "requests_futures_pool", 480, on_requests=True),
    TUTORIAL,
    SCRAPY,
    Contestant("httpx", "httpx_async", 200),
    WRK,
)


def run_contestant(
    contestant: Contestant,
    *,
    base_url: str,
    count: int,
    connections: int,
    timeout_seconds: float,
    ca_file: Path | None = None,
    more: Sequence[str] = (),
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run one contestant once and return its row; a failure is a row too, with `failed` set.

    Args:
        contestant: Who runs.
        base_url: The site.
        count: Pages: songs 1 to count.
        connections: Connections, threads or workers.
        timeout_seconds: After this it is killed and has failed.
        ca_file: The authority to trust, for https.
        more: Arguments beside the common ones.
        prefix: A command that starts the contestant's command, such as one that limits it.
        environment: Variables to set beside this process's own.
    """
    python = Path(sys.executable) if contestant.ours else contestants_python()
    command = [*prefix, str(python), "-m", f"benchmarks.contestants.{contestant.module}"]
    command += ["--base-url", base_url, "--count", str(count), "--connections", str(connections)]
    command += ["--ca-file", str(ca_file)] if ca_file else []
    outcome = run_bounded([*command, *contestant.arguments, *more], timeout_seconds, environment)
    row = {"contestant": contestant.name, "count": count, "connections": connections}
    return {**row, "failed": None, **_rates(outcome)}


def run_bounded(
    command: Sequence[str], timeout_seconds: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a command that prints a line of JSON, as a group that is killed whole when late.

    Returns:
        What it printed; with `failed` set if it was late, exited with an error or printed none.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**clean_environment(), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complained = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {timeout_seconds:.0f} s"}
    finally:
        kill_group(process)
    return _read_outcome(process.returncode, said, complained)


def clean_environment() -> dict[str, str]:
    """Copy the environment without proxies, authorities and settings that would skew a run."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not any(word in name.upper() for word in _LEFT_OUT)
    }
    return {**kept, "NO_PROXY": "127.0.0.1"}


def kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill what is left of a process that was started as a group of its own, and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_outcome(code: int, said: str, complained: str) -> dict[str, Any]:
    lines = [line for line in said.splitlines() if line.startswith("{")]
    reason = next(iter(complained.strip().splitlines()[-1:]), "no word")[:300]
    if not lines:
        return {"failed": f"exit code {code}: {reason}"}
    outcome: dict[str, Any] = json.loads(lines[-1])
    if code:
        errors = outcome.get("errors")
        outcome["failed"] = f"exit code {code}, {errors} pages lacking or wrong: {reason}"
    return outcome


def _rates(outcome: dict[str, Any]) -> dict[str, Any]:
    if not outcome.get("pages"):
        return outcome
    return {
        **outcome,
        "pages_per_second": outcome["pages"] / outcome["seconds"],
        "cpu_ms_per_page": 1000 * outcome["cpu_seconds"] / outcome["pages"],
    }
