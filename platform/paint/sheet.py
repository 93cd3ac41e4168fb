"""Sheets of pictures: a grid under its columns' names."""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from db.png import pixels

PICTURE_PX = 192  # about so wide is a picture
MARGIN_PX, GAP_PX, LABEL_PX = 32, 28, 224
FONT_PX, LINE_PX, TITLE_PX = 20, 26, 30
LETTER_PX = 12  # the mean width of a letter, a little too wide rather than too narrow
FONTS = ("DejaVuSans.ttf", "Arial.ttf")  # with λ and Δ, which Pillow's own lacks


def paste_sheet(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[np.ndarray | None]]],
    note: str = "",
    *,
    scale: int = 1,
) -> np.ndarray:
    """Returns uint8 (height, width, 3). columns: their names. rows: each with its name and a picture per column, uint8
    (height, width, 3), or None where there is none. scale: how many pixels of the sheet a picture's pixel is wide,
    without smoothing."""
    shapes = [picture.shape for _, pictures in rows for picture in pictures if picture is not None]
    height, width = (scale * max(extents) for extents in list(zip(*shapes, strict=True))[:2])
    column_px, row_px = max(width, PICTURE_PX) + GAP_PX, height + GAP_PX
    left = [MARGIN_PX + LABEL_PX + column_px * column for column in range(len(columns))]
    heads = [_wrap(name, column_px - GAP_PX) for name in columns]
    note = _wrap(note, left[-1] + column_px - 2 * MARGIN_PX)
    first = 2 * MARGIN_PX + TITLE_PX + LINE_PX * (1 + max(head.count("\n") for head in heads)) + GAP_PX
    last = first + row_px * len(rows)
    sheet_px = left[-1] + column_px, last + LINE_PX * (1 + note.count("\n")) + MARGIN_PX
    sheet = Image.new("RGB", sheet_px, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, "black", _font(TITLE_PX))
    font = _font(FONT_PX)
    for x, head in zip(left, heads, strict=True):
        draw.text((x, 2 * MARGIN_PX + TITLE_PX), head, "black", font)
    for y, (name, pictures) in zip(range(first, last, row_px), rows, strict=True):
        draw.text((MARGIN_PX, y), _wrap(name, LABEL_PX - GAP_PX), "black", font)
        for x, picture in zip(left, pictures, strict=True):
            if picture is None:
                draw.text((x, y), "no picture", "black", font)
            else:
                sheet.paste(Image.fromarray(picture.repeat(scale, axis=0).repeat(scale, axis=1)), (x, y))
    draw.text((MARGIN_PX, last), note, "black", font)
    return np.asarray(sheet)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size_px)
        except OSError:
            continue
    return ImageFont.load_default(size_px)


def _wrap(words: str, width_px: int) -> str:
    return "\n".join(textwrap.wrap(words, width_px // LETTER_PX))


def convert_to_grey(truth_png: bytes) -> np.ndarray:
    """What a model sees, uint8 (height, width, 3): the photograph's lightness alone."""
    from skimage.color import lab2rgb, rgb2lab

    lab = np.asarray(rgb2lab(pixels(truth_png)))
    lab[..., 1:] = 0.0
    return np.asarray(np.round(255 * lab2rgb(lab)), np.uint8)


def choose_scale(picture: np.ndarray, target_px: int) -> int:
    """The whole number by which a picture is enlarged to about this width."""
    return max(1, round(target_px / int(picture.shape[1])))
