"""Picked as real over λ: the arms' own shares, the curve through those that differ in λ alone, and where it peaks."""

from collections.abc import Sequence
from dataclasses import asdict

import altair as alt
import pandas as pd

from db.surveys.answers import Answers
from platform.tables.intervals import title_votes, wilson
from platform.tables.table import Table
from survey_app.analysis.curve import Curve, Votes, confirmed_share, curve_of
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, mark_note
from survey_app.dashboard.prediction_view import votes_against

CURVE = "curve"  # what its rows are called among those of the models
OPTIMISTIC = (
    "The best of several looks better than it is: only another study, of it and of what it is to beat, tells by how "
    "much."
)


def exhibits(answers: Answers, before: Sequence[Votes] = ()) -> list[Exhibit]:
    """A figure and a table; nothing where no curve can be drawn. answers: of those who are counted; before: see
    `earlier_votes`."""
    found = curve_of(answers, before)
    if found is None:
        return []
    places, curve = found
    return [_curve_figure(answers, places, curve), best_table(answers, before, places, curve)]


def how_sure_of_best(answers: Answers, before: Sequence[Votes]) -> str:
    """The best of several is overestimated, until it was asked about again."""
    again = confirmed_share(answers, before)
    if again is None:
        return OPTIMISTIC
    return (
        f"The best was the best of earlier studies, too, and was asked about again: {again.percent} ({again.range}) by "
        f"study {answers.study!r} alone, which nobody chose for its luck."
    )


def _curve_figure(answers: Answers, places: list[int], curve: Curve) -> Figure:
    points = pd.DataFrame(
        [
            {"model": contender.arm, "λ": contender.rebalancing, **asdict(wilson(count.count, count.total))}
            for contender, count in zip(answers.contenders, answers.picked_as_real(), strict=True)
            if count.total
        ]
    ).astype({"λ": float})
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
    joined = [answers.contenders[place].arm for place in places]
    beside = [model for model in shown["model"] if model not in joined]
    summary = "; ".join(
        f"{row['model']} (λ = {row['λ']:g}) {100 * row['share']:.0f} %, {row['count']} of {row['total']}"
        for _, row in shown.iterrows()
    )
    others = f" In more than λ differs {', '.join(beside)}, beside the curve." if beside else ""
    twice = {
        contender.arm: f"{contender.arm} ({contender.trial.decoding})"
        for contender in answers.contenders
        if contender.rebalancing is None and contender.options.tilt != 1
    }
    dashed = ", ".join(twice.get(model, model) for model in without["model"])
    others += f" Long dashes: {dashed}, without λ{' or with two' if twice else ''}." if dashed else ""
    return Figure(
        name="votes-by-rebalancing",
        title=title_votes("Votes against λ", simulated=answers.simulated),
        alternative=f"Share picked as real by λ: {summary}.",
        chart=votes_against(x, shown, answers, lines),
        data=pd.concat([points, band], ignore_index=True),
        note=f"Points: 95 % Wilson. The curve, a Gaussian process with its 95 % band, through {', '.join(joined)}, "
        f"which differ in λ alone.{others} {mark_note(answers.mark, answers.protocol)}",
    )


def best_table(answers: Answers, before: Sequence[Votes], places: list[int], curve: Curve) -> Table:
    """What the curve says of the arms that it joins."""
    values = curve.asked_at
    low, middle, high = 100 * curve.interval()[:, curve.places(values)]
    frame = pd.DataFrame(
        {
            "model": [answers.contenders[place].arm for place in places],
            "λ": values,
            "by the curve (%)": middle,
            "95 % from": low,
            "95 % to": high,
            "best of these (%)": 100 * curve.probability_best(values),
        }
    )
    pooled = "Answers of earlier studies are of the same curve, but for its level. " if before else ""
    return Table(
        name="best-of-rebalancings",
        title=title_votes("Which λ is best?", simulated=answers.simulated),
        frame=frame,
        formats={"λ": "g"}
        | dict.fromkeys(["by the curve (%)", "95 % from", "95 % to"], ".1f")
        | {"best of these (%)": ".0f"},
        note="The curve's share picked as real, to which neighbours in λ contribute, and the probability that each is "
        f"the best of these. {pooled}{how_sure_of_best(answers, before)}",
    )
