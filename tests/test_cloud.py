"""How calls to Google are repeated: by status, with growing pauses, until a deadline, in words."""

import json
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from crawler.deployment.cloud import DEADLINE_SECONDS, Cloud, CloudError, passing
from crawler.deployment.gcloud import Done, Exchange, HttpLog, Refusal, refusal_of, run_gcloud
from crawler.deployment.service import newest_version, order, read_object, try_version
from crawler.store.control import decode_control
from tests.recording_gcp import RecordingGcp, refused

SERVICES = "/apis/serving.knative.dev/v1/namespaces/p/services"


class Clock:
    """A time that only waiting moves on."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("refusal", "awaited"),
    [
        (Refusal("POST /v1/x", 429), "429"),
        (Refusal("POST /v1/x", 503), "503"),
        (Refusal("POST /v1/x", 0), "nothing"),
        (Refusal("POST /v1/x", 409, "ABORTED"), "under way"),
        (Refusal("POST /v1/x", 409, "ALREADY_EXISTS"), None),
        (Refusal("POST /storage/v1/b", 409), None),
        (Refusal("POST /storage/v1/b", 409, "ABORTED"), "under way"),
        (Refusal("GET /v1/x", 403, "PERMISSION_DENIED", ("SERVICE_DISABLED",)), "API"),
        (Refusal("GET /v1/x", 403, "PERMISSION_DENIED"), None),
        (Refusal("GET /v1/x", 404), None),
        (Refusal("GET /v1/x", 401), None),
        (Refusal("POST /v1/x", 400), None),
        (Refusal("POST /v1/projects/p:setIamPolicy", 400), "account"),
        (Refusal("PUT /storage/v1/b/x/iam", 400), "account"),
        (Refusal("POST /v1/projects/p:setIamPolicy", 403), None),
        (Refusal("GET /v1/projects/-/serviceAccounts/a@b", 404), "account"),
        (Refusal("POST /v2/projects/p/locations/l/builds:submit", 400), "builds"),
        (
            Refusal("POST /v2/p/builds:submit", 403, "", ("IAM_PERMISSION_DENIED",)),
            None,
        ),
        (Refusal("POST /v3/projects/p/alertPolicies", 404), "metric"),
        (Refusal("PATCH /v3/projects/p/alertPolicies/1", 404), "metric"),
        (Refusal(f"POST {SERVICES}", 400), None),
        (Refusal(f"POST {SERVICES}", 403), "account"),
        (Refusal("GET /x", None, "SecretsAccessCheckFailed"), "token"),
        (Refusal("GET /x", None, "ContainerMissing"), None),
        (Refusal("TRIAL /", 403), "the right to call"),
        (Refusal("TRIAL /", 401), None),
        (Refusal("TRIAL /", None, "store_unavailable"), "bucket"),
    ],
    ids=lambda value: f"{value.status} {value.call}" if isinstance(value, Refusal) else "",
)
def test_what_passes_is_told_by_the_status_and_the_call(refusal, awaited):
    """What Google itself calls passing is waited for, all else is final."""
    found = passing(refusal)
    assert (found is None) if awaited is None else awaited in str(found)


@pytest.mark.parametrize(
    ("refusal", "paragraph"),
    [
        (Refusal("POST /storage/v1/b", 409), "The bucket is taken"),
        (Refusal("GET /storage/v1/b/songs", 403), "The bucket is taken"),
        (Refusal("POST /storage/v1/b", 403), "Google refuses whoever deploys"),
        (Refusal("GET /storage/v1/b/run-sources-p-r", 403), "Google refuses whoever deploys"),
        (Refusal("POST /v1/projects/p/secrets", 400), "The secret cannot be made"),
        (Refusal("GET /v1/x", 401), "Google refuses whoever deploys"),
        (Refusal("GET /v1/x", 400), "Google refuses a value"),
    ],
    ids=lambda value: f"{value.status} {value.call}" if isinstance(value, Refusal) else "",
)
def test_what_is_final_names_its_paragraph(refusal, paragraph):
    """Another BUCKET helps only where that one is somebody else's, not against a missing right."""
    assert f'See RUNBOOK.md, "{paragraph}".' in str(CloudError("it", refusal))


