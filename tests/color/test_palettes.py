from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2lab
from torch import Tensor

from platform.color.counts import PLACES, ColourCounts, kmeans_centers, rarity_weights
from platform.color.lab import rgb_to_lab
from platform.color.palettes import (
    BINS,
    ab_to_bin,
    ab_to_colour,
    all_colours,
    bin_centers,
    decode,
    grid_palette,
    nearest_palette,
    reachable_colours,
)
from tests.contracts import PaletteContract, dense, drawn_colours, drawn_data

AB = st.floats(-127.9, 127.0, allow_nan=False)


class TestGrid(PaletteContract):
    palette = staticmethod(lambda: grid_palette(reachable=False))


class TestReachableGrid(PaletteContract):
    palette = staticmethod(grid_palette)


class TestWideSoftLabels(PaletteContract):
    palette = staticmethod(lambda: grid_palette(sigma=12.0))
    sigma = 12.0


class TestKMeans(PaletteContract):
    palette = staticmethod(lambda: nearest_palette(kmeans_centers(drawn_colours(), 32, 0)))


class TestFewCentres(PaletteContract):
    palette = staticmethod(lambda: nearest_palette(torch.tensor([[0.0, 0.0], [40.0, 30.0], [-30.0, 50.0]])))


def reference_bins(ab: np.ndarray) -> np.ndarray:
    """The definition: v = round(ab) + 128 in [0, 255], u = v / 256, cell = floor(20 u)."""
    cell = np.floor(20 * (np.clip(np.rint(ab) + 128, 0, 255) / 256)).astype(np.int64)
    return np.asarray(cell[..., 0] * 20 + cell[..., 1])


def test_bins_equal_the_definition_for_every_colour() -> None:
    colours = all_colours()
    assert ab_to_bin(colours).numpy().tolist() == reference_bins(colours.numpy()).tolist()
    assert torch.equal(ab_to_colour(colours), torch.arange(256 * 256))


@given(a=AB, b=AB, error_a=st.floats(-1.4, 1.4), error_b=st.floats(-1.4, 1.4))
def test_exactly_right_implies_the_right_bin(a: float, b: float, error_a: float, error_b: float) -> None:
    truth, predicted = torch.tensor([a, b]), torch.tensor([a + error_a, b + error_b])
    if torch.equal(truth.round(), predicted.round()):
        assert int(ab_to_bin(truth)) == int(ab_to_bin(predicted))


def test_every_grey_is_in_the_neutral_bin() -> None:
    """sRGB's greys come out at −0.0024 to 0; the bin of a = b = 0 holds them all, and so it does for skimage's ab."""
    greys = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, 3)
    assert ab_to_bin(rgb_to_lab(greys)[:, 1:]).unique().tolist() == [210] == [int(ab_to_bin(torch.zeros(2)))]


def test_reachable_bins_are_those_of_all_colours() -> None:
    code = torch.arange(256, dtype=torch.uint8)
    seen = torch.zeros(256 * 256, dtype=torch.bool)
    green, blue = torch.meshgrid(code, code, indexing="ij")
    for red in range(256):
        rgb = torch.stack((torch.full_like(green, red), green, blue), dim=-1)
        seen[ab_to_colour(rgb_to_lab(rgb)[..., 1:]).flatten()] = True
    bins = ab_to_bin(all_colours())
    assert bins[seen].unique().tolist() == bins[reachable_colours()].unique().tolist()
    assert len(grid_palette().centers) == len(bins[seen].unique()) == 167


def test_bin_centers_lie_in_their_bins() -> None:
    assert torch.equal(ab_to_bin(bin_centers()), torch.arange(BINS))
    assert bin_centers()[0].tolist() == pytest.approx([-121.6, -121.6])
    assert bin_centers()[1].tolist() == pytest.approx([-121.6, -108.8])


def dense_soft_label(ab: np.ndarray, sigma: float) -> np.ndarray:
    """Z over the whole grid by the definition, pixel by pixel and cell by cell."""
    labels = np.zeros((len(ab), 20, 20))
    for pixel, (a, b) in enumerate(np.rint(ab)):
        own = [int(np.floor(20 * (value + 128) / 256)) for value in (a, b)]
        for i in range(max(own[0] - 1, 0), min(own[0] + 1, 19) + 1):
            for j in range(max(own[1] - 1, 0), min(own[1] + 1, 19) + 1):
                center = (i + 0.5) * 12.8 - 128, (j + 0.5) * 12.8 - 128
                labels[pixel, i, j] = np.exp(-((a - center[0]) ** 2 + (b - center[1]) ** 2) / (2 * sigma**2))
    flat = labels.reshape(-1, 400)
    normalised: np.ndarray = flat / flat.sum(1, keepdims=True)
    return normalised


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_soft_labels_equal_the_definition(sigma: float) -> None:
    ab = torch.tensor(np.random.default_rng(1).uniform(-128, 127.4, (500, 2)))
    palette = grid_palette(reachable=False, sigma=sigma)
    found = dense(palette, *palette.soft_labels(ab))
    assert found.numpy() == pytest.approx(dense_soft_label(ab.numpy(), sigma), abs=1e-6)


def test_soft_labels_over_reachable_bins_are_those_of_the_grid_given_that_srgb_has_the_colour() -> None:
    rgb = torch.tensor(np.random.default_rng(2).integers(0, 256, (2000, 3), dtype=np.uint8))
    ab = rgb_to_lab(rgb)[:, 1:].double()
    palette = grid_palette()
    expected = torch.tensor(dense_soft_label(ab.numpy(), 5.0))[:, palette.bins]
    expected /= expected.sum(1, keepdim=True)
    found = dense(palette, *palette.soft_labels(ab)).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(palette.bins[palette.own_entry(ab)], ab_to_bin(ab))


