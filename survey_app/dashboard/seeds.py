"""What another seed changes: every score of every replicate, beside the error over images."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from db.results import ArmResult
from platform.scores import SCORES
from platform.seeds import SHOWN, ByArm, seed_tables
from survey_app.dashboard.exhibits import Exhibit, Figure, arm_scale

PANEL_WIDTH, ROW_HEIGHT, AXIS_HEIGHT = 220, 26, 60  # pixels; a page takes the axis out of the height


def exhibits(scores: ByArm, results: Sequence[ArmResult]) -> list[Exhibit]:
    """The tables and a figure; nothing where fewer than two replicates of an arm have finished."""
    tables = seed_tables(scores)
    return [*tables[:1], _figure(scores, results), *tables[1:]] if tables else []


def _figure(scores: ByArm, results: Sequence[ArmResult]) -> Figure:
    arms, names = list(scores), {SCORES[name].heading: name for name in SHOWN}
    best = {result.arm: result.best for result in results if result.best is not None}
    points = pd.DataFrame(
        [
            {"score": SCORES[name].heading, "model": arm, "seed": number, "value": SCORES[name].factor * one[name]}
            for name in SHOWN
            for arm, of_seeds in scores.items()
            for number, one in of_seeds.items()
            if name in one
        ]
    )
    errors = []
    for key, values in points.groupby(["score", "model"], sort=False)["value"]:
        heading, arm = map(str, key)
        name = names[heading]
        error = SCORES[name].factor * best[arm].standard_errors.get("validation", {}).get(name, 0.0)
        errors.append({"score": heading, "model": arm, "low": values.mean() - 1.96 * error})
        errors[-1]["high"] = values.mean() + 1.96 * error
    panels = [_panel(points, pd.DataFrame(errors), heading, arms) for heading in dict.fromkeys(points["score"])]
    seeds = points.groupby("model", sort=False)["seed"].nunique()
    return Figure(
        name="scores-by-seed",
        title="Scores by seed",
        alternative="Each score in validation, one panel per score, one point per seed of each model: "
        f"{', '.join(f'{model} {count}' for model, count in seeds.items())}.",
        chart=alt.concat(*panels, columns=3),
        data=points,
        note="Points: replicates, each with another seed. Lines: 95 % over the choice of validation images, where that "
        "was measured, around the mean of the points.",
    )


def _panel(points: pd.DataFrame, errors: pd.DataFrame, heading: str, arms: Sequence[str]) -> Any:
    scale = arm_scale(arms)
    y = alt.Y("model:N", sort=list(arms), title=None)
    value = alt.X("value:Q", scale=alt.Scale(zero=False, nice=False, padding=8), title=heading)
    dots = (
        alt.Chart(points[points["score"] == heading])
        .mark_point(filled=True, size=45, opacity=0.8)
        .encode(
            x=value,
            y=y,
            color=scale["color"].legend(None),
            shape=scale["shape"].legend(None),
            tooltip=["model:N", alt.Tooltip("seed:Q", title="replicate"), alt.Tooltip("value:Q", format=".4g")],
        )
    )
    lines = (
        alt.Chart(errors[errors["score"] == heading])
        .mark_rule(strokeWidth=1.5)
        .encode(x=alt.X("low:Q", title=heading), x2="high:Q", y=y, color=scale["color"].legend(None))
    )
    return alt.layer(lines, dots).properties(width=PANEL_WIDTH, height=ROW_HEIGHT * len(arms) + AXIS_HEIGHT)
