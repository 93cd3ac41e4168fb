"""Sample pictures, as PNG bytes: photographs of a split, and what a model makes of them.

The truth takes the same way through Lab and back as every colourization, so that colour is all that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter

from db.png import encode_png
from platform.arms.compose import Task
from platform.color.lab import lab_to_rgb, rgb_to_lab
from platform.color.metrics import colourfulness, delta_e_2000, psnr_db
from platform.model.evaluation import as_tensor, known_of, predict
from platform.model.network import Colorizer
from platform.model.storage import read_file

SAMPLES_FILE = "samples.json"  # in the checkpoint after a trial's last epoch
LEAST_COLOURFULNESS = 1.0  # of a photograph, to which a picture's is compared: of a grey one it would be 0


@dataclass(frozen=True)
class Picture:
    png: bytes
    scores: dict[str, float]  # of this picture, by name
    segments_png: bytes | None = None  # what the trained arm divides it into, where it does; see `segments`


Painted = dict[int, Picture]
"""A trial's sample pictures, by index in the validation split."""


def choose_sample_indices(labels: np.ndarray, count: int) -> list[int]:
    """Choose `count` images by index, the classes in turn, each class's images in their order: fixed for a split."""
    by_class = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    longest = max(len(indices) for indices in by_class)
    in_turn = [indices[turn] for turn in range(longest) for indices in by_class if turn < len(indices)]
    return in_turn[:count]


def encode_truths(images: np.ndarray) -> list[bytes]:
    """PNGs of uint8 images (n, height, width, 3), sent through Lab and back."""
    return [encode_png(rgb.cpu().numpy()) for rgb in lab_to_rgb(rgb_to_lab(as_tensor(images)))]


@torch.no_grad()
def paint_samples(
    task: Task, model: Colorizer | None, images: np.ndarray, labels: np.ndarray | None = None
) -> dict[str, list[Picture]]:
    """Colour uint8 images (n, height, width, 3) by every reading of the task, by the arms' names; the model must be in
    eval mode. labels: the images' classes (n,), of which no model hears, only a baseline."""
    lab = rgb_to_lab(as_tensor(images).to(task.device))
    rows = known_of(task, model, lab, None if labels is None else torch.tensor(labels, device=task.device))
    truth, result = lab_to_rgb(lab), {}
    segments: Sequence[bytes | None] = [None] * len(images)
    if model is not None and task.segment_pngs is not None:
        segments = task.segment_pngs(model.head, rows, (lab.shape[1], lab.shape[2]))
    for name, found in predict(task, model, rows).items():
        ab = found.ab.view(*lab.shape[:3], 2)
        pictures = lab_to_rgb(torch.cat((lab[..., :1], ab), dim=-1))
        measured = {
            "delta_e_2000": delta_e_2000(lab[..., 1:], ab).flatten(1).mean(1),
            "psnr_db": psnr_db(truth, pictures),
            "colourfulness_ratio": colourfulness(pictures) / colourfulness(truth).clamp_min(LEAST_COLOURFULNESS),
        }
        by_picture = torch.stack(list(measured.values()), dim=1).tolist()
        result[name] = [
            Picture(encode_png(rgb.cpu().numpy()), dict(zip(measured, values, strict=True)), segmented)
            for rgb, values, segmented in zip(pictures, by_picture, segments, strict=True)
        ]
        segments = [None] * len(images)  # the first is the trained arm; what renders it divides nothing anew
    return result


def paint_of_split(
    task: Task, model: Colorizer | None, images: np.ndarray, labels: np.ndarray, indices: Sequence[int]
) -> dict[str, Painted]:
    """Colour these images of the validation split by every reading of the task, by the arms' names; none where there
    are no indices. See `paint_samples`."""
    if not indices:
        return {}
    return {
        arm: dict(zip(indices, pictures, strict=True))
        for arm, pictures in paint_samples(task, model, images[indices], labels[indices]).items()
    }


# JSON, in which PNGs are base64: whoever can write to the storage can make pictures of it, but no code run.
_SAMPLES = TypeAdapter(dict[str, Painted], config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


def write_samples(folder: Path, painted: dict[str, Painted]) -> None:
    """Put pictures, by arm, into a checkpoint's folder."""
    (folder / SAMPLES_FILE).write_bytes(_SAMPLES.dump_json(painted))


def read_samples(checkpoint: str) -> dict[str, Painted]:
    """The pictures in the last checkpoint of a finished trial, by arm. Raises OSError, StorageError or ValueError where
    they cannot be read."""
    return _SAMPLES.validate_json(read_file(checkpoint, SAMPLES_FILE))
