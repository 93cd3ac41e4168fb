"""How time and memory grow with the number of images."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from benchmarks.harness import figure, goal, seconds_and_peak_megabytes, table
from platform.color import bin_table, rgb_to_lab, soft_labels
from platform.datasets import Dataset, DatasetUnavailable, load_dataset
from platform.training import Run, colour_statistics, train

TEXT = """\
## More images

*Encoding*: L and soft labels of every image, a batch at a time and not kept. *p̄*: `colour_statistics`, that is encoding
and both histograms. *Epoch*: `platform.training.train` with the smallest network (width 8, depth 1, batch 64), so that
the number of images and not the network is what is measured; one image of either split is scored. Each is run once, in
a process of its own that has done the same with the first hundred images before. Memory is how far that process grew at
most meanwhile, beyond what it held with the uint8 array of the images.
"""

KINDS = {"encoding": "encoding", "statistics": "p̄", "epoch": "epoch"}


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
    for what in KINDS.values():
        head += [f"{what}, s", "ms an image", "MB more"]
    goals = []
    for kind, what in KINDS.items():
        fewest, *_, most = each[kind]
        goals.append(
            goal(
                f"{what}: time an image of the most images over that of the fewest", [most[0] / fewest[0]], at_most=1.2
            )
        )
        if fewest[1] is not None and most[1] is not None:
            goals.append(
                goal(
                    f"{what}: MB that the most images need beyond what the fewest need",
                    [most[1] - fewest[1]],
                    at_most=10,
                )
            )
    return [TEXT, f"{source}\n", *table(head, rows), "", *goals]


def _measure(kind: str, count: int) -> tuple[str, float, float, float | None]:
    """Return where the images are from, the megabytes of their array, and the seconds and megabytes of one kind."""
    torch.set_num_threads(1)
    data, source = _images(count)
    _work(kind, _first(data, 100))()  # the first calls set things up
    return source, data.train_images.nbytes / 1e6, *seconds_and_peak_megabytes(_work(kind, data))


def _images(count: int) -> tuple[Dataset, str]:
    try:
        data = load_dataset(["imagenet32"], train_images=count, validation_images=1, say=lambda _: None)
    except DatasetUnavailable:
        pass
    else:
        if len(data.train_images) == count:
            return data, "The images are ImageNet's at 32×32."
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count + 1, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(count + 1, dtype=np.int64)
    data = Dataset("random", ("none",), images[1:], labels[1:], images[:1], labels[:1], "0" * 64, "Random bytes.")
    return data, "ImageNet at 32×32 was not to be had under `HUEJURY_DATA`: the images are random bytes."


def _first(data: Dataset, count: int) -> Dataset:
    return Dataset(
        data.name,
        data.class_names,
        data.train_images[:count],
        data.train_labels[:count],
        data.validation_images[:1],
        data.validation_labels[:1],
        data.fingerprint,
        data.note,
    )


def _work(kind: str, data: Dataset) -> Callable[[], None]:
    run = Run("classification", learning_rate=1e-3, epochs=1, rebalancing=0.5, width=8, depth=1)
    table = bin_table(run.bins)
    statistics = colour_statistics(data.train_images[:100], run.soft_label_sigma, run.bins)

    def encode() -> None:
        for rgb in torch.from_numpy(data.train_images).split(run.batch_size):
            soft_labels(rgb_to_lab(rgb)[..., 1:], table)

    def count_colours() -> None:
        colour_statistics(data.train_images, run.soft_label_sigma, run.bins)

    def epoch() -> None:
        for _ in train(run, data, statistics, device="cpu"):
            pass

    return {"encoding": encode, "statistics": count_colours, "epoch": epoch}[kind]
