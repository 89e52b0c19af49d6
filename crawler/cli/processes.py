"""The two processes of the demo: the song site, and the function in the real functions-framework."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from crawler.errors import CrawlerError
from crawler.settings.reading import environment_of

MAIN = Path(__file__).parents[2] / "main.py"
"""Where it is in a clone."""

READY_SECONDS = 30.0
"""How long the framework may take to start; measured: 0.2 to 0.4 s on two cores."""

_END_SECONDS = 5.0
_ATTEMPTS = 3  # a free port may be taken by somebody else before the framework has it


@contextlib.contextmanager
def song_site() -> Iterator[str]:
    """Run the embedded song site on a free port; yields its address.

    Raises:
        CrawlerError: It did not start.
    """
    command = [sys.executable, "-m", "crawler.demo.site"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **_apart())
    with process, _ended(process):
        assert process.stdout is not None
        address = process.stdout.readline().split(" ", 1)[0]
        if not address:
            raise CrawlerError("the song site did not start; its own words are above")
        yield address


@contextlib.contextmanager
def function(environ: Mapping[str, str], *, logs_to_stderr: bool) -> Iterator[str]:
    """Run `crawl_songs` in the real functions-framework on a free port; yields its address.

    Args:
        environ: The whole environment of the process.
        logs_to_stderr: Show its log; else it is shown only when the function does not start.

    Raises:
        CrawlerError: There is no `main.py`, or it did not start.
    """
    main = find_main()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        for attempt in range(1, _ATTEMPTS + 1):
            port = _free_port()
            process = _start_framework(main, port, environ, None if logs_to_stderr else log)
            stack.enter_context(_ended(process))
            url = f"http://127.0.0.1:{port}"
            if _comes_up(url, process):
                break
            if attempt == _ATTEMPTS or process.poll() is None:
                raise CrawlerError(f"the function did not start:\n{_tail(log)}")
        yield url


def call(url: str, method: str, body: Any = None, *, timeout: float = 3600.0) -> tuple[int, Any]:
    """Send one request to the function; return its status and the JSON it answers.

    Through no proxy, whatever the environment says, since it is on this machine.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    data = None if body is None else json.dumps(body)
    try:
        headers = {"Content-Type": "application/json"} if data else {}
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=data, headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def find_main() -> Path:
    """Find `main.py`: beside the package in a clone, else where the package was installed with it.

    Raises:
        CrawlerError: It is in neither place.
    """
    if MAIN.exists():
        return MAIN
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("song-crawler") or ():
            if file.parts[-2:] == ("song-crawler", "main.py"):
                return Path(str(file.locate())).resolve()
    raise CrawlerError("the demo runs main.py, which is not there: run it in a clone")


def _start_framework(
    main: Path, port: int, environ: Mapping[str, str], log: IO[str] | None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "functions_framework", "--target", "crawl_songs"]
    command += ["--source", str(main), "--host", "127.0.0.1", "--port", str(port)]
    return subprocess.Popen(
        command, env=environ, stdout=log or sys.stderr, stderr=log, text=True, **_apart()
    )


def _apart() -> dict[str, Any]:
    """Keep a terminal's Ctrl-C from the children: they are ended in order, by us."""
    return {"stdin": subprocess.DEVNULL, "start_new_session": True}


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _comes_up(url: str, process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if _is_up(url):
            return True
        time.sleep(0.05)
    return False


def _is_up(url: str) -> bool:
    try:
        return call(f"{url}/health", "GET", timeout=5.0)[0] == 200
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-20:])


def demo_environment(site: str, token: str, **settings: object) -> dict[str, str]:
    """Make the function's environment: the process's own, with no setting but those given.

    Args:
        site: Address of the song site.
        token: What it wants.
        settings: Values by name, such as `store="data/demo"`; None: not set.
    """
    ours = ("CRAWLER_", "GENIUS_", "K_SERVICE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"CRAWLER_BASE_URL": site, "GENIUS_TOKEN": token}
    return environ | environment_of(settings)
