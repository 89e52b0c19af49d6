"""A step 1 function that processes of their own can be told to call: the songs of the environment."""

import functools
from typing import Any

from crawler.steps import default_source, request_song_info


@functools.cache
def _source() -> Any:
    return default_source()


def ask_for_song(session: Any, song_num: int, song_urls: Any) -> None:
    """Step 1 of somebody's own."""
    request_song_info(session, song_num, song_urls, source=_source())
