"""How the house stands: imports go one way, modules are small, importing has no effects."""

import ast
import graphlib
import json
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler import crawl
from crawler.demo.site import DemoSite

ROOT = Path(__file__).parent.parent

FLOORS = (
    ("", "version errors logs record answer"),
    ("source", "source fields values compiled declaration declared"),
    ("settings", "settings reading"),
    ("request", "incoming crawl_request"),
    (
        "frontier",
        "verdict rate_limiter work circuit_breaker site_health canaries proof host frontier",
    ),
    ("wire", "body answers transfer transfers wire session robots"),
    ("", "step1 lanes steps"),
    ("store", "block contract folder bucket opening control coverage"),
    ("plan", "planned fill scope"),
    ("page", "charts status_page"),
    ("run", "functions writer raw store_index progress monitor run crawl"),
    ("fleet", "task_queue orders delivery"),
    ("exports", "formats export"),
    ("", "doctor"),
    ("demo", "songs behaviour site"),
    (
        "deployment",
        "schedule cost gcloud cloud upload deployment service monitoring",
    ),
    ("", "__init__"),
    ("cli", "options crawl store export demo deployment"),
    ("", "__main__"),
)
"""Folder by folder, every module of the package. Each imports only from those before it, so that
the folders stand in one order, too; a new module is put where it belongs."""

ORDER = tuple(f"{folder}.{name}".lstrip(".") for folder, names in FLOORS for name in names.split())

MAX_LINES = 410  # a module longer than this has two duties

HEAVY = (
    "dotenv",
    "google.cloud",
    "nest_asyncio",
    "nest_asyncio2",
    "pandas",
    "protego",
    "pyarrow",
    "tqdm",
)
"""Libraries imported where first used, so that a cold start does not wait for them."""


def modules() -> list[str]:
    """Name the modules of the package that exist, in their order, strangers last."""
    found = {name_of(path) for path in (ROOT / "crawler").rglob("*.py") if not is_signboard(path)}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def name_of(path: Path) -> str:
    """Name a module as it stands in the order: its dotted name within the package."""
    return ".".join(path.relative_to(ROOT / "crawler").with_suffix("").parts)


def is_signboard(path: Path) -> bool:
    """Whether a file is the `__init__` of a folder, which says what the folder is for."""
    return path.name == "__init__.py" and path.parent != ROOT / "crawler"


def path_of(module: str) -> Path:
    """Find the file of a module of the package."""
    return (ROOT / "crawler").joinpath(*module.split(".")).with_suffix(".py")


def source_of(module: str) -> str:
    """Read the text of a module of the package."""
    return path_of(module).read_text(encoding="utf-8")


def imports(source: str) -> Iterator[str]:
    """Name the modules of this package that a text imports, at its top or anywhere inside."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import hides what it takes"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "crawler":
                yield module_in(parts)


def module_in(parts: list[str]) -> str:
    """Name the module that a dotted name begins with; the package itself where there is none."""
    for length in range(len(parts), 0, -1):
        if path_of(".".join(parts[:length])).exists():
            return ".".join(parts[:length])
    return "__init__"


def backward(module: str, imported: Iterator[str]) -> list[str]:
    """List what a module imports that does not come before it."""
    return sorted({name for name in imported if ORDER.index(name) >= ORDER.index(module)})


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return one circle of imports, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_has_its_place_in_the_order():
    """No module stands outside the order, and none twice."""
    assert set(modules()) <= set(ORDER)
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("module", modules())
def test_imports_go_one_way(module):
    """A module imports only from those before it."""
    assert backward(module, imports(source_of(module))) == []


def test_imports_go_in_no_circle():
    """No module needs itself, by whatever way round."""
    assert circle({module: set(imports(source_of(module))) for module in modules()}) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import crawler.run.crawl", ["run.crawl"]),
        ("from crawler.run.crawl import crawl", ["run.crawl"]),
        ("from crawler.store import control", ["store.control"]),
        ("from crawler import steps", ["steps"]),
        ("from crawler import no_module_but_a_name", ["__init__"]),
        ("def late():\n    from crawler.run.crawl import crawl", ["run.crawl"]),
        ("import json, crawlers", []),
    ],
)
def test_imports_are_seen_in_every_spelling(text, found):
    """No late import hides."""
    assert list(imports(text)) == found


def test_a_relative_import_is_refused():
    """Every import says where it takes from."""
    with pytest.raises(AssertionError, match="relative"):
        list(imports("from . import errors"))


def test_a_circle_is_named():
    """The check for circles finds one that there is."""
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_a_step_back_is_named():
    """The check of the order finds a module that imports from a later one."""
    assert backward("errors", iter(["version", "cli.crawl"])) == ["cli.crawl"]


@pytest.mark.parametrize("module", modules())
def test_a_module_says_its_duty_in_its_first_line(module):
    """The first line of a module is a sentence on what it is for."""
    docstring = ast.get_docstring(ast.parse(source_of(module))) or ""
    first = docstring.split("\n")[0]
    assert len(first) >= 20
    assert source_of(module).startswith(('"""', "#!"))


