"""Faults of the wire and of the body for crawls in simulated time: rows B and C of the list.

Generators as in `tests.simulated_faults`. A fault that lasts does so in the first round alone. What
a row bounds (requests, how the run ends) is checked where no other generator interferes.
"""

from tests.simulate import (
    HORIZON,
    SPELL,
    Cache,
    Check,
    Generator,
    Plan,
    Request,
    Served,
    SimulatedRun,
    Site,
)

PASSING = ["connect", "connection", "timeout", "protocol", "encoding", "json", "schema", "mismatch"]
"""Kinds that are tried again."""

LASTING = ["dns", "tls", *PASSING]

CHALLENGES: list[tuple[int, dict[str, str]]] = [
    (403, {"cf-mitigated": "challenge"}),
    (503, {"cf-mitigated": "challenge", "content-type": "text/html"}),
    (403, {"content-type": "text/html; charset=utf-8"}),
]


def _during(begin: float, end: float, served: Served) -> "Generator":
    def add(plan: Plan) -> None:
        def answer(request: Request) -> Served | None:
            return served if begin <= request.at < end else None

        plan.site_faults.append(answer)

    return add


def _for_the_round(plan: Plan, served: Served, begin: float = 0.0) -> None:
    def answer(request: Request) -> Served | None:
        return served if request.round == 1 and request.at >= begin else None

    plan.site_faults.append(answer)


def _at_most(requests: int, stops: set[str]) -> Check:
    """Check that each run ended so, within so many requests."""

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        for run in runs:
            stop = run.frontier.stopped_by
            assert len(run.starts) <= requests, f"{len(run.starts)} requests, {requests} allowed"
            assert stop in stops, f"the run ended {stop}, not {stops}"

    return check


def every_kind_for_a_while(plan: Plan) -> None:
    """B1 to B8, C1, C2, C4: every request fails in one way for seconds."""
    kind, begin = plan.chance.choice(LASTING), plan.moment()
    seconds = plan.chance.choice([0.3, 3.0, 10.0, 40.0])
    status = 200 if kind in ("json", "schema", "mismatch", "encoding") else None
    slow = 15.0 if kind == "timeout" else plan.chance.choice([0.0, 0.5])
    plan.is_harsh = seconds > 3.0 or kind in ("dns", "tls", "timeout")
    _during(begin, begin + seconds, Served(status, error=kind, seconds=slow))(plan)


def some_fail_for_good(plan: Plan) -> None:
    """B7, B9, C8: numbers too large, sent elsewhere, or refused as such; fine the next time."""
    served = plan.chance.choice(
        [
            Served(200, error="too_large"),
            Served(error="redirect"),
            Served(302, headers={"location": "https://elsewhere.invalid/"}),
            Served(301, headers={"location": "/songs/"}),
            Served(308, headers={"location": "/maintenance"}),
            Served(301),
            Served(400),
            Served(418),
            Served(501),
            Served(304),
        ]
    )
    share = plan.chance.choice([0.02, 0.2])
    nums = {num for num in range(plan.start, plan.stop) if plan.chance.random() < share}
    plan.is_harsh = True
    plan.site_faults.append(
        lambda request: served if request.num in nums and request.round == 1 else None
    )

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        """Each of them is asked once, and costs itself alone."""
        for run in runs:
            assert run.frontier.tally.failed <= len(nums), "others failed, too"

    plan.checks.append(check)


def moved_for_good(plan: Plan) -> None:
    """B7: 301 and 308 to another number's page make a number missing."""
    nums = [num for num in sorted(plan.songs) if plan.chance.random() < 0.1]
    plan.moved = {num: plan.chance.randrange(plan.stop, plan.stop + 10**6) for num in nums}
    plan.songs -= set(nums)


def missing_in_every_way(plan: Plan) -> None:
    """C6, C4: 404, 410, 451 and a 404 inside of a 200."""
    ways = [Served(404), Served(410), Served(451), Served(200, error="missing")]
    plan.chance.shuffle(ways)

    def answer(request: Request) -> Served | None:
        is_there = request.num in plan.songs - plan.gone or request.num in plan.moved
        return None if is_there or request.num in plan.dead else ways[request.num * 7 % 4]

    plan.site_faults.append(answer)

    def check(site: Site, _runs: list[SimulatedRun]) -> None:
        asked = [answered.num for answered in site.log if not answered.is_canary]
        assert len(asked) == len(set(asked)), "a number that is missing was asked twice"

    if plan.runs == 1 and len(plan.songs) > 0.5 * (plan.stop - plan.start):
        plan.checks.append(check)


def nobody_known(plan: Plan) -> None:
    """B2, B3: a name or a certificate that is wrong from the first request on."""
    plan.is_harsh = True
    _for_the_round(plan, Served(error=plan.chance.choice(["dns", "tls"])))
    if plan.stop - plan.start >= 10:
        plan.checks.append(_at_most(10 + plan.connections, {"circuit"}))


