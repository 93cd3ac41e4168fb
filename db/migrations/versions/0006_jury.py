"""What the machine jury said of an experiment, see `platform.jury`."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("experiments", sa.Column("jury", sa.JSON))
