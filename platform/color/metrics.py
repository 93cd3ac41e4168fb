"""Scores of colourizations: shares of pixels named rightly, colour distances, and how colourful the pictures are.

Scores of ab compare the prediction itself, whether or not sRGB has that colour. PSNR and colourfulness look at the
picture that people see: the true L with the predicted ab, as sRGB, clipped to its gamut.
"""

import math

import torch
from torch import Tensor

from platform.color.lab import lab_to_rgb
from platform.color.palettes import BINS, ab_to_bin

AUC_MAXIMUM_DISTANCE = 150  # Lab units; Zhang et al. 2016, section 3.1
# The error of rounding to 8 bits, uniform in one step: the smallest that a picture of 8 bits can be said to have.
MINIMUM_SQUARED_ERROR = 1 / 12

GROUPS = 20  # of images, for standard errors: their own relative error is then about 1 / sqrt(2 · 19), 16 %
# What ScoreSums keeps: counts of images and pixels, counts by the true bin and by image class, sums over images.
COUNTS = ("images", "exact_pixels")
BY_BIN = ("bin_pixels", "bin_hits", "bin_areas")
BY_CLASS = ("class_pixels", "class_hits")
SUMS = ("delta_e", "log_probability", "psnr_db", "colourfulness_truth", "colourfulness_predicted")


def psnr_db(rgb_truth: Tensor, rgb_predicted: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of each image in decibels, float64 (n,), from uint8 (n, h, w, 3).

    10 log10(255² / mean squared error over pixels and channels). The error counts as at least 1/12, so that identical
    images get 58.92 dB, not infinity, and a mean over images stays finite.
    """
    difference = rgb_truth.flatten(1).float() - rgb_predicted.flatten(1).float()
    squared_error = difference.square().sum(1, dtype=torch.float64) / difference.shape[1]
    return 10 * torch.log10(255**2 / squared_error.clamp_min(MINIMUM_SQUARED_ERROR))


def colourfulness(rgb: Tensor) -> Tensor:
    """Return the colourfulness M of each image, float64 (n,), from uint8 (n, h, w, 3); 0 for grey images.

    M = √(σ²_rg + σ²_yb) + 0.3 √(μ²_rg + μ²_yb) with rg = R - G and yb = (R + G) / 2 - B (Hasler & Süsstrunk 2003,
    "Measuring colourfulness in natural images", M^(3)). About 15 is slightly, 45 averagely, 110 extremely colourful.
    """
    red, green, blue = rgb.flatten(1, 2).movedim(-1, 0).float().contiguous()
    red_green_mean, red_green_variance = _mean_and_variance(red - green)
    yellow_blue_mean, yellow_blue_variance = _mean_and_variance((red + green) / 2 - blue)
    spread = (red_green_variance + yellow_blue_variance).sqrt()
    return spread + 0.3 * torch.hypot(red_green_mean, yellow_blue_mean)


def _mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the population variance of each row, float64 (n,), of halves of small integers (n, pixels).

    The sums of such numbers and of their squares are exact in float64, hence no cancellation (and five times faster
    than torch.var_mean on a CPU).
    """
    mean = x.mean(1, dtype=torch.float64)
    return mean, (x.square().mean(1, dtype=torch.float64) - mean.square()).clamp_min(0)


def delta_e_2000(ab_truth: Tensor, ab_predicted: Tensor) -> Tensor:
    """Return the CIEDE2000 difference of colours that have the same L, (...) from ab float (..., 2) in Lab units.

    Sharma, Wu & Dalal 2005, "The CIEDE2000 color-difference formula", with k_C = k_H = 1. A colourization keeps the
    true L, so the lightness term is zero and S_L does not matter.
    """
    a_1, b_1 = ab_truth.movedim(-1, 0).contiguous()
    a_2, b_2 = ab_predicted.movedim(-1, 0).contiguous()
    # Equations 3 to 7. Hues are in [0, 2π): the mean of exactly opposite hues depends on that.
    stretch = 1.5 - 0.5 * _chroma_saturation((torch.hypot(a_1, b_1) + torch.hypot(a_2, b_2)) / 2)
    a_1, a_2 = a_1 * stretch, a_2 * stretch
    chroma_1, chroma_2 = torch.hypot(a_1, b_1), torch.hypot(a_2, b_2)
    hue_1, hue_2 = (torch.atan2(b, a).remainder(2 * math.pi) for a, b in ((a_1, b_1), (a_2, b_2)))
    # Equations 9 to 14. Where a chroma is zero its hue is undefined, but then the hue terms below are zero anyway.
    # The millionth keeps hues that are opposite but for rounding on the side that the standard gives to opposite hues.
    hue_change = hue_2 - hue_1
    hue_change = hue_change - 2 * math.pi * (hue_change / (2.000001 * math.pi)).round()
    hue = (hue_1 + hue_change / 2).remainder(2 * math.pi)
    chroma = (chroma_1 + chroma_2) / 2
    chroma_difference = chroma_2 - chroma_1
    hue_difference = 2 * (chroma_1 * chroma_2).sqrt() * torch.sin(hue_change / 2)
    # Equations 15 to 22.
    hue_weight = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )
    rotation_angle = math.radians(30) * torch.exp(-((hue - math.radians(275)) / math.radians(25)).square())
    rotation = -2 * _chroma_saturation(chroma) * torch.sin(2 * rotation_angle)
    chroma_term = chroma_difference / (1 + 0.045 * chroma)
    hue_term = hue_difference / (1 + 0.015 * chroma * hue_weight)
    squared = chroma_term.square() + hue_term.square() + rotation * chroma_term * hue_term
    return squared.clamp_min(0).sqrt()


