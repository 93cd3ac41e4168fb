import itertools
import math
from random import Random

import numpy as np
import pytest
import skimage.color
import skimage.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.color.metrics import ScoreSums, delta_e_2000
from platform.color.palettes import ab_to_bin, bin_centers

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
CLASSES = 4
SHARES = ("exact_accuracy", "bin_accuracy", "balanced_bin_accuracy", "raw_auc", "rebalanced_auc")

Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def make_batch(images: int, *, seed: int = 0, height: int = 6, width: int = 5, noise: float = 12.0) -> Batch:
    """Random images; half of the predicted pixels near the truth, some exactly right, some outside the gamut."""
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (images, height, width, 3), generator=generator, dtype=torch.uint8)
    lab = rgb_to_lab(rgb)
    ab = lab[..., 1:] + noise * torch.randn(images, height, width, 2, generator=generator)
    ab = torch.where(torch.rand(images, height, width, 1, generator=generator) < 0.1, lab[..., 1:], ab)
    ab = torch.where(torch.rand(images, height, width, 1, generator=generator) < 0.1, 150.0, ab)
    bins = torch.randint(0, 400, (images, height, width), generator=generator)
    bins = torch.where(torch.rand(images, height, width, generator=generator) < 0.4, ab_to_bin(lab[..., 1:]), bins)
    return rgb, lab, ab, bins, torch.randint(0, CLASSES, (images,), generator=generator)


def make_weights(seed: int = 0) -> Tensor:
    return torch.rand(400, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 4 * 100


def sums_of(batch: Batch, weights: Tensor | None = None, device: str = "cpu") -> ScoreSums:
    sums = empty_sums(weights, device)
    add(sums, batch)
    return sums


def empty_sums(weights: Tensor | None = None, device: str = "cpu") -> ScoreSums:
    return ScoreSums(CLASSES, (make_weights() if weights is None else weights).to(device), bin_entropy=2.7)


def add(sums: ScoreSums, batch: Batch, log_probability: Tensor | None = None) -> None:
    device = sums._sums["images"].device
    rgb, lab, ab, bins, labels = (tensor.to(device) for tensor in batch)
    sums.add(rgb, lab, labels, ab_predicted=ab, bin_predicted=bins, log_probability=log_probability)


def reference_scores(batch: Batch, weights: Tensor) -> tuple[dict[str, float], list[float | None]]:
    """The definitions, written out with numpy and scikit-image."""
    rgb, lab, ab, bins, labels = (tensor.numpy() for tensor in batch)
    ab_truth = lab[..., 1:].astype(np.float64)
    cells = np.floor((np.rint(ab_truth) + 128) / 256 * 20).astype(int)
    bin_truth = 20 * cells[..., 0] + cells[..., 1]
    hits = bins == bin_truth
    distance = np.linalg.norm(ab - ab_truth, axis=-1)
    pixel_weights = weights.numpy()[bin_truth]
    thresholds = np.arange(151)
    within = np.stack([distance <= t for t in thresholds])
    raw = within.mean(axis=(1, 2, 3))
    rebalanced = (within * pixel_weights).sum(axis=(1, 2, 3)) / pixel_weights.sum()
    lab_predicted = np.concatenate([lab[..., :1], ab], axis=-1)
    delta_e = skimage.color.deltaE_ciede2000(  # type: ignore[no-untyped-call]
        lab.astype(np.float64), lab_predicted.astype(np.float64)
    )
    shown = np.rint(skimage.color.lab2rgb(lab_predicted.astype(np.float64)) * 255).astype(np.uint8)
    scores = {
        "exact_accuracy": np.all(np.rint(ab) == np.rint(ab_truth), axis=-1).mean(),
        "bin_accuracy": hits.mean(),
        "balanced_bin_accuracy": np.mean([hits[bin_truth == q].mean() for q in np.unique(bin_truth)]),
        "raw_auc": np.trapezoid(raw, thresholds) / 150,
        "rebalanced_auc": np.trapezoid(rebalanced, thresholds) / 150,
        "psnr_db": np.mean(
            [
                skimage.metrics.peak_signal_noise_ratio(truth, picture, data_range=255)  # type: ignore[no-untyped-call]
                for truth, picture in zip(rgb, shown, strict=True)
            ]
        ),
        "delta_e_2000": delta_e.mean(),
        "colourfulness_ratio": np.mean([reference_colourfulness(picture) for picture in shown])
        / np.mean([reference_colourfulness(picture) for picture in rgb]),
    }
    by_class = [hits[labels == k].mean() if (labels == k).any() else None for k in range(CLASSES)]
    return scores, by_class


def reference_colourfulness(rgb: np.ndarray) -> float:
    red, green, blue = rgb.reshape(-1, 3).astype(np.float64).T
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning")  # colours outside the gamut, on purpose
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_the_definitions_in_numpy_and_skimage(seed: int, device: str) -> None:
    batch, weights = make_batch(9, seed=seed, height=32, width=24), make_weights(seed)
    sums = sums_of(batch, weights, device)
    expected, by_class = reference_scores(batch, weights)
    scores = sums.scores()
    assert set(scores) == set(expected)
    for key in SHARES:
        assert scores[key] == pytest.approx(expected[key], rel=1e-9), key
    assert scores["delta_e_2000"] == pytest.approx(expected["delta_e_2000"], rel=1e-5)
    # Our float32 and skimage's float64 sRGB may round a value to neighbouring codes.
    assert scores["psnr_db"] == pytest.approx(expected["psnr_db"], abs=1e-3)
    assert scores["colourfulness_ratio"] == pytest.approx(expected["colourfulness_ratio"], rel=1e-4)
    assert sums.class_bin_accuracy() == [None if share is None else pytest.approx(share) for share in by_class]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    images=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 12), max_size=4),
    shuffle=st.randoms(use_true_random=False),
)
def test_scores_do_not_depend_on_batches_or_order(seed: int, images: int, cuts: list[int], shuffle: Random) -> None:
    batch = make_batch(images, seed=seed)
    order = list(range(images))
    shuffle.shuffle(order)
    whole = sums_of(batch)
    split = empty_sums()
    edges = [0, *sorted(min(cut, images) for cut in cuts), images]
    for start, stop in itertools.pairwise(edges):
        rgb, lab, ab, bins, labels = (tensor[order[start:stop]] for tensor in batch)
        if len(labels):
            add(split, (rgb, lab, ab, bins, labels))
    expected, scores = whole.scores(), split.scores()
    assert {key: scores[key] for key in SHARES} == {key: expected[key] for key in SHARES}
    assert scores == pytest.approx(expected, rel=1e-6)
    assert split.class_bin_accuracy() == whole.class_bin_accuracy()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), images=st.integers(1, 5))
