"""Crawlee: an HttpCrawler with its concurrency fixed and its storage in memory.

A RequestList in place of the list of addresses was eight times slower (measured 2026-11-22).
"""

import asyncio
import json
import logging

from crawlee import ConcurrencySettings
from crawlee.crawlers import HttpCrawler, HttpCrawlingContext
from crawlee.http_clients import ImpitHttpClient
from crawlee.storage_clients import MemoryStorageClient

from benchmarks.contestants.race import Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Hand every page to one handler.

    Its HTTP client cannot be given an authority to trust, so it alone does not verify TLS.
    """
    lanes = options.connections
    crawler = HttpCrawler(
        concurrency_settings=ConcurrencySettings(
            min_concurrency=lanes, desired_concurrency=lanes, max_concurrency=lanes
        ),
        http_client=ImpitHttpClient(verify=not options.ca_file),
        storage_client=MemoryStorageClient(),
        configure_logging=False,
    )

    @crawler.router.default_handler
    async def handle(context: HttpCrawlingContext) -> None:
        songs.append(song_of(json.loads(await context.http_response.read())))

    await crawler.run([options.url(num) for num in options.nums()])


def crawl(options: Options, songs: Songs) -> None:
    """Run on asyncio's own loop."""
    logging.getLogger("crawlee").setLevel(logging.ERROR)
    asyncio.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
