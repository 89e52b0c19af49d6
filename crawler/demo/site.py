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
from typing import Any, Self

from crawler.demo.manners import Manners, Site
from crawler.demo.options import add_arguments, read_manners
from crawler.demo.server import Server

__all__ = ["DemoSite", "Manners", "add_arguments", "main", "serve"]


class DemoSite:
    """A song site on a free loopback port, in a thread of its own, until it is closed.

    Attributes:
        base_url: Where it is, without a slash at the end; songs are at `{base_url}/songs/{number}`.
        token: The token it wants.
    """

    def __init__(self, port: int = 0, **manners: Any) -> None:
        """Start it.

        Args:
            port: 0 takes a free one.
            manners: The fields of `crawler.demo.manners.Manners`.

        Raises:
            OSError: The port is taken, or not ours to take.
        """
        self._site = Site(Manners(**manners))
        listener = _listen(port)
        self.base_url = _base_url(listener)
        self.token = self._site.manners.token
        self._stopped = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name="demo-site", daemon=True
        )
        self._thread.start()

    def stats(self) -> dict[str, Any]:
        """Say what was counted so far, with `arrivals`; from any thread, also after `close`.

        Returns:
            The dict of `crawler.demo.counts.Counts.snapshot`.
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


def serve(port: int, manners: Manners, announce: Callable[[str], None]) -> None:
    """Run a site in this thread, which must be the main one, until SIGTERM or Ctrl-C.

    Args:
        port: 0 takes a free one.
        manners: How it behaves.
        announce: Gets the address, once the site can be reached there.

    Raises:
        OSError: The port is taken, or not ours to take.
    """
    asyncio.run(_serve(port, manners, announce))


async def _serve(port: int, manners: Manners, announce: Callable[[str], None]) -> None:
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
        await _answer_until(stopped, Site(manners), listener)
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
        serve(args.port, read_manners(args), announce)
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
