"""Which trials a sweep makes, and which of them go on: the paired design, early stopping, Optuna's proposals."""

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import replace

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from ray.tune.schedulers.async_hyperband import _Bracket

from db.schema import TrialStatus
from platform.model.hyperparameters import Hyperparameters
from platform.running.config import SweepConfig
from platform.running.plan import (
    History,
    Limit,
    epoch_counts,
    hyperparameters_of,
    limit_trials,
    plan_lines,
    plan_replicates,
    plan_trials,
    propose,
    rungs,
    trial_seed,
    trials_in_all,
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


def test_four_quasirandom_trials_lie_evenly_and_try_every_combination_of_two_lists() -> None:
    space = {
        "learning_rate": {"loguniform": [1e-3, 1e-1]},
        "optimizer": ["adamw", "sgd"],
        "filter_size": [3, 5],
    }
    for seed in range(20):
        plan = plan_trials(sweep_config({"method": "quasirandom", "trials_per_arm": 4, "space": space}, seed=seed))
        assert sum(trial.hyperparameters.learning_rate < 1e-2 for trial in plan if trial.arm == "plain") == 2
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


STOPPING = {"grace_epochs": 1, "reduction_factor": 3}


def early(
    grace_epochs: int, reduction_factor: float, trials: int = 4, epochs: int = 9, replicates: int = 0
) -> SweepConfig:
    search = {"method": "random", "trials_per_arm": trials, "space": SPACE}
    stopping = {"grace_epochs": grace_epochs, "reduction_factor": reduction_factor}
    return sweep_config(search, early_stopping=stopping, epochs=epochs, replicates=replicates)


def train_all(config: SweepConfig, quality: dict[int, float], chance: random.Random) -> tuple[History, dict[int, int]]:
    """Let an arm's trials report in a random order, as far as each may go; the last epoch of each."""
    reported, at = History(), dict.fromkeys(quality, 0)
    while may := [number for number, limit in limit_trials(config, reported).items() if at[number] < limit.epoch]:
        number = chance.choice(may)
        at[number] += 1
        reported.add(number, at[number], quality[number])
    return reported, at


@pytest.mark.parametrize(("grace_epochs", "reduction_factor", "epochs"), [(1, 3, 9), (2, 2, 17), (1, 4, 20)])
def test_the_best_go_on_whoever_comes_first(grace_epochs: int, reduction_factor: float, epochs: int) -> None:
    """Against successive halving as its definition has it: sort at every rung, keep the first part."""
    config = early(grace_epochs, reduction_factor, trials=12, epochs=epochs)
    chance = random.Random(epochs)
    for _ in range(20):
        quality = {number: chance.random() for number in range(1, 13)}
        expected, left, rung = dict.fromkeys(quality, 0), sorted(quality, key=quality.__getitem__), float(grace_epochs)
        while left:
            until = min(math.ceil(rung), epochs)
            expected |= dict.fromkeys(left, until)
            left = left[: max(1, int(len(left) / reduction_factor))] if until < epochs else []
            rung *= reduction_factor
        reported, at = train_all(config, quality, chance)
        assert at == expected
        assert all(limit.is_final for limit in limit_trials(config, reported).values())
        counts = [sum(epoch >= one for epoch in at.values()) for one in range(1, epochs + 1)]
        assert counts == epoch_counts(config)


@pytest.mark.parametrize("epochs", [1, 2, 3, 9, 10, 27, 81])
@pytest.mark.parametrize("grace_epochs", [1, 2, 5])
@pytest.mark.parametrize("reduction_factor", [1.05, 1.5, 2, 2.5, 3, 4])
def test_rungs_are_where_rays_scheduler_has_them(epochs: int, grace_epochs: int, reduction_factor: float) -> None:
    if grace_epochs > epochs:
        return  # no such config
    bracket = _Bracket(grace_epochs, epochs, reduction_factor, 0)
    milestones = sorted({math.ceil(milestone) for milestone, _ in bracket._rungs})
    below = tuple(rung for rung in milestones if rung < epochs)
    assert rungs(early(grace_epochs, reduction_factor, epochs=epochs)) == below


def test_a_trial_waits_at_a_rung_for_the_others_but_not_for_those_that_failed() -> None:
    config, reported = early(1, 3), History()
    reported.add(2, 1, 0.4)
    assert limit_trials(config, reported) == dict.fromkeys(range(1, 5), Limit(1, is_final=False))
    reported.add(1, 1, 0.5)
    reported.add(4, 1, 0.1)
    reported.ended[3] = "failed"
    assert limit_trials(config, reported)[2] == Limit(1, is_final=True)
    assert limit_trials(config, reported)[4] == Limit(3, is_final=False)
    reported.forget(1)  # its checkpoint was lost: it has to come again
    assert limit_trials(config, reported)[4] == Limit(1, is_final=False)


def test_if_all_fail_none_waits() -> None:
    config, reported = early(1, 3), History(ended=dict.fromkeys(range(1, 5), "failed"))
    assert all(limit.is_final for limit in limit_trials(config, reported).values())


def test_how_many_trials_train_an_epoch() -> None:
    assert epoch_counts(early(1, 3, trials=1)) == [1] * 9
    assert epoch_counts(early(9, 3)) == [4] * 9  # no rung before the end
    assert epoch_counts(sweep_config({"method": "random", "trials_per_arm": 2, "space": SPACE})) == [2] * 9
    assert epoch_counts(early(1, 3)) == [4] + [1] * 8
    assert epoch_counts(early(2, 2, trials=8)) == [8, 8, 4, 4, 2, 2, 2, 2, 1]


def test_a_plan_names_what_is_trained_and_what_is_rendered() -> None:
    config = sweep_config({"method": "random", "trials_per_arm": 2, "space": SPACE}, early_stopping=STOPPING)
    plan = "\n".join(plan_lines(config))
    assert "4 arms: regression, plain, half, tilted" in plan
    assert "without a training of their own: tilted of plain" in plan
    assert "2 trials per arm (random search), 6 trials in all, of 9 epochs each" in plan
    assert f"to be trained: {3 * (2 + 8)} times all training images, with early stopping within each arm" in plan


def test_replicates_repeat_what_was_best_in_the_search_with_the_same_seeds_in_every_arm() -> None:
    search = {"method": "random", "trials_per_arm": 3, "space": SPACE}
    config = sweep_config(search, replicates=2)
    reported = {arm: History() for arm in ("regression", "plain", "half")}
    for trial in plan_trials(config):
        assert plan_replicates(config, reported) == []
        one = reported[trial.arm]
        one.begun[trial.number] = trial.hyperparameters
        one.ended[trial.number] = "failed" if trial.arm == "half" else "finished"
        if trial.arm != "half":
            one.add(trial.number, 9, {"regression": 1.0, "plain": -1.0}[trial.arm] * trial.number)
    plan = plan_replicates(config, reported)
    assert [(trial.arm, trial.number) for trial in plan] == [
        (arm, number) for number in (4, 5) for arm in ("regression", "plain")
    ]
    for trial in plan:
        chosen = {"regression": 1, "plain": 3}[trial.arm]
        assert replace(trial.hyperparameters, seed=0) == replace(reported[trial.arm].begun[chosen], seed=0)
        assert trial.hyperparameters.seed == trial_seed(config, trial.number)
    for trial in plan:  # better than all before: nothing follows from that
        reported[trial.arm].begun[trial.number] = trial.hyperparameters
        reported[trial.arm].ended[trial.number] = "finished"
        reported[trial.arm].add(trial.number, 9, -100.0)
    assert plan_replicates(config, reported) == plan


def test_replicates_are_never_stopped_and_are_counted() -> None:
    plain, more = (early(1, 3, trials=4, replicates=replicates) for replicates in (0, 2))
    assert [limit_trials(more, History())[number] for number in (5, 6)] == [Limit(9, is_final=True)] * 2
    assert trials_in_all(more) == trials_in_all(plain) + 3 * 2
    assert epoch_counts(more) == [count + 2 for count in epoch_counts(plain)]


OPTUNA = {"method": "optuna", "trials_per_arm": 30, "space": SPACE}


def test_optuna_s_first_proposals_are_those_of_every_arm() -> None:
    config, other = sweep_config(OPTUNA), History()
    other.add(1, 1, 0.5)
    other.begun[1] = hyperparameters_of(config, 1, propose(config, History(), 1))
    other.ended[1] = "finished"
    proposed = [propose(config, History(), number) for number in range(1, 6)]
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
    begun: dict[int, Hyperparameters] = {}
    ended: dict[int, TrialStatus] = {}
    for number in range(1, 31):
        study.sampler = optuna.samplers.TPESampler(seed=trial_seed(config, number))
        trial = study.ask({name: distributions[name] for name in config.search.values()})
        anew = History(begun=dict(reversed(begun.items())), ended=ended)
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
        begun[number] = hyperparameters_of(config, number, drawn)
        ended[number] = "failed" if last == 0 else "stopped_early" if last == 1 else "finished"
