"""`deploy.sh` run from a clone of the project against a recording server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.recording_gcp import Json, RecordingGcp

ROOT = Path(__file__).parent.parent
TOKEN = "tok-marked-0815"
SETTINGS = {
    "PROJECT_ID": "my-project",
    "REGION": "us-central1",
    "BUCKET": "my-songs",
    "CONTACT": "me@example.org",
    "RATE": "20",
    "QUEUE": "shards",
    "LAST_SONG": "1000000",
}
KEPT = r"(HOME|LANG|TMPDIR)$|SSL_CERT|PIP_|UV_"
"""Variables that a deployment of the tests is left: what its installers need, no gcloud's."""
RUNTIME, BUILDER, INVOKER = (
    f"serviceAccount:song-crawler-{what}@my-project.iam.gserviceaccount.com"
    for what in ("run", "build", "call")
)
PLACE = "projects/my-project/locations/us-central1"
SERVICE = "run/namespaces/my-project/services/song-crawler"
JOB = f"cloudscheduler/{PLACE}/jobs/song-crawler-next"
QUEUE = f"cloudtasks/{PLACE}/queues/shards"
CONTROL = "my-songs/genius/control.json"


class Cloud:
    """A clone of the project, a gcloud and a recording server: what `deploy.sh` runs with."""

    output: subprocess.CompletedProcess[str]

    def __init__(self, gcp: RecordingGcp, tree: Path, gcloud: Path, folder: Path) -> None:
        self.gcp, self.tree, self.gcloud, self.folder = gcp, tree, gcloud, folder

    def run(
        self, *options: str, stdin: str = TOKEN + "\n", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `deploy.sh`; an empty setting is unset."""
        kept = {k: v for k, v in os.environ.items() if re.match(KEPT, k)}
        path = f"{self.gcloud}{os.pathsep}{os.environ['PATH']}"
        environ = kept | {"PATH": path, "PYTHON": str(self.gcloud / "python")} | SETTINGS
        environ |= self.gcp.environment(self.folder) | settings
        return subprocess.run(
            [self.tree / "deploy.sh", *options],
            env={name: value for name, value in environ.items() if value},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def deploy(
        self, *options: str, stdin: str = TOKEN + "\n", expect: int = 0, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `deploy.sh` and check how it ends."""
        done = self.run(*options, stdin=stdin, **settings)
        assert done.returncode == expect, done.stderr
        return done

    def traffic(self) -> dict[str, str]:
        """Return which revision has the traffic, and which one each tag."""
        targets = self.gcp.resources[SERVICE]["status"]["traffic"]
        return {t.get("tag") or str(t["percent"]): t["revisionName"] for t in targets}

    def variables(self, name: str = SERVICE) -> Json:
        """Read the environment of the newest version."""
        spec = self.gcp.resources[name]["spec"]
        spec = spec.get("template", {}).get("spec", spec)
        variables = spec["containers"][0]["env"]
        return {v["name"]: v.get("value") or v["valueFrom"]["secretKeyRef"] for v in variables}


def clone(folder: Path) -> Path:
    """Copy what is in the repository, and what lies about in a used clone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("main.py", "requirements.txt", "deploy.sh", ".gcloudignore", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("crawler", "deploy"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "crawler.env",
        "data/demo/songs/0.gz",
        "tests/test_x.py",
        "crawler/__pycache__/x.pyc",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not to be uploaded")
    return folder
