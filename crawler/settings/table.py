"""The table of settings, made from the record itself: for messages, documents and tests."""

from typing import NamedTuple, cast

import msgspec

from crawler.settings.fields import Settings


class SettingRow(NamedTuple):
    """One line of the table of settings, as text."""

    name: str
    type: str
    unit: str
    default: str
    bounds: str
    meaning: str
    wanted: str
    """What is allowed, as one phrase for a message; not a column of the page."""


def settings_table() -> list[SettingRow]:
    """Describe every setting, in the struct's own order, from the struct itself."""
    info = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(Settings))
    return [_row(field) for field in info.fields]


def settings_page() -> str:
    """Write the page `docs/settings.md`."""
    head = ["name", "type", "unit", "default", "bounds", "meaning"]
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row[:-1]) for row in settings_table()]
    table = [" | ".join(head), " | ".join("---" for _ in head), *lines]
    return _PAGE_HEAD + "".join(f"| {line} |\n" for line in table)


_PAGE_HEAD = """# Settings

Each is an environment variable, or a line `NAME=value` in a git-ignored `crawler.env`: beside `main.py` for the function, in the working directory for the command line.
An option of the command line wins over the environment, and that over the file; an empty value counts as unset.
They are read and checked once, before the first request; an unknown name that begins with `CRAWLER_` is an error.
`GENIUS_TOKEN` is also read as `GENIUS_ACCESS_TOKEN`.
This page is written by `python -m crawler.settings > docs/settings.md`.

"""


def _row(field: msgspec.inspect.Field) -> SettingRow:
    kind = field.type
    unit = meaning = wanted = ""
    while isinstance(kind, msgspec.inspect.Metadata):
        unit = (kind.extra or {}).get("unit", unit)
        wanted = (kind.extra or {}).get("wanted", wanted)
        meaning = (kind.extra_json_schema or {}).get("description", meaning)
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, msgspec.inspect.NoneType))
    word, bounds = _type_word(kind), _bounds(kind)
    wanted = wanted or (f"{word}, {bounds}" if bounds else word)
    return SettingRow(field.encode_name, word, unit, _default_text(field), bounds, meaning, wanted)


def _type_word(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in kind.values)
    words: dict[type[msgspec.inspect.Type], str] = {
        msgspec.inspect.IntType: "a whole number",
        msgspec.inspect.FloatType: "a number",
        msgspec.inspect.BoolType: "1 or 0",
        msgspec.inspect.VarTupleType: "names",
        msgspec.inspect.CustomType: "secret",
    }
    return words.get(type(kind), "text")


def _default_text(field: msgspec.inspect.Field) -> str:
    default = field.default
    if isinstance(default, bool | float):
        return f"{default:g}"
    return "" if default is None else str(default)


def _bounds(kind: msgspec.inspect.Type) -> str:
    """Say which numbers are allowed, in words; empty for what is no number."""
    if not isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        return ""
    parts = [
        f"{word} {bound:,}"
        for word, bound in (
            ("at least", kind.ge),
            ("above", kind.gt),
            ("at most", kind.le),
            ("a multiple of", kind.multiple_of),
        )
        if bound is not None
    ]
    return ", ".join(parts)
