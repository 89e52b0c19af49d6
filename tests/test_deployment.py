"""What deploy.sh asks Python: settings, service descriptions, tokens, control.json, trials."""

import io
import json
import re
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crawler.__main__ import main
from crawler.cli.deployment import shell_lines, told_lines
from crawler.deployment.cloud import DeploymentError
from crawler.deployment.cost import MONTHLY, PRICES, TIER_2_FACTOR
from crawler.deployment.deployment import (
    VARIABLES,
    function_environment,
    read_deployment,
)
from crawler.deployment.monitoring import (
    ABSENCE_SECONDS,
    LONGEST_WINDOW_SECONDS,
    count_conditions,
    render,
    windows_of,
)
from crawler.deployment.service import pinned_token, service_lines
from crawler.deployment.upload import check_own_function, stage
from crawler.errors import SettingsError
from crawler.settings.reading import read_settings
from crawler.settings.settings import SETTINGS
from crawler.store.control import Control, order_hold, with_stop, without_hold
from crawler.store.folder import FolderStore

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
REQUIRED = {
    "PROJECT_ID": "my-project",
    "REGION": "us-central1",
    "BUCKET": "my-songs",
    "CONTACT": "me@example.org",
    "RATE": "100",
}


class Stdin(io.TextIOWrapper):
    """Standard input that holds a text."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def assigned(lines) -> dict[str, str]:
    """Read assignments as a shell does."""
    pairs = (shlex.split(line) for line in lines)
    return dict(pair[0].split("=", 1) for pair in pairs if len(pair) == 1)


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_each_required_setting_is_asked_for(name):
    """What has no sensible default must be said, the rate and the contact too."""
    with pytest.raises(SettingsError, match=f"{name} is missing") as caught:
        read_deployment({k: v for k, v in REQUIRED.items() if k != name})
    assert caught.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROJECT_ID", "My Project"),
        ("REGION", "us-central1-a"),
        ("BUCKET", "gs://my-songs"),
        ("BUCKET", "A"),
        ("BUCKET", "a..b"),
        ("BUCKET", "goog-songs"),
        ("BUCKET", "my-google-songs"),
        ("CONTACT", "me"),
        ("CONTACT", "a;b@c"),
        ("RATE", "-1"),
        ("RATE", "0"),
        ("RATE", "nan"),
        ("SERVICE", "a-name-that-is-much-too-long"),
        ("SERVICE", "Upper"),
        ("PREFIX", "/x"),
        ("PREFIX", "a;b"),
        ("PREFIX", "a/../b"),
        ("PREFIX", "a*b"),
        ("MAX_INSTANCES", "0"),
        ("TIME_BUDGET_SECONDS", "1700"),
        ("BASE_URL", "http://example.org"),
        ("FUNCTION", "module"),
        ("SHARD_SONGS", "1500"),
        ("SCHEDULE", "@hourly"),
        ("SCHEDULE", "a b c d e"),
        ("SCHEDULE", "0 25 * * *"),
        ("TIME_ZONE", "Etc/UTC; rm -rf"),
        ("TIME_ZONE", "Europe/Atlantis"),
        ("CPU", "0.01"),
        ("CPU", "0.5"),
        ("CPU", "4"),
        ("FIELDS", "title,"),
        ("FIELDS", "title;id"),
        ("KEEP_RAW", "maybe"),
        ("MAX_RANGE", "0"),
        ("BASE_URL", "https://me:secret@example.org"),
        ("QUEUE", "a_b"),
        ("ALERT_EMAIL", "nobody"),
        ("LAST_SONG", "0"),
        ("MEMORY_MIB", "1024"),
        ("FUNCTION_REQUIREMENTS", "x.txt"),
    ],
)
def test_a_malformed_setting_is_named(name, value):
    """The message says which, what is wanted, and what came."""
    with pytest.raises(SettingsError, match=name):
        read_deployment(REQUIRED | {name: value})


@pytest.mark.parametrize(
    ("cpu", "most"), [("0.333", 512), ("0.583", 1024), ("1", 4096), ("2", 8192)]
)
def test_memory_is_bounded_by_the_cpu(cpu, most):
    """What the platform gives to a size is taken, and one MiB more is not."""
    settings = REQUIRED | {"CPU": cpu}
    assert read_deployment(settings | {"MEMORY_MIB": str(most)}).size.memory_mib == most
    with pytest.raises(SettingsError, match=f"{cpu} goes with {most} at most"):
        read_deployment(settings | {"MEMORY_MIB": str(most + 1)})


def test_fields_are_not_chosen_beside_an_own_function():
    """They are those of a Genius song; the message names the variable of deploy.env."""
    with pytest.raises(SettingsError, match="FIELDS goes without FUNCTION") as caught:
        read_deployment(REQUIRED | {"FIELDS": "title", "FUNCTION": "own:Source"})
    assert caught.value.field == "FIELDS"


def test_the_function_is_given_what_was_set_alone():
    """What is unset is left to the function's own defaults."""
    environment = function_environment(read_deployment(REQUIRED))
    for name in ("FIELDS", "KEEP_RAW", "MAX_RANGE", "LAST_SONG", "BASE_URL", "SHARD_SONGS"):
        assert f"CRAWLER_{name}" not in environment


