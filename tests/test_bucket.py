"""What only a bucket can do wrong: refusals with a cause of their own, and damaged downloads."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator

import pytest

from crawler import crawl
from crawler.demo.site import DemoSite
from crawler.errors import StoreUnavailableError
from crawler.store.block import ABSENT, encode_block
from crawler.store.contract import Content
from crawler.store.opening import open_store
from tests.records import found
from tests.storage_server import RoughWay, StorageServer

Refuse = Callable[[str], tuple[int, str] | None]


@pytest.fixture
def way(
    storage_server: StorageServer, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RoughWay]:
    """A way to a bucket on which things go wrong; `way.store` is the store at its end."""
    with RoughWay(storage_server) as way:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", way.url)
        way.store = open_store(bucket_url)
        yield way


def replaces_or_deletes(request: str) -> bool:
    """Whether a request needs that an object that is there may go."""
    made_anew = "ifGenerationMatch=0" in request
    return request.startswith("DELETE") or ("/upload/" in request and not made_anew)


def writes(request: str) -> bool:
    """Whether a request stores bytes."""
    return "/upload/" in request


def anything(_request: str) -> bool:
    """Every request."""
    return True


REFUSALS = {
    "retention": (
        replaces_or_deletes,
        403,
        "Object 'b/o' is subject to bucket's retention policy or object retention and cannot be "
        "deleted or overwritten until 2027-01-01T00:00:00Z",
        "remove the retention policy",
    ),
    "hold": (
        replaces_or_deletes,
        403,
        "Object 'b/o' is under active Event-Based hold and cannot be deleted, overwritten or "
        "archived until hold is removed.",
        "release the holds",
    ),
    "requester-pays": (
        anything,
        400,
        "Bucket is a requester pays bucket but no user project provided.",
        "turn requester pays off",
    ),
    "key-gone": (
        writes,
        400,
        "Cloud KMS key 'projects/p/locations/l/keyRings/r/cryptoKeys/k' is disabled or destroyed.",
        "restore the key",
    ),
    "key-denied": (
        writes,
        403,
        "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account "
        "has been authorized to use this key.",
        "let Cloud Storage use it",
    ),
}
"""Which requests, status and message, and what is to be done; the messages are Google's."""


@pytest.mark.parametrize("cause", REFUSALS)
def test_E10b_a_bucket_that_cannot_hold_blocks_is_refused_with_its_cause(
    cause: str, way: RoughWay, bucket_url: str
) -> None:
    """Before the first request to the site, in words that name the cause and what to do."""
    concerns, status, message, advice = REFUSALS[cause]
    way.refuse = lambda request: (status, message) if concerns(request) else None
    with DemoSite() as site:
        with pytest.raises(StoreUnavailableError, match=advice) as raised:
            crawl(1, 5, store=bucket_url, base_url=site.base_url, token="t")
        assert site.stats()["requests"] == 0
    assert "name another bucket" in str(raised.value)


def test_E10b_what_a_check_does_is_all_that_a_run_needs(way: RoughWay) -> None:
    """It lists, creates, replaces, reads and deletes one object, under a name nobody else has."""
    way.store.check(timeout=20)
    kinds = [request.split()[0] for request in way.requests]
    assert kinds == ["GET", "POST", "POST", "GET", "DELETE"]
    before = len(way.requests)
    way.store.check(timeout=20)
    names = [set(re.findall(r"\.check(?:%2F|/)(\w+)", line)) for line in way.requests]
    first, second = set().union(*names[:before]), set().union(*names[before:])
    assert first
    assert not first & second


@pytest.mark.parametrize("status", [401, 403, 404, 412])
def test_refused_reads_keep_their_connection(status: int, way: RoughWay) -> None:
    """The answer is read to its end, so that the next request goes over the same connection."""
    way.fault_for_ever = status
    for _ in range(3):
        with contextlib.suppress(StoreUnavailableError):
            assert way.store.read("x", timeout=20) is None
    assert (len(way.requests), way.connections) == (3, 1)


def test_E14_a_download_with_a_wrong_checksum_is_tried_again(way: RoughWay) -> None:
    """A byte that changed on its way is noticed, and the object is asked for once more."""
    data, info = encode_block([found(7000)], source="s")
    token = way.store.write("songs/x", Content(data, info=info), expected=ABSENT, timeout=20)
    way.requests.clear()
    way.faults = ["corrupt"]
    assert way.store.read("songs/x", timeout=20) == (data, token)
    assert len(way.requests) == 2


def test_E14_a_download_that_is_wrong_for_ever_is_no_content(way: RoughWay) -> None:
    """It ends in the caller's time, with an error and not with what came."""
    way.store.write("x", Content(b"right"), expected=ABSENT, timeout=20)
    way.fault_for_ever = "corrupt"
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="try again later"):
        way.store.read("x", timeout=1.0)
    assert time.monotonic() - began < 10
