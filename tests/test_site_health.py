"""Failures in a row, refusals and missing ones: what each costs, simulated with whole crawls."""

import pytest

from crawler.frontier.canaries import KnownSongs
from crawler.frontier.rate_limiter import RateLimiter
from crawler.frontier.site_health import SiteHealth
from crawler.frontier.verdict import Reply, judge
from crawler.frontier.work import PendingNumber, Policy
from tests.simulation import NOON, Crawl, found, job_over, status

FAR = 10**9


class Ward:
    """Writes down what the watches of a run want; replies and moments are the test's own."""

    def __init__(self, *, has_canary=True, deadline=1e9, rate=0.0, policy=None, is_told=True):
        self.stops, self.pauses, self.paces, self.turns = [], [], [], []
        self.has_canary, self.job = has_canary, job_over([])
        self.limiter = RateLimiter(rate)
        self.health = SiteHealth(
            self.limiter,
            stop=lambda *each: self.stops.append(each),
            ask_canary=self._ask_canary,
            policy=policy or Policy(),
            deadline=deadline,
            on_pause=self.pauses.append if is_told else None,
            on_pace=(lambda *each: self.paces.append(each)) if is_told else None,
        )

    def _ask_canary(self, turn):
        self.turns.append(turn)
        return self.has_canary

    def number(self, num, sent_at=0.0):
        attempt = PendingNumber(num, self.job)
        attempt.sent_at = sent_at
        return attempt

    def fail(self, attempt, now=1.0, *, is_unsent=False, **fields):
        """Let an attempt fail; a status of 500 by default."""
        verdict = judge(Reply(attempt, **(fields or {"status": 500})))
        self.health.note_failure(attempt, verdict, now, is_unsent=is_unsent)

    def overload(self, attempt, now, number=429, **fields):
        """Let an attempt be put off."""
        reply = Reply(attempt, status=number, **fields)
        self.health.note_overload(attempt, reply, judge(reply), NOON, now)

    def announce(self, now, number=200, **headers):
        """Let an answer announce limits, of the names with `ratelimit-` in front of them."""
        attempt = self.number(1)
        named = {f"ratelimit-{name}": value for name, value in headers.items()}
        self.health.note_headers(attempt, Reply(attempt, status=number, headers=named), NOON, now)


def test_the_same_mistake_of_step_1_ends_the_run_at_the_fifth():
    """Another one begins anew; once a song was found a number counts once."""
    ward = Ward()
    for nth in range(4):
        ward.health.note_fault(ward.number(nth), ("steps.py", 7, "ValueError"))
    ward.health.note_fault(ward.number(4), ("steps.py", 8, "KeyError"))
    for nth in range(4):
        ward.health.note_fault(ward.number(nth), ("steps.py", 7, "ValueError"))
    ward.health.note_songs()
    again = ward.number(9)
    for _ in range(9):
        ward.health.note_fault(again, ("steps.py", 7, "ValueError"))
    for nth in range(3):
        ward.health.note_fault(ward.number(nth), ("steps.py", 7, "ValueError"))
    assert ward.stops == []
    ward.health.note_fault(ward.number(5), ("steps.py", 7, "ValueError"))
    assert ward.stops == [("circuit", "step 1 is wrong in steps.py, line 7: ValueError")]
    fresh = Ward()
    only = fresh.number(1)
    for _ in range(5):
        assert fresh.stops == []
        fresh.health.note_fault(only, ("steps.py", 7, "ValueError"))
    assert len(fresh.stops) == 1


def test_F5d_missing_numbers_hide_no_mistake_of_step_1():
    """Until a song is found as many calls may be under way as are needed to show the mistake."""
    ward = Ward()
    assert ward.health.step1_room == 5
    for nth in range(4):
        ward.health.note_fault(ward.number(nth), ("steps.py", 7, "NameError"))
        ward.health.note_good(1, 0.0, 1.0)
        assert ward.health.step1_room == 4 - nth
    ward.health.note_fault(ward.number(5), ("steps.py", 7, "NameError"))
    assert len(ward.stops) == 1


@pytest.mark.parametrize("is_found", [True, False])
def test_a_song_or_twenty_missing_numbers_end_the_caution_about_step_1(is_found):
    """Where most numbers are missing a crawl is not to go five at a time."""
    ward = Ward()
    ward.health.note_good(19, 0.0, 1.0)
    assert ward.health.step1_room == 5
    if is_found:
        ward.health.note_songs()
    else:
        ward.health.note_good(1, 0.0, 1.0)
    assert ward.health.step1_room >= 1000


def challenge(ward, sent_at, now):
    """Let an attempt meet a challenge page."""
    attempt = ward.number(1, sent_at)
    reply = Reply(attempt, status=403, headers={"cf-mitigated": "challenge"})
    assert judge(reply).action == "challenged"
    ward.health.note_overload(attempt, reply, judge(reply), NOON, now)


