"""From RGB to what the network and the loss take: L, bin, and the soft label of up to nine entries."""

from statistics import median

import numpy as np
import torch

from benchmarks.harness import alternate, goal, ratios, spread, table
from benchmarks.usual import soft_labels as usual_soft_labels
from platform.color import ab_to_bin, bin_table, rgb_to_lab, soft_labels
from platform.datasets import load_dataset

TEXT = """\
## Colour

From uint8 RGB to L, the bin, and the nine neighbours with their weights: ten batches of 64 images of 32×32, one after
the other, of which nothing is kept.

- *ours*: `rgb_to_lab` and `soft_labels` over all 400 bins, a batch at a time as in training.
- *scikit-image and numpy*: `skimage.color.rgb2lab`, then the definition in vectorised numpy, an image at a time as in a
  `Dataset`.
- *scikit-image and numpy, a batch at a time*: the same calls on a whole batch.
- *floor*: one copy, from memory to memory, of as many bytes as *ours* writes for a batch.

Checked: bins and neighbours agree but for a share below 1e-4 of the pixels, which lie on an edge between two bins; L
agrees to 1e-3, and the weights of the others to 1e-4.
"""

OURS = "ours"


def section(tiny: bool) -> list[str]:
    batch, batches, rounds = (4, 2, 2) if tiny else (64, 10, 7)
    images = load_dataset(["photos"], train_images=batch * batches, say=lambda _: None).train_images
    bins = bin_table("grid")

    def ours(rgb: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lab = rgb_to_lab(rgb)
        return lab, *(x.flatten(0, -2) for x in soft_labels(lab[..., 1:], bins))

    def all_ours() -> None:
        for rgb in torch.tensor(images).split(batch):
            ours(rgb)

    def image_by_image() -> None:
        for image in images:
            usual_soft_labels(image)

    def batch_by_batch() -> None:
        for part in np.split(images, batches):
            usual_soft_labels(part)

    lab, outputs, weights = ours(torch.tensor(images))
    lightness, expected_bins, expected_outputs, expected_weights = usual_soft_labels(images)
    same = ab_to_bin(lab[..., 1:]).flatten().numpy() == expected_bins
    assert (~same).mean() < 1e-4
    assert np.abs(lab[..., 0].flatten().numpy() - lightness).max() < 1e-3
    # Beyond the grid's edge there are no neighbours: both give them no weight, and name whatever bin they like.
    inside = expected_weights > 0
    assert (outputs.numpy() == expected_outputs)[inside & same[:, None]].all()
    assert np.abs(weights.numpy() - expected_weights)[same].max() < 1e-4

    written = torch.zeros(sum(x.nbytes for x in (lab, outputs, weights)) // batches, dtype=torch.uint8)
    target = torch.zeros_like(written)

    def copies() -> None:
        for _ in range(batches):
            target.copy_(written)

    seconds = alternate(
        {
            OURS: all_ours,
            "scikit-image and numpy": image_by_image,
            "scikit-image and numpy, a batch at a time": batch_by_batch,
            "floor": copies,
        },
        rounds,
    )
    rows = [
        [name, spread([1e3 * time / len(images) for time in times]), spread(ratios(seconds[OURS], times))]
        for name, times in seconds.items()
    ]
    faster = median(ratios(seconds[OURS], seconds["scikit-image and numpy"]))
    line = goal("time of scikit-image and numpy over ours", [faster], at_least=20)
    return [TEXT, *table(["contender", "ms an image", "× ours"], rows), "", line]
