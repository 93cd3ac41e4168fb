"""How long the dashboard's views take on a large database: `python -m benchmarks.dashboard [DATABASE]`.

200 trials of 30 epochs, 20,000 samples, 50,000 votes (see dashboard_database.py). Each view is opened several times in
headless Chromium, as a new reader would: from the request to the moment when the server has run the page, and the
browser has drawn every figure and picture of it.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.table import Table

from benchmarks.dashboard_database import make_database
from survey_app.dashboard.page import VIEWS
from tests.survey_browser import CHROMIUM_ARGUMENTS, DESKTOP, Server, chromium

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


def load_s(browser: Browser, url: str) -> float:
    """Seconds until a page, in a browser context of its own, is ready."""
    context = browser.new_context(viewport=DESKTOP)
    try:
        page = context.new_page()
        started = time.perf_counter()
        page.goto(url)
        page.wait_for_function(READY, polling=20)
        return time.perf_counter() - started
    finally:
        context.close()


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        database = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "large.sqlite"
        if not database.exists():
            make_database(database)
        server = Server(database, Path(folder) / "server.log")
        table = Table(title=f"Seconds to a drawn page, median of {LOADS} loads", box=None)
        for heading in ("view", "first", "median", "slowest"):
            table.add_column(heading, justify="left" if heading == "view" else "right")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_ARGUMENTS)
                for view in VIEWS:
                    url = f"{server.url}dashboard?{urlencode({'view': view})}"
                    first, *others = (load_s(browser, url) for _ in range(1 + LOADS))
                    table.add_row(view, f"{first:.2f}", f"{statistics.median(others):.2f}", f"{max(others):.2f}")
                browser.close()
        finally:
            server.stop()
    console.print(table)


if __name__ == "__main__":
    main()