def test_C7b_the_fifth_challenge_page_in_a_row_ends_the_run():
    """After pauses of 30, 60, 120 and 240 s; one that was under way before a pause does not count."""
    ward, now = Ward(), 10.0
    for _ in range(4):
        challenge(ward, now - 0.5, now)
        challenge(ward, now - 0.5, now + 0.1)
        assert ward.health.is_probing
        assert ward.health.is_in_doubt
        assert ward.health.allowance(64, 0, now) == (1, 0.0)
        assert ward.health.allowance(64, 1, now) == (0, 0.5)
        now += ward.pauses[-1] + 1
    assert (ward.pauses, ward.stops) == ([30, 60, 120, 240], [])
    ward.health.note_good(1, 9.0, now)  # sent before the first pause: it shows nothing
    assert (ward.health.is_probing, ward.health.is_in_doubt) == (True, True)
    challenge(ward, now - 0.5, now)
    assert ward.stops == [("barred", "the site answers with a challenge page for browsers")]
    other = Ward(is_told=False)
    challenge(other, 1.0, 2.0)
    other.health.note_good(1, 3.0, 40.0)
    assert not other.health.is_probing
    assert other.limiter.resume_at == 32.0


@pytest.mark.parametrize(("deadline", "is_over"), [(40.0, True), (40.1, False)])
def test_C7b_a_challenge_that_outlasts_the_run_ends_it_at_once(deadline, is_over):
    """Its pause of half a minute would end at the end of the time budget."""
    ward = Ward(deadline=deadline)
    challenge(ward, 9.0, 10.0)
    assert bool(ward.stops) is is_over
    assert ward.pauses == ([] if is_over else [30.0])


def test_D5_pauses_of_an_overloaded_site_double_up_to_a_minute():
    """All are held; a good answer to what was asked for after the last pause begins anew."""
    ward, now = Ward(has_canary=False), 10.0
    for _ in range(8):
        ward.overload(ward.number(1, now - 0.5), now, 429)
        now += ward.pauses[-1] + 1
    assert ward.pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    ward.health.note_good(1, now, now)
    ward.overload(ward.number(2, now), now + 0.5, 503, headers={"retry-after": "7"})
    ward.overload(ward.number(2, now + 8), now + 9, 429)
    assert ward.pauses[8:] == [7, 1]


def test_D7b_what_a_429_announces_is_waited_for():
    """Where it names no `Retry-After`; a 503 needs one, and a reset of zero counts as none."""
    ward = Ward()
    ward.overload(ward.number(1, 0.5), 1.0, headers={"ratelimit-reset": "9"})
    assert ward.pauses == [9.0]
    assert not ward.health.is_probing
    ward.overload(ward.number(1, 19.5), 20.0, headers={"ratelimit-reset": "9", "retry-after": "3"})
    ward.overload(ward.number(1, 29.5), 30.0, headers={"ratelimit-reset": "0"})
    assert ward.pauses == [9.0, 3.0, 1.0]
    assert ward.health.is_probing
    ward.overload(
        ward.number(1, 49.5), 50.0, 503, headers={"ratelimit-reset": "9", "retry-after": "x"}
    )
    assert ward.pauses[3:] == [2.0]
    dates = {
        "date": "Sun, 22 Nov 2026 13:00:00 GMT",
        "retry-after": "Sun, 22 Nov 2026 13:00:07 GMT",
    }
    ward.overload(ward.number(1, 99.5), 100.0, headers=dates)  # its clock is an hour ahead
    assert ward.pauses[4:] == [7.0]


def test_D7b_a_number_that_alone_is_put_off_fails_at_the_fifth():
    """The first counts, then those between which others were answered well; the pace stays."""
    ward, attempt = Ward(rate=100.0), None
    attempt = ward.number(1, 0.5)
    ward.overload(attempt, 1.0)
    ward.overload(attempt, 1.1)
    assert (attempt.lone_429s, attempt.put_off, ward.limiter.limit) == (1, 2, 50.0)
    for nth in range(2, 6):
        assert not ward.health.is_spent_page(attempt)
        ward.health.note_good(1, 10.0 * nth, 10.0 * nth)
        attempt.sent_at = 10.0 * nth + 1
        limit = ward.limiter.limit
        ward.overload(attempt, 10.0 * nth + 2)
        assert (attempt.lone_429s, attempt.put_off, ward.limiter.limit) == (nth, 1, limit)
    assert ward.health.is_spent_page(attempt)
    assert ward.pauses == [1.0]
    canary = PendingNumber(5, ward.job, is_canary=True)
    ward.overload(canary, 99.0)
    assert (canary.lone_429s, canary.put_off) == (0, 0)


