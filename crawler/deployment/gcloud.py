"""One gcloud command: its HTTP calls told apart from its words, and why Google refused it.

gcloud says in prose what went wrong, and differently from command to command. With `log_http` it
also writes down each HTTP call with its status, in a form that has been the same for ten years.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit


class Refusal(NamedTuple):
    """What one call was answered.

    Attributes:
        call: Method and path, such as `POST /v1/projects/p/secrets`.
        status: The HTTP status; 0 without an answer; None where no call failed.
        code: Google's word for it, such as `PERMISSION_DENIED`, or a condition's reason.
        reasons: Of the details: `SERVICE_DISABLED`, `IAM_PERMISSION_DENIED` and others.
        message: For people.
    """

    call: str
    status: int | None
    code: str = ""
    reasons: tuple[str, ...] = ()
    message: str = ""


class Exchange(NamedTuple):
    """One HTTP call that gcloud made: method and path, status, body of the answer."""

    call: str
    status: int
    body: str


class Done(NamedTuple):
    """How a gcloud command ended: exit code, output, its own words on the error, its HTTP calls."""

    code: int
    output: str
    error: str
    exchanges: Sequence[Exchange]

    def refusal(self, what: str) -> Refusal:
        """Return why it failed: the last call if that was refused, or what is not ready."""
        last = self.exchanges[-1] if self.exchanges else Exchange(what, 200, "")
        if last.status >= 400 or last.status == 0:
            return refusal_of(last.call, last.status, last.body)._replace(message=self.error)
        return Refusal(last.call, None, _unready(last.body), message=self.error)


Run = Callable[[Sequence[str], Mapping[str, str]], Done]


def run_gcloud(arguments: Sequence[str], environ: Mapping[str, str]) -> Done:
    """Run gcloud with its HTTP log on, pass its progress on to stderr, and keep the log to itself.

    The log holds what is sent, so it is written to no file either.
    """
    environ = {
        **environ,
        "CLOUDSDK_CORE_LOG_HTTP": "true",
        "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
    }
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(
            ["gcloud", *arguments],  # noqa: S607 - whichever is first on the path
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stderr is not None
        log = HttpLog()
        for line in process.stderr:
            if log.is_for_people(line.rstrip("\n")) and line.strip():
                tell(line.rstrip("\n"))
        code = process.wait()
        output.seek(0)
        return Done(code, output.read().decode(errors="replace"), log.error, log.exchanges)


class HttpLog:
    """Reads gcloud's stderr with `log_http` on: HTTP calls apart from what people are to read."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.error = ""
        self._is_inside = self._is_answer = self._is_body = False
        self._method = self._path = ""
        self._status = 0
        self._body: list[str] = []

    def is_for_people(self, line: str) -> bool:
        """Take one line; whether it is progress. The error is kept for later."""
        if re.match(r"ERROR: |ERROR:$", line):
            self._leave()
            self.error = line
            return False
        if line.endswith("=" * 23) and not self._is_body:
            self._leave()
            self._is_inside, self._status, self._body = True, 0, []
            return False
        if self._is_inside:
            self._take(line)
            return False
        if self.error:
            self.error += f"\n{line}"
            return False
        return line != "-" * 22

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(": ")
        if line == "---- response end ----":
            self._leave()
        elif line == "---- response start ----":
            self._is_answer, self._is_body = True, False
        elif line in ("-- body start --", "== body start =="):
            self._is_body = True
        elif line in ("-- body end --", "== body end =="):
            self._is_body = False
        elif self._is_body:
            if self._is_answer:
                self._body.append(line)
        elif word == "status" and self._is_answer:
            self._status = int(rest)
        elif word == "method":
            self._method = rest
        elif word == "uri":
            self._path = urlsplit(rest).path

    def _leave(self) -> None:
        if self._is_inside:
            call = f"{self._method} {self._path}"
            self.exchanges.append(Exchange(call, self._status, "\n".join(self._body)))
        self._is_inside = self._is_answer = self._is_body = False


def refusal_of(call: str, status: int, text: str) -> Refusal:
    """Read an error as Google's APIs answer it."""
    try:
        body = json.loads(text)
    except ValueError:
        return Refusal(call, status, message=text.strip()[:300])
    error = body.get("error", body) if isinstance(body, dict) else {}
    if not isinstance(error, dict):
        return Refusal(call, status, str(error), message=str(body.get("error_description", "")))
    details = [detail for detail in error.get("details", []) if isinstance(detail, dict)]
    reasons = tuple(str(detail["reason"]) for detail in details if "reason" in detail)
    code = str(error.get("status", "")).replace("Failure", "")
    return Refusal(call, status, code, reasons, str(error.get("message", "")))


def _unready(text: str) -> str:
    """Return the reason for which a service that was just described is not ready; empty if none."""
    try:
        conditions = json.loads(text)["status"]["conditions"]
        return next(str(c.get("reason", "")) for c in conditions if c.get("status") == "False")
    except (ValueError, KeyError, TypeError, StopIteration):
        return ""


def tell(text: str) -> None:
    """Write a line for people."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
