"""Fan-out: how a range becomes tasks, and what follows from a task's answer."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crawler import crawl
from crawler.answer import STOPS, Answer
from crawler.demo.site import DemoSite
from crawler.errors import QueueError, RequestError
from crawler.fleet.delivery import (
    BARREN_SECONDS,
    begin_chain,
    deliver,
    earliest,
    read_claim,
    scheduled_at,
    successor_body,
)
from crawler.fleet.orders import (
    Delivery,
    Order,
    OrderAnswer,
    cut,
    fan_out,
    order_number,
    ordered_at,
    parse_task_name,
    read_order,
    task_name,
)
from crawler.fleet.task_queue import EMULATOR, TaskQueue
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest
from crawler.run.run import Limits, run
from crawler.settings.settings import Secret, Settings
from crawler.store.block import block_name, encode_block
from crawler.store.control import order_pause, order_stop, read_control
from crawler.store.folder import FolderStore
from tests.crawls import CALLERS, asking
from tests.queue_server import QUEUE, QueueServer
from tests.test_site_faults import QUICK_PROBES, serving

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORDER = order_number(NOW)


@pytest.fixture
def server() -> Iterator[QueueServer]:
    """A paused queue: tasks lie where a test can look at them."""
    with QueueServer() as server:
        server.answer("POST", f"/v2/{QUEUE}:pause", b"")
        yield server


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment with a queue and a folder; 3 blocks make a shard."""
    return Settings(
        store=str(tmp_path / "store"),
        queue=QUEUE,
        url="http://127.0.0.1:9/",
        shard_songs=3000,
        token=Secret("demo-token"),
        rate=0,
    )


def order(
    server: QueueServer, settings: Settings, start: int, stop: int, **options: Any
) -> OrderAnswer:
    """Give an order."""
    now = options.pop("now", NOW)
    request = CrawlRequest(start=start, stop=stop, fan_out=True, **options)
    return fan_out(request, settings, TaskQueue(settings, environ={EMULATOR: server.host}), now=now)


def bodies(server: QueueServer) -> list[dict[str, Any]]:
    """List what the tasks post, by where they begin."""
    return sorted((json.loads(t.body) for t in server.tasks.values()), key=lambda b: b["start"])


def fill(settings: Settings, site: DemoSite, start: int, stop: int) -> None:
    """Settle a range of the store."""
    where: dict[str, Any] = {"store": settings.store, "base_url": site.base_url}
    crawl(start, stop, rate=0, token=site.token, **where)


@pytest.mark.parametrize(
    ("start", "stop", "shards"),
    [
        (0, 0, []),
        (5, 6, [(5, 6)]),
        (0, 3000, [(0, 3000)]),
        (1, 3001, [(1, 3000), (3000, 3001)]),
        (2999, 9000, [(2999, 5000), (5000, 8000), (8000, 9000)]),
    ],
    ids=["none", "one", "whole", "one past", "within blocks"],
)
def test_a_range_is_cut_at_block_boundaries(
    start: int, stop: int, shards: list[tuple[int, int]]
) -> None:
    """Every number is in one shard, and no block in two."""
    assert list(cut(start, stop, 3000)) == shards


def test_a_name_says_its_order_and_place_behind_a_hash() -> None:
    """Names are read back, differ by what they stand for, and do not begin alike."""
    body = {"start": 0, "stop": 3000}
    names = [
        task_name(ORDER, body, 0),
        task_name(ORDER, body, 1),
        task_name(ORDER + 1, body, 0),
        task_name(ORDER, {"start": 3000, "stop": 6000}, 0),
    ]
    assert len({name[:8] for name in names}) == 4
    assert parse_task_name(names[1]) == (ORDER, 1)
    assert parse_task_name(f"{QUEUE}/tasks/{names[0]}") == (ORDER, 0)
    assert parse_task_name("5551212") is None
    assert ordered_at(ORDER) == NOW


