"""The dashboard's page "Your photograph" in Chromium: upload, slide, click, undo, download; on a phone, too."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from skimage.data import chelsea

from db.store import open_database
from tests.scripted_sweep import trained_sweep
from tests.survey_browser import CHECKOUT, DESKTOP, PHONE, Server, check_looks

DASHBOARD = "survey_app/dashboard/app.py"
VIEW = "?view=Your+photograph&model=rebalanced"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("photograph")
    engine = open_database(folder / "huejury.sqlite")
    trained_sweep(engine, folder / "results")
    engine.dispose()
    server = Server(folder / "huejury.sqlite", folder / "server.log", script=DASHBOARD)
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cat") / "my <b>cat.jpg"
    Image.fromarray(chelsea()).resize((1000, 665)).save(path)  # type: ignore[no-untyped-call]
    return path


def upload(page: Page, path: Path) -> None:
    page.locator('input[type="file"]').set_input_files(path)
    page.locator(".stage[data-turn]").wait_for()


def picture(page: Page) -> str:
    """What is shown, once the newest question is answered."""
    page.locator('.stage[aria-busy="false"]').wait_for()
    source = page.locator(".coloured").get_attribute("src")
    assert source is not None
    return source


def test_a_photograph_is_uploaded_tried_on_and_taken_away(server: Server, browser: Browser, cat: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url + VIEW)
    upload(page, cat)
    strip = page.locator(".strip figure")
    assert strip.locator("figcaption").all_inner_texts() == ["photograph", "regression", "rebalanced", "tilted"]
    plain = picture(page)

    page.locator(".tilt").fill("0.2")
    tilted = picture(page)
    assert tilted != plain
    page.locator(".temperature").fill("0.9")
    assert picture(page) not in (plain, tilted)
    page.get_by_role("button", name="Undo").click()
    assert picture(page) == tilted
    expect(page.locator(".temperature")).to_have_value("0.38")

    page.locator(".stage").click(position={"x": 300, "y": 200})
    swatches = page.locator(".likeliest .swatch")
    expect(swatches).to_have_count(12)
    shares = [float(text.rstrip(" %")) for text in swatches.all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert picture(page) == tilted
    entry = swatches.nth(7).get_attribute("data-entry")
    swatches.nth(7).click()
    hinted = picture(page)
    assert hinted != tilted
    expect(page.locator('.likeliest .swatch[aria-pressed="true"]')).to_have_attribute("data-entry", str(entry))
    check_looks(page)

    pictures = []
    for kind, suffix in (("PNG", ".png"), ("JPEG", ".jpg")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download as {kind}").click()
        assert download.value.suggested_filename == f"my bcat-coloured{suffix}"
        with Image.open(download.value.path()) as image:
            assert (image.format, image.size) == (kind, (1000, 665))
            pictures.append(np.asarray(image.convert("RGB")).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < 3
    assert np.ptp(pictures[0], axis=-1).max() > 10  # it has colours

    page.get_by_role("button", name="Undo").click()
    assert picture(page) == tilted
    page.get_by_role("button", name="Reset").click()
    assert picture(page) == plain
    page.get_by_role("radio", name="its true colours").check()
    true = page.locator(".other").get_attribute("src")
    assert true is not None
    page.close()
    assert not errors


@pytest.mark.long
def test_it_can_be_used_by_keys_on_a_phone_in_the_dark(server: Server, browser: Browser, tmp_path: Path) -> None:
    page = browser.new_page(viewport=PHONE, color_scheme="dark")
    page.goto(server.url + VIEW)
    page.get_by_role("radio", name="cameraman").press("Enter")
    page.locator(".stage[data-turn]").wait_for()
    assert page.locator(".compare").is_hidden()  # a grey photograph has no true colours
    plain = picture(page)
    page.locator(".stage").focus()
    for key in ("ArrowLeft", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    page.locator(".swatch").first.wait_for()
    page.locator(".swatch").nth(3).press("Enter")
    assert picture(page) != plain
    page.locator(".tilt").press("ArrowLeft")
    expect(page.locator(".row:has(.tilt) output")).to_have_text("0.99")
    check_looks(page)

    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html>")
    page.locator('input[type="file"]').set_input_files(tmp_path / "page.png")
    page.get_by_text("page.png is no picture that can be read; get the picture again.").wait_for()
    assert page.locator(".stage").count() == 0
    page.close()


@pytest.mark.long
def test_a_model_that_gives_colours_directly_has_nothing_to_try(server: Server, browser: Browser, cat: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(server.url + VIEW.replace("rebalanced", "regression"))
    upload(page, cat)
    page.get_by_text("This model gives one colour per place").wait_for()
    assert page.locator(".settings").is_hidden()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as PNG").click()
    assert Image.open(io.BytesIO(Path(download.value.path()).read_bytes())).size == (1000, 665)
    page.close()


@pytest.mark.long
def test_what_was_tried_on_one_model_is_tried_on_the_next(server: Server, browser: Browser) -> None:
    page = browser.new_page(viewport=DESKTOP)
    page.goto(server.url + VIEW)
    page.get_by_role("radio", name="cameraman").press("Enter")
    page.locator(".stage[data-turn]").wait_for()
    temperature = page.locator(".temperature")
    temperature.click(position={"x": 90, "y": 5})
    chosen = temperature.input_value()
    assert chosen != "0.38"
    picture(page)
    models = page.get_by_role("combobox", name="Model")
    models.scroll_into_view_if_needed()
    page.evaluate("() => new Promise(requestAnimationFrame)")  # a list that opens while the page scrolls shuts again
    models.click()
    page.get_by_role("option", name="tilted").click()
    page.get_by_alt_text("coloured by tilted").and_(page.locator(".coloured")).wait_for()
    expect(page.locator(".stage")).to_have_count(1)  # the one before stays until the page is whole
    expect(page.locator(".tilt")).to_have_value("0.5")  # the model's own, which nobody changed
    expect(temperature).to_have_value(chosen)
    page.get_by_role("button", name="Reset").click()
    expect(temperature).to_have_value("0.38")
    page.close()


# The dashboard, beside another reader whose photograph is being coloured until a file appears.
BUSY = """\
import runpy, sys, threading, time
from pathlib import Path

