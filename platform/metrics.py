"""Scores of colourizations: shares of pixels named rightly, colour distances, and how colourful the pictures are.

Scores of ab compare the prediction itself, whether or not sRGB has that colour. PSNR and colourfulness look at the
picture that people see: the true L with the predicted ab, as sRGB, clipped to its gamut.
"""

import math

import torch
from torch import Tensor

from platform.color import BINS, ab_to_bin, lab_to_rgb

AUC_MAXIMUM_DISTANCE = 150  # Lab units; Zhang et al. 2016, section 3.1
# The error of rounding to 8 bits, uniform in one step: the smallest that a picture of 8 bits can be said to have.
MINIMUM_SQUARED_ERROR = 1 / 12


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

    Counts of pixels are exact integers and sums over images float64, kept on the device of the weights.
    """

    def __init__(self, class_count: int, rebalanced_pixel_weights: Tensor) -> None:
        """Start empty.

        rebalanced_pixel_weights: float (400,), finite, the weight of a pixel by its true bin in the rebalanced AuC:
        `rarity_weights(p̄, 0.0)` of the training pixels. All tensors given to `add` must be on its device.
        """
        device = rebalanced_pixel_weights.device
        self._weights = rebalanced_pixel_weights.double()
        self._images = 0
        self._exact_pixels = torch.zeros((), dtype=torch.int64, device=device)
        self._bin_pixels = torch.zeros(BINS, dtype=torch.int64, device=device)
        self._bin_hits = torch.zeros(BINS, dtype=torch.int64, device=device)
        self._bin_areas = torch.zeros(BINS, dtype=torch.int64, device=device)
        self._class_pixels = torch.zeros(class_count, dtype=torch.int64, device=device)
        self._class_hits = torch.zeros(class_count, dtype=torch.int64, device=device)
        self._delta_e = torch.zeros((), dtype=torch.float64, device=device)
        self._psnr_db = torch.zeros((), dtype=torch.float64, device=device)
        self._colourfulness_truth = torch.zeros((), dtype=torch.float64, device=device)
        self._colourfulness_predicted = torch.zeros((), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(
        self, rgb_truth: Tensor, lab_truth: Tensor, ab_predicted: Tensor, bin_predicted: Tensor, labels: Tensor
    ) -> None:
        """Add a batch of n images.

        rgb_truth: uint8 (n, h, w, 3). lab_truth: float32 (n, h, w, 3), its Lab. ab_predicted: float (n, h, w, 2).
        bin_predicted: int64 (n, h, w), in [0, 399]. labels: int64 (n,), the images' classes.
        """
        ab_truth, ab_predicted = lab_truth[..., 1:].contiguous(), ab_predicted.float()
        bin_truth = ab_to_bin(ab_truth)
        bins = bin_truth.flatten()
        hits = bin_predicted == bin_truth
        self._images += len(labels)
        self._exact_pixels += (ab_truth.round() == ab_predicted.round()).all(-1).sum()
        self._bin_pixels.index_add_(0, bins, torch.ones_like(bins))
        self._bin_hits.index_add_(0, bins, hits.flatten().long())
        self._bin_areas.index_add_(0, bins, _doubled_auc_area(ab_truth, ab_predicted).flatten())
        self._class_pixels.index_add_(0, labels, torch.full_like(labels, bin_truth[0].numel()))
        self._class_hits.index_add_(0, labels, hits.flatten(1).sum(1))
        self._delta_e += delta_e_2000(ab_truth, ab_predicted).sum(dtype=torch.float64)
        rgb_predicted = lab_to_rgb(torch.cat((lab_truth[..., :1], ab_predicted), dim=-1))
        self._psnr_db += psnr_db(rgb_truth, rgb_predicted).sum()
        self._colourfulness_truth += colourfulness(rgb_truth).sum()
        self._colourfulness_predicted += colourfulness(rgb_predicted).sum()

    def scores(self) -> dict[str, float]:
        """Return the scores by name; one that is undefined for these images is left out.

        exact_accuracy: share of pixels whose a and b, rounded to integers, are both right.
        bin_accuracy: share of pixels whose bin is right; balanced_bin_accuracy: the mean over the true bins of theirs.
        raw_auc: share of pixels whose ab is within t of the truth, averaged over t from 0 to 150 Lab units (trapezoids
        over the integers); rebalanced_auc: the same of pixels weighted by their true bin (Zhang et al. 2016).
        psnr_db: mean over images, in decibels. delta_e_2000: mean over pixels.
        colourfulness_ratio: mean colourfulness of the predicted pictures over that of the true ones; undefined where
        all of those are grey.

        Raises ValueError where a prediction was NaN or infinite.
        """
        delta_e = float(self._delta_e)
        if not math.isfinite(delta_e):
            raise ValueError("a predicted ab is NaN or infinite, so the predictions have no scores")
        pixels = int(self._bin_pixels.sum())
        if not pixels:
            return {}
        present = self._bin_pixels > 0
        bin_pixels = self._bin_pixels[present].double()
        scores = {
            "exact_accuracy": int(self._exact_pixels) / pixels,
            "bin_accuracy": int(self._bin_hits.sum()) / pixels,
            "balanced_bin_accuracy": float((self._bin_hits[present] / bin_pixels).mean()),
            "raw_auc": int(self._bin_areas.sum()) / (2 * AUC_MAXIMUM_DISTANCE * pixels),
            "psnr_db": float(self._psnr_db) / self._images,
            "delta_e_2000": delta_e / pixels,
        }
        bin_weights = self._weights[present] * bin_pixels
        if float(bin_weights.sum()) > 0:
            bin_aucs = self._bin_areas[present] / (2 * AUC_MAXIMUM_DISTANCE * bin_pixels)
            scores["rebalanced_auc"] = float((bin_weights * bin_aucs).sum() / bin_weights.sum())
        if float(self._colourfulness_truth) > 0:
            scores["colourfulness_ratio"] = float(self._colourfulness_predicted) / float(self._colourfulness_truth)
        return scores

    def class_bin_accuracy(self) -> list[float | None]:
        """Return the bin accuracy over the pixels of each class; None for a class without any."""
        hits, pixels = self._class_hits.tolist(), self.class_pixels()
        return [hit / count if count else None for hit, count in zip(hits, pixels, strict=True)]

    def class_pixels(self) -> list[int]:
        """Return the number of pixels of each class."""
        return [int(count) for count in self._class_pixels.tolist()]


def _doubled_auc_area(ab_truth: Tensor, ab_predicted: Tensor) -> Tensor:
    """Return what each pixel adds to the area under its curve over 0 to 150, twice that, as it is then an integer.

    A pixel at distance d is within t at the integers t ≥ ⌈d⌉; the trapezoids under that step have the area
    150 - ⌈d⌉ + ½, and 150 if d is 0.
    """
    difference = ab_truth - ab_predicted
    threshold = torch.hypot(difference[..., 0], difference[..., 1]).ceil()
    whole = 2 * AUC_MAXIMUM_DISTANCE
    return (whole + 1 - 2 * threshold).clamp(0, whole).long()
