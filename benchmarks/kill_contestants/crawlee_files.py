"""Crawlee with its file storage and nothing purged at the start, as its page on resuming says.

Run as `python -m benchmarks.kill_contestants.crawlee_files SITE STOP FOLDER`.
"""

import asyncio
import json
import sys

from crawlee import ConcurrencySettings, Request, service_locator
from crawlee.configuration import Configuration
from crawlee.crawlers import HttpCrawler, HttpCrawlingContext
from crawlee.storage_clients import FileSystemStorageClient

HEADERS = {"Authorization": "Bearer demo-token"}


async def crawl(site: str, stop: int, folder: str) -> None:
    """Hand every page to one handler, which pushes the song to the data set."""
    service_locator.set_configuration(Configuration(storage_dir=folder, purge_on_start=False))
    crawler = HttpCrawler(
        concurrency_settings=ConcurrencySettings(
            min_concurrency=16, desired_concurrency=16, max_concurrency=16
        ),
        storage_client=FileSystemStorageClient(),
        configure_logging=False,
    )

    @crawler.router.default_handler
    async def handle(context: HttpCrawlingContext) -> None:
        song = json.loads(await context.http_response.read())["response"]["song"]
        await context.push_data({"song_num": song["id"], "title": song["title"]})

    requests = [Request.from_url(f"{site}/songs/{num}", headers=HEADERS) for num in range(1, stop)]
    await crawler.run(requests)


if __name__ == "__main__":
    asyncio.run(crawl(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
