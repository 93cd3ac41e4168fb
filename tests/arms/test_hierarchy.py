import pytest
import torch
from torch import Tensor, nn

from platform.arms.hierarchy import families
from platform.arms.losses import SoftLabels, dense_cross_entropy, soft_label_cross_entropy
from platform.color.palettes import COARSE_GRIDS, ab_to_bin, all_colours, bin_centers, grid_palette, nearest_palette

PALETTES = {"grid": grid_palette(), "others": nearest_palette(bin_centers(4))}


def test_coarse_grids_nest_in_the_fine_one() -> None:
    """Every colour is in the coarse cell that its fine bin's centre is in."""
    colours = all_colours()
    for cells in COARSE_GRIDS:
        of_bin = ab_to_bin(bin_centers().float(), cells)
        assert torch.equal(ab_to_bin(colours, cells), of_bin[ab_to_bin(colours)])


@pytest.mark.parametrize("palette", PALETTES.values(), ids=PALETTES)
def test_the_likeliest_family_has_the_largest_sum(palette: object) -> None:
    found = families(palette, COARSE_GRIDS)  # type: ignore[arg-type]
    logits = 2 * torch.randn(300, len(found.membership), generator=torch.Generator().manual_seed(0))
    bins = found.likeliest_bins(logits.softmax(1))
    for place, cells in enumerate(COARSE_GRIDS):
        cell = ab_to_bin(palette.centers, cells)  # type: ignore[attr-defined]
        sums = torch.zeros(300, cells * cells).index_add_(1, cell, logits.softmax(1))
        assert torch.equal(bins[:, place], sums.argmax(1))


def reference(logits: Tensor, soft: Tensor, cells_of: list[Tensor], v: Tensor) -> Tensor:
    """Over all entries and all cells, as the definition has it."""
    probability = logits.softmax(1)
    loss = -(soft * probability.log()).sum(1)
    for cell in cells_of:
        count = int(cell.max()) + 1
        of_cell = [torch.zeros(len(soft), count).to(soft).index_add(1, cell, x) for x in (soft, probability)]
        loss = loss - (of_cell[0] * of_cell[1].clamp_min(1e-300).log()).sum(1)
    return (loss * v).mean()


@pytest.mark.parametrize("grids", [(5,), (5, 10)])
def test_coarse_losses_and_their_gradients_equal_the_dense_formula(grids: tuple[int, ...]) -> None:
    palette, generator = PALETTES["grid"], torch.Generator().manual_seed(0)
    ab = 60 * torch.rand(200, 2, generator=generator) - 30
    entries, weights = palette.soft_labels(ab)
    weights = weights.double()
    features, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in ((200, 6), (len(palette.centers), 6), (len(palette.centers),))
    )
    v = torch.rand(200, generator=generator, dtype=torch.float64)
    labels = SoftLabels(entries, weights, v, families(palette, grids))
    soft = torch.zeros(200, len(palette.centers), dtype=torch.float64).scatter_add(1, entries, weights)
    cells_of = [ab_to_bin(palette.centers, grid) for grid in grids]
    logits = features @ weight.T + bias
    expected = reference(logits, soft, cells_of, v)
    fused = soft_label_cross_entropy(features, weight, bias, labels, chunk_pixels=64)
    dense = dense_cross_entropy(nn.Identity(), logits, labels)
    wanted = (features, weight, bias)
    gradients = torch.autograd.grad(expected, wanted, retain_graph=True)
    for loss in (fused, dense):
        torch.testing.assert_close(loss, expected)
        for found, gradient in zip(torch.autograd.grad(loss, wanted, retain_graph=True), gradients, strict=True):
            torch.testing.assert_close(found, gradient)


def test_logits_that_leave_a_family_without_probability_stay_finite() -> None:
    palette = PALETTES["grid"]
    entries, weights = palette.soft_labels(torch.tensor([[50.0, 40.0]]))
    labels = SoftLabels(entries, weights, None, families(palette, (5, 10)))
    weight = torch.zeros(len(palette.centers), 1, requires_grad=True)
    bias = torch.full((len(palette.centers),), -400.0)
    bias[0] = 400.0
    loss = soft_label_cross_entropy(torch.ones(1, 1), weight, bias, labels)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())
