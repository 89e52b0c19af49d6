"""What is uploaded: the files gcloud would take, the user's own beside them, and a fingerprint.

A function of the user's own is tried here, in an environment with what is uploaded and no more.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from crawler.deployment.cloud import DeploymentError
from crawler.deployment.gcloud import tell
from crawler.errors import SettingsError
from crawler.source.declared import load_declaration

IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def stage(
    names: Iterable[str],
    root: Path,
    out: Path,
    *,
    function: str | None = None,
    source: str | None = None,
    requirements: Path | None = None,
) -> None:
    """Copy what is uploaded into a folder of its own; what was there before is removed.

    Args:
        names: Files relative to `root`, as `gcloud meta list-files-for-upload` prints them.
        out: Where to; must be inside `root`.
        function: `module:name` of a user's own step 1 function or source.
        source: A built-in source, or a TOML file of the user's own, relative to `root`.
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
    if source is not None:
        is_file = source.endswith(".toml")
        if is_file:
            _stage_source(source, root, out)
        if load_declaration(str(root / source) if is_file else source).shape.is_html:
            _add_requirements(_parser(), "the parser of web pages", out / "requirements.txt")
    if requirements is not None:
        if not requirements.is_file():
            message = f"FUNCTION_REQUIREMENTS={requirements} is not there"
            raise SettingsError("requirements_missing", "FUNCTION_REQUIREMENTS", message)
        text = requirements.read_text(encoding="utf-8")
        _add_requirements(text, requirements.name, out / "requirements.txt")


def check_own_function(
    folder: Path, environ: Mapping[str, str], python: Path | None = None
) -> None:
    """Load the user's own function where only what is uploaded is installed.

    Args:
        folder: What is uploaded; the environment is made beside it, and kept for the next time.
        environ: What the function will have, and nothing else.
        python: That knows the packages; None: of an environment made for it.

    Raises:
        DeploymentError: It cannot be loaded, or not with these settings.
    """
    python = python or _clean_python(folder.parent, folder / "requirements.txt")
    tell(f"Loading {environ['CRAWLER_FUNCTION']} in a clean environment")
    environ = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1", **environ}
    done = subprocess.run(
        [python, "-c", _LOAD],
        cwd=folder,
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        message = f"FUNCTION={environ['CRAWLER_FUNCTION']} cannot be used with what is uploaded"
        last = done.stderr.strip().rpartition("\n")[2]
        raise DeploymentError(f"{message}: {last}", "Your own function cannot be used")


_LOAD = """
import os
from crawler.run.functions import refuse_step_1, target_of
from crawler.settings.reading import read_settings
settings = read_settings(os.environ, for_site=False)
target = target_of(settings)
if settings.keep_raw:
    refuse_step_1(target)
"""


def _clean_python(build: Path, requirements: Path) -> Path:
    """Install exactly these packages, or find that done."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    clean, python = build / f"clean-{digest}", (build / f"clean-{digest}/bin/python").absolute()
    if (clean / "complete").exists():
        return python
    for other in build.glob("clean-*"):
        shutil.rmtree(other)
    if not (_install_by_uv(clean, requirements) or _install_by_pip(clean, requirements)):
        message = f"the packages of {requirements} cannot be installed; see above"
        raise DeploymentError(message, "Your own function cannot be used")
    (clean / "complete").touch()
    return python


def _install_by_uv(clean: Path, requirements: Path) -> bool:
    """Install where uv is at hand, which does in seconds what takes pip long."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        return False
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clean], check=True)
    command = [uv, "pip", "install", "--quiet", "-r", str(requirements), "--python", str(clean)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _install_by_pip(clean: Path, requirements: Path) -> bool:
    subprocess.run([sys.executable, "-m", "venv", clean], check=True)
    pip = [f"{clean}/bin/python", "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "-r", str(requirements)]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


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


def _stage_source(source: str, root: Path, out: Path) -> None:
    """Copy a declaration to where its relative name finds it."""
    path = Path(source)
    if path.is_absolute() or ".." in path.parts or not (root / path).is_file():
        message = f"SOURCE={source} is no file of this folder, from which it would be uploaded"
        raise SettingsError("source_missing", "SOURCE", message)
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / path, out / path)


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


def _parser() -> str:
    """Return the requirement of the package that reads web pages, as it is installed here."""
    try:
        return f"selectolax=={importlib.metadata.version('selectolax')}\n"
    except importlib.metadata.PackageNotFoundError:
        return "selectolax\n"


def _add_requirements(text: str, of: str, locked: Path) -> None:
    """Append packages to the lock, which loses its hashes: pip wants all or none."""
    lines = locked.read_text(encoding="utf-8").splitlines()
    pins = [line.removesuffix("\\").rstrip() for line in lines if line[:1].isalnum()]
    locked.write_text("\n".join(pins) + f"\n# of {of}\n{text}", encoding="utf-8")
