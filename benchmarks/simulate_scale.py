"""Simulates a fleet over millions of songs: shards, budgets, stragglers, kills, 429 storms.

`.venv/bin/python -m benchmarks.simulate_scale` prints the table of docs/scale.md. It imports the
crawler, so simpy has to be installed beside that: `.venv/bin/pip install simpy==4.1.2`.
"""

import math
import random
import sys
from collections import deque
from dataclasses import dataclass, field

try:
    import simpy
except ImportError:
    sys.exit("simpy is not installed: .venv/bin/pip install simpy==4.1.2, and run it again")

from crawler.deployment.cost import CPU_SECONDS, run_cost, size_for

BLOCK = 1000
BUDGET_SECONDS = 1680.0
DELIVERY_SECONDS = 1.0  # dispatch, listing of the shard, control.json, last answers, run object
COLD_START_SECONDS = 3.0
BACK_OFF_SECONDS = 10.0  # the queue's, after an instance died
LOOK_SECONDS = 5.0  # control.json
SHARD = 50_000
SEED = 4711


@dataclass(frozen=True)
class Trouble:
    """What goes wrong; means of exponential times, in seconds of one instance or of the site."""

    kill_every: float = math.inf
    storm_every: float = math.inf
    storm_pause: float = 60.0
    straggler_share: float = 0.0  # shards that run at half pace
    doubled_share: float = 0.0  # shards delivered twice at once


CALM = Trouble()
ROUGH = Trouble(2 * 3600, 3600, 60.0, 0.05, 0.01)


@dataclass
class Result:
    seconds: float = 0.0
    busy_seconds: float = 0.0
    deliveries: int = 0
    kills: int = 0
    storms: int = 0
    requests: int = 0
    blocks_written: int = 0


@dataclass
class Fleet:
    """One order: a queue of shards as counts of songs left, and instances that take them."""

    songs: int
    rate: float
    instances: int
    trouble: Trouble
    result: Result = field(default_factory=Result)

    def run(self) -> Result:
        self.env = simpy.Environment()
        self.dice = random.Random(SEED)
        self.queue = deque(
            (min(SHARD, self.songs - low), self.dice.random() < self.trouble.straggler_share)
            for low in range(0, self.songs, SHARD)
        )
        self.left = len(self.queue)
        self.paused_until, self.recovering_from = 0.0, -math.inf
        self.all_done = self.env.event()
        for _ in range(self.instances):
            self.env.process(self.instance())
        if self.trouble.storm_every < math.inf:
            self.env.process(self.storms())
        self.env.run(until=self.all_done)
        self.result.seconds = self.env.now
        return self.result

    def storms(self):
        while True:
            yield self.env.timeout(self.dice.expovariate(1 / self.trouble.storm_every))
            self.result.storms += 1
            self.paused_until = self.env.now + self.trouble.storm_pause

    def instance(self):
        yield self.env.timeout(COLD_START_SECONDS)
        dies_at = self.next_death()
        while self.left:
            if not self.queue:  # others are at the last shards
                yield self.env.timeout(1.0)
                continue
            songs, is_slow = self.queue.popleft()
            self.result.deliveries += 1
            began = self.env.now
            yield self.env.timeout(DELIVERY_SECONDS)
            pace = self.rate / self.instances / (2 if is_slow else 1)
            if self.dice.random() < self.trouble.doubled_share:
                self.result.requests += 4 * BLOCK  # measured: where twins meet and part
            while songs and self.env.now - began < BUDGET_SECONDS:
                block = min(BLOCK, songs)
                yield self.env.process(self.fill(block, pace))
                if self.env.now >= dies_at:
                    break
                songs -= block
                self.result.blocks_written += 1
            self.result.busy_seconds += self.env.now - began
            if self.env.now >= dies_at:  # the open block is lost, the queue delivers again
                self.result.kills += 1
                self.queue.appendleft((songs, is_slow))
                yield self.env.timeout(BACK_OFF_SECONDS + COLD_START_SECONDS)
                dies_at = self.next_death()
            elif songs:
                self.queue.append((songs, is_slow))  # the successor
            else:
                self.left -= 1
        if not self.all_done.triggered:
            self.all_done.succeed()

    def fill(self, songs: int, pace: float):
        """Ask so many songs: at the pace, in no pause, and at half the pace after one."""
        yield self.env.timeout(songs / pace)
        self.result.requests += songs
        if self.env.now < self.paused_until:
            yield self.env.timeout(self.paused_until - self.env.now)
            yield self.env.timeout(2.5)  # back from half the pace at a tenth a second

    def next_death(self) -> float:
        every = self.trouble.kill_every
        return math.inf if every == math.inf else self.env.now + self.dice.expovariate(1 / every)


def instances_for(rate: float) -> int:
    """As many instances of one vCPU as hold the rate."""
    return max(1, math.ceil(rate * CPU_SECONDS["source"]))


def dollars(result: Result, rate: float, instances: int) -> float:
    """What an order costs, by the crawler's own reckoning."""
    size = size_for(rate / instances, "source")
    each = max(1, result.deliveries)
    one = run_cost(
        size,
        seconds=result.busy_seconds / each,
        requests=round(result.requests / each),
        blocks_written=math.ceil(result.blocks_written / each),
    )
    return one * each


def days(seconds: float) -> str:
    return f"{seconds / 86_400:.2f} d" if seconds >= 86_400 else f"{seconds / 3600:.2f} h"


def main() -> None:
    print(
        "| songs | requests/s | instances | without loss | calm | rough | requests | tasks | kills | US dollars |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for songs in (10_000_000, 100_000_000):
        for rate in (100, 1_000, 10_000):
            instances = instances_for(rate)
            calm = Fleet(songs, rate, instances, CALM).run()
            rough = Fleet(songs, rate, instances, ROUGH).run()
            print(
                f"| {songs / 1e6:.0f} M | {rate:,} | {instances} | {days(songs / rate)} "
                f"| {days(calm.seconds)} | {days(rough.seconds)} "
                f"| {rough.requests / songs:.3f} x | {rough.deliveries:,} | {rough.kills} "
                f"| {dollars(rough, rate, instances):,.0f} |"
            )


if __name__ == "__main__":
    main()
