"""When waits give up: those of runs that are gone end by that."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from airflow_incremental.store.schema import Moment

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column. Waits that are open have none until their task looks again."""
    comment = "when its time is over, at the latest; null if a version before 0004 opened it"
    op.add_column("incremental_wait", sa.Column("gives_up_at", Moment(), nullable=True, comment=comment))
