"""Studies: created whole or not at all, never changed, closed for good."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.color import rgb2lab
from sqlalchemy import Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from db.errors import UserError
from db.png import pixels
from db.schema import (
    Arm,
    Base,
    Experiment,
    Image,
    Question,
    Sample,
    SentinelPicture,
    StoredDataset,
    Study,
    StudyArm,
    Trial,
)
from db.store import open_database, read_session, write_session
from db.surveys.answers import ExclusionRule
from db.surveys.enrolment import enrol, withdraw
from db.surveys.sentinels import sentinel_pngs
from db.surveys.study import close_study, create_study, find_study, list_studies, open_first_study
from db.surveys.votes import finish_instructions, progress
from db.sweeps.recording import record_arm, record_experiment, record_trial
from db.sweeps.trials import contenders
from tests.survey_data import ARMS, add_experiment, photographs, png


def small_study(engine: Engine, **changes: Any) -> Study:
    """Of 12 questions, 2 of them sentinels, after 3 for practice."""
    values: dict[str, Any] = {"question_count": 12, "practice_count": 3, "sentinel_share": 0.17, "seed": 0}
    return create_study(engine, "cats", **{**values, **changes})


def names(engine: Engine) -> list[str]:
    with read_session(engine) as session:
        return [study.name for study in list_studies(session)]


# Creating


def test_others_write_while_a_study_computes_its_sentinels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Participants of another study waited for seconds, as the database was locked all the while."""
    path = tmp_path / "survey.sqlite"
    engine, of_a_voter = open_database(path), open_database(path, busy_timeout_s=0.1)
    add_experiment(engine, images=24)
    token = enrol(engine, small_study(engine, name="first").name)

    def compute_while_somebody_goes_on(*arguments: Any) -> Any:
        finish_instructions(of_a_voter, token)
        return sentinel_pngs(*arguments)

    monkeypatch.setattr("db.surveys.study.sentinel_pngs", compute_while_somebody_goes_on)
    small_study(engine, name="second")
    now = progress(engine, token)
    assert now is not None
    assert now.stage == "check"
    for opened in (engine, of_a_voter):
        opened.dispose()


@pytest.mark.parametrize(
    ("arms", "trials"),
    [
        (None, dict.fromkeys(ARMS, 2)),  # all but the baselines; the second trials have the lower loss
        (["grey", "regression=1"], {"regression": 1, "grey": 1}),
    ],
)
def test_a_study_takes_the_best_finished_trial_of_each_arm_or_the_one_that_is_named(
    engine: Engine, arms: list[str] | None, trials: dict[str, int]
) -> None:
    study = small_study(engine, arms=arms)
    with read_session(engine) as session:
        asked = contenders(session, study)
    assert [(trial.arm.name, trial.number) for trial in asked] == list(trials.items())
    assert (study.name, study.status, study.sentinel_count, study.planned_participants) == ("cats", "open", 2, 30)
    assert ExclusionRule(**study.exclusion_rule) == ExclusionRule(0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question_count": 22}, "22 questions and 3 for practice need 25 images, .* have pictures of 24 only"),
        ({"arms": ["nope"]}, "has no arm 'nope'; it has regression, classification, rebalanced 0.25, grey"),
        ({"arms": ["regression", "regression=1"]}, "'regression' is named twice"),
        ({"arms": ["regression=3"]}, "'regression' has no finished trial '3'; finished: 1, 2"),
        ({"arms": ["regression=best"]}, "'regression' has no finished trial 'best'; finished: 1, 2"),
        ({"arms": []}, "no contender with pictures"),
        ({"exposure_ms": 0}, "milliseconds from 1 to 60000"),
        ({"question_count": 0}, "at least one question"),
        ({"planned_participants": 0}, "at least one question and one planned participant"),
        ({"sentinel_share": 0.5}, "at most a third"),
        ({"sentinel_share": -0.5}, "no negative numbers"),
        ({"protocol": "triple"}, "pair or single"),
        ({"name": "a\nb"}, "1 to 100 printable"),
        ({"completion_url": "javascript:alert(1)"}, "should begin with https://"),
        ({"name": "first"}, "a study 'first' already, and a study never changes; choose another name"),
        ({"experiment": "cast"}, "no experiment 'cast'; there is cats"),
        ({"id_parameter": "a b"}, "A link's parameter has 1 to 50 letters"),
        ({"id_parameter": "huejury"}, "HueJury's own; name another one"),
        ({"hidden_at_most": -1}, "begin at 0"),
        ({"seed": -1}, "whole number from 0 to"),
    ],
)
def test_what_cannot_be_a_study_is_refused_in_one_sentence(
    engine: Engine, values: dict[str, Any], message: str
) -> None:
    small_study(engine, name="first")
    with pytest.raises(UserError, match=message):
        create_study(engine, **{"experiment": "cats", "question_count": 12, "practice_count": 3, **values})
    assert names(engine) == ["first"]
    with read_session(engine) as session:
        assert session.scalar(select(func.count(SentinelPicture.id))) == 24
        with pytest.raises(UserError, match="no study 'dogs'; there is first"):
            find_study(session, "dogs")


