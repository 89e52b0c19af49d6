"""Jobs that ask several hosts in one run: each host has its own pace, pauses, health and proofs."""

import logging

import pytest

from crawler.errors import StoreUnavailableError
from crawler.frontier.canaries import KnownSongs
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import Policy
from tests.simulation import Crawl, found, job_over, most_in_a_second, status

A, B = "a.invalid", "b.invalid"


class Hosts(Crawl):
    """A crawl of two hosts: numbers below 100,000 lie at A, the others at B."""

    def __init__(self, *, a, b, at_a=found, at_b=found, **options):
        """Prepare; `at_a` and `at_b` are what the hosts answer."""
        super().__init__(answer=self._ask, **options)
        self._answers = {A: at_a, B: at_b}
        self.frontier.connections = self.connections
        for host, numbers in ((A, a), (B, b)):
            self.add(host, numbers)

    def run(self, seconds=1e6):
        """Crawl until the run is over, or so many seconds have passed."""
        super().run(seconds)
        return self

    def add(self, host, numbers, most_rate=None, **options):
        """Add a job that asks a host."""
        job = job_over(numbers, **options)
        job.host, job.most_rate = host, most_rate
        self.frontier.add_job(job)

    def _ask(self, attempt, now):
        return self._answers.get(attempt.job.host, found)(attempt, now)

    def of(self, host):
        """The attempts at a host, and when each was handed out."""
        both = zip(self.starts, self.attempts, strict=True)
        return [(start, attempt) for start, attempt in both if attempt.job.host == host]

    def starts_at(self, host):
        """When each attempt at a host was handed out."""
        return [start for start, _ in self.of(host)]


def pausing(attempt, _now):
    """Ask everybody to wait for half a minute, always."""
    return Reply(attempt, status=429, headers={"retry-after": "30"})


