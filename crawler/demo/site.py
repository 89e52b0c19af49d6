"""The embedded song site: a loopback stand-in for the Genius API, as a thread or a command."""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from crawler.demo.behaviour import DEMO_TOKEN, FAULT_KINDS, LAST_SONG, Site, SiteBehaviour
from crawler.demo.server import Server

_HELP = {
    "last": "beyond this number there are no songs (default: %(default)s)",
    "rate_limit": "requests per second above which it answers 429",
    "retry": "what a 429 or 503 tells the client to wait (default: 1)",
    "faults": "share of requests that get a fault, 0 to 1; each number succeeds in the end",
    "kinds": f"which faults, with commas between them (default: {','.join(FAULT_KINDS)})",
    "outage": "from START seconds after the first request, for SECONDS, every answer is STATUS "
    "(default: 503)",
}

_N = TypeVar("_N", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo site to a command's parser."""
    add = parser.add_argument
    port = _number(int, 0, 65_535)
    seconds = _number(float, 0, 3600)
    whole_seconds = _number(int, 0, 10**9)
    add("--port", type=port, default=0, help="loopback port; 0, the default, takes a free one")
    add("--token", default=DEMO_TOKEN, help="the token it wants (default: %(default)s)")
    add(
        "--last-song",
        type=_number(int, 0, 10**15),
        default=LAST_SONG,
        metavar="N",
        help=_HELP["last"],
    )
    add("--latency", type=seconds, default=0.0, metavar="SECONDS", help="wait before each answer")
    add("--rate-limit", type=_number(float, 0.001, 1e9), metavar="N", help=_HELP["rate_limit"])
    add("--retry-after", type=whole_seconds, default=1, metavar="SECONDS", help=_HELP["retry"])
    add("--faults", type=_number(float, 0, 1), default=0.0, metavar="SHARE", help=_HELP["faults"])
    add("--fault-kinds", type=_kinds, default=FAULT_KINDS, metavar="KINDS", help=_HELP["kinds"])
    add("--outage", type=_outage, metavar="START:SECONDS[:STATUS]", help=_HELP["outage"])
    add("--gzip", action="store_true", help="compress answers for clients that accept it")


def read_behaviour(args: argparse.Namespace) -> SiteBehaviour:
    """Read how the site is to behave from the options given."""
    return SiteBehaviour(
        token=args.token,
        last_song=args.last_song,
        latency_seconds=args.latency,
        rate_limit=args.rate_limit,
        retry_after_seconds=args.retry_after,
        fault_share=args.faults,
        fault_kinds=args.fault_kinds,
        outage=args.outage,
        gzip=args.gzip,
    )


def _number(kind: Callable[[str], _N], least: float, most: float) -> Callable[[str], _N]:
    """Make a reader of numbers from `least` to `most`, both included."""

    def read(text: str) -> _N:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text}") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least} to {most}, got {text}")
        return value

    return read


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if not set(kinds) <= set(FAULT_KINDS):
        raise argparse.ArgumentTypeError(f"must be out of {','.join(FAULT_KINDS)}, got {text}")
    return kinds


def _outage(text: str) -> tuple[float, float, int]:
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise argparse.ArgumentTypeError(
            f"must be START:SECONDS or START:SECONDS:STATUS, got {text}"
        )
    seconds, status = _number(float, 0, 1e9), _number(int, 400, 599)
    return seconds(parts[0]), seconds(parts[1]), status(parts[2]) if len(parts) == 3 else 503


__all__ = ["DemoSite", "SiteBehaviour", "add_arguments", "main", "serve"]


class DemoSite:
    """A song site on a free loopback port, in a thread of its own, until it is closed.

    Attributes:
        base_url: Where it is, without a slash at the end; songs are at `{base_url}/songs/{number}`.
        token: The token it wants.
    """

    def __init__(self, port: int = 0, **behaviour: Any) -> None:
        """Start it.

        Args:
            port: 0 takes a free one.
            behaviour: The fields of `crawler.demo.behaviour.SiteBehaviour`.

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
        """Return what was counted so far, with `arrivals`; from any thread, also after `close`.

        Returns:
            The dict of `crawler.demo.behaviour.Counts.snapshot`.
        """
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(_answer_until(self._stopped, self._site, listener))

    async def _snapshot(self) -> dict[str, Any]:
        return self._site.counts.snapshot(arrivals=True)


def serve(port: int, behaviour: SiteBehaviour, announce: Callable[[str], None]) -> None:
    """Run a site in this thread, which must be the main one, until SIGTERM or Ctrl-C.

    Args:
        port: 0 takes a free one.
        behaviour: How it behaves.
        announce: Gets the address, once the site can be reached there.

    Raises:
        OSError: The port is taken, or not ours to take.
    """
    asyncio.run(_serve(port, behaviour, announce))


async def _serve(port: int, behaviour: SiteBehaviour, announce: Callable[[str], None]) -> None:
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
    loop = asyncio.get_running_loop()
    shared = Server(site, loop)
    server = await loop.create_server(shared.connect, sock=listener, backlog=1024)
    try:
        await stopped.wait()
    finally:
        # Python 3.11 and 3.12 trip over a client accepted just before the server closes (gh-109564).
        with contextlib.suppress(NotImplementedError):  # Windows has no readers
            loop.remove_reader(listener)
        await _let_the_loop_turn()
        server.close()
        shared.cut()
        await _let_the_loop_turn()  # sockets are closed a turn later


async def _let_the_loop_turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def _listen(port: int) -> socket.socket:
    """Open the port on loopback, so that clients may connect from now on."""
    return socket.create_server(("127.0.0.1", port), backlog=1024)


def _base_url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def main(args: argparse.Namespace) -> int:
    """Run the demo site as a command says, until SIGTERM or Ctrl-C; returns the exit code.

    The one line it prints begins with the address, which ends at the first space.
    """

    def announce(base_url: str) -> None:
        words = f"answers as the song site, with the token {args.token}; Ctrl-C ends it."
        print(f"{base_url} {words}", flush=True)

    try:
        serve(args.port, read_behaviour(args), announce)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        print(
            f"--port {args.port} cannot be used: {why}; --port 0 takes a free one", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="python -m crawler.demo.site", description=__doc__)
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
