"""The first deployment of a new project, against a Google that is late, inconsistent and refusing."""

import json
import os
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import requests

from crawler.deployment.cloud import Paragraph
from crawler.store.control import decode_control
from tests.deploying import CONTROL, INVOKER, JOB, QUEUE, ROOT, SERVICE, Cloud, clone
from tests.hostile_gcp import FOREVER, WORST, HostileGcp, Lags, random_lags
from tests.recording_gcp import (
    FEDERATED,
    PERSON,
    POOL,
    SERVED,
    Json,
    RecordingGcp,
    audience_of,
    gcloud_is_here,
    identity,
    refused,
)
from tests.warm_gcloud import warm_gcloud, warm_steps

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.once,
    pytest.mark.skipif(not gcloud_is_here(), reason="gcloud is missing, whose calls are played"),
]

RUNS = 30


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A deployment on a good day: its gcloud commands are recorded, its state is what is wanted."""
    folder = tmp_path_factory.mktemp("first_day")
    tree = clone(folder / "tree")
    with warm_gcloud(folder / "bin"), warm_steps(folder / "bin"), HostileGcp(Lags()) as gcp:
        cloud = Cloud(gcp, tree, folder / "bin", folder / "config")
        cloud.output = cloud.deploy()
        yield cloud


def standing(gcp: RecordingGcp) -> Json:
    """Return what must stand after a deployment: names, rights, states."""
    names = {name for name in gcp.resources if "operations" not in name}
    service = gcp.resources.get(SERVICE, {}).get("status", {})
    return {
        "names": sorted(names),
        "policies": gcp.policies,
        "queue": gcp.resources.get(QUEUE, {}).get("state"),
        "job": gcp.resources.get(JOB, {}).get("state"),
        "traffic": [
            (t.get("percent"), t.get("latestRevision")) for t in service.get("traffic", [])
        ],
        "is_tried": bool(gcp.tried),
    }


def on(first_day: Cloud, gcp: HostileGcp) -> Cloud:
    """Let another server be deployed to from the same clone."""
    return Cloud(gcp, first_day.tree, first_day.gcloud, first_day.folder)


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_first_deployment_needs_no_second_run(first_day, seed):
    """Whatever takes as long as it may, one command makes all that a good day makes."""
    lags = random_lags(random.Random(seed)) if seed else WORST
    with HostileGcp(lags, seed) as gcp:
        done = on(first_day, gcp).run()
        assert done.returncode == 0, f"{lags}\n{done.stderr}"
        assert standing(gcp) == standing(first_day.gcp)
        assert gcp.ran == []
    assert all(0 < wait <= 60 for wait in gcp.waits)
    assert len(re.findall("waiting for", done.stderr)) == len(gcp.waits)


DENIED = refused(403, "PERMISSION_DENIED", "it lacks a permission", "IAM_PERMISSION_DENIED")
POLICY = refused(400, "FAILED_PRECONDITION", "it is to create a secret in [global]")
MAX_SCALE = refused(400, "INVALID_ARGUMENT", "maxScale may not exceed 10")
TAKEN = refused(409, "", "the requested bucket name is not available")
BUSY = refused(429, "RESOURCE_EXHAUSTED", "quota exceeded")

WAITED = "Google does not come round"
FOR_EVER = {
    "api": (Lags(api=FOREVER), {}, "an API that was enabled a moment ago", WAITED),
    "account": (Lags(account=FOREVER), {}, "a new account to be known everywhere", WAITED),
    "role": (Lags(role=FOREVER), {}, "the role of the account that builds", WAITED),
    "metric": (Lags(metric=FOREVER), {}, "a new metric to be visible", WAITED),
    "address": (Lags(address=FOREVER), {}, "the right to call the new version", WAITED),
    "quota": (Lags(), {r"POST cloudtasks/.*/queues": BUSY}, "Google, which answers 429", WAITED),
    "alerts": (
        Lags(),
        {r"GET monitoring/.*/alertPolicies": DENIED},
        "it lacks a permission",
        "Google refuses whoever deploys",
    ),
    "project": (
        Lags(),
        {r"POST cloudresourcemanager/.*:setIamPolicy": DENIED},
        "have the right granted",
        "Google refuses whoever deploys",
    ),
    "secret": (
        Lags(),
        {r"POST secretmanager/.*/secrets": POLICY},
        "SECRET_REPLICATION=region",
        "The secret cannot be made",
    ),
    "instances": (
        Lags(),
        {r"POST us-central1-run/apis/.*/services": MAX_SCALE},
        "maxScale may not exceed 10",
        "Google refuses a value",
    ),
    "bucket": (
        Lags(),
        {r"POST storage/storage/v1/b": TAKEN},
        "set another BUCKET",
        "The bucket is taken",
    ),
}


@pytest.mark.parametrize("case", FOR_EVER)
def test_what_never_passes_ends_in_words_and_a_second_run_finishes(first_day, case):
    """At once where waiting does not help, after ten minutes where it might have."""
    lags, refuses, words, paragraph = FOR_EVER[case]
    with HostileGcp(lags) as gcp:
        gcp.refuses = dict(refuses)
        cloud = on(first_day, gcp)
        done = cloud.run()
        assert done.returncode == 1, done.stderr
        assert words in done.stderr
        assert done.stderr.rstrip().endswith(f'See RUNBOOK.md, "{paragraph}".')
        assert "Done." not in done.stderr
        assert (sum(gcp.waits) > 450) == (paragraph == WAITED)  # tries take their time, too
        assert sum(gcp.waits) <= 600
        gcp.lags, gcp.refuses = Lags(), {}
        done = cloud.run()
        assert done.returncode == 0, done.stderr
        assert but_for_versions(gcp) == but_for_versions(first_day.gcp)


def test_each_call_that_is_refused_for_ever_ends_in_words(first_day):
    """Whichever right is lacking: the run ends at that call, and says what to have granted."""
    asked = {f"{r.method} {r.host}{r.path}" for r in first_day.gcp.requests}
    calls = {re.sub(r"song-crawler-(?!next)[\w-]+$", "song-crawler-found", call) for call in asked}
    calls = {call for call in calls if not re.search(r"/token$|served/$", call)}
    assert len(calls) > 40
    for call in sorted(calls):
        with HostileGcp(Lags()) as gcp:
            gcp.refuses = {re.escape(call): DENIED}
            done = on(first_day, gcp).run()
            assert done.returncode == 1, call
            last = gcp.requests[-1]
            assert f"{last.method} {last.host}{last.path}" == call
            assert re.search(r'See RUNBOOK\.md, "(Google refuses whoever|The bucket)', done.stderr)
            assert "Done." not in done.stderr
            assert gcp.waits == []


def but_for_versions(gcp: RecordingGcp) -> Json:
    """Return what stands, whatever revisions there were before."""
    found = standing(gcp)
    names = [name for name in found["names"] if "/revisions/" not in name]
    return {**found, "names": names, "traffic": any(share == 100 for share, _ in found["traffic"])}


def test_a_right_that_comes_late_is_waited_for_in_the_trial(first_day):
    """The function answers that its store is not reached, and gets ten minutes for that to pass."""
    with HostileGcp(Lags()) as gcp:
        gcp.late = {"roles/storage.objectUser": 3000.0}
        done = on(first_day, gcp).run()
        assert done.returncode == 1
        assert "waiting for the function's right to its bucket" in done.stderr
        assert JOB not in gcp.resources
        gcp.late = {"roles/storage.objectUser": 300.0}
        done = on(first_day, gcp).run()
        assert done.returncode == 0, done.stderr


def test_a_token_that_may_not_be_read_yet_is_waited_for(first_day):
    """The revision is not ready for a reason that passes, and the deployment is made again."""
    with HostileGcp(Lags()) as gcp:
        gcp.late = {"roles/secretmanager.secretAccessor": 300.0}
        done = on(first_day, gcp).run()
        assert done.returncode == 0, done.stderr
        assert "waiting for the function's right to read the token" in done.stderr
        assert standing(gcp)["policies"] == standing(first_day.gcp)["policies"]


def test_a_refused_listing_makes_nothing(first_day):
    """One 403 while alerts are listed does not make seven more of them."""
    with HostileGcp(Lags()) as gcp:
        gcp.refuses = {r"GET monitoring/.*/alertPolicies": DENIED}
        assert on(first_day, gcp).run().returncode == 1
        assert not [r for r in gcp.requests if r.method == "POST" and "alertPolicies" in r.path]


def test_a_region_that_lacks_a_service_is_told_before_anything_is_made(first_day):
    """The services themselves say where they are; nothing but APIs was enabled by then."""
    with HostileGcp(Lags()) as gcp:
        gcp.regions = ["europe-west1", "us-east1"]
        done = on(first_day, gcp).run()
        assert done.returncode == 1
        assert "REGION=us-central1 has no Cloud Run and no Cloud Build" in done.stderr
        assert "us-east1" in done.stderr
        assert gcp.resources == {}


def test_the_token_is_kept_in_one_region_where_an_organisation_wants_that(first_day):
    """`SECRET_REPLICATION=region` is what a policy against keeping it everywhere lets through."""
    with HostileGcp(Lags()) as gcp:
        gcp.refuses = {r"POST us-central1-run/.*builds:submit": DENIED}  # far enough
        on(first_day, gcp).run(SECRET_REPLICATION="region")
        secret = gcp.resources["secretmanager/projects/my-project/secrets/genius-token"]
        assert secret["replication"] == {"userManaged": {"replicas": [{"location": "us-central1"}]}}


def test_a_deployment_without_a_token_is_refused_unless_told(first_day):
    """Nothing is touched then; `SECRET=none` says that the site wants none."""
    with HostileGcp(Lags()) as gcp:
        done = on(first_day, gcp).run(stdin="")
        assert done.returncode == 2
        assert "SECRET=none where the site wants none" in done.stderr
        assert gcp.changes() == []


def test_after_a_deletion_a_new_deployment_resumes_the_queue(first_day):
    """Orders that are taken are delivered: the queue runs, and no stop order stands."""
    with HostileGcp(Lags()) as gcp:
        cloud = on(first_day, gcp)
        cloud.deploy()
        cloud.deploy("--delete")
        assert gcp.resources[QUEUE]["state"] == "PAUSED"
        cloud.deploy()
        assert gcp.resources[QUEUE]["state"] == "RUNNING"
        assert decode_control(gcp.objects[CONTROL]).stop_ordered_at is None


def test_what_cannot_be_deleted_is_told(first_day):
    """All else is taken down; the exit code is not 0."""
    with HostileGcp(Lags()) as gcp:
        cloud = on(first_day, gcp)
        cloud.deploy()
        gcp.refuses = {r"DELETE cloudscheduler/.*": DENIED}
        done = cloud.run("--delete")
        assert done.returncode == 1
        assert "could not be deleted, see above: scheduler-jobs" in done.stderr
        assert SERVICE not in gcp.resources


def test_paragraphs_of_the_runbook_stand_for_all_ways_to_end():
    """Each message names a paragraph, what deploy.sh says itself too, and no paragraph has none."""
    runbook = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", runbook, re.MULTILINE)
    headings = headings[headings.index("Google refuses whoever deploys") :]
    script = (ROOT / "deploy.sh").read_text(encoding="utf-8")
    named = re.findall(r'die (?:\\\n\s+)?"(?:[^"\\]|\\.)*" (?:\\\n\s+)?"([^"]+)"', script)
    assert len(named) == script.count("die ") >= 6
    assert {*named, *get_args(Paragraph)} == set(headings)


WHO = {
    "a service account": "key",
    "an override of the credentials' file": "override",
    "a person": "person",
    "workload identity federation": "federation",
}


@pytest.mark.parametrize("who", WHO.values(), ids=WHO)
def test_whoever_deploys_can_make_the_trial(first_day, tmp_path, who):
    """A token is minted in the way that fits, before anything is built, and the function takes it."""
    with HostileGcp(Lags(role=60)) as gcp:
        cloud = Cloud(gcp, first_day.tree, first_day.gcloud, tmp_path)
        settings = credentials(cloud, who)
        done = cloud.run(**settings)
        assert done.returncode == 0, done.stderr
        audiences = {audience_of(authorization.split()[1]) for _, authorization, _ in gcp.tried}
        assert audiences == {PERSON if who == "person" else SERVED}
        if who == "federation":
            caller = f"iam/projects/my-project/serviceAccounts/{INVOKER.partition(':')[2]}"
            role = "roles/iam.serviceAccountOpenIdTokenCreator"
            assert gcp.policies[caller][role] == [settings["DEPLOYER"]]


def test_federation_that_may_not_borrow_the_caller_is_told_what_to_set(first_day, tmp_path):
    """Nothing is built that could not be tried."""
    with HostileGcp(Lags()) as gcp:
        cloud = Cloud(gcp, first_day.tree, first_day.gcloud, tmp_path)
        settings = credentials(cloud, "federation") | {"DEPLOYER": ""}
        done = cloud.run(**settings)
        assert done.returncode == 1
        assert "set DEPLOYER to the member that deploys" in done.stderr
        assert not [r for r in gcp.requests if "builds:submit" in r.path]


def credentials(cloud: Cloud, who: str) -> dict[str, str]:
    """Log somebody in, and return what `deploy.sh` is given for that."""
    gcp, folder = cloud.gcp, cloud.folder
    gcp.deployer = who
    environ = gcp.environment(folder)
    override = "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE"
    key = environ.pop(override)
    environ |= {"PATH": f"{cloud.gcloud}:{os.environ['PATH']}", "HOME": str(folder)}
    if who == "override":
        return {}
    if who == "federation":
        (folder / "subject").write_text("a token of another provider")
        (folder / "federation.json").write_text(json.dumps(federation(folder, gcp.url)))
        return {override: str(folder / "federation.json"), "DEPLOYER": FEDERATED}
    account = "deployer@my-project.iam.gserviceaccount.com" if who == "key" else "me@example.org"
    if who == "key":
        command = ["gcloud", "auth", "activate-service-account", f"--key-file={key}"]
    else:
        command = ["gcloud", "auth", "activate-refresh-token", account, "1//refresh"]
    subprocess.run([*command, "--quiet"], env=environ, check=True, capture_output=True)
    return {override: "", "CLOUDSDK_CORE_ACCOUNT": account}


def federation(folder: Path, url: str) -> Json:
    """Make the file that google-github-actions/auth makes, for a provider on this machine."""
    return {
        "type": "external_account",
        "audience": f"//{POOL}/providers/x",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{url}/sts",
        "token_info_url": f"{url}/introspect",
        "credential_source": {"file": str(folder / "subject")},
    }


def test_what_one_may_not_make_can_be_named(first_day):
    """Accounts, network and key of one's own are used; none is made, and deletion leaves them."""
    mine = {f"{role}_ACCOUNT": f"{role.lower()}@x.iam.gserviceaccount.com" for role in ROLES}
    more = {"NETWORK": "net", "SUBNET": "sub", "KMS_KEY": KEY}
    with HostileGcp(Lags()) as gcp:
        cloud = on(first_day, gcp)
        gcp.made |= {account.partition("@")[0]: 0.0 for account in mine.values()}
        there = {
            f"iam/projects/my-project/serviceAccounts/{a}": {"email": a} for a in mine.values()
        }
        gcp.resources |= there
        gcp.late = dict.fromkeys(("roles/run.builder", "roles/storage.objectUser"), 0.0)
        gcp.bound[("build", "roles/run.builder")] = 0.0
        gcp.names = {role: role for role in ("run", "build")}
        done = cloud.run(**mine, **more)
        assert done.returncode == 0, done.stderr
        assert {name for name in gcp.resources if name.startswith("iam/")} == set(there)
        assert "cloudresourcemanager/projects/my-project" not in gcp.policies
        template = gcp.resources[SERVICE]["spec"]["template"]
        assert template["spec"]["serviceAccountName"] == mine["RUN_ACCOUNT"]
        annotations = template["metadata"]["annotations"]
        assert '"net"' in annotations["run.googleapis.com/network-interfaces"]
        assert gcp.resources["storage/b/my-songs"]["encryption"] == {"defaultKmsKeyName": KEY}
        job = gcp.resources[JOB]["httpTarget"]["oidcToken"]
        assert job["serviceAccountEmail"] == mine["CALL_ACCOUNT"]


ROLES = ("RUN", "BUILD", "CALL")
KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"


def test_status_says_what_stands_and_what_does_not(first_day):
    """Before the first deployment as after it; what Google refuses is no "not there"."""
    with HostileGcp(Lags()) as gcp:
        cloud = on(first_day, gcp)
        gcp.enabled_at = 0.0
        assert cloud.deploy("--status").stdout.count("not there") == 5
        cloud.deploy()
        told = cloud.deploy("--status")
        assert "ENABLED" in told.stdout
        assert "status.json is not there" in told.stdout
        gcp.refuses = {r"GET cloudscheduler/.*": DENIED}
        assert cloud.run("--status").returncode == 1


@pytest.mark.parametrize("token", ["", "Bearer access", f"Bearer {identity('https://other')}"])
def test_the_function_is_served_to_nobody_without_a_token_for_it(token):
    """The recorder answers a trial as Cloud Run does: 401, unless the token is made out to it."""
    with RecordingGcp() as gcp:
        asked = requests.post(
            f"{SERVED}/", headers={"Authorization": token}, proxies={"http": gcp.url}, timeout=10
        )
        assert (asked.status_code, gcp.tried) == (401, [])
