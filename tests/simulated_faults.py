"""Faults for whole crawls in simulated time, each by itself; `tests.simulate` mixes them.

A generator takes a `Plan` and changes it by the plan's own chance: it adds an answer of the site
(`site_faults`) or a failure of the store (`store_faults`), kills runs, begins several at once, or
sets clocks apart. Times count from the begin of the first crawl, and faults end before `HORIZON`,
so that the repeats come to an end. One run is to settle everything, unless several generators had
a hand in it, or one says that it need not: `plan.is_harsh`. What a generator makes impossible (a page that is dead for
good) it must say: `plan.dead`.
"""

from datetime import timedelta
from email.utils import format_datetime

from tests.simulate import HORIZON, Generator, Plan, Request, Served
from tests.simulation import NOON


def spell_of_404s(plan: Plan) -> None:
    """C9: the site denies everything for a while, once or, without a cache, again and again."""
    spells = []
    for _ in range(plan.chance.choice([1, 1, 2, 3])):
        begin = plan.moment()
        # Before any song is known a site that lies has nothing to be found lying by.
        plan.is_harsh |= begin < 0.3 * plan.seconds + plan.latency
        plan.is_harsh |= len(plan.songs) < 0.5 * (plan.stop - plan.start)
        spells.append((begin, begin + plan.chance.choice([0.2, 1.0, 5.0, 12.0, 40.0])))

    def answer(request: Request) -> Served | None:
        told = spells if plan.cache is None else spells[:1]
        if any(begin <= request.at < end for begin, end in told):
            return Served(404, is_lie=request.num in plan.songs)
        return None

    plan.site_faults.append(answer)


def lies_from_the_first_request_on(plan: Plan) -> None:
    """C9: a wrong address, mended before the next round."""
    end, plan.is_harsh = HORIZON, True

    def answer(request: Request) -> Served | None:
        if request.at < end:
            return Served(404, is_lie=request.num in plan.songs)
        return None

    plan.site_faults.append(answer)


def outage(plan: Plan) -> None:
    """C8b, D6: every answer has one passing status for a while."""
    begin = plan.moment()
    seconds = plan.chance.choice([0.5, 3.0, 5.0, 30.0, 100.0])
    end, plan.is_harsh = begin + seconds, seconds > 5.0
    status = plan.chance.choice([500, 502, 503, 504, 520, 522, 530, 408, 421, 425])

    def answer(request: Request) -> Served | None:
        return Served(status) if begin <= request.at < end else None

    plan.site_faults.append(answer)


def broken_answers(plan: Plan) -> None:
    """B1, B4, B5, B8, C2: some answers of each number break, fewer than it has attempts."""
    share = plan.chance.choice([0.02, 0.2])
    kinds = ["connection", "connect", "timeout", "encoding", "json", "protocol"]

    def answer(request: Request) -> Served | None:
        if request.nth < 3 and request.at < HORIZON and plan.chance.random() < share:
            kind = plan.chance.choice(kinds)
            return Served(error=kind, seconds=15.0 if kind == "timeout" else 0.0)
        return None

    plan.site_faults.append(answer)


def pauses(plan: Plan) -> None:
    """D1: 429 and 503 with `Retry-After`, for a while, now and then."""
    begin, status = plan.moment(), plan.chance.choice([429, 503, 403])
    end = begin + plan.chance.choice([0.1, 1.0, 10.0])
    seconds = plan.chance.choice(["1", "2", "30"])

    def answer(request: Request) -> Served | None:
        is_told = begin <= request.at < end
        return Served(status, headers={"retry-after": seconds}) if is_told else None

    plan.site_faults.append(answer)


def dead_cluster(plan: Plan) -> None:
    """E11b: numbers in a row that never answer well."""
    first = plan.chance.randrange(plan.start, plan.stop)
    count = plan.chance.choice([1, 20, 35, 100, 300])
    dead = set(range(first, min(first + count, plan.stop)))
    plan.dead |= dead
    status = plan.chance.choice([500, 522, 400])

    def answer(request: Request) -> Served | None:
        return Served(status) if request.num in dead else None

    plan.site_faults.append(answer)


def kills(plan: Plan) -> None:
    """F1: the run is killed at any step."""
    plan.is_harsh = True
    plan.kills += [plan.moment() for _ in range(plan.chance.choice([1, 2, 3]))]


