"""A run from end to end: a range in, every song's record in the store."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from crawler import Missing, crawl
from crawler.demo.site import DemoSite
from crawler.errors import RequestError, SettingsError, StoreError, StoreMismatchError
from crawler.record import Record
from crawler.run.monitor import Sample, advised_rate
from crawler.store.block import block_name, decode_block
from crawler.store.contract import save_block
from crawler.store.control import order_stop, read_control, read_runs
from crawler.store.coverage import verify
from crawler.store.folder import FolderStore
from crawler.store.opening import Identity, claim_store
from tests.clock import utc_now
from tests.crawls import CALLERS, asking
from tests.pages import a_run
from tests.records import expected_info, failed, missing


@pytest.fixture
def where(tmp_path: Path, demo_site: DemoSite) -> dict[str, Any]:
    """A folder store and the demo site, as fast as they go over eight connections.

    Fewer than ten answers can overtake others: ten missing ones in a row would need a canary, and
    requests could not be counted.
    """
    return {
        "store": str(tmp_path / "store"),
        "base_url": demo_site.base_url,
        "token": "demo-token",
        "rate": 0,
        "connections": 8,
    }


def records_of(location: str, first: int = 0) -> dict[int, Record]:
    """Read one block of a folder; nothing where there is none."""
    name = block_name(first)
    block = Path(location) / name
    return decode_block(block.read_bytes(), name) if block.exists() else {}


@pytest.mark.parametrize("caller", CALLERS)
def test_every_number_gets_the_record_that_the_site_serves(
    where: dict[str, Any], caller: str
) -> None:
    """A range in, and each number's record is found or missing, with the info of the site."""
    answer = crawl(1, 1201, function=asking(caller, where["base_url"], "demo-token"), **where)
    assert (answer.found + answer.missing, answer.complete) == (1200, True)
    assert (answer.stopped_by, answer.requests) == ("done", 1200)
    for num, record in (records_of(where["store"]) | records_of(where["store"], 1000)).items():
        assert record.info == expected_info(num)
        assert record.outcome == ("missing" if record.info is None else "found")


@pytest.mark.parametrize("caller", CALLERS)
def test_a_second_run_over_the_same_range_sends_no_request(
    where: dict[str, Any], demo_site: DemoSite, caller: str
) -> None:
    """What is settled costs nothing, and the answer says how much that was."""
    function = asking(caller, where["base_url"], "demo-token")
    first = crawl(1, 501, function=function, **where)
    again = crawl(1, 501, function=function, **where)
    assert (again.skipped, again.requests, again.complete) == (500, 0, True)
    assert again.blocks_written == 0
    assert demo_site.stats()["requests"] == first.requests


def test_only_what_is_not_settled_is_asked(where: dict[str, Any]) -> None:
    """A range that overlaps what is there costs the difference."""
    crawl(100, 300, **where)
    answer = crawl(0, 1000, **where)
    assert (answer.skipped, answer.requests) == (200, 800)
    assert sorted(records_of(where["store"])) == list(range(1000))


def test_tuples_are_handed_to_the_caller_as_pages_arrive(where: dict[str, Any]) -> None:
    """`song_urls` gets `(song_num, info)` of the found ones, each once."""
    song_urls: list[tuple[int, Any]] = []
    answer = crawl(1, 101, song_urls=song_urls, **where)
    assert len(song_urls) == answer.found
    assert all(info == expected_info(num) for num, info in song_urls)


