"""Settings: read once from environment, file and options, typed, and refused in clear words."""

import ast
import json
from pathlib import Path

import msgspec
import pytest

from crawler.errors import SettingsError
from crawler.settings.reading import is_loopback, read_settings, repeat_options
from crawler.settings.settings import SETTINGS, Secret, Settings, environment_of
from tests.settings_page import settings_page

ROOT = Path(__file__).parent.parent
GOOD = {"GENIUS_TOKEN": "tok-123", "CRAWLER_CONTACT": "me@example.org"}


def refusal(environ, **more) -> SettingsError:
    """Read settings that must be refused."""
    with pytest.raises(SettingsError) as caught:
        read_settings(environ, **more)
    return caught.value


def test_defaults_are_those_of_the_table():
    """With a token and a contact alone, everything else has its default."""
    settings = read_settings(GOOD)
    assert settings == Settings(token=Secret("tok-123"), contact="me@example.org")
    assert (settings.store, settings.rate, settings.connections) == ("data/genius", 100.0, 64)
    assert (settings.ca_file, settings.time_budget_seconds) == (None, 1680.0)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("CRAWLER_RATE", "0", "rate", 0.0),
        ("CRAWLER_RATE", "0.5", "rate", 0.5),
        ("CRAWLER_RATE", "10000", "rate", 10_000.0),
        ("CRAWLER_CONNECTIONS", "1", "connections", 1),
        ("CRAWLER_CONNECTIONS", "900", "connections", 900),
        ("CRAWLER_FUNCTION", "my.module:step", "function", "my.module:step"),
        ("CRAWLER_STORE", "gs://my-bucket/genius", "store", "gs://my-bucket/genius"),
        ("CRAWLER_STORE", "/var/songs", "store", "/var/songs"),
        ("CRAWLER_BASE_URL", "http://127.8.9.1:80", "base_url", "http://127.8.9.1:80"),
        ("CRAWLER_BASE_URL", "http://[::1]:8080", "base_url", "http://[::1]:8080"),
        ("CRAWLER_CONTACT", "https://example.org/me", "contact", "https://example.org/me"),
        ("CRAWLER_KEEP_RAW", "1", "keep_raw", True),
        ("CRAWLER_KEEP_RAW", "0", "keep_raw", False),
        ("CRAWLER_FIELDS", "title, album.name", "fields", ("title", "album.name")),
        ("CRAWLER_FIRST_SONG", "0", "first_song", 0),
        ("CRAWLER_SHARD_SONGS", "1000", "shard_songs", 1000),
        ("CRAWLER_ROBOTS", "obey", "robots", "obey"),
        ("GENIUS_ACCESS_TOKEN", "other", "token", Secret("tok-123")),
    ],
)
def test_a_variable_becomes_a_typed_field(name, text, field, value):
    """The text of a variable arrives as a value of its field's type."""
    assert getattr(read_settings({**GOOD, name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CRAWLER_RATE", "fast"),
        ("CRAWLER_RATE", "-1"),
        ("CRAWLER_RATE", "nan"),
        ("CRAWLER_RATE", "10001"),
        ("CRAWLER_CONNECTIONS", "0"),
        ("CRAWLER_CONNECTIONS", "901"),
        ("CRAWLER_CONNECTIONS", "1.5"),
        ("CRAWLER_CONNECTIONS", "٦٤"),
        ("CRAWLER_CA_FILE", "no/such.pem"),
        ("CRAWLER_FUNCTION", "module"),
        ("CRAWLER_FUNCTION", "module:name\n"),
        ("CRAWLER_STORE", "data\nsongs"),
        ("CRAWLER_STORE", "a\nb"),
        ("CRAWLER_CONTACT", "nobody"),
        ("CRAWLER_CONTACT", "me@example.org\r\nX: y"),
        ("CRAWLER_TIME_BUDGET_SECONDS", "0"),
        ("CRAWLER_MAX_RANGE", "0"),
        ("CRAWLER_FIRST_SONG", "-1"),
        ("CRAWLER_LAST_SONG", "1000000000001"),
        ("CRAWLER_LAST_SONG", "0"),
        ("CRAWLER_ROBOTS", "yes"),
        ("CRAWLER_MAX_REQUESTS_PER_DAY", "0"),
        ("CRAWLER_FIELDS", "title,,url"),
        ("CRAWLER_KEEP_RAW", "2"),
        ("CRAWLER_QUEUE", "my-queue"),
        ("CRAWLER_INVOKER", "somebody"),
        ("CRAWLER_SHARD_SONGS", "1500"),
        ("CRAWLER_BASE_URL", "ftp://example.org"),
        ("CRAWLER_BASE_URL", "https://"),
        ("CRAWLER_BASE_URL", "https://user:pw@example.org"),
        ("CRAWLER_BASE_URL", "https://example.org?x=1"),
        ("CRAWLER_BASE_URL", "https://example.org#x"),
        ("CRAWLER_BASE_URL", "https://example.org:99999"),
        ("CRAWLER_BASE_URL", "https://exa mple.org"),
        ("CRAWLER_URL", "https://x@example.org"),
    ],
)
def test_a_malformed_value_is_refused_by_name(name, text):
    """A value out of its bounds is refused with the variable's name in code, field and message."""
    error = refusal({**GOOD, name: text})
    assert error.field == name
    assert error.code == f"{name.removeprefix('CRAWLER_').lower()}_malformed"
    assert str(error).startswith(f"{name} must be ")


def test_a_message_says_what_came_and_what_was_wanted():
    """Field, bounds and value stand in one sentence."""
    error = refusal({**GOOD, "CRAWLER_RATE": "10001"})
    assert str(error) == ("CRAWLER_RATE must be a number, at least 0, at most 10,000, got '10001'")


def test_a_message_never_says_that_a_text_must_be_text():
    """What is wrong with a text is its form, so the form is named."""
    error = refusal({**GOOD, "CRAWLER_STORE": "a\0b"})
    assert str(error) == "CRAWLER_STORE must be gs://bucket/prefix or a folder, got 'a\\x00b'"
    forms = {row.variable: row.wanted for row in SETTINGS.values() if row.type in ("text", "names")}
    checked_elsewhere = {"CRAWLER_BASE_URL", "CRAWLER_URL"}
    assert {name for name, form in forms.items() if form in ("text", "names")} == checked_elsewhere


def test_an_unknown_name_is_refused_with_the_nearest_known_one():
    """A misspelt setting is an error, not a silent default."""
    error = refusal({**GOOD, "CRAWLER_RATES": "5"})
    assert (error.code, error.field) == ("setting_unknown", "CRAWLER_RATES")
    assert "did you mean CRAWLER_RATE?" in str(error)


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (None, "token_missing"),
        ("", "token_missing"),
        ("  ", "token_missing"),
        ("to\nken", "token_malformed"),
        ("token\n", "token_malformed"),
        ("to\0ken", "token_malformed"),
        ("tökén-value", "token_malformed"),
        ("two words", "token_malformed"),
    ],
    ids=repr,
)
def test_G2_a_token_that_no_header_can_carry_is_refused(token, code):
    """A missing, empty or unsendable token stops the start, and is not shown."""
    environ = {"CRAWLER_CONTACT": "me@example.org"}
    error = refusal(environ if token is None else {**environ, "GENIUS_TOKEN": token})
    assert (error.code, error.field) == (code, "GENIUS_TOKEN")
    assert not (token or "").strip() or token not in str(error)


