"""The sweep: how far it came, what was learnt on the way, and what was tried."""

from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from sqlalchemy.orm import Session

from db.schema import Experiment, Trial
from db.store import read_session
from db.sweeps.trials import UNDER_WAY, SweepProgress, learning_curves, load_models, sweep_progress
from platform.color.scores import SCORES
from platform.running.config import Range, SweepConfig, recorded_config
from platform.running.plan import rows_in_all, rungs
from platform.tables.outcome import STATUSES
from platform.tables.table import Table, shorten
from survey_app.dashboard.choice import Choice, follow
from survey_app.dashboard.exhibits import COLOURS, Exhibit, Figure, arm_scale, choose_score, show_exhibits

REFRESH_S = 5
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 260, 250, 26  # pixels; of a legend, per line of two models
STATED = "Pale points: trials that were stopped early, failed, or are under way."
OPACITY = alt.condition(alt.datum.status == "finished", alt.value(1), alt.value(0.35))
BEST = "Best is a model's first replicate or, without replicates, its finished trial with the lowest tuning loss."


def show(choice: Choice) -> None:
    """Draw the sweep's view; while it runs, its progress is asked for every REFRESH_S seconds."""
    experiment = choice.experiment
    with read_session(choice.engine) as session:
        if experiment.status == "running":
            _follow_sweep(choice, recorded_config(experiment.config), sweep_progress(session, experiment.id))
        shown = exhibits(session, experiment, score=choose_score(list(SCORES), "Score", key="score"))
    show_exhibits(shown)


def exhibits(session: Session, experiment: Experiment, *, score: str = "loss") -> list[Exhibit]:
    """What it took, learning curves, what was tried, all trials. score: what the figures are of, a key of SCORES."""
    config = recorded_config(experiment.config)
    trials = [trial for arm in load_models(session, experiment.id) for trial in arm.trials]
    if not trials:
        return ["No trial has been made yet: they appear here as soon as Ray starts them."]
    frame = pd.DataFrame([_row(config, trial, score) for trial in trials])
    trained = {
        trial.id for trial in trials if trial.arm.choices.renders is None
    }  # what decodes another one's training learns nothing
    measured = [row for row in learning_curves(session, experiment.id, score) if row[0] in trained]
    return [
        describe_cost(config, trials),
        _curves_figure(config, frame, pd.DataFrame(measured, columns=["id", "epoch", "images", "value"]), score),
        *_hyperparameters_figure(config, frame, score),
        _trials_table(config, frame),
    ]


def _row(config: SweepConfig, trial: Trial, score: str) -> dict[str, Any]:
    """A trial as all exhibits take it."""
    return {
        "id": trial.id,
        "model": trial.arm.name,
        "λ": trial.arm.rebalancing,
        "trial": trial.number,
        **{_words(name): trial.hyperparameters.get(name) for name in config.search.values()},
        "status": _words(trial.status),
        "epochs": trial.epochs_done,
        "training (min)": None if trial.arm.choices.renders else trial.seconds / 60,
        "tuning loss": trial.loss,
        "score": SCORES[score].in_unit(trial.score(score)),
        "seed": trial.seed,
        "failed as": trial.failure_reason,
        "best": trial is trial.arm.best,
    }


def _follow_sweep(choice: Choice, config: SweepConfig, drawn: SweepProgress) -> None:
    """drawn: what the page's figures show. They are drawn again when another trial has ended, not before."""

    def has_changed(session: Session) -> bool:
        now = sweep_progress(session, choice.experiment.id)
        st.progress(*describe_progress(config, now))
        return now.status != "running" or now.ended != drawn.ended

    follow(choice, REFRESH_S, has_changed)


def describe_progress(config: SweepConfig, progress: SweepProgress) -> tuple[float, str]:
    """The share of the planned trials that have ended, in [0, 1], and a sentence about those that have not."""
    total = rows_in_all(config)
    running = [f"{arm} after epoch {epochs} of {config.epochs}" for arm, epochs in progress.running[:4]]
    if len(progress.running) > len(running):
        running.append(f"{len(progress.running) - len(running)} more")
    counts = [
        f"{progress.trials[status]} {_words(status)}"
        for status in STATUSES
        if status not in UNDER_WAY and progress.trials.get(status)
    ]
    words = (
        f"{progress.ended} of {total} trials have ended ({', '.join(counts) or 'none'}). "
        f"Running now: {', '.join(running) or 'none'}."
    )
    return (progress.ended / total if total else 0.0), words


