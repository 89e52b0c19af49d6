"""Coverage from the listing alone, and verification, which proves a whole range."""

import tracemalloc
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import StoreUnavailableError
from crawler.store.block import ABSENT, block_first, block_name, encode_block
from crawler.store.contract import Content, save_block
from crawler.store.coverage import (
    MAX_GAPS,
    MAX_NUMS,
    Coverage,
    Gap,
    VerifyReport,
    coverage_of,
    verify,
)
from crawler.store.folder import FolderStore
from crawler.store.opening import open_store
from tests.records import NOON, failed, found, missing, mixed
from tests.test_block import BROKEN


def blocks(*records):
    """Make the listing of a store that holds these records."""
    by_first = {}
    for record in sorted(records, key=lambda record: record.song_num):
        by_first.setdefault(block_first(record.song_num), []).append(record)
    return [encode_block(group, source="s")[1] for group in by_first.values()]


def gaps_of(*nums):
    """Name the gaps of a store that found these numbers."""
    return coverage_of(blocks(*[found(num) for num in nums])).gaps


def test_an_empty_store_covers_nothing(store):
    """A store without blocks has zero of everything and no gaps."""
    assert coverage_of(store.list_blocks(timeout=20)) == Coverage()


def test_totals_are_summed(store):
    """Counts, ends and times are those of all blocks together."""
    records = mixed(range(1, 1000)) | {5: failed(5, next_try_at=NOON + timedelta(hours=3))}
    more = {2000: failed(2000, next_try_at=NOON + timedelta(hours=2)), 2001: missing(2001)}
    for first, block in ((0, records), (2000, more)):
        save_block(store, first, block, source="s", timeout=20)
    held = coverage_of(store.list_blocks(timeout=20))
    assert (held.blocks, held.found, held.missing, held.failed) == (2, 908, 91, 2)
    assert (held.settled, held.first_num, held.last_num, held.last_found) == (999, 1, 2001, 999)
    assert held.next_try_at == NOON + timedelta(hours=2)
    assert held.oldest_fetched_at == NOON
    assert held.reasons == {"timeout": 2}
    assert (held.gaps, held.not_asked) == ([Gap(1000, 2000, 1000)], 1000)


def test_one_number_that_may_be_asked_now_makes_now_the_time():
    """When a failed number of any block is due at once, no earliest time is named."""
    held = coverage_of(blocks(failed(1, next_try_at=NOON), failed(1001)))
    assert (held.failed, held.next_try_at) == (2, None)


@pytest.mark.parametrize(
    ("nums", "gaps"),
    [
        ([5], []),
        ([5, 6], []),
        (range(1, 2001), []),
        ([999, 1000], []),
        ([5, 7], [Gap(5, 8, 1)]),
        ([5, 1005], [Gap(6, 1005, 999)]),
        ([5, 3005], [Gap(6, 3005, 2999)]),
        ([5, 7, 1005], [Gap(5, 1005, 998)]),
        ([5, 1000, 1002, 2000], [Gap(6, 1000, 994), Gap(1000, 1003, 1), Gap(1003, 2000, 997)]),
    ],
    ids=str,
)
def test_gaps_are_named(nums, gaps):
    """Numbers between the first and the last that were never asked are in a gap."""
    merged = coverage_of(blocks(*[found(num) for num in nums]))
    assert merged.not_asked == sum(gap.not_asked for gap in gaps)
    assert merged.gaps == join(gaps)


def join(gaps):
    """Join gaps that touch, as the coverage does."""
    joined = []
    for gap in gaps:
        if joined and joined[-1].stop == gap.start:
            before = joined.pop()
            gap = Gap(before.start, gap.stop, before.not_asked + gap.not_asked)  # noqa: PLW2901
        joined.append(gap)
    return joined


@given(st.sets(st.integers(0, 6000), min_size=1, max_size=30))
@settings(deadline=None)
def test_every_number_that_was_not_asked_lies_in_a_gap(nums):
    """No hole escapes: gaps hold exactly as many as there are, and every one of them."""
    held = coverage_of(blocks(*[found(num) for num in nums]))
    holes = set(range(min(nums), max(nums) + 1)) - nums
    covered = {num for gap in held.gaps for num in range(gap.start, gap.stop)}
    assert holes <= covered
    assert held.not_asked == len(holes)
    assert all(one.stop < other.start for one, other in zip(held.gaps, held.gaps[1:], strict=False))