@pytest.mark.parametrize("module", modules())
def test_a_module_has_one_duty(module):
    """No module is longer than one duty needs."""
    assert len(source_of(module).splitlines()) <= MAX_LINES


AUDIT = """
import importlib, json, os, sys, threading

effects, seen = [], {}
OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WATCHED = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn",
           "os.mkdir", "os.remove", "os.rename", "os.putenv", "os.unsetenv", "signal.",
           "shutil.", "tempfile.", "urllib.Request")
HARMLESS = ("socket.gethostname", "socket.__new__")  # libraries ask and try; nothing is sent
IPV6_TRIAL = "('::1', 0)"  # urllib3 binds it once to see whether this machine has IPv6


class Environment(type(os.environ)):
    def __getitem__(self, key):
        frame = sys._getframe(1)
        while frame.f_globals.get("__name__") in ("os", "_collections_abc", "collections.abc"):
            frame = frame.f_back
        reader = frame.f_globals.get("__name__", "")
        if reader.partition(".")[0] in ("crawler", "main"):
            effects.append(f"{reader} reads {key} from the environment")
        return super().__getitem__(key)


def audit(event, args):
    if event == "open":
        path, mode, flags = args
        if flags & OPEN_TO_WRITE and "__pycache__" not in str(path):
            effects.append(f"open {path} to write")
    elif event.startswith(WATCHED) and event not in HARMLESS and IPV6_TRIAL not in repr(args):
        effects.append(f"{event} {args!r:.200}")


def start(thread):  # Python 3.11 has no audit event for it
    effects.append(f"start {thread.name}")


threading.Thread.start = start
os.environ.__class__ = Environment
sys.dont_write_bytecode = True
sys.addaudithook(audit)
for name in sys.argv[1:]:
    before, heard = set(sys.modules), len(effects)
    importlib.import_module(name)
    seen[name] = {"effects": effects[heard:], "loaded": sorted(set(sys.modules) - before)}
sys.stdout.write(json.dumps(seen))
"""


