"""The options of the embedded site on a command line, each with its bounds."""

import argparse
from collections.abc import Callable
from typing import TypeVar

from crawler.demo.manners import DEMO_TOKEN, FAULT_KINDS, LAST_SONG, Manners

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


def read_manners(args: argparse.Namespace) -> Manners:
    """Read how the site is to behave from the options given."""
    return Manners(
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