def test_an_empty_range_is_complete(where: dict[str, Any]) -> None:
    """`stop == start` asks for nothing, and nothing is left."""
    answer = crawl(7, 7, **where)
    assert (answer.complete, answer.requests, answer.remaining) == (True, 0, 0)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"start": 10, "stop": 1}, "stop"),
        ({"start": 1, "stop": 11, "mode": "next"}, "mode"),
        ({"start": 1}, "stop"),
        ({}, "start"),
        ({"start": -1, "stop": 5}, "start"),
        ({"start": 1.5, "stop": 5}, "start"),
        ({"start": True, "stop": 5}, "start"),
        ({"start": {1, 2}, "stop": 5}, "start"),
        ({"start": 1, "stop": 5, "limit": 3}, "limit"),
        ({"mode": "next", "limit": 0}, "limit"),
        ({"mode": "old"}, "mode"),
        ({"start": 1, "stop": 5, "recheck": "found"}, "recheck"),
        ({"start": 1, "stop": 5, "refresh_older_than_days": float("nan")}, None),
    ],
    ids=str,
)
def test_A9_to_A15_a_wrong_request_is_refused_before_the_first(
    where: dict[str, Any], demo_site: DemoSite, asked: dict[str, Any], field: str | None
) -> None:
    """What the function refuses is refused here, too: the field is named, nothing is asked."""
    with pytest.raises(RequestError) as caught:
        crawl(**asked, **where)
    assert caught.value.field == (field or "refresh_older_than_days")
    assert caught.value.field in str(caught.value)
    assert demo_site.stats()["requests"] == 0


def test_a_range_is_as_long_and_a_rate_as_high_as_one_likes(where: dict[str, Any]) -> None:
    """The limits that guard a deployment against its callers do not bind its owner."""
    answer = crawl(1, 20_000_001, stop_event=already_set(), **where)
    assert (answer.start, answer.stop, answer.stopped_by) == (1, 20_000_001, "signal")


def already_set() -> threading.Event:
    """Make an event that ends a run as soon as it has begun."""
    event = threading.Event()
    event.set()
    return event


@pytest.mark.parametrize(
    ("name", "nearest"), [("rat", "rate"), ("connection", "connections"), ("base_ur", "base_url")]
)
def test_a_misspelt_setting_is_told_with_the_nearest(
    where: dict[str, Any], name: str, nearest: str
) -> None:
    """A keyword that is no setting is an error in words, not a KeyError."""
    with pytest.raises(SettingsError, match=f"^{name} is not a setting; did you mean {nearest}\\?"):
        crawl(1, 5, **where, **{name: 5})


def test_what_is_near_no_setting_is_told_without_a_guess(where: dict[str, Any]) -> None:
    """A guess that cannot help is left out: the settings are listed in its place."""
    with pytest.raises(SettingsError, match=r"^xyzzy is not a setting; there are .*rate, "):
        crawl(1, 5, xyzzy=5, **where)  # type: ignore[call-arg]


def test_mode_next_begins_a_catalogue_and_finds_its_end(where: dict[str, Any]) -> None:
    """On an empty store `next` asks from the first song until 1,000 in a row are missing."""
    with DemoSite(last_song=700) as site:
        answer = crawl(mode="next", **where | {"base_url": site.base_url})
    last = max(num for num in range(701) if expected_info(num))
    assert answer.found + answer.missing == last + 1000
    assert answer.requests - (last + 1000) <= 80  # eight looks of ten to believe in the end
    assert (answer.start, answer.stop, answer.complete) == (1, last + 1001, True)


@pytest.mark.parametrize("mode", ["next", "new"])
def test_no_mode_asks_beyond_the_highest_number(where: dict[str, Any], mode: str) -> None:
    """Where numbers end, the catalogue does: there is no block for those beyond."""
    answer = crawl(mode=mode, first_song=10**12 - 5, **where)
    assert (answer.requests, answer.stop, answer.complete) == (5, 10**12, True)


def test_mode_next_goes_on_where_the_store_says(where: dict[str, Any]) -> None:
    """Each run takes up where the one before ended, with no state but the blocks."""
    first = crawl(mode="next", limit=300, **where)
    second = crawl(mode="next", limit=300, **where)
    assert (first.requests, second.requests) == (300, 300)
    assert len(records_of(where["store"])) == pytest.approx(600, abs=20)


