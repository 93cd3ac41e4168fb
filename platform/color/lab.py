"""sRGB and CIELAB (D65, 2 degrees, as `skimage.color.rgb2lab`); any leading shape, any device.

Lab pictures are views of planes: an entry of all pixels lies side by side in memory, as processors compute on such rows
several times as fast as on the three entries of one pixel.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

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
    f = lightness.new_empty((3, *lightness.shape))
    torch.add(lightness, 16, out=f[1]).div_(116)
    torch.add(f[1], a, alpha=1 / 500, out=f[0])
    torch.sub(f[1], b, alpha=1 / 200, out=f[2]).clamp_min_(0)
    # Both curves go on as their tangents below a threshold; powers by logarithms, in a third of the time of `pow`.
    xyz = f.clamp_min(0.2068966).pow_(3).add_(f.sub_(0.2068966).clamp_max_(0), alpha=1 / 7.787)
    linear = _product(xyz.unbind(), from_xyz)
    rgb = linear.clamp_min(0.0031308).log2_().mul_(1 / 2.4).exp2_().mul_(1.055).sub_(0.055)
    rgb.add_(linear.sub_(0.0031308).clamp_max_(0), alpha=12.92)
    return rgb.clamp_(0, 1).mul_(255).round_().to(torch.uint8).movedim(0, -1).contiguous()


def _product(planes: Sequence[Tensor], matrix: _Matrix) -> Tensor:
    """Multiply a 3x3 matrix by three planes (...), to (3, ...): in float32, whatever precision products are set to."""
    x, y, z = planes
    result = x.new_empty((3, *x.shape))
    for plane, (from_x, from_y, from_z) in zip(result, matrix, strict=True):
        torch.mul(x, from_x, out=plane).add_(y, alpha=from_y).add_(z, alpha=from_z)
    return result
