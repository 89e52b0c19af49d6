"""Scrapy: a spider run by CrawlerProcess, set as its guide to broad crawls says."""

import os
from collections.abc import AsyncIterator
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.http import Response

from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


class SongSpider(scrapy.Spider):
    """Asks for every number and takes each song out of its page."""

    name = "songs"

    def __init__(self, options: Options, songs: Songs, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.songs = songs

    async def start(self) -> AsyncIterator[scrapy.Request]:
        """Yield one request per number."""
        for num in self.options.nums():
            yield scrapy.Request(self.options.url(num), headers=HEADERS)

    def parse(self, response: Response) -> None:
        """Decode one page."""
        self.songs.append(song_of(response.json()))


def crawl(options: Options, songs: Songs) -> None:
    """Run one spider to its end; what it trusts is OpenSSL's to say, by the environment."""
    if options.ca_file:
        os.environ["SSL_CERT_FILE"] = options.ca_file
    settings = {
        "CONCURRENT_REQUESTS": options.connections,
        "CONCURRENT_REQUESTS_PER_DOMAIN": options.connections,
        "COOKIES_ENABLED": False,
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "LOG_LEVEL": "WARNING",
        "TELNETCONSOLE_ENABLED": False,
    }
    process = CrawlerProcess(settings)
    process.crawl(SongSpider, options=options, songs=songs)
    process.start()


if __name__ == "__main__":
    run(crawl)
