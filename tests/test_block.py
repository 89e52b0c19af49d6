"""Blocks: what goes in comes out, what is broken is named, and the counts are true."""

import gzip
import shutil
import subprocess
import tracemalloc
import zlib
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import BlockFormatError
from crawler.record import encode_records
from crawler.store.block import (
    BLOCK_SIZE,
    FORMAT_VERSION,
    HEAD_BYTES,
    MAX_BLOCK_BYTES,
    MAX_TEXT_BYTES,
    BlockInfo,
    block_first,
    block_name,
    decode_block,
    encode_block,
    format_block_info,
    merge_blocks,
    overlaps,
    parse_block_info,
    parse_block_name,
    read_block_info,
    summarise,
    unproven_stretches,
)
from tests.records import NOON, blocks_of, failed, found, missing, mixed

NAME = block_name(7000)
DATA, INFO = encode_block(mixed(range(7000, 8000)).values(), source="genius")
FIELD_END = 16 + len(format_block_info(INFO))


def pack(text: bytes, info: BlockInfo = INFO, first: int = 7000) -> bytes:
    """Frame any text as a block with a header that is right."""
    field = format_block_info(
        msgspec.structs.replace(info, first=first, first_num=first, last_num=first)
    ).encode()
    head = bytes([0x1F, 0x8B, 8, 4, 0, 0, 0, 0, 0, 255]) + (len(field) + 4).to_bytes(2, "little")
    head += b"SC" + len(field).to_bytes(2, "little") + field
    return head + gzip.compress(text, mtime=0)[10:]


def line(song_num: int, **changed: object) -> bytes:
    """Write one line of JSON as a block has it."""
    record = msgspec.to_builtins(missing(song_num)) | changed
    return msgspec.json.encode(record) + b"\n"


@pytest.mark.parametrize(
    ("song_num", "first", "name"),
    [
        (0, 0, "songs/000000000000.jsonl.gz"),
        (999, 0, "songs/000000000000.jsonl.gz"),
        (1000, 1000, "songs/000000001000.jsonl.gz"),
        (378195, 378000, "songs/000000378000.jsonl.gz"),
        (10**12 - 1, 10**12 - 1000, "songs/999999999000.jsonl.gz"),
    ],
)
def test_a_number_has_one_block(song_num, first, name):
    """A block's name is its first number, and can be read back."""
    assert block_first(song_num) == first
    assert block_name(first) == name
    assert parse_block_name(name) == first


@pytest.mark.parametrize("first", [-1000, 1, 999, 1001, 10**12])
def test_no_block_begins_elsewhere(first):
    """A number that begins no block is refused."""
    with pytest.raises(ValueError, match="multiple of 1000"):
        block_name(first)


@pytest.mark.parametrize(
    "name",
    [
        "songs/",
        "songs/readme.txt",
        "songs/000000000500.jsonl.gz",
        "songs/00000000000.jsonl.gz",
        "songs/0000000001000.jsonl.gz",
        "songs/000000001000.jsonl.gz\n",
        "songs/000000001000.jsonl",
        "songs/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0661000.jsonl.gz",
        "songs/-00000001000.jsonl.gz",
        "raw/000000001000.jsonl.gz",
        "store.json",
        "",
    ],
    ids=ascii,
)
def test_a_foreign_name_is_no_block(name):
    """E8: what is not named exactly like a block is none of ours."""
    assert parse_block_name(name) is None


@given(blocks_of())
@settings(deadline=None)
def test_a_block_is_read_back_equal(records):
    """C5: whatever the records hold, they come back as they were, ascending."""
    data, info = encode_block(records.values(), source="genius")
    assert decode_block(data, NAME) == records
    assert list(decode_block(data, NAME)) == sorted(records)
    assert read_block_info(data[:HEAD_BYTES]) == info


@given(blocks_of(), st.randoms())
@settings(deadline=None)
def test_bytes_are_deterministic(records, random):
    """The same records give the same bytes, in whatever order they come."""
    shuffled = list(records.values())
    random.shuffle(shuffled)
    assert encode_block(shuffled, source="s") == encode_block(records.values(), source="s")


@given(blocks_of(), blocks_of(), blocks_of())
@settings(deadline=None)
def test_merging_blocks_is_commutative_associative_and_idempotent(a, b, c):
    """E4: runs may overlap, repeat and arrive late; the block is the same in the end."""
    assert merge_blocks(a, b) == merge_blocks(b, a)
    assert merge_blocks(merge_blocks(a, b), c) == merge_blocks(a, merge_blocks(b, c))
    assert merge_blocks(merge_blocks(a, b), b) == merge_blocks(a, b)
    assert list(merge_blocks(a, b)) == sorted(a.keys() | b.keys())


