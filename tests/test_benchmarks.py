"""The benchmarks that documents name can be run as they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kills import Result, page

pytestmark = pytest.mark.once

ROOT = Path(__file__).parent.parent
SCALE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_simulation_says_what_it_lacks():
    """Without simpy: the command that installs the pinned one, the same as the page's."""
    code = (
        "import runpy, sys; sys.modules['simpy'] = None;"
        "runpy.run_module('benchmarks.simulate_scale', run_name='__main__')"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    pins = (ROOT / "benchmarks" / "requirements.txt").read_text(encoding="utf-8")
    [pin] = re.findall(r"^simpy==\S+$", pins, re.MULTILINE)
    install = f".venv/bin/pip install {pin}"
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert install in ran.stderr
    assert install in SCALE


def test_the_page_on_kills_can_be_written_again():
    """Its own rows give the page as it stands, with the part on torture, which others measure."""
    standing = (ROOT / "docs" / "kills.md").read_text(encoding="utf-8")
    row = r"^\| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (.*) \|$"
    results = [
        Result(name, int(kills), int(missing), int(twice), int(unreadable), note)
        for name, kills, missing, twice, unreadable, note in re.findall(row, standing, re.MULTILINE)
    ]
    assert page(results[:3], 3000, standing) == standing


def test_two_runs_of_one_range_are_counted_by_the_site():
    """Both end complete and share the range; how well is held by tests/test_two_runs.py."""
    assert "`.venv/bin/python -m benchmarks.two_runs`" in SCALE
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.two_runs", "--songs", "12000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.fullmatch(
        r"2 runs of 12,000, begun at once: (\S+) requests together, (\d\.\d{3}) x 12,000\n",
        ran.stdout,
    )
    assert told, ran.stderr
    requests = int(told[1].replace(",", ""))
    assert 12_000 <= requests < 24_000
    assert told[2] == f"{requests / 12_000:.3f}"


def test_three_crawls_start_no_more_than_their_rate():
    """What is started is told beside what the site saw come, and keeps to the rate."""
    assert "`.venv/bin/python -m benchmarks.fleet_pace`" in SCALE
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.fleet_pace", "--songs", "600"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.match(
        r"3 crawls at 600/s together: .* busiest second (\d+) started, \d+ arr", ran.stdout
    )
    assert told
    assert int(told[1]) <= 600 * 1.05
