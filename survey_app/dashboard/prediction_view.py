"""Do scores predict people? The share of votes that each arm's pictures took, against each score, and picture by
picture."""

import math
from dataclasses import asdict
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import streamlit as st
from sqlalchemy.orm import Session

from db.store import read_session
from db.surveys.answers import Answers
from db.sweeps.pictures import scores_of_samples
from platform.color.scores import JURY, SCORES
from platform.tables.intervals import title_votes, wilson
from platform.tables.outcome import jury_note
from platform.tables.table import Table
from survey_app.analysis.agreement import predict_votes
from survey_app.analysis.inference import rank_correlation
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import (
    Exhibit,
    Figure,
    arm_scale,
    interval_marks,
    mark_line,
    mark_note,
    show_exhibits,
)

BETTER = {True: "higher", False: "lower", None: "near 1"}
SCORE_LIMITS = 2.093  # standard errors: the 97.5 % point of Student's t with as many groups of images, 20, less one
FEWEST_ARMS = 3
SHARES = ("rightly ordered (%)", "95 % from", "95 % to")  # of the table of single pictures
NO_VOTES = "No votes yet: the figures appear with the first answers."


def show(chosen: Chosen) -> None:
    """Draw the view."""
    answers = chosen.counted
    if answers is None:
        st.info(chosen.hidden or "Nobody has been asked yet: this view puts votes beside scores.")
    elif not answers.participants:
        st.markdown(NO_VOTES)
    else:
        ranking = rank_scores(answers)
        with read_session(chosen.engine) as session:
            show_exhibits([ranking_table(ranking, answers), *pictures_table(session, answers)])
        headings = {SCORES[name].heading: name for name in ranking.index[ranking["models"] > 0]}
        if headings:
            score = headings[choose("Score, the best predictor first", list(headings), key="against")]
            show_exhibits([votes_figure(score, answers)])


def exhibits(session: Session, answers: Answers) -> list[Exhibit]:
    """The tables, and the figure of the best predictor. answers: of those who are counted."""
    if not answers.participants:
        return [NO_VOTES]
    ranking = rank_scores(answers)
    measured = ranking.index[ranking["models"] > 0]
    return [
        ranking_table(ranking, answers),
        *pictures_table(session, answers),
        *(votes_figure(score, answers) for score in measured[:1]),
    ]


def rank_scores(answers: Answers) -> pd.DataFrame:
    """How each score ranks the models beside the votes, by its name, the best predictor first; the loss is no score of
    theirs, as its unit differs between models. Columns: estimate (Spearman's ρ), low, high, models (that have it)."""
    picked, asked = answers.picked_and_asked()
    rows = {}
    for name in SCORES:
        if name != "loss":
            values = np.array([contender.trial.score(name) for contender in answers.contenders], dtype=float)
            rho = rank_correlation(values, picked, asked)
            rows[name] = asdict(rho) | {"models": int(np.isfinite(values).sum())}
    frame = pd.DataFrame.from_dict(rows, orient="index").astype(dict.fromkeys(("estimate", "low", "high"), float))
    return frame.iloc[np.argsort(-frame["estimate"].abs(), kind="stable")]  # NaN comes last


def ranking_table(ranking: pd.DataFrame, answers: Answers) -> Table:
    """`rank_scores` for readers."""
    frame = pd.DataFrame(
        {
            "score": [SCORES[name].heading for name in ranking.index],
            "better": [BETTER[SCORES[name].higher_is_better] for name in ranking.index],
            "Spearman's ρ": ranking["estimate"],
            "95 % from": ranking["low"],
            "95 % to": ranking["high"],
            "models": ranking["models"],
        }
    )
    few = "" if len(answers.contenders) >= FEWEST_ARMS else f" There are none with fewer than {FEWEST_ARMS} models."
    return Table(
        name="rank-correlations",
        title=title_votes("Do the scores rank the models as people do?", simulated=answers.simulated),
        frame=frame,
        formats={"Spearman's ρ": "+.2f", "95 % from": "+.2f", "95 % to": "+.2f"},
        note="+1: the models' order by this score is that by votes; −1: the reverse, which where lower is better is "
        "what a good score should give. The interval resamples participants and takes models and scores as they are: "
        "it tells how sure this order is, not what other models would give, and with few models it may be one point."
        f"{few}",
    )


