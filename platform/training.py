"""Train one model: `train(run, data, statistics)` yields a report an epoch. Plain PyTorch, knows nothing of Ray."""

import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from platform.color import (
    BINS,
    CELL,
    BinSet,
    BinTable,
    Decoding,
    ab_to_bin,
    add_soft_labels,
    bin_centers,
    bin_table,
    decode,
    rarity_weights,
    rgb_to_lab,
    soft_labels,
)
from platform.datasets import Dataset
from platform.losses import l2_loss, soft_label_cross_entropy
from platform.metrics import ScoreSums
from platform.models import Colorizer, pixel_rows

Precision = Literal["auto", "float32", "bfloat16"]

EVALUATION_BATCH = 125  # images
CHECK_EVERY = 50  # steps; reading the loss makes a GPU wait


@dataclass(frozen=True)
class Run:
    """Everything but the data that decides a trial's result.

    rebalancing: λ in [0, 1], for classification only; 1 is plain classification. learning_rate is the schedule's
    highest. soft_label_sigma in Lab units. bins: the outputs of the classifier, see `color.bin_table`.
    """

    kind: Literal["regression", "classification"]
    learning_rate: float
    epochs: int
    rebalancing: float = 1.0
    filter_size: int = 3
    width: int = 32
    depth: int = 3
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    weight_decay: float = 0.01
    batch_size: int = 64
    schedule: Literal["cosine", "one_cycle"] = "one_cycle"
    decoding: Decoding = "annealed_mean"
    soft_label_sigma: float = 5.0
    bins: BinSet = "reachable"
    precision: Precision = "auto"
    seed: int = 0


@dataclass(frozen=True)
class ColourStatistics:
    """What the losses, the scores and the baselines know of the training pixels' colours.

    mean_soft_label: p̄, float64 (400,), the mean of Z over all training pixels. bin_share: float64 (400,), the
    share of training pixels in each bin. Both sum to 1. sigma and bins are those of the soft labels.
    """

    mean_soft_label: Tensor
    bin_share: Tensor
    sigma: float
    bins: BinSet


@dataclass(frozen=True)
class Scores:
    """A split's loss and scores, the scores' standard errors (see `metrics.ScoreSums`), and each image class's bin
    accuracy."""

    scores: dict[str, float]
    standard_errors: dict[str, float]
    class_bin_accuracy: list[float | None]


@dataclass(frozen=True)
class EpochReport:
    """The state after an epoch (counted from 1).

    images_seen and seconds count from the trial's first epoch. `checkpoint` holds the live weights, not a copy:
    save it, or read it, before the next epoch is asked for.
    """

    epoch: int
    images_seen: int
    seconds: float
    train: Scores
    validation: Scores
    device: str
    checkpoint: dict[str, Any]


class TrainingDiverged(Exception):  # noqa: N818 - a result of the trial, not a mistake of the program
    """The loss became infinite or not a number; the message says when."""


def colour_statistics(images: np.ndarray, sigma: float, bins: BinSet) -> ColourStatistics:
    """Measure the colours of uint8 images (n, height, width, 3), about 0.04 ms a 32x32 image on one core."""
    table = bin_table(bins)
    soft = torch.zeros(len(table.grid_bins), dtype=torch.float64)
    hard = torch.zeros(BINS, dtype=torch.float64)
    for batch in _read_only(images).split(EVALUATION_BATCH):
        ab = rgb_to_lab(batch)[..., 1:]
        add_soft_labels(soft, *soft_labels(ab, table, sigma))
        hard += torch.bincount(ab_to_bin(ab).flatten(), minlength=BINS)
    mean_soft_label = torch.zeros(BINS, dtype=torch.float64)
    mean_soft_label[table.grid_bins] = soft / soft.sum()
    return ColourStatistics(mean_soft_label, hard / hard.sum(), sigma, bins)


