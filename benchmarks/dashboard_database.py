"""A large database that no sweep made, to measure the dashboard with: `python -m benchmarks.dashboard_database PATH`.

The same rows every time: three models and two readings of one of them, 40 finished trials of 30 epochs each with 100
pictures each, and as many votes as 1,250 participants give. Losses, scores and votes are drawn at random; the pictures
are cut out of a photograph of a cat.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from skimage.data import chelsea
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from db.schema import (
    Base,
    Participant,
    Question,
    QuestionKind,
    Sample,
    SentinelPicture,
    Side,
    Study,
    StudyArm,
    TrialStatus,
    Vote,
)
from db.store import open_database, write_session
from db.surveys.sentinels import encode_png
from db.surveys.study import create_study
from db.sweeps import recording

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
        recording.finish_experiment(session, begun.experiment_id, "finished", at=START + timedelta(days=2))
    create_study(engine, EXPERIMENT, seed=0, planned_participants=PEOPLE)
    add_votes(engine, EXPERIMENT, people=PEOPLE, simulated=SIMULATED)
    engine.dispose()


def begin(
    session: Session, name: str, arms: dict[str, dict[str, Any]], *, images: int, trials_per_arm: int, epochs: int
) -> Begun:
    """Record an experiment of these arms and the baselines, and photographs to paint."""
    truths = _photographs(images)
    dataset_id = recording.record_dataset(
        session,
        name="made up",
        fingerprint="made up for benchmarks",
        note="Cut-outs of one photograph; scores and votes drawn at random.",
        class_names=CLASSES,
        train_count=45_000,
        tuning_count=5_000,
        validation_count=10_000,
        validation_class_counts=[1000] * len(CLASSES),
        colour_counts=b"",
    )
    space = {
        "learning_rate": {"loguniform": [1e-4, 1e-2], "uniform": None},
        "optimizer": ["adamw", "rmsprop"],
        "filter_size": [3, 5, 7],
    }
    experiment_id = recording.record_experiment(
        session,
        name=name,
        dataset_id=dataset_id,
        config={
            "experiment": name,
            "dataset": ["photos"],
            "epochs": epochs,
            "arms": arms,
            "search": {"method": "random", "trials_per_arm": trials_per_arm, "space": space},
            "early_stopping": {"grace_epochs": 3, "reduction_factor": 3.0},
        },
        config_yaml="",
        storage_path="",
        at=START,
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
    image_ids = [
        recording.record_image(
            session,
            dataset_id=dataset_id,
            split="validation",
            index_in_split=index,
            class_index=index % len(CLASSES),
            truth_png=encode_png(truth),
            width=SIZE,
            height=SIZE,
        )
        for index, truth in enumerate(truths)
    ]
    run_id = recording.record_run(session, experiment_id, code_version="benchmark", environment={}, at=START)
    pictures = {arm: _painted(truths, position / len(arm_ids)) for position, arm in enumerate(arm_ids)}
    return Begun(experiment_id, run_id, arm_ids, image_ids, pictures)


def _photographs(count: int) -> list[np.ndarray]:
    """uint8 (SIZE, SIZE, 3) each."""
    cat = np.asarray(chelsea())  # type: ignore[no-untyped-call]
    corners = np.random.default_rng(0).integers(0, (cat.shape[0] - 2 * SIZE, cat.shape[1] - 2 * SIZE), size=(count, 2))
    return [
        np.asarray(Picture.fromarray(cat[y : y + 2 * SIZE, x : x + 2 * SIZE]).resize((SIZE, SIZE))) for y, x in corners
    ]


def _painted(truths: Sequence[np.ndarray], share: float) -> list[bytes]:
    """The photographs with this share of their colour, and a tint."""
    chance = np.random.default_rng(round(1000 * share))
    pngs = []
    for truth in truths:
        grey = truth.mean(axis=-1, keepdims=True)
        rgb = share * truth + (1 - share) * grey + chance.normal(0, 20 * share, size=3)
        pngs.append(encode_png(np.clip(rgb, 0, 255).round().astype(np.uint8)))
    return pngs


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
        at=START + timedelta(minutes=10 * number + (0 if status == "running" else 9)),
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
    for image_id, png, error in zip(begun.image_ids, begun.pictures[arm], errors, strict=True):
        recording.record_sample(
            session,
            trial_id=trial_id,
            image_id=image_id,
            epoch=epoch,
            decoding=None,
            png=png,
            scores={"delta_e_2000": error},
        )


def add_votes(engine: Engine, study_name: str, *, people: int, simulated: int = 0) -> None:
    """Every participant of a study of pairs finished. Contenders later in it are picked as real more often."""
    chance = np.random.default_rng(0)
    with write_session(engine) as session:
        study = session.scalars(select(Study).where(Study.name == study_name)).one()
        arms = list(session.scalars(select(StudyArm).where(StudyArm.study_id == study.id).order_by(StudyArm.position)))
        of_contenders = select(Sample).where(Sample.trial_id.in_([arm.trial_id for arm in arms]))
        samples = {(sample.trial_id, sample.image_id): sample.id for sample in session.scalars(of_contenders)}
        of_study = select(SentinelPicture).where(SentinelPicture.study_id == study.id)
        sentinels = {sentinel.image_id: sentinel.id for sentinel in session.scalars(of_study)}
        shares = np.linspace(0.2, 0.45, len(arms))
        for number, participant_id in enumerate(_participants(session, study.id, people, simulated)):
            asked = study.practice_count + study.question_count
            # Positions in a random order of the main questions: the first are sentinels, the others ask arms in turn.
            main = study.practice_count + chance.permutation(study.question_count)
            sentinel_at = set(main[: study.sentinel_count].tolist())
            contender = np.zeros(asked, dtype=int)
            contender[[*range(study.practice_count), *main]] = np.arange(asked) % len(arms)
            sides: list[Side] = ["left" if left else "right" for left in chance.random(asked) < 0.5]
            fooled = np.where([p in sentinel_at for p in range(asked)], 0.05, shares[contender])
            correct = chance.random(asked) >= fooled
            response_ms = chance.lognormal(np.log(900), 0.4, asked).round(1).tolist()
            questions: list[dict[str, Any]] = []
            for position, image in enumerate(chance.permutation(sorted(sentinels))[:asked].tolist()):
                sentinel, arm = position in sentinel_at, arms[contender[position]]
                kind: QuestionKind = "sentinel" if sentinel else "arm"
                questions.append(
                    {
                        "study_id": study.id,
                        "participant_id": participant_id,
                        "public_id": f"{number * asked + position:032x}",
                        "position": position,
                        "phase": "practice" if position < study.practice_count else "main",
                        "kind": kind,
                        "study_arm_id": None if sentinel else arm.id,
                        "image_id": image,
                        "sample_id": None if sentinel else samples[arm.trial_id, image],
                        "sentinel_picture_id": sentinels[image] if sentinel else None,
                        "real_side": sides[position],
                    }
                )
            votes = [
                {
                    "question_id": question_id,
                    "answered_at": START + timedelta(days=3, minutes=number, seconds=position + 1),
                    "answer": side if right else "right" if side == "left" else "left",
                    "correct": right,
                    "response_time_ms": response_ms[position],
                    "exposure_measured_ms": 1000.0,
                    "input": "key",
                    "scale": 8,
                    "device_pixel_ratio": 2.0,
                    "flags": [],
                }
                for position, (question_id, side, right) in enumerate(
                    zip(_insert(session, Question, questions), sides, correct.tolist(), strict=True)
                )
            ]
            session.execute(insert(Vote), votes)


def _participants(session: Session, study_id: int, people: int, simulated: int) -> list[int]:
    rows = [
        {
            "study_id": study_id,
            "token_hash": f"{number:064x}",
            "completion_code": f"{number:012d}",
            "pseudonym": f"{number:08d}",
            "simulated": number >= people,
            "seed": number,
            "tally": {},
            "consent_version": "1",
            "consented_at": START + timedelta(days=3, minutes=number),
            "finished_at": START + timedelta(days=3, minutes=number + 4),
            "ended_at": START + timedelta(days=3, minutes=number + 5),
        }
        for number in range(people + simulated)
    ]
    return _insert(session, Participant, rows)


def _insert(session: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows and return their ids, in the same order."""
    return list(session.scalars(insert(table).returning(table.id, sort_by_parameter_order=True), list(rows)))  # type: ignore[attr-defined]


if __name__ == "__main__":
    make_database(Path(sys.argv[1]))
