"""Both callers of the wire against the same faults of the wire and of the body, over plain sockets and TLS."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import pytest

from crawler.frontier.work import Policy
from crawler.record import decode_record, encode_record
from tests.clock import lateness
from tests.crawls import CALLERS, QUICK, RETRYING, TOKEN, Crawl
from tests.faulty_site import FAULTS, FaultySite, Seen, closed_port, swallowing_port
from tests.faulty_table import ODD_TITLES
from tests.records import expected_info

HASTY = Policy(attempt_seconds=0.5, max_attempts=1)
"""What trickles and hangs are given, so that their tests are short."""

OVERSHOOT_SECONDS = 0.5
SONG = 3
GONE = next(num for num in range(1, 100) if expected_info(num) is None)


class Place(NamedTuple):
    """Who asks, and the site it crawls."""

    caller: str
    site: FaultySite
    scheme: str

    def crawl(self, scenario: str, numbers: Any = (SONG,), **options: Any) -> Crawl:
        """Crawl numbers under a scenario's address."""
        ca_path = self.site.ca_path if self.scheme == "tls" else None
        url = self.site.url(scenario)
        return Crawl(url, numbers, caller=self.caller, ca_path=ca_path, **options)

    def asked(self, scenario: str) -> list[Seen]:
        """List what was asked under a scenario's address."""
        return [seen for seen in self.site.requests if seen.path.startswith(f"/{scenario}/")]


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest) -> str:
    """Each caller in turn."""
    return str(request.param)