def test_the_second_name_of_the_token_is_read_too():
    """`GENIUS_ACCESS_TOKEN`, the name other tools use, serves as well."""
    environ = {"CRAWLER_CONTACT": "me@example.org", "GENIUS_ACCESS_TOKEN": "abc"}
    assert read_settings(environ).token == Secret("abc")


def test_a_function_of_ones_own_needs_no_token():
    """The token belongs to the built-in source alone."""
    environ = {"CRAWLER_CONTACT": "me@example.org", "CRAWLER_FUNCTION": "mine:step"}
    assert read_settings(environ).token is None


def test_looking_at_the_store_needs_neither_token_nor_contact():
    """Commands that send nothing to the site do without what the site wants."""
    assert read_settings({}, for_site=False).contact is None


def test_a_contact_is_required_unless_the_site_is_on_loopback():
    """Whoever is crawled must be able to reach somebody."""
    assert refusal({"GENIUS_TOKEN": "t"}).code == "contact_missing"
    at_home = {"GENIUS_TOKEN": "t", "CRAWLER_BASE_URL": "http://localhost:8000"}
    assert read_settings(at_home).contact is None


@pytest.mark.parametrize(
    "url",
    ["http://api.genius.com", "http://127.0.0.1.example.org", "http://10.0.0.1", "http://127.1"],
)
def test_plain_http_is_for_loopback_only(url):
    """No token travels in the clear."""
    assert refusal({**GOOD, "CRAWLER_BASE_URL": url}).code == "base_url_insecure"


