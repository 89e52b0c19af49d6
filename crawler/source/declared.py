"""Sources without code: what a TOML file declares, made what the crawl asks pages with.

JSON is read the quick way first (`crawler.source.compiled`). What that refuses (a value of another
type, a byte order mark, half a surrogate pair, a page that says that there is none) is read again
here, value by value: no odd value costs the page.
"""

import difflib
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from crawler.errors import Missing, PageError, SettingsError
from crawler.source.compiled import Condition, Info, Shape, compile_json
from crawler.source.declaration import PLACEHOLDER, Declaration, mistake, read_declaration
from crawler.source.source import Field
from crawler.source.values import ABSENT, fit, read_json, short, walk

BUILT_IN = Path(__file__).parent
"""Where the declarations lie that are known by their name alone."""

_CHARSET = re.compile(rb"""<meta[^>]{1,200}charset=["']?([\w-]+)""", re.IGNORECASE)
_HEAD_BYTES = 1024  # where a page names its charset (HTML, 13.2.3.2)


class FieldRow(NamedTuple):
    """What one field of a page turned out to be, for people to look at.

    Attributes:
        value: As it is kept.
        where: The path or the selector at which it was looked for.
        trouble: What looks wrong, in words; "" where nothing does.
    """

    name: str
    value: Any
    where: str
    trouble: str


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
        self.odd, self._odd_lock = Counter[str](), threading.Lock()
        self._shape = shape
        slowly = self._read_slowly
        self._parse: Callable[[bytes], Any] = _html_parser(shape) if shape.is_html else read_json
        self._info: Info = slowly if shape.is_html else compile_json(shape, slowly)

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
        record = self._right_record(song_num, body)
        return [_row(record, field) for field in self._shape.fields]

    def headers(self) -> dict[str, str]:
        """Return what to send, the token among it."""
        return dict(self._headers)

    def _read_slowly(self, song_num: int, body: bytes) -> dict[str, Any]:
        record, info = self._right_record(song_num, body), dict[str, Any]()
        for field in self._shape.fields:
            info[field.name], is_odd = fit(_at(record, field.path, field), field.type)
            if is_odd:
                with self._odd_lock:  # web pages are read by several threads
                    self.odd[field.name] += 1
        return info

    def _right_record(self, song_num: int, body: bytes) -> Any:
        """Find the record in a page that is right and about this number."""
        shape = self._shape
        if any(not c.path and c.value == body.strip().decode("latin-1") for c in shape.missing):
            raise Missing
        page = self._parse(body)
        if any(c.path and _holds(_at(page, c.path), c) for c in shape.missing):
            raise Missing
        for condition in shape.ok:
            came = _at(page, condition.path)
            if not _holds(came, condition):
                raise PageError("schema", f"{_where(condition.path)} is {short(came)}")
        record = self._record(page)
        if shape.id is not None:
            self._check_id(song_num, _at(record, shape.id.path, shape.id))
        return record

    def _record(self, page: Any) -> Any:
        path = self._shape.record
        if self._shape.is_html:
            record = page.css_first(path[0]) if path else page
            if record is None:
                raise PageError("schema", f"no element {_where(path)}")
            return record
        record = walk(page, path)
        if not isinstance(record, dict):
            raise PageError("schema", f"{_where(path)} is {short(record)}, not a record")
        return record

    def _check_id(self, song_num: int, came: Any) -> None:
        """Compare as text; a web page may also say its number by its address."""
        if not isinstance(came, int | float | str) or isinstance(came, bool):
            raise PageError("schema", f"the page's own number is {short(came)}")
        text, wanted = str(came), str(song_num)
        is_same = text == wanted or text.lstrip("0") == wanted
        if not is_same and self._shape.is_html:
            is_same = urlsplit(text).path == urlsplit(self._address(song_num)).path
        if not is_same:
            raise PageError("mismatch", f"asked for {song_num}, got {short(came)}")


def _row(record: Any, field: Field) -> FieldRow:
    came = _at(record, field.path, field)
    value, is_odd = fit(came, field.type)
    trouble = "it is null there" if came is None else ""
    if is_odd:
        trouble = f"{short(came)} is no {field.type}"
    elif came is ABSENT:
        trouble = f"there is nothing{_nearest(record, field.path)}"
    where = _where(field.path) + (f" [{field.attr}]" if field.attr else "")
    return FieldRow(field.name, value, where, trouble)


def _nearest(record: Any, path: tuple[str, ...]) -> str:
    for name in path:
        if not isinstance(record, dict):
            return ""
        if name not in record:
            near = difflib.get_close_matches(name, record, n=1)
            return f"; did you mean {near[0]}?" if near else ""
        record = record[name]
    return ""


def _holds(came: Any, condition: Condition) -> bool:
    if condition.test == "equals":
        return type(came) is type(condition.value) and came == condition.value
    if condition.test == "empty":
        return isinstance(came, list | dict | str) and not came
    is_there = came is not None and came is not ABSENT
    return is_there == (condition.test == "present")


def _where(path: tuple[str, ...]) -> str:
    return ".".join(path) if path else "the page"


def _at(part: Any, path: tuple[str, ...], field: Field | None = None) -> Any:
    """Return what stands at a path of plain data, or at a selector of a web page."""
    if isinstance(part, dict | list | str | int | float | None):
        return walk(part, path)
    if field is not None and field.type == "json":
        return [_content(node, field) for node in part.css(path[0])]
    node = part.css_first(path[0])
    return ABSENT if node is None else _content(node, field)


def _content(node: Any, field: Field | None) -> str | None:
    """Return an element's text, blanks made one, or its attribute; None for no such attribute."""
    if field is not None and field.attr:
        value: str | None = node.attributes.get(field.attr)
        return value
    return " ".join(node.text().split())


def _html_parser(shape: Shape) -> Callable[[bytes], Any]:
    """Return the parser of web pages, once all selectors were tried.

    Raises:
        SettingsError: It is not installed, or a selector is none.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser  # only where a source reads web pages
    except ImportError as error:
        raise SettingsError(
            "extra_missing",
            "CRAWLER_SOURCE",
            "selectolax is not installed, which reads web pages: pip install selectolax",
        ) from error
    empty = LexborHTMLParser(b"")
    paths = [field.path for field in shape.fields]
    paths += [condition.path for condition in (*shape.ok, *shape.missing) if condition.path]
    paths += [path for path in (shape.record, shape.id.path if shape.id else ()) if path]
    for (selector,) in paths:
        try:
            empty.css_first(selector)
        except Exception as error:
            message = f"{selector!r} is no CSS selector: {error}"
            raise SettingsError("source_malformed", "CRAWLER_SOURCE", message) from error
    return partial(_parse_html, LexborHTMLParser)


def _parse_html(parser: Callable[[str], Any], body: bytes) -> Any:
    """Read a web page: UTF-8, else the charset that it names, else Windows-1252."""
    named = _CHARSET.search(body[:_HEAD_BYTES])
    for charset in ("utf-8", named[1].decode() if named else "", "cp1252"):
        try:
            return parser(str(body, charset))
        except (UnicodeDecodeError, LookupError):
            continue
    return parser(str(body, "latin-1"))


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
        why = getattr(error, "strerror", error)
        raise mistake(f"{file} cannot be read: {why}") from error
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
