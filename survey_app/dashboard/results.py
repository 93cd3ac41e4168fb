"""The original study's table, live: scores on both splits, and how often pictures were taken for the photograph."""

from typing import Any

import pandas as pd
import streamlit as st
from sqlalchemy.orm import Session

from db.answers import summarise
from db.results import BestTrial, Share, arm_results
from db.results import wilson as wilson_interval
from db.store import read_session
from survey_app.dashboard.chosen import Chosen
from survey_app.dashboard.exhibits import DataTable, Exhibit, show_exhibits, titled
from survey_app.dashboard.measures import MEASURES

# The study that HueJury started from, as its poster gave it: model, which accuracy, in training and validation, picked
# as real of how many answers. CIFAR-10, 26 answers a model.
PUBLISHED = (
    ("regression (L2)", "exact accuracy", 0.0001, 0.0001, 9, 26),
    ("classification", "bin accuracy", 0.230, 0.226, 15, 26),
    ("classification, rebalanced", "bin accuracy", 0.192, 0.177, 18, 26),
)
SCORES = (
    "balanced_bin_accuracy",
    "raw_auc",
    "rebalanced_auc",
    "psnr_db",
    "delta_e_2000",
    "colourfulness_ratio",
)


def show(chosen: Chosen) -> None:
    """Draw the view."""
    published = st.toggle("Show the original study's figures too", key="published", bind="query-params")
    with read_session(chosen.engine) as session:
        show_exhibits(exhibits(session, chosen, published=published))


def exhibits(session: Session, chosen: Chosen, *, published: bool = False) -> list[Exhibit]:
    """The table of accuracies and votes, and the table of the other scores."""
    return [_poster_table(session, chosen, published=published), _score_table(session, chosen)]


def _poster_table(session: Session, chosen: Chosen, *, published: bool) -> DataTable:
    survey = None if chosen.answers is None else summarise(chosen.answers, chosen.inclusion)
    shares = {} if survey is None else {row.arm_id: row.picked_as_real for row in survey.rows}
    trials = {} if survey is None else {row.arm_id: row.trial for row in survey.rows}
    rows = []
    for result in arm_results(session, chosen.experiment.name):
        rows.append(_row(result.arm, trials.get(result.arm_id, result.best), shares.get(result.arm_id)))
    if survey is not None and survey.photographs is not None:
        rows.append(_row("the photographs", None, survey.photographs))
    if published:
        for model, score, train, validation, picked, asked in PUBLISHED:
            row = _row(f"published: {model}", None, wilson_interval(picked, asked))
            rows.append({**row, f"{score}, train": train, f"{score}, validation": validation})
    frame = pd.DataFrame(rows)
    shown = frame[["model"]].copy()
    for heading in frame.columns[1:5]:
        shown[heading] = [_percent(value, 2) for value in frame[heading]]
    shown["picked as real"] = [_percent(value, 1) for value in frame["picked as real"]]
    shown["k/n"] = [
        "–" if pd.isna(asked) else f"{picked:.0f}/{asked:.0f}"
        for picked, asked in zip(frame["times picked"], frame["times asked"], strict=True)
    ]
    limits = list(zip(frame["95 % from"], frame["picked as real"], frame["95 % to"], strict=True))
    shown["95 % Wilson"] = ["–" if pd.isna(low) else f"{100 * low:.0f}–{100 * high:.0f} %" for low, _, high in limits]
    return DataTable(
        name="results",
        title=titled("Accuracy and votes", simulated=chosen.simulated),
        frame=frame,
        shown=shown,
        bars=[None if pd.isna(low) else (low, share, high) for low, share, high in limits]
        if shares or published
        else None,
        note=_note(chosen, published=published),
    )


def _row(model: str, trial: BestTrial | None, share: Share | None) -> dict[str, Any]:
    row: dict[str, Any] = {"model": model}
    for score in ("bin accuracy", "exact accuracy"):
        for split in ("train", "validation"):
            scores = {} if trial is None else trial.train if split == "train" else trial.validation
            row[f"{score}, {split}"] = scores.get(score.replace(" ", "_"))
    asked = share is not None and share.total > 0
    row["picked as real"] = share.share if share else None
    row["times picked"] = share.count if share and asked else None
    row["times asked"] = share.total if share and asked else None
    row["95 % from"] = share.low if share else None
    row["95 % to"] = share.high if share else None
    return row


def _score_table(session: Session, chosen: Chosen) -> DataTable:
    """Validation scores with their standard errors."""
    trials = {} if chosen.answers is None else {row.arm_id: row.trial for row in chosen.answers.contenders}
    rows, texts = [], []
    for result in arm_results(session, chosen.experiment.name):
        trial = trials.get(result.arm_id, result.best)
        row: dict[str, Any] = {"model": result.arm}
        text = {"model": result.arm}
        for score in SCORES:
            measure = MEASURES[score]
            value = None if trial is None else trial.validation.get(score)
            error = None if trial is None else trial.validation_standard_errors.get(score)
            row[measure.heading] = None if value is None else measure.factor * value
            row[f"{measure.heading}, standard error"] = None if error is None else measure.factor * error
            written = "–" if value is None else measure.written(value)
            text[measure.heading] = written if error is None else f"{written} ± {measure.written(error)}"
        rows.append(row)
        texts.append(text)
    return DataTable(
        name="scores",
        title="Other scores on the validation split",
        frame=pd.DataFrame(rows),
        shown=pd.DataFrame(texts),
        note="± one standard error over the choice of validation images, where it was measured. Higher is better, "
        "except for ΔE2000 (0 is perfect) and the colourfulness ratio (1 is as colourful as the photographs).",
    )


def _note(chosen: Chosen, *, published: bool) -> str:
    parts = [
        "Accuracies are shares of pixels: the right one of 400 bins, or exactly the right a and b (1/65,536 by chance)."
    ]
    if chosen.answers is not None:
        parts.append(
            "Picked as real: 50 % means that nobody can tell the picture from the photograph beside it."
            if chosen.answers.protocol == "pair"
            else "Picked as real: as often as the photographs themselves means that nobody can tell."
        )
        parts.append("k/n and the Wilson interval count every answer as if it were another person's; see How sure.")
    if published:
        parts.append(
            "Rows marked published are the original study's, on its own images of CIFAR-10, models and participants: "
            "not to be ranked with the rows above."
        )
    return " ".join(parts)


def _percent(share: float | None, digits: int) -> str:
    return "–" if share is None or pd.isna(share) else f"{100 * share:.{digits}f} %"
