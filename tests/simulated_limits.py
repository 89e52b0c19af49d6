"""Faults of pace and of the store for crawls in simulated time: rows D and E of the list.

Generators as in `tests.simulated_answers`.
"""

from datetime import timedelta
from email.utils import format_datetime
from typing import Any

from crawler.frontier.canaries import SPREAD
from crawler.run.monitor import SAME_PAUSE_SECONDS
from tests.simulate import (
    HORIZON,
    MAX_ROUNDS,
    START,
    Generator,
    Plan,
    Request,
    Served,
    SimulatedRun,
    Site,
)
from tests.simulation import NOON

NONSENSE = ["abc", "-1", "1.5", "1e3", "１", "", "1, 1", "9" * 30, "x" * 10_000, "Sun, 99 Nov 2026"]


def _retry_after(way: str, seconds: int, site_clock: float) -> dict[str, str]:
    """Write `Retry-After` in one of its ways, by a site whose clock is off."""
    if way == "seconds":
        return {"retry-after": str(seconds)}
    now = NOON + timedelta(seconds=site_clock)
    until = now + timedelta(seconds=seconds)
    forms = {
        "fixdate": format_datetime(until, usegmt=True),
        "rfc850": until.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        "asctime": until.strftime("%a %b %e %H:%M:%S %Y"),
    }
    return {"retry-after": forms[way], "date": format_datetime(now, usegmt=True)}


def pauses_in_every_way(plan: Plan) -> None:
    """D1, D2: pauses in seconds and in all forms of a date, by a site with a clock of its own."""
    way = plan.chance.choice(["seconds", "fixdate", "rfc850", "asctime"])
    status = plan.chance.choice([429, 503, 403])
    seconds = plan.chance.choice([0, 1, 2, 7, 60, -5 if way != "seconds" else 3])
    off = plan.chance.choice([0.0, 0.0, 7200.0, -86400.0])
    begin = plan.moment()
    end = begin + plan.chance.choice([0.05, 1.0, 5.0])
    plan.is_harsh = seconds <= 0 or status == 503

    def answer(request: Request) -> Served | None:
        if not begin <= request.at < end:
            return None
        # a date has whole seconds: what is cut from the clock is cut from the date, too
        headers = _retry_after(way, seconds, int(request.at) + off)
        return Served(status, headers=headers, pause=max(0.0, float(seconds)))

    plan.site_faults.append(answer)


def nonsense_pauses(plan: Plan) -> None:
    """D3: 429s and 503s whose `Retry-After` nobody can read."""
    status, begin = plan.chance.choice([429, 503]), plan.moment()
    end, plan.is_harsh = begin + plan.chance.choice([0.1, 2.0, 20.0]), True
    texts = plan.chance.sample(NONSENSE, 3)

    def answer(request: Request) -> Served | None:
        headers = {"retry-after": texts[request.num % 3]}
        return Served(status, headers=headers, pause=0.0) if begin <= request.at < end else None

    plan.site_faults.append(answer)


