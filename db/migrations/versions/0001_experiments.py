"""Experiments: datasets, experiments, arms, trials, measurements, images and samples."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("note", sa.String, nullable=False),
        sa.Column("class_names", sa.JSON, nullable=False),
        sa.Column("train_count", sa.Integer, nullable=False),
        sa.Column("validation_count", sa.Integer, nullable=False),
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
        sa.Column("decoding", sa.String, nullable=False),
        sa.Column("code_version", sa.String, nullable=False),
        sa.Column("environment", sa.JSON, nullable=False),
        sa.Column("storage_path", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint("name", name="uq_experiments_name"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_experiments_dataset_id", ondelete="RESTRICT"),
        sa.CheckConstraint(
            "status IN ('running', 'finished', 'interrupted', 'failed')", name=op.f("ck_experiments_status")
        ),
        sa.CheckConstraint("decoding IN ('mode', 'mean', 'annealed_mean')", name=op.f("ck_experiments_decoding")),
    )
    op.create_index("ix_experiments_dataset_id", "experiments", ["dataset_id"])

    op.create_table(
        "arms",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("rebalancing", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_arms"),
        sa.UniqueConstraint("experiment_id", "name", name="uq_arms_experiment_id_name"),
        sa.UniqueConstraint("experiment_id", "id", name="uq_arms_experiment_id_id"),
        sa.ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name="fk_arms_experiment_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kind IN ('regression', 'classification', 'baseline')", name=op.f("ck_arms_kind")),
        sa.CheckConstraint("rebalancing BETWEEN 0 AND 1", name=op.f("ck_arms_rebalancing")),
    )

    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("experiment_id", sa.Integer, nullable=False),
        sa.Column("arm_id", sa.Integer, nullable=False),
        sa.Column("ray_id", sa.String, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("failure_reason", sa.String),
        sa.Column("epochs_done", sa.Integer, nullable=False),
        sa.Column("images_seen", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("experiment_id", "ray_id", name="uq_trials_experiment_id_ray_id"),
        sa.ForeignKeyConstraint(
            ["experiment_id", "arm_id"],
            ["arms.experiment_id", "arms.id"],
            name="fk_trials_experiment_id_arm_id",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'finished', 'stopped_early', 'failed', 'lost')",
            name=op.f("ck_trials_status"),
        ),
    )
    op.create_index("ix_trials_arm_id_status", "trials", ["arm_id", "status"])

    op.create_table(
        "measurements",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("loss", sa.Double),
        sa.Column("exact_accuracy", sa.Double),
        sa.Column("bin_accuracy", sa.Double),
        sa.Column("balanced_bin_accuracy", sa.Double),
        sa.Column("raw_auc", sa.Double),
        sa.Column("rebalanced_auc", sa.Double),
        sa.Column("psnr_db", sa.Double),
        sa.Column("delta_e_2000", sa.Double),
        sa.Column("colourfulness_ratio", sa.Double),
        sa.Column("class_bin_accuracy", sa.JSON(none_as_null=True)),
        sa.PrimaryKeyConstraint("id", name="pk_measurements"),
        sa.UniqueConstraint("trial_id", "epoch", "split", name="uq_measurements_trial_id_epoch_split"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_measurements_trial_id", ondelete="CASCADE"),
        sa.CheckConstraint("split IN ('train', 'validation')", name=op.f("ck_measurements_split")),
        sa.CheckConstraint("epoch >= 0", name=op.f("ck_measurements_epoch")),
    )

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
        sa.PrimaryKeyConstraint("id", name="pk_images"),
        sa.UniqueConstraint("dataset_id", "split", "index_in_split", name="uq_images_dataset_id_split_index_in_split"),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_images_dataset_id", ondelete="CASCADE"),
        sa.CheckConstraint("split IN ('train', 'validation')", name=op.f("ck_images_split")),
    )

    op.create_table(
        "samples",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("image_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("decoding", sa.String),
        sa.Column("png", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("trial_id", "image_id", name="uq_samples_trial_id_image_id"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_samples_trial_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name="fk_samples_image_id", ondelete="RESTRICT"),
        sa.CheckConstraint("decoding IN ('mode', 'mean', 'annealed_mean')", name=op.f("ck_samples_decoding")),
    )
    op.create_index("ix_samples_image_id", "samples", ["image_id"])
