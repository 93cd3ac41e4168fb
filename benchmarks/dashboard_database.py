"""A large database that no sweep made, to measure the dashboard with: `python -m benchmarks.dashboard_database PATH`.

The same rows every time: five models of 40 trials of 30 epochs with 100 pictures each, and as many votes as 1,250
participants give. Losses, scores and votes are drawn at random; the pictures are cut out of a photograph of a cat.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from skimage.data import chelsea
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from db.pictures import encoded
from db.recording import finish_experiment, record_arm, record_dataset, record_experiment, record_run
from db.schema import (
    Base,
    Image,
    Participant,
    Question,
    Report,
    Sample,
    SentinelPicture,
    StudyArm,
    Trial,
    TrialStatus,
    Vote,
)
from db.store import open_database, write_session
from db.studies import create_study

EXPERIMENT = "large"
ARMS: dict[str, float | None] = {  # λ
    "regression": None,
    "classification": 1.0,
    "rebalanced 0.75": 0.75,
    "rebalanced 0.5": 0.5,
    "rebalanced 0.25": 0.25,
}
BASELINES = ("most frequent bin", "grey")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINISHED, STOPPED, FAILED = 40, 5, 1  # trials per arm
EPOCHS = 30
IMAGES = 100
SIZE = 32  # pixels
PEOPLE, SIMULATED = 1220, 30
QUESTIONS, PRACTICE, SENTINELS = 40, 10, 4  # per participant
START = datetime(2026, 11, 1, tzinfo=UTC)
STATUSES: tuple[tuple[TrialStatus, int], ...] = (("finished", FINISHED), ("stopped_early", STOPPED), ("failed", FAILED))


def make_database(path: Path) -> None:
    """Write 200 finished trials of 30 epochs with 20,000 samples, 30 trials that did not finish, and 50,000 votes on
    main questions (12,500 more in practice) into a new SQLite file. Raises FileExistsError if there is one."""
    if path.exists():
        raise FileExistsError(f"{path} is there already; give another path, or delete it.")
    engine = open_database(path)
    chance = np.random.default_rng(0)
    with write_session(engine) as session:
        experiment_id, run_id, dataset_id = _experiment(session)
        truths = _photographs(chance)
        images = _insert(
            session,
            Image,
            [
                {
                    "dataset_id": dataset_id,
                    "split": "validation",
                    "index_in_split": index,
                    "class_index": index % len(CLASSES),
                    "truth_png": encoded(truth),
                    "width": SIZE,
                    "height": SIZE,
                }
                for index, truth in enumerate(truths)
            ],
        )
        for position, (arm, rebalancing) in enumerate(ARMS.items()):
            arm_id = record_arm(
                session,
                experiment_id=experiment_id,
                name=arm,
                position=position,
                options=_options(rebalancing),
                rebalancing=rebalancing,
            )
            trials = list(_trials(experiment_id, arm_id, position, chance))
            ids = _insert(session, Trial, trials)
            for trial_id, trial in zip(ids, trials, strict=True):
                session.execute(insert(Report), _reports((trial_id, run_id), trial["epochs_done"], position, chance))
                if trial["status"] == "finished":
                    share = (position + 1) / len(ARMS)
                    session.execute(insert(Sample), _samples(trial_id, images, truths, share, chance))
        _baselines(session, (experiment_id, run_id), images, truths, chance)
        finish_experiment(session, experiment_id, "finished", at=START + timedelta(days=2))
    study = create_study(engine, EXPERIMENT, seed=0, planned_participants=PEOPLE)
    _votes(engine, study.view.name, chance)
    engine.dispose()


def _experiment(session: Session) -> tuple[int, int, int]:
    """Ids of the experiment, its run and its dataset."""
    dataset_id = record_dataset(
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
    experiment_id = record_experiment(
        session,
        name=EXPERIMENT,
        dataset_id=dataset_id,
        config={
            "epochs": EPOCHS,
            "arms": {name: _options(rebalancing) for name, rebalancing in ARMS.items()},
            "search": {
                "method": "random",
                "trials_per_arm": FINISHED + STOPPED + FAILED,
                "space": {
                    "learning_rate": {"loguniform": [1e-4, 1e-2], "uniform": None},
                    "optimizer": ["adamw", "rmsprop"],
                    "filter_size": [3, 5, 7],
                },
            },
            "early_stopping": {"grace_epochs": 3, "reduction_factor": 3.0},
        },
        config_yaml="",
        profile=None,
        storage_path="",
        at=START,
    )
    run_id = record_run(session, experiment_id, code_version="benchmark", environment={}, at=START)
    return experiment_id, run_id, dataset_id


def _options(rebalancing: float | None) -> dict[str, Any]:
    return {"kind": "regression"} if rebalancing is None else {"kind": "classification", "rebalancing": rebalancing}


def _photographs(chance: np.random.Generator) -> list[np.ndarray]:
    """uint8 (SIZE, SIZE, 3) each."""
    cat = np.asarray(chelsea())  # type: ignore[no-untyped-call]
    corners = chance.integers(0, (cat.shape[0] - 2 * SIZE, cat.shape[1] - 2 * SIZE), size=(IMAGES, 2))
    return [
        np.asarray(Picture.fromarray(cat[y : y + 2 * SIZE, x : x + 2 * SIZE]).resize((SIZE, SIZE))) for y, x in corners
    ]


def _trials(
    experiment_id: int,
    arm_id: int,
    position: int,
    chance: np.random.Generator,
) -> Iterator[dict[str, Any]]:
    statuses = [status for status, count in STATUSES for _ in range(count)]
    for number, status in enumerate(chance.permutation(statuses).tolist()):
        epochs = {"finished": EPOCHS, "stopped_early": int(chance.choice([3, 9])), "failed": 2}[status]
        started = START + timedelta(minutes=10 * number + position)
        yield {
            "experiment_id": experiment_id,
            "arm_id": arm_id,
            "number": number + 1,
            "hyperparameters": {
                "learning_rate": float(10 ** chance.uniform(-4, -2)),
                "optimizer": str(chance.choice(["adamw", "rmsprop"])),
                "filter_size": int(chance.choice([3, 5, 7])),
            },
            "seed": number,
            "status": status,
            "failure_reason": "the loss is not finite (nan) in epoch 3" if status == "failed" else None,
            "epochs_done": epochs,
            "images_seen": 50_000 * epochs,
            "seconds": 20.0 * epochs,
            "started_at": started,
            "ended_at": started + timedelta(seconds=20 * epochs),
        }


def _reports(
    ids: tuple[int, int], epochs: int, position: int, chance: np.random.Generator, first: int = 1
) -> list[dict[str, Any]]:
    """ids: of the trial and of the run."""
    quality = chance.uniform(0.5, 1.0)
    rows: list[dict[str, Any]] = []
    for epoch in range(first, first + epochs):
        learnt = quality * (1 - np.exp(-epoch / 6)) + chance.normal(0, 0.005)
        splits = {"train": 1.03, "validation": 1.0}
        rows.append(
            {
                "trial_id": ids[0],
                "run_id": ids[1],
                "epoch": epoch,
                "images_seen": 45_000 * epoch,
                "seconds": 20.0 * epoch,
                "device": "cpu",
                "loss": (2e5 if position == 0 else 3.0) * (1.2 - 0.5 * learnt) if first else None,
                "scores": {
                    split: {
                        "exact_accuracy": 0.001 * learnt,
                        "bin_accuracy": lead * (0.24 - 0.02 * position) * learnt,
                        "balanced_bin_accuracy": lead * (0.01 + 0.005 * position) * learnt,
                        "information": lead * 0.3 * learnt,
                        "raw_auc": 0.8 * learnt,
                        "rebalanced_auc": 0.6 * learnt,
                        "psnr_db": 20.0 + 4 * learnt,
                        "delta_e_2000": 14.0 - 4 * learnt + 0.5 * position,
                        "colourfulness_ratio": 0.4 + 0.2 * position * learnt,
                    }
                    for split, lead in splits.items()
                },
                "standard_errors": {
                    split: {"bin_accuracy": 0.002, "balanced_bin_accuracy": 0.001, "raw_auc": 0.004} for split in splits
                },
                "class_bin_accuracy": {
                    split: [round(0.1 + 0.2 * learnt * value, 4) for value in chance.random(10)] for split in splits
                },
            }
        )
    return rows


def _samples(
    trial_id: int,
    images: Sequence[int],
    truths: Sequence[np.ndarray],
    share: float,
    chance: np.random.Generator,
    epoch: int = EPOCHS,
) -> list[dict[str, Any]]:
    """The photographs with about this share of their colour, and a tint."""
    rows: list[dict[str, Any]] = []
    for image, truth in zip(images, truths, strict=True):
        grey = truth.mean(axis=-1, keepdims=True)
        tint = chance.normal(0, 20 * share, size=3)
        rgb = np.clip(share * truth + (1 - share) * grey + tint, 0, 255).round().astype(np.uint8)
        error = {"delta_e_2000": float(chance.uniform(5, 15))}
        rows.append({"trial_id": trial_id, "image_id": image, "epoch": epoch, "png": encoded(rgb), "scores": error})
    return rows


def _baselines(
    session: Session,
    ids: tuple[int, int],
    images: Sequence[int],
    truths: Sequence[np.ndarray],
    chance: np.random.Generator,
) -> None:
    """ids: of the experiment and of the run."""
    experiment_id, run_id = ids
    for position, name in enumerate(BASELINES, start=len(ARMS)):
        arm_id = record_arm(
            session, experiment_id=experiment_id, name=name, position=position, options={}, baseline=True
        )
        trial = {"experiment_id": experiment_id, "arm_id": arm_id, "number": 1, "hyperparameters": {}, "seed": 0}
        (trial_id,) = _insert(session, Trial, [{**trial, "status": "finished", "started_at": START, "ended_at": START}])
        session.execute(insert(Report), _reports((trial_id, run_id), 1, position, chance, first=0))
        session.execute(insert(Sample), _samples(trial_id, images, truths, 0.0, chance, epoch=0))


def _votes(engine: Engine, study_name: str, chance: np.random.Generator) -> None:
    """Every participant finished. Contenders later in the study are picked as real more often."""
    with write_session(engine) as session:
        arms = list(session.scalars(select(StudyArm).order_by(StudyArm.position)))
        study_id, trials = arms[0].study_id, [arm.trial_id for arm in arms]
        samples = {
            (trial, image): sample
            for sample, trial, image in session.execute(
                select(Sample.id, Sample.trial_id, Sample.image_id).where(Sample.trial_id.in_(trials))
            )
        }
        sentinels = {
            image: sentinel
            for sentinel, image in session.execute(
                select(SentinelPicture.id, SentinelPicture.image_id).where(SentinelPicture.study_id == study_id)
            )
        }
        images = sorted(sentinels)
        count = PEOPLE + SIMULATED
        participants = _insert(
            session,
            Participant,
            [
                {
                    "study_id": study_id,
                    "token_hash": f"{number:064x}",
                    "completion_code": f"{number:012d}",
                    "pseudonym": f"{number:08d}",
                    "simulated": number >= PEOPLE,
                    "seed": number,
                    "tally": {},
                    "consent_version": "1",
                    "consented_at": START + timedelta(days=3, minutes=number),
                    "finished_at": START + timedelta(days=3, minutes=number + 4),
                    "ended_at": START + timedelta(days=3, minutes=number + 5),
                }
                for number in range(count)
            ],
        )
        shares = np.linspace(0.2, 0.45, len(arms))
        asked = PRACTICE + QUESTIONS
        for number, participant in enumerate(participants):
            order = chance.permutation(images)[:asked].tolist()
            things = np.arange(asked) % len(arms)
            sentinel_at = set((PRACTICE + chance.choice(QUESTIONS, SENTINELS, replace=False)).tolist())
            chance.shuffle(things[PRACTICE:])
            draws, left = chance.random(asked), chance.random(asked) < 0.5
            response_ms = chance.lognormal(np.log(900), 0.4, asked).round(1)
            questions: list[dict[str, Any]] = []
            for position, image in enumerate(order):
                sentinel = position in sentinel_at
                arm = arms[things[position]]
                questions.append(
                    {
                        "study_id": study_id,
                        "participant_id": participant,
                        "public_id": f"{number * asked + position:032x}",
                        "position": position,
                        "phase": "practice" if position < PRACTICE else "main",
                        "kind": "sentinel" if sentinel else "arm",
                        "study_arm_id": None if sentinel else arm.id,
                        "image_id": image,
                        "sample_id": None if sentinel else samples[arm.trial_id, image],
                        "sentinel_picture_id": sentinels[image] if sentinel else None,
                        "real_side": "left" if left[position] else "right",
                    }
                )
            rows: list[dict[str, Any]] = []
            for position, question_id in enumerate(_insert(session, Question, questions)):
                fooled = 0.05 if position in sentinel_at else shares[things[position]]
                correct = bool(draws[position] >= fooled)
                side = questions[position]["real_side"]
                rows.append(
                    {
                        "question_id": question_id,
                        "answered_at": START + timedelta(days=3, minutes=number, seconds=position + 1),
                        "answer": side if correct else "right" if side == "left" else "left",
                        "correct": correct,
                        "response_time_ms": float(response_ms[position]),
                        "exposure_measured_ms": 1000.0,
                        "input": "key",
                        "scale": 8,
                        "device_pixel_ratio": 2.0,
                        "flags": [],
                    }
                )
            session.execute(insert(Vote), rows)


def _insert(session: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows and return their ids, in the same order."""
    return list(session.scalars(insert(table).returning(table.id, sort_by_parameter_order=True), list(rows)))  # type: ignore[attr-defined]


if __name__ == "__main__":
    make_database(Path(sys.argv[1]))
