"""Whole crawls in simulated time: everything of ours as it is, everything else made from one seed.

Frontier, plan, writer and the way blocks are merged are the real ones. Site, network, clock and
store are simulated, so that minutes take milliseconds and a seed always gives the same crawl.

    python -m tests.simulate 4711            one seed
    python -m tests.simulate 0 100000        many, on all cores
"""

import contextlib
import heapq
import json
import logging
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from crawler.errors import PageError, StoreConflictError, StoreError, StoreUnavailableError
from crawler.frontier.canaries import KnownSongs
from crawler.frontier.frontier import Frontier
from crawler.frontier.proof import MOST_HELD
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Job, PendingNumber, Policy
from crawler.plan.scope import Scope
from crawler.record import Record
from crawler.request.crawl_request import CrawlRequest
from crawler.run.monitor import CONTROL_SECONDS, ControlWatcher
from crawler.run.store_index import STORE_SECONDS, StoreIndex
from crawler.run.writer import Writer
from crawler.step1 import call_step1
from crawler.store.block import (
    ABSENT,
    HEAD_BYTES,
    BlockInfo,
    Token,
    decode_block,
    overlaps,
    parse_block_name,
    read_block_info,
)
from crawler.store.contract import Content, Stored
from crawler.store.control import NAME, decode_control, order_stop, pause_left, read_control
from crawler.wire.answers import WireAnswer
from tests.simulation import NOON, most_in_a_second

START = 1000.0
BLOCK = 1000
SPELL = 10
"""A spell of fewer lies may be believed."""

SOURCE = SimpleNamespace(
    url=lambda num: f"https://sim.invalid/songs/{num}",
    headers=lambda: {"Accept": "application/json"},
    canary=None,
)

MAX_ROUNDS = 8
"""After so many rounds of repeats everything is settled, whatever happened in the first ones."""

PAGE_ERRORS = ("json", "schema", "mismatch")
"""Kinds of failure that whoever reads the page notices, not the wire."""

HORIZON = 400.0
"""Faults end before this many seconds, so that the last rounds meet a well site."""


@dataclass(slots=True)
class Request:
    """One request as the site sees it.

    Attributes:
        num: The number asked for.
        at: When it reaches the site, seconds from 0 on.
        nth: How often the number was asked before.
        is_canary: Whether `Cache-Control: no-cache` came with it.
        run: Which run asks.
        round: In which round, from 1 on.
    """

    num: int
    at: float
    nth: int
    is_canary: bool
    run: int
    round: int


@dataclass(slots=True)
class Served:
    """What comes of a request.

    Attributes:
        status: HTTP status, None where no answer comes.
        error: A kind of failure, None where the status speaks for itself.
        headers: Of the answer, names in lower case.
        seconds: What it takes beyond the network's latency.
        is_lie: Whether it denies a song that is there.
        is_reused: Whether the connection had served before.
        pause: For how many seconds the site asks everybody to wait, None for what a plain
            `Retry-After` in seconds says.
    """

    status: int | None = None
    error: str | None = None
    headers: dict[str, str] | None = None
    seconds: float = 0.0
    is_lie: bool = False
    is_reused: bool = False
    pause: float | None = None

    def pause_seconds(self) -> float:
        """Return for how long nobody may ask after this answer."""
        told = (self.headers or {}).get("retry-after", "")
        if self.pause is not None or self.status not in (403, 429, 503):
            return self.pause or 0.0
        return float(told) if told.isascii() and told.isdecimal() and len(told) < 10 else 0.0


class Answered(NamedTuple):
    """What came of one request, as the site knows it; `kind` is "song", "cached" (a song, by a cache), "lie", "none" or another."""

    at: float
    num: int
    run: int
    is_canary: bool
    kind: str


SiteFault = Callable[[Request], Served | None]
"""Answers a request in the site's place, or returns None to let the next one, or the site, answer."""

StoreFault = Callable[[str, str, float], str | None]
"""Given an operation, an object and the time: what goes wrong, None where nothing does.

Operations are "list", "read", "write" and, where the object is there, "replace". What goes wrong:
"before" and "after" (it fails though it was done), "conflict" (somebody else wrote meanwhile),
"cut" (what is read is not whole), or how many seconds it takes, as text.
"""


