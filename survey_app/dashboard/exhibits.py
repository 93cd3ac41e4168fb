"""What the dashboard and the report are made of: figures, tables and sentences, and how they are shown and taken away.

A view returns its exhibits; the page draws them with Streamlit, the report as HTML. So both say the same.
"""

import html
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
import vl_convert

# Okabe & Ito 2008, "Color Universal Design", without its black and yellow, which vanish on a dark or a white page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NEUTRAL = "#8a8a8a"  # baselines, reference lines
WIDTH = 480  # pixels, of a figure in a file
PANEL_WIDTH = 360  # pixels, of one of several panels on a page: one fits a phone, three a laptop
SIMULATED = "simulated participants"

# Styles of text marks: Streamlit gives its theme to axes and legends only. The halo goes below the label, so that it
# can be read above lines.
LABEL, HALO = "label", "halo"

Chart = (
    alt.Chart
    | alt.LayerChart
    | alt.ConcatChart
    | alt.HConcatChart
    | alt.VConcatChart
    | alt.FacetChart
    | alt.RepeatChart
)

alt.data_transformers.disable_max_rows()


@dataclass(frozen=True)
class Figure:
    """chart: with axis titles and units, without a title of its own. alternative: what it shows, in words, for those
    who cannot see it. note: stands below it. name: of its file. data: what it shows, to be taken away."""

    name: str
    title: str
    alternative: str
    chart: Chart
    note: str = ""
    data: pd.DataFrame | None = None


@dataclass(frozen=True)
class DataTable:
    """frame: the numbers as numbers, column names as headings with units. formats: how columns are written, as for
    format(), by heading. note: stands below it. name: of its file.

    shown: the table as it is read, of strings, where that is not the frame's columns one by one. bars: for each row the
    ends of an interval and the estimate in it, all in [0, 1], or None, drawn as a last column.
    """

    name: str
    title: str
    frame: pd.DataFrame
    formats: dict[str, str] = field(default_factory=dict)
    note: str = ""
    shown: pd.DataFrame | None = None
    bars: Sequence[tuple[float, float, float] | None] | None = None


Exhibit = Figure | DataTable | str | tuple[Figure, ...]
"""A str is a paragraph of Markdown; a tuple of figures stands side by side, where there is room."""


def arm_scale(arms: Sequence[str], shown: Sequence[str] | None = None) -> dict[str, Any]:
    """Colour and shape encodings that give each arm the same in every figure. arms: the experiment's, in its order;
    shown: those of them that the figure has, by default all."""
    known = [*arms, *(arm for arm in shown or () if arm not in arms)]  # a study may ask about a baseline, too
    arms = list(known if shown is None else shown)
    colours = [COLOURS[known.index(arm) % len(COLOURS)] for arm in arms]
    shapes = [SHAPES[known.index(arm) % len(SHAPES)] for arm in arms]
    return {
        "color": alt.Color("model:N", scale=alt.Scale(domain=arms, range=colours), sort=arms, title="model"),
        "shape": alt.Shape("model:N", scale=alt.Scale(domain=arms, range=shapes), sort=arms, title="model"),
    }


def file_stem(name: str, title: str) -> str:
    """The name of an exhibit's files, without ending; it says where nobody voted, as a CSV file has no title to."""
    return name + ("-simulated" if title.endswith(f"({SIMULATED})") else "")


def titled(text: str, *, simulated: bool) -> str:
    """A title of what votes are in: it says so where nobody voted."""
    return f"{text} ({SIMULATED})" if simulated else text


# On the page


def show_exhibits(exhibits: Sequence[Exhibit]) -> None:
    """Draw exhibits on a Streamlit page, each with its ways to be taken away."""
    for exhibit in exhibits:
        if isinstance(exhibit, str):
            st.markdown(exhibit)
        elif isinstance(exhibit, tuple):
            for column, figure in zip(st.columns(len(exhibit)), exhibit, strict=True):
                with column:
                    _show_figure(figure)
        elif isinstance(exhibit, Figure):
            _show_figure(exhibit)
        else:
            _show_table(exhibit)


