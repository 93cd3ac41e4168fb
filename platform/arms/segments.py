"""Learned segments: a pixel belongs softly to one of K segments (sky, grass, skin, …), each with colours of its own.

p(q) = Σ_k s_k P_kq: s is the softmax of what a linear layer makes of a pixel's features, P_k the distribution of
segment k over the palette, learned with everything else. It needs K exponentials per pixel where the plain
head needs one per colour.
"""

import io

import torch
from PIL import Image
from torch import Tensor, nn

from platform.color.counts import ColourCounts, kmeans_centers
from platform.color.lab import lab_to_rgb
from platform.color.palettes import Palette

SPREAD = 20.0  # Lab units, of a segment's first colours around its centre
DRAWN_LIGHTNESS = 65.0  # of segments
SMALLEST = 1e-12  # probability of a colour: its logarithm stays finite


class SegmentHead(nn.Module):
    """Map features (pixels, width) to log p, (pixels, entries)."""

    def __init__(self, width: int, first: Tensor) -> None:
        """first: log P that learning starts from, float32 (K, entries)."""
        super().__init__()
        self.segment = nn.Linear(width, len(first))
        self.colours = nn.Parameter(first.clone())

    def forward(self, rows: Tensor) -> Tensor:
        mixed = self.segment(rows).softmax(-1) @ self.colours.softmax(-1)
        log_p: Tensor = mixed.clamp_min(SMALLEST).log()
        return log_p


@torch.no_grad()
def segment_pngs(palette: Palette, head: SegmentHead, rows: Tensor, size: tuple[int, int]) -> list[bytes]:
    """Draw the segment that each pixel belongs to most, for pictures of (height, width) whose features are rows
    (pixels, width): PNGs with a palette of as many colours, each a segment's likeliest at one lightness. The
    numbers of segments are for whoever reads the file, the colours for whoever sees it.
    """
    ab = palette.centers[head.colours.argmax(-1)]
    colours = lab_to_rgb(torch.cat((torch.full_like(ab[:, :1], DRAWN_LIGHTNESS), ab), dim=-1))
    segments = head.segment(rows.float()).argmax(-1).view(-1, *size)
    return [_with_palette(picture, colours) for picture in segments]


def _with_palette(numbers: Tensor, colours: Tensor) -> bytes:
    picture = Image.fromarray(numbers.to(torch.uint8).cpu().numpy(), mode="P")
    picture.putpalette(colours.cpu().numpy().tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def first_colours(palette: Palette, colours: ColourCounts, segments: int, seed: int) -> Tensor:
    """Return log P to start from, float32 (K, entries): what the training pixels have of the colours around each of K
    centres, found by K-means."""
    centers = kmeans_centers(colours, segments, seed)
    share = colours.mean_soft_label(palette).float().clamp_min(1e-6)
    squares = (centers[:, None] - palette.centers.cpu()[None]).square().sum(-1)
    first: Tensor = (share.log() - squares / (2 * SPREAD**2)).log_softmax(-1)
    return first
