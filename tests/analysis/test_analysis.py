"""docs/analysis.md, run block by block on a database of its own: what it finds is what the dashboard shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import Engine

from db.store import open_database, read_session
from db.surveys.answers import StudyBlinded, load_answers
from db.surveys.study import create_study, find_study
from db.surveys.votes_frame import VOTE_COLUMNS, votes_frame
from db.sweeps.frames import samples_frame, trials_frame
from db.sweeps.trials import UnknownExperimentError, list_experiments
from platform.tables.outcome import results_tables
from platform.tables.table import Table
from survey_app.dashboard import certainty_view
from survey_app.dashboard.choice import Choice
from survey_app.simulate import Observer, simulate
from tests.survey_data import ARMS, add_experiment, answer_all
from tests.test_docs import BLOCK, text_of

IMAGES = 24


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated votes in the study "cats"; a person's vote in "blinded", which is."""
    path = tmp_path_factory.mktemp("analysis") / "survey.sqlite"
    engine = open_database(path)
    add_experiment(engine, images=IMAGES)
    create_study(engine, "cats", name="blinded", question_count=12, practice_count=2, seed=1, blinded=True)
    create_study(engine, "cats", question_count=20, practice_count=2, seed=0)
    simulate(engine, "cats", 5, Observer(), 0)
    answer_all(engine, "blinded", wrong={"regression"})
    engine.dispose()
    return path


@pytest.fixture
def engine(database: Path) -> Iterator[Engine]:
    engine = open_database(database)
    yield engine
    engine.dispose()


def test_the_analysis_finds_what_the_dashboard_shows(
    engine: Engine, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(text_of("docs/analysis.md"))
    assert {language for language, _, _ in blocks} == {"python"}
    for _, _, block in blocks:
        exec(compile(block, "docs/analysis.md", "exec"), names)
    names["engine"].dispose()

    with read_session(engine) as session:
        study = find_study(session, "cats")
        answers = load_answers(session, study, simulated=True)
        table = results_tables(session, "cats", answers)[0].frame.set_index("model").loc[list(ARMS)]
        experiment = list_experiments(session)[0]
    shares, best = names["shares"].loc[list(ARMS)], names["best"].loc[list(ARMS)]
    columns = {"picked as real": "share", "95 % from": "low", "95 % to": "high", "times asked": "total"}
    for heading, column in columns.items():
        assert shares[column].tolist() == table[heading].tolist()
    assert (100 * best["bin_accuracy"]).tolist() == table["bin accuracy, validation (%)"].tolist()

    choice = Choice(engine, experiment, study, simulated=True, answers=answers)
    (differences,) = [
        each
        for each in certainty_view.exhibits(answers, choice, study)
        if isinstance(each, Table) and each.name == "contrasts"
    ]
    shown, found = differences.frame, names["differences"]
    assert list(found["second"]) == list(shown["model"])
    assert list(found["first"]) == list(shown["compared with"])
    assert found["p_holm"].tolist() == pytest.approx(shown["p (Holm)"].tolist())
    assert (100 * found["low"]).tolist() == pytest.approx(shown["95 % from"].tolist())
    with Image.open(tmp_path / "picked-as-real.png") as plot:
        assert plot.size > (100, 50)


def test_every_trial_picture_and_vote_is_a_row(engine: Engine) -> None:
    with read_session(engine) as session:
        trials, samples = trials_frame(session, "cats"), samples_frame(session, "cats")
        votes = votes_frame(session, "cats", simulated=True)
        nobody = votes_frame(session, "cats")
    assert trials["arm"].value_counts(sort=False).to_dict() == dict.fromkeys(ARMS, 2) | {"grey": 1}
    assert trials[trials["best"]].set_index("arm")["trial"].to_dict() == dict.fromkeys(ARMS, 2) | {"grey": 1}
    assert trials["learning_rate"].tolist()[:2] == [0.001, 0.002]
    assert trials["bin_accuracy_error"].eq(0.01).all()
    assert len(samples) == IMAGES * len(trials)
    assert samples.groupby("arm", sort=False)["delta_e_2000"].first().tolist() == [10.0, 9.0, 8.0, 7.0]
    assert len(votes) == 5 * 22
    assert (tuple(votes.columns), tuple(nobody.columns), len(nobody)) == (VOTE_COLUMNS, VOTE_COLUMNS, 0)
    joined = votes[votes["kind"] == "arm"].merge(samples, on=["arm", "trial", "image"], how="left")
    assert joined["delta_e_2000"].notna().all()


def test_a_blinded_study_stays_blinded(engine: Engine) -> None:
    with read_session(engine) as session, pytest.raises(StudyBlinded):
        votes_frame(session, "blinded")


def test_an_unknown_experiment_is_answered_in_a_sentence(engine: Engine) -> None:
    for read in (trials_frame, samples_frame):
        with read_session(engine) as session, pytest.raises(UnknownExperimentError, match="no experiment 'dogs'"):
            read(session, "dogs")
