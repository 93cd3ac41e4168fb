"""What the dashboard and the report are made of: figures, tables and sentences, and how they are shown and taken away.

A view returns its exhibits; the page draws them with Streamlit, the report as HTML. So both say the same.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
import vl_convert

from platform.color.scores import SCORES
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


Exhibit = Figure | Table | str
"""A str is a paragraph of Markdown."""


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


# On the page


def choose_score(names: Sequence[str], label: str, *, key: str) -> str:
    """Draw a choice among scores, by their names, and return the chosen one's."""
    return st.selectbox(
        label, names, format_func=lambda name: SCORES[name].heading, key=key, bind="query-params"
    )  # fmt: skip


def show_exhibits(exhibits: Sequence[Exhibit]) -> None:
    """Draw exhibits on a Streamlit page, each with its ways to be taken away."""
    for exhibit in exhibits:
        if isinstance(exhibit, str):
            st.markdown(exhibit)
            continue
        with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="center"):
            st.markdown(f"#### {exhibit.title}", width="content")
            menu = st.popover("Save", key=f"save {exhibit.name}", type="tertiary")
        for label, ending, write in ways_to_save(exhibit):
            save(label, write, file_stem(exhibit) + ending, exhibit.name, menu=menu)
        if isinstance(exhibit, Figure):
            _show_chart(exhibit)
        else:
            st.html(f"<style>{CSS}</style>{exhibit.html()}")
        if exhibit.note:
            st.caption(exhibit.note)


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


def save(label: str, write: Callable[[], str | bytes], file: str, name: str, *, menu: Any = st) -> None:
    """A button that saves what `write` gives: it is made when it is asked for, not before.

    Every run of the script gives a button's file another name, and the old one is forgotten: so a click starts no run.
    """
    menu.download_button(label, write, file, on_click="ignore", key=f"save {label} {name}")


# As files


def ways_to_save(exhibit: Figure | Table) -> list[tuple[str, str, Callable[[], str | bytes]]]:
    """What it can be saved as: what that is called, how the file's name ends, and what writes it."""
    if isinstance(exhibit, Table):
        return [("CSV, all digits", ".csv", exhibit.csv), ("LaTeX", ".tex", exhibit.latex)]
    return [
        ("SVG", ".svg", lambda: svg(exhibit)),
        ("PNG", ".png", lambda: png(svg(exhibit))),
        ("Data as CSV", ".csv", lambda: exhibit.data.to_csv(index=False)),
    ]


def file_stem(exhibit: Figure | Table) -> str:
    """The name of its files, without ending; it says where nobody voted, as a CSV file has no title to."""
    return exhibit.name + ("-simulated" if exhibit.title.endswith(f"({SIMULATED})") else "")


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
