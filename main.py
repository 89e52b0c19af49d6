"""The function's entry point: HTTP in, one run or one look at the store, JSON out."""

import functools
import json
import logging
import os
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import functions_framework
import msgspec
from flask import Request, Response

from crawler.answer import STOPS, Answer
from crawler.errors import QueueError, RequestError, SettingsError, StoreError, StoreMismatchError
from crawler.fleet.delivery import (
    SCHEDULE_HEADER,
    TASK_HEADER,
    begin_chain,
    deliver,
    read_claim,
    scheduled_at,
)
from crawler.fleet.orders import Delivery, body_of, fan_out
from crawler.fleet.task_queue import TaskQueue
from crawler.logs import configure_logging, log_context, request_labels, trace_id
from crawler.request.crawl_request import CrawlRequest, check_request, parse_request
from crawler.request.incoming import body_reader, drain, in_time
from crawler.settings.reading import read_settings
from crawler.settings.settings import MAX_SONG_NUM, Settings
from crawler.version import VERSION

if TYPE_CHECKING:
    from crawler.frontier.rate_limiter import RateLimiter

logger = logging.getLogger(__name__)

_ENV_FILE = Path(__file__).with_name("crawler.env")
_MAX_RANGE = 1_000_000  # where CRAWLER_MAX_RANGE is not set
_STATUS_SECONDS = 30.0  # a listing of 20,000 blocks takes 2
_METHODS = {
    "/": ("GET", "HEAD", "OPTIONS", "POST"),
    "/status": ("GET", "HEAD", "OPTIONS"),
    "/health": ("GET", "HEAD", "OPTIONS"),
}


@functions_framework.http
def crawl_songs(request: Request) -> Response:
    """Answer one request: `/` runs a crawl, `/status` looks at the store, `/health` says we live."""
    headers = dict(request.headers)
    with log_context(trace_id(headers), **request_labels(headers)):
        try:
            return _route(request)
        except RequestError as error:
            if error.status == 413:
                drain(request)
            return _error(error.status, error.code, error.field, str(error))
        except SettingsError as error:
            logger.error("the deployment is wrong: %s", error)  # noqa: TRY400 - it names its cause
            return _error(500, error.code, error.field, str(error))
        except StoreMismatchError as error:
            logger.error("the store is another's: %s", error)  # noqa: TRY400 - it names its cause
            return _error(500, "store_mismatch", None, str(error))
        except QueueError as error:
            logger.error("the task queue cannot be used: %s", error)  # noqa: TRY400 - it names it
            return _error(503, "queue_unavailable", None, str(error))
        except StoreError as error:
            logger.exception("the store cannot be used", extra={"event": "store_unavailable"})
            return _error(503, "store_unavailable", None, str(error))
        except Exception:  # the last door: the framework would answer with the error's own text
            error_id = secrets.token_hex(8)
            logger.exception("unforeseen error %s", error_id)
            message = f"an error nobody foresaw; the log tells more under {error_id}"
            return _error(500, "unforeseen", None, message, id=error_id)


def _route(request: Request) -> Response:
    path = request.environ["PATH_INFO"]  # as sent; `request.path` makes `/` of `//`
    methods = _METHODS.get(path)
    if methods is None:
        paths = ", ".join(_METHODS)
        return _error(404, "not_found", None, f"there is nothing here; there are {paths}")
    allow = {"Allow": ", ".join(methods)}
    if request.method == "OPTIONS":
        return Response(status=204, headers=allow)
    if request.method not in methods:
        message = f"{path} takes {', '.join(methods)}"
        return _error(405, "method_not_allowed", None, message, allow)
    if request.method == "HEAD":  # starts nothing and looks at nothing
        return _json(200, b"{}")
    return {"/": _crawl, "/status": _status, "/health": _health}[path](request)


def _crawl(request: Request) -> Response:
    deployment = _deployment()
    settings = deployment.settings
    claim = read_claim(request.headers.get(TASK_HEADER), settings)
    # What a task asks for was checked when its order was given, maybe by other limits.
    crawl_request = _read_request(request, settings, is_limited=claim is None)
    if claim is not None and claim.holds_for(crawl_request):
        return _deliver(crawl_request, deployment, claim.delivery)
    if claim is not None:  # anybody can write a header
        fields = body_of(crawl_request) | {"fan_out": crawl_request.fan_out}
        check_request(fields, **_limits(settings))
    if crawl_request.fan_out:
        return _fan_out(crawl_request, settings, request.headers.get(SCHEDULE_HEADER))
    # a mode is what a scheduler sends, a range what people send
    started, is_unattended = _now(), crawl_request.mode != "range"
    answer = _run(crawl_request, deployment, is_unattended=is_unattended)
    if settings.queue is not None and SCHEDULE_HEADER not in request.headers:
        # What the run left goes to the queue; behind a schedule there is a next run anyway.
        begin_chain(
            crawl_request,
            settings,
            answer,
            queue=lambda: TaskQueue(settings),
            started=started,
            now=_now(),
        )
    return _json(STOPS[answer.stopped_by].status, msgspec.json.encode(answer))


