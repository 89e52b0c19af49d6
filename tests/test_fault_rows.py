"""The list of faults: every row is shown by a test that carries its number."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_rows import (
    FAULT_ROWS,
    FOR_BOTH_CALLERS,
    FOR_BOTH_STORES,
    rows_named,
    rows_shown_halfway,
    rows_without_test,
)

ROOT = Path(__file__).parent.parent


@pytest.mark.once
def test_every_row_has_a_test():
    """What is not shown is not promised: of all tests, some carry each row's number."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert rows_without_test(done.stdout.splitlines()) == []
    assert rows_shown_halfway(done.stdout.splitlines()) == []


@pytest.mark.parametrize(
    ("test", "rows"),
    [
        ("tests/test_a.py::test_E3_a_store", {"E3"}),
        ("tests/test_a.py::test_B2_B3_a_wrong_name", {"B2", "B3"}),
        ("tests/test_a.py::test_A9_to_A11_a_number[C5-x]", {"A9", "A10", "A11", "C5"}),
        ("tests/test_a.py::test_F5b_a_function", {"F5b"}),
        ("tests/test_a.py::test_what_happens[G1]", {"G1"}),
        ("tests/test_E1.py::test_of_A_and_E99_and_xE1_and_E1x", set()),
    ],
)
def test_a_row_is_read_from_a_name(test, rows):
    """Rows stand in the test's own name, or in the id of its case; a file's name shows nothing."""
    assert rows_named(test) == rows


def test_a_row_without_a_test_is_named():
    """A list that could not fail would show nothing."""
    named = [f"test.py::test_{row}_it" for row in FAULT_ROWS if row not in ("E3", "F7")]
    assert rows_without_test(named) == ["E3", "F7"]


def test_a_row_that_is_shown_for_one_caller_or_store_alone_is_named():
    """By the words of the case, or of the file of a store's own."""
    tests = [f"tests/test_a.py::test_{row}_it[source-1]" for row in FOR_BOTH_CALLERS]
    tests += [f"tests/test_a.py::test_{row}_it[function]" for row in FOR_BOTH_CALLERS[1:]]
    tests += [f"tests/test_bucket.py::test_{row}_it" for row in FOR_BOTH_STORES]
    tests += [f"tests/test_a.py::test_{row}_it[at-folder]" for row in FOR_BOTH_STORES]
    assert rows_shown_halfway(tests) == ["B7 for a function"]
    assert rows_shown_halfway(tests[:-1]) == ["B7 for a function", "E15 for a folder"]
