"""What every source of images gives: parts of splits, read when they are needed."""

import hashlib
from collections.abc import Callable
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
    """The dataset is there but broken, or the request is wrong: one sentence with what and the mend."""


@dataclass(frozen=True)
class Part:
    """A part of a split that is read when needed, so that ImageNet's 3.9 GB lie in memory only once.

    `read` gives uint8 (n, 3072): 1024 red, 1024 green, 1024 blue values a row, as both publishers store them.
    """

    labels: Labels
    read: Callable[[], Bytes]


@dataclass(frozen=True)
class Source:
    name: str
    class_names: tuple[str, ...]
    train: list[Part]
    validation: list[Part]
    tuning: list[Part]  # where tuning images come from; empty: from `train`
    note: str  # without the full stop


def digest_rows(rows: Bytes) -> npt.NDArray[np.uint64]:
    """64 bits that tell pictures apart: among a million some two are mistaken for one once in 10⁷ datasets."""
    return np.array([int.from_bytes(hashlib.blake2b(row, digest_size=8).digest()) for row in rows], np.uint64)


def to_rows(images: Bytes) -> Bytes:
    """(n, 32, 32, 3) images as (n, 3072) rows of red, green and blue planes."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), ROW_BYTES)


def keep_in_memory(rows: Bytes, labels: Labels) -> Part:
    return Part(labels, lambda: rows)
