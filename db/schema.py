"""The tables, and the names that the rest of the project may use for splits, kinds and states.

Rows of a sweep are written through `db.sweeps.recording`, those of a survey through `db.surveys.study` and
`db.surveys.votes`; both are read through `db.sweeps.trials`. A change here needs a migration in
`db/migrations/versions`, of which a test reminds.
"""

from dataclasses import fields
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
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from platform.arms.options import ArmOptions, read_options

Split = Literal["train", "tuning", "validation"]
ExperimentStatus = Literal["running", "finished", "interrupted", "failed"]
TrialStatus = Literal["pending", "running", "finished", "stopped_early", "failed"]
StudyStatus = Literal["open", "closed"]
Protocol = Literal["pair", "single"]
Phase = Literal["practice", "main"]
QuestionKind = Literal["arm", "sentinel", "real"]
Side = Literal["left", "right"]
Answer = Literal["left", "right", "real", "fake"]
InputKind = Literal["key", "click", "tap"]


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


def values_for(kind: type, row: object) -> dict[str, Any]:
    """What a row has of the fields of a dataclass, by name."""
    return {field.name: getattr(row, field.name) for field in fields(kind) if hasattr(row, field.name)}


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


class StoredDataset(Base):
    """A dataset as trained on, after caps: two datasets are the same exactly when their fingerprints are."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    fingerprint: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str]
    class_names: Mapped[list[str]] = mapped_column(JSON)
    validation_class_counts: Mapped[list[int]] = mapped_column(JSON)  # images of each class
    # What training pixels tell of colours, see `platform.color.counts.ColourCounts`; read when it is asked for.
    colour_counts: Mapped[bytes] = mapped_column(deferred=True)


class Experiment(Base):
    """One sweep: its whole resolved config, the file as written, and the storage of its checkpoints.

    jury: what a machine said of its pictures, see `platform.jury`; NULL until it was asked.
    """

    __tablename__ = "experiments"
    __table_args__ = (_one_of("status", ExperimentStatus),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[ExperimentStatus] = mapped_column(String)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id", ondelete="RESTRICT"), index=True)
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    config_yaml: Mapped[str]
    storage_path: Mapped[str]
    jury: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    dataset: Mapped[StoredDataset] = relationship(viewonly=True, lazy="joined")
    runs: Mapped[list["Run"]] = relationship(viewonly=True, lazy="selectin", order_by="Run.id")
    arms: Mapped[list["Arm"]] = relationship(viewonly=True, order_by="Arm.position, Arm.id")

    @property
    def code_versions(self) -> list[str]:
        """Of its driver's runs, the first first."""
        return list(dict.fromkeys(run.code_version for run in self.runs))


class Run(Base):
    """One run of the sweep's driver: what began an experiment or went on with it, with which code and where."""

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), index=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    code_version: Mapped[str]
    environment: Mapped[dict[str, Any]] = mapped_column(JSON)


class Driver(Base):
    """The process that drives a sweep at present, see `db.sweeps.drivers`."""

    __tablename__ = "drivers"

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment: Mapped[str] = mapped_column(unique=True)  # its name: a new one has no row yet
    host: Mapped[str]
    process: Mapped[int]  # its id there
    token: Mapped[str]  # of this start: ids of processes come again
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)  # by the database's clock


