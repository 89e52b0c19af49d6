"""A bare pycurl loop: CurlMulti, handles reused, json.loads, no policy at all."""

import json
from collections.abc import Iterator
from io import BytesIO

import pycurl

from benchmarks.contestants.race import HEADERS, Options, Songs, run, song_of


def crawl(options: Options, songs: Songs) -> None:
    """Keep every handle busy until the numbers are used up, as pycurl's own multi example does."""
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, options.connections)
    nums = iter(options.nums())
    handles = [new_handle(options) for _ in range(options.connections)]
    busy = sum(start_next(multi, handle, options, nums) for handle in handles)
    while busy:
        multi.perform()
        _, done, failed = multi.info_read()
        if failed:
            raise pycurl.error(*failed[0][1:])
        for handle in done:
            songs.append(song_of(json.loads(handle.buffer.getvalue())))
            multi.remove_handle(handle)
            busy -= not start_next(multi, handle, options, nums)
        if not done:
            multi.select(1.0)
    multi.close()


def new_handle(options: Options) -> pycurl.Curl:
    """Make a handle that serves for many transfers."""
    handle = pycurl.Curl()
    handle.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in HEADERS.items()])
    handle.setopt(pycurl.TIMEOUT, 60)
    if options.ca_file:
        handle.setopt(pycurl.CAINFO, options.ca_file)
    return handle


def start_next(
    multi: pycurl.CurlMulti, handle: pycurl.Curl, options: Options, nums: Iterator[int]
) -> bool:
    """Start the next number on a handle; False when there is none left."""
    num = next(nums, None)
    if num is None:
        return False
    handle.buffer = BytesIO()
    handle.setopt(pycurl.URL, options.url(num))
    handle.setopt(pycurl.WRITEDATA, handle.buffer)
    multi.add_handle(handle)
    return True


if __name__ == "__main__":
    run(crawl)
