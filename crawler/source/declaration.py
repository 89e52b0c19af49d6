"""The TOML file of a source: what it may say, and its mistakes told with line and nearest name."""

import difflib
import re
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from crawler.errors import SettingsError
from crawler.source.compiled import Condition, Shape
from crawler.source.source import Field, FieldType

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
"""In an address or a header."""

_CLOUD_CREDENTIALS = ("AWS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "AZURE_")
_OURS = {"user-agent", "accept-encoding", "host", "content-length", "connection", "cookie"}
_PADDED = re.compile(r"song_num:0([1-9]|1[0-2])d")

DottedPath = str | list[str]


class _Field(msgspec.Struct, forbid_unknown_fields=True):
    path: DottedPath | None = None
    type: FieldType = "text"
    css: str | None = None
    attr: str = ""


class _Rule(msgspec.Struct, forbid_unknown_fields=True):
    path: DottedPath | None = None
    css: str | None = None
    equals: str | int | bool | None = None
    absent: Literal[True] | None = None
    empty: Literal[True] | None = None
    body: str | None = None


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    format: Literal["json", "html"] = "json"
    record: DottedPath = []
    id: DottedPath | _Field | None = None
    ok: list[_Rule] = []
    missing: list[_Rule] = []


class _RateHeaders(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    limit: str | None = None
    remaining: str | None = None
    reset: str | None = None


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The file as it is written."""

    name: Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]{0,39}\Z")]
    base_url: Annotated[str, Meta(pattern=r"\Ahttps?://[^\s@?#\\]+\Z")]
    url: str
    fields: Annotated[dict[str, DottedPath | _Field], Meta(min_length=1)]
    schema: Annotated[str, Meta(pattern=r"\A[\w.-]{1,40}\Z")] = "1"
    token: Annotated[str, Meta(pattern=r"\A[A-Z][A-Z0-9_]{2,60}\Z")] | None = None
    robots: bool | None = None
    canary: Annotated[int, Meta(ge=0, le=10**12)] | None = None
    redirects: Literal["fail", "follow"] = "fail"
    rate: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    rate_headers: _RateHeaders = msgspec.field(default_factory=_RateHeaders)
    headers: dict[str, str] = {}
    page: _Page = msgspec.field(default_factory=_Page)


class Declaration(msgspec.Struct, frozen=True):
    """What a file says of a source, checked.

    Attributes:
        base_url: The site's own address, without a slash at its end.
        token: Name of the environment variable that holds the token; None where none is sent.
        shape: What its pages are like.
    """

    file: Path
    base_url: str
    token: str | None
    shape: Shape
    document: _Document

    @property
    def name(self) -> str:
        """The word that the store remembers."""
        return self.document.name


def read_declaration(text: str, file: Path) -> Declaration:
    """Read and check what a file says.

    Raises:
        SettingsError: `source_malformed`, with file and line.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise mistake(f"{file}: {_syntax(str(error), text)}") from error
    try:
        document = msgspec.convert(raw, _Document)
    except msgspec.ValidationError as error:
        where, problem = _in_words(str(error), raw)
    else:
        where, problem = next(_problems(document), ((), ""))
    if problem:
        told = f"{'.'.join(map(str, where))} {problem}" if where else problem
        raise mistake(f"{file}, line {_line_of(text, where)}: {told}")
    is_html = document.page.format == "html"
    base_url = document.base_url.rstrip("/")
    return Declaration(file, base_url, document.token, _shape(document, is_html), document)


def _problems(document: _Document) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """List what types alone do not say, with the place of each."""
    yield from ((("url",), problem) for problem in _url_problems(document.url))
    token, page = document.token, document.page
    if token and token.startswith(_CLOUD_CREDENTIALS):
        yield ("token",), f"{token} is a name of cloud credentials, which no site is to get"
    if token and token.startswith("CRAWLER_"):
        yield ("token",), f"{token} is the name of a setting, not of a token"
    sent = [document.url, *document.headers.values()]
    if (token is None) == any("{token}" in each for each in sent):
        problem = "the token is sent nowhere: write {token} in a header or in the query of url"
        absent = '{token} is sent, but no token = "NAME" says which environment variable holds it'
        yield ("token",) if token else (), problem if token else absent
    for name, value in document.headers.items():
        yield from ((("headers", name), problem) for problem in _header_problems(name, value))
    if page.format == "html" and not isinstance(page.record, str) and page.record:
        yield ("page", "record"), "must be a CSS selector"
    if page.id is not None:
        yield from ((("page", "id"), each) for each in _place_problems(page.id, page.format))
    for name, wanted in document.fields.items():
        yield from ((("fields", name), each) for each in _place_problems(wanted, page.format))
    for list_name, rules in (("ok", page.ok), ("missing", page.missing)):
        for place, rule in enumerate(rules):
            for problem in _rule_problems(rule, page.format, is_ok=list_name == "ok"):
                yield ("page", list_name, place), problem


def _url_problems(url: str) -> Iterator[str]:
    if not re.match(r"\{base_url\}[/?]", url):
        yield "must begin with {base_url}/, so that all pages are of one host"
    query = url.find("?")
    for found in PLACEHOLDER.finditer(url):
        name = found[1]
        if name == "base_url" and found.start() == 0:
            continue
        if name == "token":
            if query < 0 or found.start() < query:
                yield "{token} may stand in the query alone, or in a header"
        elif name != "song_num" and not _PADDED.fullmatch(name):
            yield (
                f"{{{name}}} is no placeholder: there are {{base_url}} at the beginning, "
                "{song_num}, {song_num:0Nd} with N up to 12, and {token} in the query"
            )
    if "{song_num" not in url:
        yield "must hold {song_num}"
    if not re.fullmatch(r"[\x21-\x7e]+", url) or set("{}#") & set(PLACEHOLDER.sub("", url)):
        yield "must be printable ASCII, percent-encoded, without a fragment or a single brace"


def _header_problems(name: str, value: str) -> Iterator[str]:
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
        yield "is not the name of a header"
    if name.lower() in _OURS:
        yield "is set by the crawler"
    if not re.fullmatch(r"[\x20-\x7e]*", value) or set("{}") & set(value.replace("{token}", "")):
        yield "must be printable ASCII; its one placeholder is {token}"


def _place_problems(wanted: DottedPath | _Field, form: str) -> Iterator[str]:
    has_css = isinstance(wanted, _Field) and wanted.css is not None
    has_path = not isinstance(wanted, _Field) or wanted.path is not None
    if form == "html" and (has_path or not has_css):
        yield 'of a web page is written { css = "SELECTOR" }, with attr = "NAME" for an attribute'
    elif form == "json" and (
        has_css or not has_path or (isinstance(wanted, _Field) and wanted.attr)
    ):
        yield 'is written "dotted.path" or { path = "dotted.path", type = "integer" }'
    elif has_path and not all(_path(wanted)):
        yield "is an empty path, or has an empty name in it"


def _rule_problems(rule: _Rule, form: str, *, is_ok: bool) -> Iterator[str]:
    place = rule.css if form == "html" else rule.path
    tests = [each for each in (rule.equals, rule.absent, rule.empty) if each is not None]
    if (rule.path if form == "html" else rule.css) is not None:
        yield f"{'path' if form == 'html' else 'css'} is not for format {form!r}"
    elif rule.body is not None or (place is None and rule.empty):
        if is_ok or place is not None or len(tests) + (rule.body is not None) != 1:
            yield "body or empty alone stand in [[page.missing]], with nothing beside"
    elif place is None:
        yield f"must say where: {'css' if form == 'html' else 'path'}"
    elif len(tests) != 1 and not (form == "html" and not tests):
        yield "must say one of equals, absent = true, empty = true"


def _shape(document: _Document, is_html: bool) -> Shape:
    page = document.page
    fields = tuple(_field(name, wanted) for name, wanted in document.fields.items())
    record = ((str(page.record),) if page.record else ()) if is_html else _path(page.record)
    page_id = None if page.id is None else _field("id", page.id)
    ok, missing = (tuple(map(_condition, rules)) for rules in (page.ok, page.missing))
    return Shape(fields, record, page_id, ok, missing, is_html)


def _field(name: str, wanted: DottedPath | _Field) -> Field:
    if not isinstance(wanted, _Field):
        return Field(name, _path(wanted))
    path = _path(wanted) if wanted.css is None else (wanted.css,)
    return Field(name, path, wanted.type, wanted.attr)


def _path(wanted: DottedPath | _Field) -> tuple[str, ...]:
    path = wanted.path if isinstance(wanted, _Field) else wanted
    if isinstance(path, str):
        return tuple(path.split("."))
    return tuple(path or ())


def _condition(rule: _Rule) -> Condition:
    path = (rule.css,) if rule.css is not None else () if rule.path is None else _path(rule.path)
    if not path:
        return Condition((), "equals", (rule.body or "").strip())
    if rule.equals is not None:
        return Condition(path, "equals", rule.equals)
    return Condition(path, "absent" if rule.absent else "empty" if rule.empty else "present")


def mistake(message: str) -> SettingsError:
    """Make the error for what is wrong with a declaration."""
    return SettingsError("source_malformed", "CRAWLER_SOURCE", message)


def _syntax(message: str, text: str) -> str:
    """Say what is no TOML, with the line as it stands there."""
    found = re.search(r"\(at line (\d+), column \d+\)", message)
    if found is None:
        return message
    line = text.splitlines()[int(found[1]) - 1].strip()
    is_bare = re.match(r"[\w.\"-]+\s*=\s*[A-Za-z_{/]", line)
    hint = ": a text is written in quotes" if is_bare else ""
    return f"line {found[1]}: {line!r} is not TOML ({message[: found.start()].strip()}){hint}"


KEYS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): _Document.__struct_fields__,
    ("page",): _Page.__struct_fields__,
    ("page", "ok"): _Rule.__struct_fields__,
    ("page", "missing"): _Rule.__struct_fields__,
    ("page", "id"): _Field.__struct_fields__,
    ("fields",): _Field.__struct_fields__,
    ("rate_headers",): _RateHeaders.__struct_fields__,
}
"""What each table of a file may hold."""