def _chroma_saturation(chroma: Tensor) -> Tensor:
    """Return √(C⁷ / (C⁷ + 25⁷)) without overflow for the chroma of any prediction."""
    ratio = 25 / chroma
    squared = ratio * ratio
    return (1 + squared * squared * squared * ratio).rsqrt()


class ScoreSums:
    """Sums over the images of a split, from which its scores follow; batches may come in any number and order.

    Counts of pixels are exact integers and sums over images float64, kept on the device of the weights, for each of
    GROUPS groups of images, to which images go in turn: the standard errors follow from how much the groups differ.
    """

    def __init__(self, class_count: int, bin_rarity: Tensor, bin_entropy: float) -> None:
        """Start empty.

        bin_rarity: float (400,), finite, the weight of a pixel by its true bin in the rebalanced AuC: w_0 of the
        training pixels. All tensors given to `add` must be on its device. bin_entropy: of the training pixels' bins,
        nats.
        """
        self._weights = bin_rarity.double().cpu()
        self._entropy = bin_entropy
        self._has_distribution = True
        self._images = 0
        sizes = dict.fromkeys((*COUNTS, *SUMS), (1,)) | dict.fromkeys(BY_BIN, (BINS,))
        sizes |= dict.fromkeys(BY_CLASS, (class_count,))
        self._sums = {
            name: torch.zeros(
                (GROUPS, *size),
                dtype=torch.float64 if name in SUMS else torch.int64,
                device=bin_rarity.device,
            )
            for name, size in sizes.items()
        }

    @torch.no_grad()
    def add(
        self,
        rgb_truth: Tensor,
        lab_truth: Tensor,
        labels: Tensor,
        *,
        ab_predicted: Tensor,
        bin_predicted: Tensor,
        log_probability: Tensor | None = None,
    ) -> None:
        """Add a batch of n images.

        rgb_truth: uint8 (n, h, w, 3). lab_truth: float32 (n, h, w, 3), its Lab. labels: int64 (n,), the images'
        classes. ab_predicted: float (n, h, w, 2). bin_predicted: int64 (n, h, w), in [0, 399]. log_probability: float
        (n, h, w), of the true bin, nats; None where nothing says how likely it is.
        """
        # All in planes, as `rgb_to_lab` has them: see lab.py.
        lab_planes = lab_truth.movedim(-1, 0)
        predicted_planes = torch.cat((lab_planes[:1], ab_predicted.float().movedim(-1, 0)))
        ab_truth, ab_predicted = lab_truth[..., 1:], predicted_planes[1:].movedim(0, -1)
        bin_truth = ab_to_bin(ab_truth)
        hits = (bin_predicted == bin_truth).flatten(1).long()
        rgb_predicted = lab_to_rgb(predicted_planes.movedim(0, -1))
        delta_e = delta_e_2000(ab_truth, ab_predicted).flatten(1).sum(1, dtype=torch.float64)
        exact = (ab_truth.round() == ab_predicted.round()).all(-1)
        pixels = torch.full_like(labels, hits.shape[1])
        group = (torch.arange(len(labels), device=labels.device) + self._images) % GROUPS
        self._images += len(labels)

        self._count("images", group, torch.ones_like(labels))
        self._count("exact_pixels", group, exact.flatten(1).sum(1))
        bins = (BINS * group.view(-1, 1, 1) + bin_truth).flatten()
        self._count("bin_pixels", bins, torch.ones_like(bins))
        self._count("bin_hits", bins, hits.flatten())
        self._count("bin_areas", bins, _doubled_auc_area(ab_truth, ab_predicted).flatten())
        classes = self._sums["class_pixels"].shape[1] * group + labels
        self._count("class_pixels", classes, pixels)
        self._count("class_hits", classes, hits.sum(1))
        # A product of matrices, not index_add_: on a GPU that one adds fractions in another order each time.
        membership = torch.nn.functional.one_hot(group, GROUPS).double()
        self._has_distribution &= log_probability is not None
        if log_probability is None:
            log_probability = torch.zeros_like(ab_truth[..., 0])
        for name, values in {
            "delta_e": delta_e,
            "log_probability": log_probability.flatten(1).sum(1, dtype=torch.float64),
            "psnr_db": psnr_db(rgb_truth, rgb_predicted),
            "colourfulness_truth": colourfulness(rgb_truth),
            "colourfulness_predicted": colourfulness(rgb_predicted),
        }.items():
            self._sums[name][:, 0] += values @ membership

    def _count(self, name: str, index: Tensor, values: Tensor) -> None:
        self._sums[name].view(-1).index_add_(0, index, values)

    def scores(self) -> dict[str, float]:
        """Return the scores by name; one that is undefined for these images is left out.

        exact_accuracy: share of pixels whose a and b, rounded to integers, are both right.
        bin_accuracy: share of pixels whose bin is right; balanced_bin_accuracy: the mean over the true bins of theirs.
        information: entropy of the training pixels' bins less the mean of − log p(true bin), nats per pixel; undefined
        without a distribution over bins.
        raw_auc: share of pixels whose ab is within t of the truth, averaged over t from 0 to 150 Lab units (trapezoids
        over the integers); rebalanced_auc: the same of pixels weighted by their true bin (Zhang et al. 2016).
        psnr_db: mean over images, in decibels. delta_e_2000: mean over pixels.
        colourfulness_ratio: mean colourfulness of the predicted pictures over that of the true ones; undefined where
        all of those are grey.

        Raises ValueError where a prediction was NaN or infinite.
        """
        scores = self._scores({name: sums.sum(0).cpu() for name, sums in self._sums.items()})
        if not math.isfinite(scores.get("delta_e_2000", 0.0)):
            raise ValueError("a predicted ab is NaN or infinite, so the predictions have no scores")
        return scores

    def standard_errors(self) -> dict[str, float]:
        """Return the standard error of each score, by name: how much it would vary with other images of their kind.

        By the jackknife over the groups (Efron & Stein 1981): √((G - 1) / G · Σ (θ₍g₎ - θ̄)²), θ₍g₎ being the score
        without the images of group g. A score is left out where it is undefined without some group. Unlike the scores
        they depend on the order of the images, which decides who shares a group.
        """
        groups = min(GROUPS, self._images)
        if groups < 2:
            return {}
        by_group = {name: sums.cpu() for name, sums in self._sums.items()}
        totals = {name: sums.sum(0) for name, sums in by_group.items()}
        without = [
            self._scores({name: totals[name] - sums[group] for name, sums in by_group.items()})
            for group in range(groups)
        ]
        errors = {}
        for name in self._scores(totals):
            values = [scores[name] for scores in without if name in scores]
            if len(values) == groups:
                mean = sum(values) / groups
                errors[name] = math.sqrt((groups - 1) / groups * sum((value - mean) ** 2 for value in values))
        return errors

    def _scores(self, sums: dict[str, Tensor]) -> dict[str, float]:
        """The scores that follow from sums over images, each (1,), (BINS,) or (classes,)."""
        pixels = int(sums["bin_pixels"].sum())
        if not pixels:
            return {}
        present = sums["bin_pixels"] > 0
        bin_pixels = sums["bin_pixels"][present].double()
        scores = {
            "exact_accuracy": int(sums["exact_pixels"]) / pixels,
            "bin_accuracy": int(sums["bin_hits"].sum()) / pixels,
            "balanced_bin_accuracy": float((sums["bin_hits"][present] / bin_pixels).mean()),
            "raw_auc": int(sums["bin_areas"].sum()) / (2 * AUC_MAXIMUM_DISTANCE * pixels),
            "psnr_db": float(sums["psnr_db"]) / int(sums["images"]),
            "delta_e_2000": float(sums["delta_e"]) / pixels,
        }
        if self._has_distribution:
            scores["information"] = self._entropy + float(sums["log_probability"]) / pixels
        bin_weights = self._weights[present] * bin_pixels
        if float(bin_weights.sum()) > 0:
            bin_aucs = sums["bin_areas"][present] / (2 * AUC_MAXIMUM_DISTANCE * bin_pixels)
            scores["rebalanced_auc"] = float((bin_weights * bin_aucs).sum() / bin_weights.sum())
        if float(sums["colourfulness_truth"]) > 0:
            scores["colourfulness_ratio"] = float(sums["colourfulness_predicted"] / sums["colourfulness_truth"])
        return scores

    def class_bin_accuracy(self) -> list[float | None]:
        """Return the bin accuracy over the pixels of each class; None for a class without any."""
        hits, pixels = (self._sums[name].sum(0).tolist() for name in ("class_hits", "class_pixels"))
        return [hit / count if count else None for hit, count in zip(hits, pixels, strict=True)]


def _doubled_auc_area(ab_truth: Tensor, ab_predicted: Tensor) -> Tensor:
    """Return what each pixel adds to the area under its curve over 0 to 150, twice that, as it is then an integer.

    A pixel at distance d is within t at the integers t ≥ ⌈d⌉; the trapezoids under that step have the area
    150 - ⌈d⌉ + ½, and 150 if d is 0.
    """
    difference = ab_truth - ab_predicted
    threshold = torch.hypot(difference[..., 0], difference[..., 1]).ceil()
    whole = 2 * AUC_MAXIMUM_DISTANCE
    return (whole + 1 - 2 * threshold).clamp(0, whole).long()
