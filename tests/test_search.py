"""Which trials a sweep makes: the paired design, and how much ASHA is expected to spare."""

import itertools
from collections.abc import Mapping

import pytest

from platform.config import SweepConfig
from platform.search import expected_epochs, plan_trials, planned_trial, trials_per_arm

TRAINING = {
    "batch_size": 20,
    "width": 4,
    "depth": 1,
    "weight_decay": 0.01,
    "schedule": "one_cycle",
    "soft_label_sigma": 5,
    "bins": "reachable",
    "decoding": "mean",
    "precision": "float32",
}
SPACE = {"learning_rate": {"loguniform": [1e-3, 1e-1]}, "optimizer": ["adamw", "sgd"], "filter_size": [3, 5, 7]}


def sweep_config(search: Mapping[str, object], seed: int = 0) -> SweepConfig:
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
            },
            "training": TRAINING,
            "search": search,
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
            (trial.run.learning_rate, trial.run.optimizer, trial.run.filter_size, trial.run.seed)
            for trial in plan
            if trial.arm == arm
        ]
        for arm in config.arms
    }
    assert tried["regression"] == tried["plain"] == tried["half"]
    assert len(set(tried["plain"])) == len({seed for *_, seed in tried["plain"]}) == 5
    assert all(1e-3 <= rate <= 1e-1 for rate, *_ in tried["plain"])
    assert [trial.run.rebalancing for trial in plan[:3]] == [1.0, 1.0, 0.5]
    assert plan == plan_trials(config)
    other = plan_trials(sweep_config({"method": method, "trials_per_arm": 5, "space": SPACE}, seed=1))
    assert {trial.run.seed for trial in other}.isdisjoint({trial.run.seed for trial in plan})


def test_quasirandom_draws_lie_evenly() -> None:
    plan = plan_trials(sweep_config({"method": "quasirandom", "trials_per_arm": 8, "space": SPACE}))
    runs = [trial.run for trial in plan if trial.arm == "plain"]
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
        combinations = {(trial.run.optimizer, trial.run.filter_size) for trial in plan}
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
    for arm in config.arms:
        tried = [(t.run.learning_rate, t.run.optimizer, t.run.filter_size) for t in plan if t.arm == arm]
        assert tried == list(itertools.product(*space.values()))


def test_with_nothing_to_search_the_seed_alone_varies() -> None:
    space = {"learning_rate": [0.1], "optimizer": ["adamw"], "filter_size": [3]}
    plan = plan_trials(sweep_config({"method": "random", "trials_per_arm": 3, "space": space}))
    assert len({trial.run.seed for trial in plan}) == 3


def test_a_planned_trial_survives_ray_s_config() -> None:
    config = sweep_config({"method": "random", "trials_per_arm": 1, "space": SPACE})
    trial = planned_trial(config, "half", 1, {"learning_rate": 0.1, "optimizer": "sgd", "filter_size": 5})
    assert type(trial).from_dict(trial.as_dict()) == trial


def test_expected_epochs() -> None:
    assert expected_epochs(1, 9, 1, 3) == 9  # the first is always the best so far
    assert expected_epochs(20, 9, 9, 3) == 20 * 9  # no rung before the end
    # Two trials: the second goes on past the only rung if it is the better one, so half the time.
    assert expected_epochs(2, 9, 1, 9) == pytest.approx(9 + (9 + 1) / 2, abs=0.7)
    assert expected_epochs(16, 9, 1, 2) > expected_epochs(16, 9, 1, 4)