class Cache:
    """A cache between everybody and the site, which heeds no `Cache-Control: no-cache`.

    Between two rounds it forgets. It keeps lies as well.
    """

    def __init__(self, plan: "Plan", seconds: float, *, keeps_missing: bool) -> None:
        """Keep songs for so long, and what is missing where it says so."""
        self._plan, self._seconds, self._keeps_missing = plan, seconds, keeps_missing
        self._kept: dict[int, tuple[float, int | None]] = {}
        self._round = 1

    def know(self, share: float) -> None:
        """Know songs for which somebody else has asked."""
        chance = self._plan.chance
        for num in sorted(self._plan.songs):
            if chance.random() < share:
                self._kept[num] = -chance.uniform(0.0, self._seconds), 200

    def find(self, request: Request) -> Served | None:
        """Return what it keeps for a number, None where that is nothing."""
        if request.round != self._round:
            self._round, self._kept = request.round, {}
        at, status = self._kept.get(request.num, (-1e9, 0))
        if request.at - at >= self._seconds or request.num in self._plan.dead:
            return None
        return Served(status, headers={"age": str(int(request.at - at))})

    def keep(self, request: Request, served: Served) -> None:
        """Note what the site has answered."""
        kept = (200, 404) if self._keeps_missing else (200,)
        if served.error is None and served.status in kept:
            age = int((served.headers or {}).get("age", 0))  # of another cache behind it
            self._kept[request.num] = request.at - age, served.status


Check = Callable[["Site", "list[SimulatedRun]"], None]
"""Looks at runs, where one generator alone had a hand in the world."""


@dataclass
class Plan:
    """What one seed makes of the world; fault generators change it.

    Attributes:
        chance: The seed's randomness.
        start, stop: The range that is crawled.
        songs: Numbers that are there.
        dead: Numbers that never answer well, which no crawl can settle.
        rate: Requests per second of each run, 0 for no limit.
        connections: Requests under way at once, each run.
        latency: The network's, seconds at most.
        site_faults: Asked in order; the first that answers counts.
        site_headers: What answers carry beside what the faults say.
        cache: Stands before the site, None where there is none.
        store_faults: Likewise for the store.
        kills: When the runs of the first round are killed, seconds from 0 on.
        runs: How many runs are under way at once in the first round.
        is_sharded: Whether each of them has a part of the range, as the shards of an order have.
        function: Step 1, where that asks and not a source.
        mode: What the runs are asked for: "range" or "next".
        stop_orders: When somebody orders all runs on the store to stop, seconds from 0 on.
        clocks: By how many seconds the time of day of each run is off.
        budget: Time budget of each run of the first rounds in seconds, None for no end.
        wall_jumps: When the times of day of all runs jump, and by how many seconds.
        stalls: When the machine sleeps, and for how many seconds.
        gone: Songs that were deleted after they had been served.
        moved: Numbers that moved for good, and where to.
        checks: What else holds after the first round, where no other generator interferes.
        last_checks: The same for all runs, once everything is settled.
        round: The round that is under way.
        names: The generators that had a hand in it.
        is_harsh: Whether one run need not settle everything: a generator says so.
    """

    chance: random.Random
    start: int = 0
    stop: int = 0
    songs: set[int] = field(default_factory=set)
    dead: set[int] = field(default_factory=set)
    rate: float = 100.0
    connections: int = 16
    latency: float = 0.1
    site_faults: list[SiteFault] = field(default_factory=list)
    site_headers: list[Callable[[Request], dict[str, str]]] = field(default_factory=list)
    cache: Cache | None = None
    store_faults: list[StoreFault] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    runs: int = 1
    is_sharded: bool = False
    function: Callable[..., Any] | None = None
    mode: Literal["range", "next"] = "range"
    stop_orders: list[float] = field(default_factory=list)
    clocks: list[float] = field(default_factory=lambda: [0.0] * 4)
    budget: float | None = None
    wall_jumps: list[tuple[float, float]] = field(default_factory=list)
    stalls: list[tuple[float, float]] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    moved: dict[int, int] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    last_checks: list[Check] = field(default_factory=list)
    round: int = 1
    names: list[str] = field(default_factory=list)
    is_harsh: bool = False

    @property
    def seconds(self) -> float:
        """About how long a crawl without faults takes."""
        most = self.connections / max(self.latency, 0.001)
        return (self.stop - self.start) / min(self.rate or most, most)

    @property
    def rest(self) -> float:
        """For how many seconds nothing runs between two rounds: in mode next until all is due."""
        return 600.0 if self.mode == "range" else 8 * 86_400.0

    def part(self, number: int) -> tuple[int, int]:
        """Return start and stop of what one run of the round is to crawl."""
        if not self.is_sharded or self.round > 1:
            return self.start, self.stop
        size = -(-(self.stop - self.start) // self.runs)
        first = self.start + number * size
        return min(first, self.stop), min(first + size, self.stop)

    def moment(self) -> float:
        """Return a moment within the first crawl."""
        return self.chance.uniform(0.0, min(self.seconds * 1.2, HORIZON / 2))


Generator = Callable[[Plan], None]


def make_plan(seed: int, generators: list[Generator]) -> Plan:
    """Make a catalogue with holes and gaps, a site, and up to four kinds of faults."""
    chance = random.Random(seed)
    plan = Plan(chance)
    length = chance.choice([3, 20, 60, 120, 250, 400])
    plan.start = chance.choice([0, 1, 990, 5000])
    plan.stop = plan.start + length
    hole = chance.choice([0.0, 0.03, 0.09, 0.09, 0.3])
    plan.songs = {num for num in range(plan.start, plan.stop) if chance.random() >= hole}
    for _ in range(chance.choice([0, 0, 1, 2])):
        first = chance.randrange(plan.start, plan.stop)
        plan.songs -= set(range(first, first + chance.choice([8, 15, 40, 200])))
    plan.songs = plan.songs or {plan.start}  # without any song nothing can be believed
    plan.rate = chance.choice([5, 20, 100, 100, 1000, 0])
    plan.connections = chance.choice([1, 4, 16, 64])
    plan.latency = chance.choice([0.0, 0.01, 0.1, 0.1, 1.0])
    for generator in chance.sample(
        generators, min(len(generators), chance.choice([0, 1, 1, 2, 4]))
    ):
        plan.names.append(generator.__name__)
        generator(plan)
    plan.is_harsh = plan.is_harsh or len(plan.names) > 1
    return plan


class World:
    """Time, and what happens in it."""

    def __init__(self, plan: Plan) -> None:
        """Begin at noon."""
        self.plan, self.now = plan, START
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for moment, seconds in plan.stalls:
            self.after(moment, partial(self._stall, seconds))

    def _stall(self, seconds: float) -> None:
        """Let the machine sleep: nothing happens, and everything is late afterwards."""
        self.now += seconds

    def clock(self) -> float:
        """Monotonic seconds."""
        return self.now

    def time_of_day(self) -> datetime:
        """Return the time of day of a machine whose clock is right, but for the plan's jumps."""
        passed = self.now - START
        jumped = sum(seconds for moment, seconds in self.plan.wall_jumps if passed >= moment)
        return NOON + timedelta(seconds=passed + jumped)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action))

    def step(self, until: float = float("inf")) -> bool:
        """Let the next thing happen, if it is due before `until`."""
        if not self._events or self._events[0][0] > until:
            return False
        moment, _, action = heapq.heappop(self._events)
        self.now = max(self.now, moment)
        action()
        return True

    def sleep(self, seconds: float) -> None:
        """Sleep in a thread of ours, while everything else goes on."""
        end = self.now + seconds
        while self.step(end):
            pass
        self.now = max(self.now, end)

    def forget(self) -> None:
        """Everything that was under way comes to nothing."""
        self._events.clear()


