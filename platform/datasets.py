"""The four sources of images: CIFAR-10, ImageNet 32x32, crops of bundled photographs, and any folder.

`load_dataset` gives the first of several named datasets that can be had, as uint8 RGB arrays of 32 x 32 pixels with
labels and a fixed split. Training images that also stand in the validation split are left out, bytes are checked
before they count as data, and the note says what was done.
"""

import hashlib
import json
import math
import os
import sys
import tarfile
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pooch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from db.errors import UserError

SIZE = 32  # pixels, height and width of every image
ROW_BYTES = 3 * SIZE * SIZE

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

# Of the colour pictures inside scikit-image's wheel these are photographs of everyday things; retina.jpg,
# hubble_deep_field.jpg and ihc.png are scientific pictures of almost one hue, motorcycle_right.png is the stereo twin.
PHOTOS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
PHOTO_REDUCTIONS = (1, 2, 4, 6)  # crops of 32, 64, 128 and 192 pixels, each reduced to 32
PHOTO_GAP = 16  # pixels between two splits that belong to neither: no JPEG block reaches across

FOLDER_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FOLDER_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
FOLDER_VALIDATION_SHARE = 0.2

KNOWN_NAMES = ("cifar10", "imagenet32", "photos")

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Say = Callable[[str], None]


class DatasetUnavailable(UserError):  # noqa: N818 - not an error as long as another dataset is named
    """The dataset is not there and cannot be had: the next named one may be tried."""


class DatasetError(UserError):
    """The dataset is there but broken, or the request is wrong: one sentence with what and the mend."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of three splits that share no picture.

    Images are uint8 RGB, C-contiguous, (n, 32, 32, 3); labels int64, (n,), indices into `class_names`. The training
    order is shuffled, so that any prefix is a fair sample; the others stay in the source's order.
    """

    name: str  # "cifar10", "imagenet32", "photos" or "folder:/absolute/path"
    class_names: tuple[str, ...]
    train_images: Bytes
    train_labels: Labels
    tuning_images: Bytes  # of the publisher's training split, kept aside: trials are chosen by their loss on these
    tuning_labels: Labels
    validation_images: Bytes
    validation_labels: Labels
    fingerprint: str  # sha256, hex, over class names, shapes, pixels, labels and split of what is held here
    note: str  # one sentence on where the images came from, shown beside results


@dataclass(frozen=True)
class _Part:
    """A part of a split that is read when needed, so that ImageNet's 3.9 GB lie in memory only once.

    `read` gives uint8 (n, 3072): 1024 red, 1024 green, 1024 blue values a row, as both publishers store them.
    """

    labels: Labels
    read: Callable[[], Bytes]


@dataclass(frozen=True)
class _Source:
    name: str
    class_names: tuple[str, ...]
    train: list[_Part]
    validation: list[_Part]
    tuning: list[_Part]  # where tuning images come from; empty: from `train`
    note: str  # without the full stop


def load_dataset(
    names: Sequence[str],
    *,
    data_directory: Path | None = None,
    train_images: int | None = None,
    tuning_images: int | None = None,
    validation_images: int | None = None,
    seed: int = 0,
    say: Say = print,
) -> Dataset:
    """Load the first of the named datasets that can be had, and say which one it is.

    `names` are "cifar10", "imagenet32", "photos" or "folder:PATH". `data_directory` is where files are looked for and
    downloaded to (default: `default_data_directory()`). `train_images` and `validation_images` limit the splits to
    class-balanced subsets, nested for one seed; more than there is takes all. `tuning_images` of the training split are
    kept aside, of those that `train_images` leaves over where it does (default: as many as validation has, but at most
    a tenth of the training split). `seed` decides subsets and order.

    Raises DatasetError for an unknown name or broken files, DatasetUnavailable when none of the names can be had.
    """
    if not names:
        raise DatasetError(f"No dataset is named: name at least one of {_known_names()}.")
    for name in names:
        _check_name(name)
    limits = {"train": train_images, "tuning": tuning_images, "validation": validation_images}
    for split, limit in limits.items():
        if limit is not None and limit < 1:
            raise DatasetError(f"{split}_images is {limit}, but must be at least 1.")
    directory = data_directory if data_directory is not None else default_data_directory()
    reasons = []
    for position, name in enumerate(names):
        try:
            source = _open_source(name, directory, say)
        except DatasetUnavailable as error:
            reasons.append(f"{name}: {error}")
            if position + 1 < len(names):
                say(f"{reasons[-1]} Trying {names[position + 1]} instead.")
            continue
        dataset = _build(source, limits, seed)
        say(
            f"Data: {dataset.name}, {len(dataset.train_labels):,} training, {len(dataset.tuning_labels):,} tuning and "
            f"{len(dataset.validation_labels):,} validation images of {len(dataset.class_names):,} classes. {dataset.note}"
        )
        return dataset
    raise DatasetUnavailable(" ".join(reasons))