def test_D7b_three_canaries_are_asked_beside_what_is_put_off():
    """From the second time on, each the next; a good answer allows three more."""
    ward = Ward()
    for nth in range(1, 7):
        ward.overload(ward.number(nth, 0.5), 1.0)
        assert len(ward.turns) == 0
    again = ward.number(10, 0.5)
    for _ in range(6):
        ward.overload(again, 1.0)
    assert ward.turns == [2, 3, 4]
    ward.health.note_canary(Reply(ward.number(0), True), is_well=True, now=2.0)
    again.sent_at = 0.5
    for _ in range(6):
        again.good_before = -1
        ward.overload(again, 1.0)
    assert ward.turns == [2, 3, 4, 7, 8, 9]
    ward.health.note_good(1, 0.4, 3.0)
    again.put_off = 1
    for _ in range(6):
        again.good_before = -1
        ward.overload(again, 1.0)
    assert ward.turns[6:] == [2, 3, 4]
    ward.overload(again, 1.0, 503, headers={"retry-after": "1"})
    assert len(ward.turns) == 9


def test_D5_a_second_pause_asks_beside_even_for_a_new_number():
    """Where nobody knows a canary it is tried each time."""
    ward = Ward(has_canary=False)
    ward.overload(ward.number(1, 0.5), 1.0)
    assert ward.turns == []
    for nth in range(5):
        ward.overload(ward.number(2, 3.0 + 99 * nth), 4.0 + 99 * nth)
    assert ward.turns == [1] * 5
    ward.overload(PendingNumber(7, ward.job, is_canary=True), 900.0)
    assert len(ward.turns) == 5


def test_a_pace_is_told_when_it_falls_by_a_fifth():
    """With the site's own words, of the quota or of what is left of it."""
    ward = Ward(rate=10.0)
    ward.announce(1.0, limit="600")
    assert (ward.paces, ward.health.announcement) == ([], "600 a minute")
    ward.announce(2.0, limit="300")
    ward.announce(3.0, limit="240")
    ward.announce(4.0, limit="239")
    ward.announce(5.0, limit="300")
    assert ward.paces == [(5.0, "300 a minute"), (239 / 60, "239 a minute")]
    ward.announce(6.0, limit="3600", reset="3600")
    assert ward.paces[2:] == [(1.0, "3600 an hour")]
    ward.announce(7.0, limit="1800", reset="30")
    assert ward.paces[3:] == [(0.5, "1800 an hour")]
    assert ward.health.announcement == "1800 an hour"
    free = Ward()
    assert free.health.announcement == ""
    free.announce(1.0)
    free.announce(1.0, limit="60")
    assert free.paces == [(1.0, "60 a minute")]
    untold = Ward(is_told=False)
    untold.announce(1.0, limit="60")
    assert untold.limiter.announced == 1.0


def test_where_nothing_is_left_all_wait_for_the_reset():
    """Unless it is a 429, which is held for what it says itself."""
    ward = Ward()
    ward.announce(1.0, remaining="1", reset="20")
    assert ward.pauses == []
    ward.announce(1.0, 429, remaining="0", reset="20")
    assert ward.pauses == []
    ward.announce(1.0, remaining="0", reset="20")
    assert ward.pauses == [20.0]
    ward.announce(1.0, remaining="0", reset="20")
    assert (ward.pauses, ward.limiter.resume_at) == ([20.0], 21.0)


@pytest.mark.parametrize(
    ("until", "deadline", "is_over"),
    [(110.0, 111.0, False), (110.0, 110.0, True), (3700.0, 1e9, False), (3700.1, 1e9, True)],
)
def test_D4_a_pause_that_cannot_be_waited_for_ends_the_run(until, deadline, is_over):
    """It lasts beyond the time budget, or longer than an hour."""
    ward = Ward(deadline=deadline)
    ward.limiter.hold(until, 100.0)
    ward.health.check_pause(100.0)
    left = f"the site asked for a pause; {until - 100:.0f} s of it are left"
    assert ward.stops == ([("paused", left)] if is_over else [])


