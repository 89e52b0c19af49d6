"""The `requests` engine: one session per lane, one request at a time, any step 1 function."""

import threading
import time
from typing import Any

import msgspec

from crawler.errors import Missing, PageError
from crawler.frontier import Frontier
from crawler.session import GuardedSession, HeldBackError, Seen
from crawler.verdict import Reply
from crawler.work import Attempt

MAX_LANES = 64
"""More threads than this slow each other down."""

_NO_REQUEST = (
    "the function made no request through the session it was given: "
    "call session.get(...), not requests.get(...)"
)
_NOTHING_TAKEN = "the function appended nothing, though the site answered 200"


class RequestsEngine:
    """Runs step 1 functions, each lane in a thread with a `requests.Session` of its own."""

    name = "requests"

    def __init__(
        self,
        connections: int,
        *,
        user_agent: str,
        attempt_seconds: float,
        ca_file: str | None = None,
    ) -> None:
        """Prepare `min(connections, 64)` lanes; `ca_file` adds a certificate authority."""
        self.lane_count = min(connections, MAX_LANES)
        self.attempt_seconds = attempt_seconds
        self._user_agent, self._ca_file = user_agent, ca_file
        self._body_lock = threading.Lock()

    def open_lane(self) -> "RequestsLane":
        """Make one lane; its sessions open with its first attempts."""
        return RequestsLane(self)

    def open_session(self, *, is_source: bool) -> GuardedSession:
        """Open a session: for a source it keeps no cookies."""
        session = GuardedSession(
            self._user_agent, keeps_cookies=not is_source, body_lock=self._body_lock
        )
        if self._ca_file is not None:
            session.verify = self._ca_file
        return session


class RequestsLane:
    """One thread's loop: an attempt, a call of step 1, a reply."""

    def __init__(self, engine: RequestsEngine) -> None:
        self._engine = engine
        self._sessions: dict[bool, GuardedSession] = {}
        self._attempt: Attempt | None = None

    @property
    def blocked_on(self) -> Attempt | None:
        """The attempt under way: step 1 may never return from it."""
        return self._attempt

    def run(self, frontier: Frontier) -> None:
        """Perform attempts one by one until there are none."""
        try:
            while (attempt := frontier.next_attempt()) is not None:
                self._attempt = attempt
                reply = self._perform(attempt, frontier)
                self._attempt = None
                if reply is None:
                    frontier.put_back([attempt])
                else:
                    frontier.hand_back([reply])
        finally:
            for session in self._sessions.values():
                session.close()

    def _perform(self, attempt: Attempt, frontier: Frontier) -> Reply | None:
        """Call step 1 once; None when a shared pause began before its request was sent."""
        session = self._session(attempt)
        session.begin(
            attempt.sent_at + self._engine.attempt_seconds,
            lambda: frontier.resume_at <= time.monotonic(),
        )
        appended: list[Any] = []
        raised: Exception | None = None
        try:
            attempt.job.function(session, attempt.song_num, appended)
        except HeldBackError:
            return None
        except Exception as error:  # noqa: BLE001 - step 1 is anybody's code
            raised = error
        return read_outcome(attempt, session.seen, appended, raised)

    def _session(self, attempt: Attempt) -> GuardedSession:
        is_source = attempt.job.source is not None
        if is_source not in self._sessions:
            self._sessions[is_source] = self._engine.open_session(is_source=is_source)
        return self._sessions[is_source]


def read_outcome(
    attempt: Attempt, seen: Seen | None, appended: list[Any], raised: Exception | None
) -> Reply:
    """Turn what a step 1 function did, and what its session saw, into a reply.

    A function that swallows errors says nothing, so the session's own memory decides: only a 404
    or 410 that was really answered, or `crawler.Missing`, makes a number missing.
    """
    if isinstance(raised, Missing):
        return Reply(attempt, status=seen.status if seen else None, error="missing")
    if seen is None and not appended:
        detail = _NO_REQUEST if raised is None else _in_words(raised)
        return Reply(attempt, error="function", detail=detail)
    seen = seen or Seen()
    reply = Reply(
        attempt,
        status=seen.status,
        error=seen.error,
        detail=seen.detail,
        retry_after=seen.retry_after,
        date=seen.date,
        is_reused=seen.is_reused,
    )
    if raised is None and appended:
        _take_info(reply, appended)
    elif isinstance(raised, PageError) and seen.error is None:
        reply.error, reply.detail = raised.kind, raised.detail
    elif seen.error is None and (seen.status is None or seen.status < 300):
        reply.error = "function" if seen.status in (None, 200) else None
        reply.detail = _NOTHING_TAKEN if raised is None else _in_words(raised)
    return reply


def _take_info(reply: Reply, appended: list[Any]) -> None:
    """Check what was appended, and take it as the info."""
    num = reply.attempt.song_num
    for entry in appended:
        if not isinstance(entry, tuple) or len(entry) < 2 or entry[0] != num:
            reply.error = "function"
            reply.detail = f"append a tuple ({num!r}, info), not {_short(entry)}"
            return
    if reply.attempt.job.is_recorded:
        try:
            msgspec.json.encode(appended)
        except UnicodeEncodeError:
            pass  # half a surrogate pair: the record's own encoder writes it with escapes
        except Exception as error:  # noqa: BLE001 - anybody's objects
            reply.error, reply.detail = "function", f"info cannot be stored: {_in_words(error)}"
            return
    is_source = reply.attempt.job.source is not None
    reply.found, reply.error, reply.detail = True, None, ""
    reply.info = appended[0][1] if is_source else appended


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]


def _short(entry: Any) -> str:
    text = repr(entry)
    return text if len(text) <= 80 else text[:77] + "..."
