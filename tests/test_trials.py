"""Which trials a sweep makes, and which of them go on: the paired design, early stopping, Optuna's proposals."""

import itertools
import random
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from platform.config import SweepConfig
from platform.trials import (
    Reported,
    epoch_shares,
    hyperparameters_of,
    plan_lines,
    plan_trials,
    propose,
    stops_early,
    trial_seed,
    trials_per_arm,
)

TRAINING = {"batch_size": 20, "width": 4, "depth": 1, "precision": "float32"}
SPACE = {"learning_rate": {"loguniform": [1e-3, 1e-1]}, "optimizer": ["adamw", "sgd"], "filter_size": [3, 5, 7]}


def sweep_config(search: Mapping[str, object], seed: int = 0, **more: object) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "experiment": "x",
            "dataset": "photos",
            "epochs": 9,
            "seed": seed,
            "arms": {
                "regression": {"kind": "regression"},
                "plain": {"kind": "classification"},
                "half": {"kind": "classification", "rebalancing": 0.5},
                "tilted": {"renders": "plain", "tilt": 0.5},
            },
            "training": TRAINING,
            "search": search,
            **more,
        }
    )


@pytest.mark.parametrize("method", ["random", "quasirandom"])
def test_every_arm_tries_the_same_draws_with_the_same_seeds_in_turn(method: str) -> None:
    config = sweep_config({"method": method, "trials_per_arm": 5, "space": SPACE})
    plan = plan_trials(config)
    assert [(trial.arm, trial.number) for trial in plan] == [
        (arm, number) for number in range(1, 6) for arm in ("regression", "plain", "half")
    ]
    tried = {
        arm: [
            (
                trial.hyperparameters.learning_rate,
                trial.hyperparameters.optimizer,
                trial.hyperparameters.filter_size,
                trial.hyperparameters.seed,
            )
            for trial in plan
            if trial.arm == arm
        ]
        for arm in ("regression", "plain", "half")
    }
    assert tried["regression"] == tried["plain"] == tried["half"]
    assert len(set(tried["plain"])) == len({seed for *_, seed in tried["plain"]}) == 5
    assert all(1e-3 <= rate <= 1e-1 for rate, *_ in tried["plain"])
    assert plan == plan_trials(config)
    other = plan_trials(sweep_config({"method": method, "trials_per_arm": 5, "space": SPACE}, seed=1))
    assert {trial.hyperparameters.seed for trial in other}.isdisjoint({trial.hyperparameters.seed for trial in plan})


def test_quasirandom_draws_lie_evenly() -> None:
    plan = plan_trials(sweep_config({"method": "quasirandom", "trials_per_arm": 8, "space": SPACE}))
    runs = [trial.hyperparameters for trial in plan if trial.arm == "plain"]
    assert sum(run.learning_rate < 1e-2 for run in runs) == 4
    assert len({(run.optimizer, run.filter_size) for run in runs}) == 6  # every combination of the two lists


def test_four_quasirandom_trials_try_every_combination_of_two_lists() -> None:
    space = {
        "learning_rate": {"loguniform": [1e-3, 1e-1]},
        "optimizer": ["adamw", "sgd"],
        "filter_size": [3, 5],
    }
    for seed in range(20):
        plan = plan_trials(sweep_config({"method": "quasirandom", "trials_per_arm": 4, "space": space}, seed=seed))
        combinations = {(trial.hyperparameters.optimizer, trial.hyperparameters.filter_size) for trial in plan}
        assert combinations == set(itertools.product(["adamw", "sgd"], [3, 5]))


def test_a_grid_is_the_whole_product() -> None:
    space: dict[str, list[float | str]] = {
        "learning_rate": [0.1, 0.01],
        "optimizer": ["adamw", "sgd"],
        "filter_size": [3, 5, 7],
    }
    config = sweep_config({"method": "grid", "space": space})
    plan = plan_trials(config)
    assert trials_per_arm(config) == 12
    for arm in ("regression", "plain", "half"):
        tried = [
            (t.hyperparameters.learning_rate, t.hyperparameters.optimizer, t.hyperparameters.filter_size)
            for t in plan
            if t.arm == arm
        ]
        assert set(tried) == set(itertools.product(*space.values()))
        assert len(tried) == 12


def test_with_nothing_to_search_the_seed_alone_varies() -> None:
    space = {"learning_rate": [0.1], "optimizer": ["adamw"], "filter_size": [3]}
    plan = plan_trials(sweep_config({"method": "random", "trials_per_arm": 3, "space": space}))
    assert len({trial.hyperparameters.seed for trial in plan}) == 3


STOPPING = {"grace_epochs": 1, "reduction_factor": 3}


def early(grace_epochs: int, reduction_factor: float, trials: int = 4, epochs: int = 9) -> SweepConfig:
    search = {"method": "random", "trials_per_arm": trials, "space": SPACE}
    stopping = {"grace_epochs": grace_epochs, "reduction_factor": reduction_factor}
    return sweep_config(search, early_stopping=stopping, epochs=epochs)


