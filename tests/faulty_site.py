"""A site that misbehaves as its address says, and records who asked what, when.

An address is `{base_url}/<fault>[:<value>][@<count>][~<seconds>][!<after>][=<once>]/songs/<number>`,
a fault of `FAULTS`, always at work unless one of these follows its name:

- `@2`: for the first 2 requests of each number;
- `~5`: for the first 5 seconds from the first request to this address;
- `!500`: after the first 500 requests to this address, right before;
- `=500`: once, for the first request of number 500.

Several together must all hold. What is not spoilt is answered as the demo site does, without asking
for a token. A `value` may be percent-encoded. Faults of the certificate and the handshake are whole
listeners: see `FaultySite.url`.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import trustme

from crawler.demo.songs import error_body, song_body
from tests.faulty_table import FAULTS, Act, Fault, answer, fixed, http_date

__all__ = ["FAULTS", "FaultySite", "Page", "Seen", "closed_port", "swallowing_port"]

MAX_FAULT_SECONDS = 60.0
"""No fault lasts longer, whatever the client does."""

_SCENARIO = re.compile(
    r"(?P<name>[^:@~!=]+)(:(?P<value>[^@~!=]*))?(@(?P<count>\d+))?(~(?P<seconds>[\d.]+))?"
    r"(!(?P<after>\d+))?(=(?P<once>\d+))?"
)
_CERTIFICATES = ("expired", "other-host", "self-signed")


@dataclass
class Seen:
    """One request as it was seen.

    Attributes:
        at: Seconds of the monotonic clock at which its head had arrived.
        path: The address, as sent.
        number: The song number, None for another address.
        connection: Which connection it came on, the first of the site being 1.
        headers: Names in lower case.
        tls: Whether it came over TLS.
        listener: `main`, or `other`, `plain` (where redirects lead).
        spoilt: Whether it got the fault, not a right answer.
        answered_at: Just before the last bytes of its answer went out, None before any did.
    """

    at: float
    path: str
    number: int | None
    connection: int
    headers: dict[str, str]
    tls: bool
    listener: str
    spoilt: bool = False
    answered_at: float | None = None


@dataclass(frozen=True)
class Page:
    """An answer of one's own, for `robots.txt`."""

    status: int
    body: bytes = b""
    headers: tuple[bytes, ...] = ()


@dataclass
class _Scenario:
    """One address's fault, and what has been asked under it."""

    fault: Fault
    value: str | None
    count: int | None
    seconds: float | None
    after: int | None
    once: int | None
    began: float | None = None
    total: int = 0
    times: Counter[int] = field(default_factory=Counter)

    def is_due(self, number: int, now: float) -> bool:
        """Count a request, and say whether it gets the fault."""
        self.began = now if self.began is None else self.began
        self.total += 1
        self.times[number] += 1
        return (
            (self.count is None or self.times[number] <= self.count)
            and (self.seconds is None or now - self.began < self.seconds)
            and (self.after is None or self.total > self.after)
            and (self.once is None or (number == self.once and self.times[number] == 1))
        )