def test_the_environment_wins_over_the_file(tmp_path):
    """An empty value counts as unset in both."""
    file = tmp_path / "deploy.env"
    file.write_text("RATE=5\nSERVICE=mine\nQUEUE=\n")
    deployment = read_deployment(REQUIRED | {"SERVICE": ""}, file)
    assert (deployment.rate, deployment.service, deployment.queue) == (100, "mine", None)


def test_a_line_of_the_file_that_sets_nothing_is_an_error(tmp_path):
    """A cap written without its sign is not passed over."""
    file = tmp_path / "deploy.env"
    file.write_text("SERVICE=mine\nMAX_REQUESTS_PER_DAY 5000\n")
    with pytest.raises(SettingsError, match=r"line 2 of deploy\.env must be NAME=value"):
        read_deployment(REQUIRED, file)


def test_an_unknown_name_in_the_file_is_an_error(tmp_path):
    """A slip is told with the nearest name; the environment is full of other people's names."""
    file = tmp_path / "deploy.env"
    for slip, meant in (("BUKET", "BUCKET"), ("CRAWLER_RATE", "RATE")):
        file.write_text(f"{slip}=5\n")
        with pytest.raises(SettingsError, match=f"did you mean {meant}\\?"):
            read_deployment(REQUIRED | {slip: "x"}, file)


def test_the_rate_is_divided_by_the_instances():
    """Four instances at a quarter of the rate each keep the rate, and what a site announces; the size fits one."""
    deployment = read_deployment(REQUIRED | {"MAX_INSTANCES": "4"})
    environment = function_environment(deployment)
    assert (environment["CRAWLER_RATE"], environment["CRAWLER_INSTANCES"]) == ("25", "4")
    assert deployment.size.cpu == 0.167


def test_what_the_function_is_given_it_can_read():
    """Every optional setting set: the names and values are settings of the function."""
    every = {
        "LAST_SONG": "9000",
        "MAX_REQUESTS_PER_DAY": "5000",
        "ENGINE": "requests",
        "FUNCTION": "own:fetch",
        "ROBOTS": "obey",
        "CPU": "1",
        "MEMORY_MIB": "1024",
        "KEEP_RAW": "true",
        "MAX_RANGE": "5000",
    }
    environment = function_environment(read_deployment(REQUIRED | every))
    settings = read_settings(environment | {"K_SERVICE": "x"})
    assert (settings.last_song, settings.max_requests_per_day) == (9000, 5000)
    assert (settings.function, settings.robots) == ("own:fetch", "obey")
    assert (settings.keep_raw, settings.max_range) == (True, 5000)
    chosen = read_deployment(REQUIRED | {"FIELDS": "title, primary_artist.name", "KEEP_RAW": "0"})
    settings = read_settings(function_environment(chosen), for_site=False)
    assert settings.fields == ("title", "primary_artist.name")
    assert not settings.keep_raw


