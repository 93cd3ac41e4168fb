"""A study as files: its votes as tidy CSV, one row per vote, and its whole definition as JSON.

docs/data-dictionary.md explains every column; a test holds it and COLUMNS equal.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.answers import ExclusionRule, check_outcomes_may_be_seen, read_votes
from db.results import contenders
from db.schema import Arm, Base, Dataset, Experiment, Image, Run, SentinelPicture, Study, StudyArm, Trial
from db.store import read_session
from db.studies import find_study

COLUMNS = (
    *("study", "participant", "simulated", "attentive", "finished", "check_flags"),
    *("phase", "position", "kind", "sentinel", "arm", "trial", "image", "image_class", "real_side"),
    *("exposure_ms", "exposure_measured_ms", "response_time_ms", "answer", "correct", "picked_as_real"),
    *("input", "scale", "device_pixel_ratio", "flags", "answered_on"),
)


def export_study(engine: Engine, name: str, folder: Path, *, simulated: bool = False) -> int:
    """Write votes.csv and study.json into the folder (made if it is not there) and return the number of votes.

    Of people, or of simulated participants instead. Raises SurveyError if there is no such study,
    StudyBlinded, OSError.
    """
    with read_session(engine) as session:
        study = find_study(session, name)
        if not simulated:
            check_outcomes_may_be_seen(session, study)
        definition = study_definition(session, study)
        table = votes_table(session, study, definition["dataset"]["class_names"], simulated=simulated)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "votes.csv", index=False, lineterminator="\n", encoding="utf-8")
    text = json.dumps(definition, indent=2, ensure_ascii=False, allow_nan=False, default=datetime.isoformat)
    (folder / "study.json").write_text(text + "\n", encoding="utf-8")
    return len(table)


def votes_table(session: Session, study: Study, class_names: list[str], *, simulated: bool) -> pd.DataFrame:
    """COLUMNS of all votes of a study, practice included, by participants' pseudonyms: neither the order nor a time of
    day tells when somebody came."""
    people, votes = read_votes(session, study.id, ExclusionRule(**study.exclusion_rule), simulated=simulated)
    table = votes.join(people.rename(columns={"finished": "all_answered"}), on="participant")
    asked = contenders(session, study)
    arms, trials = [each.arm for each in asked], [each.trial.number for each in asked]
    table["study"] = study.name
    table["participant"] = table["pseudonym"]
    table["simulated"] = int(simulated)
    table["finished"] = table["all_answered"]
    table["sentinel"] = table["kind"] == "sentinel"
    table["arm"] = table["contender"].map(dict(enumerate(arms)))
    table["trial"] = table["contender"].map(dict(enumerate(trials))).astype("Int64")
    table["image"] = table["image_index"]
    table["image_class"] = table["class_index"].map(dict(enumerate(class_names)))
    table["exposure_ms"] = pd.Series(study.exposure_ms, index=table.index, dtype="Int64")
    table["answered_on"] = [moment.date().isoformat() for moment in table["answered_at"]]
    for column in ("check_flags", "flags"):
        table[column] = table[column].map(";".join)
    for column in ("attentive", "finished", "sentinel", "correct", "picked_as_real"):
        table[column] = table[column].astype(int)
    return table.sort_values(["participant", "position"])[list(COLUMNS)]


def study_definition(session: Session, study: Study) -> dict[str, Any]:
    """All that the study is, for JSON: protocol, experiment, data, contenders with their options, images."""
    experiment = session.get_one(Experiment, study.experiment_id)
    dataset = session.get_one(Dataset, experiment.dataset_id)
    stands = (
        select(Arm, Trial)
        .join(StudyArm, StudyArm.arm_id == Arm.id)
        .join(Trial, Trial.id == StudyArm.trial_id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    )
    images = (
        select(Image)
        .join(SentinelPicture, SentinelPicture.image_id == Image.id)
        .where(SentinelPicture.study_id == study.id)
        .order_by(Image.index_in_split)
    )
    runs = session.scalars(select(Run).where(Run.experiment_id == experiment.id).order_by(Run.id))
    as_stored = [
        column.name for column in Study.__table__.columns if column.name not in ("id", "name", "experiment_id")
    ]
    return {
        "study": study.name,
        **_values(study, *sorted(as_stored)),
        "experiment": {
            **_values(experiment, "name", "created_at", "config"),
            "runs": [_values(run, "started_at", "code_version", "environment") for run in runs],
        },
        "dataset": _values(dataset, "name", "fingerprint", "note", "class_names"),
        "arms": [
            {
                "arm": arm.name,
                **_values(arm, "options", "rebalancing"),
                "trial": trial.number,
                **_values(trial, "seed", "epochs_done", "hyperparameters"),
            }
            for arm, trial in session.execute(stands)
        ],
        "images": [
            {"split": image.split, "index": image.index_in_split, "class": image.class_index}
            for image in session.scalars(images)
        ],
    }


def _values(row: Base, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
