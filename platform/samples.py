"""Sample pictures: which images are shown, and their colourizations as PNG bytes.

The truth takes the same way through Lab and back as every colourization, so that colour is all that differs.
"""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from platform.color import bin_table, lab_to_rgb, rgb_to_lab
from platform.models import Colorizer
from platform.training import Run, colorize

SAMPLES_FILE = "samples.npz"  # in a finished trial's checkpoint: PNG bytes by index in the validation split


def sample_indices(labels: np.ndarray, count: int) -> list[int]:
    """Choose `count` images by index, the classes in turn, each class's images in their order: fixed for a split."""
    by_class = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    longest = max(len(indices) for indices in by_class)
    in_turn = [indices[turn] for turn in range(longest) for indices in by_class if turn < len(indices)]
    return in_turn[:count]


def truth_pngs(images: np.ndarray) -> list[bytes]:
    """Encode uint8 images (n, height, width, 3), sent through Lab and back."""
    return [png_bytes(rgb) for rgb in lab_to_rgb(rgb_to_lab(torch.tensor(images)))]


def constant_pngs(images: np.ndarray, ab: Tensor) -> list[bytes]:
    """Encode the images with one colour, ab (2,), at every pixel's own L: ab = 0 is grey."""
    lab = rgb_to_lab(torch.tensor(images))
    lab[..., 1:] = ab
    return [png_bytes(rgb) for rgb in lab_to_rgb(lab)]


def colorized_pngs(run: Run, model: Colorizer, images: np.ndarray) -> list[bytes]:
    """Encode the model's colourization of uint8 images (n, height, width, 3); the model must be in eval mode."""
    device = next(model.parameters()).device
    lab = rgb_to_lab(torch.tensor(images).to(device))
    with torch.no_grad():
        ab, _ = colorize(run, model, lab, bin_table(run.bins).to(device))
    return [png_bytes(rgb) for rgb in lab_to_rgb(torch.cat((lab[..., :1], ab), dim=-1))]


def png_bytes(rgb: Tensor) -> bytes:
    """Encode one uint8 picture (height, width, 3) without loss and without any text or time in the file."""
    buffer = io.BytesIO()
    Image.fromarray(rgb.cpu().numpy()).save(buffer, format="PNG")
    return buffer.getvalue()


def write_samples(folder: Path, pngs: dict[int, bytes]) -> None:
    """Put PNG bytes, by index in the validation split, into a checkpoint's folder."""
    arrays = {str(index): np.frombuffer(png, np.uint8) for index, png in pngs.items()}
    np.savez(folder / SAMPLES_FILE, allow_pickle=False, **arrays)


def read_samples(folder: Path) -> dict[int, bytes]:
    """The PNG bytes in the folder of a finished trial's checkpoint, by index in the validation split."""
    with np.load(folder / SAMPLES_FILE, allow_pickle=False) as arrays:
        return {int(index): arrays[index].tobytes() for index in arrays.files}