def test_merging_changes_neither_side():
    """The states that are merged stay as they were."""
    one, other = {7001: missing(7001)}, {7001: found(7001), 7000: found(7000)}
    merge_blocks(one, other)
    assert (one, list(other)) == ({7001: missing(7001)}, [7001, 7000])


def test_a_block_is_plain_gzip():
    """Python's gzip reads a block as a thousand lines, ascending."""
    lines = gzip.decompress(DATA).splitlines()
    nums = [msgspec.json.decode(one)["song_num"] for one in lines]
    assert nums == list(range(7000, 8000))


@pytest.mark.skipif(shutil.which("zcat") is None, reason="no zcat on this machine")
def test_zcat_reads_a_block(tmp_path):
    """The shell's zcat reads a block and finds nothing to complain about."""
    path = tmp_path / "block.jsonl.gz"
    path.write_bytes(DATA)
    shown = subprocess.run(["zcat", path], capture_output=True, check=True)
    assert (shown.stdout, shown.stderr) == (gzip.decompress(DATA), b"")


def test_duckdb_reads_a_block_in_place(tmp_path):
    """DuckDB counts outcomes in a block file, extra field and all."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "000000007000.jsonl.gz"
    path.write_bytes(DATA)
    query = f"select outcome, count(*) from '{path}' group by 1 order by 1"
    assert duckdb.sql(query).fetchall() == [("found", INFO.found), ("missing", INFO.missing)]


def test_counts_are_told():
    """A block's counts say how many there are of each, where, how old and when due."""
    due, soon = NOON + timedelta(days=1), NOON + timedelta(hours=1)
    gone = msgspec.structs.replace(found(7004), gone_since=NOON + timedelta(hours=9))
    records = [
        missing(7002, at=NOON + timedelta(hours=2)),
        found(7003, at=NOON + timedelta(hours=3)),
        gone,
        failed(7009, at=NOON - timedelta(days=9), next_try_at=due),
        failed(7007, "http_500", next_try_at=soon),
    ]
    info = encode_block(records, source="genius")[1]
    assert info == BlockInfo(
        format=FORMAT_VERSION,
        source="genius",
        first=7000,
        found=2,
        missing=1,
        failed=2,
        first_num=7002,
        last_num=7009,
        last_found=7004,
        oldest_fetched_at=NOON + timedelta(hours=2),
        newest_fetched_at=NOON + timedelta(hours=9),
        next_try_at=soon,
        reasons={"http_500": 1, "timeout": 1},
        failed_nums={"http_500": [7007], "timeout": [7009]},
        unproven=[],
    )
    assert info.settled == 3


def test_a_failed_number_without_a_time_is_due_at_once():
    """When one failed number may be asked at any time, the block names no earliest time."""
    info = encode_block([failed(7000, next_try_at=NOON), failed(7001)], source="s")[1]
    assert info.next_try_at is None


def test_a_block_of_failures_has_no_age():
    """What is not settled does not count as old."""
    assert encode_block([failed(7000)], source="s")[1].oldest_fetched_at is None


def test_only_the_commonest_reasons_are_told():
    """The five commonest kinds of failure stand in the counts, most first, then by name."""
    kinds = ["json", "json", "tls", "tls", "tls", "f", "e", "dns", "c"]
    records = [failed(7000 + place, kind) for place, kind in enumerate(kinds)]
    reasons = encode_block(records, source="s")[1].reasons
    assert list(reasons.items()) == [("tls", 3), ("json", 2), ("c", 1), ("dns", 1), ("e", 1)]


def test_of_each_told_reason_the_first_numbers_are_told():
    """Five numbers to look at, ascending, for the reasons that are told and for no others."""
    records = [failed(7000 + place, "abcdefaaaaaa"[place]) for place in range(12)]
    nums = summarise(reversed(records), source="s").failed_nums
    assert nums == {"a": [7000, 7006, 7007, 7008, 7009]} | {
        kind: [7000 + place] for place, kind in enumerate("bcde", 1)
    }


def test_counts_that_name_no_failed_numbers_are_read():
    """A block written before the numbers were named is read as it is."""
    text = format_block_info(encode_block([failed(7003)], source="s")[1])
    before = text.replace(',"failed_nums":{"timeout":[7003]}', "")
    assert before != text
    assert parse_block_info(before, "b").reasons == {"timeout": 1}
    assert parse_block_info(before, "b").failed_nums == {}


