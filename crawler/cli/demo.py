"""The commands `demo` and `demo-site`: the whole thing on this machine, with songs made up."""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from crawler.answer import Answer
from crawler.cli.crawl import exit_code
from crawler.cli.options import (
    Commands,
    add_command,
    answer_lines,
    command,
    setting_options,
    store_options,
)
from crawler.demo.behaviour import DEMO_TOKEN, FAULT_KINDS, SiteBehaviour
from crawler.errors import CrawlerError
from crawler.settings.settings import environment_of

REQUEST = {"start": 1, "stop": 2001}
RATE = 500
"""Five times the pace of a deployment, since nobody else uses this site: 2,000 songs in 4 s."""

_DEMO = """\
See the main job at work, without a token and without the internet.

Starts a site of made-up songs and the function (in the real functions-framework) on free loopback
ports, triggers the function over HTTP for songs 1 to 2000, and shows its answer, some tuples and
where the blocks lie. The second time it finds everything settled, and asks the site nothing."""

_DEMO_EXAMPLES = """\
examples:
  %(prog)s                     into data/demo
  %(prog)s --serve             keep both up until Ctrl-C, to try requests of one's own
  %(prog)s --rate 0 --store /tmp/songs"""

_SITE = """\
Answer as the Genius API does, on loopback, with songs made up; about 9 in 100 numbers are missing.

Prints its address and its token. It counts what it serves, can be slow, can limit the rate and can
fail on request."""

_SITE_EXAMPLES = """\
examples:
  %(prog)s --port 8000
  %(prog)s --latency 0.1 --rate-limit 200 --retry-after 2
  %(prog)s --faults 0.05
then, in another terminal:
  GENIUS_TOKEN=demo-token python -m crawler crawl 1 2001 \\
    --base-url http://127.0.0.1:8000 --store data/try"""


def add_commands(commands: Commands) -> None:
    """Add these commands to the command line."""
    summary = "see it work: 2,000 made-up songs, no token, no internet"
    options = store_options("data/demo"), setting_options("pace", "connections", rate=RATE)
    parser = add_command(commands, "demo", demo, summary, _DEMO, _DEMO_EXAMPLES, *options)
    parser.add_argument("--serve", action="store_true", help="keep both up until Ctrl-C")
    summary = "serve made-up songs as the Genius API does"
    parser = add_command(commands, "demo-site", demo_site, summary, _SITE, _SITE_EXAMPLES)
    _add_site_options(parser)


def demo(args: argparse.Namespace) -> int:
    """Run the demo as the command says; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the function, too
    say: Any = (lambda *_: None) if args.json else print  # stdout is for the answer alone
    from crawler.demo.site import DemoSite  # asyncio, which no other command waits for

    store = args.store or "data/demo"
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(DemoSite()).base_url
        environ = demo_environment(
            site,
            DEMO_TOKEN,
            store=store,
            rate=RATE if args.rate is None else args.rate,
            connections=args.connections,
        )
        logs_to_stderr = args.serve or args.verbose > 0
        url = stack.enter_context(function(environ, logs_to_stderr=logs_to_stderr))
        say(f"The song site is at {site}, the function at {url}, in the real functions-framework.")
        say(f"POST / {json.dumps(REQUEST)}")
        status, answer = call(url, "POST", REQUEST)
        if status != 200 and "stopped_by" not in answer:
            raise CrawlerError(f"the function answered {status}: {json.dumps(answer)}")
        print(json.dumps(answer, indent=None if args.json else 2), flush=True)
        _show(answer, store, args, say)
        if args.serve:
            say()
            say("Both stay up until Ctrl-C. Try:")
            say(f"  curl '{url}/?start=2001&stop=3001'")
            say(f"  curl {url}/status")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    return exit_code(msgspec.convert(answer, Answer))


def _show(answer: Any, store: str, args: argparse.Namespace, say: Any) -> None:
    """Print for people what came of it, and where to look."""
    from crawler.store.opening import read

    say()
    for line in answer_lines(msgspec.convert(answer, Answer), command(args.argv)):
        say(line)
    if args.json or "://" in store:
        return
    say("Some of the tuples (song_num, info):")
    for song_num, info in itertools.islice(read(store, *REQUEST.values()), 3):
        say(f"  ({song_num}, {json.dumps(info, ensure_ascii=False)})")
    say(f"The blocks, one line of JSON for each number: {Path(store, 'songs')}")
    say(f"The coverage page, for a browser: {Path(store, 'status.html')}")
    say("More:")
    say(f"  {command(['status', '--store', store])}")
    say(f"  {command(['verify', '1', '2001', '--store', store])}")
    say(f"  {command(['export', 'songs.jsonl', '--store', store])}")


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


def _add_site_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the demo site, each under the name of its field of `SiteBehaviour`."""
    add = parser.add_argument
    port, last = _number(int, 0, 65_535), _number(int, 0, 10**15)
    seconds, whole = _number(float, 0, 3600), _number(int, 0, 10**9)
    limit, share = _number(float, 0.001, 1e9), _number(float, 0, 1)
    usual = SiteBehaviour()
    parser.set_defaults(**dataclasses.asdict(usual))
    add("--port", type=port, default=0, help="loopback port; 0, the default, takes a free one")
    add("--token", help="the token it wants (default: %(default)s)")
    add("--last-song", type=last, metavar="N", help=_HELP["last"])
    latency, wait = "latency_seconds", "retry_after_seconds"
    add("--latency", dest=latency, type=seconds, metavar="SECONDS", help="wait before each answer")
    add("--rate-limit", type=limit, metavar="N", help=_HELP["rate_limit"])
    add("--retry-after", dest=wait, type=whole, metavar="SECONDS", help=_HELP["retry"])
    add("--faults", dest="fault_share", type=share, metavar="SHARE", help=_HELP["faults"])
    add("--fault-kinds", type=_kinds, metavar="KINDS", help=_HELP["kinds"])
    add("--outage", type=_outage, metavar="START:SECONDS[:STATUS]", help=_HELP["outage"])
    add("--gzip", action="store_true", help="compress answers for clients that accept it")


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


