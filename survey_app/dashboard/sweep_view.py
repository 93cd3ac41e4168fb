"""The sweep: what was tried, how far it came, what was learnt on the way, and what failed."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from db.schema import Experiment, TrialStatus
from db.store import read_session
from db.sweeps.course import (
    UNDER_WAY,
    SweepProgress,
    SweptTrial,
    learning_curves,
    sweep_progress,
    swept_trials,
)
from db.sweeps.trials import ExperimentSummary, best_trials
from platform.color.scores import SCORES
from platform.running.config import Range, SweepConfig, recorded_config
from platform.running.plan import rows_in_all, rungs
from platform.tables.outcome import STATUSES
from platform.tables.table import Table, shorten
from survey_app.dashboard.chosen import Chosen, choose
from survey_app.dashboard.exhibits import COLOURS, Exhibit, Figure, arm_scale, show_exhibits

REFRESH_S = 5
PANEL_WIDTH, PANEL_HEIGHT, LEGEND_HEIGHT = 260, 250, 26  # pixels; of a legend, per line of two models  # pixels
# Points of both figures are filled where the trial has finished, hollow where it was stopped, failed or is under way.
FILLED = alt.condition(alt.datum.status == "finished", alt.value(1), alt.value(0))
HOLLOW = "Hollow: trials that were stopped early, failed, or are under way."
BEST = "Best is a model's first replicate or, without replicates, its finished trial with the lowest tuning loss."


def show(chosen: Chosen) -> None:
    """Draw the sweep's view; while it runs, its progress is asked for every REFRESH_S seconds."""
    experiment = chosen.experiment
    with read_session(chosen.engine) as session:
        now = sweep_progress(session, experiment.id)
        if experiment.status == "running":
            _show_progress(chosen, _config_of(session, experiment.id), now)
        headings = {score.heading: name for name, score in SCORES.items()}
        score = choose("Score", list(headings), key="score")
        database = chosen.engine.url.render_as_string()
        drawn = _make_exhibits(session, experiment, database, experiment.id, now, headings[score])
    show_exhibits(drawn)


@st.cache_resource(show_spinner=False, max_entries=16)
def _make_exhibits(
    _session: Session,
    _experiment: ExperimentSummary,
    database: str,
    experiment_id: int,
    progress: SweepProgress,
    score: str,
) -> list[Exhibit]:
    """The exhibits, made once for all readers as long as the sweep comes no farther."""
    return exhibits(_session, _experiment, score=score)


def exhibits(session: Session, experiment: ExperimentSummary, *, score: str = "loss") -> list[Exhibit]:
    """Costs, failures, learning curves, what was tried, all trials. score: what the figures are of, a key of SCORES."""
    config, trials = _config_of(session, experiment.id), swept_trials(session, experiment.id)
    if not trials:
        return ["No trial has been made yet: they appear here as soon as Ray starts them."]
    best = set(best_trials(session, experiment.id).values())
    frame = pd.DataFrame([_row(config, trial, score) for trial in trials])
    frame["best"] = [trial.id in best for trial in trials]
    measured = learning_curves(session, experiment.id, score)
    return [
        _costs_table(config, frame),
        *_failures(frame),
        _curves_figure(config, frame, pd.DataFrame(measured, columns=["id", "epoch", "images", "value"]), score),
        *_hyperparameters_figure(config, frame, score),
        _trials_table(config, frame),
    ]


def _config_of(session: Session, experiment_id: int) -> SweepConfig:
    return recorded_config(session.get_one(Experiment, experiment_id).config)


def _row(config: SweepConfig, trial: SweptTrial, score: str) -> dict[str, Any]:
    """A trial as all exhibits take it."""
    value = trial.validation.get(score)
    return {
        "id": trial.id,
        "model": trial.arm,
        "λ": trial.rebalancing,
        "trial": trial.number,
        **{_words(name): trial.hyperparameters.get(name) for name in config.search.values()},
        "status": _words(trial.status),
        "epochs": trial.epochs_done,
        # A model that decodes another one's training has none of its own.
        "images": None if trial.rendered else trial.images_seen,
        "training (min)": None if trial.rendered else trial.seconds / 60,
        "tuning loss": trial.loss,
        "score": SCORES[score].in_unit(value),
        "seed": trial.seed,
        "reason": trial.failure_reason,
    }