@pytest.mark.parametrize("text", ['"', "\ud800", "\0\n", "名"], ids=ascii)
def test_counts_fit_the_head_whatever_things_are_called(text):
    """A source or a failure with an endless or hostile name does not push counts out of reach."""
    nums = range(10**12 - 1000, 10**12)
    records = [failed(num, f"{num % 9}{text * 500}", next_try_at=NOON) for num in nums]
    data, info = encode_block(records, source=text * 500)
    assert read_block_info(data[:HEAD_BYTES]) == info
    assert info.source.isascii()
    assert info.source.isprintable()
    assert (len(info.source), {len(kind) for kind in info.reasons}) == (100, {40})


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], "at least one"),
        ([found(7000), missing(7000)], "7000 is given twice"),
        ([found(7000), found(7001), found(8000)], "8000 is not of the block 7000"),
        ([found(6999), found(7000)], "7000 is not of the block 6000"),
    ],
    ids=["none", "twice", "next block", "block before"],
)
def test_what_is_no_block_is_not_written(records, why):
    """A block is made of records of one block, each number once."""
    with pytest.raises(ValueError, match=why):
        encode_block(records, source="s")


def test_a_block_that_is_too_large_is_refused():
    """A block never grows over what one request can upload with a precondition."""
    records = mixed(range(7000, 8000)).values()
    assert encode_block(records, source="genius", max_bytes=len(DATA)) == (DATA, INFO)
    with pytest.raises(BlockFormatError, match=r"songs/000000007000.*keep less"):
        encode_block(records, source="genius", max_bytes=len(DATA) - 1)
    assert MAX_BLOCK_BYTES + 64 * 1024 == 8 * 1024 * 1024  # what frames it needs room, too


@pytest.mark.parametrize(("more", "is_refused"), [(0, False), (1, True)])
def test_a_block_unpacks_to_64_MiB_at_most(more, is_refused):
    """So much is written and read back, and not a byte more."""
    filling = 64 * 1024 * 1024 + more - len(encode_records([found(7000, "")]))
    records = {7000: found(7000, "x" * filling)}
    with pytest.raises(BlockFormatError, match="keep less") if is_refused else nullcontext():
        assert decode_block(encode_block(records.values(), source="s")[0], NAME) == records


BROKEN = {
    "empty": (b"", "empty"),
    "not gzip": (b"hello", "begin"),
    "plain gzip": (gzip.compress(line(7000)), "begin"),
    "header cut": (DATA[: FIELD_END - 1], "header"),
    "foreign field": (DATA[:12] + b"XY" + DATA[14:], "header"),
    "counts garbled": (DATA[:16] + b"x" + DATA[17:], "counts"),
    "cut": (DATA[:-20], "cut"),
    "trailer cut": (DATA[:-1], "cut"),
    "wrong CRC": (DATA[:-8] + bytes([DATA[-8] ^ 1]) + DATA[-7:], "damaged"),
    "bit flipped": (DATA[:3000] + bytes([DATA[3000] ^ 255]) + DATA[3001:], "damaged"),
    "trailing bytes": (DATA + b"\0", "follows"),
    "twice over": (DATA + DATA, "follows"),
    "no line": (pack(b""), "no record"),
    "last line cut": (pack(line(7000) + line(7001)[:-1]), "last line is cut"),
    "empty line": (pack(line(7000) + b"\n"), "not a record"),
    "over two lines": (pack(line(7000).replace(b",", b",\n", 1)), "not a record"),
    "not JSON": (pack(b"{\n"), "not a record"),
    "not a record": (pack(b"{}\n"), "not a record"),
    "not UTF-8": (pack(line(7000).replace(b"missing", b"miss\xff")), "not a record"),
    "nested too deep": (pack(line(7000)[:-2] + b',"x":' + b"[" * 10**5 + b"}\n"), "not a record"),
    "wrong number": (pack(line(8000)), "8000"),
    "number before": (pack(line(6999)), "6999"),
    "negative": (pack(line(-1)), "-1"),
    "number twice": (pack(line(7000) + line(7000)), "7000 is twice"),
    "out of order": (pack(line(7001) + line(7000)), "out of order"),
    "time without zone": (pack(line(7000, fetched_at="2026-11-22T12:00:00")), "zone"),
    "another block's": (pack(line(7000), first=8000), "another block"),
}


