"""A hundred uploads in a row to the dashboard, from one page: `make faults`. Hostile files: test_photographs.py."""

from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser

from db.store import open_database
from tests.dashboard.test_photograph_view import DASHBOARD, VIEW, picture, upload
from tests.faults import TIMES, count
from tests.running.scripted_sweep import trained_sweep
from tests.survey_browser import DESKTOP, Server

UPLOADS = 5 * TIMES  # a hundred by `make faults`
FIRST = 3  # after so many everything is loaded that stays


def memory_kb(server: Server) -> int:
    [line] = [
        line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")
    ]
    return int(line.split()[1])


def test_memory_after_many_uploads_does_not_grow(browser: Browser, tmp_path: Path) -> None:
    engine = open_database(tmp_path / "huejury.sqlite")
    trained_sweep(engine, tmp_path / "results")
    engine.dispose()
    server = Server(tmp_path / "huejury.sqlite", tmp_path / "server.log", script=DASHBOARD)
    try:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(server.url + VIEW)
        used, seen = [], set()
        for number in range(UPLOADS):
            rgb = np.random.default_rng(number).integers(0, 256, (866, 1155, 3), dtype=np.uint8)
            Image.fromarray(rgb).save(tmp_path / f"{number}.png")  # 3 MB, as noise does not compress
            upload(page, tmp_path / f"{number}.png")
            seen.add(picture(page))
            used.append(memory_kb(server))
        page.close()
    finally:
        server.stop()
    assert len(seen) == UPLOADS
    grown_mb = (used[-1] - used[FIRST]) / 1000
    said = f"{grown_mb:.0f} MB more after the last than after number {FIRST + 1} ({used[FIRST] / 1000:.0f} MB)"
    count("photographs of 3 MB uploaded by one page", f"{UPLOADS}", said, "tests/paint/faults_photograph.py")
    assert grown_mb < 100, said
