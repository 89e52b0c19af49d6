"""The commands `demo` and `demo-site`: the whole thing on this machine, with songs made up."""

import argparse
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import msgspec

from crawler.answer import Answer
from crawler.cli.crawl import exit_code
from crawler.cli.options import VERBATIM, setting_options, store_options
from crawler.cli.processes import call, demo_environment, function, song_site
from crawler.cli.words import answer_lines, command
from crawler.demo.manners import DEMO_TOKEN
from crawler.demo.options import add_arguments
from crawler.errors import CrawlerError

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


def add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `demo` to the command line."""
    parser = commands.add_parser(
        "demo",
        help="see it work: 2,000 made-up songs, no token, no internet",
        description=_DEMO,
        epilog=_DEMO_EXAMPLES,
        formatter_class=VERBATIM,
        parents=[store_options("data/demo"), setting_options("pace", "connections", rate=RATE)],
    )
    parser.add_argument("--serve", action="store_true", help="keep both up until Ctrl-C")
    parser.set_defaults(run=demo)


def add_demo_site(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command `demo-site` to the command line."""
    parser = commands.add_parser(
        "demo-site",
        help="serve made-up songs as the Genius API does",
        description=_SITE,
        epilog=_SITE_EXAMPLES,
        formatter_class=VERBATIM,
    )
    add_arguments(parser)
    parser.set_defaults(run=_demo_site)


def demo(args: argparse.Namespace) -> int:
    """Run the demo as the command says; returns the exit code.

    Raises:
        CrawlerError: The site or the function did not start, or refused the request.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the two processes, too
    say = _say_nothing if args.json else print
    store = args.store or "data/demo"
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(song_site())
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
        answer = _trigger(url)
        print(json.dumps(answer, indent=None if args.json else 2), flush=True)
        _show(answer, store, args, say)
        if args.serve:
            _serve(url, say)
    return exit_code(msgspec.convert(answer, Answer))


def _trigger(url: str) -> Any:
    status, answer = call(url, "POST", REQUEST)
    if status != 200 and "stopped_by" not in answer:
        raise CrawlerError(f"the function answered {status}: {json.dumps(answer)}")
    return answer


def _show(answer: Any, store: str, args: argparse.Namespace, say: Any) -> None:
    """Tell people what came of it, and where to look."""
    say()
    for line in answer_lines(msgspec.convert(answer, Answer), command(args.argv)):
        say(line)
    if args.json or "://" in store:
        return
    say("Some of the tuples (song_num, info):")
    for song_num, info in _some_tuples(store):
        say(f"  ({song_num}, {json.dumps(info, ensure_ascii=False)})")
    say(f"The blocks, one line of JSON for each number: {Path(store, 'songs')}")
    say(f"More: {command(['status', '--store', store])}")


def _some_tuples(store: str, how_many: int = 3) -> list[tuple[int, Any]]:
    from crawler.store.block import block_name, decode_block

    name = block_name(0)
    records = decode_block(Path(store, name).read_bytes(), name)
    found = [(num, record.info) for num, record in records.items() if record.outcome == "found"]
    return found[:how_many]


def _serve(url: str, say: Any) -> None:
    say()
    say("Both stay up until Ctrl-C. Try:")
    say(f"  curl '{url}/?start=2001&stop=3001'")
    say(f"  curl {url}/status")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def _say_nothing(*_: object) -> None:
    """Keep stdout for the answer alone."""


def _demo_site(args: argparse.Namespace) -> int:
    from crawler.demo.site import main  # asyncio, which no other command waits for

    return main(args)
