"""Do scores predict people? Each score beside votes, model by model and picture by picture."""

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
from survey_app.dashboard.choice import Choice
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, arm_scale, choose_score, show_exhibits

BETTER = {True: "higher", False: "lower", None: "near 1"}
SCORE_LIMITS = 2.093  # standard errors: the 97.5 % point of Student's t with as many groups of images, 20, less one
SHARES = ("rightly ordered (%)", "95 % from", "95 % to")  # of the table of single pictures
NO_VOTES = "No votes yet: the figures appear with the first answers."
BESIDE = [name for name in SCORES if name != "loss"]  # whose unit differs between models


def show(choice: Choice) -> None:
    """Draw the view."""
    answers = choice.counted
    if answers is None:
        st.info(choice.hidden or "Nobody has been asked yet: this view puts votes beside scores.")
    elif not answers.participants:
        st.markdown(NO_VOTES)
    else:
        ranking = rank_scores(answers)
        with read_session(choice.engine) as session:
            show_exhibits([ranking_table(ranking, answers), *pictures_table(session, answers)])
        if len(ranking):
            score = choose_score(list(ranking.index), "Score, the best predictor first", key="against")
            show_exhibits([votes_figure(score, answers)])


def exhibits(session: Session, answers: Answers) -> list[Exhibit]:
    """The tables, and the figure of the best predictor. answers: of those who are counted."""
    if not answers.participants:
        return [NO_VOTES]
    ranking = rank_scores(answers)
    figures = [votes_figure(score, answers) for score in ranking.index[:1]]
    return [ranking_table(ranking, answers), *pictures_table(session, answers), *figures]


def rank_scores(answers: Answers) -> pd.DataFrame:
    """How each score that any model has ranks the models beside the votes, by its name, the best predictor first.
    Columns: estimate (Spearman's ρ), low, high, models (that have it)."""
    picked, asked = answers.picked_and_asked()
    rows = {}
    for name in BESIDE:
        values = np.array([trial.score(name) for trial in answers.contenders], dtype=float)
        if models := int(np.isfinite(values).sum()):
            rows[name] = asdict(rank_correlation(values, picked, asked)) | {"models": models}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high", "models"], dtype=float)
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
            "models": ranking["models"].astype(int),
        }
    )
    return Table(
        name="rank-correlations",
        title=title_votes("Do the scores rank the models as people do?", simulated=answers.simulated),
        frame=frame,
        formats={"Spearman's ρ": "+.2f", "95 % from": "+.2f", "95 % to": "+.2f"},
        note="+1: the models' order by this score is that by votes; −1: the reverse, which where lower is better is "
        "what a good score should give. The interval resamples participants and takes models and scores as they are: "
        "it tells how sure this order is, not what other models would give. It takes three models.",
    )


def pictures_table(session: Session, answers: Answers) -> list[Table]:
    """How well each score that single pictures have, the machine jury's first, predicts votes on them; nothing without
    votes."""
    votes = answers.of_kind("arm")
    picked, participant, image = (votes[of].to_numpy() for of in ("picked_as_real", "participant", "image"))
    trials = [trial.id for trial in answers.contenders]
    found = scores_of_samples(session, trials)
    scores = [
        found.get((trials[contender], seen), {}) for contender, seen in zip(votes["contender"], image, strict=True)
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
    points = votes_by_model(answers)
    values, errors = (
        pd.Series([score.in_unit(value) for value in stored], dtype=float)
        for stored in zip(*((trial.score(name), trial.error(name)) for trial in answers.contenders), strict=True)
    )
    points["score"], limits = values, SCORE_LIMITS * errors.fillna(0.0)
    points["score low"], points["score high"] = values - limits, values + limits
    shown = points.dropna(subset=["score", "share"])
    x = alt.X("score:Q", title=f"{score.heading} in validation", scale=alt.Scale(zero=False, nice=True))
    spread = alt.Chart(shown).mark_rule(strokeWidth=2)
    spread = spread.encode(
        x="score low:Q", x2="score high:Q", y="share:Q", color=arm_scale(answers.arms, shown["model"])["color"]
    )
    summary = "; ".join(
        f"{row['model']} {row['score']:{score.form}}, picked {100 * row['share']:.0f} %" for _, row in shown.iterrows()
    )
    return Figure(
        name=f"votes-by-{name.replace('_', '-')}",
        title=title_votes(f"Votes against {score.words}", simulated=answers.simulated),
        alternative=f"Share picked as real against {score.heading}, {BETTER[score.higher_is_better]} is better: "
        f"{summary}.",
        chart=votes_against(x, shown, answers, [spread]),
        data=points.rename(columns={"score": name, "score low": f"{name} low", "score high": f"{name} high"}),
        note="Vertical: 95 % Wilson. Horizontal: 95 % over the choice of validation images, where measured. "
        f"{describe_mark(answers)}",
    )


def votes_by_model(answers: Answers) -> pd.DataFrame:
    """One row per contender: model, count, total, share, low, high."""
    rows = [
        {"model": trial.arm.name, **asdict(wilson(count.count, count.total))}
        for trial, count in zip(answers.contenders, answers.picked_as_real(), strict=True)
    ]
    return pd.DataFrame(rows).astype(dict.fromkeys(("share", "low", "high"), float))


def votes_against(x: alt.X, shown: pd.DataFrame, answers: Answers, below: list[Any]) -> Any:
    """Votes with their intervals, over the line where nobody can tell, and what else stands below them."""
    arms = arm_scale(answers.arms, shown["model"])
    highest = min(1.0, max((answers.mark or 0.0) + 0.1, float(shown["high"].max()) + 0.05))
    scale, axis = alt.Scale(domain=[0, highest]), alt.Axis(format="%", tickCount=5)
    base = alt.Chart(shown).encode(x=x, color=arms["color"])
    share = alt.Tooltip("share:Q", format=".1%", title="picked as real")
    tooltip = [alt.Tooltip("model:N"), share, alt.Tooltip("count:Q"), alt.Tooltip("total:Q")]
    nobody_can_tell = alt.Chart(pd.DataFrame({"mark": [answers.mark]}).dropna()).mark_rule(
        color=NEUTRAL, strokeDash=[2, 2]
    )
    return alt.layer(
        nobody_can_tell.encode(alt.Y("mark:Q")),
        *below,
        base.mark_rule(strokeWidth=2).encode(
            alt.Y("low:Q", title="picked as real", scale=scale, axis=axis), alt.Y2("high:Q")
        ),
        base.mark_point(filled=True, size=70, opacity=1).encode(alt.Y("share:Q"), shape=arms["shape"], tooltip=tooltip),
    ).properties(height=380)


def describe_mark(answers: Answers) -> str:
    """What the dashed line is, as a sentence."""
    if answers.mark is None:
        return ""
    where = "nobody can tell" if answers.protocol == "pair" else "the photographs' own share, where nobody can tell"
    return f"Dashed: {100 * answers.mark:.0f} %, {where}."
