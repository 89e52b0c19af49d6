"""The status that runs leave in the store: written for people and programs, in nobody's way."""

import logging
from datetime import UTC, datetime

from crawler.page.status_files import write_status
from crawler.store.contract import Stored
from crawler.store.folder import FolderStore
from crawler.store.run_objects import RunObject, leave_run_object, read_runs
from tests.pages import a_block, a_run

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
    runs = read_runs(store, latest=20, timeout=5)
    assert [run.started_at for run in runs] == [
        a_run(hours=hour).started_at for hour in range(29, 9, -1)
    ]


def test_trouble_is_only_logged(tmp_path, caplog):
    """A status that cannot be written ends no crawl."""
    (tmp_path / "status.json").mkdir()  # a folder lies where the file should
    with caplog.at_level(logging.WARNING, "crawler"):
        write_status(FolderStore(tmp_path), {0: a_block(0)}, now=NOW, known_runs={})
    assert "the status could not be written" in caplog.text
