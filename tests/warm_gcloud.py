"""The genuine gcloud and the crawler's own steps, kept warm: a process loads each once.

Of the second that a gcloud command takes, starting Python and importing is most. A script called
`gcloud`, first on the path, tells a warm process its own number; that takes arguments, environment,
folder and open files from `/proc`, runs gcloud's own main in a fork, and answers the exit code. What
a fork had to import, the warm process imports before it forks again. A script called `python` does
the same for `python -m crawler deployment`, without a fork and with the clock and the gcloud of a
recording server. Where there is no `/proc`, both scripts start anew each time.

The server for gcloud runs under gcloud's Python, not ours: `python warm_gcloud.py FOLDER SDK`.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

CLIENT = """#!/bin/sh
exec 3<&0 4>&1 5>&2
echo $$ >'{calls}'
read -r code <'{answers}'
exit $code
"""
"""A shell starts ten times as fast as Python, and a deployment calls this fifty times.

Its files are taken as 3 to 5, since the shell itself turns 0 and 1 elsewhere for a moment.
"""

IS_LINUX = Path("/proc/self/fd").exists()


@contextlib.contextmanager
def warm_gcloud(folder: Path) -> Iterator[Path]:
    """Keep a gcloud warm; yields the folder with the script, to be put first on the path.

    Needs a gcloud with a Python of its own; where there is none, the script is gcloud itself.
    """
    found = shutil.which("gcloud")
    assert found is not None
    sdk = Path(found).resolve().parent.parent
    python = sdk / "platform/bundledpythonunix/bin/python3"
    folder.mkdir(parents=True)
    if IS_LINUX and python.exists():
        with _warm(folder / "gcloud", [python, "-SE", __file__], str(sdk)):
            yield folder
    else:
        (folder / "gcloud").symlink_to(found)
        yield folder


@contextlib.contextmanager
def warm_steps(folder: Path) -> Iterator[Path]:
    """Keep `python -m crawler deployment` warm; yields the script that is to be PYTHON."""
    folder.mkdir(parents=True, exist_ok=True)
    script, root = folder / "python", Path(__file__).parent.parent
    if IS_LINUX:
        with _warm(script, [sys.executable, "-m", "tests.warm_gcloud"], ""):
            yield script
    else:
        command = f"PYTHONPATH='{root}' exec '{sys.executable}' -m tests.warm_program"
        script.write_text(f'#!/bin/sh\n{command} "$@"\n')
        script.chmod(0o755)
        yield script


@contextlib.contextmanager
def _warm(script: Path, command: list[str | Path], sdk: str) -> Iterator[None]:
    folder = script.with_suffix(".calls")
    folder.mkdir()
    os.mkfifo(folder / "calls")
    os.mkfifo(folder / "answers")
    script.write_text(CLIENT.format(calls=folder / "calls", answers=folder / "answers"))
    script.chmod(0o755)
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [*command, folder, sdk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def serve(folder: str, sdk: str) -> None:
    """Load gcloud, or the crawler's steps where no SDK is named; answer one call after the other.

    For gcloud each call is a fork, since it is made to be run once. The steps keep nothing from one
    call to the next. It ends when standard input does: whoever started it is gone.
    """
    if sdk:
        sys.path[:0] = [f"{sdk}/lib/third_party", f"{sdk}/lib"]
        os.environ["CLOUDSDK_ROOT_DIR"] = sdk
        import googlecloudsdk.gcloud_main as program  # type: ignore[import-not-found]
    else:
        from tests import warm_program as program

    parent = os.dup(0)
    # Open both ways, so that neither is ever at its end.
    calls, answers = (os.open(f"{folder}/{name}", os.O_RDWR) for name in ("calls", "answers"))
    gc.freeze()  # so that forks do not copy what they only look at
    os.write(1, b"ready\n")
    while True:
        readable, _, _ = select.select([calls, parent], [], [])
        if parent in readable:
            return
        pid = int(os.read(calls, 100))
        code = _fork(program, pid) if sdk else _run(program, pid)
        os.write(answers, f"{code}\n".encode())


def _fork(program: object, pid: int) -> int:
    """Run a program in a fork, and import here what that had to import."""
    reading, writing = os.pipe()
    gc.disable()
    child = os.fork()
    if not child:
        known = set(sys.modules)
        code = _run(program, pid)
        imported = json.dumps([name for name in sys.modules if name not in known])
        os.write(writing, imported.encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    for name in json.loads(told or "[]"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    return os.waitstatus_to_exitcode(status)


def _run(program: object, pid: int) -> int:
    """Become the caller, run the program to its end, and return its exit code."""
    caller = Path(f"/proc/{pid}")
    words = (caller / "cmdline").read_bytes().decode().split("\0")[:-1]
    variables = (caller / "environ").read_bytes().decode().split("\0")[:-1]
    os.chdir(caller / "cwd")
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        _become(number, caller / "fd" / str(3 + number), flags)
    os.environ.clear()
    for variable in variables:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    sys.argv = ["gcloud", *words[2:]]  # the first two are the shell and the script
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode = "w" if number else "r"
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    code = 1
    try:
        program.main()  # type: ignore[attr-defined]
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception:  # noqa: BLE001 - what would end a process of its own in the same way
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in range(3):  # whoever reads what was written sees its end
            _become(number, Path(os.devnull), os.O_RDWR)
    return code


def _become(number: int, path: Path, flags: int) -> None:
    opened = os.open(path, flags)
    os.dup2(opened, number)
    os.close(opened)


if __name__ == "__main__":
    serve(*sys.argv[1:])