def test_a_perfect_prediction_has_perfect_scores(seed: int, images: int) -> None:
    rgb, lab, _, _, labels = make_batch(images, seed=seed)
    sums = sums_of((rgb, lab, lab[..., 1:], ab_to_bin(lab[..., 1:]), labels))
    scores = sums.scores()
    assert {scores[key] for key in SHARES} == {1.0}
    assert scores["delta_e_2000"] == 0.0
    assert scores["psnr_db"] == pytest.approx(58.92, abs=0.005)
    assert scores["colourfulness_ratio"] == 1.0
    assert {share for share in sums.class_bin_accuracy() if share is not None} == {1.0}


COMMON, RARE = [1.0, 1.0], [60.0, 60.0]
FAR = [61.0, 200.0]  # 140.004 from RARE: within from 141 on
ORIGIN = [0.0, 0.0]


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        *(
            ([ORIGIN], [[0.6 * distance, -0.8 * distance]], {"raw_auc": area / 150})
            for distance, area in {0: 150, 1e-3: 149.5, 1: 149.5, 1.001: 148.5, 5: 145.5, 150: 0.5, 150.1: 0}.items()
        ),
        (  # rare bins count as much as common ones
            [COMMON, COMMON, COMMON, RARE],
            [COMMON, COMMON, COMMON, FAR],
            {
                "exact_accuracy": 3 / 4,
                "bin_accuracy": 3 / 4,
                "balanced_bin_accuracy": 1 / 2,
                "raw_auc": (3 + 9.5 / 150) / 4,
                "rebalanced_auc": (1 + 9.5 / 150) / 2,
            },
        ),
        (  # both channels, after rounding
            [[10.4, -3.4], [10.4, -3.4], [10.4, -3.4], [10.6, -3.4]],
            [[9.6, -2.6], [10.4, -2.4], [11.4, -3.4], [11.4, -3.0]],
            {"exact_accuracy": 2 / 4},
        ),
    ],
)
def test_scores_of_a_few_pixels_by_hand(
    truth: list[list[float]], predicted: list[list[float]], expected: dict[str, float]
) -> None:
    """One image of one row, its colours given as ab at L = 50."""
    ab_truth, ab = torch.tensor([[truth]]), torch.tensor([[predicted]])
    lab = torch.cat((torch.full_like(ab_truth[..., :1], 50.0), ab_truth), dim=-1)
    weights = torch.ones(400)
    weights[int(ab_to_bin(torch.tensor(COMMON)))] = 1 / 3
    scores = sums_of((lab_to_rgb(lab), lab, ab, ab_to_bin(ab), torch.tensor([2])), weights).scores()
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


