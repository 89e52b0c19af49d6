"""niquests: one AsyncSession with a pool as large as the number of connections."""

import niquests
import uvloop

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Share one session over the lanes."""
    verify = options.ca_file or True
    async with niquests.AsyncSession(
        pool_connections=1, pool_maxsize=options.connections, headers=HEADERS, verify=verify
    ) as session:

        async def fetch(num: int) -> None:
            songs.append(song_of((await session.get(options.url(num), timeout=60)).json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, the faster of the loops for all of them."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
