"""What a sweep costs here, and how much of it fits into minutes."""

import pytest

from platform.arms.compose import compose
from platform.arms.options import trained_arms
from platform.color.counts import count_colours
from platform.data.datasets import Dataset, load_dataset
from platform.running import budget
from platform.running.budget import (
    BudgetError,
    Costs,
    fit_to_seconds,
    kinds_to_measure,
    measure_costs,
    part_to_measure,
    slots,
    sweep_seconds,
)
from platform.running.config import EPOCHS_OF_MINUTES, SweepConfig
from tests.contracts import drawn_colours, drawn_data
from tests.running.test_trials import SPACE, STOPPING, sweep_config

ARMS = ("regression", "plain", "half")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(["photos"], validation_images=40, say=lambda line: None)


def config_of(minutes: float | None = None, trials: int = 2, **more: object) -> SweepConfig:
    search = {"method": "random", "trials_per_arm": trials, "space": SPACE}
    return sweep_config(search, minutes=minutes, epochs=EPOCHS_OF_MINUTES, **more)  # type: ignore[arg-type]


def costs_of(train: float, score: float = 0.0) -> Costs:
    return Costs(dict.fromkeys(ARMS, train), dict.fromkeys(ARMS, score))


def test_every_kind_of_training_and_every_arm_is_measured(data: Dataset) -> None:
    config = config_of()
    kinds = kinds_to_measure(config)
    assert sorted((kind.filter_size, kind.optimizer) for kind in kinds) == [
        (size, optimizer) for size in (3, 5, 7) for optimizer in ("adamw", "sgd")
    ]
    colours = count_colours(data.train_images, data.train_labels, len(data.class_names))
    tasks = {name: compose(config.arms, name, colours) for name in trained_arms(config.arms)}
    part = part_to_measure(data, kinds)
    assert len(part.train_images) == len(part.validation_images) == 40
    costs = measure_costs(tasks, kinds, part, 0.05, 1)
    assert costs.train.keys() == costs.score.keys() == set(ARMS)
    assert all(value > 0 for of in (costs.train, costs.score) for value in of.values())


def test_an_image_costs_the_mean_of_all_kinds_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    kinds = kinds_to_measure(config)
    monkeypatch.setattr(budget, "_train_seconds", lambda task, kind, data, seconds: task.outputs * kind.filter_size)
    monkeypatch.setattr(budget, "_score_seconds", lambda task, kind, data: 0.1)
    tasks = {name: compose(config.arms, name, drawn_colours()) for name in trained_arms(config.arms)}
    costs = measure_costs(tasks, kinds, drawn_data(), 0.05, 1)
    assert costs.train["regression"] == pytest.approx(2 * (3 + 5 + 7) / 3)
    assert costs.train["plain"] == pytest.approx(tasks["plain"].outputs * (3 + 5 + 7) / 3)
    epoch = costs.epoch_seconds(images=100, validation_images=20)
    assert epoch["regression"] == pytest.approx(100 * costs.train["regression"] + 20 * 0.1)


ONE_EPOCH = Costs({"regression": 0.1, "plain": 0.2, "half": 0.2}, dict.fromkeys(ARMS, 0.0))  # per image


@pytest.mark.parametrize(
    ("config", "at_once", "expected"),
    [
        (config_of(), 1, 2 * 2 * (1 + 2 + 2)),
        (config_of(), 2, 3 * 2 * 5 / 3),  # rounds, epochs, the mean of an epoch
        (config_of(), 4, 2 * 2 * 5 / 3),  # the second round is one, though not full
        (config_of(), 100, 1 * 2 * 5 / 3),
        (config_of(trials=4, early_stopping=STOPPING), 1, (4 + 1) * (1 + 2 + 2)),
        (config_of(trials=4, early_stopping=STOPPING, replicates=2), 1, (4 + 1 + 2 * 2) * (1 + 2 + 2)),
    ],
)
def test_a_sweep_takes_the_time_of_the_epochs_that_are_left(config: SweepConfig, at_once: int, expected: float) -> None:
    assert sweep_seconds(config, ONE_EPOCH, 10, 40, at_once) == pytest.approx(expected)


@pytest.mark.parametrize("stopping", [None, {"grace_epochs": 1, "reduction_factor": 2}])
@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_what_fits_takes_nearly_all_of_the_time(data: Dataset, stopping: object, at_once: int) -> None:
    config = config_of(10, early_stopping=stopping)
    costs = costs_of(train=0.0025 * at_once, score=0.01)
    fitted = fit_to_seconds(config, costs, data, at_once, 60.0)
    assert fitted.train_images is not None
    assert fitted.epochs == EPOCHS_OF_MINUTES
    taken = sweep_seconds(fitted, costs, fitted.train_images, 40, at_once)
    assert 0.97 * 60 < taken <= 60
    assert fitted.minutes == 10  # stays, as what was asked for


def test_where_all_images_leave_time_they_are_seen_more_often(data: Dataset) -> None:
    config = config_of(10)
    costs = costs_of(train=0.0025)
    fitted = fit_to_seconds(config, costs, data, 2, 300.0)
    assert fitted.train_images is not None
    assert fitted.epochs > EPOCHS_OF_MINUTES
    assert 0.97 * 300 < sweep_seconds(fitted, costs, fitted.train_images, 40, 2) <= 300
    one_less = fitted.model_copy(update={"epochs": fitted.epochs - 1})
    assert sweep_seconds(one_less, costs, len(data.train_images), 40, 2) <= 300  # of all images


def test_an_epoch_more_that_only_pays_for_its_scoring_is_not_taken(data: Dataset) -> None:
    config = config_of(10)
    costs = costs_of(train=0.0005, score=0.05)
    all_images = len(data.train_images)
    seconds = sweep_seconds(config.model_copy(update={"epochs": 4}), costs, all_images, 40, 2)
    fitted = fit_to_seconds(config, costs, data, 2, seconds + 1)
    assert (fitted.epochs, fitted.train_images) == (4, None)


def test_too_few_minutes_are_said_with_what_is_missing(data: Dataset) -> None:
    config = config_of(1)
    with pytest.raises(BudgetError, match=r"1 minutes are too few for 6 trials here, of which 2 run at once: give \d"):
        fit_to_seconds(config, costs_of(train=0.05), data, 2, 45.0)


def test_how_many_trials_run_at_once_is_decided_by_cpus_and_gpus() -> None:
    there = {"CPU": 8.0, "GPU": 1.0}
    config = config_of(trials=20)

    def at_once(cpus: int, gpus: float, most: int | None = None) -> int:
        resources = config.resources.model_copy(update={"cpu": cpus, "max_concurrent": most})
        return slots(config.model_copy(update={"resources": resources}), there, gpus)

    asked = ((1, 0), (1, 0.25), (1, 0.5), (4, 0.25), (1, 1), (9, 0))
    assert [at_once(cpus, gpus) for cpus, gpus in asked] == [8, 4, 2, 2, 1, 1]
    assert at_once(1, 0, most=3) == 3
    assert slots(config_of(trials=1), there, 0) == len(ARMS)
