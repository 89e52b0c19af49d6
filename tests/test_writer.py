"""The writer and its saver: which blocks are written when, and what becomes of them."""

import threading
import time
from datetime import timedelta

import pytest

from crawler.errors import BlockFormatError, StoreUnavailableError
from crawler.plan.planned import PlannedBlock
from crawler.record import Record
from crawler.run.writer import MAX_OPEN_BLOCKS, MAX_PENDING_BLOCKS, Writer, next_try
from crawler.store.block import BLOCK_SIZE, BlockInfo, summarise
from tests.clock import wait_until
from tests.records import NOON, failed, found, missing
from tests.simulation import Clock


class Shelf:
    """Where blocks land; fails while `faults` lasts, and waits while `gate` is closed."""

    def __init__(self, faults=()):
        self.saves: list[tuple[int, list[int], bool]] = []
        self.records: dict[int, Record] = {}
        self.infos: list[BlockInfo] = []
        self.troubles: list[str] = []
        self.timeouts: list[float] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self._faults = iter(faults)

    def save(self, first, records, *, is_new, timeout):
        """Save as a store does."""
        self.timeouts.append(timeout)
        self.began.release()
        assert self.gate.wait(30)
        if (fault := next(self._faults, None)) is not None:
            raise fault
        self.saves.append((first, sorted(records), is_new))
        self.records.update(records)
        return summarise(records.values(), source="test")


@pytest.fixture
def clock():
    """A time that only tests and pauses move."""
    return Clock()


def writer_to(shelf, clock, **options) -> Writer:
    """Make a writer whose pauses take no time but the clock's."""

    def sleep(seconds):
        clock.now += seconds

    options = {"on_trouble": shelf.troubles.append, "sleep": sleep} | options
    return Writer(shelf.save, on_stored=shelf.infos.append, clock=clock, **options)


def expect(writer, nums, **fields) -> None:
    """Announce numbers of one block."""
    first = nums[0] - nums[0] % BLOCK_SIZE
    writer.expect(PlannedBlock(first, nums, **({"is_new": True} | fields)))


def settled(writer, shelf) -> None:
    """Wait until everything handed on is in the store."""
    writer.close(30)
    assert not shelf.troubles


def test_a_whole_block_is_stored_in_whatever_order_its_records_come(clock):
    """When the last record is there, and not before."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, range(1000, 2000))
    for num in [*range(1999, 1500, -1), *range(1000, 1500)]:
        writer.add(found(num))
    writer.add(found(1500))
    settled(writer, shelf)
    assert shelf.saves == [(1000, list(range(1000, 2000)), True)]
    assert (writer.blocks_written, len(shelf.infos), writer.lost.total()) == (1, 1, 0)


def test_only_expected_numbers_are_waited_for(clock):
    """A block whose other numbers are settled is whole without them."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, [7, 9], is_new=False)
    writer.add(missing(9))
    writer.add(found(7))
    settled(writer, shelf)
    assert shelf.saves == [(0, [7, 9], False)]


def test_a_record_waits_a_minute_at_most(clock):
    """Then its block is written in part, and the rest is merged into it later."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, range(3))
    writer.add(found(0))
    clock.now += 59.9
    writer.tick()
    writer.add(found(1))
    clock.now += 0.1
    writer.tick()
    writer.add(found(2))
    settled(writer, shelf)
    assert shelf.saves == [(0, [0, 1], True), (0, [2], False)]


def test_a_straggler_s_minute_begins_with_itself(clock):
    """What was written in part does not make what follows seem old."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, range(4))
    writer.add(found(0))
    clock.now += 100
    writer.tick()
    writer.add(found(1))
    clock.now += 30
    writer.tick()
    writer.add(found(2))
    writer.add(found(3))
    settled(writer, shelf)
    assert shelf.saves == [(0, [0], True), (0, [1, 2, 3], False)]


def test_more_than_sixteen_open_blocks_are_not_kept(clock):
    """The oldest is written with what it has; its straggler is merged when it comes."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    firsts = [block * BLOCK_SIZE for block in range(40)]
    for first in firsts:
        expect(writer, [first, first + 1])
        writer.add(found(first))
    assert wait_until(lambda: len(shelf.saves) == len(firsts) - MAX_OPEN_BLOCKS)
    for first in firsts:
        writer.add(found(first + 1))
    settled(writer, shelf)
    assert sorted(shelf.records) == sorted([*firsts, *(first + 1 for first in firsts)])
    assert [first for first, _, is_new in shelf.saves if is_new] == firsts


def test_a_block_that_is_entered_twice_is_one_block(clock):
    """The fill's end and the tail's beginning may share it."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, [1, 2], failed_runs={2: 3})
    writer.add(found(1))
    expect(writer, [3, 4], failed_runs={4: 5})
    for num in (2, 3, 4):
        writer.add(failed(num))
    settled(writer, shelf)
    assert shelf.saves == [(0, [1, 2, 3, 4], True)]
    runs = {num: record.failed_runs for num, record in shelf.records.items()}
    assert runs == {1: 0, 2: 4, 3: 1, 4: 6}


