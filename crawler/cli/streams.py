"""The standard streams of a program, where one is closed or does not take what is written."""

import contextlib
import errno
import os
import sys

EXIT_UNREAD = 141
"""What a shell expects of a program whose output nobody reads any more: 128 + SIGPIPE."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a full disk, quota or limit, or a terminal that is gone, says to who writes to it."""


def open_closed_streams() -> None:
    """Let the streams that are closed, as by `>&-` or a supervisor, lead nowhere.

    Python has None in their place, which nothing can be printed to. Worse, the next file that is
    opened, a block or a connection, would get the number of the stream, and what C code or a signal
    handler writes to it.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the lowest free number is the one that is missing
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it is no path of anybody's, and stays open


def discard_output() -> None:
    """Throw away what stdout still holds, or Python's own flush at the end would complain."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - it is no path of anybody's
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def complain(line: str) -> None:
    """Write a line to stderr; where it does not take any, nobody can be told."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