def _show_progress(chosen: Chosen, config: SweepConfig, drawn: SweepProgress) -> None:
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
        done, words = progress_words(config, now)
        st.progress(done, words)
        st.caption(
            f"Last asked at {datetime.now(UTC):%H:%M:%S} UTC, every {REFRESH_S} s; the figures are drawn again when a "
            "trial ends."
        )

    live()


def progress_words(config: SweepConfig, progress: SweepProgress) -> tuple[float, str]:
    """The share of the planned trials that have ended, in [0, 1], and a sentence about those that have not."""
    total = rows_in_all(config)
    running = [f"{arm} after epoch {epochs} of {config.epochs}" for arm, epochs in progress.running[:4]]
    if len(progress.running) > len(running):
        running.append(f"{len(progress.running) - len(running)} more")
    ended = _list_counts({status: count for status, count in progress.trials.items() if status not in UNDER_WAY})
    words = (
        f"{progress.ended} of {total} trials have ended ({ended}), {progress.images_seen:,} images seen. "
        f"Running now: {', '.join(running) or 'none'}."
    )
    return (progress.ended / total if total else 0.0), words


def _costs_table(config: SweepConfig, frame: pd.DataFrame) -> Table:
    numbers = frame[["model", "images", "training (min)"]].fillna(0)
    numbers.insert(1, "trials", 1)
    for position, status in enumerate(("finished", "stopped early", "failed"), start=2):
        numbers.insert(position, status, (frame["status"] == status).astype(int))
    costs = numbers.groupby("model", sort=False).sum()
    costs.loc["all"] = costs.sum()
    return Table(
        "costs",
        "What it cost",
        costs.reset_index(),
        dict.fromkeys(["trials", "finished", "stopped early", "failed"], ".0f")
        | {"images": ",.0f", "training (min)": ",.1f"},
        f"Every model was allowed the same: as many trials of at most {config.epochs} epochs, the same images, the "
        "same seeds"
        + (". " if config.search.method == "optuna" else " and draws. ")
        + "How much of that it used depends on what was stopped early. Training adds up trials that ran side by side; "
        "a model that decodes another one's training has none of its own.",
    )


def _failures(frame: pd.DataFrame) -> list[Table]:
    failed = frame.loc[frame["status"] == "failed", ["model", "trial", "epochs", "reason"]]
    if failed.empty:
        return []
    title = f"⚠ {len(failed)} failed of {len(frame)} trials"
    return [Table("failed-trials", title, failed, note="They stand for nothing: no model's result comes from them.")]


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
    scale = alt.Scale(type="log", nice=False, padding=8)
    if score != "loss":
        low, high = curves["value"].min(), curves["value"].max()
        margin = 0.04 * (high - low) or 0.5
        scale = alt.Scale(domain=[low - margin, high + margin], nice=False)
    y = alt.Y("value:Q", scale=scale, title=heading + (" (log)" if score == "loss" else ""))
    last = config.epochs
    panels = [
        _curve_panel(curves[curves["model"] == arm], last, y, COLOURS[place % len(COLOURS)]).properties(title=arm)
        for place, arm in enumerate(frame["model"].unique())
        if (curves["model"] == arm).any()
    ]
    final = curves[curves["best"] & curves["last"]]
    ends = [f"{arm} {value:{SCORES[score].form}}" for arm, value in zip(final["model"], final["value"], strict=True)]
    if score == "loss":
        note = (
            "On the tuning images, which trials are chosen by. Every panel has its own scale: losses of different "
            "kinds of model, or with different λ, do not compare. Thick: the model's best trial."
        )
    else:
        note = "On validation images. Thick: the model's best trial; dotted, the same on training images."
    listed = ", ".join(map(str, rungs(config)))
    stops = f" Early stopping may end a trial after epoch {listed}, among those of its model." if listed else ""
    return Figure(
        "learning-curves",
        f"Learning curves: {heading}",
        f"{heading} by epoch, one line per trial, one panel per model. "
        + (f"The best trial of each model ends at: {'; '.join(ends)}." if ends else "No trial has finished yet."),
        alt.concat(*panels, columns=3),
        f"{note} {BEST} {HOLLOW}{stops}",
        curves.drop(columns=["epochs", "last"]),
    )


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
    ends = base.transform_filter("datum.last").mark_point(color=colour, fill=colour, size=44)
    tooltip = [*map(alt.Tooltip, ("trial:Q", "status:N", "epoch:Q")), alt.Tooltip("value:Q", format=".4g")]
    return alt.layer(lines, ends.encode(fillOpacity=FILLED, tooltip=tooltip)).properties(
        width=PANEL_WIDTH, height=PANEL_HEIGHT
    )


