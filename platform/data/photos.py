"""Crops at several scales of the photographs that scikit-image ships: no download."""

from importlib.resources import files

import numpy as np
from PIL import Image

from platform.data.image_source import SIZE, Bytes, DatasetUnavailable, Source, Split, join_splits

# Of the colour pictures inside scikit-image's wheel these are photographs of everyday things; retina.jpg,
# hubble_deep_field.jpg and ihc.png are scientific pictures of almost one hue, motorcycle_right.png is the stereo twin.
PHOTOS = {
    "astronaut": "astronaut.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
SCALES = (0.5, 0.65, 0.8, 1.0)  # of a region's shorter side: in smaller crops nobody recognises anything
GAP_PX = 16  # between two splits, belonging to neither: no JPEG block reaches across


def open_photos() -> Source:
    """Crops at several scales: of every photograph the right half validates, of the left half the upper two thirds
    train and the lower third tunes.

    The photograph is cut before anything is resampled, so that no pixel is in two splits.
    """
    train: list[Split] = []
    tuning: list[Split] = []
    validation: list[Split] = []
    margin = GAP_PX // 2
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
            reductions = sorted({max(1, round(scale * largest)) for scale in SCALES})
            crops = np.concatenate([_cut_crops(region, reduction, positions) for reduction in reductions])
            parts.append(Split(crops, np.full(len(crops), label, np.int64)))
    note = (
        f"32 x 32 crops of {len(PHOTOS)} photographs from scikit-image, each at least half as long as the part that "
        "it is from: left halves training (their lower thirds tuning), right halves validation"
    )
    return Source("photos", tuple(PHOTOS), join_splits(train), join_splits(validation), note, join_splits(tuning))


def _cut_crops(photo: Bytes, reduction: int, positions: int) -> Bytes:
    """Crops of 32 x 32 from the photo reduced by block means, at most `positions` evenly spaced ones a direction."""
    height, width = (extent // reduction for extent in photo.shape[:2])
    blocks = photo[: height * reduction, : width * reduction].reshape(height, reduction, width, reduction, 3)
    reduced = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    tops, lefts = (np.unique(np.linspace(0, extent - SIZE, positions).astype(int)) for extent in (height, width))
    return np.stack([reduced[top : top + SIZE, left : left + SIZE] for top in tops for left in lefts])