def test_D5_the_hundredth_failure_asks_a_canary_and_sixty_probes_follow():
    """The one that decided counts as the first; then one a second, and the run ends."""
    ward = Ward()
    ward.health.note_good(1, 0.0, 0.5)
    for num in range(99):
        ward.fail(ward.number(num))
    assert (ward.turns, ward.health.is_in_doubt, ward.health.is_failing) == ([], False, True)
    assert ward.health.allowance(64, 9, 1.0) == (64, 0.0)
    ward.fail(ward.number(99))
    ward.fail(ward.number(100))
    assert (ward.turns, ward.health.is_circuit_open, ward.health.is_in_doubt) == ([0], False, True)
    assert ward.health.allowance(64, 9, 1.0) == (0, 0.5)
    bad = Reply(ward.number(0), status=500)
    ward.health.note_canary(bad, is_well=False, now=2.0)
    assert ward.health.is_circuit_open
    assert ward.health.allowance(64, 0, 2.5) == (0, 0.5)
    for nth in range(1, 60):
        assert ward.health.allowance(64, 0, 2.0 + nth) == (0, 0.0)
        ward.health.note_canary(bad, is_well=False, now=2.5 + nth)
    assert ward.turns == [0, *range(1, 60)]
    assert ward.health.allowance(64, 1, 99.0) == (0, 0.5)
    assert ward.stops == []
    assert ward.health.allowance(64, 0, 99.0) == (0, 0.0)
    assert ward.stops == [("circuit", "101 failures in a row, the last: http_500")]


def test_D6_a_probe_that_is_well_closes_the_circuit():
    """How long it was open is kept, and failures count anew."""
    ward = Ward(has_canary=False)
    for num in range(100):
        ward.fail(ward.number(num), 1.0)
    assert ward.health.is_circuit_open
    assert ward.health.allowance(64, 0, 1.5) == (0, 0.5)
    assert ward.health.allowance(64, 0, 2.0) == (1, 0.0)
    ward.health.note_handed_out(2.0)
    assert ward.health.allowance(64, 1, 2.5) == (0, 0.5)
    ward.health.note_canary(Reply(ward.number(0), True), is_well=True, now=4.0)
    assert (ward.health.is_circuit_open, ward.health.held_seconds) == (False, 3.0)
    assert (ward.health.is_failing, ward.health.is_in_doubt, ward.health.good) == (False, False, 1)
    ward.health.note_handed_out(5.0)
    ward.health.note_good(1, 6.0, 6.0)
    assert ward.health.held_seconds == 3.0
    for num in range(99):
        ward.fail(ward.number(num), 7.0)
    assert ward.turns == [0, 0]  # at the hundredth, and when the first probe was due


def test_E11b_bad_pages_have_one_further_attempt_each():
    """Once a canary is well; a page that fails for the first time then has one more, too."""
    ward = Ward()
    pages = [ward.number(num) for num in range(100)]
    for page in pages:
        ward.fail(page)
        assert not ward.health.is_spent_page(page)
    ward.health.note_canary(Reply(ward.number(0), True), is_well=True, now=2.0)
    assert all(ward.health.is_spent_page(page) for page in pages)
    assert not ward.health.is_in_doubt
    late = ward.number(200)
    ward.fail(late)
    assert [ward.health.is_spent_page(late), ward.health.is_spent_page(late)] == [False, True]
    for num in range(300, 398):
        ward.fail(ward.number(num))
    assert ward.turns == [0]
    ward.fail(ward.number(398))
    assert ward.turns == [0, 0]
    ward.health.note_good(1, 3.0, 3.0)
    other = ward.number(500)
    assert [ward.health.is_spent_page(other), ward.health.is_spent_page(other)] == [False, False]


def test_E11b_a_well_canary_ends_no_doubt_that_a_pause_left():
    """After it one attempt at a time goes out until one is answered well, bad pages or not."""
    ward = Ward()
    ward.overload(ward.number(500, sent_at=0.5), 1.0, 503)
    for num in range(100):
        ward.fail(ward.number(num))
    ward.health.note_canary(Reply(ward.number(0), True), is_well=True, now=9.0)
    assert (ward.health.is_in_doubt, ward.health.allowance(64, 0, 9.0)) == (True, (1, 0.0))


def test_E11b_the_thousandth_different_number_ends_the_run():
    """A number that fails again is no other, but asks a canary as any request."""
    ward = Ward(has_canary=False)
    ward.health.note_good(1, 0.0, 0.5)
    same = ward.number(0)
    for _ in range(150):
        ward.fail(same)
    assert (ward.health.is_circuit_open, len(ward.turns)) == (False, 51)
    known = Ward()
    for num in range(999):
        known.fail(known.number(num))
        known.health.note_canary(Reply(known.number(0), True), is_well=True, now=1.0)
    assert known.stops == []
    known.fail(same)
    known.fail(known.number(999))
    assert "1000 different numbers failed in a row, the last: http_500" in known.stops[0][1]


