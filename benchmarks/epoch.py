"""A training epoch from end to end."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch.nn import functional

from benchmarks.harness import alternate, goal, ratios, spread, table
from benchmarks.usual import Images, dense_loss, logits_of, train_epoch
from platform.arms.compose import Task, compose
from platform.arms.options import ArmOptions
from platform.color.counts import count_colours
from platform.color.lab import rgb_to_lab
from platform.color.palettes import grid_palette
from platform.data.datasets import Dataset, load_dataset
from platform.model.evaluation import features
from platform.model.hyperparameters import Hyperparameters
from platform.model.training import autocast_dtype, build_model, train

TEXT = """\
## A training epoch

Classification with λ = 0.5, width 32, filter size 3, batch 64, AdamW; one pass over the images, of which one thread
computes. Neither Ray nor the database has a part in it.

- *ours*: `platform.model.training.train` as a sweep calls it, with 167 bins, and convolutions in bfloat16 where the
  processor has it; one image of each split is looked at afterwards.
- *ours, with scores*: the same with a seventh of the images scored in validation and as many of the training split, and
  a tenth for the tuning loss, in about the proportions of `tune_configs/rebalance.yaml`.
- *ours, float32, 400 bins*: the same work as the usual script's; one image of each split is looked at.
- *the usual script*: the same network and optimizer; a `Dataset` with scikit-image in `__getitem__`, a `DataLoader`
  whose two workers come on top of the one thread, targets scattered into a dense tensor of 400 bins in channel order,
  float32.
- *bare, bfloat16 if there is* and *bare, float32*: the same network and the head of 167 bins, forward and backward on
  tensors that are ready, with `F.cross_entropy` on hard labels in pixel rows; no colours, no soft labels, no optimizer.

Checked: on one batch and the same weights the loss of *ours* and of the usual script agree to 1e-4. The table in which
*ours* looks up soft labels is made before the clock starts, as once for a training of many epochs.
"""

OURS = "ours"
SAME_WORK = "ours, float32, 400 bins"


def section(tiny: bool) -> list[str]:
    count, batch, rounds = (32, 16, 1) if tiny else (512, 64, 5)
    everything = load_dataset(
        ["photos"],
        train_images=count,
        tuning_images=count // 10,
        validation_images=count // 7,
        say=lambda _: None,
    )
    fewest = replace(
        everything,
        tuning_images=everything.tuning_images[:1],
        validation_images=everything.validation_images[:1],
        validation_labels=everything.validation_labels[:1],
    )
    images = everything.train_images
    fast = Hyperparameters(learning_rate=1e-3, epochs=1, width=32, batch_size=batch)
    float32 = replace(fast, precision="float32")
    arms = {
        "reachable": ArmOptions(kind="classification", rebalancing=0.5),
        "grid": ArmOptions(kind="classification", rebalancing=0.5, palette="grid"),
    }
    colours = count_colours(images, np.zeros(len(images), np.int64), 1)
    reachable, grid = (compose(arms, name, colours) for name in arms)
    rarity = colours.rarity_weights(grid_palette(reachable=False), 0.5).float()
    _check_usual(grid, float32, images[:batch], rarity)

    def ours(task: Task, hyperparameters: Hyperparameters, data: Dataset) -> None:
        for _ in train(task, hyperparameters, data):
            pass

    usual_model = build_model(grid, float32)
    optimizer = torch.optim.AdamW(usual_model.parameters(), lr=1e-3)
    seconds = alternate(
        {
            OURS: lambda: ours(reachable, fast, fewest),
            "ours, with scores": lambda: ours(reachable, fast, everything),
            SAME_WORK: lambda: ours(grid, float32, fewest),
            "the usual script": lambda: train_epoch(usual_model, optimizer, images, rarity, batch),
            "bare, bfloat16 if there is": _bare(reachable, fast, images),
            "bare, float32": _bare(reachable, float32, images),
        },
        rounds,
    )
    rows = [
        [
            name,
            spread([count / time for time in times]),
            spread(ratios(seconds[OURS], times)),
            spread(ratios(seconds[SAME_WORK], times)),
        ]
        for name, times in seconds.items()
    ]

    def times(ours: str, theirs: str) -> list[float]:
        return [median(ratios(seconds[ours], seconds[theirs]))]

    goals = [
        goal("time of the usual script's epoch over ours", times(OURS, "the usual script"), at_least=5),
        goal(
            "time of the usual script's epoch over ours in float32 with 400 bins",
            times(SAME_WORK, "the usual script"),
            at_least=5,
        ),
        goal("time of the bare model over ours", times(OURS, "bare, bfloat16 if there is"), at_least=0.9),
        goal(
            "time of the bare model in float32 with 167 bins over ours in float32 with 400 bins",
            times(SAME_WORK, "bare, float32"),
            at_least=0.9,
        ),
    ]
    return [TEXT, *table(["contender", "images/s", "× ours", "× ours, float32, 400 bins"], rows), "", *goals]


def _bare(task: Task, hyperparameters: Hyperparameters, images: np.ndarray) -> Callable[[], None]:
    """Return what does forward and backward alone for every batch, with everything else done beforehand."""
    assert task.palette is not None
    model = build_model(task, hyperparameters)
    dtype = autocast_dtype(task.device, hyperparameters.precision)
    labs = [rgb_to_lab(part) for part in torch.tensor(images).split(hyperparameters.batch_size)]
    batches = [(lab, task.palette.own_entry(lab[..., 1:])) for lab in labs]

    def epoch() -> None:
        for lab, hard in batches:
            logits = model.head(features(task, model, lab, dtype).float())
            functional.cross_entropy(logits, hard).backward()
            model.zero_grad(set_to_none=True)

    return epoch


@torch.no_grad()
def _check_usual(task: Task, hyperparameters: Hyperparameters, images: np.ndarray, rarity: torch.Tensor) -> None:
    assert task.loss is not None
    model = build_model(task, hyperparameters)
    lab = rgb_to_lab(torch.tensor(images))
    ours = task.loss(model.head, features(task, model, lab), lab[..., 1:])
    unflipped = Images(images, flips=False)
    items = [unflipped[index] for index in range(len(images))]
    lightness, bins, label_weights = (torch.stack(column) for column in zip(*items, strict=True))
    usual = dense_loss(logits_of(model, lightness), bins, label_weights, rarity[bins[:, 0]])
    torch.testing.assert_close(usual, ours, rtol=1e-4, atol=0)
