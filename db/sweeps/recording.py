"""Everything that a sweep writes, and what it reads to go on, as functions within the caller's session (see
`db.store.write_session`).

All of them are idempotent: the same call twice leaves what one call leaves, and later values win. Columns are given by
name, as `db.schema` has them, and each `record_...` returns the row's id. Nothing is committed here.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.schema import Arm, Base, Experiment, ExperimentStatus, Image, Report, Run, Sample, StoredDataset, Trial


def record_dataset(session: Session, **columns: Any) -> int:
    """Record a dataset, known by its fingerprint."""
    return _upsert(session, StoredDataset, ("fingerprint",), columns)


def record_experiment(session: Session, *, name: str, dataset_id: int, **columns: Any) -> int:
    """Record that the experiment `name` is running, from now if it is new; resuming keeps its start.

    Raises ValueError if the name is taken by an experiment on another dataset: the two may not share a ranking.
    """
    experiment = session.scalar(select(Experiment).where(Experiment.name == name))
    if experiment is None:
        experiment = Experiment(name=name, dataset_id=dataset_id, created_at=datetime.now(UTC))
        session.add(experiment)
    elif experiment.dataset_id != dataset_id:
        raise ValueError(
            f"Experiment {name!r} was run on other data ({experiment.dataset.name}); choose another name, or the same "
            "data."
        )
    for column, value in {**columns, "status": "running", "finished_at": None}.items():
        setattr(experiment, column, value)
    session.flush()
    return experiment.id


def record_run(session: Session, experiment_id: int, *, code_version: str, environment: Mapping[str, Any]) -> int:
    """Record that a driver begins the experiment, or goes on with it, now: each call is a run."""
    started_at = datetime.now(UTC)
    run = Run(experiment_id=experiment_id, started_at=started_at, code_version=code_version, environment=environment)
    session.add(run)
    session.flush()
    return run.id


def finish_experiment(session: Session, experiment_id: int, status: ExperimentStatus) -> None:
    """Record how the experiment ended; the first such moment since it last ran stays. What still ran is pending."""
    running = (Trial.experiment_id == experiment_id, Trial.status == "running")
    session.execute(update(Trial).where(*running).values(status="pending"))
    experiment = session.get_one(Experiment, experiment_id)
    experiment.status, experiment.finished_at = status, experiment.finished_at or datetime.now(UTC)
    session.flush()


def record_arm(session: Session, **columns: Any) -> int:
    return _upsert(session, Arm, ("experiment_id", "name"), columns)


def make_room_for_arms(session: Session, experiment_id: int, count: int) -> int:
    """Move the baselines, which stand last, so many places on; return the first place that is free."""
    arms = (Arm.experiment_id == experiment_id, Arm.baseline)
    session.execute(update(Arm).where(*arms).values(position=Arm.position + count))
    last = select(func.max(Arm.position)).where(Arm.experiment_id == experiment_id, Arm.baseline.is_(False))
    return 1 + (session.scalar(last) or 0)


def record_trial(session: Session, **columns: Any) -> int:
    """Record a trial and the state it is in."""
    return _upsert(session, Trial, ("arm_id", "number"), {"failure_reason": None, **columns})


def record_report(
    session: Session, trial_id: int, *, epoch: int, checkpoint: str | None = None, **measured: Any
) -> None:
    """Record what a trial measured after `epoch` (0 for a baseline).

    checkpoint: where the trial's weights lie and it can go on from. Raises ValueError for a score that is not finite.
    """
    for split, values in measured["scores"].items():
        for name, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"The {split} {name} after epoch {epoch} is {value}; leave out what is undefined.")
    _upsert(session, Report, ("trial_id", "epoch"), {"trial_id": trial_id, "epoch": epoch, **measured})
    session.execute(
        update(Trial)
        .where(Trial.id == trial_id, Trial.epochs_done <= epoch)
        .values(
            epochs_done=epoch,
            images_seen=measured["images_seen"],
            seconds=measured["seconds"],
            checkpoint=checkpoint,
        )
    )


def forget_reports(session: Session, trial_ids: Sequence[int]) -> None:
    """Forget what trials measured and painted: they begin anew."""
    session.execute(delete(Report).where(Report.trial_id.in_(trial_ids)))
    session.execute(delete(Sample).where(Sample.trial_id.in_(trial_ids)))
    session.execute(
        update(Trial).where(Trial.id.in_(trial_ids)).values(epochs_done=0, images_seen=0, seconds=0.0, checkpoint=None)
    )


def move_checkpoints(session: Session, experiment_id: int, old: str, new: str) -> None:
    """Record that the experiment's checkpoints lie in another storage now."""
    for trial in session.scalars(select(Trial).where(Trial.experiment_id == experiment_id)):
        if trial.checkpoint is not None and trial.checkpoint.startswith(old):
            trial.checkpoint = new + trial.checkpoint[len(old) :]


def record_image(session: Session, **columns: Any) -> int:
    """Record a photograph of a dataset."""
    return _upsert(session, Image, ("dataset_id", "split", "index_in_split"), columns)


