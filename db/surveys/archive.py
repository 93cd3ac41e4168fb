"""A study as files: its votes as tidy CSV, one row per vote, and its whole definition as JSON.

docs/data-dictionary.md explains every column.
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.schema import Base, Image, SentinelPicture, Study
from db.store import read_session
from db.surveys.study import find_study
from db.surveys.votes_frame import votes_frame
from db.sweeps.trials import contenders


def export_study(engine: Engine, name: str, folder: Path, *, simulated: bool = False) -> int:
    """Write votes.csv and study.json into the folder (made if it is not there) and return the number of votes.

    Of people, or of simulated participants instead. Raises SurveyError if there is no such study,
    StudyBlinded, OSError.
    """
    with read_session(engine) as session:
        votes = votes_frame(session, name, simulated=simulated)
        definition = study_definition(session, find_study(session, name))
    folder.mkdir(parents=True, exist_ok=True)
    votes.to_csv(folder / "votes.csv", index=False, lineterminator="\n", encoding="utf-8")
    text = json.dumps(definition, indent=2, ensure_ascii=False, allow_nan=False, default=datetime.isoformat)
    (folder / "study.json").write_text(text + "\n", encoding="utf-8")
    return len(votes)


def study_definition(session: Session, study: Study) -> dict[str, Any]:
    """All that the study is, for JSON: protocol, experiment, data, contenders with their options, images."""
    experiment = study.experiment
    images = (
        select(Image)
        .join(SentinelPicture, SentinelPicture.image_id == Image.id)
        .where(SentinelPicture.study_id == study.id)
        .order_by(Image.index_in_split)
    )
    as_stored = [
        column.name for column in Study.__table__.columns if column.name not in ("id", "name", "experiment_id")
    ]
    return {
        "study": study.name,
        **_values(study, *sorted(as_stored)),
        "experiment": {
            **_values(experiment, "name", "created_at", "config"),
            "runs": [_values(run, "started_at", "code_version", "environment") for run in experiment.runs],
        },
        "dataset": _values(experiment.dataset, "name", "fingerprint", "note", "class_names"),
        "arms": [
            {
                "arm": trial.arm.name,
                **_values(trial.arm, "options", "rebalancing"),
                "trial": trial.number,
                **_values(trial, "seed", "epochs_done", "hyperparameters"),
            }
            for trial in contenders(session, study)
        ],
        "images": [
            {"split": image.split, "index": image.index_in_split, "class": image.class_index}
            for image in session.scalars(images)
        ],
    }


def _values(row: Base, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
