"""The dashboard: studies whose outcomes stay hidden until they are complete, standard errors of scores, and how many
validation images each class has."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

DEFINITION = (
    "id, name, created_at, experiment_id, protocol, question_count, practice_count, sentinel_count, exposures_ms, "
    "resampling, seed, planned_participants, exclusion_rule, consent_version, completion_url, blinded"
)


def upgrade() -> None:
    op.add_column("datasets", sa.Column("validation_class_counts", sa.JSON(none_as_null=True)))
    op.add_column("measurements", sa.Column("standard_errors", sa.JSON(none_as_null=True)))
    op.add_column("studies", sa.Column("blinded", sa.Boolean, nullable=False, server_default=sa.false()))

    # The trigger names the columns that it guards.
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER studies_fixed")
        op.execute(
            f"CREATE TRIGGER studies_fixed BEFORE UPDATE OF {DEFINITION} ON studies "
            "BEGIN SELECT RAISE(ABORT, 'a study can only be closed, not changed'); END"
        )
    else:
        op.execute("DROP TRIGGER studies_fixed ON studies")
        op.execute(
            f"CREATE TRIGGER studies_fixed BEFORE UPDATE OF {DEFINITION} ON studies "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
