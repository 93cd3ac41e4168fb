"""A small finished experiment with pictures, for tests of the survey: photographs, three models, a baseline; and
participants who answer."""

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from skimage.data import chelsea
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from db.schema import Arm, Question, StudyArm
from db.store import read_session, write_session
from db.surveys.enrolment import enrol
from db.surveys.study import Turnout, count_turnout, find_study
from db.surveys.votes import finish_instructions, progress, record_check, record_vote
from db.sweeps.recording import (
    finish_experiment,
    record_arm,
    record_dataset,
    record_experiment,
    record_image,
    record_report,
    record_run,
    record_sample,
    record_trial,
)
from platform.running.config import SweepConfig

ARMS = ("regression", "classification", "rebalanced 0.25")
WRONG = {"left": "right", "right": "left", "real": "fake", "fake": "real"}
LAMBDAS = {"classification": 1.0, "rebalanced 0.25": 0.25}


def png(rgb: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG")
    return buffer.getvalue()


def photographs(count: int, size: int = 16) -> list[np.ndarray]:
    """Different cut-outs of one photograph of a cat, uint8 (size, size, 3)."""
    cat = np.asarray(chelsea())  # type: ignore[no-untyped-call]
    chance = np.random.default_rng(0)
    corners = chance.integers(0, (cat.shape[0] - size, cat.shape[1] - size), size=(count, 2))
    return [np.ascontiguousarray(cat[y : y + size, x : x + size]) for y, x in corners]


def colourized(photograph: np.ndarray, share: float) -> np.ndarray:
    """The photograph with this share of its colours: 0 is grey."""
    grey = photograph.mean(axis=-1, keepdims=True)
    return np.asarray(np.round(share * photograph + (1 - share) * grey), dtype=np.uint8)


def config_with(experiment: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A whole config of a sweep, as it is recorded, with these parts."""
    search = {"method": "random", "trials_per_arm": 2, "space": {"learning_rate": [0.001]}}
    arms = {"regression": {"kind": "regression"}, "rebalanced": {"kind": "classification", "rebalancing": 0.5}}
    whole = {"experiment": experiment, "dataset": ["photos"], "epochs": 3, "arms": arms, **parts}
    return SweepConfig.model_validate(whole | {"search": search | whole.get("search", {})}).model_dump(mode="json")


def begin_experiment(
    session: Session,
    name: str,
    config: dict[str, Any],
    *,
    fingerprint: str,
    images: int,
    class_names: Sequence[str] = ("cat",),
) -> tuple[int, int, int]:
    """Record an experiment on so many validation images of these classes; its dataset's id, its own, its run's."""
    dataset_id = record_dataset(
        session,
        name="cats",
        fingerprint=fingerprint,
        note="Cut-outs of one photograph.",
        class_names=list(class_names),
        validation_class_counts=np.bincount(np.arange(images) % len(class_names)).tolist(),
        colour_counts=b"",
    )
    experiment_id = record_experiment(
        session,
        name=name,
        dataset_id=dataset_id,
        config=config_with(name, config),
        config_yaml="",
        storage_path="results",
    )
    return dataset_id, experiment_id, record_run(session, experiment_id, code_version="test", environment={})


def record_photographs(session: Session, dataset_id: int, pictures: Sequence[np.ndarray], classes: int) -> list[int]:
    """Record validation images of so many classes in turn, and return their ids."""
    return [
        record_image(
            session,
            dataset_id=dataset_id,
            split="validation",
            index_in_split=index,
            class_index=index % classes,
            truth_png=png(picture),
            width=picture.shape[1],
            height=picture.shape[0],
        )
        for index, picture in enumerate(pictures)
    ]


def add_experiment(
    engine: Engine, name: str = "cats", *, images: int = 60, arms: Sequence[str] = ARMS, size: int = 16
) -> int:
    """Record a finished experiment on `images` photographs: two finished trials per arm, the second better, with
    pictures of all of them; so has the baseline "grey"."""
    pictures = photographs(images, size)
    config = {"search": {"space": {"learning_rate": {"loguniform": [0.001, 0.01]}}}}
    with write_session(engine) as session:
        dataset_id, experiment_id, run_id = begin_experiment(
            session, name, config, fingerprint=f"cats {images} {size}", images=images
        )
        rows = record_photographs(session, dataset_id, pictures, 1)
        for position, arm in enumerate([*arms, "grey"]):
            baseline = arm == "grey"
            arm_id = record_arm(
                session,
                experiment_id=experiment_id,
                name=arm,
                position=position,
                options={} if baseline else {"kind": "regression" if arm == "regression" else "classification"},
                rebalancing=LAMBDAS.get(arm),
                baseline=baseline,
            )
            share = 0.0 if baseline else (position % len(ARMS) + 1) / (len(ARMS) + 1)
            shown = [png(colourized(picture, share)) for picture in pictures]
            pngs = dict(zip(rows, shown, strict=True))
            for number in range(1, 2 if baseline else 3):
                trial_id = record_trial(
                    session,
                    experiment_id=experiment_id,
                    arm_id=arm_id,
                    number=number,
                    hyperparameters={} if baseline else {"learning_rate": 0.001 * number},
                    seed=number,
                    status="finished",
                )
                _measure(session, trial_id, run_id, position, None if baseline else 3.0 - number, pngs)
        finish_experiment(session, experiment_id, "finished")
    return experiment_id


def _measure(
    session: Session, trial_id: int, run_id: int, position: int, loss: float | None, pngs: dict[int, bytes]
) -> None:
    """Report a trial's last epoch, a baseline's where there is no loss, and its pictures, by their images' ids."""
    epoch = 0 if loss is None else 2
    scores = {"bin_accuracy": 0.2 + 0.01 * position, "exact_accuracy": 0.001}
    record_report(
        session,
        trial_id,
        run_id=run_id,
        epoch=epoch,
        images_seen=100 * epoch,
        seconds=1.0,
        device="cpu",
        loss=loss,
        scores={"train": scores, "validation": scores},
        standard_errors={"validation": {"bin_accuracy": 0.01}},
        class_bin_accuracy={"train": [0.2], "validation": [0.2]},
    )
    for image, picture in pngs.items():
        record_sample(
            session,
            trial_id=trial_id,
            image_id=image,
            epoch=epoch,
            png=picture,
            scores={"delta_e_2000": 10.0 - position},
        )


def to_first_question(
    engine: Engine,
    study: str,
    *,
    link: Mapping[str, str] | None = None,
    simulated: bool = False,
    flags: Sequence[str] = ("brightness",),
) -> str:
    """Take part in a study up to the first question, and return the token. flags: of the display check."""
    token = enrol(engine, study, link=link, simulated=simulated)
    finish_instructions(engine, token)
    record_check(engine, token, {"plates": [74, None]}, flags)
    return token


def answer_all(
    engine: Engine,
    study: str,
    *,
    wrong: Collection[str] = (),
    questions: int = 100,
    link: Mapping[str, str] | None = None,
    simulated: bool = False,
    flags: Sequence[str] = (),
) -> str:
    """Take part, answer at most so many questions, all about the arms named, "sentinel" or "real", wrong, and all else
    right. Returns the token."""
    token = to_first_question(engine, study, link=link, simulated=simulated, flags=flags)
    for _ in range(questions):
        now = progress(engine, token)
        if now is None or now.next is None:
            break
        with read_session(engine) as session:
            question, arm = session.execute(
                select(Question, Arm.name)
                .outerjoin(StudyArm, StudyArm.id == Question.study_arm_id)
                .outerjoin(Arm, Arm.id == StudyArm.arm_id)
                .where(Question.public_id == now.next.public_id)
            ).one()
        right = question.right_answer
        answer = WRONG[right] if (arm or question.kind) in wrong else right
        measured = {"response_time_ms": 700, "exposure_measured_ms": None, "input": "click", "scale": 4}
        assert record_vote(engine, token, now.next.public_id, answer, **measured).status == "stored"
    return token


def turnout(engine: Engine, study: str) -> Turnout:
    with read_session(engine) as session:
        return count_turnout(session, find_study(session, study))
