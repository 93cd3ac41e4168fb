"""The photographs that scikit-image ships, as crops."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from platform.data import photos
from platform.data.datasets import DatasetUnavailable, load_dataset


def test_photos_are_many_the_same_every_time_and_need_no_data_directory(tmp_path: Path) -> None:
    first, again = (load_dataset(["photos"], data_directory=tmp_path / "none", say=lambda line: None) for _ in "12")
    assert first.fingerprint == again.fingerprint
    assert len(first.train_images) > 4000
    assert len(first.validation_images) > 1000
    assert first.class_names == ("astronaut", "cat", "coffee", "motorcycle", "rocket")
    for labels in (first.train_labels, first.validation_labels):
        counts = np.bincount(labels)
        assert counts.min() > 0.7 * counts.max()
    assert not (tmp_path / "none").exists()
    chroma = first.train_images.astype(int).max(axis=-1) - first.train_images.min(axis=-1)
    assert chroma.mean() > 40  # colour photographs, not grey ones


def test_photos_share_no_pixel_between_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three levels of brightness, one for each split's region, no crop may hold anything between."""
    (tmp_path / "data").mkdir()
    for file_name, width in zip(photos.PHOTOS.values(), range(450, 455), strict=True):
        pixels = np.random.default_rng(0).integers(0, 50, (300, width, 3), dtype=np.uint8)
        pixels[200:, : width // 2] += 75
        pixels[:, width // 2 :] += 150
        Image.fromarray(pixels).save(tmp_path / "data" / Path(file_name).with_suffix(".png"))
        (tmp_path / "data" / Path(file_name).with_suffix(".png")).rename(tmp_path / "data" / file_name)
    monkeypatch.setattr(photos, "files", lambda package: tmp_path)
    data = load_dataset(["photos"], say=lambda line: None)
    assert data.train_images.max() < 50
    assert 75 <= data.tuning_images.min() <= data.tuning_images.max() < 125
    assert data.validation_images.min() >= 150


def test_photos_are_true_to_the_originals() -> None:
    """The smallest and the largest crop of a corner are the photograph's block means."""
    folder = Path(str(files("skimage"))) / "data"
    coffee = np.asarray(Image.open(folder / "coffee.png"))
    data = load_dataset(["photos"], say=lambda line: None)
    for images, labels, left, reductions in (
        (data.train_images, data.train_labels, 0, (4, 8)),
        (data.validation_images, data.validation_labels, 308, (4, 9)),
    ):
        crops = {image.tobytes() for image in images[labels == 2]}
        for reduction in reductions:
            corner = coffee[: 32 * reduction, left : left + 32 * reduction].astype(float)
            means = np.array(
                [[block.mean(axis=(0, 1)) for block in np.split(row, 32, axis=1)] for row in np.split(corner, 32)]
            )
            assert np.rint(means).astype(np.uint8).tobytes() in crops


def test_missing_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "files", lambda package: tmp_path)
    with pytest.raises(DatasetUnavailable, match=r"astronaut\.png"):
        load_dataset(["photos"])
