"""What is worked out from stored pictures: where models disagree, and which colours they have."""

import warnings
from collections.abc import Sequence

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from db.pictures import pixels

HALF_WIDTHS = (20, 40, 60, 80, 100, 128)  # of the ab plane that a histogram shows, in Lab units
CELLS = 32  # of a histogram, along a and along b
LIGHTNESS = 65.0  # of a histogram's colours


def disagreement(pictures: Sequence[Sequence[bytes | None]]) -> np.ndarray:
    """How far apart the contenders' colours are, float (images,): the root mean square distance in ab, over pixels and
    contenders, from the contenders' mean; NaN where there are fewer than two pictures. pictures: for each image the
    contenders' PNGs, of one size, or None."""
    distances = np.full(len(pictures), np.nan)
    for row, pngs in enumerate(pictures):
        ab = [_lab(pixels(png))[..., 1:] for png in pngs if png is not None]
        if len(ab) > 1:
            distances[row] = np.sqrt(((ab - np.mean(ab, axis=0)) ** 2).sum(axis=-1).mean())
    return distances


def ab_histograms(pngs: Sequence[bytes]) -> tuple[list[np.ndarray], int]:
    """For each picture, int (CELLS, CELLS): pixels by b (rows, from the lowest) and a (columns), and the largest |a| or
    |b| of the part of the plane that they show, the same for all."""
    planes = [_lab(pixels(png))[..., 1:].reshape(-1, 2) for png in pngs]
    reach = max(float(np.abs(plane).max()) for plane in planes)
    half = next(width for width in HALF_WIDTHS if reach < width or width == HALF_WIDTHS[-1])
    edges = np.linspace(-half, half, CELLS + 1)
    return [np.histogram2d(plane[:, 1], plane[:, 0], bins=(edges, edges))[0].astype(int) for plane in planes], half


def histogram_svg(counts: np.ndarray, half: int, label: str) -> str:
    """A histogram of ab_histograms() as SVG: each cell in its own colour, the more solid the more pixels it has. Grey
    is in the middle, green left, red right, blue below, yellow above."""
    centres = (np.arange(CELLS) + 0.5) / CELLS * 2 * half - half
    lab = np.stack([np.full(counts.shape, LIGHTNESS), *np.meshgrid(centres, centres)], axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # colours outside sRGB are clipped
        rgb = np.round(255 * lab2rgb(lab)).astype(int)
    solid = 0.5 + 0.5 * np.sqrt(counts / max(int(counts.max()), 1))
    cells = "".join(
        f'<rect x="{column}" y="{CELLS - 1 - row}" width="1" height="1" '
        f'fill="rgb({",".join(map(str, rgb[row, column]))})" fill-opacity="{solid[row, column]:.2f}"/>'
        for row, column in np.argwhere(counts).tolist()
    )
    middle = CELLS / 2
    return (
        f'<svg viewBox="0 0 {CELLS} {CELLS}" role="img" aria-label="{label}" shape-rendering="crispEdges">'
        f'<rect width="{CELLS}" height="{CELLS}" fill="currentColor" fill-opacity="0.08"/>{cells}'
        f'<path d="M{middle} 0V{CELLS}M0 {middle}H{CELLS}" stroke="currentColor" stroke-opacity="0.4" '
        'stroke-width="0.15"/></svg>'
    )


def mean_chroma(png: bytes) -> float:
    """The mean distance of a picture's colours from grey, in Lab units."""
    return float(np.linalg.norm(_lab(pixels(png))[..., 1:], axis=-1).mean())


def _lab(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(rgb2lab(rgb))
