"""The plan: which numbers a run asks for, given what its store holds."""

import copy
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import timedelta
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.errors import BlockFormatError, StoreUnavailableError
from crawler.plan.fill import BlockOrder, FillSupply, sample_numbers, spread
from crawler.plan.planned import Criteria, PlannedBlock
from crawler.record import Record, is_settled
from crawler.store.block import BLOCK_SIZE, summarise
from tests.records import NOON, failed, found, missing, mixed

EARLIER, LATER = NOON - timedelta(days=9), NOON + timedelta(hours=3)


class Shelf:
    """Records in blocks, as a store would list and read them."""

    def __init__(self, records=()):
        self.blocks: dict[int, dict[int, Record]] = {}
        for record in records:
            first = record.song_num - record.song_num % BLOCK_SIZE
            self.blocks.setdefault(first, {})[record.song_num] = record
        self.listing = {
            first: summarise(block.values(), source="test") for first, block in self.blocks.items()
        }
        self.reads: list[int] = []
        self.broken: set[int] = set()
        self.entered: list[PlannedBlock] = []

    def read(self, first):
        """Read a block; a broken one raises."""
        self.reads.append(first)
        if first in self.broken:
            raise BlockFormatError(f"block {first} is broken")
        return self.blocks.get(first, {})

    def fill(self, start, stop, *, limit=None, options=None, **criteria) -> FillSupply:
        """Plan a range over what is here; `options` are those of the supply itself."""
        return FillSupply(
            start,
            stop,
            self.listing,
            Criteria(**({"now": NOON, "clock": lambda: LATER} | criteria)),
            read=self.read,
            on_block=self.entered.append,
            limit=limit,
            **(options or {}),
        )


def drain(supply, most=10**9, at_once=64) -> list[int]:
    """Take so many numbers, or all there are."""
    numbers: list[int] = []
    deadline = time.monotonic() + 20
    while not supply.exhausted and len(numbers) < most:
        got = supply.take(min(at_once, most - len(numbers)))
        numbers += got
        if not got:
            assert time.monotonic() < deadline
            time.sleep(0.0002)  # a block is being read in a thread
    supply.close()
    return numbers


def test_an_empty_store_is_asked_for_everything():
    """Ascending, and no block is read."""
    shelf = Shelf()
    supply = shelf.fill(5, 2500)
    assert drain(supply) == list(range(5, 2500))
    assert shelf.reads == []
    assert [(b.first, len(b.numbers), b.is_new) for b in shelf.entered] == [
        (0, 995, True), (1000, 1000, True), (2000, 500, True),
    ]  # fmt: skip


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (7, 7), (1500, 1500), (3000, 3000)])
def test_an_empty_range_is_exhausted_at_once(start, stop):
    """Nothing is asked, read or entered."""
    shelf = Shelf([found(1400), failed(1600)])
    supply = shelf.fill(start, stop)
    assert supply.take(5) == []
    assert supply.exhausted
    assert (shelf.reads, shelf.entered, supply.settled_beyond()) == ([], [], 0)


def test_whole_and_contiguous_blocks_are_planned_from_the_listing_alone():
    """What is settled without gaps costs neither a request nor a read."""
    shelf = Shelf([*mixed(range(1000)).values(), *mixed(range(1200, 1700)).values()])
    supply = shelf.fill(0, 2000)
    assert drain(supply) == [*range(1000, 1200), *range(1700, 2000)]
    assert shelf.reads == []
    assert (supply.settled, supply.supplied) == (1500, 500)


def test_a_block_with_holes_is_read():
    """Only its holes are asked for."""
    shelf = Shelf([found(n) for n in range(1000) if n % 7])
    supply = shelf.fill(0, 1000)
    assert drain(supply) == [n for n in range(1000) if n % 7 == 0]
    assert (shelf.reads, supply.settled) == ([0], 857)


def test_the_rest_of_a_block_without_holes_is_asked_of_a_block_that_is_there():
    """The writer has to merge, and is told."""
    shelf = Shelf(mixed(range(200, 700)).values())
    assert len(drain(shelf.fill(0, 1000))) == 500
    assert (shelf.reads, [block.is_new for block in shelf.entered]) == ([], [False])
    holes = Shelf([found(1), found(3)])
    drain(holes.fill(0, 1000))
    assert [block.is_new for block in holes.entered] == [False]