@pytest.fixture(params=[f"{caller}-{scheme}" for caller in CALLERS for scheme in ("http", "tls")])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Each caller against a site of its own, plain and over TLS."""
    caller, _, scheme = request.param.partition("-")
    with FaultySite(tls=scheme == "tls") as site:
        yield Place(caller, site, scheme)


def named(row: str, *without: str) -> list[str]:
    """Name the faults of a row of the list."""
    return [name for name, fault in FAULTS.items() if fault.row == row and name not in without]


def mean_latency(crawl: Crawl) -> float:
    """Seconds from handing out to handing back, on average."""
    return crawl.frontier.tally.latency_seconds / crawl.frontier.tally.requests


# --- What is right -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", named("right"))
def test_right_answers_are_found_whatever_their_form(place, fault):
    """A song is found, and a number without one missing, plain, compressed, chunked, unlengthed."""
    crawl = place.crawl(fault, [SONG])
    assert crawl.results == [(SONG, expected_info(SONG))]
    assert crawl.records[SONG].info == expected_info(SONG)
    assert crawl.records[SONG].attempts == 1


def test_both_callers_keep_connections_and_send_what_a_site_wants_to_know(place):
    """Forty pages over at most four connections, each with our name, our token, and gzip asked."""
    crawl = place.crawl("right", range(1, 41), connections=4)
    assert crawl.outcomes == {
        num: "found" if expected_info(num) else "missing" for num in range(1, 41)
    }
    assert place.site.connections <= 4
    for seen in place.site.requests:
        assert seen.headers["user-agent"].startswith("song-crawler/")
        assert seen.headers["authorization"] == f"Bearer {TOKEN}"
        assert seen.headers["accept-encoding"] == "gzip"
        assert "cookie" not in seen.headers


# --- B: the wire ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", named("B1", "reset-reused", "closed-reused"))
def test_B1_a_broken_connection_is_tried_again(place, fault):
    """A reset or an early end, wherever it comes, is `connection`, and asked again."""
    crawl = place.crawl(fault, policy=RETRYING)
    assert crawl.kinds == {SONG: "connection"}
    assert len(place.asked(fault)) == RETRYING.max_attempts
    again = place.crawl(f"{fault}@1", policy=RETRYING)
    assert again.outcomes == {SONG: "found"}
    assert again.records[SONG].attempts == 2


@pytest.mark.parametrize("fault", ["reset-reused", "closed-reused"])
def test_B1_the_end_of_a_reused_connection_costs_no_attempt(place, fault):
    """A site may let go of an idle connection: asking again counts neither for number nor site."""
    crawl = place.crawl(fault, range(1, 21), policy=QUICK, connections=2)
    assert "failed" not in crawl.outcomes.values()
    assert len(crawl.records) == 20
    assert crawl.frontier.tally.requests == len(place.asked(fault))


def test_B1_a_refused_connection_is_tried_again(caller):
    """Nobody listens: `connect`, after as many attempts as there are."""
    with closed_port() as port:
        crawl = Crawl(f"http://127.0.0.1:{port}", [SONG], caller=caller, policy=RETRYING)
    assert crawl.kinds == {SONG: "connect"}
    assert crawl.records[SONG].attempts == RETRYING.max_attempts


def test_B1_a_connection_that_is_never_taken_up_ends_at_the_deadline(caller):
    """A swallowed SYN is `connect`, at the deadline, for each of several numbers."""
    with swallowing_port() as port, lateness() as late:
        crawl = Crawl(f"http://127.0.0.1:{port}", range(4), caller=caller, policy=HASTY)
    assert crawl.kinds == dict.fromkeys(range(4), "connect")
    assert mean_latency(crawl) < HASTY.attempt_seconds + OVERSHOOT_SECONDS + late.seconds


def test_B1_a_handshake_without_an_answer_ends_at_the_deadline(caller, faulty_site_tls):
    """A TLS stall is `connect`, at the deadline, for each of several numbers."""
    url = faulty_site_tls.url("tls-stall")
    with lateness() as late:
        crawl = Crawl(url, range(4), caller=caller, policy=HASTY, ca_path=faulty_site_tls.ca_path)
    assert crawl.kinds == dict.fromkeys(range(4), "connect")
    assert mean_latency(crawl) < HASTY.attempt_seconds + OVERSHOOT_SECONDS + late.seconds


def test_B2_a_host_that_does_not_exist_ends_the_run_early(caller):
    """No name, no pages: `dns` for the first numbers, and the rest is not tried."""
    crawl = Crawl(f"http://{'a' * 64}.example", range(1, 1001), caller=caller)
    assert set(crawl.kinds.values()) == {"dns"}
    assert crawl.frontier.stopped_by == "circuit"
    assert crawl.frontier.tally.requests < 50


@pytest.mark.parametrize("certificate", ["expired", "other-host", "self-signed"])
def test_B3_a_wrong_certificate_ends_the_run_early(caller, faulty_site_tls, certificate):
    """No page is asked of a host that cannot show who it is, and it is left alone soon."""
    url = faulty_site_tls.url(certificate)
    crawl = Crawl(url, range(1, 1001), caller=caller, ca_path=faulty_site_tls.ca_path)
    assert set(crawl.kinds.values()) == {"tls"}
    assert crawl.frontier.stopped_by == "circuit"
    assert crawl.frontier.tally.requests < 50
    assert faulty_site_tls.requests == []


@pytest.mark.parametrize("fault", named("B4"))
def test_B4_whatever_trickles_or_hangs_ends_at_the_deadline(place, fault):
    """Headers or body byte by byte, endless 100s, silence: `timeout`, late by half a second at most."""
    with lateness() as late:
        crawl = place.crawl(fault, policy=HASTY)
    assert crawl.kinds == {SONG: "timeout"}
    assert crawl.frontier.tally.latency_seconds >= HASTY.attempt_seconds * 0.9
    latest = HASTY.attempt_seconds + OVERSHOOT_SECONDS + late.seconds
    assert crawl.frontier.tally.latency_seconds < latest


@pytest.mark.once  # 11 s, and alike on every Python
def test_B4_a_page_that_comes_late_but_in_time_is_found(faulty_site):
    """A site may take 11 of an attempt's 15 seconds in silence, whichever caller asks."""
    with ThreadPoolExecutor(len(CALLERS)) as pool:
        url = faulty_site.url("right-late:11")
        patient = Policy(max_attempts=1)
        crawls = list(
            pool.map(lambda caller: Crawl(url, [SONG], caller=caller, policy=patient), CALLERS)
        )
    assert [crawl.outcomes for crawl in crawls] == [{SONG: "found"}] * len(CALLERS)


