"""The check against Google's discovery documents notices what Google would refuse, and our files pass."""

from pathlib import Path

import pytest

from crawler.deployment.monitoring import render, windows_of
from tests.discovery import problems
from tests.recording_gcp import Request

ROOT = Path(__file__).parent.parent
JOBS = "/v1/projects/p/locations/l/jobs"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Request("POST", "cloudscheduler", JOBS, {}, {"schedule": "* * * * *"}), None),
        (Request("POST", "cloudscheduler", "/v1/projects/p/jobs", {}, {}), "no method"),
        (Request("PUT", "cloudscheduler", JOBS, {}, {}), "no method"),
        (Request("POST", "cloudscheduler", JOBS, {"force": "1"}, {}), "force is unknown"),
        (Request("GET", "cloudscheduler", JOBS, {"pageSize": "x"}, b""), "is no integer"),
        (Request("POST", "cloudscheduler", JOBS, {}, {"cron": "x"}), "cron is unknown"),
        (Request("POST", "cloudscheduler", JOBS, {}, {"schedule": 5}), "is int, not string"),
        (
            Request("POST", "cloudscheduler", JOBS, {}, {"httpTarget": {"httpMethod": "SEND"}}),
            "is none of",
        ),
        (Request("POST", "storage", "/storage/v1/b", {}, {"name": "b"}), "project is missing"),
        (
            Request(
                "POST",
                "secretmanager",
                "/v1/projects/p/secrets",
                {"secretId": "s"},
                {"replication": {"userManaged": {}}},
            ),
            "replicas is required",
        ),
        (Request("POST", "us-central1-run", "/v1/projects/p/nothing", {}, {}), "no method"),
        (Request("POST", "trial---served", "/", {}, {"start": 1}), None),
    ],
)
def test_what_google_would_refuse_is_noticed(request_, problem):
    """Path, method, parameters, types, enums and required fields are looked at."""
    found = problems(request_)
    assert (found == []) if problem is None else any(problem in text for text in found), found


@pytest.mark.parametrize("period", [1800, 86_400, 604_800])
def test_the_files_for_monitoring_are_what_google_takes(period):
    """Every metric, alert and dashboard under deploy/ fits its schema, whatever the schedule."""
    values = {"SERVICE": "song-crawler", "CHANNEL": "projects/p/notificationChannels/1"}
    where = {
        "metrics": ("logging", "/v2/projects/p/metrics"),
        "alerts": ("monitoring", "/v3/projects/p/alertPolicies"),
        "dashboards": ("monitoring", "/v1/projects/p/dashboards"),
    }
    files = list(render(ROOT / "deploy", values | windows_of(period)))
    assert {file.kind for file in files} == set(where)
    for file in files:
        host, path = where[file.kind]
        assert problems(Request("POST", host, path, {}, file.content)) == []
