"""Which classes are hard: accuracy and votes by the class of the photograph."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from db.answers import Answers, Contender
from db.gallery import Classes
from db.results import wilson
from survey_app.dashboard.exhibits import NEUTRAL, DataTable, Exhibit, Figure, arm_scale, titled

MOST_CLASSES = 24  # that figures show: the hardest and the easiest
AROUND = 150  # pixels that axis and legend take
BAND = 11  # pixels of a model's line in a class's band


def class_exhibits(
    known: Classes, arms: Sequence[str], contenders: Sequence[Contender], answers: Answers | None
) -> list[Exhibit]:
    """Bin accuracy and votes by class, for the contenders. arms: the experiment's, in its order; answers: of those who
    are counted, or None."""
    if len(known.names) < 2:
        return []
    accuracy = _accuracy(known, contenders)
    found: list[Exhibit] = []
    if np.isnan(accuracy).all():
        found.append("Accuracy by class was not measured in this sweep.")
        order = list(range(len(known.names)))
    else:
        means = np.array([np.nan if np.isnan(row).all() else np.nanmean(row) for row in accuracy])
        order = np.argsort(means, kind="stable").tolist()
        found += [
            _accuracy_figure(known, arms, contenders, accuracy, order),
            _accuracy_table(known, contenders, accuracy, order),
        ]
    if answers is None or not answers.participants:
        return found
    picked, asked = votes_by_class(answers, len(known.names))
    votes = _votes_figure(known, arms, answers, picked, asked, order)
    return [*found, votes, _votes_table(known, answers, picked, asked, order)]


def votes_by_class(answers: Answers, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How often pictures were picked as real and asked about, in main questions: int (classes, contenders) each."""
    votes, count = answers.votes.of_kind("arm"), len(answers.contenders)
    cell = votes.class_index * count + votes.contender
    asked = np.bincount(cell, minlength=classes * count)
    picked = np.bincount(cell[votes.picked_as_real], minlength=classes * count)
    return picked.reshape(classes, count), asked.reshape(classes, count)


def _accuracy(known: Classes, contenders: Sequence[Contender]) -> np.ndarray:
    """Float (classes, contenders), in %, NaN where it was not measured."""
    table = np.full((len(known.names), len(contenders)), np.nan)
    for column, contender in enumerate(contenders):
        for row, share in enumerate(contender.trial.validation_class_bin_accuracy or []):
            if share is not None:
                table[row, column] = 100 * share
    return table


def _accuracy_figure(
    known: Classes,
    of_experiment: Sequence[str],
    contenders: Sequence[Contender],
    accuracy: np.ndarray,
    order: Sequence[int],
) -> Figure:
    arms = [contender.arm for contender in contenders]
    shown, note = _hardest_and_easiest(known, order)
    frame = pd.DataFrame(
        [
            {"class": known.names[row], "model": arm, "accuracy": accuracy[row, column]}
            for row in shown
            for column, arm in enumerate(arms)
            if not np.isnan(accuracy[row, column])
        ]
    )
    y = alt.Y("class:N", sort=[known.names[row] for row in shown], title=None)
    base = alt.Chart(frame).encode(y=y)
    chart = alt.layer(
        base.mark_rule(color=NEUTRAL).encode(x=alt.X("min(accuracy):Q"), x2=alt.X2("max(accuracy):Q")),
        base.mark_point(filled=True, size=70, opacity=0.9).encode(
            x=alt.X("accuracy:Q", title="bin accuracy (%)", scale=alt.Scale(zero=False), axis=alt.Axis(format="~g")),
            **arm_scale(of_experiment, arms),
            tooltip=[
                *map(alt.Tooltip, ("class:N", "model:N")),
                alt.Tooltip("accuracy:Q", title="bin accuracy (%)", format=".1f"),
            ],
        ),
    ).properties(height=len(shown) * 26 + AROUND)
    hardest, easiest = order[0], order[-1]
    ends = "; ".join(
        f"{known.names[row]} {', '.join(_percent(accuracy[row, column], arm) for column, arm in enumerate(arms))}"
        for row in (hardest, easiest)
    )
    return Figure(
        "class-accuracy",
        "Accuracy by class",
        f"Bin accuracy on the validation images of each class, one point a model. Hardest and easiest: {ends}.",
        chart,
        f"Share of pixels with the right bin of colour after the trial's last epoch, the hardest class first. {note}",
        frame,
    )


def _accuracy_table(
    known: Classes, contenders: Sequence[Contender], accuracy: np.ndarray, order: Sequence[int]
) -> DataTable:
    rows: list[dict[str, Any]] = [
        {
            "class": known.names[row],
            **({} if known.validation_counts is None else {"images": known.validation_counts[row]}),
            **{f"{contender.arm} (%)": accuracy[row, column] for column, contender in enumerate(contenders)},
        }
        for row in order
    ]
    return DataTable(
        "class-accuracy-table",
        "Bin accuracy by class",
        pd.DataFrame(rows),
        {"images": ",", **{f"{contender.arm} (%)": ".1f" for contender in contenders}},
        "How many validation images a class has is not known: an older HueJury recorded this dataset."
        if known.validation_counts is None
        else "Images: of the class in the validation split.",
    )


