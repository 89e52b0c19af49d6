"""Sites with limits: quotas announced and silent, challenge pages, and how a pause is waited for."""

import pytest

from crawler.frontier.verdict import Reply
from tests.simulation import NOON, Crawl, found


class Quota:
    """A site of so many requests in a window; more are answered 429.

    Attributes:
        refused: Answers of 429.
    """

    def __init__(self, most: int, window: float, way: str, *, is_sliding: bool = False) -> None:
        """Announce it in one way: `seconds`, `epoch`, `ietf`, `declared`, or `silent`."""
        self.most, self.window, self.way, self.is_sliding = most, window, way, is_sliding
        self.refused = 0
        self._granted: list[float] = []

    def __call__(self, attempt, now):
        """Answer."""
        begin = now - self.window if self.is_sliding else now // self.window * self.window
        self._granted = [at for at in self._granted if at >= begin]
        is_full = len(self._granted) >= self.most
        if not is_full:
            self._granted.append(now)
        oldest = self._granted[0] if self.is_sliding else begin
        headers = self._headers(self.most - len(self._granted), oldest + self.window - now, now)
        if is_full:
            self.refused += 1
            return Reply(attempt, status=429, headers=headers)
        return Reply(attempt, True, {}, 200, headers=headers or None)

    def _headers(self, left: int, reset: float, now: float) -> dict[str, str]:
        moment = NOON.timestamp() + now - 1000 + reset
        words = {
            "silent": {},
            "ietf": {
                "ratelimit": f'"a";r={left};t={int(reset) + 1}',
                "ratelimit-policy": f'"a";q={self.most};w={self.window:.0f}',
            },
            "seconds": {
                "x-ratelimit-limit": str(self.most),
                "x-ratelimit-remaining": str(left),
                "x-ratelimit-reset": str(int(reset) + 1),
            },
            "epoch": {"x-ratelimit-remaining": str(left), "x-ratelimit-reset": str(int(moment))},
            "limit": {"x-ratelimit-limit": str(self.most)},
        }
        return words[self.way]


@pytest.mark.parametrize("way", ["seconds", "epoch", "ietf", "limit"])
@pytest.mark.parametrize("latency", [0.005, 0.1])
def test_D3b_an_announced_quota_is_kept_before_the_first_429(way, latency):
    """60 a minute under a pace of 100/s: at most three answers of 429, in 1.2 times the time."""
    quota, told = Quota(60, 60.0, way), []
    crawl = Crawl(
        range(180), answer=quota, latency=latency, on_pace=lambda *words: told.append(words)
    ).run()
    assert crawl.frontier.tally.found == 180
    assert quota.refused <= 3
    assert crawl.clock.now - 1000 <= 1.2 * 180
    assert told
    assert told[-1][0] <= 1.1
    assert way == "epoch" or told[-1][1] == "60 a minute"


@pytest.mark.parametrize("connections", [1, 16, 64])
@pytest.mark.parametrize(("most", "is_sliding"), [(60, False), (25, True), (60, True)])
def test_D3b_a_silent_quota_costs_what_was_under_way(connections, most, is_sliding):
    """Twice what was in flight at most, then one a pause; complete in 1.2 times the time."""
    quota = Quota(most, 60.0, "silent", is_sliding=is_sliding)
    numbers = 3 * most
    crawl = Crawl(range(numbers), answer=quota, connections=connections).run()
    assert crawl.frontier.tally.found == numbers
    windows = numbers / most
    assert quota.refused <= windows * (2 * min(connections, 10) + 7)
    assert crawl.clock.now - 1000 <= 1.2 * 60 * windows


@pytest.mark.parametrize("connections", [1, 8, 64])
@pytest.mark.parametrize(
    ("most", "window", "is_sliding"), [(60, 60.0, False), (25, 60.0, True), (200, 60.0, True)]
)
def test_D3b_a_silent_quota_s_window_is_learnt(connections, most, window, is_sliding):
    """After two windows of doubled pauses one or two pauses a window are enough."""
    quota, told = Quota(most, window, "silent", is_sliding=is_sliding), list[float]()
    crawl = Crawl(
        range(12 * most), answer=quota, connections=connections, on_pause=told.append
    ).run()
    assert crawl.frontier.tally.found == 12 * most
    assert len(told) <= 2 * 6 + 2 * 12
    assert crawl.clock.now - 1000 <= 1.2 * 12 * window


def test_D3b_refusals_after_ever_other_counts_of_answers_teach_no_pause():
    """They are no quota's: each time the pauses begin at one second."""
    told: list[float] = []
    bad = [(1000.5, 1006.0), (1010.0, 1010.5), (1030.0, 1031.5), (1036.0, 1036.5)]
    Crawl(
        range(2000),
        answer=lambda a, now: (
            Reply(a, status=429) if any(begin <= now < end for begin, end in bad) else found(a)
        ),
        on_pause=told.append,
        connections=4,
    ).run()
    assert told == [1.0, 2.0, 4.0, 1.0, 1.0, 2.0, 1.0]


