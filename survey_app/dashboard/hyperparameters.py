"""What every trial of a sweep was trained with, and how it did: parallel coordinates."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from db.schema import TrialStatus
from db.sweeps import SweepPlan, SweptTrial
from platform.results import short
from platform.scores import SCORES
from survey_app.dashboard.exhibits import HALO, LABEL, NEUTRAL, Figure

RANK = "rank in its model"
# From the best by way of the middle: apart also for colour-blind readers, and seen on a light and on a dark page.
BEST_TO_WORST = ["#E69F00", "#9a8f86", "#0072B2"]
DASHES: dict[TrialStatus, list[int]] = {
    "finished": [1, 0],
    "running": [9, 2],
    "stopped_early": [5, 3],
    "failed": [1, 3],
    "pending": [1, 3],
}
FIRST, FIRST_OF_MANY = 1, 3  # so many of each model are drawn above the others, and thicker
MANY = 60  # trials from which the others are faint
SPREAD = 0.14  # of the way between two values: over so much are the lines of trials with the same value spread

Axis = tuple[str, Callable[[SweptTrial], float], list[tuple[float, str]]]
"""Heading; a trial's place on the axis, from 0 at the bottom to 1; marks, as place and label."""


def ranks(trials: Sequence[SweptTrial]) -> dict[int, int]:
    """Each trial's rank within its arm, from 1, by its id: whoever came farther is first, and of those that came as far
    the one with the lower loss on the tuning split. What failed, or has measured nothing, has none."""
    ranked = [
        (-trial.epochs_done, trial.loss, trial.id, trial.arm)
        for trial in trials
        if trial.status not in ("failed", "pending") and trial.loss is not None
    ]
    counts: Counter[str] = Counter()
    places = {}
    for _, _, trial_id, arm in sorted(ranked):
        counts[arm] += 1
        places[trial_id] = counts[arm]
    return places


def hyperparameters_figure(plan: SweepPlan, trials: Sequence[SweptTrial], outcome: str | None) -> Figure | None:
    """Every trial as a line through what it was trained with, to how it did; None where nothing was varied.

    outcome: a key of SCORES, on the validation split after the trial's last epoch, or None for the rank
    within its arm.
    """
    axes = _axes(plan, trials)
    if not axes:
        return None
    places, first = ranks(trials), FIRST if len(trials) <= MANY else FIRST_OF_MANY
    values = {trial.id: _outcome_of(trial, places, outcome) for trial in trials}
    axes.append(_outcome_axis(values, outcome))
    headings = [heading for heading, _, _ in axes]
    measured = headings[-1]
    lines = pd.DataFrame(
        [
            {
                "line": trial.id,
                "model": trial.arm,
                "trial": trial.number,
                "status": trial.status.replace("_", " "),
                "trained with": _trained_with(plan, trial),
                "outcome": values[trial.id],
                "first": places.get(trial.id, first + 1) <= first,
                "axis": heading,
                "position": position,
                "place": place(trial),
            }
            for trial in trials
            for position, (heading, place, _) in enumerate(axes)
            if heading != measured or values[trial.id] is not None
        ]
    )
    marks = pd.DataFrame(
        [{"axis": heading, "place": place, "label": label} for heading, _, ends in axes for place, label in ends]
    )
    statuses = [status for status in DASHES if any(trial.status == status for trial in trials)]
    lower_is_better = outcome is None or SCORES[outcome].higher_is_better is False
    chart = _parallel(lines, marks, headings, statuses, faint=len(trials) > MANY, lower_is_better=lower_is_better)
    firsts = [f"{trial.arm} with {_trained_with(plan, trial)}" for trial in trials if places.get(trial.id) == 1]
    lines_of: list[tuple[str, set[TrialStatus]]] = [
        ("Broken: stopped early. ", {"stopped_early"}),
        ("Dotted grey: failed or not begun. ", {"failed", "pending"}),
    ]
    best = "The highest are" if outcome and SCORES[outcome].higher_is_better is None else "The best are at the top,"
    return Figure(
        "hyperparameters",
        f"What was tried: coloured by {RANK if outcome is None else SCORES[outcome].heading}",
        f"{len(trials)} trials as lines through {', '.join(headings)}. "
        f"Ranked first: {'; '.join(firsts) or 'none yet'}.",
        chart,
        f"One line per trial, thicker the first{'' if first == 1 else f' {first}'} of each model. {best} orange. "
        + "".join(words for words, which in lines_of if which & set(statuses))
        + "Ranks are within a model: who trained for more epochs comes first, then the lower loss on the tuning split.",
    )


