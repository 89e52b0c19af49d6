"""The options that commands share, and the settings they make together with the environment."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crawler.logs import configure_logging
from crawler.settings.reading import Settings, read_settings

ENV_FILE = Path("crawler.env")
"""Read where the command is called, beside `main.py`."""

SETTINGS = ("store", "base_url", "rate", "connections", "engine", "function")
"""Fields of `Settings` that are options, by the same word: `CRAWLER_BASE_URL`, `--base-url`."""

VERBATIM = argparse.RawDescriptionHelpFormatter
"""Leaves the examples at the end of a help text as they are laid out."""


def store_options(store: str = "data/genius") -> argparse.ArgumentParser:
    """Make the options of every command that opens a store, by default the one named here."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument_group("where and how").add_argument
    add("--store", metavar="WHERE", help=f"folder or gs://bucket/prefix (default: {store})")
    add("--json", action="store_true", help="print the answer as JSON, and nothing else, on stdout")
    add("-v", "--verbose", action="count", default=0, help="tell what happens; twice: everything")
    return parser


def pace_options(rate: int = 100) -> argparse.ArgumentParser:
    """Make the options of a command that sends requests, `rate` of them a second by default."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument_group("pace").add_argument
    add("--rate", metavar="N", help=f"requests per second; 0: no limit (default: {rate})")
    add("--connections", metavar="N", help="requests under way at once (default: 64)")
    add("--engine", choices=("curl", "requests"), help="how to send them (default: what fits)")
    return parser


def site_options() -> argparse.ArgumentParser:
    """Make the options of a command that asks a site of the user's choice."""
    parser = argparse.ArgumentParser(add_help=False)
    add = parser.add_argument_group("the site").add_argument
    add("--base-url", metavar="URL", help="address of the site (default: the Genius API)")
    add("--function", metavar="MODULE:NAME", help="your own step 1 function or source")
    return parser


def settings_of(args: argparse.Namespace, **more: Any) -> Settings:
    """Read the settings; what was given as an option wins over environment and `crawler.env`.

    Raises:
        SettingsError: A setting is missing or malformed.
    """
    settings = read_settings(os.environ, env_file=ENV_FILE, **overrides_of(args), **more)
    if settings.genius_token is not None:
        set_up_logs(args, secrets=[settings.genius_token.reveal()])
    return settings


def store_settings_of(args: argparse.Namespace) -> Settings:
    """Read the settings of a command that looks at a store and asks the site for nothing.

    Such a command needs neither token nor contact, so stand-ins keep it from asking for them.
    """
    return settings_of(args, genius_token="unused", base_url="http://127.0.0.1")  # noqa: S106


def given_options(args: argparse.Namespace) -> dict[str, str]:
    """Map settings to the options they came from, for messages: `CRAWLER_RATE` to `--rate`."""
    return {f"CRAWLER_{name.upper()}": f"--{name.replace('_', '-')}" for name in overrides_of(args)}


def set_up_logs(args: argparse.Namespace, *, secrets: Sequence[str] = ()) -> None:
    """Send what is logged to stderr: warnings, with -v what happens, with -vv everything."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    configure_logging(os.environ, sys.stderr, secrets=secrets)
    logging.getLogger().setLevel(levels[min(getattr(args, "verbose", 0), 2)])


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the settings that were given as options."""
    given = {name: getattr(args, name, None) for name in SETTINGS}
    return {name: value for name, value in given.items() if value is not None}
