"""Palettes: the colours that a classifier can name, and everything that follows from them for every pixel.

Soft labels, the right entry and the bin of the grid depend on a pixel's rounded (a, b) alone, of which there are 256 x
256. So a palette is a table over those, and soft labels are looked up.
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from platform.color.lab import rgb_to_lab

SIDE = 256  # whole values of a and of b, from -128 to 127
COLOURS = SIDE * SIDE
GRID = 20  # cells along a and along b
BINS = GRID * GRID
CELL = SIDE / GRID  # 12.8 Lab units
NEIGHBOURS = 9  # entries of a soft label
SOFT_LABEL_SIGMA = 5.0  # Lab units; Zhang et al. 2016


def ab_to_colour(ab: Tensor) -> Tensor:
    """Return the rounded ab (..., 2), clipped to [-128, 127], as one number int64 (...) in [0, 65535]."""
    values = ab.round().add_(128).clamp_(0, SIDE - 1).long()
    return values[..., 0] * SIDE + values[..., 1]


def all_colours() -> Tensor:
    """Return the ab of every colour number, float32 (65536, 2)."""
    axis = torch.arange(SIDE, dtype=torch.float32) - 128
    return torch.stack((axis.repeat_interleave(SIDE), axis.repeat(SIDE)), dim=-1)


def ab_to_bin(ab: Tensor) -> Tensor:
    """Return the bin of ab (..., 2) in the 20x20 grid, 20 * i_a + i_b, as int64 (...).

    i = floor(20 * v / 256) of v = round(ab) + 128: the grid lies on the whole values, as the study counted them, so
    that a pixel whose rounded a and b are right is in the right bin.
    """
    cell = ab.round().add_(128).clamp_(0, SIDE - 1).long() * GRID // SIDE
    return cell[..., 0] * GRID + cell[..., 1]


def bin_centers() -> Tensor:
    """Return the ab of every bin's centre, float64 (400, 2)."""
    axis = (torch.arange(GRID, dtype=torch.float64) + 0.5) * CELL - 128
    return torch.stack((axis.repeat_interleave(GRID), axis.repeat(GRID)), dim=-1)


@functools.lru_cache
def reachable_colours() -> Tensor:
    """Return which colour numbers some sRGB colour rounds to, bool (65536,).

    The shadow of a solid on a plane is the shadow of its surface, so the six faces of the RGB cube reach, up to
    rounding, whatever any colour reaches; a test compares the bins with those of all 16.7 million colours.
    """
    code = torch.arange(256, dtype=torch.uint8)
    first, second = torch.meshgrid(code, code, indexing="ij")
    reached = torch.zeros(COLOURS, dtype=torch.bool)
    for axis in range(3):
        for value in (0, 255):
            channels = [first.flatten(), second.flatten()]
            channels.insert(axis, torch.full((256 * 256,), value, dtype=torch.uint8))
            reached[ab_to_colour(rgb_to_lab(torch.stack(channels, dim=-1))[:, 1:])] = True
    return reached


@dataclass(frozen=True, eq=False)
class Palette:
    """The entries of a classifier, and for each of the 65,536 colours what it is called. All on one device."""

    centers: Tensor  # float32 (Q, 2): the ab of each entry
    entries: Tensor  # int64 (65536, k): a colour's own entry first, then its neighbours
    weights: Tensor  # float32 (65536, k): of the soft label Z, summing to 1; 0 where there is no such neighbour
    is_grid: bool = False  # of 20x20 cells, all or the reachable ones

    def to(self, device: torch.device | str) -> "Palette":
        return replace(
            self, centers=self.centers.to(device), entries=self.entries.to(device), weights=self.weights.to(device)
        )

    @property
    def size(self) -> int:
        """The Q of λ / Q: all cells of the grid, also where only the reachable ones are entries."""
        return BINS if self.is_grid else len(self.centers)

    @functools.cached_property
    def bins(self) -> Tensor:
        """The bin of the 20x20 grid that each entry's centre is in, int64 (Q,)."""
        return ab_to_bin(self.centers)

    def soft_labels(self, ab: Tensor) -> tuple[Tensor, Tensor]:
        """Return the soft label of each pixel of ab (..., 2): entries int64 (pixels, k) and weights float32 (pixels,
        k)."""
        colour = ab_to_colour(ab).flatten()
        return self.entries.index_select(0, colour), self.weights.index_select(0, colour)

    def own_entry(self, ab: Tensor) -> Tensor:
        """Return the entry that each pixel of ab (..., 2) is called by, int64 (pixels,)."""
        return self.entries[:, 0].index_select(0, ab_to_colour(ab).flatten())


