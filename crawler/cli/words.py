"""What the command line says to people: commands, answers, errors, and how to go on."""

import getpass
import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from crawler.answer import Answer, why_not_complete
from crawler.errors import CrawlerError
from crawler.request.words import songs


def program() -> str:
    """Say how this program was called, so that what is printed can be pasted."""
    called = Path(sys.argv[0]).name
    return "python -m crawler" if called.startswith("__main__") else called


def command(arguments: Sequence[str]) -> str:
    """Write a command line that a shell reads as it stands."""
    return f"{program()} {shlex.join(arguments)}"


def caller() -> str:
    """Say who calls, for those who read an order later; a container's user may have no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # what it raises depends on the Python and the system
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"
    return f"{user} on {socket.gethostname()}"


def count(number: int, noun: str) -> str:
    """Write a number of things: "1 request", "2,000 requests"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(number_of_bytes: int) -> str:
    """Write the size of a file: "20 kB", "1.5 MB"; nothing is 0 but an empty file."""
    if number_of_bytes < 999_500:
        return f"{-(-number_of_bytes // 1000)} kB"
    return f"{number_of_bytes / 1e6:.1f} MB"


def answer_lines(answer: Answer, repeat: str) -> list[str]:
    """Tell what a run did, why it ended, and the command that goes on where it stopped.

    Args:
        answer: What the run reported.
        repeat: The command line that was run.
    """
    here = songs(answer.start, answer.stop)
    lines = [
        f"{here[0].upper()}{here[1:]}: {answer.found:,} found, {answer.missing:,} missing, "
        f"{answer.failed:,} failed; {answer.skipped:,} were settled before.",
        f"{count(answer.requests, 'request')} in {answer.seconds:.1f} s, "
        f"{answer.mean_rate:.1f} a second; {count(answer.blocks_written, 'block')} written.",
    ]
    if answer.complete:
        return [*lines, "Complete: every number is settled."]
    left = f"{answer.remaining:,} not asked, {answer.failed:,} failed"
    return [*lines, f"Not complete: {left}. {why_not_complete(answer)}", f"To go on: {repeat}"]


def error_lines(error: CrawlerError, given: dict[str, str]) -> list[str]:
    """Write an error, one line for each thing that is wrong, in the names that the caller wrote.

    Args:
        error: What went wrong.
        given: Option by setting name for those on the command line: `CRAWLER_RATE` to `--rate`.
    """
    lines = []
    for message in error.messages:
        text = " ".join(message.split())
        for variable, option in given.items():
            text = re.sub(rf"\b{variable}\b", option, text)
        lines.append(f"{program()}: {text}")
    return lines
