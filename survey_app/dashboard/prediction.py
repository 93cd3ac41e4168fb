"""Do scores predict people? The share of votes that each arm's pictures took, against each score."""

import math
from dataclasses import asdict
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from db.answers import Answers
from db.store import read_session
from platform.intervals import wilson
from platform.results import predictions_note, titled
from platform.scores import SCORES
from platform.tables import Table
from survey_app.dashboard import agreement
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import (
    Exhibit,
    Figure,
    arm_scale,
    interval_marks,
    mark_line,
    mark_note,
    show_exhibits,
)
from survey_app.statistics import rank_correlation

BETTER = {True: "higher", False: "lower", None: "near 1"}
SCORE_LIMITS = 2.093  # standard errors: the 97.5 % point of Student's t with as many groups of images, 20, less one
FEWEST_ARMS = 3


def show(chosen: Chosen) -> None:
    """Draw the view."""
    if chosen.answers is None:
        st.info(chosen.hidden or "Nobody has been asked yet: this view puts votes beside scores.")
        return
    show_exhibits(exhibits(chosen.answers, chosen))


def exhibits(answers: Answers, chosen: Chosen) -> list[Exhibit]:
    """The table of rank correlations, what scores of single pictures predict, and a figure for each score; the loss is
    no score of theirs, as its unit differs between models."""
    kept = answers.of(chosen.inclusion)
    if not kept.participants:
        return ["No votes yet: the figures appear with the first answers."]
    votes = [asdict(wilson(count.count, count.total)) for count in kept.picked_as_real()]
    points = {name: _points(name, kept, votes) for name in SCORES if name != "loss"}
    figures = [_score_figure(name, kept, of) for name, of in points.items() if of["score"].notna().any()]
    pairs: list[Exhibit] = [tuple(figures[start : start + 2]) for start in range(0, len(figures), 2)]
    with read_session(chosen.engine) as session:
        by_picture = agreement.exhibits(session, kept)
    return [_correlations(kept, points), *by_picture, *pairs]


def _points(name: str, kept: Answers, votes: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per contender: its votes, and a score in its unit with limits, the score itself where it has none."""
    rows = []
    for contender, of_contender in zip(kept.contenders, votes, strict=True):
        value = contender.trial.scores.get("validation", {}).get(name, math.nan)
        error = contender.trial.standard_errors.get("validation", {}).get(name, 0.0)
        limits = (value - SCORE_LIMITS * error, value, value + SCORE_LIMITS * error)
        low, value, high = (SCORES[name].factor * limit for limit in limits)
        rows.append({"model": contender.arm, **of_contender, "score": value} | {"score low": low, "score high": high})
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(frame.columns.difference(["model", "count", "total"]), float))


def _correlations(kept: Answers, points: dict[str, pd.DataFrame]) -> Table:
    picked, asked = kept.picked_and_asked()
    rows = []
    for name, of_score in points.items():
        values = of_score["score"]
        rho = rank_correlation(values.to_numpy(), picked, asked)
        rows.append(
            {
                "score": SCORES[name].heading,
                "better": BETTER[SCORES[name].higher_is_better],
                "Spearman's ρ": rho.estimate,
                "95 % from": rho.low,
                "95 % to": rho.high,
                "models": int(values.notna().sum()),
            }
        )
    few = "" if len(kept.contenders) >= FEWEST_ARMS else f" There are none with fewer than {FEWEST_ARMS} models."
    return Table(
        name="rank-correlations",
        title=titled("Do the scores rank the models as people do?", simulated=kept.simulated),
        frame=pd.DataFrame(rows),
        formats={"Spearman's ρ": "+.2f", "95 % from": "+.2f", "95 % to": "+.2f"},
        note="+1: the models' order by this score is that by votes; −1: the reverse, which where lower is better is "
        "what a good score should give. The interval resamples participants and takes models and scores as they are: "
        "it tells how sure this order is, not what other models would give, and with few models it may be one point."
        f"{few} {predictions_note(list(points))}",
    )


def _score_figure(name: str, kept: Answers, points: pd.DataFrame) -> Figure:
    score = SCORES[name]
    shown = points.dropna(subset=["score", "share"])
    x = alt.X("score:Q", title=f"{score.heading} in validation", scale=alt.Scale(zero=False, nice=True))
    summary = "; ".join(
        f"{model} {value:{score.form}}, picked {100 * share:.0f} %"
        for model, value, share in zip(shown["model"], shown["score"], shown["share"], strict=True)
    )
    limits = alt.Chart(shown).mark_rule(strokeWidth=2)
    low = alt.X("score low:Q", scale=alt.Scale(zero=False))
    limits = limits.encode(
        x=low, x2=alt.X2("score high:Q"), y=alt.Y("share:Q"), color=arm_scale(kept.arms, shown["model"])["color"]
    )
    return Figure(
        name=f"votes-by-{name.replace('_', '-')}",
        title=titled(f"Votes against {score.words}", simulated=kept.simulated),
        alternative=f"Share picked as real against {score.heading}, {BETTER[score.higher_is_better]} is better: "
        f"{summary}.",
        chart=votes_against(x, shown, kept, [limits]),
        data=points.rename(columns={"score": name, "score low": f"{name} low", "score high": f"{name} high"}),
        note="Vertical: 95 % Wilson. Horizontal: 95 % over the choice of validation images, where measured. "
        f"{mark_note(kept.mark, kept.protocol)}",
    )


def votes_against(x: alt.X, shown: pd.DataFrame, kept: Answers, below: list[Any]) -> Any:
    """Votes with their intervals, over the line where nobody can tell, and what else stands below them."""
    arms = arm_scale(kept.arms, shown["model"])
    highest = min(1.0, max((kept.mark or 0.0) + 0.1, float(shown["high"].max()) + 0.05))
    base = alt.Chart(shown).encode(x=x, color=arms["color"])
    share = alt.Tooltip("share:Q", format=".1%", title="picked as real")
    tooltip = [alt.Tooltip("model:N"), share, alt.Tooltip("count:Q"), alt.Tooltip("total:Q")]
    votes = interval_marks(base, "y", "picked as real", highest, shape=arms["shape"], tooltip=tooltip)
    return alt.layer(*mark_line(kept.mark, "y"), *below, *votes).properties(height=380)
