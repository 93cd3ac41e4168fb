"""Everything that a sweep writes, as functions within the caller's session (see `db.store.write_session`).

All of them are idempotent: the same call twice leaves what one call leaves, and later values win. They take plain
values, and each `record_...` returns the row's id. Nothing is committed here.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.schema import (
    SCORE_NAMES,
    Arm,
    ArmKind,
    Base,
    Dataset,
    Decoding,
    Experiment,
    ExperimentStatus,
    Image,
    Measurement,
    Sample,
    Split,
    Trial,
    TrialStatus,
    UtcDateTime,
)


def record_dataset(
    session: Session,
    *,
    name: str,
    fingerprint: str,
    note: str,
    class_names: Sequence[str],
    train_count: int,
    validation_count: int,
    validation_class_counts: Sequence[int] | None = None,
) -> int:
    """Record a dataset, known by its fingerprint."""
    return _upsert(
        session,
        Dataset,
        {"fingerprint": fingerprint},
        {
            "name": name,
            "note": note,
            "class_names": list(class_names),
            "train_count": train_count,
            "validation_count": validation_count,
            "validation_class_counts": None if validation_class_counts is None else list(validation_class_counts),
        },
    )


def record_experiment(
    session: Session,
    *,
    name: str,
    dataset_id: int,
    config: Mapping[str, Any],
    config_yaml: str,
    profile: str | None,
    decoding: Decoding,
    code_version: str,
    environment: Mapping[str, Any],
    storage_path: str,
    at: datetime | None = None,
) -> int:
    """Record that the experiment `name` is running, from now (or `at`, UTC) if it is new; resuming keeps its start.

    Raises ValueError if the name is taken by an experiment on another dataset: the two may not share a ranking.
    """
    known = session.execute(
        select(Experiment.dataset_id, Dataset.name).join(Dataset).where(Experiment.name == name)
    ).one_or_none()
    if known is not None and known.dataset_id != dataset_id:
        raise ValueError(
            f"Experiment {name!r} was run on other data ({known.name}); choose another name, or the same data."
        )
    values = {
        "status": "running",
        "finished_at": None,
        "dataset_id": dataset_id,
        "config": dict(config),
        "config_yaml": config_yaml,
        "profile": profile,
        "decoding": decoding,
        "code_version": code_version,
        "environment": dict(environment),
        "storage_path": storage_path,
    }
    return _upsert(session, Experiment, {"name": name}, values, only_new={"created_at": at or datetime.now(UTC)})


def finish_experiment(
    session: Session, experiment_id: int, status: ExperimentStatus, *, at: datetime | None = None
) -> None:
    """Record how the experiment ended; the first such moment since it last ran stays."""
    session.execute(
        update(Experiment)
        .where(Experiment.id == experiment_id)
        .values(status=status, finished_at=_kept_or(Experiment.finished_at, at or datetime.now(UTC)))
        .execution_options(synchronize_session=False)
    )


def record_arm(
    session: Session, *, experiment_id: int, name: str, position: int, kind: ArmKind, rebalancing: float | None
) -> int:
    """Record an arm: its place in tables, and rebalancing, lambda in [0, 1], or None where it means nothing."""
    return _upsert(
        session,
        Arm,
        {"experiment_id": experiment_id, "name": name},
        {"position": position, "kind": kind, "rebalancing": rebalancing},
    )


def record_trial(
    session: Session,
    *,
    experiment_id: int,
    arm_id: int,
    ray_id: str,
    config: Mapping[str, Any],
    seed: int,
    status: TrialStatus,
    failure_reason: str | None = None,
    at: datetime | None = None,
) -> int:
    """Record a trial and the state it is in, as of now (or `at`, UTC).

    started_at is the first moment at which it was not pending, ended_at the first since which it is neither pending
    nor running.
    """
    at = at or datetime.now(UTC)
    started_at = None if status == "pending" else at
    ended_at = None if status in ("pending", "running") else at
    values = {
        "arm_id": arm_id,
        "config": dict(config),
        "seed": seed,
        "status": status,
        "failure_reason": failure_reason,
        "started_at": started_at,
        "ended_at": ended_at,
    }
    kept = {"started_at": _kept_or(Trial.started_at, started_at)}
    if ended_at is not None:
        kept["ended_at"] = _kept_or(Trial.ended_at, ended_at)
    return _upsert(session, Trial, {"experiment_id": experiment_id, "ray_id": ray_id}, values, on_update=kept)


def record_report(
    session: Session,
    trial_id: int,
    *,
    epoch: int,
    images_seen: int,
    seconds: float,
    train: Mapping[str, float],
    validation: Mapping[str, float],
    train_standard_errors: Mapping[str, float] | None = None,
    validation_standard_errors: Mapping[str, float] | None = None,
    train_class_bin_accuracy: Sequence[float | None] | None = None,
    validation_class_bin_accuracy: Sequence[float | None] | None = None,
) -> None:
    """Record a trial's measurements after `epoch` (0 for a baseline), and how far the trial has come.

    train, validation: "loss" and any of SCORE_NAMES, finite; their standard errors by name.
    images_seen and seconds count from the trial's start.
    Raises ValueError for an unknown score or one that is not finite.
    """
    _record_measurement(session, trial_id, epoch, "train", train, train_standard_errors, train_class_bin_accuracy)
    _record_measurement(
        session, trial_id, epoch, "validation", validation, validation_standard_errors, validation_class_bin_accuracy
    )
    session.execute(
        update(Trial)
        .where(Trial.id == trial_id, Trial.epochs_done <= epoch)
        .values(epochs_done=epoch, images_seen=images_seen, seconds=seconds)
        .execution_options(synchronize_session=False)
    )


def drop_reports_above(session: Session, trial_id: int, epoch: int) -> None:
    """Forget what a trial measured and painted after `epoch`: it goes on from its checkpoint of that epoch."""
    session.execute(delete(Measurement).where(Measurement.trial_id == trial_id, Measurement.epoch > epoch))
    session.execute(delete(Sample).where(Sample.trial_id == trial_id, Sample.epoch > epoch))
    session.execute(
        update(Trial)
        .where(Trial.id == trial_id, Trial.epochs_done > epoch)
        .values(epochs_done=epoch)
        .execution_options(synchronize_session=False)
    )


def mark_lost_trials(session: Session, experiment_id: int, known_ray_ids: Collection[str]) -> int:
    """Mark as lost every trial of the experiment that Ray does not know (any more), and return how many were marked.

    Finished ones too: Ray tries in their place again, and an arm may not choose among more trials than another.
    Baselines are not Ray's and stay.
    """
    baselines = select(Arm.id).where(Arm.experiment_id == experiment_id, Arm.kind == "baseline")
    marked = session.execute(
        update(Trial)
        .where(
            Trial.experiment_id == experiment_id,
            Trial.arm_id.not_in(baselines),
            Trial.ray_id.not_in(list(known_ray_ids)),
            Trial.status != "lost",
        )
        .values(status="lost", ended_at=_kept_or(Trial.ended_at, datetime.now(UTC)))
        .returning(Trial.id)
        .execution_options(synchronize_session=False)
    )
    return len(marked.all())


def record_image(
    session: Session,
    *,
    dataset_id: int,
    split: Split,
    index_in_split: int,
    class_index: int,
    truth_png: bytes,
    width: int,
    height: int,
) -> int:
    """Record a photograph of a dataset: width and height in pixels, truth_png its ground truth as PNG bytes."""
    return _upsert(
        session,
        Image,
        {"dataset_id": dataset_id, "split": split, "index_in_split": index_in_split},
        {"class_index": class_index, "truth_png": truth_png, "width": width, "height": height},
    )


def record_sample(
    session: Session, *, trial_id: int, image_id: int, epoch: int, decoding: Decoding | None, png: bytes
) -> int:
    """Record a trial's colourization of an image after `epoch`; decoding is None where the model gives ab directly."""
    return _upsert(
        session,
        Sample,
        {"trial_id": trial_id, "image_id": image_id},
        {"epoch": epoch, "decoding": decoding, "png": png},
    )


