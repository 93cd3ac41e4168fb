"""Images out of files: the bundled photographs, and folders of anything that people keep."""

import io
import os
import struct
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from platform import image_files
from platform.datasets import Dataset, DatasetError, DatasetUnavailable, load_dataset
from tests.test_datasets import Pixels, pairs, random_images, refused

# Photographs


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
    for file_name, width in zip(image_files.PHOTOS.values(), range(450, 455), strict=True):
        pixels = np.random.default_rng(0).integers(0, 50, (300, width, 3), dtype=np.uint8)
        pixels[200:, : width // 2] += 75
        pixels[:, width // 2 :] += 150
        Image.fromarray(pixels).save(tmp_path / "data" / Path(file_name).with_suffix(".png"))
        (tmp_path / "data" / Path(file_name).with_suffix(".png")).rename(tmp_path / "data" / file_name)
    monkeypatch.setattr(image_files, "files", lambda package: tmp_path)
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
    monkeypatch.setattr(image_files, "files", lambda package: tmp_path)
    with pytest.raises(DatasetUnavailable, match=r"astronaut\.png"):
        load_dataset(["photos"])


# A folder


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
    images = {name: image_files._read_image(tmp_path / name) for name in os.listdir(tmp_path)}  # noqa: PTH208
    assert (images["wide.png"] == (0, 255, 0)).all()
    assert np.abs(images["stripes.png"][:, 2:-2].astype(int) - 128).max() < 8
    assert (images["lying.jpg"][:, :14] < 30).all()
    assert (images["lying.jpg"][:, 18:, 0] > 225).all()
    assert (images["clear.png"] == 255).all()
    assert len(all_images(load_folder(tmp_path))) == 5


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "LA"])
def test_folder_reads_every_mode_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (50, 40), "white").convert(mode).save(path)
    assert (image_files._read_image(path) == np.full((32, 32, 3), 255)).all()


def test_folder_follows_links_once_and_counts_useless_ones(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", 3, seed=9)
    folder = fill(tmp_path / "folder", 10)
    (folder / "linked").symlink_to(outside)
    (folder / "inside.png").symlink_to(folder / "0.png")
    (folder / "broken.png").symlink_to(folder / "gone.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    data = load_folder(folder)
    assert len(all_images(data)) == 14
    assert data.class_names == ("all", "linked")
    assert "lead nowhere or in a circle: 4 files" in data.note


def test_folder_of_links_to_classes_has_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for seed, name in enumerate(("cats", "dogs", "frogs")):
        (tmp_path / "links" / name).symlink_to(fill(tmp_path / "elsewhere" / name, 4, seed=seed))
    assert load_folder(tmp_path / "links").class_names == ("cats", "dogs", "frogs")


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Train", "Test")])
def test_folder_of_splits_is_refused_by_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    for seed, name in enumerate(names):
        fill(tmp_path / name, 4, seed=seed)
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert all(name in message for name in names)
    assert f"folder:{tmp_path / names[0]}" in message
    assert len(load_folder(tmp_path / names[0]).class_names) == 1
    (tmp_path / "cat").mkdir()
    fill(tmp_path / "cat", 3, seed=8)
    assert "cat" in load_folder(tmp_path).class_names  # a class may be called test


GREYS = np.linspace(0, 255, 32 * 32).reshape(32, 32)
DEEP: dict[str, npt.NDArray[Any]] = {
    "grey16.png": np.rint(GREYS * 257).astype(np.uint16),
    "grey16.tif": np.rint(GREYS * 257).astype(np.uint16),
    "float.tif": (GREYS / 255).astype(np.float32),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_greys_look_like_their_8_bit_twin(tmp_path: Path, name: str) -> None:
    Image.fromarray(DEEP[name]).save(tmp_path / name)
    Image.fromarray(np.rint(GREYS).astype(np.uint8)).save(tmp_path / "twin.png")
    deep, twin = (image_files._read_image(tmp_path / file).astype(int) for file in (name, "twin.png"))
    assert np.ptp(twin) == 255
    assert np.abs(deep - twin).max() <= 1


@pytest.mark.parametrize("values", [(GREYS * 100).astype(np.float32), (GREYS * 100).astype(np.int32)])
def test_greys_of_unknown_range_are_refused_by_name(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    fill(tmp_path, 3)
    Image.fromarray(values).save(tmp_path / "deep.tif")
    message = refused(f"folder:{tmp_path}", tmp_path)
    assert "deep.tif" in message
    assert "25500" in message.replace(",", "") or "2.55e+04" in message


# YCbCr is written as JPEG; LAB and HSV cannot be turned into RGB exactly by Pillow, or not be written at all.
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_looks_like_its_rgb_twin(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.asarray(random_images(1, 3))[0]).convert(mode)
    suffix = {"YCbCr": "jpg", "CMYK": "tif"}.get(mode, "png")
    options: dict[str, Any] = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    picture.save(tmp_path / f"picture.{suffix}", **options)
    found = image_files._read_image(tmp_path / f"picture.{suffix}").astype(int)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(found - expected).mean() < (3 if suffix == "jpg" else 0.5)


def test_all_bad_files_are_named_at_once_and_a_web_page_is_called_one(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for number in range(30):
        (tmp_path / f"page{number:02}.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(DatasetError) as caught:
        load_folder(tmp_path)
    message = str(caught.value)
    assert message.count("web page") == 20
    assert "page00.jpg is a web page" in message
    assert "and 11 more" in message


def test_much_text_in_a_png_is_no_fault(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    text = PngInfo()
    text.add_text("history", "step " * 1_000_000, zip=True)
    Image.fromarray(np.asarray(random_images(1, 3))[0]).save(tmp_path / "long.png", pnginfo=text)
    assert len(all_images(load_folder(tmp_path))) == 6


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
        (b"", "is empty; get the picture again"),
        (b"not an image", "no picture that HueJury reads"),
        (jpeg()[:-200], "truncated"),
        (huge_png(10_000, 10_000), "pixels; make it smaller"),
        (huge_png(100_000, 100_000), "pixels; make it smaller"),
        (huge_png(100, 100), "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that HueJury reads"),
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


def test_missing_folder_gives_way_to_the_next_name(tmp_path: Path) -> None:
    lines: list[str] = []
    assert load_dataset([f"folder:{tmp_path / 'none'}", "photos"], say=lines.append).name == "photos"
    assert "There is no folder" in lines[0]


def test_folder_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "pictures", 4)
    monkeypatch.chdir(tmp_path)
    assert load_dataset(["folder:pictures"], say=lambda line: None).name == f"folder:{tmp_path / 'pictures'}"
