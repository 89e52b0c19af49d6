"""Verification: a whole range is proven, and the first thing that is wrong is named."""

import tracemalloc
from pathlib import Path

import msgspec
import pytest

from crawler.errors import StoreUnavailableError
from crawler.store.block import ABSENT, block_name, encode_block
from crawler.store.contract import Content, save_block
from crawler.store.coverage import VerifyReport, verify
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store
from tests.records import failed, found, missing, mixed
from tests.test_block import BROKEN


def keep(store, records):
    """Save records, each where it belongs."""
    for first in sorted({num - num % 1000 for num in records}):
        block = {num: records[num] for num in records if first <= num < first + 1000}
        save_block(store, first, block, source="s", timeout=20)


def problem(store, start=7000, stop=8000):
    """Verify, and return what is wrong."""
    return verify(store, start, stop, timeout=60).problem


def test_a_whole_range_is_proven(store):
    """Every number has its record: the report counts them by outcome, and names no problem."""
    keep(store, mixed(range(900, 3100)) | {2000: failed(2000)})
    assert verify(store, 900, 3100, timeout=60) == VerifyReport(
        900, 3100, found=1999, missing=200, failed=1, blocks=4
    )


def test_only_numbers_of_the_range_count(store):
    """A range within blocks is proven alone, whatever lacks outside it."""
    keep(store, mixed(range(990, 1010)))
    report = verify(store, 995, 1005, timeout=60)
    assert (report.found + report.missing, report.problem) == (10, None)


def test_an_empty_range_is_proven(store):
    """A range without numbers lacks none."""
    assert verify(store, 5, 5, timeout=60) == VerifyReport(5, 5)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ([], "no block songs/000000000000.jsonl.gz: numbers 990 to 999 have no record"),
        (range(990, 1000), "no block songs/000000001000.jsonl.gz: numbers 1000 to 1009 have"),
        (range(991, 1010), "number 990 has no record in songs/000000000000.jsonl.gz"),
        (range(990, 1009), "number 1009 has no record in songs/000000001000.jsonl.gz"),
        ([*range(990, 1003), *range(1004, 1010)], "number 1003 has no record"),
    ],
    ids=["nothing", "a block", "the first", "the last", "one within"],
)
def test_what_is_missing_is_named(store, held, words):
    """The first number without a record is named, with the block it belongs to."""
    keep(store, {num: found(num) for num in held})
    assert words in problem(store, 990, 1010)


def test_a_single_number_is_named_as_one(store):
    """One missing number is not called numbers."""
    name = block_name(0)
    assert problem(store, 7, 8) == f"no block {name}: number 7 has no record"


@pytest.mark.parametrize(("data", "why"), BROKEN.values(), ids=BROKEN)
def test_E5_a_broken_block_is_named(tmp_path, data, why):
    """E5: a number in a wrong block, one twice, a cut line: the object is named, and why."""
    store = FolderStore(tmp_path)
    store.write(block_name(7000), Content(data), expected=ABSENT, timeout=20)
    words = problem(store)
    assert words.startswith(block_name(7000))
    assert why in words or "header" in words


def test_counts_that_are_not_true_are_named(store):
    """A block whose metadata disagree with its records is a problem."""
    data, info = encode_block([found(7000), missing(7001)], source="s")
    lie = msgspec.structs.replace(info, found=2, missing=0)
    if isinstance(store, FolderStore):  # there the counts lie in the file's own header
        data = data.replace(b'"found":1,"missing":1', b'"found":2,"missing":0')
    store.write(block_name(7000), Content(data, info=lie), expected=ABSENT, timeout=20)
    words = "the listing says of songs/000000007000.jsonl.gz that found is 2, its records say 1"
    assert problem(store, 7000, 7002) == words


def test_a_block_written_meanwhile_is_no_lie(store, monkeypatch):
    """A run that works on the range while it is verified causes no false alarm."""
    keep(store, {7000: found(7000)})
    before = list(store.list_blocks(timeout=20))
    keep(store, {7001: found(7001)})
    monkeypatch.setattr(store, "list_blocks", lambda *_, **__: iter(before))
    assert problem(store, 7000, 7002) is None


def test_foreign_objects_are_no_strays(store):
    """E8: what is not named like a block is none of our business."""
    keep(store, mixed(range(7000, 8000)))
    store.write("songs/readme.txt", Content(b"hello"), expected=ABSENT, timeout=20)
    assert problem(store) is None


def test_time_is_bounded(tmp_path):
    """A proof that takes longer than its timeout ends with an error, not with a verdict."""
    store = FolderStore(tmp_path)
    keep(store, mixed(range(7000, 8000)))
    with pytest.raises(StoreUnavailableError, match="longer than"):
        verify(store, 7000, 8000, timeout=1e-9)


def test_memory_is_flat(tmp_path):
    """Eight times the blocks cost no more memory."""
    store = FolderStore(tmp_path)
    keep(store, mixed(range(8000)))
    peaks = []
    for stop in (1000, 1000, 8000):  # the first warms up
        tracemalloc.start()
        assert problem(store, 0, stop) is None
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1]


V1_STORE = Path(__file__).parent / "fixtures" / "v1" / "genius_store"


def test_E15_fields_that_a_block_of_version_1_lacks_are_no_lie():
    """What was not written then is not known, and no reason to mistrust the rest."""
    report = verify(FolderStore(V1_STORE), 990, 1060, timeout=20)
    assert (report.problem, report.found, report.missing, report.failed) == (None, 62, 7, 1)


def test_a_block_that_is_silent_of_what_it_cannot_prove_is_read(store):
    """Stretches without proof are found in the records, across blocks, from fifty in a row."""
    records = {num: missing(num) for num in range(7970, 8030)}
    records |= {num: missing(num) for num in range(8100, 8149)}
    keep(store, {num: found(num) for num in range(7000, 9000)} | records)
    assert verify(store, 7000, 9000, timeout=60).unproven == [(7970, 8030)]
    assert verify(store, 7000, 8019, timeout=60).unproven == []
    assert verify(store, 8100, 8149, timeout=60).unproven == []


def test_a_stretch_with_proof_is_not_named(store):
    """A canary that was found shows that the site was well."""
    keep(store, {n: msgspec.structs.replace(missing(n), proof=5) for n in range(7000, 8000)})
    assert verify(store, 7000, 8000, timeout=60) == VerifyReport(7000, 8000, missing=1000, blocks=1)


def test_a_listing_that_lies_about_proof_is_a_problem(bucket_url):
    """A field that is there has to be true."""
    data, info = encode_block([missing(n) for n in range(7000, 7100)], source="s")
    lie = msgspec.structs.replace(info, unproven=[(7000, 7050)])
    store = open_store(bucket_url)
    store.write(block_name(7000), Content(data, info=lie), expected=ABSENT, timeout=20)
    assert "unproven" in (problem(store, 7000, 7100) or "")
