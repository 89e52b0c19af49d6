"""The notebook runs from top to bottom in a real kernel, and is kept with what it showed."""

import copy
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import run_notebook

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "crawl.ipynb"
SECONDS = 90


@pytest.fixture
def kept() -> Any:
    """The notebook as it is committed."""
    import nbformat  # brings a second of grammars

    return nbformat.read(NOTEBOOK, 4)


def run(kept: Any) -> Any:
    """Run it in a kernel of its own, which knows the package, in an empty folder."""
    notebook = copy.deepcopy(kept)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("MPLBACKEND", raising=False)
        run_notebook(notebook, seconds=SECONDS, folder=folder)
    return notebook


def outputs(notebook: Any) -> list[Any]:
    """All outputs, in order."""
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def kinds(notebook: Any) -> list[str]:
    """What sort of thing each code cell shows; a picture is one, a table another."""
    return [
        kind
        for output in outputs(notebook)
        for kind in (sorted(output.data) if "data" in output else [output.name])
    ]


def text_of(notebook: Any) -> str:
    """All that is shown as text."""
    return "\n".join(o.data["text/plain"] if "data" in o else o.text for o in outputs(notebook))


def test_it_runs_from_top_to_bottom(kept):
    """No cell fails; it shows each crawl's bar at its end, the answer with the map, one plot, no warning.

    One test, since the run takes its seconds: what it shows is also what was kept.
    """
    notebook = run(kept)
    said = text_of(notebook)
    assert "4550 found, 450 missing" in said
    assert "(5000, 0)" in said
    shown = "".join(o.data.get("text/html", "") for o in outputs(notebook) if "data" in o)
    assert "<b>Songs 1 to 5,000</b>: " in shown
    assert "Complete." in shown
    assert "What the store holds of songs 1 to 5,000" in shown
    told = [o.text for o in outputs(notebook) if "data" not in o]
    assert [line.startswith("songs 1 to 5000: 100%") for line in told] == [True, True]
    assert kinds(notebook).count("image/png") == 1
    assert kinds(notebook) == kinds(kept)


def test_it_takes_public_names_only(kept):
    """What a reader copies from it stays: the names of `crawler`, and the embedded site."""
    code = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "code")
    assert set(re.findall(r"(?:from|import) (crawler[\w.]*)", code)) == {
        "crawler",
        "crawler.demo.site",
    }


def test_it_is_kept_with_its_outputs_and_small(kept):
    """Who only looks at it sees what it shows, and a clone does not grow by it."""
    assert all(cell.execution_count for cell in kept.cells if cell.cell_type == "code")
    assert NOTEBOOK.stat().st_size < 150_000


def test_it_names_no_place_of_the_machine_it_ran_on(kept):
    """What is committed holds no path and no port that means nothing to others."""
    said = text_of(kept)
    assert "127.0.0.1" not in said
    assert "/tmp" not in said
