"""Which trials a sweep makes, which of them go on, and what Optuna tries next: functions of a config and of what trials
have reported, and of nothing else. Every arm tries the same hyperparameters with the same seeds: a paired design."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from db.schema import TrialStatus
from db.sweeps import asha_rungs
from platform.arms import trained_arms
from platform.config import Range, SweepConfig
from platform.hyperparameters import Hyperparameters

SIMULATIONS = 200


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
    return len(trained_arms(config.arms)) * trials_per_arm(config)


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
class Reported:
    """What the trials of one arm have reported: all that early stopping and Optuna look at.

    Trials of different arms are never compared: a loss weighted by one λ says nothing about one weighted by another.
    """

    losses: dict[int, dict[int, float]] = field(default_factory=dict)  # by epoch and number, in the order of arrival
    ended: dict[int, tuple[TrialStatus, Hyperparameters]] = field(default_factory=dict)  # by number

    def add(self, number: int, epoch: int, loss: float) -> None:
        """The same report twice is one."""
        self.losses.setdefault(epoch, {}).setdefault(number, loss)

    def forget(self, number: int) -> None:
        for losses in self.losses.values():
            losses.pop(number, None)


def stops_early(config: SweepConfig, reported: Reported, number: int, epoch: int) -> bool:
    """Whether asynchronous successive halving (Li et al. 2020) ends the trial after that epoch, which it has reported:
    at a rung a trial goes on if it is among the best 1/reduction_factor of those that were there before it."""
    stopping = config.early_stopping
    if stopping is None or epoch >= config.epochs:
        return False
    if epoch not in asha_rungs(config.epochs, stopping.grace_epochs, stopping.reduction_factor):
        return False
    rung = reported.losses[epoch]
    earlier = list(itertools.takewhile(lambda other: other != number, rung))
    return is_behind(rung[number], [rung[other] for other in earlier], stopping.reduction_factor)


def is_behind(loss: float, earlier: list[float], reduction_factor: float) -> bool:
    """Whether a loss is not among the best 1/reduction_factor of those that came to its rung before it."""
    return bool(earlier) and loss > float(np.percentile(earlier, 100 / reduction_factor))


def propose(config: SweepConfig, reported: Reported, number: int) -> dict[str, Any]:
    """What Optuna (TPE) would try as the arm's trial of that number, after those that have ended.

    The first few numbers are drawn at random, and the same in every arm. A trial that was stopped early counts as
    pruned at its last epoch, not as one whose final loss is known; one that failed teaches nothing.
    """
    import optuna  # an extra of this project: only a search by Optuna needs it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(values) for name, values in config.search.values().items()}
    sampler = optuna.samplers.TPESampler(seed=trial_seed(config, number))
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for ended, (status, hyperparameters) in sorted(reported.ended.items()):
        losses = {epoch: by_number[ended] for epoch, by_number in reported.losses.items() if ended in by_number}
        if status == "failed" or not losses:
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


def epoch_shares(config: SweepConfig) -> list[float]:
    """The share of an arm's trials that train each epoch, from the first, in the mean.

    Simulated: the trials come one after another and their losses keep the same order throughout.
    """
    stopping = config.early_stopping
    if stopping is None:
        return [1.0] * config.epochs
    rungs = asha_rungs(config.epochs, stopping.grace_epochs, stopping.reduction_factor)
    generator = np.random.default_rng(0)
    trained = np.zeros(config.epochs)
    trials = trials_per_arm(config)
    for _ in range(SIMULATIONS):
        seen: dict[int, list[float]] = {rung: [] for rung in rungs}
        for loss in generator.random(trials):
            stopped_at = config.epochs
            for rung in rungs:
                stopped = is_behind(loss, seen[rung], stopping.reduction_factor)
                seen[rung].append(loss)
                if stopped:
                    stopped_at = rung
                    break
            trained[:stopped_at] += 1
    return [float(share) for share in trained / (SIMULATIONS * trials)]


def plan_lines(config: SweepConfig) -> Iterator[str]:
    """Say what a sweep of this config would train."""
    each, trials = trials_per_arm(config), trials_in_all(config)
    yield f"Experiment {config.experiment!r} on {' or else '.join(config.dataset)}, seed {config.seed}:"
    yield f"  {len(config.arms)} arms: {', '.join(config.arms)}"
    if rendered := [f"{name} of {arm.renders}" for name, arm in config.arms.items() if arm.renders is not None]:
        yield f"  of these without a training of their own: {', '.join(rendered)}"
    yield (
        f"  {each} trials per arm ({config.search.method} search), {trials} trials in all, "
        f"of {config.epochs} epochs each"
    )
    for name, values in config.search.values().items():
        yield f"  {name}: {values if isinstance(values, list) else f'{values.low:g} to {values.high:g}'}"
    if config.search.method != "optuna":
        yield "  every arm tries:"
        for planned in plan_trials(config)[:: trials // each]:
            tried = ", ".join(f"{name} {getattr(planned.hyperparameters, name)}" for name in config.search.values())
            yield f"    #{planned.number}: {tried or 'the same again'}, seed {planned.hyperparameters.seed}"

    def images(epochs: float) -> str:
        if config.train_images is None:
            return f"{epochs:,.0f} times all training images"
        return f"{epochs * config.train_images:,.0f} images"

    yield f"  to be trained: at most {images(trials * config.epochs)}"
    if config.early_stopping:
        yield f"  with early stopping within each arm: about {images(trials * sum(epoch_shares(config)))}"


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
