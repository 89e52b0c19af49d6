"""Values of a page without types: read, looked up by a path, and made what a field is declared."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import UNSET, UnsetType

from crawler.errors import PageError
from crawler.source.source import FieldType

Path = tuple[str, ...]

MAX_DEPTH = 64
"""A value nested deeper than this is not kept, so that every reader can read it back."""


ABSENT = UNSET
"""What stands at a path that leads nowhere; null is None."""


class Amid(NamedTuple):
    """What stands at a path that leads through a value without names, such as a text."""

    value: Any


def read_json(body: bytes) -> Any:
    """Read JSON as it is meant, with a byte order mark and halves of surrogate pairs.

    An integer of more than 4,300 digits is no JSON that anybody could read (Python's own limit).

    Raises:
        PageError: `json`.
    """
    try:
        text = str(body.removeprefix(b"\xef\xbb\xbf"), "utf-8")  # of bytes it guesses the encoding
        return json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise PageError("json", "not UTF-8") from None
    except RecursionError:
        raise PageError("json", "nested too deep") from None
    except ValueError:
        raise PageError("json", "not JSON") from None


def walk(value: Any, path: Path) -> Any:
    """Return what stands at a path, `ABSENT` where it leads nowhere.

    A path through a list gives the list of what each entry has.
    """
    for place, name in enumerate(path):
        if value is None:
            return ABSENT
        if isinstance(value, list):
            entries = [walk(entry, path[place:]) for entry in value]
            return [None if isinstance(each, UnsetType | Amid) else each for each in entries]
        if not isinstance(value, dict):
            return Amid(value)
        value = value.get(name, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def fit(value: Any, wanted: FieldType) -> tuple[Any, bool]:
    """Make a value what a field is declared to be; null where it cannot be that.

    `12.0` and `"12"` are 12 for an integer, 12 is `"12"` for a text: nothing is lost.

    Returns:
        The value, and whether what came is odd.
    """
    if value is None or value is ABSENT:
        return None, False
    made = None if isinstance(value, Amid) else _FITTERS[wanted](value)
    return made, made is None


def is_deep(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a value is nested deeper than so many parts."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(is_deep(entry, depth - 1) for entry in inside)


def short(value: Any) -> str:
    """Show what came in a few words."""
    if isinstance(value, Amid):
        return f"inside {short(value.value)}"
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = "absent" if value is ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and math.isfinite(value) else None


def _integer(value: Any) -> int | None:
    is_digits = isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", value)
    if is_digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and -(2**63) <= value < 2**63 else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        made = float(value)
    except (ValueError, OverflowError):
        return None
    return made if math.isfinite(made) else None


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


_FITTERS: dict[FieldType, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "json": lambda value: None if is_deep(value) else value,
}


def _refuse_constant(name: str) -> float:
    raise ValueError(name)
