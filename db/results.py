"""What was measured, as queries. Every figure leads back to its trial, seed, config, dataset and experiment."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from db.schema import (
    SCORE_NAMES,
    Arm,
    ArmKind,
    Dataset,
    Experiment,
    ExperimentStatus,
    Measurement,
    Study,
    Trial,
    TrialStatus,
)


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment, the data it ran on, and how many of its trials are in which state (baselines not counted)."""

    id: int
    name: str
    status: ExperimentStatus
    created_at: datetime
    finished_at: datetime | None
    profile: str | None
    decoding: str
    code_version: str
    storage_path: str
    dataset_id: int
    dataset: str
    dataset_note: str
    dataset_fingerprint: str
    trials: dict[TrialStatus, int]


@dataclass(frozen=True)
class BestTrial:
    """The finished trial of an arm with the lowest validation loss after its last epoch, and what it measured then.

    train and validation hold "loss" and the scores of SCORE_NAMES, without those that were undefined;
    validation_standard_errors those of the scores, as far as they are known.
    """

    trial_id: int
    ray_id: str
    config: dict[str, Any]
    seed: int
    epoch: int
    images_seen: int
    seconds: float
    train: dict[str, float]
    validation: dict[str, float]
    validation_standard_errors: dict[str, float]
    train_class_bin_accuracy: list[float | None] | None
    validation_class_bin_accuracy: list[float | None] | None


@dataclass(frozen=True)
class ArmResult:
    """One row of the results table; `best` is None as long as no trial of the arm has finished."""

    experiment: str
    dataset: str
    dataset_note: str
    dataset_fingerprint: str
    arm_id: int
    arm: str
    kind: ArmKind
    rebalancing: float | None
    trials: dict[TrialStatus, int]
    best: BestTrial | None


@dataclass(frozen=True)
class Share:
    """count of total, its share, and the Wilson interval that covers the true share in 95 % of studies; None of
    none."""

    count: int
    total: int
    share: float | None
    low: float | None
    high: float | None


class UnknownExperimentError(LookupError):
    """No experiment of that name; the message names those that come near."""

    def __str__(self) -> str:
        return str(self.args[0])


def list_experiments(session: Session) -> list[ExperimentSummary]:
    """All experiments, newest first."""
    return _experiments(session, None)


def newest_experiment(session: Session) -> str:
    """The name of the experiment that was begun last. Raises UnknownExperimentError if there is none."""
    newest = select(Experiment.name).order_by(Experiment.created_at.desc(), Experiment.id.desc()).limit(1)
    name = session.scalar(newest)
    if name is None:
        raise UnknownExperimentError("The database holds no experiment yet; run a sweep first (make sweep).")
    return name


def experiment_progress(session: Session, name: str) -> ExperimentSummary:
    """How far the experiment `name` has come. Raises UnknownExperimentError."""
    found = _experiments(session, name)
    if not found:
        names = list(session.scalars(select(Experiment.name).order_by(Experiment.created_at.desc())))
        near = difflib.get_close_matches(name, names) or names[:3]
        hint = f"there is {', '.join(near)}" if near else "the database holds none yet"
        raise UnknownExperimentError(f"There is no experiment {name!r}; {hint}.")
    return found[0]


def arm_results(session: Session, experiment: str) -> list[ArmResult]:
    """One result an arm, baselines included, in the order of their positions. Raises UnknownExperimentError."""
    summary = experiment_progress(session, experiment)
    trials: dict[int, dict[TrialStatus, int]] = {}
    for arm_id, status, count in session.execute(
        select(Trial.arm_id, Trial.status, func.count())
        .where(Trial.experiment_id == summary.id)
        .group_by(Trial.arm_id, Trial.status)
    ):
        trials.setdefault(arm_id, {})[status] = count
    best = _best_trials(session, summary.id)
    arms = session.scalars(select(Arm).where(Arm.experiment_id == summary.id).order_by(Arm.position, Arm.id))
    return [
        ArmResult(
            experiment=summary.name,
            dataset=summary.dataset,
            dataset_note=summary.dataset_note,
            dataset_fingerprint=summary.dataset_fingerprint,
            arm_id=arm.id,
            arm=arm.name,
            kind=arm.kind,
            rebalancing=arm.rebalancing,
            trials=trials.get(arm.id, {}),
            best=best.get(arm.id),
        )
        for arm in arms
    ]


def newest_study(session: Session, experiment: str) -> Study | None:
    """The study of the experiment that was created last."""
    return session.scalar(
        select(Study)
        .join(Experiment, Experiment.id == Study.experiment_id)
        .where(Experiment.name == experiment)
        .order_by(Study.created_at.desc(), Study.id.desc())
        .limit(1)
    )


