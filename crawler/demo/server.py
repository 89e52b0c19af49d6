"""How the embedded site speaks: HTTP/1.1 over a kept connection, pipelined or not.

By hand, because a web framework would be slower than the crawler that the site is there to feed.
"""

import asyncio
import socket
import struct
import time
import zlib
from email.utils import formatdate
from http import HTTPStatus
from typing import cast

import msgspec

from crawler.demo.behaviour import Site, SiteReply, SiteRequest, error_reply

_MAX_HEAD_BYTES = 65_536


class Dates:
    """The `Date` header of the moment; made once a second, since it takes longer than the rest."""

    def __init__(self) -> None:
        self._text, self._second = b"", 0

    def now(self) -> bytes:
        """Write the time as HTTP does."""
        second = int(time.time())
        if second != self._second:
            self._text, self._second = formatdate(second, usegmt=True).encode(), second
        return self._text


class Server:
    """What the connections of one site share."""

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        self.site = site
        self.loop = loop
        self.dates = Dates()
        self.connections: set[Connection] = set()

    def connect(self) -> "Connection":
        """Take up one more client."""
        return Connection(self)

    def cut(self) -> None:
        """End all connections at once."""
        for connection in list(self.connections):
            connection.cut()


class Connection(asyncio.Protocol):
    """One client's connection: requests may be pipelined, and are answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._site = server.site
        self._loop = server.loop
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._waiting: asyncio.TimerHandle | None = None
        self._writable = True
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take up a connection."""
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        self._site.counts.connected()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's own name
        """Forget it, with the answer that was still to come."""
        self._over = True
        self._server.connections.discard(self)
        self._site.counts.disconnected()
        if self._waiting is not None:
            self._waiting.cancel()
            self._site.counts.answered("hung_up")

    def data_received(self, data: bytes) -> None:
        """Answer what has come, and take no more while a client has sent far ahead."""
        self._buffer += data
        self._advance()
        if len(self._buffer) > _MAX_HEAD_BYTES and not self._over:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """The client does not read: nothing more is answered until it does."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self._advance()

    def cut(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def _advance(self) -> None:
        """Answer what is whole in the buffer, up to an answer that has to wait."""
        while self._waiting is None and self._writable and not self._over:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    self._refuse(431, "SiteRequest header fields too large")
                return
            request = parse_request(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if request is None:
                self._refuse(400, "Not a request this site can read")
                return
            self._begin(request)

    def _begin(self, request: SiteRequest) -> None:
        path, _, query = request.target.partition(b"?")
        if path == b"/_stats":
            counts = self._site.counts.snapshot(arrivals=query == b"arrivals=1")
            self._send(request, SiteReply(200, msgspec.json.encode(counts)))
            return
        reply = self._site.reply(request, self._loop.time())
        latency = self._site.behaviour.latency_seconds
        if latency:
            self._waiting = self._loop.call_later(latency, self._end_waiting, request, reply)
        else:
            self._answer(request, reply)

    def _end_waiting(self, request: SiteRequest, reply: SiteReply) -> None:
        self._waiting = None
        self._answer(request, reply)
        if not self._over and len(self._buffer) > _MAX_HEAD_BYTES:
            self._transport.resume_reading()
        self._advance()

    def _answer(self, request: SiteRequest, reply: SiteReply) -> None:
        self._site.counts.answered(reply.fault or str(reply.status))
        if reply.fault == "reset":
            self._reset()
        elif self._site.behaviour.gzip and b"gzip" in request.headers.get(b"accept-encoding", b""):
            self._send(request, _gzipped(reply))
        else:
            self._send(request, reply)

    def _send(self, request: SiteRequest, reply: SiteReply) -> None:
        body = reply.body[: len(reply.body) // 2] if reply.fault else reply.body
        self._transport.write(self._head(reply, keep_alive=request.keep_alive) + body)
        if reply.fault or not request.keep_alive:
            self._over = True
            self._transport.close()

    def _refuse(self, status: int, message: str) -> None:
        reply = error_reply(status, message)
        self._over = True
        self._transport.write(self._head(reply, keep_alive=False) + reply.body)
        self._transport.close()

    def _reset(self) -> None:
        """Leave without a word: a closed socket that lingers for 0 s sends a reset."""
        self._over = True
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _head(self, reply: SiteReply, *, keep_alive: bool) -> bytes:
        """Write an answer's head, with the empty line after it."""
        connection = b"keep-alive" if keep_alive else b"close"
        return (
            b"HTTP/1.1 %d %s\r\nServer: demo-site\r\nDate: %s\r\nContent-Type: application/json; "
            b"charset=utf-8\r\nContent-Length: %d\r\n%sConnection: %s\r\n\r\n"
            % (
                reply.status,
                _phrase(reply.status),
                self._server.dates.now(),
                len(reply.body),
                reply.extra,
                connection,
            )
        )


def parse_request(head: bytes) -> SiteRequest | None:
    """Read a request without a body from its head, or None when it is not one.

    Args:
        head: From the request line to the last header, without the empty line.
    """
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


def _gzipped(reply: SiteReply) -> SiteReply:
    packer = zlib.compressobj(1, wbits=31)
    body = packer.compress(reply.body) + packer.flush()
    return reply._replace(body=body, extra=reply.extra + b"Content-Encoding: gzip\r\n")


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unnamed"