def a_day_of_pause(plan: Plan) -> None:
    """D4: come back tomorrow; the run ends at once, and says what is left."""
    begin, plan.is_harsh = plan.moment(), True
    way = plan.chance.choice(["seconds", "fixdate"])

    def answer(request: Request) -> Served | None:
        if request.round > 1 or request.at < begin:
            return None
        headers = _retry_after(way, 86_400, int(request.at))
        return Served(429, headers=headers, pause=86_400.0)

    plan.site_faults.append(answer)

    def check(site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            stop = run.frontier.stopped_by
            assert stop == ("paused" if site.count("429") else "done"), f"the run ended {stop}"

    if plan.latency < 1.0:
        plan.checks.append(check)


def quota_of_sixty(plan: Plan) -> None:
    """D3b: sixty a minute, said in every answer or in none, under a pace of a hundred a second."""
    way = plan.chance.choice(["reset", "epoch", "ietf", "policy", "silent"])
    plan.stop = min(plan.stop, plan.start + 120)
    plan.songs &= set(range(plan.start, plan.stop))
    plan.songs = plan.songs or {plan.start}
    plan.rate, plan.connections, plan.latency = 100.0, min(plan.connections, 16), 0.1
    plan.is_harsh, used = True, dict[int, int]()

    def answer(request: Request) -> Served | None:
        window = int(request.at // 60.0)
        used[window] = used.get(window, 0) + 1
        return Served(429) if used[window] > 60 and request.round < 3 else None

    def headers(request: Request) -> dict[str, str]:
        window = int(request.at // 60.0)
        left, reset = max(0, 60 - used.get(window, 0)), int((window + 1) * 60.0 - request.at) + 1
        at = NOON + timedelta(seconds=int(request.at))
        date = {"date": format_datetime(at, usegmt=True)}
        names = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": str(left)}
        if way == "silent" or request.round >= 3:
            return {}
        if way == "reset":
            return date | names | {"x-ratelimit-reset": str(reset)}
        if way == "epoch":
            until = int(NOON.timestamp() + (window + 1) * 60.0)
            return date | names | {"x-ratelimit-reset": str(until)}
        told = {"ratelimit": f'"q";r={left};t={reset}'}
        return told | ({"ratelimit-policy": '"q";q=60;w=60'} if way == "policy" else {})

    plan.site_faults.append(answer)
    plan.site_headers.append(headers)

    def check(site: Site, _runs: list[SimulatedRun]) -> None:
        count = site.count("429")
        last = max(answered.at for answered in site.log)
        most = 3 if way != "silent" else 2 * plan.connections + 6 * (1 + int(last // 60.0))
        assert count <= most, f"{count} answers of 429, {way}"

    plan.checks.append(check)


def one_lone_429(plan: Plan) -> None:
    """D7b: one number always answers 429; it costs itself alone, and the others at most 10 s."""
    num = plan.chance.randrange(plan.start, plan.stop)
    plan.dead.add(num)
    plan.songs.discard(num)
    plan.songs = plan.songs or ({plan.start, plan.start + 1} - {num})
    plan.site_faults.append(lambda request: Served(429) if request.num == num else None)

    def check(site: Site, runs: list[SimulatedRun]) -> None:
        count = site.count("429")
        assert count <= 8, f"{count} answers of 429"
        assert runs[0].frontier.stopped_by == "done", f"ended {runs[0].frontier.stopped_by}"

    if num < plan.stop - 60 and len(plan.songs) > 0.7 * (plan.stop - plan.start):
        plan.checks.append(check)


def overloaded_for_the_round(plan: Plan) -> None:
    """D5: 429 for everything, for the whole round."""
    plan.is_harsh = True
    plan.site_faults.append(lambda request: Served(429) if request.round == 1 else None)

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        most = 100 + plan.connections + 60
        for run in runs:
            assert len(run.starts) <= most, f"{len(run.starts)} requests, {most} allowed"
            assert run.frontier.stopped_by in ("circuit", "paused"), run.frontier.stopped_by

    plan.checks.append(check)


def half_fails(plan: Plan) -> None:
    """D6: half of all answers, or one in five, are 500, for a while or for the whole round."""
    share, seconds = plan.chance.choice([0.2, 0.5]), plan.chance.choice([5.0, 60.0, HORIZON])
    begin, plan.is_harsh = plan.moment(), True

    def answer(request: Request) -> Served | None:
        is_bad = begin <= request.at < begin + seconds and plan.chance.random() < share
        return Served(plan.chance.choice([500, 502, 522])) if is_bad else None

    plan.site_faults.append(answer)


def five_seconds(plan: Plan) -> None:
    """D6: five seconds of 500; nothing is lost, and the pace comes back within ten seconds."""
    begin = plan.moment()
    plan.site_faults.append(
        lambda request: Served(500) if begin <= request.at < begin + 5.0 else None
    )

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        last = runs[0].starts[-1] - runs[0].starts[0]
        most = plan.seconds * 1.3 + 5.0 + 45.0 + plan.latency * 20
        assert last <= most, f"{last:.0f} s for what takes {plan.seconds:.0f} s"

    plan.checks.append(check)


def clock_jumps(plan: Plan) -> None:
    """D7: the time of day jumps by an hour or by years, the machine sleeps."""
    for _ in range(plan.chance.choice([1, 2])):
        jump = plan.chance.choice([3600.0, -3600.0, 5.0, 9e7, -9e7])
        plan.wall_jumps.append((plan.moment(), jump))
    if plan.chance.random() < 0.5:
        plan.stalls.append((plan.moment(), plan.chance.choice([0.3, 5.0, 3600.0])))


def pause_and_jump(plan: Plan) -> None:
    """D7, D2: the time of day jumps while a pause that was told as a date is under way."""
    plan.wall_jumps.append((plan.moment(), plan.chance.choice([3600.0, -3600.0])))
    pauses_in_every_way(plan)


# The store.


def store_away_for_ever(plan: Plan) -> None:
    """E3: writes fail from some moment on, for the whole round."""
    begin, plan.is_harsh = plan.moment(), True
    way = plan.chance.choice(["before", "after"])
    plan.store_faults.append(
        lambda operation, _name, now: (
            way if operation == "write" and plan.round == 1 and now >= begin else None
        )
    )


def lost_answers(plan: Plan) -> None:
    """E2: uploads land though the answer is an error, half of the time, in every round."""
    plan.is_harsh = True
    plan.store_faults.append(
        lambda operation, _name, _now: (
            "after" if operation == "write" and plan.chance.random() < 0.5 else None
        )
    )


def conflicts(plan: Plan) -> None:
    """E4: somebody else writes between our reading and our writing, nine times in ten."""
    share = plan.chance.choice([0.3, 0.9])
    plan.store_faults.append(
        lambda operation, _name, _now: (
            "conflict" if operation == "write" and plan.chance.random() < share else None
        )
    )


def broken_downloads(plan: Plan) -> None:
    """E14, E5: what is read is cut, or cannot be read, for two rounds."""
    share, way = plan.chance.choice([0.3, 1.0]), plan.chance.choice(["cut", "before"])
    plan.is_harsh, plan.runs = True, max(plan.runs, 2)  # a run alone reads nothing
    plan.store_faults.append(
        lambda operation, _name, _now: (
            way if operation == "read" and plan.round < 3 and plan.chance.random() < share else None
        )
    )


def slow_store(plan: Plan) -> None:
    """E3: reading and writing take their time, up to more than they have for half of the rounds."""
    most, plan.is_harsh = plan.chance.choice([0.5, 5.0, 50.0]), True

    def take_long(operation: str, _name: str, _now: float) -> str | None:
        if operation in ("list", "replace"):
            return None
        return str(
            plan.chance.uniform(0.0, most if plan.round <= MAX_ROUNDS // 2 else min(most, 5.0))
        )

    plan.store_faults.append(take_long)


def killed_at_any_step(plan: Plan) -> None:
    """F1, E2: kills while the store is slow, so that they come between reading and writing."""
    slow_store(plan)
    plan.kills += [plan.moment() for _ in range(plan.chance.choice([1, 4]))]
    plan.runs = plan.chance.choice([1, 2, 3])


def years_apart(plan: Plan) -> None:
    """E13, E4: two or three runs at once, whose clocks are years apart."""
    plan.runs = plan.chance.choice([2, 3])
    plan.clocks = [plan.chance.uniform(-1e8, 1e8) for _ in range(4)]


def dead_cluster_of_any_kind(plan: Plan) -> None:
    """E11b: 20 to 300 numbers in a row fail for ever, each in its way; the others are found at once."""
    first = plan.chance.randrange(plan.start, plan.stop)
    dead = range(first, min(first + plan.chance.choice([20, 101, 150, 300]), plan.stop))
    ways = [Served(500), Served(522), Served(200, error="encoding"), Served(error="connection")]
    ways = plan.chance.sample(ways, plan.chance.choice([1, 3]))
    nums = set(dead) if plan.songs - set(dead) else set(dead) - {plan.start}
    plan.songs = (plan.songs - nums) or {plan.start}
    plan.dead |= nums

    def answer(request: Request) -> Served | None:
        return ways[request.num % len(ways)] if request.num in nums else None

    plan.site_faults.append(answer)


def _dead(plan: Plan, nums: set[int]) -> None:
    """Let numbers fail for ever, each in one of some ways; check that they cost only themselves."""
    ways = [Served(500), Served(522), Served(200, error="encoding"), Served(error="connection")]
    ways = plan.chance.sample(ways, plan.chance.choice([1, 3]))
    plan.songs -= nums
    plan.dead |= nums
    plan.site_faults.append(
        lambda request: ways[request.num % len(ways)] if request.num in nums else None
    )

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            stop = run.frontier.stopped_by
            assert stop == "done", f"the run ended {stop}: {run.frontier.stop_detail}"
        failed = sum(run.frontier.tally.failed for run in runs)
        assert failed == len(nums), f"{failed} failed, {len(nums)} are dead"

    plan.checks.append(check)


def dead_cluster_at_every_pace(plan: Plan) -> None:
    """E11b: a cluster anywhere in a range, in mode next or in the shards of an order."""
    plan.stop = plan.start + plan.chance.choice([330, 450, 700])
    plan.songs = {num for num in range(plan.start, plan.stop) if plan.chance.random() > 0.03}
    plan.rate = plan.chance.choice([5, 20, 100, 1000])
    first = plan.chance.choice([plan.start, plan.chance.randrange(plan.start, plan.stop)])
    count = plan.chance.choice([20, 24, 35, 45, 90, 101, 150, 300])
    way = plan.chance.choice(["range", "next", "shards"])
    if way == "next":
        plan.mode = "next"
    elif way == "shards":
        plan.runs, plan.is_sharded = 3, True
    _dead(plan, set(range(first, min(first + count, plan.stop))))


def one_in_five_dead(plan: Plan) -> None:
    """E11b: one number in five fails for ever, everywhere."""
    _dead(plan, {num for num in range(plan.start, plan.stop) if num % 5 == 2})
    plan.songs = plan.songs or (set(range(plan.start, plan.stop)) - plan.dead)


def next_instead_of_a_range(plan: Plan) -> None:
    """E11: the same by mode next, as a schedule does."""
    plan.mode = "next" if plan.stop - plan.start <= 1000 else "range"


def a_pause_for_several(plan: Plan) -> None:
    """E12, D1, D3b: one of several runs is asked to pause, or told so; all pause within 10 s."""
    plan.runs, seconds = plan.chance.choice([2, 3]), plan.chance.choice([12, 30, 120])
    plan.rate, plan.is_sharded = plan.chance.choice([5, 10]), plan.chance.random() < 0.5
    plan.stop = plan.start + 30 * plan.rate * (plan.runs if plan.is_sharded else 1)
    plan.songs = {num for num in range(plan.start, plan.stop) if plan.chance.random() > 0.05}
    begin, way = plan.chance.uniform(0.0, 15.0), plan.chance.choice(["retry-after", "announced"])
    told: list[float] = []

    def answer(request: Request) -> Served | None:
        if request.run or request.round > 1 or not begin <= request.at < begin + 1.0:
            return None
        told.append(request.at)
        if way == "retry-after" or {"quota", "quota_of_sixty"} & set(plan.names):
            return Served(429, headers={"retry-after": str(seconds)})  # one site says one thing
        headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(seconds)}
        status = 200 if request.num in plan.songs - plan.gone else 404
        return Served(status, headers=headers, pause=float(seconds))

    plan.site_faults.append(answer)

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            begin = (min(told) if told else -1e9) + START
            end = begin + seconds - SAME_PAUSE_SECONDS  # a little longer one is not told again
            inside = [at for at in run.starts if begin + plan.latency + 10.0 <= at < end]
            assert not inside, f"a request at {inside[0]:.3f} in the pause of another run"

    plan.checks.append(check)


def a_stop_order(plan: Plan) -> None:
    """E12: somebody stops all runs on the store; those that begin later are not meant."""
    plan.runs, plan.is_harsh = plan.chance.choice([1, 2, 3]), True
    moment = plan.moment()
    plan.stop_orders.append(moment)

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            late = [at for at in run.starts if at > START + moment + 10.0]
            assert not late, f"a request {late[-1] - START - moment:.1f} s after the stop order"
            assert run.frontier.stopped_by in ("stop_order", "done"), run.frontier.stopped_by

    plan.checks.append(check)


def store_without_replacing(plan: Plan) -> None:
    """E10b: blocks can be made and not replaced, for a round; nothing is asked meanwhile."""
    plan.is_harsh = True
    plan.store_faults.append(
        lambda operation, _name, _now: (
            "before" if operation == "replace" and plan.round == 1 else None
        )
    )

    def check(site: Site, _runs: list[SimulatedRun]) -> None:
        assert not site.log, f"{len(site.log)} requests for what cannot be kept"

    plan.checks.append(check)


# Step 1.


def careless(session: Any, num: int, results: list[Any]) -> None:
    """Append whatever came."""
    results.append((num, session.get(f"/songs/{num}").json()))


def careless_function(plan: Plan) -> None:
    """F5c: step 1 appends the body of every answer; some answers are errors, in the first round."""
    plan.function, plan.is_harsh = careless, True
    share, begin = plan.chance.choice([0.05, 0.3, 1.0]), plan.moment()
    end = begin + plan.chance.choice([0.5, 3.0, 30.0])
    served = plan.chance.choice(
        [
            *(Served(status) for status in (401, 403, 429, 500, 503, 522, 400)),
            Served(429, headers={"retry-after": "2"}),
            Served(403, headers={"retry-after": "2"}),
            Served(403, headers={"cf-mitigated": "challenge"}),
        ]
    )

    def answer(request: Request) -> Served | None:
        is_bad = request.round == 1 and begin <= request.at < end
        return served if is_bad and plan.chance.random() < share else None

    plan.site_faults.append(answer)


def mistaken_function(plan: Plan) -> None:
    """F5d: step 1 is wrong for every number, until somebody mends it after the first round."""
    way = plan.chance.choice(["name", "name after asking", "no tuple", "another number"])
    plan.is_harsh = True

    def wrong(session: Any, num: int, results: list[Any]) -> None:
        if plan.round > 1:
            careless(session, num, results)
            return
        if way != "name":
            session.get(f"/songs/{num}")
        if way.startswith("name"):
            raise NameError("name 'sesion' is not defined")
        results.append(num if way == "no tuple" else (num + 1, {}))

    plan.function = wrong

    def check(site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            missing = sum(each.kind == "none" and not each.is_canary for each in site.log)
            calls = len(run.starts) - run.canaries - missing
            assert calls <= 10, f"{calls} calls of a step 1 that is wrong"
            assert run.canaries <= SPREAD, f"{run.canaries} canaries for a step 1 that is wrong"
            stop = run.frontier.stopped_by
            assert stop == "circuit" or len(run.starts) < 5, f"the run ended {stop}"

    if len(plan.songs) > 0.5 * (plan.stop - plan.start) and plan.stop - plan.start >= 20:
        plan.checks.append(check)


LIMITS: list[Generator] = [
    pauses_in_every_way,
    nonsense_pauses,
    a_day_of_pause,
    quota_of_sixty,
    one_lone_429,
    overloaded_for_the_round,
    half_fails,
    five_seconds,
    clock_jumps,
    pause_and_jump,
    store_away_for_ever,
    lost_answers,
    conflicts,
    broken_downloads,
    slow_store,
    killed_at_any_step,
    years_apart,
    dead_cluster_of_any_kind,
    dead_cluster_at_every_pace,
    one_in_five_dead,
    next_instead_of_a_range,
    a_pause_for_several,
    a_stop_order,
    store_without_replacing,
    careless_function,
    mistaken_function,
]
