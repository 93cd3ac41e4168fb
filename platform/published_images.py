"""CIFAR-10 and ImageNet 32x32 as their publishers give them, checked before their bytes count as data."""

import hashlib
import math
import sys
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pooch

from platform.image_source import (
    ROW_BYTES,
    Bytes,
    DatasetError,
    DatasetUnavailable,
    Labels,
    Part,
    Say,
    Source,
    in_memory,
)

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_RECORDS = 10_000  # in each file
CIFAR10_FILES = {  # the publisher's bytes (sha256); the last file is the validation split
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

IMAGENET32_FILES = (*(f"train_data_batch_{number}.npz" for number in range(1, 11)), "val_data.npz")
IMAGENET32_CLASSES = 1000
IMAGENET32_MOST_ROWS = 1_281_167  # all training images of ImageNet; no single file may claim more
NPY_HEADER_BYTES = 10_000  # at most, as numpy has it; those of the publisher are shorter than 128
NPZ_MEND = "unpack the publisher's npz version again"


# CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html, binary version


def open_cifar10(directory: Path, say: Say) -> Source:
    archive = directory / CIFAR10_URL.rsplit("/", 1)[1]
    folder = _find_cifar10_folder(directory)
    if folder is not None:
        contents = _read_cifar10_folder(folder)
    else:
        if not archive.exists():
            _download_cifar10(archive, say)
        contents = _read_cifar10_archive(archive)
    parts = []
    for path, content in contents.items():
        records = np.frombuffer(content, np.uint8).reshape(CIFAR10_RECORDS, 1 + ROW_BYTES)
        labels = records[:, 0].astype(np.int64)
        if labels.max() >= len(CIFAR10_CLASSES):
            record = int(labels.argmax())
            raise DatasetError(
                f"{path}: record {record} has the label {labels[record]}, but CIFAR-10's labels are 0 to 9, "
                f"so the file is damaged or is another dataset; {_cifar10_mend(path)}."
            )
        parts.append(in_memory(records[:, 1:], labels))
    genuine = all(hashlib.sha256(content).hexdigest() == CIFAR10_FILES[path.name] for path, content in contents.items())
    note = "CIFAR-10 (Krizhevsky 2009), the publisher's test batch as validation split"
    if not genuine:
        note += "; its files are not byte for byte the publisher's"
    return Source("cifar10", CIFAR10_CLASSES, parts[:-1], parts[-1:], [], note)


def _find_cifar10_folder(directory: Path) -> Path | None:
    """Where the binary version lies: below the directory as it unpacks, in it, or up to two folders deeper.

    Raises DatasetError where there is the version for Python only.
    """
    deeper = [path for depth in ("*", "*/*") for path in sorted(directory.glob(f"{depth}/{CIFAR10_FOLDER}"))]
    around = [directory / CIFAR10_FOLDER, directory, *deeper]
    for folder in around:
        if any((folder / name).exists() for name in CIFAR10_FILES):
            return folder
    for folder in [*around, directory / "cifar-10-batches-py", *directory.glob("*/cifar-10-batches-py")]:
        if (folder / "data_batch_1").exists():
            raise DatasetError(
                f"{folder} holds CIFAR-10's version for Python (data_batch_1, ...), but HueJury reads the binary one "
                f"(data_batch_1.bin, ...): put {CIFAR10_URL.rsplit('/', 1)[1]} into {directory}, or name another."
            )
    for archive in directory.glob("cifar-10-python.tar*"):
        if not (directory / CIFAR10_URL.rsplit("/", 1)[1]).exists():
            raise DatasetError(
                f"{archive} is CIFAR-10's version for Python, but HueJury reads the binary one: put "
                f"{CIFAR10_URL.rsplit('/', 1)[1]} beside it, or move it away to have that downloaded."
            )
    return directory / CIFAR10_FOLDER if (directory / CIFAR10_FOLDER).exists() else None


def _cifar10_mend(path: Path) -> str:
    return f"put the publisher's file there, or move {path.parent} away to have CIFAR-10 downloaded anew"


def _check_cifar10_size(path: Path, size: int) -> None:
    expected = CIFAR10_RECORDS * (1 + ROW_BYTES)
    if size != expected:
        raise DatasetError(
            f"{path} has {size:,} bytes instead of {expected:,}, so it was cut short or changed; {_cifar10_mend(path)}."
        )


def _read_cifar10_folder(folder: Path) -> dict[Path, bytes]:
    contents = {}
    for name in CIFAR10_FILES:
        path = folder / name
        try:
            _check_cifar10_size(path, path.stat().st_size)
            contents[path] = path.read_bytes()
        except OSError as error:
            raise DatasetError(f"{path} cannot be read ({error.strerror}); {_cifar10_mend(path)}.") from error
    return contents


def _read_cifar10_archive(archive: Path) -> dict[Path, bytes]:
    """The six files out of the archive, in memory: no path inside the archive ever reaches the disk."""
    mend = "move it away and run again to download it anew, or unpack it there if you know that it is good"
    contents: dict[Path, bytes] = {}
    try:
        if pooch.file_hash(archive) != CIFAR10_SHA256:
            raise DatasetError(f"{archive} is not the publisher's archive (its sha256 differs); {mend}.")
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                folder, _, name = member.name.partition("/")
                if folder != CIFAR10_FOLDER or name not in CIFAR10_FILES or not member.isreg():
                    continue
                path = archive / name
                _check_cifar10_size(path, member.size)
                file = tar.extractfile(member)
                assert file is not None  # only members that are not files have none
                contents[path] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DatasetError(f"{archive} cannot be read ({error}); {mend}.") from error
    if missing := [name for name in CIFAR10_FILES if archive / name not in contents]:
        raise DatasetError(f"{archive} lacks {', '.join(missing)}; {mend}.")
    return {archive / name: contents[archive / name] for name in CIFAR10_FILES}


def _download_cifar10(archive: Path, say: Say) -> None:
    """Download into a temporary file beside `archive`, which gets its name only with the right checksum."""
    pooch.get_logger().setLevel("WARNING")  # we say it ourselves
    say(f"Downloading CIFAR-10 (162 MiB) from {CIFAR10_URL} to {archive.parent}.")
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=2**18,
        timeout=(5, 30),  # seconds to connect, and between two chunks
    )
    try:
        pooch.retrieve(
            CIFAR10_URL, f"sha256:{CIFAR10_SHA256}", archive.name, path=archive.parent, downloader=downloader
        )
    except (OSError, ValueError) as error:  # all of requests' errors are OSErrors; a wrong checksum is a ValueError
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
        else:
            reason = "what arrived does not have the publisher's checksum"
        raise DatasetUnavailable(
            f"CIFAR-10 is not in {archive.parent} and could not be downloaded from {CIFAR10_URL} ({reason}); "
            "run again, or fetch the archive yourself and put it there."
        ) from error


