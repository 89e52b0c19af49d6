"""Logs: one JSON object per line in the cloud, readable lines at a terminal, no secret in either.

Whoever has something to tell uses the standard library:
`logger.info("block stored", extra={"event": "block_stored", "fields": {"first": 1000}})`.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO
from urllib.parse import quote

NOTICE = 25
"""Between INFO and WARNING, as Cloud Logging has it: worth a look, nothing wrong."""

_MAX_MESSAGE = 4_000  # characters, told twice with an error; an entry holds at most 256 KiB,
_MAX_STACK = 10_000  # and a character may take twelve bytes as JSON
_REPORTED_ERROR = (
    "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

# Context variables, so that what a request sets follows its work into pool threads
# (through `contextvars.copy_context().run`) and never meets another request's.
_trace: ContextVar[str | None] = ContextVar("trace", default=None)
_labels: ContextVar[Mapping[str, str] | None] = ContextVar("labels", default=None)


def configure_logging(
    environ: Mapping[str, str], stream: TextIO | None = None, *, secrets: Iterable[str] = ()
) -> logging.Handler:
    """Send the process's log lines, INFO and above, to one stream; calling it again replaces that.

    In the cloud no other stream gets them: with `LOG_EXECUTION_ID` the framework's own handler
    would tell each line a second time, secrets included.

    Args:
        environ: With `K_SERVICE` lines are JSON; `GOOGLE_CLOUD_PROJECT` completes trace names.
        stream: Where to; None: stdout in the cloud, else stderr, which leaves stdout to answers.
        secrets: Strings that no line may hold; empty ones are ignored.

    Returns:
        The handler that writes to it.
    """
    in_cloud = "K_SERVICE" in environ
    handler = _SafeHandler(stream or (_stdout() if in_cloud else sys.stderr), secrets)
    project = environ.get("GOOGLE_CLOUD_PROJECT", "")
    handler.setFormatter(_JsonFormatter(project) if in_cloud else _LineFormatter())
    logging.addLevelName(NOTICE, "NOTICE")
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, _SafeHandler) or (in_cloud and type(old) is logging.StreamHandler):
            root.removeHandler(old)
    root.addHandler(handler)
    if root.level in (logging.NOTSET, logging.WARNING):  # a level somebody chose is kept
        root.setLevel(logging.INFO)
    return handler


def _stdout() -> TextIO:
    """Give the process's own stdout.

    With `LOG_EXECUTION_ID` the framework puts another in its place while it answers a request,
    which adds empty lines to what pool threads write.
    """
    stdout: TextIO = getattr(sys.stdout, "stream", sys.stdout)
    return stdout


@contextlib.contextmanager
def log_context(trace: str | None = None, **labels: str) -> Iterator[None]:
    """Give every line logged inside, in threads that copied the context too, a trace and labels."""
    trace_token = _trace.set(trace or _trace.get())
    labels_token = _labels.set({**(_labels.get() or {}), **labels})
    try:
        yield
    finally:
        _labels.reset(labels_token)
        _trace.reset(trace_token)


def trace_id(headers: Mapping[str, str]) -> str | None:
    """Read the trace a request belongs to: 32 hexadecimal digits, or None.

    Source: `X-Cloud-Trace-Context: TRACE/SPAN;o=1` as Cloud Run sends it, `traceparent` of W3C
    Trace Context, section 3.2; names in Title-Case, as WSGI has them. Anything else in them is ignored: headers come from strangers.
    """
    cloud = re.match(r"([0-9a-f]{32})(?:/|\Z)", headers.get("X-Cloud-Trace-Context", ""))
    w3c = re.match(r"[0-9a-f]{2}-([0-9a-f]{32})-", headers.get("Traceparent", ""))
    match = cloud or w3c
    return match.group(1) if match else None


def request_labels(headers: Mapping[str, str]) -> dict[str, str]:
    """Label a request's lines with the execution id that the framework or its caller gave it.

    Source: `Function-Execution-Id`, as functions-framework reads it. Anything that is not a plain
    word is ignored: headers come from strangers.
    """
    match = re.fullmatch(r"[0-9A-Za-z-]{1,64}", headers.get("Function-Execution-Id", ""))
    return {"execution_id": match.group()} if match else {}


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace each secret by `***`, as it is, as JSON and Python write it, and as a query does."""
    for secret in secrets:
        forms = {secret, quote(secret, safe="", errors="surrogatepass")}
        for _ in range(2):
            forms |= {write(form)[1:-1] for form in forms for write in (json.dumps, repr)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "***")
    return text


def one_line(text: str) -> str:
    """Write control characters, line ends and direction marks as escapes: no line can be forged."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


class _SafeHandler(logging.StreamHandler[TextIO]):
    """Writes lines without the secrets, in what the stream's encoding can carry."""

    def __init__(self, stream: TextIO, secrets: Iterable[str]) -> None:
        super().__init__(stream)
        # the longest first, so that a secret within another leaves no rest
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = redact(super().format(record), self._secrets)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Say where a line was lost; the library would print its arguments, secrets included."""
        with contextlib.suppress(OSError, ValueError):  # the stream itself may be what is broken
            sys.stderr.write(f"a log line of {record.pathname}:{record.lineno} was lost\n")


class _JsonFormatter(logging.Formatter):
    """One object per line, in the fields that Cloud Logging and Error Reporting read."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()[:_MAX_MESSAGE]
        line = {
            **_fields(record),
            "severity": record.levelname,
            "message": message,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "logger": record.name,
            **self._context(),
        }
        if record.exc_info:
            stack_trace = self.formatException(record.exc_info)[-_MAX_STACK:]
            line |= {"stack_trace": f"{message}\n{stack_trace}", "@type": _REPORTED_ERROR}
        return json.dumps(line, default=str)

    def _context(self) -> dict[str, Any]:
        context: dict[str, Any] = {}
        if trace := _trace.get():
            name = f"projects/{self._project}/traces/{trace}" if self._project else trace
            context["logging.googleapis.com/trace"] = name
        if labels := _labels.get():
            context["logging.googleapis.com/labels"] = dict(labels)
        return context


class _LineFormatter(logging.Formatter):
    """`06:12:20 WARNING message  name=value`, a stack trace indented below."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = {name: value for name, value in _fields(record).items() if name != "event"}
        told = "".join(f"  {name}={value}" for name, value in fields.items())
        line = one_line(f"{record.levelname:7} {record.getMessage()}{told}")
        if record.exc_info:
            stack = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    | {one_line(part)}" for part in stack)
        return f"{moment} {line}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Collect what `extra` gave: the event's name and its fields."""
    event = getattr(record, "event", None)
    fields = getattr(record, "fields", None) or {}
    return fields if event is None else {"event": event, **fields}
