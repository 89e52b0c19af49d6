"""Changes one thing at a time in the modules that decide, and counts what their own tests notice.

`make mutants` runs it (`ARGS="record --most 200"` for one module, more changes). A change is a
comparison, a sign, a number or a boolean, made by cosmic-ray in a copy of the project; it counts as
noticed when the module's own file of tests fails. What lives is printed with its line: either the
two mean the same, or a test is missing.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

ROOT = Path(__file__).parent.parent

MODULES = {
    "record": "crawler/record.py",
    "block": "crawler/store/block.py",
    "verdict": "crawler/frontier/verdict.py",
    "rate_limiter": "crawler/frontier/rate_limiter.py",
    "site_health": "crawler/frontier/site_health.py",
    "proof": "crawler/frontier/proof.py",
    "fill": "crawler/plan/fill.py",
    "tail": "crawler/plan/scope.py",
}
"""Module by the name of its file of tests, `tests/test_<name>.py`."""

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

TEST_SECONDS = 300
"""A change that makes the tests hang is noticed, too."""

WANTED = 0.85


def changes_of(path: Path) -> list[tuple[str, int, int]]:
    """List what can be changed in a module: operator, occurrence, line."""
    tree = get_ast_from_path(path)
    listed = []
    for name in OPERATORS:
        operator = get_operator(name)()
        places = [place for node in ast_nodes(tree) for place in operator.mutation_positions(node)]
        listed += [(name, count, place[0][0]) for count, place in enumerate(places)]
    return listed


def is_noticed(copy: Path, tests: str) -> bool:
    """Whether a file of tests fails in the copy."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", tests]
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}  # a change may come within one second
    try:
        run = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, timeout=TEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def try_module(copy: Path, name: str, most: int, seed: int) -> float:
    """Try at most so many changes of one module, drawn by a seed; return the share noticed."""
    path, tests = copy / MODULES[name], f"tests/test_{name}.py"
    if is_noticed(copy, tests):
        raise SystemExit(f"{tests} fails without any change")
    source = path.read_text()
    listed = changes_of(path)
    drawn = random.Random(f"{name} {seed}").sample(listed, min(most, len(listed)))
    lived = []
    for operator, occurrence, line in sorted(drawn, key=lambda change: change[2]):
        changed = mutate_code(source, get_operator(operator)(), occurrence)
        if changed is None:
            continue
        path.write_text(changed)
        if not is_noticed(copy, tests):
            new = next(
                (
                    two
                    for one, two in zip(source.split("\n"), changed.split("\n"), strict=False)
                    if one != two
                ),
                "",
            )
            lived.append(
                f"  {MODULES[name]}:{line}: {source.splitlines()[line - 1].strip()}  ->  {new.strip()}"
            )
    path.write_text(source)
    share = 1 - len(lived) / max(1, len(drawn))
    print(
        f"{name}: {len(drawn) - len(lived)} of {len(drawn)} noticed ({share:.0%})",
        *lived,
        sep="\n",
        flush=True,
    )
    return share


def main() -> int:
    """Try the modules named, all by default; 1 when any of them is below what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(MODULES)}; default: all")
    parser.add_argument("--most", type=int, default=40, help="changes of each module")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for part in ("crawler", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "main.py"):
            shutil.copy(ROOT / part, copy / part)
        shares = [try_module(copy, name, args.most, args.seed) for name in args.modules or MODULES]
    return int(min(shares) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
