"""From a source to a dataset: splits that share no picture, subsets, order, fingerprint, names. The sources themselves:
test_cifar10.py, test_imagenet32.py, test_photos.py and test_folder.py."""

import hashlib
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform.data import cifar10 as publisher
from platform.data import datasets
from platform.data.datasets import Dataset, DatasetError, load_dataset

RECORDS = 20  # images in each synthetic CIFAR-10 file
Pixels = npt.NDArray[np.uint8]


def random_images(count: int, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def pairs(images: Pixels, labels: npt.NDArray[np.int64]) -> Counter[tuple[bytes, int]]:
    return Counter((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def pairs_not_validated(data: Dataset) -> Counter[tuple[bytes, int]]:
    """What was the source's training split: what is trained on and what is kept aside for tuning."""
    return pairs(data.train_images, data.train_labels) + pairs(data.tuning_images, data.tuning_labels)


def refused(name: str, directory: Path) -> str:
    """The one sentence with which a broken dataset is refused, though a later name could be had."""
    with pytest.raises(DatasetError) as caught:
        load_dataset([name, "photos"], data_directory=directory, say=lambda line: None)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# CIFAR-10


def cifar10_bytes(images: Pixels, labels: list[int]) -> bytes:
    """The publisher's records: label, 1024 red, 1024 green, 1024 blue values, row by row."""
    records = []
    for image, label in zip(images, labels, strict=True):
        planes = [
            bytes(image[row, column, channel] for row in range(32) for column in range(32)) for channel in range(3)
        ]
        records.append(bytes([label]) + b"".join(planes))
    return b"".join(records)


CIFAR10_IMAGES = {name: random_images(RECORDS, seed) for seed, name in enumerate(publisher.FILES)}
CIFAR10_LABELS = [number % 10 for number in range(RECORDS)]
CIFAR10_BYTES = {name: cifar10_bytes(images, CIFAR10_LABELS) for name, images in CIFAR10_IMAGES.items()}


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with CIFAR-10 in the publisher's layout, only smaller; returns the folder of the files."""
    monkeypatch.setattr(publisher, "FILE_RECORDS", RECORDS)
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, content in CIFAR10_BYTES.items():
        (folder / name).write_bytes(content)
    return folder


def load_cifar10(directory: Path, **options: Any) -> Dataset:
    return load_dataset(["cifar10"], data_directory=directory, say=lambda line: None, **options)


def check_is_synthetic_cifar10(data: Dataset) -> None:
    train = np.concatenate(list(CIFAR10_IMAGES.values())[:5])
    assert pairs_not_validated(data) == pairs(train, np.array(CIFAR10_LABELS * 5))
    np.testing.assert_array_equal(data.validation_images, CIFAR10_IMAGES["test_batch.bin"])
    np.testing.assert_array_equal(data.validation_labels, CIFAR10_LABELS)


def test_cifar10_gives_every_pixel_and_label(cifar10: Path) -> None:
    data = load_cifar10(cifar10.parent)
    check_is_synthetic_cifar10(data)
    assert (data.name, data.class_names[6]) == ("cifar10", "frog")
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.tuning_images, data.tuning_labels),
        (data.validation_images, data.validation_labels),
    ):
        assert (images.dtype.name, labels.dtype.name) == ("uint8", "int64")
        assert images.flags.c_contiguous
    assert "not byte for byte the publisher's" in data.note


def test_seed_fixes_the_order(cifar10: Path) -> None:
    first, again, other = (load_cifar10(cifar10.parent, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert pairs_not_validated(first) == pairs_not_validated(other)
    assert first.train_labels.tolist() != sorted(first.train_labels)


def test_limits_are_balanced_nested_and_said(cifar10: Path) -> None:
    whole = load_cifar10(cifar10.parent, train_images=10**6, validation_images=10**6)
    assert [len(labels) for labels in (whole.train_labels, whole.tuning_labels, whole.validation_labels)] == [
        90,
        10,
        20,
    ]
    small = load_cifar10(cifar10.parent, train_images=20, validation_images=10)
    larger = load_cifar10(cifar10.parent, train_images=35, validation_images=10)
    assert np.bincount(small.train_labels).tolist() == [2] * 10
    assert sorted(small.validation_labels) == list(range(10))
    assert pairs(small.train_images, small.train_labels) <= pairs(larger.train_images, larger.train_labels)
    assert "20 of 90 training images" in small.note
    assert "10 of 20 validation images" in small.note
    assert " of 90" not in whole.note


@pytest.mark.parametrize("limit", [1, 37, 89, 90, 1000])
def test_fewer_training_images_are_those_that_would_have_been_loaded(cifar10: Path, limit: int) -> None:
    whole = load_cifar10(cifar10.parent, validation_images=15, seed=3)
    loaded = load_cifar10(cifar10.parent, validation_images=15, seed=3, train_images=limit)
    chosen = whole.with_train_images(limit, 3)
    assert (chosen.fingerprint, chosen.note) == (loaded.fingerprint, loaded.note)
    np.testing.assert_array_equal(chosen.train_images, loaded.train_images)
    np.testing.assert_array_equal(chosen.train_labels, loaded.train_labels)


def test_tuning_images_are_kept_aside_of_training_and_validation(cifar10: Path) -> None:
    seen = []
    for options, size in (
        ({}, 10),
        ({"train_images": 40}, 10),
        ({"tuning_images": 30}, 30),
        ({"validation_images": 5}, 5),
    ):
        data = load_cifar10(cifar10.parent, **options)
        seen.append(data.fingerprint)
        assert f"{size} kept aside of the training split for tuning" in data.note
        assert np.ptp(np.bincount(data.tuning_labels, minlength=10)) <= 1  # balanced by class
        tuning, training = pairs(data.tuning_images, data.tuning_labels), pairs(data.train_images, data.train_labels)
        assert (tuning.total(), training.total()) == (size, options.get("train_images", 100 - size))
        assert not tuning & training
        assert not tuning & pairs(data.validation_images, data.validation_labels)
    assert len(set(seen)) == len(seen)
    # The same ones whatever the cap of training, others with another seed.
    whole, capped, other = (
        load_cifar10(cifar10.parent, **options) for options in ({}, {"train_images": 20}, {"seed": 1})
    )
    np.testing.assert_array_equal(whole.tuning_images, capped.tuning_images)
    assert pairs(whole.tuning_images, whole.tuning_labels) != pairs(other.tuning_images, other.tuning_labels)
    greedy = load_cifar10(cifar10.parent, tuning_images=1000)
    assert (len(greedy.train_labels), len(greedy.tuning_labels)) == (1, 99)


def test_no_copy_of_a_tuning_image_is_trained_on(cifar10: Path) -> None:
    for number in range(2, 6):
        (cifar10 / f"data_batch_{number}.bin").write_bytes(CIFAR10_BYTES["data_batch_1.bin"])
    data = load_cifar10(cifar10.parent)
    assert (len(data.train_labels), len(data.tuning_labels)) == (50, 10)
    assert not pairs(data.train_images, data.train_labels) & pairs(data.tuning_images, data.tuning_labels)
    assert "40 copies of them left out of training" in data.note


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    limit=st.integers(1, 45),
    seed=st.integers(0, 5),
)
def test_balanced_sample_fills_classes_evenly(labels: list[int], limit: int, seed: int) -> None:
    sample = datasets._balanced_sample(np.array(labels, np.int64), limit, np.random.default_rng(seed))
    assert len(set(sample.tolist())) == len(sample) == min(limit, len(labels))
    taken = Counter(labels[index] for index in sample)
    for label, count in Counter(labels).items():  # a class gives fewer than another only when it has no more
        assert taken[label] == count or taken[label] >= max(taken.values()) - 1


def test_validation_images_are_left_out_of_training(cifar10: Path) -> None:
    repeated = CIFAR10_IMAGES["data_batch_2.bin"].copy()
    repeated[3] = CIFAR10_IMAGES["test_batch.bin"][0]
    repeated[4] = CIFAR10_IMAGES["test_batch.bin"][17]
    (cifar10 / "data_batch_2.bin").write_bytes(cifar10_bytes(repeated, CIFAR10_LABELS))
    data = load_cifar10(cifar10.parent, validation_images=1)
    assert len(data.train_images) + len(data.tuning_images) == 98
    assert "stand in the validation split: 2" in data.note
    validation = {image.tobytes() for image in CIFAR10_IMAGES["test_batch.bin"]}
    assert not validation & {image.tobytes() for image in data.train_images}


def test_nothing_left_to_train_on(cifar10: Path) -> None:
    for number in range(1, 6):
        (cifar10 / f"data_batch_{number}.bin").write_bytes(CIFAR10_BYTES["test_batch.bin"])
    assert "cifar10 has 0 pictures to train on" in refused("cifar10", cifar10.parent)


def test_fingerprint_sees_pixels_labels_and_split(cifar10: Path) -> None:
    fingerprints = {load_cifar10(cifar10.parent).fingerprint}
    name, content = "test_batch.bin", bytearray(CIFAR10_BYTES["test_batch.bin"])
    for position, value in ((0, 1), (3072, content[3072] ^ 1)):  # a label, then a pixel
        changed = bytes(content[:position]) + bytes([value]) + bytes(content[position + 1 :])
        (cifar10 / name).write_bytes(changed)
        fingerprints.add(load_cifar10(cifar10.parent).fingerprint)
    (cifar10 / name).write_bytes(CIFAR10_BYTES["data_batch_1.bin"])
    (cifar10 / "data_batch_1.bin").write_bytes(CIFAR10_BYTES["test_batch.bin"])
    fingerprints.add(load_cifar10(cifar10.parent).fingerprint)
    assert len(fingerprints) == 4


# Names and directories


@pytest.mark.parametrize("names", [["cifar-10"], ["photos", "imagenet"], ["folder:"]])
def test_wrong_names(names: list[str]) -> None:
    with pytest.raises(DatasetError, match=f'"{names[-1]}": known are cifar10, imagenet32, photos and folder:PATH'):
        load_dataset(names)


def test_data_directory(cifar10: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUEJURY_DATA", str(cifar10.parent))
    check_is_synthetic_cifar10(load_dataset(["cifar10"]))
    monkeypatch.setenv("HUEJURY_DATA", "")
    assert datasets.default_data_directory().name == "huejury"


# The real thing


def real(name: str, file_name: str) -> Dataset:
    directory = datasets.default_data_directory()
    if not any(directory.glob(f"**/{file_name}")):
        pytest.skip(f"NOT CHECKED: no {name} under {directory}; set HUEJURY_DATA to check the real images")
    return load_dataset([name], data_directory=directory)


def test_real_cifar10() -> None:
    data = real("cifar10", "data_batch_1.bin")
    assert np.bincount(data.validation_labels).tolist() == [1000] * 10
    assert 49_990 <= len(data.train_labels) + len(data.tuning_labels) <= 50_000
    means = data.train_images[:10_000].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means, [125.3, 123.0, 113.9], atol=2)  # widely published channel means
    prefix = np.bincount(data.train_labels[:5000])
    assert prefix.min() > 400
    # The bluest classes are aeroplanes and ships: colours and labels belong together.
    some, labels = data.train_images[:10_000], data.train_labels[:10_000]
    by_class = np.stack([some[labels == label].mean(axis=(0, 1, 2)) for label in range(10)])
    assert set((by_class[:, 2] - by_class[:, 0]).argsort()[-2:].tolist()) == {0, 8}


def test_real_imagenet32() -> None:
    data = real("imagenet32", "val_data.npz")
    assert len(np.unique(data.train_labels)) == len(data.class_names)
    assert len(data.train_images) > len(data.validation_images) >= 10_000
    means = data.train_images[:10_000].mean(axis=(0, 1, 2))
    np.testing.assert_allclose(means, [122.7, 116.7, 104.0], atol=4)  # ImageNet's channel means, widely published
    seen = {hashlib.sha256(image).digest() for image in data.validation_images}
    assert not any(hashlib.sha256(image).digest() in seen for image in itertools.islice(data.train_images, 20_000))
