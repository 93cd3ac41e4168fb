"""Trials whose weights were trained in the sweep before."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("trials", sa.Column("trained_in", sa.String))
