"""What one reply means for its number, and when the number is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.frontier.verdict import (
    FAILURE_KINDS,
    Reply,
    Verdict,
    failure_sentence,
    http_date,
    is_worth_repeating,
    judge,
    retry_after_seconds,
)
from crawler.frontier.work import PendingNumber
from tests.simulation import job_over

WALL = {"cf-mitigated": "challenge", "content-type": "text/html"}
HTML = {"content-type": "text/html; charset=utf-8"}


class JsonSource:
    """A source that asks for JSON, at an address with its number in it."""

    def url(self, num):
        """Return the address."""
        return f"https://songs.example/v1/songs/{num}"

    def headers(self):
        """Ask for JSON, and say who asks."""
        return {"User-Agent": "a crawler of songs", "ACCEPT": "application/json"}


class PlainSource(JsonSource):
    """A source that asks for pages; one of its headers speaks of JSON all the same."""

    def headers(self):
        """Ask for pages."""
        return {"Accept": "text/html", "X-Client": "json"}


def reply_of(source, song_num=5, **fields) -> Reply:
    """Make the reply to an attempt on one of a source's numbers."""
    return Reply(PendingNumber(song_num, job_over([], source=source)), **fields)


@pytest.mark.parametrize(
    ("fields", "action", "kind"),
    [
        ({"found": True, "status": 200}, "found", None),
        ({"status": 404}, "missing", None),
        ({"status": 410}, "missing", None),
        ({"status": 200, "error": "missing"}, "missing", None),
        ({"error": "missing"}, "missing", None),
        ({"status": 404, "error": "connection"}, "missing", None),
        ({"status": 401}, "refused", "http_401"),
        ({"status": 403}, "refused", "http_403"),
        ({"status": 403, "headers": {"retry-after": "2"}}, "retry", "http_403"),
        ({"status": 403, "headers": WALL}, "challenged", "http_403"),
        ({"status": 403, "headers": WALL | {"retry-after": "2"}}, "retry", "http_403"),
        ({"status": 502, "headers": WALL}, "retry", "http_502"),
        ({"status": 503, "headers": WALL}, "challenged", "http_503"),
        ({"status": 504, "headers": WALL}, "retry", "http_504"),
        ({"status": 408}, "retry", "http_408"),
        ({"status": 428}, "failed", "http_428"),
        ({"status": 429}, "retry", "http_429"),
        ({"status": 430}, "failed", "http_430"),
        ({"status": 499}, "failed", "http_499"),
        ({"status": 500}, "retry", "http_500"),
        ({"status": 502}, "retry", "http_502"),
        ({"status": 503}, "retry", "http_503"),
        ({"status": 503, "headers": {"retry-after": "2"}}, "retry", "http_503"),
        ({"status": 504}, "retry", "http_504"),
        ({"status": 400}, "failed", "http_400"),
        ({"status": 418}, "failed", "http_418"),
        ({"status": 451}, "missing", None),
        ({"status": 501}, "failed", "http_501"),
        ({"status": 599}, "retry", "http_599"),
        ({"status": 600}, "failed", "http_600"),
        ({"status": 520}, "retry", "http_520"),
        ({"status": 530}, "retry", "http_530"),
        ({"status": 421}, "retry", "http_421"),
        ({"status": 425}, "retry", "http_425"),
        ({"status": 505}, "failed", "http_505"),
        ({"status": 204}, "failed", "http_204"),
        ({"status": 299}, "failed", "http_299"),
        ({"status": 300}, "failed", "redirect"),
        ({"status": 399}, "failed", "redirect"),
        ({"status": 400, "headers": {"location": "/"}}, "failed", "http_400"),
        ({"status": 206}, "failed", "http_206"),
        ({"status": 304}, "failed", "http_304"),
        ({"status": 301}, "failed", "redirect"),
        ({"status": 307}, "failed", "redirect"),
        ({"status": 308}, "failed", "redirect"),
        ({"status": 200, "error": "redirect"}, "failed", "redirect"),
        ({"status": 200, "error": "too_large"}, "failed", "too_large"),
        ({"status": 500, "error": "too_large"}, "retry", "too_large"),
        ({"status": 418, "error": "too_large"}, "failed", "too_large"),
        ({"error": "robots"}, "failed", "robots"),
        ({"status": 200, "error": "json"}, "retry", "json"),
        ({"status": 200, "error": "schema"}, "retry", "schema"),
        ({"status": 200, "error": "mismatch"}, "retry", "mismatch"),
        ({"status": 200, "error": "encoding"}, "retry", "encoding"),
        ({"status": 200, "error": "connection"}, "retry", "connection"),
        ({"error": "connect"}, "retry", "connect"),
        ({"error": "timeout"}, "retry", "timeout"),
        ({"error": "dns"}, "retry", "dns"),
        ({"error": "tls"}, "retry", "tls"),
        ({"error": "protocol"}, "retry", "protocol"),
        ({"error": "function"}, "retry", "function"),
        ({"status": 400, "error": "http_400"}, "failed", "http_400"),
        ({"status": 301, "error": "http_301"}, "failed", "redirect"),
        ({"status": 500, "error": "http_500"}, "retry", "http_500"),
        ({}, "retry", "protocol"),
    ],
    ids=str,
)
def test_what_follows_from_a_reply(fields, action, kind):
    """Each status and each fault has one meaning."""
    verdict = judge(Reply(None, **fields))
    assert (verdict.action, verdict.kind) == (action, kind)


