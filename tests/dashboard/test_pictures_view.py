"""The gallery and the analysis by class: what they count and work out, and how they look in a browser."""

import base64
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from playwright.sync_api import Browser
from skimage.color import rgb2lab
from sqlalchemy import Engine, case, delete, func, select, update

from db.schema import Arm, Image, Participant, Question, Report, Sample, StoredDataset, Trial, Vote
from db.store import open_database, read_session, write_session
from db.surveys.answers import Answers, load_answers
from db.surveys.sentinels import encode_png
from db.surveys.study import create_study, find_study
from db.sweeps.pictures import photographs, sample_pngs, truth_pngs
from db.sweeps.trials import arm_results, experiment_progress
from platform.paint.sheet import convert_to_grey
from survey_app.dashboard import pictures_view
from survey_app.dashboard.classes_view import class_exhibits
from survey_app.dashboard.exhibits import COLOURS, Figure, svg
from survey_app.simulate import Observer, simulate
from tests.db.query_plans import query_plans, scans
from tests.survey_browser import PHONE, Server, check_looks
from tests.survey_data import ARMS, add_experiment, colourized, png
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
    st.cache_resource.clear()  # of pictures of the same ids in another test's database
    yield engine
    engine.dispose()


def answers_of(engine: Engine) -> Answers:
    with read_session(engine) as session:
        return load_answers(session, find_study(session, STUDY), simulated=True)


def gallery_of(engine: Engine, answers: Answers | None, study: str | None = STUDY) -> pictures_view.Gallery:
    with read_session(engine) as session:
        return pictures_view.load_gallery(session, experiment_progress(session, "cats"), study, answers)


def html_of(
    engine: Engine, gallery: pictures_view.Gallery, rows: Sequence[int], order: str = pictures_view.DISAGREE
) -> str:
    with read_session(engine) as session:
        return pictures_view.gallery_html(session, gallery, rows, order, can_enlarge=True)


def test_contenders_are_the_studys_or_the_best(engine: Engine) -> None:
    with read_session(engine) as session:
        best = {result.arm: result.best.trial_id for result in arm_results(session, "cats") if result.best}
    gallery = gallery_of(engine, None, study=None)
    assert [(one.arm, one.trial.trial_id) for one in gallery.contenders] == [(arm, best[arm]) for arm in ARMS]
    assert gallery.arms == list(ARMS)
    create_study(engine, "cats", name="one", arms=["regression=1"], question_count=5, practice_count=0)
    shown = gallery_of(engine, None, study="one").contenders
    assert [(one.arm, one.trial.number) for one in shown] == [("regression", 1)]


def test_an_arm_without_a_finished_trial_is_named(engine: Engine) -> None:
    with write_session(engine) as session:
        regression = select(Arm.id).where(Arm.name == "regression").scalar_subquery()
        session.execute(update(Trial).where(Trial.arm_id == regression).values(status="stopped_early"))
    gallery = gallery_of(engine, None, study=None)
    assert gallery.missing == ["regression"]
    first = named(gallery, None)[0]
    assert first.chart.to_dict()["layer"][1]["encoding"]["color"]["scale"]["range"] == list(COLOURS[1:3])  # as ever
    assert "none of its trials has finished: regression" in pictures_view.gallery_note(gallery, pictures_view.DISAGREE)


def test_disagreement_is_the_distance_from_the_contenders_mean(engine: Engine) -> None:
    gallery = gallery_of(engine, None)
    images = [photograph.image_id for photograph in gallery.photographs]
    first, second, third = gallery.trial_ids
    with write_session(engine) as session:
        session.execute(delete(Participant))
        session.execute(delete(Sample).where(Sample.image_id == images[1], Sample.trial_id.in_([first, second])))
        session.execute(delete(Sample).where(Sample.image_id == images[2]))
    with read_session(engine) as session:
        found = pictures_view.measure_disagreement(session, "some", gallery.trial_ids, images)
        same = pictures_view.measure_disagreement(session, "some", [third, third], images[:1])
    fakes = [colourized(cut_outs(14, 8)[0], share) for share in (0.25, 0.5, 0.75)]
    ab = [rgb2lab(fake)[..., 1:].reshape(-1, 2) for fake in fakes]
    squares = [
        sum((one[at] - np.mean([other[at] for other in ab], axis=0)) ** 2) for one in ab for at in range(len(one))
    ]
    assert found[0] == pytest.approx(np.mean(squares) ** 0.5)
    assert np.isnan(found).tolist() == [False, True, True] + [False] * 11
    assert same.tolist() == [0.0]


