"""The settings are read once, at the edge: from environment, `crawler.env` and options.

`python -m crawler.settings` prints the page `docs/settings.md`.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from crawler.errors import SettingsError
from crawler.settings.checks import check_settings, is_loopback, malformed
from crawler.settings.env_file import read_env_file
from crawler.settings.fields import (
    ENV_NAMES,
    MAX_SONG_NUM,
    TOKEN_NAMES,
    Secret,
    Settings,
    SongNum,
)
from crawler.settings.table import SettingRow, settings_page, settings_table

__all__ = [
    "MAX_SONG_NUM",
    "Secret",
    "SettingRow",
    "Settings",
    "SongNum",
    "is_loopback",
    "read_settings",
    "settings_page",
    "settings_table",
]


def read_settings(
    environ: Mapping[str, str],
    *,
    env_file: Path | None = None,
    for_site: bool = True,
    **overrides: Any,
) -> Settings:
    """Read and check the settings; options win over the environment, and that over the file.

    An empty variable counts as unset. The environment is not changed.

    Args:
        environ: The process environment, with `K_SERVICE` in it when running in the cloud.
        env_file: A file of `NAME=value` lines; ignored where there is none.
        for_site: False for what only looks at the store: token and contact may then be absent.
        overrides: Fields of `Settings` by name, such as `rate=5`; None counts as given.

    Raises:
        SettingsError: With a code, the variable's name, and what is wanted.
    """
    given = _known(read_env_file(env_file)) | _known(environ)
    given |= {_env_name(field): value for field, value in overrides.items()}
    settings = _convert(given)
    check_settings(settings, for_site=for_site)
    if "K_SERVICE" in environ and ENV_NAMES["store"] not in given:
        raise SettingsError(
            "store_missing",
            "CRAWLER_STORE",
            "CRAWLER_STORE is required in the cloud, such as gs://my-bucket/genius",
        )
    return settings


def _known(environ: Mapping[str, str]) -> dict[str, Any]:
    """Pick our own variables, by their first name, without the empty ones."""
    known = set(ENV_NAMES.values())
    for name in environ:
        if name.startswith("CRAWLER_") and name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise SettingsError(
                "setting_unknown", name, f"{name} is not a setting; did you mean {nearest}?"
            )
    given: dict[str, Any] = {name: environ[name] for name in known if environ.get(name)}
    token = next((environ[name] for name in TOKEN_NAMES if environ.get(name)), None)
    return given if token is None else given | {TOKEN_NAMES[0]: token}


def _env_name(field: str) -> str:
    """Say which variable an option stands for; a misspelt one is told what it may have meant."""
    if field in ENV_NAMES:
        return ENV_NAMES[field]
    nearest = difflib.get_close_matches(field, ENV_NAMES, n=1)
    known = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(ENV_NAMES)}"
    raise SettingsError("setting_unknown", field, f"{field} is not a setting; {known}")


def _convert(given: dict[str, Any]) -> Settings:
    """Turn strings into typed fields, or raise for the first that is out of its bounds."""
    fields_name = ENV_NAMES["fields"]
    if isinstance(given.get(fields_name), str):
        given[fields_name] = [part.strip() for part in given[fields_name].split(",")]
    try:
        return msgspec.convert(given, Settings, strict=False, dec_hook=_decode_secret)
    except msgspec.ValidationError as error:
        name = re.findall(r"\$\.(\w+)", str(error))[-1]
        row = next(row for row in settings_table() if row.name == name)
        field = next(field for field, env_name in ENV_NAMES.items() if env_name == name)
        raise malformed(field, row.wanted, given[name]) from None


def _decode_secret(_wanted: type, value: Any) -> Any:
    return value if isinstance(value, Secret) else Secret(str(value))
