"""pyreqwest: one client from its builder, connections limited there."""

from pathlib import Path

import uvloop
from pyreqwest.client import ClientBuilder

from benchmarks.contestants.lanes import in_lanes
from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


def new_builder(options: Options) -> ClientBuilder:
    """Say what the client is to be."""
    builder = ClientBuilder().error_for_status(True).default_headers(HEADERS)
    builder = builder.max_connections(options.connections)
    if options.ca_file:
        builder = builder.add_root_certificate_pem(Path(options.ca_file).read_bytes())
    return builder


async def get_all(options: Options, songs: Songs) -> None:
    """Share one client over the lanes."""
    async with new_builder(options).build() as client:

        async def fetch(num: int) -> None:
            response = await client.get(options.url(num)).build().send()
            songs.append(song_of(await response.json()))

        await in_lanes(options.connections, options.nums(), fetch)


def crawl(options: Options, songs: Songs) -> None:
    """Run on uvloop, the faster of the loops for all of them."""
    uvloop.run(get_all(options, songs))


if __name__ == "__main__":
    run(crawl)
