"""Reading `crawler.env` and `deploy.env`: lines `NAME=value`, and a word on the one that is none."""

import io
from pathlib import Path

from crawler.errors import SettingsError


def read_env_file(path: Path | None) -> dict[str, str]:
    """Read a file of `NAME=value` lines as values by name; an empty dict where there is none.

    A line that is none ends it, for the setting in it would silently have its default: a crawl at
    100 requests a second in place of the 3 that somebody wrote as `CRAWLER_RATE 3`.

    Raises:
        SettingsError: The file cannot be read, or one of its lines; the message names the line,
            and does not show it, since it may hold the token.
    """
    if path is None or not path.is_file():
        return {}
    from dotenv.parser import parse_stream  # 10 ms, and no file is uploaded to the cloud

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "env_file_unreadable", path.name, f"{path.name} cannot be read: {error}"
        ) from None
    values = {}
    # Not dotenv_values: it goes on after a line that it cannot read. A `$` stays a dollar.
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key is not None and line.value is None):
            raise SettingsError(
                "env_file_malformed",
                path.name,
                f"line {line.original.line} of {path.name} must be NAME=value",
            )
        if line.key is not None:
            values[line.key] = line.value or ""
    return values
