"""What is uploaded: the files gcloud would take, a user's own module beside them, and a fingerprint."""

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from crawler.errors import SettingsError

IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def stage(
    names: Iterable[str],
    root: Path,
    out: Path,
    *,
    function: str | None = None,
    requirements: Path | None = None,
) -> None:
    """Copy what is uploaded into a folder of its own; what was there before is removed.

    Args:
        names: Files relative to `root`, as `gcloud meta list-files-for-upload` prints them.
        root: Where they lie.
        out: Where to; must be inside `root`.
        function: `module:name` of a user's own step 1 function or source.
        requirements: The packages that module needs.

    Raises:
        SettingsError: The module or its requirements are not there.
    """
    if out.exists():
        shutil.rmtree(out)
    for name in names:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target)
    if function is not None:
        _stage_module(function, root, out)
    if requirements is not None:
        _add_requirements(requirements, out / "requirements.txt")


def fingerprint(folder: Path, *more: str) -> str:
    """Digest names and contents of a folder's files, and texts beside them: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    for text in more:
        digest.update(f"\0{text}".encode())
    return digest.hexdigest()[:16]


def _stage_module(function: str, root: Path, out: Path) -> None:
    """Copy `module.py`, or the package that the module is in."""
    first = function.partition(":")[0].partition(".")[0]
    file, package = root / f"{first}.py", root / first
    if (out / f"{first}.py").exists() or (out / first).exists():
        return  # part of the project
    if file.is_file():
        shutil.copyfile(file, out / file.name)
    elif (package / "__init__.py").is_file():
        shutil.copytree(package, out / first, ignore=IGNORED)
    else:
        message = f"FUNCTION={function}: there is neither {file.name} nor {first}/__init__.py here"
        raise SettingsError("function_missing", "FUNCTION", message)


def _add_requirements(own: Path, locked: Path) -> None:
    """Append a user's packages to the lock, which loses its hashes: pip wants all or none."""
    if not own.is_file():
        message = f"FUNCTION_REQUIREMENTS={own} is not there"
        raise SettingsError("requirements_missing", "FUNCTION_REQUIREMENTS", message)
    pins = [
        line.removesuffix("\\").rstrip()
        for line in locked.read_text(encoding="utf-8").splitlines()
        if line[:1].isalnum()
    ]
    text = own.read_text(encoding="utf-8")
    locked.write_text("\n".join(pins) + f"\n# of {own.name}\n{text}", encoding="utf-8")
