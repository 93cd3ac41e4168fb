"""Picked as real over λ: the arms' own shares, the curve through those that differ in λ alone, and where it peaks."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from db.surveys.answers import Answers
from platform.tables.intervals import title_votes
from survey_app.analysis.curve import Curve, Votes, curve_of
from survey_app.analysis.tables import best_table
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure
from survey_app.dashboard.prediction_view import describe_mark, votes_against, votes_by_model

CURVE = "curve"  # what its rows are called among those of the models


def exhibits(answers: Answers, before: Sequence[Votes] = ()) -> list[Exhibit]:
    """A figure and a table; nothing where no curve can be drawn. answers: of those who are counted; before: see
    `earlier_votes`."""
    found = curve_of(answers, before)
    if found is None:
        return []
    places, curve = found
    return [_curve_figure(answers, places, curve), best_table(answers, before, places, curve)]


def _curve_figure(answers: Answers, places: list[int], curve: Curve) -> Figure:
    points = votes_by_model(answers)
    points.insert(1, "λ", pd.Series([trial.arm.rebalancing for trial in answers.contenders], dtype=float))
    points = points[points["total"] > 0]
    shown, without = points.dropna(subset=["λ"]).sort_values("λ"), points[points["λ"].isna()]
    low, middle, high = curve.interval()
    band = pd.DataFrame({"model": CURVE, "λ": curve.at, "share": middle, "low": low, "high": high})
    x = alt.X("λ:Q", title="λ (1: plain classification)", axis=alt.Axis(tickCount=5))
    below = alt.Chart(band).encode(x=x)
    lines = [
        below.mark_area(color=NEUTRAL, opacity=0.25, clip=True).encode(y="low:Q", y2="high:Q"),
        below.mark_line(color=NEUTRAL).encode(y="share:Q"),
        alt.Chart(without)
        .mark_rule(color=NEUTRAL, strokeDash=[6, 4])
        .encode(y="share:Q", tooltip=["model:N", alt.Tooltip("share:Q", format=".1%")]),
    ]
    joined = [answers.contenders[place].arm.name for place in places]
    beside = [model for model in shown["model"] if model not in joined]
    summary = "; ".join(
        f"{row['model']} (λ = {row['λ']:g}) {100 * row['share']:.0f} %, {row['count']} of {row['total']}"
        for _, row in shown.iterrows()
    )
    others = f" In more than λ differs {', '.join(beside)}, beside the curve." if beside else ""
    if len(without):
        others += f" Long dashes, without one λ: {', '.join(without['model'])}."
    return Figure(
        name="votes-by-rebalancing",
        title=title_votes("Votes against λ", simulated=answers.simulated),
        alternative=f"Share picked as real by λ: {summary}.",
        chart=votes_against(x, shown, answers, lines),
        data=pd.concat([points, band], ignore_index=True),
        note=f"Points: 95 % Wilson. The curve, a Gaussian process with its 95 % band, through {', '.join(joined)}, "
        f"which differ in λ alone.{others} {describe_mark(answers)}",
    )