def test_what_is_settled_is_left_out(
    server: QueueServer, settings: Settings, demo_site: DemoSite
) -> None:
    """A shard whose blocks are all settled gets no task, judged by the listing alone."""
    fill(settings, demo_site, 3000, 6000)
    fill(settings, demo_site, 6000, 6500)
    answer = order(server, settings, 0, 9000)
    ranges = [(body["start"], body["stop"]) for body in bodies(server)]
    assert ranges == [(0, 3000), (6000, 9000)]
    assert (answer.shards, answer.enqueued, answer.left) == (2, 2, 0)
    assert (answer.skipped, answer.to_ask) == (3500, 5500)


def test_a_second_delivery_of_an_order_adds_nothing(
    server: QueueServer, settings: Settings
) -> None:
    """The same order finds its tasks there; a new one, as after a repair, makes new tasks."""
    first = order(server, settings, 0, 9000)
    again = order(server, settings, 0, 9000)
    resumed = order(server, settings, 0, 9000, order=ORDER, now=NOW + timedelta(hours=1))
    assert [a.enqueued for a in (first, again, resumed)] == [3, 0, 0]
    assert [a.already_there for a in (first, again, resumed)] == [0, 3, 3]
    assert order(server, settings, 0, 9000, now=NOW + timedelta(hours=1)).enqueued == 3
    assert len(server.tasks) == 6


def test_an_order_that_ran_out_of_time_can_be_gone_on_with(
    server: QueueServer, settings: Settings
) -> None:
    """What is left is counted, and the order's number is all that is needed for the rest."""
    hurried = msgspec.structs.replace(settings, time_budget_seconds=1e-9)
    first = order(server, hurried, 0, 30_000)
    assert (first.enqueued, first.left) == (0, 10)
    rest = order(server, settings, 0, 30_000, order=first.order)
    assert (rest.enqueued, rest.already_there, rest.left) == (10, 0, 0)


def test_an_order_that_the_queue_cut_short_can_be_gone_on_with(
    server: QueueServer, settings: Settings
) -> None:
    """The error tells the order's number: a new order would do everything a second time."""
    elsewhere = msgspec.structs.replace(settings, queue=QUEUE.replace("songs", "gone"))
    with pytest.raises(QueueError, match=rf"NotFound.*repeat it with order {ORDER}$"):
        order(server, elsewhere, 0, 9000)
    order(server, settings, 0, 3000)  # what had been enqueued when the queue failed
    rest = order(server, settings, 0, 9000, order=ORDER, now=NOW + timedelta(hours=1))
    assert (rest.enqueued, rest.already_there, rest.left) == (2, 1, 0)


def test_a_shard_posts_what_the_order_asked_for(server: QueueServer, settings: Settings) -> None:
    """Numbers only: range, age, recheck, pace; host, store and token are the deployment's."""
    order(
        server,
        settings,
        0,
        10,
        refresh_older_than_days=30.0,
        recheck="missing",
        canary=7,
        max_rate=5.0,
    )
    assert bodies(server) == [
        {
            "start": 0,
            "stop": 10,
            "refresh_older_than_days": 30.0,
            "recheck": "missing",
            "canary": 7,
            "max_rate": 5.0,
        }
    ]


def test_a_range_of_too_many_shards_is_refused(server: QueueServer, settings: Settings) -> None:
    """The message names the setting that would help."""
    with pytest.raises(RequestError, match="CRAWLER_SHARD_SONGS"):
        order(server, settings, 0, 10**12)


@pytest.mark.once
def test_ten_millions_are_ordered_in_ten_seconds(server: QueueServer, settings: Settings) -> None:
    """10,000 blocks are listed, and 200 shards enqueued: ten seconds of work at most."""
    folder = Path(settings.store) / "songs"
    folder.mkdir(parents=True)
    for first in range(0, 10_000_000, 1000):
        record = Record(first, "missing", 404, None, None, 1, NOW)
        data, _ = encode_block([record], source="genius")
        (folder.parent / block_name(first)).write_bytes(data)
    settings = msgspec.structs.replace(settings, shard_songs=50_000)
    began = time.process_time()
    answer = order(server, settings, 0, 10_000_000)
    assert time.process_time() - began < 10
    assert (answer.shards, answer.enqueued, answer.skipped) == (200, 200, 10_000)


