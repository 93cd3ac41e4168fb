"""The dashboard's page "Your photograph" in Chromium: upload, slide, download; on a phone, too."""

import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from skimage.data import chelsea
from sqlalchemy import select

from db.errors import UserError
from db.schema import Arm, Report, Trial
from db.store import open_database, write_session
from platform.model.storage import CHECKPOINT_FILE
from survey_app.dashboard.photograph_view import EXAMPLES, open_photograph, read_example
from tests.paint.test_photographs import png_of
from tests.running.scripted_sweep import trained_sweep
from tests.survey_browser import DESKTOP, PHONE, Server, check_looks, settle

DASHBOARD = "survey_app/dashboard/app.py"
VIEW = "?view=Your+photograph"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("photograph")
    engine = open_database(folder / "huejury.sqlite")
    trained_sweep(engine, folder / "results")
    with write_session(engine) as session:  # of the classifiers the second errs least, and less than it the regression
        for report in session.scalars(select(Report).join(Trial)):
            arm = session.get_one(Arm, session.get_one(Trial, report.trial_id).arm_id).name
            error = {"regression": 1.0, "tilted": 2.0}.get(arm, 3.0)
            report.scores = {**report.scores, "validation": {**report.scores["validation"], "delta_e_2000": error}}
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
    page.locator(f'img[alt^="{path.name.replace("<b>", "b")}"][alt$=" as set"]').wait_for()


def picture(page: Page) -> str:
    """The address, which follows from the content, of the picture that settings are tried on."""
    settle(page)
    source = page.get_by_alt_text(" as set").get_attribute("src")
    assert source is not None
    return source


def slide(page: Page, slider: str, key: str) -> str:
    """Move a slider by a key to another picture, and return that one's address."""
    before = picture(page)
    page.get_by_role("slider", name=slider).press(key)
    expect(page.get_by_alt_text(" as set")).not_to_have_attribute("src", before)
    return picture(page)


def test_a_photograph_is_uploaded_tried_on_and_taken_away(server: Server, browser: Browser, cat: Path) -> None:
    page = browser.new_page(viewport=DESKTOP)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url + VIEW)
    upload(page, cat)
    names = ["photograph", "regression", "rebalanced", "tilted", "what the model sees", "coloured by tilted"]
    expect(page.get_by_test_id("stImageCaption")).to_have_text(names)  # of classifiers the tilted errs least
    expect(page.get_by_role("slider", name="λ")).to_have_value("0.5")
    own = picture(page)
    assert slide(page, "λ", "ArrowLeft") != own
    assert slide(page, "λ", "ArrowRight") == own
    warm = slide(page, "Temperature", "End")
    check_looks(page)

    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "my bcat-coloured.jpg"
    with Image.open(download.value.path()) as image:
        assert (image.format, image.size) == ("JPEG", (1000, 665))
        whole = np.asarray(image.convert("RGB")).astype(int)
    preview = Image.open(io.BytesIO(page.request.get(urljoin(server.url, warm)).body()))
    assert np.abs(np.asarray(preview.resize((1000, 665))).astype(int) - whole).mean() < 5  # it is as set
    assert np.ptp(whole, axis=-1).max() > 10  # it has colours
    page.close()
    assert not errors


@pytest.mark.long
def test_examples_and_what_is_no_picture_on_a_phone_in_the_dark(
    server: Server, browser: Browser, tmp_path: Path
) -> None:
    page = browser.new_page(viewport=PHONE, color_scheme="dark")
    page.goto(server.url + VIEW + "&model=regression")
    page.get_by_role("radio", name="cameraman").press("Enter")
    page.get_by_text("This model gives one colour per place").wait_for()
    picture(page)
    captions = page.get_by_test_id("stImageCaption").all_inner_texts()
    assert "photograph" not in captions  # it is grey
    assert page.get_by_role("slider").count() == 0
    check_looks(page)
    page.get_by_role("radio", name="one of yours").press("Enter")
    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html>")
    page.locator('input[type="file"]').set_input_files(tmp_path / "page.png")
    page.get_by_text("page.png is no picture that can be read; get the picture again.").wait_for()
    expect(page.get_by_test_id("stImage")).to_have_count(0)
    page.close()


def test_a_model_whose_weights_are_cut_off_is_a_sentence_beside_the_others(
    browser: Browser, tmp_path: Path, cat: Path
) -> None:
    engine = open_database(tmp_path / "huejury.sqlite")
    trained_sweep(engine, tmp_path / "results")
    engine.dispose()
    [checkpoint] = (tmp_path / "results").glob(f"*rebalanced*/{CHECKPOINT_FILE}")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    server = Server(tmp_path / "huejury.sqlite", tmp_path / "server.log", script=DASHBOARD)
    try:
        page = browser.new_page(viewport=DESKTOP)
        page.goto(server.url + VIEW)
        upload(page, cat)
        damaged = page.get_by_test_id("stAlert").filter(has_text="is damaged or cut off: name another trial.")
        expect(damaged).to_have_count(2)  # its rendering, too
        expect(page.get_by_test_id("stImageCaption").filter(has_text="coloured by")).to_have_text(
            "coloured by regression"
        )
        page.close()
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()


def test_what_a_browser_may_send_has_fewer_pixels_and_bytes() -> None:
    with pytest.raises(UserError, match=r"largish.png has more than 25,000,000 pixels"):
        open_photograph("", "largish.png", png_of(6_000, 6_000))
    with pytest.raises(UserError, match=r"heavy.png has more than 30 MB"):
        open_photograph("", "heavy.png", bytes(30_000_001))


def test_every_example_is_there() -> None:
    for name in EXAMPLES:
        assert open_photograph("", name, read_example(name)).small.ndim == 2
