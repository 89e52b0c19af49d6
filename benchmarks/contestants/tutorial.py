"""The tutorial's pattern: `requests.get` in threads, one executor task per number, one gather."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


def request_song_info(options: Options, num: int, songs: Songs) -> None:
    """Get one page over a connection of its own."""
    verify = options.ca_file or True
    response = requests.get(options.url(num), headers=HEADERS, verify=verify, timeout=60)
    songs.append(song_of(response.json()))


async def get_data_asynchronous(options: Options, songs: Songs) -> None:
    """Make one task per number and gather them all."""
    with ThreadPoolExecutor(max_workers=options.connections) as executor:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.run_in_executor(executor, request_song_info, options, num, songs)
            for num in options.nums()
        ]
        await asyncio.gather(*tasks)


def crawl(options: Options, songs: Songs) -> None:
    """Run the gather to its end."""
    asyncio.run(get_data_asynchronous(options, songs))


if __name__ == "__main__":
    run(crawl)
