"""What a sweep costs here, measured in a few steps of each kind of training, and how much of it fits into minutes."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from db.errors import UserError
from platform.arms.compose import Task
from platform.data.datasets import Dataset
from platform.model.evaluation import as_tensor, evaluate_splits
from platform.model.hyperparameters import Hyperparameters
from platform.model.training import autocast_dtype, build_model, build_optimizers, cores_here, train_epoch
from platform.running.config import EPOCHS_OF_MINUTES, SweepConfig
from platform.running.plan import combinations_of, epoch_counts, hyperparameters_of, trials_in_all

SCORED_IMAGES = 125
FEWEST_IMAGES = 500  # per epoch: fewer teach nothing that is worth comparing
MOST_EPOCHS = 1000
AUTO_GPU_SHARE = 0.25  # of a GPU per trial: one of these small models leaves most of it idle


class BudgetError(UserError):
    """The minutes are too few."""


Kind = tuple[int, int, int, int, str]
"""What decides the cost of an image: filter size, width, depth, batch size and optimizer."""


def kind_of(hyperparameters: Hyperparameters) -> Kind:
    h = hyperparameters
    return h.filter_size, h.width, h.depth, h.batch_size, h.optimizer


@dataclass(frozen=True)
class Costs:
    """Seconds, of each of the trials that run beside each other."""

    train: dict[str, float]  # per image, by arm: the mean of all kinds of training
    score: dict[str, float]  # per validation image, by arm: all that an epoch scores

    def epoch_seconds(self, images: int, validation_images: int) -> dict[str, float]:
        """Of an epoch of so many images, by arm."""
        return {arm: images * self.train[arm] + validation_images * self.score[arm] for arm in self.train}


def kinds_to_measure(config: SweepConfig) -> list[Hyperparameters]:
    """One training of each kind that the config may try."""
    found: dict[Kind, Hyperparameters] = {}
    for drawn in combinations_of(config):
        hyperparameters = replace(hyperparameters_of(config, 1, drawn), learning_rate=1e-4, epochs=1)
        found.setdefault(kind_of(hyperparameters), hyperparameters)
    return list(found.values())


def measure_costs(
    tasks: Mapping[str, Task], kinds: Sequence[Hyperparameters], data: Dataset, seconds: float, threads: int
) -> Costs:
    """Train every arm for about so many seconds, and the first arm in every kind; score each on a few images.

    data: as much of it as is used is `part_to_measure`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first, *others = kinds
        train = {name: _train_seconds(task, first, data, seconds) for name, task in tasks.items()}
        name, task = next(iter(tasks.items()))
        factors = [1.0, *(_train_seconds(task, other, data, seconds) / train[name] for other in others)]
        score = {name: _score_seconds(task, first, data) for name, task in tasks.items()}
        return Costs({name: fmean(factors) * of_first for name, of_first in train.items()}, score)
    finally:
        torch.set_num_threads(before)


def part_to_measure(data: Dataset, kinds: Sequence[Hyperparameters]) -> Dataset:
    """As much of each split as `measure_costs` uses."""
    images = 2 * max(kind.batch_size for kind in kinds)
    scored = min(SCORED_IMAGES, len(data.validation_images))
    tuning = max(1, round(scored * len(data.tuning_images) / len(data.validation_images)))
    return replace(
        data,
        train_images=data.train_images[: max(images, scored)],
        train_labels=data.train_labels[: max(images, scored)],
        tuning_images=data.tuning_images[:tuning],
        tuning_labels=data.tuning_labels[:tuning],
        validation_images=data.validation_images[:scored],
        validation_labels=data.validation_labels[:scored],
    )


def _train_seconds(task: Task, hyperparameters: Hyperparameters, data: Dataset, seconds: float) -> float:
    model, dtype = build_model(task, hyperparameters).train(), autocast_dtype(task.device, hyperparameters.precision)
    optimizers = build_optimizers(hyperparameters, model)
    adversary = None if task.make_adversary is None else task.make_adversary(seed=0)
    pictures = as_tensor(data.train_images).to(task.device), as_tensor(data.train_labels).to(task.device)
    first = tuple(part[: hyperparameters.batch_size] for part in pictures)
    train_epoch(task, hyperparameters, model, optimizers, adversary, (first[0], first[1]), 1, dtype)  # buffers, caches
    trained, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < seconds or not trained:
        trained += train_epoch(task, hyperparameters, model, optimizers, adversary, pictures, 1, dtype)
    return taken / trained