def test_E11_mode_next_leaves_out_what_failed_until_it_is_due(where: dict[str, Any]) -> None:
    """A number that fails in every run does not use up the next run (E11)."""

    def step1(_session: Any, num: int, out: list[Any]) -> None:
        if num == 5:
            raise ValueError("no luck")
        if num > 20:
            raise Missing
        _session.get(where["base_url"] + "/_stats")
        out.append((num, num))

    first = crawl(0, 21, function=step1, **where)
    assert (first.failed, first.complete) == (1, False)
    again = crawl(mode="next", limit=1000, function=step1, **where)
    assert again.failed == 0
    record = records_of(where["store"])[5]
    assert (record.outcome, record.error, record.failed_runs) == ("failed", "function", 1)
    asked = crawl(0, 21, function=step1, **where)
    assert (asked.failed, records_of(where["store"])[5].failed_runs) == (1, 2)


@pytest.mark.parametrize("due_in_hours", [1, -1], ids=["not-due", "due"])
def test_E11_what_fails_beyond_the_last_song_does_not_use_up_mode_next(
    where: dict[str, Any], due_in_hours: int
) -> None:
    """Songs behind a stretch that fails in every run are reached all the same (E11)."""
    crawl(1, 50, **where)
    due = utc_now() + timedelta(hours=due_in_hours)
    stretch = {num: failed(num, next_try_at=due) for num in range(50, 90)}
    store = FolderStore(where["store"])
    save_block(store, 0, stretch, source="genius", believed=None, timeout=20)
    answer = crawl(mode="next", limit=30, **where)
    settled = [num for num, held in records_of(where["store"]).items() if held.outcome != "failed"]
    first = 90 if due_in_hours > 0 else 50
    assert settled == [*range(1, 50), *range(first, first + 30)]
    assert (answer.requests, answer.skipped) == (30, first - 1)
    assert (answer.start, answer.stop, answer.complete) == (1, first + 30, due_in_hours < 0)
    assert answer.found + answer.missing + answer.skipped == answer.stop - answer.start


def test_a_number_that_fails_again_beyond_the_last_song_waits_longer(
    where: dict[str, Any],
) -> None:
    """The runs in a row are counted there, too."""

    def step1(_session: Any, num: int, out: list[Any]) -> None:
        if num == 3:
            raise ValueError("no luck")
        if num > 3:
            raise Missing
        _session.get(where["base_url"] + "/_stats")
        out.append((num, num))

    for runs in (1, 2):
        crawl(mode="new" if runs > 1 else "next", limit=5, function=step1, **where)
        assert records_of(where["store"])[3].failed_runs == runs


def test_a_refresh_asks_again_what_is_old(where: dict[str, Any]) -> None:
    """`refresh_older_than_days=0` makes every record old; a large one none."""
    crawl(1, 51, **where)
    assert crawl(1, 51, refresh_older_than_days=30, **where).requests == 0
    assert crawl(1, 51, refresh_older_than_days=0.0, **where).requests == 50


def test_missing_numbers_can_be_rechecked(where: dict[str, Any]) -> None:
    """`recheck="missing"` asks the missing ones and no other."""
    first = crawl(1, 201, **where)
    again = crawl(1, 201, recheck="missing", **where)
    assert again.missing == first.missing > 0
    assert again.found == 0


