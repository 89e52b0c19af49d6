"""httpx: one AsyncClient with its limits set to the number of connections."""

import ssl

import httpx
import uvloop

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Share one client over the lanes."""
    limits = httpx.Limits(
        max_connections=options.connections, max_keepalive_connections=options.connections
    )
    verify = ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True
    async with httpx.AsyncClient(
        headers=HEADERS, limits=limits, verify=verify, timeout=60
    ) as client:

        async def fetch(num: int) -> None:
            songs.append(song_of((await client.get(options.url(num))).json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, the faster of the loops for all of them."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