def test_a_password_in_an_address_is_not_repeated():
    """The message about a URL with a user name in it does not show it."""
    error = refusal({**GOOD, "CRAWLER_BASE_URL": "https://me:hunter2@example.org"})
    assert "hunter2" not in str(error)


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:80", True),
        ("http://127.255.255.254", True),
        ("http://[::1]", True),
        ("http://LOCALHOST", True),
        ("https://api.genius.com", False),
        ("http://[::2]", False),
        ("http://localhost.example.org", False),
    ],
)
def test_loopback_is_this_machine_only(url, loopback):
    """Only addresses that cannot leave the machine count as loopback."""
    assert is_loopback(url) is loopback


def test_the_store_is_required_in_the_cloud():
    """A folder that vanishes with the instance is nobody's wish."""
    error = refusal({**GOOD, "K_SERVICE": "songs"})
    assert (error.code, error.field) == ("store_missing", "CRAWLER_STORE")
    assert read_settings({**GOOD, "K_SERVICE": "songs", "CRAWLER_STORE": "gs://bucket"}).store


def test_a_queue_needs_to_know_where_to_call_and_as_whom():
    """A queue without an address or an account is refused, except on loopback."""
    queue = {**GOOD, "CRAWLER_QUEUE": "projects/p/locations/l/queues/q"}
    assert refusal(queue).code == "url_missing"
    assert refusal({**queue, "CRAWLER_URL": "https://songs.run.app"}).code == "invoker_missing"
    assert read_settings({**queue, "CRAWLER_URL": "http://127.0.0.1:8080"}).invoker is None
    complete = {"CRAWLER_URL": "https://songs.run.app", "CRAWLER_INVOKER": "a@b.example"}
    assert read_settings(queue | complete).queue


def test_environment_wins_over_the_file_and_options_over_both(tmp_path):
    """Of three places the nearest to the user decides."""
    env_file = tmp_path / "crawler.env"
    env_file.write_text(
        "# mine\nGENIUS_TOKEN=from-${HOME}\nCRAWLER_RATE=1\nexport CRAWLER_CONNECTIONS=2\n"
        "CRAWLER_CONTACT=file@example.org\n"
    )
    environ = {"CRAWLER_RATE": "3", "HOME": "/root", "CRAWLER_CONTACT": ""}
    settings = read_settings(environ, env_file=env_file, connections=7)
    assert (settings.rate, settings.connections) == (3.0, 7)
    assert settings.contact == "file@example.org"
    assert settings.token == Secret("from-${HOME}")


def test_the_process_s_token_wins_under_either_name(tmp_path):
    """A token in the environment is not overruled by the file's, whatever it is called there."""
    env_file = tmp_path / "crawler.env"
    env_file.write_text("GENIUS_TOKEN=file\nCRAWLER_CONTACT=file@example.org\n")
    settings = read_settings({"GENIUS_ACCESS_TOKEN": "process"}, env_file=env_file)
    assert settings.token == Secret("process")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    """Broken bytes in the file are said to be in the file."""
    env_file = tmp_path / "crawler.env"
    env_file.write_bytes(b"CRAWLER_RATE=\xff\n")
    assert refusal(GOOD, env_file=env_file).code == "env_file_unreadable"


