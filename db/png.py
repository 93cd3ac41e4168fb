"""PNG files in and out, 8-bit RGB."""

import io

import numpy as np
from PIL import Image


def pixels(png: bytes) -> np.ndarray:
    """Decode to uint8 RGB (height, width, 3)."""
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def encode_png(rgb: np.ndarray) -> bytes:
    """uint8 (height, width, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    return buffer.getvalue()
