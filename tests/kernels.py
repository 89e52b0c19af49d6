"""Real Jupyter kernels that notebooks are run in."""

import tempfile
from typing import Any


def run_notebook(notebook: Any, *, seconds: float, folder: str | None = None) -> None:
    """Run all cells in a kernel of its own, and keep their outputs in the notebook.

    The kernel is spoken to over Unix sockets: TCP ports for it would be chosen first and bound when
    it has started, seconds later on a busy machine, and anything that takes one of them in between
    kills it. (https://github.com/nteract/papermill/issues/511)

    Args:
        notebook: As `nbformat` makes it.
        seconds: How long a cell, and the kernel's start, may take.
        folder: Where it runs, the current folder by default.
    """
    from nbclient import NotebookClient
    from traitlets.config import Config

    with tempfile.TemporaryDirectory() as sockets:  # a path of at most 107 bytes
        NotebookClient(
            notebook,
            config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            kernel_name="python3",
            timeout=seconds,
            startup_timeout=seconds,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}} if folder else {},
        ).execute()