# What follows from a delivery.


def answer_of(stopped_by: str, **counts: int) -> Answer:
    """Make the answer of a run that asked 100 numbers of 3,000."""
    given: dict[str, Any] = {"found": 100, "remaining": 2900, "requests": 100} | counts
    zero = ("missing", "failed", "skipped", "retries", "blocks_written")
    return Answer(
        start=0,
        stop=3000,
        mode="range",
        complete=False,
        seconds=1.0,
        mean_rate=100.0,
        stopped_by=stopped_by,
        version="0",
        **{name: 0 for name in zero if name not in given},
        **given,
    )


def deliver_shard(
    server: QueueServer,
    settings: Settings,
    answer: Answer,
    now: datetime = NOW,
    **request: Any,
) -> tuple[int, list[str]]:
    """Deliver a shard whose run ends as told; give the status and the names of all tasks."""
    status, _ = deliver(
        CrawlRequest(**({"start": 0, "stop": 3000} | request)),
        settings,
        Delivery(ORDER, 4),
        run=lambda _request: answer,
        queue=lambda: TaskQueue(settings, environ={EMULATOR: server.host}),
        wall=lambda: now,
    )
    return status, [name.rpartition("/")[2] for name in server.tasks]


@pytest.mark.parametrize("stopped_by", STOPS)
def test_every_end_of_a_run_has_its_consequence(
    server: QueueServer, settings: Settings, stopped_by: str
) -> None:
    """A successor for what is left, a stop order for what no repeat mends, 503 for the store."""
    status, names = deliver_shard(server, settings, answer_of(stopped_by))
    stop_order = read_control(FolderStore(settings.store), timeout=5)
    goes_on = stopped_by in ("time_budget", "signal", "paused", "daily_cap", "stop_order")
    ends_order = stopped_by in ("barred", "unauthorized", "circuit")
    assert status == (503 if stopped_by == "store" else 200)
    assert [parse_task_name(name) for name in names] == ([(ORDER, 5)] if goes_on else [])
    assert (stop_order.stop_id is not None) == ends_order


def test_a_shard_with_nothing_left_has_no_successor(
    server: QueueServer, settings: Settings
) -> None:
    """Numbers that failed are not asked again at once."""
    answer = answer_of("time_budget", remaining=0, failed=3)
    assert deliver_shard(server, settings, answer) == (200, [])


def test_a_shard_that_finds_a_stop_standing_ends(server: QueueServer, settings: Settings) -> None:
    """Who stops a fan-out without pausing its queue is rid of it."""
    answer = answer_of("stop_order", found=0, requests=0, remaining=3000)
    assert deliver_shard(server, settings, answer) == (200, [])


def test_two_deliveries_of_a_shard_have_one_successor(
    server: QueueServer, settings: Settings
) -> None:
    """Whoever comes second finds it there, and is content."""
    answers = [deliver_shard(server, settings, answer_of("time_budget")) for _ in range(2)]
    assert [(status, len(names)) for status, names in answers] == [(200, 1), (200, 1)]


def test_no_successor_to_be_had_is_worth_a_repeat(server: QueueServer, settings: Settings) -> None:
    """Then, and only then, the queue is asked to deliver the shard again."""
    elsewhere = msgspec.structs.replace(settings, queue=QUEUE.replace("songs", "gone"))
    assert deliver_shard(server, elsewhere, answer_of("time_budget")) == (503, [])


def test_a_successor_comes_when_it_is_of_use(server: QueueServer, settings: Settings) -> None:
    """After the pause that ended the run; after midnight where the day's cap did."""
    now = datetime.now(UTC)  # by which the queue goes, too
    order_pause(FolderStore(settings.store), now + timedelta(hours=2), now=now)
    deliver_shard(server, settings, answer_of("paused"), now=now)
    ((due, _, _),) = server.due
    assert due - time.monotonic() == pytest.approx(7200, abs=20)


