"""Sentinels: photographs with colours that do not belong to them."""

import random
import warnings
from collections.abc import Mapping

import numpy as np
from PIL import Image

from db.png import encode_png, pixels

DONORS_TRIED = 10


def sentinel_pngs(truths: Mapping[int, bytes], seed: int) -> dict[int, bytes]:
    """Give each photograph the colours of another one: PNG bytes by image id in and out.

    Zhang et al. 2016 ("Colorful Image Colorization", section 3.1) take the colours of a random other image for the
    trials that check attention. As such a check has to be plain to everyone who looks, the donor here is, of
    DONORS_TRIED drawn at random, the one whose colours (a, b) are farthest from the picture's own, in the mean over
    pixels. L stays. A donor of another size is resampled to the picture's. With one photograph alone, it is its own.
    """
    from skimage.color import lab2rgb, rgb2lab  # takes half a second to import; participants' servers make no sentinels

    labs = {image: rgb2lab(pixels(png)) for image, png in sorted(truths.items())}
    chance = random.Random(seed)
    sentinels = {}
    for image, lab in labs.items():
        others = [other for other in labs if other != image] or [image]
        donors = chance.sample(others, min(DONORS_TRIED, len(others)))
        colours = {donor: _ab_of(labs[donor], lab.shape) for donor in donors}
        distance = {donor: float(np.linalg.norm(ab - lab[..., 1:], axis=-1).mean()) for donor, ab in colours.items()}
        donor = max(donors, key=lambda candidate: distance[candidate])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # colours outside sRGB: they are clipped, as everywhere else
            rgb = lab2rgb(np.concatenate((lab[..., :1], colours[donor]), axis=-1))
        sentinels[image] = encode_png(np.round(255 * rgb).astype(np.uint8))
    return sentinels


def _ab_of(lab: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if lab.shape == shape:
        return np.asarray(lab[..., 1:])
    size = (shape[1], shape[0])
    channels = [Image.fromarray(lab[..., index].astype(np.float32)).resize(size) for index in (1, 2)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
