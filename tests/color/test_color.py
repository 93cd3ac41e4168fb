import numpy as np
import pytest
import skimage.color
import torch

from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.color.palettes import ab_to_bin

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def reference_bins(lab: np.ndarray) -> np.ndarray:
    cell = np.floor(20 * (np.rint(lab[..., 1:]) + 128) / 256).astype(np.int64)
    return np.asarray(cell[..., 0] * 20 + cell[..., 1])


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
    # Only colours half-way between two whole values, to float32's rounding, may be rounded to the other.
    half_distance = np.abs(np.abs(reference[..., 1:] - np.rint(reference[..., 1:])) - 0.5).min(-1)
    assert differ.mean() <= 1e-5
    assert (half_distance[differ] < 2e-4).all()


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
