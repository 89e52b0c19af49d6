"""aiohttp on uvloop: one ClientSession, the connector's limit set to the number of connections."""

import ssl

import aiohttp
import uvloop

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Share one session over the lanes."""
    verify = ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True
    connector = aiohttp.TCPConnector(limit=options.connections, ssl=verify)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:

        async def fetch(num: int) -> None:
            async with session.get(options.url(num)) as response:
                songs.append(song_of(await response.json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, as its README recommends."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