def _show_figure(figure: Figure) -> None:
    stem = file_stem(figure.name, figure.title)
    with headed(figure.title, figure.name):
        save_drawing(figure.name, stem, lambda: svg(figure))
        data = figure.data
        if data is not None:
            st.download_button("Data as CSV", lambda: csv(data), f"{stem}.csv", "text/csv", key=f"csv {figure.name}")
    _show_chart(figure)
    if figure.note:
        st.caption(figure.note)


def _show_chart(figure: Figure) -> None:
    """The panels of a concatenated chart stand side by side, as many as there is room for."""
    dark = st.context.theme.type == "dark"
    if not isinstance(figure.chart, alt.ConcatChart):
        st.altair_chart(_legible(figure.chart, dark=dark), width="stretch", alt=figure.alternative)
        return
    with st.container(horizontal=True):
        for number, panel in enumerate(figure.chart.concat):
            whole = panel if panel.data is not alt.Undefined else panel.properties(data=figure.chart.data)
            alternative = f"Panel {number + 1} of {figure.title}" if number else figure.alternative  # it is of all
            st.altair_chart(_legible(whole, dark=dark), width=PANEL_WIDTH, alt=alternative)


def _show_table(table: DataTable) -> None:
    stem = file_stem(table.name, table.title)
    with headed(table.title, table.name):
        for label, write, ending, mime in (
            ("CSV, all digits", lambda: csv(table.frame), "csv", "text/csv"),
            ("Markdown", lambda: markdown(table), "md", "text/markdown"),
            ("LaTeX", lambda: latex(table), "tex", "text/plain"),
        ):
            st.download_button(label, write, f"{stem}.{ending}", mime, key=f"{ending} {table.name}")
    st.html(f"<style>{TABLE_CSS}</style>{table_html(table)}")
    if table.note:
        st.caption(table.note)


def save_drawing(name: str, stem: str, draw: Callable[[], str]) -> None:
    """Buttons that save what `draw` gives, an SVG, as SVG and as PNG. It is drawn when it is asked for, not before."""
    st.download_button("SVG", draw, f"{stem}.svg", "image/svg+xml", key=f"svg {name}")
    st.download_button("PNG", lambda: png(draw()), f"{stem}.png", "image/png", key=f"png {name}")


def headed(title: str, name: str) -> AbstractContextManager[object]:
    """Draw a title, and beside it the menu to save what stands below; returns the menu, to be filled."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"#### {title}", width="content")
        return st.popover("Save", key=f"save {name}", type="tertiary")


# As files


def svg(figure: Figure) -> str:
    return str(vl_convert.vegalite_to_svg(_titled(figure).to_json()))


def png(drawing: str) -> bytes:
    """An SVG at twice its size on the page, for slides and papers."""
    return bytes(vl_convert.svg_to_png(drawing, scale=2))


def csv(frame: pd.DataFrame) -> str:
    """Numbers with all their digits."""
    return frame.to_csv(index=False)


def markdown(table: DataTable) -> str:
    """The table as it is read, in GitHub's Markdown, under its title."""
    rows = written(table)
    cells = [list(rows.columns), *rows.to_numpy().tolist()]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    lines.insert(1, "|" + "---|" * len(rows.columns))
    return f"**{table.title}**\n\n" + "\n".join(lines) + (f"\n\n{table.note}" if table.note else "") + "\n"


def latex(table: DataTable) -> str:
    """The table as it is read, for LaTeX with the package booktabs."""
    rows = written(table).map(_latex_text)
    rows.columns = [_latex_text(heading) for heading in rows.columns]
    columns = "l" + "r" * (len(rows.columns) - 1)
    return str(
        rows.to_latex(index=False, escape=False, column_format=columns, caption=_latex_text(table.title), position="ht")
    )


