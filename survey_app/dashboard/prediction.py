"""Do scores predict people? The share of votes that each arm's pictures took, against each score and against λ."""

import math
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from db.answers import Answers
from platform.intervals import wilson
from platform.results import predictions_note, titled
from platform.scores import SCORES, Score
from platform.tables import Table
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, arm_scale, mark_line, mark_note, show_exhibits
from survey_app.statistics import rank_correlation

BETTER = {True: "higher", False: "lower", None: "near 1"}
SCORE_LIMITS = 2.093  # standard errors: the 97.5 % point of Student's t with as many groups of images, 20, less one
FEWEST_ARMS = 3
VOTES = ["model", "picked", "asked", "share", "share low", "share high"]


def show(chosen: Chosen) -> None:
    """Draw the view."""
    if chosen.answers is None:
        st.info(chosen.hidden or "Nobody has been asked yet: this view puts votes beside scores.")
        return
    show_exhibits(exhibits(chosen.answers, chosen))


def exhibits(answers: Answers, chosen: Chosen) -> list[Exhibit]:
    """The table of rank correlations, a figure for λ, and one for each score; the loss is no score of theirs, as its
    unit differs between models."""
    kept = answers.of(chosen.inclusion)
    if not kept.participants:
        return ["No votes yet: the figures appear with the first answers."]
    scores = {name: score for name, score in SCORES.items() if name != "loss"}
    points = _points(kept, scores)
    correlations = _correlations(kept, points, scores)
    rho = correlations.frame.set_index("score")["Spearman's ρ"].astype(float)
    figures = [
        _score_figure(name, points, kept, float(rho[score.heading]))
        for name, score in scores.items()
        if points[name].notna().any()
    ]
    pairs: list[Exhibit] = [tuple(figures[start : start + 2]) for start in range(0, len(figures), 2)]
    rebalancing = _rebalancing_figure(points, kept)
    return [correlations, *([] if rebalancing is None else [rebalancing]), *pairs]


def _points(kept: Answers, scores: dict[str, Score]) -> pd.DataFrame:
    """One row per contender: its votes and its scores, each in its unit and with limits."""
    rows = []
    for contender, count in zip(kept.contenders, kept.picked_as_real(), strict=True):
        share = wilson(count.count, count.total)
        row = {"model": contender.arm, "λ": contender.rebalancing, "picked": share.count, "asked": share.total}
        row |= {"share": share.share, "share low": share.low, "share high": share.high}
        for name, score in scores.items():
            value = contender.trial.scores.get("validation", {}).get(name, math.nan)
            margin = SCORE_LIMITS * contender.trial.standard_errors.get("validation", {}).get(name, math.nan)
            for column, number in ((name, value), (f"{name} low", value - margin), (f"{name} high", value + margin)):
                row[column] = score.factor * number
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(frame.columns.difference(["model"]), float))


def _correlations(kept: Answers, points: pd.DataFrame, scores: dict[str, Score]) -> Table:
    picked, asked = kept.picked_and_asked()
    rows = []
    for name, score in scores.items():
        values = points[name].to_numpy()
        rho = rank_correlation(values, picked, asked)
        rows.append(
            {
                "score": score.heading,
                "better": BETTER[score.higher_is_better],
                "Spearman's ρ": rho.estimate,
                "95 % from": rho.low,
                "95 % to": rho.high,
                "models": int(points[name].notna().sum()),
            }
        )
    few = "" if len(points) >= FEWEST_ARMS else f" There are none with fewer than {FEWEST_ARMS} models."
    return Table(
        name="rank-correlations",
        title=titled("Do the scores rank the models as people do?", simulated=kept.simulated),
        frame=pd.DataFrame(rows),
        formats={"Spearman's ρ": "+.2f", "95 % from": "+.2f", "95 % to": "+.2f"},
        note="+1: the models' order by this score is that by votes; −1: the reverse, which where lower is better is "
        "what a good score should give. The interval resamples participants and takes models and scores as they are: "
        "it tells how sure this order is, not what other models would give, and with few models it may be one point."
        f"{few} {predictions_note(list(scores))}",
    )


