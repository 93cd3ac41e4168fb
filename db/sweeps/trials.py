"""What was measured, as queries. Every figure leads back to its trial, seed, arm, experiment, dataset and code."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from db.errors import UserError
from db.schema import (
    Arm,
    Experiment,
    ExperimentStatus,
    Report,
    Run,
    Sample,
    StoredDataset,
    Study,
    StudyArm,
    Trial,
    TrialStatus,
    values_for,
)
from platform.arms.options import ArmOptions, read_options


@dataclass(frozen=True)
class ExperimentSummary:
    """An experiment and the data it ran on."""

    id: int
    name: str
    status: ExperimentStatus
    created_at: datetime
    finished_at: datetime | None
    storage_path: str
    code_versions: tuple[str, ...]  # of its driver's runs, the first first
    dataset_id: int
    dataset: str
    dataset_note: str
    dataset_fingerprint: str
    class_names: tuple[str, ...]
    validation_class_counts: tuple[int, ...]  # images of each class
    trials: dict[TrialStatus, int]  # how many are in which state, baselines not counted


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial and what it measured after its last epoch; what was undefined is left out."""

    trial_id: int
    number: int
    hyperparameters: dict[str, Any]
    seed: int
    epoch: int
    images_seen: int
    seconds: float
    loss: float | None  # on the tuning split
    scores: dict[str, dict[str, float]]  # by split, then by name
    standard_errors: dict[str, dict[str, float]]
    class_bin_accuracy: dict[str, list[float | None]]  # by split, then by class
    code_versions: tuple[str, ...]  # of the runs that reported its epochs
    decoding: str | None  # of its sample pictures; None also where it has none

    def score(self, name: str, split: str = "validation") -> float | None:
        """As it is stored; None where it was not measured."""
        return self.scores.get(split, {}).get(name)

    def error(self, name: str) -> float | None:
        """The standard error of a score in validation, as it is stored; None where it was not measured."""
        return self.standard_errors.get("validation", {}).get(name)


@dataclass(frozen=True)
class Contender:
    """An arm, and the trial that stands for it."""

    arm_id: int
    arm: str
    baseline: bool
    rebalancing: float | None  # λ; None where it means nothing
    options: ArmOptions
    trial: MeasuredTrial


@dataclass(frozen=True)
class ArmResult:
    """One row of the results table."""

    arm_id: int
    arm: str
    baseline: bool
    rebalancing: float | None
    options: ArmOptions
    trials: dict[TrialStatus, int]
    best: MeasuredTrial | None  # None as long as no trial of the arm has finished


class UnknownExperimentError(UserError):
    """No experiment of that name; the message names those that come near."""


def list_experiments(session: Session) -> list[ExperimentSummary]:
    """All experiments, newest first."""
    return _experiments(session)


def newest_experiment(session: Session) -> str:
    """The name of the experiment that was begun last. Raises UnknownExperimentError if there is none."""
    newest = select(Experiment.name).order_by(Experiment.created_at.desc(), Experiment.id.desc()).limit(1)
    name = session.scalar(newest)
    if name is None:
        raise UnknownExperimentError("The database holds no experiment yet; run a sweep first (make sweep).")
    return name


def experiment_progress(session: Session, name: str) -> ExperimentSummary:
    """How far the experiment `name` has come. Raises UnknownExperimentError."""
    found = _experiments(session, Experiment.name == name)
    if not found:
        names = list(session.scalars(select(Experiment.name).order_by(Experiment.created_at.desc())))
        near = difflib.get_close_matches(name, names) or names[:3]
        hint = f"there is {', '.join(near)}" if near else "the database holds none yet"
        raise UnknownExperimentError(f"There is no experiment {name!r}; {hint}.")
    return found[0]


def arm_results(session: Session, experiment: str) -> list[ArmResult]:
    """One result per arm, baselines included, in the order of their positions. Raises UnknownExperimentError."""
    experiment_id = experiment_progress(session, experiment).id
    trials: dict[int, dict[TrialStatus, int]] = {}
    for arm_id, status, count in session.execute(
        select(Trial.arm_id, Trial.status, func.count())
        .where(Trial.experiment_id == experiment_id)
        .group_by(Trial.arm_id, Trial.status)
    ):
        trials.setdefault(arm_id, {})[status] = count
    best = best_trials(session, experiment_id)
    measured = measured_trials(session, list(best.values()))
    arms = session.scalars(select(Arm).where(Arm.experiment_id == experiment_id).order_by(Arm.position, Arm.id))
    return [
        ArmResult(
            arm_id=arm.id,
            arm=arm.name,
            baseline=arm.baseline,
            rebalancing=arm.rebalancing,
            options=read_options(arm.options),
            trials=trials.get(arm.id, {}),
            best=measured[best[arm.id]] if arm.id in best else None,
        )
        for arm in arms
    ]