def test_a_failed_number_is_no_gap():
    """What was asked in vain is counted with its reason, not as a hole."""
    held = coverage_of(blocks(found(5), failed(6, "http_500"), found(7)))
    assert (held.gaps, held.reasons) == ([], {"http_500": 1})


def test_reasons_beyond_the_five_of_a_block_are_others():
    """The reasons add up to the failed numbers."""
    kinds = ["a", "a", "b", "b", "c", "c", "d", "d", "e", "e", "f"]
    held = coverage_of(blocks(*[failed(num, kind) for num, kind in enumerate(kinds)]))
    assert held.reasons == {"a": 2, "b": 2, "c": 2, "d": 2, "e": 2, "other": 1}
    assert sum(held.reasons.values()) == held.failed


def test_failed_numbers_are_named(store):
    """Where few failed, all of them stand there by reason, ascending."""
    records = {n: failed(n, "timeout" if n % 2 else "json") for n in (2, 3, 5)}
    save_block(store, 0, records, source="s", timeout=20)
    save_block(store, 9000, {9001: failed(9001)}, source="s", timeout=20)
    assert coverage_of(store.list_blocks(timeout=20)).failed_nums == {
        "timeout": [3, 5, 9001],
        "json": [2],
    }


def test_of_many_failed_numbers_some_of_every_place_are_named():
    """An outage in one block does not hide that others failed, too."""
    records = [failed(num) for first in (0, 5000, 9000) for num in range(first, first + 500)]
    assert coverage_of(blocks(*records)).failed_nums == {
        "timeout": [0, 1, 2, 3, 5000, 5001, 5002, 5003, 9000, 9001, 9002, 9003]
    }


def test_failed_numbers_are_bounded():
    """In a store in which every block failed, the first of each of the first blocks are named."""
    nums = coverage_of(blocks(*[failed(1000 * k) for k in range(50)])).failed_nums
    assert nums == {"timeout": [1000 * k for k in range(MAX_NUMS)]}


def test_many_gaps_are_bounded():
    """A store full of holes names the first hundred and counts the rest."""
    held = coverage_of(blocks(*[found(num) for num in range(0, 200_000, 1000)]))
    assert len(held.gaps) == MAX_GAPS
    assert held.gaps_left_out == 199 - MAX_GAPS
    assert held.not_asked == 199 * 999


def test_it_is_json():
    """The JSON of GET /status has every field, null where there is nothing."""
    fields = msgspec.json.decode(msgspec.json.encode(coverage_of(blocks(failed(7)))))
    assert list(fields) == list(Coverage.__struct_fields__)
    assert (fields["failed"], fields["last_found"], fields["gaps"]) == (1, None, [])


# ---------------------------------------------------------------- what cannot be believed


def older(*records):
    """Make the listing of a store that version 1.0 made: without the later fields."""
    lacking = {"newest_fetched_at": None, "unproven": None, "proof": {}}
    return [msgspec.structs.replace(block, **lacking) for block in blocks(*records)]


def test_stretches_without_proof_are_joined():
    """Where one block ends and the next begins they touch."""
    records = [missing(num) for num in range(900, 1100)]
    assert coverage_of(blocks(*records)).unproven == [(900, 1100)]


def test_E15_a_block_of_version_1_tells_by_its_counts_alone():
    """So many missing ones that fifty of them must be in a row are named, others are not."""
    every = [missing(num) for num in range(1000)]
    one = [*every[:500], found(500), *every[501:]]
    scattered = [found(num) if num % 2 else every[num] for num in range(1000)]
    assert coverage_of(older(*every)).unproven == [(0, 1000)]
    assert coverage_of(older(*one)).unproven == [(0, 1000)]
    assert coverage_of(older(*scattered)).unproven == []


def test_E13_blocks_with_times_that_cannot_be_are_named():
    """Years ahead or from before there was a crawler; a clock may be off by minutes."""
    year = timedelta(days=365)
    records = [
        found(1, at=NOON + timedelta(minutes=4)),
        found(1001, at=NOON + timedelta(minutes=6)),
        failed(2001, at=NOON + 5 * year),
        found(3001, at=NOON - 30 * year),
        found(4001, at=NOON - year),
    ]
    assert coverage_of(blocks(*records), now=NOON).odd_times == [(1000, 4000)]
    assert coverage_of(older(*records[:2]), now=NOON).odd_times == [(1000, 2000)]


# --- Verification -----------------------------------------------------------------------------------


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
