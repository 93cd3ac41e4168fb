"""Pictures of segments beside samples, see `platform.segments`."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("samples", sa.Column("segments_png", sa.LargeBinary))