def describe_cost(config: SweepConfig, trials: list[Trial]) -> str:
    """What every model was allowed, what all took, and how many failed."""
    trained = [trial for trial in trials if trial.arm.choices.renders is None]
    failed = sum(trial.status == "failed" for trial in trials)
    images, minutes = sum(trial.images_seen for trial in trained), sum(trial.seconds for trial in trained) / 60
    draws = "" if config.search.method == "optuna" else ", the same draws"
    return (
        f"Every model was allowed as many trials of at most {config.epochs} epochs, the same images and seeds{draws}. "
        f"All took {images:,} images and {minutes:,.1f} minutes of training, trials side by side added up."
        + (
            f" **⚠ {failed} of {len(trials)} trials failed**, and stand for nothing: the table says why."
            if failed
            else ""
        )
    )


def _curves_figure(config: SweepConfig, frame: pd.DataFrame, measured: pd.DataFrame, score: str) -> Exhibit:
    """One panel per model, of every epoch of every trial, and on training images too of its best. Losses of different
    kinds of model, or of different λ, are not on one scale; scores are."""
    heading = SCORES[score].heading
    if measured.empty:
        return f"No learning curves yet: no trial has measured its {heading} so far."
    curves = measured.merge(frame[["id", "model", "trial", "status", "best", "epochs"]], on="id").drop(columns="id")
    curves = curves[(curves["images"] != "train") | curves["best"]].sort_values("best", kind="stable")
    curves["value"] *= SCORES[score].factor
    curves["last"] = (curves["images"] != "train") & (curves["epoch"] == curves["epochs"])
    scale, title = alt.Scale(type="log", nice=False, padding=8), f"{heading} (log)"
    note = (
        "On the tuning images, which trials are chosen by. Every panel has its own scale: losses of different kinds of "
        "model, or with different λ, do not compare. Thick: the model's best trial."
    )
    if score != "loss":
        scale, title = alt.Scale(domain=_domain(curves["value"]), nice=False), heading
        note = "On validation images. Thick: the model's best trial; dotted, the same on training images."
    panels = [
        _curve_panel(of_model, config.epochs, alt.Y("value:Q", scale=scale, title=title), COLOURS[place % len(COLOURS)])
        .properties(title=model)
        for place, model in enumerate(frame["model"].unique())
        if len(of_model := curves[curves["model"] == model])
    ]  # fmt: skip
    final = curves[curves["best"] & curves["last"]]
    ends = [f"{arm} {value:{SCORES[score].form}}" for arm, value in zip(final["model"], final["value"], strict=True)]
    listed = ", ".join(map(str, rungs(config)))
    stops = f" Early stopping may end a trial after epoch {listed}, among those of its model." if listed else ""
    return Figure(
        "learning-curves",
        f"Learning curves: {heading}",
        f"{heading} by epoch, one line per trial, one panel per model. "
        + (f"The best trial of each model ends at: {'; '.join(ends)}." if ends else "No trial has finished yet."),
        alt.concat(*panels, columns=3),
        f"{note} {BEST} {STATED}{stops}",
        curves.drop(columns=["epochs", "last"]),
    )


def _domain(values: pd.Series) -> list[float]:
    """Ends of an axis on which all panels are compared."""
    low, high = values.min(), values.max()
    margin = 0.04 * (high - low) or 0.5
    return [low - margin, high + margin]


def _curve_panel(curves: pd.DataFrame, last: int, y: alt.Y, colour: str) -> Any:
    x = alt.X(
        "epoch:Q",
        scale=alt.Scale(domain=[min(1, last - 1), last], nice=False, padding=6),
        axis=alt.Axis(tickMinStep=1, format="d", tickCount=min(6, max(last - 1, 1))),
    )
    base = alt.Chart(curves.drop(columns=["model", "epochs"])).encode(x=x, y=y)
    # No tooltips on lines: Vega would always give a line's first epoch.
    lines = base.mark_line(color=colour).encode(
        detail=alt.Detail("trial:N"),
        strokeWidth=alt.condition("datum.best", alt.value(3), alt.value(1)),
        opacity=alt.condition("datum.best", alt.value(1), alt.value(0.5)),
        strokeDash=alt.condition("datum.images === 'train'", alt.value([2, 3]), alt.value([1, 0])),
    )
    tooltip = [*map(alt.Tooltip, ("trial:Q", "status:N", "epoch:Q")), alt.Tooltip("value:Q", format=".4g")]
    ends = base.transform_filter("datum.last").mark_point(color=colour, filled=True, size=44)
    return alt.layer(lines, ends.encode(opacity=OPACITY, tooltip=tooltip)).properties(
        width=PANEL_WIDTH, height=PANEL_HEIGHT
    )