def several_runs(plan: Plan) -> None:
    """E4: two or three runs of one range at once."""
    plan.runs = plan.chance.choice([2, 3])


def clocks_apart(plan: Plan) -> None:
    """E13, D7: the runs' times of day differ by hours."""
    plan.clocks = [plan.chance.uniform(-86400.0, 86400.0) for _ in range(4)]


def store_away(plan: Plan) -> None:
    """E2, E3: writes fail, or their answers are lost, for a while."""
    begin = plan.moment()
    end = begin + plan.chance.choice([1.0, 10.0, 90.0])
    share, plan.is_harsh = plan.chance.choice([0.3, 1.0]), True

    def fail(operation: str, _name: str, now: float) -> str | None:
        if operation == "write" and begin <= now < end and plan.chance.random() < share:
            return plan.chance.choice(["before", "after"])
        return None

    plan.store_faults.append(fail)


def short_budget(plan: Plan) -> None:
    """F3: the time budget ends the first runs early."""
    plan.is_harsh = True
    plan.budget = plan.chance.uniform(0.3, 1.0) * plan.seconds + 5.0


def quota(plan: Plan) -> None:
    """D3b: so many requests in a window, more are 429; announced in one way or another, or not."""
    most, window = plan.chance.choice([(60, 60.0), (20, 10.0), (10, 1.0)])
    way = plan.chance.choice(["reset", "epoch", "ietf", "silent"])
    plan.is_harsh = True
    used: dict[int, int] = {}

    def answer(request: Request) -> Served | None:
        begun = int(request.at // window)
        used[begun] = used.get(begun, 0) + 1
        return Served(429) if used[begun] > most and request.at < HORIZON else None

    def headers(request: Request) -> dict[str, str]:
        begun = int(request.at // window)
        left = max(0, most - used.get(begun, 0))
        reset = (begun + 1) * window - request.at
        if way == "silent" or request.at >= HORIZON:
            return {}
        if way == "ietf":
            return {
                "ratelimit": f'"q";r={left};t={int(reset) + 1}',
                "ratelimit-policy": f'"q";q={most};w={window:.0f}',
            }
        date = {"date": format_datetime(NOON + timedelta(seconds=request.at), usegmt=True)}
        told = int(reset) + 1 if way == "reset" else int(NOON.timestamp() + (begun + 1) * window)
        return date | {
            "x-ratelimit-limit": str(most),
            "x-ratelimit-remaining": str(left),
            "x-ratelimit-reset": str(told),
        }

    plan.site_faults.append(answer)
    plan.site_headers.append(headers)


def challenge(plan: Plan) -> None:
    """C7b: a page that wants to see a browser, for a while."""
    begin = plan.moment()
    seconds = plan.chance.choice([3.0, 120.0, HORIZON])
    plan.is_harsh = seconds > 120.0
    status = plan.chance.choice([403, 503])

    def answer(request: Request) -> Served | None:
        is_shut = begin <= request.at < min(begin + seconds, HORIZON)
        return Served(status, headers={"cf-mitigated": "challenge"}) if is_shut else None

    plan.site_faults.append(answer)


def put_off(plan: Plan) -> None:
    """D7b: one number always answers 429."""
    num = plan.chance.randrange(plan.start, plan.stop)
    plan.dead.add(num)
    plan.site_faults.append(lambda request: Served(429) if request.num == num else None)


def moved(plan: Plan) -> None:
    """B7: some numbers point elsewhere: a slash, a login; they fail, and are well afterwards."""
    nums = {num for num in plan.songs if plan.chance.random() < 0.05}
    plan.is_harsh = True

    def answer(request: Request) -> Served | None:
        is_sent_on = request.num in nums and request.at < HORIZON
        return Served(301, headers={"location": "/login"}) if is_sent_on else None

    plan.site_faults.append(answer)


GENERATORS: list[Generator] = [
    spell_of_404s,
    lies_from_the_first_request_on,
    outage,
    broken_answers,
    pauses,
    dead_cluster,
    kills,
    several_runs,
    clocks_apart,
    store_away,
    short_budget,
    quota,
    challenge,
    put_off,
    moved,
]
