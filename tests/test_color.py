import numpy as np
import pytest
import skimage.color
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from platform.color import (
    ANNEALED_MEAN_TEMPERATURE,
    BINS,
    CELL,
    ab_to_bin,
    bin_centers,
    bin_table,
    decode,
    lab_to_rgb,
    rarity_weights,
    reachable_bins,
    rgb_to_lab,
    soft_labels,
)

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
AB = st.floats(-127.9, 127.9, allow_nan=False)


def reference_bins(lab: np.ndarray) -> np.ndarray:
    cell = np.floor(20 * (lab[..., 1:] + 128) / 256).astype(np.int64)
    return cell[..., 0] * 20 + cell[..., 1]


@pytest.fixture(scope="module")
def dense_rgb() -> np.ndarray:
    """Every third code of each channel with 0 and 255 among them: 636,056 colours, (86, 86 * 86, 3)."""
    code = np.arange(0, 256, 3, dtype=np.uint8)
    return np.stack(np.meshgrid(code, code, code, indexing="ij"), axis=-1).reshape(len(code), -1, 3)


@pytest.mark.parametrize("device", DEVICES)
def test_lab_and_bins_equal_scikit_image(dense_rgb: np.ndarray, device: str) -> None:
    reference = skimage.color.rgb2lab(dense_rgb)
    lab = rgb_to_lab(torch.tensor(dense_rgb, device=device))
    assert np.abs(lab.cpu().numpy() - reference).max() < 2e-4

    bins = ab_to_bin(lab[..., 1:]).cpu().numpy()
    differ = bins != reference_bins(reference)
    # Only colours that lie on an edge between cells, to float32's rounding, may fall to the other side:
    # one of these 636,056 by the last count (1.6e-6), so a share of 1e-5 leaves room for another processor's rounding.
    edge_distance = np.abs((reference[..., 1:] + 128) / CELL - np.round((reference[..., 1:] + 128) / CELL)).min(-1)
    assert differ.mean() <= 1e-5
    assert (edge_distance[differ] < 1e-4).all()


@pytest.mark.parametrize("device", DEVICES)
def test_rgb_survives_lab_and_back(dense_rgb: np.ndarray, device: str) -> None:
    rgb = torch.tensor(dense_rgb, device=device)
    assert torch.equal(lab_to_rgb(rgb_to_lab(rgb)), rgb)


def test_colours_outside_the_gamut_are_clipped_as_in_scikit_image() -> None:
    generator = np.random.default_rng(0)
    lab = np.stack([generator.uniform(0, 100, 5000), *generator.uniform(-110, 110, (2, 5000))], axis=-1)
    with np.errstate(invalid="ignore"), pytest.warns(UserWarning, match="negative Z"):
        reference = skimage.color.lab2rgb(lab[None])[0]
    rgb = lab_to_rgb(torch.tensor(lab))
    assert np.abs(rgb.numpy().astype(int) - np.round(reference * 255)).max() <= 1


def test_reachable_bins_are_those_of_all_colours() -> None:
    code = torch.arange(256, dtype=torch.uint8)
    seen = torch.zeros(BINS, dtype=torch.bool)
    green, blue = torch.meshgrid(code, code, indexing="ij")
    for red in range(256):
        rgb = torch.stack((torch.full_like(green, red), green, blue), dim=-1)
        seen[ab_to_bin(rgb_to_lab(rgb)[..., 1:]).flatten()] = True
    assert seen.sum() == 167
    assert torch.equal(seen.nonzero().flatten(), reachable_bins())


def test_bin_centers_lie_in_their_bins() -> None:
    assert torch.equal(ab_to_bin(bin_centers()), torch.arange(BINS))
    assert bin_centers()[0].tolist() == pytest.approx([-121.6, -121.6])
    assert bin_centers()[1].tolist() == pytest.approx([-121.6, -108.8])


def dense_soft_label(ab: np.ndarray, sigma: float) -> np.ndarray:
    """Z over the whole grid by the definition, pixel by pixel and cell by cell."""
    labels = np.zeros((len(ab), 20, 20))
    for pixel, (a, b) in enumerate(ab):
        own = [int(np.floor(20 * (value + 128) / 256)) for value in (a, b)]
        for i in range(max(own[0] - 1, 0), min(own[0] + 1, 19) + 1):
            for j in range(max(own[1] - 1, 0), min(own[1] + 1, 19) + 1):
                center = (i + 0.5) * 12.8 - 128, (j + 0.5) * 12.8 - 128
                labels[pixel, i, j] = np.exp(-((a - center[0]) ** 2 + (b - center[1]) ** 2) / (2 * sigma**2))
    dense = labels.reshape(-1, 400)
    normalised: np.ndarray = dense / dense.sum(1, keepdims=True)
    return normalised