# ImageNet 32x32: https://image-net.org/download-images, npz version (Chrabaszcz et al. 2017, arXiv:1707.08819)


def open_imagenet32(directory: Path) -> Source:
    for folder in (directory / "imagenet32", directory):
        missing = [name for name in IMAGENET32_FILES if not (folder / name).is_file()]
        if len(missing) < len(IMAGENET32_FILES):
            break
    else:
        raise DatasetUnavailable(
            f"ImageNet 32x32 is not in {directory}; get its npz batches from https://image-net.org/download-images "
            f"(needs an account) and put them into {directory / 'imagenet32'}, or set HUEJURY_DATA."
        )
    if missing:
        raise DatasetError(f"{folder} lacks {', '.join(missing)}; unpack all of the publisher's npz batches there.")
    numbers = {name: _read_imagenet32_labels(folder / name) for name in IMAGENET32_FILES}
    present = np.unique(np.concatenate(list(numbers.values())))
    parts = [
        _imagenet32_part(folder / name, np.searchsorted(present, labels).astype(np.int64))
        for name, labels in numbers.items()
    ]
    names = _imagenet32_class_names(folder / "map_clsloc.txt")
    class_names = tuple(names.get(number, f"class {number}") for number in present.tolist())
    note = "ImageNet 32x32 (Chrabaszcz et al. 2017), the publisher's validation split"
    if len(class_names) < IMAGENET32_CLASSES:
        note += f"; {len(class_names)} of its {IMAGENET32_CLASSES:,} classes"
    return Source("imagenet32", class_names, parts[:-1], parts[-1:], [], note)


def _imagenet32_part(path: Path, labels: Labels) -> Part:
    return Part(labels, lambda: _read_imagenet32_rows(path))


def _read_imagenet32_labels(path: Path) -> Labels:
    """The labels, 1 to 1,000, after a look at the header of the pixels."""
    with _open_npy(path, "labels") as (file, shape, dtype):
        if len(shape) != 1 or dtype.kind not in "iu" or not 1 <= shape[0] <= IMAGENET32_MOST_ROWS:
            raise ValueError(f"its labels are {dtype} of shape {shape}, not a list of whole numbers")
        labels = np.lib.format.read_array(file, allow_pickle=False).astype(np.int64)
    wrong = np.flatnonzero((labels < 1) | (labels > IMAGENET32_CLASSES))
    if len(wrong):
        raise DatasetError(
            f"{path}: image {wrong[0]} has the label {labels[wrong[0]]}, but ImageNet's labels are 1 to "
            f"{IMAGENET32_CLASSES:,}, so the file is damaged or is another dataset; {NPZ_MEND}."
        )
    with _open_npy(path, "data") as (_, shape, dtype):
        if shape != (len(labels), ROW_BYTES) or dtype != np.uint8:
            raise ValueError(f"its pixels are {dtype} of shape {shape}, not uint8 of shape {(len(labels), ROW_BYTES)}")
    return labels


def _read_imagenet32_rows(path: Path) -> Bytes:
    with _open_npy(path, "data") as (file, _, _):
        return np.ascontiguousarray(np.lib.format.read_array(file, allow_pickle=False))


@contextmanager
def _open_npy(path: Path, name: str) -> Iterator[tuple[IO[bytes], tuple[int, ...], np.dtype[Any]]]:
    """One array of an npz file, its size checked against its header before anything is loaded.

    Whatever is wrong with the file, also what the caller finds (ValueError), becomes a DatasetError.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            if int.from_bytes(file.read(2 if version == (1, 0) else 4), "little") > NPY_HEADER_BYTES:
                raise ValueError(f"the header of its {name} is too long")  # numpy would unpack all of it first
            file.seek(np.lib.format.MAGIC_LEN)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            if dtype.hasobject:
                raise ValueError(f"its {name} are pickled Python objects, which are never loaded")
            if archive.getinfo(f"{name}.npy").file_size != file.tell() + math.prod(shape) * dtype.itemsize:
                raise ValueError(f"the size of its {name} contradicts their header")
            file.seek(0)
            yield file, shape, dtype
    except KeyError as error:
        raise DatasetError(f"{path} has no array named {name}; {NPZ_MEND}.") from error
    except (
        *(OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error),
        *(SyntaxError, tokenize.TokenError),  # numpy's, on a header that is no Python
    ) as error:
        raise DatasetError(f"{path} is not a sound npz batch ({error}); {NPZ_MEND}.") from error


def _imagenet32_class_names(path: Path) -> dict[int, str]:
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