def demo_site(args: argparse.Namespace) -> int:
    """Run the demo site as the command says, until SIGTERM or Ctrl-C; returns the exit code.

    The one line it prints begins with the address, which ends at the first space.
    """
    import asyncio  # which no other command waits for

    from crawler.demo.site import serve

    def announce(base_url: str) -> None:
        words = f"answers as the song site, with the token {args.token}; Ctrl-C ends it."
        print(f"{base_url} {words}", flush=True)

    fields = [field.name for field in dataclasses.fields(SiteBehaviour)]
    behaviour = SiteBehaviour(**{name: getattr(args, name) for name in fields})
    try:
        asyncio.run(serve(args.port, behaviour, announce))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        message = f"--port {args.port} cannot be used: {why}; --port 0 takes a free one"
        print(message, file=sys.stderr)
        return 1
    return 0


MAIN = Path(__file__).parents[2] / "main.py"
"""Where it is in a clone."""

READY_SECONDS = 30.0
"""How long the framework may take to start; measured: 0.2 to 0.4 s on two cores."""

_END_SECONDS = 5.0
_ATTEMPTS = 3  # a free port may be taken by somebody else before the framework has it


@contextlib.contextmanager
def function(environ: Mapping[str, str], *, logs_to_stderr: bool) -> Iterator[str]:
    """Run `crawl_songs` in the real functions-framework on a free port; yields its address.

    Args:
        environ: The whole environment of the process.
        logs_to_stderr: Show its log; else it is shown only when the function does not start.

    Raises:
        CrawlerError: There is no `main.py`, or it did not start.
    """
    main = find_main()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        for attempt in range(1, _ATTEMPTS + 1):
            with socket.create_server(("127.0.0.1", 0)) as server:
                port = server.getsockname()[1]
            framework = _framework(main, port, environ, None if logs_to_stderr else log)
            process = stack.enter_context(framework)
            url = f"http://127.0.0.1:{port}"
            if _comes_up(url, process):
                break
            if attempt == _ATTEMPTS or process.poll() is None:
                log.seek(0)
                tail = "".join(log.readlines()[-20:])
                raise CrawlerError(f"the function did not start:\n{tail}")
        yield url


def call(url: str, method: str, body: Any = None, *, timeout: float = 3600.0) -> tuple[int, Any]:
    """Send one request to the function; return its status and the JSON it answers.

    Through no proxy, whatever the environment says, since it is on this machine.
    """
    import requests  # 0.1 s, which no other command waits for

    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(method, url, json=body, timeout=timeout)
        return answer.status_code, answer.json()


def find_main() -> Path:
    """Find `main.py`: beside the package in a clone, else where the package was installed with it.

    Raises:
        CrawlerError: It is in neither place.
    """
    if MAIN.exists():
        return MAIN
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("song-crawler") or ():
            if file.parts[-2:] == ("song-crawler", "main.py"):
                return Path(str(file.locate())).resolve()
    raise CrawlerError("the demo runs main.py, which is not there: run it in a clone")


@contextlib.contextmanager
def _framework(
    main: Path, port: int, environ: Mapping[str, str], log: IO[str] | None
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "functions_framework", "--target", "crawl_songs"]
    command += ["--source", str(main), "--host", "127.0.0.1", "--port", str(port)]
    from crawler.deployment.deployment import THREADS  # which no other command needs

    process = subprocess.Popen(
        command,
        env={"THREADS": str(THREADS), **environ},
        stdin=subprocess.DEVNULL,
        stdout=log or sys.stderr,
        stderr=log,
        text=True,
        start_new_session=True,  # keeps a terminal's Ctrl-C from it: it is ended by us
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _comes_up(url: str, process: subprocess.Popen[str]) -> bool:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):  # what `requests` raises is either
            if call(f"{url}/health", "GET", timeout=5.0)[0] == 200:
                return True
        time.sleep(0.05)
    return False


def demo_environment(site: str, token: str, **settings: object) -> dict[str, str]:
    """Make the function's environment: the process's own, with no setting but those given.

    Settings are values by name, such as `store="data/demo"`; None: not set.
    """
    ours = ("CRAWLER_", "GENIUS_", "K_SERVICE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"CRAWLER_BASE_URL": site, "GENIUS_TOKEN": token}
    return environ | environment_of(settings)
