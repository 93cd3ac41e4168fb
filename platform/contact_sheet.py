"""Sheets of pictures: a grid under its columns' names, for whole photographs, and

    python -m platform.contact_sheet [EXPERIMENT] --out sheet.png

with one row per image: the photograph, grey, and the picture of each arm's best trial.
"""

import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sqlalchemy import Engine

from db.errors import UserError, run_command
from db.store import read_session
from db.surveys.sentinels import encode_png, pixels
from db.sweeps.pictures import Photograph, photographs, sample_pngs, truth_pngs
from db.sweeps.trials import arm_results, best_contenders, experiment_progress
from platform.tables.experiment import open_experiment, parser_of_results

PICTURE_PX = 192  # about so wide is a picture of the command's
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


def choose_varied(pictures: Sequence[Photograph], count: int) -> list[Photograph]:
    """At most `count` of them, of every class as many as of the others, and far apart: neighbours may be alike."""
    classes: dict[int, list[Photograph]] = {}
    for picture in pictures:
        classes.setdefault(picture.class_index, []).append(picture)
    turns = math.ceil(count / max(1, len(classes)))
    chosen = [
        members[turn * len(members) // min(turns, len(members))]
        for turn in range(turns)
        for members in classes.values()
        if turn < len(members)
    ]
    return chosen[:count]


def paste_contact_sheet(engine: Engine, experiment: str, rows: int) -> np.ndarray:
    """`rows` sample images, classes in turn, uint8 (height, width, 3). Raises UserError: no such experiment, or it has
    no pictures yet."""
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        contenders = best_contenders(arm_results(session, experiment))
        trials = [contender.trial.trial_id for contender in contenders]
        shown = choose_varied(photographs(session, trials), rows)
        truths = truth_pngs(session, [photograph.image_id for photograph in shown])
        pngs = sample_pngs(session, trials, list(truths))
    if not shown:
        raise UserError(f"Experiment {experiment!r} has no sample pictures of a finished trial yet; wait for one.")
    lines = []
    for photograph in shown:
        truth = truths[photograph.image_id]
        stored = [pngs.get((trial, photograph.image_id)) for trial in trials]
        pictures = [pixels(truth), convert_to_grey(truth), *(None if png is None else pixels(png) for png in stored)]
        lines.append((summary.class_names[photograph.class_index], pictures))
    columns = ["photograph", "grey", *(contender.arm for contender in contenders)]
    scale = choose_scale(pixels(truths[shown[0].image_id]), PICTURE_PX)
    return paste_sheet(experiment, columns, lines, summary.dataset_note, scale=scale)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("contact_sheet", "Draw an experiment's sample pictures side by side.")
    parser.add_argument("--rows", type=int, default=12, help="how many images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="a PNG (default: %(default)s)")
    options = parser.parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        sheet = encode_png(paste_contact_sheet(engine, experiment, options.rows))
        try:
            options.out.write_bytes(sheet)
        except OSError as error:
            raise UserError(
                f"{options.out} cannot be written ({error.strerror or error}): give another --out."
            ) from error
        print(f"{options.out}: {experiment}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
