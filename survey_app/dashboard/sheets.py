"""Sheets of pictures as SVG, to be saved: a grid under the names of its columns, with words below each picture."""

import base64
import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

MARGIN_PX, GAP_PX, LABEL_PX = 16, 14, 112
FONT_PX, LINE_PX, TITLE_PX = 12, 15, 16
LETTER_PX = 6.0  # the mean width of a letter, a little too wide rather than too narrow


@dataclass(frozen=True)
class Cell:
    """drawing: SVG that fills the box that it stands in; None where there is no picture. lines: stand below it. chosen:
    it gets a frame."""

    drawing: str | None
    lines: Sequence[str] = ()
    chosen: bool = False


def picture(png: bytes) -> str:
    """A PNG as a cell's drawing, enlarged without smoothing."""
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
    """columns: their names. rows: each with its name and a cell a column. box_px: width and height of a drawing."""
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
