"""The coverage map as a strip for a notebook: the number line from left to right, in colours."""

from collections.abc import Iterable
from html import escape

from crawler.page.map import STATES, Cell, State, coverage_map, stretches
from crawler.store.block_info import BlockInfo

COLOURS: dict[State, str] = {
    "settled": "#3b8f5a",
    "partly": "#e0b040",
    "failed": "#c0392b",
    "not_asked": "#bbbbbb",
    "beyond": "#8aa9c7",
}
"""Legible on a light page and on a dark one; the words beside them say the same."""

_WIDTH, _HEIGHT = 1000, 24


def map_strip(blocks: Iterable[BlockInfo]) -> str:
    """Draw what a store holds as one line of HTML; hovering names the numbers and counts.

    Args:
        blocks: The store's listing, in any order; no block is read.
    """
    line = coverage_map(sorted(blocks, key=lambda block: block.first))
    if not line.cells:
        return ""
    scale = _WIDTH / (line.stop - line.start)
    parts = list(stretches(line.cells))
    bars = "".join(_bar(cell, (cell.start - line.start) * scale, scale) for cell in parts)
    shown = [state for state in STATES if any(cell.state == state for cell in parts)]
    legend = " ".join(
        f'<span style="color:{COLOURS[state]}">&#9632;</span> {escape(STATES[state])}'
        for state in shown
    )
    label = f"songs {line.start:,} to {line.stop - 1:,}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" height="{_HEIGHT}" role="img" '
        f'preserveAspectRatio="none" aria-label="What the store holds of {label}">{bars}</svg>'
        f"<p>The store, {label}: {legend}</p>"
    )


def _bar(cell: Cell, left: float, scale: float) -> str:
    width = max(1.0, (cell.stop - cell.start) * scale)
    words = (
        f"{cell.start:,} to {cell.stop - 1:,}, {STATES[cell.state]}: {cell.found:,} found, "
        f"{cell.missing:,} missing, {cell.failed:,} failed, {cell.not_asked:,} not asked"
    )
    return (
        f'<rect x="{left:.2f}" width="{width:.2f}" height="{_HEIGHT}" '
        f'fill="{COLOURS[cell.state]}"><title>{escape(words)}</title></rect>'
    )
