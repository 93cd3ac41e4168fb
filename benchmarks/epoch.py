"""A training epoch from end to end."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
import torch
from torch.nn import functional

from benchmarks.harness import alternate, goal, ratios, spread, table
from benchmarks.usual import Images, dense_loss, logits_of, train_epoch
from platform.color import bin_table, rarity_weights, rgb_to_lab, soft_labels
from platform.datasets import Dataset, load_dataset
from platform.losses import soft_label_cross_entropy
from platform.models import pixel_rows
from platform.training import Run, autocast_dtype, build_model, colour_statistics, train

TEXT = """\
## A training epoch

Classification with λ = 0.5, width 32, filter size 3, batch 64, AdamW; one pass over the images, of which one thread
computes. Neither Ray nor the database has a part in it.

- *ours*: `platform.training.train` as a sweep calls it, with 167 bins, and convolutions in bfloat16 where the processor
  has it; one image of either split is scored.
- *ours, with scores*: the same with a seventh of the images scored in validation and as many of the training split, as
  in `tune_configs/rebalance.yaml`.
- *ours, float32, 400 bins*: the same work as the usual script's; one image of either split is scored.
- *the usual script*: the same network and optimizer; a `Dataset` with scikit-image in `__getitem__`, a `DataLoader`
  whose two workers come on top of the one thread, targets scattered into a dense tensor of 400 bins in channel order,
  float32.
- *bare, bfloat16 if there is* and *bare, float32*: the same network and the head of 167 bins, forward and backward on
  tensors that are ready, with `F.cross_entropy` on hard labels in pixel rows; no colours, no soft labels, no optimizer.

Checked: on one batch and the same weights the loss of *ours* and of the usual script agree to 1e-4; with labels of one
entry *ours* and the bare model's agree to 1e-4.
"""

OURS = "ours"
SAME_WORK = "ours, float32, 400 bins"


def section(tiny: bool) -> list[str]:
    count, batch, rounds = (32, 16, 1) if tiny else (512, 64, 5)
    everything = load_dataset(["photos"], train_images=count, validation_images=count // 7, say=lambda _: None)
    fewest = replace(
        everything,
        validation_images=everything.validation_images[:1],
        validation_labels=everything.validation_labels[:1],
    )
    run = Run("classification", learning_rate=1e-3, epochs=1, rebalancing=0.5, batch_size=batch)
    usual_run = replace(run, bins="grid", precision="float32")
    statistics = {bins: colour_statistics(everything.train_images, 5.0, bins) for bins in ("grid", "reachable")}
    rarity = rarity_weights(statistics["grid"].mean_soft_label, run.rebalancing).float()
    usual_model = build_model(usual_run, torch.device("cpu"))
    _check_usual(usual_run, everything.train_images[:batch], rarity)
    _check_bare(run, everything.train_images[:batch])

    def ours(run: Run, data: Dataset) -> None:
        for _ in train(run, data, statistics[run.bins], device="cpu"):
            pass

    optimizer = torch.optim.AdamW(usual_model.parameters(), lr=1e-3)
    seconds = alternate(
        {
            OURS: lambda: ours(run, fewest),
            "ours, with scores": lambda: ours(run, everything),
            SAME_WORK: lambda: ours(usual_run, fewest),
            "the usual script": lambda: train_epoch(usual_model, optimizer, everything.train_images, rarity, batch),
            "bare, bfloat16 if there is": _bare(run, everything.train_images),
            "bare, float32": _bare(replace(run, precision="float32"), everything.train_images),
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


def _bare(run: Run, images: np.ndarray) -> Callable[[], None]:
    """Return what does forward and backward alone for every batch, with everything else done beforehand."""
    model = build_model(run, torch.device("cpu"))
    bins = bin_table(run.bins)
    dtype = autocast_dtype(torch.device("cpu"), run.precision)
    batches = []
    for part in torch.tensor(images).split(run.batch_size):
        lab = rgb_to_lab(part)
        outputs, _ = soft_labels(lab[..., 1:].flatten(0, -2), bins)
        batches.append((lab[..., 0].unsqueeze(1).contiguous(), outputs[:, 4].contiguous()))

    def epoch() -> None:
        for lightness, hard in batches:
            with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                features = model(lightness)
            logits = functional.linear(pixel_rows(features).float(), model.head.weight, model.head.bias)
            functional.cross_entropy(logits, hard).backward()
            model.zero_grad(set_to_none=True)

    return epoch


def _check_usual(run: Run, images: np.ndarray, rarity: torch.Tensor) -> None:
    model = build_model(run, torch.device("cpu"))
    lab = rgb_to_lab(torch.tensor(images))
    outputs, weights = soft_labels(lab[..., 1:].flatten(0, -2), bin_table(run.bins))
    with torch.no_grad():
        rows = pixel_rows(model(lab[..., 0].unsqueeze(1)))
        ours = soft_label_cross_entropy(
            rows, model.head.weight, model.head.bias, outputs, weights, rarity[outputs[:, 4]]
        )
        unflipped = Images(images, flips=False)
        items = [unflipped[index] for index in range(len(images))]
        lightness, bins, label_weights = (torch.stack(column) for column in zip(*items, strict=True))
        usual = dense_loss(logits_of(model, lightness), bins, label_weights, rarity[bins[:, 4]])
    torch.testing.assert_close(usual, ours, rtol=1e-4, atol=0)


def _check_bare(run: Run, images: np.ndarray) -> None:
    model = build_model(run, torch.device("cpu"))
    lab = rgb_to_lab(torch.tensor(images))
    outputs, _ = soft_labels(lab[..., 1:].flatten(0, -2), bin_table(run.bins))
    hard = outputs[:, 4].contiguous()
    with torch.no_grad():
        rows = pixel_rows(model(lab[..., 0].unsqueeze(1)))
        ones = torch.ones(len(hard), 1)
        ours = soft_label_cross_entropy(rows, model.head.weight, model.head.bias, hard[:, None], ones)
        bare = functional.cross_entropy(model.head(rows), hard)
    torch.testing.assert_close(bare, ours, rtol=1e-4, atol=0)