def test_a_number_is_due_from_the_moment_on_that_was_set():
    """Not before, and not a moment after."""
    moments = [NOON - timedelta(microseconds=1), NOON, NOON + timedelta(microseconds=1)]
    shelf = Shelf([failed(num, next_try_at=at) for num, at in enumerate(moments)])
    assert drain(shelf.fill(0, 3, skip_until_due=True)) == [0, 1]


def test_failed_numbers_are_asked_again():
    """With how often they failed before; only mode next waits until they are due."""
    records = [
        *mixed(range(990)).values(),
        *[failed(n, next_try_at=LATER) for n in range(990, 995)],
    ]
    records += [failed(n, next_try_at=EARLIER) for n in range(995, 1000)]
    shelf = Shelf(records)
    assert drain(shelf.fill(0, 1000)) == list(range(990, 1000))
    assert shelf.entered[-1].failed_runs == dict.fromkeys(range(990, 1000), 1)
    supply = shelf.fill(0, 1000, skip_until_due=True)
    assert drain(supply) == list(range(995, 1000))
    assert (supply.settled, supply.postponed) == (990, 5)


def test_E5_a_broken_block_is_left_out_and_counted():
    """The run goes on with the others; its numbers are neither asked nor called settled."""
    shelf = Shelf([found(5), found(7), found(1005), found(1007)])
    shelf.broken = {1000}
    supply = shelf.fill(0, 3000)
    assert drain(supply) == [n for n in [*range(1000), *range(2000, 3000)] if n not in (5, 7)]
    assert (supply.settled, supply.unreadable) == (2, 1000)


def test_a_store_that_cannot_be_read_raises():
    """The frontier ends the run; it is raised again if asked again."""
    shelf = Shelf([found(5), found(7)])

    def read(first):
        raise StoreUnavailableError("gone")

    shelf.read = read  # type: ignore[method-assign]
    supply = shelf.fill(0, 1000)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            drain(supply)


def test_refresh_asks_what_is_old():
    """Records older than the given time count as not settled, whatever their outcome."""
    shelf = Shelf([
        *[found(n, at=EARLIER) for n in range(10)], *[missing(n, at=EARLIER) for n in range(10, 20)],
        *[found(n, at=NOON) for n in range(20, 1000)], *mixed(range(1000, 2000), NOON).values(),
    ])  # fmt: skip
    supply = shelf.fill(0, 2000, refresh_before=NOON - timedelta(days=1))
    assert drain(supply) == list(range(20))
    assert (shelf.reads, supply.settled) == ([0], 1980)


def test_what_is_as_old_as_that_is_not_refreshed():
    """It was asked at the moment of the order, not before."""
    shelf = Shelf([found(0, at=NOON), found(1, at=NOON - timedelta(microseconds=1))])
    assert drain(shelf.fill(0, 2, refresh_before=NOON)) == [1]


def test_a_recheck_reads_no_block_without_a_missing_number():
    """Its counts say that there is none."""
    shelf = Shelf([found(n, at=EARLIER) for n in range(1000)])
    assert drain(shelf.fill(0, 1000, is_missing_rechecked=True)) == []
    assert shelf.reads == []


def test_recheck_asks_what_is_missing():
    """Found ones are left alone."""
    shelf = Shelf(mixed(range(1000), EARLIER).values())
    supply = shelf.fill(0, 1000, is_missing_rechecked=True)
    assert drain(supply) == [n for n in range(1000) if n % 11 == 0]


def test_a_limit_ends_the_supply():
    """After so many numbers, to the number."""
    shelf = Shelf()
    supply = shelf.fill(0, 10_000, limit=1500)
    assert drain(supply) == list(range(1500))
    assert supply.exhausted
    assert supply.take(10) == []


def test_blocks_are_entered_no_earlier_than_their_first_number():
    """The writer learns of a block when it is begun, so that memory stays flat."""
    shelf = Shelf()
    supply = shelf.fill(0, 100_000)
    supply.take(1)
    assert len(shelf.entered) == 1
    supply.take(999)
    assert len(shelf.entered) == 1
    supply.take(1)
    assert len(shelf.entered) == 2


