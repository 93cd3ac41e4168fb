"""The sweep's queries and figures, on a small sweep made by hand, and its view in Streamlit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from sqlalchemy import Engine, update
from streamlit.testing.v1 import AppTest

from db.schema import Arm, TrialStatus
from db.store import open_database, read_session, write_session
from db.sweeps.recording import finish_experiment, record_arm, record_report, record_trial
from db.sweeps.trials import best_trials, find_experiment, learning_curves, load_arms, load_models, sweep_progress
from platform.color.scores import SCORES
from platform.running.config import recorded_config
from survey_app.dashboard import sweep_view
from survey_app.dashboard.exhibits import Figure, svg
from tests.db.query_plans import query_plans, scans
from tests.survey_data import begin_experiment, config_with

FAILURE = "the loss is not finite (nan) in epoch 2"
# Arm, status, learning rate, optimizer, tuning losses by epoch.
TRIALS: list[tuple[str, TrialStatus, float, str, list[float]]] = [
    ("regression", "finished", 0.01, "adamw", [300.0, 200.0, 150.0]),
    ("regression", "stopped_early", 0.001, "rmsprop", [100.0]),
    ("regression", "finished", 0.003, "adamw", [310.0, 210.0, 140.0]),
    ("rebalanced", "finished", 0.01, "adamw", [3.0, 2.5, 2.0]),
    ("rebalanced", "failed", 0.001, "rmsprop", [4.0]),
    ("rebalanced", "running", 0.003, "adamw", [3.1, 2.6]),
]


CONFIG = {
    "epochs": 3,
    "search": {
        "method": "random",
        "trials_per_arm": 4,
        "space": {
            "learning_rate": {"loguniform": [0.001, 0.01], "uniform": None},
            "optimizer": ["adamw", "rmsprop"],
            "filter_size": None,
        },
    },
    "early_stopping": {"grace_epochs": 1, "reduction_factor": 2.0},
}


def add_sweep(engine: Engine, trials: list[tuple[str, TrialStatus, float, str, list[float]]] = TRIALS) -> int:
    """A running sweep of two arms, with a baseline, on the trials."""
    options: dict[str, dict[str, object]] = {
        "regression": {"kind": "regression"},
        "rebalanced": {"kind": "classification", "rebalancing": 0.5},
        "grey": {},
    }
    with write_session(engine) as session:
        _, experiment_id, run_id = begin_experiment(session, "hand-made", CONFIG, fingerprint="cats", images=10)
        arms = {
            name: record_arm(
                session,
                experiment_id=experiment_id,
                name=name,
                position=position,
                options=chosen,
                baseline=name == "grey",
                rebalancing=0.5 if name == "rebalanced" else None,
            )
            for position, (name, chosen) in enumerate(options.items())
        }
        every: list[tuple[str, TrialStatus, float | None, str | None, list[float]]]
        every = [("grey", "finished", None, None, []), *trials]
        for place, (arm, status, learning_rate, optimizer, losses) in enumerate(every):
            number = 1 + sum(earlier[0] == arm for earlier in every[:place])
            searched = {"learning_rate": learning_rate, "optimizer": optimizer}
            trial_id = record_trial(
                session,
                experiment_id=experiment_id,
                arm_id=arms[arm],
                number=number,
                hyperparameters={} if arm == "grey" else searched,
                seed=number,
                status=status,
                failure_reason=FAILURE if status == "failed" else None,
            )
            of_epochs: list[tuple[int, float | None]] = [(0, None)] if arm == "grey" else [*enumerate(losses, start=1)]
            for epoch, loss in of_epochs:
                record_report(
                    session,
                    trial_id,
                    run_id=run_id,
                    epoch=epoch,
                    images_seen=100 * epoch,
                    seconds=6.0 * epoch,
                    device="cpu",
                    loss=loss,
                    scores={"train": {"bin_accuracy": 0.2}, "validation": {"bin_accuracy": 0.1 * epoch}},
                    standard_errors={},
                    class_bin_accuracy={},
                )
    return experiment_id


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = open_database(":memory:")
    yield engine
    engine.dispose()


def shown(engine: Engine, *, score: str = "loss") -> dict[str, Any]:
    """The view's exhibits by name, its sentence as "cost"."""
    with read_session(engine) as session:
        found = sweep_view.exhibits(session, find_experiment(session, "hand-made"), score=score)
    return {"cost" if isinstance(exhibit, str) else exhibit.name: exhibit for exhibit in found}


