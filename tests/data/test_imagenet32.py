"""ImageNet 32x32 in the publisher's layout, broken and hostile batches among it."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from platform.data.datasets import Dataset, load_dataset
from tests.data.test_datasets import pairs, pairs_not_validated, random_images, refused

NAMES = [*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"]


@pytest.fixture
def imagenet32(tmp_path: Path) -> Path:
    """ImageNet 32x32 in the publisher's layout with 6 images a file of the classes 7, 500 and 1000."""
    folder = tmp_path / "imagenet32"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        np.savez(folder / name, **make_arrays(seed))
    return folder


def make_arrays(seed: int) -> dict[str, Any]:
    rows = random_images(6, 100 + seed).transpose(0, 3, 1, 2).reshape(6, 3072)
    return {"data": rows, "labels": np.array([7, 500, 1000, 7, 500, 1000]), "mean": rows.mean(axis=0)}


def load_imagenet32(directory: Path, **options: Any) -> Dataset:
    return load_dataset(["imagenet32"], data_directory=directory, say=lambda line: None, **options)


def test_every_pixel_and_label_is_read(imagenet32: Path) -> None:
    for directory in (imagenet32.parent, imagenet32):
        data = load_imagenet32(directory)
        train = np.concatenate([random_images(6, 100 + seed) for seed in range(10)])
        assert pairs_not_validated(data) == pairs(train, np.array([0, 1, 2] * 20))
        np.testing.assert_array_equal(data.validation_images, random_images(6, 110))
        assert data.validation_labels.tolist() == [0, 1, 2] * 2
        assert data.class_names == ("class 7", "class 500", "class 1000")
        assert "3 of its 1,000 classes" in data.note
    small = load_imagenet32(imagenet32, train_images=12, validation_images=3)
    assert np.bincount(small.train_labels).tolist() == [4, 4, 4]
    assert pairs(small.train_images, small.train_labels) <= pairs_not_validated(data)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1  # among the pixels: only the checksum can tell
    path.write_bytes(content)


def save(**changes: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **(make_arrays(4) | changes))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "not a zip file"),
        (flip, "Bad CRC-32"),
        (save(labels=np.array([1, 2, 3, 4, 5, None])), "its labels are object"),
        (save(data=np.array([[None] * 3072] * 6)), "its pixels are object"),
        (save(labels=np.array([1, 2, 3, 4, 5, 1001])), "image 5 has the label 1001"),
        (save(labels=np.array([1, 2, 0, 4, 5, 6])), "image 2 has the label 0"),
        (save(labels=np.arange(1, 6)), "not uint8 of shape (5, 3072)"),
        (save(labels=np.arange(1.0, 7.0)), "not a list of whole numbers"),
        (save(labels=np.zeros(0, int), data=np.zeros((0, 3072), np.uint8)), "not a list of whole numbers"),
        (save(data=np.zeros((6, 3072), np.float32)), "its pixels are float32"),
        (save(data=np.zeros((6, 64, 64, 3), np.uint8)), "(6, 64, 64, 3)"),
        (lambda path: np.savez(path, data=make_arrays(4)["data"]), "no item named 'labels.npy'"),
        (lambda path: path.unlink(), "lacks train_data_batch_5.npz"),
    ],
    ids=[
        "short", "flipped", "pickled labels", "pickled pixels", "label 1001", "label 0", "labels missing",
        "labels float", "empty", "pixels float", "64x64", "no labels", "missing",
    ],
)  # fmt: skip
def test_broken_file(imagenet32: Path, spoil: Callable[[Path], object], words: str) -> None:
    path = imagenet32 / "train_data_batch_5.npz"
    spoil(path)
    message = refused("imagenet32", imagenet32.parent)
    assert str(imagenet32) in message
    assert "train_data_batch_5.npz" in message
    assert words in message


def npy_header(version: int, claim: str) -> bytes:
    """The start of an array's file."""
    length = struct.pack("<H" if version == 1 else "<I", len(claim))
    return b"\x93NUMPY" + bytes([version, 0]) + length + claim.encode()


@pytest.mark.parametrize(
    ("version", "claim", "zeros", "words"),
    [
        (1, "{'descr': '|u1', 'fortran_order': False, 'shape': (67108864,)}", 1 << 26, "not a list of whole numbers"),
        (1, "{'descr': '<i8', 'fortran_order': False, 'shape': (10**12,)}", 0, "not a sound npz batch"),
        (1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,)}", 0, "not a list of whole numbers"),
        (2, " " * (1 << 26), 0, "of npy version (2, 0)"),
    ],
    ids=["labels", "no number", "claim", "header"],
)
def test_bombs_are_refused_before_they_unfold(
    imagenet32: Path, version: int, claim: str, zeros: int, words: str
) -> None:
    """64 MB of blanks or zeros that are some 64 kB in the file, or more that are claimed only."""
    with zipfile.ZipFile(imagenet32 / "val_data.npz", "w", zipfile.ZIP_DEFLATED) as batch:
        batch.writestr("labels.npy", npy_header(version, claim) + bytes(zeros))
    assert (imagenet32 / "val_data.npz").stat().st_size < 100_000
    tracemalloc.start()
    try:
        assert words in refused("imagenet32", imagenet32)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()


def test_pixels_that_are_fewer_than_their_header_claims(imagenet32: Path) -> None:
    arrays = {}
    for name, array in make_arrays(10).items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        arrays[name] = buffer.getvalue()
    with zipfile.ZipFile(imagenet32 / "val_data.npz", "w") as batch:
        batch.writestr("labels.npy", arrays["labels"])
        batch.writestr("data.npy", arrays["data"][:-1])
    assert "val_data.npz is not a sound npz batch" in refused("imagenet32", imagenet32)