def test_a_record_that_nobody_announced_is_stored_all_the_same(clock):
    """At the latest when the run ends."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    writer.add(found(5))
    settled(writer, shelf)
    assert shelf.saves == [(0, [5], False)]


def test_room_ends_with_eight_blocks_on_their_way(clock):
    """While the store cannot keep up the frontier is told to wait, and told when to go on."""
    shelf = Shelf()
    shelf.gate.clear()
    writer = writer_to(shelf, clock)
    for block in range(MAX_PENDING_BLOCKS):
        assert writer.has_room()
        expect(writer, [block * BLOCK_SIZE])
        writer.add(found(block * BLOCK_SIZE))
    assert not writer.has_room()
    shelf.gate.set()
    settled(writer, shelf)
    assert writer.has_room()
    assert writer.blocks_written == MAX_PENDING_BLOCKS


def test_E2_a_store_out_of_reach_for_a_while_loses_nothing(clock):
    """It is tried again with growing pauses, each try with the time that is left."""
    shelf = Shelf([StoreUnavailableError("503")] * 8)
    writer = writer_to(shelf, clock)
    expect(writer, [1])
    writer.add(found(1))
    assert wait_until(lambda: bool(shelf.infos))
    settled(writer, shelf)
    assert shelf.saves == [(0, [1], True)]
    assert 40 < clock.now - 1000 < 120
    assert all(0 < timeout <= 30 for timeout in shelf.timeouts)


def test_E3_the_same_trouble_of_a_block_is_told_once(clock, caplog):
    """However often it is tried again; another reason is news."""
    trouble = [StoreUnavailableError("full")] * 3 + [StoreUnavailableError("gone")] * 2
    writer = writer_to(Shelf(trouble), clock)
    expect(writer, [1])
    writer.add(found(1))
    writer.close(30)
    told = [line.getMessage() for line in caplog.records if "not stored yet" in line.getMessage()]
    assert [line.rpartition(" ")[2] for line in told] == ["full", "gone"]


def test_E3_a_store_out_of_reach_for_ever_ends_the_run(clock):
    """After two minutes the block is given up, told, and counted by outcome."""
    shelf = Shelf([StoreUnavailableError("503")] * 1000)
    writer = writer_to(shelf, clock)
    expect(writer, [1, 2, 3])
    for record in (found(1), missing(2), failed(3)):
        writer.add(record)
    assert wait_until(lambda: bool(shelf.troubles))
    assert 100 < clock.now - 1000 <= 120
    writer.close(30)
    assert shelf.troubles == ["503"]
    assert writer.lost == {"found": 1, "missing": 1, "failed": 1}
    assert writer.blocks_written == 0


@pytest.mark.parametrize("error", [BlockFormatError("too large"), ZeroDivisionError("a bug")])
def test_what_a_repeat_cannot_mend_is_told_at_once(clock, error):
    """A block that cannot be saved, for whatever reason, is never lost in silence."""
    shelf = Shelf([error])
    writer = writer_to(shelf, clock)
    expect(writer, [1])
    expect(writer, [2001])
    writer.add(found(1))
    writer.add(found(2001))
    writer.close(30)
    assert len(shelf.troubles) == 1
    assert writer.lost == {"found": 1}
    assert shelf.saves == [(2000, [2001], True)]
    assert clock.now == 1000


def test_what_is_not_stored_in_time_is_counted_as_lost(clock):
    """Blocks under way and blocks that still wait for their turn, each once."""
    shelf = Shelf()
    shelf.gate.clear()
    writer = writer_to(shelf, clock)
    for block in range(5):
        expect(writer, [block * BLOCK_SIZE])
        writer.add(found(block * BLOCK_SIZE))
    shelf.began.acquire(timeout=10)
    writer.close(0.01)
    assert writer.lost == {"found": 5}
    assert len(shelf.troubles) == 5
    shelf.gate.set()
    savers = [thread for thread in threading.enumerate() if thread.name.startswith("store")]
    assert wait_until(lambda: bool(shelf.saves) and not any(map(threading.Thread.is_alive, savers)))
    assert writer.lost == {"found": 5}


def test_what_is_under_way_when_the_time_is_over_may_still_end(clock):
    """Only blocks that wait for their turn are given up at once."""
    shelf = Shelf()
    shelf.gate.clear()
    writer = writer_to(shelf, clock, on_trouble=lambda _reason: shelf.gate.set())
    for block in range(5):
        expect(writer, [block * BLOCK_SIZE])
        writer.add(found(block * BLOCK_SIZE))
    shelf.began.acquire(timeout=10)
    writer.close(0.01)
    assert (writer.lost, writer.blocks_written) == ({"found": 4}, 1)


def test_pauses_are_short_when_the_run_ends():
    """However long the store was out of reach, the last seconds hold many tries."""
    clock, pauses = Clock(), []

    def sleep(seconds):
        clock.now += seconds
        pauses.append(seconds)
        if len(pauses) == 6:
            writer._hurry(3.0)  # noqa: SLF001 - what `close` does; it would wait for this thread

    shelf = Shelf([StoreUnavailableError("503")] * 1000)
    writer = Writer(
        shelf.save,
        on_stored=shelf.infos.append,
        on_trouble=shelf.troubles.append,
        clock=clock,
        sleep=sleep,
    )
    expect(writer, [1])
    writer.add(found(1))
    assert wait_until(lambda: bool(shelf.troubles))
    assert pauses == [0.5, 1, 2, 4, 8, 10, 0.5, 0.5, 0.5, 0.5, 0.5]
    writer.close(1)


def test_closing_wakes_who_waits_for_a_next_try():
    """A saver in a pause tries once more at once: the time is short."""
    shelf = Shelf([StoreUnavailableError("503")])
    writer = Writer(
        shelf.save,
        on_stored=shelf.infos.append,
        on_trouble=shelf.troubles.append,
        sleep=lambda _seconds: writer._pause(600.0),  # noqa: SLF001 - the real one, longer
    )
    expect(writer, [1])
    writer.add(found(1))
    shelf.began.acquire(timeout=10)
    began = time.monotonic()
    writer.close(20)
    assert shelf.saves == [(0, [1], True)]
    assert time.monotonic() - began < 10


def test_the_last_tries_get_only_the_time_that_is_left(clock):
    """After SIGTERM three seconds remain: no call is given thirty."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, range(5))
    writer.add(found(1))
    writer.close(3.0)
    assert shelf.timeouts == [3.0]
    assert shelf.saves == [(0, [1], True)]


