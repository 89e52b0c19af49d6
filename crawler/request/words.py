"""What a request is called where people read: the songs it is about."""

from crawler.request.crawl_request import CrawlRequest


def songs(start: int, stop: int) -> str:
    """Name a range as people do: "songs 1 to 2000" for `range(1, 2001)`."""
    if stop <= start:
        return "no songs"
    return f"song {start}" if stop == start + 1 else f"songs {start} to {stop - 1}"


def label(request: CrawlRequest) -> str:
    """Name what a run is about: its range, or its mode where it has none."""
    if request.start is None or request.stop is None:
        return f"{request.mode} songs"
    return songs(request.start, request.stop)