def test_arms_without_pictures_or_finished_trials_cannot_contend(engine: Engine) -> None:
    with write_session(engine) as session:
        experiment_id = session.scalars(select(Experiment.id)).one()
        arm_id = record_arm(session, experiment_id=experiment_id, name="late", position=9, options={})
        trial: dict[str, Any] = {"experiment_id": experiment_id, "arm_id": arm_id, "hyperparameters": {}, "seed": 0}
        record_trial(session, **trial, number=1, status="running")
    try:
        with pytest.raises(UserError, match="'late' has no finished trial yet"):
            small_study(engine, arms=["late"])
        with write_session(engine) as session:
            record_trial(session, **trial, number=1, status="finished")
        with pytest.raises(UserError, match="have pictures of 0 only"):
            small_study(engine, arms=["regression", "late=1"])
    finally:
        with write_session(engine) as session:
            session.execute(delete(Arm).where(Arm.name == "late"))


# Sentinels


def test_sentinels_keep_the_light_and_take_anothers_colours() -> None:
    truths = {number: png(picture) for number, picture in enumerate(photographs(12, 16))}
    sentinels = sentinel_pngs(truths, 5)
    assert sentinel_pngs(truths, 5) == sentinels
    assert sentinel_pngs(truths, 6) != sentinels
    lightness_off, colour_off = [], []
    labs = {number: rgb2lab(pixels(truth)) for number, truth in truths.items()}
    for number, file in sentinels.items():
        sentinel, others = rgb2lab(pixels(file)), [lab for other, lab in labs.items() if other != number]
        lightness_off.append(np.abs(sentinel[..., 0] - labs[number][..., 0]).mean())
        colour_off.append(min(np.linalg.norm(sentinel[..., 1:] - lab[..., 1:], axis=-1).mean() for lab in others))
    # Exactly so but where sRGB has no such colour.
    assert np.median(lightness_off) < 1
    assert np.median(colour_off) < 3


def test_a_donor_of_another_size_is_resampled_and_a_lone_photograph_stays() -> None:
    small, large = photographs(1, 8)[0], photographs(1, 20)[0]
    sentinels = sentinel_pngs({1: png(small), 2: png(large)}, 0)
    assert [pixels(sentinels[number]).shape for number in (1, 2)] == [(8, 8, 3), (20, 20, 3)]
    (alone,) = sentinel_pngs({1: png(small)}, 0).values()
    assert np.abs(pixels(alone).astype(int) - small).max() <= 1


# Never changed


@pytest.mark.parametrize("values", [{"question_count": 13}, {"experiment_id": Study.experiment_id}])
def test_a_study_is_never_changed(engine: Engine, values: dict[str, Any]) -> None:
    small_study(engine)
    with pytest.raises(IntegrityError, match="can only be closed"), write_session(engine) as session:
        session.execute(update(Study).values(values))
    first = close_study(engine, "cats")
    assert first.status == "closed"
    assert close_study(engine, "cats").closed_at == first.closed_at  # closing twice keeps the first moment