@pytest.mark.parametrize("error", [None, "missing", *FAILURE_KINDS])
def test_every_reply_has_a_kind_for_people(error):
    """No number fails without a word that the table of kinds or its status explains."""
    for status in [None, *range(100, 600)]:
        verdict = judge(Reply(None, status=status, error=error))
        if verdict.action == "missing":
            assert error == "missing" or status in (404, 410, 451)
        else:
            assert verdict.kind in FAILURE_KINDS or verdict.kind == f"http_{status}"
            assert verdict.kind != "http_None"


def test_a_plain_verdict_says_nothing_more():
    """An ordinary failure counts, and is neither overload nor set-up nor to be excused."""
    plain = Verdict("retry", "http_500", True, False, False, False, None)
    assert judge(Reply(None, status=500)) == plain
    assert not Reply(None).is_unsent


def test_C7b_a_challenge_says_nothing_about_the_number():
    """It does not count towards the number's limit, and a refusal does."""
    assert not judge(Reply(None, status=403, headers=WALL)).is_counted
    assert judge(Reply(None, status=403)).is_counted


@pytest.mark.parametrize(
    ("source", "status", "headers", "action"),
    [
        (JsonSource(), 403, HTML, "challenged"),
        (JsonSource(), 403, {"content-type": "TEXT/HTML"}, "challenged"),
        (JsonSource(), 403, {"content-type": "application/json"}, "refused"),
        (JsonSource(), 403, {}, "refused"),
        (JsonSource(), 503, HTML, "retry"),
        (PlainSource(), 403, HTML, "refused"),
        (object(), 403, HTML, "refused"),
    ],
)
def test_C7b_html_where_json_was_asked_for_is_a_challenge(source, status, headers, action):
    """For a source of JSON; other sources' 403 is a refusal, whatever it looks like."""
    assert judge(reply_of(source, status=status, headers=headers)).action == action


@pytest.mark.parametrize(
    ("status", "location", "to"),
    [
        (301, "https://songs.example/v1/songs/77", 77),
        (308, "/v1/songs/77", 77),
        (301, "77", 77),
        (301, " /v1/songs/77 ", 77),
        (301, "/v1/songs/5", None),
        (301, "/v1/songs/5/", None),
        (301, "/v1/songs/77/", None),
        (301, "/v1/songs/77-a-slug", None),
        (301, "https://other.example/v1/songs/77", None),
        (301, "http://songs.example/v1/songs/77", None),
        (301, "/login?next=77", None),
        *((status, "/v1/songs/77", None) for status in (300, 302, 303, 307, 309)),
        (301, "", None),
        (301, "file:///v1/songs/77", None),
        (301, "/v1/songs/" + "7" * 5000, None),
    ],
)
def test_B7_a_page_that_moved_for_good_is_missing(status, location, to):
    """Only where the target is this source's own address of another number; it tells which."""
    verdict = judge(reply_of(JsonSource(), status=status, headers={"location": location}))
    wanted = Verdict("failed", "redirect") if to is None else Verdict("missing", moved_to=to)
    assert verdict == wanted


