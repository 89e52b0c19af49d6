"""How a body becomes `info`: JSON and HTML of a declared shape, field by field.

JSON is read the quick way first (`crawler.source.compiled`). What that refuses (a value of another
type, a byte order mark, half a surrogate pair, a page that says that there is none) is read again
here, value by value: no odd value costs the page.
"""

import difflib
import re
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from crawler.errors import Missing, PageError, SettingsError
from crawler.source.compiled import Condition, Info, Shape, compile_json
from crawler.source.source import Field
from crawler.source.values import ABSENT, Path, fit, read_json, short, walk

_CHARSET = re.compile(rb"""<meta[^>]{1,200}charset=["']?([\w-]+)""", re.IGNORECASE)
_HEAD_BYTES = 1024  # where a page names its charset (HTML, 13.2.3.2)


class FieldRow(NamedTuple):
    """What one field of a page turned out to be, for people to look at.

    Attributes:
        name: Of the field.
        value: As it is kept.
        where: The path or the selector at which it was looked for.
        trouble: What looks wrong, in words; "" where nothing does.
    """

    name: str
    value: Any
    where: str
    trouble: str


class PageReader:
    """Takes info from pages of one shape.

    Attributes:
        odd: Counts, by field, values that could not be what they are declared to be.
        info: From a number and a body to the info, as `Source.info`.
    """

    def __init__(self, shape: Shape, address: Callable[[int], str]) -> None:
        """Compile the shape.

        Args:
            shape: What a page is like.
            address: Of a page by its number; a web page may say its number by its address.

        Raises:
            SettingsError: A selector is none, or the parser for web pages is not installed.
        """
        self.odd: Counter[str] = Counter()
        self._odd_lock = threading.Lock()
        self._shape, self._address = shape, address
        self._parse: Callable[[bytes], Any] = _html_parser(shape) if shape.is_html else read_json
        self.info: Info = self._info if shape.is_html else compile_json(shape, self._info)

    def explain(self, song_num: int, body: bytes) -> list[FieldRow]:
        """Return what would be kept of a page, field by field.

        Raises:
            PageError: `json`, `schema` or `mismatch`.
            Missing: The page says that there is none.
        """
        record = self._right_record(song_num, body)
        return [_row(record, field) for field in self._shape.fields]

    def _info(self, song_num: int, body: bytes) -> dict[str, Any]:
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
            raise PageError("mismatch", f"asked for song {song_num}, got song {short(came)}")


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


def _nearest(record: Any, path: Path) -> str:
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


def _where(path: Path) -> str:
    return ".".join(path) if path else "the page"


def _at(part: Any, path: Path, field: Field | None = None) -> Any:
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