class FaultySite:
    """The site, in a thread of its own, until it is closed.

    Attributes:
        base_url: Where the main listener is, `https://…` with `tls`, no slash at the end.
        other_url: A second host, which answers rightly and records: where redirects lead.
        plain_url: A third one without TLS.
        ca_path: With `tls`, a file with the certificate to be trusted.
        requests: Each request, in the order of arrival, of all listeners.
        connections: Connections opened so far.
        max_open_connections, max_in_flight: The most at any one time.
        robots: What `/robots.txt` gets: an answer, or the name of a fault.
        robots_behind_redirects: What `/hop/0/robots.txt` gets; `/hop/{k}/…` redirects to the one
            before.
        clock_skew_seconds: How much the site's `Date` is ahead.
        crashes: Errors inside the site itself; `close` raises the first.
    """

    def __init__(self, *, tls: bool = False) -> None:
        """Start it; with `tls` the listeners with bad certificates and the stalling one too."""
        self.requests: list[Seen] = []
        self.connections = self.max_open_connections = self.max_in_flight = 0
        self.robots: Page | str = Page(404)
        self.robots_behind_redirects = Page(200, b"User-agent: *\nDisallow:\n")
        self.clock_skew_seconds = 0.0
        self.crashes: list[BaseException] = []
        self._scenarios: dict[str, _Scenario] = {}
        self._in_flight = 0
        self._open: set[asyncio.Task[None]] = set()
        self._folder = TemporaryDirectory()
        self.ca_path = Path(self._folder.name) / "ca.pem"
        self._listeners = {name: _listen() for name in ("main", "other", "plain", "tls-stall")}
        self._contexts: dict[str, ssl.SSLContext | None] = dict.fromkeys(self._listeners)
        if tls:
            self._prepare_tls()
        self.base_url, self.other_url = self._address("main"), self._address("other")
        self.plain_url = self._address("plain")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="faulty-site", daemon=True)
        self._thread.start()

    def url(self, scenario: str) -> str:
        """Say the base address of a fault, such as `429:2@1`, for a crawl or a request.

        With `tls` also `expired`, `other-host`, `self-signed` (certificates) and `tls-stall` (a
        handshake without an answer).
        """
        if scenario in self._listeners:
            return self._address(scenario)
        _find(scenario)  # raises where there is no such fault
        return f"{self.base_url}/{scenario}"

    def requests_for(self, number: int) -> list[Seen]:
        """List the requests of one number."""
        return [seen for seen in list(self.requests) if seen.number == number]

    def too_early(self, pause_seconds: float, slack_seconds: float = 0.1) -> list[Seen]:
        """List the requests that came in spite of a pause.

        Args:
            pause_seconds: What each spoilt answer told everybody to wait.
            slack_seconds: What was under way as the answer was sent is not counted for so long.
        """
        told = [
            seen.answered_at for seen in list(self.requests) if seen.spoilt and seen.answered_at
        ]
        return [
            seen
            for seen in list(self.requests)
            if any(slack_seconds < seen.at - moment < pause_seconds for moment in told)
        ]

    def close(self) -> None:
        """End it with all its connections; raises what went wrong inside, once."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._folder.cleanup()
        if self.crashes:
            raise self.crashes.pop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _address(self, listener: str) -> str:
        tls = self._contexts[listener] is not None or listener == "tls-stall"
        port = self._listeners[listener].getsockname()[1]
        return f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    def _prepare_tls(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_path))
        past = datetime(2020, 1, 1, tzinfo=UTC)
        good = authority.issue_cert("127.0.0.1", "localhost")
        certificates = {
            "main": good,
            "other": good,
            "expired": authority.issue_cert(
                "127.0.0.1", not_before=past, not_after=past + timedelta(days=1)
            ),
            "other-host": authority.issue_cert("elsewhere.example"),
        }
        self._listeners |= {name: _listen() for name in _CERTIFICATES}
        for name, certificate in certificates.items():
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(context)
            self._contexts[name] = context
        self._contexts["self-signed"] = _self_signed(Path(self._folder.name))

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        servers = []
        for name, listener in self._listeners.items():

            async def welcome(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name
            ) -> None:
                await self._talk(reader, writer, name)

            servers.append(
                await asyncio.start_server(
                    welcome,
                    sock=listener,
                    ssl=self._contexts[name],
                    backlog=1024,
                    limit=1_000_000,
                )
            )
        await self._stop.wait()
        # Python 3.11 and 3.12 trip over a client accepted just before the server closes (gh-109564).
        for listener in self._listeners.values():
            self._loop.remove_reader(listener)
        await _let_the_loop_turn()
        for server in servers:
            server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await _let_the_loop_turn()  # transports close their sockets a turn later

    async def _talk(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener: str
    ) -> None:
        """Answer one connection's requests up to its end."""
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        connection = self.connections
        self.max_open_connections = max(self.max_open_connections, len(self._open))
        try:
            if listener == "tls-stall":
                await asyncio.wait_for(_read_on(reader), MAX_FAULT_SECONDS)
            turn = 1
            while await self._answer_one(reader, writer, listener, connection, turn):
                turn += 1
        except (OSError, asyncio.IncompleteReadError):  # TLS errors and timeouts are OSErrors
            pass  # the client left, or had its minute
        except asyncio.CancelledError:
            pass  # the site is being closed
        except Exception as error:  # noqa: BLE001 - told to the test by `close`
            self.crashes.append(error)
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _answer_one(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        listener: str,
        connection: int,
        turn: int,
    ) -> bool:
        """Answer one request; False: it was the connection's last."""
        head = await reader.readuntil(b"\r\n\r\n")
        seen = self._see(head, writer, listener, connection)
        self.requests.append(seen)
        self._in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self._in_flight)
        exchange = _Exchange(self, seen, turn, reader, writer)
        try:
            async with asyncio.timeout(MAX_FAULT_SECONDS):
                await self._choose(seen, exchange)(exchange)
        finally:
            self._in_flight -= 1
        if seen.headers.get("connection", "").lower() == "close" and not exchange.over:
            exchange.finish()
        if exchange.over:
            await exchange.wait_for_goodbye()
        return not exchange.over

    def _see(
        self, head: bytes, writer: asyncio.StreamWriter, listener: str, connection: int
    ) -> Seen:
        now = time.monotonic()
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        path = first.split(" ")[1]
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        number = re.search(r"/songs/(\d{1,15})(\?|$)", path)
        return Seen(
            at=now,
            path=path,
            number=int(number[1]) if number else None,
            connection=connection,
            headers=headers,
            tls=writer.get_extra_info("ssl_object") is not None,
            listener=listener,
        )

    def _choose(self, seen: Seen, exchange: "_Exchange") -> Act:
        """Choose what a request gets: a fault, or what is right."""
        if seen.path.endswith("/robots.txt"):
            return self._choose_robots(seen)
        name = seen.path.split("/")[1]
        if seen.number is None or seen.listener != "main" or name == "songs":
            return FAULTS["right"].act
        scenario = self._scenarios.setdefault(name, _find(name))
        exchange.value = scenario.value
        seen.spoilt = scenario.is_due(seen.number, seen.at)
        exchange.total = scenario.total
        return scenario.fault.act if seen.spoilt else FAULTS["right"].act

    def _choose_robots(self, seen: Seen) -> Act:
        hop = re.fullmatch(r"/hop/(\d+)/robots.txt", seen.path)
        if hop and int(hop[1]):
            before = f"Location: /hop/{int(hop[1]) - 1}/robots.txt".encode()
            return answer(fixed(b""), before, status=302)
        robots = self.robots_behind_redirects if hop else self.robots
        if isinstance(robots, str):
            return FAULTS[robots].act
        return answer(fixed(robots.body), *robots.headers, status=robots.status)


