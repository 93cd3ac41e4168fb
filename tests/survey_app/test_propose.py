"""What to ask next: from a study's votes to the next study, by the commands themselves."""

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from db.schema import Arm, Experiment, Trial
from db.store import open_database, read_session, write_session
from db.surveys.study import create_study, find_study
from db.sweeps.trials import contenders, load_models
from platform.arms.options import ArmOptions, as_configured
from platform.data.datasets import load_dataset
from platform.running.config import SweepConfig, read_config
from platform.sweep import main as sweep
from survey_app.propose import main as propose
from survey_app.propose import next_tilts
from survey_app.simulate import main as simulate
from survey_app.studies import main as studies
from tests.running.scripted_sweep import rates, train_here
from tests.survey_data import add_experiment, answer_all

TILTS: dict[str, Any] = {
    "experiment": "tilts",
    "dataset": "photos",
    "train_images": 40,
    "validation_images": 30,
    "epochs": 1,
    "arms": {
        "classification": {"kind": "classification"},
        "tilted 0.5": {"renders": "classification", "tilt": 0.5},
        "tilted 0.25": {"renders": "classification", "tilt": 0.25},
        "unasked": {"renders": "classification", "tilt": 0.75},
    },
    "training": {"width": 8, "depth": 1, "batch_size": 20, "precision": "float32"},
    "search": rates(3e-3),
    "samples": {"images": 30},
}
RUN = {"platform.sweep": sweep, "survey_app.studies": studies}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "d.sqlite")
    yield engine
    engine.dispose()


@pytest.fixture
def rebalanced(engine: Engine) -> Engine:
    """The tests' experiment, recorded as of a sweep that trained with two λ's."""
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
            arm.rebalancing = {"classification": 1.0, "rebalanced 0.25": 0.25}.get(arm.name)
            arm.options = asdict(ArmOptions(kind=arm.options.get("kind"), rebalancing=arm.rebalancing or 1.0))
    return engine


def command(engine: Engine, *arguments: object) -> int:
    return propose([*map(str, arguments), "--database", str(engine.url.database)])


def test_from_votes_on_tilts_to_a_further_study_without_a_training(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands as they are printed."""
    data = load_dataset(["photos"], train_images=40, validation_images=30, say=lambda line: None)
    train_here(SweepConfig.model_validate(TILTS), data, engine, tmp_path / "results")
    arms = ["classification", "tilted 0.5", "tilted 0.25"]
    create_study(engine, "tilts", arms=arms, question_count=20, practice_count=2, exposure_ms=None, seed=0)
    database = ["--database", str(engine.url.database)]
    assert simulate(["--participants", "12", *database]) == 0
    with read_session(engine) as session:
        weights = set(session.scalars(select(Trial.checkpoint)))
    capsys.readouterr()

    assert command(engine, "--simulated") == 0
    printed = capsys.readouterr().out
    assert "The best so far is λ = " in printed
    assert "The best of several looks better than it is" in printed
    assert "It trains nothing" in printed
    typed = [shlex.split(line) for line in printed.splitlines() if line.startswith("  python -m ")]
    assert [words[2] for words in typed] == list(RUN)
    for words in typed:
        assert RUN[words[2]](words[3:]) == 0

    with read_session(engine) as session:
        assert set(session.scalars(select(Trial.checkpoint))) == weights
        added = {arm.name for arm in load_models(session, 1)} - TILTS["arms"].keys()
        study = find_study(session, "tilts 2")
        asked = {trial.arm.name: trial.arm.rebalancing for trial in contenders(session, study)}
    assert (study.question_count, study.practice_count, study.exposure_ms) == (20, 2, None)
    assert added
    assert added <= asked.keys() <= {*added, *TILTS["arms"]}
    assert {"classification"} <= asked.keys() - added
    assert len(set(asked.values())) == len(asked)
    assert simulate(["--study", "tilts 2", "--participants", "12", *database]) == 0
    assert command(engine, "tilts 2", "--simulated") == 0
    assert "whose answers are on this curve, too: 1." in capsys.readouterr().out
    assert command(engine, "--simulated", "--to", tmp_path / "next.yaml") == 2
    assert "asked about tilts, which need no config" in capsys.readouterr().err


def test_an_arm_that_is_there_is_asked_about_and_no_name_is_taken_twice() -> None:
    arms = {
        "plain": ArmOptions(kind="classification", decoding="mean"),
        "tilted 0.5": ArmOptions(renders="plain", tilt=0.5, decoding="mean"),
        "three quarters": ArmOptions(renders="plain", tilt=0.75, decoding="mean"),
        "tilted 0.3": ArmOptions(renders="plain", tilt=0.3, decoding="mode"),
    }
    members = [
        Trial(arm=Arm(name=name, rebalancing=rebalancing, options=as_configured(arms[name])))
        for name, rebalancing in (("tilted 0.5", 0.5), ("plain", 1.0))
    ]
    names, further = next_tilts(members, arms, [1.0, 0.75, 0.5, 0.3, 0.1])
    assert names == ["plain", "three quarters", "tilted 0.5", "plain tilted 0.3", "tilted 0.1"]
    assert further == {
        "plain tilted 0.3": ArmOptions(renders="plain", tilt=0.3, decoding="mean"),
        "tilted 0.1": ArmOptions(renders="plain", tilt=0.1, decoding="mean"),
    }


def test_from_votes_on_trainings_to_the_next_sweep(
    rebalanced: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_study(rebalanced, "cats", question_count=10, practice_count=2, seed=0)
    assert simulate(["--participants", "12", "--database", str(rebalanced.url.database)]) == 0
    file = tmp_path / "next.yaml"
    assert command(rebalanced, "--simulated", "--to", file) == 0
    printed = capsys.readouterr().out
    assert file.read_text().startswith("# Proposed by survey_app.propose from study 'cats' of 'cats', 12 simulated")
    config = read_config(file).config
    assert config.experiment == "cats-round-2"
    assert (config.train_images, config.epochs, config.minutes) == (40, 4, None)
    lambdas = [arm.rebalancing for arm in config.arms.values()]
    assert lambdas == sorted(set(lambdas), reverse=True)
    assert 1 in lambdas
    assert f"{file} plans them" in printed
    assert sweep([str(file), "--dry-run"]) == 0
    assert command(rebalanced, "--simulated", "--to", file) == 2  # what is there is not overwritten
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
    rebalanced: Engine,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: str,
    arms: list[str] | None,
    blinded: bool,
    expected: str,
) -> None:
    create_study(rebalanced, "cats", arms=arms, question_count=10, practice_count=2, seed=0, blinded=blinded)
    if given != "nobody":
        answer_all(rebalanced, "cats", wrong={"regression"}, simulated=given == "simulated")
    assert command(rebalanced, "--to", tmp_path / "next.yaml") == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "next.yaml").exists()
