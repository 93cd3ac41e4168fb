"""A large database that no sweep made, to measure the dashboard with: `python -m benchmarks.dashboard_database PATH`.

The same sweep every time: three models and two readings of one of them, 40 finished trials of 30 epochs each with 100
pictures each, and as many votes as 1,250 participants give. Losses, scores and votes are drawn at random; the pictures
are cut out of a photograph of a cat.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from db.schema import Participant, Question, Study, StudyArm, TrialStatus, Vote
from db.store import open_database, write_session
from db.surveys.enrolment import enrol
from db.surveys.study import create_study
from db.sweeps import recording
from tests.survey_data import WRONG, begin_experiment, colourized, photographs, png, record_photographs

EXPERIMENT = "large"
ARMS: dict[str, dict[str, Any]] = {
    "regression": {"kind": "regression"},
    "classification": {"kind": "classification"},
    "rebalanced 0.5": {"kind": "classification", "rebalancing": 0.5},
    "tilted 0.5": {"renders": "classification", "tilt": 0.5},
    "tilted 0.25": {"renders": "classification", "tilt": 0.25},
}
LAMBDAS = {"classification": 1.0, "rebalanced 0.5": 0.5, "tilted 0.5": 0.5, "tilted 0.25": 0.25}
BASELINES = ("most frequent bin", "grey")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STATUSES: dict[TrialStatus, int] = {"finished": 40, "stopped_early": 5, "failed": 1}  # trials per arm
EPOCHS = 30
IMAGES = 100
SIZE = 32  # pixels
PEOPLE, SIMULATED = 1220, 30
START = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Begun:
    """An experiment before its first trial, and all that its trials paint."""

    experiment_id: int
    run_id: int
    arm_ids: dict[str, int]
    image_ids: list[int]
    pictures: dict[str, list[bytes]]  # of each arm, one for each image


def make_database(path: Path) -> None:
    """Write 200 finished trials of 30 epochs with 20,000 samples, 30 trials that did not finish, and 50,000 votes on
    main questions (12,500 more in practice) into a new SQLite file. Raises FileExistsError if there is one."""
    if path.exists():
        raise FileExistsError(f"{path} is there already; give another path, or delete it.")
    engine = open_database(path)
    chance = np.random.default_rng(0)
    statuses = chance.permutation([status for status, count in STATUSES.items() for _ in range(count)]).tolist()
    with write_session(engine) as session:
        begun = begin(session, EXPERIMENT, ARMS, images=IMAGES, trials_per_arm=len(statuses), epochs=EPOCHS)
        for number, status in enumerate(statuses, start=1):
            epochs = {"finished": EPOCHS, "stopped_early": int(chance.choice([3, 9])), "failed": 2}[status]
            for arm in ARMS:
                trial_id = record_trial(session, begun, arm, number, "running")
                for epoch in range(1, epochs + 1):
                    record_report(session, begun, trial_id, arm, number, epoch)
                if status == "finished":
                    record_samples(session, begun, trial_id, arm, epochs)
                record_trial(session, begun, arm, number, status)
        for arm in BASELINES:
            trial_id = record_trial(session, begun, arm, 1, "finished")
            record_report(session, begun, trial_id, arm, 1, 0)
            record_samples(session, begun, trial_id, arm, 0)
        recording.finish_experiment(session, begun.experiment_id, "finished")
    create_study(engine, EXPERIMENT, seed=0, planned_participants=PEOPLE)
    answer_at_once(engine, EXPERIMENT, PEOPLE)
    answer_at_once(engine, EXPERIMENT, SIMULATED, simulated=True)
    engine.dispose()


def begin(
    session: Session, name: str, arms: dict[str, dict[str, Any]], *, images: int, trials_per_arm: int, epochs: int
) -> Begun:
    """Record an experiment of these arms and the baselines, and photographs to paint."""
    space = {
        "learning_rate": {"loguniform": [1e-4, 1e-2]},
        "optimizer": ["adamw", "rmsprop"],
        "filter_size": [3, 5, 7],
    }
    config = {
        "epochs": epochs,
        "arms": arms,
        "search": {"method": "random", "trials_per_arm": trials_per_arm, "space": space},
        "early_stopping": {"grace_epochs": 3, "reduction_factor": 3.0},
    }
    dataset_id, experiment_id, run_id = begin_experiment(
        session, name, config, fingerprint="made up for benchmarks", images=images, class_names=CLASSES
    )
    arm_ids = {
        arm: recording.record_arm(
            session,
            experiment_id=experiment_id,
            name=arm,
            position=position,
            options=arms.get(arm, {"kind": arm}),
            baseline=arm in BASELINES,
            rebalancing=LAMBDAS.get(arm),
        )
        for position, arm in enumerate([*arms, *BASELINES])
    }
    truths = photographs(images, SIZE)
    image_ids = record_photographs(session, dataset_id, truths, len(CLASSES))
    pictures = {
        arm: [png(colourized(truth, position / len(arm_ids))) for truth in truths]
        for position, arm in enumerate(arm_ids)
    }
    return Begun(experiment_id, run_id, arm_ids, image_ids, pictures)


def record_trial(session: Session, begun: Begun, arm: str, number: int, status: TrialStatus) -> int:
    chance = np.random.default_rng(number)  # every arm tries the same
    hyperparameters = {
        "learning_rate": float(10 ** chance.uniform(-4, -2)),
        "optimizer": str(chance.choice(["adamw", "rmsprop"])),
        "filter_size": int(chance.choice([3, 5, 7])),
        "epochs": EPOCHS,
    }
    return recording.record_trial(
        session,
        experiment_id=begun.experiment_id,
        arm_id=begun.arm_ids[arm],
        number=number,
        hyperparameters={} if arm in BASELINES else hyperparameters,
        seed=number,
        status=status,
        failure_reason="the loss is not finite (nan) in epoch 3" if status == "failed" else None,
    )


def record_report(session: Session, begun: Begun, trial_id: int, arm: str, number: int, epoch: int) -> None:
    position = list(begun.arm_ids).index(arm)
    chance = np.random.default_rng((number, position, epoch))
    quality = 0.5 + number * 7919 % 1000 / 2000  # of the trial
    learnt = quality * (1 - np.exp(-(epoch or EPOCHS) / 6)) + float(chance.normal(0, 0.005))
    scores = {
        "bin_accuracy": (0.24 - 0.02 * position) * learnt,
        "balanced_bin_accuracy": (0.01 + 0.005 * position) * learnt,
        "information": 0.3 * learnt,
        "exact_accuracy": 0.001 * learnt,
        "raw_auc": 0.8 * learnt,
        "rebalanced_auc": 0.6 * learnt,
        "psnr_db": 20.0 + 4 * learnt,
        "delta_e_2000": 14.0 - 4 * learnt + 0.5 * position,
        "colourfulness_ratio": 0.4 + 0.2 * position * learnt,
    }
    loss = (2e5 if arm == "regression" else 3.0) * (1.2 - 0.5 * learnt)
    errors = {name: 0.02 * abs(value) for name, value in scores.items()}
    of_classes = [round(0.1 + 0.2 * learnt * value, 4) for value in chance.random(len(CLASSES))]
    baseline = arm in BASELINES
    with_loss = scores if baseline else {"loss": loss, **scores}
    recording.record_report(
        session,
        trial_id,
        run_id=begun.run_id,
        epoch=epoch,
        images_seen=45_000 * epoch,
        seconds=20.0 * epoch,
        device="none",
        loss=None if baseline else loss,
        scores={"train": with_loss, "validation": with_loss},
        standard_errors={"train": errors, "validation": errors},
        class_bin_accuracy={"train": of_classes, "validation": of_classes},
    )


def record_samples(session: Session, begun: Begun, trial_id: int, arm: str, epoch: int) -> None:
    errors = np.random.default_rng(trial_id).gamma(8, 1.5, size=len(begun.image_ids)).tolist()
    for image_id, picture, error in zip(begun.image_ids, begun.pictures[arm], errors, strict=True):
        recording.record_sample(
            session,
            trial_id=trial_id,
            image_id=image_id,
            epoch=epoch,
            png=picture,
            scores={"delta_e_2000": error},
        )


def answer_at_once(engine: Engine, study: str, people: int, *, simulated: bool = False) -> None:
    """So many further participants of a study of pairs finish it, written in one go: contenders later in the study are
    picked as real more often, sentinels hardly ever."""
    for seed in range(people):
        enrol(engine, study, simulated=simulated, seed=seed)
    chance, now = np.random.default_rng(people), datetime.now(UTC)
    with write_session(engine) as session:
        new = select(Participant.id).join(Study, Study.id == Participant.study_id)
        new = new.where(Study.name == study, Participant.finished_at.is_(None))
        questions = select(Question).where(Question.participant_id.in_(new)).order_by(Question.id)
        positions = {arm.id: arm.position for arm in session.scalars(select(StudyArm))}
        asked = session.scalars(questions).all()
        votes = []
        for question, luck in zip(asked, chance.random(len(asked)), strict=True):
            fooled = luck < (0.05 if question.study_arm_id is None else 0.2 + 0.05 * positions[question.study_arm_id])
            votes.append(
                {
                    "question_id": question.id,
                    "answered_at": now,
                    "answer": WRONG[question.right_answer] if fooled else question.right_answer,
                    "correct": not fooled,
                    "response_time_ms": float(chance.lognormal(6.8, 0.4)),
                    "exposure_measured_ms": 1000.0,
                    "input": "key",
                    "scale": 9,
                    "device_pixel_ratio": 1.0,
                    "flags": [],
                }
            )
        session.execute(insert(Vote), votes)
        check: dict[str, Any] = {"answers": {}, "flags": []}
        done = {"instructions_done_at": now, "check": check, "finished_at": now}
        session.execute(update(Participant).where(Participant.id.in_(new)).values(done))


if __name__ == "__main__":
    make_database(Path(sys.argv[1]))
