"""Which trials a sweep makes, which of them go on, and what Optuna tries next: functions of a config and of what trials
have reported, and of nothing else. Every arm tries the same hyperparameters with the same seeds: a paired design."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from db.schema import TrialStatus
from platform.arms.options import trained_arms
from platform.model.hyperparameters import Hyperparameters
from platform.running.config import Range, SweepConfig


@dataclass(frozen=True)
class PlannedTrial:
    """One training. Arms that render its arm have a trial of the same number without one of their own."""

    arm: str
    number: int  # from 1, within the arm; the same number is the same draw and the same seed in every arm
    hyperparameters: Hyperparameters
    checkpoint: str | None = None  # folder or URL that it goes on from
    epochs_done: int = 0  # at that checkpoint

    @property
    def name(self) -> str:
        return f"{self.arm} #{self.number}"


def trials_per_arm(config: SweepConfig) -> int:
    if config.search.trials_per_arm is not None:
        return config.search.trials_per_arm
    return math.prod(len(values) for values in config.search.values().values() if isinstance(values, list))


def trials_in_all(config: SweepConfig) -> int:
    """Those of the search, and the replicates."""
    return len(trained_arms(config.arms)) * (trials_per_arm(config) + config.replicates)


def rows_in_all(config: SweepConfig) -> int:
    """The rows that these trials have in the database: arms that render others have some of their own."""
    return len(config.arms) * (trials_per_arm(config) + config.replicates)


def is_replicate(config: SweepConfig, number: int) -> bool:
    return number > trials_per_arm(config)


def plan_trials(config: SweepConfig) -> list[PlannedTrial]:
    """The trials of a random, quasirandom or grid search: each number in every arm before the next number."""
    return [
        PlannedTrial(arm, number, hyperparameters_of(config, number, drawn))
        for number, drawn in enumerate(_draws(config), start=1)
        for arm in trained_arms(config.arms)
    ]


def hyperparameters_of(config: SweepConfig, number: int, drawn: Mapping[str, Any]) -> Hyperparameters:
    """Those of the trials of that number (from 1), with these values of what is searched."""
    return Hyperparameters(**config.fixed(), **drawn, epochs=config.epochs, seed=trial_seed(config, number))


def trial_seed(config: SweepConfig, number: int) -> int:
    return int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0])


# What trials have reported, and what follows from it


@dataclass
class History:
    """What the trials of one arm have reported: all that early stopping and Optuna look at.

    Trials of different arms are never compared: a loss weighted by one λ says nothing about one weighted by another.
    """

    losses: dict[int, dict[int, float]] = field(default_factory=dict)  # by epoch and number
    begun: dict[int, Hyperparameters] = field(default_factory=dict)  # by number, those that have ended too
    ended: dict[int, TrialStatus] = field(default_factory=dict)  # by number

    def add(self, number: int, epoch: int, loss: float) -> None:
        """The same report twice is one."""
        self.losses.setdefault(epoch, {}).setdefault(number, loss)

    def forget(self, number: int) -> None:
        for losses in self.losses.values():
            losses.pop(number, None)


def plan_replicates(config: SweepConfig, histories: Mapping[str, History]) -> list[PlannedTrial]:
    """Each arm's best hyperparameters again, with further seeds that are the same for every arm: arms are compared seed
    by seed. The trial that was best is none of them, as it was chosen for its luck, too.

    histories: by trained arm. Empty as long as a trial of the search has not ended; an arm of which none has finished
    has no replicates.
    """
    searched = range(1, trials_per_arm(config) + 1)
    if any(number not in one.ended for one in histories.values() for number in searched):
        return []
    best = {arm: _best_of_search(config, one) for arm, one in histories.items()}
    return [
        PlannedTrial(arm, number, replace(histories[arm].begun[chosen], seed=trial_seed(config, number)))
        for number in range(len(searched) + 1, len(searched) + config.replicates + 1)
        for arm, chosen in best.items()
        if chosen is not None
    ]


def _best_of_search(config: SweepConfig, history: History) -> int | None:
    """The finished trial with the lowest loss, of equal ones the first."""
    losses = history.losses.get(config.epochs, {})
    finished = [number for number, status in history.ended.items() if status == "finished" and number in losses]
    searched = [number for number in finished if not is_replicate(config, number)]
    return min(searched, key=lambda number: (losses[number], number), default=None)


@dataclass(frozen=True)
class Limit:
    epoch: int  # the trial may train up to its end
    is_final: bool  # False: it is a rung, and what comes after depends on trials that are not there yet


def limit_trials(config: SweepConfig, history: History) -> dict[int, Limit]:
    """How far each trial of an arm may train, by number, as far as that is decided.

    Successive halving (Jamieson & Talwalkar 2016): whoever reaches a rung waits there for the arm's others, and the
    best 1/reduction_factor of them go on, at least one. Which trials those are depends on the losses alone, not on who
    comes first or on how many run at once. A trial that failed is not waited for. A replicate is never stopped.
    """
    searched = trials_per_arm(config)
    factor = config.early_stopping.reduction_factor if config.early_stopping else 1.0
    result = {searched + more: Limit(config.epochs, is_final=True) for more in range(1, config.replicates + 1)}
    left = list(range(1, searched + 1))
    for rung in rungs(config):
        losses = history.losses.get(rung, {})
        if any(number not in losses and history.ended.get(number) != "failed" for number in left):
            return result | {number: Limit(rung, is_final=False) for number in left}
        result |= {number: Limit(rung, is_final=True) for number in left}
        there = sorted((number for number in left if number in losses), key=lambda number: (losses[number], number))
        left = there[: max(1, int(len(there) / factor))]
    return result | {number: Limit(config.epochs, is_final=True) for number in left}


def rungs(config: SweepConfig) -> tuple[int, ...]:
    """The epochs after which early stopping may end a trial: the first that reach grace_epochs times a power of
    reduction_factor, below the last one, as in Ray's scheduler."""
    found, stopping = set(), config.early_stopping
    if stopping is not None:
        milestone = float(stopping.grace_epochs)
        while math.ceil(milestone) < config.epochs:
            found.add(math.ceil(milestone))
            milestone *= stopping.reduction_factor
    return tuple(sorted(found))