def _votes_figure(
    known: Classes,
    of_experiment: Sequence[str],
    answers: Answers,
    picked: np.ndarray,
    asked: np.ndarray,
    order: Sequence[int],
) -> Figure:
    arms = [contender.arm for contender in answers.contenders]
    shown, note = _hardest_and_easiest(known, [row for row in order if asked[row].sum()])
    rows: list[dict[str, Any]] = []
    for row in shown:
        for column, arm in enumerate(arms):
            share = wilson(int(picked[row, column]), int(asked[row, column]))
            if share.share is not None and share.low is not None and share.high is not None:
                percent = {"share": 100 * share.share, "low": 100 * share.low, "high": 100 * share.high}
                rows.append(
                    {"class": known.names[row], "model": arm, **percent, "votes": f"{share.count}/{share.total}"}
                )
    frame = pd.DataFrame(rows, columns=["class", "model", "share", "low", "high", "votes"])
    scale = arm_scale(of_experiment, arms)
    base = alt.Chart(frame).encode(
        y=alt.Y("class:N", sort=[known.names[row] for row in shown], title=None, scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("model:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=scale["color"],
        tooltip=[
            *map(alt.Tooltip, ("class:N", "model:N", "votes:N")),
            alt.Tooltip("share:Q", title="picked as real (%)", format=".0f"),
        ],
    )
    x = alt.X(
        "low:Q",
        title="picked as real (%), with 95 % interval",
        scale=alt.Scale(domain=[0, 100]),
        axis=alt.Axis(tickCount=5),
    )
    layers: list[alt.Chart] = [
        base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=x, x2=alt.X2("high:Q")),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=alt.X("share:Q"), shape=scale["shape"]),
    ]
    if answers.protocol == "pair":
        layers.insert(
            0, alt.Chart(pd.DataFrame({"x": [50]})).mark_rule(color=NEUTRAL, strokeDash=[4, 3]).encode(x=alt.X("x:Q"))
        )
    by_class = {known.names[row]: (int(picked[row].sum()), int(asked[row].sum())) for row in shown if asked[row].sum()}
    ranked = sorted(by_class, key=lambda name: by_class[name][0] / by_class[name][1])
    ends = ", ".join(
        f"{name} {by_class[name][0]}/{by_class[name][1]}" for name in dict.fromkeys([*ranked[:1], *ranked[-1:]])
    )
    chance = " Dashed: 50 %, where nobody can tell." if answers.protocol == "pair" else ""
    return Figure(
        "class-votes",
        titled("Picked as real by class", simulated=answers.simulated),
        f"Share of questions in which a model's picture was picked as the photograph, by class and model, with 95 % "
        f"intervals. Over all models, the least and the most convincing class: {ends}.",
        alt.layer(*layers).properties(height=len(shown) * (len(arms) * BAND + 8) + AROUND),
        f"Wilson intervals, as if every answer were another participant's.{chance} {note}",
        frame,
    )


def _votes_table(
    known: Classes, answers: Answers, picked: np.ndarray, asked: np.ndarray, order: Sequence[int]
) -> DataTable:
    arms = [contender.arm for contender in answers.contenders]
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, str]] = []
    for row in order:
        counts = [(arm, int(picked[row, column]), int(asked[row, column])) for column, arm in enumerate(arms)]
        counts.append(("all", int(picked[row].sum()), int(asked[row].sum())))
        rows.append({"class": known.names[row]})
        shown.append({"class": known.names[row]})
        for arm, count, total in counts:
            rows[-1] |= {f"{arm}: picked": count, f"{arm}: asked": total}
            shown[-1][arm] = f"{100 * count / total:.0f} % ({count}/{total})" if total else "–"
    return DataTable(
        "class-votes-table",
        titled("Votes by class", simulated=answers.simulated),
        pd.DataFrame(rows),
        note="Picked as real, of questions asked; main questions only.",
        shown=pd.DataFrame(shown),
    )


def _hardest_and_easiest(known: Classes, order: Sequence[int]) -> tuple[list[int], str]:
    """The classes that a figure has room for, and what to say of the others."""
    if len(order) <= MOST_CLASSES:
        return list(order), ""
    half = MOST_CLASSES // 2
    return [*order[:half], *order[-half:]], f"The {half} hardest and the {half} easiest of {len(known.names)} classes."


def _percent(value: float, arm: str) -> str:
    return f"{arm} –" if np.isnan(value) else f"{arm} {value:.1f} %"