def _record_measurement(
    session: Session,
    trial_id: int,
    epoch: int,
    split: Split,
    scores: Mapping[str, float],
    standard_errors: Mapping[str, float] | None,
    class_bin_accuracy: Sequence[float | None] | None,
) -> None:
    unknown = set(scores) - {"loss", *SCORE_NAMES}
    if unknown:
        raise ValueError(f"Unknown score {', '.join(sorted(unknown))}; the scores are {', '.join(SCORE_NAMES)}.")
    for name, value in scores.items():
        if not math.isfinite(value):
            raise ValueError(f"The {split} {name} after epoch {epoch} is {value}; leave out what is undefined.")
    # Every column is given, so that a report that lacks a score also clears it.
    values: dict[str, Any] = {name: scores.get(name) for name in ("loss", *SCORE_NAMES)}
    values["standard_errors"] = None if standard_errors is None else dict(standard_errors)
    values["class_bin_accuracy"] = None if class_bin_accuracy is None else list(class_bin_accuracy)
    _upsert(session, Measurement, {"trial_id": trial_id, "epoch": epoch, "split": split}, values)


def _kept_or(column: InstrumentedAttribute[datetime | None], moment: datetime | None) -> ColumnElement[datetime | None]:
    """The moment that the row already has, else this one."""
    return func.coalesce(column, literal(moment, UtcDateTime()))


def _upsert(
    session: Session,
    table: type[Base],
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    only_new: Mapping[str, Any] | None = None,
    on_update: Mapping[str, Any] | None = None,
) -> int:
    """Insert the row, or give the row of that unique key these values, and return its id.

    only_new: values for an insert that an update leaves alone; on_update: values for an update instead of `values`.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values({**key, **values, **(only_new or {})})
    statement = statement.on_conflict_do_update(index_elements=list(key), set_={**values, **(on_update or {})})
    row_id: int = session.execute(statement.returning(table.__table__.c.id)).scalar_one()
    return row_id
