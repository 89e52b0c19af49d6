"""Crawls numbered song pages and keeps `(song_num, info)` in a bucket or a folder.

    from crawler import crawl
    crawl(1, 2001, store="data/songs")

The three steps can be used by themselves: `request_song_info`, `get_data_asynchronous`,
`execute_async_event_loop`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from crawler.errors import (
    CrawlerError,
    Missing,
    RequestError,
    SettingsError,
    StoppedError,
    StoreError,
)
from crawler.version import VERSION

if TYPE_CHECKING:
    from crawler.answer import Answer
    from crawler.exports.export import export
    from crawler.exports.formats import to_pandas
    from crawler.run.crawl import crawl, crawl_async
    from crawler.run.progress import Progress, progress_bar
    from crawler.source.source import step
    from crawler.steps import execute_async_event_loop, get_data_asynchronous, request_song_info
    from crawler.store.opening import read

__version__ = VERSION
__all__ = [
    "Answer",
    "CrawlerError",
    "Missing",
    "Progress",
    "RequestError",
    "SettingsError",
    "StoppedError",
    "StoreError",
    "crawl",
    "crawl_async",
    "execute_async_event_loop",
    "export",
    "get_data_asynchronous",
    "progress_bar",
    "read",
    "request_song_info",
    "step",
    "to_pandas",
]

_HOMES = {
    "Answer": "crawler.answer",
    "Progress": "crawler.run.progress",
    "crawl": "crawler.run.crawl",
    "crawl_async": "crawler.run.crawl",
    "execute_async_event_loop": "crawler.steps",
    "export": "crawler.exports.export",
    "get_data_asynchronous": "crawler.steps",
    "progress_bar": "crawler.run.progress",
    "read": "crawler.store.opening",
    "request_song_info": "crawler.steps",
    "step": "crawler.source.source",
    "to_pandas": "crawler.exports.formats",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import crawler` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'crawler' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