def record_sample(session: Session, **columns: Any) -> int:
    """Record a trial's colourization of an image."""
    return _upsert(session, Sample, ("trial_id", "image_id"), columns)


def record_verdict(session: Session, experiment_id: int, verdict: Mapping[str, Any]) -> None:
    """Record what the machine jury said of an experiment, in place of what it said before."""
    session.get_one(Experiment, experiment_id).jury = dict(verdict)


def record_score(
    session: Session,
    trial_id: int,
    name: str,
    value: float,
    standard_error: float,
    by_index: Mapping[int, Mapping[str, float]],
) -> None:
    """Record a score that was measured after a trial's last epoch, in validation, and scores of its samples.

    by_index: of pictures, by name, by their places in validation; those that are no samples are left out.
    """
    epochs_done = select(Trial.epochs_done).where(Trial.id == trial_id).scalar_subquery()
    report = session.scalars(select(Report).where(Report.trial_id == trial_id, Report.epoch == epochs_done)).one()
    report.scores = _with_score(report.scores, name, value)
    report.standard_errors = _with_score(report.standard_errors, name, standard_error)
    samples = select(Sample, Image.index_in_split).join(Image, Image.id == Sample.image_id)
    for sample, index in session.execute(samples.where(Sample.trial_id == trial_id)):
        if index in by_index:
            sample.scores = {**sample.scores, **by_index[index]}


def _with_score(scores: dict[str, dict[str, float]], name: str, value: float) -> dict[str, dict[str, float]]:
    return {**scores, "validation": {**scores.get("validation", {}), name: value}}


# What a sweep that goes on, or whose record lacks something, reads


def recorded_trials(session: Session, experiment_id: int) -> list[Trial]:
    """All trials of the experiment but the baselines', by their numbers, each number's in the order of the arms."""
    return list(session.scalars(_trials_of(experiment_id)))


def trials_without_samples(session: Session, experiment_id: int, images: int) -> list[Trial]:
    """The finished trials that have painted fewer images than these."""
    painted = select(func.count(Sample.id)).where(Sample.trial_id == Trial.id).scalar_subquery()
    return list(session.scalars(_trials_of(experiment_id).where(Trial.status == "finished", painted < images)))


def _trials_of(experiment_id: int) -> Select[Trial]:
    trials = select(Trial).join(Arm, Arm.id == Trial.arm_id)
    models = trials.where(Trial.experiment_id == experiment_id, Arm.baseline.is_(False))
    return models.order_by(Trial.number, Arm.position)


def checkpoint_of(session: Session, arm_id: int, number: int) -> str | None:
    return session.scalar(select(Trial.checkpoint).where(Trial.arm_id == arm_id, Trial.number == number))


def reported_losses(session: Session, experiment_id: int) -> list[tuple[str, int, int, float]]:
    """All losses of the experiment's trials as (arm, number, epoch, loss), in the order in which they were reported."""
    rows = session.execute(
        select(Arm.name, Trial.number, Report.epoch, Report.loss)
        .join(Trial, Trial.id == Report.trial_id)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(Trial.experiment_id == experiment_id, Report.loss.is_not(None))
        .order_by(Report.id)
    )
    return [(arm, number, epoch, loss) for arm, number, epoch, loss in rows if loss is not None]


def recorded_baselines(session: Session, experiment: str) -> dict[str, set[int]]:
    """The baselines of the experiment of that name that have been recorded, and of each the images that it has painted,
    by index in their split; none if there is no such experiment."""
    of_baselines = (
        select(Arm.name)
        .join(Trial, Trial.arm_id == Arm.id)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Experiment.name == experiment, Arm.baseline)
    )
    found: dict[str, set[int]] = {name: set() for name in session.scalars(of_baselines)}
    painted = of_baselines.join(Sample, Sample.trial_id == Trial.id).join(Image, Image.id == Sample.image_id)
    for name, index in session.execute(painted.add_columns(Image.index_in_split)):
        found[name].add(index)
    return found


def sample_images(session: Session, experiment_id: int) -> dict[int, int]:
    """The images that the experiment's trials paint, those of its baselines: ids by index in the validation split."""
    rows = session.execute(
        select(Image.index_in_split, Image.id)
        .join(Sample, Sample.image_id == Image.id)
        .join(Trial, Trial.id == Sample.trial_id)
        .join(Arm, Arm.id == Trial.arm_id)
        .where(Trial.experiment_id == experiment_id, Arm.baseline)
        .distinct()
    )
    return dict(rows.all())


def _upsert(session: Session, table: type[Base], key: Sequence[str], columns: Mapping[str, Any]) -> int:
    """Insert the row, or give the one that is the same in the columns of `key` the other values; return its id."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    others = {name: value for name, value in columns.items() if name not in key}
    statement = insert(table).values(**columns).on_conflict_do_update(index_elements=key, set_=others)
    row_id: int = session.execute(statement.returning(table.__table__.c.id)).scalar_one()
    return row_id
