"""Logs: structured in the cloud, readable at a terminal, without secrets, impossible to forge."""

# ruff: noqa: TRY301 - rows of the list of faults carry capital letters; raising is the case

import contextvars
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.logs import (
    NOTICE,
    configure_logging,
    log_context,
    one_line,
    redact,
    request_labels,
    trace_id,
)

TRACE = "0123456789abcdef0123456789abcdef"
CLOUD = {"K_SERVICE": "songs", "GOOGLE_CLOUD_PROJECT": "proj"}
SECRET = 'tok"en\\with-quotes'

logger = logging.getLogger("crawler.tests")


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def cloud_log(**more) -> io.StringIO:
    """Log as in the cloud, to where the test can read."""
    stream = io.StringIO()
    configure_logging(CLOUD, stream, **more)
    return stream


def terminal_log(**more) -> io.StringIO:
    """Log as at a terminal, to where the test can read."""
    stream = io.StringIO()
    configure_logging({}, stream, **more)
    return stream


def objects(stream: io.StringIO) -> list[dict[str, object]]:
    """Read the lines of a log in the cloud."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("level", "severity"),
    [(20, "INFO"), (NOTICE, "NOTICE"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL")],
)
def test_a_line_in_the_cloud_is_an_object_with_severity(level, severity):
    """Severity and message stand where Cloud Logging looks for them."""
    stream = cloud_log()
    logger.log(level, "songs %d to %d", 1, 2000)
    (line,) = objects(stream)
    assert (line["severity"], line["message"]) == (severity, "songs 1 to 2000")
    assert line["logger"] == "crawler.tests"


def test_debug_lines_are_left_out_unless_asked_for():
    """INFO and above by default; a level that somebody set is kept."""
    stream = cloud_log()
    logger.debug("not told")
    logging.getLogger().setLevel(logging.DEBUG)
    configure_logging(CLOUD, stream)
    logger.debug("told")
    assert [line["message"] for line in objects(stream)] == ["told"]


def test_an_event_brings_its_fields():
    """Name and fields of an event can be searched for; they cannot hide what every line has."""
    stream = cloud_log()
    fields = {"first": 1000, "found": 910, "severity": "DEBUG", "message": "x"}
    logger.info("block stored", extra={"event": "block_stored", "fields": fields})
    (line,) = objects(stream)
    assert (line["event"], line["first"], line["found"]) == ("block_stored", 1000, 910)
    assert (line["severity"], line["message"]) == ("INFO", "block stored")


def test_at_a_terminal_a_line_is_readable():
    """Time, severity, message and the event's fields."""
    stream = terminal_log()
    extra = {"event": "block_stored", "fields": {"first": 1000, "found": 910}}
    logger.info("block stored", extra=extra)
    line = stream.getvalue()
    assert line[2] == line[5] == ":"
    assert line[9:] == "INFO    block stored  first=1000  found=910\n"


def test_an_error_in_the_cloud_carries_its_stack_trace():
    """In the form that Error Reporting groups."""
    stream = cloud_log()
    try:
        1 / 0  # noqa: B018 - the error is the point
    except ZeroDivisionError:
        logger.exception("no division")
    (line,) = objects(stream)
    assert line["@type"] == (
        "type.googleapis.com/google.devtools.clouderrorreporting.v1beta1.ReportedErrorEvent"
    )
    assert str(line["stack_trace"]).startswith("no division\nTraceback")
    assert str(line["stack_trace"]).endswith("ZeroDivisionError: division by zero")


def test_a_line_stays_below_what_an_entry_may_hold():
    """256 KiB are never reached, whatever the message."""
    stream = cloud_log()
    try:
        raise ValueError("\0" * 1_000_000)
    except ValueError:
        logger.exception("%s", "ü" * 1_000_000)
    assert len(stream.getvalue()) < 1024 * 1024
    assert len(stream.getvalue().encode()) < 256 * 1024


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"X-Cloud-Trace-Context": f"{TRACE}/123;o=1"}, TRACE),
        ({"X-Cloud-Trace-Context": TRACE}, TRACE),
        ({"Traceparent": f"00-{TRACE}-0123456789abcdef-01"}, TRACE),
        ({"X-Cloud-Trace-Context": "x", "Traceparent": f"00-{TRACE}-0123456789abcdef-01"}, TRACE),
        ({"X-Cloud-Trace-Context": f'{TRACE}"\n{{}}/1'}, None),
        ({"Traceparent": "00-abc-def-01"}, None),
        ({}, None),
    ],
)
def test_a_trace_is_read_from_either_header(headers, trace):
    """32 hexadecimal digits, or none: nothing else of a stranger's header gets into the log."""
    assert trace_id(headers) == trace


def test_trace_and_labels_last_as_long_as_their_request():
    """Inside the context every line has them; before and after, none."""
    stream = cloud_log()
    logger.info("before")
    with log_context(TRACE, run="r1"), log_context(block="7"):
        logger.info("inside")
    logger.info("after")
    before, inside, after = objects(stream)
    assert inside["logging.googleapis.com/trace"] == f"projects/proj/traces/{TRACE}"
    assert inside["logging.googleapis.com/labels"] == {"run": "r1", "block": "7"}
    for line in (before, after):
        assert not any(name.startswith("logging.googleapis.com") for name in line)