def import_in_turn(names: list[str], folder: Path) -> dict[str, dict[str, list[str]]]:
    """Import modules in a fresh process; report of each its effects and what it was first to load."""
    done = subprocess.run(
        [sys.executable, "-c", AUDIT, *names],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def importable() -> list[str]:
    """Name what can be imported: the modules but `__main__`, which runs, and `main`."""
    names = [f"crawler.{module}" for module in modules() if not module.endswith("__")]
    return [*names, "main"] if (ROOT / "main.py").exists() else names


def test_importing_has_no_effects():
    """Importing a module opens nothing, starts nothing and reads no environment."""
    seen = import_in_turn(importable(), ROOT)
    assert {name: report["effects"] for name, report in seen.items() if report["effects"]} == {}


def test_importing_waits_for_no_heavy_library():
    """What only some runs need is imported by them."""
    seen = import_in_turn(importable(), ROOT)
    heavy = {name: sorted({*report["loaded"]} & {*HEAVY}) for name, report in seen.items()}
    assert {name: libraries for name, libraries in heavy.items() if libraries} == {}


@pytest.mark.parametrize(
    ("text", "effect"),
    [
        ("import os; os.environ.get('HOME')", "reads HOME"),
        ("import os; os.getenv('HOME')", "reads HOME"),
        ("open('written', 'w')", "to write"),
        ("import socket; socket.create_connection(('127.0.0.1', 9), 0.1)", "socket.connect"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import threading; threading.Thread(target=int).start()", "start Thread"),
    ],
)
def test_an_effect_at_import_is_seen(text, effect, tmp_path):
    """The audit notices each kind of effect."""
    (tmp_path / "main.py").write_text(f"try:\n    {text}\nexcept OSError:\n    pass\n")
    assert effect in str(import_in_turn(["main"], tmp_path)["main"]["effects"])


def reached_into(text: str) -> set[str]:
    """List what a file of tests puts in the place of something private or constant, or imports.

    What takes a name from a variable is listed as `setattr`. Ruff's SLF001 finds private names that
    are used, and each exception from it has to carry its reason.
    """
    names = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "crawler":
            names |= {alias.name for alias in node.names if alias.name.startswith("_")}
        elif isinstance(node, ast.Call) and "setattr" in ast.unparse(node.func).split("."):
            named = node.args[0] if isinstance(node.args[0], ast.Constant) else node.args[1]
            value = named.value if isinstance(named, ast.Constant) else "_setattr"
            names.add(str(value).rpartition(".")[2])
    bare = re.findall(r"noqa: SLF001(?! - \w)", text)
    return {name for name in names if name.isupper() or name.startswith("_")} | {*bare}


REACHES = {
    "test_architecture": {"noqa: SLF001"},  # a case of the test below
    "test_simulation": {"_setattr"},  # takes out what was mended, to see worlds break without it
    "warm_gcloud": {"_setattr"},  # streams of a process that becomes gcloud
}
"""Files that have to reach in, and why."""


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda p: p.stem)
def test_tests_go_through_public_doors(path):
    """What a test needs otherwise comes in by the door."""
    assert reached_into(path.read_text()) == REACHES.get(path.stem, set())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('patch.setattr(module, "MOST", 1)', "MOST"),
        ('patch.setattr("crawler.module._inner", 2)', "_inner"),
        ('setattr(module, "_inner", 2)', "_inner"),
        ("patch.setattr(module, name, 2)", "_setattr"),
        ("from crawler.store.block import _pack, pack", "_pack"),
        ("writer._saver  # noqa: SLF001", "noqa: SLF001"),
    ],
)
def test_a_door_that_is_not_public_is_seen(text, name):
    """In each spelling that would do."""
    assert reached_into(text) == {name}
    assert reached_into('patch.setattr("sys.stdin", 1)\nfrom crawler.answer import Answer') == set()


# --- How many hands a number passes through ------------------------------------------------------


def calls_of_a_crawl(start: int, stop: int, **options: Any) -> Counter[str]:
    """Crawl, and count the calls of functions by the file that they stand in, in all threads."""
    calls = Counter[str]()

    def count(frame: Any, event: str, _arg: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_filename] += 1

    threading.setprofile(count)
    try:
        answer = crawl(start, stop, **options)
    finally:
        threading.setprofile(None)
    assert answer.found == stop - start
    return Counter(calls)


SAME_SONG = """
name = "same"
schema = "1"
base_url = "{site}"
url = "{{base_url}}/songs/1?of={{song_num}}"
robots = false
[headers]
Authorization = "Bearer {token}"
[fields]
title = "response.song.title"
"""
"""A source of which no number is missing."""


def asks_by(caller: str, site: DemoSite, folder: Path) -> dict[str, Any]:
    """Return the options of a crawl by a declared source, or by a function as anybody writes it."""
    if caller == "source":
        file = folder / "same.toml"
        file.write_text(SAME_SONG.format(site=site.base_url, token=site.token))
        return {"source": str(file)}

    def request_title(session: Any, song_num: int, titles: list[Any]) -> None:
        headers = {"Authorization": f"Bearer {site.token}"}
        page = session.get(f"{site.base_url}/songs/1?of={song_num}", headers=headers).json()
        titles.append((song_num, page["response"]["song"]["title"]))

    return {"function": request_title, "base_url": site.base_url, "token": site.token}


@pytest.mark.parametrize(("caller", "most"), [("source", 8), ("function", 12)])
def test_one_more_number_passes_few_hands(
    caller: str, most: int, demo_site: DemoSite, tmp_path: Path
) -> None:
    """From plan to block so many modules are called for each further number that is found."""
    options = {"store": tmp_path / "store", "rate": 0, "contact": "tests@example.org"}
    options |= asks_by(caller, demo_site, tmp_path)
    few = calls_of_a_crawl(0, 200, **options)
    many = calls_of_a_crawl(1000, 2000, **options)
    package = f"{ROOT / 'crawler'}/"
    ours = [name.removeprefix(package) for name in many if name.startswith(package)]
    grown = {name: many[package + name] - few[package + name] for name in ours}
    hands = sorted(name for name, calls in grown.items() if calls >= 0.9 * 800)
    hands = [name for name in hands if not name.startswith("demo/")]
    assert "run/writer.py" in hands
    assert len(hands) <= most, " ".join(hands)
