"""The first schema: everything that `db.schema` describes, and the triggers that keep a study as it is.

Constraints have the names that the naming convention of `db.schema` gives them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"  # what development made until 0003 is not read any more
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _datasets_and_experiments()
    _arms_and_trials()
    _pictures()
    _studies()
    _participants()
    _questions_and_votes()
    create_triggers()


def _column(name: str, kind: Any, *constraints: Any, null: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, *constraints, nullable=null, **options)


def _datasets_and_experiments() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("name", sa.String),
        _column("fingerprint", sa.String, unique=True),
        _column("note", sa.String),
        _column("class_names", sa.JSON),
        _column("train_count", sa.Integer),
        _column("tuning_count", sa.Integer),
        _column("validation_count", sa.Integer),
        _column("validation_class_counts", sa.JSON),
        _column("colour_counts", sa.LargeBinary),
    )
    op.create_table(
        "experiments",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("name", sa.String, unique=True),
        _column("created_at", MOMENT),
        _column("finished_at", MOMENT, null=True),
        _column("status", sa.String),
        _column("dataset_id", sa.Integer, sa.ForeignKey("datasets.id", ondelete="RESTRICT"), index=True),
        _column("config", sa.JSON),
        _column("config_yaml", sa.String),
        _column("profile", sa.String, null=True),
        _column("storage_path", sa.String),
        sa.CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", name="status"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("experiment_id", sa.Integer, sa.ForeignKey("experiments.id", ondelete="CASCADE"), index=True),
        _column("started_at", MOMENT),
        _column("code_version", sa.String),
        _column("environment", sa.JSON),
    )


def _arms_and_trials() -> None:
    op.create_table(
        "arms",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("experiment_id", sa.Integer, sa.ForeignKey("experiments.id", ondelete="CASCADE")),
        _column("name", sa.String),
        _column("position", sa.Integer),
        _column("baseline", sa.Boolean),
        _column("rebalancing", sa.Double, null=True),
        _column("options", sa.JSON),
        _column("centers", sa.JSON, null=True),
        sa.CheckConstraint("rebalancing BETWEEN 0 AND 1", name="rebalancing"),
        sa.UniqueConstraint("experiment_id", "id"),
        sa.UniqueConstraint("experiment_id", "name"),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("experiment_id", sa.Integer),
        _column("arm_id", sa.Integer),
        _column("number", sa.Integer),
        _column("hyperparameters", sa.JSON),
        _column("seed", sa.BigInteger),
        _column("status", sa.String),
        _column("failure_reason", sa.String, null=True),
        _column("epochs_done", sa.Integer),
        _column("images_seen", sa.BigInteger),
        _column("seconds", sa.Double),
        _column("checkpoint", sa.String, null=True),
        _column("started_at", MOMENT, null=True),
        _column("ended_at", MOMENT, null=True),
        sa.CheckConstraint("status IN ('pending', 'running', 'finished', 'stopped_early', 'failed')", name="status"),
        sa.CheckConstraint("number >= 1", name="number"),
        sa.ForeignKeyConstraint(["experiment_id", "arm_id"], ["arms.experiment_id", "arms.id"], ondelete="CASCADE"),
        sa.UniqueConstraint("arm_id", "number"),
        sa.Index(None, "arm_id", "status"),
        sa.Index(None, "experiment_id", "arm_id", "id", unique=True),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("trial_id", sa.Integer, sa.ForeignKey("trials.id", ondelete="CASCADE")),
        _column("epoch", sa.Integer),
        _column("run_id", sa.Integer, sa.ForeignKey("runs.id", ondelete="CASCADE"), index=True),
        _column("images_seen", sa.BigInteger),
        _column("seconds", sa.Double),
        _column("device", sa.String),
        _column("loss", sa.Double, null=True),
        _column("scores", sa.JSON),
        _column("standard_errors", sa.JSON),
        _column("class_bin_accuracy", sa.JSON),
        sa.CheckConstraint("epoch >= 0", name="epoch"),
        sa.UniqueConstraint("trial_id", "epoch"),
    )


def _pictures() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("dataset_id", sa.Integer, sa.ForeignKey("datasets.id", ondelete="CASCADE")),
        _column("split", sa.String),
        _column("index_in_split", sa.Integer),
        _column("class_index", sa.Integer),
        _column("truth_png", sa.LargeBinary),
        _column("width", sa.Integer),
        _column("height", sa.Integer),
        sa.CheckConstraint("split IN ('train', 'tuning', 'validation')", name="split"),
        sa.UniqueConstraint("dataset_id", "split", "index_in_split"),
    )
    op.create_table(
        "samples",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("trial_id", sa.Integer, sa.ForeignKey("trials.id", ondelete="CASCADE")),
        _column("image_id", sa.Integer, sa.ForeignKey("images.id", ondelete="RESTRICT"), index=True),
        _column("epoch", sa.Integer),
        _column("decoding", sa.String, null=True),
        _column("png", sa.LargeBinary),
        _column("scores", sa.JSON),
        sa.UniqueConstraint("trial_id", "image_id"),
    )


def _studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("name", sa.String, unique=True),
        _column("created_at", MOMENT),
        _column("closed_at", MOMENT, null=True),
        _column("status", sa.String),
        _column("experiment_id", sa.Integer, sa.ForeignKey("experiments.id", ondelete="RESTRICT")),
        _column("protocol", sa.String),
        _column("question_count", sa.Integer),
        _column("practice_count", sa.Integer),
        _column("sentinel_count", sa.Integer),
        _column("exposure_ms", sa.Integer, null=True),
        _column("resampling", sa.String),
        _column("seed", sa.BigInteger),
        _column("planned_participants", sa.Integer),
        _column("exclusion_rule", sa.JSON),
        _column("consent_version", sa.String),
        _column("completion_url", sa.String, null=True),
        _column("blinded", sa.Boolean),
        _column("id_parameter", sa.String),
        sa.CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name="closed_at"),
        sa.CheckConstraint("protocol IN ('pair', 'single')", name="protocol"),
        sa.CheckConstraint("resampling IN ('nearest', 'lanczos')", name="resampling"),
        sa.CheckConstraint("status IN ('open', 'closed')", name="status"),
        sa.CheckConstraint("exposure_ms > 0", name="exposure_ms"),
        sa.CheckConstraint("planned_participants >= 1", name="planned_participants"),
        sa.CheckConstraint("practice_count >= 0", name="practice_count"),
        sa.CheckConstraint("question_count >= 1", name="question_count"),
        sa.CheckConstraint("sentinel_count BETWEEN 0 AND question_count", name="sentinel_count"),
        sa.UniqueConstraint("experiment_id", "id"),
    )
    op.create_table(
        "study_arms",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("study_id", sa.Integer),
        _column("experiment_id", sa.Integer),
        _column("arm_id", sa.Integer),
        _column("trial_id", sa.Integer),
        _column("position", sa.Integer),
        sa.ForeignKeyConstraint(
            ["experiment_id", "arm_id", "trial_id"],
            ["trials.experiment_id", "trials.arm_id", "trials.id"],
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id", "study_id"], ["studies.experiment_id", "studies.id"], ondelete="CASCADE"
        ),
        sa.UniqueConstraint("study_id", "arm_id"),
        sa.UniqueConstraint("study_id", "id"),
        sa.UniqueConstraint("study_id", "position"),
    )
    op.create_table(
        "sentinel_pictures",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("study_id", sa.Integer, sa.ForeignKey("studies.id", ondelete="CASCADE")),
        _column("image_id", sa.Integer, sa.ForeignKey("images.id", ondelete="RESTRICT"), index=True),
        _column("donor_image_id", sa.Integer, sa.ForeignKey("images.id", ondelete="RESTRICT"), index=True),
        _column("png", sa.LargeBinary),
        sa.UniqueConstraint("study_id", "image_id"),
    )


def _participants() -> None:
    op.create_table(
        "participants",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("study_id", sa.Integer, sa.ForeignKey("studies.id", ondelete="RESTRICT")),
        _column("token_hash", sa.String, unique=True),
        _column("completion_code", sa.String, unique=True),
        _column("pseudonym", sa.String),
        _column("simulated", sa.Boolean),
        _column("seed", sa.BigInteger),
        _column("tally", sa.JSON),
        _column("consent_version", sa.String),
        _column("consented_at", MOMENT),
        _column("instructions_done_at", MOMENT, null=True),
        _column("display_check", sa.JSON, null=True),
        _column("break_taken_at", MOMENT, null=True),
        _column("finished_at", MOMENT, null=True),
        _column("comment", sa.String, null=True),
        _column("ended_at", MOMENT, null=True),
        _column("external_id", sa.String, null=True),
        _column("external_session_id", sa.String, null=True),
        _column("external_study_id", sa.String, null=True),
        sa.UniqueConstraint("study_id", "external_id"),
        sa.UniqueConstraint("study_id", "id"),
        sa.UniqueConstraint("study_id", "pseudonym"),
    )


def _questions_and_votes() -> None:
    op.create_table(
        "questions",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("study_id", sa.Integer),
        _column("participant_id", sa.Integer),
        _column("public_id", sa.String, unique=True),
        _column("position", sa.Integer),
        _column("phase", sa.String),
        _column("kind", sa.String),
        _column("study_arm_id", sa.Integer, index=True, null=True),
        _column("image_id", sa.Integer, sa.ForeignKey("images.id", ondelete="RESTRICT"), index=True),
        _column("sample_id", sa.Integer, sa.ForeignKey("samples.id", ondelete="RESTRICT"), index=True, null=True),
        _column(
            "sentinel_picture_id",
            sa.Integer,
            sa.ForeignKey("sentinel_pictures.id", ondelete="RESTRICT"),
            index=True,
            null=True,
        ),
        _column("real_side", sa.String, null=True),
        sa.CheckConstraint(
            "(kind = 'arm') = (study_arm_id IS NOT NULL) AND (kind = 'arm') = (sample_id IS NOT NULL)", name="arm"
        ),
        sa.CheckConstraint("(kind = 'sentinel') = (sentinel_picture_id IS NOT NULL)", name="sentinel"),
        sa.CheckConstraint("kind <> 'real' OR real_side IS NULL", name="real"),
        sa.CheckConstraint("kind IN ('arm', 'sentinel', 'real')", name="kind"),
        sa.CheckConstraint("phase IN ('practice', 'main')", name="phase"),
        sa.CheckConstraint("real_side IN ('left', 'right')", name="real_side"),
        sa.ForeignKeyConstraint(
            ["study_id", "participant_id"], ["participants.study_id", "participants.id"], ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["study_id", "study_arm_id"], ["study_arms.study_id", "study_arms.id"], ondelete="RESTRICT"
        ),
        sa.UniqueConstraint("participant_id", "image_id"),
        sa.UniqueConstraint("participant_id", "position"),
        sa.Index(None, "study_id", "phase"),
    )
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer, primary_key=True),
        _column("question_id", sa.Integer, sa.ForeignKey("questions.id", ondelete="CASCADE"), unique=True),
        _column("answered_at", MOMENT),
        _column("answer", sa.String),
        _column("correct", sa.Boolean),
        _column("response_time_ms", sa.Double),
        _column("exposure_measured_ms", sa.Double, null=True),
        _column("input", sa.String),
        _column("scale", sa.Integer),
        _column("device_pixel_ratio", sa.Double, null=True),
        _column("flags", sa.JSON),
        sa.CheckConstraint("answer IN ('left', 'right', 'real', 'fake')", name="answer"),
        sa.CheckConstraint("input IN ('key', 'click', 'tap')", name="input"),
        sa.CheckConstraint("exposure_measured_ms >= 0", name="exposure_measured_ms"),
        sa.CheckConstraint("response_time_ms >= 0", name="response_time_ms"),
        sa.CheckConstraint("scale >= 1", name="scale"),
    )


def create_triggers() -> None:
    """A study may only be closed; what it may show is fixed as soon as it has a participant; nor does a picture change
    that somebody was asked about."""
    definition = (
        "id, name, created_at, experiment_id, protocol, question_count, practice_count, sentinel_count, exposure_ms, "
        "resampling, seed, planned_participants, exclusion_rule, consent_version, completion_url, blinded, id_parameter"
    )
    only_closed = "a study can only be closed, not changed"
    in_use = "a study with participants keeps its contenders and sentinels"
    asked_about = "a picture that a survey asks about stays as it is"
    changed = "NEW.png <> OLD.png AND EXISTS (SELECT 1 FROM questions WHERE sample_id = OLD.id)"
    taking_part = "EXISTS (SELECT 1 FROM participants WHERE study_id = {row}.study_id)"
    contents = ("study_arms", "sentinel_pictures")
    rows = {"INSERT": "NEW", "UPDATE": "OLD", "DELETE": "OLD"}

    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER studies_fixed BEFORE UPDATE OF {definition} ON studies "
            f"BEGIN SELECT RAISE(ABORT, '{only_closed}'); END"
        )
        op.execute(
            f"CREATE TRIGGER samples_fixed BEFORE UPDATE OF png ON samples WHEN {changed} "
            f"BEGIN SELECT RAISE(ABORT, '{asked_about}'); END"
        )
        for table in contents:
            for event, row in rows.items():
                op.execute(
                    f"CREATE TRIGGER {table}_fixed_{event.lower()} BEFORE {event} ON {table} "
                    f"WHEN {taking_part.format(row=row)} BEGIN SELECT RAISE(ABORT, '{in_use}'); END"
                )
        return

    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION '{only_closed}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER studies_fixed BEFORE UPDATE OF {definition} ON studies "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE FUNCTION refuse_change_in_use() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF TG_OP = 'INSERT' THEN IF {taking_part.format(row='NEW')} THEN "
        f"RAISE EXCEPTION '{in_use}' USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END IF; "
        f"IF {taking_part.format(row='OLD')} THEN "
        f"RAISE EXCEPTION '{in_use}' USING ERRCODE = 'integrity_constraint_violation'; END IF; "
        "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "CREATE FUNCTION refuse_change_of_picture() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {changed} THEN "
        f"RAISE EXCEPTION '{asked_about}' USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END $$"
    )
    op.execute(
        "CREATE TRIGGER samples_fixed BEFORE UPDATE OF png ON samples "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_picture()"
    )
    for table in contents:
        op.execute(
            f"CREATE TRIGGER {table}_fixed BEFORE INSERT OR UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change_in_use()"
        )
