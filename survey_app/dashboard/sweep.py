"""The sweep: what was tried, how far it came, what was learnt on the way, and what failed."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.results import ExperimentSummary, best_trials
from db.schema import TrialStatus
from db.store import read_session
from db.sweeps import (
    UNDER_WAY,
    SweepPlan,
    SweepProgress,
    SweptTrial,
    learning_curves,
    sweep_plan,
    sweep_progress,
    swept_trials,
)
from platform.results import STATUSES
from platform.scores import SCORES
from platform.tables import Table
from survey_app.dashboard import palettes
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import COLOURS, LABEL, NEUTRAL, Exhibit, Figure, show_exhibits
from survey_app.dashboard.hyperparameters import RANK, hyperparameters_figure

REFRESH_S = 5
# Colours are the models'; a status has the same shape in every figure.
SHAPES_OF: dict[TrialStatus, tuple[str, str]] = {
    "finished": ("circle", "●"),
    "stopped_early": ("triangle-down", "▼"),
    "failed": ("cross", "✚"),
    "running": ("triangle-right", "▶"),
    "pending": ("stroke", "—"),
}
WIDEST_LINEAR_LOSS = 30.0  # where the largest loss is more than so many times the smallest, the axis is logarithmic
MOST_BARS = 12  # trials per arm that are drawn as broad bars with their epochs as numbers
ROW_HEIGHT = 56  # pixels
PANEL_HEIGHT = 230
MOST_FAILURES = 50


def show(chosen: Chosen) -> None:
    """Draw the sweep's view; while it runs, its progress is asked for every REFRESH_S seconds."""
    experiment = chosen.experiment
    with read_session(chosen.engine) as session:
        now = sweep_progress(session, experiment.id)
        if experiment.status == "running":
            _show_progress(chosen, sweep_plan(session, experiment.id), now)
        first, second = st.columns(2)
        headings = {score.heading: name for name, score in SCORES.items()}
        with first:
            curve = choose("Learning curves of", list(headings), key="curves")
        with second:
            scored = [heading for heading, name in headings.items() if name != "loss"]
            outcome = choose("Trials coloured by", [RANK, *scored], key="outcome")
        database = chosen.engine.url.render_as_string()
        drawn = _drawn(session, experiment, database, experiment.id, now, headings[curve], headings.get(outcome))
    show_exhibits(drawn)


@st.cache_resource(show_spinner=False, max_entries=16)
def _drawn(
    _session: Session,
    _experiment: ExperimentSummary,
    database: str,
    experiment_id: int,
    progress: SweepProgress,
    score: str,
    outcome: str | None,
) -> list[Exhibit]:
    """The exhibits, made once for all readers as long as the sweep comes no farther."""
    return exhibits(_session, _experiment, score=score, outcome=outcome)


def exhibits(
    session: Session, experiment: ExperimentSummary, *, score: str = "loss", outcome: str | None = None
) -> list[Exhibit]:
    """Totals, failures, learning curves, parallel coordinates, ASHA's stops, all trials.

    score: whose learning curves, a key of SCORES. outcome: the one that trials are coloured by, or None for their rank
    within their arm.
    """
    plan, trials = sweep_plan(session, experiment.id), swept_trials(session, experiment.id)
    if not trials:
        return ["No trial has been made yet: they appear here as soon as Ray starts them."]
    best = set(best_trials(session, experiment.id).values())
    curves = _curves(session, experiment.id, trials, best, score)
    found: list[Exhibit] = [_summary(trials), *_failures(trials), _curves_figure(plan, trials, curves, score)]
    tried = hyperparameters_figure(plan, trials, outcome)
    found += [_epochs_figure(plan, trials), *([] if tried is None else [tried])]
    found += palettes.exhibits(session, experiment.id)
    return [*found, _totals_table(plan, trials), _trials_table(plan, trials)]


