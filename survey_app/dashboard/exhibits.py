"""What the dashboard and the report are made of: figures, tables and sentences, and how they are shown and taken away.

A view returns its exhibits; the page draws them with Streamlit, the report as HTML. So both say the same.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
import vl_convert

from platform.tables.intervals import SIMULATED
from platform.tables.table import CSS, Table

# Okabe & Ito 2008, "Color Universal Design", without its black and yellow, which vanish on a dark or a white page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NEUTRAL = "#8a8a8a"  # baselines, reference lines
WIDTH = 480  # pixels, of a figure in a file
PANEL_WIDTH = 360  # pixels, of one of several panels on a page: one fits a phone, three a laptop

alt.data_transformers.disable_max_rows()


@dataclass(frozen=True)
class Figure:
    name: str  # of its file
    title: str
    alternative: str  # what it shows, in words, for those who cannot see it
    chart: Any  # any of Altair's charts, with axis titles and units, without a title of its own
    note: str  # stands below it
    data: pd.DataFrame  # what it shows, to be taken away


Exhibit = Figure | Table | str | tuple[Figure, ...]
"""A str is a paragraph of Markdown; a tuple of figures stands side by side, where there is room."""


def arm_scale(arms: Sequence[str], shown: Iterable[str] | None = None) -> dict[str, Any]:
    """Colour and shape encodings that give each arm the same in every figure. arms: the experiment's, in its order;
    shown: those of them that the figure has, by default all."""
    names = list(arms if shown is None else shown)
    known = [*arms, *(arm for arm in names if arm not in arms)]  # a study may ask about a baseline, too
    colours = [COLOURS[known.index(arm) % len(COLOURS)] for arm in names]
    shapes = [SHAPES[known.index(arm) % len(SHAPES)] for arm in names]
    return {
        "color": alt.Color("model:N", scale=alt.Scale(domain=names, range=colours), sort=names, title="model"),
        "shape": alt.Shape("model:N", scale=alt.Scale(domain=names, range=shapes), sort=names, title="model"),
    }


def interval_marks(base: alt.Chart, along: str, title: str, highest: float = 1.0, **of_points: Any) -> list[alt.Chart]:
    """Shares with their intervals along "x" or "y", up to `highest`, of the columns share, low and high. of_points:
    further encodings of the points."""
    # Encodings are objects wherever there are many: of texts Altair guesses types, which takes longer than all else.
    start, end = (alt.X, alt.X2) if along == "x" else (alt.Y, alt.Y2)
    axis = start("low:Q", title=title, scale=alt.Scale(domain=[0, highest]), axis=alt.Axis(format="%", tickCount=5))
    return [
        base.mark_rule(strokeWidth=2).encode(axis, end("high:Q")),
        base.mark_point(filled=True, size=70, opacity=1).encode(start("share:Q"), **of_points),
    ]


def mark_line(mark: float | None, axis: str) -> list[alt.Chart]:
    """A line across a figure at the share of a picture that nobody can tell from a photograph, on "x" or "y"; none
    where it is not known."""
    if mark is None:
        return []
    line = alt.Chart(pd.DataFrame({"mark": [mark]})).mark_rule(color=NEUTRAL, strokeDash=[2, 2])
    return [line.encode(alt.X("mark:Q") if axis == "x" else alt.Y("mark:Q"))]


def mark_note(mark: float | None, protocol: str) -> str:
    """What that line is, as a sentence."""
    if mark is None:
        return ""
    where = "nobody can tell" if protocol == "pair" else "the photographs' own share, where nobody can tell"
    return f"Dashed: {100 * mark:.0f} %, {where}."


def file_stem(name: str, title: str) -> str:
    """The name of an exhibit's files, without ending; it says where nobody voted, as a CSV file has no title to."""
    return name + ("-simulated" if title.endswith(f"({SIMULATED})") else "")


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
    with draw_heading(figure.title, figure.name):
        save("SVG", lambda: svg(figure), f"{stem}.svg", figure.name)
        save("PNG", lambda: png(svg(figure)), f"{stem}.png", figure.name)
        save("Data as CSV", lambda: figure.data.to_csv(index=False), f"{stem}.csv", figure.name)
    _show_chart(figure)
    st.caption(figure.note)


def _show_chart(figure: Figure) -> None:
    """The panels of a concatenated chart stand side by side, as many as there is room for."""
    if not isinstance(figure.chart, alt.ConcatChart):
        st.altair_chart(_legible(figure.chart), width="stretch", alt=figure.alternative)
        return
    with st.container(horizontal=True):
        for number, panel in enumerate(figure.chart.concat):
            whole = panel if panel.data is not alt.Undefined else panel.properties(data=figure.chart.data)
            alternative = f"Panel {number + 1} of {figure.title}" if number else figure.alternative  # it is of all
            st.altair_chart(_legible(whole), width=PANEL_WIDTH, alt=alternative)


def _show_table(table: Table) -> None:
    stem = file_stem(table.name, table.title)
    with draw_heading(table.title, table.name):
        save("CSV, all digits", table.csv, f"{stem}.csv", table.name)
        save("LaTeX", table.latex, f"{stem}.tex", table.name)
    st.html(f"<style>{CSS}</style>{table.html()}")
    if table.note:
        st.caption(table.note)


def save(label: str, write: Callable[[], str | bytes], file: str, name: str) -> None:
    """A button that saves what `write` gives: it is made when it is asked for, not before.

    Every run of the script gives a button's file another name, and the old one is forgotten: so a click starts no run.
    """
    st.download_button(label, write, file, on_click="ignore", key=f"save {label} {name}")


def draw_heading(title: str, name: str) -> AbstractContextManager[object]:
    """Draw a title, and beside it the menu to save what stands below; returns the menu, to be filled."""
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
        st.markdown(f"#### {title}", width="content")
        return st.popover("Save", key=f"save {name}", type="tertiary")


# As files


def svg(figure: Figure) -> str:
    chart = _legible(figure.chart)
    if isinstance(chart, alt.Chart | alt.LayerChart):  # the others are made of charts with widths of their own
        chart = chart.properties(width=WIDTH)
    titled = chart.properties(title=figure.title, description=figure.alternative, background="white")
    return str(vl_convert.vegalite_to_svg(titled.to_json()))


def png(drawing: str) -> bytes:
    """An SVG at twice its size on the page, for slides and papers."""
    return bytes(vl_convert.svg_to_png(drawing, scale=2))


def _legible(chart: Any) -> Any:
    """With its legend below: beside a figure as wide as a phone it would leave no room for the figure."""
    return chart.configure(legend={"orient": "bottom", "columns": 3, "symbolLimit": 40})
