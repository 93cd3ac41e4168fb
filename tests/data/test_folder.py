"""Folders of anything that people keep: what Pillow reads is read by its depth, or refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from platform.data.datasets import Dataset, DatasetError, load_dataset
from platform.data.folder import read_image
from tests.data.test_datasets import Pixels, pairs, random_images, refused


def load_folder(folder: Path, **options: Any) -> Dataset:
    return load_dataset([f"folder:{folder}"], say=lambda line: None, **options)


def fill(folder: Path, count: int = 10, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(random_images(count, seed)):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def all_images(data: Dataset) -> Pixels:
    return np.concatenate([data.train_images, data.tuning_images, data.validation_images])


def all_labels(data: Dataset) -> npt.NDArray[np.int64]:
    return np.concatenate([data.train_labels, data.tuning_labels, data.validation_labels])


def test_folder_classes_and_pixels(tmp_path: Path) -> None:
    fill(tmp_path / "cats", 12, seed=1)
    fill(tmp_path / "dogs" / "old", 8, seed=2)
    fill(tmp_path / ".git", 3, seed=3)
    (tmp_path / "dogs" / "notes.txt").write_text("no image")
    data = load_folder(tmp_path)
    assert data.name == f"folder:{tmp_path}"
    assert data.class_names == ("cats", "dogs")
    expected = pairs(random_images(12, 1), np.zeros(12, np.int64)) + pairs(random_images(8, 2), np.ones(8, np.int64))
    found = pairs(all_images(data), all_labels(data))
    assert found == expected
    assert len(data.validation_images) == 4
    assert "20 images" in data.note
    assert "1 files" in data.note
    assert load_folder(fill(tmp_path / "flat", 5)).class_names == ("all",)


def test_folder_split_follows_content_not_names(tmp_path: Path) -> None:
    first = load_folder(fill(tmp_path / "first", 20))
    renamed = fill(tmp_path / "renamed", 20)
    for path in list(renamed.iterdir()):
        path.rename(renamed / f"{99 - int(path.stem)}.png")
    second = load_folder(renamed)
    assert {image.tobytes() for image in first.validation_images} == {im.tobytes() for im in second.validation_images}


def test_folder_copies_fall_on_one_side(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        fill(tmp_path / name, 10)
    data = load_folder(tmp_path)
    assert [len(images) for images in (data.train_images, data.tuning_images, data.validation_images)] == [18, 2, 6]
    assert not {image.tobytes() for image in data.train_images} & {image.tobytes() for image in data.validation_images}
    assert "20 exact copies" in data.note
    assert "left out of training because" not in data.note
    assert "4 copies of them left out of training" in data.note


def test_folder_images_are_upright_square_and_antialiased(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, :, 0] = 255
    wide[:, 64:128] = (0, 255, 0)  # the central square
    Image.fromarray(wide).save(tmp_path / "wide.png")
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    lying = np.zeros((640, 640, 3), np.uint8)
    lying[:320] = (255, 0, 0)  # orientation 6: turn clockwise to see it upright, so the top goes to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(lying).save(tmp_path / "lying.jpg", quality=95, exif=exif)
    clear = Image.new("RGBA", (40, 40), (0, 0, 255, 0))
    clear.save(tmp_path / "clear.png")
    images = {name: read_image(tmp_path / name) for name in os.listdir(tmp_path)}  # noqa: PTH208
    assert (images["wide.png"] == (0, 255, 0)).all()
    assert np.abs(images["stripes.png"][:, 2:-2].astype(int) - 128).max() < 8
    assert (images["lying.jpg"][:, :14] < 30).all()
    assert (images["lying.jpg"][:, 18:, 0] > 225).all()
    assert (images["clear.png"] == 255).all()
    assert len(all_images(load_folder(tmp_path))) == 5


def test_links_are_followed(tmp_path: Path) -> None:
    folder = fill(tmp_path / "folder", 10)
    (folder / "inside.png").symlink_to(folder / "0.png")
    for seed, name in enumerate(("cats", "dogs")):
        (folder / name).symlink_to(fill(tmp_path / "elsewhere" / name, 4, seed=seed + 1))
    (tmp_path / "list.csv").touch()
    (folder / "list.csv").symlink_to(tmp_path / "list.csv")
    (folder / "cats" / "old").symlink_to(fill(tmp_path / "older", 4, seed=3))
    data = load_folder(folder)
    assert "23 images" in data.note
    assert data.class_names == ("all", "cats", "dogs")


@pytest.mark.parametrize(
    ("link", "target"),
    [("cats", "gone"), ("x.png", "gone.png"), ("x.png", "x.png"), ("round", "."), ("dogs/old", "../birds")],
    ids=["no class", "no file", "itself", "circle", "a folder twice"],
)
def test_links_to_nothing_or_to_the_same_are_named(tmp_path: Path, link: str, target: str) -> None:
    for seed, name in enumerate(("dogs", "birds")):
        fill(tmp_path / name, 3, seed=seed)
    (tmp_path / link).symlink_to(target)
    assert str(tmp_path / link) in refused(f"folder:{tmp_path}", tmp_path)


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Valid"), ("train",)])
def test_folder_of_splits_is_refused_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, name in enumerate(names):
        fill(tmp_path / name, 4, seed=seed)
    assert f"folder:{tmp_path / names[0]};" in refused(f"folder:{tmp_path}", tmp_path)
    assert len(load_folder(tmp_path / names[0]).class_names) == 1
    fill(tmp_path / "cat", 3, seed=8)
    assert "cat" in load_folder(tmp_path).class_names  # a class may be called test


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    fill(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")))
    assert "is not UTF-8: rename the folder" in refused(f"folder:{tmp_path}", tmp_path)


# Depths and modes


GREYS = np.linspace(0, 255, 32 * 32).reshape(32, 32)
GREYS_16 = np.rint(GREYS * 257).astype(np.uint16)
BLACK_IS_ZERO: dict[str, Any] = {"photometric": "minisblack"}
COMPRESSED = BLACK_IS_ZERO | {"compression": "zlib", "predictor": True}


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (GREYS_16, BLACK_IS_ZERO | {"byteorder": "<"}),
        (GREYS_16, COMPRESSED | {"byteorder": ">"}),
        (np.dstack([GREYS_16, GREYS_16[::-1], GREYS_16.T]), {"photometric": "rgb", "byteorder": ">"}),
        (GREYS_16, None),
    ],
    ids=["little-endian", "big-endian", "RGB", "PNG"],
)
def test_deep_pictures_look_like_their_8_bit_twin(
    tmp_path: Path, pixels: npt.NDArray[Any], options: dict[str, Any] | None
) -> None:
    if options is None:
        Image.fromarray(pixels).save(tmp_path / "deep.png")
    else:
        tifffile.imwrite(tmp_path / "deep.png", pixels, **options)  # Pillow goes by what it holds
    expected = pixels.reshape(32, 32, -1) / 65535 * 255
    assert np.ptp(expected) == 255
    assert np.abs(read_image(tmp_path / "deep.png") - expected).max() <= 1


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        ((GREYS / 255).astype(np.float32), BLACK_IS_ZERO),
        ((GREYS * 100).astype(np.int32), BLACK_IS_ZERO),
        (65535 - GREYS_16, {"photometric": "miniswhite"}),
        (np.dstack([GREYS_16] * 4), {"photometric": "separated"}),
        (np.stack([GREYS_16] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
    ids=["floats", "whole numbers", "white is zero", "CMYK", "planes"],
)
def test_deep_tiffs_that_pillow_gives_wrongly_are_refused_by_name(
    tmp_path: Path, pixels: npt.NDArray[Any], options: dict[str, Any]
) -> None:
    tifffile.imwrite(fill(tmp_path, 3) / "deep.tif", pixels, **options)
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert "deep.tif" in message
    assert "of pictures deeper than 8 bits only plain greys and RGB of 16 bits are read" in message


# YCbCr is written as JPEG; LAB and HSV cannot be turned into RGB exactly by Pillow, or not be written at all.
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_looks_like_its_rgb_twin(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.asarray(random_images(1, 3))[0]).convert(mode)
    suffix = {"YCbCr": "jpg", "CMYK": "tif"}.get(mode, "png")
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    picture.save(tmp_path / f"picture.{suffix}", **options)
    found = read_image(tmp_path / f"picture.{suffix}").astype(int)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - expected).mean() < (3 if suffix == "jpg" else 0.5)


def test_all_bad_files_are_named_at_once(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for number in range(30):
        (tmp_path / f"page{number:02}.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(DatasetError) as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert message.count("cannot identify image file") == 5
    assert "page00.jpg cannot be read as a picture (cannot identify image file)" in message
    assert "; and 26 more;" in message


def huge_png(width: int, height: int) -> bytes:
    """A PNG that is a few bytes long and claims to be huge."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(random_images(1, 0)[0]).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot identify image file"),
        (b"not an image", "cannot identify image file"),
        (jpeg()[:-200], "truncated"),
        (huge_png(10_000, 10_000), "could be decompression bomb"),
        (huge_png(100_000, 100_000), "could be decompression bomb"),
        (huge_png(100, 100), "cannot be read as a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify image file"),
    ],
    ids=["empty", "text", "short", "bomb", "huge bomb", "too few pixels", "postscript"],
)
def test_broken_image_in_a_folder(tmp_path: Path, content: bytes, words: str) -> None:
    fill(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(content)
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert str(tmp_path / "broken.png") in message
    assert words in message


def test_folder_without_images_or_with_a_single_picture(tmp_path: Path) -> None:
    assert "holds no images" in refused(f"folder:{tmp_path}", tmp_path)
    fill(tmp_path, 1)
    (tmp_path / "copy.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert "too few different pictures (1 of 2 files)" in refused(f"folder:{tmp_path}", tmp_path)
    Image.fromarray(random_images(1, 1)[0]).save(tmp_path / "other.png")
    assert "training, tuning and validation need three" in refused(f"folder:{tmp_path}", tmp_path)
    Image.fromarray(random_images(1, 2)[0]).save(tmp_path / "third.png")
    data = load_folder(tmp_path)
    assert len({image.tobytes() for image in all_images(data)}) == 3


def test_folder_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "pictures", 4)
    monkeypatch.chdir(tmp_path)
    assert load_dataset(["folder:pictures"], say=lambda line: None).name == f"folder:{tmp_path / 'pictures'}"