def test_errors_are_those_stored_with_the_pictures(engine: Engine) -> None:
    """Pages measure nothing again: what a picture's score is, its row says."""
    gallery = gallery_of(engine, None)
    assert gallery.delta_e.tolist() == [[10.0 - arm for arm in range(len(ARMS))]] * len(gallery.photographs)
    with write_session(engine) as session:
        session.execute(update(Sample).where(Sample.trial_id == gallery.trial_ids[0]).values(scores={}))
    again = gallery_of(engine, None)
    assert np.isnan(again.delta_e[:, 0]).all()
    assert np.array_equal(again.delta_e[:, 1:], gallery.delta_e[:, 1:])


def test_grey_is_the_photograph_without_its_colours() -> None:
    (truth,) = cut_outs(1, 8)
    lab = rgb2lab(convert_to_grey(png(truth)))
    assert np.abs(lab[..., 1:]).max() < 0.1
    assert np.abs(lab[..., 0] - rgb2lab(truth)[..., 0]).max() < 0.3  # grey has 256 steps


def test_votes_of_each_picture_are_those_in_the_database(engine: Engine) -> None:
    gallery = gallery_of(engine, answers_of(engine))
    assert gallery.picked is not None
    assert gallery.asked is not None
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
    gallery = gallery_of(engine, answers_of(engine))
    assert gallery.picked is not None
    assert gallery.asked is not None
    rows = range(len(gallery.photographs))
    gallery.asked[:], gallery.picked[:] = 0, 0
    gallery.asked[3], gallery.picked[3] = [10, 1, 0], [9, 0, 0]  # the most convincing picture
    gallery.asked[5], gallery.picked[5] = [1, 10, 0], [1, 0, 0]  # one vote does not outdo ten; nobody believed one
    gallery.delta_e[:] = np.random.default_rng(0).random(gallery.delta_e.shape)
    errors = gallery.delta_e.mean(axis=1)
    images = [photograph.image_id for photograph in gallery.photographs]
    with read_session(engine) as session:
        apart = pictures_view.measure_disagreement(session, "some", gallery.trial_ids, images)
        assert pictures_view.sort_rows(session, gallery, pictures_view.CONVINCING)[:2] == [3, 5]
        assert pictures_view.sort_rows(session, gallery, pictures_view.DISBELIEVED)[:2] == [5, 3]
        assert sorted(pictures_view.sort_rows(session, gallery, pictures_view.CONVINCING)) == list(rows)
        assert pictures_view.sort_rows(session, gallery, pictures_view.WORST)[0] == errors.argmax()
        assert pictures_view.sort_rows(session, gallery, pictures_view.TELLING)[:2] == [5, 3]
        assert pictures_view.sort_rows(session, gallery, pictures_view.DISAGREE)[0] == apart.argmax()
        assert pictures_view.sort_rows(session, gallery, pictures_view.IN_ORDER, "cat") == list(rows)[::2]
    framed = html_of(engine, gallery, [3], pictures_view.CONVINCING)
    assert framed.count("class=chosen") == 1
    chosen = framed.partition("class=chosen")[2].partition("</figure>")[0]
    assert "coloured by regression: ΔE " in chosen
    assert chosen.count("9/10 picked") == 2  # in words, too, for those who cannot see it


def test_pictures_are_the_stored_ones_and_say_what_they_are(engine: Engine) -> None:
    gallery = gallery_of(engine, answers_of(engine))
    text = html_of(engine, gallery, [1])
    shown = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", text)]
    image = gallery.photographs[1].image_id
    with read_session(engine) as session:
        truth = truth_pngs(session, [image])[image]
        stored = sample_pngs(session, gallery.trial_ids, [image])
    assert shown == [encode_png(convert_to_grey(truth)), truth, *(stored[trial, image] for trial in gallery.trial_ids)]
    assert "<b>frog</b>" not in text
    assert "&lt;b&gt;frog&lt;/b&gt;, image 1, coloured by regression: ΔE" in text


def test_without_votes_nothing_is_said_of_any(engine: Engine) -> None:
    """As where the study is blinded, or nobody has answered."""
    answers = answers_of(engine)
    nobody = load_people(engine)
    for none in (None, nobody):
        gallery = gallery_of(engine, none)
        assert gallery.asked is None
        text = html_of(engine, gallery, range(14)) + pictures_view.gallery_note(gallery, pictures_view.DISAGREE)
        assert "picked" not in text
        assert "asked" not in text
        assert all("votes" not in exhibit.name for exhibit in named(gallery, none))
    assert answers.participants == 4