def _parallel(
    lines: pd.DataFrame,
    marks: pd.DataFrame,
    headings: list[str],
    statuses: list[TrialStatus],
    *,
    faint: bool,
    lower_is_better: bool,
) -> Any:
    x = alt.X(
        "axis:N",
        sort=headings,
        scale=alt.Scale(type="point", padding=0.4),
        axis=alt.Axis(
            orient="top",
            title=None,
            labelAngle=0,
            labelExpr="split(datum.label, ' ')",
            labelPadding=9 + 13 * max(heading.count(" ") for heading in headings),
            grid=False,
            domain=False,
            ticks=False,
        ),
    )
    y = alt.Y("place:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.08], nice=False))
    colours = alt.Scale(range=BEST_TO_WORST if lower_is_better else BEST_TO_WORST[::-1])
    dashes = alt.Scale(
        domain=[status.replace("_", " ") for status in statuses], range=[DASHES[status] for status in statuses]
    )
    measured = alt.Color("outcome:Q", scale=colours, legend=None)
    drawn = alt.Chart(lines).encode(
        x=x,
        y=y,
        detail=alt.Detail("line:N"),
        order=alt.Order("position:Q"),
        color=alt.condition("isValid(datum.outcome)", measured, alt.value(NEUTRAL)),
        strokeDash=alt.StrokeDash("status:N", scale=dashes, legend=None),
        tooltip=["model:N", "trial:Q", "status:N", "trained with:N", alt.Tooltip("outcome:Q", title=headings[-1])],
    )
    at_marks = alt.Chart(marks).encode(x=x, y=y)
    return alt.layer(
        alt.Chart(pd.DataFrame({"axis": headings})).mark_rule(color=NEUTRAL).encode(x=x),
        drawn.transform_filter("!datum.first").mark_line(strokeWidth=1.3, opacity=0.25 if faint else 0.75),
        drawn.transform_filter("datum.first").mark_line(strokeWidth=2.2, opacity=0.95),
        at_marks.mark_point(shape="stroke", color=NEUTRAL, size=60, opacity=1),
        at_marks.mark_text(style=HALO, align="left", dx=6).encode(text="label:N"),
        at_marks.mark_text(style=LABEL, align="left", dx=6).encode(text="label:N"),
    ).properties(height=330)


def _axes(plan: SweepPlan, trials: Sequence[SweptTrial]) -> list[Axis]:
    axes: list[Axis] = []
    weights = {trial.arm: trial.rebalancing for trial in trials}
    if len(set(weights.values())) < len(weights):  # λ does not tell the models apart
        axes.append(_listed("model", list(reversed(plan.arms)), lambda trial: trial.arm))
    if len(set(weights.values())) > 1:
        known = sorted(weight for weight in set(weights.values()) if weight is not None)
        without = [None] if None in weights.values() else []
        axes.append(_listed("λ", [*without, *known], lambda trial: trial.rebalancing))
    for name, listed in plan.searched.items():
        heading = name.replace("_", " ")
        values = [trial.hyperparameters.get(name) for trial in trials]
        numbers = [float(value) for value in values if isinstance(value, int | float)]
        if listed is None and len(numbers) == len(values):
            axes.append(_ranged(heading, name, numbers, name in plan.log_scaled))
        else:
            options = listed if listed is not None else sorted(set(values), key=str)
            axes.append(_listed(heading, options, lambda trial, name=name: trial.hyperparameters.get(name)))  # type: ignore[misc]
    return axes


def _listed(heading: str, options: Sequence[Any], value_of: Callable[[SweptTrial], Any]) -> Axis:
    step = 1 / max(len(options) - 1, 1)
    places = {option: index * step if len(options) > 1 else 0.5 for index, option in enumerate(options)}

    def place(trial: SweptTrial) -> float:
        spread = (trial.id * 0.618) % 1 - 0.5  # the golden ratio spreads any run of whole numbers evenly
        return places.get(value_of(trial), 0.5) + SPREAD * min(step, 0.5) * spread

    return heading, place, [(places[option], "none" if option is None else short(option)) for option in options]


def _ranged(heading: str, name: str, values: Sequence[float], logarithmic: bool) -> Axis:
    scaled: Callable[[float], float] = math.log10 if logarithmic else float
    low, high = _extent([scaled(value) for value in values])

    def place(trial: SweptTrial) -> float:
        return (scaled(float(trial.hyperparameters[name])) - low) / (high - low)

    steps = np.linspace(low, high, 4).tolist()
    return heading, place, [((at - low) / (high - low), f"{10**at if logarithmic else at:.2g}") for at in steps]


def _outcome_axis(values: dict[int, float | None], outcome: str | None) -> Axis:
    """The best stands at the top."""
    low, high = _extent([value for value in values.values() if value is not None])
    lower_is_better = outcome is None or SCORES[outcome].higher_is_better is False
    form = ".0f" if outcome is None else SCORES[outcome].form

    def at(value: float) -> float:
        share = (value - low) / (high - low)
        return 1 - share if lower_is_better else share

    heading = "rank" if outcome is None else SCORES[outcome].heading
    return heading, lambda trial: at(values[trial.id] or 0.0), [(at(end), format(end, form)) for end in (low, high)]


def _outcome_of(trial: SweptTrial, places: dict[int, int], outcome: str | None) -> float | None:
    if outcome is None:
        return places.get(trial.id)
    value = trial.validation.get(outcome)
    return None if value is None or trial.id not in places else SCORES[outcome].factor * value


def _trained_with(plan: SweepPlan, trial: SweptTrial) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {short(trial.hyperparameters.get(name))}" for name in plan.searched)


def _extent(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest, apart from each other even where there is one value, or none."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low, low + 1)
