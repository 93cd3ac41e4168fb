"""How good an arm's colours are: every reading of a task, scored on the splits of a dataset in one pass."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from platform.arms.compose import Prediction, Task
from platform.color.counts import places
from platform.color.lab import rgb_to_lab
from platform.color.metrics import ScoreSums
from platform.data.datasets import Dataset
from platform.model.network import Colorizer, pixel_rows

IMAGES_AT_A_TIME = 125
CPU_PIXELS_AT_A_TIME, GPU_PIXELS_AT_A_TIME = 1 << 12, 1 << 18  # the outputs of all would not fit a cache


@dataclass(frozen=True)
class Scores:
    values: dict[str, float]  # by name, see `platform.color.scores`
    standard_errors: dict[str, float]  # of the scores, over the choice of images: see `metrics.ScoreSums`
    class_bin_accuracy: list[float | None]  # of each image class; None for a class without images


@torch.no_grad()
def evaluate_splits(
    task: Task, model: Colorizer | None, data: Dataset, dtype: torch.dtype | None = None
) -> dict[str, dict[str, Scores]]:
    """Score every reading of the task on the training split (a fixed part of it, as large as validation) and on
    validation, and measure the loss on the tuning split.

    Returns the scores by arm and by split. Where something is trained they hold its "loss", the arm's own, on each
    split; of "tuning" they hold nothing else. The model must be in eval mode.
    """
    count = len(data.validation_images)
    splits = {
        "train": (data.train_images[:count], data.train_labels[:count]),
        "validation": (data.validation_images, data.validation_labels),
    }
    result: dict[str, dict[str, Scores]] = {name: {} for name in task.readings}
    for split, (images, labels) in splits.items():
        for name, scores in _evaluate(task, model, images, labels, len(data.class_names), dtype).items():
            result[name][split] = scores
    if model is not None:
        loss_sum = 0.0
        for rgb in as_tensor(data.tuning_images).split(IMAGES_AT_A_TIME):
            lab = rgb_to_lab(rgb.to(task.device))
            loss_sum += float(_loss(task, model, features(task, model, lab, dtype), lab)) * len(rgb)
        for splits_of_arm in result.values():
            splits_of_arm["tuning"] = Scores({"loss": loss_sum / len(data.tuning_images)}, {}, [])
    return result


def predict(task: Task, model: Colorizer | None, rows: Tensor, truth: Tensor | None = None) -> dict[str, Prediction]:
    """Read the colours of pixels off what is `known_of` them, rows, for every reading of the task.

    truth: ab float (pixels, 2), where its probability is asked for.
    """
    parts: dict[str, list[Prediction]] = {name: [] for name in task.readings}
    start = 0
    for outputs in outputs_of(model, rows):
        part = slice(start, start := start + len(outputs))
        for name, reading in task.readings.items():
            parts[name].append(reading.read(outputs, None if truth is None else truth[part]))
    return {name: _joined(found) for name, found in parts.items()}


def outputs_of(model: Colorizer | None, rows: Tensor) -> Iterator[Tensor]:
    """Yield what the head makes of some pixels at a time, float32 (pixels, outputs); without a model, what is known."""
    for part in rows.split(CPU_PIXELS_AT_A_TIME if rows.device.type == "cpu" else GPU_PIXELS_AT_A_TIME):
        # Laid out output by output: every sum over a pixel's outputs is then one over long rows, several times as fast.
        yield part if model is None else model.head(part.float()).T.contiguous().T


def features(task: Task, model: Colorizer, lab: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the features of every pixel of pictures (n, height, width, 3), (pixels, width), in the precision that they
    were computed in."""
    with torch.autocast(task.device.type, dtype=dtype, enabled=dtype is not None):
        found = model(lab[..., 0].unsqueeze(1))
    return pixel_rows(found)


def known_of(
    task: Task, model: Colorizer | None, lab: Tensor, labels: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Return what the task's readings are made of, for every pixel of pictures (n, height, width, 3): a model's
    features, or, for a baseline, int64 (pixels, 2), the picture's class, of labels (n,), or -1, and the pixel's place.
    """
    if model is not None:
        return features(task, model, lab, dtype)
    place = places(lab[..., 0])
    label = place.new_full((len(lab),), -1) if labels is None else labels
    return torch.stack((label[:, None, None].expand(place.shape), place), dim=-1).view(-1, 2)


def as_tensor(images: np.ndarray) -> Tensor:
    """Wrap an array without a copy; arrays in Ray's object store are read-only, of which torch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)


def _evaluate(
    task: Task, model: Colorizer | None, images: np.ndarray, labels: np.ndarray, classes: int, dtype: torch.dtype | None
) -> dict[str, Scores]:
    sums = {name: ScoreSums(classes, task.bin_rarity, task.bin_entropy) for name in task.readings}
    loss_sum = 0.0
    label_batches = torch.tensor(labels).to(task.device).split(IMAGES_AT_A_TIME)
    for label, rgb in zip(label_batches, as_tensor(images).split(IMAGES_AT_A_TIME), strict=True):
        rgb = rgb.to(task.device)
        lab = rgb_to_lab(rgb)
        rows = known_of(task, model, lab, label, dtype)
        if model is not None:
            loss_sum += float(_loss(task, model, rows, lab)) * len(rgb)
        shape = lab.shape[:3]
        for name, found in predict(task, model, rows, lab[..., 1:].reshape(-1, 2)).items():
            log_probability = found.log_probability
            sums[name].add(
                rgb,
                lab,
                label,
                ab_predicted=found.ab.view(*shape, 2),
                bin_predicted=found.bins.view(shape),
                log_probability=None if log_probability is None else log_probability.view(shape),
            )
    loss = {} if model is None else {"loss": loss_sum / len(images)}
    return {
        name: Scores(loss | found.scores(), found.standard_errors(), found.class_bin_accuracy())
        for name, found in sums.items()
    }


def _loss(task: Task, model: Colorizer, rows: Tensor, lab: Tensor) -> Tensor:
    assert task.loss is not None  # whatever has a model has been trained
    return task.loss(model.head, rows, lab[..., 1:])


def _joined(parts: list[Prediction]) -> Prediction:
    known = [part.log_probability for part in parts if part.log_probability is not None]
    return Prediction(
        torch.cat([part.ab for part in parts]),
        torch.cat([part.bins for part in parts]),
        torch.cat(known) if known else None,
    )
