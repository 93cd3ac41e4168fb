"""ImageNet 32x32 as its publisher gives it, checked before its bytes count as data: npz version, from
https://image-net.org/download-images (Chrabaszcz et al. 2017, arXiv:1707.08819)."""

import tokenize
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from platform.data.image_source import (
    ROW_BYTES,
    DatasetError,
    DatasetUnavailable,
    Source,
    Split,
    join_splits,
    to_images,
)

FILES = (*(f"train_data_batch_{number}.npz" for number in range(1, 11)), "val_data.npz")
CLASS_COUNT = 1000
MOST_ROWS = 1_281_167  # all training images of ImageNet; no single file may claim more


def open_imagenet32(directory: Path) -> Source:
    """Raises DatasetUnavailable where there is none of its files, and DatasetError for files that are not ImageNet
    32x32."""
    for folder in (directory / "imagenet32", directory):
        missing = [name for name in FILES if not (folder / name).is_file()]
        if len(missing) < len(FILES):
            break
    else:
        raise DatasetUnavailable(
            f"ImageNet 32x32 is not in {directory}; get its npz batches from https://image-net.org/download-images "
            f"(needs an account) and put them into {directory / 'imagenet32'}, or set HUEJURY_DATA."
        )
    if missing:
        raise DatasetError(f"{folder} lacks {', '.join(missing)}; unpack all of the publisher's npz batches there.")
    *parts, validation = [_read_batch(folder / name) for name in FILES]
    train = join_splits(parts)
    present = np.union1d(train.labels, validation.labels)  # of the publisher's numbers
    train, validation = (
        replace(split, labels=np.searchsorted(present, split.labels).astype(np.int64)) for split in (train, validation)
    )
    class_names = tuple(f"class {number}" for number in present.tolist())
    note = "ImageNet 32x32 (Chrabaszcz et al. 2017), the publisher's validation split"
    if len(class_names) < CLASS_COUNT:
        note += f"; {len(class_names)} of its {CLASS_COUNT:,} classes"
    return Source("imagenet32", class_names, train, validation, note)


def _read_batch(path: Path) -> Split:
    """Pictures with the publisher's labels, 1 to 1,000. What an array's header claims is checked before it is read."""
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open("labels.npy") as file:
                shape, dtype = _read_header(file)
                if len(shape) != 1 or dtype.kind not in "iu" or not 1 <= shape[0] <= MOST_ROWS:
                    raise ValueError(f"its labels are {dtype} of shape {shape}, not a list of whole numbers")
                labels = np.lib.format.read_array(file, allow_pickle=False).astype(np.int64)
            wrong = np.flatnonzero((labels < 1) | (labels > CLASS_COUNT))
            if len(wrong):
                raise ValueError(f"image {wrong[0]} has the label {labels[wrong[0]]}, of 1 to {CLASS_COUNT:,}")
            with archive.open("data.npy") as file:
                shape, dtype = _read_header(file)
                expected = (len(labels), ROW_BYTES)
                if shape != expected or dtype != np.uint8:
                    raise ValueError(f"its pixels are {dtype} of shape {shape}, not uint8 of shape {expected}")
                return Split(to_images(np.lib.format.read_array(file, allow_pickle=False)), labels)
    except (
        *(OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error),
        *(SyntaxError, tokenize.TokenError),  # numpy's, on a header that is no Python
    ) as error:
        raise DatasetError(f"{path} is not a sound npz batch ({error}); unpack the publisher's again.") from error


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an array claims; the publisher's format, npy 1.0, has a header of 64 kB at most."""
    if (version := np.lib.format.read_magic(file)) != (1, 0):
        raise ValueError(f"an array is of npy version {version}, not 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    file.seek(0)
    return shape, dtype