def _score_figure(name: str, points: pd.DataFrame, kept: Answers, rho: float) -> Figure:
    score, limits = SCORES[name], [f"{name} low", f"{name} high"]
    shown = points.dropna(subset=[name, "share"])
    # A score without a standard error has limits that are the score itself.
    shown = shown.assign(**{"score low": shown[limits[0]].fillna(shown[name])})
    shown = shown.assign(**{"score high": shown[limits[1]].fillna(shown[name])})
    x = alt.X(f"{name}:Q", title=f"{score.heading} in validation", scale=alt.Scale(zero=False, nice=True))
    summary = "; ".join(
        f"{model} {value:{score.form}}, picked {100 * share:.0f} %"
        for model, value, share in zip(shown["model"], shown[name], shown["share"], strict=True)
    )
    measured = "." if points[limits[0]].notna().all() else ", where measured."
    return Figure(
        name=f"votes-by-{name.replace('_', '-')}",
        title=titled(f"Votes against {score.words}", simulated=kept.simulated),
        alternative=f"Share picked as real against {score.heading}, {BETTER[score.higher_is_better]} is better: "
        f"{summary}. " + ("" if math.isnan(rho) else f"Spearman's rank correlation {rho:+.2f}."),
        chart=_scatter(shown, x, kept, limits=("score low", "score high")),
        data=points[[*VOTES, name, *limits]],
        note=f"Vertical: 95 % Wilson. Horizontal: 95 % over the choice of validation images{measured} "
        f"{mark_note(kept.mark, kept.protocol)}",
    )


def _rebalancing_figure(points: pd.DataFrame, kept: Answers) -> Figure | None:
    shown = points.dropna(subset=["λ", "share"])
    if len(shown) < 2:
        return None
    x = alt.X(
        "λ:Q",
        title="λ (1: plain classification, 0: full inverse frequency)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5),
    )
    chart = _scatter(shown, x, kept, line=True)
    without = points[points["λ"].isna()].dropna(subset=["share"])
    if len(without):
        chart += (
            alt.Chart(without)
            .mark_rule(color=NEUTRAL, strokeDash=[6, 4])
            .encode(y="share:Q", tooltip=["model:N", alt.Tooltip("share:Q", format=".1%")])
        )
    summary = "; ".join(
        f"λ = {row['λ']:g} {100 * row['share']:.0f} % ({row['picked']:.0f} of {row['asked']:.0f})"
        for _, row in shown.sort_values("λ").iterrows()
    )
    others = f" Long dashes: {', '.join(without['model'])}, without λ." if len(without) else ""
    return Figure(
        name="votes-by-rebalancing",
        title=titled("Votes against rebalancing λ", simulated=kept.simulated),
        alternative=f"Share picked as real by rebalancing: {summary}.",
        chart=chart,
        data=shown[["model", "λ", *VOTES[1:]]],
        note=f"95 % Wilson intervals. {mark_note(kept.mark, kept.protocol)}{others}",
    )


def _scatter(
    shown: pd.DataFrame, x: alt.X, kept: Answers, *, limits: tuple[str, str] | None = None, line: bool = False
) -> Any:
    """Points with intervals, over the line where nobody can tell."""
    arms = arm_scale(kept.arms, shown["model"].tolist())
    highest = max((kept.mark or 0.0) + 0.1, float(shown["share high"].max()) + 0.05)
    y = alt.Y(
        "share:Q",
        title="picked as real",
        scale=alt.Scale(domain=[0, min(1.0, highest)]),
        axis=alt.Axis(format="%"),
    )
    base = alt.Chart(shown).encode(x=x, y=y, color=arms["color"])
    layers = [
        *mark_line(kept.mark, "y"),
        *([alt.Chart(shown).mark_line(color=NEUTRAL).encode(x=x, y=y)] if line else []),
        base.mark_rule(strokeWidth=2).encode(y=alt.Y("share low:Q"), y2="share high:Q"),
    ]
    if limits is not None:
        low = alt.X(f"{limits[0]}:Q", scale=alt.Scale(zero=False))
        layers.append(base.mark_rule(strokeWidth=2).encode(x=low, x2=f"{limits[1]}:Q"))
    tooltip = ["model:N", alt.Tooltip("share:Q", format=".1%", title="picked as real"), "picked:Q", "asked:Q"]
    points = base.mark_point(filled=True, size=110, opacity=1).encode(shape=arms["shape"], tooltip=tooltip)
    return alt.layer(*layers, points).properties(height=380)
