"""Any folder of pictures; its sub-folders are classes."""

import os
import re
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.console import Console
from rich.progress import track

from platform.data.image_source import SIZE, Bytes, DatasetError, Source, digest_rows, keep_in_memory, to_rows
from platform.data.picture_files import FORMATS, lay_on_white, reduce_to_8_bits, refuse_odd_depth

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VALIDATION_SHARE = 0.2
SPLITS = ("train", "val", "valid", "test")
MOST_FAULTS = 20  # that are said at once


def open_folder(folder: Path) -> Source:
    """Every image of the folder; a fifth of the different pictures, chosen by their content, validates.

    Sub-folders are classes, an image outside them belongs to the class "all". Files and folders whose name starts with
    a dot are passed over. All files that cannot be read are named in one DatasetError.
    """
    try:
        paths, passed_over = _find_images(folder)
    except OSError as error:
        raise DatasetError(f"{error.filename} cannot be read ({error.strerror}); allow it or move it away.") from error
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
    folders = [name for name in class_names if (folder / name).is_dir()]  # pictures beside them are of class "all"
    if folders and all(name.lower() in SPLITS for name in folders):
        training = max(folders, key=lambda name: name.lower() == "train")
        raise DatasetError(
            f"{folder} holds splits, not classes: name one of them, as in folder:{folder / training}; HueJury splits "
            "its pictures itself."
        )
    labels = np.array([class_names.index(name) for name in class_of], np.int64)
    rows = to_rows(_read_images(paths))
    digests = digest_rows(rows)
    pictures = sorted(set(digests))
    if len(pictures) < 3:
        raise DatasetError(
            f"{folder} holds too few different pictures ({len(pictures)} of {len(paths):,} files): training, tuning "
            "and validation need three."
        )
    chosen = set(pictures[: max(1, round(VALIDATION_SHARE * len(pictures)))])
    validates = np.array([digest in chosen for digest in digests])
    train, validation = (keep_in_memory(rows[side], labels[side]) for side in (~validates, validates))
    note = f"{len(paths):,} images of the folder {folder.name}, split by content"
    if copies := len(paths) - len(pictures):
        note += f", among them {copies:,} exact copies"
    if passed_over:
        note += f"; passed over as no images: {passed_over:,} files"
    return Source(f"folder:{folder}", class_names, [train], [validation], [], note)


def _find_images(folder: Path) -> tuple[list[Path], int]:
    """The images under the folder, in order, and how many other files were passed over.

    Links to files are followed, and links that stand for classes; a link to a folder further down is refused. A link
    that leads nowhere counts as an image, so that it is named among those that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    images, passed_over = [], 0
    tops = [folder]
    for top in tops:  # links that stand for classes come last
        for parent, folders, files in os.walk(top, onerror=fail):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for link in (path for name in folders if (path := Path(parent, name)).is_symlink()):
                if link.parent != folder:
                    raise DatasetError(
                        f"{link} is a link to a folder, which is followed directly under {folder} only; put the folder "
                        "itself there."
                    )
                tops.append(link)
            for path in (Path(parent, name) for name in files if not name.startswith(".")):
                if path.suffix.lower() in SUFFIXES or (path.is_symlink() and not path.exists()):
                    images.append(path)
                else:
                    passed_over += 1
    return sorted(images), passed_over


def _read_images(paths: list[Path]) -> Bytes:
    images, faults = [], []
    bar = track(paths, "Reading images", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    for path in bar:
        try:
            images.append(read_image(path))
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        more = f"\n... and {len(faults) - MOST_FAULTS:,} more." if len(faults) > MOST_FAULTS else ""
        raise DatasetError("\n".join(faults[:MOST_FAULTS]) + more)
    return np.stack(images)


def read_image(path: Path) -> Bytes:
    """The upright image, cut to its central square and reduced to 32 x 32 with antialiasing; clear pixels are white.

    Raises DatasetError for what is no picture, is damaged, or has more pixels than Pillow takes for a bomb.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            raise ValueError("no file is there")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.draft("RGB", (4 * SIZE, 4 * SIZE))  # lets JPEG decode at a fraction of its size
                refuse_odd_depth(image)
                square = lay_on_white(reduce_to_8_bits(_cut_square(ImageOps.exif_transpose(image))))
                return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    except UnidentifiedImageError as error:
        raise DatasetError(f"{path} is no picture that HueJury reads; get it again or move it away.") from error
    except Exception as error:  # Pillow's decoders raise many kinds on a damaged file
        raise DatasetError(f"{path} cannot be read as a picture ({error}); mend it or move it away.") from error


def _cut_square(image: Image.Image) -> Image.Image:
    """The central one. (ImageOps.fit lets what it cuts off shine through its edges.)"""
    side = min(image.size)
    left, top = ((extent - side) // 2 for extent in image.size)
    return image.crop((left, top, left + side, top + side))