@pytest.mark.parametrize("stopped_by", ["time_budget", "signal"])
def test_a_chain_that_comes_to_nothing_does_not_spin(settings: Settings, stopped_by: str) -> None:
    """Where a run asked nothing its successor waits ten minutes; where it did, not at all."""
    store = FolderStore(settings.store)
    barren = answer_of(stopped_by, found=0, requests=0, remaining=3000)
    assert earliest(barren, store, NOW) == NOW + timedelta(seconds=BARREN_SECONDS)
    assert earliest(answer_of(stopped_by), store, NOW) is None


def test_C7b_a_challenge_for_ever_ends_a_whole_order_and_leaves_no_hold(settings: Settings) -> None:
    """Its shards together ask at most a hundred times; the next schedule tries again."""
    barred = (403, {"cf-mitigated": "challenge", "Content-Type": "text/html"})
    with serving(lambda _num, _nth, _now: barred) as site:
        deployed = msgspec.structs.replace(
            settings, base_url=site.base_url, time_budget_seconds=20.0, rate=100
        )
        given = order_number(datetime.now(UTC))
        ends = []
        for shard in range(4):
            request = CrawlRequest(start=3000 * shard, stop=3000 * shard + 3000)
            _, answer = deliver(
                request,
                deployed,
                Delivery(given, shard),
                run=lambda request: run(request, deployed, is_unattended=True),
                queue=lambda: pytest.fail("a successor cannot mend it"),
                wall=lambda: datetime.now(UTC),
            )
            ends.append((answer.stopped_by, answer.requests > 0))
        assert ends == [("barred", True), *[("stop_order", False)] * 3]
        assert len(site.asked) <= 100
        assert read_control(FolderStore(settings.store), timeout=5).held_at is None
        before = len(site.asked)
        scheduled = run(CrawlRequest(mode="next"), deployed, is_unattended=True)
        assert (scheduled.stopped_by, len(site.asked) > before) == ("barred", True)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("way", ["next", "shard"])
def test_E11b_dead_pages_at_the_begin_of_mode_next_and_of_a_shard(
    settings: Settings, caller: str, way: str
) -> None:
    """On a fresh store every healthy number is found at once, and no other shard is stopped."""
    dead = range(1, 251)
    with serving(lambda num, _nth, _now: (500 if num in dead else 200, {})) as site:
        deployed = msgspec.structs.replace(
            settings, base_url=site.base_url, first_song=1, last_song=399
        )
        target, limits = asking(caller, site.base_url), Limits(policy=QUICK_PROBES)
        request = CrawlRequest(mode="next")
        if way == "shard":
            request = CrawlRequest(start=1, stop=400)
        status, answer = deliver(
            request,
            deployed,
            Delivery(ORDER, 0),
            run=lambda request: run(request, deployed, function=target, limits=limits),
            queue=lambda: pytest.fail("nothing is left"),
            wall=lambda: NOW,
        )
    assert (status, answer.stopped_by) == (200, "done")
    assert (answer.found, answer.failed) == (149, 250)
    assert read_control(FolderStore(settings.store), timeout=5).stop_id is None


def test_a_run_that_was_held_orders_no_stop(server: QueueServer, settings: Settings) -> None:
    """Who sent nothing learnt nothing: other runs are left alone."""
    deliver_shard(server, settings, answer_of("unauthorized", requests=0))
    assert read_control(FolderStore(settings.store), timeout=5).stop_id is None


def test_a_mode_goes_on_with_what_its_limit_leaves() -> None:
    """Without a schedule, `next` with a limit has a successor for the rest of it."""
    request = CrawlRequest(mode="next", limit=250)
    assert successor_body(request, answer_of("time_budget")) == {"mode": "next", "limit": 150}
    assert successor_body(request, answer_of("time_budget", found=250)) is None
    assert successor_body(request, answer_of("done")) is None


def test_the_time_of_a_schedule_is_read_from_its_header() -> None:
    """Each delivery of one call has the same."""
    assert scheduled_at("2026-11-22T12:00:00Z") == NOW
    assert scheduled_at("soon") is None
    assert scheduled_at(None) is None


# Orders.


def name_of(number: int, sequence: int = 0) -> str:
    """Make the name of a task of an order."""
    return task_name(number, {"start": 0}, sequence)


