"""The time left: what it is made of."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from platform.running.config import SweepConfig
from platform.running.plan import History, PlannedTrial, plan_trials
from platform.running.progress import Progress
from tests.running.test_trials import SPACE, sweep_config


def plan(epochs: int = 4, trials: int = 2, **more: Any) -> tuple[SweepConfig, dict[str, History], Progress]:
    config = sweep_config({"method": "random", "trials_per_arm": trials, "space": SPACE}, epochs=epochs, **more)
    reported = {arm: History() for arm in ("regression", "plain", "half")}
    for trial in plan_trials(config):
        reported[trial.arm].begun[trial.number] = trial.hyperparameters
    return config, reported, Progress(Console(quiet=True), config, reported)


def train(progress: Progress, histories: dict[str, History], trial: PlannedTrial, epoch: int, seconds: float) -> None:
    histories[trial.arm].add(trial.number, epoch, 1.0)
    progress.count_epoch(trial, seconds)


COSTS = {"regression": 10.0, "plain": 20.0, "half": 20.0}  # as if they had been measured


def test_before_anything_was_measured_nothing_is_said() -> None:
    _, _, progress = plan()
    assert progress.seconds_left() is None


def test_measured_costs_tell_the_time_before_the_first_epoch() -> None:
    config, reported, _ = plan()
    printed = StringIO()
    progress = Progress(Console(file=printed), config, reported)
    progress.expect(COSTS, slots=1)
    assert progress.seconds_left() == pytest.approx(2 * 4 * (10 + 20 + 20))
    assert printed.getvalue() == "About 7 min left.\n"


def test_what_is_done_is_left_out_and_costs_become_those_that_were_seen() -> None:
    config, reported, progress = plan()
    progress.expect(COSTS, slots=1)
    first = plan_trials(config)[0]
    train(progress, reported, first, 1, seconds=15.0)  # half as much again as was measured: all the others will, too
    assert progress.seconds_left() == pytest.approx(1.5 * (2 * 4 * 50 - 10))
    second = plan_trials(config)[1]
    train(progress, reported, second, 1, seconds=20.0)  # but for this arm, now that it was seen
    seen = 15 / 10 * (8 - 1) * 10 + 20 / 20 * (8 - 1) * 20 + 35 / 30 * 8 * 20
    assert progress.seconds_left() == pytest.approx(seen)


def test_without_measured_costs_the_epochs_that_were_seen_tell_it() -> None:
    config, reported, progress = plan()
    train(progress, reported, plan_trials(config)[0], 1, seconds=3.0)
    assert progress.seconds_left() == pytest.approx(3.0 * (2 * 4 * 3 - 1))


def test_early_stopping_is_expected() -> None:
    config, reported, progress = plan(trials=4, early_stopping={"grace_epochs": 1, "reduction_factor": 4})
    progress.expect(COSTS, slots=1)
    assert progress.seconds_left() == pytest.approx((4 + 3) * 50)
    for trial in plan_trials(config):
        train(progress, reported, trial, 1, seconds=COSTS[trial.arm])
    assert progress.seconds_left() == pytest.approx(3 * 50)
