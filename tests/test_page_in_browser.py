"""The coverage page in a real browser: drawn, moved through, read aloud, light and dark."""

import shutil
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crawler.page.status_page import status_page
from tests.pages import a_block, a_listing, a_run
from tests.records import NOON

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARTIFACTS = Path(__file__).parent.parent / "artifacts"
LOAD_MS = 5000
"""Asserted loosely, the machine may be busy; on a quiet one 20,000 blocks take 400 ms."""

pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no browser: the page is not looked at (apt-get install chromium chromium-driver)",
    ),
    pytest.mark.once,
]


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    assert CHROMIUM
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (
            "headless",
            "no-sandbox",
            "disable-gpu",
            "disable-background-networking",
            "disable-component-update",
            "disable-sync",
            f"user-data-dir={profile}",
            "window-size=1280,1400",
        ):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        yield driver
        driver.quit()


@pytest.fixture
def show(browser, tmp_path):
    """Give a function that shows a page of some blocks and runs, light or dark."""

    def show_page(blocks, runs=(), *, scheme="light", location="gs://songs/genius"):
        text = status_page(blocks, runs, now=NOON, location=location, rate=100)
        (tmp_path / "status.html").write_text(text, encoding="utf-8")
        colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
        browser.get_log("browser")
        browser.get((tmp_path / "status.html").as_uri())
        wait_for_frames(browser)
        return browser

    return show_page


def wait_for_frames(browser):
    """Wait until the browser has painted what it was told."""
    browser.execute_async_script(
        "const done = arguments[0], frame = requestAnimationFrame;"
        "frame(() => frame(() => frame(() => done())))"
    )


def drawn_ms(browser):
    """Say how many milliseconds after its loading began the page was drawn; None: it was not."""
    return browser.execute_script("return performance.getEntriesByName('drawn')[0]?.startTime")


def said(browser, chart="map"):
    """Read what the page says below a chart."""
    return browser.execute_script(f"return document.getElementById('{chart}-said').textContent")


def press(browser, *keys):
    """Press keys, one after the other, wherever the focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def focus(browser, element):
    """Go to an element with the Tab key, as who has no mouse does."""
    from selenium.webdriver import Keys

    for _ in range(20):
        press(browser, Keys.TAB)
        if browser.execute_script("return document.activeElement.id") == element:
            return
    raise AssertionError(f"the Tab key does not reach {element}")


def pixel(browser, x, y, canvas="map"):
    """Read the colour of a point of a canvas, in CSS pixels."""
    return browser.execute_script(
        "const canvas = document.getElementById(arguments[2]), scale = devicePixelRatio;"
        "return [...canvas.getContext('2d').getImageData(arguments[0] * scale,"
        " arguments[1] * scale, 1, 1).data]",
        x,
        y,
        canvas,
    )


def cell_at(browser, index):
    """Say where on its canvas the middle of a cell is."""
    return browser.execute_script(
        "const cell = Chart.getChart('map').getDatasetMeta(0).data[arguments[0]];"
        "const {x, y} = cell.getCenterPoint(); return [x, y]",
        index,
    )


RUNS = [a_run(hours=-1, pause_at=20), a_run(hours=-25, seconds=90, start=1, stop=300_000)]
MIXED = [
    *a_listing(130),
    a_block(140_000, found=500, missing=20),
    a_block(141_000, found=0, missing=1000),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_drawn_without_an_error(show, scheme):
    """All charts are drawn, the console stays empty; a picture of it is kept."""
    browser = show(MIXED, RUNS, scheme=scheme)
    assert drawn_ms(browser) is not None
    charts = browser.execute_script("return Object.keys(Chart.instances).length")
    assert charts == 5
    assert browser.get_log("browser") == []
    ARTIFACTS.mkdir(exist_ok=True)
    browser.save_screenshot(str(ARTIFACTS / f"coverage-{scheme}.png"))


def test_hovering_names_the_numbers(show):
    """Who points at a cell reads its numbers and counts."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser = show([a_block(0), a_block(1000, found=890, failed=10), a_block(3000)])
    canvas = browser.find_element(By.ID, "map")
    x, y = cell_at(browser, 1)
    size = canvas.size
    ActionChains(browser).move_to_element_with_offset(
        canvas, round(x - size["width"] / 2), round(y - size["height"] / 2)
    ).perform()
    assert said(browser) == "Songs 1,000 to 1,999: 890 found, 100 missing, 10 failed (some failed)"


