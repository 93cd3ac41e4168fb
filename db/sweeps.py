"""What a sweep tried, how far each trial came and what it learnt on the way, as queries. Baselines are left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

import numpy as np
from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from db.schema import (
    SCORE_NAMES,
    Arm,
    ArmKind,
    Experiment,
    ExperimentStatus,
    Measurement,
    Split,
    Trial,
    TrialStatus,
)

MEASURES = ("loss", *SCORE_NAMES)
OF_TRIAL = (
    *("id", "ray_id", "config", "seed", "status", "failure_reason"),
    *("epochs_done", "images_seen", "seconds", "started_at", "ended_at"),
)
UNDER_WAY: tuple[TrialStatus, ...] = ("pending", "running")


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep was to try, by its config.

    arms: in their order. searched: for each hyperparameter that differs between the trials of an arm, its values, or
    None for a range; log_scaled: those drawn evenly in their logarithm. epochs: of a trial that is not stopped. rungs:
    after so many epochs ASHA may stop a trial (Li et al. 2020). trials: in all. epochs and trials are None where the
    config does not say. same_draws: a trial of the same number has the same hyperparameters in every arm.
    """

    arms: tuple[str, ...]
    searched: dict[str, tuple[Any, ...] | None]
    log_scaled: frozenset[str]
    epochs: int | None
    rungs: tuple[int, ...]
    trials: int | None
    same_draws: bool


@dataclass(frozen=True)
class SweptTrial:
    """One trial and what it measured on the validation split after its last epoch ("loss" and the scores of
    SCORE_NAMES, without those that were undefined; empty before its first epoch).

    number: from 1 within its arm. seconds: of training, as of its last report.
    """

    id: int
    arm: str
    kind: ArmKind
    rebalancing: float | None
    number: int
    ray_id: str
    config: dict[str, Any]
    seed: int
    status: TrialStatus
    failure_reason: str | None
    epochs_done: int
    images_seen: int
    seconds: float
    started_at: datetime | None
    ended_at: datetime | None
    validation: dict[str, float]


