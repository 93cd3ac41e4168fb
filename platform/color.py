"""sRGB and CIELAB, the 20x20 grid of ab bins, soft labels, rarity weights, decoding.

The definitions are the project's fixed ones. CIELAB is D65, 2 degrees, as `skimage.color.rgb2lab`.
Every function takes any leading shape and any device.

Lab pictures and the weights of soft labels are views of planes: an entry of all pixels lies side by side in memory, as
processors compute on such rows several times as fast as on the three or nine entries of one pixel. The outputs of soft
labels are only looked up, and lie together by pixel.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

GRID = 20  # cells along a and along b
BINS = GRID * GRID
CELL = 256 / GRID  # 12.8 Lab units
ANNEALED_MEAN_TEMPERATURE = 0.38  # Zhang et al. 2016, section 2.3

Decoding = Literal["mode", "mean", "annealed_mean"]
BinSet = Literal["reachable", "grid"]

# IEC 61966-2-1 primaries with the rounding that scikit-image uses, so that both agree to the last bin.
_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_WHITE_D65 = (0.95047, 1.0, 1.08883)


_Matrix = tuple[tuple[float, ...], ...]


@functools.lru_cache
def _conversion(device: torch.device) -> tuple[Tensor, _Matrix, _Matrix]:
    """Return (linear value of each of the 256 codes on `device`, RGB -> XYZ/white, XYZ/white -> RGB)."""
    code = torch.arange(256, dtype=torch.float64) / 255
    linear = torch.where(code > 0.04045, ((code + 0.055) / 1.055) ** 2.4, code / 12.92)
    to_xyz = torch.tensor(_XYZ_FROM_RGB, dtype=torch.float64) / torch.tensor(_WHITE_D65, dtype=torch.float64)[:, None]
    to_rows, from_rows = (tuple(map(tuple, matrix.tolist())) for matrix in (to_xyz, torch.linalg.inv(to_xyz)))
    return linear.float().to(device), to_rows, from_rows


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB uint8 (..., 3) to CIELAB float32 (..., 3): L in [0, 100], a and b in about [-108, 99]."""
    linear, to_xyz, _ = _conversion(rgb.device)
    # To another type, as PyTorch transposes within one type four times as slowly.
    codes = rgb.reshape(-1, 3).T.to(torch.int64, memory_format=torch.contiguous_format)
    xyz = _product(linear.index_select(0, codes.flatten()).view(3, -1).unbind(), to_xyz)
    # The cube root, and below the threshold its tangent there.
    f = xyz.clamp_min(0.008856).log2_().mul_(1 / 3).exp2_()
    f.add_(xyz.sub_(0.008856).clamp_max_(0), alpha=7.787)
    fx, fy, fz = f
    lab = xyz
    torch.mul(fy, 116, out=lab[0]).sub_(16)
    torch.sub(fx, fy, out=lab[1]).mul_(500)
    torch.sub(fy, fz, out=lab[2]).mul_(200)
    return lab.view(3, *rgb.shape[:-1]).movedim(0, -1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Convert CIELAB float (..., 3) to sRGB uint8 (..., 3), colours outside the gamut clipped per channel."""
    _, _, from_xyz = _conversion(lab.device)
    lightness, a, b = lab.float().unbind(-1)
    fy = (lightness + 16) / 116
    f = torch.stack((fy + a / 500, fy, (fy - b / 200).clamp_min(0)))
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    linear = _product(xyz.unbind(), from_xyz)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(1e-9).pow(1 / 2.4) - 0.055, 12.92 * linear)
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).contiguous()


def _product(planes: Sequence[Tensor], matrix: _Matrix) -> Tensor:
    """Multiply a 3x3 matrix by three planes (...), to (3, ...): in float32, whatever precision products are set to."""
    x, y, z = planes
    result = x.new_empty((3, *x.shape))
    for plane, (from_x, from_y, from_z) in zip(result, matrix, strict=True):
        torch.mul(x, from_x, out=plane).add_(y, alpha=from_y).add_(z, alpha=from_z)
    return result


def ab_to_cell(ab: Tensor) -> Tensor:
    """Return the grid cell (i_a, i_b) of ab (..., 2) as int64 (..., 2), each in [0, 19]."""
    return _cell(ab).long()


def _cell(ab: Tensor) -> Tensor:
    return (ab + 128).mul_(GRID / 256).floor_().clamp_(0, GRID - 1)


def ab_to_bin(ab: Tensor) -> Tensor:
    """Return the bin 20 * i_a + i_b of ab (..., 2) as int64 (...), in [0, 399]."""
    cell = ab_to_cell(ab)
    return cell[..., 0] * GRID + cell[..., 1]


def bin_centers() -> Tensor:
    """Return the (a, b) of every cell's centre, float32 (400, 2)."""
    axis = (torch.arange(GRID) + 0.5) * CELL - 128
    return torch.stack((axis.repeat_interleave(GRID), axis.repeat(GRID)), dim=-1)


@functools.lru_cache
def _reachable_bins() -> tuple[int, ...]:
    """Enumerate the six faces of the RGB cube.

    The shadow of a solid on a plane is the shadow of its surface, so the faces reach every bin that any
    colour reaches; a test compares them with all 16.7 million colours.
    """
    code = torch.arange(256, dtype=torch.uint8)
    first, second = torch.meshgrid(code, code, indexing="ij")
    faces = []
    for axis in range(3):
        for value in (0, 255):
            channels = [first.flatten(), second.flatten()]
            channels.insert(axis, torch.full((256 * 256,), value, dtype=torch.uint8))
            faces.append(torch.stack(channels, dim=-1))
    bins = ab_to_bin(rgb_to_lab(torch.cat(faces))[:, 1:])
    return tuple(bins.unique().tolist())


def reachable_bins() -> Tensor:
    """Return the bins that at least one sRGB colour falls into, ascending, int64 (167,)."""
    return torch.tensor(_reachable_bins())


@dataclass(frozen=True)
class BinTable:
    """The bins that a classifier's head has, and where each grid bin's 3x3 neighbours stand among them.

    grid_bins: int64 (heads,), the grid bin of each output, ascending.
    centers: float32 (heads, 2), the ab of each output.
    neighbours: int64 (400, 9), the outputs of a grid bin's 3x3 neighbourhood, row by row; 0 where there is none.
    present: float32 (9, 400), 1 where the neighbour is among the outputs, else 0.
    """

    grid_bins: Tensor
    centers: Tensor
    neighbours: Tensor
    present: Tensor

    def to(self, device: torch.device | str) -> "BinTable":
        return BinTable(
            self.grid_bins.to(device), self.centers.to(device), self.neighbours.to(device), self.present.to(device)
        )


def bin_table(bins: BinSet) -> BinTable:
    """Build the table for the whole grid, or for the reachable bins only.

    Over the reachable bins a soft label is conditioned on being a colour that sRGB has: neighbours that no
    colour reaches get no weight, and the remaining weights still sum to 1. The pixel's own cell is always
    reachable, so argmax and total weight stay those of the definition over the whole grid.
    """
    grid_bins = torch.arange(BINS) if bins == "grid" else reachable_bins()
    output_of = torch.full((GRID + 2, GRID + 2), -1)  # a border of absent cells around the grid
    output_of[1 + grid_bins // GRID, 1 + grid_bins % GRID] = torch.arange(len(grid_bins))
    steps = range(3)
    neighbours = torch.stack(
        [output_of[i : i + GRID, j : j + GRID].flatten() for i in steps for j in steps],
    )
    return BinTable(
        grid_bins,
        bin_centers()[grid_bins],
        neighbours.T.clamp_min(0).contiguous(),
        (neighbours >= 0).to(torch.get_default_dtype()),
    )


def soft_labels(ab: Tensor, table: BinTable, sigma: float = 5.0) -> tuple[Tensor, Tensor]:
    """Return the soft label Z of each pixel as its at most 9 non-zero entries.

    ab: float (..., 2) in Lab units; sigma in Lab units. Returns (outputs int64 (..., 9), weights like ab (..., 9)):
    Gaussian in the distance from the pixel's ab to the neighbours' centres, summing to 1. The pixel's own cell
    is entry 4; it has the largest weight, since no other centre is nearer.
    """
    planes = ab.movedim(-1, 0).reshape(2, -1)
    cell = _cell(planes)
    grid_bin = (cell[0] * GRID).add_(cell[1]).long()
    to_own_center = cell.add_(0.5).mul_(CELL).sub_(128).sub_(planes)
    # A neighbour's weight over the own cell's, along a and along b: for distances d and d ± CELL to the two centres
    # exp((d² - (d ± CELL)²) / 2σ²), to base 2 (see losses.py).
    scale = 1 / (2 * sigma**2 * math.log(2))
    after = to_own_center.mul_(-2 * CELL * scale)
    before = (-CELL * CELL * scale) - after
    after.sub_(CELL * CELL * scale).exp2_()
    before.exp2_()
    weights = table.present.index_select(1, grid_bin).to(ab.dtype)
    rows = weights.view(3, 3, -1)
    rows[0] *= before[0]
    rows[2] *= after[0]
    rows[:, 0] *= before[1]
    rows[:, 2] *= after[1]
    weights.div_(weights.sum(0))
    outputs = table.neighbours.index_select(0, grid_bin)
    return outputs.view(*ab.shape[:-1], 9), weights.view(9, *ab.shape[:-1]).movedim(0, -1)


def add_soft_labels(total: Tensor, outputs: Tensor, weights: Tensor) -> None:
    """Add soft labels (outputs, weights), each (..., 9), into `total`, float64 (heads,), in place."""
    total += torch.bincount(outputs.flatten(), weights.flatten().double(), minlength=len(total))


def rarity_weights(mean_soft_label: Tensor, rebalancing: float) -> Tensor:
    """Return the weight w of each bin, float64 like (bins,): w proportional to 1 / ((1 - λ) p̄ + λ / Q).

    mean_soft_label: p̄, non-negative, (Q,) over the whole grid (Q = 400). rebalancing: λ in [0, 1]; 1 gives 1
    everywhere, 0 full inverse frequency. Normalised so that Σ p̄ w = 1 (Zhang et al. 2016, equation 4, with
    the soft labels as the smoothing). At λ = 0 a bin that no training pixel touches would get an infinite
    weight; it gets that of the rarest bin that was seen.

    Raises ValueError for λ outside [0, 1] or p̄ that is negative or all zero.
    """
    if not 0 <= rebalancing <= 1:
        raise ValueError(f"rebalancing (λ) is {rebalancing}, expected a number from 0 to 1")
    share = mean_soft_label.double()
    if bool((share < 0).any()) or not float(share.sum()) > 0:
        raise ValueError("mean_soft_label must be non-negative with a positive sum")
    share = share / share.sum()
    weights = 1 / ((1 - rebalancing) * share + rebalancing / len(share))
    weights = weights.masked_fill(weights.isinf(), float(weights[weights.isfinite()].max()))
    return weights / (share @ weights)


def decode(logits: Tensor, centers: Tensor, decoding: Decoding) -> Tensor:
    """Turn logits (..., heads) into ab (..., 2): the likeliest bin's centre, the mean, or the annealed mean.

    The annealed mean is the mean of the distribution re-normalised at temperature T = 0.38 (Zhang et al. 2016,
    equation 5).
    """
    if decoding == "mode":
        return centers[logits.argmax(-1)]
    temperature = 1.0 if decoding == "mean" else ANNEALED_MEAN_TEMPERATURE
    # The softmax, to base 2 (see losses.py), divided by its sum at the end, where a pixel has two numbers.
    scaled = logits * (1 / (temperature * math.log(2)))
    exponentials = scaled.sub_(scaled.amax(-1, keepdim=True)).exp2_()
    return (exponentials @ centers) / exponentials.sum(-1, keepdim=True)
