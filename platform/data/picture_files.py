"""What files of pictures hold, by their depth: as RGB in 8 bits, or refused by name."""

import numpy as np
from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # tags of TIFF


def refuse_odd_depth(image: Image.Image) -> None:
    """Raise ValueError for a TIFF that Pillow gives with other greys or colours than it has: deep ones are right only
    as greys or RGB of 16 bits, or greys of 32, black being zero and a pixel's values side by side."""
    tags = getattr(image, "tag_v2", {})
    deepest = max(tags.get(BITS, (8,)))
    if deepest > 8 and (deepest not in (16, 32) or tags.get(PHOTOMETRIC) not in (1, 2) or tags.get(PLANES) == 2):
        raise ValueError(f"of TIFFs of {deepest} bits only plain greys and RGB are read")


def reduce_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 bits, and of floats from 0 to 1, which Pillow would clip. Raises ValueError for others."""
    if image.mode.startswith("I;16"):
        if "transparency" in image.info:
            raise ValueError("its greys of 16 bits have a transparent one")
        return Image.fromarray(np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        return Image.fromarray(np.rint(255 * values).astype(np.uint8))
    kind = "floats" if image.mode == "F" else "whole numbers of 32 bits"
    raise ValueError(f"its greys are {kind} from {low:g} to {high:g}, whose black and white are not known")


def lay_on_white(image: Image.Image) -> Image.Image:
    """As RGB, with white where the image is clear."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
