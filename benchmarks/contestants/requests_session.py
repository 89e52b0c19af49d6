"""requests with one Session that all threads share, its pool as large as the number of threads."""

from concurrent.futures import ThreadPoolExecutor

import requests
from requests.adapters import HTTPAdapter

from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


def crawl(options: Options, songs: Songs) -> None:
    """Map the numbers over a thread pool."""
    with requests.Session() as session, ThreadPoolExecutor(options.connections) as executor:
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=options.connections)
        session.mount(options.base_url, adapter)
        session.headers.update(HEADERS)
        session.verify = options.ca_file or True

        def fetch(num: int) -> None:
            songs.append(song_of(session.get(options.url(num), timeout=60).json()))

        for _ in executor.map(fetch, options.nums()):
            pass


if __name__ == "__main__":
    run(crawl)