def test_a_range_without_end_is_reckoned_at_once():
    """What is left of 10^12 numbers is not walked through."""
    shelf = Shelf(mixed(range(5000, 6000)).values())
    supply = shelf.fill(0, 10**12)
    supply.take(10)
    assert supply.settled_beyond() == 1000


def test_what_an_interrupted_run_did_not_come_to_is_counted_once_and_again():
    """Asking for the count changes nothing."""
    shelf = Shelf([*mixed(range(50_000, 51_000)).values(), found(70_001), found(70_003)])
    supply = shelf.fill(0, 80_000)
    supply.take(1500)
    assert [supply.settled_beyond() for _ in range(3)] == [1002] * 3
    assert len(drain(supply)) == 80_000 - 1500 - 1002
    assert supply.settled_beyond() == 0


def test_of_a_block_that_is_wanted_in_part_nothing_is_counted_unread():
    """Which of its numbers are settled is not known."""
    shelf = Shelf([found(num) for num in (5, 7, 700, 900)])
    assert shelf.fill(500, 30_000).settled_beyond() == 0
    assert shelf.fill(0, 30_000).settled_beyond() == 4


def test_an_interrupted_refresh_does_not_call_old_records_settled():
    """Numbers that were to be refreshed and were not asked are left over, not skipped."""
    shelf = Shelf([
        *mixed(range(10_000, 11_000), EARLIER).values(),
        *mixed(range(20_000, 21_000), LATER).values(),
    ])  # fmt: skip
    supply = shelf.fill(0, 30_000, refresh_before=NOON)
    supply.take(10)
    assert supply.settled_beyond() == 1000


def test_an_interrupted_recheck_does_not_call_missing_ones_settled():
    """Only found ones are skipped for certain."""
    shelf = Shelf(mixed(range(10_000, 11_000), EARLIER).values())
    supply = shelf.fill(0, 30_000, is_missing_rechecked=True)
    supply.take(10)
    assert supply.settled_beyond() == 910


outcomes = st.sampled_from([None, "found", "missing", "failed", "due"])
spans = st.lists(st.tuples(outcomes, st.integers(1, 700), st.booleans()), min_size=1, max_size=12)


def shelf_of(spans) -> Shelf:
    """Lay runs of like records side by side from number 0 on."""
    records, num = [], 0
    for outcome, length, is_old in spans:
        at = EARLIER if is_old else NOON
        for _ in range(length):
            if outcome in ("found", "missing"):
                records.append((found if outcome == "found" else missing)(num, at=at))
            elif outcome is not None:
                due = LATER if outcome == "failed" else EARLIER
                records.append(failed(num, at=at, next_try_at=due))
            num += 1
    return Shelf(records)


@settings(deadline=None, max_examples=60)
@given(
    spans=spans,
    start=st.integers(0, 3000),
    length=st.integers(0, 4000),
    refresh=st.booleans(),
    recheck=st.booleans(),
    patient=st.booleans(),
    most=st.integers(0, 3000) | st.just(10**6),
    at_once=st.integers(1, 300),
)
def test_any_plan_is_exact_whenever_it_is_interrupted(
    spans, start, length, refresh, recheck, patient, most, at_once
):
    """Asked, skipped and left over make up the range; a plan carried out leaves nothing over."""
    shelf, stop = shelf_of(spans), start + length
    criteria = Criteria(
        now=NOON,
        refresh_before=NOON - timedelta(days=1) if refresh else None,
        is_missing_rechecked=recheck,
        skip_until_due=patient,
    )
    known = {num: record for block in shelf.blocks.values() for num, record in block.items()}
    wished = [n for n in range(start, stop) if n not in known or criteria.wants(known[n])]
    supply = FillSupply(
        start, stop, shelf.listing, criteria, read=shelf.read, on_block=shelf.entered.append
    )
    asked = drain(supply, most, at_once)
    assert asked == wished[: len(asked)]
    assert len(asked) == min(most, len(wished))
    skipped = supply.settled + supply.postponed + supply.settled_beyond()
    remaining = (stop - start) - len(asked) - skipped
    left_over = len(wished) - len(asked)
    assert remaining >= left_over  # never more skipped than is truly settled
    if supply.exhausted:
        assert remaining == 0
    announced = [num for block in shelf.entered for num in block.numbers]
    assert asked == announced[: len(asked)]


