"""The coverage map, runs as curves, and the forecast."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.page.charts import (
    MAX_CELLS,
    MAX_POINTS,
    MAX_SPAN,
    SettledCount,
    course,
    coverage_map,
    densest,
    forecast,
    progress,
    stretches,
)
from tests.pages import a_block, a_listing, a_run
from tests.records import NOON


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


# --- Runs -------------------------------------------------------------------------------------------


def test_a_course_is_made_of_paces():
    """Samples count since the start; the chart shows what happened in each second."""
    points = course(a_run(seconds=50, found=4500, missing=500))
    assert len(points) == 50
    assert {point.requests for point in points} == {100.0}
    assert {point.found for point in points} == {90.0}
    assert {point.latency_ms for point in points} == {80.0}


def test_a_pause_is_on_the_course():
    """The seconds for which the site asked everybody to wait are marked, and no others."""
    points = course(a_run(seconds=20, pause_at=7))
    assert [point.seconds for point in points if point.limited == 1.0] == [8, 9, 10, 11, 12]


def test_a_pace_that_the_site_announced_is_on_the_course():
    """To half the height; a sample of version 1.0 does not say."""
    run = a_run(seconds=4, pause_at=3)
    run.samples[1] = [*run.samples[1], 1.0]
    assert [point.limited for point in course(run)] == [0.0, 0.5, 0.0, 1.0]


@pytest.mark.parametrize("first", [1, 6], ids=["nothing sent", "nothing back yet"])
def test_a_second_without_an_answer_has_no_latency(first):
    """No answer is not an answer in no time."""
    run = a_run(seconds=2)
    run.samples[1][first:7] = run.samples[0][first:7]
    assert course(run)[1].latency_ms is None


@pytest.mark.parametrize("seconds", [1, 119, 120, 121, 240])
def test_a_course_has_its_last_sample_and_not_too_many_points(seconds):
    """A long run's course is thinned out, but ends where the run did."""
    points = course(a_run(seconds=seconds))
    assert len(points) <= MAX_POINTS + 1
    assert points[-1].seconds == seconds


def test_a_run_without_samples_has_no_course():
    """A run that ended before its first second; and samples of an unknown shape are passed over."""
    run = a_run(seconds=0.2)
    assert course(run) == []
    run.samples[:] = [[1.0, 2], []]
    assert course(run) == []


def test_progress_is_reckoned_back_from_what_is_settled_now():
    """The newest run's end is what is held now; before it there is less by what it gained."""
    runs = [a_run(hours=24), a_run(hours=0)]
    points = progress(runs, 12_000, NOON + timedelta(hours=30))
    assert [point.settled for point in points] == [2000, 7000, 7000, 12_000, 12_000]
    assert [point.moment for point in points] == sorted(point.moment for point in points)


def test_runs_that_overlap_share_the_time():
    """Two runs at once gain together, half of it by half of their time."""
    runs = [a_run(seconds=60), a_run(hours=30 / 3600, seconds=60)]
    points = progress(runs, 10_000, NOON + timedelta(hours=1))
    assert [point.settled for point in points] == [0, 2500, 7500, 10_000, 10_000]


def test_progress_is_never_below_nothing():
    """A run that refreshed what was settled seems to gain, but draws no line below 0."""
    assert progress([a_run()], 100, NOON + timedelta(hours=1))[0].settled == 0


def test_the_forecast_goes_by_the_pace_of_the_days():
    """1,000 a day leaves 3,000 for three days."""
    points = [SettledCount(NOON, 0), SettledCount(NOON + timedelta(days=2), 2000)]
    assert forecast(points, 3000, points[-1].moment) == NOON + timedelta(days=5)


def test_the_forecast_forgets_what_was_long_ago():
    """Only the last week counts: what was fast a month ago is over."""
    now = NOON + timedelta(days=40)
    week = [SettledCount(now - timedelta(days=7), 90_000), SettledCount(now, 97_000)]
    assert forecast([SettledCount(NOON, 0), *week], 1000, now) == now + timedelta(days=1)


@pytest.mark.parametrize(
    ("points", "left"),
    [
        ([SettledCount(NOON, 5), SettledCount(NOON + timedelta(days=1), 5)], 10),
        ([SettledCount(NOON, 5), SettledCount(NOON + timedelta(days=1), 9)], 0),
        ([SettledCount(NOON + timedelta(days=1), 9)], 10),
        ([], 10),
        ([SettledCount(NOON, 5), SettledCount(NOON + timedelta(days=1), 6)], 10**12),
    ],
    ids=["no gain", "nothing left", "one point", "no run", "further than a century"],
)
def test_where_there_is_no_pace_there_is_no_forecast(points, left):
    """The page does not pretend to know."""
    assert forecast(points, left, NOON + timedelta(days=1)) is None
