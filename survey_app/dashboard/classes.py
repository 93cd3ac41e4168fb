"""Which classes are hard: accuracy and votes by the class of the photograph."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from db.answers import Answers
from db.results import Contender, ExperimentSummary
from platform.intervals import wilson
from platform.results import titled
from platform.tables import Table
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, arm_scale, mark_line, mark_note

MOST_CLASSES = 24  # that figures show: the hardest and the easiest
AROUND = 150  # pixels that axis and legend take
BAND = 11  # pixels of a model's line in a class's band


def class_exhibits(
    experiment: ExperimentSummary, arms: Sequence[str], contenders: Sequence[Contender], answers: Answers | None
) -> list[Exhibit]:
    """Bin accuracy and votes by class, for the contenders. arms: the experiment's, in its order; answers: of those who
    are counted, or None."""
    names = experiment.class_names
    if len(names) < 2:
        return []
    accuracy = _accuracy(names, contenders)
    found: list[Exhibit] = []
    if np.isnan(accuracy).all():
        found.append("Accuracy by class was not measured in this sweep.")
        order = list(range(len(names)))
    else:
        means = np.array([np.nan if np.isnan(row).all() else np.nanmean(row) for row in accuracy])
        order = np.argsort(means, kind="stable").tolist()
        found.append(_accuracy_figure(names, arms, [contender.arm for contender in contenders], accuracy, order))
        found.append(_accuracy_table(experiment, contenders, accuracy, order))
    if answers is None or not answers.participants:
        return found
    picked, asked = answers.picked_and_asked("class_index", range(len(names)))
    votes = _votes_figure(names, answers, picked, asked, order)
    return [*found, votes, _votes_table(names, answers, picked, asked, order)]


def _accuracy(names: Sequence[str], contenders: Sequence[Contender]) -> np.ndarray:
    """Float (classes, contenders), in %, NaN where it was not measured."""
    table = np.full((len(names), len(contenders)), np.nan)
    for column, contender in enumerate(contenders):
        shares = contender.trial.class_bin_accuracy.get("validation", [])
        for row, share in enumerate(shares):
            table[row, column] = np.nan if share is None else 100 * share
    return table


def _accuracy_figure(
    names: Sequence[str], of_experiment: Sequence[str], arms: Sequence[str], accuracy: np.ndarray, order: Sequence[int]
) -> Figure:
    shown, note = _hardest_and_easiest(names, order)
    frame = pd.DataFrame(
        [
            {"class": names[row], "model": arm, "accuracy": accuracy[row, column]}
            for row in shown
            for column, arm in enumerate(arms)
            if not np.isnan(accuracy[row, column])
        ]
    )
    base = alt.Chart(frame).encode(y=alt.Y("class:N", sort=[names[row] for row in shown], title=None))
    x = alt.X("accuracy:Q", title="bin accuracy (%)", scale=alt.Scale(zero=False), axis=alt.Axis(format="~g"))
    tooltip = ["class:N", "model:N", alt.Tooltip("accuracy:Q", title="bin accuracy (%)", format=".1f")]
    chart = alt.layer(
        base.mark_rule(color=NEUTRAL).encode(x=alt.X("min(accuracy):Q"), x2=alt.X2("max(accuracy):Q")),
        base.mark_point(filled=True, size=70, opacity=0.9).encode(
            x=x, **arm_scale(of_experiment, arms), tooltip=tooltip
        ),
    )
    ends = "; ".join(
        f"{names[row]} {', '.join(_percent(accuracy[row, column], arm) for column, arm in enumerate(arms))}"
        for row in (order[0], order[-1])
    )
    return Figure(
        "class-accuracy",
        "Accuracy by class",
        f"Bin accuracy on the validation images of each class, one point per model. Hardest and easiest: {ends}.",
        chart.properties(height=len(shown) * 26 + AROUND),
        f"Share of pixels with the right bin of colour after the trial's last epoch, the hardest class first. {note}",
        frame,
    )


def _accuracy_table(
    experiment: ExperimentSummary, contenders: Sequence[Contender], accuracy: np.ndarray, order: Sequence[int]
) -> Table:
    rows = [
        {
            "class": experiment.class_names[row],
            "images": experiment.validation_class_counts[row],
            **{f"{contender.arm} (%)": accuracy[row, column] for column, contender in enumerate(contenders)},
        }
        for row in order
    ]
    return Table(
        "class-accuracy-table",
        "Bin accuracy by class",
        pd.DataFrame(rows),
        {"images": ",", **{f"{contender.arm} (%)": ".1f" for contender in contenders}},
        "Images: of the class in the validation split.",
    )


def _votes_figure(
    names: Sequence[str], answers: Answers, picked: np.ndarray, asked: np.ndarray, order: Sequence[int]
) -> Figure:
    arms = [contender.arm for contender in answers.contenders]
    shown, note = _hardest_and_easiest(names, [row for row in order if asked[row].sum()])
    rows: list[dict[str, Any]] = []
    for row in shown:
        for column, arm in enumerate(arms):
            share = wilson(int(picked[row, column]), int(asked[row, column]))
            values = {"share": share.share, "low": share.low, "high": share.high}
            if share.total:
                rows.append({"class": names[row], "model": arm, "votes": f"{share.count}/{share.total}", **values})
    frame = pd.DataFrame(rows, columns=["class", "model", "votes", "share", "low", "high"])
    scale = arm_scale(answers.arms, arms)
    base = alt.Chart(frame).encode(
        y=alt.Y("class:N", sort=[names[row] for row in shown], title=None, scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("model:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=scale["color"],
        tooltip=["class:N", "model:N", "votes:N", alt.Tooltip("share:Q", title="picked as real", format=".0%")],
    )
    x = alt.X(
        "low:Q",
        title="picked as real, with 95 % interval",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(tickCount=5, format="%"),
    )
    chart = alt.layer(
        *mark_line(answers.mark, "x"),
        base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=x, x2=alt.X2("high:Q")),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=alt.X("share:Q"), shape=scale["shape"]),
    )
    ranked = sorted(shown, key=lambda row: picked[row].sum() / asked[row].sum())
    ends = ", ".join(
        f"{names[row]} {picked[row].sum()}/{asked[row].sum()}" for row in dict.fromkeys([*ranked[:1], *ranked[-1:]])
    )
    return Figure(
        "class-votes",
        titled("Picked as real by class", simulated=answers.simulated),
        f"Share of questions in which a model's picture was picked as the photograph, by class and model, with 95 % "
        f"intervals. Over all models, the least and the most convincing class: {ends}.",
        chart.properties(height=len(shown) * (len(arms) * BAND + 8) + AROUND),
        f"Wilson intervals, as if every answer were another participant's. {mark_note(answers.mark, answers.protocol)} "
        f"{note}",
        frame,
    )


def _votes_table(
    names: Sequence[str], answers: Answers, picked: np.ndarray, asked: np.ndarray, order: Sequence[int]
) -> Table:
    columns = [*(contender.arm for contender in answers.contenders), "all"]
    picked = np.column_stack([picked, picked.sum(axis=1)])
    asked = np.column_stack([asked, asked.sum(axis=1)])
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, str]] = []
    for row in order:
        rows.append({"class": names[row]})
        shown.append({"class": names[row]})
        for arm, count, total in zip(columns, picked[row].tolist(), asked[row].tolist(), strict=True):
            rows[-1] |= {f"{arm}: picked": count, f"{arm}: asked": total}
            shown[-1][arm] = f"{100 * count / total:.0f} % ({count}/{total})" if total else "–"
    return Table(
        "class-votes-table",
        titled("Votes by class", simulated=answers.simulated),
        pd.DataFrame(rows),
        note="Picked as real, of questions asked; main questions only.",
        shown=pd.DataFrame(shown),
    )


def _hardest_and_easiest(names: Sequence[str], order: Sequence[int]) -> tuple[list[int], str]:
    """The classes that a figure has room for, and what to say of the others."""
    if len(order) <= MOST_CLASSES:
        return list(order), ""
    half = MOST_CLASSES // 2
    return [*order[:half], *order[-half:]], f"The {half} hardest and the {half} easiest of {len(names)} classes."


def _percent(value: float, arm: str) -> str:
    return f"{arm} –" if np.isnan(value) else f"{arm} {value:.1f} %"