def dead_for_the_round(plan: Plan) -> None:
    """D5, B1, B4, C1: nothing is answered well from some moment on."""
    served = plan.chance.choice(
        [
            Served(500),
            Served(522),
            Served(error="connect"),
            Served(200, error="json"),
            Served(error="protocol"),
            Served(error="timeout", seconds=15.0),
        ]
    )
    plan.is_harsh = True
    _for_the_round(plan, served)
    plan.checks.append(_at_most(100 + plan.connections + 60, {"circuit", "done"}))


def refused(plan: Plan) -> None:
    """C7: the token is refused, from the first request or a later one on, for a while or the round."""
    begin = plan.chance.choice([0.0, plan.moment()])
    seconds = plan.chance.choice([0.5, HORIZON])
    status, plan.is_harsh = plan.chance.choice([401, 403]), True

    def answer(request: Request) -> Served | None:
        is_refused = request.round == 1 and begin <= request.at < begin + seconds
        return Served(status) if is_refused else None

    plan.site_faults.append(answer)

    def check(site: Site, runs: list[SimulatedRun]) -> None:
        count = site.count(str(status))
        # One more where it is refused while missing numbers are looked into by a canary.
        assert count <= (2 * plan.connections + 1) * len(runs), f"{count} refused"

    plan.checks.append(check)


def one_forbidden_page(plan: Plan) -> None:
    """C7: a page here and there is forbidden; the token is not."""
    nums = {num for num in plan.songs if plan.chance.random() < 0.02}
    plan.is_harsh = True
    plan.site_faults.append(
        lambda request: Served(403) if request.num in nums and request.round < 3 else None
    )


def challenge_for_ever(plan: Plan) -> None:
    """C7b: a page for browsers from some moment on; the next round is let in."""
    status, headers = plan.chance.choice(CHALLENGES)
    begin, plan.is_harsh = plan.chance.choice([0.0, plan.moment()]), True
    _for_the_round(plan, Served(status, headers=headers), begin)

    def check(site: Site, runs: list[SimulatedRun]) -> None:
        count = site.count(str(status))
        assert count <= 100 * len(runs), f"{count} requests were challenged"
        for run in runs:
            stop = run.frontier.stopped_by
            assert stop in ("barred", "done"), f"the run ended {stop}"
            assert stop == "barred" or count == 0, "it was barred, and does not say so"

    plan.checks.append(check)


def challenge_for_a_while(plan: Plan) -> None:
    """C7b: in any of its forms, for 3 s or two minutes; nothing is lost."""
    status, headers = plan.chance.choice(CHALLENGES)
    begin = plan.moment()
    _during(begin, begin + plan.chance.choice([3.0, 120.0]), Served(status, headers=headers))(plan)


def spell_of_ten_and_more(plan: Plan) -> None:
    """C9: a lying spell that is counted in answers, from ten of them on, at any pace, once or again.

    Between two spells the site is well for ten answers and more: else they are one partial spell.
    Behind a cache there is but one: what is asked again may fall into the second, and what confirms
    it comes later than where the site itself answers for its canaries.
    """
    spells, first = [], 0
    for _ in range(plan.chance.choice([1, 1, 2, 4])):
        least = SPELL if spells else 0
        first += plan.chance.randrange(least, max(least + 2, plan.stop - plan.start))
        spells.append(range(first, first := first + plan.chance.choice([10, 11, 15, 30, 120, 400])))
    ways = [Served(404, is_lie=True), Served(410, is_lie=True), Served(200, "missing", is_lie=True)]
    way, asked = plan.chance.choice(ways), 0
    plan.is_harsh = True

    def answer(request: Request) -> Served | None:
        nonlocal asked
        asked += 1
        at_most = 1 if plan.cache is not None else len(spells)
        is_spell = any(asked in spell for spell in spells[:at_most])
        is_lie = is_spell and request.num in plan.songs - plan.gone
        return way if is_lie and request.round < 4 else None

    plan.site_faults.append(answer)


def spell_in_a_cache(plan: Plan) -> None:
    """C9: while the site denies everything, a cache in front of it serves what it has, with `Age`.

    That is what was asked before, and songs that somebody else has asked for.
    """
    begin = plan.moment()
    end = begin + plan.chance.choice([1.0, 5.0, 12.0, 60.0])
    known, plan.is_harsh = plan.chance.choice([0.0, 0.1, 0.5]), True
    cached = {num: begin - 60.0 for num in sorted(plan.songs) if plan.chance.random() < known}

    def answer(request: Request) -> Served | None:
        num = request.num
        if begin <= request.at < end:
            if num in cached and num not in plan.gone:
                return Served(200, headers={"age": str(int(request.at - cached[num]))})
            if num in plan.songs:
                return Served(404, is_lie=True)
        if num in plan.songs - plan.gone:
            cached.setdefault(num, request.at)
        return None

    plan.site_faults.append(answer)


