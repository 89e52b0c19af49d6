"""The embedded song site: a loopback stand-in for the Genius API, over HTTP/1.1, pipelined or not.

By hand, because a web framework would be slower than the crawler that the site is there to feed.
"""

import asyncio
import contextlib
import functools
import signal
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from email.utils import formatdate
from http.client import responses
from typing import Any, Self

import msgspec

from crawler.demo.behaviour import Site, SiteBehaviour, SiteReply, SiteRequest, error_reply

_MAX_HEAD_BYTES = 65_536


class Connection:
    """One client's connection: requests may be pipelined, and are answered one after the other."""

    def __init__(
        self, site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._site, self._reader, self._writer = site, reader, writer

    async def serve(self) -> None:
        """Answer until the client is gone, or the connection is to end; counts it meanwhile."""
        self._site.counts.connected()
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer_one():
                    pass
        finally:
            self._site.counts.disconnected()
            self._writer.close()

    async def _answer_one(self) -> bool:
        """Answer the next request; False where no other one may follow."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return await self._refuse(431, "Request header fields too large")
        request = parse_request(head[:-4])
        if request is None:
            return await self._refuse(400, "Not a request this site can read")
        path, _, query = request.target.partition(b"?")
        if path == b"/_stats":
            counts = self._site.counts.snapshot(arrivals=query == b"arrivals=1")
            reply = SiteReply(200, msgspec.json.encode(counts))
            return await self._send(reply, keep_alive=request.keep_alive)
        return await self._answer(request)

    async def _answer(self, request: SiteRequest) -> bool:
        reply = self._site.reply(request, asyncio.get_running_loop().time())
        if latency := self._site.behaviour.latency_seconds:
            await asyncio.sleep(latency)
        if self._reader.at_eof():
            self._site.counts.answered("hung_up")
            return False
        self._site.counts.answered(reply.fault or str(reply.status))
        if reply.fault == "reset":
            return self._reset()
        if self._site.behaviour.gzip and b"gzip" in request.headers.get(b"accept-encoding", b""):
            body = zlib.compress(reply.body, 1, wbits=31)
            reply = reply._replace(body=body, extra=reply.extra + b"Content-Encoding: gzip\r\n")
        return await self._send(reply, keep_alive=request.keep_alive)

    async def _refuse(self, status: int, message: str) -> bool:
        return await self._send(error_reply(status, message), keep_alive=False)

    async def _send(self, reply: SiteReply, *, keep_alive: bool) -> bool:
        body = reply.body[: len(reply.body) // 2] if reply.fault else reply.body
        self._writer.write(_head(reply, keep_alive=keep_alive) + body)
        await self._writer.drain()  # a client that does not read gets no more answers
        return keep_alive and not reply.fault

    def _reset(self) -> bool:
        """Leave without a word: a closed socket that lingers for 0 s sends a reset."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        return False


def _head(reply: SiteReply, *, keep_alive: bool) -> bytes:
    """Write an answer's head, with the empty line after it."""
    connection = b"keep-alive" if keep_alive else b"close"
    return (
        b"HTTP/1.1 %d %s\r\nServer: demo-site\r\nDate: %s\r\nContent-Type: application/json; "
        b"charset=utf-8\r\nContent-Length: %d\r\n%sConnection: %s\r\n\r\n"
        % (
            reply.status,
            responses.get(reply.status, "Unnamed").encode(),
            _date(int(time.time())),
            len(reply.body),
            reply.extra,
            connection,
        )
    )


@functools.lru_cache(maxsize=1)  # writing it takes longer than the rest
def _date(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


def parse_request(head: bytes) -> SiteRequest | None:
    """Read a request without a body from its head, less the empty line; None when it is not one."""
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        return None
    headers = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        headers[name.lower()] = value.strip()
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        return None
    wish = headers.get(b"connection", b"").lower()
    keep_alive = wish != b"close" if words[2] == b"HTTP/1.1" else wish == b"keep-alive"
    return SiteRequest(words[0], words[1], headers, keep_alive)


class DemoSite:
    """A song site on a free loopback port, in a thread of its own, until it is closed.

    Attributes:
        base_url: Where it is, without a slash at the end; songs are at `{base_url}/songs/{number}`.
        token: The token it wants.
    """

    def __init__(self, port: int = 0, **behaviour: Any) -> None:
        """Start it; port 0 takes a free one, and `behaviour` are fields of `SiteBehaviour`.

        Raises:
            OSError: The port is taken, or not ours to take.
        """
        self._site = Site(SiteBehaviour(**behaviour))
        listener = _listen(port)
        self.base_url = _base_url(listener)
        self.token = self._site.behaviour.token
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="demo-site", daemon=True
        )
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Return `Counts.snapshot`, with `arrivals`; from any thread, also after `close`."""
        if not self._thread.is_alive():
            return self._site.counts.snapshot(arrivals=True)
        return asyncio.run_coroutine_threadsafe(self._snapshot(), self._loop).result(timeout=10)

    def times_asked(self, song_num: int) -> int:
        """Requests for a number so far; 255 stands for 255 or more."""
        return self._site.counts.times_asked(song_num)

    def close(self) -> None:
        """End it: connections are cut, the port is free again, the thread is gone."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(_answer_until(self._stopped, self._site, listener))

    async def _snapshot(self) -> dict[str, Any]:
        return self._site.counts.snapshot(arrivals=True)


async def serve(port: int, behaviour: SiteBehaviour, announce: Callable[[str], None]) -> None:
    """Run a site in this thread, which must be the main one, until SIGTERM or Ctrl-C.

    `announce` gets the address, once the site can be reached there.

    Raises:
        OSError: The port is taken, or not ours to take.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    # Not loop.add_signal_handler, which Windows does not have.
    before = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        listener = _listen(port)
        announce(_base_url(listener))
        await _answer_until(stopped, Site(behaviour), listener)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _answer_until(stopped: asyncio.Event, site: Site, listener: socket.socket) -> None:
    loop, writers = asyncio.get_running_loop(), set[asyncio.StreamWriter]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await Connection(site, reader, writer).serve()
        finally:
            writers.discard(writer)

    server = await asyncio.start_server(
        connected, sock=listener, backlog=1024, limit=_MAX_HEAD_BYTES
    )
    try:
        await stopped.wait()
    finally:
        # Python 3.11 and 3.12 trip over a client accepted just before the server closes (gh-109564).
        with contextlib.suppress(NotImplementedError):  # Windows has no readers
            loop.remove_reader(listener)
        await _let_the_loop_turn()
        server.close()
        for writer in writers:
            writer.transport.abort()
        await _let_the_loop_turn()  # sockets are closed a turn later


async def _let_the_loop_turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _listen(port: int) -> socket.socket:
    """Open the port on loopback, so that clients may connect from now on."""
    return socket.create_server(("127.0.0.1", port), backlog=1024)


def _base_url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"