def test_an_order_is_in_the_store_before_its_first_task(settings: Settings) -> None:
    """Where the queue takes no task at all the order is there, and covers what was asked for."""
    with QueueServer() as server:
        gone = msgspec.structs.replace(settings, queue=QUEUE.replace("songs", "gone"))
        with pytest.raises(QueueError):
            order(server, gone, 0, 9000, recheck="missing")
    kept = read_order(FolderStore(settings.store), ORDER)
    assert kept == Order(start=0, stop=9000, recheck="missing")


@pytest.mark.parametrize(
    ("part", "is_covered"),
    [
        ({"start": 3000, "stop": 9000}, True),
        ({"start": 5000, "stop": 6000}, True),
        ({"start": 5000, "stop": 5000}, True),
        ({"start": 2999, "stop": 9000}, False),
        ({"start": 3000, "stop": 9001}, False),
        ({"start": 3000, "stop": 9000, "recheck": "missing"}, False),
        ({"start": 3000, "stop": 9000, "max_rate": 5.0}, False),
        ({"start": 3000, "stop": 9000, "canary": 5}, False),
        ({"start": 3000, "stop": 9000, "refresh_older_than_days": 0.0}, False),
        ({"mode": "next"}, False),
    ],
    ids=str,
)
def test_A19_only_a_part_of_a_stored_order_is_a_delivery(
    server: QueueServer, settings: Settings, part: dict[str, Any], is_covered: bool
) -> None:
    """Its range lies within, and what it asks again and how fast are the same."""
    order(server, settings, 3000, 9000)
    claim = read_claim(name_of(ORDER, 7), settings)
    assert claim is not None
    assert claim.delivery == (ORDER, 7)
    assert claim.holds_for(CrawlRequest(**part)) == is_covered


@pytest.mark.parametrize("name", [None, "5551212", name_of(ORDER), name_of(ORDER + 1)], ids=str)
def test_A19_an_order_that_is_not_stored_is_none(settings: Settings, name: str | None) -> None:
    """Whoever invents a name, or brings one of version 1.0, is a caller like others."""
    assert read_claim(name, settings) is None


def test_A19_an_order_to_fan_out_is_no_delivery(server: QueueServer, settings: Settings) -> None:
    """A task never asks for that."""
    order(server, settings, 0, 9000)
    claim = read_claim(name_of(ORDER), settings)
    assert claim is not None
    assert not claim.holds_for(CrawlRequest(start=0, stop=9000, fan_out=True))


def test_orders_of_one_moment_have_numbers_of_their_own(
    server: QueueServer, settings: Settings
) -> None:
    """Two schedules may be due in the same minute; a second delivery of either is no new order."""
    ranges = [(0, 3000), (3000, 6000), (0, 3000), (3000, 6000)]
    numbers = [order(server, settings, *each).order for each in ranges]
    assert numbers == [ORDER, ORDER + 1, ORDER, ORDER + 1]
    assert len(server.tasks) == 2


def test_an_order_that_is_gone_on_with_stays_what_it_is(
    server: QueueServer, settings: Settings
) -> None:
    """Its number does not make another range a part of it."""
    order(server, settings, 0, 3000)
    with pytest.raises(RequestError, match="about something else") as raised:
        order(server, settings, 0, 9000, order=ORDER)
    assert (raised.value.status, raised.value.code) == (400, "order_mismatch")
    assert len(server.tasks) == 1


def test_what_a_run_leaves_is_an_order_of_its_own(server: QueueServer, settings: Settings) -> None:
    """So that its successor is believed when it is delivered."""
    begin_chain(
        CrawlRequest(mode="next", limit=250),
        settings,
        answer_of("time_budget"),
        queue=lambda: TaskQueue(settings, environ={EMULATOR: server.host}),
        started=NOW,
        now=NOW,
    )
    ((name, task),) = server.tasks.items()
    claim = read_claim(name, settings)
    assert claim is not None
    assert claim.delivery == (ORDER, 1)
    assert claim.holds_for(CrawlRequest(**json.loads(task.body)))