def test_trials_with_their_last_measurement(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with read_session(engine) as session:
        trials = [trial for arm in load_models(session, experiment_id) for trial in arm.trials]
        best = best_trials(session, experiment_id)
    assert [(trial.arm.name, trial.number, trial.status) for trial in trials] == [
        (arm, number % 3 + 1, status) for number, (arm, status, *_) in enumerate(TRIALS)
    ]
    assert [trial.loss for trial in trials] == [losses[-1] for *_, losses in TRIALS]
    assert [trial.images_seen for trial in trials] == [100 * len(losses) for *_, losses in TRIALS]
    assert best[0] is trials[2]


def test_learning_curves_are_what_was_recorded(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with read_session(engine) as session:
        trials = [trial for arm in load_models(session, experiment_id) for trial in arm.trials]
        losses = learning_curves(session, experiment_id, "loss")
        accuracies = learning_curves(session, experiment_id, "bin_accuracy")
        none = learning_curves(session, experiment_id, "psnr_db")
    expected = [
        (trial.id, epoch, loss)
        for trial, (*_, of_trial) in zip(trials, TRIALS, strict=True)
        for epoch, loss in enumerate(of_trial, start=1)
    ]
    assert losses == [(trial, epoch, "tuning", loss) for trial, epoch, loss in expected]
    assert accuracies == [
        (trial, epoch, split, value)
        for trial, epoch, _ in expected
        for split, value in (("validation", 0.1 * epoch), ("train", 0.2))
    ]
    assert none == []


def test_progress_counts_what_is_there(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with read_session(engine) as session:
        progress = sweep_progress(session, experiment_id)
    assert progress.trials == {"finished": 3, "stopped_early": 1, "failed": 1, "running": 1}
    assert (progress.ended, progress.images_seen) == (5, 1300)
    config = config_with("hand-made", CONFIG)
    share, words = sweep_view.describe_progress(recorded_config(config | {"replicates": 1}), progress)
    assert share == 5 / 10
    assert "5 of 10 trials have ended" in words
    assert "rebalanced after epoch 2 of 3" in words


def test_costs_and_failures_are_told(engine: Engine) -> None:
    add_sweep(engine)
    found = shown(engine)
    assert "All took 1,300 images and 1.3 minutes of training" in found["cost"]
    assert "1 of 6 trials failed" in found["cost"]
    trials = found["trials"].frame
    assert trials["failed as"].dropna().to_dict() == {4: FAILURE}
    assert len(trials) == 6


def test_figures_are_drawn_and_say_what_they_show(engine: Engine) -> None:
    add_sweep(engine)
    for score in SCORES:
        for exhibit in shown(engine, score=score).values():
            if isinstance(exhibit, Figure):
                assert "<svg" in svg(exhibit)
    found = shown(engine)
    assert "regression 140; rebalanced 2" in found["learning-curves"].alternative
    assert "may end a trial after epoch 1, 2" in found["learning-curves"].note
    tried = found["hyperparameters"].alternative
    assert "regression with learning rate 0.003, optimizer adamw; rebalanced with" in tried


def test_what_only_decodes_a_training_has_no_learning_curve_and_no_cost(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with write_session(engine) as session:
        rebalanced = (Arm.experiment_id == experiment_id, Arm.name == "rebalanced")
        session.execute(update(Arm).where(*rebalanced).values(options={"renders": "regression", "tilt": 0.5}))
    found = shown(engine, score="bin_accuracy")
    assert set(found["learning-curves"].data["model"]) == {"regression"}
    assert set(found["hyperparameters"].data["model"]) == {"regression", "rebalanced"}
    assert set(shown(engine)["hyperparameters"].data["model"]) == {"regression"}  # of losses
    assert "All took 700 images" in found["cost"]


def test_what_was_tried_stands_beside_its_models_lowest_or_its_score(engine: Engine) -> None:
    """Losses of different models are not on one scale; a lower one than the best trial's is not below zero."""
    add_sweep(engine)
    above = {"regression": [0.5, 0, 0.4], "rebalanced": [0, 1.0, 0.3]}
    for score, expected in (
        ("loss", above),
        ("bin_accuracy", {"regression": [0.3, 0.1, 0.3], "rebalanced": [0.3, 0.1, 0.2]}),
    ):
        data = shown(engine, score=score)["hyperparameters"].data
        for model, values in expected.items():
            assert (data.loc[data["model"] == model].iloc[:, -1] / 100).tolist() == pytest.approx(values)
        assert "λ" not in data  # one value of it is nothing to be plotted against


def test_scores_stand_over_lambda_where_arms_differ_in_it_and_losses_do_not(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with write_session(engine) as session:
        session.execute(
            update(Arm).where(Arm.experiment_id == experiment_id, Arm.name == "regression").values(rebalancing=1.0)
        )
    scored, loss = (shown(engine, score=score)["hyperparameters"] for score in ("bin_accuracy", "loss"))
    assert scored.data.groupby("model")["λ"].unique().to_dict() == {"rebalanced": [0.5], "regression": [1.0]}
    assert len(scored.chart.concat) == len(loss.chart.concat) + 1
    assert "λ" not in loss.data


def test_losses_have_a_scale_for_each_model_and_scores_one_for_all(engine: Engine) -> None:
    """That of losses is logarithmic, as one trial's may explode."""
    add_sweep(engine)

    def domains(score: str) -> list[object]:
        panels = shown(engine, score=score)["learning-curves"].chart.to_dict()["concat"]
        scales = [panel["layer"][0]["encoding"]["y"]["scale"] for panel in panels]
        return [scale.get("domain", scale.get("type")) for scale in scales]

    assert domains("loss") == ["log", "log"]
    first, second = domains("bin_accuracy")
    assert first == second is not None


@pytest.mark.parametrize(
    ("trials", "sentence"),
    [([], "No trial has been made yet"), ([("regression", "pending", 0.01, "adamw", [])], "No learning curves yet")],
)
def test_a_sweep_that_has_hardly_begun(
    engine: Engine, trials: list[tuple[str, TrialStatus, float, str, list[float]]], sentence: str
) -> None:
    add_sweep(engine, trials)
    with read_session(engine) as session:
        found = sweep_view.exhibits(session, find_experiment(session, "hand-made"))
    assert any(isinstance(exhibit, str) and sentence in exhibit for exhibit in found)


def test_big_tables_are_never_scanned(engine: Engine) -> None:
    experiment_id = add_sweep(engine)
    with query_plans(engine) as plans, read_session(engine) as session:
        load_arms(session, experiment_id)
        learning_curves(session, experiment_id, "loss")
        sweep_progress(session, experiment_id)
    assert len(plans) == 7
    assert not scans(plans)


def sweep_page() -> None:
    from db.store import read_session
    from db.sweeps.trials import find_experiment
    from survey_app.dashboard.choice import Choice
    from survey_app.dashboard.sweep_view import show
    from survey_app.database import database

    with read_session(database()) as session:
        experiment = find_experiment(session, "hand-made")
    show(Choice(database(), experiment, None, simulated=False))


def test_the_page_follows_a_running_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "sweep.sqlite"
    monkeypatch.setenv("HUEJURY_DATABASE", str(database))
    st.cache_resource.clear()
    engine = open_database(database)
    experiment_id = add_sweep(engine)
    app = AppTest.from_function(sweep_page, default_timeout=30).run()
    assert not app.exception
    assert len(app.get("progress")) == 1
    with write_session(engine) as session:
        finish_experiment(session, experiment_id, "finished")
    app.run()
    assert not app.exception
    assert not app.get("progress")
    engine.dispose()
    st.cache_resource.clear()