def hard_colours() -> Tensor:
    """Greys, axes, the blues that the rotation term is for, hues on both sides of 0 and π; float64 (colours, 2)."""
    hues = torch.deg2rad(
        torch.tensor([0, 1e-3, 30, 90, 179.999, 180, 180.001, 240, 265, 275, 285, 300, 359.999], dtype=torch.float64)
    )
    chromas = torch.tensor([0, 1e-6, 0.3, 5, 25, 80, 130], dtype=torch.float64)
    polar = torch.cartesian_prod(hues, chromas)
    return torch.stack((polar[:, 1] * polar[:, 0].cos(), polar[:, 1] * polar[:, 0].sin()), dim=-1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_delta_e_equals_skimage_on_hard_and_random_colours(dtype: torch.dtype, tolerance: float, device: str) -> None:
    hard = hard_colours()
    first, second = hard.repeat_interleave(len(hard), 0), hard.repeat(len(hard), 1)
    random = 220 * torch.rand(2, 20_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 110
    first, second = torch.cat((first, random[0])).to(dtype), torch.cat((second, random[1])).to(dtype)
    # Opposite hues have two mean hues, and rounding decides which one is taken.
    turn = torch.atan2(first[:, 1], first[:, 0]) - torch.atan2(second[:, 1], second[:, 0])
    clear = (turn.abs() - math.pi).abs() > 1e-4
    assert clear.double().mean() > 0.95
    lightness = np.full((len(first), 1), 50.0)
    expected = skimage.color.deltaE_ciede2000(  # type: ignore[no-untyped-call]
        np.concatenate([lightness, first.double().numpy()], axis=-1),
        np.concatenate([lightness, second.double().numpy()], axis=-1),
    )
    ours = delta_e_2000(first.to(device), second.to(device)).cpu().numpy()
    np.testing.assert_allclose(ours[clear], expected[clear], rtol=tolerance, atol=tolerance)


def test_the_ratio_is_left_out_where_the_truth_is_grey() -> None:
    rgb = torch.randint(0, 256, (3, 4, 4, 1), dtype=torch.uint8).expand(3, 4, 4, 3)
    lab = rgb_to_lab(rgb)
    ab = bin_centers()[torch.full((3, 4, 4), 100)]
    scores = sums_of((rgb, lab, ab, ab_to_bin(ab), torch.zeros(3, dtype=torch.int64))).scores()
    assert set(scores) == {*SHARES, "psnr_db", "delta_e_2000"}
    assert all(math.isfinite(value) for value in scores.values())


@pytest.mark.parametrize("device", DEVICES)
def test_standard_errors_are_the_jackknife_over_groups_of_images(device: str) -> None:
    """Against the scores of what is left when each group of images is really left out, in one batch or several."""
    rgb, lab, ab, bins, labels = make_batch(50, seed=3)
    weights = make_weights()
    sums = empty_sums(weights, device)
    for part in (slice(0, 7), slice(7, 33), slice(33, 50)):
        add(sums, (rgb[part], lab[part], ab[part], bins[part], labels[part]))
    without = []
    for group in range(20):
        kept = torch.arange(50) % 20 != group
        without.append(sums_of((rgb[kept], lab[kept], ab[kept], bins[kept], labels[kept]), weights).scores())
    errors = sums.standard_errors()
    assert errors.keys() == sums.scores().keys()
    for name, error in errors.items():
        values = np.array([scores[name] for scores in without])
        assert error == pytest.approx(np.sqrt(19 / 20 * np.square(values - values.mean()).sum()), rel=1e-6, abs=1e-12)


def test_information_is_the_entropy_less_the_mean_surprise_and_needs_every_batch() -> None:
    batch = make_batch(30, seed=5)
    log_probability = -3 * torch.rand(30, 6, 5, generator=torch.Generator().manual_seed(0))
    sums = empty_sums()
    add(sums, batch, log_probability)
    assert sums.scores()["information"] == pytest.approx(2.7 + float(log_probability.double().mean()))
    assert sums.standard_errors()["information"] > 0
    add(sums, batch)
    assert "information" not in sums.scores()


def test_what_is_undefined_is_left_out() -> None:
    empty = empty_sums()
    assert empty.scores() == {}
    assert empty.class_bin_accuracy() == [None] * CLASSES
    assert "rebalanced_auc" not in sums_of(make_batch(2), torch.zeros(400)).scores()
    assert sums_of(make_batch(1)).standard_errors() == {}
    assert "bin_accuracy" in sums_of(make_batch(2)).standard_errors()


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_no_numbers_are_refused(broken: float) -> None:
    rgb, lab, ab, bins, labels = make_batch(2)
    ab[1, 2, 3, 0] = broken
    sums = sums_of((rgb, lab, ab, bins, labels))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sums.scores()


def test_wild_but_finite_predictions_have_finite_scores() -> None:
    rgb, lab, ab, bins, labels = make_batch(2)
    scores = sums_of((rgb, lab, 1e9 * ab, bins, labels)).scores()
    assert all(math.isfinite(value) for value in scores.values())
    assert scores["raw_auc"] <= 0.3