def test_B7_the_last_eight_numbers_of_an_address_are_looked_at():
    """A version, a host's name and a date may stand before; no address costs more than that."""

    class Deep(JsonSource):
        def url(self, num):
            return f"https://songs.example/{num}/1/2/3/4/6/7/8"

    for wanted, more in ((77, ""), (None, "/9")):

        class Deeper(Deep):
            def url(self, num, more=more):
                return super().url(num) + more

        headers = {"location": Deeper().url(77)}
        assert judge(reply_of(Deeper(), status=301, headers=headers)).moved_to == wanted


@pytest.mark.parametrize(
    ("asked", "location", "to"),
    [
        ("https://a.example/songs/5", "/songs/77", 77),
        ("https://a.example/songs/5?of=5", "https://a.example/songs/77?of=77", 77),
        ("https://5.example/songs/5.json", "77.json", 77),
        ("https://a.example/songs/5?of=5", "/songs/77?of=5", None),
        ("https://a.example/songs/5", "/songs/5-a-slug", None),
        ("https://a.example/songs/5", "/albums/77", None),
        ("https://a.example/songs/55", "/songs/77", None),
        ("https://5.example/songs", "https://77.example/songs", None),
        ("", "/songs/77", None),
    ],
)
def test_B7_the_address_that_a_function_asked_shows_where_others_lie(asked, location, to):
    """Its own number in path and query, each a whole number, is what changes."""
    reply = reply_of(None, status=308, headers={"location": location})
    reply.attempt.song_num, reply.asked_url = 5, asked
    verdict = judge(reply)
    wanted = Verdict("failed", "redirect") if to is None else Verdict("missing", moved_to=to)
    assert verdict == wanted


@pytest.mark.parametrize("headers", [None, {}, {"location": "/v1/songs/77"}], ids=str)
def test_B7_without_an_address_nothing_has_moved(headers):
    """Neither for a redirect that names none, nor for a function, which has no addresses."""
    assert judge(reply_of(object(), status=301, headers=headers)).kind == "redirect"
    if headers != {"location": "/v1/songs/77"}:
        assert judge(reply_of(JsonSource(), status=301, headers=headers)).kind == "redirect"


def test_only_overload_holds_everybody_back():
    """429 always, 503 where it says for how long; only 429 says nothing about the number."""
    table = {
        (429, None): (True, False),
        (429, "5"): (True, False),
        (503, None): (False, True),
        (503, "5"): (True, True),
        (500, "5"): (False, True),
    }
    for (status, retry_after), wanted in table.items():
        verdict = judge(
            Reply(None, status=status, headers=retry_after and {"retry-after": retry_after})
        )
        assert (verdict.is_overload, verdict.is_counted) == wanted


@pytest.mark.parametrize(
    ("fields", "is_excused"),
    [
        ({"error": "connection", "is_reused": True}, True),
        ({"error": "connection"}, False),
        ({"error": "connection", "is_reused": True, "status": 200}, False),
        ({"error": "timeout", "is_reused": True}, False),
    ],
    ids=str,
)
def test_B1_only_a_connection_that_was_let_go_is_excused(fields, is_excused):
    """It had served before, and broke before a word of the answer came."""
    assert judge(Reply(None, **fields)).is_excused is is_excused


@pytest.mark.parametrize("kind", FAILURE_KINDS)
def test_name_and_certificate_lie_between_us_and_the_site(kind):
    """Only these two end a run early when nothing else happens."""
    assert judge(Reply(None, error=kind)).is_setup is (kind in ("dns", "tls"))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("tls", "the certificate is not valid for the host"),
        ("http_404", "the site answers 404 Not Found"),
        ("http_520", "the site answers 520"),
        ("other", "several kinds"),
        ("new", "new"),
    ],
)
def test_a_kind_of_failure_is_told_in_words(kind, sentence):
    """One that nobody knows is told as it is."""
    assert failure_sentence(kind) == sentence


