"""Changes one thing at a time in the modules that decide, and counts what their own tests notice.

`make mutants` runs it (`ARGS="record --most 20"` for one module, fewer changes). A change is a
comparison, a sign, a number or a boolean, made by cosmic-ray in a copy of the project; it counts as
noticed when the module's own file of tests fails. What lives is printed with its line: either the
two mean the same, and it stands in `EQUAL` with the reason, or a test is missing. What is listed is
tried, too, and does not count in the share. Less than `WANTED` of any module is an error.
"""

import argparse
import compileall
import contextlib
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parent.parent

MODULES = {
    "record": (["crawler/record.py"], ["record"]),
    "block": (["crawler/store/block.py"], ["block"]),
    "verdict": (["crawler/frontier/verdict.py"], ["verdict"]),
    "rate_limiter": (["crawler/frontier/rate_limiter.py"], ["rate_limiter"]),
    "site_health": (["crawler/frontier/site_health.py"], ["site_health", "circuit_breaker"]),
    "circuit_breaker": (
        ["crawler/frontier/circuit_breaker.py"],
        ["circuit_breaker", "site_health"],
    ),
    "proof": (["crawler/frontier/proof.py", "crawler/frontier/canaries.py"], ["proof"]),
    "fill": (["crawler/plan/fill.py", "crawler/plan/planned.py"], ["fill"]),
    "scope": (["crawler/plan/scope.py"], ["scope"]),
}
"""Which modules are tried, and by which files of tests, `tests/test_<name>.py`."""