def test_a_run_that_left_nothing_orders_nothing(server: QueueServer, settings: Settings) -> None:
    """No object and no task."""
    begin_chain(
        CrawlRequest(start=0, stop=3000),
        settings,
        answer_of("done"),
        queue=lambda: TaskQueue(settings, environ={EMULATOR: server.host}),
        started=NOW,
        now=NOW,
    )
    assert (server.tasks, read_order(FolderStore(settings.store), ORDER)) == ({}, None)


# Runs that are part of an order.


def run_part(settings: Settings, site: DemoSite, ordered: datetime, **request: Any) -> Answer:
    """Run a part of an order that was given at that time."""
    settings = msgspec.structs.replace(settings, base_url=site.base_url)
    part = CrawlRequest(start=0, stop=200, ordered_at=ordered, **request)
    return run(part, settings, is_unattended=True)


@pytest.mark.parametrize(
    "again", [{"refresh_older_than_days": 0.0}, {"recheck": "missing"}], ids=["refresh", "recheck"]
)
def test_a_doubled_delivery_asks_nothing_again(
    settings: Settings, demo_site: DemoSite, again: dict[str, Any]
) -> None:
    """What an order asks again is what was old when it was given, however often it is delivered."""
    fill(settings, demo_site, 0, 200)
    ordered = datetime.now(UTC)
    assert run_part(settings, demo_site, ordered, **again).requests > 0
    assert run_part(settings, demo_site, ordered, **again).requests == 0


def test_a_stop_binds_the_parts_of_an_order_that_begin_later(
    settings: Settings, demo_site: DemoSite
) -> None:
    """Parts of an earlier order send nothing; a new order is not stopped."""
    order_stop(FolderStore(settings.store), now=NOW, by="me")
    early = run_part(settings, demo_site, NOW - timedelta(minutes=1))
    assert (early.stopped_by, early.requests, early.remaining) == ("stop_order", 0, 200)
    assert run_part(settings, demo_site, NOW + timedelta(minutes=1)).complete


def test_a_pause_that_stands_holds_from_the_first_request(
    settings: Settings, demo_site: DemoSite
) -> None:
    """A run that begins in a pause, and must end before it, asks for nothing."""
    now = datetime.now(UTC)
    order_pause(FolderStore(settings.store), now + timedelta(minutes=5), now=now)
    short = msgspec.structs.replace(settings, time_budget_seconds=1.0)
    answer = run_part(short, demo_site, now)
    assert (answer.stopped_by, answer.requests) == ("paused", 0)


# The command line.


def command(server: QueueServer, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m crawler crawl … --fan-out`."""
    deployed = {"CRAWLER_QUEUE": QUEUE, "CRAWLER_URL": "http://127.0.0.1:9/", EMULATOR: server.host}
    return subprocess.run(
        [sys.executable, "-m", "crawler", "crawl", *words, "--fan-out"],
        env=os.environ | deployed | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_order_is_given_from_a_laptop(server: QueueServer, tmp_path: Path) -> None:
    """The command enqueues, tells the order's number, and needs no token of the site."""
    where = ("--store", str(tmp_path))
    done = command(server, "0", "100000", "--json", *where)
    assert (done.returncode, done.stderr) == (0, "")
    answer = msgspec.json.decode(done.stdout, type=OrderAnswer)
    assert (answer.shards, answer.enqueued) == (2, 2)
    again = command(server, "0", "100000", "--order", str(answer.order), *where)
    assert again.stdout.startswith(f"Order {answer.order}: 0 tasks enqueued, 2 there already")


def test_a_laptop_s_own_folder_is_not_the_function_s_store(
    server: QueueServer, tmp_path: Path
) -> None:
    """What a folder here has settled must not be left out over there."""
    url = {"CRAWLER_URL": "https://songs.example.org/", "CRAWLER_INVOKER": "me@example.org"}
    done = command(server, "0", "10", "--store", str(tmp_path), **url)
    assert done.returncode == 2
    assert "gs://bucket/prefix" in done.stderr
    assert server.tasks == {}