@pytest.mark.parametrize(
    ("fields", "is_unsent", "ends_at"),
    [
        ({"error": "dns"}, False, 10),
        ({"error": "protocol"}, True, 100),
        ({"error": "dns"}, True, 100),
    ],
)
def test_B2_B3_what_is_wrong_from_the_start_ends_the_run(fields, is_unsent, ends_at):
    """Ten failures of name or certificate, or a hundred that sent nothing; not after a good answer."""
    ward = Ward()
    for num in range(ends_at - 1):
        ward.fail(ward.number(num), is_unsent=is_unsent, **fields)
    assert ward.stops == []
    ward.fail(ward.number(999), is_unsent=is_unsent, **fields)
    assert ward.stops == [("circuit", f"{ends_at} failures in a row: {fields['error']}")]
    mixed = Ward()
    mixed.fail(mixed.number(0))
    mixed.health.note_good(1, 0.0, 0.5)
    for num in range(99):
        mixed.fail(mixed.number(num), is_unsent=is_unsent, **fields)
    assert mixed.stops == []


def test_C7_a_second_refusal_is_proof_where_no_canary_is_known():
    """With one the canary decides: refused it is the token; well, or missing, it is the pages."""
    ward = Ward(has_canary=False)
    one, two = (Reply(ward.number(num), status=403) for num in (1, 2))
    assert not ward.health.note_refusal(one.attempt, one)
    assert ward.health.is_suspicious
    assert ward.health.allowance(64, 2, 1.0) == (0, 0.5)
    assert ward.health.allowance(64, 0, 1.0) == (1, 0.0)
    assert ward.stops == []
    assert not ward.health.note_refusal(two.attempt, two)
    assert ward.stops == [("unauthorized", "the site answered 403")]
    for status_, is_well in ((200, True), (404, False), (403, False), (500, False)):
        known = Ward()
        assert not known.health.note_refusal(one.attempt, one)
        assert known.health.allowance(64, 0, 1.0) == (0, 0.0)
        assert known.health.allowance(64, 0, 1.0) == (0, 0.5)
        assert not known.health.note_refusal(two.attempt, two)
        assert known.turns == [0]
        reply = Reply(known.number(0), is_well, {}, status_)
        cleared = known.health.note_canary(reply, is_well=is_well, now=2.0)
        are_pages = status_ in (200, 404)
        assert cleared == ([(one.attempt, one), (two.attempt, two)] if are_pages else [])
        assert known.stops == (
            [("unauthorized", "the site answered 403")] if status_ == 403 else []
        )
        assert known.health.is_in_doubt is not are_pages
        assert known.health.note_refusal(one.attempt, one) is are_pages


def test_C7_forbidden_pages_end_no_doubt_that_a_pause_left():
    """The token is right, and the site still overloaded."""
    ward = Ward()
    ward.overload(ward.number(9, sent_at=0.5), 1.0, 503)
    one = Reply(ward.number(1), status=403)
    ward.health.note_refusal(one.attempt, one)
    assert ward.health.allowance(64, 0, 9.0) == (0, 0.0)
    cleared = ward.health.note_canary(Reply(ward.number(0), True), is_well=True, now=9.5)
    assert (cleared, ward.health.is_in_doubt) == ([(one.attempt, one)], True)
    assert ward.health.allowance(64, 0, 9.6) == (1, 0.0)


@pytest.mark.parametrize("connections", [1, 64, 512])
@pytest.mark.parametrize("latency", [0.001, 0.3, 14.0])
@pytest.mark.parametrize("rate", [100, 0])
@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(429),
        status(429, headers={"retry-after": "2"}),
        status(503, headers={"retry-after": "30"}),
    ],
    ids=["500", "429", "429-retry-after", "503-retry-after"],
)
def test_D5_a_dead_site_costs_a_bounded_number_of_requests(connections, latency, rate, answer):
    """Whatever the range: at most 100 + connections + 60 requests."""
    crawl = Crawl(range(FAR), connections=connections, latency=latency, rate=rate, answer=answer)
    crawl.run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + connections + 60
    assert len(crawl.starts) == crawl.frontier.tally.requests


@pytest.mark.parametrize("numbers", [100, 101, 130])
def test_D5_sixty_probes_take_a_minute_however_few_numbers_are_left(numbers):
    """A number that serves as a probe does not wait longer and longer between two of them."""
    crawl = Crawl(range(numbers), rate=100, answer=status(500), policy=Policy(max_attempts=1))
    crawl.run()
    assert crawl.frontier.stopped_by == "circuit"
    assert crawl.starts[-1] - crawl.starts[-60] < 75


