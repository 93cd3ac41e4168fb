"""Train one model: `train(task, hyperparameters, data)` yields a report per epoch. Plain PyTorch, knows nothing of Ray,
nor of what kind of arm it trains: that is the task's."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from platform.arms.compose import Task
from platform.arms.critic import Adversary
from platform.color.lab import rgb_to_lab
from platform.data.datasets import Dataset
from platform.model.evaluation import Scores, as_tensor, evaluate_splits, features
from platform.model.hyperparameters import Hyperparameters, Precision, Schedule
from platform.model.muon import Muon
from platform.model.network import Colorizer

MUON_RATE_SHARE = 5.0  # so that one range of learning rates suits it and AdamW
CHECK_EVERY = 50  # steps; reading the loss makes a GPU wait


@dataclass(frozen=True)
class EpochReport:
    """The state after an epoch. `checkpoint` holds the live weights, not a copy: save it, or read it, before the next
    epoch is asked for."""

    epoch: int  # from 1
    images_seen: int  # since the trial's first epoch, as are seconds
    seconds: float
    device: str
    loss: float  # on the tuning split: what trials are chosen and stopped by
    scores: dict[str, dict[str, Scores]]  # by arm (the one trained, and those that render it) and by split
    checkpoint: dict[str, Any]


class TrainingDiverged(Exception):  # noqa: N818 - a result of the trial, not a mistake of the program
    """The loss became infinite or not a number; the message says when."""


def train(
    task: Task, hyperparameters: Hyperparameters, data: Dataset, *, resume: dict[str, Any] | None = None
) -> Iterator[EpochReport]:
    """Train on `data`, on the task's device, and yield a report after each epoch, `hyperparameters.epochs` of them in
    all.

    resume: a checkpoint of the same training (`load_checkpoint`); the reports that follow are those that the
    uninterrupted one would have given. The same task, hyperparameters and data give the same numbers on the same
    machine with the same number of threads.

    Raises ValueError where task, data and checkpoint do not fit, TrainingDiverged when the loss is not finite.
    """
    if resume is not None and (resume["hyperparameters"], resume["arm"]) != (asdict(hyperparameters), task.options):
        raise ValueError("the checkpoint is of another training: start this one without it")
    check_image_size(hyperparameters, data.train_images.shape[1:3])
    if task.device.type == "cuda":
        torch.backends.cudnn.deterministic = True
    dtype = autocast_dtype(task.device, hyperparameters.precision)
    model = build_model(task, hyperparameters)
    optimizers = build_optimizers(hyperparameters, model)
    adversary = (
        None if task.make_adversary is None else task.make_adversary(seed=_derived_seed(hyperparameters.seed, 0))
    )
    first_epoch, images_seen, seconds = 1, 0, 0.0
    if resume is not None:
        model.load_state_dict(resume["model"])
        for optimizer, state in zip(optimizers, resume["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        if adversary is not None:
            adversary.load_state_dict(resume["adversary"])
        first_epoch, images_seen, seconds = resume["epoch"] + 1, resume["images_seen"], resume["seconds"]
    device = f"{_device_name(task.device)}, {'float32' if dtype is None else 'bfloat16 autocast'}"

    pictures = as_tensor(data.train_images).to(task.device), as_tensor(data.train_labels).to(task.device)
    for epoch in range(first_epoch, hyperparameters.epochs + 1):
        started = time.perf_counter()
        model.train()
        images_seen += train_epoch(task, hyperparameters, model, optimizers, adversary, pictures, epoch, dtype)
        scores = evaluate_splits(task, model.eval(), data, dtype)
        loss = next(iter(scores.values()))["tuning"].values["loss"]
        _check_finite(loss, epoch)
        seconds += time.perf_counter() - started
        checkpoint = {
            "arm": task.options,
            "hyperparameters": asdict(hyperparameters),
            "epoch": epoch,
            "images_seen": images_seen,
            "seconds": seconds,
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "adversary": None if adversary is None else adversary.state_dict(),
        }
        yield EpochReport(epoch, images_seen, seconds, device, loss, scores, checkpoint)


def train_epoch(
    task: Task,
    hyperparameters: Hyperparameters,
    model: Colorizer,
    optimizers: list[torch.optim.Optimizer],
    adversary: Adversary | None,
    pictures: tuple[torch.Tensor, torch.Tensor],
    epoch: int,
    dtype: torch.dtype | None,
) -> int:
    """Descend once through the pictures, images uint8 (n, height, width, 3) and labels int64 (n,); return how many were
    seen."""
    images, labels = pictures
    assert task.objective is not None  # a baseline is not trained
    # Order and flips depend on seed and epoch alone, so that a resumed trial sees what it would have seen.
    generator = torch.Generator().manual_seed(_derived_seed(hyperparameters.seed, epoch))
    order = torch.randperm(len(images), generator=generator).to(task.device)
    flips = (torch.rand(len(images), generator=generator) < 0.5).to(task.device)
    batch_size = min(hyperparameters.batch_size, len(images))
    steps = len(images) // batch_size  # the last few images of an order wait for the next epoch
    loss_sum = torch.zeros((), device=task.device)
    for batch in range(steps):
        # At the step's middle: at its end the last step's rate would be 0, and the step would do nothing.
        progress = ((epoch - 1) * steps + batch + 0.5) / (hyperparameters.epochs * steps)
        rate = hyperparameters.learning_rate * learning_rate_factor(hyperparameters.schedule, progress)
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = rate * group.get("rate_share", 1.0)
        part = slice(batch * batch_size, (batch + 1) * batch_size)
        rgb = images[order[part]]
        lab = rgb_to_lab(torch.where(flips[part, None, None, None], rgb.flip(2), rgb))
        rows = features(task, model, lab, dtype)
        loss = task.objective(model.head, rows, lab[..., 1:])
        if task.class_loss is not None:
            loss = loss + task.class_loss(rows, labels[order[part]])
        if adversary is not None:
            loss = loss + adversary.loss(lab, rows, model.head)
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        if adversary is not None:
            adversary.step()
        loss_sum += loss.detach()
        if (batch + 1) % CHECK_EVERY == 0 or batch + 1 == steps:
            _check_finite(float(loss_sum), epoch)
    return steps * batch_size


def check_image_size(hyperparameters: Hyperparameters, size: tuple[int, ...]) -> None:
    """Raise ValueError unless pictures of this (height, width) can be halved `depth` times."""
    parts = 2**hyperparameters.depth
    if any(side % parts for side in size):
        raise ValueError(
            f"depth {hyperparameters.depth} needs pictures whose sides divide by {parts}, not {size[0]}x{size[1]}"
        )


def build_model(task: Task, hyperparameters: Hyperparameters) -> Colorizer:
    """Build the task's network; its first weights follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_derived_seed(hyperparameters.seed, 0))
        model = Colorizer(
            task.make_head,
            filter_size=hyperparameters.filter_size,
            width=hyperparameters.width,
            depth=hyperparameters.depth,
            classes=task.classes,
        )
    return model.to(task.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def cores_here() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pick_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """Return the share of the highest learning rate at a progress in (0, 1].

    Both rise linearly and fall as half a cosine: "cosine" after a short warm-up of 5 %, "one_cycle" after 30 %
    (Smith & Topin 2018).
    """
    rise = 0.05 if schedule == "cosine" else 0.3
    if progress < rise:
        return progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    torch.save(checkpoint, path)


def load_checkpoint(file: Path | IO[bytes]) -> dict[str, Any]:
    """Load a checkpoint onto the CPU; only tensors and plain values are accepted, never code."""
    checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return checkpoint


def load_model(checkpoint: dict[str, Any], task: Task) -> Colorizer:
    """Rebuild a checkpoint's network, in eval mode, on the task's device."""
    model = build_model(task, Hyperparameters(**checkpoint["hyperparameters"]))
    model.load_state_dict(checkpoint["model"])
    return model.eval()


def build_optimizers(hyperparameters: Hyperparameters, model: Colorizer) -> list[torch.optim.Optimizer]:
    """Each parameter's in one of them; a group's `rate_share` is what it takes of the learning rate."""
    rate = hyperparameters.learning_rate
    # Decay shrinks filters, not the few shifts and scales.
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": hyperparameters.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match hyperparameters.optimizer:
        case "sgd":
            return [torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)]
        case "adam":
            return [torch.optim.Adam(groups, lr=rate, fused=True)]
        case "adamw":
            return [torch.optim.AdamW(groups, lr=rate, fused=True)]
        case "rmsprop":
            return [torch.optim.RMSprop(groups, lr=rate)]
        case "muon":
            filters = {"params": [p for p in model.parameters() if p.ndim == 4], "rate_share": MUON_RATE_SHARE}
            groups[0]["params"] = [p for p in model.parameters() if p.ndim in (2, 3)]
            return [
                Muon([filters], rate, hyperparameters.weight_decay),
                torch.optim.AdamW(groups, lr=rate, fused=True),
            ]


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


def _check_finite(loss: float, epoch: int) -> None:
    if not math.isfinite(loss):
        raise TrainingDiverged(f"the loss became {loss} in epoch {epoch}")


def _derived_seed(seed: int, epoch: int) -> int:
    """Return a seed of its own for each epoch (0: the first weights) that shares nothing with its neighbours'."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)