@pytest.mark.parametrize(("data", "why"), BROKEN.values(), ids=BROKEN)
def test_E5_a_broken_block_is_named(data, why):
    """E5: a block that is not whole and right is refused, in words that name it and what to do."""
    with pytest.raises(BlockFormatError, match=rf"(?s)^{NAME} cannot be read: .*{why}.*move it"):
        decode_block(data, NAME)


def test_an_object_with_another_name_is_no_block():
    """Bytes are read as a block only under a block's name."""
    with pytest.raises(BlockFormatError, match=r"store\.json cannot be read"):
        decode_block(DATA, "store.json")


def test_E9_a_newer_format_is_refused():
    """E9: a block of a newer version asks for the newer crawler, and is not called broken."""
    newer = msgspec.structs.replace(INFO, format=FORMAT_VERSION + 1)
    with pytest.raises(BlockFormatError, match=r"format version 2.*use the newer version"):
        decode_block(pack(line(7000), newer), NAME)


def test_E9_the_format_before_is_read():
    """E9: a block of the version before is read."""
    older = msgspec.structs.replace(INFO, format=FORMAT_VERSION - 1)
    assert list(decode_block(pack(line(7000), older), NAME)) == [7000]


def test_times_of_any_zone_are_read():
    """A time with another offset is the same moment."""
    east = timezone(timedelta(hours=5))
    text = line(7000, fetched_at=datetime(2026, 11, 22, 17, tzinfo=east).isoformat())
    assert decode_block(pack(text), NAME)[7000].fetched_at == NOON.astimezone(UTC)


def test_a_bomb_costs_a_bounded_amount():
    """An object that unpacks to more than any block is refused without unpacking it all."""
    bomb = pack(bytes(4 * MAX_TEXT_BYTES))
    tracemalloc.start()
    with pytest.raises(BlockFormatError, match="too large"):
        decode_block(bomb, NAME)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_TEXT_BYTES


@pytest.mark.parametrize(
    "changed",
    [
        {"first_num": 6999},
        {"last_num": 8000},
        {"first_num": 7500, "last_num": 7400},
        {"found": -1},
        {"found": "3"},
        {"oldest_fetched_at": "2026-11-22T12:00:00"},
        {"last_found": 1.5},
        {"format": None},
    ],
    ids=str,
)
def test_counts_that_make_no_sense_are_refused(changed):
    """Counts of a wrong type, or that contradict each other, are an error that names the block."""
    counts = msgspec.json.decode(format_block_info(INFO)) | changed
    with pytest.raises(BlockFormatError, match=NAME):
        parse_block_info(msgspec.json.encode(counts), NAME)


def test_the_token_is_not_among_the_counts():
    """Bytes and metadata do not depend on where and when a block was stored."""
    stored = msgspec.structs.replace(INFO, token="17")
    assert format_block_info(stored) == format_block_info(INFO)


damaged = st.builds(
    lambda place, byte: DATA[:place] + bytes([byte]) + DATA[place + 1 :],
    st.integers(0, FIELD_END + 40) | st.integers(0, len(DATA) - 1),
    st.integers(0, 255),
)


@given(
    st.binary(max_size=400)
    | damaged
    | st.integers(0, len(DATA)).map(lambda end: DATA[:end])
    | st.binary(max_size=200).map(pack)
    | st.binary(max_size=60).map(lambda tail: pack(line(7000)[:-2] + tail + b"}\n"))
)
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_a_block_or_a_named_error(data):
    """E5: no bytes raise anything but the named error, and none give records of other blocks."""
    with suppress(BlockFormatError):
        assert isinstance(read_block_info(data[:HEAD_BYTES]), BlockInfo)
    with suppress(BlockFormatError):
        assert {block_first(num) for num in decode_block(data, NAME)} == {7000}


def test_a_whole_block_is_small():
    """A thousand ordinary songs are far below what one request may upload."""
    text = gzip.decompress(DATA)
    assert INFO.settled == BLOCK_SIZE
    assert len(DATA) < len(text) / 5 < MAX_BLOCK_BYTES / 50
    assert zlib.crc32(text) == int.from_bytes(DATA[-8:-4], "little")


def test_what_a_block_does_not_have_is_not_in_its_header():
    """Two bytes a field would add up over a million blocks."""
    info = encode_block([found(7000), missing(7002)], source="genius")[1]
    assert format_block_info(info) == (
        '{"format":1,"source":"genius","first":7000,"found":1,"missing":1,"failed":0,'
        '"first_num":7000,"last_num":7002,"last_found":7000,'
        '"oldest_fetched_at":"2026-11-22T12:00:00Z","newest_fetched_at":"2026-11-22T12:00:00Z",'
        '"unproven":[]}'
    )