@pytest.mark.parametrize("rate", [1, 5, 20, 100, 0])
@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("numbers", [1, 5, 40, 2000])
def test_D6_five_seconds_of_errors_cost_nothing_but_time(rate, connections, numbers):
    """No number ends failed because a site was down for 5 s, whatever the pace and the jitter."""
    for seed in range(4 if numbers < 2000 else 1):

        def answer(attempt, now):
            is_down = 1002 <= now < 1007  # the run begins at 1000
            return Reply(attempt, status=500) if is_down else found(attempt)

        crawl = Crawl(
            range(min(numbers, 20 * rate or numbers)),
            connections=connections,
            rate=rate,
            answer=answer,
            latency=0.2,
            seed=seed,
        )
        crawl.run()
        assert crawl.frontier.stopped_by == "done"
        assert set(crawl.outcomes.values()) == {"found"}
        assert crawl.frontier.tally.failed == 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (status(500), "http_500"),
        (status(429), "http_429"),
        (lambda attempt, now: Reply(attempt, error="connect"), "connect"),
    ],
    ids=["500", "429", "connect"],
)
def test_D5_the_end_names_what_failed_last(answer, kind):
    """A refused connection and a site that answers 500 are told apart without a debug log."""
    crawl = Crawl(range(200), rate=0, answer=answer).run()
    assert crawl.frontier.stop_detail.endswith(f"failures in a row, the last: {kind}")


CLUSTERS = {
    "500": {"status": 500},
    "522": {"status": 522},
    "cut": {"status": 200, "error": "json"},
    "connect": {"error": "connect"},
}


@pytest.mark.parametrize("reply", CLUSTERS.values(), ids=CLUSTERS)
@pytest.mark.parametrize("rate", [5, 20, 100, 1000])
@pytest.mark.parametrize(("first", "count"), [(0, 24), (0, 300), (101, 24), (101, 300), (380, 20)])
def test_E11b_a_cluster_of_dead_pages_costs_only_itself(reply, rate, first, count):
    """In front, in the midst or at the end, at any pace: every healthy number is found at once."""

    def answer(attempt, _now):
        is_bad = first <= attempt.song_num < first + count
        return Reply(attempt, **reply) if is_bad else found(attempt)

    stop = max(400, first + count + 10) if first < 380 else 400
    crawl = Crawl(range(stop), rate=rate, answer=answer, known=KnownSongs(spread=range(stop)))
    crawl.run()
    assert crawl.frontier.stopped_by == "done"
    dead = range(first, first + count)
    assert {num for num, what in crawl.outcomes.items() if what == "found"} == (
        set(range(stop)) - set(dead)
    )
    assert {num for num, what in crawl.outcomes.items() if what == "failed"} == set(dead)


