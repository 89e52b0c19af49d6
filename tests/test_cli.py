"""The command line, as processes over the embedded site: answers, words, exit codes, signals."""

import argparse
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crawler.__main__ import build_parser, main
from crawler.answer import STOPS, Answer
from crawler.cli.crawl import exit_code
from crawler.cli.demo import MAIN
from crawler.cli.options import answer_lines, count, size
from crawler.request.crawl_request import songs
from crawler.store.block import decode_block
from crawler.store.folder import FolderStore
from tests.records import expected_info, failed
from tests.stores import fill

ROOT = Path(__file__).parent.parent
NAMES_OF_USERS = ("LOGNAME", "USER", "LNAME", "USERNAME")
OURS = ("CRAWLER_", "GENIUS_", "K_SERVICE")


def environment(site=None, **more):
    """Make an environment without settings but those given; with a site also its token."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ["PYTHONPATH"] = str(ROOT)
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"  # as when it is active
    if site is not None:
        environ |= {"CRAWLER_BASE_URL": site.base_url, "GENIUS_TOKEN": site.token}
    return environ | more


def start(folder, *arguments, environ, **options):
    """Start the command line in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "crawler", *map(str, arguments)],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(folder, *arguments, environ=None, timeout=60):
    """Run the command line to its end; returns its exit code, stdout and stderr."""
    with start(folder, *arguments, environ=environ or environment()) as process:
        out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def numbers_in(store):
    """List the numbers that have a record in a folder store, as often as they have one."""
    numbers: list[int] = []
    for path in sorted(Path(store, "songs").glob("*.jsonl.gz")):
        numbers += decode_block(path.read_bytes(), f"songs/{path.name}")
    return numbers


def wait_until(is_so, process, seconds=30.0):
    """Wait for something that a process does; fails when it ends first."""
    end = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_crawled_range_is_complete_and_told_in_words(demo_site, tmp_path):
    """`crawl 1 201` settles songs 1 to 200, says so, and exits 0."""
    code, out, err = run(
        tmp_path, "crawl", 1, 201, "--rate", 0, "--store", "s", environ=environment(demo_site)
    )
    assert (code, err) == (0, "")
    assert out.startswith("Songs 1 to 200: ")
    assert "Complete: every number is settled." in out
    assert numbers_in(tmp_path / "s") == list(range(1, 201))


def test_json_is_the_answer_and_nothing_else(demo_site, tmp_path):
    """With --json stdout holds one JSON object with the names of the answer."""
    code, out, err = run(
        tmp_path, "crawl", 1, 101, "--rate", 0, "--json", environ=environment(demo_site)
    )
    assert (code, err) == (0, "")
    assert set(json.loads(out)) == set(Answer.__struct_fields__)
    assert json.loads(out)["complete"] is True


def test_a_second_run_asks_nothing(demo_site, tmp_path):
    """What is settled costs no request."""
    environ = environment(demo_site)
    run(tmp_path, "crawl", 1, 101, "--rate", 0, environ=environ)
    _, out, _ = run(tmp_path, "crawl", 1, 101, "--rate", 0, "--json", environ=environ)
    answer = json.loads(out)
    assert (answer["skipped"], answer["requests"]) == (100, 0)


def test_mode_next_goes_on_where_the_store_says(demo_site, tmp_path):
    """`--mode next --limit` takes the next numbers that are not settled."""
    environ = environment(demo_site, CRAWLER_LAST_SONG="500")
    run(tmp_path, "crawl", 1, 101, "--rate", 0, "--store", "s", environ=environ)
    code, _, err = run(
        tmp_path, "crawl", "--mode", "next", "--limit", 50, "--store", "s", environ=environ
    )
    assert err == ""
    assert code in (0, 3)
    assert numbers_in(tmp_path / "s") == list(range(1, 151))


def test_a_run_out_of_time_is_not_complete_and_says_how_to_go_on(demo_site, tmp_path):
    """A run that its time budget ends exits 3 and prints the command that goes on."""
    arguments = ["crawl", "1", "100001", "--rate", "50", "--time-budget", "1"]
    code, out, _ = run(tmp_path, *arguments, environ=environment(demo_site))
    assert code == 3
    assert "Not complete: " in out
    assert "The time budget ran out; the rest was not asked." in out
    assert out.rstrip().endswith("To go on: python -m crawler " + " ".join(arguments))