def test_the_header_alone_is_enough_to_count():
    """Not a byte of the packed lines is wanted."""
    assert read_block_info(DATA[:FIELD_END]) == INFO


@pytest.mark.parametrize(
    ("start", "stop", "is_within"),
    [
        (0, 7000, False),
        (0, 7001, True),
        (7999, 9000, True),
        (8000, 9000, False),
        (7500, 7500, False),
        (7999, None, True),
        (8000, None, False),
    ],
)
def test_a_block_overlaps_a_range_with_which_it_shares_a_number(start, stop, is_within):
    """The first and the last of the block count; a range may have no end."""
    assert overlaps(7000, start, stop) is is_within


# ---------------------------------------------------------------- proof, and times


def proven(song_num, canary, at=NOON):
    """Make a missing record that a canary proves."""
    return msgspec.structs.replace(missing(song_num, at), proof=canary)


@pytest.mark.parametrize(
    ("records", "stretches"),
    [
        ([missing(n) for n in range(7000, 7049)], []),
        ([missing(n) for n in range(7000, 7050)], [(7000, 7050)]),
        ([proven(n, 5) for n in range(7000, 7100)], []),
        ([*(missing(n) for n in range(7000, 7049)), found(7049), missing(7050)], []),
        ([*(missing(n) for n in range(7000, 7050)), *(proven(n, 5) for n in range(7050, 7100)),
          *(missing(n) for n in range(7200, 7300))], [(7000, 7050), (7200, 7300)]),
        ([missing(n) for n in range(7299, 7000, -1)], [(7001, 7300)]),
    ],
    ids=["49", "50", "proven", "cut", "two", "unsorted"],
)  # fmt: skip
def test_long_stretches_of_missing_numbers_without_proof_are_counted(records, stretches):
    """Fifty in a row are a sign of a site in trouble; fewer are as usual."""
    info = summarise(records, source="s")
    assert info.unproven == stretches
    assert read_block_info(encode_block(records, source="s")[0]) == info


def test_stretches_of_any_length_are_listed():
    """One after the other, proven numbers and those of other outcomes left out."""
    records = [missing(7000), missing(7001), found(7002), missing(7003), proven(7004, 5)]
    assert list(unproven_stretches(records)) == [(7000, 7002), (7003, 7004)]
    assert list(unproven_stretches([found(7000)])) == []


def test_the_latest_proofs_are_told_with_their_time():
    """Which song was found, when its last number was asked for; of equals the higher number."""
    hour = timedelta(hours=1)
    canaries = [105, 103, 103, 101, 104, 102]
    ages = [2, 1, 4, 4, 4, 3]
    records = [
        proven(7000 + n, canary, NOON - age * hour)
        for n, (canary, age) in enumerate(zip(canaries, ages, strict=True))
    ]
    told = summarise(records, source="s").proof
    assert list(told.items()) == [
        ("102", NOON - 3 * hour),
        ("103", NOON - hour),
        ("105", NOON - 2 * hour),
    ]
    for canaries in ([101, 102, 103, 104], [104, 103, 102, 101]):
        alike = [proven(7000 + n, canary) for n, canary in enumerate(canaries)]
        assert list(summarise(alike, source="s").proof) == ["102", "103", "104"]


def test_a_header_full_of_proofs_is_within_the_first_bytes():
    """However a block is cut into stretches, a listing reads no more than its head."""
    records = [
        proven(n, 10**11 + n) if n % 51 == 50 else missing(n) for n in range(10**12 - 1000, 10**12)
    ]
    data, info = encode_block(records, source="s" * 100)
    assert len(info.unproven) == 10
    assert read_block_info(data[:HEAD_BYTES]) == info


def test_E13_the_newest_time_is_counted():
    """That of failed records, too: it tells whether a clock was ahead."""
    ahead = NOON + timedelta(days=900)
    assert summarise([found(1), failed(2, at=ahead)], source="s").newest_fetched_at == ahead


def test_a_proof_does_not_keep_records_from_merging():
    """A later answer takes its place, a song wins over it."""
    old, new = proven(7000, 5), missing(7000, NOON + timedelta(hours=1))
    assert merge_blocks({7000: old}, {7000: new}) == {7000: new}
    assert merge_blocks({7000: old}, {7000: found(7000)}) == {7000: found(7000)}
