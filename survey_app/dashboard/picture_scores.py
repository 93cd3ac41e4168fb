"""What is worked out from stored pictures: how far they are off, where models disagree, which colours they have."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab

from db.pictures import encoded, pixels

HALF_WIDTHS = (20, 40, 60, 80, 100, 128)  # of the ab plane that a histogram shows, in Lab units
CELLS = 32  # of a histogram, along a and along b
LIGHTNESS = 65.0  # of a histogram's colours


@dataclass(frozen=True, eq=False)
class PictureScores:
    """delta_e: float (images, contenders), mean ΔE2000 against the photograph, NaN where there is no picture.
    disagreement: float (images,), how far apart the contenders' colours are: the root mean square distance in ab, over
    pixels and contenders, from the contenders' mean; NaN where there are fewer than two pictures."""

    delta_e: np.ndarray
    disagreement: np.ndarray


def score_pictures(truths: Sequence[bytes], pictures: Sequence[Sequence[bytes | None]]) -> PictureScores:
    """truths: a PNG an image. pictures: for each image the contenders' PNGs, of the photograph's size, or None."""
    count = len(pictures[0]) if pictures else 0
    delta_e, disagreement = np.full((len(truths), count), np.nan), np.full(len(truths), np.nan)
    for row, (truth_png, pngs) in enumerate(zip(truths, pictures, strict=True)):
        there = [column for column, png in enumerate(pngs) if png is not None]
        if not there:
            continue
        truth = _lab(pixels(truth_png))
        fakes = _lab(np.stack([pixels(png) for png in pngs if png is not None]))
        errors = deltaE_ciede2000(np.broadcast_to(truth, fakes.shape), fakes)  # type: ignore[no-untyped-call]
        delta_e[row, there] = errors.mean(axis=(1, 2))
        if len(there) > 1:
            ab = fakes[..., 1:]
            disagreement[row] = np.sqrt(((ab - ab.mean(axis=0)) ** 2).sum(axis=-1).mean())
    return PictureScores(delta_e, disagreement)


def grey_png(truth_png: bytes) -> bytes:
    """What a model sees: the photograph's lightness alone."""
    lab = _lab(pixels(truth_png))
    lab[..., 1:] = 0.0
    return encoded(np.round(255 * lab2rgb(lab)).astype(np.uint8))


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
