"""Coarser grids over a palette: the right family of colours counts, too, and not the exact bin alone.

The grids of 5 x 5 and 10 x 10 cells nest in the one of 20 x 20. The probability of a coarse cell is the sum of those of
the entries whose centres lie in it, and so is its part of a soft label: cross-entropies on coarse grids need no
parameters of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from platform.color.palettes import Palette, ab_to_bin, likeliest


@dataclass(frozen=True, eq=False)
class Families:
    """The cells of one or more coarse grids that have an entry of the palette, all grids' in one numbering."""

    cell: Tensor  # int64 (grids, entries): the cell that each entry lies in
    membership: Tensor  # float32 (entries, cells of all grids): 1 where it does
    bins: tuple[Tensor, ...]  # for each grid, int64 (its cells,): their bins in it

    def likeliest_bins(self, shares: Tensor) -> Tensor:
        """Return each grid's likeliest bin, int64 (pixels, grids), of entries' probabilities, or multiples of them,
        (pixels, entries)."""
        of_entries = shares.T.contiguous()  # rows are added many times as fast as columns or as by a product
        found, start = [], 0
        for cell, bins in zip(self.cell, self.bins, strict=True):
            of_cells = shares.new_zeros(len(bins), len(shares)).index_add_(0, cell - start, of_entries)
            found.append(bins[likeliest(of_cells, dim=0)])
            start += len(bins)
        return torch.stack(found, dim=1)


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
