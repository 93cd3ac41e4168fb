"""What a sweep that goes on reads in the database, and what it has left to do. Without Ray."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from db.schema import Arm, Experiment, Report, Run, Trial
from db.store import open_database, read_session
from db.sweeps.drivers import Drive
from platform.data.datasets import Dataset, load_dataset
from platform.model.storage import CHECKPOINT_FILE
from platform.running import driver
from platform.running.config import Failures, Resources
from platform.running.driver import config_to_resume
from platform.running.plan import PlannedTrial
from platform.running.preparation import SweepError
from tests.running.scripted_sweep import (
    EARLY,
    EPOCHS,
    alike,
    begin,
    experiment_status,
    rates,
    scripted_report,
    sweep_config,
    trials_by_arm,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(["photos"], train_images=20, validation_images=10, say=lambda line: None)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(tmp_path / "sweep.sqlite")
    yield engine
    engine.dispose()


def test_an_arm_that_renders_another_has_its_trials_with_scores_of_its_own(
    data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    recorder, [_, rebalanced], _ = begin(sweep_config(rates(0.1)), data, engine, tmp_path)
    assert trials_by_arm(engine) == alike([("pending", 0)])
    recorder.record_status(rebalanced, "running")
    report = scripted_report(["rebalanced", "tilted"], 1, 0.7)
    report["scores"]["tilted"] = report["scores"]["tilted"] | {"scores": {"validation": {"raw_auc": 0.9}}}
    recorder.record_report(rebalanced, report, "/there/1")
    recorder.record_end(rebalanced, "failed", "as scripted")
    with read_session(engine) as session:
        trials = dict(session.execute(select(Arm.name, Trial).join(Arm, Arm.id == Trial.arm_id)).all())
        reports = session.execute(select(Arm.name, Report).select_from(Report).join(Trial).join(Arm)).all()
        of_arm = dict(reports)
    for arm in ("rebalanced", "tilted"):
        trial, reported = trials[arm], of_arm[arm]
        assert (trial.status, trial.epochs_done, trial.checkpoint) == ("failed", 1, "/there/1")
        assert trial.failure_reason == "as scripted"
        assert trial.seed == rebalanced.hyperparameters.seed
        assert (reported.loss, reported.device, reported.run_id) == (0.7, "script", 1)
    assert of_arm["tilted"].scores == {"validation": {"raw_auc": 0.9}}
    assert of_arm["rebalanced"].scores["train"] == {"loss": 0.7, "bin_accuracy": 0.5}
    assert "regression" not in of_arm
    assert of_arm["grey"].epoch == 0
    assert of_arm["grey"].scores["validation"].keys() >= {"psnr_db", "delta_e_2000"}


def test_what_a_killed_driver_could_not_say_is_said_by_the_next(data: Dataset, engine: Engine, tmp_path: Path) -> None:
    """Each trial was killed at another moment. What was decided of it is decided again, alike."""
    config = sweep_config(rates(0.1, 0.2, 0.3, 0.4), **EARLY)
    recorder, planned, _ = begin(config, data, engine, tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    (here / CHECKPOINT_FILE).touch()

    def reports(trial: PlannedTrial, epoch: int, loss: float, checkpoint: Path) -> None:
        arms = [trial.arm] if trial.arm == "regression" else ["rebalanced", "tilted"]
        recorder.record_report(trial, scripted_report(arms, epoch, loss), str(checkpoint))

    whole, *others = [trial for trial in planned if trial.arm == "regression"]  # all have come to the first rung
    for trial in others:
        reports(trial, 1, 0.3, Path("/nowhere"))
    for epoch in range(1, EPOCHS + 1):
        reports(whole, epoch, 0.1, tmp_path / f"{epoch}")
    waiting, gone, worst, unbegun = [trial for trial in planned if trial.arm == "rebalanced"]  # not all have
    reports(waiting, 1, 0.05, here)
    reports(gone, 1, 0.01, Path("/nowhere"))
    reports(worst, 1, 0.9, here)
    recorder.record_status(unbegun, "running")

    again, left, _ = begin(config, data, engine, tmp_path)
    assert again.ended == {("regression", 1): "finished"} | {("regression", n): "stopped_early" for n in (2, 3, 4)}
    assert [(trial.number, trial.checkpoint, trial.epochs_done) for trial in left] == [
        (waiting.number, str(here), 1),
        (gone.number, None, 0),  # it begins anew
        (worst.number, str(here), 1),
        (unbegun.number, None, 0),
    ]
    assert again.histories["rebalanced"].losses[1].keys() == {waiting.number, worst.number}
    assert trials_by_arm(engine)["regression"] == [("finished", EPOCHS), *[("stopped_early", 1)] * 3]
    assert trials_by_arm(engine)["rebalanced"] == [("pending", 1), ("pending", 0), ("pending", 1), ("pending", 0)]
    assert again.close() == "interrupted"


def test_every_start_of_the_driver_is_a_run_of_its_own_and_baselines_are_measured_once(
    data: Dataset, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = sweep_config(rates(0.1))
    recorder, [regression, _], _ = begin(config, data, engine, tmp_path)
    (tmp_path / CHECKPOINT_FILE).touch()
    recorder.record_report(regression, scripted_report(["regression"], 1, 0.5), str(tmp_path))
    monkeypatch.setattr(driver, "evaluate_splits", None)  # it cannot be called
    recorder, _, _ = begin(config, data, engine, tmp_path)
    recorder.record_report(regression, scripted_report(["regression"], 2, 0.4), str(tmp_path))
    with read_session(engine) as session:
        assert len(session.scalars(select(Run)).all()) == 2
        rows = session.execute(select(Report.epoch, Report.run_id).where(Report.epoch > 0).order_by(Report.epoch))
        assert rows.all() == [(1, 1), (2, 2)]


def test_a_driver_whose_sweep_was_taken_over_records_nothing_more(
    data: Dataset, engine: Engine, tmp_path: Path
) -> None:
    recorder, [regression, _], _ = begin(sweep_config(rates(0.1)), data, engine, tmp_path)
    Drive(engine, "scripted").take()
    recorder.record_status(regression, "running")
    recorder.record_report(regression, scripted_report(["regression"], 1, 0.5), str(tmp_path))
    recorder.close()
    assert str(recorder.driven_elsewhere) == "Experiment 'scripted' was taken over by another process."
    assert recorder.problems == []
    assert trials_by_arm(engine) == alike([("pending", 0)])
    assert experiment_status(engine) == "running"


MINUTES = sweep_config(rates(0.1), minutes=10, epochs=2)
BEGUN = MINUTES.model_copy(update={"train_images": 700, "epochs": 9})  # what was resolved, and is recorded


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, {}),
        ({"failures": Failures(max_retries=7), "participants": 99},) * 2,
        ({"resources": Resources(cpu=2), "dataset": ["folder:/moved"]},) * 2,
        ({"minutes": 5.0}, ": minutes was 10.0 and is 5.0. "),
        ({"seed": 1, "jury": True}, ": jury was False and is True; seed was 0 and is 1. "),
        ({"minutes": None}, ": epochs was 9 and is 2; minutes was 10.0 and is None; train_images was 700 and is None."),
    ],
)
def test_a_sweep_goes_on_with_the_config_that_it_was_begun_with(
    told: dict[str, object], expected: dict[str, object] | str
) -> None:
    row = Experiment(name="scripted", config=BEGUN.model_dump(mode="json"))
    if isinstance(expected, str):
        with pytest.raises(SweepError, match=re.escape(expected)):
            config_to_resume(row, MINUTES.model_copy(update=told))
    else:
        found = config_to_resume(row, MINUTES.model_copy(update=told))
        assert found.model_dump() == BEGUN.model_copy(update=expected).model_dump()
        assert config_to_resume(row, None).model_dump() == BEGUN.model_dump()


def test_what_a_config_has_that_there_is_no_more_is_named() -> None:
    row = Experiment(name="scripted", config=BEGUN.model_dump(mode="json") | {"gone": 1})
    with pytest.raises(SweepError, match=r"has what there is no more \(gone\)"):
        config_to_resume(row, None)
