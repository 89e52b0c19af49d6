"""What is asked for on the command line, checked by the rules that hold for the function's callers."""

from collections.abc import Mapping
from urllib.parse import urlencode

from crawler.errors import RequestError
from crawler.request.crawl_request import CrawlRequest, parse_request
from crawler.settings.reading import MAX_SONG_NUM


def checked_request(fields: Mapping[str, str], *, deployed_rate: float = 0) -> CrawlRequest:
    """Check words of the command line as if they were the query of a request to the function.

    Args:
        fields: By the names of the function's parameters, such as `start`.
        deployed_rate: Requests per second; 0: no limit.

    Raises:
        RequestError: With what is wanted, in words for a command line.
    """
    try:
        return parse_request(
            "GET",
            None,
            None,
            lambda _size: b"",
            0,
            query=urlencode(fields),
            max_range=MAX_SONG_NUM,  # CRAWLER_MAX_RANGE guards against callers, not oneself
            deployed_rate=deployed_rate,
        )
    except RequestError as error:
        raise _in_words_of_the_command_line(error) from None


def checked_range(start: str, stop: str) -> tuple[int, int]:
    """Check a range alone; returns `(start, stop)`.

    Raises:
        RequestError: It is none.
    """
    request = checked_request({"start": start, "stop": stop})
    assert request.start is not None
    assert request.stop is not None
    return request.start, request.stop


def _in_words_of_the_command_line(error: RequestError) -> RequestError:
    field = error.field or ""
    option = field.upper() if field in ("start", "stop") else f"--{field.replace('_', '-')}"
    message = str(error).partition(": ask for")[0].replace(field, option, 1)
    return RequestError(error.status, error.code, error.field, message)