def test_a_file_of_settings_that_cannot_be_looked_for_is_none(tmp_path):
    """As in a directory that may not be searched; an overlong name stands for it here."""
    assert read_settings(GOOD, env_file=tmp_path / ("x" * 300)) == read_settings(GOOD)


def test_a_misspelt_name_in_the_file_is_refused(tmp_path):
    """The file is held to the same names."""
    env_file = tmp_path / "crawler.env"
    env_file.write_text("CRAWLER_CONECTIONS=5\n")
    assert refusal(GOOD, env_file=env_file).code == "setting_unknown"


@pytest.mark.parametrize("line", ["CRAWLER_RATE 3", "CRAWLER_RATE", "CRAWLER_RATE: 3", "= 3"])
def test_a_line_that_sets_nothing_is_refused(tmp_path, line):
    """A rate that cannot be read does not become a hundred a second; the line itself is not shown."""
    env_file = tmp_path / "crawler.env"
    env_file.write_text(f"# mine\n\nGENIUS_TOKEN=t\n{line}\n")
    error = refusal(GOOD, env_file=env_file)
    assert (error.code, str(error)) == (
        "env_file_malformed",
        "line 4 of crawler.env must be NAME=value",
    )


def test_an_option_may_take_a_limit_away():
    """None as an option means none: the command line runs without a time budget."""
    assert read_settings(GOOD, time_budget_seconds=None).time_budget_seconds is None
    assert refusal(GOOD, rate=-1).code == "rate_malformed"


def test_G1_the_token_is_shown_by_nothing():
    """No repr, text, JSON or table of settings holds the token."""
    settings = read_settings(GOOD)
    shown = f"{settings} {settings!r} {settings.token} {vars(Settings)} {settings_page()}"
    assert "tok-123" not in shown
    assert "***" in shown
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    with pytest.raises(TypeError):
        json.dumps(settings.token)
    assert settings.token is not None
    assert settings.token.reveal() == "tok-123"
    assert {settings.token} == {Secret("tok-123")}


def test_settings_cannot_be_changed():
    """What was read at the edge stays as it was read."""
    with pytest.raises(AttributeError):
        read_settings(GOOD).rate = 5  # type: ignore[misc]


def test_what_a_setting_is_written_as_is_read_back():
    """Settings given to another process, such as the deployed function, arrive as they were."""
    given = {
        "token": "tok-123",
        "contact": "me@example.org",
        "rate": 2.5,
        "fields": ("title", "album.name"),
        "keep_raw": True,
        "last_song": None,
        "connections": 7,
    }
    assert read_settings(environment_of(given)) == read_settings({}, **given)
    assert environment_of({"rate": 100.0, "keep_raw": False, "last_song": None}) == {
        "CRAWLER_RATE": "100",
        "CRAWLER_KEEP_RAW": "0",
    }


def test_all_that_is_wrong_is_told_at_once():
    """Mistakes come before what is missing, and each has its sentence."""
    error = refusal({"CRAWLER_RATE": "fast", "CRAWLER_STOER": "x"}, connection=5)
    assert [
        problem.field for problem in (error, *error.also) if isinstance(problem, SettingsError)
    ] == [
        "CRAWLER_STOER",
        "connection",
        "CRAWLER_RATE",
        "GENIUS_TOKEN",
        "CRAWLER_CONTACT",
    ]
    assert len(error.messages) == 5
    assert str(error) == "; ".join(error.messages)


@pytest.mark.parametrize(
    "name",
    [
        "CRAWLER_SERVICE_HOST",
        "CRAWLER_SERVICE_PORT",
        "CRAWLER_SERVICE_PORT_HTTP",
        "CRAWLER_PORT",
        "CRAWLER_PORT_8080_TCP",
        "CRAWLER_PORT_8080_TCP_PROTO",
        "CRAWLER_PORT_8080_TCP_ADDR",
        "CRAWLER_PORT_53_UDP_PORT",
        "CRAWLER_PAGE_SERVICE_HOST",
    ],
)
def test_H2_what_kubernetes_sets_for_a_service_named_crawler_is_left_alone(name):
    """A pod beside such a service starts, with settings as if the variables were not there."""
    assert read_settings({**GOOD, name: "tcp://10.0.0.1:8080"}) == read_settings(GOOD)


