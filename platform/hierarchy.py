"""Coarser grids over a palette: the right family of colours counts, too, and not the exact bin alone.

The grids of 5 x 5 and 10 x 10 cells nest in the one of 20 x 20. The probability of a coarse cell is the sum of those of
the entries whose centres lie in it, and so is its part of a soft label: cross-entropies on coarse grids need no
parameters of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from platform.palettes import Palette, ab_to_bin


@dataclass(frozen=True, eq=False)
class Families:
    """The cells of one or more coarse grids that have an entry of the palette, all grids' in one numbering."""

    cell: Tensor  # int64 (grids, entries): the cell that each entry lies in
    membership: Tensor  # float32 (entries, cells of all grids): 1 where it does
    bins: tuple[Tensor, ...]  # for each grid, int64 (its cells,): their bins in it

    def likeliest_bins(self, logits: Tensor) -> Tensor:
        """Return each grid's likeliest bin, int64 (pixels, grids), of logits (pixels, entries)."""
        probability = logits.softmax(-1) @ self.membership
        parts = probability.split([len(bins) for bins in self.bins], dim=1)
        return torch.stack([bins[part.argmax(1)] for bins, part in zip(self.bins, parts, strict=True)], dim=1)


def families(palette: Palette, grids: Sequence[int]) -> Families:
    """Sort a palette's entries into the cells of each grid of `grids` x `grids`; on the palette's device."""
    cells, bins, start = [], [], 0
    for grid in grids:
        present, cell = ab_to_bin(palette.centers, grid).unique(return_inverse=True)
        cells.append(cell + start)
        bins.append(present)
        start += len(present)
    cell = torch.stack(cells)
    return Families(cell, torch.nn.functional.one_hot(cell, start).sum(0).float(), tuple(bins))
