"""What is known of colours before a pixel is looked at, as an offset: p(colour | class, place), counted once.

The network predicts the picture's class (a linear layer on the mean of its deepest features) and never reads it off
the label. Of a pixel at place m, a band of lightness and of height, log Σ_c p(c) p(q | c, m) is added to the logits.
Priors by lightness: CT² (Weng et al. 2022); the offset: Menon et al. 2020, "Long-tail learning via logit adjustment".
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from platform.color.counts import PLACES, ColourCounts
from platform.color.palettes import Palette, bin_centers

SMALLEST = 1e-9  # probability of a colour: its logarithm stays finite


class TableHead(nn.Module):
    """Map (features, class logits, place), (pixels, width + classes + 1), to logits (pixels, entries)."""

    def __init__(self, width: int, table: Tensor) -> None:
        """table: p(entry | class, place), float (classes, PLACES, entries)."""
        super().__init__()
        self.plain = nn.Linear(width, table.shape[2])
        nn.init.zeros_(self.plain.bias)
        # By place, so that a product of matrices mixes the classes of all pixels at one place. Not in checkpoints, as
        # it follows from the counts that the database has.
        self.table: Tensor
        self.register_buffer("table", table.movedim(1, 0).contiguous(), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        classes = self.table.shape[1]
        features, logits, place = rows.split((rows.shape[1] - classes - 1, classes, 1), dim=1)
        probability, place = logits.softmax(-1), place[:, 0].long()
        order = place.argsort()
        counts = torch.bincount(place, minlength=PLACES).tolist()
        mixed = [
            probability[of_place] @ self.table[number]
            for number, of_place in enumerate(order.split(counts))
            if len(of_place)
        ]
        prior = torch.cat(mixed)[order.argsort()]
        result: Tensor = self.plain(features) + prior.clamp_min(SMALLEST).log()
        return result


def entries_at_places(palette: Palette, colours: ColourCounts) -> Tensor:
    """Return p(entry | class, place), float32 (classes, PLACES, entries): each bin's share goes to the soft label of
    its centre."""
    entries, weights = (part.cpu() for part in palette.soft_labels(bin_centers().float().to(palette.centers.device)))
    to_entries = torch.zeros(len(entries), len(palette.centers)).scatter_add_(1, entries, weights)
    return colours.share_at_places()[:-1].float() @ to_entries


def class_loss(weight: float, classes: int, rows: Tensor, labels: Tensor) -> Tensor:
    """Return weight times the cross-entropy of the pictures' classes, labels (n,), by what rows (pixels, ...) say."""
    first = rows.view(len(labels), -1, rows.shape[1])[:, 0]  # all pixels of a picture say the same
    return weight * functional.cross_entropy(first[:, -classes - 1 : -1].float(), labels)
