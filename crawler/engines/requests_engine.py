"""The `requests` engine: one session per lane, one request at a time, any step 1 function."""

import inspect
import time
from typing import Any

from crawler.engines.guard import HeldBackError
from crawler.engines.outcome import read_outcome
from crawler.engines.session import GuardedSession, Shared
from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Attempt

MAX_LANES = 64
"""More threads than this slow each other down."""


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
        shared: Shared | None = None,
    ) -> None:
        """Prepare `min(connections, 64)` lanes.

        Args:
            connections: Requests under way at once, more than 64 count as 64.
            user_agent: Whom the site sees.
            attempt_seconds: Deadline of one attempt.
            ca_file: Replaces the usual certificate authorities (certifi's).
            shared: What all sessions share, where the caller has made it.
        """
        self.lane_count = min(connections, MAX_LANES)
        self.attempt_seconds = attempt_seconds
        self._user_agent = user_agent
        self._shared = shared or Shared(ca_file)

    def open_lane(self) -> "RequestsLane":
        """Make one lane; its sessions open with its first attempts."""
        return RequestsLane(self)

    def open_session(self, *, is_source: bool) -> GuardedSession:
        """Open a session: for a source it keeps no cookies."""
        return GuardedSession(self._user_agent, self._shared, keeps_cookies=not is_source)


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
        """Perform attempts one by one until there are none, or until this lane was replaced."""
        try:
            while (attempt := frontier.next_attempt()) is not None:
                self._attempt = attempt
                reply = self._perform(attempt, frontier)
                self._attempt = None
                if attempt.is_abandoned:
                    return
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
        try:
            raised = _call(attempt, session, appended)
        finally:
            session.end()
        granted = 0 if session.was_held_back else 1
        if session.sent > granted:  # a function may ask several times
            frontier.charge(session.sent - granted)
        if session.was_held_back:
            return None
        return read_outcome(attempt, session.returned, appended, raised)

    def give_up(self) -> None:
        """Leave the room of its pages to others; the thread goes on until step 1 returns."""
        for session in list(self._sessions.values()):
            session.end()

    def _session(self, attempt: Attempt) -> GuardedSession:
        is_source = attempt.job.source is not None
        if is_source not in self._sessions:
            self._sessions[is_source] = self._engine.open_session(is_source=is_source)
        return self._sessions[is_source]


def _call(attempt: Attempt, session: GuardedSession, appended: list[Any]) -> BaseException | None:
    """Call step 1; give what it raised. sys.exit() is no more than that in a lane's thread."""
    try:
        _refuse_unrun(attempt.job.function(session, attempt.song_num, appended))
    except HeldBackError:
        return None
    except BaseException as error:  # noqa: BLE001 - step 1 is anybody's code
        _forget_frames(error)
        return error
    return None


def _refuse_unrun(returned: Any) -> None:
    """Say so where the call has only made what would run the function.

    Raises:
        TypeError: Step 1 is asynchronous, or a generator.
    """
    if inspect.iscoroutine(returned):
        returned.close()  # else Python warns that nobody awaited it
    elif not (inspect.isgenerator(returned) or inspect.isasyncgen(returned)):
        return
    raise TypeError("step 1 must be a plain function: without async, await and yield")


def _forget_frames(error: BaseException) -> None:
    """Take the frames from an error and all that led to it.

    Each frame knows its caller, and so that of this call, which knows the error: a circle that
    would keep the session's pages until the collector comes.
    """
    waiting: list[BaseException | None] = [error]
    known = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in known:
            known.add(id(each))
            BaseException.with_traceback(each, None)
            waiting += (each.__cause__, each.__context__)
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions
