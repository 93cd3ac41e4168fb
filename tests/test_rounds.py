"""Rounds of asking: side by side, pooled where that is right, and the winner asked about again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from db.answers import load_answers
from db.frames import trials_frame
from db.schema import Arm, Experiment, Trial
from db.store import open_database, read_session, write_session
from db.studies import create_study, find_study
from platform.intervals import wilson
from platform.storage import CHECKPOINT_FILE, has_file
from platform.sweep import main as sweep
from survey_app.curve import votes_of
from survey_app.dashboard.rebalancing import OPTIMISTIC, exhibits, how_sure_of_best
from survey_app.propose import main as propose
from survey_app.report import main as report
from survey_app.rounds import confirmed, earlier_rounds, rounds_table
from survey_app.simulate import main as simulate
from tests.survey_data import add_experiment, answer_all


def share_of(count: int, total: int) -> str:
    found = wilson(count, total)
    share, low, high = (100 * (value or 0.0) for value in (found.share, found.low, found.high))
    return f"{share:.1f}\N{NO-BREAK SPACE}% ({low:.0f}–{high:.0f}\N{NO-BREAK SPACE}%)"


LAMBDAS = {"classification": 1.0, "rebalanced 0.25": 0.25}


def add_round(
    engine: Engine, name: str, proposed_from: str | None, wrong: set[str], *, people: int = 5, **study: Any
) -> None:
    """An experiment with a tilt of classification, whose study so many people answered: they took for real what they
    answered wrong."""
    add_experiment(engine, name, images=24)
    with write_session(engine) as session:
        experiment = session.scalars(select(Experiment).where(Experiment.name == name)).one()
        experiment.config = experiment.config | {"proposed_from": proposed_from}
        for arm in session.scalars(select(Arm).where(Arm.experiment_id == experiment.id)):
            if arm.name == "rebalanced 0.25":
                arm.options = {"renders": "classification", "tilt": 0.25}
            arm.rebalancing = LAMBDAS.get(arm.name)
    options = {"question_count": 10, "practice_count": 1, "seed": 0, **study}
    create_study(engine, name, **options)
    for _ in range(people):
        answer_all(engine, name, wrong=wrong)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = open_database(":memory:")
    yield engine
    engine.dispose()


def test_a_second_round_is_shown_beside_the_first_and_joined_to_its_curve(engine: Engine) -> None:
    add_round(engine, "one", None, {"rebalanced 0.25"})
    add_round(engine, "two", "one", {"rebalanced 0.25"})
    with read_session(engine) as session:
        first, second = (load_answers(session, find_study(session, name)) for name in ("one", "two"))
        assert earlier_rounds(session, first) == []
        (before,) = earlier_rounds(session, second)
    assert before.apart is None
    assert before.answers.study == "one"
    table = rounds_table(second, [before])
    picked, asked = (int(counts[:, 0].sum()) for counts in votes_of(second)[1:])
    shown = table.text().set_index("λ").loc["0.25", "two"]
    assert str(shown) == f"{share_of(picked, asked)}, {picked}/{asked}"
    assert picked == asked > 0
    assert "through 'one', 'two' together" in table.note
    value, share = confirmed(second, [before]) or (0.0, wilson(0, 0))
    assert (value, share) == (0.25, wilson(picked, asked))
    assert "was the best before, too, and was asked about again" in how_sure_of_best(second, [before])
    assert how_sure_of_best(second, []) == OPTIMISTIC
    assert "rounds" in [getattr(one, "name", "") for one in exhibits(second, [before])]
    assert "rounds" not in [getattr(one, "name", "") for one in exhibits(second)]


def test_who_wins_only_now_is_not_yet_confirmed(engine: Engine) -> None:
    """Those who took plain classification for real in the first round take the tilt for it in a larger second one."""
    add_round(engine, "one", None, {"classification"})
    add_round(engine, "two", "one", {"rebalanced 0.25"}, people=20)
    with read_session(engine) as session:
        second = load_answers(session, find_study(session, "two"))
        rounds = earlier_rounds(session, second)
    value, share = confirmed(second, rounds) or (0.0, wilson(0, 0))
    assert (value, share.count) == (1.0, 0)
    assert how_sure_of_best(second, rounds) == OPTIMISTIC


@pytest.mark.parametrize(
    ("study", "why"), [({"exposure_ms": 500}, "it asked in another way"), ({"protocol": "single"}, "in another way")]
)
def test_what_was_asked_in_another_way_stands_beside_and_is_not_pooled(
    engine: Engine, study: dict[str, Any], why: str
) -> None:
    add_round(engine, "one", None, {"rebalanced 0.25"}, **study)
    add_round(engine, "two", "one", {"rebalanced 0.25"})
    with read_session(engine) as session:
        second = load_answers(session, find_study(session, "two"))
        (before,) = earlier_rounds(session, second)
    assert why in str(before.apart)
    assert "Study 'one' is not in the curve" in rounds_table(second, [before]).note
    assert confirmed(second, [before]) is None


def test_a_round_that_is_blinded_lost_or_its_own_is_left_out(engine: Engine) -> None:
    add_round(engine, "one", None, {"rebalanced 0.25"}, blinded=True)
    add_round(engine, "two", "one", {"rebalanced 0.25"})
    add_round(engine, "three", "nowhere", {"rebalanced 0.25"})
    add_round(engine, "four", "four", {"rebalanced 0.25"})
    with read_session(engine) as session:
        for name in ("two", "three", "four"):
            assert earlier_rounds(session, load_answers(session, find_study(session, name))) == []


CONFIG = """\
experiment: tilts
dataset: photos
train_images: 40
validation_images: 60
epochs: 1
arms:
  classification: {kind: classification}
  tilted 0.5: {renders: classification, tilt: 0.5}
  tilted 0.25: {renders: classification, tilt: 0.25}
