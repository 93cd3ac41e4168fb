"""Images out of files: crops of the photographs that scikit-image ships, and any folder."""

import os
import re
import sys
import warnings
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from platform.image_source import (
    SIZE,
    Bytes,
    DatasetError,
    DatasetUnavailable,
    Part,
    Source,
    digests_of,
    in_memory,
    to_rows,
)

# Of the colour pictures inside scikit-image's wheel these are photographs of everyday things; retina.jpg,
# hubble_deep_field.jpg and ihc.png are scientific pictures of almost one hue, motorcycle_right.png is the stereo twin.
PHOTOS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
PHOTO_SCALES = (0.5, 0.65, 0.8, 1.0)  # of a region's shorter side: in smaller crops nobody recognises anything
PHOTO_GAP = 16  # pixels between two splits that belong to neither: no JPEG block reaches across

FOLDER_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
FOLDER_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
FOLDER_VALIDATION_SHARE = 0.2
SPLIT = r"(train(?:ing)?|val(?:id(?:ation)?)?|dev|eval(?:uation)?|test(?:ing)?)"
SPLIT_FOLDER = re.compile(SPLIT + r"([ _-]?(set|split|data|images|\d+))*", re.IGNORECASE)  # Val, train2017, test_images
SPLIT_AMONG_OTHERS = re.compile(rf"(.*[ _-])?{SPLIT}([ _-].*)?", re.IGNORECASE)  # DIV2K_train_HR
MOST_FAULTS = 20  # that are said at once

# Pillow refuses a PNG with more text than a megabyte. Here nobody reads the text, and pixels have a limit of their own.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20


# Photographs that scikit-image's wheel contains


def open_photos() -> Source:
    """Crops at several scales: of every photograph the right half validates, of the left half the upper two thirds
    train and the lower third tunes.

    The photograph is cut before anything is resampled, so that no pixel is in two splits.
    """
    train: list[Part] = []
    tuning: list[Part] = []
    validation: list[Part] = []
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
            (train, photo[: low - margin, : middle - margin], 20),
            (tuning, photo[low + margin :, : middle - margin], 7),
            (validation, photo[:, middle + margin :], 8),
        )
        for parts, region, positions in regions:
            largest = min(region.shape[:2]) // SIZE
            reductions = sorted({max(1, round(scale * largest)) for scale in PHOTO_SCALES})
            rows = to_rows(np.concatenate([_crops(region, reduction, positions) for reduction in reductions]))
            parts.append(in_memory(rows, np.full(len(rows), label, np.int64)))
    note = (
        f"32 x 32 crops of {len(PHOTOS)} photographs from scikit-image, each at least half as long as the part that "
        "it is from: left halves training (their lower thirds tuning), right halves validation"
    )
    return Source("photos", tuple(PHOTOS), train, validation, tuning, note)