def _in_words(message: str, raw: dict[str, Any]) -> tuple[tuple[str | int, ...], str]:
    """Turn an error of msgspec into the place of it and what is wrong there."""
    text, _, place = message.partition(" - at `$")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])", place)
    where: list[str | int] = [name or (int(index) if index else "...") for name, index, _ in steps]
    if "..." in where:
        where = [where[0], _culprit(raw, str(where[0])), *where[2:]]
    if len(where) == 2 and where[0] == "fields" and text.startswith("Expected"):
        return tuple(where), 'must be a path, or { path = "dotted.path", type = "integer" }'
    unknown = re.search("unknown field `(.*)`", text)
    if unknown is None:
        return tuple(where), _wanted(text, where)
    name, table = unknown[1], tuple(step for step in where if isinstance(step, str))
    known = KEYS.get(table) or KEYS[table[:1]]
    value: Any = raw
    for step in (*where, name):
        value = value[step]
    dotted = name
    while isinstance(value, dict) and len(value) == 1:
        ((inner, value),) = value.items()
        dotted += f".{inner}"
    if dotted != name:
        return (*where, name), (
            f'{dotted} without quotes is a table in a table: write path = "{dotted}" '
            f"and equals = {value!r}, or a name with a dot in quotes"
        )
    if where and where[0] == "fields" and not difflib.get_close_matches(name, known):
        return (*where, name), "is a table in a table: a name with a dot in it is written in quotes"
    near = difflib.get_close_matches(name, known, n=1)
    homes = [table for table in ("page", "rate_headers") if name in KEYS[(table,)]]
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return (*where, name), f"is unknown here: {f'it stands in [{homes[0]}]' if homes else hint}"