def test_trace_and_labels_follow_into_threads_that_copy_the_context():
    """A pool's thread run in a copy of the context labels its lines alike; any other does not."""
    stream = cloud_log()
    with log_context(TRACE, run="r1"):
        context = contextvars.copy_context()
        for target in (lambda: context.run(logger.info, "copied"), lambda: logger.info("bare")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    copied, bare = objects(stream)
    assert copied["logging.googleapis.com/labels"] == {"run": "r1"}
    assert "logging.googleapis.com/labels" not in bare


@pytest.mark.parametrize("log", [cloud_log, terminal_log])
def test_G1_the_token_is_in_no_line(log):
    """Neither as an argument, nor in an exception, a field or a label, nor as JSON writes it."""
    stream = log(secrets=[SECRET, ""])
    with log_context(run=f"a{SECRET}"):
        try:
            raise ValueError(f"Bearer {SECRET}", {"Authorization": SECRET})
        except ValueError:
            extra = {"event": "e", "fields": {"header": SECRET, "list": [SECRET]}}
            logger.exception("sent %s", {"token": SECRET}, extra=extra)
    shown = stream.getvalue()
    assert "***" in shown
    assert "with-quotes" not in shown
    assert "Bearer ***" in shown


def test_G1_a_secret_within_another_leaves_no_rest():
    """Of two tokens, one the other's beginning, nothing of either remains."""
    stream = terminal_log(secrets=["abc", "abcdef"])
    logger.info("abcdef abc")
    assert stream.getvalue().endswith("*** ***\n")


def test_G1_a_line_that_cannot_be_written_shows_nothing(capsys):
    """The standard library would print the arguments of a broken line; we name its place only."""
    logging.getLogger().handlers.clear()  # pytest's own would raise
    terminal_log(secrets=[SECRET])
    logger.info("%d songs", SECRET)
    told = capsys.readouterr().err
    assert "test_logs.py" in told
    assert "with-quotes" not in told


@pytest.mark.parametrize(
    "text",
    ["a\r\nERROR forged", "a\nb", "\x1b[31mred\x1b[0m", "\x9b31m", "a\u2028b", "\u202ereversed"],
    ids=ascii,
)
def test_G4_a_line_cannot_be_forged(text):
    """Line ends, escapes and direction marks of a title arrive as visible escapes."""
    terminal, cloud = terminal_log(), io.StringIO()
    logger.warning("title %s", text, extra={"event": "e", "fields": {"title": text}})
    configure_logging(CLOUD, cloud)
    logger.warning("title %s", text)
    for stream in (terminal, cloud):
        assert stream.getvalue().count("\n") == 1
        assert stream.getvalue()[:-1].isprintable()
    assert objects(cloud)[0]["message"] == f"title {text}"


def test_G4_an_exception_s_text_cannot_forge_a_line():
    """Every line of a stack trace stands indented under the line it belongs to."""
    stream = terminal_log()
    try:
        raise ValueError("x\n12:00:00 INFO all is well\r\x1b[2K12:00:00 INFO so it is")
    except ValueError:
        logger.exception("oh")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("ERROR   oh")
    assert rest
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)


@given(st.text())
def test_any_text_becomes_one_line(text):
    """What is shown holds no control character, and ordinary text stays as it is."""
    shown = one_line(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(char) < 32 for char in shown)
    assert one_line(shown) == shown


@given(
    st.text(), st.text(min_size=1, alphabet=st.characters(codec="ascii", exclude_characters="*"))
)
def test_no_redacted_text_holds_the_secret(text, secret):
    """Wherever it stood, it is gone."""
    assert secret not in redact(text + secret + text, [secret])


def test_G1_a_secret_in_a_query_is_redacted():
    """It stands there percent-encoded, since no address can hold it as it is."""
    assert redact("GET /w/7?key=a%2Fb%2Bc", ["a/b+c"]) == "GET /w/7?key=***"


def test_configuring_again_replaces_our_own_handler_only():
    """No line is written twice, and handlers of others stay."""
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = cloud_log(), cloud_log()
    logger.info("once")
    assert (first.getvalue(), len(objects(second))) == ("", 1)
    assert other in logging.getLogger().handlers


def test_in_the_cloud_no_other_stream_gets_the_lines():
    """The framework's own handler would tell each a second time, with its secrets."""
    theirs = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(theirs))
    ours = cloud_log(secrets=[SECRET])
    logger.warning("the token is %s", SECRET)
    assert theirs.getvalue() == ""
    assert [line["message"] for line in objects(ours)] == ["the token is ***"]


@pytest.mark.parametrize(
    ("given", "labels"),
    [("aB3-x", {"execution_id": "aB3-x"}), ("", {}), ("a b", {}), ("x\n", {}), ("a" * 65, {})],
)
def test_an_execution_id_is_a_plain_word(given, labels):
    """What strangers may write into a header is not handed on."""
    assert request_labels({"Function-Execution-Id": given}) == labels
    assert request_labels({}) == {}


def test_what_a_stream_cannot_carry_is_written_as_escapes():
    """A terminal without Unicode, or half a surrogate pair, costs no line."""
    logging.getLogger().handlers.clear()  # pytest's own would keep what it cannot report
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    configure_logging({}, stream)
    logger.info("für \ud800")
    stream.flush()
    assert raw.getvalue().endswith(b"f\\xfcr \\ud800\n")


@pytest.mark.parametrize(("environ", "name"), [(CLOUD, "stdout"), ({}, "stderr")])
def test_the_stream_is_stdout_in_the_cloud_and_stderr_elsewhere(environ, name, capsys):
    """At a terminal stdout is left to the answer."""
    configure_logging(environ)
    logger.info("here")
    assert "here" in getattr(capsys.readouterr(), name.removeprefix("std"))
    assert sys.stdout is not sys.stderr
