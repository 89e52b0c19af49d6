"""The order of blocks: ascending while alone, elsewhere once another run is met."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from crawler.plan.fill import BlockOrder


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
