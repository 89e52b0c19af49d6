"""What one reply means for its number."""

import pytest

from crawler.frontier.verdict import FAILURE_KINDS, Reply, judge

WALL = {"cf-mitigated": "challenge", "content-type": "text/html"}


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
        ({"status": 408}, "retry", "http_408"),
        ({"status": 429}, "retry", "http_429"),
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
        ({"status": 520}, "retry", "http_520"),
        ({"status": 530}, "retry", "http_530"),
        ({"status": 421}, "retry", "http_421"),
        ({"status": 425}, "retry", "http_425"),
        ({"status": 505}, "failed", "http_505"),
        ({"status": 204}, "failed", "http_204"),
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