@pytest.mark.parametrize("fault", named("B5", "length-huge"))
def test_B5_a_doubtful_length_is_tried_again_and_never_stored(place, fault):
    """A body that may not be whole is no page, however often it comes."""
    crawl = place.crawl(fault, policy=RETRYING)
    assert crawl.outcomes == {SONG: "failed"}
    assert crawl.kinds[SONG] in {"connection", "protocol", "json"}
    assert crawl.results == []
    assert len(place.asked(fault)) == RETRYING.max_attempts


def test_B5_an_absurd_length_is_no_page(place):
    """A body announced with 10^15 bytes is not waited for."""
    crawl = place.crawl("length-huge", policy=RETRYING)
    assert crawl.kinds == {SONG: "too_large"}


def test_B5_what_follows_a_body_is_not_taken_for_the_next_answer(place):
    """Bytes beyond a body's length belong to no answer: the next number gets its own."""
    numbers = range(1, 31)
    crawl = place.crawl("length-shorter@1", numbers, policy=RETRYING, connections=1)
    assert crawl.outcomes == {num: "found" if expected_info(num) else "missing" for num in numbers}
    assert sorted(crawl.results) == [
        (num, expected_info(num)) for num in numbers if expected_info(num)
    ]


@pytest.mark.parametrize("fault", named("B6"))
def test_B6_an_answer_that_is_not_http_is_no_page(place, fault):
    """Too many headers, too long ones, garbage, HTTP/0.9: `protocol`, tried again."""
    crawl = place.crawl(fault, policy=RETRYING)
    # over TLS a garbled answer without a goodbye is a broken connection just as well
    assert crawl.kinds[SONG] in (
        {"protocol"} if place.scheme == "http" else {"protocol", "connection"}
    )
    assert crawl.records[SONG].attempts == RETRYING.max_attempts


@pytest.mark.parametrize("fault", named("B7"))
def test_B7_a_redirect_is_not_followed(place, fault):
    """Wherever it points: `redirect`, asked once, and no other host hears of us."""
    crawl = place.crawl(fault, policy=RETRYING)
    assert crawl.kinds == {SONG: "redirect"}
    assert len(place.asked(fault)) == 1
    assert {seen.listener for seen in place.site.requests} == {"main"}


@pytest.mark.parametrize("fault", named("B8"))
def test_B8_a_damaged_encoding_is_tried_again(place, fault):
    """Gzip that is not whole, and encodings nobody asked for: `encoding`."""
    crawl = place.crawl(fault, policy=RETRYING)
    assert crawl.kinds == {SONG: "encoding"}
    assert len(place.asked(fault)) == RETRYING.max_attempts


@pytest.mark.parametrize("fault", named("B9"))
def test_B9_a_body_past_the_cap_is_cut_off(place, fault):
    """A bomb of gzip and an endless page alike: `too_large`, asked once."""
    crawl = place.crawl(fault, policy=Policy(max_attempts=3, attempt_seconds=10))
    assert crawl.kinds == {SONG: "too_large"}
    assert crawl.records[SONG].attempts == 1


@pytest.mark.parametrize("fault", named("B10"))
def test_B10_a_site_that_closes_its_connections_is_crawled_all_the_same(place, fault):
    """Nothing fails where connections end after each answer, or now and then."""
    numbers = range(1, 101)
    crawl = place.crawl(fault, numbers, policy=QUICK, connections=4)
    assert crawl.outcomes == {num: "found" if expected_info(num) else "missing" for num in numbers}
    # what goes out on a connection that is just being closed is charged, but never read
    assert crawl.frontier.tally.requests >= len(place.asked(fault)) == len(numbers)


# --- C: the body ---------------------------------------------------------------------------------

