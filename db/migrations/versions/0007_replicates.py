"""Trials that repeat their arm's best one with another seed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("trials", sa.Column("replicate", sa.Boolean, nullable=False, server_default=sa.false()))