def test_a_shell_reads_the_settings_back():
    """Blanks, quotes and semicolons survive; what is computed stands beside what was given."""
    deployment = read_deployment(REQUIRED | {"CONTACT": "https://example.org/it's?a=1&b=$HOME"})
    values = assigned(shell_lines(deployment, NOW))
    assert values["CONTACT"] == "https://example.org/it's?a=1&b=$HOME"
    assert values["CONTACT"] in values["ENVIRONMENT"]
    assert (values["SCHEDULE"], values["PERIOD_SECONDS"]) == ("*/30 * * * *", "1800")
    assert (values["CPU"], values["MEMORY_MIB"], values["ALERT_EMAIL"]) == ("0.333", "512", "")


@pytest.mark.parametrize(
    ("schedule", "period"),
    [("0 * * * *", "3600"), ("5 4 * * *", "86400"), ("0 9 * * 1", "604800")],
)
def test_alerts_wait_for_as_long_as_an_own_schedule_is_quiet(schedule, period):
    """A daily schedule does not alarm every day: its period is its own, not the computed one."""
    values = assigned(shell_lines(read_deployment(REQUIRED | {"SCHEDULE": schedule}), NOW))
    assert (values["SCHEDULE"], values["PERIOD_SECONDS"]) == (schedule, period)


@pytest.mark.parametrize(
    ("period", "windows"),
    [
        (1800, ("1800", "5400", "7200", "true", "true")),
        (21_600, ("21600", "45000", "66600", "true", "true")),
        (44_100, ("44100", "89940", "90000", "true", "false")),
        (86_400, ("86400", "89940", "90000", "true", "false")),
        (604_800, ("90000", "89940", "90000", "false", "false")),
    ],
)
def test_no_alert_looks_back_further_than_the_platform_can(period, windows):
    """That is 25 h; a schedule that is quiet for longer has no alert for a run that did not come."""
    assert tuple(windows_of(period).values()) == windows


@pytest.mark.parametrize("period", [60, 1800, 29_400, 44_099, 44_100, 86_400, 88_200, 604_800])
def test_alignment_and_duration_of_every_alert_fit(period):
    """Together they are at most 25 h, whatever the schedule, or Google refuses the alert."""
    values = {"SERVICE": "s", "CHANNEL": "c", **windows_of(period)}
    alerts = [file.content for file in render(ROOT / "deploy", values) if file.kind == "alerts"]
    conditions = [c["conditionThreshold"] for alert in alerts for c in alert["conditions"]]
    assert len(conditions) == count_conditions(ROOT / "deploy") == 8
    for condition in conditions:
        alignment = int(condition["aggregations"][0]["alignmentPeriod"].rstrip("s"))
        duration = int(condition["duration"].rstrip("s"))
        assert duration in (0, ABSENCE_SECONDS)
        assert alignment + duration <= LONGEST_WINDOW_SECONDS


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"LAST_SONG": "168000"}, "complete on 2026-11-22 12:28 UTC"),
        ({}, "set LAST_SONG to be told a date"),
        ({"SCHEDULE": "5 4 * * *"}, "no date is reckoned"),
    ],
)
def test_people_are_told_until_when_it_takes(settings, said):
    """A date where there is an end, and why not where there is none; the cost always."""
    told = "\n".join(told_lines(read_deployment(REQUIRED | settings), NOW, 8))
    assert said in told
    assert "US dollars a day" in told


SERVING = {
    "metadata": {"labels": {"fingerprint": "f00d"}},
    "status": {
        "url": "https://s.run.app",
        "traffic": [
            {"percent": 100, "revisionName": "s-2", "latestRevision": True},
            {"tag": "previous", "revisionName": "s-1"},
            {"tag": "trial", "revisionName": "s-3", "url": "https://trial---s.run.app"},
        ],
    },
}


