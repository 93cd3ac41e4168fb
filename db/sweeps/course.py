"""What a sweep tried, how far each trial came and what it learnt on the way, as queries. Baselines are left out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.schema import Arm, Experiment, ExperimentStatus, Report, Split, Trial, TrialStatus, values_for
from platform.arms.options import read_options

UNDER_WAY: tuple[TrialStatus, ...] = ("pending", "running")


@dataclass(frozen=True)
class SweptTrial:
    """One trial, and what it measured after its last epoch, without what was undefined."""

    id: int
    arm_id: int
    arm: str
    rebalancing: float | None
    rendered: bool  # it decodes another arm's training: what it cost is counted there
    number: int
    hyperparameters: dict[str, Any]
    seed: int
    status: TrialStatus
    failure_reason: str | None
    epochs_done: int
    images_seen: int
    seconds: float  # of training, as of its last report
    started_at: datetime | None
    ended_at: datetime | None
    loss: float | None  # on the tuning split; None before the first epoch
    validation: dict[str, float]  # scores by name


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is."""

    status: ExperimentStatus
    trials: dict[TrialStatus, int]
    epochs_done: int  # of trainings, as are images_seen
    images_seen: int
    running: tuple[tuple[str, int], ...]  # the trainings under way: arm, epochs done

    @property
    def ended(self) -> int:
        return sum(count for status, count in self.trials.items() if status not in UNDER_WAY)


def swept_trials(session: Session, experiment_id: int) -> list[SweptTrial]:
    """All trials of the experiment, arm by arm, in the order of their numbers."""
    arms = _models(session, experiment_id)
    found: dict[int, list[SweptTrial]] = {arm.id: [] for arm in arms}
    by_id = {arm.id: arm for arm in arms}
    rows = session.execute(
        select(Trial, Report.loss, Report.scores)
        .outerjoin(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
        .where(Trial.arm_id.in_(found))
        .order_by(Trial.number)
    )
    for trial, loss, scores in rows:
        arm = by_id[trial.arm_id]
        found[arm.id].append(
            SweptTrial(
                arm=arm.name,
                rebalancing=arm.rebalancing,
                rendered=_rendered(arm),
                loss=loss,
                validation=(scores or {}).get("validation", {}),
                **values_for(SweptTrial, trial),
            )
        )
    return [trial for trials in found.values() for trial in trials]


def learning_curves(session: Session, experiment_id: int, score: str) -> list[tuple[int, int, Split, float]]:
    """Trial's id, epoch, split and value of the score ("loss", or a name of Report.scores) for every trial, epoch and
    split where it was measured."""
    splits: tuple[Split, ...] = ("tuning",) if score == "loss" else ("validation", "train")
    values = [Report.loss if score == "loss" else Report.scores[split, score].as_float() for split in splits]
    arms = [arm.id for arm in _models(session, experiment_id)]
    rows = session.execute(
        select(Report.trial_id, Report.epoch, *values)
        .join(Trial, Trial.id == Report.trial_id)
        .where(Trial.arm_id.in_(arms))
        .order_by(Report.trial_id, Report.epoch)
    )
    return [
        (trial_id, epoch, split, value)
        for trial_id, epoch, *measured in rows
        for split, value in zip(splits, measured, strict=True)
        if value is not None
    ]


def sweep_progress(session: Session, experiment_id: int) -> SweepProgress:
    """How far the experiment is: small queries, to be asked again and again."""
    arms = {arm.id: arm for arm in _models(session, experiment_id)}
    rows = session.execute(
        select(Trial.arm_id, Trial.status, func.count(), func.sum(Trial.epochs_done), func.sum(Trial.images_seen))
        .where(Trial.arm_id.in_(arms))
        .group_by(Trial.arm_id, Trial.status)
    ).all()
    running = session.execute(
        select(Trial.arm_id, Trial.epochs_done)
        .where(Trial.arm_id.in_(arms), Trial.status == "running")
        .order_by(Trial.id)
    )
    trials: dict[TrialStatus, int] = {}
    for _, status, count, _, _ in rows:
        trials[status] = trials.get(status, 0) + count
    trained = [row for row in rows if not _rendered(arms[row[0]])]
    return SweepProgress(
        status=session.scalars(select(Experiment.status).where(Experiment.id == experiment_id)).one(),
        trials=trials,
        epochs_done=sum(row[3] for row in trained),
        images_seen=sum(row[4] for row in trained),
        running=tuple((arms[arm].name, epochs) for arm, epochs in running if not _rendered(arms[arm])),
    )


def _models(session: Session, experiment_id: int) -> list[Arm]:
    arms = select(Arm).where(Arm.experiment_id == experiment_id, Arm.baseline.is_(False))
    return list(session.scalars(arms.order_by(Arm.position, Arm.id)))


def _rendered(arm: Arm) -> bool:
    return read_options(arm.options).renders is not None
