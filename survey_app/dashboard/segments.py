"""The segments that a model divides pictures into: each in a mark of its own, beside the colours it stands for."""

import colorsys
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from db.pictures import encoded

SWATCHES = 4  # of each segment in its picture's palette, as `platform.segments` writes them
GOLDEN = 0.618034  # of the circle of hues from one segment to the next: neighbours differ, and so do any few


def read_segments(png: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The segment of each pixel, int (height, width), and all segments' swatches, uint8 (segments, SWATCHES, 3)."""
    with Image.open(io.BytesIO(png)) as picture:
        numbers = np.asarray(picture) // SWATCHES
        colours = np.array(picture.getpalette(), dtype=np.uint8)
    return numbers, colours[: len(colours) // (3 * SWATCHES) * 3 * SWATCHES].reshape(-1, SWATCHES, 3)


def marks(segments: int) -> np.ndarray:
    """A colour for each segment that tells it from others and means nothing, uint8 (segments, 3)."""
    hues = [(segment * GOLDEN % 1, 0.45 + 0.25 * (segment % 3), 0.6) for segment in range(segments)]
    return np.array([np.rint(255 * np.array(colorsys.hls_to_rgb(*hue))) for hue in hues], dtype=np.uint8)


def marked_png(png: bytes) -> bytes:
    """The picture of segments in their marks."""
    numbers, swatches = read_segments(png)
    return encoded(marks(len(swatches))[numbers])


def legend_html(arm: str, pngs: Sequence[bytes]) -> str:
    """The segments that these pictures of one model show, those of the most pixels first: mark, colours, share."""
    read = [read_segments(png) for png in pngs]
    swatches = read[0][1]
    colours = marks(len(swatches))
    shares = np.bincount(np.concatenate([numbers.ravel() for numbers, _ in read]), minlength=len(swatches))
    shares = shares / shares.sum()
    items = []
    for segment in np.argsort(-shares, kind="stable"):
        if shares[segment] > 0:
            chips = "".join(_chip(colour) for colour in swatches[segment])
            items.append(f"<li>{_chip(colours[segment], 'mark')}{chips} {shares[segment]:.0%}</li>")
    title = f"Segments of {html.escape(arm)} in these pictures: mark, likeliest colours, share of pixels"
    return f'<div class="segments"><p>{title}</p><ul>{"".join(items)}</ul></div>'


def _chip(colour: np.ndarray, kind: str = "swatch") -> str:
    return f'<i class="{kind}" style="background: rgb({", ".join(map(str, colour.tolist()))})"></i>'
