"""What is measured of our parts alone: the bucket, a cold start, the function on a small machine."""

import compileall
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from benchmarks.cases import Plan, Row, told
from benchmarks.cgroup import SmallMachine, small_machine
from benchmarks.contest import (
    OURS,
    SESSION,
    clean_environment,
    kill_group,
    run_contestant,
)
from benchmarks.environment import ROOT
from benchmarks.pace import read_pace
from benchmarks.site import Site

CPUS = 0.167
MEMORY_MIB = 256
SMALLEST_CPUS = 0.083
SMALLEST_MIB = 128
"""The smallest size that the platform has."""
_IMPORT = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
import {}
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({{"failed": None, "seconds": wall, "cpu_seconds": cpu}}))
"""


def bucket_store(site: Site, plan: Plan) -> list[Row]:
    """Crawl into the local storage server and into a folder in turns, over HTTP, 64 connections."""
    # imported here, for this case alone: the storage server comes with the tests' dependencies
    from tests.storage_server import StorageServer

    count = plan.fast_pages
    rows = []
    with StorageServer() as server:
        server.make_bucket("bench")
        for number in range(1, plan.rounds + 1):
            gs = f"gs://bench/round{number}"
            for name, more in ((OURS.name, ()), (f"{OURS.name}, gs://", ("--store", gs))):
                row = run_contestant(
                    OURS,
                    base_url=site.http,
                    count=count,
                    connections=64,
                    timeout_seconds=plan.timeout_seconds,
                    more=("--verify", *more),
                    environment={"STORAGE_EMULATOR_HOST": server.url},
                )
                rows.append(told(plan, row | {"round": number, "contestant": name}))
    return rows


def cold_start(_site: Site, plan: Plan) -> list[Row]:
    """Time `import main` and `import functions_framework`, byte code compiled, in turns."""
    compileall.compile_dir(ROOT / "crawler", quiet=2)
    compileall.compile_file(ROOT / "main.py", quiet=2)
    rows = []
    for number in range(1, 4 * plan.rounds + 2):
        for module in ("functions_framework", "main"):
            row = {"round": number, "contestant": f"import {module}", **_import_seconds(module)}
            rows.append(row)
    for name in ("import functions_framework", "import main"):
        times = [row["seconds"] for row in rows if row["contestant"] == name and not row["failed"]]
        if times:
            plan.tell(f"  {name}: {statistics.median(times):.3f} s (median of {len(times)})")
    return rows


def _import_seconds(module: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _IMPORT.format(module)]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1], "seconds": None}
    times: dict[str, Any] = json.loads(done.stdout)
    return times


def small_function(site: Site, plan: Plan) -> list[Row]:
    """Run the function in the two smallest sizes against 100 ms of latency.

    Raises:
        NoCgroupError: This machine cannot limit a group of processes.
    """
    runs = [
        ("ours, paced at 100/s", 100 * plan.paced_seconds, {"CRAWLER_RATE": "100"}),
        (
            "ours, 400 connections",
            int(5_000 * plan.seconds),
            {"CRAWLER_RATE": "0", "CRAWLER_CONNECTIONS": "400"},
        ),
    ]
    rows = []
    for name, count, settings in runs:
        with small_machine(cpus=CPUS, memory_mib=MEMORY_MIB) as small:
            row = call_function(site, small, count, settings, plan)
            rows.append(tell_limited(plan, {"round": 1, "contestant": name, "count": count} | row))
    for caller in ("source", "function"):
        count, settings = 100 * plan.paced_seconds, {"CRAWLER_RATE": "100"}
        if caller == "function":
            settings["CRAWLER_FUNCTION"] = "tests.song_step:ask_for_song"
        with small_machine(cpus=SMALLEST_CPUS, memory_mib=SMALLEST_MIB) as small:
            row = call_function(site, small, count, settings, plan)
            name = smallest_name(caller)
            rows.append(tell_limited(plan, {"round": 1, "contestant": name, "count": count} | row))
    with small_machine(cpus=CPUS, memory_mib=MEMORY_MIB) as small:
        row = run_contestant(
            SESSION,
            base_url=site.slow,
            count=max(100, int(50 * plan.seconds)),
            connections=64,
            timeout_seconds=plan.timeout_seconds,
            prefix=small.prefix,
        )
        row |= {"round": 1, "peak_memory_mb": small.peak_memory_mb()}
        rows.append(tell_limited(plan, row))
    return rows


def smallest_name(caller: str) -> str:
    """Name the run of a source or a function in the smallest size."""
    return f"ours, {caller}, paced at 100/s in {SMALLEST_CPUS} CPU and {SMALLEST_MIB} MiB"


def call_function(
    site: Site, small: SmallMachine, count: int, settings: Mapping[str, str], plan: Plan
) -> Row:
    """Start the real functions-framework in the group, crawl through it once, stop it.

    Args:
        site: Asked at its slow address, 100 ms.
        small: The group.
        count: Songs 1 to count.
        settings: Of the function, beside store, site and token.
        plan: How long a paced run may take.
    """
    site.log.write_text("")
    with tempfile.TemporaryDirectory(prefix="bench-store-") as store:
        environment = {
            "CRAWLER_STORE": store,
            "CRAWLER_BASE_URL": site.slow_logged,
            "GENIUS_TOKEN": "benchmark-token",
            "CRAWLER_MAX_RANGE": str(count),
            **settings,
        }
        try:
            with _function(small, environment) as url:
                answer = _post(url, {"start": 1, "stop": 1 + count}, plan.paced_seconds + 240)
        except (OSError, TimeoutError) as error:
            return {"failed": str(error), "peak_memory_mb": small.peak_memory_mb()}
    lacking = count - answer["found"]
    return {
        "failed": f"{lacking} songs lacking, {answer['stopped_by']}" if lacking else None,
        "pages": answer["found"],
        "seconds": answer["seconds"],
        "pages_per_second": answer["found"] / answer["seconds"],
        "peak_memory_mb": small.peak_memory_mb(),
        "pace": asdict(read_pace(site.log.read_text().splitlines())),
        "answer": answer,
    }


@contextlib.contextmanager
def _function(small: SmallMachine, environment: Mapping[str, str]) -> Iterator[str]:
    """Run `functions-framework` inside the group until it answers; yields its address.

    Raises:
        TimeoutError: It did not answer within 120 s.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*small.prefix, sys.executable, "-m", "functions_framework", "--target"]
    command += ["crawl_songs", "--source", "main.py", "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**clean_environment(), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _await_health(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            kill_group(process)


def _await_health(url: str, process: subprocess.Popen[bytes], timeout_seconds: float = 120) -> None:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=20):
            return
        time.sleep(0.1)
    raise TimeoutError(f"the function did not answer /health within {timeout_seconds:.0f} s")


def _post(url: str, body: dict[str, int], timeout_seconds: float) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def tell_limited(plan: Plan, row: Row) -> Row:
    rate = row["failed"] or f"{row['pages_per_second']:,.1f} pages/s"
    plan.tell(f"  {row['contestant']}: {rate}, group's peak {row['peak_memory_mb'] or 0:.0f} MiB")
    return row
