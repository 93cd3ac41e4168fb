"""The tables, and the names that the rest of the project may use for splits, kinds, states and scores.

Rows are written through `db.recording` and read through `db.results`. A change here needs a migration in
`db/migrations/versions`; a test holds the two equal.
"""

from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Split = Literal["train", "validation"]
ArmKind = Literal["regression", "classification", "baseline"]
Decoding = Literal["mode", "mean", "annealed_mean"]
ExperimentStatus = Literal["running", "finished", "interrupted", "failed"]
TrialStatus = Literal["pending", "running", "finished", "stopped_early", "failed", "lost"]

SPLITS: tuple[Split, ...] = get_args(Split)
TRIAL_STATUSES: tuple[TrialStatus, ...] = get_args(TrialStatus)

SCORE_NAMES = (
    "exact_accuracy",
    "bin_accuracy",
    "balanced_bin_accuracy",
    "raw_auc",
    "rebalanced_auc",
    "psnr_db",
    "delta_e_2000",
    "colourfulness_ratio",
)
"""Every score of a measurement, each a column of that name; accuracies and AuCs are shares in [0, 1]."""


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. Takes aware datetimes only and gives aware ones back, also from SQLite, which keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"The datetime {value} has no time zone; give one in UTC.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _one_of(column: str, choices: Any) -> CheckConstraint:
    """CHECK that `column` holds one of the strings of the Literal `choices` (or NULL where the column allows it)."""
    listed = ", ".join(f"'{choice}'" for choice in get_args(choices))
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    # Names for all constraints: Alembic can only alter or drop those that it can name.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


class Dataset(Base):
    """A dataset as trained on, after caps: two datasets are the same exactly when their fingerprints are."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str]
    class_names: Mapped[list[str]] = mapped_column(JSON)
    train_count: Mapped[int]
    validation_count: Mapped[int]


class Experiment(Base):
    """One sweep: its whole resolved config, the file as written, and where and with what code it ran."""

    __tablename__ = "experiments"
    __table_args__ = (_one_of("status", ExperimentStatus), _one_of("decoding", Decoding))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[ExperimentStatus] = mapped_column(String)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="RESTRICT"), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    config_yaml: Mapped[str]
    profile: Mapped[str | None]
    decoding: Mapped[Decoding] = mapped_column(String)
    code_version: Mapped[str]
    environment: Mapped[dict[str, Any]] = mapped_column(JSON)
    storage_path: Mapped[str]


class Arm(Base):
    """What people compare: a kind of model and its rebalancing, or a baseline."""

    __tablename__ = "arms"
    __table_args__ = (
        UniqueConstraint("experiment_id", "name"),
        # The target of trials' foreign key, which keeps a trial's arm inside the trial's experiment.
        UniqueConstraint("experiment_id", "id"),
        _one_of("kind", ArmKind),
        CheckConstraint("rebalancing BETWEEN 0 AND 1", name="rebalancing"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    name: Mapped[str]
    position: Mapped[int]
    kind: Mapped[ArmKind] = mapped_column(String)
    rebalancing: Mapped[float | None]


class Trial(Base):
    """One training inside an arm. A baseline is an arm with one finished trial, measured at epoch 0.

    epochs_done, images_seen and seconds are as of the trial's last report; its last measurements are those of
    epochs_done.
    """

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("experiment_id", "ray_id"),
        ForeignKeyConstraint(["experiment_id", "arm_id"], ["arms.experiment_id", "arms.id"], ondelete="CASCADE"),
        Index(None, "arm_id", "status"),
        _one_of("status", TrialStatus),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int]
    arm_id: Mapped[int]
    ray_id: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[TrialStatus] = mapped_column(String)
    failure_reason: Mapped[str | None]
    epochs_done: Mapped[int] = mapped_column(default=0)
    images_seen: Mapped[int] = mapped_column(BigInteger, default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Measurement(Base):
    """Loss and scores of one trial after one epoch on one split. A score that was undefined is NULL."""

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("trial_id", "epoch", "split"),
        _one_of("split", Split),
        CheckConstraint("epoch >= 0", name="epoch"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    epoch: Mapped[int]
    split: Mapped[Split] = mapped_column(String)
    loss: Mapped[float | None]
    exact_accuracy: Mapped[float | None]
    bin_accuracy: Mapped[float | None]
    balanced_bin_accuracy: Mapped[float | None]
    raw_auc: Mapped[float | None]
    rebalanced_auc: Mapped[float | None]
    psnr_db: Mapped[float | None]
    delta_e_2000: Mapped[float | None]
    colourfulness_ratio: Mapped[float | None]
    class_bin_accuracy: Mapped[list[float | None] | None] = mapped_column(JSON(none_as_null=True))


class Image(Base):
    """A photograph that samples are made of: its ground truth, through the same Lab round trip as the samples."""

    __tablename__ = "images"
    __table_args__ = (UniqueConstraint("dataset_id", "split", "index_in_split"), _one_of("split", Split))

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    split: Mapped[Split] = mapped_column(String)
    index_in_split: Mapped[int]
    class_index: Mapped[int]
    truth_png: Mapped[bytes]
    width: Mapped[int]
    height: Mapped[int]


class Sample(Base):
    """A trial's colourization of an image, as PNG bytes; decoding is NULL where the model gives ab directly."""

    __tablename__ = "samples"
    __table_args__ = (UniqueConstraint("trial_id", "image_id"), _one_of("decoding", Decoding))

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="RESTRICT"), index=True)
    epoch: Mapped[int]
    decoding: Mapped[Decoding | None] = mapped_column(String)
    png: Mapped[bytes]
