"""Draws the results as SVG: `python -m benchmarks.plots FOLDER`, run in .venv-bench."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

OURS_COLOUR, OTHER_COLOUR, CEILING_COLOUR = "#c1440e", "#4a6fa5", "#9aa5b1"


def main() -> None:
    """Draw whatever the folder's latest.json has figures for."""
    folder = Path(sys.argv[1])
    results = json.loads((folder / "latest.json").read_text())
    mpl.rcParams |= {"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}
    drawings = {"http": draw_race, "tls": draw_race, "growth": draw_growth}
    drawings |= {"latency-200": draw_race, "latency-500": draw_race}
    drawings["connections"] = draw_connections
    for name, draw in drawings.items():
        entry = results.get(name)
        if entry and any(one["pages_per_second"] for one in entry["summary"]):
            figure = draw(entry)
            figure.text(0.01, 0.005, _caption(entry["machine"]), fontsize=6, color="#555555")
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def draw_race(entry: dict[str, Any]) -> Any:
    """Draw pages/s as bars on a log scale, with CPU per page written at each bar."""
    good = [one for one in reversed(entry["summary"]) if one["pages_per_second"]]
    figure, axes = plt.subplots(figsize=(8, 0.34 * len(good) + 1.2), layout="constrained")
    rates = [one["pages_per_second"]["median"] for one in good]
    low = [one["pages_per_second"]["median"] - one["pages_per_second"]["min"] for one in good]
    high = [one["pages_per_second"]["max"] - one["pages_per_second"]["median"] for one in good]
    names = [one["contestant"] for one in good]
    axes.barh(names, rates, xerr=[low, high], color=[_colour(name) for name in names], capsize=2)
    axes.set_xscale("log")
    axes.set_xlim(left=min(rates) / 2, right=max(rates) * 20)
    axes.set_xlabel("pages per second (log scale); bars: median, whiskers: least and most")
    axes.set_title(entry["title"])
    for place, one in enumerate(good):
        cpu = one["cpu_ms_per_page"]["median"]
        text = f"{rates[place]:,.0f}/s, {cpu:.3f} ms CPU per page"
        axes.text(one["pages_per_second"]["max"] * 1.1, place, text, va="center", fontsize=7)
    _make_room(figure)
    return figure


def draw_growth(entry: dict[str, Any]) -> Any:
    """Draw time, processor time and peak memory against the number of pages."""
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    series = (("seconds", "wall time, s"), ("cpu_seconds", "CPU time, s"))
    for axes, (key, label) in zip(panels, (*series, ("peak_rss_mb", "peak RSS, MB")), strict=True):
        for name in _names(entry):
            points = [one for one in entry["summary"] if one["contestant"] == name and one[key]]
            counts = [one["count"] for one in points]
            values = [one[key]["median"] for one in points]
            axes.plot(counts, values, marker="o", markersize=4, label=name, color=_colour(name))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_xlabel("pages")
        axes.set_title(label)
        if key == "peak_rss_mb":
            axes.set_ylim(0, axes.get_ylim()[1] * 1.1)
        else:
            axes.set_yscale("log")
    panels[0].legend(fontsize=7)
    _make_room(figure)
    return figure


def draw_connections(entry: dict[str, Any]) -> Any:
    """Draw pages/s against connections, with the limit that the latency sets."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    colours = dict(zip(_names(entry), ("#c1440e", "#e0a458", "#4a6fa5", "#7a9e7e"), strict=False))
    for name, colour in colours.items():
        points = [
            one for one in entry["summary"] if one["contestant"] == name and one["pages_per_second"]
        ]
        lanes = [one["connections"] for one in points]
        rates = [one["pages_per_second"]["median"] for one in points]
        axes.plot(lanes, rates, marker="o", markersize=4, label=name, color=colour)
    lanes = sorted({one["connections"] for one in entry["summary"]})
    limits = [10 * lane for lane in lanes]
    axes.plot(lanes, limits, linestyle="--", color=CEILING_COLOUR, label="limit: 10/s each")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("connections")
    axes.set_ylabel("pages per second")
    axes.set_title(entry["title"])
    axes.legend(fontsize=8)
    _make_room(figure)
    return figure


def _names(entry: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(one["contestant"] for one in entry["summary"]))


def _colour(name: str) -> str:
    if name.startswith("ours"):
        return OURS_COLOUR
    return CEILING_COLOUR if name.startswith("wrk") else OTHER_COLOUR


def _make_room(figure: Any) -> None:
    """Leave a strip at the bottom for the caption."""
    figure.get_layout_engine().set(rect=(0, 0.05, 1, 0.95))


def _caption(machine: dict[str, Any]) -> str:
    return (
        f"{machine['date']}, {machine['cores']} cores of {machine['processor']}, "
        f"{machine['system']}, Python {machine['python']}, {machine['nginx']}"
    )


if __name__ == "__main__":
    main()
