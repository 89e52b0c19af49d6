"""The coverage page on the command line: `status --html` writes it to a file of the user's."""

from datetime import datetime
from pathlib import Path

from crawler.errors import CrawlerError
from crawler.page.status_page import status_page
from crawler.settings.reading import Settings
from crawler.store.block_info import BlockInfo
from crawler.store.contract import Store
from crawler.store.run_objects import KEPT_RUNS, RUN_SECONDS, read_runs


def write_page(
    store: Store, blocks: list[BlockInfo], settings: Settings, now: datetime, out: Path
) -> None:
    """Write the page of a store, from its listing and its last runs.

    Raises:
        CrawlerError: The runs cannot be read, or the file cannot be written.
    """
    page = status_page(
        blocks,
        read_runs(store, latest=KEPT_RUNS, timeout=RUN_SECONDS),
        now=now,
        location=settings.store,
        rate=settings.rate,
        last_song=settings.last_song,
    )
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        raise CrawlerError(f"{out} cannot be written: {error.strerror or error}") from error