KINDS = {
    "html": "json",
    "empty-200": "json",
    "empty-204": "http_204",
    "partial-206": "http_206",
    "unmodified-304": "http_304",
    "json-cut": "json",
    "json-nan": "json",
    "json-deep": "json",
    "json-huge-integer": "json",
    "json-huge-views": "json",
    "json-not-utf8": "json",
    "json-trailing": "json",
    "song-null": "schema",
    "song-list": "schema",
    "response-null": "schema",
    "body-list": "schema",
    "song-no-id": "schema",
    "another-song": "mismatch",
}


@pytest.mark.parametrize("fault", named("C1"))
def test_C1_a_page_that_is_no_page_fails(caller, faulty_site, fault):
    """HTML, nothing, a part: failed with its kind or status."""
    crawl = Crawl(faulty_site.url(fault), [SONG], caller=caller)
    assert crawl.kinds == {SONG: KINDS[fault]}
    assert crawl.results == []


@pytest.mark.parametrize("fault", named("C2"))
def test_C2_broken_json_fails_with_its_kind(caller, faulty_site, fault):
    """Whatever the bytes, no exception escapes: each is `json`, tried again."""
    crawl = Crawl(faulty_site.url(fault), [SONG], caller=caller, policy=RETRYING)
    assert crawl.kinds == {SONG: "json"}
    assert crawl.records[SONG].attempts == RETRYING.max_attempts


def test_C3_a_byte_order_mark_is_accepted(caller, faulty_site):
    """A BOM before the page is not the page's fault."""
    crawl = Crawl(faulty_site.url("bom"), [SONG], caller=caller)
    assert crawl.results == [(SONG, expected_info(SONG))]


@pytest.mark.parametrize("fault", named("C4", "missing-inside"))
def test_C4_another_shape_or_another_song_is_never_stored(caller, faulty_site, fault):
    """JSON of another shape is `schema`, another number's song `mismatch`."""
    crawl = Crawl(faulty_site.url(fault), [SONG], caller=caller)
    assert crawl.kinds == {SONG: KINDS[fault]}
    assert crawl.results == []


def test_C10_a_field_of_another_type_costs_no_song(caller, faulty_site):
    """A title that is a number is kept as text, an artist that is a text is null."""
    crawl = Crawl(faulty_site.url("song-wrong-types"), [SONG], caller=caller)
    wanted = expected_info(SONG) | {"title": "5", "artist": None, "artist_id": None}
    assert crawl.results == [(SONG, wanted)]


def test_C4_a_404_inside_a_200_is_missing(caller, faulty_site):
    """What the body says of itself counts."""
    crawl = Crawl(faulty_site.url("missing-inside"), [SONG], caller=caller)
    assert crawl.outcomes == {SONG: "missing"}
    assert len(faulty_site.requests) == 1


def test_C5_odd_titles_are_kept_as_they_are(caller, faulty_site):
    """Any title is one line of JSON, and read back equal."""
    crawl = Crawl(faulty_site.url("odd-titles"), range(len(ODD_TITLES)), caller=caller)
    for num, title in enumerate(ODD_TITLES):
        record = crawl.records[num]
        assert record.info["title"] == title
        line = encode_record(record)
        assert not set(line) & set(b"\r\n")
        assert decode_record(line) == record
        assert json.loads(line)["info"]["title"] == title