def test_pauses_grow_until_the_deadline(capsys):
    """The last try is at the deadline itself; each wait says what it is for."""
    clock = Clock()
    cloud = Cloud({}, "p", clock=clock, sleep=clock.sleep)
    refusal = Refusal("POST /v3/projects/p/alertPolicies", 404, "NOT_FOUND", (), "no such metric")
    tries = []

    def attempt() -> None:
        tries.append(clock.now)
        raise CloudError("an alert", refusal)

    with pytest.raises(CloudError, match="in vain for 10 minutes: a new metric") as ended:
        cloud.persist("an alert", attempt)
    assert clock.waits[:6] == [2, 4, 8, 16, 32, 60]
    assert max(clock.waits) == 60
    assert tries[-1] == DEADLINE_SECONDS
    assert "waiting for a new metric to be visible; again in 2 s" in capsys.readouterr().err
    assert 'See RUNBOOK.md, "Google does not come round".' in str(ended.value)


def test_what_is_final_is_not_repeated():
    """It ends with Google's words and what to do."""
    clock = Clock()

    def run(arguments: Sequence[str], _environ: object) -> Done:
        body = json.dumps(refused(403, "PERMISSION_DENIED", "no")[1])
        return Done(1, "", "ERROR: no", [Exchange("GET /v1/x", 403, body)])

    cloud = Cloud({}, "p", clock=clock, sleep=clock.sleep, run=run)
    with pytest.raises(CloudError, match="403 PERMISSION_DENIED: ERROR: no"):
        cloud.gcloud("tasks", "queues", "list")
    assert clock.waits == []


def test_what_an_earlier_try_made_counts_as_made():
    """A create whose answer was lost finds its own work the second time."""
    clock, answers = Clock(), [(503, "UNAVAILABLE"), (409, "ALREADY_EXISTS")]

    def run(arguments: Sequence[str], _environ: object) -> Done:
        status, code = answers.pop(0)
        body = json.dumps(refused(status, code, "")[1])
        return Done(1, "", "ERROR", [Exchange("POST /v1/x", status, body)])

    cloud = Cloud({}, "p", clock=clock, sleep=clock.sleep, run=run)
    assert cloud.gcloud("secrets", "create", "x") == ""
    assert clock.waits == [2]


LOG = """\
=======================
==== request start ====
uri: http://secretmanager.gcp.test/v1/projects/p/secrets/x?alt=json
method: GET
== headers start ==
== headers end ==
== body start ==
status: 200
== body end ==
==== request end ====
---- response start ----
status: 404
-- headers start --
-- headers end --
-- body start --
{"error": {"code": 404, "status": "NOT_FOUND", "message": "gone"}}
-- body end --
---- response end ----
----------------------
Deploying...
ERROR: (gcloud.secrets.describe) NOT_FOUND: gone
more of it"""


def test_calls_and_words_are_told_apart_in_the_log_of_gcloud():
    """The status comes from the answer, progress goes to people, the error is kept."""
    log = HttpLog()
    told = [line for line in LOG.splitlines() if log.is_for_people(line)]
    assert told == ["Deploying..."]
    assert [exchange[:2] for exchange in log.exchanges] == [("GET /v1/projects/p/secrets/x", 404)]
    refusal = Done(1, "", log.error, log.exchanges).refusal("")
    assert (refusal.status, refusal.code) == (404, "NOT_FOUND")
    assert refusal.message.endswith("NOT_FOUND: gone\nmore of it")


def test_a_call_without_an_answer_is_one_with_status_0():
    """A connection that failed leaves a request alone in the log."""
    log = HttpLog()
    lines = LOG.splitlines()
    for line in [*lines[:10], "ERROR: connection refused"]:
        log.is_for_people(line)
    assert log.exchanges[-1].status == 0
    assert Done(1, "", log.error, log.exchanges).refusal("").status == 0


def test_what_gcloud_prints_is_passed_on_and_its_log_is_kept(tmp_path, monkeypatch, capfd):
    """The genuine process: output apart from progress, and no file of gcloud's holds the log."""
    gcloud = tmp_path / "gcloud"
    lines = "\n".join(LOG.splitlines()[:20])
    gcloud.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"sys.stderr.write({lines!r} + '\\n')\nprint(os.environ['CLOUDSDK_CORE_LOG_HTTP'],"
        "os.environ['CLOUDSDK_CORE_DISABLE_FILE_LOGGING'], *sys.argv[1:])\n"
    )
    gcloud.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    done = run_gcloud(["a", "b"], {"PATH": str(tmp_path)})
    assert (done.code, done.output) == (0, "true true a b\n")
    assert capfd.readouterr().err == "Deploying...\n"