def grid_palette(*, reachable: bool = True, sigma: float = SOFT_LABEL_SIGMA) -> Palette:
    """Make the palette of the 20x20 grid over ab: every cell, or those that sRGB reaches (167 of the 400).

    The soft label has the own cell and the eight around it, Gaussian (sigma, Lab units) in the distance from the
    rounded ab to their centres. Over the reachable cells it is conditioned on being a colour that sRGB has: cells that
    none reaches get no weight. (Colours that sRGB does not have are called by the nearest cell that is there.)
    """
    centers, colours = bin_centers(), all_colours()
    present = torch.ones(BINS, dtype=torch.bool)
    if reachable:
        present = torch.zeros_like(present)
        present[ab_to_bin(colours[reachable_colours()]).unique()] = True
    entry_of = torch.where(present, present.cumsum(0) - 1, -1)
    own = ab_to_bin(colours)
    around = torch.stack((own // GRID, own % GRID), dim=-1)[:, None] + torch.tensor(_OWN_AND_AROUND)
    inside = ((around >= 0) & (around < GRID)).all(-1)
    bins = (around[..., 0] * GRID + around[..., 1]).where(inside, own[:, None])
    entries = entry_of[bins].masked_fill(~inside, -1)
    lost = entries[:, 0] < 0
    if bool(lost.any()):
        entries[lost] = -1
        entries[lost, 0] = torch.cdist(colours[lost].double(), centers[present]).argmin(1)
    return _palette(centers[present], entries, sigma, is_grid=True)


_OWN_AND_AROUND = [(0, 0), (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]


def nearest_palette(centers: Tensor, *, sigma: float = SOFT_LABEL_SIGMA) -> Palette:
    """Make the palette of any centres, float (Q, 2) in ab: a colour is called by the nearest, its soft label has the
    nine nearest, Gaussian (sigma, Lab units) in the distance to them."""
    centers = centers.double()
    distance = torch.cdist(all_colours().double(), centers)
    entries = distance.topk(min(NEIGHBOURS, len(centers)), largest=False).indices
    return _palette(centers, entries, sigma)


def _palette(centers: Tensor, entries: Tensor, sigma: float, *, is_grid: bool = False) -> Palette:
    """centers: float64, so that what is as near as the own centre gets the same weight. entries: -1 where a colour has
    no such neighbour."""
    missing = entries < 0
    entries = entries.where(~missing, entries[:, :1])
    squares = (centers[entries] - all_colours().double()[:, None]).square().sum(-1)
    # Less the own one's, as the exponentials of far colours would all be zero.
    weights = (-(squares - squares[:, :1]) / (2 * sigma**2)).exp().masked_fill(missing, 0)
    return Palette(centers.float(), entries.contiguous(), (weights / weights.sum(1, keepdim=True)).float(), is_grid)


def likeliest(values: Tensor) -> Tensor:
    """Return the index of the highest of values (..., Q), the first of equals, int64 (...): `argmax`, which takes about
    eight times as long on a CPU where the last dimension is not the last in memory."""
    count = values.shape[-1]
    places = torch.arange(count, 0, -1, device=values.device, dtype=torch.float32)
    below = (values - values.amax(-1, keepdim=True)).sign_()  # 0 or -1
    return (count - below.mul_(count).add_(places).amax(-1).long()).clamp_(0, count - 1)  # NaN has none


def decode(logits: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Turn logits (..., Q) into ab (..., 2): the mean of the distribution re-normalised at a temperature (the annealed
    mean, Zhang et al. 2016, equation 5). 1 is the mean; 0, the limit, is the likeliest entry's centre."""
    if temperature == 0:
        return centers[likeliest(logits)]
    # The softmax, to base 2 (see losses.py), divided by its sum at the end, where a pixel has two numbers.
    scaled = logits * (1 / (temperature * math.log(2)))
    exponentials = scaled.sub_(scaled.detach().amax(-1, keepdim=True)).exp2_()
    # In this order, with the centres as rows, the product takes a fifth to a twentieth of the time of the other one.
    weighted = (centers.T.contiguous() @ exponentials.mT).mT
    return weighted / exponentials.sum(-1, keepdim=True)
