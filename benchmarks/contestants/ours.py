"""Ours: `crawl()` whole, records and blocks into a store, nothing switched off.

Runs in the project's own environment. What it stored is read back afterwards, outside the clocks,
block by block with gzip and json alone: every number once, found, with the right title.
"""

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.contestants.race import (
    HEADERS,
    Songs,
    add_common_arguments,
    measure,
    report,
    song_of,
)
from crawler import crawl


def main() -> None:
    """Crawl songs 1 to count and report; exit 1 unless all are in the store."""
    given = _read_arguments()
    with tempfile.TemporaryDirectory(prefix="bench-store-") as folder:
        store = given.store or folder
        answers: list[Any] = []
        measured = measure(lambda: answers.append(_crawl(given, store)))
        answer = answers[0]
        songs = _stored_songs(store, given.count) if given.verify else None
    pages = answer.found if songs is None else songs.pages()
    wrong = 0 if songs is None else songs.wrong
    lacking = given.count - pages + wrong + (not answer.complete)
    counts = {"requests": answer.requests, "stopped_by": answer.stopped_by}
    report(measured, pages=pages, lacking=lacking, **counts)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    parser.add_argument("--caller", choices=("source", "function"), default="source")
    parser.add_argument("--rate", type=float, default=0, help="requests per second, 0: no limit")
    parser.add_argument("--store", default="", help="gs://bucket/prefix; default: a new folder")
    parser.add_argument("--verify", action="store_true", help="read the store back afterwards")
    return parser.parse_args()


def _crawl(given: argparse.Namespace, store: str) -> Any:
    return crawl(
        1,
        1 + given.count,
        store=store,
        base_url=given.base_url,
        function=_step1(given) if given.caller == "function" else None,
        rate=given.rate,
        connections=given.connections,
        token="benchmark-token",
        ca_file=given.ca_file or None,
    )


def _step1(given: argparse.Namespace) -> Any:
    """Make the step 1 function that anybody would write, with the headers of the others."""

    def request_song_info(session: Any, num: int, song_urls: Any) -> None:
        page = session.get(f"{given.base_url}/songs/{num}", headers=HEADERS).json()
        _, title, url = song_of(page)
        song_urls.append((num, {"title": title, "url": url}))

    return request_song_info


def _stored_songs(store: str, count: int) -> Songs:
    songs = Songs(count)
    for block in _blocks(store):
        for line in gzip.decompress(block).splitlines():
            record = json.loads(line)
            info = record["info"] or {"title": "none", "url": "none"}
            songs.append((record["song_num"], info["title"], info["url"]))
    return songs


def _blocks(store: str) -> Iterator[bytes]:
    if not store.startswith("gs://"):
        for path in sorted(Path(store, "songs").glob("*.jsonl.gz")):
            yield path.read_bytes()
        return
    # only where a bucket is read back
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    bucket, _, prefix = store.removeprefix("gs://").partition("/")
    client = storage.Client(project="benchmark", credentials=AnonymousCredentials())
    folder = f"{prefix}/songs/" if prefix else "songs/"
    for blob in client.list_blobs(bucket, prefix=folder):
        yield blob.download_as_bytes(raw_download=True)


if __name__ == "__main__":
    main()
