"""What people would write: the textbook's loss, soft labels by scikit-image and numpy, the usual training script."""

import numpy as np
import skimage.color
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from platform.model.network import Colorizer

GRID = 20
CENTERS = (np.arange(GRID) + 0.5) * 256 / GRID - 128
OWN_AND_AROUND = np.array([(0, 0), *((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))])


def dense_loss(logits: Tensor, entries: Tensor, label_weights: Tensor, pixel_weights: Tensor) -> Tensor:
    """Return the soft-label cross-entropy over dimension 1, the same for pixel rows and for channel order.

    logits (n, heads, ...); entries, label_weights (n, 9, ...): those of positive weight once; pixel_weights (n, ...).
    """
    targets = torch.zeros_like(logits).scatter_(1, entries, label_weights)
    log_probabilities = functional.log_softmax(logits, dim=1)
    return (-(targets * log_probabilities).sum(1) * pixel_weights).mean()


def soft_labels(rgb: np.ndarray, sigma: float = 5.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of uint8 (..., 3): L (pixels,), the own bin and those around it, and their weights, each (pixels, 9)."""
    lab = skimage.color.rgb2lab(rgb).reshape(-1, 3)
    ab = np.round(lab[:, 1:])
    bins = (GRID * (ab + 128) // 256).astype(np.int64)[:, None] + OWN_AND_AROUND
    inside = ((bins >= 0) & (bins < GRID)).all(-1)
    bins = bins.clip(0, GRID - 1)  # no colour of sRGB has a neighbour outside
    squares = ((CENTERS[bins] - ab[:, None]) ** 2).sum(-1)
    weights = np.exp(-squares / (2 * sigma**2)) * inside
    return lab[:, 0], bins[..., 0] * GRID + bins[..., 1], weights / weights.sum(-1, keepdims=True)


class Images(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """L (1, height, width), and the soft label as bins and weights (9, height, width), flipped at random."""

    def __init__(self, images: np.ndarray, *, flips: bool = True) -> None:
        self._images = images
        self._flips = flips

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        rgb = self._images[index]
        if self._flips and torch.rand(()) < 0.5:
            rgb = rgb[:, ::-1]
        lightness, bins, weights = soft_labels(rgb)
        height, width = rgb.shape[:2]
        return (
            torch.from_numpy(lightness.astype(np.float32)).view(1, height, width),
            torch.from_numpy(bins.T.reshape(9, height, width).copy()),
            torch.from_numpy(weights.T.reshape(9, height, width).astype(np.float32)),
        )


def logits_of(model: Colorizer, lightness: Tensor) -> Tensor:
    """The network as one would write it: the head is a 1x1 convolution, logits in channel order."""
    features, head = model(lightness), model.head
    assert isinstance(head, nn.Linear)
    logits: Tensor = functional.conv2d(features, head.weight[:, :, None, None], head.bias)
    return logits


def train_epoch(
    model: Colorizer, optimizer: torch.optim.Optimizer, images: np.ndarray, rarity: Tensor, batch_size: int
) -> None:
    """One epoch: a DataLoader with two workers, targets scattered into a dense tensor, log_softmax.

    rarity: float32 (400,), the weight of each bin.
    """
    loader = DataLoader(Images(images), batch_size=batch_size, shuffle=True, num_workers=2, drop_last=True)
    model.train()
    for lightness, bins, weights in loader:
        loss = dense_loss(logits_of(model, lightness), bins, weights, rarity[bins[:, 0]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