@settings(deadline=None, max_examples=40)
@given(spans=spans, blocks=st.integers(1, 5), most=st.integers(0, 3000))
def test_whole_blocks_are_counted_exactly_when_interrupted(spans, blocks, most):
    """In a plain fill of whole blocks what is left over is told to the number."""
    shelf, stop = shelf_of(spans), blocks * BLOCK_SIZE
    known = {num: record for block in shelf.blocks.values() for num, record in block.items()}
    wished = [n for n in range(stop) if n not in known or not is_settled(known[n])]
    supply = shelf.fill(0, stop)
    asked = drain(supply, most)
    remaining = stop - len(asked) - supply.settled - supply.settled_beyond()
    assert remaining == len(wished) - len(asked)


def test_a_listing_that_never_catches_up_costs_no_endless_search():
    """A block that holds more than is listed parts a run once; what it lacks is asked all the same."""
    shelf = Shelf([found(num) for num in range(1000, 1500)])
    shelf.listing.clear()
    met = set()
    supply = FillSupply(
        0,
        3000,
        shelf.listing,
        Criteria(now=NOON),
        read=shelf.read,
        on_block=shelf.entered.append,
        met=met,
        uniform=lambda low, _high: low,
    )
    numbers = supply.take(10)
    met.add(0)
    numbers += drain(supply)
    assert sorted(numbers) == [*range(1000), *range(1500, 3000)]
    assert shelf.reads.count(1000) == 2


# ---------------------------------------------------------------- beside another run


def order_of(count: int) -> BlockOrder:
    """Make an order of so many blocks."""
    return BlockOrder(range(0, count * 1000, 1000))


def taken(order: BlockOrder) -> list[int]:
    """Take all that is left."""
    return list(iter(order.next, None))


def test_alone_a_run_goes_up() -> None:
    """Blocks come ascending, each once."""
    assert taken(order_of(3)) == [0, 1000, 2000]
    assert taken(order_of(0)) == []


def test_what_is_put_back_comes_next() -> None:
    """A block that was taken and not done is taken again before all others."""
    order = order_of(3)
    order.put_back(order.next() or 0)
    assert taken(order) == [0, 1000, 2000]


def test_a_run_that_parts_goes_on_in_the_middle_of_the_longest_stretch() -> None:
    """It goes up from there, then round; settled blocks come last."""
    order = order_of(10)
    order.part([0, 1000, 8000], share=0.5)
    assert taken(order) == [5000, 6000, 7000, 9000, 2000, 3000, 4000, 0, 1000, 8000]


def test_runs_that_part_at_once_go_different_ways() -> None:
    """Chance decides within the middle half of the stretch."""
    firsts = set()
    for share in (0.0, 0.5, 1.0):
        order = order_of(100)
        order.part([], share)
        firsts.add(order.next())
    assert firsts == {25_000, 50_000, 75_000}


def test_stretches_that_touch_are_one() -> None:
    """Whether a block was put back in front of them, or they were parted before."""
    order = order_of(10)
    order.put_back(order.next() or 0)
    order.part([], share=0.0)
    assert taken(order) == [2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 0, 1000]
    order = order_of(10)
    order.part([0, 1000, 8000], share=0.5)
    assert order.next() == 5000
    order.part([], share=0.0)
    assert taken(order) == [1000, 2000, 3000, 4000, 6000, 7000, 8000, 9000, 0]
    order = order_of(10)
    assert [order.next(), order.next()] == [0, 1000]
    order.put_back(0)
    order.part([5000], share=0.5)
    order.part([], share=0.0)
    assert taken(order) == [4000, 5000, 6000, 7000, 8000, 9000, 0, 2000, 3000]


def test_a_single_block_is_left_to_whoever_comes() -> None:
    """Where one block is left there is no middle."""
    order = order_of(2)
    order.part([0], share=1.0)
    assert taken(order) == [1000, 0]


@given(
    count=st.integers(0, 30),
    takes=st.integers(0, 30),
    settled=st.sets(st.integers(-5, 40)),
    share=st.floats(0, 1),
)
def test_parting_loses_no_block(count: int, takes: int, settled: set[int], share: float) -> None:
    """Whatever is settled and wherever a run stands, what was left is left, each once."""
    order = order_of(count)
    last = [order.next() for _ in range(takes)][-1:]
    if last and last[0] is not None:
        order.put_back(last[0])
    before = sorted(taken(copy.deepcopy(order)))
    order.part(sorted(number * 1000 for number in settled), share)
    assert sorted(taken(order)) == before