def _latex_text(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {letter: f"\\{letter}" for letter in "&%$#_{}"}
    special |= {
        "λ": r"$\lambda$",
        "Δ": r"$\Delta$",
        "ρ": r"$\rho$",
        "−": "$-$",
        "±": r"$\pm$",
        "–": "--",
        "×": r"$\times$",
    }
    return "".join(special.get(letter, letter) for letter in text)


def _titled(figure: Figure) -> Chart:
    chart = _legible(figure.chart)
    if isinstance(chart, alt.Chart | alt.LayerChart):  # the others are made of charts with widths of their own
        chart = chart.properties(width=WIDTH)
    titled: Chart = chart.properties(title=figure.title, description=figure.alternative, background="white")
    return titled


def _legible(chart: Chart, *, dark: bool = False) -> Chart:
    """With its legend below: beside a figure as wide as a phone it would leave no room for the figure."""
    page, ink = ("#181716", "#fafafa") if dark else ("#ffffff", "#31333f")
    halo = {"color": page, "stroke": page, "strokeWidth": 3, "strokeJoin": "round"}
    legible: Chart = chart.configure(
        legend={"orient": "bottom", "columns": 3, "symbolLimit": 40}, style={LABEL: {"color": ink}, HALO: halo}
    )
    return legible


# As HTML, on the page and in the report

TABLE_CSS = """
.huejury-table { overflow: auto; max-height: 42rem; }
.huejury-table table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.huejury-table th, .huejury-table td { padding: .35rem .7rem; text-align: right; vertical-align: middle;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); white-space: nowrap; }
.huejury-table th { font-weight: 600; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
.huejury-table tbody th { white-space: nowrap; }
.huejury-table th:first-child, .huejury-table td:first-child { text-align: left; }
.huejury-table .interval { display: block; position: relative; width: 9rem; height: 1rem;
  background: linear-gradient(90deg, transparent calc(50% - .5px), #8a8a8a 0, #8a8a8a calc(50% + .5px), transparent 0),
  color-mix(in srgb, currentColor 8%, transparent); }
.huejury-table .interval i { position: absolute; top: .4rem; height: .2rem; background: #0072B2; }
.huejury-table .interval b { position: absolute; top: .1rem; height: .8rem; width: .25rem; margin-left: -.125rem;
  background: #D55E00; }
"""


def table_html(table: DataTable) -> str:
    """The table as it is read; TABLE_CSS gives it its looks."""
    rows = written(table)
    headings = [*rows.columns, *([] if table.bars is None else ["0 to 100 %"])]
    body = []
    for number, cells in enumerate(rows.to_numpy().tolist()):
        row = [
            f'<th scope="row">{html.escape(cells[0])}</th>',
            *(f"<td>{html.escape(cell)}</td>" for cell in cells[1:]),
        ]
        if table.bars is not None:
            row.append(f"<td>{_bar(table.bars[number])}</td>")
        body.append(f"<tr>{''.join(row)}</tr>")
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    return (
        f'<div class="huejury-table" tabindex="0" role="region" aria-label="{html.escape(table.title)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _bar(interval: tuple[float, float, float] | None) -> str:
    """An interval with its estimate on a bar from 0 to 1, its middle marked. The numbers stand beside it as text."""
    if interval is None:
        return ""
    low, estimate, high = (100 * share for share in interval)
    return (
        f'<span class="interval" aria-hidden="true"><i style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<b style="left:{estimate:.2f}%"></b></span>'
    )


def written(table: DataTable) -> pd.DataFrame:
    """The table as it is read: text in every cell, "–" where there is no number."""
    if table.shown is not None:
        return table.shown
    rows = pd.DataFrame(index=table.frame.index)
    for heading in table.frame.columns:
        form = table.formats.get(heading, "")
        rows[heading] = ["–" if pd.isna(value) else format(value, form) for value in table.frame[heading]]
    return rows
