"""Studies: created whole or not at all, never changed; their results, their command and their export."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from skimage.color import rgb2lab
from sqlalchemy import Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from statsmodels.stats.proportion import proportion_confint

from db.answers import ExclusionRule
from db.pictures import pixels, sentinel_pngs
from db.recording import record_arm, record_experiment, record_trial
from db.results import Share, UnknownExperimentError, arm_results, experiment_progress, newest_study, wilson
from db.schema import (
    Arm,
    Base,
    Dataset,
    Experiment,
    Image,
    Participant,
    Question,
    Sample,
    SentinelPicture,
    Study,
    StudyArm,
    Trial,
    Vote,
)
from db.store import open_database, read_session, write_session
from db.studies import (
    StudySummary,
    SurveyError,
    close_study,
    create_study,
    find_study,
    list_studies,
    open_study_of,
    study_names,
    study_summary,
)
from db.votes import enrol, progress, withdraw
from platform.results import print_results
from survey_app import export, report, studies
from tests.survey_data import ARMS, add_experiment, answer_all, photographs, png, survey_results

ROOT = Path(__file__).parent.parent


def small_study(engine: Engine, **changes: Any) -> StudySummary:
    """Of 12 questions, 2 of them sentinels, after 3 for practice."""
    values: dict[str, Any] = {"question_count": 12, "practice_count": 3, "sentinel_share": 0.17, "seed": 0}
    return create_study(engine, "cats", **{**values, **changes})


# Creating


def test_a_study_takes_the_best_finished_trial_of_every_arm_but_the_baselines(engine: Engine) -> None:
    study = small_study(engine)
    assert study.arms == ARMS
    assert (study.view.name, study.view.status, study.experiment, study.images) == ("cats", "open", "cats", 24)
    assert (study.sentinel_count, study.exclusion_rule) == (2, ExclusionRule(0, True))
    with read_session(engine) as session:
        trials = session.scalars(
            select(Trial.ray_id).join(StudyArm, StudyArm.trial_id == Trial.id).order_by(StudyArm.position)
        ).all()
    assert trials == [f"{arm} 1" for arm in ARMS]  # the second trials have the lower loss
    assert list_studies(engine) == [study]


def test_contenders_can_be_named_with_their_trial_baselines_too(engine: Engine) -> None:
    study = small_study(engine, arms=["grey", "regression=regression 0"])
    assert study.arms == ("regression", "grey")
    with read_session(engine) as session:
        trials = session.scalars(
            select(Trial.ray_id).join(StudyArm, StudyArm.trial_id == Trial.id).order_by(StudyArm.position)
        ).all()
    assert trials == ["regression 0", "grey 0"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"question_count": 22}, "22 questions and 3 for practice need 25 images, .* have pictures of 24 only"),
        ({"arms": ["nope"]}, "has no arm 'nope'; it has regression, classification, rebalanced 0.25, grey"),
        ({"arms": ["regression", "regression=regression 0"]}, "'regression' is named twice"),
        ({"arms": ["regression=classification 1"]}, "'regression' has no finished trial 'classification 1'"),
        ({"arms": []}, "no contender with pictures"),
        ({"exposures_ms": ()}, "at least one"),
        ({"exposures_ms": (0,)}, "milliseconds from 1 to 60000"),
        ({"question_count": 0}, "at least one question"),
        ({"planned_participants": 0}, "at least one question and one planned participant"),
        ({"sentinel_share": 0.5}, "at most a third"),
        ({"sentinel_share": -0.5}, "no negative numbers"),
        ({"protocol": "triple"}, "pair or single"),
        ({"resampling": "bilinear"}, "nearest or lanczos"),
        ({"name": " "}, "1 to 100 printable"),
        ({"name": "a\nb"}, "1 to 100 printable"),
        ({"completion_url": "javascript:alert(1)"}, "should begin with https://"),
        ({"consent_version": ""}, "1 to 50"),
        ({"seed": 2**70}, "whole number from 0 to"),
        ({"seed": -1}, "whole number from 0 to"),
    ],
)
def test_what_cannot_be_a_study_is_refused_in_one_sentence(
    engine: Engine, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SurveyError, match=message):
        small_study(engine, **values)
    assert list_studies(engine) == []
    with read_session(engine) as session:
        assert session.scalar(select(func.count(SentinelPicture.id))) == 0


def test_names_are_unique_and_experiments_must_exist(engine: Engine) -> None:
    small_study(engine)
    with pytest.raises(SurveyError, match="a study 'cats' already, and a study never changes; choose another name"):
        small_study(engine, protocol="single")
    with pytest.raises(UnknownExperimentError, match="no experiment 'cast'; there is cats"):
        create_study(engine, "cast")
    with pytest.raises(SurveyError, match="no study 'dogs'; there is cats"):
        study_summary(engine, "dogs")


def test_an_experiments_studies_are_named_newest_first(engine: Engine) -> None:
    for name in ("cats", "more cats"):
        small_study(engine, name=name)
    with read_session(engine) as session:
        experiment_id = experiment_progress(session, "cats").id
        assert study_names(session, experiment_id) == ["more cats", "cats"]
        assert study_names(session, experiment_id + 1) == []


def test_arms_without_pictures_or_finished_trials_cannot_contend(engine: Engine) -> None:
    with write_session(engine) as session:
        experiment_id = session.scalars(select(Experiment.id)).one()
        arm_id = record_arm(
            session, experiment_id=experiment_id, name="late", position=9, kind="classification", rebalancing=None
        )
        trial: dict[str, Any] = {"experiment_id": experiment_id, "arm_id": arm_id, "config": {}, "seed": 0}
        record_trial(session, **trial, ray_id="late", status="running")
    try:
        assert small_study(engine).arms == ARMS
        with pytest.raises(SurveyError, match="'late' has no finished trial yet"):
            small_study(engine, name="b", arms=["late"])
        with write_session(engine) as session:
            record_trial(session, **trial, ray_id="late", status="finished")
        with pytest.raises(SurveyError, match="have pictures of 0 only"):
            small_study(engine, name="b", arms=["regression", "late=late"])
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
    for number, (file, donor) in sentinels.items():
        assert donor != number
        truth, sentinel, other = (rgb2lab(pixels(each)) for each in (truths[number], file, truths[donor]))
        lightness_off.append(np.abs(sentinel[..., 0] - truth[..., 0]).mean())
        colour_off.append(np.linalg.norm(sentinel[..., 1:] - other[..., 1:], axis=-1).mean())
    # Exactly so but where sRGB has no such colour.
    assert np.median(lightness_off) < 1
    assert np.median(colour_off) < 3


def test_a_donor_of_another_size_is_resampled_and_a_lone_photograph_stays() -> None:
    small, large = photographs(1, 8)[0], photographs(1, 20)[0]
    sentinels = sentinel_pngs({1: png(small), 2: png(large)}, 0)
    assert [pixels(sentinels[number][0]).shape for number in (1, 2)] == [(8, 8, 3), (20, 20, 3)]
    ((alone, donor),) = sentinel_pngs({1: png(small)}, 0).values()
    assert donor == 1
    assert np.abs(pixels(alone).astype(int) - small).max() <= 1


# Never changed


@pytest.mark.parametrize(
    "change",
    [
        update(Study).values(question_count=13),
        update(Study).values(protocol="single"),
        update(Study).values(experiment_id=Study.experiment_id),
        update(Study).values(exclusion_rule={"sentinels_wrong_at_most": 9, "finished": False}),
    ],
)
def test_a_study_is_never_changed(engine: Engine, change: Any) -> None:
    small_study(engine)
    with pytest.raises(IntegrityError, match="can only be closed"), write_session(engine) as session:
        session.execute(change)
    assert close_study(engine, "cats").view.status == "closed"


@pytest.mark.parametrize(
    "change",
    [
        delete(StudyArm),
        update(StudyArm).values(position=StudyArm.position + 10),
        insert(StudyArm).from_select(
            ["study_id", "experiment_id", "arm_id", "trial_id", "position"],
            select(Study.id, Study.experiment_id, Trial.arm_id, Trial.id, text("77"))
            .join(Trial, Trial.experiment_id == Study.experiment_id)
            .where(Trial.ray_id == "grey 0"),
        ),
        delete(SentinelPicture),
        update(SentinelPicture).values(png=b""),
    ],
)
def test_contenders_and_sentinels_stay_once_somebody_takes_part(engine: Engine, change: Any) -> None:
    small_study(engine)
    token = enrol(engine, "cats", consent_version="1")
    with pytest.raises(IntegrityError, match="keeps its contenders"), write_session(engine) as session:
        session.execute(change)
    withdraw(engine, token)
    with write_session(engine) as session:
        session.execute(change)
        session.rollback()


def test_a_picture_stays_once_somebody_is_asked_about_it(engine: Engine) -> None:
    small_study(engine)
    enrol(engine, "cats", consent_version="1")
    asked = select(Question.sample_id).where(Question.sample_id.is_not(None))
    with pytest.raises(IntegrityError, match="stays as it is"), write_session(engine) as session:
        session.execute(update(Sample).where(Sample.id.in_(asked)).values(png=b"other"))
    with write_session(engine) as session:
        session.execute(update(Sample).where(Sample.id.in_(asked)).values(png=Sample.png))  # recorded again: the same
        session.execute(update(Sample).where(Sample.id.not_in(asked)).values(png=b"other"))
        session.rollback()


@pytest.mark.parametrize("table", [Experiment, Trial, Sample, Image, Dataset])
def test_what_a_study_shows_cannot_be_deleted(engine: Engine, table: type[Base]) -> None:
    small_study(engine)
    enrol(engine, "cats", consent_version="1")
    with pytest.raises(IntegrityError), write_session(engine) as session:
        session.execute(delete(table))


def test_a_study_cannot_take_contenders_of_another_experiment(engine: Engine) -> None:
    small_study(engine)
    with write_session(engine) as session:
        dataset_id = session.scalars(select(Dataset.id)).one()
        other = record_experiment(
            session,
            name="dogs",
            dataset_id=dataset_id,
            config={},
            config_yaml="",
            profile=None,
            decoding="mode",
            code_version="",
            environment={},
            storage_path="",
        )
        arm = record_arm(session, experiment_id=other, name="x", position=0, kind="regression", rebalancing=None)
        trial = record_trial(session, experiment_id=other, arm_id=arm, ray_id="x", config={}, seed=0, status="finished")
        study, mine = session.execute(select(Study.id, Study.experiment_id)).one()
    try:
        for experiment in (mine, other):
            with pytest.raises(IntegrityError), write_session(engine) as session:
                session.add(StudyArm(study_id=study, experiment_id=experiment, arm_id=arm, trial_id=trial, position=9))
    finally:
        with write_session(engine) as session:
            session.execute(delete(Experiment).where(Experiment.name == "dogs"))


def test_closing_twice_keeps_the_first_moment(engine: Engine) -> None:
    small_study(engine)
    first = close_study(engine, "cats")
    assert first.closed_at is not None
    assert close_study(engine, "cats") == first
    with pytest.raises(SurveyError, match="no study 'dogs'"):
        close_study(engine, "dogs")


# After a sweep


def test_a_sweep_opens_one_study_and_never_a_second(engine: Engine) -> None:
    said: list[str] = []
    study = open_study_of(engine, "cats", say=said.append)
    assert study is not None
    # 24 images are too few for 40 questions and 10 for practice: as many as there are are used.
    assert (study.view.question_count, study.view.practice_count, study.sentinel_count) == (20, 4, 2)
    enrol(engine, "cats", consent_version="1")
    again = open_study_of(engine, "cats", say=said.append)
    assert again == replace(study, participants=1)
    close_study(engine, "cats")
    closed = open_study_of(engine, "cats", say=said.append)
    assert closed is not None
    assert closed.view.status == "closed"
    assert len(list_studies(engine)) == 1
    assert said == []


def test_a_sweeps_study_takes_another_name_where_its_own_is_taken(engine: Engine) -> None:
    small_study(engine)
    with write_session(engine) as session:
        session.execute(update(Experiment).values(name="dogs"))
        session.execute(text("UPDATE experiments SET name = 'cats'"))
    study = open_study_of(engine, "cats")
    assert study is not None
    assert study.view.name == "cats"


@pytest.mark.parametrize(("images", "opened"), [(4, False), (5, True), (50, True), (51, True)])
def test_a_sweeps_study_is_as_long_as_its_pictures_allow(images: int, opened: bool) -> None:
    said: list[str] = []
    engine = open_database(":memory:")
    add_experiment(engine, images=images, size=4)
    study = open_study_of(engine, "cats", say=said.append)
    if opened:
        assert study is not None
        expected = (40, 10) if images >= 50 else (4, 1)
        assert (study.view.question_count, study.view.practice_count) == expected
        assert progress(engine, enrol(engine, "cats", consent_version="1")) is not None
    else:
        assert study is None
        assert said == ["No survey was opened: the finished trials share pictures of 4 images, 5 are needed."]
    engine.dispose()


# Results


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(9, 26, 0.19, 0.54), (15, 26, 0.39, 0.75), (18, 26, 0.50, 0.84)],  # the poster's table
)
def test_wilson_intervals_of_the_poster(count: int, total: int, low: float, high: float) -> None:
    share = wilson(count, total)
    assert (share.low, share.high) == pytest.approx((low, high), abs=0.006)  # it gives whole per cent


@pytest.mark.parametrize("total", [1, 2, 7, 40, 1000])
def test_wilson_intervals_agree_with_statsmodels(total: int) -> None:
    for count in {0, 1, total // 3, total - 1, total}:
        expected = proportion_confint(count, total, method="wilson")
        share = wilson(count, total)
        assert share.share == count / total
        assert (share.low, share.high) == pytest.approx(expected, abs=1e-12)
    assert wilson(0, 0) == Share(0, 0, None, None, None)


def test_results_join_votes_and_scores_by_inclusion(engine: Engine) -> None:
    small_study(engine)
    answer_all(engine, "cats", wrong={"rebalanced 0.25"})
    answer_all(engine, "cats", wrong={"rebalanced 0.25", "regression"})
    answer_all(engine, "cats", wrong={"sentinel", "classification"})  # inattentive
    answer_all(engine, "cats", wrong={"classification"}, questions=9)  # never finishes
    answer_all(engine, "cats", wrong=set(), questions=2)  # no main question
    answer_all(engine, "cats", wrong=set(ARMS), simulated=True)
    with read_session(engine) as session:
        study = find_study(session, "cats")
        everybody = survey_results(session, study)
        attentive = survey_results(session, study, inclusion="attentive")
        simulated = survey_results(session, study, simulated=True)
        best = {result.arm: result.best for result in arm_results(session, "cats")}
        votes = session.execute(
            select(Arm.name, Participant.id, func.count())
            .join(StudyArm, StudyArm.arm_id == Arm.id)
            .join(Question, Question.study_arm_id == StudyArm.id)
            .join(Vote, Vote.question_id == Question.id)
            .join(Participant, Participant.id == Question.participant_id)
            .where(Question.phase == "main", Participant.simulated.is_(False))
            .group_by(Arm.name, Participant.id)
        ).all()
    first = min(participant for _, participant, _ in votes)
    answered = {(arm, participant - first): count for arm, participant, count in votes}

    def asked(arm: str, participants: tuple[int, ...]) -> int:
        return sum(answered.get((arm, participant), 0) for participant in participants)

    people, included = (0, 1, 2, 3), (0, 1)
    picked = {"regression": (1,), "classification": (2, 3), "rebalanced 0.25": (0, 1)}
    assert [row.arm for row in everybody.rows] == list(ARMS)
    for row in everybody.rows:
        assert (row.picked_as_real.count, row.picked_as_real.total) == (
            asked(row.arm, picked[row.arm]),
            asked(row.arm, people),
        )
        assert row.trial == best[row.arm]
        assert row.trial.validation["bin_accuracy"] == pytest.approx(0.2 + 0.01 * ARMS.index(row.arm))
    for row in attentive.rows:
        who = tuple(sorted(set(picked[row.arm]) & set(included)))
        assert (row.picked_as_real.count, row.picked_as_real.total) == (asked(row.arm, who), asked(row.arm, included))
    assert (everybody.participants, everybody.left_out) == (4, 0)
    assert (attentive.participants, attentive.left_out) == (2, 2)
    assert (everybody.photographs, attentive.sentinels.count, attentive.sentinels.total) == (None, 4, 4)
    assert everybody.sentinels.total - everybody.sentinels.count == 2
    assert simulated.participants == 1
    assert all(row.picked_as_real.share == 1.0 for row in simulated.rows)


def test_single_pictures_have_the_photographs_own_share(engine: Engine) -> None:
    small_study(engine, protocol="single", sentinel_share=0)  # 6 photographs, 2 pictures of each contender
    answer_all(engine, "cats", wrong={"regression"})
    answer_all(engine, "cats", wrong={"real"})
    with read_session(engine) as session:
        results = survey_results(session, find_study(session, "cats"))
    assert results.photographs is not None
    assert (results.photographs.count, results.photographs.total) == (6, 12)
    shares = {row.arm: row.picked_as_real.share for row in results.rows}
    assert shares == {"regression": 0.5, "classification": 0.0, "rebalanced 0.25": 0.0}


def printed(engine: Engine) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    print_results(engine, "cats", console)
    return console.export_text()


def test_the_printed_table_has_what_people_picked(engine: Engine) -> None:
    assert printed(engine).count("no survey yet") == 3
    small_study(engine, arms=["regression", "classification=classification 0"], protocol="single")
    table = printed(engine)
    assert table.count("no votes yet") == 3
    assert "0 participants of 30 planned" in table
    answer_all(engine, "cats", wrong={"regression"})
    answer_all(engine, "cats", wrong={"sentinel", "real"})
    table = printed(engine)
    assert re.search(r"regression +20.00 % +20.00 % +0.10 % +0.10 % +50.0 % \(2/4\) *\n +15–85 %", table), table
    assert re.search(r"classification +21.00 % +21.00 % +0.10 % +0.10 % +0.0 % \(0/4\)", table)
    assert re.search(r"rebalanced 0.25 +22.00 % +22.00 % +0.10 % +0.10 % +-", table)
    assert re.search(r"the photographs +50.0 % \(6/12\)", table)
    note = " ".join(table.split())
    assert "study 'cats' (open), 2 participants of 30 planned, 1 of them attentive" in note
    assert "It judged classification by its trial classification 0, which is not the best." in note
    assert max(len(line) for line in table.splitlines()) <= 80
    with read_session(engine) as session:
        study = newest_study(session, "cats")
        assert study is not None
        assert study.name == "cats"


@pytest.mark.parametrize(
    ("rule", "wrong", "finished", "counted"),
    [
        (ExclusionRule(1), 1, True, True),
        (ExclusionRule(1), 2, True, False),
        (ExclusionRule(1), 0, False, False),
        (ExclusionRule(1, finished=False), 0, False, True),
        (ExclusionRule(None), 9, True, True),
    ],
)
def test_exclusion_rule(rule: ExclusionRule, wrong: int, finished: bool, counted: bool) -> None:
    assert rule.counts(sentinels_wrong=wrong, finished=finished) == counted


# The command, and files


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "survey.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=24)
    engine.dispose()
    return path


def test_the_command_creates_shows_exports_and_closes(
    database: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> str:
        code = studies.main(["--database", str(database), *arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        return " ".join(said.out.split())

    short = ("--questions", "12", "--practice", "3", "--sentinels", "0.17")
    assert "Study 'cats' is open: protocol pair, 12 questions (2 of them sentinels)" in run("create", *short)
    said = run("create", "cats", "--name", "a/b", "--arm", "grey", "--exposure", "none", "--exposure", "50", *short)
    assert "shown until answered, 50 ms" in said
    assert "Contenders of experiment 'cats' (cats): grey; 24 images" in said
    assert re.search(r"a/b open cats pair 0 30 0 cats open cats pair 0 30 0", run("list"))

    engine = open_database(database)
    answer_all(engine, "cats", wrong={"regression"}, flags=("night shift", "plates"))
    answer_all(engine, "cats", wrong={"sentinel"}, questions=14)
    answer_all(engine, "cats", wrong={"sentinel"}, simulated=True)
    shown = run("show", "cats")
    assert "model all (2) attentive (1) regression" in shown
    assert "2 participants so far, 1 of them finished" in shown
    assert "by simulated participants" in run("show", "cats", "--simulated")

    assert "29 votes are in" in run("export", "cats", "--to", str(tmp_path / "out"))
    with (tmp_path / "out" / "votes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == export.COLUMNS
    assert len({row["participant"] for row in rows}) == 2
    assert {row["simulated"] for row in rows} == {"0"}
    assert {row["flags"] for row in rows} == {"night shift;plates", ""}
    main = [row for row in rows if row["phase"] == "main"]
    assert len(main) == 23
    for row in rows:
        assert row["picked_as_real"] == str(1 - int(row["correct"]))
        assert row["real_side"] == row["answer"] or row["correct"] == "0"
        assert (row["kind"] == "arm") == bool(row["arm"]) == bool(row["trial"])
        assert row["sentinel"] == str(int(row["kind"] == "sentinel"))
        assert row["attentive"] == row["finished"]
        assert (row["exposure_ms"], row["response_time_ms"], row["scale"]) == ("1000", "700.0", "4")
    with read_session(engine) as session:
        results = survey_results(session, find_study(session, "cats"))
        private = session.scalars(select(Participant.completion_code)).all()
    for result in results.rows:
        about = [row for row in main if row["arm"] == result.arm]
        assert (sum(int(row["picked_as_real"]) for row in about), len(about)) == (
            result.picked_as_real.count,
            result.picked_as_real.total,
        )
    exported = "".join(file.read_text() for file in (tmp_path / "out").iterdir())
    assert not any(code in exported for code in private)
    definition = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [arm["trial"] for arm in definition["arms"]] == [f"{arm} 1" for arm in ARMS]
    assert (len(definition["images"]), definition["dataset"]["fingerprint"]) == (24, "cats 24 16")
    stored = {column.name for column in Study.__table__.columns} - {"id", "name", "experiment_id"}
    assert stored <= definition.keys()  # all that a study is

    monkeypatch.chdir(tmp_path)
    assert "12 votes" not in run("export", "a/b")
    assert (tmp_path / "a_b" / "votes.csv").read_text().count("\n") == 1  # the header
    assert "is closed: it takes no more participants; 1 under way may still finish." in run("close", "cats")
    engine.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--database", "nowhere.sqlite", "list"], "There is no database nowhere.sqlite; run a sweep first"),
        (["list"], "There is no study yet; finish a sweep, or create one"),
        (["show"], "There is no study yet"),
        (["close", "x"], "There is no study 'x'; there is none yet"),
        (["create", "--exposure", "soon"], "The exposure 'soon' is neither a number of milliseconds nor none."),
        (["create"], "40 questions and 10 for practice need 50 images"),
        (["create", "dogs"], "There is no experiment 'dogs'; there is cats"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    database: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert studies.main(["--database", str(database), *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_without_an_experiment_the_commands_say_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "empty.sqlite")
    open_database(path).dispose()
    for run, arguments in ((studies.main, ["create"]), (report.main, [])):
        assert run(["--database", path, *arguments]) == 2
        assert capsys.readouterr().err == "The database holds no experiment yet; run a sweep first (make sweep).\n"


def test_the_command_runs_from_the_checkout_and_reads_the_environment(database: Path) -> None:
    environment = {**os.environ, "HUEJURY_DATABASE": str(database)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "survey_app.studies", *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)

    created = run("create", "--questions", "10", "--practice", "0")
    assert (created.returncode, created.stderr) == (0, "")
    refused = run("create", "--questions", "10", "--practice", "0")
    assert refused.returncode == 2
    assert refused.stderr == "There is a study 'cats' already, and a study never changes; choose another name.\n"


def test_the_data_dictionary_explains_every_column_in_order() -> None:
    text = (ROOT / "docs" / "data-dictionary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    assert rows[0][0] == "column"
    assert tuple(name for name, _, _ in rows[1:]) == export.COLUMNS
