"""What the dashboard and the report are made of: figures, tables and sentences, and how they are shown and taken away.

A view returns its exhibits; the page draws them with Streamlit, the report as HTML. So both say the same.
"""

from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
import vl_convert

# Okabe & Ito 2008, "Color Universal Design", without its black and yellow, which vanish on a dark or a white page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NEUTRAL = "#8a8a8a"  # baselines, reference lines

Chart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.VConcatChart | alt.FacetChart

alt.data_transformers.disable_max_rows()


@dataclass(frozen=True)
class Figure:
    """chart: with axis titles and units, without a title of its own. alternative: what it shows, in words, for those
    who cannot see it. note: stands below it. name: of its file."""

    name: str
    title: str
    alternative: str
    chart: Chart
    note: str = ""


@dataclass(frozen=True)
class DataTable:
    """frame: as shown, column names as headings with units; numbers as numbers. formats: how columns are written,
    as for format(), by heading. name: of its file."""

    name: str
    title: str
    frame: pd.DataFrame
    formats: dict[str, str]
    note: str = ""


Exhibit = Figure | DataTable | str
"""A str is a paragraph of Markdown."""


def arm_scale(arms: list[str]) -> dict[str, Any]:
    """Colour and shape encodings that give each arm the same in every figure: arms in the experiment's order."""
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(arms))]
    shapes = [SHAPES[index % len(SHAPES)] for index in range(len(arms))]
    return {
        "color": alt.Color("model:N", scale=alt.Scale(domain=arms, range=colours), sort=arms, title="model"),
        "shape": alt.Shape("model:N", scale=alt.Scale(domain=arms, range=shapes), sort=arms, title="model"),
    }


def show_exhibits(exhibits: list[Exhibit]) -> None:
    """Draw exhibits on a Streamlit page, each with its ways to be taken away."""
    for exhibit in exhibits:
        if isinstance(exhibit, str):
            st.markdown(exhibit)
            continue
        st.subheader(exhibit.title, anchor=False)
        if isinstance(exhibit, Figure):
            st.altair_chart(exhibit.chart, width="stretch", alt=exhibit.alternative)
            _take_away_figure(exhibit)
        else:
            st.dataframe(_written(exhibit), hide_index=True, width="stretch")
            _take_away_table(exhibit)
        if exhibit.note:
            st.caption(exhibit.note)


def svg(figure: Figure) -> str:
    return str(vl_convert.vegalite_to_svg(_titled(figure).to_json()))


def png(figure: Figure) -> bytes:
    """At twice the size on the page, for slides and papers."""
    return bytes(vl_convert.vegalite_to_png(_titled(figure).to_json(), scale=2))


def csv(table: DataTable) -> str:
    """Numbers with all their digits."""
    return table.frame.to_csv(index=False)


def _titled(figure: Figure) -> Chart:
    return figure.chart.properties(title=figure.title, description=figure.alternative)


def _written(table: DataTable) -> pd.DataFrame:
    """The frame with its numbers as they are to be read, "–" where there is none."""
    written = pd.DataFrame()
    for heading in table.frame.columns:
        form = table.formats.get(heading, "")
        written[heading] = ["–" if pd.isna(value) else format(value, form) for value in table.frame[heading]]
    return written


def _take_away_figure(figure: Figure) -> None:
    with st.popover("Save", key=f"save {figure.name}"):
        st.download_button("SVG", lambda: svg(figure), f"{figure.name}.svg", "image/svg+xml", key=f"svg {figure.name}")
        st.download_button("PNG", lambda: png(figure), f"{figure.name}.png", "image/png", key=f"png {figure.name}")


def _take_away_table(table: DataTable) -> None:
    with st.popover("Save", key=f"save {table.name}"):
        st.download_button("CSV", lambda: csv(table), f"{table.name}.csv", "text/csv", key=f"csv {table.name}")