def default_data_directory() -> Path:
    """$HUEJURY_DATA where set, else the user's cache directory."""
    return Path(os.environ.get("HUEJURY_DATA") or pooch.os_cache("huejury")).expanduser()


def _known_names() -> str:
    return f"{', '.join(KNOWN_NAMES)} and folder:PATH"


def _check_name(name: str) -> None:
    if name in KNOWN_NAMES or (name.startswith("folder:") and name != "folder:"):
        return
    nearest = get_close_matches(name.lower(), [*KNOWN_NAMES, "folder:PATH"], n=1, cutoff=0.5)
    hint = f' Did you mean "{nearest[0]}"?' if nearest else ""
    raise DatasetError(f'There is no dataset "{name}": known are {_known_names()}.{hint}')


def _open_source(name: str, directory: Path, say: Say) -> _Source:
    match name:
        case "cifar10":
            return _cifar10(directory, say)
        case "imagenet32":
            return _imagenet32(directory)
        case "photos":
            return _photos()
        case _:
            try:
                folder = Path(name.removeprefix("folder:")).expanduser().resolve()
                found = folder.is_dir()
            except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, links in a circle, ~nobody
                raise DatasetError(f'"{name[:100]}" names no folder ({error}); give the path of one.') from None
            if not found:
                raise DatasetUnavailable(f"There is no folder {folder}.")
            return _folder(folder)


# From a source to a dataset