TROUBLES = {
    "pauses": (pausing, "circuit"),
    "pause-too-long": (status(429, headers={"retry-after": "86400"}), "paused"),
    "down": (status(500), "circuit"),
    "unreachable": (lambda attempt, _now: Reply(attempt, error="connect"), "circuit"),
    "token-refused": (status(401), "unauthorized"),
    "barred": (status(403, headers={"cf-mitigated": "challenge"}), "barred"),
    "denies-all": (status(404), "circuit"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("is_first", [True, False])
def test_one_host_in_trouble_costs_the_other_nothing(trouble, is_first):
    """The other's numbers are settled at full pace meanwhile; then the run ends for what was bad."""
    answer, reason = TROUBLES[trouble]
    bad, good = (A, B) if is_first else (B, A)
    crawl = Hosts(
        a=range(2000),
        b=range(100_000, 102_000),
        **{"at_a" if is_first else "at_b": answer},
    ).run()
    well = range(100_000, 102_000) if is_first else range(2000)
    assert {num for num, outcome in crawl.outcomes.items() if outcome == "found"} == {*well}
    starts = crawl.starts_at(good)
    assert len(starts) == 2000
    assert starts[-1] - starts[0] <= 2000 / 100 * 1.01
    assert crawl.frontier.stopped_by == reason
    assert crawl.frontier.stop_detail.startswith(bad)
    # Numbers that were not settled there are left: nothing is said of most of them.
    assert len(crawl.records) < 2000 + 200


def test_a_pause_holds_back_its_own_host_alone():
    """No attempt at the host starts inside it, and each second of the other is full."""

    def once(attempt, now):
        if 1002.0 <= now < 1002.1:
            return Reply(attempt, status=503, headers={"retry-after": "7"})
        return found(attempt)

    crawl = Hosts(a=range(1000), b=range(100_000, 101_000), at_a=once).run()
    assert crawl.frontier.stopped_by == "done"
    assert set(crawl.outcomes.values()) == {"found"}
    assert [start for start in crawl.starts_at(A) if 1002.25 < start < 1009.0] == []
    during = [start for start in crawl.starts_at(B) if 1003.0 <= start < 1009.0]
    assert len(during) == pytest.approx(600, abs=6)


@pytest.mark.parametrize("connections", [2, 16, 64])
def test_pace_is_kept_per_host(connections):
    """Each is asked at the full rate, and no faster."""
    crawl = Hosts(
        a=range(1000), b=range(100_000, 101_000), latency=0.01, connections=connections
    ).run()
    for host in (A, B):
        starts = crawl.starts_at(host)
        assert most_in_a_second(starts) <= 105
        assert starts[-1] - starts[0] == pytest.approx(10, rel=0.02)


def test_a_host_whose_sources_allow_less_is_asked_at_that():
    """The rate of one host binds no other."""
    crawl = Hosts(a=range(300), b=())
    crawl.add("c.invalid", range(200_000, 200_030), most_rate=10.0)
    crawl.run()
    assert most_in_a_second(crawl.starts_at(A)) > 95
    assert most_in_a_second(crawl.starts_at("c.invalid")) <= 11


def test_jobs_of_one_host_share_its_pace():
    """Also where the addresses of one are not known: it may well ask the same host."""
    crawl = Hosts(a=range(200), b=())
    crawl.add(A, range(1000, 1200))
    crawl.add("", range(2000, 2200))
    crawl.run()
    assert len(crawl.starts) == 600
    assert most_in_a_second(crawl.starts) <= 105


def with_gap(gap):
    """Make a site where some numbers are missing."""
    return lambda attempt, _now: (
        Reply(attempt, status=404) if attempt.song_num in gap else found(attempt)
    )


def test_canaries_never_cross_hosts():
    """A gap at one host is proved by its own songs; what the store knows is the first host's."""
    gaps = range(300, 400), range(100_300, 100_400)
    proofs, first_found = [], []
    crawl = Hosts(
        a=range(1000),
        b=range(100_000, 101_000),
        at_a=with_gap(gaps[0]),
        at_b=with_gap(gaps[1]),
        known=KnownSongs(nearest=lambda _num: [7], published=[8], spread=range(1000)),
        on_proof=lambda nums, canary, _moment: proofs.append((nums, canary)),
        on_first_found=first_found.append,
    ).run()
    assert crawl.frontier.stopped_by == "done"
    for gap in gaps:
        assert {crawl.outcomes[num] for num in gap} == {"missing"}
    canaries = [attempt for attempt in crawl.attempts if attempt.is_canary]
    assert {each.job.host for each in canaries} == {A, B}
    assert all((each.song_num >= 100_000) == (each.job.host == B) for each in canaries)
    assert proofs
    assert all((num >= 100_000) == (canary >= 100_000) for nums, canary in proofs for num in nums)
    assert first_found == [crawl.sent[0]]


def test_a_host_that_denies_everything_is_held_up_alone():
    """What one host holds leaves the other's room as it is."""
    crawl = Hosts(a=range(5000), b=range(100_000, 105_000), at_a=status(404)).run()
    assert {num for num, outcome in crawl.outcomes.items() if outcome == "found"} == {
        *range(100_000, 105_000)
    }
    assert not any(outcome == "missing" for outcome in crawl.outcomes.values())


def test_two_hosts_that_both_fail_end_the_run_for_the_first_reason():
    """Each end is told when it comes; only the last one ends the run."""
    crawl = Hosts(a=range(1000), b=range(100_000, 101_000), at_a=status(401), at_b=status(500))
    crawl.run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert crawl.frontier.stop_detail == f"{A}: the site answered 401"
    assert len(crawl.starts_at(B)) >= 100


def test_the_end_of_one_host_is_told_when_it_comes(caplog):
    """Not only when the others are done."""
    crawl = Hosts(a=range(1000), b=range(100_000, 101_000), at_a=status(401))
    with caplog.at_level(logging.WARNING):
        crawl.run(seconds=2)
    assert crawl.frontier.stopped_by is None
    [told] = [line for line in caplog.records if line.event == "host_ended"]
    assert told.getMessage() == f"nothing more is asked of {A}: the site answered 401"
    assert told.fields == {"stopped_by": "unauthorized"}


@pytest.mark.parametrize(
    ("end", "options"),
    [
        ("daily_cap", {"policy": Policy(max_requests=300)}),
        ("time_budget", {"deadline": 1003.0}),
        ("stop_order", {}),
        ("store", {}),
    ],
)
def test_what_concerns_all_ends_all(end, options):
    """The cap, the budget, a stop order and the store are of the run, not of a host."""
    crawl = Hosts(a=range(1000), b=range(100_000, 101_000), **options)
    if end == "store":

        class Unreadable:
            exhausted, read_ahead, left = False, 1, 60

            def take(self, wanted):
                self.left -= wanted
                if self.left < 0:
                    raise StoreUnavailableError("the store is gone")
                return list(range(500_000 + self.left, 500_000 + self.left + wanted))

        crawl.add(B, (), supply=Unreadable())
    if end == "stop_order":
        crawl.run(seconds=2)
        crawl.frontier.stop("stop_order")
    crawl.run()
    assert crawl.frontier.stopped_by == end
    assert crawl.frontier.in_flight == 0
    assert crawl.starts[-1] <= 1003.01
    assert crawl.frontier.tally.requests == len(crawl.starts) <= 610
    assert len(crawl.starts_at(A)) == pytest.approx(len(crawl.starts_at(B)), rel=0.15)


def test_the_cap_is_the_reason_where_it_cuts_the_last_host_short():
    """Its numbers could have been asked; another host's end before is told in the log."""
    cap = Policy(max_requests=300)
    crawl = Hosts(a=range(1000), b=range(100_000, 101_000), at_a=status(401), policy=cap).run()
    assert (crawl.frontier.stopped_by, crawl.frontier.tally.requests) == ("daily_cap", 300)


def test_each_host_has_its_share_of_the_connections():
    """One whose answers do not come takes nobody else's; what is done leaves its share."""
    crawl = Hosts(a=range(100), b=range(100_000, 100_003), connections=8, rate=0)
    take = crawl.frontier.take
    first = take(8)[0]
    assert [attempt.job.host for attempt in first].count(A) == 4
    rest = take(8)[0]
    assert rest == []
    crawl.frontier.hand_back([found(each) for each in first if each.job.host == B])
    assert {attempt.job.host for attempt in take(8)[0]} <= {B}
    # B has no numbers left, so its part is over.
    more = take(4)[0]
    assert [attempt.job.host for attempt in more] == [A] * 4


def test_hosts_take_turns_one_attempt_at_a_time():
    """As lanes ask that are threads."""
    crawl = Hosts(a=range(10), b=range(100_000, 100_010), rate=0)
    hosts = [crawl.frontier.take(1)[0][0].job.host for _ in range(6)]
    assert hosts in ([A, B] * 3, [B, A] * 3)


def test_what_comes_back_reaches_its_own_host():
    """Put back, given up or charged: the numbers and the pace of the other stay as they are."""
    crawl = Hosts(a=range(100), b=range(100_000, 100_100), rate=10)
    frontier, clock = crawl.frontier, crawl.clock
    one, other = sorted(frontier.take(2)[0], key=lambda attempt: attempt.song_num)
    frontier.put_back([one, other])
    assert (frontier.in_flight, frontier.tally.requests) == (0, 0)
    clock.now += 1
    again = sorted(frontier.take(2)[0], key=lambda attempt: attempt.song_num)
    assert again == [one, other]

    frontier.charge(other, 20)
    frontier.abandon(other)
    assert (crawl.outcomes, frontier.in_flight) == ({100_000: "failed"}, 1)
    clock.now += 1
    assert {attempt.job.host for attempt in frontier.take(8)[0]} == {A}


def test_put_back_keeps_the_order_of_each_host():
    """They come again before all others, as they were."""
    crawl = Hosts(a=range(100), b=range(100_000, 100_100), rate=0)
    taken = crawl.frontier.take(8)[0]
    crawl.frontier.put_back(taken)
    again = crawl.frontier.take(8)[0]
    for host in (A, B):
        first = 0 if host == A else 100_000
        ours = [each.song_num for each in again if each.job.host == host]
        assert ours == [*range(first, first + 4)]


def test_a_pause_learnt_elsewhere_is_the_first_host_s():
    """Its store was told of it; the others go on."""
    crawl = Hosts(a=range(10), b=range(100_000, 100_010))
    crawl.frontier.hold(5.0)
    assert crawl.frontier.resume_at == 1005.0
    crawl.run()
    assert min(crawl.starts_at(A)) >= 1005.0
    assert max(crawl.starts_at(B)) < 1001.0


def test_what_is_told_of_pauses_and_quotas_is_the_slowest_host_s():
    """The longest pause under way, and the lowest quota announced."""

    def at_b(attempt, now):
        if now > 1003:
            return pausing(attempt, now)
        return Reply(attempt, True, {}, 200, headers={"x-ratelimit-limit": "600"})

    crawl = Hosts(a=range(2000), b=range(100_000, 100_500), at_b=at_b).run(seconds=5)
    assert crawl.frontier.resume_at == pytest.approx(1033, abs=1)
    assert (crawl.frontier.announced_rate, crawl.frontier.announcement) == (10.0, "600 a minute")


def test_runs_of_a_process_share_the_pace_of_the_first_host():
    """It is handed in; another host's is of the same rate, and of this run alone."""
    shared = RateLimiter(50)
    crawl = Hosts(a=range(200), b=range(100_000, 100_200), rate_limiter=shared)
    shared.hold(1010.0, 1000.0)
    crawl.run()
    assert min(crawl.starts_at(A)) >= 1010.0
    assert most_in_a_second(crawl.starts_at(B)) == pytest.approx(50, abs=3)
    assert max(crawl.starts_at(B)) < 1005.0
