"""Runs as curves, the forecast, and what failed by reason, with the numbers to look at."""

from datetime import timedelta

import pytest

from crawler.page.charts import MAX_POINTS, SettledCount, course, forecast, progress
from crawler.page.status_page import MAX_PLACES, group_failures
from tests.pages import a_block, a_run
from tests.records import NOON


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


def test_failures_are_grouped_by_reason_most_first():
    """Each reason has its count and its blocks."""
    groups = group_failures(
        [
            a_block(0, found=990, missing=0, failed=10, reasons={"timeout": 7, "reset": 3}),
            a_block(5000, found=980, missing=0, failed=20, reasons={"reset": 20}),
        ]
    )
    assert [(group.reason, group.failed) for group in groups] == [("reset", 23), ("timeout", 7)]
    assert [(p.start, p.stop, p.failed) for p in groups[0].places] == [
        (0, 1000, 3),
        (5000, 6000, 20),
    ]


def test_neighbouring_blocks_are_one_place():
    """An outage that spoiled three blocks is one range to look at."""
    (group,) = group_failures([a_block(k * 1000, found=899, failed=1) for k in (4, 5, 6)])
    assert [(p.start, p.stop, p.failed) for p in group.places] == [(4000, 7000, 3)]


def test_what_a_block_could_not_name_is_other():
    """A listing names five kinds; the rest is not lost."""
    (first, second) = group_failures([a_block(0, found=890, failed=10, reasons={"timeout": 4})])
    assert (first.reason, first.failed) == ("other", 6)
    assert (second.reason, second.failed) == ("timeout", 4)


def test_of_many_places_the_worst_are_named():
    """The page names some, counts the others, and the sum is of all."""
    blocks = [a_block(k * 2000, found=800, failed=1 + k) for k in range(MAX_PLACES + 5)]
    (group,) = group_failures(blocks)
    assert len(group.places) == MAX_PLACES
    assert group.places_left_out == 5
    assert group.failed == sum(block.failed for block in blocks)
    assert group.places[0].start == 10_000


def test_the_numbers_to_look_at_are_named():
    """Numbers that blocks name stand with their reason; where all are named, it is known."""
    (reset, timeout) = group_failures(
        [
            a_block(0, failed=3, reasons={"reset": 2, "timeout": 1}, nums={"timeout": [17]}),
            a_block(4000, failed=9, reasons={"reset": 9}, nums={"reset": [4001, 4002]}),
        ]
    )
    assert (timeout.nums, timeout.all_named) == ([17], True)
    assert (reset.nums, reset.all_named) == ([4001, 4002], False)


def test_where_nothing_failed_there_is_no_group():
    """No failures, no table."""
    assert group_failures([a_block(0)]) == []