def _crops(photo: Bytes, reduction: int, positions: int) -> Bytes:
    """Crops of 32 x 32 from the photo reduced by block means, at most `positions` evenly spaced ones a direction."""
    height, width = (extent // reduction for extent in photo.shape[:2])
    blocks = photo[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
    reduced = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    tops, lefts = (np.unique(np.linspace(0, extent - SIZE, positions).astype(int)) for extent in (height, width))
    return np.stack([reduced[top : top + SIZE, left : left + SIZE] for top in tops for left in lefts])


# Any folder of images


def open_folder(folder: Path) -> Source:
    """Every image of the folder; a fifth of the different pictures, chosen by their content, validates.

    Sub-folders are classes, an image outside them belongs to the class "all". Links are followed. Files and folders
    whose name starts with a dot are passed over. All files that cannot be read are named in one DatasetError.
    """
    paths, passed_over, lost_link = _image_paths(folder)
    if not paths and lost_link is not None:
        raise DatasetError(
            f"{folder} holds no images that can be reached: {lost_link} leads nowhere or in a circle; mend the "
            "links, or mount what they lead to."
        )
    if not paths:
        others = f", only {passed_over:,} other files" if passed_over else ""
        raise DatasetError(
            f"{folder} holds no images{others}: put files such as .png, .jpg or .webp there, or into sub-folders."
        )
    class_of = [path.relative_to(folder).parts[0] if path.parent != folder else "all" for path in paths]
    class_names = tuple(sorted(set(class_of)))
    for name in (str(folder), *class_names):
        if re.search("[\ud800-\udfff]", name):
            raise DatasetError(f"The folder name {os.fsencode(name)!r} is not UTF-8: rename the folder.")
    _check_not_split(folder, class_names)
    labels = np.array([class_names.index(name) for name in class_of], np.int64)
    rows = to_rows(_read_images(paths))
    digests = digests_of(rows)
    pictures = sorted(set(digests))
    if len(pictures) < 3:
        raise DatasetError(
            f"{folder} holds too few different pictures ({len(pictures)} of {len(paths):,} files): training, tuning "
            "and validation need three."
        )
    chosen = set(pictures[: max(1, round(FOLDER_VALIDATION_SHARE * len(pictures)))])
    validates = np.array([digest in chosen for digest in digests])
    train, validation = (in_memory(rows[side], labels[side]) for side in (~validates, validates))
    note = f"{len(paths):,} images of the folder {folder.name}, split by content"
    if copies := len(paths) - len(pictures):
        note += f", among them {copies:,} exact copies"
    if passed_over:
        note += f"; passed over as no images or as links that lead nowhere or in a circle: {passed_over:,} files"
    return Source(f"folder:{folder}", class_names, [train], [validation], [], note)


def _check_not_split(folder: Path, class_names: tuple[str, ...]) -> None:
    """Raise DatasetError where the sub-folders are splits, which would be taken for classes."""
    folders = [name for name in class_names if (folder / name).is_dir()]  # pictures beside them are of class "all"
    splits = [name for name in folders if SPLIT_FOLDER.fullmatch(name)] or _splits_of_one_name(folders)
    trained = max(splits, key=lambda name: "train" in name.lower(), default="")
    named = {name.lower().rstrip("_- 0123456789") for name in splits}
    unlabelled = [name for name in folders if name.lower() in ("unlabeled", "unlabelled", "extra", "holdout")]
    has_classes = len(folders) == 1 and any(path.is_dir() for path in (folder / trained).iterdir()) if splits else False
    if (len(named) > 1 and len(splits) + len(unlabelled) == len(folders)) or has_classes:
        held = f"the splits {', '.join(splits)}" if len(splits) > 1 else f"the split {trained}"
        raise DatasetError(
            f"{folder} holds {held}, not classes: name one of them, as in folder:{folder / trained}; HueJury "
            "splits its pictures itself."
        )


def _splits_of_one_name(folders: list[str]) -> list[str]:
    """The folders whose names differ in nothing but the split: "X_train" and "X_valid", but no "test_tube" and
    "train_station"."""
    found = {name: match for name in folders if (match := SPLIT_AMONG_OTHERS.fullmatch(name))}
    rests = {(match[1], match[3]) for match in found.values()}
    return list(found) if len(rests) == 1 else []


def _image_paths(folder: Path) -> tuple[list[Path], int, Path | None]:
    """The images under the folder, how many other files and useless links were passed over, and one of these links.

    Below each class a folder is read once, however many links lead to it.
    """
    paths: list[Path] = []
    passed_over = 0
    lost_link: Path | None = None

    def walk(parent: Path, seen: set[Path]) -> None:
        nonlocal passed_over, lost_link
        try:
            entries = sorted(parent.iterdir())
        except OSError as error:
            raise DatasetError(f"{parent} cannot be read ({error.strerror}); allow it or move it away.") from error
        for path in entries:
            if path.name.startswith("."):
                continue
            if _is(Path.is_dir, path):
                target = path.resolve()
                if target in seen:  # a link in a circle, or a second one
                    passed_over += 1
                    lost_link = path if target == root else lost_link
                else:
                    of_class = {root} if parent == folder else seen
                    of_class.add(target)
                    walk(path, of_class)
            elif path.suffix.lower() in FOLDER_SUFFIXES and _is(Path.is_file, path):
                paths.append(path)
            else:
                passed_over += 1
                lost_link = path if path.is_symlink() else lost_link

    root = folder.resolve()
    walk(folder, {root})
    return paths, passed_over, lost_link


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Path.is_dir or is_file; False for a link to a name that cannot be."""
    try:
        return kind(path)
    except OSError:
        return False


def _read_images(paths: list[Path]) -> Bytes:
    images, faults = [], []
    bar = track(paths, "Reading images", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    for path in bar:
        try:
            images.append(_read_image(path))
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        more = f"\n... and {len(faults) - MOST_FAULTS:,} more." if len(faults) > MOST_FAULTS else ""
        raise DatasetError("\n".join(faults[:MOST_FAULTS]) + more)
    return np.stack(images)


def _read_image(path: Path) -> Bytes:
    """The upright image, cut to its central square and reduced to 32 x 32 with antialiasing; clear pixels are white."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FOLDER_FORMATS) as image:
                image.draft("RGB", (4 * SIZE, 4 * SIZE))  # lets JPEG decode at a fraction of its size
                check_known(image)
                square = in_8_bits(_central_square(ImageOps.exif_transpose(image)))
                return np.asarray(on_white(square).resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(
            f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller or move it away."
        ) from error
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            start = file.read(200).lstrip().lower()
        page = re.search(rb"<!doctype html|<html|<head|<script", start)
        kind = "a web page" if page else "no picture that HueJury reads" if start else "empty"
        raise DatasetError(f"{path} is {kind}; get the picture again or move the file away.") from error
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise DatasetError(f"{path} cannot be read as an image ({error}); mend it or move it away.") from error


def check_known(image: Image.Image) -> None:
    """Raise ValueError for what Pillow opens, but gives with other greys or colours than the file has."""
    tags = getattr(image, "tag_v2", {})
    bits, photometric, planes = (tags.get(tag) for tag in (258, 262, 284))
    if photometric == 0 and image.mode not in ("1", "L"):
        raise ValueError("its white is zero, in more than 8 bits")
    if image.mode.startswith("I;16") and bits is not None and tuple(np.atleast_1d(bits)) != (16,):
        raise ValueError(f"its greys have {bits} bits")
    if image.mode == "CMYK" and bits is not None and max(np.atleast_1d(bits)) > 8:
        raise ValueError("it is CMYK in more than 8 bits")
    if planes == 2 and bits is not None and max(np.atleast_1d(bits)) > 8:
        raise ValueError("its colours lie in planes, in more than 8 bits")
    if image.mode.startswith("I;16") and "transparency" in image.info:
        raise ValueError("its greys of 16 bits have a transparent one")


def on_white(image: Image.Image) -> Image.Image:
    """As RGB, with white where the image is clear."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def in_8_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 bits, and of floats from 0 to 1, which Pillow would clip. Raises ValueError for others."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        return Image.fromarray(np.rint(255 * values).astype(np.uint8))
    kind = "floats" if image.mode == "F" else "whole numbers of 32 bits"
    raise ValueError(f"its greys are {kind} from {low:g} to {high:g}, whose black and white are not known")


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = ((extent - side) // 2 for extent in image.size)
    return image.crop((left, top, left + side, top + side))
