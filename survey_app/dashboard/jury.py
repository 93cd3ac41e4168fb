"""From which scale on a model's colours give themselves away: the machine jury's marks over its acuity."""

from typing import Any

import altair as alt
import pandas as pd
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.schema import Experiment
from platform.results import jury_note
from platform.scores import JURY, SCORES
from platform.tables import Table
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, arm_scale

NOBODY_CAN_TELL = pd.DataFrame({"mark": [0.5]})


def exhibits(session: Session, experiment: str) -> list[Exhibit]:
    """A figure, once the jury of an experiment has been held at more than one acuity."""
    found = session.scalar(select(Experiment.jury).where(Experiment.name == experiment))
    if found is None or len(found["by_acuity"]) < 2:
        return []
    rows = [
        {"model": arm, "acuity": held["acuity"], "pairs told apart": held["pair_accuracy"], "share": mark}
        | {"low": mark - 1.96 * error, "high": mark + 1.96 * error}
        for held in found["by_acuity"]
        for arm, (mark, error) in held["marks"].items()
    ]
    data = pd.DataFrame(rows)
    arms = list(dict.fromkeys(data["model"]))
    order = list(dict.fromkeys(data["acuity"]))
    base = alt.Chart(data).encode(
        x=alt.X("acuity:O", sort=order, title="pixels over which the jury sees chroma", axis=alt.Axis(labelAngle=0)),
        color=arm_scale(arms)["color"],
    )
    y = alt.Y("low:Q", title="picked as real by the jury", axis=alt.Axis(format="%"), scale=alt.Scale(zero=True))
    tooltip = [
        "model:N",
        "acuity:O",
        alt.Tooltip("share:Q", format=".1%"),
        alt.Tooltip("pairs told apart:Q", format=".0%"),
    ]
    layers = [
        alt.Chart(NOBODY_CAN_TELL).mark_rule(color=NEUTRAL, strokeDash=[2, 2]).encode(alt.Y("mark:Q")),
        base.mark_rule(strokeWidth=2).encode(y, alt.Y2("high:Q")),
        base.mark_line(strokeWidth=1).encode(alt.Y("share:Q")),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            alt.Y("share:Q"), shape=arm_scale(arms)["shape"], tooltip=tooltip
        ),
    ]
    unseen = _unseen_table(found) if found.get("unseen") else []
    told = ", ".join(f"{100 * held['pair_accuracy']:.0f} % at {held['acuity']}" for held in found["by_acuity"])
    return [
        Figure(
            name="jury-by-acuity",
            title="From which scale on do colours give themselves away?",
            alternative=f"{SCORES[JURY].words} by the pixels over which chroma is averaged. Pairs told apart: {told}.",
            chart=alt.layer(*layers).properties(height=380),
            data=data,
            note=f"Bars: 95 % over pictures. Dashed: nobody can tell. Pairs told apart, baselines aside: {told}. "
            f"{jury_note(session, experiment, None)}",
        ),
        *unseen,
    ]


def _unseen_table(verdict: dict[str, Any]) -> list[Exhibit]:
    [seen] = [held["marks"] for held in verdict["by_acuity"] if held["acuity"] == verdict["acuity"]]
    rows = [
        {"model": arm, "picked as real by the jury (%)": 100 * seen[arm][0], "never having seen it (%)": 100 * mark}
        | {"standard error": 100 * error}
        for arm, (mark, error) in verdict["unseen"].items()
    ]
    return [
        Table(
            name="jury-unseen",
            title="Is the jury fair to what it has not seen?",
            frame=pd.DataFrame(rows),
            formats={heading: ".1f" for heading in rows[0] if heading != "model"},
            note="What a jury says of a model that learned from all others alone. Where that is much more, the jury "
            "knows this model's own mistakes, and its mark is low for being known.",
        )
    ]
