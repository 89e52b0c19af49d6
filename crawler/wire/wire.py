"""The wire: one thread for every request of a run, whoever asks.

Nobody's code but ours runs on it: a declared source's compiled decoder reads its pages right there;
all else (step 1 functions, classes that are a source) waits for its answers in threads of its own.
"""

import concurrent.futures
import contextlib
import contextvars
import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from typing import Self, cast

import certifi
import pycurl
import requests.exceptions as raised

from crawler.errors import SettingsError
from crawler.frontier.frontier import Frontier
from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber
from crawler.wire.answers import WireAnswer, detail_of, in_words, read_page
from crawler.wire.transfer import WireRequest
from crawler.wire.transfers import BODY_BUDGET_BYTES, Ended, Transfers

logger = logging.getLogger("crawler")

_REFUSED = "the site's certificate was refused: "

_LOOK_SECONDS = 0.5
_SOON_SECONDS = 0.05  # how often a limit that libcurl does not keep is looked at
_NAP_SECONDS = 0.02  # from 50 a second on the wire wakes so often: a slow pace costs its wakings


class Wire:
    """Sends requests over so many connections, and reads what comes back.

    Its thread begins with the first request, and ends with `close` or with the main thread. It
    serves one of two callers: a frontier, whose pages it reads, or any number of threads.

    Attributes:
        connections: Requests under way at most.
        user_agent: Whom the site sees.
        attempt_seconds: Deadline of one attempt.
        is_anonymous: Whether nobody is named whom a site may ask.
        refusal: Why a session sent nothing: the run cannot go on; None where none did.
    """

    def __init__(
        self,
        connections: int,
        *,
        user_agent: str,
        attempt_seconds: float,
        ca_file: str | None = None,
        is_anonymous: bool = False,
        body_budget_bytes: int = BODY_BUDGET_BYTES,
    ) -> None:
        """Prepare.

        Args:
            connections: Requests under way at most.
            user_agent: Whom the site sees.
            attempt_seconds: Deadline of one attempt.
            ca_file: Replaces the usual certificate authorities (certifi's).
            is_anonymous: Whether nobody is named whom a site may ask: then sessions send nothing
                to any host but this machine.
            body_budget_bytes: What all bodies together may take.
        """
        self.connections, self.user_agent = connections, user_agent
        self.attempt_seconds = attempt_seconds
        self._ca_file, self._body_budget_bytes = ca_file or certifi.where(), body_budget_bytes
        self.is_anonymous, self.refusal = is_anonymous, cast("SettingsError | None", None)
        self._frontier: Frontier | None = None
        self._done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._asked: deque[WireRequest] = deque()
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._transfers: Transfers
        self._bell: tuple[socket.socket, socket.socket]
        self._told: set[str] = set()
        self._is_closing = self._is_asleep = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exchange(self, request: WireRequest) -> WireAnswer:
        """Send a request, and wait for what comes of it; at its deadline there is an answer.

        Raises:
            RuntimeError: This is a child of the process whose wire it is.
        """
        self._begin()
        if request.deadline <= time.monotonic():
            return _late()
        self._asked.append(request)
        if self._is_closing:
            self._refuse(self._asked)
        elif self._is_asleep:
            self._ring()
        try:
            return request.inbox.get(timeout=request.deadline - time.monotonic() + _LOOK_SECONDS)
        except queue.Empty:
            return _late()

    def let_go(self, body_bytes: int) -> None:
        """Note that nobody reads a body of that length any more; others get its room."""
        if body_bytes:
            self._transfers.let_go(body_bytes)

    def read_pages(self, frontier: Frontier) -> None:
        """Perform a frontier's attempts on the wire's thread; return when there are none any more.

        All of its jobs have sources that read on the wire.

        Raises:
            Exception: What the frontier raised.
        """
        self._frontier = frontier
        self._begin()
        self._done.result()

    def tell_once(self, words: str) -> None:
        """Log a warning, unless this run has told it before."""
        with self._lock:
            is_new = words not in self._told
            self._told.add(words)
        if is_new:
            logger.warning("%s", words)

    def close(self) -> None:
        """End the thread; who still waits for an answer gets one that says that it is too late."""
        with self._lock:
            self._is_closing = True
            thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._ring()
            thread.join()

    def _begin(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("this wire belongs to the parent process; a child opens its own")
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._is_closing:
                return
            self._transfers = Transfers(
                self.connections,
                attempt_seconds=self.attempt_seconds,
                ca_file=self._ca_file,
                body_budget_bytes=self._body_budget_bytes,
                is_one_site=self._frontier is None or self._frontier.is_one_host,
            )
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            # Not a daemon: the interpreter waits for it, and it sees the main thread's end.
            run = contextvars.copy_context().run  # a line logged there has the request's trace
            self._thread = threading.Thread(target=run, args=(self._run,), name="wire")
            self._thread.start()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it will wake; closed: it has ended
            self._bell[1].send(b"!")

    # On the wire's thread.

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            if self._frontier is None:
                self._serve_threads()
            else:
                self._serve_frontier(self._frontier)
        except BaseException as error:
            failure = error
            if self._frontier is None:
                logger.exception("the wire's thread has ended")
        finally:
            self._is_closing = True
            for transfer in self._transfers.close():
                if transfer.request is not None:
                    transfer.request.inbox.put(_late())
            self._refuse(self._asked)
            for end in self._bell:
                end.close()
            if failure is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(failure)

    def _is_over(self) -> bool:
        return self._is_closing or not threading.main_thread().is_alive()

    # One caller: threads.

    def _serve_threads(self) -> None:
        transfers, waiting = self._transfers, deque[WireRequest]()
        try:
            while not self._is_over():
                self._begin_asked(waiting)
                is_more = False
                if transfers or waiting:
                    ended, is_more = transfers.collect()
                    self._deliver(ended)
                if not is_more:
                    self._sleep_until_asked(is_awaited=bool(waiting))
        finally:
            self._refuse(waiting)

    def _begin_asked(self, waiting: deque[WireRequest]) -> None:
        """Begin the requests that threads have handed over, as far as there is room."""
        asked, transfers = self._asked, self._transfers
        while asked:
            waiting.append(asked.popleft())
        now = time.monotonic() if waiting else 0.0
        for _ in range(len(waiting)):
            request = waiting.popleft()
            if request.deadline <= now:
                request.inbox.put(WireAnswer(is_held=True))
            elif transfers.room(request.origin) == 0:
                waiting.append(request)
            else:
                transfer = transfers.take()
                try:
                    transfer.begin_request(request, now)
                except (pycurl.error, UnicodeError, ValueError) as error:
                    transfers.finish(transfer)
                    answer = WireAnswer()
                    answer.fail("protocol", in_words(error), raised.InvalidURL)
                    request.inbox.put(answer)
                else:
                    transfers.begin(transfer)

    def _deliver(self, ended: list[Ended]) -> None:
        for request, answer in ended:
            if answer.error == "tls":
                self.tell_once(_REFUSED + detail_of(answer.detail))
            request.inbox.put(answer)

    def _sleep_until_asked(self, *, is_awaited: bool) -> None:
        """Wait for the network, libcurl, or a thread that asks."""
        bell = self._bell[0]
        self._is_asleep = True
        try:
            if not self._asked and not self._is_closing:
                is_soon = is_awaited or self._transfers.is_watching
                self._transfers.wait(_SOON_SECONDS if is_soon else _LOOK_SECONDS, bell)
        finally:
            self._is_asleep = False
        with contextlib.suppress(BlockingIOError):
            bell.recv(4096)

    def _refuse(self, requests: deque[WireRequest]) -> None:
        with contextlib.suppress(IndexError):
            while True:
                requests.popleft().inbox.put(_late())

    # The other: a frontier.

    def _serve_frontier(self, frontier: Frontier) -> None:
        """Perform attempts until there are none; after the run was closed, to the grace's end."""
        transfers, has_slept = self._transfers, False
        while frontier.grace_left() > 0 and not self._is_over():
            if has_slept:  # what came meanwhile may ask for a pause: it is read first
                has_slept = False
                self._hand_back(frontier)
            began, wait = self._begin_due(frontier)
            if not transfers:
                if wait is None:
                    return
                frontier.rest(min(wait, _LOOK_SECONDS))
                continue
            if began and self._hand_back(frontier):
                continue
            self._sleep(_LOOK_SECONDS if wait is None else wait)
            has_slept = True

    def _begin_due(self, frontier: Frontier) -> tuple[bool, float | None]:
        """Begin what is due and has room; return whether there was any, and when there may be."""
        room = self._transfers.room()
        if room == 0:
            return False, _LOOK_SECONDS if len(self._transfers) else _NAP_SECONDS
        attempts, wait = frontier.take(room)
        for attempt in attempts:
            try:
                self._transfers.begin_page(attempt, self.user_agent)
            except Exception as error:  # noqa: BLE001 - costs this number alone
                detail = detail_of(in_words(error))
                frontier.hand_back([Reply(attempt, error="function", detail=detail)])
        return bool(attempts), wait

    def _hand_back(self, frontier: Frontier) -> bool:
        """Drive the transfers, read the pages that came; return whether there is more to do now."""
        ended, is_more = self._transfers.collect()
        replies: list[Reply] = []
        held: list[PendingNumber] = []
        for attempt, answer in ended:
            unpaid = answer.sent
            if answer.is_held:
                held.append(attempt)
            else:
                replies.append(read_page(attempt, answer))
                unpaid -= 1
                if answer.error == "tls":
                    self.tell_once(_REFUSED + detail_of(answer.detail))
            if unpaid > 0:
                frontier.charge(attempt, unpaid)
        if held:
            frontier.put_back(held)
        if replies:
            frontier.hand_back(replies)
        return is_more

    def _sleep(self, seconds: float) -> None:
        """Wait for the network, or an attempt that is due; what is due soon, for a nap."""
        if seconds > _NAP_SECONDS:
            self._transfers.wait(min(seconds, _LOOK_SECONDS))
        elif seconds > 0:
            self._transfers.nap(_NAP_SECONDS)


def _late() -> WireAnswer:
    answer = WireAnswer()
    answer.fail("timeout", "the attempt's time is over", raised.ReadTimeout)
    return answer
