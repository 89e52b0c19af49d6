"""Sources without code: what a TOML file declares, made what the crawl asks pages with."""

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from crawler.errors import SettingsError
from crawler.source.declaration import PLACEHOLDER, Declaration, mistake, read_declaration
from crawler.source.pages import FieldRow, PageReader
from crawler.source.source import Field

BUILT_IN = Path(__file__).parent
"""Where the declarations lie that are known by their name alone."""


class DeclaredSource:
    """A source as a file declares it; see `Source` and `Traits` for its attributes."""

    def __init__(
        self,
        declaration: Declaration,
        token: str = "",
        *,
        base_url: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> None:
        """Make the source of one run.

        Args:
            declaration: What was declared.
            token: What its placeholder stands for.
            base_url: Asked instead of the declared address.
            fields: Dotted names inside the record, kept instead of the declared fields.

        Raises:
            SettingsError: Web pages cannot be read here, or have no dotted names.
        """
        document, shape = declaration.document, declaration.shape
        self.name, self.schema = document.name, document.schema
        if fields is not None:
            shape = shape._replace(fields=chosen_fields(declaration, fields))
            self.schema += f":{','.join(dict.fromkeys(fields))}"
        self.fields, self.rate = shape.fields, document.rate
        self.robots = shape.is_html if document.robots is None else document.robots
        self.redirects = document.redirects
        # Web pages take their time, and who follows asks several times: both in threads of their own.
        self.reads_on_wire = not shape.is_html and document.redirects == "fail"
        self.rate_headers: dict[str, str] = msgspec.to_builtins(document.rate_headers)
        self.secrets = tuple(dict.fromkeys((token, quote(token, safe="")))) if token else ()
        self._headers = {
            name: value.replace("{token}", token) for name, value in document.headers.items()
        }
        base_url = (base_url or declaration.base_url).rstrip("/")
        # At another address, such as a test's, other numbers are there.
        self.canary = document.canary if base_url == declaration.base_url else None
        self._address = address_of(document.url, base_url, token)
        self._reader = PageReader(shape, self._address)
        self._info, self.odd = self._reader.info, self._reader.odd

    def url(self, song_num: int) -> str:
        """Return the address of a page."""
        return self._address(song_num)

    def info(self, song_num: int, body: bytes) -> dict[str, Any]:
        """Take the declared fields from a page, by their names.

        Raises:
            PageError: `json`, `schema` or `mismatch`.
            Missing: The page says that there is none.
        """
        return self._info(song_num, body)

    def look(self, song_num: int, body: bytes) -> list[FieldRow]:
        """Return what would be kept of a page, field by field, for people to look at.

        Raises:
            PageError, Missing: As `info`.
        """
        return self._reader.explain(song_num, body)

    def headers(self) -> dict[str, str]:
        """Return what to send, the token among it."""
        return dict(self._headers)


def open_source(
    name: str,
    token: str = "",
    *,
    base_url: str | None = None,
    fields: Sequence[str] | None = None,
) -> DeclaredSource:
    """Make the source that a name or a file stands for; see `DeclaredSource`.

    Raises:
        SettingsError: It cannot be read.
    """
    return DeclaredSource(load_declaration(name), token, base_url=base_url, fields=fields)


def built_in_names() -> list[str]:
    """Return the names of the sources that need no file."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load_declaration(name: str) -> Declaration:
    """Read the declaration of a built-in source, or of a file whose name ends in `.toml`.

    Raises:
        SettingsError: There is none of that name, or something is wrong with it.
    """
    file = Path(name) if name.endswith(".toml") else BUILT_IN / f"{name}.toml"
    if not name.endswith(".toml") and name not in built_in_names():
        near = difflib.get_close_matches(name, built_in_names(), n=1, cutoff=0)
        raise mistake(f"there is no source {name!r}: did you mean {near[0]}, or a .toml file?")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise mistake(f"{file} cannot be read: {error}") from error
    return read_declaration(text, file)


def chosen_fields(declaration: Declaration, names: Sequence[str]) -> tuple[Field, ...]:
    """Return fields for dotted names; what is declared under such a path keeps its type.

    Raises:
        SettingsError: The source reads web pages.
    """
    if declaration.shape.is_html:
        raise SettingsError(
            "fields_unfit",
            "CRAWLER_FIELDS",
            f"CRAWLER_FIELDS names parts of JSON, and {declaration.name} reads web pages: "
            f"choose in {declaration.file}",
        )
    types = {field.path: field.type for field in declaration.shape.fields}
    paths = {name: tuple(name.split(".")) for name in names}
    return tuple(Field(name, path, types.get(path, "json")) for name, path in paths.items())


def address_of(template: str, base_url: str, token: str = "") -> Callable[[int], str]:
    """Make the function from a number to its address; the token is percent-encoded."""
    fixed = {"base_url": base_url, "token": quote(token, safe="")}
    texts, formats = [""], []
    for place, part in enumerate(PLACEHOLDER.split(template)):  # text, placeholder, text, ...
        if place % 2 and part not in fixed:
            formats.append(part.partition(":")[2])
            texts.append("")
        else:
            texts[-1] += fixed[part] if place % 2 else part
    before, *after = texts
    if formats == [""]:
        after_it = after[0]
        return lambda song_num: f"{before}{song_num}{after_it}"
    pairs = list(zip(formats, after, strict=True))
    return lambda song_num: before + "".join(f"{song_num:{form}}{text}" for form, text in pairs)