def test_a_service_is_read_for_what_serves_and_what_served():
    """The fingerprint is that of the newest version, so it counts only when that serves."""
    assert assigned(service_lines(SERVING)) == {
        "URL": "https://s.run.app",
        "TRIAL_URL": "https://trial---s.run.app",
        "SERVING": "s-2",
        "PREVIOUS": "s-1",
        "FINGERPRINT_SERVED": "f00d",
    }
    pinned = json.loads(json.dumps(SERVING).replace("true", "false"))
    assert assigned(service_lines(pinned))["FINGERPRINT_SERVED"] == ""
    assert set(assigned(service_lines({})).values()) == {""}


def test_the_token_a_revision_wants_is_read():
    """Its version of the secret, or nothing where it wants none."""
    secret = {"name": "GENIUS_TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "3"}}}
    env = [{"name": "CRAWLER_RATE", "value": "1"}, secret]
    assert pinned_token({"spec": {"containers": [{"env": env}]}}, "GENIUS_TOKEN") == "3"
    assert pinned_token({"spec": {"containers": [{"env": env}]}}, "OTHER_TOKEN") == ""
    assert pinned_token({"spec": {"containers": [{"env": env[:1]}]}}, "GENIUS_TOKEN") == ""
    assert pinned_token({}, "GENIUS_TOKEN") == ""


def test_the_first_hold_stays_and_a_release_leaves_the_rest(tmp_path):
    """When it began and why is kept, whoever comes later; stop order and pause are not touched."""
    store = FolderStore(tmp_path)
    later = NOW.replace(hour=13)
    order_hold(store, "unauthorized", now=NOW)
    control = order_hold(store, "unauthorized", now=later)
    assert control.held_at == NOW
    released = without_hold(with_stop(control, "s", later, "me"))
    assert released == Control(stop_id="s", stop_ordered_at=later, stop_ordered_by="me")


def run(monkeypatch, capsys, *arguments: str, stdin: str | bytes = "") -> tuple[int, str, str]:
    """Run a step of `python -m crawler deployment`; returns its code and both outputs."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.stdin", Stdin(stdin))
    code = main(["deployment", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_settings_are_printed_for_the_shell_and_told_to_people(monkeypatch, capsys, tmp_path):
    """Stdout is the shell's, stderr is for people; a wrong setting is exit code 2."""
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    file = f"--file={tmp_path / 'deploy.env'}"
    code, out, err = run(monkeypatch, capsys, "settings", "deploy", file)
    assert (code, assigned(out.splitlines())["BUCKET"]) == (0, "my-songs")
    assert "at worst" in err
    assert run(monkeypatch, capsys, "settings", "status", file)[2] == ""
    monkeypatch.setenv("RATE", "much")
    assert run(monkeypatch, capsys, "settings", "deploy", file)[0] == 2


def test_steps_that_read_what_gcloud_prints(monkeypatch, capsys):
    """A service becomes assignments, a revision the version of its token."""
    assert (
        "URL=https://s.run.app"
        in run(monkeypatch, capsys, "service", stdin=json.dumps(SERVING))[1].splitlines()
    )
    assert run(monkeypatch, capsys, "pinned", "GENIUS_TOKEN", stdin="{}")[1] == "\n"


def test_steps_that_write_files(monkeypatch, capsys, tmp_path):
    """Staging and its fingerprint, as deploy.sh calls them."""
    out = str(tmp_path / "upload")
    names = "main.py\nrequirements.txt\ncrawler/cli/crawl.py\n"
    assert run(monkeypatch, capsys, "stage", out, "--function=", stdin=names)[0] == 0
    assert sorted(path.name for path in Path(out).iterdir()) == [
        "crawler",
        "main.py",
        "requirements.txt",
    ]
    assert run(monkeypatch, capsys, "stage", out, stdin="")[0] == 2
    first = run(monkeypatch, capsys, "fingerprint", out, "a")[1]
    assert first != run(monkeypatch, capsys, "fingerprint", out, "b")[1]


OWN = """
class Pages:
    name, schema, robots = "own", "1", True
    def __init__(self):
        import os
        self.site = os.environ["CRAWLER_BASE_URL"]
    def url(self, num): return f"{self.site}/{num}"
    def headers(self): return {}
    def info(self, num, body): return {}
def fetch(session, num, out): ...
"""


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"FUNCTION": "own_module:Pages", "KEEP_RAW": "1"}, None),
        ({"FUNCTION": "own_module:fetch"}, None),
        ({"FUNCTION": "own_module:fetch", "KEEP_RAW": "1"}, "KEEP_RAW"),
        ({"FUNCTION": "own_module:nothing"}, "own_module:nothing"),
    ],
)
def test_an_own_function_is_checked_with_the_environment_it_will_have(tmp_path, settings, named):
    """It finds its site's address, and what only a source can do is refused to a function."""
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "own_module.py").write_text(OWN)
    (folder / "crawler").symlink_to(ROOT / "crawler")
    python = Path(sys.executable)
    given = REQUIRED | {"BASE_URL": "https://example.org"} | settings
    environment = function_environment(read_deployment(given))
    if named is None:
        check_own_function(folder, environment, python)
    else:
        with pytest.raises(DeploymentError, match=named):
            check_own_function(folder, environment, python)


