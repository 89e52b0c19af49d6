"""Changes one thing at a time in the modules that decide, and counts what their own tests notice.

`make mutants` runs it (`ARGS="record --most 20"` for one module, fewer changes). A change is a
comparison, a sign, a number or a boolean, made by cosmic-ray in a copy of the project; it counts as
noticed when the module's own file of tests fails. What lives is printed with its line: either the
two mean the same, and it stands in `EQUAL` with the reason, or a test is missing.
"""

import argparse
import compileall
import contextlib
import importlib.util
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
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
    "site_health": (
        ["crawler/frontier/site_health.py", "crawler/frontier/circuit_breaker.py"],
        ["site_health"],
    ),
    "proof": (["crawler/frontier/proof.py", "crawler/frontier/canaries.py"], ["proof"]),
    "fill": (["crawler/plan/fill.py", "crawler/plan/planned.py"], ["fill"]),
    "scope": (["crawler/plan/scope.py"], ["scope"]),
}
"""Which modules are tried, and by which files of tests, `tests/test_<name>.py`."""

EQUAL: dict[str, list[str]] = {
    "only tells what is collected when": [
        "class Record(msgspec.Struct, omit_defaults=True, gc=True):",
        "class Reply(msgspec.Struct, gc=True):",
    ],
    "where the two are alike it does not matter which is kept": [
        "best, rest = (one, other) if _order(one) > _order(other) else (other, one)",
    ],
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
    "how far is read ahead, and by how many threads": [
        "READ_AHEAD = 9  # blocks, so that reading one from a bucket delays nobody",
        "READ_AHEAD = 7  # blocks, so that reading one from a bucket delays nobody",
        'self._pool = ThreadPoolExecutor( 5, "plan")',
        'self._pool = ThreadPoolExecutor( 3, "plan")',
        'self._pool = ThreadPoolExecutor( 2, "plan")',
        'self._pool = ThreadPoolExecutor( 0, "plan")',
    ],
    "set anew before it is looked at": [
        "self._current_first = 1",
        "self._current_first = -1",
        "self._recovered_at = math.inf",
        *(
            f"self._counted_from, self._counted, self._measured = -math.inf, {counted}"
            for counted in ("1, 0.0", "-1, 0.0", "0, 1.0", "0, -1.0")
        ),
    ],
    "set anew when the site begins to lie": [
        *(
            f"self._probes, self._next_probe_at, self._lying_since = {values}"
            for values in ("0, 1.0, 0.0", "0, -1.0, 0.0", "0, 0.0, 1.0", "0, 0.0, -1.0")
        ),
        "self._probes, self._next_probe_at, self._lying_since = 1, 0.0, 0.0",
        "self._probes, self._next_probe_at, self._lying_since = -1, 0.0, 0.0",
    ],
    "the run ends before a pause is that long": [
        "self._challenge = SharedBackoff(CHALLENGE_SECONDS, CHALLENGE_SECONDS * 3**CHALLENGES)",
    ],
    "whether there were more good answers is asked, not how many": [
        "return self.note_good( 2, now, now)",
    ],
    "a range of no numbers has none in any block": [
        f"self._order = BlockOrder(range(block_first(start), stop if start < stop else {stop}, BLOCK_SIZE))"
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
    "how a record may be made, or changed by whom nobody knows": [
        "class Criteria(msgspec.Struct, frozen=False, kw_only=True):",
        "class Criteria(msgspec.Struct, frozen=True, kw_only=False):",
        "class Verdict(msgspec.Struct, frozen=False):",
        "class Pause(msgspec.Struct, eq=True):",
    ],
    "both sides say the same there": [
        "if limit > 50:",
        "if limit >= 51:",
        "if limit >= 49:",
        "if full >= 1:",
    ],
    "nothing is to be won back": ["if self._limit > self._full:"],
    "nobody looks at it where there are no numbers": [
        "start = stop = nums[0] if nums else 1",
        "start = stop = nums[0] if nums else -1",
    ],
}
"""Changes that mean the same: the lines as changed, by the reason why nothing can notice them."""

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

    @property
    def is_equal(self) -> bool:
        """Whether it means the same, or cannot be made: `*` among parameters is no sign."""
        if "*," in self.before and self.after == self.before.replace("*,", "/,"):
            return True
        return any(self.after in lines for lines in EQUAL.values())


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
        code = int(pytest.main([*PYTEST, *tests]))
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
    listed = [change for path in paths for change in changes_of(path)]
    differing = [change for change in listed if not change.is_equal]
    chosen = random.Random(f"{name} {seed}").sample(differing, min(most, len(differing)))
    lived = []
    for change in sorted(chosen, key=listed.index):
        path = copy / change.path
        source = path.read_text()
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(change.text)
        if not fails(copy, tests, cpu_seconds=cpu_seconds, seconds=MORE_SECONDS):
            lived.append(f"  {change.path}:{change.line_num}: {change.before}  ->  {change.after}")
        path.write_text(source)
    noticed = len(chosen) - len(lived)
    share = noticed / max(1, len(chosen))
    print(
        f"{name}: {noticed} of {len(chosen)} noticed ({share:.0%}); "
        f"{len(listed) - len(differing)} of {len(listed)} mean the same",
        *lived,
        sep="\n",
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