sys.path.insert(0, {checkout!r})
from survey_app.dashboard import photograph

def hold():
    with photograph.COLOURING:
        while not Path({released!r}).exists():
            time.sleep(0.05)

if not hasattr(photograph, "other_reader"):  # Streamlit runs this again and again
    photograph.other_reader = threading.Thread(target=hold, daemon=True)
    photograph.other_reader.start()
runpy.run_path({app!r}, run_name="__main__")
"""


@pytest.mark.long
def test_who_waits_for_another_reader_is_told_so(browser: Browser, tmp_path: Path) -> None:
    engine = open_database(tmp_path / "huejury.sqlite")
    trained_sweep(engine, tmp_path / "results")
    engine.dispose()
    released, script = tmp_path / "released", tmp_path / "app.py"
    script.write_text(
        BUSY.format(checkout=str(CHECKOUT), released=str(released), app=str(CHECKOUT / DASHBOARD)), encoding="utf-8"
    )
    shutil.copytree(CHECKOUT / "survey_app" / "dashboard" / ".streamlit", tmp_path / ".streamlit")
    server = Server(tmp_path / "huejury.sqlite", tmp_path / "server.log", script=script)
    try:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(server.url + VIEW)
        page.get_by_role("radio", name="cameraman").press("Enter")
        page.get_by_text("Another reader's photograph is being coloured; yours is next.").wait_for()
        assert page.locator(".stage").count() == 0
        released.touch()
        page.locator(".stage[data-turn]").wait_for()
        expect(page.get_by_text("Another reader's photograph")).to_have_count(0)
        page.close()
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()
