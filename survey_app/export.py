"""A study as files: its votes as tidy CSV, one row per vote, and its whole definition as JSON.

docs/data-dictionary.md explains every column; a test holds it and COLUMNS equal.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.answers import ExclusionRule, check_outcomes_may_be_seen, read_votes
from db.schema import Arm, Dataset, Experiment, Image, Run, SentinelPicture, Study, StudyArm, Trial
from db.store import read_session
from db.studies import find_study

COLUMNS = (
    *("study", "participant", "simulated", "attentive", "finished", "check_flags", "phase", "position", "kind"),
    *("sentinel", "arm", "trial", "image", "image_class", "real_side", "exposure_ms", "exposure_measured_ms"),
    *("response_time_ms", "answer", "correct", "picked_as_real", "input", "scale", "device_pixel_ratio", "flags"),
    "answered_on",
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
        people, votes = read_votes(session, study.id, ExclusionRule(**study.exclusion_rule), simulated=simulated)
    table = _tidy(definition, people, votes, simulated=simulated)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "votes.csv", index=False, lineterminator="\n")
    text = json.dumps(definition, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "study.json").write_text(text + "\n", encoding="utf-8")
    return len(table)


def _tidy(definition: dict[str, Any], people: pd.DataFrame, votes: pd.DataFrame, *, simulated: bool) -> pd.DataFrame:
    """By pseudonym, and by the day only: the order in which people came, and when, is nobody's business."""
    arms, classes = definition["arms"], definition["dataset"]["class_names"]
    table = votes.join(people, on="participant").rename(columns={"participant": "id", "pseudonym": "participant"})
    table["study"] = definition["study"]
    table["simulated"] = int(simulated)
    table["exposure_ms"] = definition["exposure_ms"]
    table["sentinel"] = (table["kind"] == "sentinel").astype(int)
    about = table["contender"]
    table["arm"] = [arms[place]["arm"] if place >= 0 else None for place in about]
    table["trial"] = pd.array([arms[place]["trial"] if place >= 0 else None for place in about], dtype="Int64")
    table["image_class"] = [classes[index] for index in table["class_index"]]
    table["image"] = table["image_index"]
    for column in ("check_flags", "flags"):
        table[column] = [";".join(flags) for flags in table[column]]
    for column in ("attentive", "finished", "correct", "picked_as_real"):
        table[column] = table[column].astype(int)
    table["answered_on"] = [moment.date().isoformat() for moment in table["answered_at"]]
    return table.sort_values(["participant", "position"])[list(COLUMNS)]


def study_definition(session: Session, study: Study) -> dict[str, Any]:
    """All that the study is, as JSON values: protocol, experiment, data, contenders with their configs, images."""
    experiment = session.get_one(Experiment, study.experiment_id)
    dataset = session.get_one(Dataset, experiment.dataset_id)
    runs = session.scalars(select(Run).where(Run.experiment_id == experiment.id).order_by(Run.id))
    contenders = session.execute(
        select(Arm, Trial)
        .select_from(StudyArm)
        .join(Arm, Arm.id == StudyArm.arm_id)
        .join(Trial, Trial.id == StudyArm.trial_id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    ).all()
    images = session.scalars(
        select(Image)
        .join(SentinelPicture, SentinelPicture.image_id == Image.id)
        .where(SentinelPicture.study_id == study.id)
        .order_by(Image.index_in_split)
    )
    asked = ("protocol", "question_count", "practice_count", "sentinel_count", "exposure_ms", "resampling", "seed")
    told = ("planned_participants", "exclusion_rule", "consent_version", "completion_url", "blinded", "id_parameter")
    return {
        "study": study.name,
        "created_at": study.created_at.isoformat(),
        "status": study.status,
        "closed_at": study.closed_at.isoformat() if study.closed_at else None,
        **{name: getattr(study, name) for name in (*asked, *told)},
        "experiment": {
            "name": experiment.name,
            "created_at": experiment.created_at.isoformat(),
            "config": experiment.config,
            "runs": [
                {
                    "started_at": run.started_at.isoformat(),
                    "code_version": run.code_version,
                    "environment": run.environment,
                }
                for run in runs
            ],
        },
        "dataset": {name: getattr(dataset, name) for name in ("name", "fingerprint", "note", "class_names")},
        "arms": [
            {
                "arm": arm.name,
                "rebalancing": arm.rebalancing,
                "options": arm.options,
                "trial": trial.number,
                "seed": trial.seed,
                "epochs_done": trial.epochs_done,
                "hyperparameters": trial.hyperparameters,
            }
            for arm, trial in contenders
        ],
        "images": [
            {"split": image.split, "index": image.index_in_split, "class": image.class_index} for image in images
        ],
    }
