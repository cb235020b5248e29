"""How far sessions are that are computed in chunks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_COLUMNS = {
    "chunks": "chunks or steps its work is computed in; null if at once",
    "chunks_done": "how many of them were computed when that was looked at last",
}


def upgrade() -> None:
    """Add the columns. Of sessions that are there, they are not known."""
    for name, comment in _COLUMNS.items():
        op.add_column("incremental_session", sa.Column(name, sa.Integer(), nullable=True, comment=comment))
