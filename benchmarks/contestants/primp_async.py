"""primp: one AsyncClient shared by all lanes, impersonating a browser as its README shows.

Without that its HTTP/2 stalled for good at 64 requests in flight (measured 2026-11-22).
"""

import primp
import uvloop

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Share one client over the lanes."""
    async with primp.AsyncClient(
        impersonate="chrome_146",
        headers=HEADERS,
        ca_cert_file=options.ca_file or None,
        timeout=60,
    ) as client:

        async def fetch(num: int) -> None:
            songs.append(song_of((await client.get(options.url(num))).json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, the faster of the loops for all of them."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