def best_trials(session: Session, experiment_id: int) -> dict[int, int]:
    """The trial that stands for each arm that has one, by the arm's id: its first replicate, whose seed nobody chose,
    or without replicates the best, the finished trial with the lowest loss on the tuning split after its last epoch, of
    equal ones the first."""
    finished = session.execute(
        select(Trial.arm_id, Trial.id)
        .join(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
        .where(Trial.experiment_id == experiment_id, Trial.status == "finished")
        .order_by(
            Trial.replicate.desc(),
            case((Trial.replicate, Trial.number)),
            *(Report.loss.is_(None), Report.loss, Trial.number),  # only a baseline's loss may be unknown
        )
    )
    best: dict[int, int] = {}
    for arm_id, trial_id in finished:
        best.setdefault(arm_id, trial_id)
    return best


def replicate_scores(session: Session, experiment_id: int) -> dict[str, dict[int, dict[str, float]]]:
    """Scores in validation of the finished replicates, by arm in the arms' order, number (the same seed in every arm)
    and name."""
    rows = session.execute(
        select(Arm.name, Trial.number, Report.scores)
        .join(Trial, Trial.arm_id == Arm.id)
        .join(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
        .where(Arm.experiment_id == experiment_id, Trial.replicate, Trial.status == "finished")
        .order_by(Arm.position, Arm.id, Trial.number)
    )
    found: dict[str, dict[int, dict[str, float]]] = {}
    for arm, number, scores in rows:
        found.setdefault(arm, {})[number] = scores.get("validation", {})
    return found


def measured_trials(session: Session, trial_ids: Sequence[int]) -> dict[int, MeasuredTrial]:
    """The trials as they were measured after their last epochs, by id."""
    rows = session.execute(
        select(Trial, Report)
        .join(Report, (Report.trial_id == Trial.id) & (Report.epoch == Trial.epochs_done))
        .where(Trial.id.in_(trial_ids))
    )
    versions = session.execute(
        select(Report.trial_id, Run.id, Run.code_version)
        .join(Run, Run.id == Report.run_id)
        .where(Report.trial_id.in_(trial_ids))
        .distinct()
        .order_by(Run.id)
    ).all()
    decodings = dict(
        session.execute(
            select(Sample.trial_id, func.min(Sample.decoding))
            .where(Sample.trial_id.in_(trial_ids))
            .group_by(Sample.trial_id)
        ).all()
    )
    return {
        trial.id: MeasuredTrial(
            code_versions=_distinct(version for trial_id, _, version in versions if trial_id == trial.id),
            decoding=decodings.get(trial.id),
            **values_for(MeasuredTrial, trial) | values_for(MeasuredTrial, report),
        )
        for trial, report in rows
    }


def contenders(session: Session, study: Study) -> list[Contender]:
    """What a study asks about, in its order."""
    rows = session.execute(
        select(Arm, StudyArm.trial_id)
        .join(StudyArm, StudyArm.arm_id == Arm.id)
        .where(StudyArm.study_id == study.id)
        .order_by(StudyArm.position)
    ).all()
    trials = measured_trials(session, [trial_id for _, trial_id in rows])
    return [
        Contender(arm.id, arm.name, arm.baseline, arm.rebalancing, read_options(arm.options), trials[trial_id])
        for arm, trial_id in rows
    ]


def best_contenders(results: Sequence[ArmResult]) -> list[Contender]:
    """What a study asks about unless told otherwise: each arm's best trial, baselines excepted."""
    return [
        Contender(result.arm_id, result.arm, result.baseline, result.rebalancing, result.options, result.best)
        for result in results
        if result.best is not None and not result.baseline
    ]


def arm_names(session: Session, experiment_id: int) -> list[str]:
    """The arms of an experiment in their order, baselines excepted."""
    arms = select(Arm.name).where(Arm.experiment_id == experiment_id, Arm.baseline.is_(False))
    return list(session.scalars(arms.order_by(Arm.position, Arm.id)))


def experiment_and_dataset(session: Session, study: Study) -> tuple[str, str]:
    """The names of the experiment that the study is about, and of its data."""
    names = select(Experiment.name, StoredDataset.name).join(StoredDataset).where(Experiment.id == study.experiment_id)
    experiment, dataset = session.execute(names).one()
    return experiment, dataset


def _experiments(session: Session, *which: ColumnElement[bool]) -> list[ExperimentSummary]:
    """Those of which the conditions are true, newest first."""
    experiments = select(Experiment, StoredDataset).join(StoredDataset).where(*which)
    counts = (
        select(Trial.experiment_id, Trial.status, func.count())
        .join(Arm, Arm.id == Trial.arm_id)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Arm.baseline.is_(False), *which)
        .group_by(Trial.experiment_id, Trial.status)
    )
    versions = select(Run.experiment_id, Run.code_version).join(Experiment).where(*which).order_by(Run.id)
    trials: dict[int, dict[TrialStatus, int]] = {}
    for experiment_id, status, count in session.execute(counts):
        trials.setdefault(experiment_id, {})[status] = count
    runs = session.execute(versions).all()
    return [
        ExperimentSummary(
            dataset=dataset.name,
            dataset_note=dataset.note,
            dataset_fingerprint=dataset.fingerprint,
            class_names=tuple(dataset.class_names),
            validation_class_counts=tuple(dataset.validation_class_counts),
            code_versions=_distinct(version for of, version in runs if of == experiment.id),
            trials=trials.get(experiment.id, {}),
            **values_for(ExperimentSummary, experiment),
        )
        for experiment, dataset in session.execute(
            experiments.order_by(Experiment.created_at.desc(), Experiment.id.desc())
        )
    ]


def _distinct(versions: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(versions))
