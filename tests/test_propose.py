"""What to ask next: from a study's votes to the config of the next sweep, by the commands themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from db.schema import Arm, Experiment
from db.store import open_database, write_session
from db.studies import create_study
from platform.config import read_config
from platform.sweep import main as sweep
from platform.trials import plan_trials
from survey_app.propose import main as propose
from survey_app.simulate import main as simulate
from tests.survey_data import add_experiment, answer_all

TILTS = {"classification": 1.0, "rebalanced 0.25": 0.25}


@pytest.fixture
def tilted(tmp_path: Path) -> Iterator[Engine]:
    """The tests' experiment as a sweep of a tilt would have recorded it, in a file."""
    engine = open_database(tmp_path / "d.sqlite")
    add_experiment(engine, images=24)
    with write_session(engine) as session:
        experiment = session.scalars(select(Experiment)).one()
        experiment.config = {
            "experiment": experiment.name,
            "dataset": ["photos"],
            "train_images": 40,
            "validation_images": 20,
            "minutes": 1.0,
            "epochs": 4,
            "arms": {},
            "training": {"width": 8, "epochs": 4},
            "search": {"method": "random", "trials_per_arm": 3},
            "early_stopping": {"grace_epochs": 1, "reduction_factor": 3},
        }
        for arm in session.scalars(select(Arm)):
            if arm.name == "rebalanced 0.25":
                arm.options = {"renders": "classification", "tilt": 0.25}
            arm.rebalancing = TILTS.get(arm.name)
    yield engine
    engine.dispose()


def command(engine: Engine, *arguments: object) -> int:
    return propose([*map(str, arguments), "--database", str(engine.url.database)])


def test_from_votes_to_the_next_sweep(tilted: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_study(tilted, "cats", question_count=10, practice_count=2, seed=0)
    assert simulate(["--participants", "12", "--database", str(tilted.url.database)]) == 0
    file = tmp_path / "next.yaml"
    assert command(tilted, "--simulated", "--to", file) == 0
    printed = capsys.readouterr().out
    assert "The best so far is λ = " in printed
    assert "The best of several looks better than it is" in printed
    assert file.read_text().startswith("# Proposed from study 'cats' of experiment 'cats', 12 simulated participants")
    config = read_config(file).config
    assert config.experiment == "cats-round-2"
    assert (config.train_images, config.epochs, config.minutes) == (40, 4, None)
    assert [planned.arm for planned in plan_trials(config)] == ["classification"]
    tilts = {arm.tilt for arm in config.arms.values() if arm.renders == "classification"}
    assert tilts
    assert 1 not in tilts
    assert f"{file} plans them, with {config.participants} participants" in printed
    assert sweep([str(file), "--dry-run"]) == 0
    assert command(tilted, "--simulated", "--to", file) == 2  # what is there is not overwritten
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "arms", "blinded", "expected"),
    [
        ("nobody", None, False, "Nobody has answered study 'cats' yet"),
        ("simulated", None, False, "Only simulated participants have answered study 'cats'; add --simulated"),
        ("one", None, True, "blinded"),
        ("one", ["regression", "classification"], False, "no answers about two values of λ of one model"),
    ],
)
def test_refusals_are_one_sentence(
    tilted: Engine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: str,
    arms: list[str] | None,
    blinded: bool,
    expected: str,
) -> None:
    create_study(tilted, "cats", arms=arms, question_count=10, practice_count=2, seed=0, blinded=blinded)
    if given != "nobody":
        answer_all(tilted, "cats", wrong={"regression"}, simulated=given == "simulated")
    assert command(tilted, "--to", tmp_path / "next.yaml") == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "next.yaml").exists()
