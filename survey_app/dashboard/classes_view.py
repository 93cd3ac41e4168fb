"""Which classes are hard: accuracy and votes by the class of the photograph."""

from collections.abc import Sequence
from dataclasses import asdict

import altair as alt
import numpy as np
import pandas as pd

from db.surveys.answers import Answers
from db.sweeps.trials import Contender, ExperimentSummary
from platform.tables.intervals import title_votes, wilson
from survey_app.dashboard.exhibits import NEUTRAL, Exhibit, Figure, arm_scale, interval_marks, mark_line, mark_note

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
    frame = pd.DataFrame(
        [
            {"class": name, "images": images, "model": contender.arm, "accuracy": 100 * share}
            for contender in contenders
            for name, images, share in zip(
                names,
                experiment.validation_class_counts,
                contender.trial.class_bin_accuracy.get("validation", []),
                strict=False,  # nothing was measured of it in older sweeps
            )
            if share is not None
        ],
        columns=["class", "images", "model", "accuracy"],
    )
    if frame.empty:
        found: list[Exhibit] = ["Accuracy by class was not measured in this sweep."]
        order = list(names)
    else:
        order = frame.groupby("class")["accuracy"].mean().sort_values(kind="stable").index.tolist()
        found = [_accuracy_figure(frame, order, arms)]
    if answers is not None and len(answers.of_kind("arm")):
        found.append(_votes_figure(names, order, answers))
    return found


def _accuracy_figure(frame: pd.DataFrame, order: Sequence[str], arms: Sequence[str]) -> Figure:
    classes, note = _choose_classes(order)
    shown = frame[frame["class"].isin(classes)]
    base = alt.Chart(shown).encode(y=alt.Y("class:N", sort=classes, title=None))
    x = alt.X("accuracy:Q", title="bin accuracy (%)", scale=alt.Scale(zero=False), axis=alt.Axis(format="~g"))
    tooltip = ["class:N", "model:N", alt.Tooltip("accuracy:Q", title="bin accuracy (%)", format=".1f")]
    chart = alt.layer(
        base.mark_rule(color=NEUTRAL).encode(x=alt.X("min(accuracy):Q"), x2=alt.X2("max(accuracy):Q")),
        base.mark_point(filled=True, size=70, opacity=0.9).encode(
            x=x, **arm_scale(arms, frame["model"].unique()), tooltip=tooltip
        ),
    )
    ends = "; ".join(
        f"{name} " + ", ".join(f"{row.model} {row.accuracy:.1f} %" for row in rows.itertuples())
        for name, rows in frame[frame["class"].isin([order[0], order[-1]])].groupby("class")
    )
    return Figure(
        "class-accuracy",
        "Accuracy by class",
        f"Bin accuracy on the validation images of each class, one point per model. Hardest and easiest: {ends}.",
        chart.properties(height=len(classes) * 26 + AROUND),
        f"Share of pixels with the right bin of colour after the trial's last epoch, the hardest class first. {note}",
        frame,
    )


def _votes_figure(names: Sequence[str], order: Sequence[str], answers: Answers) -> Figure:
    arms = [contender.arm for contender in answers.contenders]
    picked, asked = answers.picked_and_asked("class_index", range(len(names)))
    frame = pd.DataFrame(
        [
            {"class": names[row], "model": arms[column], **asdict(wilson(int(picked[row, column]), int(total)))}
            for (row, column), total in np.ndenumerate(asked)
            if total
        ],
        columns=["class", "model", "count", "total", "share", "low", "high"],
    )
    classes, note = _choose_classes([name for name in order if name in set(frame["class"])])
    scale = arm_scale(answers.arms, arms)
    base = alt.Chart(frame[frame["class"].isin(classes)]).encode(
        y=alt.Y("class:N", sort=classes, title=None, scale=alt.Scale(paddingInner=0.3)),
        yOffset=alt.YOffset("model:N", sort=arms, scale=alt.Scale(domain=arms)),
        color=scale["color"],
    )
    tooltip = ["class:N", "model:N", "count:Q", "total:Q", alt.Tooltip("share:Q", title="picked as real", format=".0%")]
    chart = alt.layer(
        *mark_line(answers.mark, "x"),
        *interval_marks(base, "x", "picked as real, with 95 % interval", shape=scale["shape"], tooltip=tooltip),
    )
    totals = frame.groupby("class")[["count", "total"]].sum()
    ranked = totals.assign(share=totals["count"] / totals["total"]).sort_values("share", kind="stable")
    ends = ", ".join(f"{name} {row['count']:.0f}/{row['total']:.0f}" for name, row in ranked.iloc[[0, -1]].iterrows())
    return Figure(
        "class-votes",
        title_votes("Picked as real by class", simulated=answers.simulated),
        f"Share of questions in which a model's picture was picked as the photograph, by class and model, with 95 % "
        f"intervals. Over all models, the least and the most convincing class: {ends}.",
        chart.properties(height=len(classes) * (len(arms) * BAND + 8) + AROUND),
        f"Wilson intervals, as if every answer were another participant's. {mark_note(answers.mark, answers.protocol)} "
        f"{note}",
        frame,
    )


def _choose_classes(order: Sequence[str]) -> tuple[list[str], str]:
    """The classes that a figure has room for, and what to say of the others, which are in its data."""
    if len(order) <= MOST_CLASSES:
        return list(order), ""
    half = MOST_CLASSES // 2
    return [*order[:half], *order[-half:]], f"The {half} hardest and the {half} easiest of {len(order)} classes."
