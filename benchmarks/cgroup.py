"""A process group held to a part of a processor and of memory, as a small cloud function is."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PERIOD_MICROSECONDS = 100_000


class NoCgroupError(Exception):
    """This machine lets nobody, or not this user, make a limited group; the message says why."""


@dataclass(frozen=True)
class SmallMachine:
    """A limited group.

    Attributes:
        prefix: The start of a command line that puts the command after it into the group.
        folders: The group's folders: two with version 1 (processor, memory), one with version 2.
    """

    prefix: tuple[str, ...]
    folders: tuple[Path, ...]

    def peak_memory_mb(self) -> float | None:
        """Read the most memory the group ever held, page cache included; None if not told."""
        for folder in self.folders:
            for name in ("memory.max_usage_in_bytes", "memory.peak"):
                if (folder / name).exists():
                    return int((folder / name).read_text()) / 2**20
        return None


@contextlib.contextmanager
def small_machine(*, cpus: float, memory_mib: int) -> Iterator[SmallMachine]:
    """Make a group limited to `cpus` of a processor and `memory_mib`, and remove it at the end.

    Raises:
        NoCgroupError: Not root, no cgroup file system, or the controllers are not handed out.
    """
    if os.geteuid() != 0:
        raise NoCgroupError("limits on processor and memory need root")
    folders = _make_folders(f"song-crawler-bench-{os.getpid()}")
    try:
        try:
            _limit(folders, cpus, memory_mib)
        except OSError as error:
            raise NoCgroupError(f"cannot limit processor and memory here: {error}") from error
        enter = " && ".join(f'echo $$ > "{folder}/cgroup.procs"' for folder in folders)
        yield SmallMachine(("sh", "-c", f'{enter} && exec "$0" "$@"'), folders)
    finally:
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _make_folders(name: str, root: Path = Path("/sys/fs/cgroup")) -> tuple[Path, ...]:
    if (root / "cgroup.controllers").exists():
        parents: tuple[Path, ...] = (root,)
    elif (root / "cpu").is_dir() and (root / "memory").is_dir():
        parents = (root / "cpu", root / "memory")
    else:
        raise NoCgroupError(f"no cgroup file system with cpu and memory under {root}")
    folders = tuple(parent / name for parent in parents)
    try:
        for folder in folders:
            folder.mkdir(exist_ok=True)
    except OSError as error:
        raise NoCgroupError(f"cannot make a cgroup: {error}") from error
    return folders


def _limit(folders: tuple[Path, ...], cpus: float, memory_mib: int) -> None:
    """Write the limits; with version 2 the controllers must reach the group first."""
    quota, memory = int(cpus * _PERIOD_MICROSECONDS), str(memory_mib * 2**20)
    if len(folders) == 1:
        (folders[0].parent / "cgroup.subtree_control").write_text("+cpu +memory")
        (folders[0] / "cpu.max").write_text(f"{quota} {_PERIOD_MICROSECONDS}")
        (folders[0] / "memory.max").write_text(memory)
        return
    cpu, ram = folders
    (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD_MICROSECONDS))
    (cpu / "cpu.cfs_quota_us").write_text(str(quota))
    (ram / "memory.limit_in_bytes").write_text(memory)