@pytest.mark.parametrize(
    "change",
    [
        delete(StudyArm),
        update(StudyArm).values(position=StudyArm.position + 10),
        insert(StudyArm).from_select(
            ["study_id", "experiment_id", "arm_id", "trial_id", "position"],
            select(Study.id, Study.experiment_id, Trial.arm_id, Trial.id, text("77"))
            .join(Trial, Trial.experiment_id == Study.experiment_id)
            .join(Arm, Arm.id == Trial.arm_id)
            .where(Arm.name == "grey"),
        ),
        delete(SentinelPicture),
        update(SentinelPicture).values(png=b""),
    ],
)
def test_contenders_and_sentinels_stay_once_somebody_takes_part(engine: Engine, change: Any) -> None:
    small_study(engine)
    token = enrol(engine, "cats")
    with pytest.raises(IntegrityError, match="keeps its contenders"), write_session(engine) as session:
        session.execute(change)
    withdraw(engine, token)
    with write_session(engine) as session:
        session.execute(change)
        session.rollback()


def test_a_picture_stays_once_somebody_is_asked_about_it(engine: Engine) -> None:
    small_study(engine)
    enrol(engine, "cats")
    asked = select(Question.sample_id).where(Question.sample_id.is_not(None))
    with pytest.raises(IntegrityError, match="stays as it is"), write_session(engine) as session:
        session.execute(update(Sample).where(Sample.id.in_(asked)).values(png=b"other"))
    with write_session(engine) as session:
        session.execute(update(Sample).where(Sample.id.in_(asked)).values(png=Sample.png))  # recorded again: the same
        session.execute(update(Sample).where(Sample.id.not_in(asked)).values(png=b"other"))
        session.rollback()


@pytest.mark.parametrize("table", [Experiment, Trial, Sample, Image, StoredDataset])
def test_what_a_study_shows_cannot_be_deleted(engine: Engine, table: type[Base]) -> None:
    small_study(engine)
    enrol(engine, "cats")
    with pytest.raises(IntegrityError), write_session(engine) as session:
        session.execute(delete(table))


def test_a_study_cannot_take_contenders_of_another_experiment(engine: Engine) -> None:
    small_study(engine)
    with write_session(engine) as session:
        dataset_id = session.scalars(select(StoredDataset.id)).one()
        other = record_experiment(
            session,
            name="dogs",
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            storage_path="",
        )
        arm = record_arm(session, experiment_id=other, name="x", position=0, options={})
        trial = record_trial(
            session, experiment_id=other, arm_id=arm, number=1, hyperparameters={}, seed=0, status="finished"
        )
        study, mine = session.execute(select(Study.id, Study.experiment_id)).one()
    try:
        for experiment in (mine, other):
            with pytest.raises(IntegrityError), write_session(engine) as session:
                session.add(StudyArm(study_id=study, experiment_id=experiment, arm_id=arm, trial_id=trial, position=9))
    finally:
        with write_session(engine) as session:
            session.execute(delete(Experiment).where(Experiment.name == "dogs"))


# After a sweep


def test_a_sweep_opens_one_study_and_never_a_second(engine: Engine) -> None:
    study = open_first_study(engine, "cats", say=pytest.fail)
    assert study is not None
    close_study(engine, "cats")
    again = open_first_study(engine, "cats", say=pytest.fail)
    assert again is not None
    assert (again.id, again.status) == (study.id, "closed")


@pytest.mark.parametrize(
    ("images", "questions", "practice"), [(5, 4, 1), (24, 20, 4), (49, 40, 9), (50, 40, 10), (51, 40, 10)]
)
def test_a_sweeps_study_is_as_long_as_its_pictures_allow(images: int, questions: int, practice: int) -> None:
    engine = open_database(":memory:")
    add_experiment(engine, images=images, size=4)
    study = open_first_study(engine, "cats", say=pytest.fail)
    assert study is not None
    assert (study.question_count, study.practice_count) == (questions, practice)
    assert progress(engine, enrol(engine, "cats")) is not None
    assert create_study(engine, "cats", question_count=3).name == "cats 2"
    engine.dispose()


def test_a_sweep_of_few_pictures_says_why_it_opens_no_study() -> None:
    said: list[str] = []
    engine = open_database(":memory:")
    add_experiment(engine, images=4, size=4)
    assert open_first_study(engine, "cats", say=said.append) is None
    assert said == ["No survey was opened: The finished trials share pictures of 4 images; 5 are needed."]
    engine.dispose()