EQUAL: dict[str, dict[str, list[str]]] = {
    "record": {
        "only tells what is collected when": [
            "class Record(msgspec.Struct, omit_defaults=True, gc=True):",
        ],
        "where the two are alike it does not matter which is kept": [
            "best, rest = (one, other) if _order(one) > _order(other) else (other, one)",
        ],
    },
    "block": {
        "how much is read ahead; what is read is far shorter": [
            "HEAD_BYTES = 2049",
            "HEAD_BYTES = 2047",
        ],
        "a little smaller, a little slower": ["_LEVEL = 2"],
        "a text is far shorter than 4 GiB": [
            f'zlib.crc32(text).to_bytes(4, "little"), (len(text) % {size}).to_bytes(4, "little"),'
            for size in ("3**32", "2** 33", "2** 31")
        ],
        "from 32 on zlib finds out by itself that it is gzip": [
            "inflate = zlib.decompressobj( 17 + zlib.MAX_WBITS)",
        ],
        "-1 is no multiple of a thousand": ["if first % BLOCK_SIZE or not -1 <= first < 10**12:"],
        "there are as many numbers as records, one of each": [
            "return dict(zip(nums, records, strict=False))",
        ],
        "nobody looks at it where there are no numbers": [
            "start = stop = nums[0] if nums else 1",
            "start = stop = nums[0] if nums else -1",
        ],
    },
    "verdict": {
        "only tells what is collected when": ["class Reply(msgspec.Struct, gc=True):"],
        "no date or number that is right is nearly as long": [
            "_LONGEST_HEADER = 65",
            "_LONGEST_HEADER = 63",
            "if value is None or len(value) >= _LONGEST_HEADER:",
            "if text is None or len(text) >= _LONGEST_HEADER:",
        ],
        "may be changed, and nobody does": ["class Verdict(msgspec.Struct, frozen=False):"],
    },
    "rate_limiter": {
        "set anew before it is looked at": [
            "self._recovered_at = math.inf",
            *(
                f"self._counted_from, self._counted, self._measured = -math.inf, {counted}"
                for counted in ("1, 0.0", "-1, 0.0", "0, 1.0", "0, -1.0")
            ),
        ],
        "within the hair by which numbers differ": [
            "_EPOCH, _EPOCH_MILLISECONDS = 1e9, 999999999999.0",
            *(
                f'spans = {spans}: "a day"}}'
                for spans in (
                    '{1: "a second", 60: "a minute", 3601: "an hour", 86400',
                    '{1: "a second", 60: "a minute", 3599: "an hour", 86400',
                    '{1: "a second", 60: "a minute", 3600: "an hour", 86401',
                    '{1: "a second", 60: "a minute", 3600: "an hour", 86399',
                )
            ),
        ],
        "how much of a hostile text is looked at": ["_LONGEST = 513", "_LONGEST = 511"],
        "no two pauses are compared": ["class Pause(msgspec.Struct, eq=True):"],
        "both sides say the same there": [
            "if limit > 50:",
            "if limit >= 51:",
            "if limit >= 49:",
            "if full >= 1:",
        ],
        "there is one at most": [
            "return f\"{self.limit:g} {near[ -1] if near else f'in {seconds:.0f} s'}\"",
        ],
        "one as nonsensical as the other": [
            "reset = reset - time_of_day + 1.0 if reset > time_of_day else - 2.0",
        ],
        "nothing is to be won back": ["if self._limit > self._full:"],
    },
    "site_health": {
        "the run ends before a pause is that long": [
            "self._challenge = SharedBackoff(CHALLENGE_SECONDS, CHALLENGE_SECONDS * 3**CHALLENGES)",
        ],
        "longer than no window is none": [
            "self._window = max(self._window, announced.reset_seconds or -1.0)",
        ],
        "set anew at the first mistake": [
            f'self._fault_place, self._faulty = ("", {line}), list[PendingNumber]()'
            for line in (1, -1)
        ],
        "whether there were more good answers is asked, not how many": [
            "return self.note_good( 2, now, now)",
        ],
    },
    "circuit_breaker": {
        "set anew when it opens": [
            "self.probes = 1",
            "self.probes = -1",
            "self._opened_at = self._next_probe_at = 1.0",
            "self._opened_at = self._next_probe_at = -1.0",
        ],
        "where good answers are not counted there is no quota": [
            "def next_pause(self, sent_at: float, now: float, good: int = 1) -> float:",
            "def next_pause(self, sent_at: float, now: float, good: int = -1) -> float:",
        ],
        "far longer than the longest pause": [
            f"return min(self._first * 2.0 ** min(self.count - 1, {most}), self._most)"
            for most in (31, 29)
        ],
        "set anew at the first refusal, or at the good answer after it": [
            "self._too_short = self._long_enough = -1.0  # of the windows so far, seconds",
            "self._is_quota = self._is_between = True",
        ],
    },
    "proof": {
        "monotonic clocks tell no time below 0, and are compared with what they told": [
            *(
                f"self.fresh_at = {seconds}  # until when the best canary was surely there"
                for seconds in ("1.0", "-1.0")
            ),
            "self._watch, self._not_before = MissingWatch(), -1.0",
            "self._sent_at = -1.0  # of the song that was asked for last",
        ],
        "set anew when the site begins to lie": [
            "self._next_probe_at = self._lying_since = 1.0",
            "self._next_probe_at = self._lying_since = -1.0",
        ],
        "where something is held songs are told one by one": [
            "self._note_song(group[ -1].sent_at, now)",
        ],
        "may be made in an order of one's own, or changed, and nobody does": [
            "class KnownSongs(msgspec.Struct, frozen=False, kw_only=True):",
            "class KnownSongs(msgspec.Struct, frozen=True, kw_only=False):",
        ],
        "a single one is always the first": [
            "turn = self._failed_looks % max( 2, len(known))",
        ],
    },
    "fill": {
        "how far is read ahead, and by how many threads": [
            "READ_AHEAD = 9  # blocks, so that reading one from a bucket delays nobody",
            "READ_AHEAD = 7  # blocks, so that reading one from a bucket delays nobody",
            'self._pool = ThreadPoolExecutor( 5, "plan")',
            'self._pool = ThreadPoolExecutor( 3, "plan")',
            "NUMBERS_AHEAD = 17",
            "NUMBERS_AHEAD = 15",
        ],
        "what lies beyond a range is no number of it": [
            "strata = range((numbers[0] - start) // step, (numbers[-1] + start) // step + 1)",
            "strata = range((numbers[0] - start) // step, (numbers[-1] - start) // step + 2)",
        ],
        "set anew before it is looked at": [
            "self._current_first = 1",
            "self._current_first = -1",
        ],
        "a range of no numbers has none in any block": [
            f"return [_blocks(block_first(start), stop if start < stop else {stop})]"
            for stop in (1, -1)
        ],
        "asks once too often whether there is news": [
            "if len(self._met) >= len(self._heeded) and self._has_met():",
        ],
        "a step of one leaves out none, only slower": [
            f"return numbers if self._step == {step} else spread(numbers, self._start, self._step)"
            for step in (0, 2)
        ],
        "a block without numbers is announced to nobody": [
            "return PlannedBlock(first, [], is_new=True, unreadable=len(numbers))",
            "return PlannedBlock(first, [], is_new=True, settled=len(numbers))",
        ],
        "what follows comes to the same": [
            "if len(numbers) and info.first_num < numbers[0] and numbers[-1] <= info.last_num:",
            "if len(numbers) and info.first_num <= numbers[ -1] and numbers[-1] <= info.last_num:",
            "if len(numbers) and info.first_num <= numbers[0] and numbers[-1] < info.last_num:",
        ],
        "may be made in an order of one's own, or changed, and nobody does": [
            "class Criteria(msgspec.Struct, frozen=False, kw_only=True):",
            "class Criteria(msgspec.Struct, frozen=True, kw_only=False):",
        ],
    },
    "scope": {
        "by how many threads is read; one block at a time": [
            'self._pool = ThreadPoolExecutor( 2, "plan")',
            "self._pool.shutdown(wait=False, cancel_futures=False)",
        ],
        "a block without numbers is announced to nobody": [
            "return PlannedBlock(first, [], is_new=True)",
        ],
        "set anew before a number is supplied": [
            "self.next_num = last_found - 1",
            "self.next_num = last_found + 0",
            "self._block_end = -1",
        ],
        "the first song is no lower than 0": ["self.last_found = max(lasts, default=- 2)"],
        "no fewer than one number is taken": ["self.exhausted, self.read_ahead = False, 0"],
        "it stays what it is": ["if is_found and song_num >= self.last_found:"],
        "no more is supplied than the limit": [
            "ends.append(self.next_num + max( -1, self._limit - filled - self.supplied))",
        ],
    },
}
"""Changes that mean the same: by module and the reason why nothing can notice them, the lines as
they are then."""