def _show_progress(chosen: Chosen, plan: SweepPlan, drawn: SweepProgress) -> None:
    """drawn: what the page's figures show. They are drawn again when another trial has ended, not before."""

    @st.fragment(run_every=REFRESH_S)
    def live() -> None:
        try:
            with read_session(chosen.engine) as session:
                now = sweep_progress(session, chosen.experiment.id)
        except SQLAlchemyError:
            st.caption("The database could not be read just now; it is asked again.")
            return
        if now.status != "running" or now.ended != drawn.ended:
            st.rerun()
        done, words = progress_words(plan, now)
        st.progress(done, words)
        st.caption(
            f"Last asked at {datetime.now(UTC):%H:%M:%S} UTC, every {REFRESH_S} s; the figures are drawn again when a "
            "trial ends."
        )

    live()


def progress_words(plan: SweepPlan, progress: SweepProgress) -> tuple[float, str]:
    """The share of the planned trials that have ended, in [0, 1], and a sentence about those that have not."""
    total = max(plan.trials or 0, sum(progress.trials.values()))
    of = "" if plan.epochs is None else f" of {plan.epochs}"
    running = [f"{arm} after epoch {epochs}{of}" for arm, epochs in progress.running[:4]]
    if len(progress.running) > len(running):
        running.append(f"{len(progress.running) - len(running)} more")
    ended = _counted({status: count for status, count in progress.trials.items() if status not in UNDER_WAY})
    words = (
        f"{progress.ended} of {total} trials have ended ({ended}), {progress.images_seen:,} images seen. "
        f"Running now: {', '.join(running) or 'none'}."
    )
    return (progress.ended / total if total else 0.0), words


def _summary(trials: Sequence[SweptTrial]) -> str:
    arms = len({trial.arm for trial in trials})
    trained = [trial for trial in trials if not trial.rendered]
    return (
        f"{len(trials)} trials of {arms} model{'s' * (arms != 1)}: {_counts(trials)}. "
        f"{_duration(sum(trial.seconds for trial in trained))} of training, "
        f"{sum(trial.images_seen for trial in trained):,} images seen."
    )


def _failures(trials: Sequence[SweptTrial]) -> list[Exhibit]:
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed:
        return []
    frame = pd.DataFrame(
        [
            {
                "model": trial.arm,
                "trial": trial.number,
                "after epoch": trial.epochs_done,
                "reason": trial.failure_reason or "none was recorded",
            }
            for trial in failed[:MOST_FAILURES]
        ]
    )
    more = f" The first {MOST_FAILURES}; the others are among all trials below." if len(failed) > MOST_FAILURES else ""
    note = f"They stand for nothing: no model's result comes from them.{more}"
    return [Table("failed-trials", f"⚠ {_counts(failed)} of {len(trials)} trials", frame, note=note)]


def _curves(
    session: Session, experiment_id: int, trials: Sequence[SweptTrial], best: set[int], score: str
) -> pd.DataFrame:
    """Every epoch of every trial; on training images too for the best trial of each arm."""
    by_id = {trial.id: trial for trial in trials}
    rows = [
        (
            *(
                trial.arm,
                trial.number,
                _word(trial.status),
                trial.id in best,
                "training" if split == "train" else split,
            ),
            *(epoch, SCORES[score].factor * value, split != "train" and epoch == trial.epochs_done),
        )
        for trial_id, epoch, split, value in learning_curves(session, experiment_id, score)
        if split != "train" or trial_id in best
        for trial in [by_id[trial_id]]
    ]
    return pd.DataFrame(rows, columns=["model", "trial", "status", "best", "images", "epoch", "value", "last"])


