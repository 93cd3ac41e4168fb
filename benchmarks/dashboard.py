"""How long the dashboard's views take on a large database, in a browser."""

import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright

from benchmarks.dashboard_database import make_database
from benchmarks.harness import goal, spread, table
from survey_app.dashboard.page import VIEWS
from tests.survey_browser import CHROMIUM, CHROMIUM_ARGUMENTS, DESKTOP, Server

TEXT = """\
## The dashboard

A SQLite database of 200 trials of 30 epochs (and 30 that were stopped or failed), 20,000 samples and 50,000 votes. Each
view is opened in headless Chromium as a new reader would, with an empty cache, from the request to the moment when the
server has run the page and every figure and picture of it is drawn. *First* is the first reader of that view after the
server's start.
"""

LOADS = 7
READY = """() => {
  const app = document.querySelector('[data-testid="stApp"]');
  if (!app || app.dataset.testScriptState !== "notRunning") return false;
  if (!document.querySelector('[data-testid="stMarkdown"]') || document.querySelector('[data-testid="stSkeleton"]'))
    return false;
  const drawn = (chart) => chart.querySelector("canvas, svg");
  return [...document.querySelectorAll('[data-testid="stVegaLiteChart"]')].every(drawn)
    && [...document.images].every((image) => image.complete);
}"""


def section(tiny: bool) -> list[str]:
    if CHROMIUM is None:
        return [TEXT, "Not measured: there is no Chromium on this machine."]
    loads = 1 if tiny else LOADS
    rows, medians = [], []
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "large.sqlite"
        make_database(database)
        server = Server(database, Path(folder) / "server.log", script="survey_app/dashboard/app.py")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
                for view in VIEWS:
                    url = f"{server.url}?{urlencode({'view': view})}"
                    first, *others = (_load_s(browser, url) for _ in range(1 + loads))
                    rows.append([view, f"{first:.2f}", spread(others)])
                    medians.append(median(others))
                browser.close()
        finally:
            server.stop()
    line = goal("seconds until a view is drawn", medians, at_most=2)
    return [TEXT, *table(["view", "first, s", f"{loads} further loads, s"], rows), "", line]


def _load_s(browser: Browser, url: str) -> float:
    """Seconds until a page, in a browser context of its own, is ready."""
    context = browser.new_context(viewport=DESKTOP)
    try:
        page = context.new_page()
        started = time.perf_counter()
        page.goto(url)
        page.wait_for_function(READY, polling=20)
        seconds = time.perf_counter() - started
        assert not page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count(), url
        return seconds
    finally:
        context.close()
