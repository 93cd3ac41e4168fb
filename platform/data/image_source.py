"""What every source of images gives: two splits of pictures, or three."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from db.errors import UserError

SIZE = 32  # pixels, height and width of every image
ROW_BYTES = 3 * SIZE * SIZE

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Say = Callable[[str], None]


class DatasetUnavailable(UserError):  # noqa: N818 - not an error as long as another dataset is named
    """The dataset is not there and cannot be had: the next named one may be tried."""


class DatasetError(UserError):
    """The dataset is there but broken, or the request is wrong."""


@dataclass(frozen=True, eq=False)
class Split:
    images: Bytes  # (n, 32, 32, 3), C-contiguous
    labels: Labels  # (n,), indices into the source's class names


@dataclass(frozen=True, eq=False)
class Source:
    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    note: str  # without the full stop
    tuning: Split | None = None  # where tuning images come from; None: from `train`


def join_splits(parts: Sequence[Split]) -> Split:
    return Split(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))


def to_images(rows: Bytes) -> Bytes:
    """Rows (n, 3072) of 1024 red, 1024 green and 1024 blue values, as both publishers store them, as images."""
    return np.ascontiguousarray(rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))


def digest_images(images: Bytes) -> npt.NDArray[np.uint64]:
    """64 bits of each image, plane by plane, that tell pictures apart: among a million some two are mistaken for one
    once in 10⁷ datasets."""
    digests = [hashlib.blake2b(image.transpose(2, 0, 1).tobytes(), digest_size=8).digest() for image in images]
    return np.array([int.from_bytes(digest) for digest in digests], np.uint64)