def _curves_figure(plan: SweepPlan, trials: Sequence[SweptTrial], curves: pd.DataFrame, score: str) -> Exhibit:
    """One panel per arm: losses of different kinds of model, or of different λ, are not on one scale; scores are."""
    heading = SCORES[score].heading
    if curves.empty:
        return f"No learning curves yet: no trial has measured its {heading} so far."
    shared = None
    if score != "loss":
        low, high = float(curves["value"].min()), float(curves["value"].max())
        margin = 0.04 * (high - low) or 0.5
        shared = alt.Scale(domain=[low - margin, high + margin], nice=False)
    shown = [arm for arm in plan.arms if (curves["model"] == arm).any()]
    panels = [_curve_panel(curves[curves["model"] == arm], arm, plan, heading, shared) for arm in shown]
    final = curves[curves["best"] & curves["last"]]
    numbers = "; ".join(
        f"{arm} {value:{SCORES[score].form}}" for arm, value in zip(final["model"], final["value"], strict=True)
    )
    per_epoch = next((round(trial.images_seen / trial.epochs_done) for trial in trials if trial.epochs_done), 0)
    if score == "loss":
        images = "tuning images, which trials are chosen by"
        scales = (
            "Every panel has its own scale: losses of different kinds of model, or with different λ, do not compare."
        )
    else:
        images, scales = "validation images", "All panels have the same scale."
    thick = "the model's best trial" + ("" if score == "loss" else "; dotted, the same on training images")
    return Figure(
        "learning-curves",
        f"Learning curves: {heading}",
        f"{heading} by epoch, one line per trial, one panel per model. "
        + (f"The best trial of each model ends at: {numbers}." if numbers else "No trial has finished yet."),
        alt.concat(*panels, columns=3),
        f"Thin: every trial on the {images}, up to where it ended ({_shapes_in_words(trials)}). Thick: {thick}. An "
        f"epoch is {per_epoch:,} images. {scales}",
        curves.drop(columns="last"),
    )


def _curve_panel(frame: pd.DataFrame, arm: str, plan: SweepPlan, heading: str, shared: alt.Scale | None) -> Any:
    """shared: the scale of values, or None for one of this panel's own."""
    colour, scale, title = _colour(plan, arm), shared, heading
    if scale is None:
        low, high = float(frame.value.min()), float(frame.value.max())
        logarithmic = low > 0 and high / low > WIDEST_LINEAR_LOSS
        scale = alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)
        title += " (log)" if logarithmic else ""
    form = "~s" if shared is None else "~g"
    last = max(plan.epochs or 0, int(frame.epoch.max()))
    x = alt.X(
        "epoch:Q",
        scale=alt.Scale(domain=[min(1, last - 1), last], nice=False, padding=6),
        axis=alt.Axis(tickMinStep=1, format="d", tickCount=6),
    )
    y = alt.Y("value:Q", scale=scale, title=title, axis=alt.Axis(tickCount=5, format=form))
    dashes = alt.Scale(domain=["tuning", "validation", "training"], range=[[1, 0], [1, 0], [2, 3]])
    # Each layer gets no more than it draws: of hundreds of trials the browser has much to read. No tooltips on lines:
    # Vega would always give a line's first epoch.
    return alt.layer(
        alt.Chart(frame.loc[~frame.best, ["trial", "epoch", "value"]])
        .mark_line(color=colour, strokeWidth=1, opacity=0.5)
        .encode(x=x, y=y, detail=alt.Detail("trial:N")),
        alt.Chart(frame.loc[frame.best, ["images", "epoch", "value"]])
        .mark_line(color=colour, strokeWidth=3)
        .encode(x=x, y=y, strokeDash=alt.StrokeDash("images:N", scale=dashes, legend=None)),
        alt.Chart(frame[frame["last"]].drop(columns=["images", "best", "last"]))
        .mark_point(color=colour, filled=True, size=44, opacity=0.9)
        .encode(
            x=x,
            y=y,
            shape=_shape(),
            tooltip=[
                *map(alt.Tooltip, ("model:N", "trial:Q", "status:N", "epoch:Q")),
                alt.Tooltip("value:Q", title=heading, format=".4g"),
            ],
        ),
    ).properties(width=260, height=PANEL_HEIGHT, title=alt.TitleParams(arm, anchor="start"))


