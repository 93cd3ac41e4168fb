"""Does decoding by λ stand for training with it? Every score over λ, tilted and trained."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from db.results import Contender
from platform.scores import SCORES, Score
from survey_app.curve import families_of
from survey_app.dashboard.exhibits import COLOURS, SHAPES, Exhibit, Figure
from survey_app.dashboard.prediction import SCORE_LIMITS

TILTED, TRAINED = "tilted", "trained"  # with this λ
FEWEST_VALUES = 3  # of λ, that a curve is drawn through
BARS = (
    "Bars: 95 % over the choice of validation images, where measured; what another seed gives is not in them. λ = 1 is "
    "the plain classification, which both share."
)
PANEL_WIDTH, PANEL_HEIGHT = 240, 340  # pixels; a page takes axis and legend out of the height
LEGEND = alt.Legend(columns=2)  # three are wider than a panel


def exhibits(contenders: Sequence[Contender]) -> list[Exhibit]:
    """A figure with a panel for each score, and what it shows in a sentence; nothing where fewer than three λ's of one
    classification are rendered."""
    points = score_points(contenders)
    if points.empty:
        return []
    said = differences_said(points)
    series = list(dict.fromkeys(points["λ is of"]))
    return [
        Figure(
            name="scores-by-rebalancing",
            title="Scores against λ, tilted and trained",
            alternative=f"Scores in validation by λ, one panel per score; series: {', '.join(series)}. {said}",
            chart=alt.concat(*(_panel(points, name, series) for name in dict.fromkeys(points["name"])), columns=4),
            data=points.drop(columns="name"),
            note=f"{said} {BARS}".lstrip(),
        )
    ]


def score_points(contenders: Sequence[Contender]) -> pd.DataFrame:
    """One row per score and model with it: name and score (its heading), model, "λ is of" (TILTED, by another
    temperature too, or TRAINED), λ, value and limit, how far its 95 % reach, in the score's unit.

    Of the tilts of the classification that has most of them, and of the trainings beside it. Of the decoded colour
    alone do models differ that are read at different temperatures: elsewhere these are left out.
    """
    tilts, trainings = families_of(contenders)
    family = max(tilts.values(), key=len, default=[])
    values = {contenders[place].rebalancing for place in family}
    plain = next((place for place in family if contenders[place].options.get("renders") is None), None)
    if plain is None or len(values) < FEWEST_VALUES:
        return pd.DataFrame()
    of_plain = {key: places for key, places in tilts.items() if key.startswith(f"{contenders[plain].arm}: ")}
    series = {TILTED: family, TRAINED: next(places for places in trainings.values() if plain in places)}
    for places in of_plain.values():
        if places is not family:
            series[f"{TILTED}, {_read_by(contenders[places[0]], contenders[plain])}"] = places
    rows = [
        {"name": name, "score": score.heading, "model": contenders[place].arm, "λ is of": label}
        | {"λ": contenders[place].rebalancing, **_measured(contenders[place], name, score)}
        for name, score in SCORES.items()
        for label, places in series.items()
        for place in places
        if name != "loss" and (score.of_decoded_colour or label in (TILTED, TRAINED))
    ]
    return pd.DataFrame(rows).dropna(subset=["value"])


def _read_by(other: Contender, plain: Contender) -> str:
    """How a rendering is read, where that differs from the plain classification."""
    decoding, temperature = (other.options.get(option) for option in ("decoding", "temperature"))
    if decoding != plain.options.get("decoding"):
        return str(decoding).replace("_", " ")
    return f"T = {temperature:g}"


def _measured(contender: Contender, name: str, score: Score) -> dict[str, float]:
    value = contender.trial.scores.get("validation", {}).get(name, math.nan)
    error = contender.trial.standard_errors.get("validation", {}).get(name, math.nan)
    return {"value": score.factor * value, "limit": score.factor * SCORE_LIMITS * error}


def differences_said(points: pd.DataFrame) -> str:
    """Where tilted and trained with the same λ differ by more than their errors over images, as a sentence.

    Errors of both are added as of independent choices of images. It is one choice, so that most differences are known
    better than this.
    """
    both = points[points["λ"] < 1].pivot_table(
        index=["name", "λ"], columns="λ is of", values=["value", "limit"], sort=False
    )
    if not {("limit", TILTED), ("limit", TRAINED)} <= set(both.columns):
        return ""
    limit = (both["limit"][TILTED] ** 2 + both["limit"][TRAINED] ** 2) ** 0.5
    difference = (both["value"][TILTED] - both["value"][TRAINED])[limit.notna()]
    if difference.empty:
        return ""
    beyond = difference[difference.abs() > limit[limit.notna()]]
    parts = []
    for name, of_score in beyond.groupby(level="name", sort=False):
        values = ", ".join(f"{value:+{SCORES[name].form}}" for value in of_score).replace("-", "\N{MINUS SIGN}")
        places = ", ".join(f"{at:g}" for at in of_score.index.get_level_values("λ"))
        parts.append(f"{SCORES[name].heading} {values} at λ = {places}")
    names = dict.fromkeys(difference.index.get_level_values("name"))
    within = [SCORES[name].words for name in names if name not in beyond.index.get_level_values("name")]
    if not parts:
        return "Tilted and trained with the same λ differ in no score by more than their errors over images."
    rest = f" No difference beyond them in {', '.join(within)}." if within else ""
    return f"Tilted less trained with the same λ, beyond their errors over images: {'; '.join(parts)}.{rest}"


def _panel(points: pd.DataFrame, name: str, series: Sequence[str]) -> Any:
    shown = points[points["name"] == name].assign(
        low=lambda rows: (rows["value"] - rows["limit"]).fillna(rows["value"]),
        high=lambda rows: (rows["value"] + rows["limit"]).fillna(rows["value"]),
    )
    scale = alt.Scale(domain=list(series), range=[COLOURS[place % len(COLOURS)] for place in range(len(series))])
    shapes = alt.Scale(domain=list(series), range=[SHAPES[place % len(SHAPES)] for place in range(len(series))])
    y = alt.Y("low:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
    base = alt.Chart(shown.drop(columns=["name", "score", "limit"])).encode(
        x=alt.X("λ:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=3)),
        color=alt.Color("λ is of:N", scale=scale, sort=list(series), title=None, legend=LEGEND),
    )
    shape = alt.Shape("λ is of:N", scale=shapes, sort=list(series), title=None, legend=LEGEND)
    form = SCORES[name].form
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("λ:Q"),
        alt.Tooltip("value:Q", format=form, title=SCORES[name].words),
    ]
    return alt.layer(
        base.mark_rule(strokeWidth=2).encode(y, alt.Y2("high:Q")),
        base.mark_line(strokeWidth=1).encode(alt.Y("value:Q")),
        base.mark_point(filled=True, size=50, opacity=1).encode(alt.Y("value:Q"), shape=shape, tooltip=tooltip),
    ).properties(title=SCORES[name].heading, width=PANEL_WIDTH, height=PANEL_HEIGHT)