_WANTED = {
    "name": "at most 40 small letters, digits, _ and -, a letter first",
    "base_url": "an http(s) address without user name, query and fragment",
    "schema": "a word of at most 40 letters, digits, _, - and dots",
    "token": "the name of an environment variable, in capital letters",
    "redirects": "fail or follow",
    "format": "json or html",
    "type": f"one of {', '.join(get_args(FieldType))}",
    "fields": 'a table with a line for each field, name = "path"',
}
"""What a key must be, where its type alone does not say it."""

_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
}


def _wanted(text: str, where: list[str | int]) -> str:
    """Return msgspec's words for a wrong or absent value as a manual would put them."""
    missing = re.search("missing required field `(.*)`", text)
    if missing is not None:
        return f"{missing[1]} is missing: it must be {_WANTED.get(missing[1], 'a text')}"
    key = str(where[-1])
    if key in _WANTED and (len(where) == 1 or key in ("format", "type")):
        return f"must be {_WANTED[key]}"
    for name, plain in _TYPES.items():
        text = re.sub(rf"`{name}(?: \| null)?`", plain, text)
    return text.replace("Expected", "must be").replace("got", "not").replace("`", "")


def _culprit(raw: dict[str, Any], table: str) -> str:
    """Name the first entry of a table of names that is not as it should be."""
    wanted: Any = str if table == "headers" else DottedPath | _Field
    for name, value in raw[table].items():
        try:
            msgspec.convert(value, wanted)
        except msgspec.ValidationError:
            return str(name)
    return "..."


def _line_of(text: str, where: tuple[str | int, ...]) -> int:
    """Find the line of a key, or of the last part of its way that has a line of its own."""
    table: tuple[str | int, ...] = ()
    seen: dict[str, int] = {}
    best, best_length = 1, 0
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)
        key = re.match(r"""\s*(["']?)([^"'=]+?)\1\s*=""", line)
        if header is not None:
            table = tuple(header[2].split("."))
            if header[1] == "[[":
                seen[header[2]] = seen.get(header[2], -1) + 1
                table += (seen[header[2]],)
            here = table
        elif key is not None:
            here = (*table, *(key[2].split(".") if not key[1] else (key[2],)))
        else:
            continue
        same = (one == other for one, other in zip(here, where, strict=False))
        length = len(list(takewhile(bool, same)))
        if length > best_length and length in (len(here), len(where)):
            best, best_length = number, length
    return best
