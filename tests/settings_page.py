"""`python -m tests.settings_page` prints the page `docs/settings.md`."""

import sys

from crawler.settings.settings import SETTINGS, Setting


def settings_page() -> str:
    """Write the page `docs/settings.md`."""
    head = ["name", "option", "type", "unit", "default", "bounds", "meaning"]
    lines = [
        " | ".join(cell.replace("|", "\\|") for cell in _cells(row)) for row in SETTINGS.values()
    ]
    table = [" | ".join(head), " | ".join("---" for _ in head), *lines]
    return _PAGE_HEAD + "".join(f"| {line} |\n" for line in table)


_PAGE_HEAD = """# Settings

Each is an environment variable, or a line `NAME=value` in a git-ignored `crawler.env`: beside `main.py` for the function, in the working directory for the command line.
An option of the command line wins over the environment, and that over the file; an empty value counts as unset.
In Python they are arguments of `crawl()` by the same word in small letters: `crawl(1, 2001, rate=20)`.
They are read and checked once, before the first request; an unknown name that begins with `CRAWLER_` is an error.
The variables that Kubernetes sets for a service named `crawler`, such as `CRAWLER_SERVICE_HOST`, are left alone.
This page is written by `python -m tests.settings_page > docs/settings.md`.

"""


def _cells(row: Setting) -> list[str]:
    names = ", also ".join((row.variable, *row.also))
    return [
        names,
        f"`{row.option}`" if row.option else "",
        row.type,
        row.unit,
        row.default,
        row.bounds,
        row.meaning,
    ]


if __name__ == "__main__":
    sys.stdout.write(settings_page())