def _build(source: _Source, limits: dict[str, int | None], seed: int) -> Dataset:
    parts = [*source.train, *source.tuning]
    labels = np.concatenate([part.labels for part in parts])
    validation_labels = np.concatenate([part.labels for part in source.validation])
    digests = np.concatenate([_digests(part.read()) for part in parts])
    taken = np.concatenate([_digests(part.read()) for part in source.validation])
    candidates = np.flatnonzero(~np.isin(digests, taken))
    if not len(candidates):
        raise DatasetError(
            f"Every training image of {source.name} also stands in its validation split: use other data."
        )
    validation = np.sort(_balanced_sample(validation_labels, limits["validation"], np.random.default_rng([seed, 1])))

    # No picture is drawn twice, and no copy of one that was drawn is trained on.
    pictures = candidates[np.unique(digests[candidates], return_index=True)[1]]
    if len(pictures) < 2:
        raise DatasetError(f"{source.name} has a single picture to train on, and tuning needs another: use more data.")
    from_train = sum(len(part.labels) for part in source.train)
    drawn_from = pictures[pictures >= from_train] if source.tuning else pictures[:-1]
    wanted = limits["tuning"] or max(1, min(len(validation), len(candidates) // 10))
    tuning = _balanced_sample(labels[drawn_from], wanted, np.random.default_rng([seed, 2]))
    tuning = np.sort(drawn_from[tuning])
    trained = candidates[candidates < from_train]
    left = trained[~np.isin(digests[trained], digests[tuning])]
    train = left[_balanced_sample(labels[left], limits["train"], np.random.default_rng([seed, 0]))]

    note = source.note
    if dropped := len(digests) - len(candidates):
        note += f"; left out of training because they also stand in the validation split: {dropped:,}"
    note += f"; {len(tuning):,} kept aside of the training split for tuning"
    if copies := len(trained) - len(left) - (0 if source.tuning else len(tuning)):
        note += f" and {copies:,} copies of them left out of training"
    for name, split, whole in (("training", train, left), ("validation", validation, validation_labels)):
        if len(split) < len(whole):
            note += f"; {len(split):,} of {len(whole):,} {name} images, balanced by class, drawn with seed {seed}"
    arrays = (
        *(_gather(parts, train), labels[train]),
        *(_gather(parts, tuning), labels[tuning]),
        *(_gather(source.validation, validation), validation_labels[validation]),
    )
    return Dataset(source.name, source.class_names, *arrays, _fingerprint(source.class_names, *arrays), f"{note}.")


def _digests(rows: Bytes) -> npt.NDArray[np.uint64]:
    """64 bits that tell pictures apart: among a million some two are mistaken for one once in 10⁷ datasets."""
    return np.array([int.from_bytes(hashlib.blake2b(row, digest_size=8).digest()) for row in rows], np.uint64)


def _balanced_sample(labels: Labels, limit: int | None, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices in random order; with a limit, every class gives equally many as long as it has that many."""
    order = random.permutation(len(labels))
    if limit is None or limit >= len(labels):
        return order
    shuffled = labels[order]
    by_class = np.argsort(shuffled, kind="stable")
    _, starts, counts = np.unique(shuffled[by_class], return_index=True, return_counts=True)
    rank_in_class = np.empty(len(labels), np.intp)
    rank_in_class[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    chosen = np.argsort(rank_in_class, kind="stable")[:limit]
    return order[np.sort(chosen)]


def _gather(parts: list[_Part], indices: npt.NDArray[np.intp]) -> Bytes:
    """The images at these indices of the concatenated parts, (n, 32, 32, 3)."""
    images = np.empty((len(indices), SIZE, SIZE, 3), np.uint8)
    start = 0
    for part in parts:
        stop = start + len(part.labels)
        here = (indices >= start) & (indices < stop)
        if here.any():
            rows = part.read()[indices[here] - start]
            images[here] = rows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1)
        start = stop
    return images


def _fingerprint(class_names: tuple[str, ...], *arrays: Bytes | Labels) -> str:
    digest = hashlib.sha256(json.dumps([class_names, [array.shape for array in arrays]]).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
    return digest.hexdigest()


def _rows(images: Bytes) -> Bytes:
    """(n, 32, 32, 3) images as (n, 3072) rows of red, green and blue planes."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), ROW_BYTES)


def _in_memory(rows: Bytes, labels: Labels) -> _Part:
    return _Part(labels, lambda: rows)


# CIFAR-10: https://www.cs.toronto.edu/~kriz/cifar.html, binary version


def _cifar10(directory: Path, say: Say) -> _Source:
    folder = directory / CIFAR10_FOLDER
    archive = directory / CIFAR10_URL.rsplit("/", 1)[1]
    if folder.exists():
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
        parts.append(_in_memory(records[:, 1:], labels))
    genuine = all(hashlib.sha256(content).hexdigest() == CIFAR10_FILES[path.name] for path, content in contents.items())
    note = "CIFAR-10 (Krizhevsky 2009), the publisher's test batch as validation split"
    if not genuine:
        note += "; its files are not byte for byte the publisher's"
    return _Source("cifar10", CIFAR10_CLASSES, parts[:-1], parts[-1:], [], note)


def _cifar10_mend(path: Path) -> str:
    return f"remove {path.parent} and run again to download CIFAR-10 anew"


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
    mend = "remove it and run again to download it anew"
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


def _imagenet32(directory: Path) -> _Source:
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
    return _Source("imagenet32", class_names, parts[:-1], parts[-1:], [], note)


def _imagenet32_part(path: Path, labels: Labels) -> _Part:
    return _Part(labels, lambda: _read_imagenet32_rows(path))


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


# Photographs that scikit-image's wheel contains


def _photos() -> _Source:
    """Crops at several scales: of every photograph the right half validates, of the left half the upper two thirds
    train and the lower third tunes.

    The photograph is cut before anything is resampled, so that no pixel is in two splits.
    """
    train: list[_Part] = []
    tuning: list[_Part] = []
    validation: list[_Part] = []
    margin = PHOTO_GAP // 2
    for label, file_name in enumerate(PHOTOS.values()):
        try:
            with (files("skimage") / "data" / file_name).open("rb") as file, Image.open(file) as image:
                photo = np.asarray(image.convert("RGB"))
        except OSError as error:
            raise DatasetUnavailable(
                f"{file_name} is not among the photographs of this scikit-image; install the pinned version."
            ) from error
        middle, low = photo.shape[1] // 2, photo.shape[0] * 2 // 3
        regions = (
            (train, photo[: low - margin, : middle - margin], 16),
            (tuning, photo[low + margin :, : middle - margin], 7),
            (validation, photo[:, middle + margin :], 7),
        )
        for parts, region, positions in regions:
            fitting = [reduction for reduction in PHOTO_REDUCTIONS if min(region.shape[:2]) >= SIZE * reduction]
            rows = _rows(np.concatenate([_crops(region, reduction, positions) for reduction in fitting]))
            parts.append(_in_memory(rows, np.full(len(rows), label, np.int64)))
    note = (
        f"32 x 32 crops of {len(PHOTOS)} photographs from scikit-image, left halves training (their lower thirds "
        "tuning), right halves validation"
    )
    return _Source("photos", tuple(PHOTOS), train, validation, tuning, note)


def _crops(photo: Bytes, reduction: int, positions: int) -> Bytes:
    """Crops of 32 x 32 from the photo reduced by block means, at most `positions` evenly spaced ones a direction."""
    height, width = (extent // reduction for extent in photo.shape[:2])
    blocks = photo[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
    reduced = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    tops, lefts = (np.unique(np.linspace(0, extent - SIZE, positions).astype(int)) for extent in (height, width))
    return np.stack([reduced[top : top + SIZE, left : left + SIZE] for top in tops for left in lefts])


# Any folder of images


def _folder(folder: Path) -> _Source:
    """Every image of the folder; a fifth of the different pictures, chosen by their content, validates.

    Sub-folders are classes, an image outside them belongs to the class "all". Files and folders whose name starts
    with a dot are passed over, and so are links that lead out of the folder.
    """
    paths, passed_over = _image_paths(folder)
    if not paths:
        raise DatasetError(
            f"{folder} holds no images: put files such as .png, .jpg or .webp there, or into sub-folders."
        )
    class_of = [path.relative_to(folder).parts[0] if path.parent != folder else "all" for path in paths]
    class_names = tuple(sorted(set(class_of)))
    labels = np.array([class_names.index(name) for name in class_of], np.int64)
    bar = track(paths, "Reading images", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    rows = _rows(np.stack([_read_image(path) for path in bar]))

    digests = _digests(rows)
    pictures = sorted(set(digests))
    if len(pictures) < 3:
        raise DatasetError(
            f"{folder} holds too few different pictures ({len(pictures)} of {len(paths):,} files): training, tuning and "
            "validation need three."
        )
    chosen = set(pictures[: max(1, round(FOLDER_VALIDATION_SHARE * len(pictures)))])
    validates = np.array([digest in chosen for digest in digests])
    train, validation = (_in_memory(rows[side], labels[side]) for side in (~validates, validates))
    note = f"{len(paths):,} images of the folder {folder.name}, split by content"
    if copies := len(paths) - len(pictures):
        note += f", among them {copies:,} exact copies"
    if passed_over:
        note += f"; passed over as no images or as links out of the folder: {passed_over:,} files"
    return _Source(f"folder:{folder}", class_names, [train], [validation], [], note)


def _image_paths(folder: Path) -> tuple[list[Path], int]:
    """The images under the folder, and how many other files and links out of it were passed over."""

    def fail(error: OSError) -> None:
        raise DatasetError(f"{error.filename} cannot be read ({error.strerror}); allow it or move it away.") from error

    paths = []
    passed_over = 0
    for parent, folders, names in os.walk(folder, onerror=fail):  # never goes into a link to a folder
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in sorted(Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in FOLDER_SUFFIXES and path.is_file() and path.resolve().is_relative_to(folder):
                paths.append(path)
            else:
                passed_over += 1
    return paths, passed_over


def _read_image(path: Path) -> Bytes:
    """The upright image, cut to its central square and reduced to 32 x 32 with antialiasing; clear pixels are white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FOLDER_FORMATS) as image:
                image.draft("RGB", (4 * SIZE, 4 * SIZE))  # lets JPEG decode at a fraction of its size
                square = _central_square(ImageOps.exif_transpose(image))
                if square.has_transparency_data:
                    square = square.convert("RGBA")
                    square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square)
                return np.asarray(square.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller or move it away."
        ) from error
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise DatasetError(f"{path} cannot be read as an image ({error}); mend it or move it away.") from error


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = ((extent - side) // 2 for extent in image.size)
    return image.crop((left, top, left + side, top + side))