def scattered(outputs: Tensor, weights: Tensor, heads: int) -> Tensor:
    return torch.zeros(len(outputs), heads, dtype=weights.dtype).scatter_add_(1, outputs, weights)


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_soft_labels_equal_the_definition(sigma: float) -> None:
    ab = torch.tensor(np.random.default_rng(1).uniform(-128, 127.9, (500, 2)))
    outputs, weights = soft_labels(ab, bin_table("grid"), sigma)
    assert scattered(outputs, weights, 400).numpy() == pytest.approx(dense_soft_label(ab.numpy(), sigma), abs=1e-12)


@given(a=AB, b=AB, sigma=st.floats(1.0, 20.0))
def test_soft_labels_sum_to_one_and_keep_the_bin(a: float, b: float, sigma: float) -> None:
    ab = torch.tensor([[a, b]], dtype=torch.float64)
    table = bin_table("grid")
    outputs, weights = soft_labels(ab, table, sigma)
    dense = scattered(outputs, weights, BINS)
    assert float(dense.sum()) == pytest.approx(1, abs=1e-12)
    # A pixel on an edge is as near to both centres, to rounding.
    assert float(dense[0, ab_to_bin(ab)[0]]) == pytest.approx(float(dense.max()), rel=1e-9)
    assert outputs[0, 4] == ab_to_bin(ab)[0]


def test_soft_labels_over_reachable_bins_are_those_of_the_grid_given_that_srgb_has_the_colour() -> None:
    rgb = torch.tensor(np.random.default_rng(2).integers(0, 256, (2000, 3), dtype=np.uint8))
    ab = rgb_to_lab(rgb)[:, 1:].double()
    reachable = bin_table("reachable")
    outputs, weights = soft_labels(ab, reachable)
    expected = torch.tensor(dense_soft_label(ab.numpy(), 5.0))[:, reachable.grid_bins]
    expected /= expected.sum(1, keepdim=True)
    torch.testing.assert_close(scattered(outputs, weights, len(reachable.grid_bins)), expected)
    assert torch.equal(reachable.grid_bins[outputs[:, 4]], ab_to_bin(ab))


# Few bins hold most pixels, as in photographs; the others hold none.
distributions = st.dictionaries(st.integers(0, BINS - 1), st.floats(1e-6, 1), min_size=1, max_size=30)


def dense_share(share: dict[int, float]) -> Tensor:
    p = torch.zeros(BINS, dtype=torch.float64)
    p[list(share)] = torch.tensor(list(share.values()), dtype=torch.float64)
    return p / p.sum()


@given(share=distributions, rebalancing=st.floats(0, 1))
def test_rarity_weights_average_to_one(share: dict[int, float], rebalancing: float) -> None:
    p = dense_share(share)
    weights = rarity_weights(p, rebalancing)
    assert weights.isfinite().all()
    assert float(p @ weights) == pytest.approx(1, abs=1e-9)
    order = p.argsort()
    assert (weights[order].diff() <= 1e-9 * weights[order][:-1]).all()  # the rarer, the heavier


@given(share=distributions)
def test_no_rebalancing_is_plain_classification(share: dict[int, float]) -> None:
    weights = rarity_weights(dense_share(share), 1.0)
    assert torch.equal(weights.float(), torch.ones(BINS))


def test_rarity_weights_equal_the_formula_and_full_rebalancing_is_inverse_frequency() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(BINS))
    for rebalancing in (0.0, 0.25, 0.75):
        raw = 1 / ((1 - rebalancing) * p + rebalancing / 400)
        assert rarity_weights(torch.tensor(p), rebalancing).numpy() == pytest.approx(raw / (p * raw).sum())
    assert (rarity_weights(torch.tensor(p), 0.0).numpy() * p) == pytest.approx(np.full(BINS, 1 / BINS))


@pytest.mark.parametrize("rebalancing", [-0.1, 1.1, float("nan")])
def test_rebalancing_outside_its_range_is_refused(rebalancing: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        rarity_weights(torch.ones(BINS) / BINS, rebalancing)


def test_decoding() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    centers = torch.randn(7, 2, generator=generator, dtype=torch.float64) * 50
    z = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    annealed = np.exp(np.log(z) / ANNEALED_MEAN_TEMPERATURE)  # Zhang et al. 2016, equation 5
    annealed /= annealed.sum(1, keepdims=True)
    assert decode(logits, centers, "mean").numpy() == pytest.approx(z @ centers.numpy())
    assert decode(logits, centers, "annealed_mean").numpy() == pytest.approx(annealed @ centers.numpy())
    assert torch.equal(decode(logits, centers, "mode"), centers[logits.argmax(1)])