def test_kmeans_is_fixed_by_its_seed_and_serves_colours_better_than_the_grid() -> None:
    colours = drawn_colours()
    centers = kmeans_centers(colours, 32, 0)
    assert centers.shape == (32, 2)
    assert torch.equal(centers, kmeans_centers(colours, 32, 0))
    assert not torch.equal(centers, kmeans_centers(colours, 32, 1))
    weights, points = colours.counts.double().sqrt(), all_colours().double()

    def inertia(of: Tensor) -> float:
        return float((weights * torch.cdist(points, of.double()).amin(1).square()).sum())

    grid = grid_palette().centers
    used = grid[drawn_colours().share(grid_palette()) > 0]
    assert inertia(centers) < inertia(used)
    # Lloyd's fixed point: every centre is the weighted mean of the colours that are nearest to it.
    own = torch.cdist(points, centers.double()).argmin(1)
    for entry in range(32):
        mine = (own == entry) & (weights > 0)
        mean = (weights[mine, None] * points[mine]).sum(0) / weights[mine].sum()
        torch.testing.assert_close(mean, centers[entry].double(), rtol=0, atol=1e-3)


def test_kmeans_of_fewer_colours_than_centres_has_one_for_each() -> None:
    counts = torch.zeros(256 * 256, dtype=torch.int64)
    counts[[5, 700, 40_000]] = torch.tensor([1, 10, 100])
    few = replace(drawn_colours(), counts=counts)
    assert kmeans_centers(few, 16, 0).tolist() == all_colours()[[5, 700, 40_000]].tolist()


def test_shares_at_places_are_those_of_the_pixels() -> None:
    """Pixel by pixel in numpy; smoothing as Bayes would have it, 300 pixels' worth of the coarser share."""
    data, shares = drawn_data(), drawn_colours().share_at_places()
    assert shares.shape == (3, PLACES, BINS)
    torch.testing.assert_close(shares.sum(-1), torch.ones(3, PLACES, dtype=torch.float64))
    counts = np.zeros((2, PLACES, BINS))
    lab = rgb2lab(data.train_images)
    for picture, label in zip(lab, data.train_labels, strict=True):
        for row, of_row in enumerate(picture):
            for lightness, *ab in of_row:
                cell = np.floor(20 * (np.round(ab) + 128) / 256).astype(int)
                place = 4 * min(int(lightness / 12.5), 7) + row // 4  # of 16 rows
                counts[label, place, 20 * cell[0] + cell[1]] += 1
    everywhere = (counts.sum((0, 1)) + 1) / (counts.sum() + BINS)
    of_place = (counts.sum(0) + 300 * everywhere) / (counts.sum((0, 2))[:, None] + 300)
    of_class = (counts + 300 * of_place) / (counts.sum(2, keepdims=True) + 300)
    expected = torch.from_numpy(np.concatenate((of_class, of_place[None])))
    # A pixel at the edge of a band or bin may fall to either side in float32.
    assert float((shares - expected).abs().sum(-1).max()) < 1e-2


def test_counts_survive_their_bytes() -> None:
    colours = drawn_colours()
    unpacked = ColourCounts.from_bytes(colours.to_bytes())
    assert torch.equal(unpacked.counts, colours.counts)
    assert torch.equal(unpacked.at_places, colours.at_places)
    assert int(colours.counts.sum()) == drawn_data().train_images[..., 0].size


# Few bins hold most pixels, as in photographs; the others hold none.
distributions = st.dictionaries(st.integers(0, BINS - 1), st.floats(1e-6, 1), min_size=1, max_size=30)


def dense_share(share: dict[int, float]) -> Tensor:
    p = torch.zeros(BINS, dtype=torch.float64)
    p[list(share)] = torch.tensor(list(share.values()), dtype=torch.float64)
    return p / p.sum()


@given(share=distributions, rebalancing=st.floats(0, 1))
def test_rarity_weights_average_to_one(share: dict[int, float], rebalancing: float) -> None:
    p = dense_share(share)
    weights = rarity_weights(p, rebalancing, BINS)
    assert weights.isfinite().all()
    assert float(p @ weights) == pytest.approx(1, abs=1e-9)
    order = p.argsort()
    assert (weights[order].diff() <= 1e-9 * weights[order][:-1]).all()  # the rarer, the heavier


def test_rarity_weights_equal_the_formula_and_full_rebalancing_is_inverse_frequency() -> None:
    p = np.random.default_rng(3).dirichlet(np.ones(BINS))
    for rebalancing in (0.0, 0.25, 0.75, 1.0):
        raw = 1 / ((1 - rebalancing) * p + rebalancing / 400)
        assert rarity_weights(torch.tensor(p), rebalancing, BINS).numpy() == pytest.approx(raw / (p * raw).sum())
    assert (rarity_weights(torch.tensor(p), 0.0, BINS).numpy() * p) == pytest.approx(np.full(BINS, 1 / BINS))


def test_decoding() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    centers = torch.randn(7, 2, generator=generator, dtype=torch.float64) * 50
    z = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(1, keepdims=True)
    annealed = np.exp(np.log(z) / 0.38)  # Zhang et al. 2016, equation 5
    annealed /= annealed.sum(1, keepdims=True)
    assert decode(logits, centers, 1).numpy() == pytest.approx(z @ centers.numpy())
    assert decode(logits, centers, 0.38).numpy() == pytest.approx(annealed @ centers.numpy())
    assert torch.equal(decode(logits, centers, 0), centers[logits.argmax(1)])