def test_E15_a_file_of_version_1_is_read_and_what_is_gone_is_told(capsys):
    """Every setting of it goes on; the choice of an engine is ignored, and said so."""
    deployment = read_deployment({}, ROOT / "tests/fixtures/v1/deploy.env")
    assert (deployment.project_id, deployment.rate) == ("my-project-123", 20)
    assert deployment.site.max_requests_per_day == 500_000
    assert "ENGINE" not in "".join(function_environment(deployment))
    assert "ENGINE in " in capsys.readouterr().err


def test_every_setting_that_is_deployed_is_one_of_the_file():
    """The list of settings is the one list: what the function can be told, deploy.env can say."""
    words = {row.deploy_name for row in SETTINGS.values() if row.deploy_name}
    assert words <= set(VARIABLES)
    assert "SOURCE" in words
    assert not {"STORE", "TOKEN", "URL", "INVOKER", "CA_FILE"} & set(VARIABLES)


SOURCE = """
name = "museum"
base_url = "https://museum.example"
url = "{base_url}/{song_num}"
token = "MUSEUM_TOKEN"
[headers]
Authorization = "Bearer {token}"
[fields]
title = "title"
"""


def test_a_source_says_which_variable_holds_its_token(tmp_path, monkeypatch):
    """The secret is bound to the name that the file declares; without one there is no secret."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "museum.toml").write_text(SOURCE)
    (tmp_path / "open.toml").write_text(
        SOURCE.split("token", maxsplit=1)[0] + '[fields]\ntitle = "title"\n'
    )
    given = REQUIRED | {"SOURCE": "museum.toml"}
    values = assigned(shell_lines(read_deployment(given), NOW))
    assert (values["TOKEN_VARIABLE"], values["SECRET"]) == ("MUSEUM_TOKEN", "genius-token")
    assert "CRAWLER_SOURCE=museum.toml" in values["ENVIRONMENT"]
    values = assigned(shell_lines(read_deployment(given | {"SOURCE": "open.toml"}), NOW))
    assert (values["TOKEN_VARIABLE"], values["SECRET"]) == ("", "none")
    assert read_deployment(REQUIRED).token_variable == "GENIUS_TOKEN"
    assert read_deployment(REQUIRED | {"SECRET": "none"}).token_variable is None


def test_a_declared_source_is_uploaded_under_its_own_name(tmp_path):
    """Where its pages are web pages, the parser goes up with it; a file elsewhere is refused."""
    (tmp_path / "own").mkdir()
    (tmp_path / "requirements.txt").write_text("requests==1 \\\n    --hash=sha256:0\n")
    html = 'format = "html"\n[fields]\ntitle = { css = "h1" }\n'
    (tmp_path / "own/museum.toml").write_text(
        SOURCE.split("[fields]", maxsplit=1)[0] + "[page]\n" + html
    )
    stage(["requirements.txt"], tmp_path, tmp_path / "out", source="own/museum.toml")
    assert (tmp_path / "out/own/museum.toml").read_text() == (
        tmp_path / "own/museum.toml"
    ).read_text()
    assert "selectolax" in (tmp_path / "out/requirements.txt").read_text()
    for elsewhere in ("/etc/museum.toml", "../museum.toml", "gone.toml"):
        with pytest.raises(SettingsError, match="no file of this folder"):
            stage(["requirements.txt"], tmp_path, tmp_path / "out", source=elsewhere)


@pytest.mark.parametrize(
    ("settings", "songs", "seconds"),
    [
        ({"RATE": "100"}, 10, 300),
        ({"RATE": "1"}, 10, 320),
        ({"RATE": "0.1"}, 10, 500),
        ({"RATE": "0.01"}, 4, 900),
        ({"RATE": "0.02", "MAX_INSTANCES": "2"}, 4, 900),
    ],
)
def test_a_trial_asks_for_no_more_than_its_time_allows(settings, songs, seconds):
    """Ten songs, or as many as a slow rate fetches within the time."""
    deployment = read_deployment(REQUIRED | settings)
    assert deployment.trial == (songs, seconds)
    assert songs / deployment.rate_per_instance < seconds


def test_a_rate_at_which_no_trial_ends_is_refused():
    """It is known before anything is touched."""
    with pytest.raises(SettingsError, match=r"RATE=0\.001 is too slow"):
        read_deployment(REQUIRED | {"RATE": "0.001"})


def test_what_it_costs_is_told_whole():
    """Conditions, token, job, image and status page stand beside the instances; tiers differ."""

    def total(**settings: str) -> tuple[float, str]:
        told = "\n".join(told_lines(read_deployment(REQUIRED | settings), NOW, 8))
        return float(re.findall(r"([\d.]+) a month", told)[0]), told

    dear, told = total(REGION="europe-west3", MAX_INSTANCES="4")
    for part in (
        "8 alert conditions",
        "tier 2",
        "token",
        "scheduler's job",
        "image",
        "status page",
    ):
        assert part in told
    assert dear > total(MAX_INSTANCES="4")[0] > total()[0]
    assert total()[0] - total(SECRET="none")[0] == pytest.approx(0.06, abs=0.011)


def test_more_instances_than_a_new_project_may_have_are_told():
    """They are not refused: an older project may have asked for more."""
    told = "\n".join(told_lines(read_deployment(REQUIRED | {"MAX_INSTANCES": "11"}), NOW, 8))
    assert "MAX_INSTANCES=11: a new project may have 10" in told


def test_the_prices_of_the_docs_are_those_of_the_code():
    """Each number of the table is reckoned with."""
    page = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    table = page[page.index("| what | price | unit |") : page.index("Storage of the songs")]
    written = {float(number) for number in re.findall(r"\| ([\d.]+) ", table)}
    assert written == {*PRICES.values(), *MONTHLY.values(), TIER_2_FACTOR}


@pytest.mark.parametrize(
    ("cpu", "memory", "generation"),
    [
        ("0.583", "512", "gen1"),
        ("1", "256", "gen1"),
        ("1", "512", "gen2"),
        ("0.167", "256", "gen1"),
        ("0.083", "128", "gen1"),
    ],
)
def test_a_small_instance_is_of_the_first_generation(cpu, memory, generation):
    """The second wants a whole vCPU and 512 MiB."""
    given = REQUIRED | {"CPU": cpu, "MEMORY_MIB": memory}
    assert assigned(shell_lines(read_deployment(given), NOW))["GENERATION"] == generation
