"""The pictures of the README and the gallery, made from a real store: `python docs/pictures.py`.

python docs/pictures.py coverage STORE     coverage-light.png, coverage-dark.png, progress.png
python docs/pictures.py songs STORE        songs-per-year.svg
python docs/pictures.py terminal FILE      terminal.svg, from what `script` recorded
"""

import base64
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from crawler.page.status_page import status_page
from crawler.store.block import decode_block
from crawler.store.control import read_runs
from crawler.store.opening import open_store

IMAGES = Path(__file__).parent / "images"
SHOWN_AS = "gs://my-bucket/genius"


def coverage(location: str) -> None:
    """Take pictures of the coverage page, light and dark, and of its progress."""
    store = open_store(location)
    page = status_page(
        list(store.list_blocks(timeout=60)),
        read_runs(store, latest=200, timeout=20),
        now=datetime.now(UTC),
        location=SHOWN_AS,
        rate=100.0,
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "page.html")
        file.write_text(page, encoding="utf-8")
        for scheme in ("light", "dark"):
            browser = _browser(Path(folder, scheme))
            _colours(browser, scheme)
            browser.get(file.as_uri())
            height = browser.execute_script("return document.documentElement.scrollHeight")
            browser.set_window_size(1180, height + 160)
            _hover(browser)
            _shoot(browser, "html", IMAGES / f"coverage-{scheme}.png")
            if scheme == "light":
                _shoot(browser, "section:has(#progress) .chart", IMAGES / "progress.png")
            browser.quit()


def songs_per_year(location: str) -> None:
    """Draw how many of the songs found came out in each year."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "songs"  # the same songs give the same bytes
    from matplotlib import pyplot

    years = Counter(_years(location))
    figure, axes = pyplot.subplots(figsize=(8.5, 3.2), layout="constrained")
    axes.bar(list(years), list(years.values()), color="#0b62a8", width=0.85)
    axes.set_title(f"{years.total():,} songs with a release date, by its year", loc="left")
    axes.set_ylabel("songs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(IMAGES / "songs-per-year.svg", metadata={"Date": None})


def terminal(recording: str) -> None:
    """Draw a recording of a terminal, as `script` made it, as one picture."""
    from rich.console import Console
    from rich.text import Text

    lines = Path(recording).read_text(encoding="utf-8").replace("\r\n", "\n").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line.rsplit("\r")[-1]) for line in lines]
    kept = [line for line in plain if not line.startswith(("Script ", "WARNING"))]
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=108, file=nowhere, force_terminal=True)
        for line in kept:
            style = "bold green" if line.startswith("$ ") else ""
            console.print(Text(line, style=style), soft_wrap=False)
        svg = console.export_svg(title="song crawler: from clone to tuples")
    svg = re.sub(r"@font-face {.*?}", "", svg, flags=re.DOTALL)  # it would ask a network for fonts
    (IMAGES / "terminal.svg").write_text(svg, encoding="utf-8")


def _years(location: str) -> list[int]:
    store, years = open_store(location), []
    for name in store.list_names("songs/", timeout=60):
        stored = store.read(name, timeout=60)
        for record in decode_block(stored.data, name).values() if stored else ():
            info = msgspec.to_builtins(record.info)
            if info and re.match(r"\d{4}-", info["release_date"] or ""):
                years.append(int(info["release_date"][:4]))
    return years


def _browser(profile: Path) -> Any:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("headless", "no-sandbox", "disable-gpu", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=1180,1200")
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _colours(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _hover(browser: Any) -> None:
    """Rest the pointer on the first cell with failures, so that the picture shows what it says."""
    from selenium.webdriver import ActionChains

    script = (
        "const chart = Chart.getChart('map'), box = chart.canvas.getBoundingClientRect();"
        "const cells = JSON.parse(document.getElementById('data').textContent).cells;"
        "const cell = chart.getDatasetMeta(0).data[cells.findIndex((one) => one[4])];"
        "const {x, y} = cell.getCenterPoint(); return [box.x + x, box.y + y]"
    )
    x, y = browser.execute_script(script)
    pointer: Any = ActionChains(browser)
    pointer.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    pointer.perform()
    frames = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    browser.execute_async_script(frames)


def _shoot(browser: Any, selector: str, out: Path) -> None:
    box = browser.execute_script(
        "const {x, y, width, height} = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return {x: Math.max(0, x - 12), y: Math.max(0, y - 12), width: width + 24, height: height + 24, scale: 1}",
        selector,
    )
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": box})
    out.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    what, where = sys.argv[1:]
    {"coverage": coverage, "songs": songs_per_year, "terminal": terminal}[what](where)
