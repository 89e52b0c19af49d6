"""`deploy.sh` from end to end: the genuine gcloud against a server that records and remembers."""

import base64
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from crawler.cli.deployment import example_lines
from crawler.deployment.monitoring import render, windows_of
from crawler.store.control import decode_control
from tests.deploying import (
    BUILDER,
    CONTROL,
    INVOKER,
    JOB,
    PLACE,
    QUEUE,
    ROOT,
    RUNTIME,
    SERVICE,
    SETTINGS,
    TOKEN,
    Cloud,
    clone,
)
from tests.discovery import problems
from tests.recording_gcp import RecordingGcp, Request, gcloud_is_here
from tests.warm_gcloud import warm_gcloud, warm_steps

METRICS = "logging/projects/my-project/metrics"

pytestmark = [
    pytest.mark.timeout(600),  # a deployment is fifty commands, and each takes its time
    pytest.mark.once,
]

needs_gcloud = pytest.mark.skipif(
    not gcloud_is_here(), reason="gcloud is missing: no command of deploy.sh was run or linted"
)


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `python` for steps that starts at once."""
    with warm_steps(tmp_path_factory.mktemp("steps")) as python:
        yield python


@pytest.fixture(scope="module")
def gcloud(steps: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a gcloud that starts at once, and that `python`."""
    with warm_gcloud(tmp_path_factory.mktemp("gcloud") / "bin") as folder:
        (folder / "python").symlink_to(steps)
        yield folder