def test_a_record_that_comes_after_the_end_is_counted_as_lost(clock):
    """Nothing is said to be stored that is not."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    writer.close(1)
    expect(writer, [1])
    writer.add(found(1))
    assert writer.lost == {"found": 1}


def test_many_threads_lose_nothing(clock):
    """Records of a thousand blocks, flushed and ticked meanwhile, all reach the store."""
    shelf = Shelf()
    writer = writer_to(shelf, clock, threads=4)
    lock = threading.Lock()

    def add(part):
        for num in range(part, 20_000, 4):
            with lock:  # as under the frontier's
                if num % 10 == part:
                    writer.expect(PlannedBlock(num - num % 1000, [num], is_new=True))
                writer.add(found(num))
            if num % 997 == 0:
                writer.flush()

    threads = [threading.Thread(target=add, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled(writer, shelf)
    assert sorted(shelf.records) == list(range(20_000))


@pytest.mark.parametrize(
    ("runs", "hours"), [(1, 1), (2, 2), (3, 4), (8, 128), (9, 168), (10, 168), (500, 168)]
)
def test_E11_the_next_try_comes_later_each_time(runs, hours):
    """One hour after the first run that failed, doubling to seven days."""
    assert next_try(runs, NOON) == NOON + timedelta(hours=hours)


def test_E11_runs_that_failed_in_a_row_are_counted(clock):
    """The third failing run puts a number off by four hours from when it was asked."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, [1, 2], failed_runs={1: 2})
    writer.add(failed(1))
    writer.add(failed(2))
    settled(writer, shelf)
    third, first = shelf.records[1], shelf.records[2]
    assert (third.failed_runs, third.next_try_at) == (3, NOON + timedelta(hours=4))
    assert (first.failed_runs, first.next_try_at) == (1, NOON + timedelta(hours=1))


def test_E13_a_record_takes_the_place_of_one_from_the_future(clock):
    """It gets that one's time and a microsecond, and is asked again when it is really due."""
    ahead = NOON + timedelta(days=1000)
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, [1, 2, 3], newest={1: ahead, 2: ahead})
    for record in (found(1), failed(2), found(3)):
        writer.add(record)
    settled(writer, shelf)
    times = {num: record.fetched_at for num, record in shelf.records.items()}
    assert times == {1: ahead + timedelta(microseconds=1), 2: times[1], 3: NOON}
    assert shelf.records[2].next_try_at == NOON + timedelta(hours=1)


def test_a_missing_number_carries_its_proof(clock):
    """The canary is told before the records, and is none of a song's or a failed number's."""
    shelf = Shelf()
    writer = writer_to(shelf, clock)
    expect(writer, [1, 2, 3, 4])
    writer.prove([1, 2, 3], 99, NOON)
    for record in (missing(1), found(2), failed(3), missing(4)):
        writer.add(record)
    settled(writer, shelf)
    assert {num: record.proof for num, record in shelf.records.items()} == {
        1: 99, 2: None, 3: None, 4: None
    }  # fmt: skip
