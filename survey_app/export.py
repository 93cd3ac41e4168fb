"""A study as files: its votes as tidy CSV, one row a vote, and its whole definition as JSON.

docs/data-dictionary.md explains every column; a test holds it and COLUMNS equal.
"""

import csv
import json
from pathlib import Path

from sqlalchemy import Engine, select

from db.answers import ExclusionRule, check_outcomes_may_be_seen
from db.schema import Arm, Dataset, Image, Participant, Question, StudyArm, Trial, Vote
from db.store import read_session
from db.studies import find_study, study_definition

COLUMNS = (
    "study",
    "participant",
    "simulated",
    "attentive",
    "finished",
    "flags",
    "phase",
    "position",
    "kind",
    "sentinel",
    "arm",
    "trial",
    "image",
    "image_class",
    "real_side",
    "exposure_ms",
    "exposure_measured_ms",
    "response_time_ms",
    "answer",
    "correct",
    "picked_as_real",
    "input",
    "scale",
    "answered_at",
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
        rule = ExclusionRule(**study.exclusion_rule)
        dataset = session.scalars(
            select(Dataset).where(Dataset.fingerprint == definition["dataset"]["fingerprint"])
        ).one()
        found = session.execute(
            select(Participant, Question, Vote, Arm.name, Trial.ray_id, Image.index_in_split, Image.class_index)
            .join(Question, Question.participant_id == Participant.id)
            .join(Vote, Vote.question_id == Question.id)
            .join(Image, Image.id == Question.image_id)
            .outerjoin(StudyArm, StudyArm.id == Question.study_arm_id)
            .outerjoin(Arm, Arm.id == StudyArm.arm_id)
            .outerjoin(Trial, Trial.id == StudyArm.trial_id)
            .where(Participant.study_id == study.id, Participant.simulated.is_(simulated))
            # By pseudonym: the order in which people came is nobody's business.
            .order_by(Participant.pseudonym, Question.position)
        ).all()
    sentinels_wrong: dict[int, int] = {}
    for participant, question, vote, *_ in found:
        wrong = question.kind == "sentinel" and question.phase == "main" and not vote.correct
        sentinels_wrong[participant.id] = sentinels_wrong.get(participant.id, 0) + wrong
    rows = []
    for participant, question, vote, arm, trial, index, class_index in found:
        finished = participant.finished_at is not None
        attentive = rule.counts(sentinels_wrong=sentinels_wrong[participant.id], finished=finished)
        # Of the picture that the question is about: in a pair, whether it was preferred to the photograph.
        picked = vote.correct if question.kind == "real" else not vote.correct
        rows.append(
            {
                "study": study.name,
                "participant": participant.pseudonym,
                "simulated": int(participant.simulated),
                "attentive": int(attentive),
                "finished": int(finished),
                "flags": ";".join((participant.check or {}).get("flags", [])),
                "phase": question.phase,
                "position": question.position + 1,
                "kind": question.kind,
                "sentinel": int(question.kind == "sentinel"),
                "arm": arm,
                "trial": trial,
                "image": index,
                "image_class": dataset.class_names[class_index],
                "real_side": question.real_side,
                "exposure_ms": question.exposure_ms,
                "exposure_measured_ms": vote.exposure_measured_ms,
                "response_time_ms": vote.response_time_ms,
                "answer": vote.answer,
                "correct": int(vote.correct),
                "picked_as_real": int(picked),
                "input": vote.input,
                "scale": vote.scale,
                "answered_at": vote.answered_at.isoformat(timespec="milliseconds"),
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "votes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    text = json.dumps(definition, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "study.json").write_text(text + "\n", encoding="utf-8")
    return len(rows)