def _run(crawl_request: CrawlRequest, deployment: "_Deployment", *, is_unattended: bool) -> Answer:
    from crawler.run.run import run  # with it comes the engine: not needed to refuse a request

    return run(
        crawl_request,
        deployment.settings,
        rate_limiter=deployment.rate_limiter,
        is_unattended=is_unattended,
    )


def _fan_out(crawl_request: CrawlRequest, settings: Settings, planned: str | None) -> Response:
    """Hand a range to the queue; a scheduler's second delivery is the same order."""
    if settings.queue is None:
        message = "fan_out needs a task queue, and none is deployed"
        raise RequestError(400, "fan_out_unavailable", "fan_out", message)
    now = scheduled_at(planned) or _now()
    order = fan_out(crawl_request, settings, TaskQueue(settings), now=now)
    fields = msgspec.structs.asdict(order)
    logger.info("order %d given", order.order, extra={"event": "order_given", "fields": fields})
    return _json(202, msgspec.json.encode(order))


def _deliver(
    crawl_request: CrawlRequest, deployment: "_Deployment", delivery: Delivery
) -> Response:
    settings = deployment.settings
    try:
        status, answer = deliver(
            crawl_request,
            settings,
            delivery,
            run=lambda request: _run(request, deployment, is_unattended=True),
            queue=lambda: TaskQueue(settings),
            wall=_now,
        )
    except StoreMismatchError as error:  # no repeat mends it, so the queue is to let go of it
        logger.error("a task is given up: %s", error, extra={"event": "task_given_up"})  # noqa: TRY400 - it names its cause
        return _error(200, "store_mismatch", None, str(error))
    return _json(status, msgspec.json.encode(answer))


def _now() -> datetime:
    return datetime.now(UTC)


def _status(request: Request) -> Response:
    from crawler.store.coverage import (
        coverage_of,  # with them comes the storage client, 0.2 to 0.6 s
    )
    from crawler.store.opening import open_store

    settings = _deployment().settings
    store = open_store(settings.store)
    blocks = list(store.list_blocks(timeout=_STATUS_SECONDS))
    vary = {"Vary": "Accept"}
    if not _wants_page(request):
        return _json(200, msgspec.json.encode(coverage_of(blocks)), vary)
    from crawler.page.status_page import page_of

    return _answer(200, page_of(store, blocks, settings).encode(), "text/html", vary)


def _wants_page(request: Request) -> bool:
    """Whether the caller is a browser: who takes anything gets JSON, as programs do."""
    accept = request.accept_mimetypes
    return accept["text/html"] > accept["application/json"]


def _health(_request: Request) -> Response:
    return _json(200, json.dumps({"status": "ok", "version": VERSION}).encode())


class _Deployment(NamedTuple):
    """What all requests of this process share."""

    settings: Settings
    rate_limiter: "RateLimiter"


_first_request = threading.Lock()  # two at once must not make two rate limiters


def _deployment() -> _Deployment:
    with _first_request:
        return _read_deployment()


@functools.cache  # an exception is not kept: a wrong deployment says so to every request
def _read_deployment() -> _Deployment:
    """Read the settings at the first request, so that wrong ones are answered, not a crash loop."""
    from crawler.frontier.rate_limiter import RateLimiter

    configure_logging(os.environ)
    settings = read_settings(os.environ, env_file=_ENV_FILE)
    token = settings.token
    configure_logging(os.environ, secrets=[token.reveal()] if token else [])
    return _Deployment(settings, RateLimiter(settings.rate, share=1 / settings.instances))


def _read_request(request: Request, settings: Settings, *, is_limited: bool) -> CrawlRequest:
    chunked = "Transfer-Encoding" in request.headers
    limits = _limits(settings) if is_limited else _Limits(max_range=MAX_SONG_NUM, deployed_rate=0)
    with in_time(request):
        return parse_request(
            request.method,
            request.headers.get("Content-Type"),
            request.headers.get("Content-Encoding"),
            body_reader(request),
            None if chunked else request.content_length or 0,
            query=request.query_string.decode("latin-1"),
            **limits,
        )


class _Limits(TypedDict):
    """Guards against callers."""

    max_range: int
    deployed_rate: float


def _limits(settings: Settings) -> _Limits:
    return {"max_range": settings.max_range or _MAX_RANGE, "deployed_rate": settings.rate}


def _error(
    status: int,
    code: str,
    field: str | None,
    message: str,
    headers: dict[str, str] | None = None,
    **more: str,
) -> Response:
    error = {"code": code, "field": field, "message": message, **more}
    body = json.dumps({"error": error}).encode()  # ASCII: carries half a surrogate pair, too
    return _json(status, body, headers)


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return _answer(status, body, "application/json", headers)


def _answer(
    status: int, body: bytes, mimetype: str, headers: dict[str, str] | None = None
) -> Response:
    """Answer with a stream of one piece.

    Of an answer that is no stream the framework first reads the whole request body into memory
    (`read_request` in functions_framework 3.10), which a refused body must not get.
    """
    length = {"Content-Length": str(len(body))}
    return Response(iter((body,)), status, {**length, **(headers or {})}, mimetype=mimetype)
