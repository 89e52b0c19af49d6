"""Runs as curves: paces from samples, the days' progress, the forecast."""

from datetime import timedelta

import pytest

from crawler.page.runs import MAX_POINTS, Progress, course, forecast, progress
from tests.pages import a_run
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
    assert [point.seconds for point in points if point.paused] == [8, 9, 10, 11, 12]


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
    points = [Progress(NOON, 0), Progress(NOON + timedelta(days=2), 2000)]
    assert forecast(points, 3000, points[-1].moment) == NOON + timedelta(days=5)


def test_the_forecast_forgets_what_was_long_ago():
    """Only the last week counts: what was fast a month ago is over."""
    now = NOON + timedelta(days=40)
    week = [Progress(now - timedelta(days=7), 90_000), Progress(now, 97_000)]
    assert forecast([Progress(NOON, 0), *week], 1000, now) == now + timedelta(days=1)


@pytest.mark.parametrize(
    ("points", "left"),
    [
        ([Progress(NOON, 5), Progress(NOON + timedelta(days=1), 5)], 10),
        ([Progress(NOON, 5), Progress(NOON + timedelta(days=1), 9)], 0),
        ([Progress(NOON + timedelta(days=1), 9)], 10),
        ([], 10),
        ([Progress(NOON, 5), Progress(NOON + timedelta(days=1), 6)], 10**12),
    ],
    ids=["no gain", "nothing left", "one point", "no run", "further than a century"],
)
def test_where_there_is_no_pace_there_is_no_forecast(points, left):
    """The page does not pretend to know."""
    assert forecast(points, left, NOON + timedelta(days=1)) is None
