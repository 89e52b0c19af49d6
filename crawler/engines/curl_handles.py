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

    def forget(self) -> None:
        """Let go of what was received."""
        self.lines.clear()
        self.chunks.clear()


def header_lines(source: Source) -> list[str]:
    """Write the headers of a source as libcurl wants them.

    Raises:
        ValueError: One holds a line end, which libcurl would send as it is.
    """
    lines = [f"{name}: {value}" for name, value in source.headers().items()]
    if any(mark in line for line in lines for mark in "\r\n\0"):
        raise ValueError("a header of the source holds a line end")
    return ["Accept-Encoding: gzip", *lines]


def to_cut(transfers: Iterable[Transfer], budget_bytes: int = _CUT_AT_BYTES) -> list[Transfer]:
    """Name the largest transfers, as many as bring the rest within a budget."""
    weights = [
        (sum(map(len, each.chunks)) + sum(map(len, each.lines)), id(each), each)
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