@pytest.fixture(scope="module")
def deployed(gcloud: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A first deployment; nobody changes it."""
    tree, folder = clone(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("config")
    with RecordingGcp() as gcp:
        gcp.tapes.clear()  # gcloud itself runs, and prints
        cloud = Cloud(gcp, tree, gcloud, folder)
        cloud.output = cloud.deploy()
        yield cloud


@contextlib.contextmanager
def copy_of(cloud: Cloud, folder: Path) -> Iterator[Cloud]:
    """Make a clone and a server at which the same stands; whatever is asked of it Google must know."""
    tree = folder / "tree"
    shutil.copytree(cloud.tree, tree, ignore=shutil.ignore_patterns("build"))
    with cloud.gcp.copy() as gcp:
        yield Cloud(gcp, tree, cloud.gcloud, folder / "config")
        assert {text for request in gcp.requests for text in problems(request)} == set()


@pytest.fixture
def cloud(deployed: Cloud, tmp_path: Path) -> Iterator[Cloud]:
    """A copy of a first deployment, to be changed at will."""
    with copy_of(deployed, tmp_path) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def updated(deployed: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A second version over the first, with another rate; nobody changes it."""
    with copy_of(deployed, tmp_path_factory.mktemp("updated")) as cloud:
        cloud.deploy(RATE="30")
        yield cloud


def position(requests: Sequence[Request], pattern: str, text: str = "") -> int:
    """Find the first request that matches, and whose body holds a text."""
    for number, request in enumerate(requests):
        line = f"{request.method} {request.host}{request.path}"
        if re.search(pattern, line) and text in str(request.body):
            return number
    raise AssertionError(f"no request {pattern} with {text!r}")


@needs_gcloud
def test_google_knows_every_request(deployed, updated):
    """Those of a first deployment and of a changed one; all other tests look at theirs, too."""
    for cloud in (deployed, updated):
        assert len(cloud.gcp.requests) > 30
        assert {text for request in cloud.gcp.requests for text in problems(request)} == set()


@needs_gcloud
def test_the_service_is_private(deployed):
    """Nobody but the invoker may call the function; the bucket is closed to the public."""
    path = f"run/{PLACE}/services/song-crawler"
    assert deployed.gcp.policies[path] == {"roles/run.invoker": [INVOKER]}
    bucket = deployed.gcp.resources["storage/b/my-songs"]
    assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    assert bucket["iamConfiguration"]["uniformBucketLevelAccess"] == {"enabled": True}
    assert bucket["softDeletePolicy"]["retentionDurationSeconds"] == str(7 * 86_400)
    assert "allUsers" not in deployed.gcp.state()
    assert "allAuthenticatedUsers" not in deployed.gcp.state()


@needs_gcloud
def test_each_account_has_the_least_roles(deployed):
    """Three accounts are made, and these are all the rights that anybody gets."""
    accounts = [n for n in deployed.gcp.resources if n.startswith("iam/")]
    assert len(accounts) == 3
    invoker = INVOKER.removeprefix("serviceAccount:")
    assert deployed.gcp.policies == {
        "cloudresourcemanager/projects/my-project": {"roles/run.builder": [BUILDER]},
        "storage/my-songs": {"roles/storage.objectUser": [RUNTIME]},
        "secretmanager/projects/my-project/secrets/genius-token": {
            "roles/secretmanager.secretAccessor": [RUNTIME]
        },
        QUEUE: {"roles/cloudtasks.enqueuer": [RUNTIME]},
        f"iam/projects/my-project/serviceAccounts/{invoker}": {
            "roles/iam.serviceAccountUser": [RUNTIME]
        },
        f"run/{PLACE}/services/song-crawler": {"roles/run.invoker": [INVOKER]},
    }


@needs_gcloud
def test_the_function_runs_as_told(deployed):
    """One request at a time, one instance, less time than the scheduler waits, its own account."""
    template = deployed.gcp.resources[SERVICE]["spec"]["template"]
    assert template["spec"]["containerConcurrency"] == 1
    assert template["spec"]["timeoutSeconds"] == 1740
    assert template["spec"]["serviceAccountName"] == RUNTIME.removeprefix("serviceAccount:")
    annotations = template["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/maxScale"] == "1"
    assert annotations["run.googleapis.com/execution-environment"] == "gen1"
    limits = template["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "0.167", "memory": "256Mi"}
    build = deployed.gcp.requests[position(deployed.gcp.requests, "builds:submit")].body
    assert build["buildpackBuild"]["functionTarget"] == "crawl_songs"
    assert build["serviceAccount"].endswith(BUILDER.removeprefix("serviceAccount:"))
    assert deployed.variables() == {
        "CRAWLER_STORE": "gs://my-songs/genius",
        "CRAWLER_CONTACT": "me@example.org",
        "CRAWLER_RATE": "20",
        "CRAWLER_TIME_BUDGET_SECONDS": "1680",
        "CRAWLER_LAST_SONG": "1000000",
        "THREADS": "256",
        "CRAWLER_QUEUE": f"{PLACE}/queues/shards",
        "CRAWLER_URL": "https://song-crawler-123456789012.us-central1.run.app",
        "CRAWLER_INVOKER": INVOKER.removeprefix("serviceAccount:"),
        "GOOGLE_CLOUD_PROJECT": "my-project",
        "GENIUS_TOKEN": {"key": "1", "name": "genius-token"},
    }


@needs_gcloud
def test_the_deployed_settings_are_settings(deployed):
    """Every variable that the function is given is one that it knows, within its bounds."""
    from crawler.settings.reading import read_settings

    given = {k: v for k, v in deployed.variables().items() if isinstance(v, str)}
    settings = read_settings(given | {"GENIUS_TOKEN": TOKEN, "K_SERVICE": "song-crawler"})
    assert settings.rate == 20


@needs_gcloud
def test_the_schedule_says_next_as_the_invoker(deployed):
    """Every half hour the scheduler sends mode next, with a token made out to the function alone."""
    job = deployed.gcp.resources[JOB]
    target = job["httpTarget"]
    assert json.loads(base64.b64decode(target["body"])) == {"mode": "next"}
    assert target["headers"] == {"Content-Type": "application/json"}
    url = deployed.gcp.resources[SERVICE]["status"]["url"]
    assert (target["httpMethod"], target["uri"]) == ("POST", f"{url}/")
    assert target["oidcToken"] == {
        "audience": url,
        "serviceAccountEmail": INVOKER.removeprefix("serviceAccount:"),
    }
    assert (job["schedule"], job["attemptDeadline"]) == ("*/30 * * * *", "1800s")
    assert job["retryConfig"]["retryCount"] == 3


@needs_gcloud
def test_the_queue_lets_through_as_many_as_there_are_instances(deployed):
    """Its concurrency is the number of instances, so that the rate is never exceeded."""
    queue = deployed.gcp.resources[QUEUE]
    assert queue["rateLimits"]["maxConcurrentDispatches"] == 1
    assert queue["retryConfig"]["maxAttempts"] == 20


@needs_gcloud
def test_the_token_goes_to_the_secret_and_nowhere_else(deployed):
    """The token is read from standard input; no other request and no output holds it."""
    version = deployed.gcp.resources[
        "secretmanager/projects/my-project/secrets/genius-token/versions/1"
    ]
    assert base64.b64decode(version["data"]) == TOKEN.encode()
    encoded = base64.b64encode(TOKEN.encode()).decode()
    holding = [r for r in deployed.gcp.requests if TOKEN in str(r) or encoded in str(r)]
    assert [r.path.rpartition(":")[2] for r in holding] == ["addVersion"]
    assert TOKEN not in deployed.output.stdout + deployed.output.stderr


@needs_gcloud
def test_the_upload_holds_the_function_alone(deployed):
    """main.py, requirements.txt and the function's part of crawler/; nothing that only people use."""
    name = next(name for name in deployed.gcp.objects if name.startswith("run-sources"))
    names = zipfile.ZipFile(io.BytesIO(deployed.gcp.objects[name])).namelist()
    package = [p.relative_to(deployed.tree) for p in (deployed.tree / "crawler").rglob("*")]
    people = {"__main__.py", "cli", "demo", "deployment", "doctor.py", "exports"}
    wanted = {path.as_posix() for path in package if path.suffix and path.parts[1] not in people}
    wanted = {name for name in wanted if "__pycache__" not in name}
    files = {name for name in names if not name.endswith("/")}
    assert files == wanted | {"main.py", "requirements.txt"}


@needs_gcloud
def test_what_it_means_is_said_first(deployed):
    """Before anything is made, people read what, how fast, until when, and the worst cost."""
    told = deployed.output.stderr
    assert re.search(r"complete on \d{4}-\d\d-\d\d \d\d:\d\d UTC at the earliest", told)
    assert re.search(r"at worst about \d+\.\d\d US dollars a day", told)
    assert told.index("at worst") < told.index("Created service account")


@needs_gcloud
def test_alerts_look_at_metrics_that_are_there(deployed):
    """Seven alerts and a dashboard are made; each alert has somebody to tell."""
    resources = deployed.gcp.resources
    alerts = [v for k, v in resources.items() if "/alertPolicies/" in k]
    assert len(alerts) == 7
    channel = "projects/my-project/notificationChannels/1"
    assert resources[f"monitoring/{channel}"]["labels"] == {"email_address": "me@example.org"}
    assert all(alert["notificationChannels"] == [channel] for alert in alerts)
    metrics = {k.rpartition("/")[2] for k in resources if "/metrics/" in k}
    looked_at = set(re.findall(r"logging.googleapis.com/user/([\w-]+)", str(resources)))
    assert looked_at == metrics
    assert sum("/dashboards/" in k for k in resources) == 1


@needs_gcloud
def test_a_second_deployment_changes_nothing(cloud):
    """It builds nothing, uploads nothing, and leaves what stands as it stood."""
    before = cloud.gcp.state()
    done = cloud.deploy(stdin="")
    assert "left alone" in done.stderr
    assert cloud.gcp.state() == before
    made = [r for r in cloud.gcp.changes() if re.search("builds|upload|addVersion", r.path)]
    assert made == []
    assert cloud.gcp.tried == []


@needs_gcloud
def test_a_new_version_is_tried_before_it_serves(updated):
    """Running crawls are told to stop, ten songs are fetched, and only then the traffic moves."""
    requests = updated.gcp.requests
    steps = [
        position(requests, "jobs/song-crawler-next:pause"),
        position(requests, "POST storage/upload/storage/v1/b/my-songs/o"),
        position(requests, "builds:submit"),
        position(requests, "PUT us-central1-run", "trial"),
        position(requests, "POST trial---served/"),
        position(requests, "PUT us-central1-run", "previous"),
        position(requests, "jobs/song-crawler-next:resume"),
    ]
    assert steps == sorted(steps)
    first = requests[steps[3]].body["spec"]["traffic"]
    assert {t.get("percent", 0) for t in first if t.get("tag") == "trial"} <= {0}
    _, authorization, body = updated.gcp.tried[0]
    assert authorization.startswith("Bearer ")
    assert body == {"start": 1, "stop": 11, "refresh_older_than_days": 0}
    served = updated.gcp.resources[SERVICE]["status"]["latestReadyRevisionName"]
    assert updated.traffic() == {"100": served, "previous": "song-crawler-00001-abc"}
    assert updated.gcp.resources[JOB]["state"] == "ENABLED"
    assert decode_control(updated.gcp.objects[CONTROL]).stop_id is not None


@needs_gcloud
def test_a_version_that_fails_its_trial_gets_no_traffic(cloud):
    """The old version goes on serving, and the schedule is taken up again."""
    cloud.gcp.trial = {"found": 0, "missing": 0, "requests": 4, "stopped_by": "unauthorized"}
    done = cloud.deploy(RATE="30", expect=1)
    assert "The old version keeps the traffic" in done.stderr
    assert cloud.traffic()["100"] == "song-crawler-00001-abc"
    assert cloud.gcp.resources[JOB]["state"] == "ENABLED"


@needs_gcloud
def test_a_schedule_that_somebody_stopped_stays_stopped(cloud):
    """Stop pauses schedule and queue and orders running crawls to end; a deployment respects it."""
    cloud.deploy("--stop")
    assert cloud.gcp.resources[JOB]["state"] == "PAUSED"
    assert cloud.gcp.resources[QUEUE]["state"] == "PAUSED"
    assert decode_control(cloud.gcp.objects[CONTROL]).stop_id is not None
    told = cloud.deploy(RATE="30").stderr.splitlines()[-1]
    assert (
        told == "Done. The schedule is paused, as it was before; ./deploy.sh --resume takes it up."
    )
    assert cloud.gcp.resources[JOB]["state"] == "PAUSED"
    assert cloud.gcp.resources[QUEUE]["state"] == "PAUSED"
    assert decode_control(cloud.gcp.objects[CONTROL]).stop_ordered_at is not None
    cloud.deploy("--resume")
    assert cloud.gcp.resources[JOB]["state"] == "ENABLED"
    assert cloud.gcp.resources[QUEUE]["state"] == "RUNNING"
    assert decode_control(cloud.gcp.objects[CONTROL]).stop_ordered_at is None


@needs_gcloud
def test_a_stop_is_ordered_whatever_else_fails(cloud):
    """Twice, or without a schedule: the crawls are told all the same."""
    cloud.deploy("--stop")
    before = decode_control(cloud.gcp.objects[CONTROL]).stop_id
    cloud.deploy("--stop")
    again = decode_control(cloud.gcp.objects[CONTROL]).stop_id
    del cloud.gcp.resources[JOB]
    cloud.deploy("--stop")
    assert len({before, again, decode_control(cloud.gcp.objects[CONTROL]).stop_id}) == 3


@needs_gcloud
def test_what_waits_in_the_queue_outlives_a_deployment(updated):
    """The queue rests while the crawls are told to stop; afterwards the stop is lifted."""
    assert updated.gcp.resources[QUEUE]["state"] == "RUNNING"
    control = decode_control(updated.gcp.objects[CONTROL])
    assert control.stop_id is not None
    assert control.stop_ordered_at is None
    verbs = [r.path.rpartition(":")[2] for r in updated.gcp.requests if "/queues/shards:" in r.path]
    assert [verb for verb in verbs if verb in ("pause", "resume")] == ["pause", "resume"]


@needs_gcloud
def test_resume_releases_what_a_refused_token_held(cloud):
    """Schedule and queue go on, and scheduled runs ask again."""
    held = b'{"canary":7,"held_at":"2026-11-22T00:00:00Z","held_by":"unauthorized"}'
    cloud.gcp.objects[CONTROL] = held
    cloud.gcp.resources[JOB]["state"] = "PAUSED"
    cloud.deploy("--resume")
    control = decode_control(cloud.gcp.objects[CONTROL])
    assert (control.held_at, control.canary) == (None, 7)
    assert cloud.gcp.resources[JOB]["state"] == "ENABLED"


@needs_gcloud
def test_a_new_token_is_tried_then_used_and_the_old_one_disabled(cloud):
    """After the switch the version of the secret that was used before opens nothing."""
    cloud.gcp.objects[CONTROL] = b'{"held_at":"2026-11-22T00:00:00Z","held_by":"unauthorized"}'
    cloud.deploy("--rotate-token", stdin="tok-new\n")
    versions = "secretmanager/projects/my-project/secrets/genius-token/versions/"
    assert cloud.gcp.resources[versions + "1"]["state"] == "DISABLED"
    assert cloud.gcp.resources[versions + "2"]["state"] == "ENABLED"
    assert cloud.variables()["GENIUS_TOKEN"] == {"key": "2", "name": "genius-token"}
    assert cloud.traffic()["100"] != "song-crawler-00001-abc"
    assert decode_control(cloud.gcp.objects[CONTROL]).held_at is None
    refused = cloud.deploy("--rollback", expect=1)
    assert "wants version 1 of genius-token, which is disabled" in refused.stderr


@needs_gcloud
def test_a_new_token_that_the_site_refuses_is_not_used(cloud):
    """The new version of the secret is disabled, the old one stays."""
    cloud.gcp.trial = {"found": 0, "missing": 0, "requests": 4, "stopped_by": "unauthorized"}
    cloud.deploy("--rotate-token", stdin="tok-new\n", expect=1)
    versions = "secretmanager/projects/my-project/secrets/genius-token/versions/"
    assert cloud.gcp.resources[versions + "1"]["state"] == "ENABLED"
    assert cloud.gcp.resources[versions + "2"]["state"] == "DISABLED"
    assert cloud.traffic()["100"] == "song-crawler-00001-abc"


@needs_gcloud
def test_rollback_goes_back_to_the_version_that_served_before(updated, tmp_path):
    """It is the one that a deployment marked, whatever revisions were made since."""
    assert updated.traffic()["100"] != "song-crawler-00001-abc"
    with copy_of(updated, tmp_path) as cloud:
        cloud.deploy("--rollback")
        assert cloud.traffic() == {"100": "song-crawler-00001-abc"}
        assert cloud.gcp.resources[JOB]["state"] == "ENABLED"


@needs_gcloud
def test_delete_takes_everything_but_the_songs(cloud):
    """What remains is what was listed: the bucket, the paused queue, what the build left.

    And what is another service's, however its name begins.
    """
    others = f"{METRICS}/song-crawler-two-runs"
    ours = cloud.gcp.resources[f"{METRICS}/song-crawler-runs"]
    filtered = ours["filter"].replace('"song-crawler"', '"song-crawler-two"')
    cloud.gcp.resources[others] = ours | {"name": "song-crawler-two-runs", "filter": filtered}
    done = cloud.deploy("--delete")
    kept = {name for name in cloud.gcp.resources if "operations" not in name}
    assert kept == {
        "storage/b/my-songs",
        "storage/b/run-sources-my-project-us-central1",
        f"artifactregistry/{PLACE}/repositories/cloud-run-source-deploy",
        QUEUE,
        others,
    }
    assert cloud.gcp.resources[QUEUE]["state"] == "PAUSED"
    assert cloud.gcp.policies["cloudresourcemanager/projects/my-project"] == {}
    for word in ("gs://my-songs", "queue shards", "cloud-run-source-deploy", "run-sources-"):
        assert word in done.stderr


@needs_gcloud
def test_delete_leaves_a_token_that_another_service_reads(cloud):
    """Its own right to read it goes; what remains is told."""
    secret, role = "secretmanager/projects/my-project/secrets/genius-token", "secretAccessor"
    policy = cloud.gcp.policies[secret]
    (name,) = [each for each in policy if each.endswith(role)]
    other = "serviceAccount:song-two-run@my-project.iam.gserviceaccount.com"
    cloud.gcp.policies[secret] = {name: [*policy[name], other]}
    done = cloud.deploy("--delete")
    assert secret in cloud.gcp.resources
    assert cloud.gcp.policies[secret] == {name: [other]}
    assert "the secret genius-token, which others may read" in done.stderr


@needs_gcloud
def test_delete_takes_the_songs_only_when_told(cloud):
    """With --with-data the bucket goes, too."""
    cloud.gcp.objects["my-songs/genius/songs/000000000000.jsonl.gz"] = b"x"
    cloud.deploy("--delete", "--with-data")
    assert "storage/b/my-songs" not in cloud.gcp.resources
    assert not [name for name in cloud.gcp.objects if name.startswith("my-songs/")]


@needs_gcloud
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"RATE": ""}, "RATE is missing"),
        ({"CONTACT": ""}, "CONTACT is missing"),
        ({"RATE": "0"}, "RATE must be"),
        ({"REGION": "moon"}, "REGION must be"),
        ({"CONTACT": "me"}, "CONTACT must be"),
        ({"LAST_SONG": "0"}, "LAST_SONG must be at least FIRST_SONG=1"),
        ({"MEMORY_MIB": "4096"}, "MEMORY_MIB=4096 needs more CPU"),
        ({"FUNCTION": "nothing:here", "SECRET": "none"}, "FUNCTION=nothing:here"),
        ({"TOKEN_FILE": "not-there"}, "TOKEN_FILE=not-there holds no usable token"),
        ({"TOKEN_FILE": "/dev/null"}, "TOKEN_FILE=/dev/null holds no usable token"),
        ({"SCHEDULE": "a b c d e"}, "SCHEDULE must be"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_settings_fail_before_anything_is_touched(gcloud, tmp_path, settings, named):
    """One line names the setting, and no request was sent."""
    tree = tmp_path / "tree"
    tree.mkdir()
    with RecordingGcp() as gcp:
        cloud = Cloud(gcp, clone(tree), gcloud, tmp_path / "config")
        told = cloud.deploy(expect=2, **settings).stderr
        assert named in told
        assert told.rstrip().endswith('See RUNBOOK.md, "A setting is wrong".')
        assert gcp.changes() == []


@needs_gcloud
def test_an_own_function_is_tried_where_only_the_upload_is_installed(gcloud, tmp_path):
    """One that needs a package nobody listed fails before anything is touched; the example does not.

    The example reads its site's address when it is made, and finds it where it is checked; so does
    its step 1 function. What was installed for the first is there for the others.
    """
    tree = tmp_path / "tree"
    tree.mkdir()
    own = clone(tree) / "own.py"
    own.write_text("import requests\nimport pandas\ndef fetch(session, num, out): ...\n")
    shutil.copy(ROOT / "examples/museum/museum.py", tree)
    shutil.copy(ROOT / "examples/museum/requirements.txt", tree / "museum.txt")
    settings = {
        "FUNCTION_REQUIREMENTS": "museum.txt",
        "BASE_URL": "https://museum.example",
        "SECRET": "none",
    }
    with RecordingGcp() as gcp:
        cloud = Cloud(gcp, tree, gcloud, tmp_path / "config")
        done = cloud.deploy(expect=1, FUNCTION="own:fetch", **settings)
        assert gcp.changes() == []
        assert "No module named 'pandas'" in done.stderr
        assert "FUNCTION=own:fetch cannot be used with what is uploaded" in done.stderr
        assert (tree / "build/deploy/upload/own.py").is_file()
        installed = next((tree / "build/deploy").glob("clean-*/complete")).stat().st_mtime_ns
        for name in ("MuseumPages", "request_object"):
            cloud.deploy(FUNCTION=f"museum:{name}", **settings)
            assert cloud.variables()["CRAWLER_FUNCTION"] == f"museum:{name}"
        kept = next((tree / "build/deploy").glob("clean-*/complete"))
        assert kept.stat().st_mtime_ns == installed


@needs_gcloud
def test_a_token_file_that_is_gone_is_not_missed_where_the_token_is_kept(cloud):
    """Who deploys again needs it no more."""
    assert "left alone" in cloud.deploy(TOKEN_FILE="gone").stderr


def dry_run(
    tree: Path, python: Path, *options: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Print the commands, with no gcloud on the path."""
    environ = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "HOME": "/nonexistent"}
    (tree / "bin").mkdir(exist_ok=True)
    gcloud = tree / "bin" / "gcloud"
    gcloud.write_text("#!/bin/sh\necho called >&2\nexit 99\n")
    gcloud.chmod(0o755)
    environ["PATH"] = f"{tree / 'bin'}:{environ['PATH']}"
    done = subprocess.run(
        [tree / "deploy.sh", "--dry-run", *options],
        env=environ | SETTINGS | settings,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "called" not in done.stderr
    return done


KEY = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
COMMANDS = ("--status", "--stop", "--resume", "--rotate-token", "--rollback", "--delete")


@pytest.mark.parametrize("option", ["--dry-run", *COMMANDS])
def test_a_machine_without_gcloud_is_told_so(tmp_path, option):
    """No command takes a gcloud that is not there for a service that is not; a dry run needs none."""
    tree, bin_folder = clone(tmp_path), tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("bash", "dirname", "cat", "awk", "sed", "mktemp", "rm", "head", "cut", "sort"):
        (bin_folder / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [tree / "deploy.sh", option],
        env=SETTINGS | {"PATH": str(bin_folder), "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    missing = "deploy.sh: gcloud is missing: cloud.google.com/sdk/docs/install says how to get it"
    is_dry = option == "--dry-run"
    assert (done.returncode, missing in done.stderr) == (not is_dry, not is_dry)


@pytest.fixture(scope="module")
def commands(steps: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every command of every dry run."""
    tree = clone(tmp_path_factory.mktemp("dry"))
    runs = [(), ("--again",), *((command,) for command in COMMANDS), ("--delete", "--with-data")]
    printed = [dry_run(tree, steps, *options).stdout.splitlines() for options in runs]
    every = {"SECRET_REPLICATION": "region", "NETWORK": "n", "SUBNET": "s", "KMS_KEY": KEY}
    printed.append(dry_run(tree, steps, **every, DEPLOYER=RUNTIME).stdout.splitlines())
    return sorted({line for lines in printed for line in lines})


def test_a_dry_run_prints_every_command_and_runs_none(commands, steps):
    """Each line is a gcloud command for the one project, and gcloud itself was never called."""
    asked = [line for line in commands if not line.startswith("gcloud ")]
    assert all(line.startswith(f"{steps} -m crawler deployment ") for line in asked)
    assert all("--project=my-project" in line for line in commands if line not in asked)
    assert len(commands) - len(asked) > 40


@pytest.mark.parametrize("options", [(), ("--again",), ("--stop",), ("--rollback",), ("--delete",)])
def test_a_dry_run_says_that_it_was_one(steps, tmp_path, options):
    """Its last words are that nothing was run; nobody reads "Done" for what was not done."""
    told = dry_run(clone(tmp_path), steps, *options).stderr
    assert told.splitlines()[-1] == "A dry run: the commands were printed, and none was run."
    for claim in ("Done", "remains", "serves again", "end within"):
        assert claim not in told


@needs_gcloud
def test_every_command_parses(commands, gcloud, tmp_path):
    """Gcloud's own linter takes each command of each dry run."""
    file = tmp_path / "commands.json"
    commands = [line for line in commands if line.startswith("gcloud ")]
    file.write_text(json.dumps([{"command_string": line} for line in commands]))
    found = run_gcloud(gcloud, tmp_path, "meta", "lint-gcloud-commands", f"--commands-file={file}")
    verdicts = json.loads(found)
    assert len(verdicts) == len(commands)
    wrong = {v["command_string"]: v["error_message"] for v in verdicts if not v["success"]}
    assert wrong == {}


@needs_gcloud
def test_the_linter_finds_a_wrong_flag(gcloud, tmp_path):
    """A flag that a command has not is told, so a pass means something."""
    command = "gcloud scheduler jobs update http x --location=y --headers=a=b"
    found = run_gcloud(
        gcloud, tmp_path, "meta", "lint-gcloud-commands", f"--command-string={command}"
    )
    assert [verdict["success"] for verdict in json.loads(found)] == [False]


def run_gcloud(gcloud: Path, folder: Path, *arguments: str) -> str:
    """Run gcloud without any account; returns its standard output."""
    environ = {"PATH": f"{gcloud}:{os.environ['PATH']}", "CLOUDSDK_CONFIG": str(folder / "config")}
    command = ["gcloud", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return done.stdout


def test_each_alert_names_its_paragraph():
    """What an alert says is to be read is a heading of the runbook."""
    runbook = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (.+)$", runbook, re.MULTILINE))
    named = set()
    files = render(ROOT / "deploy", {"SERVICE": "s", "CHANNEL": "", **windows_of(1)})
    for file in (file for file in files if file.kind == "alerts"):
        content = file.content["documentation"]["content"]
        named.add(re.findall(r'RUNBOOK\.md, "(.+?)":', content)[0])
    assert len(named) == 7
    assert named <= headings


def test_each_paragraph_says_what_stopped_and_what_to_run():
    """Every heading of the runbook is followed by the same three answers."""
    runbook = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
    for paragraph in runbook.split("\n## ")[1:]:
        for word in ("**What stopped**", "**Data**", "**Do**"):
            assert word in paragraph, paragraph[:60]


def test_a_changed_file_has_another_digest():
    """What stands is told from what is wanted by a digest inside."""
    values = {"SERVICE": "s", "CHANNEL": "", **windows_of(1)}
    one = {r.name: r.digest for r in render(ROOT / "deploy", values)}
    again = {r.name: r.digest for r in render(ROOT / "deploy", values)}
    other = {r.name: r.digest for r in render(ROOT / "deploy", values | {"PERIOD": "9"})}
    assert one == again
    assert one["s: the site refuses our token"] != other["s: the site refuses our token"]
    policy = next(r.content for r in render(ROOT / "deploy", values) if r.kind == "alerts")
    assert policy["notificationChannels"] == []


def test_the_example_is_written_from_the_code():
    """deploy.env.example lists every setting with its default."""
    assert (ROOT / "deploy.env.example").read_text() == "\n".join(example_lines()) + "\n"


@pytest.mark.parametrize("options", [["--destroy"], ["--stop", "--delete"]], ids="-".join)
def test_wrong_usage_is_refused(options):
    """An unknown option, and two commands at once: usage goes to stderr, and the exit code is 2."""
    done = subprocess.run(
        [ROOT / "deploy.sh", *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--rollback" in done.stderr
