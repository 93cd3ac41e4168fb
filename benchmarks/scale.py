"""How time and memory grow with the number of images."""

import numpy as np
import torch

from benchmarks.harness import figure, seconds_and_peak_megabytes, table
from platform.color import bin_table, rgb_to_lab, soft_labels
from platform.datasets import Dataset, DatasetUnavailable, load_dataset
from platform.training import Run, colour_statistics, train

TEXT = """\
## More images

*Encoding*: L and soft labels of every image, a batch at a time and not kept. *p̄*: `colour_statistics`, that is encoding
and both histograms. *Epoch*: `platform.training.train` with the smallest network (width 8, depth 1, batch 64), so that
the number of images and not the network is what is measured; one image of either split is scored. Memory is how far the
process grew at most meanwhile, beyond the uint8 array of the images. Each is run once.
"""


def section(tiny: bool) -> list[str]:
    counts = [100, 200] if tiny else [1_000, 10_000, 100_000]
    data, source = _images(counts[-1])
    _measure(_first(data, counts[0]))  # not counted: the first calls set things up
    rows = []
    for count in counts:
        part = _first(data, count)
        row = [f"{count:,}", f"{part.train_images.nbytes / 1e6:,.0f}"]
        for seconds, megabytes in _measure(part):
            grown = "not measured" if megabytes is None else figure(megabytes, 2)
            row += [figure(seconds), figure(1e3 * seconds / count), grown]
        rows.append(row)
    head = ["images", "array, MB"]
    for what in ("encoding", "p̄", "epoch"):
        head += [f"{what}, s", "ms an image", "MB more"]
    return [TEXT, f"{source}\n", *table(head, rows)]


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


def _measure(data: Dataset) -> list[tuple[float, float | None]]:
    """Return the seconds and the megabytes of encoding, statistics and an epoch."""
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

    return [seconds_and_peak_megabytes(work) for work in (encode, count_colours, epoch)]