def _score_seconds(task: Task, hyperparameters: Hyperparameters, data: Dataset) -> float:
    model = build_model(task, hyperparameters).eval()
    dtype = autocast_dtype(task.device, hyperparameters.precision)
    started = time.perf_counter()
    evaluate_splits(task, model, data, dtype)
    return (time.perf_counter() - started) / len(data.validation_images)


def slots(config: SweepConfig, there: Mapping[str, float], gpus: float) -> int:
    """How many trials, with so many GPUs each, run at once where there are these resources in all."""
    by_gpus = there.get("GPU", 0.0) / gpus if gpus else float("inf")
    at_once = int(min(there.get("CPU", 1.0) / config.resources.cpu, by_gpus))
    return max(1, min(at_once, config.resources.max_concurrent or at_once, trials_in_all(config)))


def slots_here(config: SweepConfig) -> int:
    """How many run at once on this machine alone."""
    devices = torch.cuda.device_count()
    share = config.resources.gpu if config.resources.gpu != "auto" else AUTO_GPU_SHARE if devices else 0.0
    return slots(config, {"CPU": cores_here(), "GPU": devices}, share)


def mean_costs(found: Sequence[Costs]) -> Costs:
    """Of several that were measured beside each other."""
    first = found[0]
    return Costs(
        {arm: fmean(costs.train[arm] for costs in found) for arm in first.train},
        {arm: fmean(costs.score[arm] for costs in found) for arm in first.score},
    )


def sweep_seconds(config: SweepConfig, costs: Costs, images: int, validation_images: int, slots: int) -> float:
    """How long the trials take, so many at once, if none fails and Ray itself takes no time: of each epoch the trials
    that are left to train it."""
    of_arms = costs.epoch_seconds(images, validation_images).values()
    rounds = sum(math.ceil(trials * len(of_arms) / slots) for trials in epoch_counts(config))
    return rounds * fmean(of_arms)


def cost_lines(config: SweepConfig, costs: Costs, data: Dataset, slots: int) -> Iterator[str]:
    """Say how long the trials take."""
    images, validation_images = config.train_images or len(data.train_images), len(data.validation_images)
    seconds = sweep_seconds(config, costs, images, validation_images, slots)
    at_once = "one trial" if slots == 1 else f"{slots} trials"
    yield f"  {at_once} at a time, at {images:,} images per epoch: about {in_words(seconds)} here"


def in_words(seconds: float) -> str:
    """A duration, rounded for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def fit_to_seconds(config: SweepConfig, costs: Costs, data: Dataset, slots: int, seconds: float) -> SweepConfig:
    """The config with as many training images, the same for every trial, as fit: in EPOCHS_OF_MINUTES epochs or, where
    all images leave time, in the first number of epochs for which they are too many. `data` holds all images. Raises
    BudgetError if next to nothing fits."""
    there, validation_images = len(data.train_images), len(data.validation_images)

    def fits(images: int, epochs: int) -> bool:
        tried = config.model_copy(update={"epochs": epochs})
        return sweep_seconds(tried, costs, images, validation_images, slots) <= seconds

    epochs_of_all = _largest(lambda epochs: fits(there, epochs), MOST_EPOCHS)
    epochs = min(max(epochs_of_all + 1, EPOCHS_OF_MINUTES), MOST_EPOCHS)
    images = _largest(lambda tens: fits(10 * tens, epochs), there // 10) * 10
    if images < min(there, FEWEST_IMAGES):
        tried = config.model_copy(update={"epochs": EPOCHS_OF_MINUTES})
        fewest = sweep_seconds(tried, costs, min(there, FEWEST_IMAGES), validation_images, slots)
        raise BudgetError(
            f"{config.minutes:g} minutes are too few for {trials_in_all(config)} trials here, of which {slots} run at "
            f"once: give {(fewest - seconds) / 60:.1f} more (--minutes), fewer trials, or fewer validation images."
        )
    if epochs_of_all >= EPOCHS_OF_MINUTES and epochs_of_all * there >= epochs * images:
        return config.model_copy(update={"epochs": epochs_of_all})  # scoring one epoch more would take what it gains
    return config.model_copy(update={"train_images": images, "epochs": epochs})


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest count of at most so many that fits; 0 where 1 does not."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