@pytest.mark.parametrize("status", [404, 410])
def test_C6_a_number_that_answers_404_or_410_is_missing_and_asked_once(place, status):
    """The site has said so: nobody asks again."""
    crawl = place.crawl(f"status:{status}", policy=RETRYING)
    assert crawl.outcomes == {SONG: "missing"}
    assert crawl.records[SONG].status == status
    assert len(place.site.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_C7_a_refused_token_ends_the_run_at_once(caller, faulty_site, status):
    """From the first request on: within twice the connections."""
    crawl = Crawl(faulty_site.url(f"status:{status}"), range(1, 1001), caller=caller)
    assert crawl.frontier.stopped_by == "unauthorized"
    assert str(status) in crawl.frontier.stop_detail
    assert len(faulty_site.requests) <= 16
    assert "missing" not in crawl.outcomes.values()


@pytest.mark.parametrize("status", [401, 403])
def test_C7_a_token_refused_later_ends_the_run_with_what_was_settled(caller, faulty_site, status):
    """From the 200th request on: what was found before is kept."""
    crawl = Crawl(faulty_site.url(f"status:{status}!200"), range(1, 1001), caller=caller)
    assert crawl.frontier.stopped_by == "unauthorized"
    assert len(faulty_site.requests) <= 200 + 16
    settled = [num for num, outcome in crawl.outcomes.items() if outcome != "failed"]
    assert 190 < len(settled) <= 200  # fewer than ten missing ones may still be held for proof


def test_C8_a_500_is_tried_again_however_large_its_body(caller, faulty_site):
    """Nobody needs the page of an error, so its size fails no number that a repeat may find."""
    crawl = Crawl(faulty_site.url("large-500@1"), [SONG], caller=caller, policy=RETRYING)
    assert crawl.outcomes == {SONG: "found"}
    assert crawl.records[SONG].attempts == 2


@pytest.mark.parametrize("status", [400, 418, 501, 505])
def test_C8_any_other_status_fails_at_once(caller, faulty_site, status):
    """Failed with the status, and asked once."""
    crawl = Crawl(faulty_site.url(f"status:{status}"), [SONG], caller=caller, policy=RETRYING)
    assert crawl.kinds == {SONG: f"http_{status}"}
    assert crawl.records[SONG].status == status
    assert len(faulty_site.requests) == 1


@pytest.mark.parametrize("status", [408, 421, 425, 500, 502, 503, 504, 520, 522, 530, 599])
def test_C8b_a_passing_status_is_tried_again(caller, faulty_site, status):
    """Two bad answers, then the page: found with the third."""
    crawl = Crawl(faulty_site.url(f"status:{status}@2"), [SONG], caller=caller, policy=RETRYING)
    assert crawl.outcomes == {SONG: "found"}
    assert crawl.records[SONG].attempts == 3


# --- What is told --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_G3_a_site_that_echoes_the_token_does_not_make_us_tell_it(
    caller, faulty_site, caplog, status
):
    """Neither detail nor log has the token's bytes, at whatever level."""
    caplog.set_level("DEBUG")
    crawl = Crawl(faulty_site.url(f"echo:{status}@1"), [SONG], caller=caller)
    told = repr(crawl.records) + crawl.frontier.stop_detail + caplog.text
    assert TOKEN not in told


class Chatty:
    """A source that puts the whole body into its error."""

    name, schema, robots = "chatty", "1", False

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url

    def url(self, song_num: int) -> str:
        """Address of a page."""
        return f"{self._base_url}/songs/{song_num}"

    def headers(self) -> dict[str, str]:
        """A secret."""
        return {"Authorization": f"Bearer {TOKEN}"}

    def info(self, song_num: int, body: bytes) -> Any:
        """Tell too much."""
        raise ValueError(f"{song_num}: what is this?\n{body.decode()}")


def test_G3_an_error_of_a_source_is_told_without_the_token(caller):
    """What a source says of a page is one line, and our header in it is blotted out."""
    with ExitStack() as stack:
        site = stack.enter_context(_EchoingSite())
        crawl = Crawl(site.base_url, [SONG], caller=caller, function=Chatty(site.base_url))
    assert crawl.kinds == {SONG: "function"}
    assert crawl.records[SONG].detail.startswith("ValueError: 3: what is this?")
    assert "***" in crawl.records[SONG].detail
    assert TOKEN not in crawl.records[SONG].detail
    assert "\n" not in crawl.records[SONG].detail


class _EchoingSite:
    """Answers one connection with 200 and what was asked."""

    def __enter__(self) -> Self:

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._listener.close()

    def _answer(self) -> None:
        peer, _ = self._listener.accept()
        with peer:
            asked = peer.recv(65_536)
            asked = asked[asked.index(b"Authorization") :]
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(asked) + asked)
            peer.recv(1)