def test_a_refused_token_is_an_error(demo_site, tmp_path):
    """A site that refuses the token makes the exit code 1, and the words name the reason."""
    environ = environment(demo_site, GENIUS_TOKEN="wrong-token")
    code, out, err = run(tmp_path, "crawl", 1, 101, environ=environ)
    assert code == 1
    assert STOPS["unauthorized"].meaning in out
    assert "wrong-token" not in out + err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["crawl"], "give START and STOP, or a --mode"),
        (["crawl", "5"], "STOP is missing"),
        (["crawl", "9", "5"], "STOP must not be less than START, got start=9 stop=5"),
        (["crawl", "-1", "5"], "START must be a whole number from 0"),
        (["crawl", "1_0", "50"], "START must be a whole number from 0"),
        (["crawl", "1", "5", "--limit", "3"], "--limit goes with a mode"),
        (["crawl", "1", "5", "--mode", "next"], "--mode next finds its own range: leave out START"),
        (["doctor", "x"], "SONG must be a whole number from 0"),
        (["crawl", "--mode", "old"], "invalid choice: 'old'"),
        (["crawl", "1", "5", "--rate", "-1"], "--rate must be"),
        (["crawl", "1", "5", "--connections", "many"], "--connections must be"),
        (["crawl", "1", "5", "--store", "s3://bucket"], "--store must be"),
        (["crawl", "1", "5", "--function", "nothing"], "--function must be"),
        (["crawl", "1", "5", "--refresh-older-than-days", "x"], "--refresh-older-than-days must"),
        (["verify", "9", "5"], "STOP must not be less than START"),
        (["verify", "9"], "required: STOP"),
        (["sing"], "invalid choice: 'sing'"),
        ([], "required: COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_told_in_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    """What the caller did wrong exits 2, names the argument, and shows no traceback."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GENIUS_TOKEN", "t")
    monkeypatch.setenv("CRAWLER_BASE_URL", "http://127.0.0.1:9")
    code: Any
    try:
        code = main(arguments)
    except SystemExit as ended:  # argparse's own way out
        code = ended.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert words in said.err


