"""The gallery and the table of classes: what they count and work out, and how they look in a browser."""

import base64
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from skimage.color import rgb2lab
from sqlalchemy import Engine, case, delete, func, select, update
from statsmodels.stats.proportion import proportion_confint

from db.png import encode_png
from db.schema import Image, Participant, Question, Report, Sample, StoredDataset, Trial, Vote
from db.store import open_database, read_session, write_session
from db.surveys.answers import load_answers
from db.surveys.study import create_study, find_study
from db.sweeps.pictures import photographs, sample_pngs, truth_pngs
from db.sweeps.trials import best_trials, find_experiment
from platform.paint.sheet import convert_to_grey
from survey_app.dashboard import pictures_view
from survey_app.simulate import Observer, simulate
from tests.db.query_plans import query_plans, scans
from tests.survey_browser import PHONE, Server, check_looks
from tests.survey_data import ARMS, add_experiment, png
from tests.survey_data import photographs as cut_outs

STUDY = "cats"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with a study that four simulated participants answered; images in turn of two classes."""
    path = tmp_path_factory.mktemp("pictures") / "cats.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=14, size=8)
    create_study(engine, "cats", name=STUDY, question_count=8, practice_count=2, seed=1)
    with write_session(engine) as session:
        session.execute(
            update(StoredDataset).values(class_names=["cat", "<b>frog</b>"], validation_class_counts=[7, 7])
        )
        session.execute(update(Image).values(class_index=Image.index_in_split % 2))
        session.execute(update(Report).values(class_bin_accuracy={"validation": [0.25, 0.125]}))
    simulate(engine, STUDY, 4, Observer(), seed=0)
    engine.dispose()
    return path


@pytest.fixture
def database(prepared: Path, tmp_path: Path) -> Path:
    """A copy, as most tests change it."""
    return Path(shutil.copy(prepared, tmp_path / "cats.sqlite"))


@pytest.fixture
def engine(database: Path) -> Iterator[Engine]:
    engine = open_database(database)
    yield engine
    engine.dispose()


def gallery_of(engine: Engine, *, votes: bool | None = None, study: str | None = STUDY) -> pictures_view.Gallery:
    """With votes of the simulated participants, of people, who gave none, or with none to be shown."""
    with read_session(engine) as session:
        answers = None if votes is None else load_answers(session, find_study(session, STUDY), simulated=votes)
        return pictures_view.load_gallery(session, find_experiment(session, "cats"), study, answers)


def html_of(engine: Engine, gallery: pictures_view.Gallery, rows: Sequence[int]) -> str:
    with read_session(engine) as session:
        return pictures_view.gallery_html(session, gallery, rows)


def test_contenders_are_the_studys_or_the_best(engine: Engine) -> None:
    with read_session(engine) as session:
        best = {trial.arm.name: trial.id for trial in best_trials(session, 1)}
    gallery = gallery_of(engine, study=None)
    assert [(trial.arm.name, trial.id) for trial in gallery.contenders] == [(arm, best[arm]) for arm in ARMS]
    create_study(engine, "cats", name="one", arms=["regression=1"], question_count=5, practice_count=0)
    shown = gallery_of(engine, study="one").contenders
    assert [(trial.arm.name, trial.number) for trial in shown] == [("regression", 1)]


def test_grey_is_the_photograph_without_its_colours() -> None:
    (truth,) = cut_outs(1, 8)
    lab = rgb2lab(convert_to_grey(png(truth)))
    assert np.abs(lab[..., 1:]).max() < 0.1
    assert np.abs(lab[..., 0] - rgb2lab(truth)[..., 0]).max() < 0.3  # grey has 256 steps


def test_votes_of_each_picture_are_those_in_the_database(engine: Engine) -> None:
    gallery = gallery_of(engine, votes=True)
    with read_session(engine) as session:
        rows = session.execute(
            select(Sample.trial_id, Sample.image_id, func.count(), func.sum(case((Vote.correct, 0), else_=1)))
            .join(Question, Question.sample_id == Sample.id)
            .join(Vote, Vote.question_id == Question.id)
            .where(Question.phase == "main")
            .group_by(Sample.trial_id, Sample.image_id)
        ).all()
    counted = {(trial, image): (asked, picked) for trial, image, asked, picked in rows}
    for row, photograph in enumerate(gallery.photographs):
        for column, trial in enumerate(gallery.trial_ids):
            expected = counted.get((trial, photograph.image_id), (0, 0))
            assert (gallery.asked[row, column], gallery.picked[row, column]) == expected
    assert gallery.asked.sum() == sum(asked for asked, _ in counted.values()) > 0


def test_rows_are_sorted_by_what_is_chosen(engine: Engine) -> None:
    gallery = gallery_of(engine, votes=True)
    rows = list(range(len(gallery.photographs)))
    gallery.asked[:], gallery.picked[:] = 0, 0
    gallery.asked[3], gallery.picked[3] = [10, 1, 0], [9, 0, 0]  # the most convincing picture
    gallery.asked[5], gallery.picked[5] = [1, 10, 0], [1, 0, 0]  # one vote does not outdo ten; nobody believed one
    gallery.by_jury[7, 1] = 0.9
    assert pictures_view.orders_of(gallery) == list(pictures_view.SORTED)
    assert pictures_view.sort_rows(gallery, pictures_view.CONVINCING)[:2] == [3, 5]
    assert sorted(pictures_view.sort_rows(gallery, pictures_view.CONVINCING)) == rows
    assert pictures_view.sort_rows(gallery, pictures_view.TELLING)[:2] == [5, 3]
    assert pictures_view.sort_rows(gallery, pictures_view.BY_JURY)[0] == 7
    assert pictures_view.sort_rows(gallery, pictures_view.IN_ORDER, "cat") == rows[::2]
    gallery.asked[:], gallery.picked[:] = 0, 0
    gallery.delta_e[9, 0] += 50
    assert pictures_view.sort_rows(gallery, pictures_view.TELLING)[0] == 9
    assert pictures_view.CONVINCING not in pictures_view.orders_of(gallery)


def test_pictures_are_the_stored_ones_and_say_what_they_are(engine: Engine) -> None:
    gallery = gallery_of(engine, votes=True)
    gallery.asked[1], gallery.picked[1] = [10, 0, 3], [9, 0, 3]
    text = html_of(engine, gallery, [1])
    shown = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", text)]
    image = gallery.photographs[1].image_id
    with read_session(engine) as session:
        truth = truth_pngs(session, [image])[image]
        stored = sample_pngs(session, gallery.trial_ids, [image])
    assert shown == [encode_png(convert_to_grey(truth)), truth, *(stored[trial, image] for trial in gallery.trial_ids)]
    assert "<b>frog</b>" not in text
    low, high = proportion_confint(9, 10, method="wilson")
    numbers = f"ΔE 10.0, 9/10 picked ({100 * low:.0f}–{100 * high:.0f}\N{NO-BREAK SPACE}%)"
    assert f"&lt;b&gt;frog&lt;/b&gt;, image 1, coloured by regression: {numbers}" in text
    assert "coloured by classification: ΔE 9.0, not asked" in text
    assert "simulated participants who picked it as real" in text
    assert "http" not in text


@pytest.mark.parametrize("votes", [None, False])
def test_without_votes_nothing_is_said_of_any(engine: Engine, votes: bool | None) -> None:
    """As where the study is blinded, or nobody has answered."""
    text = html_of(engine, gallery_of(engine, votes=votes), range(14))
    assert "picked" not in text
    assert "asked" not in text


def test_a_missing_picture_is_said_to_be_missing_and_where_all_are_it_says_why(engine: Engine) -> None:
    gallery = gallery_of(engine)
    with write_session(engine) as session:
        session.execute(delete(Participant))
        first = (Sample.trial_id == gallery.trial_ids[0], Sample.image_id == gallery.photographs[0].image_id)
        session.execute(delete(Sample).where(*first))
    again = gallery_of(engine)
    assert html_of(engine, again, [0]).count("no picture") == 1
    assert np.isnan(again.delta_e[0]).tolist() == [True, False, False]
    with write_session(engine) as session:
        session.execute(delete(Sample))
    assert "kept no sample pictures" in pictures_view.explain_emptiness(gallery_of(engine))
    with write_session(engine) as session:
        session.execute(update(Trial).values(status="running"))
    assert "No trial has finished yet" in pictures_view.explain_emptiness(gallery_of(engine, study=None))


def test_the_hardest_class_comes_first(engine: Engine) -> None:
    [table] = pictures_view.class_tables(gallery_of(engine))
    expected = [("<b>frog</b>", 7, *[12.5] * 3), ("cat", 7, *[25.0] * 3)]
    assert list(table.frame.itertuples(index=False, name=None)) == expected
    assert list(table.frame.columns) == ["class", "images", *ARMS]
    with write_session(engine) as session:
        session.execute(update(Report).values(class_bin_accuracy={}))
    assert pictures_view.class_tables(gallery_of(engine)) == []


def test_samples_are_never_scanned(engine: Engine) -> None:
    with query_plans(engine) as plans, read_session(engine) as session:
        found = photographs(session, [2, 4, 6])
        sample_pngs(session, [2, 4, 6], [one.image_id for one in found])
        truth_pngs(session, [one.image_id for one in found])
    assert len(plans) == 3
    assert not scans(plans)


@pytest.mark.long
def test_the_gallery_in_a_browser(database: Path, tmp_path: Path, browser: Browser) -> None:
    server = Server(database, tmp_path / "log", script="survey_app/dashboard/app.py")
    try:
        page = browser.new_page(viewport=PHONE)
        page.goto(f"{server.url}?view=Pictures&sort={pictures_view.IN_ORDER}")
        rows = page.locator(".gallery h4")
        rows.nth(pictures_view.ROWS - 1).wait_for()
        assert rows.count() == pictures_view.ROWS
        picture = page.locator(".gallery img").first
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] % 8 == 0  # of pictures 8 pixels wide
        assert picture.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
        check_looks(page)
        page.get_by_test_id("stPagination").get_by_text("2", exact=True).click()
        rows.nth(2).wait_for(state="detached")
        assert rows.count() == 2
        page.goto(f"{server.url}?view=Pictures&sort={pictures_view.IN_ORDER}&class=cat")
        page.get_by_text("cat, image 12").wait_for()
        assert rows.count() == 7
        page.close()
    finally:
        server.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()
