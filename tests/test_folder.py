"""What only a folder can do wrong: mounts that promise less than a disk, and what is no file."""

import errno
import fcntl
import itertools
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl
from crawler.demo.site import DemoSite
from crawler.errors import BlockFormatError, CrawlerError, StoreUnavailableError
from crawler.store.block import ABSENT, block_name, decode_block
from crawler.store.contract import Content, save_block
from crawler.store.control import read_runs
from crawler.store.folder import LOCK_FILE, FolderStore
from tests.records import found, mixed

NAME = block_name(7000)

Refuse = Callable[[int], OSError]


def refused_before_a_request(folder: Path) -> str:
    """Crawl into a folder that is no good, and return what was said; the site was not asked."""
    with DemoSite() as site:
        with pytest.raises(CrawlerError) as raised:
            crawl(7000, 7010, store=str(folder), base_url=site.base_url, token="t")
        assert site.stats()["requests"] == 0
    return str(raised.value)


# ---------------------------------------------------------------- replacing


@pytest.mark.parametrize(
    "error", [errno.EPERM, errno.EEXIST, errno.ENOTSUP], ids=errno.errorcode.get
)
def test_E10b_a_folder_where_files_cannot_be_replaced_is_refused_with_its_cause(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one for archives: files can be made, and blocks could never grow."""
    replace = os.replace

    def make_only(source: Any, target: Any) -> None:
        if Path(target).exists():
            raise OSError(error, os.strerror(error), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", make_only)
    assert "can be made there but not replaced" in refused_before_a_request(tmp_path / "store")


def test_E10b_a_folder_that_shows_what_was_before_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that keeps old content in a cache would make two runs overwrite each other."""
    replace, kept = os.replace, set[str]()

    def forget(source: Any, target: Any) -> None:
        if str(target) not in kept:
            replace(source, target)
        kept.add(str(target))

    monkeypatch.setattr(os, "replace", forget)
    assert "shows its old content" in refused_before_a_request(tmp_path / "store")


# ---------------------------------------------------------------- poor mounts


@pytest.fixture
def poor_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let folders be synced by nobody, inode numbers change, and times be whole seconds."""
    fsync, look, look_at = os.fsync, os.stat, os.fstat
    numbers = itertools.count(1)

    def worse(result: os.stat_result) -> os.stat_result:
        fields = list(result[:10])
        fields[1] = next(numbers)
        return os.stat_result(fields)

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(look_at(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "stat", lambda *args, **more: worse(look(*args, **more)))
    monkeypatch.setattr(os, "fstat", lambda *args: worse(look_at(*args)))


@pytest.mark.usefixtures("poor_mount")
def test_E10c_a_folder_on_a_poor_mount_works(tmp_path: Path) -> None:
    """Without syncing of folders, with inodes that change and times of whole seconds."""
    with DemoSite() as site:
        where = {"base_url": site.base_url, "token": site.token, "rate": 0}
        for stop in (7005, 7010):
            assert crawl(7000, stop, store=str(tmp_path / "store"), **where).complete
        assert site.stats()["requests"] == 10
    store = FolderStore(tmp_path / "store")
    stored = store.read(NAME, timeout=5)
    assert stored is not None
    assert len(decode_block(stored.data, NAME)) == 10


@pytest.mark.usefixtures("poor_mount")
def test_E10c_a_change_within_the_same_second_is_noticed_there(tmp_path: Path) -> None:
    """A token rests on content: neither times nor inodes are looked at."""
    store = FolderStore(tmp_path)
    before = save_block(store, 7000, mixed(range(7000, 7010)), source="s", timeout=5)
    after = save_block(store, 7000, {7010: found(7010)}, source="s", timeout=5)
    assert before.token != after.token
    assert [info.token for info in store.list_blocks(timeout=5)] == [after.token]


def test_E10c_other_troubles_of_a_folder_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what says that folders cannot be synced at all is passed over: a broken disk is not."""
    look_at = os.fstat

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(look_at(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(StoreUnavailableError, match="Input/output error"):
        FolderStore(tmp_path).check(timeout=5)


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize(
    "error",
    [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK],
    ids=["ENOSYS", "EOPNOTSUPP", "ENOLCK"],
)
@pytest.mark.parametrize("is_left", [False, True], ids=["clean", "left"])
def test_E10d_a_folder_without_locks_is_refused_before_a_request(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_left: bool
) -> None:
    """In words that name flock, and at once: a file that lies there is not waited for."""

    def flock(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    if is_left:
        (tmp_path / LOCK_FILE).write_text("4711\nanother-host\n")
    began = time.monotonic()
    assert "flock" in refused_before_a_request(tmp_path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", ["", "4711\nanother-host\n"], ids=["empty", "of-a-soft-lock"])
def test_E10d_a_lock_file_left_by_another_system_does_no_harm(tmp_path: Path, text: str) -> None:
    """The lock is the operating system's, so a file that is there holds nobody up."""
    (tmp_path / LOCK_FILE).write_text(text)
    store = FolderStore(tmp_path)
    store.check(timeout=2)
    assert store.write("x", Content(b"1"), expected=ABSENT, timeout=2)


# ---------------------------------------------------------------- what is no file


def make_pipe(path: Path) -> None:
    """Make a FIFO: who opens it waits for a writer, for ever."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """Make a socket's file."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def make_device(path: Path) -> None:
    """Make a way to a device that never ends."""
    path.symlink_to("/dev/zero")


def make_link(path: Path) -> None:
    """Make a link to a disk that is not there now."""
    path.symlink_to("/nowhere/block")


def make_folder(path: Path) -> None:
    """Make a folder."""
    path.mkdir()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a short name: that of a socket may have 100 characters."""
    folder = Path(f"/tmp/s{os.getpid()}-{time.monotonic_ns()}")
    (folder / "songs").mkdir(parents=True)
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (make_pipe, "a pipe"),
        (make_socket, "a socket"),
        (make_device, "a device"),
        (make_folder, "a folder"),
        (make_link, "a link to nothing"),
    ],
    ids=["pipe", "socket", "device", "folder", "link"],
)
def test_E14_what_is_no_file_is_named_and_never_opened(
    make: Callable[[Path], None], what: str, short_folder: Path
) -> None:
    """Neither listing nor reading nor a run opens it, waits for it, or puts a file in its place."""
    path = short_folder / NAME
    make(path)
    kind = path.lstat().st_mode
    store = FolderStore(short_folder)
    with pytest.raises(BlockFormatError, match=f"{NAME}.*{what}"):
        list(store.list_blocks(timeout=5))
    with pytest.raises(BlockFormatError, match=f"{NAME}.*{what}"):
        store.read(NAME, timeout=5)
    with pytest.raises(BlockFormatError, match=f"{NAME}.*{what}"):
        save_block(store, 7000, {7000: found(7000)}, source="s", timeout=5)
    assert NAME in refused_before_a_request(short_folder)
    assert path.lstat().st_mode == kind
    assert list(store.list_blocks(8000, timeout=5)) == []


def test_E14_what_is_no_file_among_the_runs_is_passed_over(tmp_path: Path) -> None:
    """The page and the day's count of requests leave it out, and do not wait for it."""
    (tmp_path / "runs").mkdir()
    make_pipe(tmp_path / "runs" / "20261128T120000Z-00000000.json")
    assert read_runs(FolderStore(tmp_path)) == []
