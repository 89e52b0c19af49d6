"""requests-futures: a FuturesSession, results taken with as_completed as its README shows."""

from concurrent.futures import as_completed

from requests_futures.sessions import FuturesSession

from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


def crawl(options: Options, songs: Songs) -> None:
    """Send everything to the session's own pool, which it sizes by max_workers."""
    with FuturesSession(max_workers=options.connections) as session:
        session.headers.update(HEADERS)
        session.verify = options.ca_file or True
        futures = [session.get(options.url(num), timeout=60) for num in options.nums()]
        for future in as_completed(futures):
            songs.append(song_of(future.result().json()))


if __name__ == "__main__":
    run(crawl)
