"""The first schema: everything that `db.schema` describes, and the triggers that keep a study as it is."""

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None


def upgrade() -> None:
    _sweeps()
    _pictures_and_studies()
    _participants()
    create_triggers()


def _sweeps() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("class_names", sa.JSON, nullable=False),
        sa.Column("train_count", sa.Integer, nullable=False),
        sa.Column("tuning_count", sa.Integer, nullable=False),
        sa.Column("validation_count", sa.Integer, nullable=False),
        sa.Column("validation_class_counts", sa.JSON, nullable=False),
        sa.Column("colour_counts", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("fingerprint", name="uq_datasets_fingerprint"),
    )
    op.create_table(
        "experiments",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("dataset_id", sa.Integer, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("config_yaml", sa.String, nullable=False),
        sa.Column("profile", sa.String),
        sa.Column("storage_path", sa.String, nullable=False),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'interrupted', 'failed')", name=op.f("ck_experiments_status")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_experiments_dataset_id", ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint("name", name="uq_experiments_name"),
    )
    op.create_index("ix_experiments_dataset_id", "experiments", ["dataset_id"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code_version", sa.String, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_runs_experiment_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_experiment_id", "runs", ["experiment_id"])
    op.create_table(
        "arms",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("baseline", sa.Boolean, nullable=False),
        sa.Column("rebalancing", sa.Double),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("centers", sa.JSON),
        sa.CheckConstraint("rebalancing BETWEEN 0 AND 1", name=op.f("ck_arms_rebalancing")),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_arms_experiment_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_arms"),
        sa.UniqueConstraint("experiment_id", "id", name="uq_arms_experiment_id_id"),
        sa.UniqueConstraint("experiment_id", "name", name="uq_arms_experiment_id_name"),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("arm_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("hyperparameters", sa.JSON, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("failure_reason", sa.String),
        sa.Column("epochs_done", sa.Integer, nullable=False),
        sa.Column("images_seen", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("checkpoint", sa.String),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'finished', 'stopped_early', 'failed')", name=op.f("ck_trials_status")
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_trials_number")),
        sa.ForeignKeyConstraint(
            ["experiment_id", "arm_id"],
            ["arms.experiment_id", "arms.id"],
            name="fk_trials_experiment_id_arm_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("arm_id", "number", name="uq_trials_arm_id_number"),
    )
    op.create_index("ix_trials_arm_id_status", "trials", ["arm_id", "status"])
    op.create_index("ix_trials_experiment_id_arm_id_id", "trials", ["experiment_id", "arm_id", "id"], unique=True)
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("images_seen", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("loss", sa.Double),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.Column("standard_errors", sa.JSON, nullable=False),
        sa.Column("class_bin_accuracy", sa.JSON, nullable=False),
        sa.CheckConstraint("epoch >= 0", name=op.f("ck_reports_epoch")),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_reports_run_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_reports_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
        sa.UniqueConstraint("trial_id", "epoch", name="uq_reports_trial_id_epoch"),
    )
    op.create_index("ix_reports_run_id", "reports", ["run_id"])


def _pictures_and_studies() -> None:
    op.create_table(
        "images",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("dataset_id", sa.Integer, nullable=False),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("index_in_split", sa.Integer, nullable=False),
        sa.Column("class_index", sa.Integer, nullable=False),
        sa.Column("truth_png", sa.LargeBinary, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.CheckConstraint("split IN ('train', 'tuning', 'validation')", name=op.f("ck_images_split")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_images_dataset_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("dataset_id", "split", "index_in_split", name="uq_images_dataset_id_split_index_in_split"),
    )
    op.create_table(
        "samples",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("image_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("decoding", sa.String),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.Column("scores", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_samples_image_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_samples_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("trial_id", "image_id", name="uq_samples_trial_id_image_id"),
    )
    op.create_index("ix_samples_image_id", "samples", ["image_id"])
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("protocol", sa.String, nullable=False),
        sa.Column("question_count", sa.Integer, nullable=False),
        sa.Column("practice_count", sa.Integer, nullable=False),
        sa.Column("sentinel_count", sa.Integer, nullable=False),
        sa.Column("exposure_ms", sa.Integer),
        sa.Column("resampling", sa.String, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("planned_participants", sa.Integer, nullable=False),
        sa.Column("exclusion_rule", sa.JSON, nullable=False),
        sa.Column("consent_version", sa.String, nullable=False),
        sa.Column("completion_url", sa.String),
        sa.Column("blinded", sa.Boolean, nullable=False),
        sa.Column("id_parameter", sa.String, nullable=False),
        sa.CheckConstraint("(status = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_studies_closed_at")),
        sa.CheckConstraint("protocol IN ('pair', 'single')", name=op.f("ck_studies_protocol")),
        sa.CheckConstraint("resampling IN ('nearest', 'lanczos')", name=op.f("ck_studies_resampling")),
        sa.CheckConstraint("status IN ('open', 'closed')", name=op.f("ck_studies_status")),
        sa.CheckConstraint("exposure_ms > 0", name=op.f("ck_studies_exposure_ms")),
        sa.CheckConstraint("planned_participants >= 1", name=op.f("ck_studies_planned_participants")),
        sa.CheckConstraint("practice_count >= 0", name=op.f("ck_studies_practice_count")),
        sa.CheckConstraint("question_count >= 1", name=op.f("ck_studies_question_count")),
        sa.CheckConstraint("sentinel_count BETWEEN 0 AND question_count", name=op.f("ck_studies_sentinel_count")),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_studies_experiment_id", ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("experiment_id", "id", name="uq_studies_experiment_id_id"),
        sa.UniqueConstraint("name", name="uq_studies_name"),
    )
    op.create_table(
        "study_arms",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("arm_id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id", "arm_id", "trial_id"],
            ["trials.experiment_id", "trials.arm_id", "trials.id"],
            name="fk_study_arms_experiment_id_arm_id_trial_id",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["experiment_id", "study_id"],
            ["studies.experiment_id", "studies.id"],
            name="fk_study_arms_experiment_id_study_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_study_arms"),
        sa.UniqueConstraint("study_id", "arm_id", name="uq_study_arms_study_id_arm_id"),
        sa.UniqueConstraint("study_id", "id", name="uq_study_arms_study_id_id"),
        sa.UniqueConstraint("study_id", "position", name="uq_study_arms_study_id_position"),
    )
    op.create_table(
        "sentinel_pictures",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("image_id", sa.Integer, nullable=False),
        sa.Column("donor_image_id", sa.Integer, nullable=False),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.ForeignKeyConstraint(
            ["donor_image_id"], ["images.id"], name="fk_sentinel_pictures_donor_image_id", ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_sentinel_pictures_image_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_sentinel_pictures_study_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_sentinel_pictures"),
        sa.UniqueConstraint("study_id", "image_id", name="uq_sentinel_pictures_study_id_image_id"),
    )
    op.create_index("ix_sentinel_pictures_donor_image_id", "sentinel_pictures", ["donor_image_id"])
    op.create_index("ix_sentinel_pictures_image_id", "sentinel_pictures", ["image_id"])


def _participants() -> None:
    op.create_table(
        "participants",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("token_hash", sa.String, nullable=False),
        sa.Column("completion_code", sa.String, nullable=False),
        sa.Column("pseudonym", sa.String, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("tally", sa.JSON, nullable=False),
        sa.Column("consent_version", sa.String, nullable=False),
        sa.Column("consented_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("instructions_done_at", sa.DateTime(timezone=True)),
        sa.Column("display_check", sa.JSON),
        sa.Column("break_taken_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("comment", sa.String),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("external_id", sa.String),
        sa.Column("external_session_id", sa.String),
        sa.Column("external_study_id", sa.String),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_participants_study_id", ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name="pk_participants"),
        sa.UniqueConstraint("completion_code", name="uq_participants_completion_code"),
        sa.UniqueConstraint("study_id", "external_id", name="uq_participants_study_id_external_id"),
        sa.UniqueConstraint("study_id", "id", name="uq_participants_study_id_id"),
        sa.UniqueConstraint("study_id", "pseudonym", name="uq_participants_study_id_pseudonym"),
        sa.UniqueConstraint("token_hash", name="uq_participants_token_hash"),
    )
    op.create_table(
        "questions",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("participant_id", sa.Integer, nullable=False),
        sa.Column("public_id", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("phase", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("study_arm_id", sa.Integer),
        sa.Column("image_id", sa.Integer, nullable=False),
        sa.Column("sample_id", sa.Integer),
        sa.Column("sentinel_picture_id", sa.Integer),
        sa.Column("real_side", sa.String),
        sa.CheckConstraint(
            "(kind = 'arm') = (study_arm_id IS NOT NULL) AND (kind = 'arm') = (sample_id IS NOT NULL)",
            name=op.f("ck_questions_arm"),
        ),
        sa.CheckConstraint(
            "(kind = 'sentinel') = (sentinel_picture_id IS NOT NULL)", name=op.f("ck_questions_sentinel")
        ),
        sa.CheckConstraint("kind <> 'real' OR real_side IS NULL", name=op.f("ck_questions_real")),
        sa.CheckConstraint("kind IN ('arm', 'sentinel', 'real')", name=op.f("ck_questions_kind")),
        sa.CheckConstraint("phase IN ('practice', 'main')", name=op.f("ck_questions_phase")),
        sa.CheckConstraint("real_side IN ('left', 'right')", name=op.f("ck_questions_real_side")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_questions_image_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_questions_sample_id", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(
            ["sentinel_picture_id"],
            ["sentinel_pictures.id"],
            name="fk_questions_sentinel_picture_id",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["study_id", "participant_id"],
            ["participants.study_id", "participants.id"],
            name="fk_questions_study_id_participant_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["study_id", "study_arm_id"],
            ["study_arms.study_id", "study_arms.id"],
            name="fk_questions_study_id_study_arm_id",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_questions"),
        sa.UniqueConstraint("participant_id", "image_id", name="uq_questions_participant_id_image_id"),
        sa.UniqueConstraint("participant_id", "position", name="uq_questions_participant_id_position"),
        sa.UniqueConstraint("public_id", name="uq_questions_public_id"),
    )
    op.create_index("ix_questions_image_id", "questions", ["image_id"])
    op.create_index("ix_questions_sample_id", "questions", ["sample_id"])
    op.create_index("ix_questions_sentinel_picture_id", "questions", ["sentinel_picture_id"])
    op.create_index("ix_questions_study_arm_id", "questions", ["study_arm_id"])
    op.create_index("ix_questions_study_id_phase", "questions", ["study_id", "phase"])
    op.create_table(
        "votes",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("question_id", sa.Integer, nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.String, nullable=False),
        sa.Column("correct", sa.Boolean, nullable=False),
        sa.Column("response_time_ms", sa.Double, nullable=False),
        sa.Column("exposure_measured_ms", sa.Double),
        sa.Column("input", sa.String, nullable=False),
        sa.Column("scale", sa.Integer, nullable=False),
        sa.Column("device_pixel_ratio", sa.Double),
        sa.Column("flags", sa.JSON, nullable=False),
        sa.CheckConstraint("answer IN ('left', 'right', 'real', 'fake')", name=op.f("ck_votes_answer")),
        sa.CheckConstraint("input IN ('key', 'click', 'tap')", name=op.f("ck_votes_input")),
        sa.CheckConstraint("exposure_measured_ms >= 0", name=op.f("ck_votes_exposure_measured_ms")),
        sa.CheckConstraint("response_time_ms >= 0", name=op.f("ck_votes_response_time_ms")),
        sa.CheckConstraint("scale >= 1", name=op.f("ck_votes_scale")),
        sa.ForeignKeyConstraint(["question_id"], ["questions.id"], name="fk_votes_question_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_votes"),
        sa.UniqueConstraint("question_id", name="uq_votes_question_id"),
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