def _hyperparameters_figure(config: SweepConfig, frame: pd.DataFrame, score: str) -> list[Figure]:
    """How each trial did, against each hyperparameter that was varied and against λ, a panel for each; none where
    nothing was."""
    heading, scale, outcome = f"{SCORES[score].heading} in validation", alt.Scale(zero=False), frame["score"]
    if score == "loss":
        # Losses of different models are not on one scale: each is set beside its model's lowest. What decodes another
        # one's training has that one's.
        lowest = frame.groupby("model")["tuning loss"].min()
        outcome = (100 * (frame["tuning loss"] / frame["model"].map(lowest) - 1))[frame["training (min)"].notna()]
        heading, scale = "loss above the model's lowest (%)", alt.Scale(type="symlog")
    searched = {_words(name): values for name, values in config.search.values().items()}
    has_lambda = score != "loss" and frame["λ"].nunique() > 1  # losses of different λ do not compare
    varied = [*searched, "λ"] if has_lambda else [*searched]
    shown = frame[["model", "trial", *varied, "status", "best"]].assign(outcome=outcome).dropna(subset=["outcome"])
    if not varied or shown.empty:
        return []
    models = frame["model"].unique().tolist()
    marks = {name: mark.legend(alt.Legend(columns=2)) for name, mark in arm_scale(models).items()}
    base = (
        alt.Chart(shown.drop(columns="best"))
        .mark_point(size=50, filled=True)
        .encode(
            y=alt.Y("outcome:Q", scale=scale, title=heading),
            opacity=OPACITY,
            tooltip=["model:N", "trial:Q", "status:N", *searched, alt.Tooltip("outcome:Q", format=".4g")],
            **marks,
        )
        .properties(width=PANEL_WIDTH, height=PANEL_HEIGHT + LEGEND_HEIGHT * (3 + len(models) // 2))
    )
    axes = [_hyperparameter_axis(name, values) for name, values in searched.items()]
    if has_lambda:
        title, scale = "λ, in the loss or in the decoding", alt.Scale(domain=[0, 1])
        axes.append(alt.X("λ:Q", title=title, scale=scale, axis=alt.Axis(tickCount=5)))
    best = [
        f"{row['model']} with " + (", ".join(f"{name} {shorten(row[name])}" for name in searched) or "nothing searched")
        for _, row in shown[shown["best"]].iterrows()
    ]
    return [
        Figure(
            "hyperparameters",
            "What was tried",
            f"{heading} of {len(shown)} trials against {', '.join(varied)}. "
            f"The best trial of each model: {'; '.join(best) or 'none yet'}.",
            alt.concat(*(base.encode(x=x) for x in axes), columns=3),
            f"One point per trial, after its last epoch. {STATED}"
            + (" Tuning losses, from 1 % on a logarithmic scale." if score == "loss" else ""),
            shown.rename(columns={"outcome": heading}),
        )
    ]


def _hyperparameter_axis(name: str, values: object) -> alt.X:
    if not isinstance(values, Range):
        return alt.X(f"{name}:N", axis=alt.Axis(labelAngle=0))
    scale = alt.Scale(type="log", nice=False, padding=8) if values.loguniform else alt.Scale(zero=False)
    return alt.X(f"{name}:Q", scale=scale, axis=alt.Axis(format="~g", tickCount=5))


def _trials_table(config: SweepConfig, frame: pd.DataFrame) -> Table:
    formats = {"training (min)": ",.2f", "tuning loss": ".4g"}
    formats |= {name: ".3g" for name in map(_words, config.search.values()) if pd.api.types.is_float_dtype(frame[name])}
    return Table(
        "trials",
        "All trials",
        frame.drop(columns=["id", "λ", "score", "best"]).dropna(axis="columns", how="all"),
        formats,
        "The loss is that on the tuning split after the trial's last epoch, comparable within a model only.",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