@pytest.mark.parametrize(
    ("grace_epochs", "reduction_factor", "epochs"), [(1, 3, 9), (2, 2, 17), (1, 4, 20), (3, 2.5, 9)]
)
def test_early_stopping_is_ray_s(grace_epochs: int, reduction_factor: float, epochs: int) -> None:
    """The same reports in the same order: decision by decision as Ray's scheduler."""
    config = early(grace_epochs, reduction_factor, epochs=epochs)
    chance = random.Random(epochs)
    stopped = 0
    for _ in range(20):
        reference: Any = AsyncHyperBandScheduler(
            time_attr="epoch",
            metric="loss",
            mode="min",
            max_t=epochs,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
        )
        reported = Reported()
        quality = {number: chance.random() for number in range(1, 13)}
        at = dict.fromkeys(quality, 0)
        for number in quality:
            reference.on_trial_add(None, SimpleNamespace(trial_id=str(number)))
        while at:
            number = chance.choice(list(at))
            at[number] += 1
            loss = quality[number] + chance.random() / at[number]
            reported.add(number, at[number], loss)
            ours = stops_early(config, reported, number, at[number])
            told = {"epoch": at[number], "loss": loss}
            theirs = reference.on_trial_result(None, SimpleNamespace(trial_id=str(number)), told)
            if at[number] >= epochs:
                del at[number]  # it ends by itself, which Ray's calls stopping and we do not
                continue
            assert ours == (theirs == TrialScheduler.STOP), (number, at[number])
            if ours:
                stopped += 1
                del at[number]
    assert stopped > 20


def test_the_same_report_again_gives_the_same_decision() -> None:
    config, reported = early(1, 3), Reported()
    losses = {1: 0.5, 2: 0.4, 3: 0.9, 4: 0.1}
    decided = {}
    for number, loss in losses.items():
        reported.add(number, 1, loss)
        decided[number] = stops_early(config, reported, number, 1)
    assert decided == {1: False, 2: False, 3: True, 4: False}
    for number, loss in losses.items():
        reported.add(number, 1, loss)
        assert stops_early(config, reported, number, 1) == decided[number]
    reported.forget(4)
    assert reported.losses == {1: {1: 0.5, 2: 0.4, 3: 0.9}}


def test_how_many_trials_train_an_epoch() -> None:
    assert epoch_shares(early(1, 3, trials=1)) == [1.0] * 9  # the first is always the best so far
    assert epoch_shares(early(9, 3)) == [1.0] * 9  # no rung before the end
    assert epoch_shares(sweep_config({"method": "random", "trials_per_arm": 2, "space": SPACE})) == [1.0] * 9
    # Two trials: the second goes on past the only rung if it is the better one, so half the time.
    assert epoch_shares(early(1, 9, trials=2)) == [1.0] + [pytest.approx(0.75, abs=0.05)] * 8
    assert sum(epoch_shares(early(1, 2, trials=16))) > sum(epoch_shares(early(1, 4, trials=16)))


def test_a_plan_names_what_is_trained_and_what_is_rendered() -> None:
    config = sweep_config({"method": "random", "trials_per_arm": 2, "space": SPACE}, early_stopping=STOPPING)
    plan = "\n".join(plan_lines(config))
    assert "4 arms: regression, plain, half, tilted" in plan
    assert "without a training of their own: tilted of plain" in plan
    assert "2 trials per arm (random search), 6 trials in all, of 9 epochs each" in plan
    assert "at most 54 times all training images" in plan


OPTUNA = {"method": "optuna", "trials_per_arm": 30, "space": SPACE}


def test_optuna_s_first_proposals_are_those_of_every_arm() -> None:
    config, other = sweep_config(OPTUNA), Reported()
    other.add(1, 1, 0.5)
    other.ended[1] = ("finished", hyperparameters_of(config, 1, propose(config, Reported(), 1)))
    proposed = [propose(config, Reported(), number) for number in range(1, 6)]
    assert [propose(config, other, number) for number in range(1, 6)] == proposed
    assert len({tuple(drawn.values()) for drawn in proposed}) == 5
    for drawn in proposed:
        assert drawn.keys() == SPACE.keys()
        assert 1e-3 <= drawn["learning_rate"] <= 1e-1
        assert drawn["optimizer"] in ("adamw", "sgd")


def test_optuna_proposes_from_reports_alone_what_a_study_of_its_own_would() -> None:
    """A process that has nothing but the reports goes on as one study that was asked and told all along."""
    config = sweep_config(OPTUNA)
    distributions: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(1e-3, 1e-1, log=True),
        "optimizer": CategoricalDistribution(["adamw", "sgd"]),
        "filter_size": CategoricalDistribution([3, 5, 7]),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    reports: list[tuple[int, int, float]] = []
    ended: dict[int, Any] = {}
    for number in range(1, 31):
        study.sampler = optuna.samplers.TPESampler(seed=trial_seed(config, number))
        trial = study.ask({name: distributions[name] for name in config.search.values()})
        anew = Reported(ended=dict(reversed(ended.items())))
        for report in sorted(reports, key=lambda one: (one[1], one[0])):
            anew.add(*report)
        drawn = propose(config, anew, number)
        assert drawn == trial.params, number
        last = {0: 1, 1: 0}.get(number % 3, config.epochs)
        for epoch in range(1, last + 1):
            loss = abs(drawn["learning_rate"] - 0.01) + (drawn["optimizer"] == "sgd") + 1 / epoch
            trial.report(loss, epoch)
            reports.append((number, epoch, loss))
        state = {0: TrialState.FAIL, 1: TrialState.PRUNED}.get(last, TrialState.COMPLETE)
        study.tell(trial, loss if state == TrialState.COMPLETE else None, state=state)
        status = {0: "failed", 1: "stopped_early"}.get(last, "finished")
        ended[number] = (status, hyperparameters_of(config, number, drawn))