class Arm(Base):
    """What people compare. What an arm is, only `platform.arms.options` says; here are its options, as configured."""

    __tablename__ = "arms"
    __table_args__ = (
        UniqueConstraint("experiment_id", "name"),
        # The target of trials' foreign key, which keeps a trial's arm inside the trial's experiment.
        UniqueConstraint("experiment_id", "id"),
        CheckConstraint("rebalancing BETWEEN 0 AND 1", name="rebalancing"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    name: Mapped[str]
    position: Mapped[int]  # in tables
    # Of a baseline nothing is trained or tuned, and a study does not ask about it unless told to.
    baseline: Mapped[bool] = mapped_column(default=False)
    decoding: Mapped[str | None]  # how colours are read off the model, in words; NULL where it gives ab directly
    rebalancing: Mapped[float | None]  # λ, of the loss or of the decoding; NULL where it means nothing
    options: Mapped[dict[str, Any]] = mapped_column(JSON)
    centers: Mapped[list[list[float]] | None] = mapped_column(JSON(none_as_null=True))  # (Q, 2) in ab, of its palette
    # With what each measured last; `db.sweeps.trials.load_arms` reads those of all arms at once.
    trials: Mapped[list["Trial"]] = relationship(
        viewonly=True, primaryjoin="Trial.arm_id == Arm.id", foreign_keys="Trial.arm_id", order_by="Trial.number"
    )

    @property
    def choices(self) -> ArmOptions:
        return read_options(self.options)

    @property
    def best(self) -> "Trial | None":
        """The trial that stands for it, once one has finished: its first replicate, whose seed nobody chose, or without
        replicates the best, with the lowest loss on the tuning split after its last epoch, of equal ones the first."""
        finished = [trial for trial in self.trials if trial.status == "finished" and trial.last is not None]
        replicates = [trial for trial in finished if trial.replicate]
        return min(replicates[:1] or finished, key=lambda trial: (trial.loss is None, trial.loss), default=None)


class Trial(Base):
    """One training inside an arm, or one reading of it (an arm that renders another has a trial for each of that arm's,
    of the same number). A baseline has one finished trial, reported at epoch 0.

    epochs_done, images_seen and seconds are those of the trial's last report.
    """

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("arm_id", "number"),
        ForeignKeyConstraint(["experiment_id", "arm_id"], ["arms.experiment_id", "arms.id"], ondelete="CASCADE"),
        Index(None, "arm_id", "status"),
        # The target of study_arms' foreign key, which keeps a contender inside its arm and its study's experiment.
        Index(None, "experiment_id", "arm_id", "id", unique=True),
        _one_of("status", TrialStatus),
        CheckConstraint("number >= 1", name="number"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int]
    arm_id: Mapped[int]
    number: Mapped[int]  # from 1, as planned: the same number has the same seed in every arm
    hyperparameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    replicate: Mapped[bool] = mapped_column(default=False)  # of its arm's best trial, with another seed
    status: Mapped[TrialStatus] = mapped_column(String)
    failure_reason: Mapped[str | None]
    epochs_done: Mapped[int] = mapped_column(default=0)
    images_seen: Mapped[int] = mapped_column(BigInteger, default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    checkpoint: Mapped[str | None]  # folder or URL of the last report's: its weights, and where it goes on from
    arm: Mapped[Arm] = relationship(
        viewonly=True, primaryjoin="Trial.arm_id == Arm.id", foreign_keys="Trial.arm_id", lazy="joined"
    )
    last: Mapped["Report | None"] = relationship(
        viewonly=True,
        primaryjoin="and_(Report.trial_id == Trial.id, Report.epoch == Trial.epochs_done)",
        lazy="joined",
    )

    @property
    def loss(self) -> float | None:
        """On the tuning split, what trials are chosen by; None before the first epoch."""
        return None if self.last is None else self.last.loss

    def score(self, name: str, split: Split = "validation") -> float | None:
        """After its last epoch, as it is stored; None where it was not measured."""
        return None if self.last is None else self.last.scores.get(split, {}).get(name)

    def error(self, name: str) -> float | None:
        """The standard error of a score in validation, as it is stored; None where it was not measured."""
        return None if self.last is None else self.last.standard_errors.get("validation", {}).get(name)


class Report(Base):
    """What one trial measured after one epoch.

    loss: on the tuning split, what trials are chosen by. scores and standard_errors: by split, then by the score's
    name, {"validation": {"bin_accuracy": 0.23, ...}, "train": {...}}; what was undefined is left out.
    class_bin_accuracy: by split, a value or null for each class.
    """

    __tablename__ = "reports"
    __table_args__ = (
        UniqueConstraint("trial_id", "epoch"),
        CheckConstraint("epoch >= 0", name="epoch"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    epoch: Mapped[int]
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), index=True)
    images_seen: Mapped[int] = mapped_column(BigInteger)  # since the trial's beginning, as are seconds
    seconds: Mapped[float]
    device: Mapped[str]
    loss: Mapped[float | None]
    scores: Mapped[dict[str, dict[str, float]]] = mapped_column(JSON)
    standard_errors: Mapped[dict[str, dict[str, float]]] = mapped_column(JSON)
    class_bin_accuracy: Mapped[dict[str, list[float | None]]] = mapped_column(JSON)


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
    """A trial's colourization of an image, as PNG bytes."""

    __tablename__ = "samples"
    __table_args__ = (UniqueConstraint("trial_id", "image_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id", ondelete="CASCADE"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="RESTRICT"), index=True)
    epoch: Mapped[int]
    png: Mapped[bytes]
    scores: Mapped[dict[str, float]] = mapped_column(JSON)  # of this picture, by name
    segments_png: Mapped[bytes | None]  # what the model divides the picture into, see `platform.arms.segments`


class Study(Base):
    """A survey of one experiment, hence of one dataset. Triggers (see `db.triggers`) refuse to change any column but
    status and closed_at, and to change its contenders once somebody takes part.

    exposure_ms: null shows until answered. exclusion_rule: which participants an analysis of the attentive leaves out,
    fixed here beforehand (see `db.surveys.answers.ExclusionRule`). id_parameter: of the link, by which a recruiting
    system tells its participants apart. blinded: outcomes stay hidden until planned_participants have finished or the
    study is closed (see `db.surveys.answers`).
    """

    __tablename__ = "studies"
    __table_args__ = (
        # The target of study_arms' foreign key, which keeps contenders inside the study's experiment.
        UniqueConstraint("experiment_id", "id"),
        _one_of("status", StudyStatus),
        _one_of("protocol", Protocol),
        CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_at"),
        CheckConstraint("question_count >= 1", name="question_count"),
        CheckConstraint("practice_count >= 0", name="practice_count"),
        CheckConstraint("sentinel_count BETWEEN 0 AND question_count", name="sentinel_count"),
        CheckConstraint("planned_participants >= 1", name="planned_participants"),
        CheckConstraint("exposure_ms > 0", name="exposure_ms"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    status: Mapped[StudyStatus] = mapped_column(String)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="RESTRICT"))
    protocol: Mapped[Protocol] = mapped_column(String)
    question_count: Mapped[int]
    practice_count: Mapped[int]
    sentinel_count: Mapped[int]
    exposure_ms: Mapped[int | None]
    seed: Mapped[int] = mapped_column(BigInteger)
    planned_participants: Mapped[int]
    exclusion_rule: Mapped[dict[str, Any]] = mapped_column(JSON)
    consent_version: Mapped[str]
    completion_url: Mapped[str | None]
    blinded: Mapped[bool]
    id_parameter: Mapped[str]
    experiment: Mapped[Experiment] = relationship(viewonly=True)


class StudyArm(Base):
    """A contender: the trial that stands for its arm in a study."""

    __tablename__ = "study_arms"
    __table_args__ = (
        UniqueConstraint("study_id", "arm_id"),
        UniqueConstraint("study_id", "position"),
        # The target of questions' foreign key, which keeps a question's contender inside the question's study.
        UniqueConstraint("study_id", "id"),
        ForeignKeyConstraint(
            ["experiment_id", "study_id"], ["studies.experiment_id", "studies.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["experiment_id", "arm_id", "trial_id"],
            ["trials.experiment_id", "trials.arm_id", "trials.id"],
            ondelete="RESTRICT",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int]
    experiment_id: Mapped[int]
    arm_id: Mapped[int]
    trial_id: Mapped[int]
    position: Mapped[int]


class SentinelPicture(Base):
    """A photograph of a study with colours that do not belong to it, as PNG bytes: who looks sees it.

    A study has one for each of its images; they are the images that it may show.
    """

    __tablename__ = "sentinel_pictures"
    __table_args__ = (UniqueConstraint("study_id", "image_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="RESTRICT"), index=True)
    png: Mapped[bytes]


class Participant(Base):
    """Somebody who consented; deleting the row deletes their questions and votes.

    token_hash: hexadecimal SHA-256 of their token. pseudonym: how exports call them. seed and tally: all that their
    schedule was drawn from (see `db.surveys.schedule`). finished_at: their last main answer. check:
    answers and flags of the display check. external_id, external_session_id, external_study_id: what the link of a
    recruiting system said (Prolific's PROLIFIC_PID, SESSION_ID and STUDY_ID).
    """

    __tablename__ = "participants"
    __table_args__ = (
        UniqueConstraint("study_id", "pseudonym"),
        UniqueConstraint("study_id", "external_id"),
        # The target of questions' foreign key, which keeps a question inside its participant's study.
        UniqueConstraint("study_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id", ondelete="RESTRICT"))
    token_hash: Mapped[str] = mapped_column(unique=True)
    completion_code: Mapped[str] = mapped_column(unique=True)
    pseudonym: Mapped[str]
    simulated: Mapped[bool]
    seed: Mapped[int] = mapped_column(BigInteger)
    tally: Mapped[dict[str, Any]] = mapped_column(JSON)
    consent_version: Mapped[str]
    consented_at: Mapped[datetime] = mapped_column(UtcDateTime)
    instructions_done_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    check: Mapped[dict[str, Any] | None] = mapped_column("display_check", JSON(none_as_null=True))
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    external_id: Mapped[str | None]
    external_session_id: Mapped[str | None]
    external_study_id: Mapped[str | None]


class Question(Base):
    """One question of a participant's schedule, in the order of `position`, practice first.

    kind: what it is about, a contender's sample, a sentinel, or (protocol single) the true photograph itself.
    real_side: where the photograph stands in a pair.
    """

    __tablename__ = "questions"
    __table_args__ = (
        UniqueConstraint("participant_id", "position"),
        UniqueConstraint("participant_id", "image_id"),
        ForeignKeyConstraint(
            ["study_id", "participant_id"], ["participants.study_id", "participants.id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["study_id", "study_arm_id"], ["study_arms.study_id", "study_arms.id"], ondelete="RESTRICT"
        ),
        _one_of("phase", Phase),
        _one_of("kind", QuestionKind),
        _one_of("real_side", Side),
        CheckConstraint(
            "(kind = 'arm') = (study_arm_id IS NOT NULL) AND (kind = 'arm') = (sample_id IS NOT NULL)", name="arm"
        ),
        CheckConstraint("(kind = 'sentinel') = (sentinel_picture_id IS NOT NULL)", name="sentinel"),
        CheckConstraint("kind <> 'real' OR real_side IS NULL", name="real"),
        Index(None, "study_id", "phase"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int]
    participant_id: Mapped[int]
    public_id: Mapped[str] = mapped_column(unique=True)
    position: Mapped[int]
    phase: Mapped[Phase] = mapped_column(String)
    kind: Mapped[QuestionKind] = mapped_column(String)
    study_arm_id: Mapped[int | None] = mapped_column(index=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="RESTRICT"), index=True)
    sample_id: Mapped[int | None] = mapped_column(ForeignKey("samples.id", ondelete="RESTRICT"), index=True)
    sentinel_picture_id: Mapped[int | None] = mapped_column(
        ForeignKey("sentinel_pictures.id", ondelete="RESTRICT"), index=True
    )
    real_side: Mapped[Side | None] = mapped_column(String)

    @property
    def right_answer(self) -> Answer:
        return self.real_side or ("real" if self.kind == "real" else "fake")


class Vote(Base):
    """The answer to a question; the unique key on question_id refuses a second one.

    answer: the side taken for the photograph (pair), or what the picture was taken for (single). correct: whether that
    is so. response_time_ms, exposure_measured_ms and device_pixel_ratio are the browser's; scale: screen pixels per
    pixel of the picture. flags: what an analysis may want to leave out, such as "hidden" (the page was out of sight
    while the pictures were on show).
    """

    __tablename__ = "votes"
    __table_args__ = (
        _one_of("answer", Answer),
        _one_of("input", InputKind),
        CheckConstraint("response_time_ms >= 0", name="response_time_ms"),
        CheckConstraint("exposure_measured_ms >= 0", name="exposure_measured_ms"),
        CheckConstraint("scale >= 1", name="scale"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    question_id: Mapped[int] = mapped_column(ForeignKey("questions.id", ondelete="CASCADE"), unique=True)
    answered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    answer: Mapped[Answer] = mapped_column(String)
    correct: Mapped[bool]
    response_time_ms: Mapped[float]
    exposure_measured_ms: Mapped[float | None]
    input: Mapped[InputKind] = mapped_column(String)
    scale: Mapped[int]
    device_pixel_ratio: Mapped[float | None]
    flags: Mapped[list[str]] = mapped_column(JSON)
