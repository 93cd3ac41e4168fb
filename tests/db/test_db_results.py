"""What the results say of a recorded sweep, on SQLite and on PostgreSQL."""

import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from db.schema import TrialStatus
from db.store import open_database, read_session, write_session
from db.sweeps.recording import record_arm
from db.sweeps.trials import UnknownExperimentError, best_trials, find_experiment, list_experiments, load_arms
from tests.db.query_plans import query_plans, scans
from tests.db.test_db_recording import (
    new_arm,
    new_dataset,
    new_experiment,
    new_trial,
    report,
    rolled_back,
)


@st.composite
def sweeps(draw: st.DrawFn) -> list[list[tuple[TrialStatus, list[float]]]]:
    """Arms of trials, each with its state and its losses on the tuning split, epoch by epoch."""
    losses = st.lists(st.integers(0, 3).map(float), max_size=3)  # few values, so that there are ties
    trial = st.tuples(st.sampled_from(get_args(TrialStatus)), losses)
    return draw(st.lists(st.lists(trial, max_size=6), min_size=1, max_size=4))


@settings(max_examples=25, deadline=None)
@given(sweeps())
def test_best_trial_of_each_arm(empty_engine: Engine, arms: list[list[tuple[TrialStatus, list[float]]]]) -> None:
    with rolled_back(empty_engine) as session:
        dataset_id = new_dataset(session)
        for name in ("elsewhere", "first"):  # the same trials in another experiment change nothing
            experiment_id = new_experiment(session, dataset_id, name=name)
            for position, trials in enumerate(arms):
                arm_id = new_arm(session, experiment_id, position)
                for number, (status, losses) in enumerate(trials):
                    trial_id = new_trial(session, experiment_id, arm_id, number + 1, status)
                    for epoch, loss in enumerate(losses, start=1):
                        report(session, trial_id, epoch, loss, bin_accuracy=epoch / 10)
        found = load_arms(session, experiment_id)

    assert [arm.name for arm in found] == [f"arm {position}" for position in range(len(arms))]
    for arm, trials in zip(found, arms, strict=True):
        assert [trial.status for trial in arm.trials] == [status for status, _ in trials]
        finished = [
            (losses[-1], number) for number, (status, losses) in enumerate(trials) if status == "finished" and losses
        ]
        if not finished:
            assert arm.best is None
            continue
        loss, number = min(finished)
        epochs = len(trials[number][1])
        assert arm.best is not None
        assert (arm.best.number, arm.best.loss) == (number + 1, loss)
        assert (arm.best.epochs_done, arm.best.images_seen) == (epochs, 90 * epochs)
        assert (arm.best.score("loss"), arm.best.score("bin_accuracy")) == (2 * loss, epochs / 10)
        assert (arm.best.score("loss", "train"), arm.best.score("psnr_db")) == (loss / 2, None)
        assert (arm.best.error("bin_accuracy"), arm.best.error("loss")) == (0.01, None)
        assert arm.best.arm is arm


def test_results_hold_baselines_and_arms_without_result(empty_engine: Engine) -> None:
    with rolled_back(empty_engine) as session:
        experiment_id = new_experiment(session, new_dataset(session))
        grey = record_arm(
            session, experiment_id=experiment_id, name="grey", position=2, options={"kind": "grey"}, baseline=True
        )
        trial_id = new_trial(session, experiment_id, grey, status="finished")
        report(session, trial_id, 0, bin_accuracy=0.1)
        new_arm(session, experiment_id, position=1)
        model, baseline = load_arms(session, experiment_id)
        assert best_trials(session, experiment_id) == []
    assert (model.name, model.choices.rebalancing, model.trials, model.best) == ("arm 1", 0.5, [], None)
    assert (baseline.name, baseline.baseline, baseline.rebalancing) == ("grey", True, None)
    assert baseline.best is not None
    assert (baseline.best.epochs_done, baseline.best.score("bin_accuracy")) == (0, 0.1)


def test_experiments_are_listed_newest_first_with_what_they_ran_on(empty_engine: Engine) -> None:
    with rolled_back(empty_engine) as session:
        assert list_experiments(session) == []
        with pytest.raises(UnknownExperimentError, match=r"The database holds no experiment yet"):
            find_experiment(session, "first")
        dataset_id = new_dataset(session)
        for name in ("older", "newer"):
            new_experiment(session, dataset_id, name)
        found = [(experiment.name, experiment.dataset.fingerprint) for experiment in list_experiments(session)]
        assert found == [("newer", "abc"), ("older", "abc")]
        assert (find_experiment(session).name, find_experiment(session, "older").name) == ("newer", "older")
        with pytest.raises(UnknownExperimentError, match=r"no experiment 'newr'; there is newer\."):
            find_experiment(session, "newr")


def test_results_take_few_statements_whatever_their_number_and_use_indexes() -> None:
    engine = open_database(":memory:")
    numbers = random.Random(0)
    counts = []
    for positions in (range(1), range(5)):
        with write_session(engine) as session:
            experiment_id = new_experiment(session, new_dataset(session))
            for position in positions:
                arm_id = new_arm(session, experiment_id, position)
                for number in range(1, 5):
                    trial_id = new_trial(session, experiment_id, arm_id, number, "finished")
                    report(session, trial_id, 1, numbers.random())
        with query_plans(engine) as plans, read_session(engine) as session:
            found = find_experiment(session, "first")
            assert all(arm.best for arm in load_arms(session, found.id))
        counts.append(len(plans))
        assert not scans(plans)
    assert counts[0] == counts[1] <= 4
    engine.dispose()
