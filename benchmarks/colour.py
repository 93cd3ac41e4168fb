"""From RGB to what the network and the loss take: L, and the soft label of nine entries, the own bin first."""

from statistics import median
from time import perf_counter

import numpy as np
import skimage.color
import torch

from benchmarks.harness import alternate, figure, goal, ratios, spread, table
from benchmarks.usual import soft_labels
from platform.color.lab import rgb_to_lab
from platform.color.palettes import grid_palette
from platform.data.datasets import load_dataset

TEXT = """\
## Colour

From uint8 RGB to L, the bin, and the nine neighbours with their weights: ten batches of 64 images of 32×32, one after
the other, of which nothing is kept.

- *ours*: `rgb_to_lab`, and soft labels looked up in a table of the 65,536 rounded (a, b), over all 400 bins; a batch at
  a time as in training. The table is made once for a training, and that is not timed here: see below.
- *scikit-image and numpy*: `skimage.color.rgb2lab`, then the definition in vectorised numpy, an image at a time as in a
  `Dataset`.
- *scikit-image and numpy, a batch at a time*: the same calls on a whole batch.
- *scikit-image and our table*: `skimage.color.rgb2lab` on a whole batch, then the same table as numpy arrays. What
  *ours* gains over this one it owes to `rgb_to_lab` and to PyTorch, all else to the table.
- *floor*: one copy, from memory to memory, of as many bytes as *ours* writes for a batch.

Checked: float32 and float64 round (a, b) to different whole values for a share below 1e-4 of the pixels. For all others
bins and neighbours agree, and weights agree to 1e-6; L agrees to 1e-3.
"""

OURS = "ours"


def section(tiny: bool) -> list[str]:
    batch, batches, rounds = (4, 2, 2) if tiny else (64, 10, 7)
    images = load_dataset(["photos"], train_images=batch * batches, say=lambda _: None).train_images
    started = perf_counter()
    palette = grid_palette(reachable=False)
    table_s = perf_counter() - started
    entries, label_weights = palette.entries.numpy(), palette.weights.numpy()

    def ours(rgb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lab = rgb_to_lab(rgb)
        return lab, *palette.soft_labels(lab[..., 1:])

    def all_ours() -> None:
        for rgb in torch.tensor(images).split(batch):
            ours(rgb)

    def image_by_image() -> None:
        for image in images:
            soft_labels(image)

    def batch_by_batch() -> None:
        for part in np.split(images, batches):
            soft_labels(part)

    def with_our_table() -> None:
        for part in np.split(images, batches):
            whole = (np.round(skimage.color.rgb2lab(part).reshape(-1, 3)[:, 1:]) + 128).astype(np.int64)
            colour = 256 * whole[:, 0] + whole[:, 1]
            entries[colour], label_weights[colour]

    written = _check(images, *ours(torch.tensor(images))) // batches
    source = torch.zeros(written, dtype=torch.uint8)
    target = torch.zeros_like(source)

    def copies() -> None:
        for _ in range(batches):
            target.copy_(source)

    seconds = alternate(
        {
            OURS: all_ours,
            "scikit-image and numpy": image_by_image,
            "scikit-image and numpy, a batch at a time": batch_by_batch,
            "scikit-image and our table": with_our_table,
            "floor": copies,
        },
        rounds,
    )
    rows = [
        [name, spread([1e3 * time / len(images) for time in times]), spread(ratios(seconds[OURS], times))]
        for name, times in seconds.items()
    ]
    faster = median(ratios(seconds[OURS], seconds["scikit-image and numpy"]))
    return [
        TEXT,
        *table(["contender", "ms per image", "× ours"], rows),
        "",
        f"Making the table took {figure(1e3 * table_s, 2)} ms, as long as *ours* takes for "
        f"{figure(table_s * len(images) / median(seconds[OURS]), 2)} images.",
        "",
        goal("time of scikit-image and numpy over ours", [faster], at_least=20),
    ]


def _check(images: np.ndarray, lab: torch.Tensor, entries: torch.Tensor, weights: torch.Tensor) -> int:
    """Compare with the definition in numpy, and return how many bytes were written."""
    lightness, expected_entries, expected_weights = soft_labels(images)
    assert np.abs(lab[..., 0].flatten().numpy() - lightness).max() < 1e-3
    expected_ab = np.round(skimage.color.rgb2lab(images).reshape(-1, 3)[:, 1:])
    same = (lab[..., 1:].reshape(-1, 2).round().numpy() == expected_ab).all(1)
    assert (~same).mean() < 1e-4
    assert (entries.numpy() == expected_entries)[same].all()
    assert np.abs(weights.numpy() - expected_weights)[same].max() < 1e-6
    return lab.nbytes + entries.nbytes + weights.nbytes