@pytest.mark.parametrize("rate", [5, 100, 0])
def test_E11b_one_in_five_dead_everywhere(rate):
    """Each is tried five times; every healthy number is found."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if attempt.song_num % 5 == 0 else found(attempt)

    crawl = Crawl(range(1000), rate=rate, answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert (crawl.frontier.tally.found, crawl.frontier.tally.failed) == (800, 200)


def test_E11b_where_all_known_songs_are_dead_pages_others_are_probed():
    """Else a store whose songs lie in the cluster could never be filled."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if attempt.song_num < 150 else found(attempt)

    known = KnownSongs(published=[3, 20, 77], spread=range(400))
    crawl = Crawl(range(400), rate=20, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == "done"
    assert [crawl.outcomes[num] for num in (0, 149, 150, 399)] == ["failed"] * 2 + ["found"] * 2


def test_E11b_a_thousand_different_numbers_that_fail_end_the_run():
    """Whatever the canary says: so many bad pages in a row are beyond belief."""

    def answer(attempt, _now):
        return found(attempt) if attempt.song_num < 10 else Reply(attempt, status=500)

    crawl = Crawl(range(FAR), rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert "1000 different numbers" in crawl.frontier.stop_detail
    assert 1010 <= len(set(crawl.sent)) <= 1200


@pytest.mark.parametrize("retry_after", [None, "1"])
def test_D7b_a_number_that_always_answers_429_fails_by_itself(retry_after):
    """After at most five answers; the others lose at most ten seconds in all."""
    headers = {} if retry_after is None else {"retry-after": retry_after}

    def answer(attempt, _now):
        return (
            Reply(attempt, status=429, headers=headers)
            if attempt.song_num == 300
            else found(attempt)
        )

    crawl = Crawl(range(6000), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.sent.count(300) <= 5
    assert [num for num, what in crawl.outcomes.items() if what != "found"] == [300]
    assert crawl.starts[-1] - crawl.starts[0] <= 60 + 10


@pytest.mark.parametrize("num", [0, 97, 99])
def test_D7b_the_last_number_left_fails_by_itself_too(num):
    """Where no other number is left to show that the site is well, a canary does."""

    def answer(attempt, _now):
        return Reply(attempt, status=429) if attempt.song_num == num else found(attempt)

    crawl = Crawl(range(100), answer=answer).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.sent.count(num) <= 8
    assert crawl.starts[-1] - crawl.starts[0] <= 30


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("numbers", [1, 7, 90])
def test_D6_an_outage_from_the_start_fails_no_number(seed, numbers):
    """Five seconds of errors from the first request on are sat out at full speed as well."""

    def answer(attempt, now):
        return Reply(attempt, status=500) if now < 1005 else found(attempt)

    crawl = Crawl(range(numbers), rate=0, latency=0.01, answer=answer, seed=seed).run()
    assert crawl.outcomes == dict.fromkeys(range(numbers), "found")


def test_D6_half_of_all_answers_failing_loses_nothing():
    """Every number gets one record, and nearly all are found."""

    def answer(attempt, _now):
        return Reply(attempt, status=500) if chance.random() < 0.5 else found(attempt)

    crawl = Crawl(range(2000), rate=0, answer=answer)
    chance = crawl.random
    crawl.run()
    assert crawl.frontier.stopped_by == "done"
    assert sorted(crawl.outcomes) == list(range(2000))
    assert crawl.frontier.tally.found > 1850


def test_D6_the_pace_is_back_as_soon_as_the_site_is():
    """After an outage that opened the circuit the next ten seconds run at full pace."""

    def answer(attempt, now):
        return Reply(attempt, status=500) if 1010 <= now < 1040 else found(attempt)

    crawl = Crawl(range(10**6), answer=answer).run(60)
    assert sum(1050 <= start < 1060 for start in crawl.starts) >= 900


@pytest.mark.parametrize("kind", ["dns", "tls"])
@pytest.mark.parametrize("connections", [1, 64])
def test_B2_B3_a_wrong_name_or_certificate_ends_the_run_early(kind, connections):
    """What is wrong from the start is wrong for every number: a handful of requests shows it."""
    crawl = Crawl(
        range(FAR), connections=connections, answer=lambda a, _now: Reply(a, error=kind)
    ).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert kind in crawl.frontier.stop_detail
    assert len(crawl.starts) <= 10 + connections


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("connections", [1, 64])
def test_D7b_a_stretch_of_numbers_that_answer_429_costs_itself_alone(first, connections):
    """A canary tells it from a site that is overloaded: seconds a number, not a minute."""

    def answer(attempt, _now):
        is_bad = first <= attempt.song_num < first + 30
        return Reply(attempt, status=429) if is_bad else found(attempt)

    known = KnownSongs(published=[300])
    crawl = Crawl(range(400), connections=connections, rate=100, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == "done"
    assert crawl.frontier.tally.found == 370
    assert len(crawl.starts) <= 370 + 30 * 5 + 30
    assert crawl.starts[-1] - crawl.starts[0] < 30 * 5


# Refusals.


@pytest.mark.parametrize("connections", [1, 2, 64, 512])
@pytest.mark.parametrize("refused_from", [0, 1, 500])
@pytest.mark.parametrize("number", [401, 403])
@pytest.mark.parametrize("latency", [0.001, 0.4])
def test_C7_a_refused_token_ends_the_run(connections, refused_from, number, latency):
    """From the first request or the 500th on: within twice as many requests as connections."""
    asked = []

    def answer(attempt, _now):
        asked.append(attempt)
        return found(attempt) if len(asked) <= refused_from else Reply(attempt, status=number)

    crawl = Crawl(range(FAR), connections=connections, rate=0, answer=answer, latency=latency)
    crawl.run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert str(number) in crawl.frontier.stop_detail
    assert len(asked) - refused_from <= 2 * connections
    assert crawl.frontier.tally.found == refused_from


@pytest.mark.parametrize("forbidden", [{0}, {500}, {999}, {0, 400}, {400, 700}, {400, 430}])
@pytest.mark.parametrize("connections", [1, 2, 64, 512])
@pytest.mark.parametrize("number", [401, 403])
def test_one_forbidden_page_costs_only_itself(forbidden, connections, number):
    """First, in the middle or last, alone or two apart: every other number is found."""

    def answer(attempt, _now):
        return Reply(attempt, status=number) if attempt.song_num in forbidden else found(attempt)

    crawl = Crawl(range(1000), connections=connections, rate=0, answer=answer, latency=0.0).run()
    assert crawl.frontier.stopped_by == "done"
    failed = {num for num, outcome in crawl.outcomes.items() if outcome == "failed"}
    assert failed == forbidden
    assert len(crawl.outcomes) == 1000


@pytest.mark.parametrize("first", [0, 100])
@pytest.mark.parametrize("count", [2, 30, 300])
@pytest.mark.parametrize("connections", [1, 64])
@pytest.mark.parametrize("number", [401, 403])
def test_C7_a_stretch_of_forbidden_pages_is_no_refused_token(first, count, connections, number):
    """A canary tells them apart: each of the pages fails, all others are found."""

    def answer(attempt, _now):
        is_forbidden = first <= attempt.song_num < first + count
        return Reply(attempt, status=number) if is_forbidden else found(attempt)

    known = KnownSongs(published=[999])
    crawl = Crawl(range(1000), connections=connections, rate=0, answer=answer, known=known).run()
    assert crawl.frontier.stopped_by == "done"
    failed = [num for num, outcome in crawl.outcomes.items() if outcome == "failed"]
    assert sorted(failed) == list(range(first, first + count))
    assert len(crawl.starts) <= 1000 + 10


@pytest.mark.parametrize("connections", [1, 2, 64])
def test_C7_a_token_that_is_refused_amid_forbidden_pages_ends_the_run(connections):
    """At the hundredth failure in a row a canary is asked again."""
    asked = []

    def answer(attempt, _now):
        asked.append(attempt)
        is_let_in = len(asked) < 200 and attempt.song_num < 100
        return found(attempt) if is_let_in else Reply(attempt, status=403)

    crawl = Crawl(range(FAR), connections=connections, rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "unauthorized"
    assert len(asked) - 100 <= 100 + 3 * connections + 2


def test_a_canary_that_fails_says_nothing_about_the_token():
    """Then a fresh number is asked, and a site that only fails costs no more than a dead one."""

    def answer(attempt, _now):
        return Reply(attempt, status=403 if attempt.song_num == 0 else 500)

    crawl = Crawl(range(FAR), rate=0, answer=answer, known=KnownSongs(published=[7])).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + 64 + 60


def test_after_a_refusal_nothing_is_asked_until_what_is_under_way_is_back():
    """Then one number at a time, until it is clear what the refusal was about."""
    crawl = Crawl(range(100), rate=0)
    attempts, _ = crawl.frontier.take(3)
    crawl.frontier.hand_back([Reply(attempts[0], status=403)])
    assert crawl.frontier.take(64)[0] == []
    crawl.frontier.hand_back([Reply(attempt, status=500) for attempt in attempts[1:]])
    [probe], _ = crawl.frontier.take(64)
    crawl.frontier.hand_back([found(probe)])
    assert len(crawl.frontier.take(64)[0]) == 64
    assert crawl.outcomes == {0: "failed", probe.song_num: "found"}


def test_a_lone_forbidden_page_is_that_page_and_a_lone_401_is_the_token():
    """A run that asks one number only cannot tell 403 from a page's own; 401 never is one's own."""
    forbidden = Crawl([7], answer=status(403)).run()
    refused = Crawl([7], answer=status(401)).run()
    assert (forbidden.frontier.stopped_by, forbidden.outcomes) == ("done", {7: "failed"})
    assert (refused.frontier.stopped_by, refused.outcomes) == ("unauthorized", {})


def test_failures_after_a_refusal_are_bounded_too():
    """A site that refuses once and then only fails costs no more than a dead one."""

    def answer(attempt, _now):
        return Reply(attempt, status=403 if attempt.song_num == 0 else 500)

    crawl = Crawl(range(FAR), rate=0, answer=answer).run()
    assert crawl.frontier.stopped_by == "circuit"
    assert len(crawl.starts) <= 100 + 64 + 60


def test_a_good_answer_that_was_under_way_does_not_undo_a_proven_refusal():
    """Refused numbers of a run that ends unauthorized have no record: they are asked again."""
    crawl = Crawl(range(10), connections=10, rate=0)
    attempts, _ = crawl.frontier.take(10)
    crawl.frontier.hand_back([Reply(attempts[0], status=401), Reply(attempts[1], status=401)])
    crawl.frontier.hand_back([found(attempts[2])])
    assert crawl.frontier.stopped_by == "unauthorized"
    assert crawl.outcomes == {2: "found"}


@pytest.mark.parametrize(
    "trouble",
    ["failure", "refusal", "overload", "fault", "canary"],
)
def test_a_site_is_at_ease_from_a_good_answer_to_whatever_goes_wrong_next(trouble):
    """In between a good answer is only counted, so nothing may be left to end by it."""
    ward = Ward()
    assert not ward.health.is_at_ease
    ward.health.note_good(1, 0.0, 0.0)
    assert ward.health.is_at_ease
    attempt = ward.number(7, sent_at=0.5)
    if trouble == "failure":
        ward.fail(attempt)
    elif trouble == "refusal":
        ward.health.note_refusal(attempt, Reply(attempt, status=403))
    elif trouble == "overload":
        ward.overload(attempt, 1.0, number=503)
    elif trouble == "fault":
        ward.health.note_fault(attempt, ("steps.py", 7, "ValueError"))
    else:
        ward.health.note_canary(Reply(attempt, status=500), is_well=False, now=1.0)
    assert not ward.health.is_at_ease
    ward.health.note_good(1, 2.0, 2.0)
    assert (ward.health.is_at_ease, ward.health.good) == (True, 2)