class Pool(Executor):
    """An executor whose work is done a little later, in the world's time."""

    def __init__(self, world: World, most_seconds: float) -> None:
        """Each piece of work waits at most so long."""
        self._world, self._most = world, most_seconds

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it later."""
        future: Future[Any] = Future()

        def act() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:  # noqa: BLE001 - whoever waits for it is told
                future.set_exception(error)

        self._world.after(self._world.plan.chance.uniform(0.0, self._most), act)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave what is under way alone."""


class MemoryStore:
    """A store in memory that fails as the plan says; compare-and-swap as the contract wants it."""

    location, parallel_writes = "memory", 1

    def __init__(self, world: World) -> None:
        """Begin empty."""
        self._world, self.clock = world, world.clock
        self.objects: dict[str, tuple[bytes, Token]] = {}
        self._tokens = count(1)

    def check(self, timeout: float) -> None:
        """Prove that an object can be replaced."""
        self._fail("replace", "", timeout)

    def list_blocks(
        self, start: int = 0, stop: int | None = None, *, timeout: float
    ) -> Iterator[BlockInfo]:
        """Yield the counts of the blocks of a range."""
        self._fail("list", "", timeout)
        for name, (data, token) in sorted(self.objects.items()):
            first = parse_block_name(name)
            if first is not None and overlaps(first, start, stop):
                info = read_block_info(data[:HEAD_BYTES], name)
                info.token = token
                yield info

    def read(self, name: str, *, timeout: float) -> Stored | None:
        """Read an object."""
        failing = self._fail("read", name, timeout)
        found = self.objects.get(name)
        if found is not None and failing == "cut":
            return Stored(found[0][: len(found[0]) // 2], found[1])
        return None if found is None else Stored(*found)

    def write(
        self, name: str, content: Content, *, expected: Token | None, timeout: float
    ) -> Token:
        """Write an object if it is what was expected."""
        failing = self._fail("write", name, timeout)
        if name in self.objects:
            self._fail("replace", name, timeout)
        if failing == "conflict" and name in self.objects:
            self.objects[name] = self.objects[name][0], Token(str(next(self._tokens)))
        there = self.objects[name][1] if name in self.objects else ABSENT
        if expected is not None and expected != there:
            raise StoreConflictError(f"{name} is another")
        token = Token(str(next(self._tokens)))
        self.objects[name] = content.data, token
        if failing == "after":
            raise StoreUnavailableError(f"the answer for {name} was lost")
        return token

    def list_names(self, prefix: str, *, timeout: float) -> list[str]:
        """List names."""
        return sorted(name for name in self.objects if name.startswith(prefix))

    def delete(self, name: str, *, timeout: float) -> None:
        """Delete an object."""
        self.objects.pop(name, None)

    def _fail(self, operation: str, name: str, timeout: float) -> str | None:
        """Let happen what the plan says; return what is left to be done by the caller."""
        for fault in self._world.plan.store_faults:
            what = fault(operation, name, self._world.now - START)
            if what is not None and what[0].isdigit():
                self._world.sleep(min(float(what), timeout))
                what = "before" if float(what) > timeout else None
            if what == "before":
                raise StoreUnavailableError(f"{operation} of {name} failed")
            if what is not None:
                return what
        return None

    def pause_left(self) -> float:
        """Return for how many seconds a pause stands: nobody begins a run inside it."""
        if NAME not in self.objects:
            return 0.0
        order = decode_control(self.objects[NAME][0])
        return pause_left(order, now=self._world.time_of_day()).total_seconds()

    def records(self) -> dict[int, Record]:
        """Read everything that is stored; raise AssertionError where counts or places are wrong."""
        records: dict[int, Record] = {}
        for name, (data, _) in sorted(self.objects.items()):
            first = parse_block_name(name)
            if first is None:
                continue
            block, info = decode_block(data, name), read_block_info(data[:HEAD_BYTES], name)
            assert all(first <= num < first + BLOCK for num in block), f"{name} holds another's"
            outcomes = Counter(record.outcome for record in block.values())
            told = {"found": info.found, "missing": info.missing, "failed": info.failed}
            assert Counter(told) == outcomes, f"{name} holds {outcomes} and counts {told}"
            records |= block
        return records


class Session:
    """What step 1 gets in a simulated lane: one answer of the site, as often as it asks."""

    was_held_back = False

    def __init__(self, num: int, served: Served, headers: dict[str, str]) -> None:
        """Prepare to answer."""
        self.returned: list[WireAnswer] = []
        self._num, self._served = num, served
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        self._head = [
            b"HTTP/1.1 200 OK\r\n",
            *(line.encode("latin-1", "replace") for line in lines),
        ]

    @property
    def answers(self) -> list[WireAnswer]:
        """What its requests came to."""
        return self.returned

    def get(self, path: str) -> "Session":
        """Ask; raise what requests raises where no answer comes."""
        served, is_denied = self._served, self._served.error == "missing"
        answer = WireAnswer(404 if is_denied else served.status, self._head)
        answer.text = b"".join(self._head).lower()
        answer.request = SimpleNamespace(url=f"http://songs.example{path}", headers={})
        self.returned = [answer]
        if served.error not in (None, "missing", *PAGE_ERRORS):
            answer.fail(served.error, "simulated")
            raise PageError(served.error)
        return self

    def json(self) -> Any:
        """Return the song, or what the site says instead."""
        served = self._served
        if served.error in PAGE_ERRORS or served.status == 204:
            return json.loads("" if served.status == 204 else "<html>")
        return {"n": self._num} if served.status == 200 else {"error": served.status}

    def end(self) -> None:
        """The call is over."""


class Site:
    """The site and the network before it.

    Attributes:
        served: Songs that were ever answered with.
        log: All that it answered, in the order of asking.
    """

    def __init__(self, world: World) -> None:
        """Begin with a site that was never asked."""
        self._world = world
        self._asked = Counter[int]()
        self.served: set[int] = set()
        self.log: list[Answered] = []

    def ask(self, attempt: PendingNumber, run: int) -> tuple[Reply, float, Served]:
        """Return the reply to an attempt, after how many seconds it comes, and what it was."""
        plan, num = self._world.plan, attempt.song_num
        there = plan.chance.uniform(0.0, plan.latency / 2)
        back = plan.chance.uniform(0.0, plan.latency / 2)
        at = self._world.now + there - START
        request = Request(num, at, self._asked[num], attempt.is_canary, run, plan.round)
        self._asked[num] += 1
        served = self._served(request)
        headers: dict[str, str] = {}
        for headers_of in plan.site_headers:
            headers |= headers_of(request)
        headers |= served.headers or {}
        is_song = served.status == 200 and served.error is None
        if plan.function is not None:
            session = Session(num, served, headers)
            told = call_step1(attempt, session)  # type: ignore[arg-type]
            assert told is not None
            if session.returned:
                self._note(attempt, at, run, served, is_song=is_song)
            return told, there + served.seconds + back, served if session.returned else Served()
        is_plain = is_song and not (headers or attempt.is_canary)
        reply = Reply(
            attempt,
            found=is_song,
            info={"n": num} if is_song else None,
            status=served.status,
            error=served.error,
            headers=None if is_plain else headers,
            is_reused=served.is_reused,
        )
        self._note(attempt, at, run, served, is_song=is_song)
        return reply, there + served.seconds + back, served

    def _note(
        self, attempt: PendingNumber, at: float, run: int, served: Served, *, is_song: bool
    ) -> None:
        num = attempt.song_num
        if is_song:
            self.served.add(num)
        self.log.append(Answered(at, num, run, attempt.is_canary, _kind(served, is_song=is_song)))

    def _served(self, request: Request) -> Served:
        cache, faults = self._world.plan.cache, self._world.plan.site_faults
        if cache is not None and (kept := cache.find(request)) is not None:
            return kept
        served = next((s for fault in faults if (s := fault(request))), None)
        served = served or self._well(request.num)
        if cache is not None:
            cache.keep(request, served)
        return served

    def _well(self, num: int) -> Served:
        """Answer as the site does while it is well."""
        plan = self._world.plan
        if num in plan.dead:
            return Served(500)
        if num in plan.moved:
            return Served(301, headers={"location": f"/songs/{plan.moved[num]}"})
        return Served(200 if num in plan.songs - plan.gone else 404)

    def count(self, *kinds: str) -> int:
        """Count the answers of some kinds."""
        return sum(answered.kind in kinds for answered in self.log)

    def excused(self) -> set[int]:
        """Return the songs that were denied in spells of fewer than ten answers, as the site gave them.

        What a run is told comes in another order; that excuses nothing. And those that were denied
        to a run which met songs in a cache and no fresh one yet: a catalogue that a cache knows whole
        looks like that.
        """
        excused, spells = set[int](), dict[int, list[Answered]]()
        fresh = set[int]()
        cached = {each.run for each in self.log if each.kind == "cached"}
        for answered in sorted(self.log):
            if answered.kind == "song":
                fresh.add(answered.run)
            elif answered.kind == "lie" and answered.run in cached - fresh:
                excused.add(answered.num)
            if answered.kind not in ("song", "lie", "none"):
                continue
            spell = spells.setdefault(answered.run, [])
            if answered.kind == "song":
                excused |= _lies_of(spell)
                spell.clear()
            else:
                spell.append(answered)
        return excused.union(*map(_lies_of, spells.values()))


def _kind(served: Served, *, is_song: bool) -> str:
    is_denial = served.error == "missing" or served.status in (404, 410, 451)
    if is_song and "age" in (served.headers or {}):
        return "cached"
    if is_song or is_denial:
        return "song" if is_song else "lie" if served.is_lie else "none"
    return served.error or str(served.status)


def _lies_of(spell: list[Answered]) -> set[int]:
    lies = [answered.num for answered in spell if answered.kind == "lie"]
    return set(lies) if len(lies) < SPELL else set()


class SimulatedRun:
    """One run: the real parts, and lanes that live in the world's time.

    Attributes:
        frontier: Of the run.
        starts: When each request was sent.
        pauses: The how manieth start came next when a pause was read, when, and its end.
        most_flying: Most requests under way at once.
        canaries: How many of the requests were canaries.
        is_over: Whether it has ended, or was killed.
    """

    def __init__(self, world: World, store: MemoryStore, site: Site, number: int) -> None:
        """Plan the crawl over what the store holds."""
        plan = world.plan
        self._world, self._site, self._number = world, site, number
        self.starts: list[float] = []
        self.pauses: list[tuple[int, float, float]] = []
        self.is_over = self.is_killed = self.is_dead = self._is_publishing = False
        self._arrived: list[tuple[Reply, Served]] = []
        self._flying = self.most_flying = self.canaries = 0
        self._wakes_at = world.now
        offset = timedelta(seconds=plan.clocks[number % len(plan.clocks)])
        self._wall = lambda: world.time_of_day() + offset
        view: Any = _StoreOf(self, store)
        start, stop = plan.part(number)
        request = CrawlRequest(mode="next")
        if plan.mode == "range":
            request = CrawlRequest(start=start, stop=stop)
        order = read_control(view, timeout=STORE_SECONDS)
        index = StoreIndex(view, "sim", request.start, request.stop)
        self.writer = Writer(
            index.save,
            on_stored=index.note_stored,
            on_trouble=lambda reason: self.frontier.stop("store", reason),
            clock=world.clock,
            sleep=world.sleep,
            pool=Pool(world, 0.2),
        )
        settings: Any = SimpleNamespace(first_song=plan.start, last_song=plan.stop - 1)
        self.scope = Scope(
            request,
            settings,
            index.listing,
            now=self._wall(),
            read=index.read,
            on_block=self.writer.expect,
            met=index.met,
            relist=index.relist,
            pool=Pool(world, 0.2),
        )
        canaries: list[int] = []
        self.frontier = Frontier(
            Policy(),
            rate_limiter=RateLimiter(plan.rate),
            deadline=None if plan.budget is None else world.now + plan.budget,
            known=KnownSongs(
                nearest=index.songs_near, published=canaries, spread=self.scope.numbers
            ),
            on_record=self._book,
            on_pause=self._pass_on_pause,
            on_first_found=self._pass_on_song,
            has_room=self.writer.has_room,
            clock=world.clock,
            wall=self._wall,
            uniform=plan.chance.uniform,
        )
        self._watcher = ControlWatcher(
            self.frontier,
            view,
            seen_stop_id=order.stop_id,
            canaries=canaries,
            clock=world.clock,
            wall=self._wall,
        )
        self._watcher.keep_pause(order)
        self._watcher.keep_canary(order)
        source = SOURCE if plan.function is None else None
        function = plan.function or (lambda *_: None)
        self.frontier.add_job(Job(function, self.scope.supply, [], source, is_recorded=True))
        self._turn_at(world.now)
        world.after(0.2, self._keep_house)
        world.after(CONTROL_SECONDS, self._watch)

    def _book(self, record: Record) -> None:
        self.scope.note(record)
        self.writer.add(record)

    def _pass_on_pause(self, seconds: float) -> None:
        self._watcher.publish_pause(seconds)
        self._world.after(0.1, self._publish)

    def _pass_on_song(self, song_num: int) -> None:
        self._watcher.publish_canary(song_num)
        self._world.after(0.1, self._publish)

    def _watch(self) -> None:
        """Look at what other runs and people say, as the thread beside a run does."""
        self._publish()
        if not self.is_over:
            self._watcher.obey()
            self._world.after(CONTROL_SECONDS, self._watch)

    def _publish(self) -> None:
        """Tell others; one thread does it, so while that is under way again when it is done."""
        if self._is_publishing:
            self._world.after(0.1, self._publish)
        elif not self.is_over:
            self._is_publishing = True
            self._watcher.pass_on()
            self._is_publishing = False

    def kill(self) -> None:
        """End at once; what was on its way to the store may still land, or not."""
        self.is_killed = self.is_over = True
        self.is_dead = self._world.plan.chance.random() < 0.5

    def _turn_at(self, moment: float) -> None:
        self._wakes_at = moment
        self._world.after(moment - self._world.now, lambda: self._turn(moment))

    def _turn(self, moment: float) -> None:
        """Do what a lane does when it wakes: hand back what came, take what is due."""
        if self.is_over or moment != self._wakes_at:
            return
        arrived, self._arrived = self._arrived, []
        for _, served in arrived:
            if seconds := served.pause_seconds():
                now = self._world.now
                self.pauses.append((len(self.starts), now, now + seconds))
        if arrived:
            self.frontier.hand_back([reply for reply, _ in arrived])
        free = self._world.plan.connections - self._flying
        attempts, wait = self.frontier.take(free) if free else ([], 0.5)
        for attempt in attempts:
            self._send(attempt)
        if wait is None and not self._flying and not self._arrived:
            self._close()
        elif attempts and self._flying < self._world.plan.connections:
            self._turn_at(self._world.now + 1e-6)
        else:
            self._turn_at(self._world.now + (0.5 if wait is None else max(wait, 1e-6)))

    def _send(self, attempt: PendingNumber) -> None:
        self.starts.append(self._world.now)
        self._flying += 1
        self.canaries += attempt.is_canary
        self.most_flying = max(self.most_flying, self._flying)
        reply, seconds, served = self._site.ask(attempt, self._number)
        if seconds > 15.0:
            reply, seconds, served = Reply(attempt, error="timeout"), 15.0, Served()

        def land() -> None:
            self._flying -= 1
            self._arrived.append((reply, served))
            if not self.is_over and self._wakes_at > self._world.now:
                self._turn_at(self._world.now)

        self._world.after(seconds, land)

    def _keep_house(self) -> None:
        if not self.is_over:
            self.writer.tick()
            self._world.after(5.0, self._keep_house)

    def _close(self) -> None:
        """Write what is left, in the world's time."""
        self.is_over = True
        self.writer.flush()
        end = self._world.now + 40.0
        while self.writer._pending and self._world.step(end):  # noqa: SLF001 - in the world's time
            pass
        self.writer.close(0.01)
        self.scope.close()


class _StoreOf:
    """The store as one run sees it: whoever was killed reads and writes no more."""

    location, parallel_writes = "memory", 1

    def __init__(self, run: SimulatedRun, store: MemoryStore) -> None:
        self._run, self._store = run, store

    def __getattr__(self, name: str) -> Any:
        if self._run.is_dead:
            raise StoreUnavailableError("this process was killed")
        return getattr(self._store, name)


@dataclass
class Outcome:
    """What one seed came to: rounds until all was settled, requests, and when that was, seconds."""

    rounds: int
    requests: int
    seconds: float
    stops: list[str | None]


def simulate(seed: int, generators: list[Generator] | None = None) -> Outcome:
    """Crawl until everything is settled, and check the promises on the way.

    Raises:
        AssertionError: A promise was broken; the message says which.
    """
    generators = all_generators() if generators is None else generators
    random.seed(seed)
    plan = make_plan(seed, generators)
    world = World(plan)
    store, site = MemoryStore(world), Site(world)
    runs: list[SimulatedRun] = []
    wanted = set(range(plan.start, plan.stop)) - plan.dead
    first_song = min(plan.songs - plan.dead - set(plan.moved), default=plan.start + MOST_HELD)
    looks_dead = len(wanted) < (plan.stop - plan.start) / 10  # clusters upon clusters
    if looks_dead or first_song - plan.start >= MOST_HELD:
        wanted = set()  # without any song nothing can be believed
    known: dict[int, Record] = {}
    for moment in plan.stop_orders:
        world.after(moment, partial(_order_stop, world, store))
    for rounds in range(1, MAX_ROUNDS + 1):
        plan.round, began = rounds, world.now
        at_once = [
            run
            for number in range(plan.runs if rounds == 1 else 1)
            if (run := _begin(world, store, site, len(runs) + number)) is not None
        ]
        runs += at_once
        kills = sorted(plan.kills) if rounds == 1 else []
        while not all(run.is_over for run in at_once):
            if kills and world.now - START >= kills[0]:
                plan.chance.choice(at_once).kill()
                kills.pop(0)
            assert world.step(), "the run came to a standstill"
            assert world.now < began + 100_000, "the run does not end"
        world.forget()
        if rounds == MAX_ROUNDS // 2:
            plan.budget = None
        before, known = known, store.records()
        _check(plan, site, runs, known)
        _check_round(plan, at_once, before, known)
        if rounds == 1 and len(plan.names) == 1:
            for check in plan.checks:
                check(site, at_once)
        settled = {n for n, record in known.items() if record.outcome != "failed"}
        stops = [run.frontier.stopped_by for run in runs]
        assert plan.is_harsh or wanted <= settled, (
            f"left by the first run: {sorted(wanted - settled)[:9]}"
        )
        if _is_without_canary(plan, known):
            wanted = set()
        if wanted <= settled:
            if len(plan.names) == 1:
                for check in plan.last_checks:
                    check(site, runs)
            requests = sum(len(run.starts) for run in runs)
            return Outcome(rounds, requests, world.now - START, stops)
        world.now += max(plan.rest, store.pause_left())
    left = sorted(wanted - settled)
    raise AssertionError(f"not settled after {MAX_ROUNDS} rounds: {left[:9]}, {stops}")


def _is_without_canary(plan: Plan, known: dict[int, Record]) -> bool:
    """Whether all songs were deleted, or all that a listing names: then nobody can be believed."""
    last = {num // BLOCK: num for num in sorted(known) if known[num].outcome == "found"}
    return not plan.songs - plan.dead - plan.gone or (
        bool(last) and plan.gone >= set(last.values())
    )


def _begin(world: World, store: MemoryStore, site: Site, number: int) -> SimulatedRun | None:
    """Begin a run; None where the store cannot be listed, so that nothing is asked."""
    try:
        store.check(STORE_SECONDS)
        return SimulatedRun(world, store, site, number)
    except StoreError:
        return None


def _order_stop(world: World, store: MemoryStore) -> None:
    with contextlib.suppress(StoreError):
        order_stop(store, now=world.time_of_day(), by="somebody")


def _check(plan: Plan, site: Site, runs: list[SimulatedRun], records: dict[int, Record]) -> None:
    """Check what must hold after every round."""
    excused = site.excused()
    for num, record in records.items():
        assert plan.start <= num < plan.stop, f"{num} was never to be asked"
        if record.outcome == "found":
            assert num in site.served, f"{num} is stored and was never served"
            assert record.info == {"n": num}, f"{num} is stored as {record.info}"
        if record.outcome == "missing":
            is_gone = num not in plan.songs or num in plan.gone or num in plan.moved
            is_true = is_gone or num in excused
            assert is_true, f"{num} is there, and believed missing"
    for run in runs:
        assert run.most_flying <= plan.connections, f"{run.most_flying} requests at once"
        for following, begin, end in run.pauses:
            inside = [at for at in run.starts[following:] if at < end - 1e-6]
            assert not inside, f"a request at {inside[0]:.3f} in the pause {begin:.3f} to {end:.3f}"
        if plan.rate:
            most = most_in_a_second(run.starts)
            assert most <= max(plan.rate * 1.05, plan.rate + 1), (
                f"{most} in a second at {plan.rate}"
            )


def _check_round(
    plan: Plan, runs: list[SimulatedRun], before: dict[int, Record], after: dict[int, Record]
) -> None:
    """Check that a round took nothing away, and that its runs tell no more than is stored."""
    for num, record in before.items():
        assert num in after, f"{num} was stored, and is no more"
        if record.outcome == "found" or after[num].outcome == "failed":
            assert after[num].outcome == record.outcome, (
                f"{num} was {record.outcome}, and is {after[num].outcome}"
            )
    if len(runs) != 1 or runs[0].is_killed or plan.mode == "next":
        return  # in mode next the numbers after the last song are told anew each time
    frontier, lost = runs[0].frontier, runs[0].writer.lost
    told = {
        outcome: getattr(frontier.tally, outcome) - lost[outcome]
        for outcome in ("found", "missing")
    }
    for outcome, told_count in told.items():
        new = sum(
            record.outcome == outcome and (num not in before or before[num].outcome != outcome)
            for num, record in after.items()
        )
        assert told_count <= new, f"{told_count} are told to be {outcome}, {new} are stored"
    if frontier.stopped_by == "done" and not lost.total() and not runs[0].scope._fill.unreadable:  # noqa: SLF001 - no counter tells
        left = set(range(runs[0].scope.start, runs[0].scope.stop)) - set(after)
        assert not left, f"done, though there is no record of {sorted(left)[:9]}"


def all_generators() -> list[Generator]:
    """Return all that there are."""
    from tests.simulated_answers import ANSWERS
    from tests.simulated_faults import GENERATORS
    from tests.simulated_limits import LIMITS

    return [*GENERATORS, *ANSWERS, *LIMITS]


def describe(seed: int) -> str:
    """Return what a seed makes of the world, in a line."""
    random.seed(seed)
    plan = make_plan(seed, all_generators())
    return (
        f"numbers {plan.start} to {plan.stop - 1}, {len(plan.songs)} songs, {plan.rate}/s, "
        f"{plan.connections} connections, latency {plan.latency}: {', '.join(plan.names) or 'well'}"
    )


def failure_of(seed: int) -> str | None:
    """Simulate one seed; return what to run and what broke, None where all is well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        simulate(seed)
    except Exception as error:  # noqa: BLE001 - anything that breaks is what is looked for
        return (
            f"python -m tests.simulate {seed}\n    {describe(seed)}\n"
            f"    {type(error).__name__}: {error}"
        )
    finally:
        logging.disable(before)  # what other tests of the process log is theirs
    return None


def main(arguments: list[str]) -> int:
    """Simulate one seed, or all from one to another; print those that fail."""
    first = int(arguments[0])
    if len(arguments) == 1:
        print(describe(first))
        print(simulate(first))
        return 0
    began, failures = time.monotonic(), 0
    seeds = range(first, int(arguments[1]))
    with multiprocessing.Pool() as pool:
        for failure in pool.imap_unordered(failure_of, seeds, chunksize=50):
            if failure:
                failures += 1
                print(failure, flush=True)
    print(f"{len(seeds)} seeds, {failures} failed, {time.monotonic() - began:.0f} s")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