OPERATORS = [
    *[
        f"core/ReplaceComparisonOperator_{pair}"
        for pair in [
            "Lt_LtE",
            "LtE_Lt",
            "Gt_GtE",
            "GtE_Gt",
            "Eq_NotEq",
            "NotEq_Eq",
            "Is_IsNot",
            "IsNot_Is",
        ]
    ],
    "core/ReplaceBinaryOperator_Add_Sub",
    "core/ReplaceBinaryOperator_Sub_Add",
    "core/ReplaceBinaryOperator_Mul_Div",
    "core/ReplaceBinaryOperator_Div_Mul",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_Delete_USub",
    "core/NumberReplacer",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
]

MORE_CPU, MORE_SECONDS = 5, 60
"""A change that makes the tests take so many times their CPU seconds, or so many seconds more in
all, is noticed, too: they hang."""

WANTED = 0.85

PYTEST = [
    *("-x", "-q", "--timeout=0", "--hypothesis-profile=one-change", "--hypothesis-seed=1"),
    "-Wignore::pytest.PytestAssertRewriteWarning",  # plugins are imported once, before the forks
    *(f"-pno:{name}" for name in ["randomly", "cacheprovider", "xdist", "pytest_cov"]),
]


class Change(NamedTuple):
    """One change: where it is made, the line as it was and as it is then, the module's new text."""

    path: str
    line_num: int
    before: str
    after: str
    text: str