def test_D3b_a_429_that_does_not_say_doubles_the_pause_while_nothing_goes_well():
    """One second, two, four, up to a minute; one attempt after each."""
    told: list[float] = []
    crawl = Crawl(
        range(100),
        answer=lambda a, now: Reply(a, status=429) if now < 1150 else found(a),
        on_pause=told.append,
        connections=4,
    ).run()
    assert told == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0][: len(told)]
    assert crawl.frontier.tally.found == 100
    assert crawl.frontier.tally.kinds["http_429"] <= 4 + len(told)


@pytest.mark.parametrize("value", ["-5", "soon", "0", str(int(NOON.timestamp()) - 50), "100000"])
def test_D3b_a_reset_that_is_nonsense_is_no_pause_of_its_own(value):
    """In the past, beyond a day, no number: as if it were not there."""
    told: list[float] = []

    def answer(attempt, now):
        is_told = attempt.song_num == 50 and attempt.requests == 0
        headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": value}
        return Reply(attempt, status=429, headers=headers) if is_told else found(attempt)

    Crawl(range(100), answer=answer, on_pause=told.append).run()
    assert told == [1.0]


def test_D3b_remaining_0_of_a_200_pauses_everybody():
    """Nothing starts until the reset."""

    def answer(attempt, now):
        headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "7"}
        return Reply(attempt, True, {}, 200, headers=headers if attempt.song_num == 20 else None)

    crawl = Crawl(range(100), answer=answer, latency=0.0).run()
    at = crawl.starts[20]
    assert not [start for start in crawl.starts if at + 0.02 < start < at + 7]
    assert crawl.frontier.tally.found == 100


CHALLENGE = {"cf-mitigated": "challenge", "content-type": "text/html"}


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize("seconds", [3, 120])
def test_C7b_a_challenge_that_passes_loses_nothing(status, seconds):
    """A shared pause that doubles from 30 s; then every number is found."""
    told: list[float] = []

    def answer(attempt, now):
        is_shut = 1002 <= now < 1002 + seconds
        return Reply(attempt, status=status, headers=CHALLENGE) if is_shut else found(attempt)

    crawl = Crawl(range(1000), answer=answer, on_pause=told.append).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.frontier.tally.found == 1000
    assert told == [30.0, 60.0, 120.0][: len(told)]


def test_C7b_a_challenge_for_ever_bars_the_run():
    """Within a hundred requests, in words; no number is failed for it."""
    crawl = Crawl(
        range(10**6), answer=lambda a, _now: Reply(a, status=403, headers=CHALLENGE)
    ).run()
    assert crawl.frontier.stopped_by == "barred"
    assert "challenge" in crawl.frontier.stop_detail
    assert len(crawl.starts) <= 100
    assert crawl.records == {}


def test_C7b_a_challenge_that_outlasts_the_budget_bars_the_run():
    """It is not waited for in vain."""
    crawl = Crawl(
        range(10**6),
        answer=lambda a, _now: Reply(a, status=403, headers=CHALLENGE),
        deadline=1020.0,
    ).run()
    assert crawl.frontier.stopped_by == "barred"
    assert crawl.clock.now < 1020


@pytest.mark.parametrize("retry_after", ["3", "Sun, 22 Nov 2026 12:00:05 GMT"])
def test_C7b_a_403_that_says_how_long_is_a_pause(retry_after):
    """It refuses nobody: after the pause everything is found."""
    told: list[float] = []

    def answer(attempt, now):
        is_shut = 1002 <= now < 1002.3
        headers = {"retry-after": retry_after}
        return Reply(attempt, status=403, headers=headers) if is_shut else found(attempt)

    crawl = Crawl(range(1000), answer=answer, on_pause=told.append).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.frontier.tally.found == 1000
    assert told


class JsonSource:
    """A source that asks for JSON, at an address with its number in it."""

    def url(self, num):
        """Return the address."""
        return f"https://songs.example/v1/songs/{num}"

    def headers(self):
        """Ask for JSON."""
        return {"Accept": "application/json"}


def test_B7_the_record_tells_where_a_page_moved():
    """It is missing, and its detail names the number."""

    def answer(attempt, _now):
        return Reply(attempt, status=301, headers={"location": "/v1/songs/77"})

    [record] = Crawl([5], source=JsonSource(), answer=answer).run().records[5]
    assert (record.outcome, record.detail) == ("missing", "moved to 77")


def test_C7b_html_instead_of_json_ends_a_run_as_barred():
    """For ever: a wall before the site, and no token that is refused."""
    page = {"content-type": "text/html; charset=utf-8"}
    crawl = Crawl(
        range(100),
        source=JsonSource(),
        answer=lambda a, _now: Reply(a, status=403, headers=page),
    ).run()
    assert crawl.frontier.stopped_by == "barred"
