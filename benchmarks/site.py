"""The site of the benchmarks: an nginx on loopback that is not the bottleneck.

`python -m benchmarks.site --seconds 60` keeps one up to try things by hand.
"""

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import page_template

PORTS = ("http", "logged", "https", "slow", "slow_logged")
_ECHO_MODULE = "ngx_http_echo_module.so"
_PR_SET_PDEATHSIG = 1


class SiteError(Exception):
    """The site cannot be started; the message says what to install or what nginx answered."""


@dataclass(frozen=True)
class Site:
    """A running site; addresses are base URLs without a slash at the end.

    Attributes:
        http: Answers at once.
        logged: Answers at once and writes a line per answer to `log`.
        https: Answers at once, TLS 1.2 or 1.3, HTTP/1.1 or HTTP/2, certificate signed by `ca_file`.
        slow: Answers after 100 ms.
        slow_logged: Answers after 100 ms and writes a line per answer to `log`.
        ca_file: PEM file of the authority that signed the certificate.
        log: Lines `seconds.milliseconds status connection`, in order of the answers.
    """

    http: str
    logged: str
    https: str
    slow: str
    slow_logged: str
    ca_file: Path
    log: Path


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """Start nginx on free ports in a folder of its own, and stop it at the end.

    Raises:
        SiteError: nginx, its echo module or openssl is missing, or nginx did not come up.
    """
    module = _echo_module()
    with tempfile.TemporaryDirectory(prefix="bench-site-") as name:
        folder = Path(name)
        _make_certificates(folder)
        (folder / "temp").mkdir()
        ports = _free_ports(len(PORTS))
        values = dict(zip(PORTS, map(str, ports), strict=True))
        config = _fill(module=str(module), page=page_template("$num"), **values)
        (folder / "nginx.conf").write_text(config)
        nginx = _start(folder, ports[0])
        try:
            yield _site(folder, values)
        finally:
            _stop(nginx)


def _site(folder: Path, ports: dict[str, str]) -> Site:
    return Site(
        http=f"http://127.0.0.1:{ports['http']}",
        logged=f"http://127.0.0.1:{ports['logged']}",
        https=f"https://127.0.0.1:{ports['https']}",
        slow=f"http://127.0.0.1:{ports['slow']}",
        slow_logged=f"http://127.0.0.1:{ports['slow_logged']}",
        ca_file=folder / "ca.pem",
        log=folder / "pace.log",
    )


def find_program(name: str, package: str) -> str:
    """Find a program on the path or in the folders of a system administrator.

    Raises:
        SiteError: It is not there; the message names Debian's package.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise SiteError(f"{name} is missing: `apt-get install {package}` (Debian), then try again")
    return found


def nginx_version() -> str:
    """Say which nginx serves the pages, such as `nginx/1.22.1`."""
    nginx = find_program("nginx", "nginx-light")
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition(" ")[2]


def _echo_module() -> Path:
    nginx = find_program("nginx", "nginx-light")
    build = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    named = [word.partition("=")[2] for word in build.split() if word.startswith("--modules-path=")]
    for folder in (*named, "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"):
        module = Path(folder) / _ECHO_MODULE
        if module.exists():
            return module
    raise SiteError(
        "nginx has no echo module (it makes the 100 ms of latency): "
        "`apt-get install libnginx-mod-http-echo` (Debian), then try again"
    )


def _fill(**values: str) -> str:
    config = (Path(__file__).parent / "nginx.conf.template").read_text()
    for name, value in values.items():
        config = config.replace(f"[[{name}]]", value)
    return config


def _make_certificates(folder: Path) -> None:
    """Make an authority and a certificate for 127.0.0.1 that it signed, both valid for two days."""
    openssl = find_program("openssl", "openssl")
    (folder / "san.cnf").write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=critical,CA:FALSE\n"
        "extendedKeyUsage=serverAuth\n"
    )
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    steps = (
        f"req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=benchmarks",
        f"req {key} -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
        " -extfile san.cnf -out server.pem",
    )
    for step in steps:
        subprocess.run([openssl, *step.split()], cwd=folder, check=True, capture_output=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(folder: Path, port: int, timeout_seconds: float = 10.0) -> subprocess.Popen[bytes]:
    nginx = subprocess.Popen(
        [find_program("nginx", "nginx-light"), "-p", str(folder), "-c", "nginx.conf"],
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr.log").open("wb"),
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one thread, one libc call
    )
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline and nginx.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return nginx
        time.sleep(0.02)
    _stop(nginx)
    raise SiteError("nginx did not start: " + (folder / "stderr.log").read_text()[-500:])


def _die_with_parent() -> None:
    """Have the kernel stop nginx when the benchmark is killed (prctl(2), PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(nginx: subprocess.Popen[bytes]) -> None:
    nginx.terminate()
    try:
        nginx.wait(timeout=10)
    except subprocess.TimeoutExpired:
        nginx.kill()
        nginx.wait()


def main() -> None:
    """Run a site for some seconds and print its addresses."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with running_site() as site:
        print(site)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(seconds)


if __name__ == "__main__":
    main()
