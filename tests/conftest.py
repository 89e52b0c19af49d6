"""Real parts for the tests, each on a free loopback port and gone when its test is over."""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from crawler.demo.site import DemoSite
from crawler.logs import configure_logging
from crawler.store.contract import Store
from crawler.store.opening import open_store
from tests.faulty_site import FaultySite
from tests.storage_server import StorageServer

# How long making an input takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")


LONGEST = (
    "test_fleet",
    "test_site_faults",
    "test_politeness",
    "test_simulation",
    "test_first_day",
    "test_wire_faults",
    "test_main",
    "test_cli",
    "test_process_faults",
    "test_store_faults",
    "test_shell_examples",
    "test_deploy",
    "test_schedule",
    "test_step1_faults",
)
"""Files that take longest; a file stays in one process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no process is left with it when the others are done."""
    places = {name: place for place, name in enumerate(LONGEST)}

    def place(item: pytest.Item) -> tuple[int, bool]:
        is_short = item.get_closest_marker("once") is None
        return places.get(item.path.stem, len(LONGEST)), is_short

    items.sort(key=place)


BROUGHT_BY = {
    "nginx": "apt-get install nginx-light libnginx-mod-http-echo",
    "chromedriver": "apt-get install chromium chromium-driver",
    "gcloud": "apt-get install google-cloud-cli (from Google's own repository)",
}
"""Programs that some tests want, and what brings each."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the programs whose absence skipped tests, and the tests that passed only when run again."""
    reasons = " ".join(str(one.longrepr) for one in terminalreporter.stats.get("skipped", []))
    for program, command in BROUGHT_BY.items():
        if shutil.which(program) is None and program in reasons:
            terminalreporter.write_line(f"Tests were skipped for want of {program}: {command}")
    if os.environ.get("SECOND_RUN"):
        for one in terminalreporter.stats.get("passed", []):
            terminalreporter.write_line(f"FLAKY {one.nodeid}")


@pytest.fixture(autouse=True)
def logs_end_with_their_test() -> Iterator[None]:
    """Take away the handler that the code under test set: its stream is gone with the test."""
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if type(handler).__module__ == configure_logging.__module__:
            root.removeHandler(handler)
            root.setLevel(logging.WARNING)


@pytest.fixture
def demo_site() -> Iterator[DemoSite]:
    """A song site that answers at once and rightly."""
    with DemoSite() as site:
        yield site


@pytest.fixture
def faulty_site() -> Iterator[FaultySite]:
    """A site that misbehaves as each address says."""
    with FaultySite() as site:
        yield site


@pytest.fixture
def faulty_site_tls() -> Iterator[FaultySite]:
    """The same over TLS, with an authority of its own at `ca_path`."""
    with FaultySite(tls=True) as site:
        yield site


@pytest.fixture(scope="session")
def storage_server() -> Iterator[StorageServer]:
    """A storage server that honours generations, one for each process that runs tests."""
    with StorageServer() as server:
        yield server


@pytest.fixture
def bucket_url(storage_server: StorageServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new, empty bucket, as a store's location; processes that a test starts reach it too."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_server.url)
    name = f"bucket-{uuid.uuid4().hex}"
    storage_server.make_bucket(name)
    return f"gs://{name}/a/prefix"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new, empty store of either kind."""
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    return open_store(request.getfixturevalue("bucket_url"))