def wilson(count: int, total: int) -> Share:
    """The share of count in total with its 95 % Wilson score interval."""
    from scipy.stats import binomtest  # takes a second to import, for which a participant's server need not wait

    if total == 0:
        return Share(0, 0, None, None, None)
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Share(count, total, count / total, float(interval.low), float(interval.high))


def measured_trials(session: Session, trial_ids: Sequence[int]) -> dict[int, BestTrial]:
    """The trials as they were measured after their last epochs, by id."""
    train, validation = aliased(Measurement), aliased(Measurement)
    rows = session.execute(
        select(Trial, train, validation)
        .join(
            validation,
            (validation.trial_id == Trial.id)
            & (validation.epoch == Trial.epochs_done)
            & (validation.split == "validation"),
        )
        .join(train, (train.trial_id == Trial.id) & (train.epoch == validation.epoch) & (train.split == "train"))
        .where(Trial.id.in_(trial_ids))
    )
    return {
        trial.id: BestTrial(
            trial_id=trial.id,
            ray_id=trial.ray_id,
            config=trial.config,
            seed=trial.seed,
            epoch=trial.epochs_done,
            images_seen=trial.images_seen,
            seconds=trial.seconds,
            train=_scores(on_train),
            validation=_scores(on_validation),
            validation_standard_errors=on_validation.standard_errors or {},
            train_class_bin_accuracy=on_train.class_bin_accuracy,
            validation_class_bin_accuracy=on_validation.class_bin_accuracy,
        )
        for trial, on_train, on_validation in rows
    }


def _best_trials(session: Session, experiment_id: int) -> dict[int, BestTrial]:
    """The best finished trial of each arm of the experiment, by the arm's id."""
    validation = aliased(Measurement)
    # A loss can be unknown only for a baseline, which has a single trial; the id makes a tie come out alike each time.
    rank = func.row_number().over(
        partition_by=Trial.arm_id, order_by=(validation.loss.is_(None), validation.loss, Trial.id)
    )
    ranked = (
        select(Trial.id.label("trial_id"), rank.label("rank"))
        .join(
            validation,
            (validation.trial_id == Trial.id)
            & (validation.epoch == Trial.epochs_done)
            & (validation.split == "validation"),
        )
        .where(Trial.experiment_id == experiment_id, Trial.status == "finished")
        .subquery()
    )
    best = session.execute(
        select(Trial.arm_id, Trial.id).join(ranked, (ranked.c.trial_id == Trial.id) & (ranked.c.rank == 1))
    )
    arms = {trial_id: arm_id for arm_id, trial_id in best}
    return {arms[trial_id]: measured for trial_id, measured in measured_trials(session, list(arms)).items()}


def _scores(measurement: Measurement) -> dict[str, float]:
    values = {name: getattr(measurement, name) for name in ("loss", *SCORE_NAMES)}
    return {name: value for name, value in values.items() if value is not None}


def experiment_and_dataset(session: Session, study: Study) -> tuple[str, str]:
    """The names of the experiment that the study is about, and of its data."""
    names = select(Experiment.name, Dataset.name).join(Dataset).where(Experiment.id == study.experiment_id)
    experiment, dataset = session.execute(names).one()
    return experiment, dataset


def _experiments(session: Session, name: str | None) -> list[ExperimentSummary]:
    experiments = select(Experiment, Dataset).join(Dataset).order_by(Experiment.created_at.desc(), Experiment.id.desc())
    counts = (
        select(Trial.experiment_id, Trial.status, func.count())
        .join(Arm, Arm.id == Trial.arm_id)
        .where(Arm.kind != "baseline")
        .group_by(Trial.experiment_id, Trial.status)
    )
    if name is not None:
        experiments = experiments.where(Experiment.name == name)
        counts = counts.join(Experiment, Experiment.id == Trial.experiment_id).where(Experiment.name == name)
    trials: dict[int, dict[TrialStatus, int]] = {}
    for experiment_id, status, count in session.execute(counts):
        trials.setdefault(experiment_id, {})[status] = count
    return [
        ExperimentSummary(
            id=experiment.id,
            name=experiment.name,
            status=experiment.status,
            created_at=experiment.created_at,
            finished_at=experiment.finished_at,
            profile=experiment.profile,
            decoding=experiment.decoding,
            code_version=experiment.code_version,
            storage_path=experiment.storage_path,
            dataset_id=dataset.id,
            dataset=dataset.name,
            dataset_note=dataset.note,
            dataset_fingerprint=dataset.fingerprint,
            trials=trials.get(experiment.id, {}),
        )
        for experiment, dataset in session.execute(experiments)
    ]