def _epochs_figure(plan: SweepPlan, trials: Sequence[SweptTrial]) -> Figure:
    """How far each trial came, a row per arm; trials of the same number stand below each other. Heights on the rows are
    worked out here."""
    longest = max(plan.epochs or 0, *(trial.epochs_done for trial in trials), 1)
    arms = [arm for arm in plan.arms if any(trial.arm == arm for trial in trials)]
    floors = {arm: row for row, arm in enumerate(reversed(arms))}
    most = max(trial.number for trial in trials)
    per_epoch = 0.68 / longest  # of a row
    frame = pd.DataFrame(
        [
            {
                "model": trial.arm,
                "trial": trial.number,
                "status": _word(trial.status),
                "epochs": trial.epochs_done,
                "floor": floors[trial.arm],
                "top": floors[trial.arm] + per_epoch * trial.epochs_done,
                "ended": "" if trial.ended_at is None else f"{trial.ended_at:%Y-%m-%d %H:%M} UTC",
                "reason": trial.failure_reason or "",
            }
            for trial in trials
        ]
    )
    rungs = pd.DataFrame(
        [{"top": floor + per_epoch * rung} for floor in floors.values() for rung in plan.rungs], columns=["top"]
    )
    y = alt.Y(
        "top:Q",
        title=None,
        scale=alt.Scale(domain=[-0.08, len(arms) - 0.08], nice=False),
        axis=alt.Axis(
            values=list(floors.values())[::-1],
            labelExpr=f"{json.dumps(list(floors))}[datum.value]",
            labelBaseline="bottom",
            labelLimit=110,
            ticks=False,
            domain=False,
        ),
    )
    base = alt.Chart(frame).encode(
        x=alt.X(
            "trial:Q",
            title="trial",
            scale=alt.Scale(domain=[0.4, most + 0.6], nice=False),
            axis=alt.Axis(tickMinStep=1, format="d", grid=False),
        ),
        y=y,
        tooltip=["model:N", "trial:Q", "status:N", "epochs:Q", "ended:N", "reason:N"],
    )
    scale = alt.Scale(domain=arms, range=[_colour(plan, arm) for arm in arms])
    coloured = base.encode(color=alt.Color("model:N", scale=scale, legend=None))
    few = most <= MOST_BARS
    layers = [
        alt.Chart(rungs).mark_rule(color=NEUTRAL, strokeDash=[3, 3]).encode(y=y),
        coloured.mark_rule(strokeWidth=14 if few else 3, opacity=0.55).encode(y2=alt.Y2("floor:Q")),
        coloured.mark_point(filled=True, size=60, opacity=1).encode(shape=_shape()),
        *([base.mark_text(style=LABEL, align="left", dx=11, dy=-1).encode(text="epochs:Q")] if few else []),
    ]
    stopped = Counter(trial.epochs_done for trial in trials if trial.status == "stopped_early")
    when = ", ".join(f"{count} after epoch {epoch}" for epoch, count in sorted(stopped.items())) or "none"
    lines = f"Dashed: after epoch {_listed(plan.rungs)} it may stop a trial. " if plan.rungs else ""
    return Figure(
        "epochs-reached",
        "How far each trial came, in epochs",
        f"Epochs that each of {len(trials)} trials trained, of {longest}, by model: {_counts(trials)}. "
        f"Stopped early: {when}.",
        alt.layer(*layers).properties(height=ROW_HEIGHT * len(arms) + 40),
        f"The longest are {longest} epochs; {_shapes_in_words(trials)}. Trials of one number have the same seed in "
        f"every model. Early stopping (ASHA) compares trials of one model only. {lines}Stopped early: {when}.",
        frame.drop(columns=["floor", "top"]),
    )


