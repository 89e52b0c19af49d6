"""The genuine gcloud and the crawler's own steps, kept warm: a process loads each once.

Of the second that a gcloud command takes, starting Python and importing is most. A script called
`gcloud`, first on the path, hands its arguments, environment, folder and open files to the warm
process; a fork of that runs gcloud's own main and hands back the exit code. What a fork had to
import, the warm process imports before it forks again. A script called `python` does the same for
`python -m crawler deployment`, without a fork and with the clock and the gcloud of a recording
server.

The server for gcloud runs under gcloud's Python, not ours: `python warm_gcloud.py SOCKET SDK`.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

CLIENT = """#!{python} -SEI
import _socket, os, sys
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({path!r})
call = repr([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)
server.sendmsg([len(call).to_bytes(4, "big")], [rights])
server.sendall(call)
os._exit(int(server.recv(8) or b"1"))
"""
"""It imports next to nothing: a deployment calls it fifty times."""


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
    if not python.exists():
        (folder / "gcloud").symlink_to(found)
        yield folder
        return
    with _warm(folder / "gcloud", [python, "-SE", __file__], str(sdk)):
        yield folder


@contextlib.contextmanager
def warm_steps(folder: Path) -> Iterator[Path]:
    """Keep `python -m crawler deployment` warm; yields the script that is to be PYTHON."""
    folder.mkdir(parents=True, exist_ok=True)
    with _warm(folder / "python", [sys.executable, "-m", "tests.warm_gcloud"], ""):
        yield folder / "python"


@contextlib.contextmanager
def _warm(script: Path, command: list[str | Path], sdk: str) -> Iterator[None]:
    path = script.with_suffix(".socket")
    script.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    script.chmod(0o755)
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [*command, path, sdk], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root
    ) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def serve(path: str, sdk: str) -> None:
    """Load gcloud, or the crawler's steps where no SDK is named; answer calls until killed.

    For gcloud each call is a fork, since it is made to be run once. The steps keep nothing from one
    call to the next, and are run one after the other in this process.
    """
    if sdk:
        sys.path[:0] = [f"{sdk}/lib/third_party", f"{sdk}/lib"]
        os.environ["CLOUDSDK_ROOT_DIR"] = sdk
        import googlecloudsdk.gcloud_main as program  # type: ignore[import-not-found]
    else:
        from tests import warm_program as program

    news: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
    threading.Thread(target=_end_with_parent, args=(os.dup(0),), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(16)
        gc.freeze()  # so that forks do not copy what they only look at
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            head, files, _, _ = socket.recv_fds(connection, 4, 3)
            call = ast.literal_eval(_read(connection, int.from_bytes(head, "big")).decode())
            if sdk:
                _fork(program, call, files, connection, news)
            else:
                code = _run(program, call, files)
                with connection:
                    connection.sendall(str(code).encode())


def _fork(
    program: object,
    call: list[object],
    files: list[int],
    connection: socket.socket,
    news: "queue.SimpleQueue[list[str]]",
) -> None:
    """Run a program in a fork, and import here what that will have had to import."""
    _import(news)
    reading, writing = os.pipe()
    gc.disable()
    child = os.fork()
    if not child:
        known = set(sys.modules)
        code = _run(program, call, files)
        imported = json.dumps([name for name in sys.modules if name not in known])
        os.write(writing, imported.encode())
        os._exit(code)
    for file in (*files, writing):
        os.close(file)
    handing_back = (child, connection, reading, news)
    threading.Thread(target=_hand_back, args=handing_back, daemon=True).start()


def _import(news: "queue.SimpleQueue[list[str]]") -> None:
    """Import what ended forks have imported; here and not in a thread, which a fork would cut off."""
    while not news.empty():
        for name in news.get():
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _end_with_parent(file: int) -> None:
    """End when standard input did: whoever started this is gone, however that came about."""
    os.read(file, 1)
    os._exit(0)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


def _run(program: object, call: list[object], files: list[int]) -> int:
    """Become the caller, run the program to its end, and return its exit code."""
    arguments, environment, folder = call
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)  # type: ignore[arg-type]
    os.chdir(str(folder))
    sys.argv = ["gcloud", *arguments]  # type: ignore[misc]
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
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):  # whoever reads what was written sees its end
            os.dup2(nothing, number)
        os.close(nothing)
    return code


def _hand_back(
    child: int,
    connection: socket.socket,
    reading: int,
    news: "queue.SimpleQueue[list[str]]",
) -> None:
    with connection, open(reading, encoding="utf-8") as pipe:
        told = pipe.read()
        _, status = os.waitpid(child, 0)
        if told:
            news.put(json.loads(told))
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    serve(*sys.argv[1:])
