"""The options that commands share, and the settings they make together with the environment."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crawler.logs import configure_logging
from crawler.settings.reading import SETTINGS, Settings, read_settings

ENV_FILE = Path("crawler.env")
"""Read where the command is called, beside `main.py`."""

VERBATIM = argparse.RawDescriptionHelpFormatter
"""Leaves the examples at the end of a help text as they are laid out."""


def store_options(store: str = "data/genius") -> argparse.ArgumentParser:
    """Make the options of every command that opens a store, by default the one named here."""
    parser = setting_options("where and how", store=store)
    add = parser.add_argument
    add("--json", action="store_true", help="print the answer as JSON, and nothing else, on stdout")
    add("-v", "--verbose", action="count", default=0, help="tell what happens; twice: everything")
    return parser


def setting_options(title: str, *fields: str, **defaults: object) -> argparse.ArgumentParser:
    """Make options of settings, each by its own word; what is given wins over the environment.

    Args:
        title: Of their group in the help text.
        fields: Fields of `Settings` that are options.
        defaults: The same, with a default that differs from that of the settings.
    """
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group(title)
    for name in (*fields, *defaults):
        row = SETTINGS[name]
        assert row.option is not None, f"{name} is no option"
        default = defaults.get(name, row.default)
        meaning = row.meaning.rstrip(".").replace("`", "").replace("%", "%%")
        help_text = f"{meaning} (default: {default})" if default else meaning
        group.add_argument(row.option, metavar=row.metavar, help=help_text)
    return parser


def site_options() -> argparse.ArgumentParser:
    """Make the options of a command that asks a site of the user's choice."""
    return setting_options("the site", "base_url", "function", "ca_file")


def settings_of(args: argparse.Namespace, **more: Any) -> Settings:
    """Read the settings; what was given as an option wins over environment and `crawler.env`.

    Args:
        args: The command line.
        more: Settings that win over the environment where no option is given, or `for_site`.

    Raises:
        SettingsError: A setting is missing or malformed.
    """
    settings = read_settings(os.environ, env_file=ENV_FILE, **(more | overrides_of(args)))
    if settings.genius_token is not None:
        set_up_logs(args, secrets=[settings.genius_token.reveal()])
    return settings


def store_settings_of(args: argparse.Namespace) -> Settings:
    """Read the settings of a command that asks the site for nothing: without token and contact."""
    return settings_of(args, for_site=False)


def given_options(args: argparse.Namespace) -> dict[str, str]:
    """Map settings to the options they came from, for messages: `CRAWLER_RATE` to `--rate`."""
    return {SETTINGS[name].variable: SETTINGS[name].option or "" for name in overrides_of(args)}


def set_up_logs(args: argparse.Namespace, *, secrets: Sequence[str] = ()) -> None:
    """Send what is logged to stderr: warnings, with -v what happens, with -vv everything."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    configure_logging(os.environ, sys.stderr, secrets=secrets)
    logging.getLogger().setLevel(levels[min(getattr(args, "verbose", 0), 2)])


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the settings that were given as options."""
    given = {row.field: getattr(args, row.field, None) for row in SETTINGS.values() if row.option}
    return {name: value for name, value in given.items() if value is not None}
