"""curl_cffi: one AsyncSession with as many handles as connections."""

import uvloop
from curl_cffi import AsyncSession

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


async def get_all(options: Options, songs: Songs) -> None:
    """Share one session over the lanes."""
    verify = options.ca_file or True
    async with AsyncSession(
        max_clients=options.connections, headers=HEADERS, verify=verify, timeout=60
    ) as session:

        async def fetch(num: int) -> None:
            songs.append(song_of((await session.get(options.url(num))).json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, the faster of the loops for all of them."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
