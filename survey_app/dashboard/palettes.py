"""The colours that classifiers could name: where they lie in ab, how many training pixels have them, their floor."""

import altair as alt
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from skimage.color import deltaE_ciede2000, lab2rgb
from sqlalchemy.orm import Session

from db.sweeps import SweptPalette, swept_palettes
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure

TINY = 1e-6  # Lab units: what is on an edge of the grid belongs to the upper cell, as `ab_to_bin` has it
FORMS = {"a": ".1f", "b": ".1f", "share": ".2%"}
LIGHTNESS = 65.0  # that colours are drawn at


def exhibits(session: Session, experiment_id: int) -> list[Exhibit]:
    """A figure with a panel for each palette, none where no model has one."""
    palettes = [_measured(palette) for palette in swept_palettes(session, experiment_id)]
    if not palettes:
        return []
    data = pd.concat(palettes, ignore_index=True)
    half = float(np.ceil(data[["a", "b"]].abs().to_numpy().max() / 20) * 20)
    panels = [_panel(palette, half) for _, palette in data.groupby("palette", sort=False)]
    floors = dict(zip(data["palette"], data["floor"], strict=True))
    words = "; ".join(f"{name}: {floor:.1f}" for name, floor in floors.items())
    return [
        Figure(
            "palettes",
            "The colours that a classifier could name",
            f"Centres of each palette in the ab plane. Colour error (ΔE2000) at the nearest centre: {words}.",
            alt.concat(*panels, columns=3),
            "Each circle is a colour, the larger the more training pixels are called by it; below, the same colours in "
            "the order of their hue. The least colour error (ΔE2000) that a palette allows, every training pixel at "
            f"its nearest colour: {words}. Drawn at L = {LIGHTNESS:.0f}, clipped to what sRGB has there.",
            data,
        )
    ]


def _measured(palette: SweptPalette) -> pd.DataFrame:
    """A row for each centre: its ab, the share of training pixels nearest to it, its colour, the palette's floor."""
    centers = np.array(palette.centers)
    colours = np.flatnonzero(palette.colour_counts)
    weights = palette.colour_counts[colours] / palette.colour_counts.sum()
    ab = np.stack((colours // 256, colours % 256), axis=1) - 128.0
    own = cKDTree(centers).query(ab + TINY)[1]
    light = np.full((len(ab), 1), LIGHTNESS)  # the same for both, so that it does not matter
    differences = deltaE_ciede2000(  # type: ignore[no-untyped-call]
        np.hstack((light, ab)), np.hstack((light, centers[own]))
    )
    floor = float(weights @ differences)
    lab = np.column_stack((np.full(len(centers), LIGHTNESS), centers))
    rgb = np.rint(255 * np.clip(lab2rgb(lab), 0, 1)).astype(int)
    hue = np.degrees(np.arctan2(centers[:, 1], centers[:, 0])) % 360
    chroma = np.hypot(*centers.T)
    # Greys first, which have hardly a hue.
    order = np.lexsort((chroma, np.where(chroma < 10, -1, hue // 15)))
    frame = pd.DataFrame(
        {
            "palette": f"{len(centers)} colours: {', '.join(palette.arms)}",
            "a": centers[:, 0],
            "b": centers[:, 1],
            "share": np.bincount(own, weights, minlength=len(centers)),
            "colour": [f"rgb({red},{green},{blue})" for red, green, blue in rgb],
            "floor": floor,
        }
    )
    return frame.iloc[order].assign(place=np.arange(len(centers)))


def _panel(palette: pd.DataFrame, half: float) -> alt.VConcatChart:
    scale = alt.Scale(domain=[-half, half], nice=False)
    colour = alt.Color("colour:N", scale=None)
    plane = (
        alt.Chart(palette.drop(columns=["palette", "floor"]))
        .mark_circle(stroke=NEUTRAL, strokeWidth=0.5, opacity=1)
        .encode(
            x=alt.X("a:Q", scale=scale, title="a: green to red (Lab units)"),
            y=alt.Y("b:Q", scale=scale, title="b: blue to yellow (Lab units)"),
            size=alt.Size("share:Q", scale=alt.Scale(range=[8, 500]), legend=None),
            color=colour,
            tooltip=[alt.Tooltip(f"{name}:Q", format=form) for name, form in FORMS.items()],
        )
        .properties(width=260, height=260)
    )
    swatches = (
        alt.Chart(palette[["place", "colour"]])
        .mark_bar()
        .encode(x=alt.X("place:O", axis=None, scale=alt.Scale(paddingInner=0)), color=colour)
        .properties(width=260, height=24)
    )
    title = alt.TitleParams(palette["palette"].iloc[0], anchor="start", limit=260)
    return alt.vconcat(plane, swatches, spacing=4).properties(title=title)
