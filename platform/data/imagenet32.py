"""ImageNet 32x32 as its publisher gives it, checked before its bytes count as data: npz version, from
https://image-net.org/download-images (Chrabaszcz et al. 2017, arXiv:1707.08819)."""

import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from platform.data.image_source import ROW_BYTES, Bytes, DatasetError, DatasetUnavailable, Labels, Part, Source

FILES = (*(f"train_data_batch_{number}.npz" for number in range(1, 11)), "val_data.npz")
CLASS_COUNT = 1000
MOST_ROWS = 1_281_167  # all training images of ImageNet; no single file may claim more


def open_imagenet32(directory: Path) -> Source:
    """Read labels and check what the pixels' headers claim; pixels are read when they are needed.

    Raises DatasetUnavailable where there is none of its files, and DatasetError for files that are not ImageNet 32x32.
    """
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
    numbers = {name: _read_labels(folder / name) for name in FILES}
    present = np.unique(np.concatenate(list(numbers.values())))
    parts = [
        Part(np.searchsorted(present, labels).astype(np.int64), partial(_read_rows, folder / name))
        for name, labels in numbers.items()
    ]
    names = _read_class_names(folder / "map_clsloc.txt")
    class_names = tuple(names.get(number, f"class {number}") for number in present.tolist())
    note = "ImageNet 32x32 (Chrabaszcz et al. 2017), the publisher's validation split"
    if len(class_names) < CLASS_COUNT:
        note += f"; {len(class_names)} of its {CLASS_COUNT:,} classes"
    return Source("imagenet32", class_names, parts[:-1], parts[-1:], [], note)


def _read_labels(path: Path) -> Labels:
    """The labels, 1 to 1,000, after a look at the header of the pixels."""
    with _open_array(path, "labels") as (file, shape, dtype):
        if len(shape) != 1 or dtype.kind not in "iu" or not 1 <= shape[0] <= MOST_ROWS:
            raise ValueError(f"its labels are {dtype} of shape {shape}, not a list of whole numbers")
        labels = np.lib.format.read_array(file, allow_pickle=False).astype(np.int64)
        wrong = np.flatnonzero((labels < 1) | (labels > CLASS_COUNT))
        if len(wrong):
            raise ValueError(f"image {wrong[0]} has the label {labels[wrong[0]]}, of 1 to {CLASS_COUNT:,}")
    with _open_array(path, "data") as (_, shape, dtype):
        if shape != (len(labels), ROW_BYTES) or dtype != np.uint8:
            raise ValueError(f"its pixels are {dtype} of shape {shape}, not uint8 of shape {(len(labels), ROW_BYTES)}")
    return labels


def _read_rows(path: Path) -> Bytes:
    with _open_array(path, "data") as (file, _, _):
        return np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False))


@contextmanager
def _open_array(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """One array of an npz file with what its header claims, to be checked before anything is loaded.

    The publisher's format, npy 1.0, has a header of 64 kB at most. Whatever is wrong with the file, also what the
    caller finds (ValueError), becomes a DatasetError.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            if (version := np.lib.format.read_magic(file)) != (1, 0):
                raise ValueError(f"its {name} are of npy version {version}, not 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            file.seek(0)
            yield file, shape, dtype
    except (
        *(OSError, ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error),
        *(SyntaxError, tokenize.TokenError),  # numpy's, on a header that is no Python
    ) as error:
        raise DatasetError(f"{path} is not a sound npz batch ({error}); unpack the publisher's again.") from error


def _read_class_names(path: Path) -> dict[int, str]:
    """Names from the publisher's list, where it lies beside the batches: lines such as "n02119789 1 kit_fox"."""
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()]
        return {int(number): name.replace("_", " ") for _, number, name in lines}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DatasetError(
            f'{path} is not a list of lines such as "n02119789 1 kit_fox"; mend or remove it.'
        ) from error