class QuickFirst:
    """A plugin of pytest that notes how long each test takes, and runs the quickest first then."""

    def __init__(self, path: Path) -> None:
        self._path, self._seconds = path, defaultdict[str, float](float)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests in order, where it is known."""
        if self._path.exists():
            seconds = json.loads(self._path.read_text())
            items.sort(key=lambda item: seconds[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long a part of a test took."""
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Keep what the first run noted."""
        if not self._path.exists():
            self._path.write_text(json.dumps(self._seconds))


def changes_of(path: str) -> Iterator[Change]:
    """List what can be changed in a module, in its order."""
    tree, source = get_ast_from_path(ROOT / path), (ROOT / path).read_text()
    places = []
    for name in OPERATORS:
        operator = get_operator(name)()
        found = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        places += [(place[0], count, operator) for count, place in enumerate(found)]
    for _, count, operator in sorted(places, key=lambda place: place[:2]):
        if (text := mutate_code(source, operator, count)) is not None and text != source:
            pairs = zip(source.splitlines(), text.splitlines(), strict=False)
            num, one, two = next(
                (i, *pair) for i, pair in enumerate(pairs, 1) if pair[0] != pair[1]
            )
            if "*," not in one or two != one.replace("*,", "/,"):  # among parameters it is no sign
                yield Change(path, num, one.strip(), two.strip(), text)


def prepare(tests: list[str]) -> None:
    """Import all that the tests import, and forget what is the project's own.

    What is left needs not be imported again by the processes that are forked from this one.
    """
    hypothesis.settings.register_profile(
        "one-change",
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(["--collect-only", *PYTEST, *tests])
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if name != "__main__" and ROOT in path.parents and ".venv" not in path.parts:
            del sys.modules[name]


def fails(copy: Path, tests: list[str], *, cpu_seconds: float = 0, seconds: int = 0) -> bool:
    """Whether a file of tests fails in the copy; 0: it may take as long as it wants."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.alarm(seconds)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    os.chdir(copy)
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path or ".") != ROOT)]
    sys.dont_write_bytecode = True
    code = 1
    with contextlib.suppress(BaseException):
        plugin = QuickFirst(copy / f"{Path(tests[0]).stem}.json")
        code = int(pytest.main([*PYTEST, *tests], [plugin]))
    os._exit(code)


def try_module(copy: Path, name: str, most: int, seed: int) -> float:
    """Try at most so many changes of one module, drawn by a seed; return the share noticed."""
    paths, names = MODULES[name]
    tests = [f"tests/test_{each}.py" for each in names]
    prepare(tests)
    before = _children_seconds()
    if fails(copy, tests):
        raise SystemExit(f"{tests} fail without any change")
    cpu_seconds = 1 + MORE_CPU * (_children_seconds() - before)
    made = [change for path in paths for change in changes_of(path)]
    equal = {line for lines in EQUAL[name].values() for line in lines}
    for line in sorted(equal - {change.after for change in made}):
        print(f"  listed as equal, and made no longer: {line}", flush=True)
    chosen = random.Random(f"{name} {seed}").sample(made, min(most, len(made)))
    noticed = Counter[bool]()
    for change in sorted(chosen, key=made.index):
        path = copy / change.path
        source = path.read_text()
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(change.text)
        is_noticed = fails(copy, tests, cpu_seconds=cpu_seconds, seconds=MORE_SECONDS)
        path.write_text(source)
        noticed[change.after in equal] += is_noticed
        if is_noticed == (change.after in equal):
            word = "listed as equal, and noticed" if is_noticed else "lives"
            told = f"{change.line_num}: {change.before}  ->  {change.after}"
            print(f"  {word}: {change.path}:{told}", flush=True)
    differing = sum(change.after not in equal for change in chosen)
    share = noticed[False] / max(1, differing)
    print(
        f"{name}: {noticed[False]} of {differing} noticed ({share:.0%}); "
        f"{len(chosen) - differing} more mean the same",
        flush=True,
    )
    return share


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Try the modules named, all by default; 1 when any of them is below what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--most", type=int, default=1000, help="changes of each; default: all")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for part in ("crawler", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "main.py"):
            shutil.copy(ROOT / part, copy / part)
        compileall.compile_dir(copy, quiet=1)
        shares = [try_module(copy, name, args.most, args.seed) for name in args.modules or MODULES]
    return int(min(shares) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
