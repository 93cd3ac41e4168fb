"""Any folder of pictures; its sub-folders are classes."""

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from platform.data.image_source import SIZE, Bytes, DatasetError, Source, Split, digest_images

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # tags of TIFF
VALIDATION_SHARE = 0.2
SPLITS = ("train", "val", "valid", "test")
MOST_FAULTS = 5  # that are told at once


def open_folder(folder: Path) -> Source:
    """Every image of the folder; a fifth of the different pictures, chosen by their content, validates.

    Sub-folders are classes, an image outside them belongs to the class "all". Files and folders whose name starts with
    a dot are passed over. Links are followed. What is wrong with files is told in one DatasetError.
    """
    paths, passed_over, faults = _find_images(folder)
    images = []
    bar = track(paths, "Reading images", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    for path in bar:
        try:
            images.append(read_image(path))
        except ValueError as error:
            faults.append(f"{path} cannot be read as a picture ({error})")
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS:,} more" if len(faults) > MOST_FAULTS else ""
        raise DatasetError(f"{'; '.join(faults[:MOST_FAULTS])}{more}; mend them or move them away.")
    if not paths:
        others = f", only {passed_over:,} other files" if passed_over else ""
        raise DatasetError(
            f"{folder} holds no images{others}: put files such as .png, .jpg or .webp there, or into sub-folders."
        )
    class_of = [path.relative_to(folder).parts[0] if path.parent != folder else "all" for path in paths]
    class_names = tuple(sorted(set(class_of)))
    _check_class_names(folder, class_names)
    labels = np.array([class_names.index(name) for name in class_of], np.int64)
    pixels = np.stack(images)
    digests = digest_images(pixels)
    pictures = sorted(set(digests))
    if len(pictures) < 3:
        raise DatasetError(
            f"{folder} holds too few different pictures ({len(pictures)} of {len(paths):,} files): training, tuning "
            "and validation need three."
        )
    validates = np.isin(digests, pictures[: max(1, round(VALIDATION_SHARE * len(pictures)))])
    train, validation = (Split(pixels[side], labels[side]) for side in (~validates, validates))
    note = f"{len(paths):,} images of the folder {folder.name}, split by content"
    if copies := len(paths) - len(pictures):
        note += f", among them {copies:,} exact copies"
    if passed_over:
        note += f"; passed over as no images: {passed_over:,} files"
    return Source(f"folder:{folder}", class_names, train, validation, note)


def _find_images(folder: Path) -> tuple[list[Path], int, list[str]]:
    """The images under the folder, in order, how many other files were passed over, and what is wrong.

    A link that leads nowhere counts as an image, so that it is told among those that cannot be read.
    """
    images, passed_over = [], 0
    unreadable: list[OSError] = []
    faults = []
    seen: dict[Path, str] = {}
    for parent, folders, files in os.walk(folder, onerror=unreadable.append, followlinks=True):
        first = seen.setdefault(Path(parent).resolve(), parent)
        if first != parent:
            faults.append(f"{parent} is the same folder as {first}, by a link")
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in files if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES or not path.exists():
                images.append(path)
            else:
                passed_over += 1
    faults += [f"{error.filename} cannot be read ({error.strerror})" for error in unreadable]
    return sorted(images), passed_over, faults


def _check_class_names(folder: Path, class_names: tuple[str, ...]) -> None:
    for name in (str(folder), *class_names):
        if re.search("[\ud800-\udfff]", name):
            raise DatasetError(f"The folder name {os.fsencode(name)!r} is not UTF-8: rename the folder.")
    folders = [name for name in class_names if (folder / name).is_dir()]  # pictures beside them are of class "all"
    if folders and all(name.lower() in SPLITS for name in folders):
        training = max(folders, key=lambda name: name.lower() == "train")
        raise DatasetError(
            f"{folder} holds splits, not classes: name one of them, as in folder:{folder / training}; HueJury splits "
            "its pictures itself."
        )


def read_image(path: Path) -> Bytes:
    """The upright image, cut to its central square and reduced to 32 x 32 with antialiasing; clear pixels are white.

    Raises ValueError for what is no picture, is damaged, or has more pixels than Pillow takes for a bomb.
    """
    if not path.is_file():  # opening a pipe would wait for ever
        raise ValueError("no file is there")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.draft("RGB", (4 * SIZE, 4 * SIZE))  # lets JPEG decode at a fraction of its size
                refuse_odd_depth(image)
                square = lay_on_white(reduce_to_8_bits(_cut_square(ImageOps.exif_transpose(image))))
                return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise ValueError(str(error).removesuffix(f" {str(path)!r}")) from error


def _cut_square(image: Image.Image) -> Image.Image:
    """The central one. (ImageOps.fit lets what it cuts off shine through its edges.)"""
    side = min(image.size)
    left, top = ((extent - side) // 2 for extent in image.size)
    return image.crop((left, top, left + side, top + side))


def refuse_odd_depth(image: Image.Image) -> None:
    """Raise ValueError for what Pillow gives with other greys or colours than it has: of deep pictures only greys and
    RGB of 16 bits are right, in a TIFF black being zero and a pixel's values side by side."""
    tags = getattr(image, "tag_v2", {})
    deepest = max(tags.get(BITS, (8,)))
    odd = deepest > 8 and (deepest != 16 or tags.get(PHOTOMETRIC) not in (1, 2) or tags.get(PLANES) == 2)
    if odd or image.mode in ("I", "F"):
        raise ValueError("of pictures deeper than 8 bits only plain greys and RGB of 16 bits are read")


def reduce_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 bits, which Pillow would clip."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))


def lay_on_white(image: Image.Image) -> Image.Image:
    """As RGB, with white where the image is clear."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
