"""Scrapy with a JOBDIR and a feed of JSON lines, as its pages on jobs and feeds say.

Run as `python -m benchmarks.kill_contestants.scrapy_jobdir SITE STOP FOLDER`.
"""

import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response

HEADERS = {"Authorization": "Bearer demo-token"}


class SongSpider(scrapy.Spider):
    """Asks for every number and yields each song."""

    name = "songs"

    def __init__(self, site: str, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.site, self.stop = site, stop

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yield one request per number; those seen before are filtered by the job's memory."""
        for num in range(1, self.stop):
            yield scrapy.Request(f"{self.site}/songs/{num}", headers=HEADERS)

    def parse(self, response: Response) -> Iterator[dict[str, Any]]:
        """Decode one page."""
        song = response.json()["response"]["song"]
        yield {"song_num": song["id"], "title": song["title"]}


if __name__ == "__main__":
    site, stop, folder = sys.argv[1:]
    process = CrawlerProcess(
        {
            "CONCURRENT_REQUESTS": 16,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 16,
            "FEEDS": {f"{folder}/items.jsonl": {"format": "jsonlines", "overwrite": False}},
            "JOBDIR": f"{folder}/job",
            "LOG_LEVEL": "ERROR",
            "TELNETCONSOLE_ENABLED": False,
        }
    )
    process.crawl(SongSpider, site=site, stop=int(stop))
    process.start()