class Beside:
    """A fill of ten blocks that meets another run in its first one.

    Attributes:
        met: Where the other run was met.
        chances: Between what chance was asked to decide.
        relisted: How often the listing was brought up to date.
    """

    def __init__(self, shelf: Shelf, listed=()):
        self.met, self.chances, self.relisted = set[int](), [], 0
        self._shelf, self._listed = shelf, listed
        options = {"met": self.met, "relist": self._relist, "uniform": self._decide}
        self.supply = shelf.fill(0, 10_000, options=options)
        self.numbers = self.supply.take(10)
        self.met.add(0)

    def _relist(self):
        self.relisted += 1
        for first in self._listed:
            block = mixed(range(first, first + BLOCK_SIZE))
            self._shelf.blocks[first] = block
            self._shelf.listing[first] = summarise(block.values(), source="test")

    def _decide(self, *between):
        self.chances.append(between)
        return 0.5 if len(self.chances) == 1 else 1.0

    def order(self) -> list[int]:
        """Ask all that is left; list the blocks in the order in which they are entered."""
        self.numbers += drain(self.supply)
        return [block.first for block in self._shelf.entered]


def test_a_run_that_meets_another_goes_on_in_the_middle_of_what_is_open():
    """It lists anew, once; what it had begun comes in its turn, and what is settled is not asked."""
    beside = Beside(Shelf(), listed=[2000])
    assert beside.order() == [0, 6000, 7000, 8000, 9000, 0, 1000, 3000, 4000, 5000]
    assert sorted(beside.numbers) == [n for n in range(10_000) if n // 1000 != 2]
    assert (beside.relisted, beside.chances) == (1, [(0.0, 1.0)])


def test_while_the_store_is_listed_anew_nothing_is_supplied_and_nobody_waits():
    """Who takes comes again; the listing goes on beside."""
    met, gate, listed = set[int](), Event(), list[bool]()
    options = {"met": met, "relist": lambda: listed.append(gate.wait(20))}
    supply = Shelf().fill(0, 10_000, options=options)
    supply.take(10)
    met.add(0)
    assert (supply.take(10), listed, supply.exhausted) == ([], [], False)
    gate.set()
    assert len(drain(supply)) == 9_990


class AtOnce(Executor):
    """A pool without threads: what is handed in is done at once."""

    def submit(self, fn, /, *args, **kwargs):
        """Do it."""
        done = Future()
        done.set_result(fn(*args, **kwargs))
        return done


@pytest.mark.parametrize(
    ("unlisted", "numbers", "times"),
    [([], [2000, 2001], 1), ([found(2001)], [2000, 2002], 2)],
    ids=["met in one block", "met in two"],
)
def test_once_the_store_is_listed_anew_the_supply_goes_on_at_once(unlisted, numbers, times):
    """Nobody is sent away who could have a number, wherever another run was met."""
    shelf, met, listed = Shelf(unlisted), set[int](), list[None]()
    shelf.listing.clear()
    options = {"met": met, "relist": lambda: listed.append(None), "pool": AtOnce()}
    supply = shelf.fill(0, 10_000, options={**options, "uniform": lambda low, _high: low})
    assert supply.take(2) == [0, 1]
    met.add(0)
    assert (supply.take(2), len(listed)) == (numbers, times)


def test_once_parted_a_block_is_read_just_before_it_is_entered():
    """What the other run did meanwhile is seen, so it is not read ahead of time."""
    shelf = Shelf()
    beside = Beside(shelf)
    while not (numbers := beside.supply.take(10)):
        time.sleep(0.0002)
    assert (numbers[0], shelf.reads) == (5000, [5000])
    assert shelf.entered[-1].is_new
    beside.supply.close()


@pytest.mark.parametrize(
    ("stored", "listed", "is_touched"),
    [
        ([], [], False),
        ([found(5001)], [], True),
        ([found(5001), failed(5002)], [found(5001), failed(5002)], False),
        ([found(5001), failed(5002)], [found(5001)], True),
    ],
    ids=["nothing", "unlisted", "as listed", "more"],
)
def test_a_block_that_holds_more_than_was_listed_parts_the_run_again(stored, listed, is_touched):
    """Another run is at it: this one goes elsewhere, and comes back."""
    shelf = Shelf(listed)
    shelf.blocks = Shelf(stored).blocks
    beside = Beside(shelf)
    order = beside.order()
    assert beside.relisted == (2 if is_touched else 1)
    assert order[1] == (7000 if is_touched else 5000)
    gone = {record.song_num for record in stored if is_settled(record)}
    assert sorted(beside.numbers) == [n for n in range(10_000) if n not in gone]


def test_while_blocks_are_read_nothing_is_supplied_and_nobody_waits():
    """Neither who takes nor who closes; what was not begun is never read."""
    shelf, gate = Shelf([found(first * 1000 + n) for first in range(8) for n in (1, 3)]), Event()
    read: list[int] = []

    def read_slowly(first):
        shelf.reads.append(first)
        gate.wait(20)
        read.append(first)
        return shelf.blocks[first]

    shelf.read = read_slowly  # type: ignore[method-assign]
    pool = ThreadPoolExecutor(4)
    supply = shelf.fill(0, 8000, options={"pool": pool})
    assert (supply.take(5), supply.exhausted) == ([], False)
    supply.close()
    assert read == []
    gate.set()
    pool.shutdown()  # waits for its threads, which read whatever was not called off
    assert len(shelf.reads) <= 4


# ---------------------------------------------------------------- beyond the last song


def test_a_block_beyond_is_asked_whole_but_for_failed_numbers_that_are_not_due():
    """It is read only where numbers in it failed, and planned when it is asked for again."""
    failures = [failed(3005, next_try_at=LATER), failed(3006, next_try_at=EARLIER)]
    shelf = Shelf([*failures, failed(4007, next_try_at=LATER), missing(5001)])
    supply = shelf.fill(0, 1000, options={"pool": AtOnce()}, skip_until_due=True)
    for first, is_new in ((2000, True), (5000, False)):
        block = supply.plan_beyond(first)
        assert (block.first, block.is_new) == (first, is_new)
        assert list(block.numbers) == list(range(first, first + 1000))
    assert shelf.reads == []
    for first, postponed in ((3000, 3005), (4000, 4007)):
        assert supply.plan_beyond(first) is None
        block = supply.plan_beyond(first)
        assert (block.first, block.is_new, block.postponed) == (first, False, 1)
        assert list(block.numbers) == [n for n in range(first, first + 1000) if n != postponed]
    assert shelf.reads == [3000, 4000]


def test_while_a_block_beyond_is_read_there_is_no_plan_of_it():
    """Who asks comes again; it is read once, and a broken one has nothing to be asked."""
    shelf, gate = Shelf([failed(3005)]), Event()
    shelf.broken = {3000}
    pool = ThreadPoolExecutor(1)
    pool.submit(gate.wait, 20)
    supply = shelf.fill(0, 1000, options={"pool": pool})
    assert [supply.plan_beyond(3000) for _ in range(3)] == [None] * 3
    gate.set()
    pool.shutdown()
    block = supply.plan_beyond(3000)
    assert (block.numbers, block.is_new, shelf.reads) == ([], False, [3000])


# ---------------------------------------------------------------- samples


def test_a_sample_is_one_number_of_each_stratum():
    """Scattered by Knuth's multiplier, and the same wherever the range is cut."""
    assert spread(range(600), 0, 100) == [0, 161, 222, 383, 444, 505]
    assert spread(range(7, 77), 7, 7) == [7, 19, 24, 29, 41, 46, 51, 56, 68, 73]
    assert spread(range(20, 50), 7, 7) == [24, 29, 41, 46]
    assert spread(range(29, 30), 7, 7) == [29]
    assert spread(range(5, 5), 0, 7) == []


@pytest.mark.parametrize(
    ("start", "stop", "sample", "step"),
    [(1000, 1100, 20, 5), (0, 100, 60, 1), (0, 100, 200, 1), (900, 2300, 7, 200)],
)
def test_a_plan_of_a_sample_asks_the_sample(start, stop, sample, step):
    """As many as were wished for, where the range has as many, over all of its blocks."""
    supply = Shelf().fill(start, stop, options={"sample": sample})
    assert drain(supply) == spread(range(start, stop), start, step)


@pytest.mark.timeout(20)
def test_a_sample_of_a_vast_range_is_planned_at_once():
    """Only blocks that hold a number of the sample are looked at, each once."""
    shelf = Shelf()
    assert drain(shelf.fill(0, 10**12, options={"sample": 10})) == spread(range(10**12), 0, 10**11)
    assert len(shelf.entered) == 10
    close = spread(range(10_010), 0, 1001)
    assert drain(Shelf().fill(0, 10_010, options={"sample": 10})) == close


@given(start=st.integers(0, 10**6), length=st.integers(1, 10**6), sample=st.integers(1, 500))
def test_a_sample_is_spread_over_the_range(start, length, sample):
    """Each stratum of the range gives one number, the same each time, whatever the cuts."""
    numbers = range(start, start + length)
    step = max(1, length // sample)
    whole = spread(numbers, start, step)
    assert whole == sorted(set(whole))
    assert min(sample, length) <= len(whole) + 1
    assert {(num - start) // step for num in whole} >= set(range(length // step))
    middle = start + length // 2
    halves = spread(range(start, middle), start, step) + spread(
        range(middle, start + length), start, step
    )
    assert halves == whole


# ---------------------------------------------------------------- clocks that are wrong

AHEAD = NOON + timedelta(days=5 * 365)


@pytest.mark.parametrize("outcome", [found, missing])
def test_E13_a_refresh_asks_records_from_the_future_too(outcome):
    """They are not older than anything, and would never be asked again."""
    shelf = Shelf([outcome(1, at=AHEAD), found(2, at=LATER), found(3, at=EARLIER)])
    supply = shelf.fill(1, 4, refresh_before=NOON)
    assert drain(supply) == [1, 3]
    assert shelf.entered[0].newest == {1: AHEAD}


def test_E13_a_block_all_from_the_future_is_refreshed():
    """Its counts say so, or it would be taken for fresh unread."""
    shelf = Shelf([found(num, at=AHEAD) for num in range(1000)])
    assert drain(shelf.fill(0, 1000, refresh_before=EARLIER)) == list(range(1000))


def test_E13_a_block_with_one_record_from_the_future_is_read():
    """The newest of its times tells, whatever the oldest is."""
    shelf = Shelf([found(num, at=AHEAD if num == 7 else NOON) for num in range(1000)])
    assert drain(shelf.fill(0, 1000, refresh_before=EARLIER)) == [7]


def test_E13_without_a_refresh_a_record_from_the_future_is_settled():
    """Its answer is as good as any other."""
    shelf = Shelf([found(1, at=AHEAD)])
    assert drain(shelf.fill(1, 2)) == []


def test_E13_a_recheck_of_missing_ones_asks_those_from_the_future():
    """`recheck` asks all that were missing before this run, whatever their time says."""
    shelf = Shelf([missing(1, at=AHEAD), found(2, at=AHEAD)])
    assert drain(shelf.fill(1, 3, is_missing_rechecked=True)) == [1]


def test_E13_a_failure_from_the_future_is_due():
    """No number waits longer than a week, so one that is to wait for years is asked."""
    shelf = Shelf(
        [
            failed(1, at=AHEAD, next_try_at=AHEAD + timedelta(hours=1)),
            failed(2, next_try_at=LATER + timedelta(days=7, minutes=5)),
            failed(3, next_try_at=LATER + timedelta(days=7, minutes=5, microseconds=1)),
        ]
    )
    assert drain(shelf.fill(1, 4, skip_until_due=True)) == [1, 3]
    assert shelf.entered[0].newest == {1: AHEAD}


def test_a_sample_of_a_range_is_what_its_supply_asks_and_without_one_it_is_all():
    """Of 2,000,000 numbers 200 lie one in each stretch of 10,000; a sample beyond the range is all."""
    assert sample_numbers(3, 9, None) == range(3, 9)
    numbers = sample_numbers(1, 2_000_001, 200)
    assert [(num - 1) // 10_000 for num in numbers] == list(range(200))
    assert list(sample_numbers(3, 9, 50)) == list(range(3, 9))
    assert drain(Shelf().fill(0, 600, options={"sample": 6})) == list(sample_numbers(0, 600, 6))
