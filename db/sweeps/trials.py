"""What sweeps tried and measured, as queries. Every figure leads back to its trial, seed, arm, experiment, dataset and
code."""

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from db.errors import UserError
from db.schema import Arm, Experiment, ExperimentStatus, Report, Run, Split, Study, StudyArm, Trial, TrialStatus

UNDER_WAY: tuple[TrialStatus, ...] = ("pending", "running")


class UnknownExperimentError(UserError):
    """No experiment of that name; the message names those that come near."""


def list_experiments(session: Session) -> list[Experiment]:
    """All experiments, newest first."""
    return list(session.scalars(select(Experiment).order_by(Experiment.created_at.desc(), Experiment.id.desc())))


def find_experiment(session: Session, name: str | None = None) -> Experiment:
    """The experiment of that name, or the newest. Raises UnknownExperimentError if there is none."""
    newest = select(Experiment).order_by(Experiment.created_at.desc(), Experiment.id.desc())
    found = session.scalar(newest.limit(1) if name is None else newest.where(Experiment.name == name))
    if found is not None:
        return found
    names = [experiment.name for experiment in list_experiments(session)]
    if not names:
        raise UnknownExperimentError("The database holds no experiment yet; run a sweep first (make sweep).")
    near = difflib.get_close_matches(str(name), names) or names[:3]
    raise UnknownExperimentError(f"There is no experiment {name!r}; there is {', '.join(near)}.")


def load_arms(session: Session, experiment_id: int) -> list[Arm]:
    """The experiment's arms in their order, baselines last, with their trials and what each measured last."""
    arms = select(Arm).where(Arm.experiment_id == experiment_id).order_by(Arm.position, Arm.id)
    return list(session.scalars(arms.options(selectinload(Arm.trials))))


def load_models(session: Session, experiment_id: int) -> list[Arm]:
    """As load_arms, without the baselines."""
    return [arm for arm in load_arms(session, experiment_id) if not arm.baseline]


def best_trials(session: Session, experiment_id: int) -> list[Trial]:
    """What a study asks about unless told otherwise: the best trial of each arm that has one, baselines excepted."""
    return [arm.best for arm in load_models(session, experiment_id) if arm.best is not None]


def contenders(session: Session, study: Study) -> list[Trial]:
    """What a study asks about, in its order."""
    asked = select(Trial).join(StudyArm, StudyArm.trial_id == Trial.id).where(StudyArm.study_id == study.id)
    return list(session.scalars(asked.order_by(StudyArm.position)))


def replicate_scores(session: Session, experiment_id: int) -> dict[str, dict[int, dict[str, float]]]:
    """Scores in validation of the finished replicates, by arm in the arms' order, number (the same seed in every arm)
    and name."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for arm in load_arms(session, experiment_id):
        for trial in arm.trials:
            if trial.replicate and trial.status == "finished" and trial.last is not None:
                found.setdefault(arm.name, {})[trial.number] = trial.last.scores.get("validation", {})
    return found


def code_versions(session: Session, trial_ids: Sequence[int]) -> dict[int, list[str]]:
    """Of the runs that reported each trial's epochs, the first first."""
    rows = session.execute(
        select(Report.trial_id, Run.code_version, Run.id)
        .join(Run, Run.id == Report.run_id)
        .where(Report.trial_id.in_(trial_ids))
        .distinct()
        .order_by(Run.id)
    )
    found: dict[int, list[str]] = {trial_id: [] for trial_id in trial_ids}
    for trial_id, version, _ in rows:
        if version not in found[trial_id]:
            found[trial_id].append(version)
    return found


def learning_curves(session: Session, experiment_id: int, score: str) -> list[tuple[int, int, Split, float]]:
    """Trial's id, epoch, split and value of the score ("loss", or a name of Report.scores) for every trial, epoch and
    split where it was measured; baselines excepted."""
    splits: tuple[Split, ...] = ("tuning",) if score == "loss" else ("validation", "train")
    values = [Report.loss if score == "loss" else Report.scores[split, score].as_float() for split in splits]
    rows = session.execute(
        select(Report.trial_id, Report.epoch, *values)
        .join(Trial, Trial.id == Report.trial_id)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(Arm.experiment_id == experiment_id, Arm.baseline.is_(False))
        .order_by(Report.trial_id, Report.epoch)
    )
    return [
        (trial_id, epoch, split, value)
        for trial_id, epoch, *measured in rows
        for split, value in zip(splits, measured, strict=True)
        if value is not None
    ]


@dataclass(frozen=True)
class SweepProgress:
    """How far a sweep is."""

    status: ExperimentStatus
    trials: dict[TrialStatus, int]
    images_seen: int  # in trainings
    running: tuple[tuple[str, int], ...]  # the trainings under way: arm, epochs done

    @property
    def ended(self) -> int:
        return sum(count for status, count in self.trials.items() if status not in UNDER_WAY)


def sweep_progress(session: Session, experiment_id: int) -> SweepProgress:
    models = load_models(session, experiment_id)
    trained = [(arm.name, trial) for arm in models if arm.choices.renders is None for trial in arm.trials]
    return SweepProgress(
        status=session.get_one(Experiment, experiment_id).status,
        trials=dict(Counter(trial.status for arm in models for trial in arm.trials)),
        images_seen=sum(trial.images_seen for _, trial in trained),
        running=tuple((arm, trial.epochs_done) for arm, trial in trained if trial.status == "running"),
    )