training: {learning_rate: 0.003, batch_size: 20, width: 4, depth: 1, precision: float32}
search: {method: random, trials_per_arm: 1}
"""


@pytest.mark.long
def test_from_a_sweep_to_the_second_rounds_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the commands themselves: sweep, simulate, propose, sweep, simulate, report, propose."""
    (tmp_path / "tilts.yaml").write_text(CONFIG)
    database = ["--database", str(tmp_path / "d.sqlite")]
    second = tmp_path / "second.yaml"
    for file in (tmp_path / "tilts.yaml", second):
        assert sweep([str(file), *database, "--storage", str(tmp_path / "checkpoints")]) == 0
        assert simulate(["--participants", "12", *database]) == 0
        if file != second:
            assert propose(["--simulated", "--to", str(second), *database]) == 0
    assert "proposed_from: tilts" in second.read_text()
    printed = " ".join(capsys.readouterr().out.split())
    assert "It trains nothing: what was trained for 'tilts' is taken from there." in printed
    assert "classification #1 is not trained again, as its weights are there: tilts #1, code " in printed
    engine = open_database(tmp_path / "d.sqlite")
    with read_session(engine) as session:
        first, again = (trials_frame(session, name).set_index("arm") for name in ("tilts", "tilts-round-2"))
    assert again["trained_in"][~again["baseline"]].str.startswith("tilts #1, code ").all()
    same = ["seed", "epochs_done", "images_seen", "loss", "bin_accuracy", "train_bin_accuracy", "information"]
    assert again.loc[["classification"], same].equals(first.loc[["classification"], same])
    with read_session(engine) as session:
        checkpoints = session.scalars(select(Trial.checkpoint).where(Trial.checkpoint.is_not(None))).all()
    assert all(has_file(str(checkpoint), CHECKPOINT_FILE) for checkpoint in checkpoints)
    assert len(set(checkpoints)) == 2
    engine.dispose()
    assert propose(["--simulated", "--to", str(tmp_path / "third.yaml"), *database]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "through 'tilts', 'tilts-round-2' together" in printed
    assert "experiment: tilts-round-3" in (tmp_path / "third.yaml").read_text()
    assert report(["tilts-round-2", "--simulated", "--to", str(tmp_path / "report.html"), *database]) == 0
    assert "Rounds (simulated participants)" in (tmp_path / "report.html").read_text()