@pytest.mark.parametrize("name", ["CRAWLER_PORTS", "CRAWLER_SERVICE", "CRAWLER_PORT_8080"])
def test_H2_a_typo_that_looks_like_kubernetes_is_refused(name):
    """Only the names that Kubernetes makes are let through."""
    assert refusal({**GOOD, name: "1"}).code == "setting_unknown"


def test_E15_a_setting_that_is_gone_is_told_and_ignored(caplog):
    """What version 1.0 was deployed with goes on, and its owner reads what has no effect."""
    settings = read_settings({**GOOD, "CRAWLER_ENGINE": "requests"}, engine="curl")
    assert settings == read_settings(GOOD)
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(" is ignored")[0] for text in told] == ["CRAWLER_ENGINE", "engine"]


def test_E15_the_token_s_former_name_is_still_an_argument():
    """Python code written for version 1.0 goes on."""
    assert read_settings({}, genius_token="t", contact="a@b.example").token == Secret("t")


@pytest.mark.parametrize("name", ["CRAWLER_CA_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_H4_certificate_authorities_are_named_by_any_of_three_variables(tmp_path, name):
    """The file that other programs are told of serves as well; our own name wins."""
    mine, theirs = tmp_path / "mine.pem", tmp_path / "theirs.pem"
    mine.touch()
    theirs.touch()
    assert read_settings({**GOOD, name: str(theirs)}).ca_file == str(theirs)
    both = {**GOOD, name: str(theirs), "CRAWLER_CA_FILE": str(mine)}
    assert read_settings(both).ca_file == str(mine)


def test_every_setting_has_its_row():
    """The table names every field once, with a meaning."""
    assert tuple(SETTINGS) == Settings.__struct_fields__
    assert all(row.meaning.endswith(".") and row.type for row in SETTINGS.values())
    rate = SETTINGS["rate"]
    assert (rate.variable, rate.option, rate.deploy_name) == ("CRAWLER_RATE", "--rate", "RATE")
    assert (rate.type, rate.unit, rate.default) == ("a number", "requests/s", "100")
    assert rate.bounds == "at least 0, at most 10,000"


def test_the_daily_cap_promises_no_more_than_it_counts():
    """It counts run objects, which a run leaves at its end (`requests_today`)."""
    cap = SETTINGS["max_requests_per_day"]
    assert "all runs" not in cap.meaning
    assert "others under way and killed ones are not counted" in cap.meaning


def test_the_page_of_settings_is_current():
    """`docs/settings.md` is what `python -m tests.settings_page` prints."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_every_setting_is_read_somewhere():
    """One that nothing outside of the settings looks at has no effect, and goes."""
    read: set[str] = set()
    files = [*(ROOT / "crawler").rglob("*.py"), ROOT / "main.py"]
    for path in files:
        if path.parent.name != "settings":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
            read |= {node.attr for node in nodes if ast.unparse(node.value).endswith("settings")}
    assert set(SETTINGS) - read == set()


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({}, []),
        ({"base_url": "http://127.0.0.1:8000"}, ["--base-url", "http://127.0.0.1:8000"]),
        ({"function": "mine:step"}, ["--function", "mine:step"]),
        (
            {"function": "mine:step", "base_url": "https://a.example"},
            ["--function", "mine:step", "--base-url", "https://a.example"],
        ),
        ({"function": "own:step"}, None),
        ({"rate": 5, "store": "s"}, []),
    ],
    ids=["genius", "its site elsewhere", "function", "function and site", "python's", "others"],
)
def test_a_printed_command_carries_what_names_the_site(given, options):
    """What a store cannot tell, the options do; a function of Python's own no command can name."""
    assert repeat_options(read_settings({}, for_site=False, **given)) == options


def test_a_printed_command_carries_a_source_s_file(tmp_path):
    """And no address, since the file has it."""
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "m"\nschema = "1"\nbase_url = "https://a.example"\n'
        'url = "{base_url}/{song_num}"\n[fields]\ntitle = "title"\n'
    )
    settings = read_settings({}, for_site=False, source=file)
    assert repeat_options(settings) == ["--source", str(file)]
