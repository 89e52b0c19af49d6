"""Two runs of one range at once: the work is done once, and nothing hangs on either of them."""

import threading
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl
from crawler.answer import Answer
from crawler.demo.site import DemoSite
from crawler.run.run import Limits
from crawler.store.coverage import verify
from crawler.store.folder import FolderStore

ENDS = 7_000
"""Numbers that may be asked twice, however long the range: where the runs meet, and the last blocks
of each. On a busy machine blocks are on their way to the store for longer."""

pytestmark = pytest.mark.once


@pytest.fixture
def where(tmp_path: Path, demo_site: DemoSite) -> dict[str, Any]:
    """A folder store and the demo site, as fast as they go."""
    location = str(tmp_path / "store")
    return {"store": location, "base_url": demo_site.base_url, "token": "demo-token"}


def run_beside(
    stop: int, where: dict[str, Any], begins: threading.Event, **options: Any
) -> tuple[Answer, Answer]:
    """Run a range, and a second time beside it from when `begins` is set; give both answers."""
    answers: list[Answer] = []

    def second() -> None:
        begins.wait(30)
        answers.append(crawl(0, stop, rate=0, **where))

    thread = threading.Thread(target=second)
    thread.start()
    first = crawl(0, stop, rate=0, **where, **options)
    thread.join()
    return first, answers[0]


def test_E4_two_runs_that_begin_together_share_the_work(
    where: dict[str, Any], demo_site: DemoSite
) -> None:
    """E4: they part, both end complete, and few numbers are asked twice."""
    begins = threading.Event()
    begins.set()
    answers = run_beside(15_000, where, begins)
    assert [answer.complete for answer in answers] == [True, True]
    assert all(answer.requests > 3_000 for answer in answers)
    assert demo_site.stats()["requests"] <= 15_000 + ENDS
    assert verify(FolderStore(where["store"]), 0, 15_000, timeout=10).problem is None
    for answer in answers:
        assert answer.found + answer.missing + answer.failed + answer.skipped == 15_000


def test_a_run_that_comes_later_takes_over_a_part(
    where: dict[str, Any], demo_site: DemoSite
) -> None:
    """One that begins when the other is half done takes some of what is left."""
    begins = threading.Event()

    def look(progress: Any) -> None:
        if progress.requests > 6_000:
            begins.set()

    answers = run_beside(15_000, where, begins, on_progress=look)
    assert [answer.complete for answer in answers] == [True, True]
    assert answers[1].requests > 1_000
    assert demo_site.stats()["requests"] <= 15_000 + ENDS


def test_runs_that_have_written_the_status_still_hear_of_each_other(
    where: dict[str, Any], demo_site: DemoSite
) -> None:
    """What a run lists anew after its first minute is what it goes by, so that it comes to an end."""
    begins = threading.Event()
    begins.set()
    where["limits"] = Limits(status_seconds=0.01)
    answers = run_beside(10_000, where, begins)
    assert [answer.complete for answer in answers] == [True, True]
    assert demo_site.stats()["requests"] <= 10_000 + ENDS


def test_what_a_run_leaves_undone_the_other_does(
    where: dict[str, Any], demo_site: DemoSite
) -> None:
    """One of two is ended in the middle: the other does its part as well, without waiting."""
    begins, ends = threading.Event(), threading.Event()
    begins.set()

    def look(progress: Any) -> None:
        if progress.requests > 4_000:
            ends.set()

    first, second = run_beside(15_000, where, begins, on_progress=look, stop_event=ends)
    assert (first.stopped_by, second.complete) == ("signal", True)
    assert verify(FolderStore(where["store"]), 0, 15_000, timeout=10).problem is None
    assert demo_site.stats()["requests"] <= 15_000 + ENDS


def test_a_refresh_beside_another_run_parts_too(where: dict[str, Any]) -> None:
    """Blocks that are there already tell by their token that somebody else wrote them."""
    crawl(0, 12_000, rate=0, **where)
    begins = threading.Event()
    begins.set()
    where["refresh_older_than_days"] = 0.0
    asked = [answer.requests for answer in run_beside(12_000, where, begins)]
    assert sum(asked) <= 12_000 + ENDS
