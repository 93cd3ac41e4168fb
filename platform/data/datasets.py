"""Data by name: the first of several named datasets that can be had, as three splits that share no picture.

Training images that also stand in the validation split are left out, and the note says what was done.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pooch

from platform.data.cifar10 import open_cifar10
from platform.data.folder import open_folder
from platform.data.image_source import (
    Bytes,
    DatasetError,
    DatasetUnavailable,
    Labels,
    Say,
    Source,
    digest_images,
    join_splits,
)
from platform.data.imagenet32 import open_imagenet32
from platform.data.photos import open_photos

__all__ = ["Dataset", "DatasetError", "DatasetUnavailable", "load_dataset"]

KNOWN_NAMES = ("cifar10", "imagenet32", "photos")


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
    note: str  # one sentence on where the images came from, shown beside results

    @cached_property
    def fingerprint(self) -> str:
        """sha256, hex, over class names, shapes, pixels, labels and split of what is held here."""
        splits = ("train", "tuning", "validation")
        arrays = [getattr(self, f"{split}_{what}") for split in splits for what in ("images", "labels")]
        digest = hashlib.sha256(json.dumps([self.class_names, [array.shape for array in arrays]]).encode())
        for array in arrays:
            digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False)).data)
        return digest.hexdigest()

    def with_train_images(self, limit: int, seed: int) -> "Dataset":
        """The data as they are loaded with at most so many training images. seed: that they were loaded with."""
        chosen = _first_balanced(self.train_labels, limit)
        if len(chosen) == len(self.train_labels):
            return self
        note = self.note.removesuffix(".") + _note_of_subset("training", len(chosen), len(self.train_labels), seed)
        return replace(
            self,
            train_images=self.train_images[chosen],
            train_labels=self.train_labels[chosen],
            note=f"{note}.",
        )

    def summary(self) -> str:
        """What it is, in a line or two."""
        return (
            f"Data: {self.name}, {len(self.train_labels):,} training, {len(self.tuning_labels):,} tuning and "
            f"{len(self.validation_labels):,} validation images of {len(self.class_names):,} classes. {self.note}"
        )


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
    """Load the first of the named datasets that can be had, and say why not the ones before it.

    `names` are "cifar10", "imagenet32", "photos" or "folder:PATH". `data_directory` is where files are looked for and
    downloaded to (default: `default_data_directory()`). `train_images` and `validation_images` limit the splits to
    class-balanced subsets, nested for one seed; more than there is takes all. `tuning_images` of the training split are
    kept aside, of those that `train_images` leaves over where it does (default: as many as validation has, but at most
    a tenth of the training split). `seed` decides subsets and order.

    Raises DatasetError for an unknown name or broken files, DatasetUnavailable when none of the names can be had.
    """
    for name in names:
        if name not in KNOWN_NAMES and not (name.startswith("folder:") and name != "folder:"):
            raise DatasetError(f'There is no dataset "{name}": known are {", ".join(KNOWN_NAMES)} and folder:PATH.')
    limits = {"train": train_images, "tuning": tuning_images, "validation": validation_images}
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
        return _split(source, limits, seed)
    raise DatasetUnavailable(" ".join(reasons))


def default_data_directory() -> Path:
    """$HUEJURY_DATA where set, else the user's cache directory, or a temporary one for a user without a home."""
    try:
        return Path(os.environ.get("HUEJURY_DATA") or pooch.os_cache("huejury")).expanduser()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "huejury"


def _open_source(name: str, directory: Path, say: Say) -> Source:
    match name:
        case "cifar10":
            return open_cifar10(directory, say)
        case "imagenet32":
            return open_imagenet32(directory)
        case "photos":
            return open_photos()
        case _:
            try:
                folder = Path(name.removeprefix("folder:")).expanduser().resolve()
                found = folder.is_dir()
            except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, links in a circle, ~nobody
                raise DatasetError(f'"{name[:100]}" names no folder ({error}); give the path of one.') from None
            if not found:
                raise DatasetUnavailable(f"There is no folder {folder}.")
            return open_folder(folder)


# From a source to a dataset


def _split(source: Source, limits: dict[str, int | None], seed: int) -> Dataset:
    pool = source.train if source.tuning is None else join_splits([source.train, source.tuning])
    from_train = len(source.train.labels)  # the pool's first images
    digests, taken = digest_images(pool.images), digest_images(source.validation.images)
    candidates = np.flatnonzero(~np.isin(digests, taken))
    # No picture is drawn twice, and no copy of one that was drawn is trained on.
    pictures = candidates[np.unique(digests[candidates], return_index=True)[1]]
    if len(pictures) < 2:
        raise DatasetError(
            f"{source.name} has {len(pictures)} pictures to train on that its validation split does not have, and "
            "needs two, one for tuning: use other data."
        )
    chosen = _balanced_sample(source.validation.labels, limits["validation"], np.random.default_rng([seed, 1]))
    validation = np.sort(chosen)
    drawn_from = pictures[:-1] if source.tuning is None else pictures[pictures >= from_train]
    wanted = limits["tuning"] or max(1, min(len(validation), len(candidates) // 10))
    tuning = np.sort(drawn_from[_balanced_sample(pool.labels[drawn_from], wanted, np.random.default_rng([seed, 2]))])
    trained = candidates[candidates < from_train]
    left = trained[~np.isin(digests[trained], digests[tuning])]
    train = left[_balanced_sample(pool.labels[left], limits["train"], np.random.default_rng([seed, 0]))]

    note = source.note
    if dropped := len(digests) - len(candidates):
        note += f"; left out of training because they also stand in the validation split: {dropped:,}"
    note += f"; {len(tuning):,} kept aside of the training split for tuning"
    if copies := len(trained) - len(left) - (len(tuning) if source.tuning is None else 0):
        note += f" and {copies:,} copies of them left out of training"
    note += _note_of_subset("validation", len(validation), len(taken), seed)
    note += _note_of_subset("training", len(train), len(left), seed)
    return Dataset(
        name=source.name,
        class_names=source.class_names,
        train_images=pool.images[train],
        train_labels=pool.labels[train],
        tuning_images=pool.images[tuning],
        tuning_labels=pool.labels[tuning],
        validation_images=source.validation.images[validation],
        validation_labels=source.validation.labels[validation],
        note=f"{note}.",
    )


def _note_of_subset(split: str, count: int, whole: int, seed: int) -> str:
    return (
        f"; {count:,} of {whole:,} {split} images, balanced by class, drawn with seed {seed}" if count < whole else ""
    )


def _balanced_sample(labels: Labels, limit: int | None, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Indices in random order; with a limit, every class gives equally many as long as it has that many."""
    order = random.permutation(len(labels))
    return order if limit is None else order[_first_balanced(labels[order], limit)]


def _first_balanced(labels: Labels, limit: int) -> npt.NDArray[np.intp]:
    """The places of as many labels, in their order, of which each class has equally many as long as it has that many,
    its first ones."""
    by_class = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank_in_class = np.empty(len(labels), np.intp)
    rank_in_class[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return np.sort(np.argsort(rank_in_class, kind="stable")[:limit])