def _totals_table(plan: SweepPlan, trials: Sequence[SweptTrial]) -> Table:
    rows: list[dict[str, Any]] = []
    for arm in [*plan.arms, "all"]:
        own = [trial for trial in trials if arm in (trial.arm, "all")]
        counts, trained = Counter(trial.status for trial in own), [trial for trial in own if not trial.rendered]
        rows.append(
            {
                "model": arm,
                "trials": len(own),
                **{_word(status): counts[status] for status in ("finished", "stopped_early", "failed")},
                "under way": sum(counts[status] for status in UNDER_WAY),
                "epochs": sum(trial.epochs_done for trial in trained),
                "images": sum(trial.images_seen for trial in trained),
                "training (min)": sum(trial.seconds for trial in trained) / 60,
            }
        )
    allowed = "" if plan.epochs is None else f" of at most {plan.epochs} epochs"
    return Table(
        "sweep-totals",
        "What it cost",
        pd.DataFrame(rows),
        {"epochs": ",", "images": ",", "training (min)": ",.1f"},
        f"Every model was allowed the same: as many trials{allowed}, the same images, the same seeds"
        + (" and draws. " if plan.same_draws else ". ")
        + "How much of that it used depends on what was stopped early. Training adds up trials that ran side by side; "
        "a model that decodes another one's training has none of its own.",
    )


def _trials_table(plan: SweepPlan, trials: Sequence[SweptTrial]) -> Table:
    starts = [trial.started_at for trial in trials if trial.started_at is not None]
    begun = min(starts, default=None)
    frame = pd.DataFrame(
        [
            {
                "model": trial.arm,
                "trial": trial.number,
                **{name.replace("_", " "): trial.hyperparameters.get(name) for name in plan.searched},
                "status": _word(trial.status),
                "epochs": trial.epochs_done,
                "images": trial.images_seen,
                "training (s)": trial.seconds,
                "ended after (min)": None
                if trial.ended_at is None or begun is None
                else (trial.ended_at - begun).total_seconds() / 60,
                "tuning loss": trial.loss,
                "seed": trial.seed,
                **({"reason": trial.failure_reason} if any(other.failure_reason for other in trials) else {}),
            }
            for trial in trials
        ]
    )
    formats = {"images": ",", "training (s)": ",.1f", "ended after (min)": ",.1f", "tuning loss": ".4g"}
    for name in plan.searched:
        if pd.api.types.is_float_dtype(frame[name.replace("_", " ")]):
            formats[name.replace("_", " ")] = ".3g"
    return Table(
        "trials",
        "All trials",
        frame,
        formats,
        "The loss is that on the tuning split after the trial's last epoch, comparable within a model only. Ended "
        "after: since the first trial started.",
    )


def _shape() -> alt.Shape:
    shapes = [SHAPES_OF[status][0] for status in STATUSES]
    scale = alt.Scale(domain=[_word(status) for status in STATUSES], range=shapes)
    return alt.Shape("status:N", scale=scale, legend=None)


def _shapes_in_words(trials: Sequence[SweptTrial]) -> str:
    """Which mark is which status, of those that there are."""
    there = {trial.status for trial in trials}
    return ", ".join(f"{SHAPES_OF[status][1]} {_word(status)}" for status in STATUSES if status in there)


def _colour(plan: SweepPlan, arm: str) -> str:
    return COLOURS[plan.arms.index(arm) % len(COLOURS)]


def _counts(trials: Sequence[SweptTrial]) -> str:
    return _counted(Counter(trial.status for trial in trials))


def _counted(counts: Mapping[TrialStatus, int]) -> str:
    return _listed([f"{counts[status]} {_word(status)}" for status in STATUSES if counts.get(status)]) or "none"


def _listed(items: Sequence[object]) -> str:
    *most, last = map(str, items or [""])
    return f"{', '.join(most)} and {last}" if most else last


def _word(status: TrialStatus) -> str:
    return status.replace("_", " ")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