def test_a_repeat_helps_where_the_cause_may_pass():
    """Of the 4xx only those which say so, or a token that can be mended; a page that moved stays."""
    helps = {kind for kind in FAILURE_KINDS if is_worth_repeating(kind)}
    assert set(FAILURE_KINDS) - helps == {"too_large", "redirect", "robots", "function"}
    statuses = [status for status in range(400, 500) if is_worth_repeating(f"http_{status}")]
    assert statuses == [401, 403, 408, 421, 425, 429]
    assert all(is_worth_repeating(f"http_{status}") for status in (204, 399, 500, 503, 599))


# --- When a number is tried again -------------------------------------------------------------------


NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("2", 2),
        ("120", 120),
        ("86400", 86400),
        ("007", 7),
        (" 5 ", 5),
        ("\t5", 5),
        ("999999999", 999999999),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30),
        ("Sunday, 22-Nov-26 12:00:30 GMT", 30),
        ("Sun Nov 22 12:00:30 2026", 30),
        ("Tue Dec  1 12:00:00 2026", 9 * 86400),
        ("Sun, 22 Nov 2026 11:59:59 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Sun, 22 Nov 2026 12:00:60 GMT", 59),
    ],
)
def test_D2_seconds_and_dates_are_read(value, seconds):
    """Whole seconds, and dates in all three forms; what is past is 0."""
    assert retry_after_seconds(value, now=NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None, "", " ", "abc", "-1", "+1", "1.5", "1e3", "１", "٣", "2, 2", "2 3", "0x10", "1_0",
        "9" * 10, "9" * 30, "x" * 10_000, "5\n", "5\0", "Infinity", "nan",
        "Sun, 22 Nov 2026 12:00:30", "Sun, 22 Nov 2026 12:00:30 +0000",
        "Sun, 22 Nov 2026 25:00:30 GMT", "Sun, 22 Nov 2026 12:00:99 GMT",
        "Sun, 31 Feb 2026 12:00:30 GMT", "Sun, 22 Nov 0000 12:00:30 GMT",
        "Sun, 22 nov 2026 12:00:30 GMT", "2026-11-22T12:00:30Z", "Sun Nov 22 12:00:30 26",
    ],
)  # fmt: skip
def test_D3_anything_else_is_none(value):
    """What cannot be believed is not guessed at."""
    assert retry_after_seconds(value, now=NOW) is None


@given(st.text() | st.from_regex(r"\A[A-Za-z]{3,9},? ?[0-9A-Za-z :-]{0,40}( GMT)?\Z"))
def test_D3_no_text_raises(value):
    """Any text gives seconds from 0 on, or None."""
    seconds = retry_after_seconds(value, now=NOW)
    assert seconds is None or seconds >= 0


@given(st.datetimes(timezones=st.just(UTC)))
def test_D2_a_wait_does_not_depend_on_anybody_s_clock(moment):
    """The three forms of one date mean the same, and count from the answer's own `Date`."""
    moment = moment.replace(microsecond=0)
    texts = [f"{moment:%a, %d %b} {moment.year:04} {moment:%H:%M:%S} GMT"]
    texts.append(f"{moment:%a %b} {moment.day:2} {moment:%H:%M:%S} {moment.year:04}")
    for text in texts:
        assert http_date(text, now=NOW) == moment
    answered = http_date(texts[0], now=NOW)
    assert answered is not None
    later = answered + timedelta(seconds=17) if moment.year < 9999 else answered
    text = f"{later:%a, %d %b} {later.year:04} {later:%H:%M:%S} GMT"
    expected = (later - answered).total_seconds()
    assert retry_after_seconds(text, now=answered) == expected


@pytest.mark.parametrize(
    ("text", "year"), [("26", 2026), ("76", 2076), ("77", 1977), ("00", 2000), ("99", 1999)]
)
def test_a_two_digit_year_is_at_most_fifty_years_ahead(text, year):
    """RFC 9110, section 5.6.7."""
    moment = http_date(f"Sunday, 22-Nov-{text} 12:00:30 GMT", now=NOW)
    assert moment is not None
    assert moment.year == year


@pytest.mark.parametrize("text", [None, "", "yesterday", "x" * 10_000])
def test_an_unreadable_date_is_none(text):
    """So that the time of day is taken instead."""
    assert http_date(text, now=NOW) is None