def behind_a_cache(plan: Plan) -> None:
    """C9: a cache that heeds no `no-cache` keeps each answer; there are gaps, but none at the end."""
    seconds = plan.chance.choice([5.0, 60.0, 3600.0])
    keeps_missing = seconds < 3600.0 and plan.chance.random() < 0.5
    plan.cache = Cache(plan, seconds, keeps_missing=keeps_missing)
    plan.stop, plan.mode, plan.rate = plan.start + 400, "range", plan.chance.choice([5, 20, 100])
    plan.songs = {num for num in range(plan.start, plan.stop) if plan.chance.random() > 0.09}
    for first in plan.chance.sample(
        range(plan.start, plan.stop - 120), plan.chance.choice([1, 2, 3])
    ):
        plan.songs -= set(range(first, first + plan.chance.choice([12, 25, 60])))
    if plan.chance.random() < 0.5:
        plan.cache.know(0.2)


def deleted_songs(plan: Plan) -> None:
    """C9: songs are deleted after they were found, those among them that are asked as canaries."""
    share, plan.is_harsh = plan.chance.choice([0.05, 0.3]), True
    doomed = {num for num in plan.songs if plan.chance.random() < share}

    def answer(request: Request) -> Served | None:
        if request.num in doomed and request.nth > 0:
            plan.gone.add(request.num)
        return None

    plan.site_faults.append(answer)


def html_for_a_while(plan: Plan) -> None:
    """C1: a page of HTML with 200, or an empty 204, instead of every song, for seconds."""
    begin = plan.moment()
    served = plan.chance.choice(
        [Served(200, error="json"), Served(204), Served(206), Served(200, error="schema")]
    )
    plan.is_harsh = True
    _during(begin, begin + plan.chance.choice([0.5, 3.0, 20.0]), served)(plan)


MOST_BESIDE_A_SPELL = 200
"""So many requests more than there are numbers a spell of twelve seconds may cost."""


def twelve_seconds_of_404s(plan: Plan) -> None:
    """C9: a first crawl through 12 s of 404s: all is found in the end, at a bounded cost.

    The site answers within half a second: what is under way meanwhile is lied about as well.
    """
    plan.latency = min(plan.latency, 0.5)
    plan.rate = plan.chance.choice([1, 10, 100, 200])
    numbers = {1: 60, 10: 300, 100: 2500, 200: 4000}[plan.rate]
    plan.stop = plan.start + (numbers if plan.chance.random() < 0.3 else min(numbers, 400))
    plan.songs = {num for num in range(plan.start, plan.stop) if plan.chance.random() > 0.05}
    begin = plan.chance.uniform(10.0 / plan.rate + plan.latency, 0.8 * plan.seconds)
    plan.is_harsh = plan.seconds < 20.0

    def answer(request: Request) -> Served | None:
        if begin <= request.at < begin + 12.0:
            return Served(404, is_lie=request.num in plan.songs)
        return None

    plan.site_faults.append(answer)

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        most = plan.stop - plan.start + MOST_BESIDE_A_SPELL
        count = sum(len(run.starts) for run in runs)
        assert count <= most, f"{count} requests for {plan.stop - plan.start} numbers"

    plan.last_checks.append(check)


def gap_of_thousands(plan: Plan) -> None:
    """C9: numbers in the midst that never were; they cost at most 1 request in 40 more."""
    gap, beside = plan.chance.choice([400, 1200, 1200, 1200, 5000]), plan.chance.choice([1, 15, 60])
    plan.stop = plan.start + gap + 2 * beside
    plan.songs = set(range(plan.start, plan.start + beside))
    plan.songs |= set(range(plan.stop - beside, plan.stop))
    plan.rate, plan.mode = plan.chance.choice([100, 1000, 0]), "range"  # next ends at a thousand
    plan.cache = None  # with one song on either side nothing could be proved behind it

    def check(_site: Site, runs: list[SimulatedRun]) -> None:
        more = len(runs[0].starts) - (plan.stop - plan.start)
        assert more <= (gap / 40 if gap >= 5000 else 100), (
            f"{more} requests more for a gap of {gap}"
        )

    plan.checks.append(check)


ANSWERS: list[Generator] = [
    every_kind_for_a_while,
    some_fail_for_good,
    moved_for_good,
    missing_in_every_way,
    nobody_known,
    dead_for_the_round,
    refused,
    one_forbidden_page,
    challenge_for_ever,
    challenge_for_a_while,
    spell_of_ten_and_more,
    spell_in_a_cache,
    behind_a_cache,
    deleted_songs,
    html_for_a_while,
    twelve_seconds_of_404s,
    gap_of_thousands,
]