def epoch_counts(config: SweepConfig) -> list[int]:
    """How many of an arm's trials train each epoch, from the first, if none fails, replicates included."""
    by_number = {number: float(number) for number in range(1, trials_per_arm(config) + 1)}
    limits = limit_trials(config, History(dict.fromkeys(rungs(config), by_number))).values()
    return [sum(limit.epoch >= epoch for limit in limits) for epoch in range(1, config.epochs + 1)]


def propose(config: SweepConfig, history: History, number: int) -> dict[str, Any]:
    """What Optuna (TPE) would try as the arm's trial of that number, after those that have ended or come to a rung.

    The first few numbers are drawn at random, and the same in every arm. A trial that was stopped early, or waits at a
    rung, counts as pruned at its last epoch, not as one whose final loss is known; one that failed teaches nothing.
    """
    import optuna  # an extra of this project: only a search by Optuna needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(values) for name, values in config.search.values().items()}
    sampler = optuna.samplers.TPESampler(seed=trial_seed(config, number))
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for tried, hyperparameters in sorted(history.begun.items()):
        losses = {epoch: by_number[tried] for epoch, by_number in history.losses.items() if tried in by_number}
        status = history.ended.get(tried)
        if status == "failed" or not losses or (status is None and config.early_stopping is None):
            continue
        finished = status == "finished"
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.COMPLETE if finished else optuna.trial.TrialState.PRUNED,
                params={name: getattr(hyperparameters, name) for name in distributions},
                distributions=distributions,
                value=losses[max(losses)],
                intermediate_values=losses,
            )
        )
    return dict(study.ask(distributions).params)


def _distribution(values: list[Any] | Range) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values, Range):
        return FloatDistribution(values.low, values.high, log=values.loguniform is not None)
    return CategoricalDistribution(values)


# What is to be expected


def plan_lines(config: SweepConfig) -> Iterator[str]:
    """Say what a sweep of this config would train."""
    each, trials = trials_per_arm(config), trials_in_all(config)
    yield f"Experiment {config.experiment!r} on {' or else '.join(config.dataset)}, seed {config.seed}:"
    yield f"  {len(config.arms)} arms: {', '.join(config.arms)}"
    if rendered := [f"{name} of {arm.renders}" for name, arm in config.arms.items() if arm.renders is not None]:
        yield f"  of these without a training of their own: {', '.join(rendered)}"
    again = f", then {config.replicates} replicates of its best" if config.replicates else ""
    yield (
        f"  {each} trial{'s' * (each != 1)} per arm ({config.search.method} search){again}, {trials} trials in all, "
        f"of {config.epochs} epochs each"
    )
    for name, values in config.search.values().items():
        yield f"  {name}: {values if isinstance(values, list) else f'{values.low:g} to {values.high:g}'}"
    if config.search.method != "optuna":
        yield "  every arm tries:"
        for planned in plan_trials(config)[:: len(trained_arms(config.arms))]:
            tried = ", ".join(f"{name} {getattr(planned.hyperparameters, name)}" for name in config.search.values())
            yield f"    #{planned.number}: {tried or 'the same again'}, seed {planned.hyperparameters.seed}"
    epochs = len(trained_arms(config.arms)) * sum(epoch_counts(config))
    images = "times all training images" if config.train_images is None else "images"
    stopping = ", with early stopping within each arm" if config.early_stopping else ""
    yield f"  to be trained: {epochs * (config.train_images or 1):,} {images}{stopping}"


def combinations_of(config: SweepConfig) -> list[dict[str, Any]]:
    """One choice for every combination of what is searched in lists, with the lowest value of every range."""
    lowest = {
        name: [values.low] if isinstance(values, Range) else values for name, values in config.search.values().items()
    }
    return [dict(zip(lowest, values, strict=True)) for values in itertools.product(*lowest.values())]


def _draws(config: SweepConfig) -> list[dict[str, Any]]:
    searched = config.search.values()
    count = trials_per_arm(config)
    if config.search.method == "grid":
        return combinations_of(config)
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
