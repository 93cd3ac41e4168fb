"""Do scores predict people? The share of votes that each arm's pictures took, against each score and against λ."""

import math

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st

from db.answers import Answers, summarise
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import NEUTRAL, Chart, DataTable, Exhibit, Figure, arm_scale, show_exhibits, titled
from survey_app.dashboard.measures import MEASURES
from survey_app.statistics import rank_correlation

SCORES = (
    "bin_accuracy",
    "balanced_bin_accuracy",
    "raw_auc",
    "rebalanced_auc",
    "colourfulness_ratio",
    "delta_e_2000",
)
BETTER = {True: "higher", False: "lower", None: "near 1"}
SCORE_LIMITS = 2.093  # standard errors: the 97.5 % point of Student's t with as many groups of images, 20, less one
FEWEST_ARMS = 3
MIDDLE = 0.5  # of a pair: nobody can tell


def show(chosen: Chosen) -> None:
    """Draw the view."""
    if chosen.answers is None:
        st.info(chosen.hidden or "Nobody has been asked yet: this view puts votes beside scores.")
        return
    show_exhibits(exhibits(chosen.answers, chosen))


def exhibits(answers: Answers, chosen: Chosen) -> list[Exhibit]:
    """A figure for each score, one for λ, and the table of rank correlations."""
    kept = answers.of(chosen.inclusion)
    if not kept.participants:
        return ["No votes yet: the figures appear with the first answers."]
    picked, asked = kept.picked_and_asked()
    points = _points(answers, chosen)
    correlations = _correlations(answers, points, picked, asked, simulated=chosen.simulated)
    figures = [_score_figure(score, points, answers.arms, correlations, simulated=chosen.simulated) for score in SCORES]
    rows: list[Exhibit] = [tuple(figures[start : start + 2]) for start in range(0, len(figures), 2)]
    rebalancing = _rebalancing_figure(points, answers.arms, simulated=chosen.simulated)
    return [correlations, *([] if rebalancing is None else [rebalancing]), *rows]


def _points(answers: Answers, chosen: Chosen) -> pd.DataFrame:
    """One row an arm: its votes and its scores, each with limits."""
    rows = []
    for arm in summarise(answers, chosen.inclusion).rows:
        share = arm.picked_as_real
        row = {"model": arm.arm, "λ": arm.rebalancing, "kind": arm.kind, "picked": share.count, "asked": share.total}
        row |= {"share": share.share, "share low": share.low, "share high": share.high}
        for score in SCORES:
            value = arm.trial.validation.get(score)
            error = arm.trial.validation_standard_errors.get(score)
            row[score] = value
            row[f"{score} low"] = None if value is None or error is None else value - SCORE_LIMITS * error
            row[f"{score} high"] = None if value is None or error is None else value + SCORE_LIMITS * error
        rows.append(row)
    frame = pd.DataFrame(rows)
    numbers = frame.columns.difference(["model", "kind"])
    return frame.astype(dict.fromkeys(numbers, float))


def _correlations(
    answers: Answers, points: pd.DataFrame, picked: np.ndarray, asked: np.ndarray, *, simulated: bool
) -> DataTable:
    rows = []
    for score in SCORES:
        values = points[score].to_numpy()
        known = ~np.isnan(values)
        rho = rank_correlation(values[known], picked[:, known], asked[:, known])
        rows.append(
            {
                "score": MEASURES[score].heading,
                "better": BETTER[MEASURES[score].higher_is_better],
                "Spearman's ρ": rho.estimate,
                "95 % from": rho.low,
                "95 % to": rho.high,
                "models": int(known.sum()),
            }
        )
    frame = pd.DataFrame(rows)
    few = "" if len(points) >= FEWEST_ARMS else f" There are none with fewer than {FEWEST_ARMS} models."
    return DataTable(
        name="rank-correlations",
        title=titled("Do the scores rank the models as people do?", simulated=simulated),
        frame=frame,
        formats={"Spearman's ρ": "+.2f", "95 % from": "+.2f", "95 % to": "+.2f"},
        note="+1: the models' order by this score is that by votes; −1: the reverse, which for ΔE2000 is what a good "
        "score should give. The interval resamples participants and takes models and scores as they are: it tells how "
        f"sure this order is, not what other models would give, and with few models it may be a single point.{few}",
    )


