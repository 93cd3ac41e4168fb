"""How time and memory grow with the number of images."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from benchmarks.harness import figure, goal, seconds_and_peak_megabytes, table
from platform.arms.compose import compose
from platform.arms.options import ArmOptions
from platform.color.counts import count_colours
from platform.color.lab import rgb_to_lab
from platform.color.palettes import grid_palette
from platform.data.datasets import Dataset, DatasetUnavailable, load_dataset
from platform.model.hyperparameters import Hyperparameters
from platform.model.training import train

TEXT = """\
## More images

*Encoding*: L and soft labels of every image, a batch at a time and not kept. *Colours*: `count_colours`, all that
losses know of the data. *Epoch*: `platform.model.training.train` with the smallest network (width 8, depth 1, batch
64), so that the number of images and not the network is what is measured; one image of each split is looked at. Each
is run once, in a process of its own that has done the same with the first hundred images before. Memory is how far that
process grew at most meanwhile, beyond what it held with the uint8 array of the images.
"""

KINDS = ("encoding", "colours", "epoch")


def section(tiny: bool) -> list[str]:
    rows = []
    each: dict[str, list[tuple[float, float | None]]] = {kind: [] for kind in KINDS}
    for count in (150, 300) if tiny else (1_000, 10_000, 100_000):
        row = [f"{count:,}"]
        for kind in KINDS:
            # A process that has ended takes its memory with it: in one that goes on, the next finds it ready.
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                source, array_megabytes, seconds, grown = process.submit(_measure, kind, count).result()
            if len(row) == 1:
                row.append(figure(array_megabytes, 2))
            each[kind].append((seconds / count, grown))
            megabytes = "not measured" if grown is None else figure(grown, 2)
            row += [figure(seconds), figure(1e3 * seconds / count), megabytes]
        rows.append(row)
    head = ["images", "array, MB"]
    for kind in KINDS:
        head += [f"{kind}, s", "ms per image", "MB more"]
    goals = []
    for kind, measured in each.items():
        (few_s, few_grown), *_, (most_s, most_grown) = measured
        goals.append(
            goal(f"{kind}: time per image of the most images over that of the fewest", [most_s / few_s], at_most=1.2)
        )
        if few_grown is not None and most_grown is not None:
            what = f"{kind}: MB that the most images need beyond what the fewest need"
            goals.append(goal(what, [most_grown - few_grown], at_most=10))
    return [TEXT, f"{source}\n", *table(head, rows), "", *goals]


def _measure(kind: str, count: int) -> tuple[str, float, float, float | None]:
    """Return where the images are from, the megabytes of their array, and the seconds and megabytes of one kind."""
    torch.set_num_threads(1)
    data, source = _images(count)
    first = replace(data, train_images=data.train_images[:100], train_labels=data.train_labels[:100])
    _work(kind, first)()  # the first calls set things up
    return source, data.train_images.nbytes / 1e6, *seconds_and_peak_megabytes(_work(kind, data))


def _images(count: int) -> tuple[Dataset, str]:
    try:
        data = load_dataset(
            ["imagenet32"], train_images=count, tuning_images=1, validation_images=1, say=lambda _: None
        )
    except DatasetUnavailable:
        pass
    else:
        if len(data.train_images) == count:
            return data, "The images are ImageNet's at 32×32."
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(count, dtype=np.int64)
    splits = (images, labels, images[:1], labels[:1], images[:1], labels[:1])
    data = Dataset("random", ("none",), *splits, "Random bytes.")
    return data, "So many of ImageNet's images at 32×32 were not under `HUEJURY_DATA`: the images are random bytes."


def _work(kind: str, data: Dataset) -> Callable[[], object]:
    hyperparameters = Hyperparameters(learning_rate=1e-3, epochs=1, width=8, depth=1, batch_size=64)
    palette = grid_palette()

    def encode() -> None:
        for rgb in torch.from_numpy(data.train_images).split(hyperparameters.batch_size):
            palette.soft_labels(rgb_to_lab(rgb)[..., 1:])

    if kind == "encoding":
        return encode
    if kind == "colours":
        return lambda: count_colours(data.train_images, data.train_labels, len(data.class_names))
    arms = {"rebalanced": ArmOptions(kind="classification", rebalancing=0.5)}
    task = compose(
        arms, "rebalanced", count_colours(data.train_images[:100], data.train_labels[:100], len(data.class_names))
    )
    return lambda: list(train(task, hyperparameters, data))