def test_a_python_without_the_packages_is_told_what_to_do(tmp_path):
    """As where the virtual environment is not active: exit 1, and no traceback."""
    command = [sys.executable, "-S", "-m", "crawler", "status"]
    environ = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"msgspec is not installed for {sys.executable}: run `make setup`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_process_of_wrong_usage_ends_as_the_command_line_does(tmp_path):
    """Exit code 2, and no traceback."""
    code, out, err = run(tmp_path, "crawl", 9, 5, environ=environment(GENIUS_TOKEN="t"))
    assert (code, out) == (2, "")
    assert "STOP must not be less than START, got start=9 stop=5" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments", [["doctor"], ["status"], ["crawl", "5", "5"], ["crawl", "--help"], ["--version"]]
)
def test_who_reads_no_further_is_told_no_more(arguments, tmp_path):
    """Where the reader of a pipe is gone, as behind `head`, the program ends without a word."""
    environ = environment(GENIUS_TOKEN="t", CRAWLER_BASE_URL="http://127.0.0.1:9")
    environ["PYTHONUNBUFFERED"] = ""  # unbuffered, argparse itself swallows the error
    with start(tmp_path, *arguments, environ=environ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        code = process.wait(timeout=60)
    assert (code, err) == (141, "")


def in_shell(command: str, environ: dict[str, str], folder: Path) -> Any:
    """Run a command as a shell reads it, and wait for it."""
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full disk to hand")
@pytest.mark.parametrize(
    "arguments", [["status"], ["crawl", "5", "5"], ["crawl", "5", "5", "--json"]]
)
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_an_answer_that_the_disk_does_not_take_is_an_error_in_words(
    arguments, unbuffered, demo_site, tmp_path
):
    """Where stdout leads to a full disk, one line on stderr says so, and the exit code is 1."""
    environ = environment(demo_site, PYTHONUNBUFFERED=unbuffered)
    command = f"{shlex.join([sys.executable, '-m', 'crawler', *arguments])} > /dev/full"
    done = in_shell(command, environ, tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the output cannot be written: No space left on device" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_without_streams_crawls_all_the_same(closed, demo_site, tmp_path):
    """A supervisor may start it with closed streams; no block gets what is meant for people."""
    command = f"{sys.executable} -m crawler crawl 1 301 --store out --rate 0 -v {closed}"
    environ = environment(demo_site)
    done = in_shell(command, environ, tmp_path)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert numbers_in(tmp_path / "out") == list(range(1, 301))


def test_G2_a_missing_token_is_named_before_anything_is_sent(tmp_path):
    """Without a token a crawl exits 2 and says which variable to set."""
    code, _, err = run(tmp_path, "crawl", 1, 5)
    assert code == 2
    assert err.startswith("python -m crawler: GENIUS_TOKEN is missing")


def test_settings_are_read_from_crawler_env(demo_site, tmp_path):
    """A `crawler.env` where the command is called supplies what the environment lacks."""
    lines = f"GENIUS_TOKEN={demo_site.token}\nCRAWLER_BASE_URL={demo_site.base_url}\n"
    (tmp_path / "crawler.env").write_text(lines)
    code, _, err = run(tmp_path, "crawl", 1, 51, "--rate", 0)
    assert (code, err) == (0, "")


def test_E6_a_store_that_cannot_be_written_is_an_error_in_words(demo_site, tmp_path):
    """A file where the store should be exits 1 before the site is asked."""
    (tmp_path / "file").write_text("")
    code, out, err = run(
        tmp_path, "crawl", 1, 51, "--store", "file", environ=environment(demo_site)
    )
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert demo_site.stats()["requests"] == 0


def test_G1_verbose_tells_what_happens_and_never_the_token(demo_site, tmp_path):
    """With -vv the log is on stderr, and holds no byte of the token."""
    code, _, err = run(tmp_path, "crawl", 1, 51, "--rate", 0, "-vv", environ=environment(demo_site))
    assert code == 0
    assert "run" in err
    assert demo_site.token not in err


def test_status_of_an_empty_store_says_how_to_begin(tmp_path):
    """`status` needs no token, and of an empty store gives the first command."""
    code, out, err = run(tmp_path, "status", "--store", "s")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "s holds no songs yet.",
        "To begin: python -m crawler crawl 1 2001 --store s",
    ]


def test_status_names_what_is_there_and_what_is_left(demo_site, tmp_path):
    """`status` counts records and names the gaps and the time they take."""
    environ = environment(demo_site)
    run(tmp_path, "crawl", 1, 101, "--rate", 0, "--store", "s", environ=environ)
    run(tmp_path, "crawl", 2001, 2101, "--rate", 0, "--store", "s", environ=environ)
    _, out, _ = run(tmp_path, "status", "--store", "s")
    assert "s: songs 1 to 2100 in 2 blocks." in out
    assert "not asked: 1,900 of songs 101 to 2000" in out
    assert "1,900 are left in between: 0:00:19 at 100 a second." in out
    assert "No" not in out.splitlines()[0]


def test_status_names_failed_numbers(tmp_path):
    """Whoever wants to know what failed gets numbers to paste, and whether there are more."""
    records = [failed(7), failed(2001), *[failed(num, "http_500") for num in range(100, 110)]]
    fill(FolderStore(tmp_path / "s"), records)
    _, out, _ = run(tmp_path, "status", "--store", "s")
    assert "  failed: 2 timeout (songs 7, 2001): the answer was not whole" in out
    assert (
        "  failed: 10 http_500 (such as songs 100, 101, 102, 103, 104): the site answers 500 Internal Server Error\n"
        in out
    )


def test_status_as_json_is_the_coverage(demo_site, tmp_path):
    """`status --json` prints what `GET /status` answers."""
    run(tmp_path, "crawl", 1, 101, "--rate", 0, environ=environment(demo_site))
    _, out, _ = run(tmp_path, "status", "--json")
    held = json.loads(out)
    assert (held["settled"], held["first_num"], held["last_num"]) == (100, 1, 100)


def test_verify_proves_a_whole_range_and_names_a_gap(demo_site, tmp_path):
    """`verify` exits 0 when each number has its record, else 3 with the first that has none."""
    run(tmp_path, "crawl", 1, 101, "--rate", 0, environ=environment(demo_site))
    whole, out, _ = run(tmp_path, "verify", 1, 101)
    lacking, words, _ = run(tmp_path, "verify", 1, 102)
    assert (whole, lacking) == (0, 3)
    assert out.startswith("Proven: each of songs 1 to 100 has exactly one record")
    assert "number 101 has no record" in words


def test_verify_as_json_is_the_report(tmp_path):
    """`verify --json` prints the report, with the problem in it."""
    code, out, _ = run(tmp_path, "verify", 1, 5, "--json")
    assert code == 3
    assert "no block" in json.loads(out)["problem"]


def test_E12_a_stop_order_ends_a_run_elsewhere(demo_site, tmp_path):
    """`stop` ends a run of another process within 10 s, with its songs stored (E12)."""
    environ = environment(demo_site)
    arguments = ["crawl", 1, 100001, "--rate", 100, "--store", "s", "--json"]
    with start(tmp_path, *arguments, environ=environ) as process:
        wait_until(lambda: demo_site.stats()["requests"] > 20, process)
        code, out, _ = run(tmp_path, "stop", "--store", "s")
        assert "the store you mean" not in out
        assert "the store you mean" in run(tmp_path, "stop", "--store", "misspelt")[1]
        answer, _ = process.communicate(timeout=30)
    assert (code, process.returncode) == (0, 3)
    assert "ends within 10 s" in out
    assert json.loads(answer)["stopped_by"] == "stop_order"
    assert numbers_in(tmp_path / "s")


@pytest.mark.skipif(os.name == "nt", reason="users without a name are those of containers")
def test_E12_a_user_without_a_name_can_stop(tmp_path):
    """In a container a process may run as a number that no list of users knows."""
    unnamed = "import os, sys; os.getuid = lambda: 54321; from crawler.__main__ import main; main()"
    environ = {name: value for name, value in environment().items() if name not in NAMES_OF_USERS}
    done = subprocess.run(
        [sys.executable, "-c", unnamed, "stop", "--store", "s"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "user 54321 on" in (tmp_path / "s" / "control.json").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_F2_the_first_signal_stores_what_is_there(number, demo_site, tmp_path):
    """Ctrl-C or SIGTERM once: exit 3, all that was answered is stored, the next command is told (F2)."""
    arguments = ["crawl", 1, 100001, "--rate", 200, "--store", "s"]
    with start(tmp_path, *arguments, environ=environment(demo_site)) as process:
        wait_until(lambda: demo_site.stats()["requests"] > 50, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "Stopping: what is under way is finished and stored." in err
    assert STOPS["signal"].meaning in out
    assert out.splitlines()[-1].startswith("To go on: python -m crawler crawl 1 100001")
    stored = set(numbers_in(tmp_path / "s"))
    asked = range(1, demo_site.stats()["requests"] + 1)
    assert stored <= set(asked)
    # what says missing at the very end has no proof yet: it is asked again
    assert [num for num in asked if num not in stored and expected_info(num)] == []
    assert len(asked) - len(stored) < 10


def test_F2_the_second_signal_ends_at_once_and_the_run_can_go_on(tmp_path):
    """Ctrl-C twice: exit 130 without waiting for a slow site; the store is still good (F2)."""
    from crawler.demo.site import DemoSite

    with DemoSite(latency_seconds=4.0) as site:
        arguments = ["crawl", 1, 2001, "--store", "s"]
        with start(tmp_path, *arguments, environ=environment(site)) as process:
            wait_until(lambda: site.stats()["requests"] > 0, process)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            select.select([process.stderr], [], [], 10)  # the first one has been heard
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Ended at once." in err
    code, out, _ = run(tmp_path, "status", "--store", "s")
    assert code == 0, out


def test_a_terminal_sees_a_bar_and_then_the_answer(demo_site, tmp_path):
    """On a terminal stderr carries the bar; stdout stays clean."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "crawler", "crawl", "1", "301", "--rate", "300"],
        cwd=tmp_path,
        env=environment(demo_site),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    with process, open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 - a descriptor
        try:
            while piece := terminal.read(65536):
                shown += piece
        except OSError:
            pass  # Linux says so when the process is gone
        assert process.stdout is not None
        out = process.stdout.read()
    assert process.returncode == 0
    assert "songs 1 to 300: 100%" in shown.decode()
    assert shown.endswith(b"\n")
    assert out.startswith("Songs 1 to 300: ")


@pytest.mark.parametrize(
    "command", ["", "crawl", "status", "verify", "stop", "demo", "demo-site"], ids=str
)
def test_help_has_examples_that_can_be_pasted(command, tmp_path):
    """Each help text explains itself and gives examples with the whole command line."""
    code, out, _ = run(tmp_path, *command.split(), "--help")
    assert code == 0
    assert re.search(r"examples?:\n  python -m crawler", out)


def test_the_version_is_told(tmp_path):
    """`--version` says which release this is."""
    code, out, _ = run(tmp_path, "--version")
    assert (code, out.split()[0]) == (0, "song-crawler")


def test_the_demo_site_answers_until_it_is_ended(tmp_path):
    """`demo-site` prints where it is, serves songs there, and ends cleanly on SIGTERM."""
    from crawler.cli.demo import call

    with start(tmp_path, "demo-site", environ=environment()) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        status, _ = call(f"{address}/songs/1", "GET")
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert (status, process.returncode, err) == (401, 0, "")


needs_main = pytest.mark.skipif(not MAIN.exists(), reason="main.py is not here")


@needs_main
def test_the_demo_fills_songs_1_to_2000_and_the_second_time_asks_nothing(tmp_path):
    """`demo`: 2,000 records through the real function; again: all settled before, no request."""
    code, out, err = run(tmp_path, "demo", "--rate", 0)
    assert (code, err) == (0, "")
    assert "Songs 1 to 2000: " in out
    assert "  (1, {" in out
    assert "data/demo/songs" in out
    assert numbers_in(tmp_path / "data/demo") == list(range(1, 2001))
    page = out.partition("The coverage page, for a browser: ")[2].splitlines()[0]
    assert (tmp_path / page).read_text(encoding="utf-8").startswith("<!")
    more = out.partition("More:\n")[2].splitlines()
    assert len(more) == 3
    for command in more:  # what is printed can be pasted
        subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment(), check=True, capture_output=True
        )
    assert (tmp_path / "songs.jsonl").exists()
    code, out, _ = run(tmp_path, "demo", "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["skipped"], answer["requests"]) == (2000, 0)


@needs_main
def test_the_served_demo_stays_up_until_it_is_ended(tmp_path):
    """`demo --serve` answers requests of one's own, and SIGTERM ends both processes with it."""
    import psutil

    from crawler.cli.demo import call

    with start(tmp_path, "demo", "--serve", "--rate", 0, environ=environment()) as process:
        assert process.stdout is not None
        url = ""
        while "Both stay up" not in (line := process.stdout.readline()):
            assert line, process.communicate()
            url = (re.findall(r"the function at (\S+),", line) or [url])[0]
        status, answer = call(f"{url}/?start=1&stop=11", "GET")
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.communicate(timeout=30)
    assert (status, answer["skipped"]) == (200, 10)
    assert process.returncode == 0
    assert psutil.wait_procs(children, timeout=10)[1] == []


def test_the_demo_takes_no_settings_from_its_surroundings(monkeypatch):
    """A token or an address of the user's own never reach the demo."""
    from crawler.cli.demo import demo_environment

    monkeypatch.setenv("GENIUS_TOKEN", "secret")
    monkeypatch.setenv("CRAWLER_FIELDS", "id")
    environ = demo_environment("http://127.0.0.1:1", "t", store="s", engine=None)
    ours = {name: value for name, value in environ.items() if name.startswith(OURS)}
    assert ours == {
        "CRAWLER_BASE_URL": "http://127.0.0.1:1",
        "CRAWLER_STORE": "s",
        "GENIUS_TOKEN": "t",
    }


@pytest.mark.parametrize(
    ("first", "after", "words"),
    [
        (1, 2001, "songs 1 to 2000"),
        (5, 6, "song 5"),
        (0, 0, "no songs"),
        (7, 3, "no songs"),
    ],
)
def test_ranges_are_named_as_people_do(first, after, words):
    """A range is told with its last number included."""
    assert songs(first, after) == words


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 blocks"), (1, "1 block"), (20000, "20,000 blocks")]
)
def test_things_are_counted_in_words(number, words):
    """One thing is singular, and thousands are parted."""
    assert count(number, "block") == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 kB"), (1, "1 kB"), (20_001, "21 kB"), (999_499, "1000 kB"), (999_500, "1.0 MB")],
)
def test_a_size_is_never_rounded_to_nothing(number, words):
    """A small export is not said to hold 0.0 MB."""
    assert size(number) == words


def test_every_option_says_what_it_does():
    """No line of a --help is a bare name."""
    [commands] = [action for action in build_parser()._actions if action.choices]  # noqa: SLF001 - argparse lists them nowhere else
    for name, parser in commands.choices.items():
        told = {a.dest: a.help for a in parser._actions if a.dest != argparse.SUPPRESS}  # noqa: SLF001 - as above
        assert [option for option, words in told.items() if not words] == [], name


def answer_of(**fields):
    """Make an answer of a run over songs 1 to 10."""
    whole: dict[str, Any] = {
        "start": 1, "stop": 11, "mode": "range", "found": 10, "missing": 0, "failed": 0,
        "skipped": 0, "complete": True, "remaining": 0, "requests": 10, "retries": 0,
        "seconds": 1.0, "mean_rate": 10.0, "stopped_by": "done", "blocks_written": 1,
        "version": "1",
    }  # fmt: skip
    return Answer(**(whole | fields))


@pytest.mark.parametrize("stopped_by", STOPS)
def test_every_end_has_its_exit_code(stopped_by):
    """Complete is 0 whatever ended it; else 1 where site or store failed us, 3 otherwise."""
    expected = 1 if stopped_by in ("barred", "unauthorized", "circuit", "store") else 3
    assert exit_code(answer_of(complete=False, stopped_by=stopped_by)) == expected
    assert exit_code(answer_of(complete=True, stopped_by=stopped_by)) == 0


def test_numbers_that_failed_are_told_apart_from_those_not_asked():
    """A run that asked everything says that what failed is worth asking later."""
    lines = answer_lines(answer_of(found=8, failed=2, complete=False), "again")
    assert "0 not asked, 2 failed. What failed is worth asking again later." in lines[2]
    assert lines[3] == "To go on: again"


def test_H6_a_closed_terminal_ends_a_crawl_as_sigterm_does(demo_site, tmp_path):
    """SIGHUP once: exit 3, and all that was answered is stored."""
    arguments = ["crawl", 1, 100001, "--rate", 200, "--store", "s"]
    with start(tmp_path, *arguments, environ=environment(demo_site)) as process:
        wait_until(lambda: demo_site.stats()["requests"] > 50, process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 3
    left_out = demo_site.stats()["requests"] - len(numbers_in(tmp_path / "s"))
    assert 0 <= left_out < 10  # what says missing at the very end has no proof yet


def test_a_command_is_printed_with_the_python_that_runs_it(tmp_path):
    """Where the virtual environment is not active, what is printed can be pasted all the same."""
    environ = environment(PATH="/usr/bin:/bin")
    _, out, _ = run(tmp_path, "status", "--store", "s", environ=environ)
    begin = out.splitlines()[1].removeprefix("To begin: ")
    assert begin == f"{sys.executable} -m crawler crawl 1 2001 --store s"
    assert shlex.split(begin)[0] == sys.executable


def test_the_end_tells_why_numbers_failed_and_whether_a_repeat_helps(tmp_path):
    """Each kind has its count and its sentence; where nothing would change, no command is told."""
    answer = answer_of(found=7, failed=3, complete=False)
    answer.__dict__["failures"] = {"redirect": 2, "http_418": 1}
    lines = answer_lines(answer, "again")
    assert lines[2] == "Not complete: 0 not asked, 3 failed."
    assert lines[3] == (
        "  failed: 2 redirect: the site points elsewhere; not followed; asking again will not help"
    )
    assert "the site answers 418 I'm a Teapot; asking again will not help" in lines[4]
    assert lines[-1] == "Repeating the command will not help: see to what failed first."
    answer.__dict__["failures"]["timeout"] = 1
    assert answer_lines(answer, "again")[-1] == "To go on: again"


def test_numbers_of_another_source_are_no_songs():
    """Only Genius has songs."""
    answer = answer_of()
    answer.__dict__["source"] = "museum"
    assert answer_lines(answer, "")[0].startswith("Numbers 1 to 10: ")
    assert "<b>Numbers 1 to 10</b>" in answer._repr_html_()


def test_a_site_that_cannot_be_reached_is_told_while_the_crawl_goes_on(tmp_path):
    """Within seconds, in words; nobody waits for the end to learn of it."""
    environ = environment(CRAWLER_BASE_URL="http://127.0.0.1:9", GENIUS_TOKEN="demo-token")
    with start(tmp_path, "crawl", 1, 100_001, "--store", "s", environ=environ) as process:
        began = time.monotonic()
        assert process.stderr is not None
        line = process.stderr.readline()
        took = time.monotonic() - began
        process.kill()
    assert "the site has not answered for 3 s (no connection could be made)" in line
    assert took < 8


@pytest.mark.parametrize(("said", "code"), [("n", 3), ("", 3)])
def test_a_range_of_more_than_a_day_is_questioned_on_a_terminal(tmp_path, said, code):
    """A pilot is proposed; who does not say yes has asked the site for nothing."""
    import pty

    leader, follower = pty.openpty()
    environ = environment(CRAWLER_BASE_URL="http://127.0.0.1:9", GENIUS_TOKEN="t", COLUMNS="200")
    command = [sys.executable, "-m", "crawler", "crawl", "1", "20000001", "--store", "s"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdin=follower, stdout=follower, stderr=follower
    ) as process:
        os.close(follower)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(leader, 4096)
        os.write(leader, f"{said}\n".encode())
        assert process.wait(30) == code
    os.close(leader)
    text = shown.decode()
    assert "20,000,000 numbers at 100 a second take 2.3 days." in text
    assert "crawl 1 20000001 --sample 200" in text
    assert not (tmp_path / "s").exists()


def test_a_longest_range_holds_on_the_command_line_where_it_is_set(tmp_path):
    """In words for the command line."""
    environ = environment(GENIUS_TOKEN="t", CRAWLER_CONTACT="a@b.example", CRAWLER_MAX_RANGE="10")
    code, _, err = run(tmp_path, "crawl", 1, 100, environ=environ)
    assert code == 2
    assert "CRAWLER_MAX_RANGE=10 are done by one request; --fan-out hands a longer one" in err


def test_a_pilot_asks_a_sample_and_says_what_the_whole_would_be(demo_site, tmp_path):
    """Its numbers are spread over the range and stored as any run's; exit 0 though much is left."""
    environ = environment(demo_site)
    arguments = ["crawl", 1, 2_000_001, "--sample", 100, "--rate", 0, "--store", "s"]
    code, out, err = run(tmp_path, *arguments, environ=environ)
    assert (code, err) == (0, "")
    assert demo_site.stats()["requests"] == 100
    stored = numbers_in(tmp_path / "s")
    assert len(stored) == 100
    assert max(stored) - min(stored) > 1_900_000
    first, *rest = out.splitlines()
    assert re.match(r"A pilot of 100 of 2,000,000 songs: \d\d\.\d % found \(give or take", first)
    words = [
        "  filled: title 100 %",
        "  an answer takes",
        "  the site announces no limit",
        "  the whole at",
        "  its blocks",
        "  deployed",
    ]
    assert [line.startswith(word) for line, word in zip(rest, words, strict=True)] == [True] * 6
    code, out, _ = run(tmp_path, *arguments, environ=environ)
    assert (code, demo_site.stats()["requests"]) == (0, 100)
    again, told, *rest = out.splitlines()
    assert again == first
    assert told == "  100 of them were settled before, and cost no request"
    assert [line[:15] for line in rest] == ["  filled: title", "  its blocks: a"]


@pytest.mark.parametrize("how", [["--mode", "next"], ["1", "5", "--fan-out"]])
def test_a_pilot_goes_with_a_range_of_ones_own(tmp_path, how):
    """A mode and a fan-out refuse it in words."""
    environ = environment(GENIUS_TOKEN="t", CRAWLER_CONTACT="a@b.example")
    code, _, err = run(tmp_path, "crawl", *how, "--sample", 5, environ=environ)
    assert code == 2
    assert "--sample" in err