def _score_figure(
    score: str, points: pd.DataFrame, models: list[str], correlations: DataTable, *, simulated: bool
) -> Figure:
    measure = MEASURES[score]
    shown = points.dropna(subset=[score, "share"]).copy()
    for column in (score, f"{score} low", f"{score} high"):
        shown[column] *= measure.factor
    shown["score low"] = shown[f"{score} low"].fillna(shown[score])
    shown["score high"] = shown[f"{score} high"].fillna(shown[score])
    x = alt.X(f"{score}:Q", title=f"{measure.heading} in validation", scale=alt.Scale(zero=False, nice=True))
    rho = float(correlations.frame.set_index("score")["Spearman's ρ"].astype(float)[measure.heading])
    summary = "; ".join(
        f"{model} {value:{measure.form}}, picked {100 * share:.0f} %"
        for model, value, share in zip(shown["model"], shown[score], shown["share"], strict=True)
    )
    return Figure(
        name=f"votes-by-{score.replace('_', '-')}",
        title=titled(f"Votes against {measure.heading.partition(' (')[0]}", simulated=simulated),
        alternative=f"Share picked as real against {measure.heading}, {BETTER[measure.higher_is_better]} is better: "
        f"{summary}. " + ("" if math.isnan(rho) else f"Spearman's rank correlation {rho:+.2f}."),
        chart=_scatter(shown, x, models, limits=("score low", "score high")),
        data=points[["model", "picked", "asked", "share", "share low", "share high", score, *_limits(score)]],
        note="Vertical: 95 % Wilson. Horizontal: 95 % over the choice of validation images"
        + (", where measured." if points[f"{score} low"].isna().any() else "."),
    )


def _limits(score: str) -> tuple[str, str]:
    return f"{score} low", f"{score} high"


def _rebalancing_figure(points: pd.DataFrame, models: list[str], *, simulated: bool) -> Figure | None:
    shown = points[points["kind"] == "classification"].dropna(subset=["λ", "share"])
    if len(shown) < 2:
        return None
    x = alt.X(
        "λ:Q",
        title="λ (1: plain classification, 0: full inverse frequency)",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5),
    )
    chart = _scatter(shown, x, models, line=True)
    regression = points[points["kind"] == "regression"].dropna(subset=["share"])
    if len(regression):
        chart += (
            alt.Chart(regression)
            .mark_rule(color=NEUTRAL, strokeDash=[6, 4])
            .encode(y="share:Q", tooltip=["model:N", alt.Tooltip("share:Q", format=".1%")])
        )
    summary = "; ".join(
        f"λ = {row['λ']:g} {100 * row['share']:.0f} % ({row['picked']:.0f} of {row['asked']:.0f})"
        for _, row in shown.sort_values("λ").iterrows()
    )
    return Figure(
        name="votes-by-rebalancing",
        title=titled("Votes against rebalancing λ", simulated=simulated),
        alternative=f"Share picked as real by rebalancing: {summary}.",
        chart=chart,
        data=shown[["model", "λ", "picked", "asked", "share", "share low", "share high"]],
        note="95 % Wilson intervals." + (" Dashed grey: regression." if len(regression) else ""),
    )


def _scatter(
    shown: pd.DataFrame, x: alt.X, models: list[str], *, limits: tuple[str, str] | None = None, line: bool = False
) -> Chart:
    """Points with intervals over the line of 50 %. models: all of the experiment, so that each looks the
    same everywhere."""
    arms = arm_scale(models, shown["model"].tolist())
    highest = max(MIDDLE + 0.1, float(shown["share high"].max()) + 0.05)
    y_scale = alt.Scale(domain=[0, min(1.0, highest)])
    y = alt.Y("share:Q", title="picked as real", scale=y_scale, axis=alt.Axis(format="%"))
    base = alt.Chart(shown)
    layers: list[alt.Chart] = [
        alt.Chart(pd.DataFrame({"half": [MIDDLE]}))
        .mark_rule(color=NEUTRAL, strokeDash=[2, 2])
        .encode(y=alt.Y("half:Q"))
    ]
    if line:
        layers.append(base.mark_line(color=NEUTRAL).encode(x=x, y=y))
    layers.append(
        base.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("share low:Q"), y2="share high:Q", color=arms["color"])
    )
    if limits is not None:
        layers.append(
            base.mark_rule(strokeWidth=2).encode(
                x=alt.X(f"{limits[0]}:Q", scale=alt.Scale(zero=False)), x2=f"{limits[1]}:Q", y=y, color=arms["color"]
            )
        )
    tooltip = [
        alt.Tooltip("model:N"),
        alt.Tooltip("share:Q", format=".1%", title="picked as real"),
        alt.Tooltip("picked:Q"),
        alt.Tooltip("asked:Q"),
    ]
    layers.append(
        base.mark_point(filled=True, size=110, opacity=1).encode(
            x=x, y=y, color=arms["color"], shape=arms["shape"], tooltip=tooltip
        )
    )
    return alt.layer(*layers).properties(height=380)
