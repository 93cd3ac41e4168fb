"""What training pixels tell of colours, counted once: all that losses, palettes and baselines know of the data.

How often each of the 65,536 rounded (a, b) stands among them: from that follow the shares and the rarity of any
palette's entries, and K-means. And how often each bin does in pictures of a class, at a place: the sky is blue, bright
and above.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from platform.color.lab import rgb_to_lab
from platform.color.palettes import BINS, COLOURS, Palette, ab_to_bin, ab_to_colour, all_colours

KMEANS_STEPS = 100
IMAGES_AT_A_TIME = 125
LIGHTNESS_BANDS, ROW_BANDS = 8, 4
PLACES = LIGHTNESS_BANDS * ROW_BANDS
SMOOTHING = 300.0  # pixels that a place's shares are worth in each class, and all pixels' shares at each place


def places(lightness: Tensor) -> Tensor:
    """Return the place of each pixel of L (n, height, width) in [0, 100], int64 (n, height, width) in [0, PLACES): its
    eighth of the lightness and its quarter of the picture's height."""
    height = lightness.shape[1]
    band = (lightness * (LIGHTNESS_BANDS / 100)).long().clamp_(0, LIGHTNESS_BANDS - 1)
    row = torch.arange(height, device=lightness.device) * ROW_BANDS // height
    return band * ROW_BANDS + row[:, None]


@dataclass(frozen=True, eq=False)
class ColourCounts:
    counts: Tensor  # int64 (65536,): training pixels of each rounded ab
    at_places: Tensor  # int64 (classes, PLACES, BINS): of each bin of the 20x20 grid, by image class and place

    def share(self, palette: Palette) -> Tensor:
        """Return the share of pixels that each entry is the own one of, float64 (Q,)."""
        hard = torch.bincount(palette.entries[:, 0].cpu(), self.counts.double(), minlength=len(palette.centers))
        return hard / hard.sum()

    def mean_soft_label(self, palette: Palette) -> Tensor:
        """Return p̄, the mean of Z over all pixels, float64 (Q,)."""
        mass = self.counts.double()[:, None] * palette.weights.cpu().double()
        soft = torch.bincount(palette.entries.cpu().flatten(), mass.flatten(), minlength=len(palette.centers))
        return soft / soft.sum()

    def rarity_weights(self, palette: Palette, rebalancing: float) -> Tensor:
        """Return w_λ of the palette's entries, float64 (Q,): see `rarity_weights`."""
        return rarity_weights(self.mean_soft_label(palette), rebalancing, palette.size)

    def share_at_places(self) -> Tensor:
        """Return p(bin | class, place), float64 (classes + 1, PLACES, BINS), the last of all classes together.

        Smoothed: where it rests on few pixels, what a class has at a place is pulled towards what all classes have
        there, and that towards what all pixels have, of which each bin has one more.
        """
        counts = self.at_places.double()
        everywhere = counts.sum((0, 1)) + 1
        of_place = _pulled(counts.sum(0), everywhere / everywhere.sum())
        return torch.cat((_pulled(counts, of_place), of_place[None]))

    def to_bytes(self) -> bytes:
        numbers = np.concatenate((self.counts.numpy(), self.at_places.numpy().ravel()))
        return zlib.compress(numbers.astype("<i8").tobytes())

    @staticmethod
    def from_bytes(packed: bytes) -> "ColourCounts":
        numbers = torch.from_numpy(np.frombuffer(zlib.decompress(packed), "<i8").astype(np.int64))
        return ColourCounts(numbers[:COLOURS], numbers[COLOURS:].view(-1, PLACES, BINS))


def _pulled(counts: Tensor, share: Tensor) -> Tensor:
    return (counts + SMOOTHING * share) / (counts.sum(-1, keepdim=True) + SMOOTHING)


def count_colours(images: np.ndarray, labels: np.ndarray, classes: int) -> ColourCounts:
    """Count the colours of uint8 images (n, height, width, 3), whose labels (n,) are in [0, classes)."""
    counts = torch.zeros(COLOURS, dtype=torch.int64)
    at_places = torch.zeros(classes * PLACES * BINS, dtype=torch.int64)
    for start in range(0, len(images), IMAGES_AT_A_TIME):
        part = slice(start, start + IMAGES_AT_A_TIME)
        lab = rgb_to_lab(torch.from_numpy(images[part].copy()))
        ab = lab[..., 1:]
        counts += torch.bincount(ab_to_colour(ab).flatten(), minlength=COLOURS)
        place = torch.from_numpy(labels[part].copy())[:, None, None] * PLACES + places(lab[..., 0])
        at_places += torch.bincount((place * BINS + ab_to_bin(ab)).flatten(), minlength=len(at_places))
    return ColourCounts(counts, at_places.view(classes, PLACES, BINS))


def rarity_weights(mean_soft_label: Tensor, rebalancing: float, size: int) -> Tensor:
    """Return the weight w of each entry, float64 (Q,): w proportional to 1 / ((1 - λ) p̄ + λ / size).

    mean_soft_label: p̄, non-negative, (Q,). rebalancing: λ in [0, 1]; 1 gives 1 everywhere, 0 full inverse frequency.
    Normalised so that Σ p̄ w = 1 (Zhang et al. 2016, equation 4, with the soft labels as the smoothing). At λ = 0 an
    entry that no training pixel touches would get an infinite weight; it gets that of the rarest that was seen.
    """
    share = mean_soft_label.double() / mean_soft_label.double().sum()
    weights = 1 / ((1 - rebalancing) * share + rebalancing / size)
    weights = weights.masked_fill(weights.isinf(), float(weights[weights.isfinite()].max()))
    return weights / (share @ weights)


def kmeans_centers(colours: ColourCounts, count: int, seed: int) -> Tensor:
    """Return `count` centres of the training colours, float32 (count, 2), by K-means on the rounded ab.

    Each colour weighs the square root of its share: by the share itself most centres would lie near grey. A start by
    k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's steps until nothing moves, KMEANS_STEPS at most. With fewer
    different colours than centres there is one for each colour.
    """
    present = colours.counts > 0
    points = all_colours()[present].double()
    weights = colours.counts[present].double().sqrt()
    if len(points) <= count:
        return points.float()
    centers = _spread(points, weights, count, np.random.default_rng(seed))
    for _ in range(KMEANS_STEPS):
        distance, own = torch.cdist(points, centers).min(1)
        mass = torch.bincount(own, weights, minlength=count)
        sums = [torch.bincount(own, weights * points[:, axis], minlength=count) for axis in (0, 1)]
        moved = torch.stack(sums, dim=1) / mass[:, None]
        for empty in (mass == 0).nonzero().flatten().tolist():  # goes to the colour that is served worst
            worst = int((weights * distance.square()).argmax())
            moved[empty], distance[worst] = points[worst], 0
        if torch.equal(moved, centers):
            break
        centers = moved
    return centers[sorted(range(count), key=lambda entry: centers[entry].tolist())].float()


def _spread(points: Tensor, weights: Tensor, count: int, chance: np.random.Generator) -> Tensor:
    """Draw the first centres, each in proportion to the weighted square of the distance to those drawn before."""
    chosen: list[int] = []
    nearest = torch.ones_like(weights)
    for _ in range(count):
        mass = (weights * nearest).numpy()
        chosen.append(int(chance.choice(len(points), p=mass / mass.sum())))
        squares = (points - points[chosen[-1]]).square().sum(1)
        nearest = squares if len(chosen) == 1 else torch.minimum(nearest, squares)
    return points[chosen]