@pytest.mark.parametrize(
    ("text", "code", "reasons"),
    [
        (json.dumps(refused(403, "X", "m", "SERVICE_DISABLED")[1]), "X", ("SERVICE_DISABLED",)),
        ('{"error": "invalid_grant", "error_description": "m"}', "invalid_grant", ()),
        ('{"kind": "Status", "status": "Failure", "message": "m", "code": 404}', "", ()),
        ("<html>", "", ()),
        ("[]", "", ()),
    ],
)
def test_errors_are_read_in_each_form_that_google_has(text, code, reasons):
    """Whatever comes, there is a refusal with the status."""
    refusal = refusal_of("GET /x", 403, text)
    assert (refusal.status, refusal.code, refusal.reasons) == (403, code, reasons)


@pytest.fixture
def google(tmp_path):
    """A recording server, and it as a step sees it."""
    with RecordingGcp() as gcp:
        environ = gcp.environment(tmp_path)
        clock = Clock()

        def run(arguments: Sequence[str], _environ: object) -> Done:
            return Done(0, "access\n", "", [])

        cloud = Cloud(environ, "my-project", clock=clock, sleep=clock.sleep, run=run)
        cloud.session.proxies["http"] = gcp.url
        yield gcp, cloud


SECRET = "secretmanager/projects/my-project/secrets/t"


@pytest.mark.parametrize(
    ("states", "listed", "newest"),
    [
        ([], 0, None),
        (["ENABLED"], 1, "1"),
        (["ENABLED", "ENABLED"], 1, "2"),
        (["ENABLED", "ENABLED"], 0, "2"),
        (["ENABLED", "DISABLED"], 2, "1"),
        (["DISABLED", "DISABLED"], 1, None),
    ],
)
def test_the_newest_version_is_found_though_a_listing_lags(google, states, listed, newest):
    """What is not listed yet is read by its number, which is there at once."""
    gcp, cloud = google
    for number, state in enumerate(states, 1):
        name = f"{SECRET}/versions/{number}"
        gcp.resources[name] = {"name": name.removeprefix("secretmanager/"), "state": state}
    kept = dict(gcp.resources)
    gcp.under = lambda _prefix: list(kept.values())[:listed]
    assert newest_version(cloud, "t") == newest


def test_what_netrc_says_takes_no_token_s_place(google, tmp_path, monkeypatch):
    """Requests would send a password of ~/.netrc instead: to Google, and in the trial."""
    (tmp_path / "netrc").write_text("default login me password hush-hush\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    gcp, cloud = google
    gcp.objects["b/x"] = b"1"
    sent = []
    cloud.session.hooks["response"].append(
        lambda reply, **_: sent.append(reply.request.headers["Authorization"])
    )
    assert read_object(cloud, "gs://b/x")[0] == b"1"
    assert set(sent) == {"Bearer access"}

    class Trial(BaseHTTPRequestHandler):
        """A version that answers well, and keeps with which rights it was asked."""

        def do_POST(self) -> None:
            """Answer."""
            sent.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"stopped_by": "done", "found": 1, "missing": 0, "requests": 1}')

    with ThreadingHTTPServer(("127.0.0.1", 0), Trial) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try_version(cloud, url, token="minted", songs=range(1, 2), seconds=9, is_kept=False)
        server.shutdown()
    assert sent[-1] == "Bearer minted"


def test_an_order_keeps_what_somebody_else_wrote_meanwhile(google):
    """control.json is compared and swapped; what was released already is not written again."""
    gcp, cloud = google
    gcp.objects["b/p/control.json"] = b'{"canary":7}'
    assert order(cloud, "gs://b/p", "stop", by="me")
    control = decode_control(gcp.objects["b/p/control.json"])
    assert (control.canary, control.stop_ordered_by) == (7, "me")
    assert order(cloud, "gs://b/p", "go", by="me")
    assert not order(cloud, "gs://b/p", "go", by="me")
    gcp.objects["b/p/control.json"] = b"{"
    assert order(cloud, "gs://b/p", "stop", by="me")
    assert decode_control(gcp.objects["b/p/control.json"]).stop_id