def pictures_table(session: Session, answers: Answers) -> list[Table]:
    """How well each score that single pictures have, the machine jury's first, predicts votes on them; nothing without
    votes."""
    votes = answers.of_kind("arm")
    if votes.empty:
        return []
    picked, participant, image = (votes[of].to_numpy() for of in ("picked_as_real", "participant", "image"))
    trials = [contender.trial.trial_id for contender in answers.contenders]
    found = scores_of_samples(session, trials)
    scores = [
        found.get((trials[contender], image), {})
        for contender, image in zip(votes["contender"], votes["image"], strict=True)
    ]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys((JURY, *SCORES)):
        values = np.array([of_picture.get(name, math.nan) for of_picture in scores])
        there = np.isfinite(values)
        if there.any():
            lower = SCORES[name].higher_is_better is False
            area = predict_votes((-values if lower else values)[there], picked[there], participant[there], image[there])
            rows.append({"score of the picture": SCORES[name].words, "real looks": "lower" if lower else "higher"})
            rows[-1] |= dict(zip(SHARES, (area.estimate, area.low, area.high), strict=True))
            rows[-1] |= {"votes": int(there.sum())}
    if not rows:
        return []
    frame = pd.DataFrame(rows)
    frame[list(SHARES)] = 100 * frame[list(SHARES)].astype(float)
    return [
        Table(
            name="votes-predicted",
            title=title_votes("Do scores predict votes, picture by picture?", simulated=answers.simulated),
            frame=frame,
            formats=dict.fromkeys(SHARES, ".1f") | {"votes": ",.0f"},
            note="Of a picture that was picked as real and one that was not, how often the score orders them rightly "
            "(the area under the curve); 50 %: no better than a coin. The interval resamples participants and "
            f"photographs. {jury_note(session, answers.experiment, answers.study)}".strip(),
        )
    ]


def votes_figure(name: str, answers: Answers) -> Figure:
    """Votes against a score: a point per contender that has it, both with their intervals."""
    score = SCORES[name]
    points = _points(name, answers)
    shown = points.dropna(subset=["score", "share"])
    x = alt.X("score:Q", title=f"{score.heading} in validation", scale=alt.Scale(zero=False, nice=True))
    summary = "; ".join(
        f"{model} {value:{score.form}}, picked {100 * share:.0f} %"
        for model, value, share in zip(shown["model"], shown["score"], shown["share"], strict=True)
    )
    limits = alt.Chart(shown).mark_rule(strokeWidth=2)
    low = alt.X("score low:Q", scale=alt.Scale(zero=False))
    limits = limits.encode(
        x=low, x2=alt.X2("score high:Q"), y=alt.Y("share:Q"), color=arm_scale(answers.arms, shown["model"])["color"]
    )
    return Figure(
        name=f"votes-by-{name.replace('_', '-')}",
        title=title_votes(f"Votes against {score.words}", simulated=answers.simulated),
        alternative=f"Share picked as real against {score.heading}, {BETTER[score.higher_is_better]} is better: "
        f"{summary}.",
        chart=votes_against(x, shown, answers, [limits]),
        data=points.rename(columns={"score": name, "score low": f"{name} low", "score high": f"{name} high"}),
        note="Vertical: 95 % Wilson. Horizontal: 95 % over the choice of validation images, where measured. "
        f"{mark_note(answers.mark, answers.protocol)}",
    )


def _points(name: str, answers: Answers) -> pd.DataFrame:
    """One row per contender: its votes, and a score in its unit with limits, the score itself where it has none."""
    rows = []
    for contender, count in zip(answers.contenders, answers.picked_as_real(), strict=True):
        stored = contender.trial.score(name), contender.trial.error(name)
        value, error = (math.nan if one is None else SCORES[name].factor * one for one in stored)
        limit = 0.0 if math.isnan(error) else SCORE_LIMITS * error
        rows.append({"model": contender.arm, **asdict(wilson(count.count, count.total)), "score": value})
        rows[-1] |= {"score low": value - limit, "score high": value + limit}
    frame = pd.DataFrame(rows)
    return frame.astype(dict.fromkeys(frame.columns.difference(["model", "count", "total"]), float))


def votes_against(x: alt.X, shown: pd.DataFrame, answers: Answers, below: list[Any]) -> Any:
    """Votes with their intervals, over the line where nobody can tell, and what else stands below them."""
    arms = arm_scale(answers.arms, shown["model"])
    highest = min(1.0, max((answers.mark or 0.0) + 0.1, float(shown["high"].max()) + 0.05))
    base = alt.Chart(shown).encode(x=x, color=arms["color"])
    share = alt.Tooltip("share:Q", format=".1%", title="picked as real")
    tooltip = [alt.Tooltip("model:N"), share, alt.Tooltip("count:Q"), alt.Tooltip("total:Q")]
    votes = interval_marks(base, "y", "picked as real", highest, shape=arms["shape"], tooltip=tooltip)
    return alt.layer(*mark_line(answers.mark, "y"), *below, *votes).properties(height=380)