def test_the_map_is_moved_through_by_keyboard(show):
    """The Tab key reaches the map, arrows move from cell to cell, each is said aloud."""
    from selenium.webdriver import Keys

    browser = show(a_listing(200))
    focus(browser, "map")
    assert said(browser).startswith("Songs 0 to 999: ")
    press(browser, Keys.ARROW_RIGHT)
    assert said(browser).startswith("Songs 1,000 to 1,999: ")
    press(browser, Keys.ARROW_DOWN)
    assert said(browser).startswith("Songs 21,000 to 21,999: ")
    press(browser, Keys.END)
    assert said(browser).startswith("Songs 199,000 to 199,999: ")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert said(browser).startswith("Songs 199,000 to 199,999: ")


def test_the_runs_are_moved_through_by_keyboard(show):
    """A run's charts say each moment: its paces, its latency, and whether it was paused."""
    from selenium.webdriver import Keys

    browser = show(a_listing(10), RUNS)
    focus(browser, "rate")
    press(browser, *[Keys.ARROW_RIGHT] * 20)
    words = said(browser, "run")
    assert words.startswith("After 21 s: ")
    assert words.endswith("80 ms to an answer, paused")


def test_another_run_can_be_chosen(show):
    """Charts and table show the run that was chosen."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    browser = show(a_listing(10), RUNS)
    lines = "return document.querySelectorAll('#run-table tbody tr').length"
    assert browser.execute_script(lines) == 60
    Select(browser.find_element(By.ID, "which")).select_by_index(1)
    assert browser.execute_script(lines) == 90
    assert browser.get_log("browser") == []


def test_light_and_dark_follow_the_reader(show):
    """The page turns dark with the system, charts included, without being loaded again."""
    browser = show([a_block(0), a_block(1000)])
    at = cell_at(browser, 0)
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(paper), pixel(browser, *at)
    colours = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
    wait_for_frames(browser)
    dark = browser.execute_script(paper), pixel(browser, *at)
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(18, 23, 28)"
    assert light[1] != dark[1]


def test_each_state_has_its_colour(show):
    """Settled, partly settled, failed, not asked, beyond the end: five colours."""
    blocks = [
        a_block(0),
        a_block(1000, found=500, missing=0),
        a_block(2000, found=890, failed=10),
        a_block(4000),
        a_block(5000, found=0, missing=1000),
    ]
    browser = show(blocks)
    colours = {tuple(pixel(browser, *cell_at(browser, index))) for index in (0, 1, 2, 3, 5)}
    assert len(colours) == 5


def test_the_density_of_missing_numbers_is_seen(show):
    """The more numbers are missing, the paler the cell."""
    browser = show(
        [a_block(k * 1000, found=1000 - m, missing=m) for k, m in enumerate((0, 60, 120))]
    )
    reds = [pixel(browser, *cell_at(browser, index))[0] for index in range(3)]
    assert reds == sorted(set(reds))


def test_20000_blocks_are_drawn_in_time(show):
    """The map of a whole catalogue is there at once."""
    browser = show(a_listing(20_000), [a_run(hours=-k, seconds=240) for k in range(200)])
    assert drawn_ms(browser) < LOAD_MS
    assert browser.get_log("browser") == []


def test_hostile_text_is_not_obeyed(show):
    """A store, a source and a reason that are scripts are words on the page."""
    evil = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>'\"\u2028"
    block = a_block(0, found=899, failed=1, reasons={evil: 1})
    block.source = evil
    browser = show([block], RUNS, location=evil)
    assert browser.execute_script("return window.hacked") is None
    assert evil.replace("\u2028", "") in browser.title.replace("\u2028", "")
    assert browser.get_log("browser") == []


def test_the_page_cannot_reach_the_network(show):
    """Even a script inside the page gets nothing out."""
    asked = []

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        threading.Thread(target=site.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{site.server_port}"
        browser = show([a_block(0)])
        outcome = browser.execute_async_script(
            "const [address, done] = arguments;"
            "const image = new Image(); image.src = address + '/image';"
            "fetch(address + '/fetch', {mode: 'no-cors'}).then(() => done('sent'), () => done('held'))",
            address,
        )
        site.shutdown()
    assert (outcome, asked) == ("held", [])
    browser.get_log("browser")


def test_what_is_drawn_is_also_told(show):
    """Every chart has a name, and a table that says the same."""
    browser = show(MIXED, RUNS)
    unnamed = "return [...document.querySelectorAll('canvas')].filter(c => !c.ariaLabel).length"
    assert browser.execute_script(unnamed) == 0
    lines = "return [...document.querySelectorAll('table')].map(t => t.querySelectorAll('tbody tr').length)"
    assert min(browser.execute_script(lines)) > 0
    heads = "return [...document.querySelectorAll('th')].filter(h => !h.scope).length"
    assert browser.execute_script(heads) == 0
