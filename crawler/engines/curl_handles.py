"""How every libcurl handle is set: deadlines, sizes, no redirects, no proxies, verified TLS."""

from collections.abc import Iterable
from typing import Any

import pycurl

from crawler.engines.body import MAX_BODY_BYTES
from crawler.frontier.work import Attempt
from crawler.source.source import Source

CONNECT_SECONDS = 10.0
IDLE_CONNECTION_SECONDS = 20
"""An idle connection is let go before a site usually does: libcurl would quietly send again."""

BODY_BUDGET_BYTES = 64 << 20
"""Bodies in flight over all connections."""

_CUT_AT_BYTES = 40 << 20
"""Beyond this the largest are cut, which leaves room for what comes between two looks."""

PIECE_BYTES = 4096
"""Size of libcurl's pieces where many connections share a budget: it reads ten of each in a turn."""

_PIECE_WEIGHT_BYTES = 48
"""What Python adds to each line and each piece of a body: a head of 300 kB may be 10,000 lines."""

_USUAL_LINES = 100
"""Header lines; a head of no more cannot weigh much."""


def handle_options(*, user_agent: str, attempt_seconds: float, ca_file: str) -> dict[int, Any]:
    """List the options of a handle.

    Args:
        user_agent: Whom the site sees.
        attempt_seconds: Deadline of one attempt, from the first step to the last byte.
        ca_file: The certificate authorities to trust.
    """
    connect_seconds = min(CONNECT_SECONDS, attempt_seconds)
    return {
        pycurl.NOSIGNAL: 1,
        pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
        pycurl.FOLLOWLOCATION: 0,
        pycurl.PROXY: "",
        pycurl.NOPROXY: "*",  # else each request looks for it in the environment
        pycurl.NETRC: pycurl.NETRC_IGNORED,
        pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_2TLS,
        pycurl.HTTP09_ALLOWED: 0,
        pycurl.HTTP_CONTENT_DECODING: 0,
        pycurl.SSL_VERIFYPEER: 1,
        pycurl.SSL_VERIFYHOST: 2,
        pycurl.CAINFO: ca_file,
        pycurl.TIMEOUT_MS: int(attempt_seconds * 1000),
        pycurl.CONNECTTIMEOUT_MS: int(connect_seconds * 1000),
        pycurl.MAXFILESIZE: MAX_BODY_BYTES,
        pycurl.MAXAGE_CONN: IDLE_CONNECTION_SECONDS,
        pycurl.TCP_NODELAY: 1,
        pycurl.USERAGENT: user_agent,
    }


class Transfer:
    """One reusable handle, with what the transfer under way has received.

    A handle looks up its attributes slowly (pycurl 7.49), so the two needed for each page are kept.
    """

    __slots__ = ("attempt", "chunks", "getinfo", "handle", "lines", "setopt", "source")

    def __init__(self, handle: pycurl.Curl) -> None:
        self.handle = handle
        self.setopt, self.getinfo = handle.setopt, handle.getinfo
        self.lines: list[bytes] = []
        self.chunks: list[bytes] = []
        self.attempt: Attempt
        self.source: Source | None = None
        handle.setopt(pycurl.HEADERFUNCTION, self.lines.append)
        handle.setopt(pycurl.WRITEFUNCTION, self.chunks.append)


class Handles:
    """The handles of one lane: so many, opened when first needed, and used again and again.

    Attributes:
        transfers: Those that are open, by handle.
    """

    def __init__(self, count: int, options: dict[int, Any]) -> None:
        """Prepare for `count` handles, which all have these options."""
        self.transfers: dict[Any, Transfer] = {}
        self._options, self._unopened = options, count
        self._free: list[Transfer] = []

    def room(self) -> int:
        """Count the handles that are free."""
        return len(self._free) + self._unopened

    def take(self) -> Transfer:
        """Give a free handle; there must be one."""
        return self._free.pop() if self._free else self._open()

    def give_back(self, transfer: Transfer) -> None:
        """Take a handle back, and let go of what it received.

        libcurl keeps its own copy of a head until the handle is used again: one with a long head
        is closed, and another takes its place (8.23, measured 2026-11-25).
        """
        if len(transfer.lines) > _USUAL_LINES:
            del self.transfers[transfer.handle]
            transfer.handle.close()
            self._unopened += 1
            return
        transfer.lines.clear()
        transfer.chunks.clear()
        self._free.append(transfer)

    def set_option(self, option: int, value: Any) -> None:
        """Set one more option of all handles."""
        self._options[option] = value
        for transfer in self.transfers.values():
            transfer.setopt(option, value)

    def close(self) -> None:
        """Close them all."""
        for transfer in self.transfers.values():
            transfer.handle.close()
        self.transfers.clear()
        self._options.clear()  # may hold a method of their lane: a circle

    def _open(self) -> Transfer:
        self._unopened -= 1
        handle = pycurl.Curl()
        for option, value in self._options.items():
            handle.setopt(option, value)
        return self.transfers.setdefault(handle, Transfer(handle))


def header_lines(source: Source) -> list[str]:
    """Write the headers of a source as libcurl wants them.

    Raises:
        ValueError: One holds a line end, which libcurl would send as it is.
    """
    lines = [f"{name}: {value}" for name, value in source.headers().items()]
    if any(mark in line for line in lines for mark in "\r\n\0"):
        raise ValueError("a header of the source holds a line end")
    return ["Accept-Encoding: gzip", *lines]


def _weight(pieces: list[bytes]) -> int:
    return sum(map(len, pieces)) + _PIECE_WEIGHT_BYTES * len(pieces)


def to_cut(transfers: Iterable[Transfer], budget_bytes: int = _CUT_AT_BYTES) -> list[Transfer]:
    """Name the largest transfers, as many as bring the rest within a budget."""
    weights = [
        (_weight(each.chunks) + 2 * _weight(each.lines), id(each), each)  # libcurl has a copy
        for each in transfers
        if len(each.chunks) > 1 or len(each.lines) > _USUAL_LINES
    ]
    excess = sum(weight for weight, _, _ in weights) - budget_bytes
    cut = []
    for weight, _, transfer in sorted(weights, reverse=True):
        if excess <= 0:
            break
        excess -= weight
        cut.append(transfer)
    return cut
