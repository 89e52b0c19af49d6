"""The coverage map: every number is in one cell, and every cell says what it is."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.page.charts import MAX_CELLS, MAX_SPAN, coverage_map, densest, stretches
from tests.pages import a_block, a_listing


def states(line):
    """List the states of a map's cells."""
    return [cell.state for cell in line.cells]


def test_an_empty_store_has_an_empty_map():
    """Where nothing is held and nothing wanted there is no cell."""
    line = coverage_map([])
    assert (line.cells, line.not_asked) == ([], 0)


@pytest.mark.parametrize(
    ("block", "state"),
    [
        (a_block(0), "settled"),
        (a_block(0, found=500, missing=0), "partly"),
        (a_block(0, found=899, failed=1), "failed"),
        (a_block(0, found=0, missing=0, failed=1), "failed"),
    ],
    ids=["settled", "partly", "failed", "failed and partly"],
)
def test_a_cell_says_what_its_block_is(block, state):
    """A block that is whole, has gaps or has failures is told apart."""
    assert states(coverage_map([block], stop=1000)) == [state]


def test_what_is_not_asked_has_a_cell():
    """A hole between blocks, and what was ordered beyond them, is on the map."""
    line = coverage_map([a_block(0), a_block(2000)], stop=5000)
    assert states(line) == ["settled", "not_asked", "settled", "not_asked", "not_asked"]
    assert line.not_asked == 3000


def test_missing_after_the_last_song_is_beyond_the_end():
    """Numbers missing after the last found song are no holes, and not settled for good."""
    line = coverage_map([a_block(0), a_block(1000, found=0, missing=1000)])
    assert states(line) == ["settled", "beyond"]


def test_the_first_cell_begins_with_the_first_number():
    """A crawl that begins at 1 does not lack number 0."""
    (cell,) = coverage_map([a_block(0, found=899, missing=100)], start=0).cells
    assert (cell.start, cell.stop, cell.not_asked) == (0, 999, 0)


@pytest.mark.parametrize("how_many", [1, 10, 11, 100, 2000, 2001, 20_000])
def test_a_map_of_any_size_can_be_read(how_many):
    """There are never more cells than a person can tell apart, and none is lost."""
    blocks = a_listing(how_many)
    line = coverage_map(blocks)
    assert len(line.cells) <= MAX_CELLS
    assert sum(cell.found for cell in line.cells) == sum(block.found for block in blocks)
    assert line.cell_size == (1000 if how_many <= 2000 else line.cell_size)


def test_a_huge_order_does_not_hide_what_is_held():
    """A range ordered up to 10^12 is shown only so far that the blocks can still be seen."""
    assert coverage_map([a_block(0)], stop=10**12).stop == 1000 + MAX_SPAN


@settings(deadline=None, max_examples=40)  # thousands of cells each, slow while coverage counts
@given(
    st.lists(st.integers(0, 10**9 - 1), min_size=1, max_size=30, unique=True),
    st.integers(0, 10**12),
    st.none() | st.integers(0, 10**12),
)
def test_the_cells_cover_the_line_without_gap_or_overlap(numbers, stop, start):
    """Each number of the line is in exactly one cell, whatever is held."""
    blocks = [a_block(number * 1000) for number in sorted(numbers)]
    line = coverage_map(blocks, start=start, stop=stop)
    edges = [line.start, *(cell.stop for cell in line.cells)]
    assert [cell.start for cell in line.cells] == edges[:-1]
    assert edges[-1] == line.stop
    assert len(line.cells) <= MAX_CELLS
    assert all(cell.stop > cell.start and cell.not_asked >= 0 for cell in line.cells)
    assert sum(cell.found for cell in line.cells) == 900 * len(blocks)


def test_stretches_join_what_is_alike():
    """The map as a table has a line for each change, and the same counts."""
    line = coverage_map(a_listing(200))
    joined = list(stretches(line.cells))
    assert [cell.state for cell in joined[:3]] == ["settled", "not_asked", "settled"]
    assert sum(cell.not_asked for cell in joined) == line.not_asked
    assert (joined[0].start, joined[-1].stop) == (line.start, line.stop)


def test_the_palest_shade_lies_a_little_above_the_usual_density():
    """One strange cell does not make all others look alike."""
    cells = coverage_map(
        [*(a_block(k * 1000) for k in range(99)), a_block(99_000, found=1, missing=999)]
    ).cells
    assert densest(cells) == pytest.approx(0.13)
    assert densest([]) == 0.05