def load_people(engine: Engine) -> Answers:
    with read_session(engine) as session:
        return load_answers(session, find_study(session, STUDY))


def named(gallery: pictures_view.Gallery, answers: Answers | None) -> list[Figure]:
    found = class_exhibits(gallery.experiment, gallery.arms, gallery.contenders, answers)
    return [exhibit for exhibit in found if isinstance(exhibit, Figure)]


def test_what_is_said_where_there_is_no_picture(engine: Engine) -> None:
    with write_session(engine) as session:
        session.execute(delete(Participant))
        session.execute(delete(Sample))
    assert "kept no sample pictures" in pictures_view.explain_emptiness(gallery_of(engine, None))
    with write_session(engine) as session:
        session.execute(update(Trial).values(status="running"))
    assert "No trial has finished yet" in pictures_view.explain_emptiness(gallery_of(engine, None, study=None))


def test_a_missing_picture_is_said_to_be_missing(engine: Engine) -> None:
    gallery = gallery_of(engine, None)
    image = gallery.photographs[0].image_id
    with write_session(engine) as session:
        session.execute(delete(Participant))
        session.execute(delete(Sample).where(Sample.trial_id == gallery.trial_ids[0], Sample.image_id == image))
    assert "no picture" in html_of(engine, gallery_of(engine, None), [0])


def test_classes(engine: Engine) -> None:
    answers = answers_of(engine)
    gallery = gallery_of(engine, answers)
    picked, asked = answers.picked_and_asked("class_index", range(2))
    assert gallery.asked is not None
    assert gallery.picked is not None
    of_class = np.array([photograph.class_index for photograph in gallery.photographs])
    for number in range(2):
        assert asked[number].tolist() == gallery.asked[of_class == number].sum(axis=0).tolist()
        assert picked[number].tolist() == gallery.picked[of_class == number].sum(axis=0).tolist()
    exhibits = {exhibit.name: exhibit for exhibit in named(gallery, answers)}
    accuracy, votes = exhibits["class-accuracy"].data, exhibits["class-votes"].data
    assert "Hardest and easiest: <b>frog</b> regression 12.5 %" in exhibits["class-accuracy"].alternative
    assert accuracy.pivot(index="class", columns="model", values="accuracy")["regression"].to_dict() == {
        "cat": 25.0,
        "<b>frog</b>": 12.5,
    }
    assert set(accuracy["images"]) == {7}
    names = gallery.experiment.class_names
    assert sorted(votes[["class", "model", "count", "total"]].itertuples(index=False, name=None)) == sorted(
        (names[number], ARMS[column], picked[number, column], total)
        for (number, column), total in np.ndenumerate(asked)
    )
    for exhibit in exhibits.values():
        assert ("simulated participants" in exhibit.title) == ("votes" in exhibit.name)
        assert "<svg" in svg(exhibit)


def test_the_still_gallery_needs_nothing_else(engine: Engine) -> None:
    with read_session(engine) as session:
        gallery = gallery_of(engine, answers_of(engine))
        still = pictures_view.still_gallery_html(session, gallery, [4, 0, 2], pictures_view.CONVINCING)
    assert re.findall(r", image (\d+)</h4>", still) == ["4", "0", "2"]
    assert still.count("<img") == 3 * (2 + len(ARMS))
    assert "simulated participants who picked it as real" in still
    assert "<button" not in still
    assert "http" not in still


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
        page.goto(f"{server.url}?view=Pictures&sort={pictures_view.DISAGREE}")
        page.locator(".gallery section").nth(pictures_view.ROWS - 1).wait_for()
        assert page.locator(".gallery section").count() == pictures_view.ROWS
        picture = page.locator(".gallery img").first
        box = picture.bounding_box()
        assert box is not None
        assert box["width"] % 8 == 0  # of pictures 8 pixels wide
        assert picture.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
        check_looks(page)
        page.get_by_role("button", name="Enlarge").first.click()
        larger = picture.bounding_box()
        assert larger is not None
        assert larger["width"] > box["width"]
        assert larger["width"] % 8 == 0
        check_looks(page)
        picture.click()
        again = picture.bounding_box()
        assert again is not None
        assert again["width"] == box["width"]
        page.get_by_role("button", name="Save").first.click()
        with page.expect_download() as download:
            page.get_by_role("button", name="HTML", exact=True).click()
        assert download.value.suggested_filename == "pictures-simulated.html"
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Next 2 images").click()
        page.locator(".gallery section").nth(2).wait_for(state="detached")
        assert page.locator(".gallery section").count() == 2
        assert "page=2" in page.url
        page.close()
    finally:
        server.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()