class _Exchange:
    """One request and the ways to answer it: see `faulty_table.Exchange`."""

    def __init__(
        self,
        site: FaultySite,
        seen: Seen,
        turn: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._seen = seen
        self.number = seen.number or 0
        self.path, self.headers = seen.path, seen.headers
        self.value: str | None = None
        self.turn, self.total = turn, 0
        self.now = datetime.now(UTC) + timedelta(seconds=site.clock_skew_seconds)
        self.other_url, self.plain_url = site.other_url, site.plain_url
        self.over = self._reset = False
        self._reader, self._writer = reader, writer

    async def send(self, *parts: bytes) -> None:
        self._seen.answered_at = time.monotonic()
        self._writer.write(b"".join(parts))
        await self._writer.drain()

    def head(self, status: int, *headers: bytes, length: int | None = None) -> bytes:
        lines = [
            b"HTTP/1.1 %d Ordered" % status,
            b"Date: " + http_date("imf", self.now),
            b"Content-Type: application/json; charset=utf-8",
            *headers,
        ]
        if length is not None:
            lines.append(b"Content-Length: %d" % length)
        return b"\r\n".join([*lines, b"", b""])

    async def right(self, *headers: bytes) -> None:
        body = None if self._seen.number is None else song_body(self.number)
        status = 200 if body else 404
        body = body or error_body(404, "Not found")
        await self.send(self.head(status, *headers, length=len(body)), body)

    async def hang(self) -> None:
        await _read_on(self._reader)
        self.reset()

    def reset(self) -> None:
        self.over = self._reset = True
        linger = struct.pack("ii", 1, 0)
        self._socket().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    def finish(self) -> None:
        self.over = True
        if self._writer.can_write_eof():
            self._writer.write_eof()
        else:
            self._writer.close()

    def end(self) -> None:
        if self._writer.can_write_eof():
            self.finish()
        else:
            self.over = True
            self._socket().shutdown(socket.SHUT_WR)

    async def wait_for_goodbye(self) -> None:
        """Let the client leave first: closing on bytes it has sent since would be a reset."""
        with contextlib.suppress(TimeoutError):
            if not self._writer.is_closing():
                await asyncio.wait_for(_read_on(self._reader), 2)
            elif not self._reset:
                await asyncio.wait_for(self._writer.wait_closed(), 2)

    def _socket(self) -> socket.socket:
        made: socket.socket = self._writer.get_extra_info("socket")
        return made


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Hold a port at which every connection is refused."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def swallowing_port() -> Iterator[int]:
    """Hold a port at which connections are neither accepted nor refused (on Linux).

    Its queue of two is full and nobody accepts, so the kernel drops what else comes.
    """
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(socket.socket())
        holder.bind(("127.0.0.1", 0))
        holder.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(holder.getsockname())
        yield holder.getsockname()[1]


def _find(name: str) -> _Scenario:
    """Read a fault and its conditions out of an address."""
    found = _SCENARIO.fullmatch(name)
    if found is None or found["name"] not in FAULTS:
        raise ValueError(f"no such fault: {name}")
    return _Scenario(
        fault=FAULTS[found["name"]],
        value=None if found["value"] is None else unquote(found["value"]),
        count=None if found["count"] is None else int(found["count"]),
        seconds=None if found["seconds"] is None else float(found["seconds"]),
        after=None if found["after"] is None else int(found["after"]),
        once=None if found["once"] is None else int(found["once"]),
    )


async def _let_the_loop_turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _read_on(reader: asyncio.StreamReader) -> None:
    """Read and forget, until the client leaves."""
    while await reader.read(65_536):
        pass


def _listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=1024)


def _self_signed(folder: Path) -> ssl.SSLContext:
    """Make a context whose certificate is signed by itself."""
    authority = trustme.CA()
    path = folder / "self-signed.pem"
    path.write_bytes(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
