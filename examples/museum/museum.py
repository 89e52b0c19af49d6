"""Another numbered site: the objects of a museum, as web pages instead of JSON.

Copy this file beside `main.py`, change the address and the selectors, and name it:

    CRAWLER_BASE_URL=https://museum.example CRAWLER_FUNCTION=museum:MuseumPages

`MuseumPages` is a source: a class that says what a page is.
`request_object` is the same as a step 1 function: less to write.
"""

import os
import re
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode

from crawler import Missing
from crawler.errors import PageError


class MuseumPages:
    """The objects of a museum.

    Attributes:
        name: The store remembers it; records of two sources never mix.
        schema: Raise it when the meaning or the fields of `info` change.
        robots: Web pages: robots.txt is asked first.
    """

    name = "museum"
    schema = "1"
    robots = True

    def __init__(self, base_url: str | None = None) -> None:
        """Know the address: as given, or that of the deployment."""
        self._base_url = (base_url or os.environ["CRAWLER_BASE_URL"]).rstrip("/")

    def url(self, song_num: int) -> str:
        """Address of one object."""
        return f"{self._base_url}/objects/{song_num}"

    def headers(self) -> dict[str, str]:
        """Say that a web page is wanted."""
        return {"Accept": "text/html"}

    def info(self, song_num: int, body: bytes) -> dict[str, Any]:
        """Take title, maker, year and materials from a page.

        Raises:
            Missing: The page says, with status 200, that there is no such object.
            PageError: `schema` (not an object's page) or `mismatch` (another object's).
        """
        return read_object(song_num, body)


def request_object(session: Any, object_num: int, objects: list[Any]) -> None:
    """Step 1: ask for one object, and append `(object_num, info)`.

    What it does not catch is tried again; a 404 makes the number missing, whatever is raised.
    """
    response = session.get(f"{os.environ['CRAWLER_BASE_URL']}/objects/{object_num}")
    response.raise_for_status()
    objects.append((object_num, read_object(object_num, response.content)))


def read_object(object_num: int, body: bytes) -> dict[str, Any]:
    """Read an object's page; a captcha or another object's page is an error, never an info."""
    page = LexborHTMLParser(body)
    if page.css_first(".no-such-object"):
        raise Missing
    title, canonical = page.css_first("h1.title"), page.css_first('link[rel="canonical"]')
    if title is None or canonical is None:
        raise PageError("schema", "no title or no canonical address")
    if not (canonical.attributes.get("href") or "").endswith(f"/objects/{object_num}"):
        raise PageError("mismatch", f"asked for object {object_num}, got another")
    return {
        "title": _plain(title),
        "maker": _text(page, ".maker"),
        "year": _year(_text(page, ".dated")),
        "materials": [_plain(node) for node in page.css("ul.materials li")],
    }


def _text(page: LexborHTMLParser, selector: str) -> str | None:
    node = page.css_first(selector)
    return None if node is None else _plain(node)


def _plain(node: LexborNode) -> str:
    return " ".join(node.text().split())


def _year(dated: str | None) -> int | None:
    """Take the first year of "about 1650" or "1650-1660"."""
    match = re.search(r"\b1?\d{3}\b|\b20\d\d\b", dated or "")
    return int(match[0]) if match else None
