"""The real functions-framework with our `main.py`, as a process on a free loopback port."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import psutil

ROOT = Path(__file__).parent.parent
START_SECONDS = 20
DRAIN_SECONDS = 35  # gunicorn lets a running request end for 30 s


class Reply(NamedTuple):
    """What came back over HTTP: status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Read the body as JSON."""
        return json.loads(self.body)


class FunctionProcess:
    """Runs `functions-framework --target crawl_songs`; a context manager that ends it.

    Attributes:
        port: Where it listens, on 127.0.0.1.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        source: Path | None = None,
        python: Path | None = None,
    ) -> None:
        """Prepare a process.

        Args:
            environ: Its settings and tokens; of our own environment it sees only what Python needs.
            source: The file with the function; None: the project's `main.py`.
            python: Another environment's Python, started beside `source`; None: this one's.
        """
        self.port = free_port()
        self._source = source or ROOT / "main.py"
        self._python = str(python or sys.executable)
        self._cwd = self._source.parent if python else ROOT
        kept = {
            k: v for k, v in os.environ.items() if k.startswith(("PATH", "HOME", "COV", "LANG"))
        }
        self._environ = kept | {"PYTHONPATH": str(ROOT), "THREADS": "8"} | dict(environ)
        self._log = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Self:
        command = [self._python, "-m", "functions_framework", "--target", "crawl_songs"]
        command += ["--source", str(self._source), "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            command, env=self._environ, cwd=self._cwd, stdout=self._log, stderr=subprocess.STDOUT
        )
        self._wait_until_ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._log.close()

    def stop(self) -> None:
        """End the process as a platform does: SIGTERM, and SIGKILL for what does not end by it."""
        family = self.family()
        self._process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=DRAIN_SECONDS)
        for process in alive:
            process.kill()
        self._process.wait()

    def family(self) -> list[psutil.Process]:
        """List gunicorn's parent and its worker, as far as they live."""
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def peak_bytes(self) -> int:
        """Add up the most memory that parent and worker ever had resident."""
        peaks = 0
        for process in self.family():
            status = Path(f"/proc/{process.pid}/status")
            kib = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
            peaks += int(kib[1]) * 1024 if kib else process.memory_info().rss
        return peaks

    def log(self) -> str:
        """Read all that the process wrote so far."""
        return os.pread(self._log.fileno(), 1 << 26, 0).decode()

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_seconds: float = 60,
    ) -> Reply:
        """Send one request with the standard client, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_seconds)
        try:
            chunked = not isinstance(body, bytes | str | None)
            connection.request(method, path, body, dict(headers or {}), encode_chunked=chunked)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def post(self, body: Any, **headers: str) -> Reply:
        """Post a body as JSON, or with the headers given (`Content_Type="text/plain"`)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("/", "POST", body, {"Content-Type": "application/json"} | named)

    def connect(self, timeout_seconds: float = 30) -> socket.socket:
        """Open a raw connection, for requests that no polite client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout_seconds)

    def send_raw(self, data: bytes) -> Reply:
        """Send bytes as they are and read one answer."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_reply(connection)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.ask("/health", timeout_seconds=5).status == 200:
                    return
            except OSError:
                time.sleep(0.02)
        log = self.log()
        self.stop()
        raise RuntimeError(f"functions-framework did not start:\n{log}")


def read_reply(connection: socket.socket, method: str = "POST") -> Reply:
    """Read one answer from a raw connection."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    named = {name.lower(): value for name, value in answer.getheaders()}
    return Reply(answer.status, named, answer.read())


def free_port() -> int:
    """Find a loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
