"""Whole crawls in simulated time: no seed loses a song, stores a lie or breaks a pause."""

from collections.abc import Callable
from typing import Any

import pytest

from crawler import step1
from crawler.frontier import canaries, host, proof, site_health, verdict
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.verdict import Reply
from crawler.frontier.work import PendingNumber
from crawler.run.monitor import ControlWatcher
from tests.simulate import Generator, MemoryStore, Plan, all_generators, failure_of, simulate
from tests.simulated_answers import (
    challenge_for_a_while,
    gap_of_thousands,
    missing_in_every_way,
    moved_for_good,
    twelve_seconds_of_404s,
)
from tests.simulated_faults import dead_cluster, outage, pauses, spell_of_404s
from tests.simulated_limits import (
    a_pause_for_several,
    a_stop_order,
    careless_function,
    dead_cluster_at_every_pace,
    mistaken_function,
    one_lone_429,
    quota_of_sixty,
    store_without_replacing,
)

pytestmark = pytest.mark.once

SEEDS = 2000
PARTS = 20


@pytest.mark.parametrize("part", range(PARTS))
def test_B_C_D_E_F_crawls_keep_their_promises(part):
    """Two thousand worlds, each made from its number; a failing one says what to run."""
    failures = [failure for seed in range(part, SEEDS, PARTS) if (failure := failure_of(seed))]
    assert not failures, "\n".join(failures)


def test_a_seed_always_gives_the_same_crawl():
    """Rounds, requests and ends are those of the first time, to the moment."""
    seeds = [*range(20), 294, 347]  # in the last two the store answers too late, again and again
    assert list(map(simulate, seeds)) == list(map(simulate, seeds))


def _believe(
    self: proof.Proof, attempt: PendingNumber, reply: Reply, moment: Any, now: float
) -> None:
    self._asker.release([canaries.Held(attempt, reply, now, moment, 0)], None)


def _retry_as_before(reply: Reply) -> verdict.Verdict:
    is_new = reply.status in (421, 425, 520, 522, 530)
    return verdict.Verdict("failed", f"http_{reply.status}") if is_new else verdict.judge(reply)


def _judge_as_before(reply: Reply) -> verdict.Verdict:
    if reply.status == 403:
        return verdict.Verdict("refused", "http_403")
    return verdict.judge(reply)


def _retry_451(reply: Reply) -> verdict.Verdict:
    return verdict.Verdict("failed", "http_451") if reply.status == 451 else verdict.judge(reply)


def _follow_nothing(reply: Reply) -> verdict.Verdict:
    is_moved = reply.status in (301, 308)
    return verdict.Verdict("failed", "redirect") if is_moved else verdict.judge(reply)


def _go_on_asking(self: proof.Proof, _look: Any, _now: float) -> None:
    self._ask_all_again()


UNMENDED: dict[str, tuple[Generator, Any, str, Callable[..., Any]]] = {
    "B7": (moved_for_good, host, "judge", _follow_nothing),
    "C6": (missing_in_every_way, host, "judge", _retry_451),
    "C7b": (challenge_for_a_while, host, "judge", _judge_as_before),
    "C8b": (outage, host, "judge", _retry_as_before),
    "C9": (spell_of_404s, proof.Proof, "hold", _believe),
    "C9 by its cost": (twelve_seconds_of_404s, proof.Proof, "_begin_probing", _go_on_asking),
    "C9 in a gap": (gap_of_thousands, proof, "some_of", lambda nums, **_: nums),
    "D1": (pauses, RateLimiter, "hold", lambda *_: False),
    "D7b": (one_lone_429, site_health.SiteHealth, "_is_alone", lambda *_: False),
    "D3b": (quota_of_sixty, site_health.SiteHealth, "note_headers", lambda *_: None),
    "E10b": (store_without_replacing, MemoryStore, "check", lambda *_: None),
    "E11b": (dead_cluster, host.Host, "_ask_for_health", lambda *_: False),
    "E11b at every pace": (
        dead_cluster_at_every_pace,
        host.Host,
        "_ask_for_health",
        lambda *_: False,
    ),
    "E12 a pause": (a_pause_for_several, ControlWatcher, "keep_pause", lambda *_: None),
    "E12 a stop": (a_stop_order, ControlWatcher, "obey", lambda *_: None),
    "F5c": (careless_function, step1, "_is_usable", lambda *_: True),
    "F5d": (mistaken_function, site_health.SiteHealth, "note_fault", lambda *_: None),
}
"""What was mended, taken out again."""


@pytest.mark.parametrize("row", UNMENDED)
def test_what_was_mended_is_found_when_it_is_taken_out(row, monkeypatch):
    """With the mending no world breaks; without it one of a few does."""
    generator, owner, name, unmended = UNMENDED[row]

    def breaks(seed: int) -> bool:
        try:
            simulate(seed, [generator])
        except AssertionError:
            return True
        return False

    assert not any(breaks(seed) for seed in range(60))
    monkeypatch.setattr(owner, name, unmended)
    assert any(breaks(seed) for seed in range(60))


@pytest.mark.parametrize("generator", all_generators())
def test_each_generator_bites(generator):
    """In a few worlds with it alone something goes otherwise than in the same world without."""
    bites = 0

    def adding(plan: Plan) -> None:
        nonlocal bites
        before = _effects(plan)
        generator(plan)
        plan.site_faults[:] = [counted(plan, fault) for fault in plan.site_faults]
        plan.store_faults[:] = [counted(plan, fault) for fault in plan.store_faults]
        bites += _effects(plan) != before and not plan.store_faults

    def counted(plan: Plan, fault: Callable[..., Any]) -> Callable[..., Any]:
        def count(*arguments: Any) -> Any:
            nonlocal bites
            gone = len(plan.gone)
            what = fault(*arguments)
            bites += what is not None or len(plan.gone) > gone
            return what

        return count

    for seed in range(20):
        simulate(seed, [adding])
    assert bites >= 3


def _effects(plan: Plan) -> tuple[Any, ...]:
    """Return what a plan holds beside answers and failures of the store."""
    times = (tuple(plan.kills), tuple(plan.clocks), tuple(plan.wall_jumps), tuple(plan.stalls))
    asked = (plan.mode, plan.function, tuple(plan.stop_orders))
    return plan.runs, plan.budget, frozenset(plan.songs), *asked, *times
