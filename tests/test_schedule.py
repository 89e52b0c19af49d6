"""The schedule: its cron texts, when it is through, and what its calls do to the real function."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.demo.site import DemoSite
from crawler.deployment.schedule import CRONS, longest_gap_seconds, make_schedule
from crawler.store.block import BLOCK_SIZE, block_name, encode_block, format_block_info
from crawler.store.control import decode_control, without_hold
from crawler.store.coverage import coverage_of, verify
from crawler.store.opening import open_store
from tests.function_process import FunctionProcess
from tests.records import expected_info, mixed
from tests.scheduler import deliver, deliver_at_once

pytestmark = pytest.mark.once

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LAST = 700

PROOF = 80
"""A thousand missing numbers cost at most so many requests more: canaries, and some asked again."""


def schedule(songs: int | None, rate: float = 100, **more: int):
    """Make a schedule with the deployed budget."""
    return make_schedule(songs, rate=rate, budget_seconds=1680, now=NOW, **more)


@pytest.mark.parametrize(
    ("songs", "cron", "hours"),
    [
        pytest.param(1, "0 */6 * * *", 0.0, id="one song"),
        pytest.param(168_000, "0 */6 * * *", 28 / 60, id="one run"),
        pytest.param(168_001, "0 */6 * * *", 6.0, id="one song more than a run"),
        pytest.param(1_000_000, "0 */4 * * *", 20 + 28 * 160_000 / 168_000 / 60, id="six runs"),
        pytest.param(12_000_000, "*/30 * * * *", 35.7, id="all of them"),
    ],
)
def test_the_interval_is_the_longest_that_is_through_on_the_same_day(songs, cron, hours):
    """A small range is looked at every six hours, a long one every half hour; the date fits both."""
    made = schedule(songs)
    assert made.cron == cron
    assert (made.completes_at - NOW) / timedelta(hours=1) == pytest.approx(hours, abs=0.02)


def test_a_range_without_an_end_gets_the_shortest_interval_and_no_date():
    """Nobody can tell when it is through."""
    made = schedule(None)
    assert (made.cron, made.completes_at) == (CRONS[1800], None)
    assert made.songs_per_day == 48 * 168_000


def test_the_daily_cap_moves_the_date():
    """Ten thousand a day make ten days of a hundred thousand."""
    made = schedule(100_000, max_requests_per_day=10_000)
    assert made.songs_per_day == 10_000
    assert timedelta(days=9) <= made.completes_at - NOW <= timedelta(days=10)


@given(
    st.integers(1, 10**9),
    st.floats(0.01, 10_000),
    st.integers(60, 1680),
    st.none() | st.integers(1000, 10**7),
)
def test_no_interval_is_through_a_day_later_than_the_shortest(songs, rate, budget, cap):
    """Whatever the numbers, resting between runs costs no further day."""
    given_settings = {"rate": rate, "budget_seconds": budget, "max_requests_per_day": cap}
    made = make_schedule(songs, now=NOW, **given_settings)
    per_run = max(1, int(rate * budget))
    runs = -(-songs // min(per_run, cap or per_run))
    assert made.completes_at is not None
    assert made.cron in CRONS.values()
    assert made.songs_per_run == per_run
    shortest = timedelta(seconds=1800) * runs + timedelta(days=-(-songs // (cap or songs)))
    assert made.completes_at - NOW <= shortest + timedelta(days=1)


def test_every_interval_is_longer_than_a_run_may_take():
    """The service ends a run after 1740 s."""
    assert min(CRONS) > 1740


@pytest.fixture
def site():
    """A site whose last song is number 700."""
    with DemoSite(last_song=LAST) as site:
        yield site


def function_for(site: DemoSite, store: Path, **settings: str) -> FunctionProcess:
    """Deploy the function for a site and a folder, as fast as it goes."""
    environ = {
        "GENIUS_TOKEN": site.token,
        "CRAWLER_BASE_URL": site.base_url,
        "CRAWLER_STORE": str(store),
        "CRAWLER_RATE": "0",
    }
    return FunctionProcess(environ | settings)


def test_an_empty_store_is_filled_from_the_first_song_to_a_thousand_missing(site, tmp_path):
    """The first call of all finds everything that is there, and knows where it ends."""
    with function_for(site, tmp_path) as function:
        answer = deliver(function).json()
    assert (answer["mode"], answer["start"], answer["stopped_by"]) == ("next", 1, "done")
    assert answer["complete"]
    held = coverage_of(open_store(str(tmp_path)).list_blocks(timeout=10))
    end = held.last_found + 1001
    assert held.last_found in range(LAST - 50, LAST + 1)
    assert 0 <= answer["requests"] - (end - 1) <= PROOF
    assert verify(open_store(str(tmp_path)), 1, end, timeout=10)


def test_a_call_that_comes_again_or_late_asks_for_the_end_alone(site, tmp_path):
    """Nothing is left: each call looks for new songs, a thousand numbers, and settles no other."""
    with function_for(site, tmp_path) as function:
        deliver(function)
        again = deliver(function).json()
        late = deliver(function, scheduled=NOW - timedelta(days=3)).json()
        typed = deliver(function, content_type="application/json").json()
    for answer in (again, late, typed):
        assert 1000 <= answer["requests"] <= 1000 + PROOF
        assert (answer["found"], answer["complete"]) == (0, True)
    assert site.times_asked(1) == 1


def test_each_call_goes_on_from_the_first_number_that_is_not_settled(tmp_path):
    """The store alone says where: also when a range in the middle was crawled by somebody else."""
    with DemoSite(last_song=5000) as site, function_for(site, tmp_path) as function:
        function.post(b'{"start": 1, "stop": 101}')
        function.post(b'{"start": 301, "stop": 401}')
        starts = []
        for _ in range(3):
            answer = deliver(function, {"mode": "next", "limit": 150}).json()
            starts.append((answer["requests"], answer["skipped"]))
        settled = coverage_of(open_store(str(tmp_path)).list_blocks(timeout=10))
    assert [requests for requests, _ in starts] == [150, 150, 150]
    assert (settled.first_num, settled.not_asked) == (1, 0)
    assert settled.settled in range(640, 651)  # missing ones at the end are asked again
    assert site.times_asked(50) == site.times_asked(350) == 1


def test_new_songs_are_found_once_they_are_there(tmp_path):
    """What was missing beyond the end is asked again, and found when it has come."""
    with DemoSite(last_song=300) as site, function_for(site, tmp_path) as function:
        deliver(function)
    store = open_store(str(tmp_path))
    before = coverage_of(store.list_blocks(timeout=10))
    with DemoSite(last_song=400) as site, function_for(site, tmp_path) as function:
        answer = deliver(function, {"mode": "new"}).json()
    after = coverage_of(store.list_blocks(timeout=10))
    assert before.last_found <= 300 < after.last_found <= 400
    assert answer["found"] == after.found - before.found
    beyond = after.last_found - before.last_found + 1000
    assert 0 <= answer["requests"] - beyond <= PROOF


def test_two_calls_at_once_settle_each_number_once(site, tmp_path):
    """A second call that starts while the first runs does no harm: both are right in the end."""
    with function_for(site, tmp_path) as function:
        replies = deliver_at_once(function, 2)
    assert [reply.status for reply in replies] == [200, 200]
    store = open_store(str(tmp_path))
    held = coverage_of(store.list_blocks(timeout=10))
    assert verify(store, 1, held.last_found + 1001, timeout=10)
    assert held.failed == 0


def test_a_refused_token_holds_the_schedule_and_no_person(site, tmp_path):
    """After a 401 scheduled calls ask for nothing until they are released; a range still asks."""
    control = tmp_path / "control.json"
    with function_for(site, tmp_path, GENIUS_TOKEN="revoked") as function:
        first = deliver(function)
        asked = site.stats()["requests"]
        second = deliver(function)
        assert site.stats()["requests"] == asked
        person = function.post(b'{"start": 1, "stop": 11}')
    assert [r.status for r in (first, second, person)] == [502, 502, 502]
    assert [r.json()["stopped_by"] for r in (first, second)] == ["unauthorized"] * 2
    assert (first.json()["requests"] > 0, second.json()["requests"]) == (True, 0)
    assert person.json()["requests"] > 0
    assert decode_control(control.read_bytes()).held_by == "unauthorized"
    with function_for(site, tmp_path) as function:
        assert deliver(function).json()["requests"] == 0
        control.write_bytes(msgspec.json.encode(without_hold(decode_control(control.read_bytes()))))
        assert deliver(function).json()["complete"]


def test_a_complete_catalogue_of_20000_blocks_costs_a_thousand_requests(tmp_path):
    """Twenty million songs are planned from a listing: no block is read, and the end is asked."""
    blocks = next(n for n in range(20_000, 20_100) if expected_info(n * BLOCK_SIZE - 1))
    records = list(mixed(range(BLOCK_SIZE)).values())
    _, info = encode_block(records, source="genius")
    small, counts = encode_block(records[:1], source="genius")
    _, _, text = small.partition(format_block_info(counts).encode())  # what follows the counts
    (tmp_path / "songs").mkdir()
    for first in range(0, blocks * BLOCK_SIZE, BLOCK_SIZE):
        info.first, info.first_num, info.last_num = first, first, first + 999
        info.last_found = next(n for n in range(first + 999, first, -1) if expected_info(n))
        field = format_block_info(info).encode()
        sizes = [(len(field) + more).to_bytes(2, "little") for more in (4, 0)]
        head = small[:10] + sizes[0] + small[12:14] + sizes[1]  # RFC 1952, section 2.3.1.1
        (tmp_path / block_name(first)).write_bytes(head + field + text)
    last = blocks * BLOCK_SIZE - 1
    with DemoSite(last_song=last) as site, function_for(site, tmp_path) as function:
        started = time.monotonic()
        answer = deliver(function).json()
        seconds = time.monotonic() - started  # the listing included, which the answer's are not
    print(f"next over {blocks} blocks: {seconds:.1f} s")
    assert 1000 <= answer["requests"] <= 1000 + PROOF
    assert answer["skipped"] == last
    assert answer["complete"]
    assert seconds < 20  # promised are 5; other tests run beside this one


# --- Cron texts -------------------------------------------------------------------------------------


HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("* * * * *", 60),
        ("*/15 * * * *", 15 * 60),
        ("*/45 * * * *", 45 * 60),
        ("7 * * * *", HOUR),
        ("0,20 * * * *", 40 * 60),
        ("0 */4 * * *", 4 * HOUR),
        ("0 */5 * * *", 5 * HOUR),
        ("5 4 * * *", DAY),
        ("0 6,18 * * *", 12 * HOUR),
        ("0 9-17 * * *", 16 * HOUR),
        ("0 0-20/10 * * *", 10 * HOUR),
        ("30 2 * * 1", 7 * DAY),
        ("30 2 * * SUN", 7 * DAY),
        ("30 2 * * 7", 7 * DAY),
        ("0 9 * * 1-5", 3 * DAY),
        ("0 9 * * mon-fri", 3 * DAY),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 */10 * *", 10 * DAY),
        ("0 0 1 JAN *", 366 * DAY),
        ("0 0 29 2 *", 1461 * DAY),
        ("0 0 1 * 1", 7 * DAY),
    ],
)
def test_the_longest_gap_is_that_of_the_text(cron, seconds):
    """Nights, weekends and short months are in it; a day of month or of week is enough."""
    assert longest_gap_seconds(cron) == seconds


def test_our_own_intervals_are_what_their_cron_texts_say():
    """Seconds and text of each are the same."""
    assert {longest_gap_seconds(cron): cron for cron in CRONS.values()} == CRONS


@pytest.mark.parametrize(
    "cron",
    [
        "",
        "a b c d e",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "*/75 * * * *",
        "5/10 * * * *",
        "9-5 * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "* * * * MOO",
        "0 0 31 2 *",
        "every day at noon UTC",
        "٣ * * * *",
    ],
)
def test_what_is_no_cron_text_is_refused(cron):
    """So is a day that never comes."""
    with pytest.raises(ValueError, match=r"\S"):
        longest_gap_seconds(cron)