def test_F3_the_time_budget_bounds_the_look_at_the_store_too(
    where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's timeout is counted from the request on, not from the first song."""
    quick = FolderStore.list_blocks

    def slow(self: FolderStore, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.6)
        return quick(self, *args, **kwargs)

    monkeypatch.setattr(FolderStore, "list_blocks", slow)
    answer = crawl(1, 1001, **where | {"rate": 100, "time_budget_seconds": 1.0})
    assert answer.stopped_by == "time_budget"
    assert answer.requests < 60
    assert 1.0 <= answer.seconds < 3.0


def test_F3_the_time_budget_ends_a_run_with_right_counts(where: dict[str, Any]) -> None:
    """A run stopped in the middle says what is left, and what it says is stored."""
    options = where | {"rate": 100, "time_budget_seconds": 0.5}
    answer = crawl(1, 1001, **options)
    done = answer.found + answer.missing
    assert (answer.stopped_by, answer.complete) == ("time_budget", False)
    assert done + answer.remaining == 1000
    assert len(records_of(where["store"])) == done


def test_F2_a_stop_event_ends_a_run_and_nothing_is_lost(where: dict[str, Any]) -> None:
    """What Ctrl-C and SIGTERM do: partial blocks are stored, the next run goes on."""
    event = threading.Event()
    answer = crawl(
        1,
        1001,
        stop_event=event,
        on_progress=lambda progress: event.set() if progress.found > 20 else None,
        **where | {"rate": 200},
    )
    assert answer.stopped_by == "signal"
    rest = crawl(1, 1001, **where)
    assert rest.skipped == answer.found + answer.missing
    assert verify(FolderStore(where["store"]), 1, 1001, timeout=10).problem is None


def test_E12_a_stop_order_ends_running_runs_and_not_later_ones(where: dict[str, Any]) -> None:
    """`control.json` is looked at every few seconds; an order that stood before is no order."""
    ordered = threading.Event()

    def order_once(progress: Any) -> None:
        if progress.found > 5 and not ordered.is_set():
            ordered.set()
            order_stop(FolderStore(where["store"]), now=utc_now(), by="test")

    options = where | {"rate": 20}
    answer = crawl(1, 1001, on_progress=order_once, **options)
    assert answer.stopped_by == "stop_order"
    assert answer.seconds < 10
    assert crawl(1, 301, **where).complete


def test_C7_a_refused_token_ends_the_run_with_what_was_settled(
    where: dict[str, Any],
) -> None:
    """C7: within 2 x connections requests, nothing recorded as missing."""
    answer = crawl(1, 5001, **where | {"token": "wrong"})
    assert (answer.stopped_by, answer.found, answer.missing) == ("unauthorized", 0, 0)
    assert answer.requests <= 16
    assert answer.remaining == 5000


def test_E15_what_is_missing_without_proof_is_counted(where: dict[str, Any]) -> None:
    """Of the range alone, in stretches of fifty and more, as version 1.0 stored them."""
    store = FolderStore(where["store"])
    claim_store(store, Identity("genius", "", "song-1", 1), timeout=9)
    block = {num: missing(num) for num in range(100, 300)}
    save_block(store, 0, block, source="genius", timeout=9)
    answer = crawl(200, 300, **where)
    assert (answer.skipped, answer.notes) == (100, {"unproven": 100})


def test_the_daily_cap_holds_over_runs(where: dict[str, Any]) -> None:
    """`CRAWLER_MAX_REQUESTS_PER_DAY` counts what earlier runs of the day sent."""
    first = crawl(1, 1001, max_requests_per_day=150, **where)
    second = crawl(1, 1001, max_requests_per_day=150, **where)
    assert (first.requests, first.stopped_by) == (150, "daily_cap")
    assert (second.requests, second.stopped_by) == (0, "daily_cap")


def test_E9_a_store_of_another_source_is_refused_before_the_first_request(
    where: dict[str, Any], demo_site: DemoSite
) -> None:
    """Songs of two sites never mix."""

    def step1(_session: Any, num: int, out: list[Any]) -> None:
        out.append((num, 1))

    crawl(1, 11, **where)
    before = demo_site.stats()["requests"]
    with pytest.raises(StoreMismatchError, match="genius"):
        crawl(11, 21, function=step1, **where)
    assert demo_site.stats()["requests"] == before


def test_E1_an_unusable_store_fails_before_the_first_request(
    where: dict[str, Any], demo_site: DemoSite, tmp_path: Path
) -> None:
    """A file where the folder should be: the error comes first, the site is not asked."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError):
        crawl(1, 11, **where | {"store": str(tmp_path / "file" / "store")})
    assert demo_site.stats()["requests"] == 0


def test_a_run_leaves_an_object_and_the_status(where: dict[str, Any]) -> None:
    """What the status page shows lies beside the blocks."""
    answer = crawl(1, 101, **where)
    store = FolderStore(where["store"])
    (run,) = read_runs(store, latest=10, timeout=5)
    assert run.answer == answer
    status = store.read("status.json", timeout=5)
    assert status is not None
    assert b'"found":%d' % answer.found in status.data


@pytest.mark.parametrize("caller", CALLERS)
def test_no_thread_is_left_behind(where: dict[str, Any], caller: str) -> None:
    """After a run the process is as it was."""
    before = set(threading.enumerate())
    crawl(1, 101, function=asking(caller, where["base_url"], "demo-token"), **where)
    assert set(threading.enumerate()) <= before


def test_E4_two_runs_of_one_range_at_once_keep_each_number_once(where: dict[str, Any]) -> None:
    """E4: both succeed, whatever their order; the records are right."""
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(crawl(1, 1501, **where))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.complete for answer in answers] == [True, True]
    assert verify(FolderStore(where["store"]), 1, 1501, timeout=10).problem is None


def test_missing_numbers_are_stored_with_the_song_that_proves_them(tmp_path: Path) -> None:
    """A gap is recorded with its proof, and the song is named for runs beside this one."""
    with DemoSite(last_song=300) as site:
        where = {"store": str(tmp_path), "base_url": site.base_url, "token": site.token, "rate": 0}
        assert crawl(1, 601, **where).complete
    store = FolderStore(tmp_path)
    (info,) = store.list_blocks(timeout=5)
    assert info.proof
    assert info.unproven == []
    assert read_control(store, timeout=5).canary is not None


def test_C9_a_canary_that_is_named_proves_what_is_missing(tmp_path: Path) -> None:
    """Where no song was ever found, nothing is believed without one; with one all is recorded."""
    with DemoSite(last_song=300) as site:
        where = {"store": str(tmp_path), "base_url": site.base_url, "token": site.token, "rate": 0}
        without = crawl(400, 500, **where)
        assert (without.stopped_by, without.missing) == ("circuit", 0)
        answer = crawl(400, 500, canary=5, **where)
    assert (answer.complete, answer.missing) == (True, 100)
    assert {record.proof for record in records_of(tmp_path).values()} == {5}


COURSE = [Sample(at, 0, found, 0, 0, 0, 0.0, paused) for at, found, paused in [
    (1.0, 40, 7.0), (5.0, 40, 3.0), (9.0, 80, 7.0), (17.0, 120, 7.0), (20.0, 120, 4.0),
]]  # fmt: skip


@pytest.mark.parametrize(
    ("course", "refused", "announced", "rate", "advised"),
    [
        (COURSE, 2, 0.0, 100.0, None),
        (COURSE, 3, 0.0, 100.0, 5.0),
        (COURSE, 3, 0.0, 3.0, 2.7),
        (COURSE[:1], 3, 0.0, 100.0, 4.5),
        ([], 3, 0.0, 0.0, 6.0),
        (COURSE, 3, 1.0, 100.0, 1.0),
        (COURSE, 3, 0.4166, 100.0, 0.41),
    ],
    ids=["twice", "to the last pause", "slow", "one pause", "no pause", "announced", "25 a minute"],
)
def test_a_rate_is_advised_that_the_site_bears(
    course: list[Sample], refused: int, announced: float, rate: float, advised: float | None
) -> None:
    """From pause to pause, so that a quota spent in the first second promises nothing."""
    answer = a_run(seconds=25.0, found=150, missing=0).answer
    assert advised_rate(answer, course, refused, announced=announced, rate=rate) == advised


def test_a_site_of_which_nothing_was_settled_bears_no_rate() -> None:
    """Then nothing is advised."""
    answer = a_run(seconds=25.0, found=0, missing=0).answer
    assert advised_rate(answer, [], 9, announced=0.0, rate=10.0) is None