def train(
    run: Run,
    data: Dataset,
    statistics: ColourStatistics,
    *,
    device: str = "auto",
    resume: dict[str, Any] | None = None,
) -> Iterator[EpochReport]:
    """Train on `data` and yield a report after each epoch, `run.epochs` of them in all.

    device: "auto" takes a GPU when there is one. resume: a checkpoint of the same run (`load_checkpoint`); the
    reports that follow are those that the uninterrupted run would have given. The same run gives the same numbers
    on the same machine with the same number of threads.

    Raises ValueError where run, data and checkpoint do not fit, TrainingDiverged when the loss is not finite.
    """
    if (statistics.sigma, statistics.bins) != (run.soft_label_sigma, run.bins):
        raise ValueError("the colour statistics were made with another soft_label_sigma or other bins than the run's")
    if resume is not None and resume["run"] != asdict(run):
        raise ValueError("the checkpoint is of another run: start this one without it")
    check_image_size(run, data.train_images.shape[1:3])
    place = pick_device(device)
    dtype = autocast_dtype(place, run.precision)
    if place.type == "cuda":
        torch.backends.cudnn.deterministic = True
    table = bin_table(run.bins).to(place)
    pixel_weights = None
    if run.kind == "classification" and run.rebalancing != 1:
        weights = rarity_weights(statistics.mean_soft_label, run.rebalancing)[table.grid_bins.cpu()]
        pixel_weights = weights.float().to(place)

    model = build_model(run, place)
    optimizer = _optimizer(run, model)
    first_epoch, images_seen, seconds = 1, 0, 0.0
    if resume is not None:
        model.load_state_dict(resume["model"])
        optimizer.load_state_dict(resume["optimizer"])
        first_epoch, images_seen, seconds = resume["epoch"] + 1, resume["images_seen"], resume["seconds"]

    train_images = _read_only(data.train_images).to(place)
    batch_size = min(run.batch_size, len(train_images))
    steps_per_epoch = len(train_images) // batch_size  # the last few images of an order wait for the next epoch
    total_steps = run.epochs * steps_per_epoch
    scored_train, scored_validation = _scored_splits(data)
    step = (first_epoch - 1) * steps_per_epoch
    for epoch in range(first_epoch, run.epochs + 1):
        started = time.perf_counter()
        # Order and flips depend on seed and epoch alone, so that a resumed trial sees what it would have seen.
        generator = torch.Generator().manual_seed(_derived_seed(run.seed, epoch))
        order = torch.randperm(len(train_images), generator=generator)
        flips = torch.rand(len(train_images), generator=generator) < 0.5
        order, flips = order.to(place), flips.to(place)
        model.train()
        loss_sum = torch.zeros((), device=place)
        for batch in range(steps_per_epoch):
            part = slice(batch * batch_size, (batch + 1) * batch_size)
            images = train_images[order[part]]
            images = torch.where(flips[part, None, None, None], images.flip(2), images)
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = run.learning_rate * learning_rate_factor(run.schedule, step / total_steps)
            lab = rgb_to_lab(images)
            loss = _loss(run, model, _rows(model, lab, dtype), lab, table, pixel_weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            images_seen += batch_size
            loss_sum += loss.detach()
            if (batch + 1) % CHECK_EVERY == 0 or batch + 1 == steps_per_epoch:
                _check_finite(float(loss_sum), epoch, images_seen)

        train_scores, validation_scores = (
            _evaluate(run, model, split, table, pixel_weights, statistics, len(data.class_names), dtype)
            for split in (scored_train, scored_validation)
        )
        for scores in (train_scores, validation_scores):
            _check_finite(scores.scores["loss"], epoch, images_seen)
        seconds += time.perf_counter() - started
        checkpoint = {
            "run": asdict(run),
            "epoch": epoch,
            "images_seen": images_seen,
            "seconds": seconds,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        description = f"{_device_name(place)}, {'float32' if dtype is None else 'bfloat16 autocast'}"
        yield EpochReport(epoch, images_seen, seconds, train_scores, validation_scores, description, checkpoint)


def check_image_size(run: Run, size: tuple[int, ...]) -> None:
    """Raise ValueError unless pictures of this (height, width) can be halved `run.depth` times."""
    if any(side % 2**run.depth for side in size):
        raise ValueError(
            f"depth {run.depth} needs pictures whose sides divide by {2**run.depth}, not {size[0]}x{size[1]}"
        )


def build_model(run: Run, device: torch.device) -> Colorizer:
    """Build the run's network; its first weights follow from run.seed alone."""
    outputs = 2 if run.kind == "regression" else len(bin_table(run.bins).grid_bins)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_derived_seed(run.seed, 0))
        model = Colorizer(outputs, filter_size=run.filter_size, width=run.width, depth=run.depth)
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def pick_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def learning_rate_factor(schedule: Literal["cosine", "one_cycle"], progress: float) -> float:
    """Return the share of the highest learning rate at a progress in (0, 1].

    Both rise linearly and fall as half a cosine: "cosine" after a short warm-up of 5 %, "one_cycle" after 30 %
    (Smith & Topin 2018).
    """
    rise = 0.05 if schedule == "cosine" else 0.3
    if progress < rise:
        return progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def colorize(
    run: Run, model: Colorizer, lab: Tensor, table: BinTable, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """Predict the colours of pictures from their L: ab float32 (n, height, width, 2) and bins int64 (n, height, width).

    lab: float32 (n, height, width, 3), of which only L is looked at. The model must be in eval mode.
    """
    return _decoded(run, model, _rows(model, lab, dtype), lab.shape[:3], table)


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    torch.save(checkpoint, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU; only tensors and plain values are accepted, never code."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def load_model(checkpoint: dict[str, Any], device: torch.device) -> tuple[Run, Colorizer]:
    """Rebuild a checkpoint's network, in eval mode."""
    run = Run(**checkpoint["run"])
    model = build_model(run, device)
    model.load_state_dict(checkpoint["model"])
    return run, model.eval()


def baselines(data: Dataset, statistics: ColourStatistics) -> dict[str, tuple[Scores, Scores]]:
    """Score what no model is needed for, as (train, validation): always the most frequent bin, and always grey."""
    most_frequent = bin_centers()[statistics.bin_share.argmax()]
    splits = _scored_splits(data)
    result = {}
    for name, ab in {"most frequent bin": most_frequent, "grey": torch.zeros(2)}.items():
        train_scores, validation_scores = (
            _constant_scores(ab, images, labels, statistics, len(data.class_names)) for images, labels in splits
        )
        result[name] = (train_scores, validation_scores)
    return result


def _scored_splits(data: Dataset) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return images and labels of the scored part of the train split, as large as the validation split, and of that."""
    count = len(data.validation_images)
    return (data.train_images[:count], data.train_labels[:count]), (data.validation_images, data.validation_labels)


def _constant_scores(
    ab: Tensor, images: np.ndarray, labels: np.ndarray, statistics: ColourStatistics, class_count: int
) -> Scores:
    sums = _score_sums(class_count, statistics, torch.device("cpu"))
    for rgb, label in zip(
        _read_only(images).split(EVALUATION_BATCH), torch.tensor(labels).split(EVALUATION_BATCH), strict=True
    ):
        predicted = ab.expand(*rgb.shape[:3], 2)
        sums.add(rgb, rgb_to_lab(rgb), predicted, ab_to_bin(predicted), label)
    return Scores(sums.scores(), sums.standard_errors(), sums.class_bin_accuracy())


def _score_sums(class_count: int, statistics: ColourStatistics, device: torch.device) -> ScoreSums:
    return ScoreSums(class_count, rarity_weights(statistics.mean_soft_label, 0.0).to(device))


@torch.no_grad()
def _evaluate(
    run: Run,
    model: Colorizer,
    split: tuple[np.ndarray, np.ndarray],
    table: BinTable,
    pixel_weights: Tensor | None,
    statistics: ColourStatistics,
    class_count: int,
    dtype: torch.dtype | None,
) -> Scores:
    model.eval()
    device = table.centers.device
    sums = _score_sums(class_count, statistics, device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    images, labels = _read_only(split[0]), torch.tensor(split[1])
    for rgb, label in zip(images.split(EVALUATION_BATCH), labels.split(EVALUATION_BATCH), strict=True):
        rgb = rgb.to(device)
        lab = rgb_to_lab(rgb)
        rows = _rows(model, lab, dtype)
        loss_sum += _reported_loss(run, model, rows, lab, table, pixel_weights) * len(rgb)
        ab, bins = _decoded(run, model, rows, lab.shape[:3], table)
        sums.add(rgb, lab, ab, bins, label.to(device))
    scores = {"loss": float(loss_sum) / len(images), **sums.scores()}
    return Scores(scores, sums.standard_errors(), sums.class_bin_accuracy())


def _rows(model: Colorizer, lab: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the features of every pixel, (pixels, width), in the precision that they were computed in."""
    lightness = lab[..., 0].unsqueeze(1)
    with torch.autocast(lab.device.type, dtype=dtype, enabled=dtype is not None):
        features = model(lightness)
    return pixel_rows(features)


def _regressed(model: Colorizer, rows: Tensor, shape: torch.Size) -> Tensor:
    """Return ab in Lab units; the head's unit is a cell of the grid, so that its outputs are of order 1."""
    ab: Tensor = model.head(rows.float()) * CELL
    return ab.view(*shape, 2)


def _reported_loss(
    run: Run, model: Colorizer, rows: Tensor, lab: Tensor, table: BinTable, pixel_weights: Tensor | None
) -> Tensor:
    """Return the loss as defined: L2 a picture, or cross-entropy a pixel, weighted by the rarity of its bin."""
    ab = lab[..., 1:]
    if run.kind == "regression":
        return l2_loss(_regressed(model, rows, lab.shape[:3]), ab)
    outputs, weights = (x.flatten(0, -2) for x in soft_labels(ab, table, run.soft_label_sigma))
    rarity = None if pixel_weights is None else pixel_weights[outputs[:, 4]]  # entry 4 is the pixel's own bin
    return soft_label_cross_entropy(rows, model.head.weight, model.head.bias, outputs, weights, rarity)


def _loss(
    run: Run, model: Colorizer, rows: Tensor, lab: Tensor, table: BinTable, pixel_weights: Tensor | None
) -> Tensor:
    """Return the loss to descend.

    For regression the defined sum over a picture's pixels, in squared Lab units, is divided by a constant, pixels
    times squared cell size: the same minimum, with gradients of the cross-entropy's size, so that one range of
    learning rates suits every arm.
    """
    loss = _reported_loss(run, model, rows, lab, table, pixel_weights)
    return loss / (lab.shape[1] * lab.shape[2] * CELL**2) if run.kind == "regression" else loss


def _decoded(run: Run, model: Colorizer, rows: Tensor, shape: torch.Size, table: BinTable) -> tuple[Tensor, Tensor]:
    if run.kind == "regression":
        ab = _regressed(model, rows, shape)
        return ab, ab_to_bin(ab)
    parts = []
    for part in rows.split(
        1 << 12 if rows.device.type == "cpu" else 1 << 18
    ):  # the logits of all would not fit a cache
        logits = model.head(part.float())
        parts.append((decode(logits, table.centers, run.decoding), table.grid_bins[logits.argmax(-1)]))
    ab, bins = (torch.cat(column) for column in zip(*parts, strict=True))
    return ab.view(*shape, 2), bins.view(shape)


def _optimizer(run: Run, model: Colorizer) -> torch.optim.Optimizer:
    # Decay shrinks filters, not the few shifts and scales.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": run.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match run.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, lr=run.learning_rate, momentum=0.9, nesterov=True, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=run.learning_rate, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=run.learning_rate, fused=True)
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=run.learning_rate)


def autocast_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return bfloat16 where it was asked for, or, on "auto", where the processor multiplies it natively."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
        precision = "bfloat16" if native else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def _check_finite(loss: float, epoch: int, images_seen: int) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"the loss became {loss} in epoch {epoch}, after {images_seen:,} images")


def _derived_seed(seed: int, epoch: int) -> int:
    """Return a seed of its own for each epoch (0: the first weights) that shares nothing with its neighbours'."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


def _read_only(images: np.ndarray) -> Tensor:
    """Wrap an array without a copy; arrays in Ray's object store are read-only, of which torch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)
