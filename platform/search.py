"""Which trials a sweep makes. Every arm tries the same hyperparameters with the same seeds: a paired design."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from db.sweeps import asha_rungs
from platform.config import Range, SweepConfig
from platform.training import Run

# Keys of a trial's reports.
LOSS = "validation_loss"  # what is tuned by: lower is better
EPOCH = "epoch"
EARLIER_REPORTS = "earlier_reports"  # of a trial that goes on from a checkpoint, in its first report
FAILURE = "failure"  # a report with this key has no measurements: the trial gave up, and this is why

SIMULATIONS = 200


@dataclass(frozen=True)
class PlannedTrial:
    arm: str
    number: int  # from 1, within the arm; the same number is the same draw and the same seed in every arm
    run: Run

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "PlannedTrial":
        return PlannedTrial(values["arm"], values["number"], Run(**values["run"]))


def trials_per_arm(config: SweepConfig) -> int:
    if config.search.trials_per_arm is not None:
        return config.search.trials_per_arm
    return math.prod(len(values) for values in config.search.values().values() if isinstance(values, list))


def plan_trials(config: SweepConfig) -> list[PlannedTrial]:
    """The trials of a random, quasirandom or grid search: each number in every arm before the next number."""
    return [
        planned_trial(config, arm, number, hyperparameters)
        for number, hyperparameters in enumerate(_draws(config), start=1)
        for arm in config.arms
    ]


def planned_trial(config: SweepConfig, arm: str, number: int, hyperparameters: dict[str, Any]) -> PlannedTrial:
    """The arm's trial of that number (from 1), with these values of what is searched."""
    seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])
    kind, rebalancing = config.arms[arm].kind, config.arms[arm].rebalancing
    run = Run(
        kind=kind,
        rebalancing=1.0 if rebalancing is None else rebalancing,
        epochs=config.epochs,
        seed=seed,
        **config.fixed(),
        **hyperparameters,
    )
    return PlannedTrial(arm, number, run)


def expected_epochs(trials: int, epochs: int, grace_epochs: int, reduction_factor: float) -> float:
    """The epochs that `trials` trials of one arm train in all, in the mean, when ASHA stops among them.

    Simulated: the trials come one after another and their losses keep the same order throughout; a trial that
    reaches a rung goes on if it is among the best 1/reduction_factor of those that were there (Li et al. 2020).
    """
    rungs = asha_rungs(epochs, grace_epochs, reduction_factor)
    generator = np.random.default_rng(0)
    total = 0
    for _ in range(SIMULATIONS):
        seen: dict[int, list[float]] = {rung: [] for rung in rungs}
        for loss in generator.random(trials):
            trained = epochs
            for rung in rungs:
                stop = bool(seen[rung]) and loss > np.percentile(seen[rung], 100 / reduction_factor)
                seen[rung].append(loss)
                if stop:
                    trained = rung
                    break
            total += trained
    return total / SIMULATIONS


def plan_lines(config: SweepConfig) -> Iterator[str]:
    """Say what a sweep of this config would train."""
    each = trials_per_arm(config)
    trials = len(config.arms) * each
    yield f"Experiment {config.experiment!r} on {' or else '.join(config.dataset)}, seed {config.seed}:"
    yield f"  {len(config.arms)} arms: {', '.join(config.arms)}"
    yield f"  {each} trials an arm ({config.search.method} search), {trials} trials in all, {config.epochs} epochs each"
    for name, values in config.search.values().items():
        yield f"  {name}: {values if isinstance(values, list) else f'{values.low:g} to {values.high:g}'}"
    if config.search.method != "optuna":
        yield "  every arm tries:"
        for planned in plan_trials(config)[:: len(config.arms)]:
            tried = ", ".join(f"{name} {getattr(planned.run, name)}" for name in config.search.values())
            yield f"    #{planned.number}: {tried or 'the same again'}, seed {planned.run.seed}"

    def images(epochs: float) -> str:
        if config.train_images is None:
            return f"{epochs:,.0f} times all training images"
        return f"{epochs * config.train_images:,.0f} images"

    yield f"  to be trained: at most {images(trials * config.epochs)}"
    if config.early_stopping:
        stopping = config.early_stopping
        epochs = expected_epochs(each, config.epochs, stopping.grace_epochs, stopping.reduction_factor)
        yield f"  with early stopping within each arm: about {images(len(config.arms) * epochs)}"


def _draws(config: SweepConfig) -> list[dict[str, Any]]:
    searched = config.search.values()
    count = trials_per_arm(config)
    if config.search.method == "grid":
        return [dict(zip(searched, values, strict=True)) for values in itertools.product(*searched.values())]
    generator = np.random.default_rng(config.seed)
    ranges = {name: values for name, values in searched.items() if isinstance(values, Range)}
    lists = {name: values for name, values in searched.items() if not isinstance(values, Range)}
    # All lists together are one dimension, so that four trials try each of 2 x 2 combinations once: in dimensions of
    # their own the first few points of Sobol's sequence would try two of the combinations twice and two never.
    combinations = list(itertools.product(*lists.values()))
    if config.search.method == "quasirandom":
        from scipy.stats import qmc  # takes a second to import, which `--help` need not wait for

        # Sobol's points lie evenly in every dimension from the first few on (Joe & Kuo 2008, scrambled after Owen).
        points = qmc.Sobol(1 + len(ranges), rng=generator).random(2 ** math.ceil(math.log2(count)))[:count]
    else:
        points = generator.random((count, 1 + len(ranges)))
    return [
        dict(zip(lists, combinations[int(point[0] * len(combinations))], strict=True))
        | {name: values.at(float(share)) for (name, values), share in zip(ranges.items(), point[1:], strict=True)}
        for point in points
    ]