@dataclass(frozen=True)
class LearningCurves:
    """A measure after each epoch: arrays (measurements,), sorted by trial, split and epoch."""

    trial_id: np.ndarray
    train: np.ndarray  # bool: of the training split, else of the validation split
    epoch: np.ndarray
    value: np.ndarray


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is. running: (arm, epochs done) of the trials under way now."""

    status: ExperimentStatus
    trials: dict[TrialStatus, int]
    epochs_done: int
    images_seen: int
    running: tuple[tuple[str, int], ...]

    @property
    def ended(self) -> int:
        return sum(count for status, count in self.trials.items() if status not in UNDER_WAY)


def sweep_plan(session: Session, experiment_id: int) -> SweepPlan:
    """The plan of the experiment with this id."""
    config = session.get_one(Experiment, experiment_id).config
    arms = session.scalars(
        select(Arm.name)
        .where(Arm.experiment_id == experiment_id, Arm.kind != "baseline")
        .order_by(Arm.position, Arm.id)
    ).all()
    search = config.get("search", {})
    space = {name: values for name, values in search.get("space", {}).items() if values is not None}
    searched = {name: tuple(values) if isinstance(values, list) else None for name, values in space.items()}
    each = search.get("trials_per_arm")
    if each is None and searched and None not in searched.values():  # a grid
        each = int(np.prod([len(values) for values in searched.values() if values is not None]))
    epochs, stopping = config.get("epochs"), config.get("early_stopping")
    return SweepPlan(
        arms=tuple(arms),
        searched=searched,
        log_scaled=frozenset(
            name for name, values in space.items() if isinstance(values, dict) and values.get("loguniform")
        ),
        epochs=epochs,
        rungs=asha_rungs(epochs, stopping["grace_epochs"], stopping["reduction_factor"]) if epochs and stopping else (),
        trials=None if each is None else each * len(arms),
        same_draws=search.get("method") != "optuna",
    )


def swept_trials(session: Session, experiment_id: int) -> list[SweptTrial]:
    """All trials of the experiment, arm by arm, in the order in which they were made."""
    columns = {
        "arm": Arm.name,
        "kind": Arm.kind,
        "rebalancing": Arm.rebalancing,
        **{name: getattr(Trial, name) for name in OF_TRIAL},
    }
    rows = session.execute(
        select(*columns.values(), *(getattr(Measurement, name) for name in MEASURES))
        .join(Arm, Arm.id == Trial.arm_id)
        .outerjoin(
            Measurement,
            and_(
                Measurement.trial_id == Trial.id,
                Measurement.epoch == Trial.epochs_done,
                Measurement.split == "validation",
            ),
        )
        .where(Trial.experiment_id == experiment_id, Arm.kind != "baseline")
        .order_by(Arm.position, Arm.id, Trial.id)
    )
    numbers: dict[str, int] = {}
    trials = []
    for row in rows:
        arm = row[0]
        numbers[arm] = numbers.get(arm, 0) + 1
        measured = dict(zip(MEASURES, row[len(columns) :], strict=True))
        known = {name: value for name, value in measured.items() if value is not None}
        trials.append(SweptTrial(**dict(zip(columns, row, strict=False)), number=numbers[arm], validation=known))
    return trials


def best_of_arms(trials: Sequence[SweptTrial]) -> dict[str, SweptTrial]:
    """Of each arm that has one, the finished trial with the lowest validation loss after its last epoch."""
    finished = [trial for trial in trials if trial.status == "finished" and "loss" in trial.validation]
    ranked = sorted(finished, key=lambda trial: (trial.validation["loss"], trial.id), reverse=True)
    return {trial.arm: trial for trial in ranked}


def learning_curves(
    session: Session, experiment_id: int, measure: str, on_train_too: Sequence[int] = ()
) -> LearningCurves:
    """The measure ("loss" or one of SCORE_NAMES) of every trial on the validation split after each epoch, and of the
    trials with the ids of on_train_too on the training split as well. What was undefined is left out."""
    column = getattr(Measurement, measure)
    validation: Split = "validation"
    rows = session.execute(
        select(Measurement.trial_id, Measurement.split == "train", Measurement.epoch, column)
        .join(Trial, Trial.id == Measurement.trial_id)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(
            Trial.experiment_id == experiment_id,
            Arm.kind != "baseline",
            or_(Measurement.split == validation, Measurement.trial_id.in_(on_train_too)),
            column.is_not(None),
        )
    ).all()
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    return LearningCurves(table[:, 0].astype(int), table[:, 1].astype(bool), table[:, 2].astype(int), table[:, 3])


def sweep_progress(session: Session, experiment_id: int) -> SweepProgress:
    """How far the experiment is: two small queries, to be asked again and again."""
    models = (Trial.experiment_id == experiment_id, Arm.kind != "baseline")
    rows = session.execute(
        select(Trial.status, func.count(), func.sum(Trial.epochs_done), func.sum(Trial.images_seen))
        .join(Arm, Arm.id == Trial.arm_id)
        .where(*models)
        .group_by(Trial.status)
    ).all()
    running = session.execute(
        select(Arm.name, Trial.epochs_done)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(*models, Trial.status == "running")
        .order_by(Trial.id)
    )
    return SweepProgress(
        status=session.scalars(select(Experiment.status).where(Experiment.id == experiment_id)).one(),
        trials={status: count for status, count, _, _ in rows},
        epochs_done=sum(epochs for _, _, epochs, _ in rows),
        images_seen=sum(images for _, _, _, images in rows),
        running=tuple((arm, epochs) for arm, epochs in running),
    )


def asha_rungs(epochs: int, grace_epochs: int, reduction_factor: float) -> tuple[int, ...]:
    """The epochs after which ASHA may stop a trial, below the last one: the first that reach grace_epochs times a power
    of reduction_factor (above 1), as in Ray's scheduler."""
    rungs, milestone = [grace_epochs], float(grace_epochs)
    while (milestone := milestone * reduction_factor) < epochs:
        if ceil(milestone) > rungs[-1]:
            rungs.append(ceil(milestone))
    return tuple(rung for rung in rungs if rung < epochs) or (grace_epochs,)