def _hyperparameters_figure(config: SweepConfig, frame: pd.DataFrame, score: str) -> list[Figure]:
    """How each trial did, against each hyperparameter that was varied and against λ, a panel for each; none where
    nothing was."""
    heading, scale, outcome = f"{SCORES[score].heading} in validation", alt.Scale(zero=False), frame["score"]
    if score == "loss":
        # Losses of different models are not on one scale: each is set beside its model's lowest.
        lowest = frame.groupby("model")["tuning loss"].min()
        outcome = 100 * (frame["tuning loss"] / frame["model"].map(lowest) - 1)
        heading, scale = "loss above the model's lowest (%)", alt.Scale(type="symlog")
    searched = [_words(name) for name in config.search.values()]
    has_lambda = score != "loss" and frame["λ"].nunique() > 1  # losses of different λ do not compare
    varied = [*searched, "λ"] if has_lambda else searched
    shown = frame[["model", "trial", *varied, "status", "best"]].assign(outcome=outcome).dropna(subset=["outcome"])
    if not varied or shown.empty:
        return []
    models = frame["model"].unique().tolist()  # of which some may have been added later
    arms = arm_scale(models)
    legend = alt.Legend(columns=2)
    base = (
        alt.Chart(shown.drop(columns="best"))
        .mark_point(size=50, opacity=1)
        .encode(
            y=alt.Y("outcome:Q", scale=scale, title=heading),
            color=arms["color"].legend(legend),
            shape=arms["shape"].legend(legend),
            fill=alt.Fill("model:N", scale=arms["color"]["scale"], sort=models, title="model", legend=legend),
            fillOpacity=FILLED,
            tooltip=["model:N", "trial:Q", "status:N", *searched, alt.Tooltip("outcome:Q", format=".4g")],
        )
        .properties(width=PANEL_WIDTH, height=PANEL_HEIGHT + LEGEND_HEIGHT * (3 + len(models) // 2))
    )
    panels = []
    for name, values in config.search.values().items():
        if isinstance(values, Range):
            kind = alt.Scale(type="log", nice=False, padding=8) if values.loguniform else alt.Scale(zero=False)
            x = alt.X(f"{_words(name)}:Q", scale=kind, axis=alt.Axis(format="~g", tickCount=5))
        else:
            x = alt.X(f"{_words(name)}:N", axis=alt.Axis(labelAngle=0))
        panels.append(base.encode(x=x))
    if has_lambda:
        x = alt.X(
            "λ:Q", title="λ, in the loss or in the decoding", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)
        )
        panels.append(base.encode(x=x))
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
            alt.concat(*panels, columns=3),
            f"One point per trial, after its last epoch. {BEST} {HOLLOW}"
            + (" Tuning losses, from 1 % on a logarithmic scale." if score == "loss" else ""),
            shown.rename(columns={"outcome": heading}),
        )
    ]


def _trials_table(config: SweepConfig, frame: pd.DataFrame) -> Table:
    formats = {"images": ",.0f", "training (min)": ",.2f", "tuning loss": ".4g"}
    formats |= {name: ".3g" for name in map(_words, config.search.values()) if pd.api.types.is_float_dtype(frame[name])}
    return Table(
        "trials",
        "All trials",
        frame.drop(columns=["id", "λ", "score", "reason", "best"]),
        formats,
        "The loss is that on the tuning split after the trial's last epoch, comparable within a model only.",
    )


def _list_counts(counts: Mapping[TrialStatus, int]) -> str:
    return ", ".join(f"{counts[status]} {_words(status)}" for status in STATUSES if counts.get(status)) or "none"


def _words(name: str) -> str:
    return name.replace("_", " ")
