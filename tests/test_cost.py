"""What a day costs at worst, what alerts look at, and the daily cap."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler import crawl
from crawler.answer import Answer, alert_fields
from crawler.demo.site import DemoSite
from crawler.deployment.cost import SIZES, Size, run_cost, size_for, worst_day
from crawler.logs import NOTICE
from crawler.store.control import requests_today
from crawler.store.opening import open_store

SMALL = SIZES[1]


def answer(**fields) -> Answer:
    """Make an answer that says nothing but what is given."""
    counts = dict.fromkeys(
        ("start", "stop", "found", "missing", "failed", "skipped", "remaining", "requests",
         "retries", "blocks_written"), 0,
    )  # fmt: skip
    rest = {"mode": "next", "complete": False, "seconds": 1.0, "mean_rate": 1.0}
    return Answer(**(counts | rest | {"stopped_by": "done", "version": "1"} | fields))


def test_a_full_run_costs_cents():
    """28 minutes at 100 requests a second on a third of a vCPU: about two cents."""
    cost = run_cost(Size(0.333, 512), seconds=1680, requests=168_000, blocks_written=336)
    assert 0.02 < cost < 0.04


def test_the_worst_day_bounds_every_day():
    """Forty-eight full runs cost no more than the worst day."""
    size = Size(0.333, 512)
    run = run_cost(size, seconds=1740, requests=168_000, blocks_written=336)
    day = worst_day(size, rate=100, instances=1)
    assert 48 * run <= day <= 60 * run


def test_every_instance_and_every_request_costs():
    """Two instances cost more than one, and a cap on requests saves what requests cost."""
    one = worst_day(SMALL, rate=20, instances=1)
    assert worst_day(SMALL, rate=20, instances=2) > 1.5 * one
    assert worst_day(SMALL, rate=20, instances=1, max_requests_per_day=1000) < one


@given(st.sampled_from(SIZES), st.floats(0, 86_400), st.integers(0, 10**7), st.integers(0, 10**5))
def test_more_of_anything_costs_no_less(size, seconds, requests, blocks):
    """Costs grow with time, requests and writes."""
    base = run_cost(size, seconds=seconds, requests=requests, blocks_written=blocks)
    more = run_cost(size, seconds=seconds + 1, requests=requests + 1, blocks_written=blocks + 1)
    assert 0 < base < more


@pytest.mark.parametrize(
    ("rate", "caller", "cpu"),
    [(1, "source", 0.167), (20, "source", 0.167), (100, "source", 0.333), (500, "source", 1), (9999, "source", 2),
     (20, "function", 0.167), (100, "function", 1)],
)  # fmt: skip
def test_the_smallest_size_that_holds_the_rate_is_chosen(rate, caller, cpu):
    """An instance is as big as its pace needs, and never bigger than what is sold."""
    assert size_for(rate, caller).cpu == cpu


@pytest.mark.parametrize(
    ("fields", "kinds", "at_end", "expected"),
    [
        pytest.param({"found": 910, "missing": 90}, {}, 0, (False, False, True), id="usual"),
        pytest.param({"found": 600, "missing": 400}, {}, 0, (True, False, True), id="missing"),
        pytest.param({"found": 700, "missing": 300}, {}, 0, (False, False, True), id="at 30 %"),
        pytest.param({"found": 0, "missing": 1000}, {}, 1000, (False, False, False), id="the end"),
        pytest.param(
            {"missing": 1000, "complete": True}, {}, 1000, (False, False, True), id="complete"
        ),
        pytest.param({"found": 9, "missing": 90}, {}, 0, (False, False, True), id="too few"),
        pytest.param(
            {"requests": 1000, "found": 980}, {"http_429": 20}, 0, (False, True, True), id="429"
        ),
        pytest.param(
            {"requests": 1000, "found": 990}, {"http_429": 10}, 0, (False, False, True), id="at 1 %"
        ),
        pytest.param({"failed": 5}, {"timeout": 25}, 0, (False, False, False), id="no gain"),
    ],
)
def test_what_alerts_look_at(fields, kinds, at_end, expected):
    """Shares are told as yes or no, above their limits only, and the end of the catalogue is none."""
    told = alert_fields(answer(**fields), kinds, at_end)
    assert (told["missing_high"], told["throttled"], told["gained"]) == expected


def test_a_run_tells_what_alerts_look_at(tmp_path, caplog):
    """The line run_finished carries it."""
    caplog.set_level(logging.INFO, "crawler")
    with DemoSite(last_song=150) as site:
        where = {"base_url": site.base_url, "token": site.token, "rate": 0}
        crawl(mode="next", store=str(tmp_path), **where)
    line = next(r for r in caplog.records if getattr(r, "event", "") == "run_finished")
    assert (line.fields["missing_high"], line.fields["gained"]) == (False, True)


@pytest.mark.parametrize(
    ("budget", "stopped_by", "severity"), [(600, "done", "INFO"), (1, "time_budget", "NOTICE")]
)
def test_a_run_that_ends_early_is_logged_with_the_severity_of_its_reason(
    tmp_path, caplog, budget, stopped_by, severity
):
    """What is worth a look and nothing wrong is a notice."""
    caplog.set_level(logging.INFO, "crawler")
    with DemoSite() as site:
        where = {
            "base_url": site.base_url,
            "token": site.token,
            "time_budget_seconds": budget,
            "rate": 5,
        }
        assert crawl(1, 10, store=str(tmp_path), **where).stopped_by == stopped_by
    line = next(r for r in caplog.records if getattr(r, "event", "") == "run_finished")
    assert line.levelno == {"INFO": logging.INFO, "NOTICE": NOTICE}[severity]


def test_the_metrics_filter_on_fields_that_are_logged():
    """What deploy/metrics extracts are fields of the answer or of what alerts look at."""
    logged = {*answer().__struct_fields__, *alert_fields(answer(), {}, 0), "event"}
    for path in (Path(__file__).parent.parent / "deploy/metrics").glob("*.json"):
        metric = json.loads(path.read_text())
        extracted = [*metric.get("labelExtractors", {}).values(), metric.get("valueExtractor", "")]
        names = {text[len("EXTRACT(jsonPayload.") : -1] for text in extracted if text}
        assert names <= logged
        assert "jsonPayload.event=" in metric["filter"]


def test_the_daily_cap_ends_a_run_and_the_next_one(tmp_path):
    """No run of a day sends more requests than are left of the cap, over all runs on the store."""
    with DemoSite() as site:
        where = {
            "base_url": site.base_url,
            "token": site.token,
            "rate": 0,
            "store": str(tmp_path),
            "max_requests_per_day": 250,
        }
        answers = [crawl(1, 201, **where), crawl(1, 401, **where), crawl(1, 401, **where)]
        asked = site.stats()["requests"]
    assert [a.stopped_by for a in answers] == ["done", "daily_cap", "daily_cap"]
    assert [a.requests for a in answers] == [200, 50, 0]
    # of the fifty asked, what says missing at the very end has no proof yet: it remains
    held = 50 - answers[1].found - answers[1].missing
    assert (answers[1].remaining, held < 10) == (150 + held, True)
    assert asked == 250
    assert requests_today(open_store(str(tmp_path)), datetime.now(UTC), timeout=10) == 250
