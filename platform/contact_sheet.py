"""Sheets of pictures as SVG: a grid under its columns' names, with words below each picture; for the dashboard, and

    python -m platform.contact_sheet [EXPERIMENT] --out sheet.png

with one row per image: the photograph, grey, and the picture of each arm's best trial.
"""

import base64
import html
import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import vl_convert
from sqlalchemy import Engine

from db.errors import UserError, run_command
from db.gallery import Photograph, photographs, sample_pngs, truth_pngs
from db.pictures import encoded, pixels
from db.results import arm_results, best_contenders, experiment_progress
from db.store import read_session
from platform.chosen_experiment import open_experiment, parser_of_results

PICTURE_PX = 96  # about so wide is a picture of the command's
MARGIN_PX, GAP_PX, LABEL_PX = 16, 14, 112
FONT_PX, LINE_PX, TITLE_PX = 12, 15, 16
LETTER_PX = 6.0  # the mean width of a letter, a little too wide rather than too narrow


@dataclass(frozen=True)
class Cell:
    drawing: str | None  # SVG that fills the box that it stands in; None where there is no picture
    lines: Sequence[str] = ()  # stand below it
    chosen: bool = False  # it gets a frame


def drawn(png: bytes | None) -> str | None:
    """A PNG as a cell's drawing, enlarged without smoothing."""
    if png is None:
        return None
    source = base64.b64encode(png).decode("ascii")
    return (
        f'<image width="100%" height="100%" style="image-rendering:pixelated" href="data:image/png;base64,{source}"/>'
    )


def sheet_svg(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[Cell]]],
    note: str,
    *,
    box_px: tuple[int, int],
) -> str:
    """columns: their names. rows: each with its name and a cell per column. box_px: width and height of a drawing."""
    width, height = box_px
    column_px = max(width, 96) + GAP_PX
    heads = [_wrapped(name, column_px - GAP_PX) for name in columns]
    total_px = 2 * MARGIN_PX + LABEL_PX + column_px * len(columns) - GAP_PX
    top = MARGIN_PX + TITLE_PX
    parts = [_text(MARGIN_PX, top, title, f'font-size="{TITLE_PX}" font-weight="600"')]
    top += GAP_PX + LINE_PX
    left = [MARGIN_PX + LABEL_PX + column_px * column for column in range(len(columns))]
    for x, head in zip(left, heads, strict=True):
        parts += [_text(x, top + LINE_PX * line, words, 'font-weight="600"') for line, words in enumerate(head)]
    top += LINE_PX * max(map(len, heads)) - LINE_PX // 2
    for name, cells in rows:
        label = _wrapped(name, LABEL_PX - GAP_PX)
        parts += [_text(MARGIN_PX, top + FONT_PX + LINE_PX * line, words) for line, words in enumerate(label)]
        for x, cell in zip(left, cells, strict=True):
            parts.append(_box(cell, x, top, width, height))
            below = top + height + LINE_PX
            parts += [_text(x, below + LINE_PX * line, words) for line, words in enumerate(cell.lines)]
        top += height + LINE_PX * max(len(cell.lines) for cell in cells) + GAP_PX
    top += LINE_PX
    for words in _wrapped(note, total_px - 2 * MARGIN_PX):
        parts.append(_text(MARGIN_PX, top, words, 'fill="#555"'))
        top += LINE_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total_px}" height="{top}" viewBox="0 0 {total_px} {top}" '
        f'font-family="sans-serif" font-size="{FONT_PX}" fill="#222"><title>{_printable(title)}</title>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )


def _box(cell: Cell, x: int, y: int, width: int, height: int) -> str:
    if cell.drawing is None:
        empty = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#999"/>'
        return empty + _text(x + GAP_PX, y + height // 2, "no picture")
    frame = (
        f'<rect x="{x - 3}" y="{y - 3}" width="{width + 6}" height="{height + 6}" fill="#e69f00"/>'
        if cell.chosen
        else ""
    )
    return f'{frame}<svg x="{x}" y="{y}" width="{width}" height="{height}">{cell.drawing}</svg>'


def _text(x: int, y: int, words: str, style: str = "") -> str:
    return f'<text x="{x}" y="{y}" {style}>{_printable(words)}</text>'


def _wrapped(words: str, width_px: int) -> list[str]:
    return textwrap.wrap(words, int(width_px / LETTER_PX))


def _printable(words: str) -> str:
    """As XML, in which some characters may not be, not even escaped."""
    return html.escape("".join(letter if letter.isprintable() else "�" for letter in words))


def grey_png(truth_png: bytes) -> bytes:
    """What a model sees: the photograph's lightness alone."""
    from skimage.color import lab2rgb, rgb2lab

    lab = np.asarray(rgb2lab(pixels(truth_png)))
    lab[..., 1:] = 0.0
    return encoded(np.round(255 * lab2rgb(lab)).astype(np.uint8))


def box_px(truth: bytes, target_px: int) -> tuple[int, int]:
    """Width and height of the photograph, enlarged by a whole number to about this width."""
    height, width = pixels(truth).shape[:2]
    scale = max(1, round(target_px / width))
    return scale * width, scale * height


def varied(pictures: Sequence[Photograph], count: int) -> list[Photograph]:
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


def contact_sheet(engine: Engine, experiment: str, rows: int) -> str:
    """`rows` sample images, classes in turn, as an SVG. Raises UserError: no such experiment, or it has no pictures
    yet."""
    with read_session(engine) as session:
        summary = experiment_progress(session, experiment)
        contenders = best_contenders(arm_results(session, experiment))
        trials = [contender.trial.trial_id for contender in contenders]
        shown = varied(photographs(session, trials), rows)
        truths = truth_pngs(session, [photograph.image_id for photograph in shown])
        pngs = sample_pngs(session, trials, list(truths))
    if not shown:
        raise UserError(f"Experiment {experiment!r} has no sample pictures of a finished trial yet; wait for one.")
    lines = []
    for photograph in shown:
        truth = truths[photograph.image_id]
        pictures = [truth, grey_png(truth), *(pngs.get((trial, photograph.image_id)) for trial in trials)]
        lines.append((summary.class_names[photograph.class_index], [Cell(drawn(png)) for png in pictures]))
    columns = ["photograph", "grey", *(contender.arm for contender in contenders)]
    box = box_px(truths[shown[0].image_id], PICTURE_PX)
    return sheet_svg(experiment, columns, lines, summary.dataset_note, box_px=box)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of_results("contact_sheet", "Draw an experiment's sample pictures side by side.")
    parser.add_argument("--rows", type=int, default=12, help="how many images (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.png"), help="a PNG (default: %(default)s)")
    options = parser.parse_args(arguments)

    def body() -> int:
        engine, experiment = open_experiment(options.database, options.experiment)
        picture = vl_convert.svg_to_png(contact_sheet(engine, experiment, options.rows), scale=2)
        try:
            options.out.write_bytes(picture)
        except OSError as error:
            raise UserError(
                f"{options.out} cannot be written ({error.strerror or error}): give another --out."
            ) from error
        print(f"{options.out}: {experiment}")
        return 0

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
